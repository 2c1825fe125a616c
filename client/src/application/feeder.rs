//! The producer's half on the I/O thread: takes records from the intake in their order and feeds
//! them to the single-threaded producer. Records of a topic that is not known yet wait for its
//! look-up, and nobody waits for them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use ringmill_wire::record::Header;

use super::error::StartError;
use super::intake::{Entry, Intake, Submission};
use super::interceptor::ProducerInterceptor;
use super::record::ProducerRecord;
use crate::cluster::Client;
use crate::config::{ClientConfig, ProducerConfig};
use crate::producer::{
    DeliveryError, FlushError, Producer, ProducerTopic, Record, SendError, TransactionError,
};
use crate::transport::{Notify, spawn, timeout, yield_now};

/// Records taken between two turns of the other tasks.
const RECORDS_PER_TURN: usize = 512;

pub(crate) type Interceptors = Arc<[Arc<dyn ProducerInterceptor>]>;

/// A topic of the producer's.
enum Slot {
    Known(ProducerTopic),
    /// Its look-up is on its way, and these wait for it.
    Wanted(VecDeque<Submission>),
}

/// See the module.
pub(crate) struct Feeder {
    pub(crate) producer: Producer,
    client: Client,
    intake: Arc<Intake>,
    interceptors: Interceptors,
    topics: RefCell<BTreeMap<Arc<str>, Slot>>,
    /// A topic's look-up has ended, well or not.
    looked_up: Notify,
    /// There may be room again.
    room: Notify,
    /// Records that failed before the producer had them, since the last flush, and the first error.
    refused: Cell<u64>,
    first_refusal: RefCell<Option<DeliveryError>>,
    max_block: std::time::Duration,
}

impl Feeder {
    /// Connects, and begins to take records.
    pub(crate) async fn start(
        client: ClientConfig,
        config: ProducerConfig,
        intake: Arc<Intake>,
        interceptors: Interceptors,
    ) -> Result<Rc<Self>, StartError> {
        let max_block = config.max_block;
        config.check(&client)?;
        let client = Client::connect(client).await?;
        let producer = Producer::new(&client, config).await?;
        let feeder = Rc::new(Self {
            producer,
            client,
            intake,
            interceptors,
            topics: RefCell::default(),
            looked_up: Notify::new(),
            room: Notify::new(),
            refused: Cell::new(0),
            first_refusal: RefCell::new(None),
            max_block,
        });
        spawn(take_all(feeder.clone()));
        spawn(watch_room(feeder.clone()));
        Ok(feeder)
    }

    /// Waits until a record of `bytes` may find room. False if that takes longer than
    /// `max.block.ms`.
    pub(crate) async fn wait_for_room(&self, bytes: usize) -> bool {
        let room = async {
            loop {
                let changed = self.room.notified();
                if self.intake.has_room(bytes) {
                    return;
                }
                // what waits for more records need not, when there is no room for more
                self.producer.hurry();
                changed.await;
            }
        };
        timeout(self.max_block, room).await.is_ok()
    }

