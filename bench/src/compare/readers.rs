//! Consumers that read a whole topic, each all of it.

use std::rc::Rc;
use std::time::Duration;

use ringmill_client::local::{
    Admin, Consumer, ConsumerConfig, Event, OffsetSpec, StartAt, TopicPartition,
};
use ringmill_ring::{JoinHandle, Notify, now, spawn, timeout};

use super::plan::{Kind, Work};
use crate::Failure;
use crate::broker::Broker;
use crate::measure::Gathered;
use crate::produce::stamp_of;

/// Without a record for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    End,
}

/// See the module; they end with this.
pub(crate) struct Readers {
    tasks: Vec<JoinHandle<Result<(), Failure>>>,
    arrived: Gathered,
    /// Something was read.
    bell: Rc<Notify>,
}

impl Drop for Readers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Readers {
    /// As many as the work says. Of records that tell when they were due, how long they took is noted.
    pub(crate) async fn start(
        work: &Work,
        broker: &Broker,
        topic: &str,
        from: From,
        arrived: &Gathered,
    ) -> Result<Self, Failure> {
        let admin = Admin::new(&broker.client);
        let partitions = admin.partitions(topic).await.map_err(Failure::new)?;
        // where the end is, is found out before anything is written
        let starts = match from {
            From::Beginning => None,
            From::End => {
                let wanted = partitions.iter().map(|p| (p.clone(), OffsetSpec::Latest));
                Some(broker.client.offsets(wanted).await.map_err(Failure::new)?)
            }
        };
        let start = |partition: &TopicPartition| match &starts {
            None => StartAt::Find(OffsetSpec::Earliest),
            Some(ends) => {
                let end = ends.get(partition).copied().flatten();
                StartAt::Offset(end.map_or(0, |place| place.offset))
            }
        };
        arrived.start();
        let mut readers = Self {
            tasks: Vec::new(),
            arrived: arrived.clone(),
            bell: Rc::default(),
        };
        let is_stamped = work.kind == Kind::EndToEnd;
        for _ in 0..work.consumers {
            let consumer = Consumer::new(&broker.client, ConsumerConfig::default());
            let consumer = consumer.map_err(Failure::new)?;
            consumer.assign(partitions.iter().map(|p| (p.clone(), start(p))));
            let (arrived, bell) = (arrived.clone(), Rc::clone(&readers.bell));
            let task = spawn(read(consumer, is_stamped, arrived, bell));
            readers.tasks.push(task);
        }
        Ok(readers)
    }

    /// Waits until all of them together have read so many records.
    pub(crate) async fn until(self, records: u64) -> Result<(), Failure> {
        loop {
            let rung = self.bell.notified();
            let there = self.arrived.series().records();
            if there >= records {
                return Ok(());
            }
            if timeout(PATIENCE, rung).await.is_err() {
                return Err(Failure(format!(
                    "no record came for {PATIENCE:?}: {there} of {records} were read"
                )));
            }
        }
    }
}

async fn read(
    consumer: Consumer,
    is_stamped: bool,
    arrived: Gathered,
    bell: Rc<Notify>,
) -> Result<(), Failure> {
    loop {
        let Event::Records(fetched) = consumer.poll(PATIENCE).await.map_err(Failure::new)? else {
            continue;
        };
        let (time, mut bytes) = (now(), 0);
        let visited = fetched.for_each(|record| {
            let value = record.value.unwrap_or_default();
            bytes += value.len() as u64;
            if is_stamped && let Some(due) = stamp_of(value) {
                arrived.took(time - due);
            }
        });
        let records = visited.map_err(Failure::new)?;
        arrived.done(records, bytes);
        bell.notify_one();
    }
}
