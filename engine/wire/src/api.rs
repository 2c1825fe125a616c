//! THE table of APIs: which requests this broker serves, and in which versions.
//!
//! What ApiVersions advertises, what a request header is checked against and which encoding a
//! message has all come from here, so the advertised ranges are true by construction. A row exists
//! only for what is served; a version stands in it only if every field of it is honoured.

/// The number of an API on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
#[expect(missing_docs, reason = "Kafka's own names")]
pub enum ApiKey {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    WriteTxnMarkers = 27,
    TxnOffsetCommit = 28,
    DescribeConfigs = 32,
    AlterConfigs = 33,
    DescribeLogDirs = 35,
    CreatePartitions = 37,
    DeleteGroups = 42,
    ElectLeaders = 43,
    IncrementalAlterConfigs = 44,
    AlterPartitionReassignments = 45,
    ListPartitionReassignments = 46,
    OffsetDelete = 47,
    DescribeClientQuotas = 48,
    AlterClientQuotas = 49,
    DescribeQuorum = 55,
    AlterPartition = 56,
    UpdateFeatures = 57,
    Envelope = 58,
    DescribeCluster = 60,
    DescribeProducers = 61,
    BrokerRegistration = 62,
    BrokerHeartbeat = 63,
    UnregisterBroker = 64,
    DescribeTransactions = 65,
    ListTransactions = 66,
    AllocateProducerIds = 67,
    ConsumerGroupHeartbeat = 68,
    ConsumerGroupDescribe = 69,
    GetTelemetrySubscriptions = 71,
    PushTelemetry = 72,
    ListConfigResources = 74,
    DescribeTopicPartitions = 75,
    /// Of our own: a message of the quorum that keeps the metadata.
    QuorumMessage = 20_001,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
    /// Lowest version that ApiVersions names; below `min` for Produce alone.
    pub advertised_min: i16,
    /// First version in the flexible encoding (KIP-482).
    pub first_flexible: i16,
    /// Nodes ask it of each other: ApiVersions does not name it.
    pub internal: bool,
}

/// For an API that has no flexible version.
const NEVER: i16 = i16::MAX;

const fn api(key: ApiKey, name: &'static str, min: i16, max: i16, first_flexible: i16) -> Api {
    Api {
        key,
        name,
        min,
        max,
        advertised_min: min,
        first_flexible,
        internal: false,
    }
}

/// What nodes ask of each other, in the one version that they speak.
const fn internal(key: ApiKey, name: &'static str, version: i16, first_flexible: i16) -> Api {
    Api {
        internal: true,
        ..api(key, name, version, version, first_flexible)
    }
}

