//! The producer: takes records, delivers batches.
//!
//! A shell around the state machine in [`core`]: one task per broker sends, one keeps time, one
//! watches the cluster's metadata. [`Producer::try_send`] is the fast path, without a future per
//! record; [`Producer::send`] waits for room and tells where the record ended up.

mod batcher;
mod core;
mod delivery;
mod lane;
mod sender;
mod stats;
mod transacting;
mod transaction;
mod verdict;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use ringmill_wire::builder::NewRecord;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use ringmill_wire::record::Header;
use thiserror::Error;

use crate::cluster::{Client, LookupError};
use crate::config::{ConfigError, ProducerConfig};
use crate::metadata::error_code;
use crate::partitioner::{Choice, Partitioning, partition_of_key};
use crate::pool::Pool;
use crate::transport::{
    Instant, JoinHandle, Notify, now, random_u64, sleep_until, spawn, wall_clock_ms, yield_now,
};

pub use delivery::{Delivered, Delivery, DeliveryError};
pub use stats::ProducerStats;
pub use transaction::TransactionError;

use self::core::{Core, Wake};
use lane::Identity;

/// Why there is no producer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProducerError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No producer id was given out.
    #[error("no producer id: {0}")]
    Identity(LookupError),
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// `buffer.memory` is used up: wait with [`Producer::ready`].
    #[error("the producer's buffer is full: records come faster than they are delivered")]
    Full,
    /// The record is larger than a request may be.
    #[error(
        "a record of {bytes} bytes exceeds max.request.size of {limit}: raise it, and the topic's max.message.bytes"
    )]
    TooLarge {
        /// Bytes of a batch with this record alone.
        bytes: usize,
        /// The setting.
        limit: usize,
    },
    /// The topic has no such partition.
    #[error("topic {topic:?} has {count} partitions, there is no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: Arc<str>,
        /// As given.
        partition: i32,
        /// How many there are, from 0 on.
        count: usize,
    },
    /// The producer is transactional, and there is no transaction for the record.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

/// Some records were not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{records} records were not delivered, the first because: {first}")]
pub struct FlushError {
    /// How many, since the last flush.
    pub records: u64,
    /// Why the first.
    pub first: DeliveryError,
}

/// A record to produce; its parts are copied once, into the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// Where to; by the key or, without one, to any if not given.
    pub partition: Option<i32>,
    /// May be null.
    pub key: Option<&'a [u8]>,
    /// Null is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In the application's order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since the Unix epoch; now if not given.
    pub timestamp: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record with a value alone.
    pub fn of(value: &'a [u8]) -> Self {
        Self {
            value: Some(value),
            ..Self::default()
        }
    }

    /// The same with a key.
    pub fn with_key(self, key: &'a [u8]) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }
}

/// A topic as its producer knows it; clones are cheap.
#[derive(Debug, Clone)]
pub struct ProducerTopic {
    name: Arc<str>,
    at: usize,
    producer: u64,
}

