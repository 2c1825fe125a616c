//! Transactions (KIP-98, KIP-360, KIP-890): which producer has a transactional id, which partitions
//! its transaction has touched, and how the transaction ends. All rules here are pure: requests go
//! in with the time, [`Effects`] come out; the shell stores records in `__transaction_state`, sends
//! markers to the partitions' owners and tells the coordinator when either is durable.
//!
//! A decision counts when its record is durable, never before: a commit is answered after its
//! `PrepareCommit`, and what a crash leaves in a Prepare state is carried on when the log is read.

pub mod admin;
pub mod coordinator;
#[cfg(test)]
mod coordinator_test;
mod elsewhere;
pub(crate) mod markers;
#[cfg(test)]
mod model_test;
pub mod records;
pub mod requests;
pub(crate) mod service;
pub mod state;
mod state_log;
pub(crate) mod verification;

use bytes::Bytes;
use thiserror::Error;

/// "No producer id" and "no epoch".
pub const NO_PRODUCER_ID: i64 = -1;
/// As above.
pub const NO_EPOCH: i16 = -1;

/// Names a request that waits for its answer; unique within one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A producer as it names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// A partition by its topic's name, as the records have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// What a client knows of KIP-890 (`transaction.version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ClientVersion {
    /// It adds partitions by itself and keeps its epoch.
    #[default]
    V0,
    /// As before; the records are of the newer format.
    V1,
    /// Partitions join with the first batch, and every end raises the epoch.
    V2,
}

impl ClientVersion {
    /// Whether the end of a transaction raises the producer's epoch.
    pub fn raises_epoch(self) -> bool {
        self == Self::V2
    }
}

/// Why a request about a transaction is refused; `crate::error` maps each to Kafka's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// The transactional id is empty, or a name is too long.
    #[error("the request is not valid")]
    InvalidRequest,
    /// The coordinator's log could not be read or written.
    #[error("the transaction's coordinator is not available")]
    CoordinatorNotAvailable,
    /// Another node leads the transactional id's partition.
    #[error("the transactional id is another node's")]
    NotCoordinator,
    /// The coordinator's log is still being read.
    #[error("the transaction's coordinator is still loading")]
    LoadInProgress,
    /// The time-out is not positive, or longer than the broker allows.
    #[error("the transaction's time-out is not allowed")]
    InvalidTimeout,
    /// The transactional id is unknown, or another producer id's.
    #[error("the producer id is not that of the transactional id")]
    InvalidProducerIdMapping,
    /// A newer producer has the transactional id.
    #[error("a newer producer has the transactional id")]
    ProducerFenced,
    /// Another change of the transaction is under way.
    #[error("another operation on the transaction is under way")]
    ConcurrentTransactions,
    /// The transaction's state does not allow it.
    #[error("the transaction's state does not allow the request")]
    InvalidState,
    /// The partition is not part of the transaction (KIP-890): abort it.
    #[error("the partition is not part of the transaction")]
    NotInTransaction,
    /// No such transactional id.
    #[error("no such transactional id")]
    NotFound,
    /// The core has as many transactional ids, or the transaction as many partitions, as it may.
    #[error("no more transactional ids or partitions are admitted")]
    LimitReached,
}

/// The answer to a request: the producer as it is from now on.
pub type Reply = Result<Producer, TransactionError>;

/// A record to append to a partition of `__transaction_state`; the shell tells
/// [`coordinator::Coordinator::written`] what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which one it is, of all.
    pub number: u64,
    /// The partition.
    pub home: i32,
    /// Whose record it is.
    pub id: String,
    /// The record's key.
    pub key: Bytes,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
}

/// The decision about a transaction, for each of its partitions; the shell tells
/// [`coordinator::Coordinator::marked`] when all have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Whose transaction it is.
    pub id: String,
    /// The producer that the partitions know, in the epoch of the decision.
    pub producer: Producer,
    /// Whether it is committed.
    pub committed: bool,
    /// Where the decision is to be written.
    pub partitions: Vec<TopicPartition>,
}

/// What an event asks the shell to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Answer these at once.
    pub replies: Vec<(Token, Reply)>,
    /// Append and flush these.
    pub writes: Vec<Write>,
    /// Write these everywhere, and try for as long as it takes.
    pub markers: Vec<Markers>,
}

impl Effects {
    fn reply(token: Token, reply: Reply) -> Self {
        Self {
            replies: vec![(token, reply)],
            ..Self::default()
        }
    }

    fn refuse(token: Token, error: TransactionError) -> Self {
        Self::reply(token, Err(error))
    }
}
