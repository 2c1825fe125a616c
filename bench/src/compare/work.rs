//! One measure of one system: a topic of its own, some seconds of records into it, and what that
//! took.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringmill_client::local::{Acks, Admin, NewTopic, Producer, ProducerConfig};
use ringmill_ring::{now, spawn};

use super::Args;
use super::system::{System, TopicSetting};
use crate::Failure;
use crate::broker::Broker;
use crate::measure::Gathered;
use crate::process::usage;
use crate::produce::{Enough, Load, Payload, counted};

/// What is done, apart from how fast.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) promise: String,
    pub(crate) record_size: usize,
    partitions: i32,
    replication: i16,
    producers: u64,
    batch_size: usize,
    linger: Duration,
    duration: Duration,
}

/// What one measure gave.
#[derive(Debug, Clone)]
pub(crate) struct One {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// Of the system's processes, and of this one.
    pub(crate) system_cpu: Duration,
    pub(crate) client_cpu: Duration,
    /// The most that the system's processes ever had, in bytes.
    pub(crate) peak_memory: u64,
    /// Microseconds.
    pub(crate) latencies: Histogram<u64>,
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

impl Work {
    pub(crate) fn of(args: &Args, promise: &str, record_size: usize) -> Self {
        Self {
            promise: promise.to_owned(),
            record_size,
            partitions: args.partitions,
            replication: args.replication,
            producers: args.producers.max(1),
            batch_size: args.batch_size,
            linger: args.linger,
            duration: args.duration,
        }
    }

    /// Does it once; at a rate, or as fast as it goes.
    pub(crate) async fn run(
        &self,
        system: &System,
        settings: &[TopicSetting],
        rate: Option<u64>,
        round: u32,
    ) -> Result<One, Failure> {
        let broker = Broker::at(&system.address).await?;
        let kind = rate.map_or("fast", |_| "rate");
        let (promise, size) = (&self.promise, self.record_size);
        let name = format!("ringmill-bench-{promise}-{size}-{kind}-{round}");
        let configs = settings
            .iter()
            .filter(|s| s.system == system.name && s.promise == self.promise)
            .map(|s| (s.key.clone(), s.value.clone()));
        let topic = NewTopic {
            name: name.clone(),
            partitions: Some(self.partitions),
            replication: Some(self.replication),
            configs: configs.collect(),
        };
        let admin = Admin::new(&broker.client);
        admin.create_topic(&topic).await.map_err(Failure::new)?;
        let measured = self.measure(&broker, system, &name, rate).await;
        admin.delete_topic(&name).await.map_err(Failure::new)?;
        measured
    }

    async fn measure(
        &self,
        broker: &Broker,
        system: &System,
        name: &str,
        rate: Option<u64>,
    ) -> Result<One, Failure> {
        let gathered = Gathered::new();
        let mut loads = Vec::new();
        for nth in 0..self.producers {
            let producer = Producer::new(&broker.client, self.config()).await;
            let producer = producer.map_err(Failure::new)?;
            let topic = producer.topic(name).await.map_err(Failure::new)?;
            let rate = rate.map(|rate| rate as f64 / self.producers as f64);
            loads.push(Load {
                producer,
                topic,
                enough: Enough::After(self.duration),
                payload: Payload::new(self.record_size, nth),
                burst: (self.batch_size / self.record_size.max(1)).max(1) as u64,
                rate,
                gathered: gathered.clone(),
            });
        }
        let producers: Vec<_> = loads.iter().map(|load| load.producer.clone()).collect();
        let (before, own) = (system.used()?, usage(None)?);
        let begun = now();
        gathered.start();
        let tasks: Vec<_> = loads.into_iter().map(|load| spawn(load.send())).collect();
        for task in tasks {
            task.await.map_err(Failure::new)??;
        }
        let seconds = (now() - begun).as_secs_f64();
        let (after, own_after) = (system.used()?, usage(None)?);
        Ok(One {
            records: counted(&producers),
            seconds,
            system_cpu: after.cpu.saturating_sub(before.cpu),
            client_cpu: own_after.cpu.saturating_sub(own.cpu),
            peak_memory: after.peak_memory,
            latencies: gathered.latencies(),
        })
    }

    fn config(&self) -> ProducerConfig {
        let defaults = ProducerConfig::default();
        let max_request_bytes = defaults.max_request_bytes.max(self.batch_size);
        let in_flight = defaults.max_in_flight;
        ProducerConfig {
            acks: Acks::All,
            batch_bytes: self.batch_size,
            linger: self.linger,
            max_request_bytes,
            // what waits longer than that only adds to the latency
            buffer_bytes: (2 * in_flight * self.batch_size).max(max_request_bytes),
            ..defaults
        }
    }
}
