//! What can go wrong with a consumer, per operation.

use std::sync::Arc;

use ringmill_wire::error::ErrorCode;
use thiserror::Error;

use super::fetcher::FetchError;
use super::membership::GroupError;
use crate::cluster::{LookupError, Retriable};
use crate::connection::CallError;
use crate::offsets::OffsetError;

/// Why a poll has no records to give.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PollError {
    /// A partition cannot be read; the others go on.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The consumer is no member of its group any more.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Positions cannot be found.
    #[error(transparent)]
    Offsets(#[from] OffsetError),
    /// The group's offsets cannot be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// An automatic commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Records that came cannot be read; the next poll goes on behind them.
    #[error("{0}")]
    Records(String),
    /// Another thread wants the application's attention.
    #[error("the poll was woken")]
    Woken,
    /// The consumer was closed.
    #[error("the consumer is closed")]
    Closed,
}

/// Why offsets were not committed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// There is no group.
    #[error("offsets are committed for a group: set group.id")]
    NoGroup,
    /// The consumer subscribes, but is not, or not any more, a member of its group: what it had may
    /// be another's. A later poll joins again.
    #[error("offsets of group {0:?} were not committed: this consumer is not a member now")]
    NotMember(Arc<str>),
    /// The coordinator refuses.
    #[error("offsets of group {group:?} were not committed: {code}")]
    Refused {
        /// The group.
        group: Arc<str>,
        /// The coordinator's code.
        code: ErrorCode,
    },
    /// There is no coordinator.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The coordinator did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The consumer was closed.
    #[error("the consumer is closed")]
    Closed,
}

impl Retriable for CommitError {
    fn may_pass(&self) -> bool {
        match self {
            Self::NoGroup | Self::NotMember(_) | Self::Closed => false,
            // the next heartbeat brings the member's new epoch (KIP-848)
            Self::Refused {
                code: ErrorCode::StaleMemberEpoch,
                ..
            } => true,
            // a topic that is not there will not come by waiting, whatever the code's class
            Self::Refused {
                code: ErrorCode::UnknownTopicOrPartition,
                ..
            } => false,
            Self::Refused { code, .. } => code.is_retriable(),
            Self::Lookup(error) => error.is_retriable(),
            Self::Call(error) => error.is_retriable(),
        }
    }
}

/// Why topics cannot be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubscribeError {
    /// There is no group to subscribe with.
    #[error("a subscription needs a group: set group.id, or assign partitions by hand")]
    NoGroup,
    /// No topic is named.
    #[error("a subscription needs a topic: unsubscribe ends one")]
    NoTopics,
    /// The subscription ended as it was to, but what was to be committed before it was not.
    #[error("the subscription has ended, but {0}")]
    Ended(#[from] CommitError),
    /// Only the consumer protocol has patterns, which the coordinator applies.
    #[error("a subscription by pattern needs group.protocol=consumer")]
    Pattern,
    /// The consumer was closed.
    #[error("the consumer is closed")]
    Closed,
}
