//! One measure of one system: a work on a topic, some seconds long, and what that took.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringmill_client::local::{Acks, Admin, NewTopic, Producer, ProducerConfig};
use ringmill_ring::{JoinHandle, now, sleep, spawn};

use super::Args;
use super::plan::{Kind, Work};
use super::program::Program;
use super::readers::{From, Readers};
use super::system::{Spent, System, TopicSetting};
use crate::Failure;
use crate::broker::Broker;
use crate::fill::fill;
use crate::measure::Gathered;
use crate::process::{drop_caches, usage};
use crate::produce::{Enough, Load, Payload, connect, counted};

/// Apache Kafka makes less than ten thousand with one request.
const PARTITIONS_AT_ONCE: i32 = 5_000;

/// How one measure is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Records per second; None: as fast as it goes.
    pub(crate) rate: Option<u64>,
    pub(crate) duration: Duration,
    pub(crate) round: u32,
}

/// What one measure gave.
#[derive(Debug, Clone)]
pub(crate) struct One {
    /// What went in, or came out if something was read.
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// What the system's processes used, and wrote to their disks.
    pub(crate) spent: Spent,
    /// CPU time of this process.
    pub(crate) client_cpu: Duration,
    /// Until a record was acknowledged, or came out, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Of catching up: the same before anybody read.
    pub(crate) before: Option<Histogram<u64>>,
}

impl One {
    pub(crate) fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds.max(1e-9)
    }

    pub(crate) fn latency_ms(&self, percentile: f64) -> f64 {
        self.latencies.value_at_percentile(percentile) as f64 / 1e3
    }

    /// For whoever watches.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:.0} records/s, p50 {:.2} ms, p99 {:.2} ms",
            self.records_per_second(),
            self.latency_ms(50.0),
            self.latency_ms(99.0)
        )
    }
}

/// The topic that all rounds read from.
pub(crate) async fn prepare(
    work: &Work,
    system: &System,
    settings: &[TopicSetting],
) -> Result<(), Failure> {
    if !work.kind.reads_what_is_there() {
        return Ok(());
    }
    let broker = Broker::at(&system.address).await?;
    let name = topic_of(work, None);
    create(work, &broker, system, settings, &name).await?;
    fill(&broker.client, &name, work.records, work.record_size).await
}

/// Removes what [`prepare`] has made.
pub(crate) async fn tidy(work: &Work, system: &System) -> Result<(), Failure> {
    if !work.kind.reads_what_is_there() {
        return Ok(());
    }
    let broker = Broker::at(&system.address).await?;
    let admin = Admin::new(&broker.client);
    let deleted = admin.delete_topic(&topic_of(work, None)).await;
    deleted.map_err(Failure::new)
}

/// Does a work once.
pub(crate) async fn run(
    work: &Work,
    system: &System,
    settings: &[TopicSetting],
    way: Way,
) -> Result<One, Failure> {
    let broker = Broker::at(&system.address).await?;
    system.reset_peak();
    if work.kind.reads_what_is_there() {
        let name = topic_of(work, None);
        return match work.kind {
            Kind::CatchUp => catch_up(work, &broker, system, &name, way).await,
            _ => consume(work, &broker, system, &name).await,
        };
    }
    let name = topic_of(work, Some(way));
    create(work, &broker, system, settings, &name).await?;
    let measured = match work.kind {
        Kind::Single => single(work, &broker, system, &name, way).await,
        Kind::EndToEnd => end_to_end(work, &broker, system, &name, way).await,
        _ => produce(work, &broker, system, &name, way).await,
    };
    let deleted = Admin::new(&broker.client).delete_topic(&name).await;
    deleted.map_err(Failure::new)?;
    measured
}

/// Lets another program do it.
pub(crate) async fn by_program(
    work: &Work,
    system: &System,
    args: &Args,
    program: &Program,
    way: Way,
) -> Result<One, Failure> {
    system.reset_peak();
    let name = topic_of(work, Some(way));
    let broker = match args.foreign.contains(&system.name) {
        true => None,
        false => Some(Broker::at(&system.address).await?),
    };
    if let Some(broker) = &broker {
        create(work, broker, system, &args.settings, &name).await?;
    }
    let meter = Meter::start(system)?;
    let done = program.run(work, system, &name)?;
    let elapsed = Duration::try_from_secs_f64(done.seconds).map_err(Failure::new)?;
    let mut one = meter.stop(done.records, elapsed, Gathered::new().latencies())?;
    one.client_cpu = done.cpu;
    if broker.is_some() {
        // the connection of before was silent for long
        let broker = Broker::at(&system.address).await?;
        let deleted = Admin::new(&broker.client).delete_topic(&name).await;
        deleted.map_err(Failure::new)?;
    }
    Ok(one)
}

