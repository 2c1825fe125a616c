//! The same seeded requests to Ringmill and to Apache Kafka, both started here.

use crate::broker::{Broker, Build};
use crate::peer::RunningKafka;
use crate::process::{Failure, cargo, run, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tell every request and both answers
    #[arg(long)]
    loud: bool,
    /// The broker's build
    #[arg(long, value_enum, default_value_t = Build::Release)]
    build: Build,
}

/// As on our side: groups form at once, and a group's assignment is there with the heartbeat that
/// needs it.
const KAFKA_SETTINGS: [&str; 3] = [
    "group.consumer.assignment.interval.ms=0",
    "group.consumer.min.assignment.interval.ms=0",
    "group.consumer.assignor.offload.enable=false",
];

/// Runs the seeds that the arguments name.
pub(crate) fn differential(args: &Args) -> Result<(), Failure> {
    let kafka = RunningKafka::start("differential", &KAFKA_SETTINGS)?;
    let scratch = target_dir().join("differential");
    let at_once = ["--group-initial-rebalance-delay-ms", "0"];
    let broker = Broker::start(&scratch, args.build, &at_once)?;
    let mut command = cargo();
    command.args(["run", "-p", "ringmill-tests", "--bin", "differential", "--"]);
    command.args(["--ours", &broker.bootstrap, "--theirs", &kafka.bootstrap]);
    command.args(["--seeds", &args.seeds.to_string()]);
    command.args(["--seed", &args.seed.to_string()]);
    if args.loud {
        command.arg("--loud");
    }
    let compared = run(&mut command);
    if compared.is_err() {
        println!("{}", broker.last_words());
    }
    let stopped = broker.stop();
    compared.and(stopped)
}