/// The table, by ascending key.
pub const APIS: &[Api] = &[
    Api {
        // KAFKA-18659: older librdkafka compresses only for brokers that name version 0
        advertised_min: 0,
        ..api(ApiKey::Produce, "Produce", 3, 13, 9)
    },
    api(ApiKey::Fetch, "Fetch", 4, 17, 12),
    api(ApiKey::ListOffsets, "ListOffsets", 1, 10, 6),
    api(ApiKey::Metadata, "Metadata", 0, 13, 9),
    api(ApiKey::OffsetCommit, "OffsetCommit", 2, 9, 8),
    api(ApiKey::OffsetFetch, "OffsetFetch", 1, 9, 6),
    api(ApiKey::FindCoordinator, "FindCoordinator", 0, 6, 3),
    api(ApiKey::JoinGroup, "JoinGroup", 0, 9, 6),
    api(ApiKey::Heartbeat, "Heartbeat", 0, 4, 4),
    api(ApiKey::LeaveGroup, "LeaveGroup", 0, 5, 4),
    api(ApiKey::SyncGroup, "SyncGroup", 0, 5, 4),
    api(ApiKey::DescribeGroups, "DescribeGroups", 0, 6, 5),
    api(ApiKey::ListGroups, "ListGroups", 0, 5, 3),
    api(ApiKey::ApiVersions, "ApiVersions", 0, 4, 3),
    api(ApiKey::CreateTopics, "CreateTopics", 2, 7, 5),
    api(ApiKey::DeleteTopics, "DeleteTopics", 1, 6, 4),
    api(ApiKey::DeleteRecords, "DeleteRecords", 0, 2, 2),
    // Version 6, of two-phase commit (KIP-939), is not stable in Kafka either, whose brokers do not
    // name it unless told to.
    api(ApiKey::InitProducerId, "InitProducerId", 0, 5, 2),
    api(
        ApiKey::OffsetForLeaderEpoch,
        "OffsetForLeaderEpoch",
        2,
        4,
        4,
    ),
    api(ApiKey::AddPartitionsToTxn, "AddPartitionsToTxn", 0, 5, 3),
    api(ApiKey::AddOffsetsToTxn, "AddOffsetsToTxn", 0, 4, 3),
    api(ApiKey::EndTxn, "EndTxn", 0, 5, 3),
    api(ApiKey::WriteTxnMarkers, "WriteTxnMarkers", 1, 1, 1),
    api(ApiKey::TxnOffsetCommit, "TxnOffsetCommit", 0, 5, 3),
    api(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4, 4),
    api(ApiKey::AlterConfigs, "AlterConfigs", 0, 2, 2),
    api(ApiKey::DescribeLogDirs, "DescribeLogDirs", 1, 4, 2),
    api(ApiKey::CreatePartitions, "CreatePartitions", 0, 3, 2),
    api(ApiKey::DeleteGroups, "DeleteGroups", 0, 2, 2),
    api(ApiKey::ElectLeaders, "ElectLeaders", 0, 2, 2),
    api(
        ApiKey::IncrementalAlterConfigs,
        "IncrementalAlterConfigs",
        0,
        1,
        1,
    ),
    api(
        ApiKey::AlterPartitionReassignments,
        "AlterPartitionReassignments",
        0,
        1,
        0,
    ),
    api(
        ApiKey::ListPartitionReassignments,
        "ListPartitionReassignments",
        0,
        0,
        0,
    ),
    api(ApiKey::OffsetDelete, "OffsetDelete", 0, 0, NEVER),
    api(
        ApiKey::DescribeClientQuotas,
        "DescribeClientQuotas",
        0,
        1,
        1,
    ),
    api(ApiKey::AlterClientQuotas, "AlterClientQuotas", 0, 1, 1),
    api(ApiKey::DescribeQuorum, "DescribeQuorum", 0, 2, 0),
    internal(ApiKey::AlterPartition, "AlterPartition", 3, 0),
    api(ApiKey::UpdateFeatures, "UpdateFeatures", 0, 2, 0),
    internal(ApiKey::Envelope, "Envelope", 0, 0),
    api(ApiKey::DescribeCluster, "DescribeCluster", 0, 2, 0),
    api(ApiKey::DescribeProducers, "DescribeProducers", 0, 0, 0),
    internal(ApiKey::BrokerRegistration, "BrokerRegistration", 4, 0),
    internal(ApiKey::BrokerHeartbeat, "BrokerHeartbeat", 1, 0),
    api(ApiKey::UnregisterBroker, "UnregisterBroker", 0, 0, 0),
    api(
        ApiKey::DescribeTransactions,
        "DescribeTransactions",
        0,
        0,
        0,
    ),
    // version 2 filters by RE2 patterns (KIP-1152)
    api(ApiKey::ListTransactions, "ListTransactions", 0, 2, 0),
    internal(ApiKey::AllocateProducerIds, "AllocateProducerIds", 0, 0),
    api(
        ApiKey::ConsumerGroupHeartbeat,
        "ConsumerGroupHeartbeat",
        0,
        1,
        0,
    ),
    api(
        ApiKey::ConsumerGroupDescribe,
        "ConsumerGroupDescribe",
        0,
        1,
        0,
    ),
    api(
        ApiKey::GetTelemetrySubscriptions,
        "GetTelemetrySubscriptions",
        0,
        0,
        0,
    ),
    api(ApiKey::PushTelemetry, "PushTelemetry", 0, 0, 0),
    api(ApiKey::ListConfigResources, "ListConfigResources", 0, 1, 0),
    api(
        ApiKey::DescribeTopicPartitions,
        "DescribeTopicPartitions",
        0,
        0,
        0,
    ),
];

