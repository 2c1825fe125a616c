//! `idle`: what many partitions cost that nobody writes to any more: memory and open files, and the
//! time to start with them, after a clean stop and after SIGKILL.

use std::path::Path;
use std::time::Duration;

use ringmill_client::local::{Producer, ProducerConfig, Record};
use ringmill_ring::{now, sleep, yield_now};
use serde_json::json;

use crate::Failure;
use crate::broker::{Broker, Started, on_folder};
use crate::options::{Output, Target, size, time};
use crate::process::{open_files, resident};
use crate::produce::{Payload, make_topic};
use crate::report::{Report, grouped};

/// Partitions of one topic: one request that makes more waits longer than clients do by default.
const OF_A_TOPIC: i32 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// How many there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Records that each gets, with an acknowledgement for each
    #[arg(long, default_value_t = 1)]
    records: u32,
    /// Bytes of each record's value
    #[arg(long, default_value = "100", value_parser = size)]
    record_size: usize,
    /// How long they are left alone before it is measured what they cost
    #[arg(long, default_value = "30s", value_parser = time)]
    rest: Duration,
    /// How often the broker is stopped and killed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What a broker holds at some time.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Bytes.
    memory: u64,
    files: u64,
}

impl Held {
    fn by(broker: &Started) -> Result<Self, Failure> {
        Ok(Self {
            memory: resident(broker.pid())?,
            files: open_files(broker.pid())?,
        })
    }
}

#[derive(Default)]
struct Measured {
    empty: Held,
    written: Held,
    restarted: Held,
    /// In seconds, of every round.
    start: Vec<f64>,
    start_after_kill: Vec<f64>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let measured = on_folder(&args.target, async |data| measure(&args, data).await).await;
    report(&args, &measured?).finish(&args.output).await
}

async fn measure(args: &Args, data: &Path) -> Result<Measured, Failure> {
    let mut started = Started::on(&args.target, data)?;
    sleep(Duration::from_secs(1)).await;
    let mut measured = Measured {
        empty: Held::by(&started)?,
        ..Measured::default()
    };
    write(args, &started).await?;
    sleep(args.rest).await;
    measured.written = Held::by(&started)?;
    for _ in 0..args.rounds {
        started.stop()?;
        let (after_stop, seconds) = start(args, data).await?;
        measured.start.push(seconds);
        started = after_stop;
        sleep(args.rest).await;
        measured.restarted = Held::by(&started)?;
        started.kill();
        let (after_kill, seconds) = start(args, data).await?;
        measured.start_after_kill.push(seconds);
        started = after_kill;
    }
    Ok(measured)
}

/// Starts it; the seconds until it has acknowledged one more record of the last partition.
async fn start(args: &Args, data: &Path) -> Result<(Started, f64), Failure> {
    // the clock is read once per turn, and the broker was waited for within one
    yield_now().await;
    let begun = now();
    let started = Started::on(&args.target, data)?;
    let broker = Broker::at(started.address()).await?;
    let (name, count) = topics(args.partitions).last().unwrap_or_default();
    append(args, &broker, &name, count - 1..count, 1).await?;
    Ok((started, (now() - begun).as_secs_f64()))
}

/// Makes the topics, and gives each partition its records.
async fn write(args: &Args, started: &Started) -> Result<(), Failure> {
    let broker = Broker::at(started.address()).await?;
    for (name, count) in topics(args.partitions) {
        make_topic(&broker, &name, count).await?;
        append(args, &broker, &name, 0..count, args.records).await?;
    }
    Ok(())
}

/// The topics that hold so many partitions, and how many each has.
fn topics(partitions: i32) -> impl Iterator<Item = (String, i32)> {
    let begins = (0..partitions).step_by(OF_A_TOPIC as usize);
    begins.enumerate().map(move |(nth, begin)| {
        let name = format!("ringmill-bench-idle-{nth}");
        (name, OF_A_TOPIC.min(partitions - begin))
    })
}

async fn append(
    args: &Args,
    broker: &Broker,
    topic: &str,
    partitions: std::ops::Range<i32>,
    records: u32,
) -> Result<(), Failure> {
    let config = ProducerConfig::default();
    let producer = Producer::new(&broker.client, config).await;
    let producer = producer.map_err(Failure::new)?;
    let topic = producer.topic(topic).await.map_err(Failure::new)?;
    let mut payload = Payload::new(args.record_size, 1);
    for _ in 0..records {
        for partition in partitions.clone() {
            let record = Record {
                partition: Some(partition),
                ..Record::of(payload.next())
            };
            let sent = producer.send(&topic, &record).await;
            drop(sent.map_err(Failure::new)?);
        }
        // so that each has a batch of its own
        producer.flush().await.map_err(Failure::new)?;
    }
    Ok(())
}

fn report(args: &Args, measured: &Measured) -> Report {
    let title = format!(
        "idle: {} partitions with {} record(s) of {} B each, after {} s of rest, {} rounds",
        grouped(args.partitions.unsigned_abs().into()),
        args.records,
        args.record_size,
        args.rest.as_secs(),
        args.rounds,
    );
    let mut report = Report::new("idle", title);
    let each = |held: Held| {
        let more = held.memory.saturating_sub(measured.empty.memory);
        more / u64::from(args.partitions.unsigned_abs())
    };
    for (name, key, held) in [
        ("empty broker", "empty", measured.empty),
        ("with them, written", "written", measured.written),
        ("with them, restarted", "restarted", measured.restarted),
    ] {
        let mebibytes = held.memory as f64 / f64::from(1 << 20);
        let shown = format!("{mebibytes:.1} MiB, {} files", grouped(held.files));
        report.figure(name, &format!("{key}_bytes"), json!(held.memory), shown);
        report.data(&format!("{key}_open_files"), json!(held.files));
    }
    for (name, key, held) in [
        ("a partition, written", "partition_bytes", measured.written),
        (
            "a partition, restarted",
            "partition_bytes_restarted",
            measured.restarted,
        ),
    ] {
        let bytes = each(held);
        report.figure(name, key, json!(bytes), format!("{} B", grouped(bytes)));
    }
    for (name, key, times) in [
        ("start to first write", "start_seconds", &measured.start),
        (
            "the same after SIGKILL",
            "start_after_kill_seconds",
            &measured.start_after_kill,
        ),
    ] {
        let longest = times.iter().copied().fold(0.0, f64::max);
        report.figure(name, key, json!(times), format!("{longest:.3} s at most"));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_share_the_partitions() {
        let of = |n| topics(n).map(|(_, count)| count).collect::<Vec<_>>();
        assert_eq!(of(1), [1]);
        assert_eq!(of(1000), [1000]);
        assert_eq!(of(2001), [1000, 1000, 1]);
    }
}
