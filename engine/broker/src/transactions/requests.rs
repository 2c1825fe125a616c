//! What producers ask of the coordinator: InitProducerId, AddPartitionsToTxn (AddOffsetsToTxn is
//! the same for a partition of `__consumer_offsets`), EndTxn, and the leaders' question whether a
//! partition belongs to a transaction. The rules are those of Kafka's `TransactionCoordinator`.

use super::coordinator::{
    Coordinator, Entry, MAX_PARTITIONS_PER_CORE, MAX_PARTITIONS_PER_TRANSACTION, Parked,
};
use super::state::{Metadata, State, is_exhausted};
use super::{
    ClientVersion, Effects, NO_EPOCH, NO_PRODUCER_ID, Producer, Token, TopicPartition,
    TransactionError,
};
use crate::clock::Now;

/// InitProducerId with a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The transactional id.
    pub id: String,
    /// How long the transactions may take, in milliseconds.
    pub timeout_ms: i32,
    /// Who the producer says it is (KIP-360); none for a new instance.
    pub expected: Option<Producer>,
}

/// Partitions join a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// The transactional id.
    pub id: String,
    /// Whose transaction it is.
    pub producer: Producer,
    /// What joins it.
    pub partitions: Vec<TopicPartition>,
    /// What the client knows.
    pub client: ClientVersion,
}

/// EndTxn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The transactional id.
    pub id: String,
    /// Whose transaction it is.
    pub producer: Producer,
    /// Commit, or abort.
    pub committed: bool,
    /// What the client knows.
    pub client: ClientVersion,
}

/// What an EndTxn comes to.
enum Verdict {
    /// The transaction is decided now.
    Decide,
    /// It was before, as the client wants it.
    Done,
    Refuse(TransactionError),
}

impl Coordinator {
    /// A producer asks for the transactional id. What its predecessor left open is aborted first;
    /// then it has to ask again.
    ///
    /// # Panics
    /// If there is no spare producer id.
    pub fn init(&mut self, now: Now, home: i32, token: Token, init: Init) -> Effects {
        match self.try_init(now, home, token, init) {
            Ok(effects) => effects,
            Err(error) => Effects::refuse(token, error),
        }
    }

    fn try_init(
        &mut self,
        now: Now,
        home: i32,
        token: Token,
        init: Init,
    ) -> Result<Effects, TransactionError> {
        let Init {
            id,
            timeout_ms,
            expected,
        } = init;
        self.admit(&id, home)?;
        if !(1..=self.config.max_timeout_ms).contains(&timeout_ms) {
            return Err(TransactionError::InvalidTimeout);
        }
        if !self.ids.contains_key(&id) {
            let producer_id = self.spare.expect("the shell has given one");
            let metadata = Metadata::new(producer_id, timeout_ms, now.wall_ms);
            self.insert(&id, home, metadata)?;
            self.take_spare_id();
        }
        let entry = &self.ids[&id];
        let current = &entry.current;
        if entry.is_busy() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if !expected.is_none_or(|expected| is_known(current, expected)) {
            return Err(TransactionError::ProducerFenced);
        }
        if current.state == State::Ongoing {
            let aborted = fenced(current, now);
            let waits = (token, Err(TransactionError::ConcurrentTransactions));
            return Ok(self.step(&id, aborted, vec![waits]));
        }
        let expected = expected.map(|expected| expected.epoch);
        let has_last = expected.is_none_or(|epoch| epoch == current.epoch);
        let next = match current.is_exhausted() && has_last {
            true => {
                let producer_id = self.spare.expect("the shell has given one");
                let next =
                    current.next_id(producer_id, timeout_ms, expected.is_some(), now.wall_ms);
                self.take_spare_id();
                next
            }
            false => current.next_epoch(timeout_ms, expected, now.wall_ms)?,
        };
        let reply = (token, Ok(next.producer()));
        Ok(self.step(&id, next, vec![reply]))
    }

    /// Partitions join a transaction, which begins with its first ones. While another step of the
    /// transactional id is under way, the request waits for it.
    pub fn add(&mut self, now: Now, home: i32, token: Token, add: Add) -> Effects {
        let entry = match self.find(&add.id, home) {
            Ok(entry) => entry,
            Err(error) => return Effects::refuse(token, error),
        };
        if entry.is_busy() {
            let parked = Parked {
                token,
                producer: add.producer,
                partitions: add.partitions,
                client: add.client,
            };
            return self.park(&add.id, parked);
        }
        match self.may_add(entry, &add.partitions, 0, add.producer) {
            Err(error) => Effects::refuse(token, error),
            Ok(false) => Effects::reply(token, Ok(add.producer)),
            Ok(true) => {
                let partitions = add.partitions.iter();
                let current = &entry.current;
                let next = current.with_partitions(partitions, add.client, now.wall_ms);
                self.step(&add.id, next, vec![(token, Ok(add.producer))])
            }
        }
    }

    /// Whether partitions may join, beside `others` that do at the same time; false if they have.
    pub(super) fn may_add(
        &self,
        entry: &Entry,
        partitions: &[TopicPartition],
        others: usize,
        producer: Producer,
    ) -> Result<bool, TransactionError> {
        let current = &entry.current;
        check_producer(current, producer)?;
        let is_there = |part: &TopicPartition| current.has(&part.topic, part.partition);
        if current.state == State::Ongoing && partitions.iter().all(is_there) {
            return Ok(false);
        }
        let present = match current.state {
            State::Ongoing => current.partition_count(),
            _ => 0,
        };
        let more = others + partitions.len();
        if present + more > MAX_PARTITIONS_PER_TRANSACTION
            || self.partitions + more > MAX_PARTITIONS_PER_CORE
        {
            return Err(TransactionError::LimitReached);
        }
        Ok(true)
    }

