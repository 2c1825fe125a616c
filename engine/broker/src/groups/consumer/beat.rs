//! A ConsumerGroupHeartbeat as the group sees it, its answer, and why it may be refused.

use thiserror::Error;

use super::partitions::Partitions;
use super::{LEAVE_EPOCH, STATIC_LEAVE_EPOCH};
use crate::groups::GroupError;

/// A heartbeat. What is none has not changed since the one before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// The member's id; empty for a new member of version 0, which is given one.
    pub member_id: String,
    /// The epoch the member is in: 0 to join, -1 to leave, -2 to leave for a while.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// How long the member may take to give partitions up.
    pub rebalance_timeout_ms: Option<i32>,
    /// The topics that it names.
    pub names: Option<Vec<String>>,
    /// The pattern of further topics; empty for none.
    pub regex: Option<String>,
    /// The assignor that it prefers.
    pub assignor: Option<String>,
    /// The partitions that it owns.
    pub owned: Option<Partitions>,
    /// The client's id, from the request's header.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Whether clients make up their own ids (version 1).
    pub brings_id: bool,
    /// Random, the id of a new member that brings none.
    pub unique: String,
}

impl Beat {
    /// The rules that need no group (Kafka's `throwIfConsumerGroupHeartbeatRequestIsInvalid`).
    pub fn check(&self) -> Result<(), BeatError> {
        let is_empty = |text: &Option<String>| text.as_deref() == Some("");
        let invalid = |reason| Err(BeatError::Invalid(reason));
        if is_empty(&self.instance_id) {
            return invalid("InstanceId can't be empty.");
        }
        if is_empty(&self.rack_id) {
            return invalid("RackId can't be empty.");
        }
        // Without an id a static member may leave for a while; its instance id tells it.
        let needs_id = self.brings_id || self.epoch > 0 || self.epoch == LEAVE_EPOCH;
        if self.member_id.is_empty() && needs_id {
            return invalid("MemberId can't be empty.");
        }
        match self.epoch {
            0 if self.rebalance_timeout_ms.is_none() => {
                invalid("RebalanceTimeoutMs must be provided in first request.")
            }
            0 if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                invalid("TopicPartitions must be empty when (re-)joining.")
            }
            0 if self.names.is_none() && self.regex.is_none() => invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            ),
            STATIC_LEAVE_EPOCH if self.instance_id.is_none() => {
                invalid("InstanceId can't be null.")
            }
            STATIC_LEAVE_EPOCH.. => Ok(()),
            _ => invalid("MemberEpoch is invalid."),
        }
    }

    /// Bytes that it says of its member.
    pub fn bytes(&self) -> usize {
        let texts = [
            &self.instance_id,
            &self.rack_id,
            &self.regex,
            &self.assignor,
        ];
        let texts = texts.into_iter().flatten().map(String::len);
        let names = self.names.iter().flatten().map(String::len);
        let id = self.member_id.len() + self.client_id.len() + self.client_host.len();
        id + texts.sum::<usize>() + names.sum::<usize>()
    }

    /// Whether the member leaves, for a while or for good.
    pub fn leaves(&self) -> bool {
        matches!(self.epoch, LEAVE_EPOCH | STATIC_LEAVE_EPOCH)
    }

    /// Whether it says all that it would say when it joins: it may have missed an answer.
    pub(super) fn is_full(&self) -> bool {
        let subscribes = self.names.is_some() || self.regex.is_some();
        self.epoch == 0
            || (self.rebalance_timeout_ms.is_some() && subscribes && self.owned.is_some())
    }
}

/// A heartbeat that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    /// The member's id.
    pub member_id: String,
    /// Its epoch from now on.
    pub epoch: i32,
    /// When its next heartbeat is due.
    pub interval_ms: i32,
    /// What it may consume, if that has changed or was asked for.
    pub assignment: Option<Partitions>,
}

/// Why a heartbeat is refused; the words go to the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BeatError {
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(&'static str),
    /// As other requests to groups.
    #[error("{0}")]
    Group(#[from] GroupError),
    /// The broker does not offer this assignor.
    #[error("ServerAssignor {name} is not supported. Supported assignors: {offered}.")]
    UnsupportedAssignor {
        /// The assignor.
        name: String,
        /// Those that it offers.
        offered: String,
    },
    /// The epoch is not the member's.
    #[error(
        "The consumer group member has epoch {said}, and the group coordinator knows {known}. The member must abandon all its partitions and rejoin."
    )]
    FencedEpoch {
        /// The one that it named.
        said: i32,
        /// The one that it has.
        known: i32,
    },
    /// Another member has the instance id and has not left.
    #[error(
        "Static member {member_id} with instance id {instance_id} cannot join: the instance id is used by another member."
    )]
    UnreleasedInstance {
        /// Who would join.
        member_id: String,
        /// The instance id.
        instance_id: String,
    },
    /// The pattern cannot be used.
    #[error("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}.")]
    InvalidRegex {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// There is a group of this name, and its members speak the classic protocol.
    #[error("Group {0} is not a consumer group.")]
    NotConsumerGroup(String),
}
