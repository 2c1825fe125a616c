//! `compare`: the same work against several systems that run already, by the same client, in turn:
//! round after round, each round in another order. What is told are medians over the rounds, and how
//! each system stands to the first.

mod results;
mod system;
mod work;

use std::time::Duration;

use crate::Failure;
use crate::options::{Output, size, time};
use results::{Measured, report};
use system::{System, TopicSetting, system, topic_setting};
use work::Work;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// A system: NAME=HOST:PORT, or NAME=HOST:PORT,PID,PID,… with the processes of its nodes, to
    /// measure what they use; the first is what the others are compared with
    #[arg(long = "system", required = true, value_name = "NAME=ADDRESS", value_parser = system)]
    systems: Vec<System>,
    /// What is promised of an acknowledged record; each is a row of its own
    #[arg(long = "promise", value_name = "WORD", default_value = "default")]
    promises: Vec<String>,
    /// A topic's setting by which a system makes a promise, such as
    /// kafka:flushed:flush.messages=1; may be repeated
    #[arg(long = "topic-setting", value_name = "SYSTEM:PROMISE:KEY=VALUE", value_parser = topic_setting)]
    settings: Vec<TopicSetting>,
    /// Bytes of each record's value; may be repeated
    #[arg(long = "record-size", default_value = "100", value_parser = size)]
    record_sizes: Vec<usize>,
    /// Partitions of each topic
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Copies of each partition
    #[arg(long, default_value_t = 1)]
    replication: i16,
    /// Producers, each with connections of its own
    #[arg(long, default_value_t = 1)]
    producers: u64,
    /// Bytes at which a batch is full (batch.size)
    #[arg(long, default_value = "256k", value_parser = size)]
    batch_size: usize,
    /// How long a batch waits to be full (linger.ms)
    #[arg(long, default_value = "5ms", value_parser = time)]
    linger: Duration,
    /// Records per second whose latency is measured, in an open loop; half of what the slowest system
    /// takes if not given
    #[arg(long, value_parser = crate::options::rate)]
    rate: Option<u64>,
    /// How long each measure takes
    #[arg(long, default_value = "5s", value_parser = time)]
    duration: Duration,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut all = Vec::new();
    for promise in &args.promises {
        for record_size in &args.record_sizes {
            let work = Work::of(&args, promise, *record_size);
            all.extend(side_by_side(&args, &work).await?);
        }
    }
    report(&args, &all)?.finish(&args.output).await
}

/// One work against all systems: as fast as each goes, then all at one rate.
async fn side_by_side(args: &Args, work: &Work) -> Result<Vec<Measured>, Failure> {
    let mut fast = measured(args, work, None);
    rounds(args, work, None, &mut fast).await?;
    let slowest = fast.iter().map(Measured::records_per_second);
    let slowest = slowest.fold(f64::MAX, f64::min);
    let rate = args.rate.unwrap_or((slowest / 2.0) as u64).max(1);
    let mut steady = measured(args, work, Some(rate));
    rounds(args, work, Some(rate), &mut steady).await?;
    fast.append(&mut steady);
    Ok(fast)
}

fn measured(args: &Args, work: &Work, rate: Option<u64>) -> Vec<Measured> {
    let of = |system: &System| Measured::new(&system.name, work, rate);
    args.systems.iter().map(of).collect()
}

async fn rounds(
    args: &Args,
    work: &Work,
    rate: Option<u64>,
    measured: &mut [Measured],
) -> Result<(), Failure> {
    for round in 0..args.rounds {
        for turn in 0..args.systems.len() {
            // whoever is first in one round is last in the next
            let at = match round % 2 {
                0 => turn,
                _ => args.systems.len() - 1 - turn,
            };
            let system = &args.systems[at];
            let one = work.run(system, &args.settings, rate, round).await?;
            let told = format!("{}: {}", measured[at].name(), one.line());
            eprintln!("round {} of {}: {told}", round + 1, args.rounds);
            measured[at].add(one);
        }
    }
    Ok(())
}
