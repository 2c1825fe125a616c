//! `restart`: how long a broker with a log of some size takes to stop, to start after that, and
//! to start after it was killed under load; with the check that everything acknowledged is there.

use std::path::Path;
use std::time::Duration;

use ringmill_client::local::{
    Acks, Client, ClientConfig, Consumer, ConsumerConfig, Event, OffsetSpec, Producer,
    ProducerConfig, Record, StartAt, TopicPartition,
};
use ringmill_ring::{now, sleep, spawn, yield_now};
use serde_json::json;

use crate::Failure;
use crate::broker::{Broker, Started, on_folder};
use crate::fill::fill;
use crate::options::{Output, Target, size};
use crate::produce::{Payload, make_topic};
use crate::report::{Report, grouped};

const TOPIC: &str = "ringmill-bench-restart";
/// How long a broker that is about to be killed has been under load.
const LOADED: Duration = Duration::from_secs(1);
/// A first record that takes longer is not coming.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// Bytes of log to fill before
    #[arg(long, default_value = "10g", value_parser = size)]
    size: usize,
    /// Partitions that they are spread over
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Bytes of each record's value
    #[arg(long, default_value = "1k", value_parser = size)]
    record_size: usize,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One figure of every round, in seconds.
#[derive(Default)]
struct Times {
    stop: Vec<f64>,
    start: Vec<f64>,
    start_after_kill: Vec<f64>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let measured = on_folder(&args.target, async |data| measure(&args, data).await).await;
    let (times, records) = measured?;
    let title = format!(
        "restart: a log of {} B in {} partition(s), {} rounds",
        grouped(args.size as u64),
        args.partitions,
        args.rounds,
    );
    let mut report = Report::new("restart", title);
    report.figure("records", "records", json!(records), grouped(records));
    for (name, key, times) in [
        ("clean stop", "stop_seconds", &times.stop),
        (
            "start to first record after it",
            "start_seconds",
            &times.start,
        ),
        (
            "start to first record after SIGKILL under load",
            "start_after_kill_seconds",
            &times.start_after_kill,
        ),
    ] {
        let longest = times.iter().copied().fold(0.0, f64::max);
        report.figure(name, key, json!(times), format!("{longest:.3} s at most"));
    }
    report.finish(&args.output).await
}

async fn measure(args: &Args, data: &Path) -> Result<(Times, u64), Failure> {
    let mut times = Times::default();
    let mut started = Started::on(&args.target, data)?;
    let mut acknowledged = {
        let broker = Broker::at(started.address()).await?;
        make_topic(&broker, TOPIC, args.partitions).await?;
        let records = (args.size / args.record_size.max(1)) as u64;
        fill(&broker.client, TOPIC, records, args.record_size).await?;
        records
    };
    for _ in 0..args.rounds {
        let begun = now();
        started.stop()?;
        // the clock is read once per turn, and the broker was waited for within one
        yield_now().await;
        times.stop.push((now() - begun).as_secs_f64());
        let begun = now();
        started = Started::on(&args.target, data)?;
        check(args, &started, acknowledged).await?;
        times.start.push((now() - begun).as_secs_f64());
        acknowledged += load_and_kill(args, started).await?;
        let begun = now();
        started = Started::on(&args.target, data)?;
        acknowledged = check(args, &started, acknowledged).await?;
        times.start_after_kill.push((now() - begun).as_secs_f64());
    }
    Ok((times, acknowledged))
}

/// Kills the broker in the middle of a load; returns how many more records it had acknowledged.
async fn load_and_kill(args: &Args, mut started: Started) -> Result<u64, Failure> {
    let broker = Broker::at(started.address()).await?;
    let config = ProducerConfig {
        acks: Acks::All,
        idempotence: true,
        batch_bytes: 256 << 10,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&broker.client, config);
    let producer = producer.await.map_err(Failure::new)?;
    let topic = producer.topic(TOPIC).await.map_err(Failure::new)?;
    let mut payload = Payload::new(args.record_size, 2);
    let sender = producer.clone();
    let load = spawn(async move {
        while let Ok(delivery) = sender.send(&topic, &Record::of(payload.next())).await {
            drop(delivery);
        }
    });
    sleep(LOADED).await;
    started.kill();
    load.abort();
    Ok(producer.stats().delivered)
}

/// Reads a first record, and counts what is there: all that was acknowledged, or more.
async fn check(args: &Args, started: &Started, acknowledged: u64) -> Result<u64, Failure> {
    let client = Client::connect(ClientConfig {
        client_id: "ringmill-bench".to_owned(),
        ..ClientConfig::new([started.address().to_owned()])
    });
    let client = client.await.map_err(Failure::new)?;
    let partitions: Vec<_> = (0..args.partitions)
        .map(|partition| TopicPartition::new(TOPIC, partition))
        .collect();
    let consumer = Consumer::new(&client, ConsumerConfig::default()).map_err(Failure::new)?;
    let from = StartAt::Find(OffsetSpec::Earliest);
    consumer.assign(partitions.iter().map(|p| (p.clone(), from)));
    loop {
        match consumer.poll(PATIENCE).await.map_err(Failure::new)? {
            Event::Records(_) => break,
            Event::Idle => return Err(Failure::new("no record came")),
            _ => {}
        }
    }
    let wanted = partitions.into_iter().map(|p| (p, OffsetSpec::Latest));
    let found = client.offsets(wanted).await.map_err(Failure::new)?;
    let there: i64 = found.values().flatten().map(|place| place.offset).sum();
    let there = u64::try_from(there).unwrap_or(0);
    if there < acknowledged {
        return Err(Failure::new(format!(
            "{} records were acknowledged and {} are there",
            grouped(acknowledged),
            grouped(there),
        )));
    }
    Ok(there)
}