    /// Which partitions are part of a producer's open transaction, in their order (KIP-890).
    pub fn verify(
        &self,
        home: i32,
        id: &str,
        producer: Producer,
        partitions: &[TopicPartition],
    ) -> Result<Vec<bool>, TransactionError> {
        let current = &self.find(id, home)?.current;
        check_producer(current, producer)?;
        if current.state.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let is_open = current.state == State::Ongoing;
        let parts = partitions.iter();
        let found = parts.map(|part| is_open && current.has(&part.topic, part.partition));
        Ok(found.collect())
    }

    /// A producer ends its transaction. Asked again after a lost answer, it gets the same.
    ///
    /// # Panics
    /// If there is no spare producer id.
    pub fn end(&mut self, now: Now, home: i32, token: Token, end: End) -> Effects {
        let entry = match self.find(&end.id, home) {
            Ok(entry) if entry.is_busy() => {
                return Effects::refuse(token, TransactionError::ConcurrentTransactions);
            }
            Ok(entry) => entry,
            Err(error) => return Effects::refuse(token, error),
        };
        let current = &entry.current;
        let verdict = match end.client.raises_epoch() {
            true => end_raising(current, &end),
            false => end_keeping(current, &end),
        };
        match verdict {
            Verdict::Refuse(error) => Effects::refuse(token, error),
            Verdict::Done => Effects::reply(token, Ok(current.producer())),
            Verdict::Decide => {
                let needs_id = end.client.raises_epoch() && current.is_exhausted();
                let next_id = match needs_id {
                    true => self.spare.expect("the shell has given one"),
                    false => NO_PRODUCER_ID,
                };
                let next = current.decided(end.committed, end.client, next_id, now.wall_ms);
                if needs_id {
                    self.take_spare_id();
                }
                let reply = (token, Ok(next.next_producer()));
                self.step(&end.id, next, vec![reply])
            }
        }
    }

    fn find(&self, id: &str, home: i32) -> Result<&Entry, TransactionError> {
        self.admit(id, home)?;
        let entry = self.ids.get(id);
        entry.ok_or(TransactionError::InvalidProducerIdMapping)
    }
}

/// Whether a producer that says who it is may go on: it is the present one, or the one before,
/// whose epochs were used up and which has not heard of its new id.
fn is_known(current: &Metadata, expected: Producer) -> bool {
    current.epoch == NO_EPOCH
        || expected.id == current.producer_id
        || (expected.id == current.previous_producer_id && is_exhausted(expected.epoch))
}

fn check_producer(current: &Metadata, producer: Producer) -> Result<(), TransactionError> {
    if producer.id != current.producer_id {
        return Err(TransactionError::InvalidProducerIdMapping);
    }
    if producer.epoch != current.epoch {
        return Err(TransactionError::ProducerFenced);
    }
    Ok(())
}

/// The transaction is aborted and its producer fenced: the markers have an epoch that it has not.
pub(super) fn fenced(current: &Metadata, now: Now) -> Metadata {
    current.decided(false, ClientVersion::V2, NO_PRODUCER_ID, now.wall_ms)
}

/// EndTxn up to version 4: the epoch stays, so that a retry cannot be told from an end of a
/// transaction without partitions.
fn end_keeping(current: &Metadata, end: &End) -> Verdict {
    if let Err(error) = check_producer(current, end.producer) {
        return Verdict::Refuse(error);
    }
    match (current.state, end.committed) {
        (State::Ongoing, _) => Verdict::Decide,
        (State::CompleteCommit, true) | (State::CompleteAbort, false) => Verdict::Done,
        _ => Verdict::Refuse(TransactionError::InvalidState),
    }
}

/// EndTxn from version 5 on: every end raises the epoch, so that a request with the epoch before
/// is a retry.
fn end_raising(current: &Metadata, end: &End) -> Verdict {
    let asked = end.producer;
    let is_complete = matches!(current.state, State::CompleteCommit | State::CompleteAbort);
    let has_new_id = asked.id == current.previous_producer_id
        && asked.epoch == i16::MAX - 1
        && current.epoch == 0
        && asked.id != current.producer_id;
    let is_retry = is_complete && (has_new_id || asked.epoch.checked_add(1) == Some(current.epoch));
    if asked.id != current.producer_id && !has_new_id {
        return Verdict::Refuse(TransactionError::InvalidProducerIdMapping);
    }
    if !is_retry && (asked.id != current.producer_id || asked.epoch != current.epoch) {
        return Verdict::Refuse(TransactionError::ProducerFenced);
    }
    match (current.state, end.committed) {
        (State::Ongoing, _) => Verdict::Decide,
        (State::CompleteCommit, true) | (State::CompleteAbort, false) if is_retry => Verdict::Done,
        // An abort of a transaction without partitions.
        (State::Empty | State::CompleteCommit | State::CompleteAbort, false) if !is_retry => {
            Verdict::Decide
        }
        _ => Verdict::Refuse(TransactionError::InvalidState),
    }
}
