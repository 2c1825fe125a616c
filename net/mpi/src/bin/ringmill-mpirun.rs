//! `ringmill-mpirun`: starts the ranks of an MPI job.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ringmill_mpi::launcher::{Host, Options, launch, parse_hosts};

/// Starts N ranks of a program that speaks MPI, and ends them all when one of them fails.
#[derive(Debug, Parser)]
#[command(name = "ringmill-mpirun", version)]
struct Arguments {
    /// How many ranks.
    #[arg(short = 'n', long = "ranks", value_name = "N", default_value_t = 1)]
    ranks: usize,
    /// Where, as `ADDRESS[:SLOTS],…`; ranks on different hosts talk by TCP.
    #[arg(long, value_name = "HOSTS")]
    host: Option<String>,
    /// TCP between all ranks, those of one host too.
    #[arg(long)]
    only_tcp: bool,
    /// A folder for what ranks write, each into a file of its own.
    #[arg(long, value_name = "FOLDER")]
    output: Option<std::path::PathBuf>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    program: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((message, code)) => {
            eprintln!("ringmill-mpirun: {message}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: Arguments) -> Result<(), (String, u8)> {
    let hosts: Vec<Host> = match &arguments.host {
        Some(list) => parse_hosts(list).map_err(|error| (error.to_string(), 2))?,
        None => Vec::new(),
    };
    if arguments.ranks == 0 || arguments.ranks > ringmill_mpi::job::RANKS_MAX {
        return Err(("the number of ranks is out of range".into(), 2));
    }
    let options = Options {
        ranks: arguments.ranks,
        hosts,
        program: arguments.program,
        only_tcp: arguments.only_tcp,
        output: arguments.output,
    };
    launch(&options).map_err(|failure| (failure.to_string(), failure.code()))
}
