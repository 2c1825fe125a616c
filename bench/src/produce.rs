//! `produce`: how many records per second a topic takes, and how long each waits for its
//! acknowledgement.
//!
//! Without `--rate` the producers send as fast as the broker takes, and one record in a few hundred
//! is timed. With it the loop is open: records are due at fixed moments whatever the broker does,
//! every one is timed from the moment it was due, and so a stall counts for all that it held up.

use std::time::Duration;

use ringmill_client::local::{
    Acks, Admin, AdminError, NewTopic, Producer, ProducerConfig, ProducerTopic, Record, SendError,
};
use ringmill_ring::{Instant, JoinHandle, now, sleep, sleep_until, spawn};
use serde_json::json;

use crate::Failure;
use crate::broker::Broker;
use crate::measure::Gathered;
use crate::options::{Output, Target, count, rate, size, time};
use crate::process::usage;
use crate::progress;
use crate::report::{Report, grouped};

/// Between two looks at what was delivered.
const SAMPLE: Duration = Duration::from_millis(25);
/// Between two sends of an open loop, at the least.
const TICK: Duration = Duration::from_micros(500);
/// Bytes that records are cut from.
const POOL: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// The topic; created if it is not there
    #[arg(long, default_value = "ringmill-bench")]
    topic: String,
    /// Partitions of a topic that is created
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// How many records in all
    #[arg(long, default_value = "10m", value_parser = count)]
    records: u64,
    /// Bytes of each record's value
    #[arg(long, default_value = "100", value_parser = size)]
    record_size: usize,
    /// Bytes at which a batch is full (batch.size)
    #[arg(long, default_value = "256k", value_parser = size)]
    batch_size: usize,
    /// How long a batch waits to be full (linger.ms)
    #[arg(long, default_value = "5ms", value_parser = time)]
    linger: Duration,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: String,
    /// What is waited for: 0, 1 or all
    #[arg(long, default_value = "all")]
    acks: String,
    /// How many producers, each with a connection of its own
    #[arg(long, default_value_t = 1)]
    producers: u64,
    /// Records per second in all, due at fixed moments; as many as the broker takes if not given
    #[arg(long, value_parser = rate)]
    rate: Option<u64>,
    /// Requests in flight per producer
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Bytes of records that a producer holds (buffer.memory): twice what can be in flight if not
    /// given, since what waits longer than that only adds to the latency
    #[arg(long, value_parser = size)]
    buffer: Option<usize>,
}

impl Args {
    fn config(&self) -> Result<ProducerConfig, Failure> {
        let acks = Acks::from_text(&self.acks);
        let acks = acks.ok_or_else(|| Failure::new("--acks is 0, 1 or all"))?;
        let compression = ringmill_client::local::Compression::from_name(&self.compression);
        let compression = compression
            .ok_or_else(|| Failure::new("--compression is none, gzip, snappy, lz4 or zstd"))?;
        let defaults = ProducerConfig::default();
        let max_request_bytes = defaults.max_request_bytes.max(self.batch_size);
        let buffer = self.buffer.unwrap_or(2 * self.in_flight * self.batch_size);
        Ok(ProducerConfig {
            acks,
            idempotence: acks == Acks::All,
            compression,
            batch_bytes: self.batch_size,
            linger: self.linger,
            max_request_bytes,
            buffer_bytes: buffer.max(max_request_bytes),
            max_in_flight: self.in_flight,
            ..defaults
        })
    }

