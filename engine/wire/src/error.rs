//! Kafka's error codes: the one enum that every response's `error_code` comes from
//! (<https://kafka.apache.org/protocol#protocol_error_codes>).

use std::fmt;

macro_rules! codes {
    ($($variant:ident = $code:literal, $name:literal, $retriable:literal, $message:literal;)*) => {
        /// An error code with its Kafka name, whether a client may retry, and a line of explanation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", $name, "`: ", $message, ".")]
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// All codes, ascending.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code of a number, if Kafka defines it.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name, as in its documentation.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether the same request may succeed later.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => $retriable,)*
                }
            }

            /// What the code means, in a few words.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }
        }
    };
}

codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", false, "the server failed in a way it has no code for";
    None = 0, "NONE", false, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", false, "the offset is outside of the partition's log";
    CorruptMessage = 2, "CORRUPT_MESSAGE", true, "the batch is corrupt: bad CRC, size or format";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", true, "no such topic or partition here";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", false, "the fetch size is not valid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", true, "the partition has no leader at the moment";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", true, "this broker does not lead the partition";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", true, "the request timed out";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", false, "the broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", true, "the replica is not available";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", false, "a record batch is larger than the topic allows";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", false, "the controller has moved";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", false, "the committed metadata is too long";
    NetworkException = 13, "NETWORK_EXCEPTION", true, "the connection broke before the response came";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", true, "the coordinator is loading its state";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", true, "the coordinator is not available";
    NotCoordinator = 16, "NOT_COORDINATOR", true, "this broker does not coordinate the group or transaction";
    InvalidTopic = 17, "INVALID_TOPIC_EXCEPTION", false, "the topic's name is not valid or the topic is internal";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", false, "the batch is larger than a segment";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", true, "too few replicas are in sync to accept the write";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true, "the write reached fewer replicas than required";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", false, "acks must be -1, 0 or 1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", false, "the group's generation is another";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", false, "the member's protocols suit no other member";
    InvalidGroupId = 24, "INVALID_GROUP_ID", false, "the group id is not valid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", false, "the group does not know the member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", false, "the session timeout is outside of the allowed range";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", false, "the group is rebalancing, rejoin";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", false, "the offsets are too large to commit";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", false, "not authorized for the topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", false, "not authorized for the group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", false, "not authorized for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", false, "a timestamp is outside of the allowed range";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", false, "the SASL mechanism is not supported";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", false, "the request does not suit the SASL state";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", false, "the version of the API is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", false, "a topic of this name exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", false, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", false, "the replication factor is not valid";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", false, "the replica assignment is not valid";
    InvalidConfig = 40, "INVALID_CONFIG", false, "the configuration is not valid";
    NotController = 41, "NOT_CONTROLLER", true, "this broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", false, "the request is not valid";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", false, "the record format does not allow the request";
    PolicyViolation = 44, "POLICY_VIOLATION", false, "a policy forbids the request";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false, "a sequence number is missing before this one";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", false, "the sequence number was used before";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", false, "the producer epoch is old";
    InvalidTxnState = 48, "INVALID_TXN_STATE", false, "the transaction's state does not allow the request";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", false, "the producer id is not that of the transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", false, "the transaction timeout is longer than allowed";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", false, "another operation on the transaction is under way";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", false, "a newer transaction coordinator has taken over";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false, "not authorized for the transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", false, "security is switched off";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", false, "not attempted, since another part of the request failed";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", true, "the disk failed";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", false, "no such log directory";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", false, "authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", false, "nothing is known of the producer id";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", false, "a reassignment of the partition is under way";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", false, "delegation tokens are switched off";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", false, "no such delegation token";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", false, "the principal neither owns nor may renew the token";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false, "delegation tokens cannot be requested on this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", false, "not authorized for the delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", false, "the delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", false, "the principal type is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", false, "the group has members";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", false, "no such group";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", true, "no such fetch session";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", true, "the fetch session epoch is not the next one";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", true, "the leader has no such listener";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", false, "topics cannot be deleted here";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", true, "the leader epoch is older than the broker's";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", true, "the leader epoch is newer than the broker's";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", false, "the client cannot read the partition's compression";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", false, "the broker epoch has changed";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", true, "the leader does not know its high watermark yet";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", false, "join again with the member id given";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", true, "the preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", false, "the group is full";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", false, "another member has taken the group instance id";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", true, "no eligible leader is available";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", true, "the partition needs no election";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", false, "no reassignment is under way";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", false, "the group is subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", false, "a record is not valid";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", true, "offsets of an open transaction are pending";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", true, "the quota is used up, retry later";
    ProducerFenced = 90, "PRODUCER_FENCED", false, "a newer producer has the transactional id";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", false, "no such resource";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", false, "the resource is named twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", false, "the credential is not acceptable";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", false, "the voter sets differ";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", false, "the update's version is not valid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", false, "the feature could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", false, "the forwarded principal could not be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", false, "no such snapshot";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", false, "the position is outside of the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", true, "no topic with this id here";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", false, "the broker id is in use";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", false, "the broker id is not registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", true, "the topic id is not that of the log";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", false, "the cluster id is not this cluster's";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", false, "no such transactional id";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", true, "the fetch session mixes topic names and ids";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", false, "a replica is not eligible for the in-sync set";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", false, "the leader has changed";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", false, "the offset has moved to tiered storage";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", false, "the member epoch is fenced, rejoin";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", false, "another member still has the instance id";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", false, "the assignor is not supported";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", false, "the member epoch is old, heartbeat first";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", false, "the endpoint is of another type";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", false, "the endpoint type is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", false, "no such controller";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", false, "no such telemetry subscription";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", false, "the telemetry is too large";
    InvalidRegistration = 119, "INVALID_REGISTRATION", false, "the broker's registration is not valid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", false, "the transaction must be aborted";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", false, "the record's state does not allow the acknowledgement";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", true, "no such share session";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", true, "the share session epoch is not the next one";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", false, "the share group's state epoch is another";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", false, "the voter's key is another";
    DuplicateVoter = 126, "DUPLICATE_VOTER", false, "the voter is a voter already";
    VoterNotFound = 127, "VOTER_NOT_FOUND", false, "no such voter";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", false, "the regular expression is not valid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", false, "the metadata is stale, bootstrap again";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", false, "the topology is not valid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", false, "the topology epoch is not valid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", false, "the topology epoch is outdated";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", true, "no more share sessions are possible";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether it says that something failed.
    pub const fn is_error(self) -> bool {
        self.code() != 0
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.code()
    }
}

impl fmt::Display for ErrorCode {
    /// `NOT_CONTROLLER (41): this broker is not the controller`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name(), self.code(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError;

    use super::*;

    #[test]
    fn codes_agree_with_the_protocol_crate() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
            match ResponseError::try_from_code(code.code()) {
                None => assert_eq!(*code, ErrorCode::None),
                Some(ResponseError::Unknown(_)) => panic!("{code} is made up"),
                Some(theirs) => assert_eq!(theirs.is_retriable(), code.is_retriable(), "{code}"),
            }
        }
        assert_eq!(ErrorCode::ALL.len(), 135, "-1 to 133 without a gap");
        assert_eq!(ErrorCode::from_code(134), None);
    }

    #[test]
    fn the_text_names_code_and_cause() {
        let text = ErrorCode::NotController.to_string();
        assert_eq!(
            text,
            "NOT_CONTROLLER (41): this broker is not the controller"
        );
    }
}