impl ProducerTopic {
    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// See the module; clones share everything. When the last is dropped, what was not delivered is
/// given up: [`Producer::close`] delivers it first.
#[derive(Clone)]
pub struct Producer(Rc<Handle>);

struct Handle(Rc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What the producer's tasks share.
struct Shared {
    client: Client,
    config: ProducerConfig,
    /// Tells topics of different producers apart.
    serial: u64,
    pool: Pool,
    core: RefCell<Core>,
    /// By broker: it may have something to be sent.
    bells: RefCell<BTreeMap<i32, Rc<Notify>>>,
    timer: Notify,
    progress: Notify,
    identity_wanted: Notify,
    /// The transaction's coordinator is to be told of partitions.
    partitions_wanted: Notify,
    tasks: RefCell<Vec<JoinHandle>>,
    closed: Cell<bool>,
    /// The present turn and its wall-clock time: read once per turn, not per record.
    clock: Cell<(Instant, i64)>,
}

impl Producer {
    /// A producer for the client's cluster.
    ///
    /// # Errors
    /// If the settings cannot be kept, or an idempotent producer gets no id from the cluster.
    pub async fn new(client: &Client, config: ProducerConfig) -> Result<Self, ProducerError> {
        config.check(client.config())?;
        // a transactional one gets its identity when it initialises its transactions
        let identity = match config.idempotence && config.transactional_id.is_none() {
            true => Some(
                new_identity(client)
                    .await
                    .map_err(ProducerError::Identity)?,
            ),
            false => None,
        };
        let core = Core::new(&config, client.config(), identity);
        let shared = Rc::new(Shared {
            client: client.clone(),
            config,
            serial: random_u64(),
            pool: Pool::default(),
            core: RefCell::new(core),
            bells: RefCell::default(),
            timer: Notify::new(),
            progress: Notify::new(),
            identity_wanted: Notify::new(),
            partitions_wanted: Notify::new(),
            tasks: RefCell::default(),
            closed: Cell::new(false),
            clock: Cell::new((Instant::default(), 0)),
        });
        for task in [
            spawn(keep_time(shared.clone())),
            spawn(watch_metadata(shared.clone())),
            spawn(renew_identity(shared.clone())),
            spawn(transacting::add_partitions(shared.clone())),
        ] {
            shared.tasks.borrow_mut().push(task);
        }
        Ok(Self(Rc::new(Handle(shared))))
    }

    /// Looks a topic up, which may create it, if the cluster is configured so.
    pub async fn topic(&self, name: &str) -> Result<ProducerTopic, LookupError> {
        let shared = &self.0.0;
        let topic = shared.client.topic(name, true).await?;
        let at = shared.core.borrow_mut().add_topic(name);
        shared.core.borrow_mut().on_metadata(&shared.client.image());
        Ok(ProducerTopic {
            name: topic.name,
            at,
            producer: shared.serial,
        })
    }

    /// How many partitions a topic has.
    ///
    /// # Panics
    /// If the topic is another producer's, as all methods that take one.
    pub fn partitions(&self, topic: &ProducerTopic) -> usize {
        self.0.0.check(topic);
        self.0.0.core.borrow().partitions(topic.at)
    }

    /// Takes a record, if there is room: without a future, an allocation or a system call. Failed
    /// deliveries are seen in [`Producer::flush`]. A long loop of these must let the producer's
    /// tasks run now and then: `ready().await` does so.
    #[inline]
    pub fn try_send(&self, topic: &ProducerTopic, record: &Record<'_>) -> Result<(), SendError> {
        self.0.0.take(topic, record, false).map(drop)
    }

    /// As [`Producer::try_send`], with a future for the delivery.
    pub fn try_send_tracked(
        &self,
        topic: &ProducerTopic,
        record: &Record<'_>,
    ) -> Result<Delivery, SendError> {
        let (_, delivery) = self.0.0.take(topic, record, true)?;
        Ok(delivery.expect("it was asked for"))
    }

    /// Takes a record as soon as there is room. The future that comes back waits for its delivery,
    /// and need not be awaited.
    pub async fn send(
        &self,
        topic: &ProducerTopic,
        record: &Record<'_>,
    ) -> Result<Delivery, SendError> {
        loop {
            match self.0.0.take(topic, record, true) {
                Err(SendError::Full) => self.room().await,
                Err(error) => return Err(error),
                Ok((sealed, delivery)) => {
                    if sealed {
                        yield_now().await;
                    }
                    return Ok(delivery.expect("it was asked for"));
                }
            }
        }
    }

    /// Waits for room, and lets the producer's tasks run: to be called when
    /// [`Producer::try_send`] finds the buffer full, and once in a while in any case.
    pub async fn ready(&self) {
        yield_now().await;
        self.room().await;
    }

    /// No open batch waits for more records.
    #[cfg(feature = "tokio")]
    pub(crate) fn hurry(&self) {
        self.0.0.core.borrow_mut().hurry();
        self.0.0.act();
    }

    /// Waits until some batch is settled, or there is room again.
    #[cfg(feature = "tokio")]
    pub(crate) fn progress(&self) -> impl Future<Output = ()> + '_ {
        self.0.0.progress.notified()
    }

    async fn room(&self) {
        let shared = &self.0.0;
        loop {
            let progress = shared.progress.notified();
            if !shared.core.borrow().is_full() || shared.closed.get() {
                return;
            }
            shared.core.borrow_mut().hurry();
            shared.act();
            progress.await;
        }
    }

    /// Sends everything taken so far without further waiting, and waits until each record is
    /// delivered or has failed.
    ///
    /// # Errors
    /// If deliveries failed since the last flush.
    pub fn flush(&self) -> impl Future<Output = Result<(), FlushError>> + use<> {
        let shared = self.0.0.clone();
        async move { shared.flush().await }
    }

    /// Flushes, then closes: nothing more is taken, by no clone.
    pub async fn close(self) -> Result<(), FlushError> {
        let flushed = self.flush().await;
        self.0.0.stop();
        flushed
    }

    /// Bytes of records that wait for their delivery.
    pub fn buffered_bytes(&self) -> usize {
        self.0.0.core.borrow().buffered()
    }

    /// What was done so far.
    pub fn stats(&self) -> ProducerStats {
        self.0.0.core.borrow().stats
    }
}

impl Shared {
    fn check(&self, topic: &ProducerTopic) {
        assert_eq!(
            topic.producer, self.serial,
            "the topic is another producer's"
        );
    }

