//! One producer's transactions: what may be done when (KIP-98, and KIP-890 where the brokers have
//! it).
//!
//! Pure. By the old protocol a partition is made known to the coordinator before its first batch of
//! the transaction leaves; by the new one (transaction.version 2) the brokers see to that, and each
//! end gives the producer a new epoch. A failure that the transaction cannot survive is kept until
//! the application aborts; one that the producer cannot survive is kept for good.

use std::collections::BTreeSet;

use ringmill_wire::error::ErrorCode;
use thiserror::Error;

use super::core::Key;
use crate::cluster::{LookupError, Retriable};
use crate::connection::CallError;

/// Why something of a transaction cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// The producer has no `transactional.id`.
    #[error("the producer has no transactions: set transactional.id")]
    NotTransactional,
    /// `init_transactions` has not been called, or not succeeded.
    #[error("transactions are not initialised: call init_transactions first")]
    NotInitialized,
    /// There is an open transaction.
    #[error("a transaction is open: commit or abort it first")]
    AlreadyOpen,
    /// There is no open transaction.
    #[error("no transaction is open: begin one first")]
    NotOpen,
    /// Something of the transaction failed.
    #[error("the transaction can only be aborted: {cause}")]
    AbortRequired {
        /// What failed.
        cause: String,
    },
    /// The producer cannot go on: another with its `transactional.id` has taken over, or the
    /// coordinator refuses it for good. Close it.
    #[error("the producer cannot go on: {cause}")]
    Fatal {
        /// What failed.
        cause: String,
    },
    /// The coordinator, or a group's, refuses for now.
    #[error("{what}: {code}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The code.
        code: ErrorCode,
    },
    /// There is no coordinator.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A coordinator did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl Retriable for TransactionError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => class(*code) == Class::Retry,
            Self::Lookup(error) => error.is_retriable(),
            Self::Call(error) => error.is_retriable(),
            _ => false,
        }
    }
}

/// What a coordinator's code means for a transaction (Java's `TransactionManager`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Fine,
    Retry,
    Abort,
    Fatal,
}