fn topic_of(work: &Work, way: Option<Way>) -> String {
    let name = work.name().replace(", ", "-").replace(' ', "-");
    match way {
        Some(Way { rate, round, .. }) => {
            let kind = rate.map_or("fast", |_| "rate");
            format!("ringmill-bench-{name}-{kind}-{round}")
        }
        None => format!("ringmill-bench-{name}"),
    }
}

async fn create(
    work: &Work,
    broker: &Broker,
    system: &System,
    settings: &[TopicSetting],
    name: &str,
) -> Result<(), Failure> {
    let configs = settings
        .iter()
        .filter(|s| s.system == system.name && s.promise == work.promise)
        .map(|s| (s.key.clone(), s.value.clone()));
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(work.partitions.min(PARTITIONS_AT_ONCE)),
        replication: Some(work.replication),
        configs: configs.collect(),
    };
    let admin = Admin::new(&broker.client);
    admin.create_topic(&topic).await.map_err(Failure::new)?;
    let mut there = PARTITIONS_AT_ONCE;
    while there < work.partitions {
        there = (there + PARTITIONS_AT_ONCE).min(work.partitions);
        let grown = admin.create_partitions(name, there).await;
        grown.map_err(Failure::new)?;
    }
    Ok(())
}

/// What is used from here on.
struct Meter<'a> {
    system: &'a System,
    before: Spent,
    own: Duration,
}

impl<'a> Meter<'a> {
    fn start(system: &'a System) -> Result<Self, Failure> {
        Ok(Self {
            system,
            before: system.spent()?,
            own: usage(None)?.cpu,
        })
    }

    fn stop(
        self,
        records: u64,
        elapsed: Duration,
        latencies: Histogram<u64>,
    ) -> Result<One, Failure> {
        Ok(One {
            records,
            seconds: elapsed.as_secs_f64(),
            spent: self.system.spent()?.since(&self.before),
            client_cpu: usage(None)?.cpu.saturating_sub(self.own),
            latencies,
            before: None,
        })
    }
}

