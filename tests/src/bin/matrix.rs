//! `matrix [--binary PATH] [--rounds N] [--fault NAME]... --client NAME=PROGRAM[,ARGUMENT]...`: each
//! fault with each client, on three nodes in network namespaces of their own; it takes the rights of
//! root.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ringmill_tests::matrix::network::{Network, within};
use ringmill_tests::matrix::{Fault, NODES, Plan, Seen, run};

const USAGE: &str = "usage: matrix [--binary PATH] [--rounds N] [--fault NAME]... \
                     --client NAME=PROGRAM[,ARGUMENT]...";

struct Asked {
    binary: PathBuf,
    rounds: usize,
    faults: Vec<Fault>,
    clients: Vec<(String, Vec<String>)>,
    /// The network that this process runs in the hub of.
    within: Option<String>,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        binary: "target/release/ringmill".into(),
        rounds: 1,
        faults: Vec::new(),
        clients: Vec::new(),
        within: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match &*name {
            "--binary" => asked.binary = value.into(),
            "--rounds" => asked.rounds = value.parse().map_err(|_| USAGE)?,
            "--fault" => asked.faults.push(value.parse()?),
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
        asked.faults = Fault::ALL.to_vec();
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("matrix: {why}");
            return ExitCode::from(2);
        }
    };
    match &asked.within {
        Some(prefix) => one(&asked, prefix),
        None => all(&asked),
    }
}

/// One case, within the hub: prints what it has seen in words for [`all`].
fn one(asked: &Asked, prefix: &str) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("ringmill-matrix-{prefix}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the temporary folder can be made");
    let plan = Plan {
        binary: asked.binary.clone(),
        folder: folder.clone(),
        client: asked.clients[0].1.clone(),
        fault: asked.faults[0],
    };
    match run(&plan, Network::of(prefix, NODES)) {
        Ok(seen) => {
            let millis = |all: &[Duration]| {
                let all = all.iter().map(|one| one.as_millis().to_string());
                all.collect::<Vec<_>>().join(",")
            };
            let (struck, others) = (millis(&seen.struck), millis(&seen.others));
            println!("{} {} {struck}; {others}", seen.acknowledged, seen.unknown);
            let _ = std::fs::remove_dir_all(&folder);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}; the data is kept in {}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn parse(line: &str) -> Option<Seen> {
    let (counts, others) = line
        .trim()
        .split_once("; ")
        .or(line.trim().split_once(';'))?;
    let mut words = counts.split(' ');
    let (acknowledged, unknown) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let millis = |text: &str| -> Vec<Duration> {
        let all = text.split(',').filter_map(|one| one.parse().ok());
        all.map(Duration::from_millis).collect()
    };
    Some(Seen {
        acknowledged,
        unknown,
        struck: millis(words.next().unwrap_or_default()),
        others: millis(others),
    })
}

fn all(asked: &Asked) -> ExitCode {
    let mut silences: BTreeMap<(String, String), Vec<Duration>> = BTreeMap::new();
    let mut failures = 0;
    println!(
        "fault      client        acknowledged unknown  longest silence of what it led, of the rest (ms)"
    );
    for round in 0..asked.rounds {
        for fault in &asked.faults {
            for (name, words) in &asked.clients {
                match case(asked, *fault, words, round) {
                    Ok(seen) => {
                        let most =
                            |all: &[Duration]| all.iter().max().map_or(0, Duration::as_millis);
                        println!(
                            "{fault:<10} {name:<13} {:>12} {:>7}  {:>6} {:>6}",
                            seen.acknowledged,
                            seen.unknown,
                            most(&seen.struck),
                            most(&seen.others)
                        );
                        let of_case = silences.entry((fault.to_string(), name.clone()));
                        of_case.or_default().extend(seen.struck);
                    }
                    Err(why) => {
                        failures += 1;
                        println!("{fault:<10} {name:<13} FAILED: {}", why.trim());
                    }
                }
            }
        }
    }
    println!("\nsilence of partitions whose leader was struck: median, most (ms)");
    for ((fault, name), mut all) in silences {
        all.sort_unstable();
        let at = |index: usize| all.get(index).map_or(0, Duration::as_millis);
        println!(
            "{fault:<10} {name:<13} {:>6} {:>6}",
            at(all.len() / 2),
            at(all.len().saturating_sub(1))
        );
    }
    println!("{failures} cases failed");
    match failures {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// One case in a network of its own, by this program again within its hub.
fn case(asked: &Asked, fault: Fault, client: &[String], round: usize) -> Result<Seen, String> {
    let prefix = format!("rm{}-{round}", std::process::id());
    let network = Network::new(&prefix, NODES).map_err(|error| error.to_string())?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = std::path::absolute(&asked.binary).map_err(|error| error.to_string())?;
    let mut command: Command = within(&network.hub(), &own);
    command
        .args(["--within", &prefix, "--fault", &fault.to_string()])
        .args(["--client", &format!("client={}", client.join(","))])
        .arg("--binary")
        .arg(binary);
    let output = command.output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => parse(&told).ok_or_else(|| format!("it told {told:?}")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