/// See [`Class`].
pub(crate) fn class(code: ErrorCode) -> Class {
    match code {
        ErrorCode::None => Class::Fine,
        // the transaction before is still being completed
        ErrorCode::ConcurrentTransactions => Class::Retry,
        ErrorCode::InvalidProducerEpoch
        | ErrorCode::ProducerFenced
        | ErrorCode::InvalidTxnState
        | ErrorCode::InvalidProducerIdMapping
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::UnsupportedVersion => Class::Fatal,
        code if code.is_retriable() => Class::Retry,
        _ => Class::Abort,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    New,
    Ready,
    Open,
    /// It can only be aborted.
    Failed(String),
    Ending,
    Fatal(String),
}

/// What ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing was done in it: the coordinator knows of none.
    Nothing,
    /// The coordinator is to be told.
    Tell,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Transaction {
    phase: Phase,
    /// The brokers speak transaction.version 2.
    version2: bool,
    /// The coordinator knows these partitions.
    added: BTreeSet<Key>,
    /// It is to know these.
    wanted: BTreeSet<Key>,
    /// It is being told of these.
    adding: BTreeSet<Key>,
    /// The coordinator has something to end.
    involved: bool,
}

impl Transaction {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::New,
            version2: false,
            added: BTreeSet::new(),
            wanted: BTreeSet::new(),
            adding: BTreeSet::new(),
            involved: false,
        }
    }

    /// Whether the brokers see to the partitions.
    pub(crate) fn is_version2(&self) -> bool {
        self.version2
    }

    /// The producer has its identity.
    pub(crate) fn on_initialized(&mut self, version2: bool) {
        self.version2 = version2;
        self.reset();
    }

    fn reset(&mut self) {
        self.phase = Phase::Ready;
        self.added.clear();
        self.wanted.clear();
        self.adding.clear();
        self.involved = false;
    }

    /// Begins one.
    pub(crate) fn begin(&mut self) -> Result<(), TransactionError> {
        match &self.phase {
            Phase::Ready => {
                self.phase = Phase::Open;
                Ok(())
            }
            Phase::New => Err(TransactionError::NotInitialized),
            Phase::Open | Phase::Ending => Err(TransactionError::AlreadyOpen),
            _ => self.check_open(),
        }
    }

    /// Whether records and offsets can be added to it.
    pub(crate) fn check_open(&self) -> Result<(), TransactionError> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::New => Err(TransactionError::NotInitialized),
            Phase::Ready | Phase::Ending => Err(TransactionError::NotOpen),
            Phase::Failed(cause) => Err(TransactionError::AbortRequired {
                cause: cause.clone(),
            }),
            Phase::Fatal(cause) => Err(TransactionError::Fatal {
                cause: cause.clone(),
            }),
        }
    }

    /// Whether a batch of this partition may leave now; if not, the coordinator is to be told of
    /// the partition first.
    pub(crate) fn admits(&mut self, key: Key) -> bool {
        if self.version2 {
            self.involved = true;
            return true;
        }
        if !self.added.contains(&key) && !self.adding.contains(&key) {
            self.wanted.insert(key);
        }
        self.added.contains(&key)
    }

    /// The partitions that the coordinator is to be told of; [`Transaction::on_added`]. One request
    /// at a time.
    pub(crate) fn next_addition(&mut self) -> Option<BTreeSet<Key>> {
        if self.wanted.is_empty() || !self.adding.is_empty() {
            return None;
        }
        self.adding = std::mem::take(&mut self.wanted);
        // whatever the answer, the coordinator may know the transaction from now on
        self.involved = true;
        Some(self.adding.clone())
    }

    /// The coordinator knows the partitions of the last [`Transaction::next_addition`].
    pub(crate) fn on_added(&mut self) -> BTreeSet<Key> {
        let added = std::mem::take(&mut self.adding);
        self.added.extend(added.iter().copied());
        added
    }

    /// The coordinator, or a group's, takes offsets: there is something to end.
    pub(crate) fn involve(&mut self) {
        self.involved = true;
    }

    /// Something failed. True if that is news: what waits is to be dropped.
    pub(crate) fn on_failed(&mut self, error: &TransactionError) -> bool {
        let cause = error.to_string();
        match (&self.phase, error) {
            (Phase::Fatal(_), _) => return false,
            (_, TransactionError::Fatal { cause }) => self.phase = Phase::Fatal(cause.clone()),
            (_, TransactionError::Refused { code, .. }) if class(*code) == Class::Fatal => {
                self.phase = Phase::Fatal(cause);
            }
            (Phase::Open, TransactionError::AbortRequired { cause }) => {
                self.phase = Phase::Failed(cause.clone());
            }
            (Phase::Open, _) => self.phase = Phase::Failed(cause),
            _ => return false,
        }
        self.wanted.clear();
        self.adding.clear();
        true
    }

    /// Begins the end.
    pub(crate) fn begin_end(&mut self, committed: bool) -> Result<End, TransactionError> {
        match (&self.phase, committed) {
            (Phase::Open, _) | (Phase::Failed(_) | Phase::Ending, false) => {}
            _ => self.check_open()?,
        }
        self.phase = Phase::Ending;
        self.wanted.clear();
        Ok(match self.involved {
            true => End::Tell,
            false => End::Nothing,
        })
    }

    /// The end was not reached, though it may have been: only the same end, or an abort, may
    /// follow.
    pub(crate) fn on_end_failed(&mut self, error: &TransactionError) {
        self.phase = Phase::Open;
        self.involved = true;
        self.on_failed(error);
    }

    /// It is over.
    pub(crate) fn on_ended(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
#[path = "transaction_test.rs"]
mod tests;