    /// The partitions of a topic, looked up if need be.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<usize, crate::LookupError> {
        let topic = self.client.topic(topic, true).await?;
        Ok(topic.partitions.len())
    }

    async fn take(self: &Rc<Self>, submission: Submission) {
        let topic = submission.record.topic.clone();
        let known = {
            let mut topics = self.topics.borrow_mut();
            match topics.get_mut(&topic) {
                Some(Slot::Known(known)) => known.clone(),
                Some(Slot::Wanted(waiting)) => return waiting.push_back(submission),
                None => {
                    let waiting = VecDeque::from([submission]);
                    topics.insert(topic.clone(), Slot::Wanted(waiting));
                    spawn(look_up(self.clone(), topic));
                    return;
                }
            }
        };
        self.feed(&known, submission).await;
    }

    /// Gives a record to the producer, as soon as it has room.
    async fn feed(&self, topic: &ProducerTopic, submission: Submission) {
        let Submission { record, delivered } = submission;
        let bytes = record.size();
        let taken = {
            let headers: Vec<Header<'_>> = record.headers.iter().map(header).collect();
            loop {
                match self
                    .producer
                    .try_send_tracked(topic, &part(&record, &headers))
                {
                    Err(SendError::Full) => self.producer.ready().await,
                    done => break done,
                }
            }
        };
        self.moved(bytes);
        match taken {
            Ok(delivery) if self.interceptors.is_empty() => {
                delivery.tell(Box::new(move |result| drop(delivered.send(result))));
            }
            Ok(delivery) => {
                let (interceptors, topic) = (self.interceptors.clone(), record.topic.clone());
                delivery.tell(Box::new(move |result| {
                    acknowledge(&interceptors, &topic, &result);
                    let _ = delivered.send(result);
                }));
            }
            Err(error) => {
                let error = match error {
                    SendError::Closed => DeliveryError::Closed,
                    other => DeliveryError::Failed(other.to_string()),
                };
                self.refuse(&record, delivered, error);
            }
        }
    }

    /// That many bytes of records wait no longer outside of the producer.
    fn moved(&self, bytes: usize) {
        self.intake.on_moved(bytes, self.producer.buffered_bytes());
    }

    fn refuse(
        &self,
        record: &ProducerRecord,
        delivered: oneshot::Sender<Result<crate::Delivered, DeliveryError>>,
        error: DeliveryError,
    ) {
        self.refused.set(self.refused.get() + 1);
        self.first_refusal
            .borrow_mut()
            .get_or_insert_with(|| error.clone());
        let result = Err(error);
        acknowledge(&self.interceptors, &record.topic, &result);
        let _ = delivered.send(result);
    }

    fn has_wanted(&self) -> bool {
        let topics = self.topics.borrow();
        topics.values().any(|slot| matches!(slot, Slot::Wanted(_)))
    }

    /// Waits until no topic is being looked up.
    async fn all_looked_up(&self) {
        loop {
            let looked_up = self.looked_up.notified();
            if !self.has_wanted() {
                return;
            }
            looked_up.await;
        }
    }

    /// Commits the transaction, with all that was taken before.
    pub(crate) async fn commit(&self) -> Result<(), TransactionError> {
        self.all_looked_up().await;
        let committed = self.producer.commit_transaction().await;
        self.moved(0);
        committed
    }

    /// Aborts the transaction, with all that was taken before.
    pub(crate) async fn abort(&self) -> Result<(), TransactionError> {
        let waiting: Vec<Submission> = {
            let mut topics = self.topics.borrow_mut();
            let slots = topics.values_mut().filter_map(|slot| match slot {
                Slot::Wanted(waiting) => Some(waiting.drain(..)),
                Slot::Known(_) => None,
            });
            slots.flatten().collect()
        };
        for submission in waiting {
            self.moved(submission.record.size());
            let Submission { record, delivered } = submission;
            acknowledge(
                &self.interceptors,
                &record.topic,
                &Err(DeliveryError::Aborted),
            );
            let _ = delivered.send(Err(DeliveryError::Aborted));
        }
        let aborted = self.producer.abort_transaction().await;
        self.moved(0);
        aborted
    }

    /// Waits until all that was taken is settled.
    async fn flush(&self) -> Result<(), FlushError> {
        self.all_looked_up().await;
        let flushed = self.producer.flush().await;
        self.moved(0);
        let refused = self.refused.take();
        match (flushed, self.first_refusal.take()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(first)) => Err(FlushError {
                records: refused,
                first,
            }),
            (Err(error), _) => Err(FlushError {
                records: error.records + refused,
                ..error
            }),
        }
    }
}

/// Takes what comes, in its order, for as long as the thread lives.
async fn take_all(feeder: Rc<Feeder>) {
    loop {
        let entries = std::future::poll_fn(|cx| feeder.intake.poll_entries(cx)).await;
        for (taken, entry) in (1..).zip(entries) {
            match entry {
                Entry::Send(submission) => feeder.take(submission).await,
                Entry::Mark(tell) => drop(tell.send(())),
                Entry::Flush(tell) => {
                    let feeder = feeder.clone();
                    spawn(async move { drop(tell.send(feeder.flush().await)) });
                }
            }
            if taken % RECORDS_PER_TURN == 0 {
                yield_now().await;
            }
        }
        yield_now().await;
    }
}

/// Finds a topic's partitions, then feeds what has waited for them.
async fn look_up(feeder: Rc<Feeder>, name: Arc<str>) {
    let found = timeout(feeder.max_block, feeder.producer.topic(&name)).await;
    let found = match found {
        Ok(found) => found.map_err(DeliveryError::from),
        Err(_) => Err(DeliveryError::TimedOut {
            after: feeder.max_block,
            last: format!("the partitions of topic {name:?} are not known"),
            may_be_written: false,
        }),
    };
    loop {
        let next = {
            let mut topics = feeder.topics.borrow_mut();
            let Some(Slot::Wanted(waiting)) = topics.get_mut(&name) else {
                break;
            };
            match (waiting.pop_front(), &found) {
                (Some(next), _) => next,
                (None, Ok(topic)) => {
                    topics.insert(name.clone(), Slot::Known(topic.clone()));
                    break;
                }
                (None, Err(_)) => {
                    topics.remove(&name);
                    break;
                }
            }
        };
        match &found {
            Ok(topic) => feeder.feed(topic, next).await,
            Err(error) => {
                feeder.moved(next.record.size());
                feeder.refuse(&next.record, next.delivered, error.clone());
                feeder.room.notify_all();
            }
        }
    }
    feeder.looked_up.notify_all();
}

/// Tells the intake of room as deliveries make it.
async fn watch_room(feeder: Rc<Feeder>) {
    loop {
        let progress = feeder.producer.progress();
        feeder.moved(0);
        feeder.room.notify_all();
        progress.await;
    }
}

fn acknowledge(
    interceptors: &Interceptors,
    topic: &str,
    result: &Result<crate::Delivered, DeliveryError>,
) {
    for interceptor in &**interceptors {
        interceptor.on_acknowledgement(topic, result);
    }
}

fn header((name, value): &(String, Option<bytes::Bytes>)) -> Header<'_> {
    Header {
        key: name.as_bytes(),
        value: value.as_deref(),
    }
}

fn part<'a>(record: &'a ProducerRecord, headers: &'a [Header<'a>]) -> Record<'a> {
    Record {
        partition: record.partition,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers,
        timestamp: record.timestamp,
    }
}
