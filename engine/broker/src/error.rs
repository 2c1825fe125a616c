//! The one place where our errors become Kafka's codes.
//!
//! The codes decide what clients do: a retriable one makes them try again in silence, any other
//! reaches the application. So what may pass by itself (a full disk, a group that loads) gets a
//! retriable code, and what only a person can mend does not.

use ringmill_wire::error::ErrorCode;

use crate::cluster::topics::TopicError;
use crate::config::ConfigError;
use crate::fetch_sessions::SessionError;
use crate::groups::GroupError;

impl From<&ConfigError> for ErrorCode {
    fn from(error: &ConfigError) -> Self {
        if error.is_invalid_request() {
            Self::InvalidRequest
        } else {
            Self::InvalidConfig
        }
    }
}

impl From<&TopicError> for ErrorCode {
    fn from(error: &TopicError) -> Self {
        match error {
            TopicError::Name(_) | TopicError::Internal(_) => Self::InvalidTopic,
            TopicError::Exists(_) => Self::TopicAlreadyExists,
            TopicError::Missing => Self::UnknownTopicOrPartition,
            TopicError::MissingId => Self::UnknownTopicId,
            TopicError::Partitions(_) => Self::InvalidPartitions,
            TopicError::Replication(_) => Self::InvalidReplicationFactor,
            TopicError::Assignment(_) => Self::InvalidReplicaAssignment,
            TopicError::Request(_) => Self::InvalidRequest,
            TopicError::NullConfigs(_) => Self::InvalidConfig,
            TopicError::Config(error) => error.into(),
            TopicError::DeletionDisabled => Self::TopicDeletionDisabled,
        }
    }
}

impl From<GroupError> for ErrorCode {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::InvalidGroupId => Self::InvalidGroupId,
            GroupError::CoordinatorNotAvailable => Self::CoordinatorNotAvailable,
            GroupError::LoadInProgress => Self::CoordinatorLoadInProgress,
            GroupError::UnknownMember => Self::UnknownMemberId,
            GroupError::IllegalGeneration => Self::IllegalGeneration,
            GroupError::InconsistentProtocol => Self::InconsistentGroupProtocol,
            GroupError::InvalidSessionTimeout => Self::InvalidSessionTimeout,
            GroupError::RebalanceInProgress => Self::RebalanceInProgress,
            GroupError::MemberIdRequired => Self::MemberIdRequired,
            GroupError::FencedInstanceId => Self::FencedInstanceId,
            GroupError::GroupFull => Self::GroupMaxSizeReached,
            // As Kafka when the group's record exceeds what its log takes.
            GroupError::AssignmentTooLarge => Self::UnknownServerError,
            GroupError::GroupIdNotFound => Self::GroupIdNotFound,
            GroupError::NonEmptyGroup => Self::NonEmptyGroup,
            GroupError::SubscribedToTopic => Self::GroupSubscribedToTopic,
            GroupError::OffsetMetadataTooLarge => Self::OffsetMetadataTooLarge,
        }
    }
}

impl From<SessionError> for ErrorCode {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NotFound => Self::FetchSessionIdNotFound,
            SessionError::InvalidEpoch => Self::InvalidFetchSessionEpoch,
            SessionError::TopicIdMismatch => Self::FetchSessionTopicIdError,
        }
    }
}
