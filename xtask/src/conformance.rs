//! Unmodified Kafka clients against a broker: starts one, runs each client's script, prints the
//! table client × feature.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::broker::{Broker, Build};
use crate::clients::{CLIENTS, Client, Ready, harness_python};
use crate::mover::Mover;
use crate::peer::{KAFKA_VERSION, RunningKafka};
use crate::process::{Failure, root, run, run_within, target_dir};
use crate::report::{Outcome, compatibility, matrix, read};

/// NRL's libnorm is no client of a broker: it speaks with our multicast, if it is named.
const NORM: &str = "norm";

/// No client's script may run longer, beside what was asked for: each of its steps has a deadline of
/// its own.
const CLIENT_LIMIT: Duration = Duration::from_secs(600);

/// `churn` has so many parts: the two protocols, and two assignors of the classic one.
const CHURNS: u32 = 3;

/// A new coordinator begins to wait for each member anew, and where one comes every ten seconds, a
/// member that was killed is never missed within 45 s, the default.
const SOON_MISSED: [&str; 2] = [
    "--group-consumer-min-session-timeout-ms=6000",
    "--group-consumer-session-timeout-ms=6000",
];

/// How often leaders move in a cluster.
const MOVE_EVERY: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which clients; all if none is named
    #[arg(value_parser = names())]
    clients: Vec<String>,
    /// Test a broker that already runs instead of starting ours
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Nodes of ours; with more than one, topics have three copies and their leaders move every ten
    /// seconds
    #[arg(long, default_value_t = 1, conflicts_with = "bootstrap")]
    nodes: usize,
    /// Run the same against Apache Kafka, installed from its own registry, and tell the differences
    #[arg(long, conflicts_with_all = ["bootstrap", "nodes"])]
    oracle: bool,
    /// Records of the long ordered run
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// The broker's build
    #[arg(long, value_enum, default_value_t = Build::Release)]
    build: Build,
    /// Only features whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// How long each part of `churn` lasts, in seconds
    #[arg(long, default_value_t = 40)]
    churn_seconds: u32,
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
    names.extend(["all", NORM]);
    names
}

/// Runs what the arguments name.
pub(crate) fn conformance(args: &Args) -> Result<(), Failure> {
    if args.clients.iter().any(|name| name == NORM) {
        crate::norm::norm()?;
        if args.clients.len() == 1 {
            return Ok(());
        }
    }
    let everyone = args.clients.is_empty() || args.clients.iter().any(|name| name == "all");
    let named = |client: &Client| args.clients.iter().any(|n| n == client.name);
    let wanted = |client: &Client| named(client) || (everyone && !client.is_load());
    let (mut clients, mut not_run) = (Vec::new(), Vec::new());
    for client in CLIENTS.into_iter().filter(wanted) {
        match client.missing() {
            None => match client.install() {
                Ok(ready) => clients.push((client, ready)),
                Err(failure) => not_run.push((client, failure.0)),
            },
            Some(program) => not_run.push((client, format!("`{program}` is missing"))),
        }
    }
    for (client, reason) in &not_run {
        println!("{}: not run: {reason}", client.name);
    }
    let scratch = target_dir().join("conformance");
    std::fs::create_dir_all(&scratch)?;
    check_the_checkers(&harness_python()?)?;
    if let Some(bootstrap) = &args.bootstrap {
        let reports = run_clients(&clients, &scratch, (bootstrap, None), args)?;
        return verdict(&reports);
    }
    if args.nodes > 1 {
        return on_cluster(&clients, &scratch, args);
    }
    let mut broker = Broker::start(&scratch, args.build, &[])?;
    let bootstrap = broker.bootstrap.clone();
    let place = (&*bootstrap, Some(&*broker.data));
    let outcome = run_clients(&clients, &scratch, place, args).and_then(|reports| {
        let theirs = match args.oracle {
            true => Some(ask_oracle(&clients, &scratch, args)?),
            false => None,
        };
        if everyone && args.only.is_none() {
            let text = compatibility(&reports, &clients, &not_run, theirs.as_deref());
            std::fs::write(root().join("docs/COMPATIBILITY.md"), text)?;
        }
        verdict(&reports)
    });
    if !broker.alive() || outcome.is_err() {
        println!("{}", broker.last_words());
    }
    let stopped = broker.stop();
    outcome.and(stopped)
}

/// The same features against several nodes whose leaders move.
fn on_cluster(clients: &[(Client, Ready)], scratch: &Path, args: &Args) -> Result<(), Failure> {
    let mut nodes = Broker::nodes(scratch, args.build, args.nodes, &SOON_MISSED)?;
    let first = nodes
        .first()
        .ok_or_else(|| Failure("at least one node".to_owned()))?;
    let place = (&*first.bootstrap, Some(&*first.data));
    let mover = Mover::start(&first.program, &first.bootstrap, args.nodes, MOVE_EVERY);
    let outcome = run_clients(clients, scratch, place, args).and_then(|reports| {
        println!("{} leaders moved", mover.stop()?);
        verdict(&reports)
    });
    for node in &mut nodes {
        if !node.alive() || outcome.is_err() {
            println!("{}", node.last_words());
        }
    }
    // The last ones first: who joined needs whom it joined.
    let stopped = nodes.into_iter().rev().try_for_each(Broker::stop);
    outcome.and(stopped)
}

