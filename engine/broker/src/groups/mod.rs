//! Consumer groups: who belongs to a group, who consumes what, and how far it got. All rules here
//! are pure: events go in with the time, effects come out; the shell parks requests under
//! [`Token`]s, stores records in `__consumer_offsets` and wakes the coordinator at its deadlines.

pub mod admin;
pub mod beats;
#[cfg(test)]
mod beats_test;
pub mod classic;
pub mod consumer;
pub mod coordinator;
#[cfg(test)]
mod coordinator_test;
mod kind;
pub mod offsets;
pub(crate) mod offsets_log;
mod pending;
pub mod records;
mod room;
pub(crate) mod service;
#[cfg(test)]
mod snapshot;
mod stored;
mod transactional;
pub(crate) mod transactional_service;
#[cfg(test)]
mod transactional_test;
pub mod write;

use bytes::Bytes;
use consumer::{BeatError, Beaten};
use thiserror::Error;

/// Names a request that waits for its answer; unique within one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Why a group request is refused; `crate::error` maps each to Kafka's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupError {
    /// The group id is empty where it may not be.
    #[error("the group id is empty")]
    InvalidGroupId,
    /// The group's log could not be read or written, or no further group is admitted.
    #[error("the group's coordinator is not available")]
    CoordinatorNotAvailable,
    /// Another node leads the group's partition.
    #[error("the group is another node's")]
    NotCoordinator,
    /// The group's log is still being read.
    #[error("the group's coordinator is still loading")]
    LoadInProgress,
    /// The member is not (or no longer) part of the group.
    #[error("the group does not know this member")]
    UnknownMember,
    /// The request belongs to another generation of the group.
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// No assignment protocol is common to all members.
    #[error("no protocol is common to all members")]
    InconsistentProtocol,
    /// The session timeout lies outside of the broker's range.
    #[error("the session timeout is out of the broker's range")]
    InvalidSessionTimeout,
    /// A rebalance is under way: join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// A new member must join again with the id it is given (KIP-394).
    #[error("join again with the given member id")]
    MemberIdRequired,
    /// Another member has taken over this static member's instance id (KIP-345).
    #[error("another member has taken this instance id")]
    FencedInstanceId,
    /// The group has as many members, or as much metadata, as it may.
    #[error("the group is full")]
    GroupFull,
    /// The leader's assignment is larger than the group may store.
    #[error("the assignment is larger than a group may store")]
    AssignmentTooLarge,
    /// What is asked for makes an answer that is larger than the broker gives.
    #[error("the answer would be too large: ask in parts")]
    AnswerTooLarge,
    /// No such group.
    #[error("no such group")]
    GroupIdNotFound,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// A member subscribes to the topic.
    #[error("a member of the group subscribes to the topic")]
    SubscribedToTopic,
    /// The text stored with an offset is too long.
    #[error("the offset's metadata is too long")]
    OffsetMetadataTooLarge,
    /// The member epoch is not the member's current one (KIP-848).
    #[error("the member epoch is not the member's current one")]
    StaleMemberEpoch,
    /// The request's version has no place for what the group's protocol needs.
    #[error("the request's version does not know member epochs")]
    UnsupportedVersion,
}

/// One result per part of a request, in its order.
pub type Results = Vec<Result<(), GroupError>>;

/// A JoinGroup request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// The member's id, empty for a new member.
    pub member_id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    /// The client's id, from the request's header.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long the member may take to rejoin a rebalance.
    pub rebalance_timeout_ms: u64,
    /// How long the member may stay silent.
    pub session_timeout_ms: u64,
    /// The kind of group, `consumer` for consumers.
    pub protocol_type: String,
    /// The member's assignment protocols, the preferred one first, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new member is sent back for its id first (v4+, KIP-394).
    pub require_known_member_id: bool,
    /// Whether the client knows `skip_assignment` (v9+, KIP-814).
    pub supports_skip_assignment: bool,
    /// Random, makes up the id of a new member.
    pub unique: String,
}

/// A successful JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The group's generation.
    pub generation: i32,
    /// The kind of group.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// The id of the member that joined.
    pub member_id: String,
    /// The leader need not assign again (KIP-814).
    pub skip_assignment: bool,
    /// For the leader, all members with their metadata; else empty.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A refused JoinGroup: the error, and the member id that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id to answer with; for [`GroupError::MemberIdRequired`] the one to join with.
    pub member_id: String,
}

/// Which member, of which generation, a request claims to come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// The member's id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// The generation it believes to be in.
    pub generation: i32,
}

/// A SyncGroup request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sync {
    /// Who asks.
    pub claim: Claim,
    /// The kind of group, if the client says (v5+).
    pub protocol_type: Option<String>,
    /// The chosen protocol, if the client says (v5+).
    pub protocol: Option<String>,
    /// From the leader: what each member is assigned.
    pub assignments: Vec<(String, Bytes)>,
}

/// A successful SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The kind of group.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// What the member is assigned.
    pub assignment: Bytes,
}

/// A member that LeaveGroup names: by id, or by instance id alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaver {
    /// The member's id; empty to name a static member by its instance.
    pub member_id: String,
    /// Its instance id.
    pub instance_id: Option<String>,
}

/// An answer to a parked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a JoinGroup.
    Join(Token, Result<Joined, JoinRefused>),
    /// To a SyncGroup.
    Sync(Token, Result<Synced, GroupError>),
    /// To a ConsumerGroupHeartbeat.
    Beat(Token, Result<Beaten, BeatError>),
}

impl Reply {
    /// The request that it answers.
    pub fn token(&self) -> Token {
        match self {
            Self::Join(token, _) | Self::Sync(token, _) | Self::Beat(token, _) => *token,
        }
    }

    /// The refusal to send instead.
    pub fn refused(self, error: GroupError) -> Self {
        match self {
            Self::Join(token, joined) => {
                let member_id = joined.map(|joined| joined.member_id).unwrap_or_default();
                Self::Join(token, Err(JoinRefused { error, member_id }))
            }
            Self::Sync(token, _) => Self::Sync(token, Err(error)),
            Self::Beat(token, _) => Self::Beat(token, Err(error.into())),
        }
    }
}

/// What an event asks the shell to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Send these at once.
    pub replies: Vec<Reply>,
    /// The group's record must be stored as it is now.
    pub store: bool,
    /// Send these when the record is stored; if it cannot be, the shell refuses them instead and
    /// tells the group.
    pub after_store: Vec<Reply>,
}

impl Effects {
    fn join(&mut self, token: Token, joined: Joined) {
        self.replies.push(Reply::Join(token, Ok(joined)));
    }

    fn refuse_join(&mut self, token: Token, member_id: &str, error: GroupError) {
        let member_id = member_id.to_owned();
        self.replies
            .push(Reply::Join(token, Err(JoinRefused { error, member_id })));
    }

    fn sync(&mut self, token: Token, result: Result<Synced, GroupError>) {
        self.replies.push(Reply::Sync(token, result));
    }
}
