//! Persistent messages: records of a topic, which a group of receivers commits, and whose answers
//! are records of another topic. A foreign consumer of the group counts as a receiver like ours.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use ringmill_ring::{JoinHandle, random_u64, sleep, spawn};
use ringmill_wire::record::Header;
use thiserror::Error;

use super::{Reached, SendError, SyncPoint};
use crate::assignor::TopicPartition;
use crate::cluster::{Client, LookupError};
use crate::config::{ConfigError, ConsumerConfig, OffsetReset, ProducerConfig};
use crate::consumer::{
    CommitError, Consumer, Event, Fetched, PollError, RecordsError, StartAt, SubscribeError,
};
use crate::group_offsets::Committed;
use crate::offsets::OffsetSpec;
use crate::producer::{
    DeliveryError, Producer, ProducerError, ProducerTopic, Record, SendError as Unsent,
};

/// The header with the topic for the answer.
const REPLY_TO: &[u8] = b"reply-to";
/// The header that an answer has of its question.
const CORRELATION: &[u8] = b"correlation";

/// Between two looks at what the group has committed: doubled each time.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(200);
/// One wait for answers.
const POLL: Duration = Duration::from_secs(1);
/// How long the reader of answers pauses after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Where persistent messages go.
#[derive(Debug, Clone)]
pub struct Route {
    /// The topic of the messages.
    pub topic: String,
    /// The group of receivers whose commits count as receipt.
    pub group: String,
    /// The topic of one partition that answers come back by, for this sender alone or not; none
    /// asks for no answers.
    pub replies: Option<String>,
}

/// A sender's end.
pub(super) struct Outbox {
    client: Client,
    producer: Producer,
    topic: ProducerTopic,
    group: String,
    answers: Option<Answers>,
}

