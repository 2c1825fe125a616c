//! The producer as a state machine: which batch goes to which broker when, and what its answer
//! means.
//!
//! Pure. Records come in by [`Core::append`]; [`Core::drain`] gives the next request for a broker
//! that has a slot free; answers go to [`Core::on_response`]. Time comes as `now`, and
//! [`Core::next_deadline`] says when [`Core::on_tick`] has something to do. Whatever somebody must
//! be woken for is in [`Core::take_wakes`].

mod metadata;
mod transaction;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringmill_wire::Uuid;
use ringmill_wire::builder::NewRecord;
use ringmill_wire::produce::ProducedPartition;
use ringmill_wire::topic::TopicRef;

use super::batcher::{Appended, Batcher, Builders, TooLarge};
use super::delivery::DeliveryError;
use super::lane::{Failure, Identity, Lane, Settled};
use super::stats::ProducerStats;
use super::transaction::Transaction;
use super::verdict::{Verdict, judge, written_somewhere};
use crate::backoff;
use crate::config::{ClientConfig, ProducerConfig};
use crate::partitioner::Sticky;
use crate::transport::Instant;

/// A partition, by its topic's place in the producer and its number.
pub(crate) type Key = (usize, usize);

/// Something that a shell must act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    /// A broker may have something to be sent.
    Node(i32),
    /// The next deadline is another.
    Timer,
    /// Leaders are not known or not right.
    Metadata,
    /// A new identity is needed.
    Identity,
    /// The transaction's coordinator is to be told of partitions.
    Transaction,
    /// There is room for records again, or a batch is settled.
    Progress,
}

/// A batch within a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) key: Key,
    pub(crate) serial: u64,
    pub(crate) bytes: bytes::Bytes,
}

/// One produce request, its parts sorted by topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drained {
    pub(crate) node: i32,
    pub(crate) parts: Vec<Part>,
}

/// What became of a request as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Per part, in the request's order; `None` where the broker passed one over.
    Parts(Vec<Option<ProducedPartition>>),
    /// It was sent and none is due (acks=0).
    Unanswered,
    /// There is none. `uncertain`: the broker may have written.
    Broken { uncertain: bool, text: String },
    /// There will be none, however often it is sent.
    Impossible(String),
}

/// What a partition waits for; at most one timer of each kind is set per partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Its open batch becomes due.
    Linger,
    /// Its oldest batch is given up.
    Expiry,
    /// Its next attempt may be made.
    Retry,
}

#[derive(Debug)]
struct Partition {
    batcher: Batcher,
    leader: Option<i32>,
    /// It stands in its leader's queue.
    listed: bool,
    /// Which timers are set.
    set: [bool; 3],
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    partitions: Vec<Partition>,
    /// Those with a leader, or all if none has one.
    available: Vec<usize>,
    sticky: Sticky,
    /// Whose turn it is, where they take turns.
    turn: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Partitions that may have something to send.
    ready: VecDeque<Key>,
    in_flight: usize,
    /// It asked for a pause (KIP-219).
    paused_until: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    config: ProducerConfig,
    retry_backoff: (Duration, Duration),
    topics: Vec<Topic>,
    nodes: BTreeMap<i32, Node>,
    builders: Builders,
    identity: Option<Identity>,
    transaction: Option<Transaction>,
    buffered: usize,
    /// Serial numbers of the batches that the application has not been told of.
    unsettled: BTreeSet<u64>,
    timers: BTreeSet<(Instant, Timer, Key)>,
    wakes: BTreeSet<Wake>,
    first_failure: Option<DeliveryError>,
    failed_records: u64,
    pub(crate) stats: ProducerStats,
}

impl Core {
    /// An `identity` makes it idempotent.
    pub(crate) fn new(
        config: &ProducerConfig,
        client: &ClientConfig,
        identity: Option<Identity>,
    ) -> Self {
        let (batch, request) = (config.batch_bytes, config.max_request_bytes);
        Self {
            config: config.clone(),
            retry_backoff: (client.retry_backoff, client.retry_backoff_max),
            topics: Vec::new(),
            nodes: BTreeMap::new(),
            builders: Builders::new(batch, request, config.compression),
            identity,
            transaction: config.transactional_id.as_ref().map(|_| Transaction::new()),
            buffered: 0,
            unsettled: BTreeSet::new(),
            timers: BTreeSet::new(),
            wakes: BTreeSet::new(),
            first_failure: None,
            failed_records: 0,
            stats: ProducerStats::default(),
        }
    }

    pub(crate) fn topic(&self, at: usize) -> &Topic {
        &self.topics[at]
    }

    /// The topic that an answer names.
    pub(crate) fn find_topic(&self, named: &TopicRef) -> Option<&Topic> {
        self.topics.iter().find(|topic| match named {
            TopicRef::Id(id) => topic.id == *id,
            TopicRef::Name(name) => *topic.name == **name,
        })
    }

