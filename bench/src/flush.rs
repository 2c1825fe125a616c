//! `flush`: single-record requests that each wait for the disk, beside what the disk itself allows
//! with as many writers, and a bare server on that disk with as many connections; in turn, round
//! after round: the ratio holds where the machine's speed drifts.

use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringmill_client::local::{Acks, Producer, ProducerConfig, ProducerTopic, Record};
use ringmill_ring::{Instant, now, spawn};
use serde_json::json;

use crate::Failure;
use crate::bare;
use crate::broker::Broker;
use crate::chart::Curve;
use crate::disk::{self, Mode};
use crate::measure::Gathered;
use crate::options::{Output, Target, size, time};
use crate::produce::{Payload, make_topic};
use crate::report::{Report, grouped};

/// Bytes of a batch beside the value of its one record.
const BATCH_OVERHEAD: usize = 70;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// How many requests, and how many writers, at once; several are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    concurrency: Vec<usize>,
    /// How often each is measured; medians are told
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For how long each time
    #[arg(long, default_value = "2s", value_parser = time)]
    duration: Duration,
    /// Bytes of each record's value
    #[arg(long, default_value = "100", value_parser = size)]
    record_size: usize,
    /// A folder on the disk that the broker's data is on; the system's temporary one if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What is measured in turn.
const SERIES: [&str; 5] = [
    "disk, appended",
    "disk, overwritten",
    "bare server, overwritten",
    "broker, 1 partition",
    "broker, a partition each",
];

/// Rates per second by series, a round each.
type Rates = [Vec<f64>; SERIES.len()];

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let broker = Broker::reach(&args.target).await?;
    let title = format!(
        "flush: single records of {} B acknowledged after their flush, by {}, beside a bare write \
         and fdatasync; medians of {} rounds of {:?}",
        args.record_size,
        broker.address(&args.target),
        args.rounds,
        args.duration,
    );
    let mut report = Report::new("flush", title);
    let mut curves: Vec<Curve> = SERIES.iter().map(|name| Curve::new(name)).collect();
    let mut levels = Vec::new();
    for &concurrency in &args.concurrency {
        let (rates, latencies) = level(&args, &broker, concurrency.max(1)).await?;
        tell(&mut report, concurrency, &rates, &latencies);
        for (curve, rates) in curves.iter_mut().zip(&rates) {
            curve.add(concurrency as f64, median(rates));
        }
        levels.push(json!({ "concurrency": concurrency, "rates": rates }));
    }
    report.data("levels", json!(levels));
    report.curves("requests or writers at once", "per second", curves);
    report.finish(&args.output).await
}

/// All rounds with so many at once.
async fn level(
    args: &Args,
    broker: &Broker,
    concurrency: usize,
) -> Result<(Rates, Histogram<u64>), Failure> {
    let shared = connect(broker, "shared", concurrency, 1).await?;
    let own = connect(broker, "own", concurrency, concurrency).await?;
    let load = |mode| disk::Load {
        dir: args.dir.clone().unwrap_or_else(std::env::temp_dir),
        writers: concurrency,
        size: args.record_size + BATCH_OVERHEAD,
        duration: args.duration,
        mode,
    };
    let (mut rates, mut latencies) = (Rates::default(), Gathered::new().latencies());
    // the first round warms up and is not told
    for round in 0..=args.rounds {
        let appended = disk::measure(&load(Mode::Append)).await?;
        let one = produce(args, &shared).await?;
        let overwritten = disk::measure(&load(Mode::Overwrite)).await?;
        let bare = bare::measure(&load(Mode::Overwrite)).await?;
        let each = produce(args, &own).await?;
        if round == 0 {
            continue;
        }
        let all = [&appended, &overwritten, &bare, &one, &each];
        for (rates, gathered) in rates.iter_mut().zip(all) {
            let series = gathered.series();
            rates.push(series.records() as f64 / series.elapsed().as_secs_f64().max(1e-9));
        }
        let _ = latencies.add(one.latencies());
    }
    Ok((rates, latencies))
}

/// A connection for each, and the partition that it sends to.
struct Connection {
    producer: Producer,
    topic: ProducerTopic,
    partition: i32,
}

async fn connect(
    broker: &Broker,
    kind: &str,
    connections: usize,
    partitions: usize,
) -> Result<Vec<Connection>, Failure> {
    let name = format!("ringmill-bench-flush-{kind}-{connections}");
    make_topic(broker, &name, partitions as i32).await?;
    let mut made = Vec::new();
    for nth in 0..connections {
        let config = ProducerConfig {
            acks: Acks::All,
            idempotence: true,
            linger: Duration::ZERO,
            max_in_flight: 1,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&broker.client, config).await;
        let producer = producer.map_err(Failure::new)?;
        let topic = producer.topic(&name).await.map_err(Failure::new)?;
        made.push(Connection {
            producer,
            topic,
            partition: (nth % partitions) as i32,
        });
    }
    Ok(made)
}

/// One record after the other on each connection, until time is up.
async fn produce(args: &Args, connections: &[Connection]) -> Result<Gathered, Failure> {
    let gathered = Gathered::new();
    gathered.start();
    let end = now() + args.duration;
    let tasks: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(nth, c)| {
            let (producer, topic, partition) = (c.producer.clone(), c.topic.clone(), c.partition);
            let payload = Payload::new(args.record_size, nth as u64);
            spawn(send_until(
                end,
                producer,
                topic,
                partition,
                payload,
                gathered.clone(),
            ))
        })
        .collect();
    for task in tasks {
        task.await.map_err(Failure::new)??;
    }
    Ok(gathered)
}

async fn send_until(
    end: Instant,
    producer: Producer,
    topic: ProducerTopic,
    partition: i32,
    mut payload: Payload,
    gathered: Gathered,
) -> Result<(), Failure> {
    while now() < end {
        let begun = now();
        let value = payload.next();
        let record = Record {
            partition: Some(partition),
            ..Record::of(value)
        };
        let sent = producer.send(&topic, &record).await;
        let delivered = sent.map_err(Failure::new)?.await;
        delivered.map_err(Failure::new)?;
        gathered.took(now() - begun);
        gathered.done(1, value.len() as u64);
    }
    Ok(())
}

/// The rows of one level.
fn tell(report: &mut Report, concurrency: usize, rates: &Rates, latencies: &Histogram<u64>) {
    for (name, rates) in SERIES.iter().zip(rates) {
        let rate = median(rates);
        let key = format!("{name} x {concurrency}");
        report.figure(
            &key,
            &key,
            json!(rate),
            format!("{}/s", grouped(rate as u64)),
        );
    }
    let [appended, overwritten, bare, one, each] = rates;
    for (name, ours, disk) in [
        ("1 partition : appended", one, appended),
        ("1 partition : overwritten", one, overwritten),
        ("1 partition : bare server", one, bare),
        ("bare server : appended", bare, appended),
        ("a partition each : appended", each, appended),
    ] {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(disk)
            .map(|(a, b)| a / b.max(1e-9))
            .collect();
        let key = format!("{name} x {concurrency}");
        let ratio = median(&ratios);
        report.figure(&key, &key, json!(ratio), format!("{ratio:.2}"));
    }
    let name = format!("latency p50 / p99, 1 partition x {concurrency}");
    let [p50, p99] = [50.0, 99.0].map(|p| latencies.value_at_percentile(p));
    report.figure(&name, &name, json!([p50, p99]), format!("{p50} / {p99} us"));
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }
}
