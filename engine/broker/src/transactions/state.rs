//! One transactional id's state and the steps between its states, as Kafka's `TransactionMetadata`.
//! A step makes the state that is to be stored; it replaces the present one when it is durable.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClientVersion, NO_EPOCH, NO_PRODUCER_ID, Producer, TopicPartition, TransactionError};

/// "No transaction has begun."
pub const NO_TIME: i64 = -1;

/// Where a transaction stands; the numbers are those of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum State {
    /// No transaction yet.
    Empty = 0,
    /// A transaction has partitions.
    Ongoing = 1,
    /// It is committed; markers are being written.
    PrepareCommit = 2,
    /// It is aborted; markers are being written.
    PrepareAbort = 3,
    /// All partitions know that it is committed.
    CompleteCommit = 4,
    /// All partitions know that it is aborted.
    CompleteAbort = 5,
    /// The transactional id has expired. Never stored: a tombstone is.
    Dead = 6,
    /// The producer is about to be fenced. Never stored: `PrepareAbort` follows at once.
    PrepareEpochFence = 7,
}

impl State {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    /// The state of a record's number.
    pub fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == code)
    }

    /// Kafka's name, in DescribeTransactions and ListTransactions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// Decided, and not everybody knows it yet.
    pub fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Whether `next` may follow.
    fn may_become(self, next: Self) -> bool {
        let idle = matches!(
            self,
            Self::Empty | Self::CompleteCommit | Self::CompleteAbort
        );
        match next {
            Self::Empty | Self::Dead => idle,
            Self::Ongoing => idle || self == Self::Ongoing,
            Self::PrepareCommit | Self::PrepareEpochFence => self == Self::Ongoing,
            // KIP-890: an abort may come before any partition was added.
            Self::PrepareAbort => idle || self == Self::Ongoing,
            Self::CompleteCommit => self == Self::PrepareCommit,
            Self::CompleteAbort => self == Self::PrepareAbort,
        }
    }
}

/// A transaction's partitions, by topic.
pub type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// A transactional id as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The producer id in use.
    pub producer_id: i64,
    /// The one before the last step.
    pub previous_producer_id: i64,
    /// The one that the client goes on with when the transaction is complete, because the epochs
    /// of the present one are used up; −1 if it keeps it.
    pub next_producer_id: i64,
    /// The epoch in force.
    pub epoch: i16,
    /// The epoch before, if its owner may come back with it; not stored.
    pub last_epoch: i16,
    /// How long a transaction may take, in milliseconds.
    pub timeout_ms: i32,
    /// Where it stands.
    pub state: State,
    /// What the transaction has touched.
    pub partitions: Partitions,
    /// When the transaction began, in milliseconds since the epoch.
    pub start_ms: i64,
    /// The time of the last step.
    pub updated_ms: i64,
    /// What the client knows of KIP-890.
    pub client: ClientVersion,
}

/// Whether a producer id has no epoch left to give out; the very last one is kept for fencing.
pub fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