    /// How many partitions a topic has.
    pub(crate) fn partitions(&self, topic: usize) -> usize {
        self.topics[topic].partitions.len()
    }

    /// The partition for a record without a key.
    #[inline]
    pub(crate) fn choose(
        &mut self,
        topic: usize,
        bytes: usize,
        random: impl FnOnce() -> u64,
    ) -> Option<usize> {
        let topic = &mut self.topics[topic];
        let batch_bytes = self.config.batch_bytes;
        topic
            .sticky
            .choose(bytes, batch_bytes, &topic.available, random)
    }

    /// The partition whose turn it is.
    pub(crate) fn choose_next(&mut self, topic: usize) -> Option<usize> {
        let topic = &mut self.topics[topic];
        let turn = topic.turn;
        topic.turn = turn.wrapping_add(1);
        let count = topic.available.len().max(1);
        topic.available.get(turn % count).copied()
    }

    /// The partitions that have a leader, or all if none has.
    pub(crate) fn available(&self, topic: usize) -> &[usize] {
        &self.topics[topic].available
    }

    /// Whether there is no room for another record.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.buffered >= self.config.buffer_bytes
    }

    /// Bytes of records that wait for their delivery.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Takes a record. The caller has looked at [`Core::is_full`].
    ///
    /// # Panics
    /// If topic or partition do not exist.
    #[inline]
    pub(crate) fn append(
        &mut self,
        now: Instant,
        key: Key,
        record: &NewRecord<'_>,
        tracked: bool,
    ) -> Result<Appended, TooLarge> {
        let partition = &mut self.topics[key.0].partitions[key.1];
        let builders = &mut self.builders;
        let appended = partition.batcher.append(now, builders, record, tracked)?;
        self.buffered = self.buffered.saturating_add_signed(appended.grown);
        self.stats.records += 1;
        if let Some(serial) = appended.begun {
            self.on_begun(now, key, serial, appended.sealed);
        }
        Ok(appended)
    }

    #[cold]
    fn on_begun(&mut self, now: Instant, key: Key, serial: u64, sealed: bool) {
        self.unsettled.insert(serial);
        self.set_timer(Timer::Expiry, key, now + self.config.delivery_timeout);
        if self.config.linger.is_zero() {
            self.set_due(key);
        } else {
            self.set_timer(Timer::Linger, key, now + self.config.linger);
        }
        if sealed {
            self.list(key);
        }
    }

    fn set_timer(&mut self, timer: Timer, key: Key, at: Instant) {
        let partition = &mut self.topics[key.0].partitions[key.1];
        if !std::mem::replace(&mut partition.set[timer as usize], true) {
            self.timers.insert((at, timer, key));
            self.wakes.insert(Wake::Timer);
        }
    }

    fn set_due(&mut self, key: Key) {
        let partition = &mut self.topics[key.0].partitions[key.1];
        if partition.batcher.set_due() {
            self.list(key);
        }
    }

    /// Puts a partition into its leader's queue.
    fn list(&mut self, key: Key) {
        let partition = &mut self.topics[key.0].partitions[key.1];
        let Some(leader) = partition.leader else {
            self.wakes.insert(Wake::Metadata);
            return;
        };
        if !std::mem::replace(&mut partition.listed, true) {
            self.nodes.entry(leader).or_default().ready.push_back(key);
        }
        self.wakes.insert(Wake::Node(leader));
    }

    /// Every open batch waits no longer: for a flush, or for want of room.
    pub(crate) fn hurry(&mut self) {
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].partitions.len() {
                self.set_due((topic, partition));
            }
        }
    }

    /// Whether all batches begun before `serial` are settled.
    pub(crate) fn is_settled_below(&self, serial: u64) -> bool {
        self.unsettled.first().is_none_or(|first| *first >= serial)
    }

    /// The serial number of the next batch to be begun.
    pub(crate) fn next_serial(&self) -> u64 {
        self.builders.next_serial()
    }

    /// What failed since this was last asked: how many records, and the first error.
    pub(crate) fn take_failures(&mut self) -> Option<(u64, DeliveryError)> {
        let records = std::mem::take(&mut self.failed_records);
        self.first_failure.take().map(|first| (records, first))
    }

    /// Whom to wake.
    pub(crate) fn take_wakes(&mut self) -> BTreeSet<Wake> {
        std::mem::take(&mut self.wakes)
    }

    /// Whether anybody is to be woken.
    #[inline]
    pub(crate) fn has_wakes(&self) -> bool {
        !self.wakes.is_empty()
    }

    /// The next request for a broker, if it has a slot free and something to be sent.
    pub(crate) fn drain(&mut self, now: Instant, id: i32) -> Option<Drained> {
        let node = self.nodes.get_mut(&id)?;
        if node.in_flight >= self.config.max_in_flight {
            return None;
        }
        if node.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        let mut again = Vec::new();
        let ready = node.ready.len();
        for _ in 0..ready {
            let key = self.nodes.get_mut(&id)?.ready.pop_front()?;
            self.topics[key.0].partitions[key.1].listed = false;
            if self.topics[key.0].partitions[key.1].leader != Some(id) {
                self.list(key);
                continue;
            }
            // the first batch goes in whatever its size, so that none waits for ever
            let room = match parts.is_empty() {
                true => usize::MAX,
                false => self.config.max_request_bytes.saturating_sub(bytes),
            };
            let Some(part) = self.take(now, key, room) else {
                continue;
            };
            bytes += part.bytes.len();
            parts.push(part);
            again.push(key);
            if bytes >= self.config.max_request_bytes {
                break;
            }
        }
        for key in again {
            self.relist(now, key);
        }
        if parts.is_empty() {
            return None;
        }
        parts.sort_by_key(|part| part.key);
        self.nodes.get_mut(&id)?.in_flight += 1;
        self.stats.requests += 1;
        Some(Drained { node: id, parts })
    }

    /// The next batch of a partition, of at most `room` bytes, marked as sent. A partition whose
    /// batch does not fit is listed again.
    fn take(&mut self, now: Instant, key: Key, room: usize) -> Option<Part> {
        if !self.admits(key) {
            return None;
        }
        let batcher = &mut self.topics[key.0].partitions[key.1].batcher;
        if batcher.is_due() && !batcher.lane.has_waiting() {
            let shrunk = batcher.seal(&mut self.builders).unwrap_or(0);
            self.buffered = self.buffered.saturating_sub_signed(shrunk);
        }
        let Some(batch) = batcher.lane.next(now) else {
            self.wait_for_retry(now, key);
            return None;
        };
        if batch.bytes.len() > room {
            self.list(key);
            return None;
        }
        let (serial, bytes) = (batch.serial, batch.bytes.clone());
        batcher.lane.on_sent(serial);
        self.stats.batches += 1;
        self.stats.bytes += bytes.len() as u64;
        Some(Part { key, serial, bytes })
    }

    /// A partition that cannot send now: if that is for a retry's wait alone, a timer lists it.
    fn wait_for_retry(&mut self, now: Instant, key: Key) {
        let lane = &self.topics[key.0].partitions[key.1].batcher.lane;
        if lane.needs_identity() {
            self.wakes.insert(Wake::Identity);
        } else if lane.has_waiting() && now < lane.retry_at() {
            let at = lane.retry_at();
            self.set_timer(Timer::Retry, key, at);
        }
    }

    /// Lists a partition again if it has more to send.
    fn relist(&mut self, now: Instant, key: Key) {
        let batcher = &self.topics[key.0].partitions[key.1].batcher;
        if batcher.lane.has_waiting() || batcher.is_due() {
            match now < batcher.lane.retry_at() {
                true => self.wait_for_retry(now, key),
                false => self.list(key),
            }
        }
    }

    /// The end of a request that [`Core::drain`] gave.
    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        request: &Drained,
        answer: Answer,
        random: u64,
    ) {
        if let Some(node) = self.nodes.get_mut(&request.node) {
            node.in_flight -= 1;
        }
        self.wakes.insert(Wake::Node(request.node));
        let mut answers = match &answer {
            Answer::Parts(answers) => answers.iter(),
            _ => [].iter(),
        };
        for part in &request.parts {
            let settled = match &answer {
                Answer::Parts(_) => {
                    let produced = answers.next().and_then(Option::as_ref);
                    self.on_produced((now, random), request.node, part, produced)
                }
                Answer::Unanswered => {
                    let sent = written_somewhere(part.key.1 as i32);
                    self.lane(part.key).on_written(part.serial, Ok(sent))
                }
                Answer::Broken { uncertain, text } => {
                    let (uncertain, text) = (*uncertain, text.clone());
                    self.wakes.insert(Wake::Metadata);
                    let failure = Failure::Retry { uncertain, text };
                    self.retry((now, random), request.node, part, failure)
                }
                Answer::Impossible(text) => {
                    let failed = Err(DeliveryError::Failed(text.clone()));
                    self.lane(part.key).on_rejected(part.serial, failed)
                }
            };
            self.on_settled(settled);
            self.relist(now, part.key);
        }
    }

    fn lane(&mut self, key: Key) -> &mut Lane {
        &mut self.topics[key.0].partitions[key.1].batcher.lane
    }

    fn on_produced(
        &mut self,
        moment: (Instant, u64),
        node: i32,
        part: &Part,
        produced: Option<&ProducedPartition>,
    ) -> Option<Settled> {
        let topic = &self.topics[part.key.0].name;
        match judge(topic, part.key.1 as i32, produced) {
            Verdict::Written(delivered) => {
                self.lane(part.key).on_written(part.serial, Ok(delivered))
            }
            Verdict::Rejected(error) => self.lane(part.key).on_rejected(part.serial, Err(error)),
            Verdict::Failed { failure, stale } => {
                if stale {
                    self.wakes.insert(Wake::Metadata);
                }
                self.retry(moment, node, part, failure)
            }
        }
    }

    /// Another attempt, at once if another broker than `node` is known to lead by now (KIP-951).
    fn retry(
        &mut self,
        (now, random): (Instant, u64),
        node: i32,
        part: &Part,
        failure: Failure,
    ) -> Option<Settled> {
        self.stats.retries += 1;
        let leader = self.topics[part.key.0].partitions[part.key.1].leader;
        let has_moved = leader.is_some_and(|leader| leader != node);
        let (first, max) = self.retry_backoff;
        let wait = |attempts| match has_moved {
            true => Duration::ZERO,
            false => backoff::delay(first, max, attempts, random),
        };
        self.lane(part.key)
            .on_failed(now, part.serial, failure, wait)
    }

    fn on_settled(&mut self, settled: impl IntoIterator<Item = Settled>) {
        for settled in settled {
            self.buffered -= settled.bytes;
            self.unsettled.remove(&settled.serial);
            self.wakes.insert(Wake::Progress);
            match settled.result {
                Some(Ok(_)) => self.stats.delivered += settled.records as u64,
                Some(Err(error)) => {
                    self.failed_records += settled.records as u64;
                    self.stats.failed += settled.records as u64;
                    self.on_batch_failed(&error);
                    self.first_failure.get_or_insert(error);
                }
                None => {}
            }
        }
    }

    /// Time has passed: what has become due is listed, what is too late given up.
    pub(crate) fn on_tick(&mut self, now: Instant) {
        while let Some(first) = self.timers.first().copied().filter(|(at, ..)| *at <= now) {
            self.timers.remove(&first);
            let (_, timer, key) = first;
            self.topics[key.0].partitions[key.1].set[timer as usize] = false;
            match timer {
                Timer::Linger => self.on_lingered(now, key),
                Timer::Expiry => self.expire(now, key),
                Timer::Retry => self.relist(now, key),
            }
        }
        for (id, node) in &mut self.nodes {
            if node.paused_until.take_if(|until| *until <= now).is_some() {
                self.wakes.insert(Wake::Node(*id));
            }
        }
    }

    /// The open batch is due, unless it was begun after the timer was set.
    fn on_lingered(&mut self, now: Instant, key: Key) {
        let batcher = &self.topics[key.0].partitions[key.1].batcher;
        match batcher.open_since().map(|since| since + self.config.linger) {
            Some(due) if due > now => self.set_timer(Timer::Linger, key, due),
            Some(_) => self.set_due(key),
            None => {}
        }
    }

    fn expire(&mut self, now: Instant, key: Key) {
        let limit = self.config.delivery_timeout;
        let batcher = &mut self.topics[key.0].partitions[key.1].batcher;
        if batcher
            .open_since()
            .is_some_and(|since| since + limit <= now)
        {
            let shrunk = batcher.seal(&mut self.builders).unwrap_or(0);
            self.buffered = self.buffered.saturating_sub_signed(shrunk);
        }
        let timed_out = |last: &str, may_be_written| {
            Err(DeliveryError::TimedOut {
                after: limit,
                last: last.to_owned(),
                may_be_written,
            })
        };
        let settled = batcher.lane.expire(now, limit, timed_out);
        let oldest = batcher.lane.oldest().or(batcher.open_since());
        if let Some(since) = oldest {
            self.set_timer(Timer::Expiry, key, since + limit);
        }
        self.on_settled(settled);
        self.relist(now, key);
    }

    /// When [`Core::on_tick`] is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let pauses = self.nodes.values().filter_map(|node| node.paused_until);
        let timer = self.timers.first().map(|(at, ..)| *at);
        pauses.chain(timer).min()
    }

    /// Gives everything up.
    pub(crate) fn fail_all(&mut self, error: &DeliveryError) {
        for at in 0..self.topics.len() {
            for number in 0..self.topics[at].partitions.len() {
                let batcher = &mut self.topics[at].partitions[number].batcher;
                let shrunk = batcher.seal(&mut self.builders).unwrap_or(0);
                self.buffered = self.buffered.saturating_sub_signed(shrunk);
                let settled = batcher.lane.fail_all(&Err(error.clone()));
                self.on_settled(settled);
            }
        }
    }
}

#[cfg(test)]
#[path = "core_test.rs"]
mod tests;