/// What is not Kafka's, far from Kafka's keys.
pub const OWN_APIS: &[Api] = &[internal(ApiKey::QuorumMessage, "QuorumMessage", 0, NEVER)];

/// One more than the highest key of the table.
const KEYS: usize = APIS[APIS.len() - 1].key as usize + 1;

/// The table by key, for a look-up in one step.
const BY_KEY: [Option<Api>; KEYS] = {
    let mut by_key = [None; KEYS];
    let mut row = 0;
    while row < APIS.len() {
        let api = APIS[row];
        assert!(api.min <= api.max, "a row serves at least one version");
        assert!(by_key[api.key as usize].is_none(), "a key has one row");
        by_key[api.key as usize] = Some(api);
        row += 1;
    }
    by_key
};

impl Api {
    /// The row of a key on the wire, if this broker serves it.
    #[inline]
    pub fn by_number(key: i16) -> Option<&'static Self> {
        static TABLE: [Option<Api>; KEYS] = BY_KEY;
        match TABLE.get(usize::try_from(key).ok()?) {
            Some(row) => row.as_ref(),
            None => OWN_APIS.iter().find(|api| api.key.code() == key),
        }
    }

    /// Whether this broker serves a version.
    #[inline]
    pub fn serves(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether a version has the flexible encoding: compact lengths and tagged fields (KIP-482).
    #[inline]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.first_flexible
    }

    /// Whether a version's response header has tagged fields. ApiVersions' never has, so that a
    /// client can read it before it knows the broker (KIP-511).
    #[inline]
    pub fn has_flexible_response_header(&self, version: i16) -> bool {
        self.is_flexible(version) && self.key != ApiKey::ApiVersions
    }
}

impl ApiKey {
    /// The number on the wire.
    #[inline]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The API's row: every key of this enum has one.
    #[inline]
    pub fn api(self) -> &'static Api {
        Api::by_number(self.code()).expect("every key has a row")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found_by_number() {
        assert!(APIS.is_sorted_by_key(|api| api.key));
        for api in APIS.iter().chain(OWN_APIS) {
            assert_eq!(Api::by_number(api.key.code()), Some(api));
            assert_eq!(api.key.api(), api);
            assert_eq!(api.name, format!("{:?}", api.key));
        }
        for unknown in [i16::MIN, -1, 4, 7, 17, 54, 20_000, i16::MAX] {
            assert_eq!(Api::by_number(unknown), None);
        }
    }

    #[test]
    fn versions_lie_within_what_the_protocol_crate_knows() {
        use kafka_protocol::messages::ApiKey as Theirs;
        for api in APIS {
            let theirs = Theirs::try_from(api.key.code()).unwrap();
            let range = theirs.valid_versions();
            assert!(range.min <= api.min && api.max <= range.max, "{}", api.name);
            for version in api.min..=api.max {
                let header = theirs.request_header_version(version);
                assert_eq!(
                    header == 2,
                    api.is_flexible(version),
                    "{} {version}",
                    api.name
                );
                let header = theirs.response_header_version(version);
                let flexible = api.has_flexible_response_header(version);
                assert_eq!(header == 1, flexible, "{} {version}", api.name);
            }
        }
    }

    #[test]
    fn a_version_is_served_or_not() {
        let produce = ApiKey::Produce.api();
        assert!(!produce.serves(2) && produce.serves(3) && produce.serves(13));
        assert!(!produce.serves(14) && !produce.serves(-1));
    }
}