    fn title(&self, address: &str, partitions: usize) -> String {
        let rate = self.rate.map_or_else(
            || "as fast as it goes".to_owned(),
            |rate| format!("{} a second", grouped(rate)),
        );
        format!(
            "produce: {} records of {} B, {rate}, {} producer(s), acks={}, compression={}, batches of {} B, to {} ({partitions} partition(s)) on {address}",
            grouped(self.records),
            self.record_size,
            self.producers,
            self.acks,
            self.compression,
            self.batch_size,
            self.topic,
        )
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let config = args.config()?;
    let mut broker = Broker::reach(&args.target).await?;
    make_topic(&broker, &args.topic, args.partitions).await?;
    let gathered = Gathered::new();
    let mut producers = Vec::new();
    for _ in 0..args.producers.max(1) {
        producers.push(connect(&broker, &config, &args.topic).await?);
    }
    let partitions = producers[0].0.partitions(&producers[0].1);
    broker.mark()?;
    let before = usage(None)?;
    gathered.start();
    let line = progress::show(args.records, &gathered);
    let counting = count_deliveries(&producers, args.record_size, &gathered);
    let shares = shares(args.records, producers.len() as u64);
    let tasks: Vec<_> = producers
        .iter()
        .zip(shares)
        .enumerate()
        .map(|(nth, ((producer, topic), records))| {
            let load = Load {
                producer: producer.clone(),
                topic: topic.clone(),
                enough: Enough::Records(records),
                payload: Payload::new(args.record_size, nth as u64),
                burst: (args.batch_size / args.record_size.max(1)).max(1) as u64,
                rate: args
                    .rate
                    .map(|rate| rate as f64 / args.producers.max(1) as f64),
                gathered: gathered.clone(),
            };
            spawn(load.send())
        })
        .collect();
    for task in tasks {
        task.await.map_err(Failure::new)??;
    }
    counting.abort();
    count_now(&producers, args.record_size, &gathered);
    drop(line);
    let cpu = usage(None)?.cpu.saturating_sub(before.cpu);
    let mut report = Report::new(
        "produce",
        args.title(&broker.address(&args.target), partitions),
    );
    report.figure(
        "record size",
        "record_size",
        json!(args.record_size),
        format!("{} B", args.record_size),
    );
    report.throughput(gathered.series());
    report.latency(gathered.latencies());
    report.used(broker.used()?, cpu, args.records);
    report.finish(&args.output).await
}

/// A producer with connections of its own, and the topic that it writes to.
pub(crate) async fn connect(
    broker: &Broker,
    config: &ProducerConfig,
    topic: &str,
) -> Result<(Producer, ProducerTopic), Failure> {
    let producer = Producer::new(&broker.client, config.clone()).await;
    let producer = producer.map_err(Failure::new)?;
    let topic = producer.topic(topic).await.map_err(Failure::new)?;
    Ok((producer, topic))
}

/// Creates a topic unless it is there.
pub(crate) async fn make_topic(
    broker: &Broker,
    name: &str,
    partitions: i32,
) -> Result<(), Failure> {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        ..NewTopic::default()
    };
    match Admin::new(&broker.client).create_topic(&topic).await {
        Ok(_) => Ok(()),
        Err(AdminError::Refused { code, .. }) if code.name() == "TOPIC_ALREADY_EXISTS" => Ok(()),
        Err(error) => Err(Failure::new(error)),
    }
}

/// As equal parts as can be.
fn shares(records: u64, parts: u64) -> Vec<u64> {
    (0..parts)
        .map(|nth| records / parts + u64::from(nth < records % parts))
        .collect()
}

/// Values cut from a pool of text that compresses to about three quarters.
pub(crate) struct Payload {
    pool: Vec<u8>,
    size: usize,
    at: usize,
    /// A value that tells when it was due.
    stamped: Option<Vec<u8>>,
}

/// Bytes of the moment that a record was due.
const STAMP: usize = 8;

/// When a record of [`Payload::stamped`] was due.
pub(crate) fn stamp_of(value: &[u8]) -> Option<Instant> {
    let (stamp, _) = value.split_first_chunk::<STAMP>()?;
    Some(Instant::default() + Duration::from_nanos(u64::from_le_bytes(*stamp)))
}

impl Payload {
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";
        // xorshift64: the same load for the same arguments
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ALPHABET[(state >> 58) as usize]
        };
        Self {
            pool: (0..POOL + size).map(|_| next()).collect(),
            size,
            at: 0,
            stamped: None,
        }
    }

    /// Values that tell when they were due, so far as they have room for that.
    pub(crate) fn stamped(size: usize, seed: u64) -> Self {
        Self {
            stamped: Some(Vec::with_capacity(size.max(STAMP))),
            ..Self::new(size.max(STAMP), seed)
        }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> &[u8] {
        // a prime, so that no two records are alike for long
        self.at = (self.at + 4099) % POOL;
        &self.pool[self.at..self.at + self.size]
    }

    /// The value of a record that is due at a moment.
    #[inline]
    fn due(&mut self, due: Instant) -> &[u8] {
        self.at = (self.at + 4099) % POOL;
        let text = &self.pool[self.at..self.at + self.size];
        let Some(value) = &mut self.stamped else {
            return text;
        };
        let since_start = due - Instant::default();
        value.clear();
        value.extend_from_slice(&(since_start.as_nanos() as u64).to_le_bytes());
        value.extend_from_slice(&text[STAMP..]);
        value
    }
}

/// When a producer has sent enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Enough {
    Records(u64),
    After(Duration),
}

/// What one producer has to do.
pub(crate) struct Load {
    pub(crate) producer: Producer,
    pub(crate) topic: ProducerTopic,
    pub(crate) enough: Enough,
    pub(crate) payload: Payload,
    /// Records between two looks at the rest of the program.
    pub(crate) burst: u64,
    /// Records per second; as many as the broker takes if not given.
    pub(crate) rate: Option<f64>,
    pub(crate) gathered: Gathered,
}

