//! THE table of differences that have a reason.

use super::compare::Difference;
use super::side::Ask;

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Kafka's name of the API.
    pub api: &'static str,
    /// The field, with its way there.
    pub path: &'static str,
    /// Our value; any if empty.
    pub ours: &'static str,
    /// Kafka's; any if empty.
    pub theirs: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The table.
pub const KNOWN: &[Known] = &[
    Known {
        api: "CreateTopics",
        path: "topics.configs.name",
        ours: "",
        theirs: "absent",
        reason: "a config of ours alone (docs/CONFIGURATION.md)",
    },
    Known {
        api: "CreateTopics",
        path: "topics.configs.name",
        ours: "absent",
        theirs: "",
        reason: "a config that we do not have (docs/CONFIGURATION.md)",
    },
    Known {
        api: "CreateTopics",
        path: "topics.configs[min.insync.replicas].config_source",
        ours: "5",
        theirs: "3",
        reason: "Kafka writes its default down for the whole cluster when eligible leader replicas are on (KIP-966)",
    },
    Known {
        api: "DescribeConfigs",
        path: "results.configs[min.insync.replicas].config_source",
        ours: "5",
        theirs: "3",
        reason: "as above",
    },
    Known {
        api: "IncrementalAlterConfigs",
        path: "responses.error_code",
        ours: "17",
        theirs: "-1",
        reason: "Kafka fails on a name that no topic can have, where we say so",
    },
    Known {
        api: "DescribeClientQuotas",
        path: "error_code",
        ours: "35",
        theirs: "",
        reason: "quotas by IP address are not offered",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.log_start_offset",
        ours: "-1",
        theirs: "",
        reason: "of a batch that is refused after its partition was found, Kafka tells where the log begins",
    },
    Known {
        api: "Metadata",
        path: "brokers",
        ours: "",
        theirs: "[]",
        reason: "Kafka fails a request with a topic id and no name before version 12 as a whole, and names no brokers then",
    },
    Known {
        api: "Metadata",
        path: "cluster_id",
        ours: "",
        theirs: "None",
        reason: "as above",
    },
    Known {
        api: "Metadata",
        path: "controller_id",
        ours: "",
        theirs: "-1",
        reason: "as above",
    },
    Known {
        api: "IncrementalAlterConfigs",
        path: "responses.error_code",
        ours: "3",
        theirs: "40",
        reason: "of two errors Kafka tells the value's, and we that there is no such topic",
    },
    Known {
        api: "IncrementalAlterConfigs",
        path: "responses.error_code",
        ours: "3",
        theirs: "-1",
        reason: "as above; an unknown operation",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[1].max_version",
        ours: "17",
        theirs: "18",
        reason: "Fetch 18 is for followers",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[2].max_version",
        ours: "10",
        theirs: "11",
        reason: "ListOffsets 11 is about tiered storage",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[8].max_version",
        ours: "9",
        theirs: "10",
        reason: "OffsetCommit by topic ids (KIP-848) is not served yet",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[9].max_version",
        ours: "9",
        theirs: "10",
        reason: "OffsetFetch by topic ids (KIP-848) is not served yet",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[27].max_version",
        ours: "1",
        theirs: "2",
        reason: "WriteTxnMarkers 2 is for brokers",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[35].max_version",
        ours: "4",
        theirs: "5",
        reason: "DescribeLogDirs 5 tells of cordoned folders, of which there are none",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys[66].max_version",
        ours: "1",
        theirs: "2",
        reason: "ListTransactions by a pattern (KIP-1152) is not served yet",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys.name",
        ours: "absent",
        theirs: "",
        reason: "an API that we do not serve yet",
    },
];

/// Whether the table has a difference in the answer to a request.
pub fn explained(ask: &Ask, difference: &Difference) -> bool {
    let api = format!("{:?}", ask.key);
    KNOWN.iter().any(|known| {
        known.api == api
            && known.path == difference.path
            && (known.ours.is_empty() || known.ours == difference.ours)
            && (known.theirs.is_empty() || known.theirs == difference.theirs)
    })
}