/// The same features against Apache Kafka itself.
fn ask_oracle(
    clients: &[(Client, Ready)],
    scratch: &Path,
    args: &Args,
) -> Result<Vec<(String, Vec<Outcome>)>, Failure> {
    println!("\n== the same against Apache Kafka {KAFKA_VERSION}");
    let kafka = RunningKafka::start("conformance", &[])?;
    let reports = run_clients(clients, scratch, (&kafka.bootstrap, None), args)?;
    println!("\n{}\n", matrix(&reports));
    Ok(reports)
}

/// The clients of the continuous check, with the defaults.
pub(crate) fn checked_clients() -> Result<(), Failure> {
    let checked = CLIENTS.iter().filter(|client| client.checked);
    conformance(&Args {
        clients: checked.map(|client| client.name.to_owned()).collect(),
        bootstrap: None,
        nodes: 1,
        oracle: false,
        build: Build::Release,
        records: 1_000_000,
        only: None,
        churn_seconds: 40,
    })
}

/// The checks that the scripts rely on must themselves find lost, doubled, reordered and altered
/// records.
fn check_the_checkers(python: &Path) -> Result<(), Failure> {
    run(Command::new(python)
        .args([
            "-B",
            "-m",
            "unittest",
            "discover",
            "-q",
            "--start-directory",
        ])
        .arg(root().join("tests/conformance"))
        .args(["--pattern", "*_test.py"]))
}

fn run_clients(
    clients: &[(Client, Ready)],
    scratch: &Path,
    (bootstrap, data): (&str, Option<&Path>),
    args: &Args,
) -> Result<Vec<(String, Vec<Outcome>)>, Failure> {
    let mut reports = Vec::new();
    for (client, ready) in clients {
        println!("\n== conformance: {}", client.name);
        let report: PathBuf = scratch.join(format!("{}.tsv", client.name));
        if report.exists() {
            std::fs::remove_file(&report)?;
        }
        let mut command = Command::new(&ready.python);
        command
            .args(["-B", "-u"])
            .arg(client.script())
            .args(["--bootstrap", bootstrap])
            .args(["--records", &args.records.to_string()])
            .arg("--scratch")
            .arg(scratch.join("files").join(client.name))
            .arg("--report")
            .arg(&report);
        command.envs(ready.environment.iter().map(|(name, value)| (name, value)));
        if let Some(data) = data {
            command.env("RINGMILL_DATA", std::path::absolute(data)?);
        }
        if let Some(only) = &args.only {
            command.args(["--only", only]);
        }
        command.env("CHURN_SECONDS", args.churn_seconds.to_string());
        command.env("TOPIC_REPLICATION", args.nodes.min(3).to_string());
        // A failed feature is in the report; only a script that broke or hung fails itself.
        let churn = Duration::from_secs(u64::from(args.churn_seconds));
        let ended = run_within(CLIENT_LIMIT + CHURNS * churn, &mut command);
        let mut outcomes = read(&report)?;
        if let Err(failure) = ended {
            outcomes.push(Outcome {
                feature: "the whole list".into(),
                pass: false,
                seconds: String::new(),
                detail: failure.0,
            });
        }
        reports.push((client.name.to_owned(), outcomes));
    }
    Ok(reports)
}

/// Prints the table; fails if any feature failed or nothing ran.
fn verdict(reports: &[(String, Vec<Outcome>)]) -> Result<(), Failure> {
    println!("\n{}\n", matrix(reports));
    let all = || {
        reports
            .iter()
            .flat_map(|(client, outcomes)| outcomes.iter().map(move |outcome| (client, outcome)))
    };
    let mut failed = 0;
    for (client, outcome) in all().filter(|(_, outcome)| !outcome.pass) {
        println!("{client}: {}: {}", outcome.feature, outcome.detail);
        failed += 1;
    }
    match (failed, all().count()) {
        (0, 0) => Err(Failure("no feature was tested".into())),
        (0, _) => Ok(()),
        (failed, tested) => Err(Failure(format!("{failed} of {tested} features failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(pass: bool) -> Outcome {
        Outcome {
            feature: "keys".into(),
            pass,
            seconds: "0.1".into(),
            detail: String::new(),
        }
    }

    #[test]
    fn one_failed_feature_fails_the_run_and_so_does_an_empty_one() {
        let good = vec![("kcat".to_owned(), vec![outcome(true)])];
        let bad = vec![("kcat".to_owned(), vec![outcome(true), outcome(false)])];
        assert!(verdict(&good).is_ok());
        assert!(verdict(&bad).is_err());
        assert!(verdict(&[("kcat".to_owned(), vec![])]).is_err());
    }
}
