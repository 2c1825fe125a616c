//! Ringmill beside Apache Kafka, of one or three nodes on this machine: starts both, and has
//! `ringmill-bench compare` measure them in turn.

use std::process::Command;

use crate::broker::{Broker, Build};
use crate::peer::RunningKafka;
use crate::process::{Failure, cargo, run, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes of each system; topics have as many copies, three at most
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Arguments of `ringmill-bench compare`, such as --rounds 3 --record-size 1000
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    more: Vec<String>,
}

/// What an acknowledgement promises, and the topic's setting by which each system promises it: that
/// the disks have the record, or that the operating systems have.
const SETTINGS: [&str; 4] = [
    "ringmill:flushed:durability=flushed",
    "kafka:flushed:flush.messages=1",
    "ringmill:replicated:durability=replicated",
    "kafka:replicated:flush.messages=9223372036854775807",
];

pub(crate) fn compare(args: &Args) -> Result<(), Failure> {
    run(cargo().args(["build", "--release", "-p", "ringmill-bench"]))?;
    let kafka = RunningKafka::nodes("compare", &[], args.nodes)?;
    let scratch = target_dir().join("compare");
    let ours = Broker::nodes(&scratch, Build::Release, args.nodes, &["--cores=1"])?;
    let first = ours
        .first()
        .ok_or_else(|| Failure("at least one node".to_owned()))?;
    let processes: Vec<u32> = ours.iter().map(Broker::process).collect();
    let system = |name: &str, address: &str, processes: &[u32]| {
        let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
        format!("{name}={address},{}", processes.join(","))
    };
    let mut bench = Command::new(target_dir().join("release/ringmill-bench"));
    bench
        .arg("compare")
        .args([
            "--system",
            &system("ringmill", &first.bootstrap, &processes),
        ])
        .args([
            "--system",
            &system("kafka", &kafka.bootstrap, &kafka.processes()),
        ])
        .args(["--promise", "flushed", "--promise", "replicated"])
        .args(["--replication", &args.nodes.min(3).to_string()]);
    for setting in SETTINGS {
        bench.args(["--topic-setting", setting]);
    }
    let json = scratch.join("compare.json");
    let svg = scratch.join("compare.svg");
    bench.arg("--json").arg(&json).arg("--svg").arg(&svg);
    run(bench.args(&args.more))?;
    println!("{} and {}", json.display(), svg.display());
    for node in ours.into_iter().rev() {
        node.stop()?;
    }
    Ok(())
}
