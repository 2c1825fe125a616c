//! The one place where our errors become Kafka's codes.
//!
//! The codes decide what clients do: a retriable one makes them try again in silence, any other
//! reaches the application. So what may pass by itself (a full disk, a group that loads) gets a
//! retriable code, and what only a person can mend does not.

use ringmill_log::{AppendError, ChangeError, ProducerError, ReadError};
use ringmill_wire::batch::BatchError;
use ringmill_wire::compression::DecompressError;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::record::RecordError;

use crate::cluster::topics::TopicError;
use crate::config::ConfigError;
use crate::fetch_sessions::SessionError;
use crate::groups::GroupError;
use crate::groups::consumer::BeatError;
use crate::transactions::TransactionError;

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
            TopicError::Collision(..) => Self::InvalidTopic,
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
            GroupError::NotCoordinator => Self::NotCoordinator,
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
            GroupError::AnswerTooLarge => Self::InvalidRequest,
            GroupError::GroupIdNotFound => Self::GroupIdNotFound,
            GroupError::NonEmptyGroup => Self::NonEmptyGroup,
            GroupError::SubscribedToTopic => Self::GroupSubscribedToTopic,
            GroupError::OffsetMetadataTooLarge => Self::OffsetMetadataTooLarge,
            GroupError::StaleMemberEpoch => Self::StaleMemberEpoch,
            GroupError::UnsupportedVersion => Self::UnsupportedVersion,
        }
    }
}

impl From<&BeatError> for ErrorCode {
    fn from(error: &BeatError) -> Self {
        match error {
            BeatError::Invalid(_) => Self::InvalidRequest,
            BeatError::Group(error) => (*error).into(),
            BeatError::UnsupportedAssignor { .. } => Self::UnsupportedAssignor,
            BeatError::FencedEpoch { .. } => Self::FencedMemberEpoch,
            BeatError::UnreleasedInstance { .. } => Self::UnreleasedInstanceId,
            BeatError::InvalidRegex { .. } => Self::InvalidRegularExpression,
            BeatError::NotConsumerGroup(_) => Self::GroupIdNotFound,
        }
    }
}

impl From<TransactionError> for ErrorCode {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::InvalidRequest => Self::InvalidRequest,
            TransactionError::CoordinatorNotAvailable => Self::CoordinatorNotAvailable,
            TransactionError::NotCoordinator => Self::NotCoordinator,
            TransactionError::LoadInProgress => Self::CoordinatorLoadInProgress,
            TransactionError::InvalidTimeout => Self::InvalidTransactionTimeout,
            TransactionError::InvalidProducerIdMapping => Self::InvalidProducerIdMapping,
            TransactionError::ProducerFenced => Self::ProducerFenced,
            TransactionError::ConcurrentTransactions => Self::ConcurrentTransactions,
            TransactionError::InvalidState => Self::InvalidTxnState,
            TransactionError::NotInTransaction => Self::TransactionAbortable,
            TransactionError::NotFound => Self::TransactionalIdNotFound,
            // Kafka has no limit of the kind; this code is final, and its words say why.
            TransactionError::LimitReached => Self::PolicyViolation,
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

/// The code of an error that another crate defines.
pub trait ToCode {
    /// Kafka's code for it.
    fn to_code(&self) -> ErrorCode;
}

impl ToCode for BatchError {
    fn to_code(&self) -> ErrorCode {
        match self {
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            // As Kafka: formats of old are no batches of version 2, those of the future are damage.
            BatchError::Magic(0 | 1) => ErrorCode::InvalidRecord,
            BatchError::Magic(_) => ErrorCode::CorruptMessage,
            BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
            BatchError::Zeros | BatchError::Length(_) | BatchError::Crc { .. } => {
                ErrorCode::CorruptMessage
            }
            _ => ErrorCode::InvalidRecord,
        }
    }
}

impl ToCode for RecordError {
    fn to_code(&self) -> ErrorCode {
        match self {
            // Ours, not Kafka's; not damage, after which producers would send it for ever.
            RecordError::Decompress(DecompressError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
            RecordError::Decompress(DecompressError::Malformed { .. }) => ErrorCode::CorruptMessage,
            _ => ErrorCode::InvalidRecord,
        }
    }
}

impl ToCode for AppendError {
    fn to_code(&self) -> ErrorCode {
        match self {
            AppendError::Batch(error) => error.to_code(),
            AppendError::Producer(ProducerError::OutOfOrderSequence { .. }) => {
                ErrorCode::OutOfOrderSequenceNumber
            }
            AppendError::Producer(ProducerError::InvalidTxnState { .. }) => {
                ErrorCode::InvalidTxnState
            }
            AppendError::Producer(ProducerError::CoordinatorFenced { .. }) => {
                ErrorCode::TransactionCoordinatorFenced
            }
            // retried by clients, as while the end of the last one is being written
            AppendError::Producer(ProducerError::TooManyTransactions) => {
                ErrorCode::ConcurrentTransactions
            }
            AppendError::Producer(ProducerError::InvalidProducerEpoch { .. }) => {
                ErrorCode::InvalidProducerEpoch
            }
            // Retriable, and to librdkafka and the Java client a batch that was not written: a full
            // disk may have room again, a failed log be opened again.
            AppendError::NoSpace | AppendError::Full | AppendError::Failed(_) => {
                ErrorCode::KafkaStorageError
            }
            AppendError::Exhausted => ErrorCode::UnknownServerError,
            // The topic is deleted, or the broker stops: the client looks for the leader.
            AppendError::Closed | AppendError::Truncated => ErrorCode::NotLeaderOrFollower,
            // between replicas: no client hears of it
            AppendError::Offset { .. } => ErrorCode::OffsetOutOfRange,
        }
    }
}

impl ToCode for ReadError {
    fn to_code(&self) -> ErrorCode {
        match self {
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            // Not retriable for ever: a person has to look.
            ReadError::Damaged(_) => ErrorCode::CorruptMessage,
            ReadError::Io(_) => ErrorCode::KafkaStorageError,
            ReadError::Closed => ErrorCode::NotLeaderOrFollower,
        }
    }
}

impl ToCode for ChangeError {
    fn to_code(&self) -> ErrorCode {
        match self {
            ChangeError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ChangeError::Io(_) | ChangeError::Failed(_) => ErrorCode::KafkaStorageError,
            ChangeError::Closed | ChangeError::Truncated => ErrorCode::NotLeaderOrFollower,
        }
    }
}