impl Metadata {
    /// A transactional id that nobody has had, with a fresh producer id. Not to be stored as it is.
    pub fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            start_ms: NO_TIME,
            updated_ms: now_ms,
            client: ClientVersion::V0,
        }
    }

    /// The producer in force.
    pub fn producer(&self) -> Producer {
        Producer {
            id: self.producer_id,
            epoch: self.epoch,
        }
    }

    /// The producer that the client goes on as: after an end that used up the epochs, a new one.
    pub fn next_producer(&self) -> Producer {
        match self.next_producer_id {
            NO_PRODUCER_ID => self.producer(),
            id => Producer { id, epoch: 0 },
        }
    }

    /// Whether the epochs of its producer id are used up.
    pub fn is_exhausted(&self) -> bool {
        is_exhausted(self.epoch)
    }

    /// Whether it has a partition.
    pub fn has(&self, topic: &str, partition: i32) -> bool {
        let of_topic = self.partitions.get(topic);
        of_topic.is_some_and(|numbers| numbers.contains(&partition))
    }

    /// How many partitions the transaction has.
    pub fn partition_count(&self) -> usize {
        self.partitions.values().map(BTreeSet::len).sum()
    }

    /// All of them.
    pub fn all_partitions(&self) -> impl Iterator<Item = TopicPartition> {
        self.partitions.iter().flat_map(|(topic, numbers)| {
            numbers.iter().map(|partition| TopicPartition {
                topic: topic.clone(),
                partition: *partition,
            })
        })
    }

    fn step(&self, state: State, now_ms: i64) -> Self {
        assert!(
            self.state.may_become(state),
            "{} after {}",
            state.name(),
            self.state.name()
        );
        Self {
            state,
            previous_producer_id: self.producer_id,
            updated_ms: now_ms,
            ..self.clone()
        }
    }

    /// A producer begins with the next epoch. With an epoch that it says it has (KIP-360), it must
    /// be the present one; the one before is the retry of a request that was served.
    ///
    /// # Panics
    /// If it would give out an epoch that is kept for fencing.
    pub fn next_epoch(
        &self,
        timeout_ms: i32,
        expected: Option<i16>,
        now_ms: i64,
    ) -> Result<Self, TransactionError> {
        let raised = || {
            assert!(!self.is_exhausted(), "no epoch is left");
            self.epoch + 1
        };
        let (epoch, last_epoch) = match expected {
            None => (raised(), NO_EPOCH),
            Some(expected) if self.epoch == NO_EPOCH || expected == self.epoch => {
                (raised(), self.epoch)
            }
            Some(expected) if expected == self.last_epoch => (self.epoch, self.last_epoch),
            Some(_) => return Err(TransactionError::ProducerFenced),
        };
        Ok(Self {
            epoch,
            last_epoch,
            ..self.idle(timeout_ms, now_ms)
        })
    }

    /// A producer begins with a new id, for the epochs of its old one are used up.
    pub fn next_id(
        &self,
        producer_id: i64,
        timeout_ms: i32,
        keeps_last_epoch: bool,
        now_ms: i64,
    ) -> Self {
        let last_epoch = if keeps_last_epoch {
            self.epoch
        } else {
            NO_EPOCH
        };
        Self {
            producer_id,
            epoch: 0,
            last_epoch,
            ..self.idle(timeout_ms, now_ms)
        }
    }

    fn idle(&self, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            timeout_ms,
            partitions: Partitions::new(),
            start_ms: NO_TIME,
            next_producer_id: NO_PRODUCER_ID,
            ..self.step(State::Empty, now_ms)
        }
    }

    /// Partitions join the transaction, which begins with its first ones.
    pub fn with_partitions<'a>(
        &self,
        added: impl Iterator<Item = &'a TopicPartition>,
        client: ClientVersion,
        now_ms: i64,
    ) -> Self {
        let mut next = self.step(State::Ongoing, now_ms);
        if self.state != State::Ongoing {
            next.start_ms = now_ms;
        }
        next.client = client;
        for TopicPartition { topic, partition } in added {
            match next.partitions.get_mut(topic) {
                Some(numbers) => drop(numbers.insert(*partition)),
                None => {
                    let numbers = BTreeSet::from([*partition]);
                    next.partitions.insert(topic.clone(), numbers);
                }
            }
        }
        next
    }

    /// The transaction is decided. `next_producer_id` is for a client that raises its epoch and has
    /// none left.
    pub fn decided(
        &self,
        committed: bool,
        client: ClientVersion,
        next_producer_id: i64,
        now_ms: i64,
    ) -> Self {
        let state = match committed {
            true => State::PrepareCommit,
            false => State::PrepareAbort,
        };
        let mut next = self.step(state, now_ms);
        if client.raises_epoch() {
            // The last epoch of an id is never a client's, so that there is always one to fence
            // with; from there nothing is left to raise.
            next.epoch = self.epoch.saturating_add(1);
            next.last_epoch = self.epoch;
        }
        if self.state != State::Ongoing {
            // An abort without partitions: it began now.
            next.start_ms = now_ms;
        }
        next.next_producer_id = next_producer_id;
        next.client = client;
        next
    }

    /// All partitions have their markers.
    pub fn completed(&self, now_ms: i64) -> Self {
        let state = match self.state {
            State::PrepareCommit => State::CompleteCommit,
            _ => State::CompleteAbort,
        };
        let producer = self.next_producer();
        Self {
            producer_id: producer.id,
            epoch: producer.epoch,
            next_producer_id: NO_PRODUCER_ID,
            partitions: Partitions::new(),
            ..self.step(state, now_ms)
        }
    }
}