    /// Takes a record; tells whether a batch was sealed.
    #[inline]
    fn take(
        self: &Rc<Self>,
        topic: &ProducerTopic,
        record: &Record<'_>,
        tracked: bool,
    ) -> Result<(bool, Option<Delivery>), SendError> {
        self.check(topic);
        let mut core = self.core.borrow_mut();
        if core.is_full() {
            return Err(SendError::Full);
        }
        if self.closed.get() {
            return Err(SendError::Closed);
        }
        core.takes_records()?;
        let partition = self.partition(&mut core, topic, record)?;
        let at = now();
        let new = NewRecord {
            timestamp: record.timestamp.unwrap_or_else(|| self.wall_clock(at)),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let appended = core
            .append(at, (topic.at, partition), &new, tracked)
            .map_err(|large| SendError::TooLarge {
                bytes: large.bytes,
                limit: self.config.max_request_bytes,
            })?;
        let wakes = core.has_wakes();
        drop(core);
        if wakes {
            self.act();
        }
        Ok((appended.sealed, appended.delivery))
    }

    #[inline]
    fn partition(
        &self,
        core: &mut Core,
        topic: &ProducerTopic,
        record: &Record<'_>,
    ) -> Result<usize, SendError> {
        let count = core.partitions(topic.at);
        let within = |partition: i32| usize::try_from(partition).ok().filter(|p| *p < count);
        let mut named = record.partition;
        let chosen = match (record.partition, record.key, &self.config.partitioning) {
            (Some(partition), ..) => within(partition),
            (None, Some(key), Partitioning::KeyHash) if count > 0 => {
                Some(partition_of_key(key, count))
            }
            (None, _, Partitioning::RoundRobin) => core.choose_next(topic.at),
            (None, key, Partitioning::Custom(partitioner)) if count > 0 => {
                let choice = Choice {
                    topic: &topic.name,
                    key,
                    value: record.value,
                    partitions: count,
                    available: core.available(topic.at),
                };
                within(*named.insert(partitioner.choose(&choice)))
            }
            (None, ..) => {
                let bytes = record.value.map_or(0, <[u8]>::len);
                core.choose(topic.at, bytes, random_u64)
            }
        };
        chosen.ok_or_else(|| SendError::NoPartition {
            topic: topic.name.clone(),
            partition: named.unwrap_or(0),
            count,
        })
    }

    #[inline]
    fn wall_clock(&self, at: Instant) -> i64 {
        let (turn, ms) = self.clock.get();
        if turn == at {
            return ms;
        }
        let ms = wall_clock_ms();
        self.clock.set((at, ms));
        ms
    }

    async fn flush(self: &Rc<Self>) -> Result<(), FlushError> {
        let serial = self.core.borrow().next_serial();
        self.core.borrow_mut().hurry();
        self.act();
        loop {
            let progress = self.progress.notified();
            if self.core.borrow().is_settled_below(serial) {
                break;
            }
            progress.await;
        }
        match self.core.borrow_mut().take_failures() {
            Some((records, first)) => Err(FlushError { records, first }),
            None => Ok(()),
        }
    }

    /// Wakes whoever the core wants woken.
    fn act(self: &Rc<Self>) {
        let wakes = self.core.borrow_mut().take_wakes();
        for wake in wakes {
            match wake {
                Wake::Node(id) => self.bell(id).notify_one(),
                Wake::Timer => self.timer.notify_one(),
                Wake::Metadata => self.client.request_refresh(),
                Wake::Identity => self.identity_wanted.notify_one(),
                Wake::Transaction => self.partitions_wanted.notify_one(),
                Wake::Progress => self.progress.notify_all(),
            }
        }
    }

    /// A broker's bell; its task begins with it.
    fn bell(self: &Rc<Self>, id: i32) -> Rc<Notify> {
        let mut bells = self.bells.borrow_mut();
        let bell = bells.entry(id).or_insert_with(|| {
            let bell = Rc::new(Notify::new());
            let task = spawn(sender::send_to(self.clone(), id, bell.clone()));
            self.tasks.borrow_mut().push(task);
            bell
        });
        bell.clone()
    }

    fn stop(&self) {
        if self.closed.replace(true) {
            return;
        }
        for task in self.tasks.take() {
            task.abort();
        }
        self.core.borrow_mut().fail_all(&DeliveryError::Closed);
        self.progress.notify_all();
    }
}

/// Calls the core when time has something for it to do.
async fn keep_time(shared: Rc<Shared>) {
    loop {
        let changed = shared.timer.notified();
        shared.core.borrow_mut().on_tick(now());
        shared.act();
        let deadline = shared.core.borrow().next_deadline();
        match deadline {
            Some(deadline) => {
                futures_util::future::select(
                    std::pin::pin!(changed),
                    std::pin::pin!(sleep_until(deadline)),
                )
                .await;
            }
            None => changed.await,
        }
    }
}

/// Tells the core of leaders that have changed.
async fn watch_metadata(shared: Rc<Shared>) {
    loop {
        let refreshed = shared.client.refreshed();
        shared.core.borrow_mut().on_metadata(&shared.client.image());
        shared.act();
        refreshed.await;
    }
}

/// Gets a new identity whenever the epochs of the old one are used up.
async fn renew_identity(shared: Rc<Shared>) {
    loop {
        shared.identity_wanted.notified().await;
        match new_identity(&shared.client).await {
            Ok(identity) => shared.core.borrow_mut().on_identity(identity),
            // the next attempt to send asks again
            Err(_) => shared.timer.notify_one(),
        }
        shared.act();
    }
}

/// An identity from the cluster (InitProducerId).
async fn new_identity(client: &Client) -> Result<Identity, LookupError> {
    client
        .retried(async || {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1);
            let connection = client.any().await?;
            let limit = client.config().request_timeout;
            let response: InitProducerIdResponse = connection.call(&request, limit).await?;
            match error_code(response.error_code) {
                ErrorCode::None => Ok(Identity {
                    id: response.producer_id.0,
                    epoch: response.producer_epoch,
                    transactional: false,
                }),
                code => Err(LookupError::Refused {
                    what: "producer id".to_owned(),
                    code,
                }),
            }
        })
        .await
}
