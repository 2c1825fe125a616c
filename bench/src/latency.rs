//! `latency`: single-record requests. Each connection has one in flight and sends the next when the
//! last is acknowledged; with `--rate` records are due at fixed moments and timed from those.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_client::local::{Acks, Producer, ProducerConfig, ProducerTopic, Record};
use ringmill_ring::{now, sleep_until, spawn};
use serde_json::json;

use crate::Failure;
use crate::broker::Broker;
use crate::measure::Gathered;
use crate::options::{Output, Target, count, rate, size};
use crate::process::usage;
use crate::produce::{Payload, connect, make_topic};
use crate::progress;
use crate::report::{Report, grouped};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// The topic; created if it is not there
    #[arg(long, default_value = "ringmill-bench-latency")]
    topic: String,
    /// Partitions of a topic that is created
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// How many records are timed
    #[arg(long, default_value = "20k", value_parser = count)]
    records: u64,
    /// How many are sent before that
    #[arg(long, default_value = "1k", value_parser = count)]
    warm_up: u64,
    /// Bytes of each record's value
    #[arg(long, default_value = "100", value_parser = size)]
    record_size: usize,
    /// Requests in flight, each on a connection of its own
    #[arg(long, default_value_t = 1)]
    in_flight: u64,
    /// What is waited for: 1 or all
    #[arg(long, default_value = "all")]
    acks: String,
    /// Records per second in all, due at fixed moments
    #[arg(long, value_parser = rate)]
    rate: Option<u64>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let acks = Acks::from_text(&args.acks).filter(|acks| *acks != Acks::None);
    let acks =
        acks.ok_or_else(|| Failure::new("--acks is 1 or all: 0 has no answer to wait for"))?;
    let mut broker = Broker::reach(&args.target).await?;
    make_topic(&broker, &args.topic, args.partitions).await?;
    let config = ProducerConfig {
        acks,
        idempotence: acks == Acks::All,
        linger: Duration::ZERO,
        max_in_flight: 1,
        ..ProducerConfig::default()
    };
    let mut connections = Vec::new();
    for _ in 0..args.in_flight.max(1) {
        connections.push(connect(&broker, &config, &args.topic).await?);
    }
    let warm_up = Gathered::new();
    round(&connections, &args, args.warm_up, &warm_up, None).await?;
    let gathered = Gathered::new();
    broker.mark()?;
    let before = usage(None)?;
    gathered.start();
    let line = progress::show(args.records, &gathered);
    round(&connections, &args, args.records, &gathered, args.rate).await?;
    drop(line);
    let cpu = usage(None)?.cpu.saturating_sub(before.cpu);
    let title = format!(
        "latency: {} single records of {} B, {} in flight, acks={}, to {} on {}",
        grouped(args.records),
        args.record_size,
        args.in_flight,
        args.acks,
        args.topic,
        broker.address(&args.target),
    );
    let mut report = Report::new("latency", title);
    report.figure(
        "in flight",
        "in_flight",
        json!(args.in_flight),
        args.in_flight.to_string(),
    );
    report.throughput(gathered.series());
    report.latency(gathered.latencies());
    report.used(broker.used()?, cpu, args.records);
    report.finish(&args.output).await
}

/// Sends so many records over all connections.
async fn round(
    connections: &[(Producer, ProducerTopic)],
    args: &Args,
    records: u64,
    gathered: &Gathered,
    rate: Option<u64>,
) -> Result<(), Failure> {
    let next = Rc::new(Cell::new(0));
    let start = now();
    let tasks: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(nth, (producer, topic))| {
            let (producer, topic) = (producer.clone(), topic.clone());
            let (next, gathered) = (next.clone(), gathered.clone());
            let mut payload = Payload::new(args.record_size, nth as u64);
            spawn(async move {
                loop {
                    let number = next.replace(next.get() + 1);
                    if number >= records {
                        return Ok(());
                    }
                    let begun = match rate {
                        Some(rate) => {
                            let due = Duration::from_secs_f64(number as f64 / rate as f64);
                            sleep_until(start + due).await;
                            start + due
                        }
                        None => now(),
                    };
                    let value = payload.next();
                    let sent = producer.send(&topic, &Record::of(value)).await;
                    let delivered = sent.map_err(Failure::new)?.await;
                    delivered.map_err(Failure::new)?;
                    gathered.took(now() - begun);
                    gathered.done(1, value.len() as u64);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(Failure::new)??;
    }
    Ok(())
}
