//! Faults × clients on real nodes in network namespaces: builds what it takes, and runs `matrix`.

use std::path::{Path, PathBuf};

use crate::clients::{harness_python, java_programs};
use crate::process::{Failure, apt_install, cargo, root, run, succeeds, target_dir};

/// The fault that takes libfaketime.
const CLOCKS: &str = "clocks";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each fault meets each client
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Faults, instead of all: kill, shutdown, pause, isolation, mute, deaf, split, roll, full, power-cut,
    /// blackout, clocks, emptied, replaced, pair, grown
    #[arg(long)]
    fault: Vec<String>,
    /// Clients, instead of all
    #[arg(long, value_enum)]
    client: Vec<Client>,
    /// Further arguments of the nodes, such as --log-durability=relaxed
    #[arg(long, allow_hyphen_values = true)]
    node_arg: Vec<String>,
    /// Build and run without optimization
    #[arg(long)]
    debug: bool,
    /// Add each case to this file; the page is of all cases in it
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Write docs/MATRIX.md and its chart
    #[arg(long)]
    page: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Client {
    /// Ours
    Ringmill,
    /// confluent-kafka
    Librdkafka,
    /// Kafka's own
    Java,
}

impl Client {
    const ALL: [Self; 3] = [Self::Ringmill, Self::Librdkafka, Self::Java];

    /// Its name and the words of its command; our own programs are in `programs`.
    fn command(self, programs: &Path) -> Result<String, Failure> {
        Ok(match self {
            Self::Ringmill => format!("ringmill={}", programs.join("load").display()),
            Self::Librdkafka => {
                let (python, script) = (harness_python()?, root().join("tests/matrix/load.py"));
                format!("librdkafka={},{}", python.display(), script.display())
            }
            Self::Java => format!("java=java,-cp,{},Load", java_programs()?),
        })
    }
}

/// Runs the cases that the arguments name.
pub(crate) fn matrix(args: &Args) -> Result<(), Failure> {
    let (profile, folder) = match args.debug {
        true => ("dev", "debug"),
        false => ("release", "release"),
    };
    for package in ["ringmill", "ringmill-tests"] {
        let words = ["build", "--profile", profile, "--bins", "-p", package];
        run(cargo().args(words))?;
    }
    let has_clocks = args.fault.is_empty() || args.fault.iter().any(|fault| fault == CLOCKS);
    if has_clocks && !succeeds("dpkg", &["-s", "libfaketime"]) {
        apt_install(&["libfaketime"])?;
    }
    let programs = target_dir().join(folder);
    let mut command = std::process::Command::new(programs.join("matrix"));
    command
        .arg("--binary")
        .arg(programs.join("ringmill"))
        .args(["--rounds", &args.rounds.to_string()]);
    for fault in &args.fault {
        command.args(["--fault", fault]);
    }
    for word in &args.node_arg {
        command.args(["--node-arg", word]);
    }
    if let Some(file) = &args.keep {
        command.arg("--keep").arg(file);
    }
    if args.page {
        command.arg("--page").arg(root().join("docs/MATRIX.md"));
    }
    let clients = match args.client.is_empty() {
        true => Client::ALL.to_vec(),
        false => args.client.clone(),
    };
    for client in clients {
        command.arg("--client").arg(client.command(&programs)?);
    }
    run(&mut command)
}