/// Producers at a rate, or as fast as the system takes records.
struct Producers {
    all: Vec<Producer>,
    tasks: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Producers {
    async fn start(
        work: &Work,
        broker: &Broker,
        (name, stamped): (&str, bool),
        (rate, duration): (Option<u64>, Duration),
        gathered: &Gathered,
    ) -> Result<Self, Failure> {
        let mut loads = Vec::new();
        for nth in 0..work.producers {
            let (producer, topic) = connect(broker, &config(work), name).await?;
            loads.push(Load {
                producer,
                topic,
                enough: Enough::After(duration),
                payload: match stamped {
                    true => Payload::stamped(work.record_size, nth),
                    false => Payload::new(work.record_size, nth),
                },
                burst: (work.batch_size / work.record_size.max(1)).max(1) as u64,
                rate: rate.map(|rate| rate as f64 / work.producers as f64),
                gathered: gathered.clone(),
            });
        }
        let all = loads.iter().map(|load| load.producer.clone()).collect();
        let tasks = loads.into_iter().map(|load| spawn(load.send())).collect();
        Ok(Self { all, tasks })
    }

    /// Until all is acknowledged; gives how many records that are.
    async fn finish(self) -> Result<u64, Failure> {
        for task in self.tasks {
            task.await.map_err(Failure::new)??;
        }
        Ok(counted(&self.all))
    }
}

async fn produce(
    work: &Work,
    broker: &Broker,
    system: &System,
    name: &str,
    way: Way,
) -> Result<One, Failure> {
    let gathered = Gathered::new();
    let pace = (way.rate, way.duration);
    let (meter, begun) = (Meter::start(system)?, now());
    let producers = Producers::start(work, broker, (name, false), pace, &gathered).await?;
    let records = producers.finish().await?;
    meter.stop(records, now() - begun, gathered.latencies())
}

async fn end_to_end(
    work: &Work,
    broker: &Broker,
    system: &System,
    name: &str,
    way: Way,
) -> Result<One, Failure> {
    let (acknowledged, arrived) = (Gathered::new(), Gathered::new());
    let readers = Readers::start(work, broker, name, From::End, &arrived).await?;
    let pace = (Some(work.calm_rate()), way.duration);
    let (meter, begun) = (Meter::start(system)?, now());
    let producers = Producers::start(work, broker, (name, true), pace, &acknowledged).await?;
    let written = producers.finish().await?;
    let records = written * work.consumers as u64;
    readers.until(records).await?;
    meter.stop(records, now() - begun, arrived.latencies())
}

async fn consume(
    work: &Work,
    broker: &Broker,
    system: &System,
    name: &str,
) -> Result<One, Failure> {
    let arrived = Gathered::new();
    let (meter, begun) = (Meter::start(system)?, now());
    let readers = Readers::start(work, broker, name, From::Beginning, &arrived).await?;
    let records = work.records * work.consumers as u64;
    readers.until(records).await?;
    meter.stop(records, now() - begun, Gathered::new().latencies())
}

/// Records go in all the time; in the second half somebody reads from the beginning.
async fn catch_up(
    work: &Work,
    broker: &Broker,
    system: &System,
    name: &str,
    way: Way,
) -> Result<One, Failure> {
    let pace = (Some(work.calm_rate()), way.duration);
    let before = Gathered::new();
    let calm = Producers::start(work, broker, (name, false), pace, &before).await?;
    calm.finish().await?;
    drop_caches();
    let (during, arrived) = (Gathered::new(), Gathered::new());
    let (meter, begun) = (Meter::start(system)?, now());
    let producers = Producers::start(work, broker, (name, false), pace, &during).await?;
    let readers = Readers::start(work, broker, name, From::Beginning, &arrived).await?;
    // the reader goes on for as long as the producers do, or until it has all that was there
    let wanted = work.records * work.consumers as u64;
    while arrived.series().records() < wanted && now() - begun < way.duration {
        sleep(Duration::from_millis(5)).await;
    }
    let (records, elapsed) = (arrived.series().records(), now() - begun);
    drop(readers);
    producers.finish().await?;
    let mut one = meter.stop(records, elapsed, during.latencies())?;
    one.before = Some(before.latencies());
    Ok(one)
}

/// Each producer has one record in flight.
async fn single(
    work: &Work,
    broker: &Broker,
    system: &System,
    name: &str,
    way: Way,
) -> Result<One, Failure> {
    let gathered = Gathered::new();
    let config = ProducerConfig {
        max_in_flight: 1,
        ..config(work)
    };
    let mut all = Vec::new();
    for _ in 0..work.producers {
        all.push(connect(broker, &config, name).await?);
    }
    let (meter, begun) = (Meter::start(system)?, now());
    gathered.start();
    let end = begun + way.duration;
    let tasks: Vec<_> = all
        .into_iter()
        .zip(0..)
        .map(|((producer, topic), nth)| {
            let mut payload = Payload::new(work.record_size, nth);
            let gathered = gathered.clone();
            spawn(async move {
                while now() < end {
                    let sent = now();
                    let record = ringmill_client::local::Record::of(payload.next());
                    let delivery = producer.send(&topic, &record).await;
                    delivery
                        .map_err(Failure::new)?
                        .await
                        .map_err(Failure::new)?;
                    gathered.took(now() - sent);
                    gathered.done(1, 0);
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(Failure::new)??;
    }
    let records = gathered.series().records();
    meter.stop(records, now() - begun, gathered.latencies())
}

fn config(work: &Work) -> ProducerConfig {
    let defaults = ProducerConfig::default();
    let max_request_bytes = defaults.max_request_bytes.max(work.batch_size);
    let in_flight = defaults.max_in_flight;
    ProducerConfig {
        acks: Acks::All,
        batch_bytes: work.batch_size,
        linger: work.linger,
        max_request_bytes,
        // what waits longer than that only adds to the latency
        buffer_bytes: (2 * in_flight * work.batch_size).max(max_request_bytes),
        ..defaults
    }
}