impl Outbox {
    pub(super) async fn open(client: &Client, route: Route) -> Result<Self, SendError> {
        let failed = |cause: &dyn std::fmt::Display| SendError::NotTaken(cause.to_string());
        let config = ProducerConfig {
            // Somebody waits for each.
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(client, config).await;
        let producer = producer.map_err(|e| failed(&e))?;
        let topic = producer.topic(&route.topic).await.map_err(|e| failed(&e))?;
        let answers = match route.replies {
            Some(replies) => Some(
                Answers::open(client, replies)
                    .await
                    .map_err(|e| failed(&e))?,
            ),
            None => None,
        };
        Ok(Outbox {
            client: client.clone(),
            producer,
            topic,
            group: route.group,
            answers,
        })
    }

    pub(super) async fn send(
        &self,
        message: &[u8],
        until: SyncPoint,
    ) -> Result<Reached, SendError> {
        let record = Record::of(message);
        let not_taken = |error: Unsent| SendError::NotTaken(error.to_string());
        match until {
            SyncPoint::Asynchronous => {
                self.producer
                    .try_send(&self.topic, &record)
                    .map_err(not_taken)?;
                Ok(Reached::Nothing)
            }
            SyncPoint::Sent => {
                self.store(&record, until).await?;
                Ok(Reached::Sent)
            }
            SyncPoint::Received => {
                let (partition, offset) = self.store(&record, until).await?;
                self.await_commit(partition, offset).await?;
                Ok(Reached::Received)
            }
            SyncPoint::Answered => {
                let Some(answers) = &self.answers else {
                    return Err(SendError::NotTaken("the route has no replies".to_owned()));
                };
                let (name, waiting) = answers.expect();
                let headers = [
                    header(REPLY_TO, answers.topic.as_bytes()),
                    header(CORRELATION, &name.0),
                ];
                let headers = &headers;
                self.store(&Record { headers, ..record }, until).await?;
                let answer = waiting.await;
                let answer = answer.map_err(|_| SendError::failed(until, "nobody listens"))?;
                Ok(Reached::Answered(answer))
            }
        }
    }

    /// Until the broker has it as its topic demands; its partition and offset.
    async fn store(&self, record: &Record<'_>, until: SyncPoint) -> Result<(i32, i64), SendError> {
        let delivery = self.producer.send(&self.topic, record).await;
        let delivery = delivery.map_err(|error| SendError::NotTaken(error.to_string()))?;
        let delivered = delivery.await.map_err(|e| SendError::failed(until, e))?;
        let offset = delivered.offset;
        let offset =
            offset.ok_or_else(|| SendError::failed(until, "stored, nobody knows where"))?;
        Ok((delivered.partition, offset))
    }

    async fn await_commit(&self, partition: i32, offset: i64) -> Result<(), SendError> {
        let place = [TopicPartition::new(self.topic.name(), partition)];
        let mut pause = LOOK_MIN;
        loop {
            // A coordinator that moves is found again; the caller's limit ends it.
            if let Ok(committed) = self.client.committed(&self.group, Some(&place)).await
                && let Some(next) = committed.get(&place[0])
                && next.offset > offset
            {
                return Ok(());
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}

fn header<'a>(key: &'a [u8], value: &'a [u8]) -> Header<'a> {
    Header {
        key,
        value: Some(value),
    }
}

/// The name of a question that is not answered yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name([u8; 16]);

type Waiting = Rc<RefCell<BTreeMap<Name, oneshot::Sender<Bytes>>>>;

/// The answers' topic, read from its end at the beginning on.
struct Answers {
    topic: String,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A question that is given up is not waited for any more.
struct Question {
    name: Name,
    waiting: Waiting,
    answer: oneshot::Receiver<Bytes>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.waiting.borrow_mut().remove(&self.name);
    }
}

impl Future for Question {
    type Output = Result<Bytes, oneshot::Canceled>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.answer).poll(cx)
    }
}

impl Answers {
    async fn open(client: &Client, topic: String) -> Result<Self, InboxError> {
        let consumer = Consumer::new(client, ConsumerConfig::default())?;
        let place = TopicPartition::new(topic.as_str(), 0);
        client.topic(&topic, false).await?;
        // The end as it is now: an answer that comes before the first fetch must not be missed.
        let end = StartAt::Find(OffsetSpec::Latest);
        consumer.assign([(place.clone(), end)]);
        while consumer.position(&place).is_none() {
            consumer.poll(LOOK_MIN).await?;
        }
        let waiting = Waiting::default();
        let reader = spawn(read_answers(consumer, waiting.clone()));
        Ok(Answers {
            topic,
            waiting,
            reader,
        })
    }

    fn expect(&self) -> (Name, Question) {
        let name = Name((u128::from(random_u64()) << 64 | u128::from(random_u64())).to_be_bytes());
        let (asker, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(name.clone(), asker);
        let question = Question {
            name: name.clone(),
            waiting: self.waiting.clone(),
            answer,
        };
        (name, question)
    }
}

async fn read_answers(consumer: Consumer, waiting: Waiting) {
    loop {
        match consumer.poll(POLL).await {
            Ok(Event::Records(fetched)) => {
                for stored in messages(&fetched).unwrap_or_default() {
                    let asker = stored.name.and_then(|name| {
                        let name = <[u8; 16]>::try_from(&name[..]).ok()?;
                        waiting.borrow_mut().remove(&Name(name))
                    });
                    if let Some(asker) = asker {
                        // Whoever asked may have given up.
                        let _ = asker.send(stored.content);
                    }
                }
            }
            Ok(_) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// A message out of a topic.
#[derive(Debug, Clone)]
pub struct Stored {
    content: Bytes,
    place: TopicPartition,
    offset: i64,
    reply_to: Option<String>,
    name: Option<Bytes>,
}

impl Stored {
    /// What was sent.
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// Its sender waits for an answer.
    pub fn wants_answer(&self) -> bool {
        self.reply_to.is_some()
    }
}

fn messages(fetched: &Fetched) -> Result<VecDeque<Stored>, RecordsError> {
    let place = TopicPartition::new(fetched.topic_name(), fetched.partition());
    let mut all = VecDeque::new();
    fetched.for_each(|record| {
        let value = |key: &[u8]| {
            let mut headers = record.headers.iter();
            let found = headers.find(|header| header.key == key);
            found.and_then(|header| header.value.map(Bytes::copy_from_slice))
        };
        let reply_to = value(REPLY_TO).and_then(|topic| String::from_utf8(topic.into()).ok());
        all.push_back(Stored {
            content: record.value.map(Bytes::copy_from_slice).unwrap_or_default(),
            place: place.clone(),
            offset: record.offset,
            reply_to,
            name: value(CORRELATION),
        });
    })?;
    Ok(all)
}

/// What a receiver cannot do.
#[derive(Debug, Error)]
pub enum InboxError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The topic is not to be had.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The group is not to be joined.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Messages are not to be had for now.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// A message cannot be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A receipt was not stored: the message may come once more.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No answers can be sent.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// An answer was not taken.
    #[error(transparent)]
    Unsent(#[from] Unsent),
    /// An answer was not stored.
    #[error(transparent)]
    Unstored(#[from] DeliveryError),
}

/// The receiver's end: a member of a group that reads a topic. A message that was not marked as
/// received comes again, to whoever of the group reads its partition then.
pub struct Inbox {
    consumer: Consumer,
    producer: Producer,
    waiting: RefCell<VecDeque<Stored>>,
}

impl Inbox {
    /// Joins a group that reads a topic.
    ///
    /// # Errors
    /// If that is not to be had.
    pub async fn join(client: &Client, topic: &str, group: &str) -> Result<Self, InboxError> {
        let config = ConsumerConfig {
            group_id: Some(group.to_owned()),
            auto_commit: None,
            // What was sent before the group was made is for it all the same.
            offset_reset: OffsetReset::Earliest,
            ..ConsumerConfig::default()
        };
        let consumer = Consumer::new(client, config)?;
        consumer.subscribe([topic])?;
        let config = ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(client, config).await?;
        Ok(Inbox {
            consumer,
            producer,
            waiting: RefCell::default(),
        })
    }

    /// The next message; none if the time is over.
    ///
    /// # Errors
    /// See [`InboxError`]; the next call goes on.
    pub async fn next(&self, limit: Duration) -> Result<Option<Stored>, InboxError> {
        let end = ringmill_ring::now() + limit;
        loop {
            if let Some(message) = self.waiting.borrow_mut().pop_front() {
                return Ok(Some(message));
            }
            let left = end - ringmill_ring::now();
            if left.is_zero() {
                return Ok(None);
            }
            match self.consumer.poll(left).await? {
                Event::Records(fetched) => self.waiting.borrow_mut().extend(messages(&fetched)?),
                // Others receive what was not marked yet.
                Event::Revoked(places) | Event::Lost(places) => {
                    let mut waiting = self.waiting.borrow_mut();
                    waiting.retain(|message| !places.contains(&message.place));
                }
                Event::Assigned(_) | Event::Idle => {}
            }
        }
    }

    /// Marks a message, and all before it in its partition, as received: it does not come again,
    /// and its sender hears of it.
    ///
    /// # Errors
    /// If that was not stored; the message may come again.
    pub async fn received(&self, message: &Stored) -> Result<(), InboxError> {
        let next = Committed::at(message.offset + 1);
        let offsets = [(message.place.clone(), next)].into_iter().collect();
        Ok(self.consumer.commit_offsets(&offsets).await?)
    }

    /// Stores an answer for the message's sender, and marks the message as received after that: a
    /// receiver that fails between the two answers twice, and the second answer is not looked at.
    ///
    /// # Errors
    /// If one of both was not stored.
    pub async fn answer(&self, message: &Stored, answer: &[u8]) -> Result<(), InboxError> {
        if let (Some(topic), Some(name)) = (&message.reply_to, &message.name) {
            let topic = self.producer.topic(topic).await?;
            let headers = &[header(CORRELATION, name)];
            let record = Record {
                partition: Some(0),
                headers,
                ..Record::of(answer)
            };
            self.producer.send(&topic, &record).await?.await?;
        }
        self.received(message).await
    }

    /// Leaves the group, so that others receive at once what it had.
    ///
    /// # Errors
    /// If the group did not hear of it.
    pub async fn leave(self) -> Result<(), InboxError> {
        Ok(self.consumer.close().await?)
    }
}
