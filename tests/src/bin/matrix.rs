//! `matrix [--binary PATH] [--rounds N] [--fault NAME]... [--node-arg WORD]... [--keep FILE] [--page PATH]
//! --client NAME=PROGRAM[,ARGUMENT]...`: each fault with each client, on nodes in network namespaces of
//! their own; it takes the rights of root. What is kept is added to what the file has, and the page is of
//! all of that; the chart goes beside it.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ringmill_tests::matrix::fault::Fault;
use ringmill_tests::matrix::network::{Network, within_apart};
use ringmill_tests::matrix::page::{Result as Case, page};
use ringmill_tests::matrix::seen::{Seen, median_and_most};
use ringmill_tests::matrix::{Plan, chart, run};

const USAGE: &str = "usage: matrix [--binary PATH] [--rounds N] [--fault NAME]... [--node-arg WORD]... \
                     [--keep FILE] [--page PATH] --client NAME=PROGRAM[,ARGUMENT]...";

struct Asked {
    binary: PathBuf,
    rounds: usize,
    faults: Vec<Fault>,
    clients: Vec<(String, Vec<String>)>,
    node_args: Vec<String>,
    keep: Option<PathBuf>,
    page: Option<PathBuf>,
    /// The network that this process runs in the hub of.
    within: Option<String>,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        binary: "target/release/ringmill".into(),
        rounds: 1,
        faults: Vec::new(),
        clients: Vec::new(),
        node_args: Vec::new(),
        keep: None,
        page: None,
        within: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match &*name {
            "--binary" => asked.binary = value.into(),
            "--rounds" => asked.rounds = value.parse().map_err(|_| USAGE)?,
            "--fault" => asked.faults.push(value.parse()?),
            "--node-arg" => asked.node_args.push(value),
            "--keep" => asked.keep = Some(value.into()),
            "--page" => asked.page = Some(value.into()),
            "--within" => asked.within = Some(value),
            "--client" => {
                let (name, command) = value.split_once('=').ok_or(USAGE)?;
                let words = command.split(',').map(str::to_owned).collect();
                asked.clients.push((name.to_owned(), words));
            }
            _ => return Err(USAGE.into()),
        }
    }
    if asked.clients.is_empty() {
        return Err(USAGE.into());
    }
    if asked.faults.is_empty() {
        asked.faults = Fault::all().collect();
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let done = asked().and_then(|asked| match &asked.within {
        Some(prefix) => one(&asked, prefix).map(|()| 0),
        None => all(&asked),
    });
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("matrix: {failed} cases failed");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("matrix: {why}");
            ExitCode::FAILURE
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// One case, within the hub: prints what it has seen in words for [`all`].
fn one(asked: &Asked, prefix: &str) -> Result<(), String> {
    let folder = folder(prefix);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(text)?;
    let fault = asked.faults[0];
    let own = std::env::current_exe().map_err(text)?;
    let plan = Plan {
        binary: asked.binary.clone(),
        folder: folder.clone(),
        client: asked.clients[0].1.clone(),
        reader: own.with_file_name("matrix_reader"),
        fault,
        args: asked.node_args.clone(),
    };
    let seen = run(&plan, Network::of(prefix, fault.machines()))
        .map_err(|why| format!("{why}; the data is kept in {}", folder.display()))?;
    println!("{seen}");
    Ok(())
}

/// Where a case has its data.
fn folder(prefix: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ringmill-matrix-{prefix}"))
}

/// All cases, one after the other; gives how many failed.
fn all(asked: &Asked) -> Result<usize, String> {
    let mut results = match &asked.keep {
        Some(file) if file.exists() => kept(file)?,
        _ => Vec::new(),
    };
    let total = asked.rounds * asked.faults.len() * asked.clients.len();
    let (mut count, mut failed) = (0, 0);
    println!(
        "  case       fault      client      acknowledged unknown given-up  silence of what it led, others; \
         readers, others (ms)  p99 before, during (ms)"
    );
    for _ in 0..asked.rounds {
        for fault in &asked.faults {
            for (name, words) in &asked.clients {
                count += 1;
                let ended = case(asked, *fault, words, count);
                failed += usize::from(ended.is_err());
                let result = Case {
                    fault: *fault,
                    client: name.clone(),
                    ended,
                };
                println!("{count:>4}/{total:<4}  {}", shown(&result));
                if let Some(file) = &asked.keep {
                    keep(file, &result)?;
                }
                results.push(result);
            }
        }
    }
    if let Some(path) = &asked.page {
        std::fs::write(path, page(&results)).map_err(text)?;
        let drawn = chart::draw(&results)?;
        std::fs::write(path.with_file_name("matrix.svg"), drawn).map_err(text)?;
    }
    Ok(failed)
}

fn kept(file: &Path) -> Result<Vec<Case>, String> {
    let told = std::fs::read_to_string(file).map_err(text)?;
    told.lines().map(str::parse).collect()
}

fn keep(file: &Path, result: &Case) -> Result<(), String> {
    let mut options = std::fs::File::options();
    let mut file = options.create(true).append(true).open(file).map_err(text)?;
    writeln!(file, "{result}").map_err(text)
}

/// A case's line for people.
fn shown(result: &Case) -> String {
    let head = format!("{:<10} {:<11}", result.fault, result.client);
    match &result.ended {
        Err(why) => format!("{head} FAILED: {}", why.trim()),
        Ok(seen) => {
            let most = |times: &[std::time::Duration]| median_and_most(times).1;
            format!(
                "{head} {:>12} {:>7} {:>8}  {:>6} {:>6}; {:>6} {:>6}  {:>6} {:>6}",
                seen.acknowledged,
                seen.unknown,
                seen.failed,
                most(&seen.struck),
                most(&seen.others),
                most(&seen.readers_struck),
                most(&seen.readers_others),
                seen.p99_before.as_millis(),
                seen.p99_during.as_millis(),
            )
        }
    }
}

/// One case in a network of its own, by this program again within its hub.
fn case(asked: &Asked, fault: Fault, client: &[String], nth: usize) -> Result<Seen, String> {
    let prefix = format!("rm{}-{nth}", std::process::id());
    let network = Network::new(&prefix, fault.machines()).map_err(text)?;
    let own = std::env::current_exe().map_err(text)?;
    let binary = std::path::absolute(&asked.binary).map_err(text)?;
    let mut command: Command = within_apart(&network.hub(), &own);
    command
        .args(["--within", &prefix, "--fault", &fault.to_string()])
        .args(["--client", &format!("client={}", client.join(","))])
        .arg("--binary")
        .arg(binary);
    for word in &asked.node_args {
        command.args(["--node-arg", word]);
    }
    let output = command.output().map_err(text)?;
    let told = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => {
            // Only now are disks not mounted in it any more.
            std::fs::remove_dir_all(folder(&prefix)).map_err(text)?;
            told.trim_end_matches('\n').parse()
        }
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