impl Load {
    /// Sends all of it, and waits until all is acknowledged.
    pub(crate) async fn send(mut self) -> Result<(), Failure> {
        match self.rate {
            Some(rate) => self.at_rate(rate).await?,
            None => self.flat_out().await?,
        }
        self.producer.flush().await.map_err(Failure::new)
    }

    async fn take(&mut self, due: Instant) -> Result<(), Failure> {
        loop {
            let record = Record::of(self.payload.due(due));
            match self.producer.try_send(&self.topic, &record) {
                Ok(()) => return Ok(()),
                Err(SendError::Full) => self.producer.ready().await,
                Err(error) => return Err(Failure::new(error)),
            }
        }
    }

    async fn flat_out(&mut self) -> Result<(), Failure> {
        let (most, until) = match self.enough {
            Enough::Records(records) => (records, None),
            Enough::After(time) => (u64::MAX, Some(now() + time)),
        };
        let mut sent = 0;
        while sent < most && until.is_none_or(|until| now() < until) {
            let started = now();
            let record = Record::of(self.payload.next());
            let delivery = self.producer.send(&self.topic, &record).await;
            let delivery = delivery.map_err(Failure::new)?;
            let gathered = self.gathered.clone();
            spawn(async move {
                if delivery.await.is_ok() {
                    gathered.took(now() - started);
                }
            });
            let burst = self.burst.min(most - sent);
            for _ in 1..burst {
                self.take(started).await?;
            }
            sent += burst;
            self.producer.ready().await;
        }
        Ok(())
    }

    /// Sends what is due at each tick. The last record of a tick stands for the others, which were
    /// acknowledged with it or before.
    async fn at_rate(&mut self, rate: f64) -> Result<(), Failure> {
        let start = now();
        let most = match self.enough {
            Enough::Records(records) => records,
            Enough::After(time) => (time.as_secs_f64() * rate) as u64,
        };
        let due_at = move |record: u64| start + Duration::from_secs_f64(record as f64 / rate);
        let mut sent = 0;
        while sent < most {
            let due = ((now() - start).as_secs_f64() * rate) as u64 + 1;
            let due = due.min(most);
            if due <= sent {
                sleep_until(due_at(sent).max(now() + TICK)).await;
                continue;
            }
            for record in sent..due - 1 {
                self.take(due_at(record)).await?;
            }
            let record = Record::of(self.payload.due(due_at(due - 1)));
            let delivery = self.producer.send(&self.topic, &record).await;
            let delivery = delivery.map_err(Failure::new)?;
            let gathered = self.gathered.clone();
            spawn(async move {
                if delivery.await.is_ok() {
                    let end = now();
                    for record in sent..due {
                        gathered.took(end - due_at(record));
                    }
                }
            });
            sent = due;
        }
        Ok(())
    }
}

/// Notes deliveries as time passes.
fn count_deliveries(
    producers: &[(Producer, ProducerTopic)],
    record_size: usize,
    gathered: &Gathered,
) -> JoinHandle<()> {
    let (producers, gathered) = (producers.to_vec(), gathered.clone());
    spawn(async move {
        loop {
            sleep(SAMPLE).await;
            count_now(&producers, record_size, &gathered);
        }
    })
}

/// How many records were delivered.
pub(crate) fn counted<'a>(producers: impl IntoIterator<Item = &'a Producer>) -> u64 {
    producers.into_iter().map(|p| p.stats().delivered).sum()
}

fn count_now(producers: &[(Producer, ProducerTopic)], record_size: usize, gathered: &Gathered) {
    let delivered = counted(producers.iter().map(|(producer, _)| producer));
    let records = delivered - gathered.series().records();
    gathered.done(records, records * record_size as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        assert_eq!(shares(10, 3), [4, 3, 3]);
        assert_eq!(shares(2, 3), [1, 1, 0]);
    }

    #[test]
    fn a_stamped_payload_tells_when_it_was_due() {
        let due = Instant::default() + Duration::from_nanos(123_456_789);
        let mut payload = Payload::stamped(100, 7);
        let value = payload.due(due).to_vec();
        assert_eq!((value.len(), stamp_of(&value)), (100, Some(due)));
        assert_eq!(Payload::stamped(1, 7).due(due).len(), STAMP);
        assert_eq!(Payload::new(100, 7).due(due).len(), 100);
        assert_eq!(stamp_of(b"short"), None);
    }

    #[test]
    fn payloads_have_their_size_and_differ() {
        let mut payload = Payload::new(100, 7);
        let first = payload.next().to_vec();
        assert_eq!(first.len(), 100);
        assert_ne!(first, payload.next());
        assert_eq!(Payload::new(100, 7).next(), first);
        assert_eq!(Payload::new(0, 7).next(), b"");
    }
}
