//! THE table of differences that have a reason.

use ringmill_wire::kafka_protocol::messages::RequestKind;

use super::compare::Difference;
use super::side::{Ask, Body};

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Kafka's name of the API; a Produce request that names a transactional id has one of its own too.
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
        path: "topics.configs[min.insync.replicas].value",
        ours: "\"2\"",
        theirs: "\"1\"",
        reason: "two replicas hold what acks=all acknowledges, where there are two: no lost disk takes it away",
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
        reason: "a default for the whole cluster, as with CreateTopics",
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
        api: "Metadata",
        path: "cluster_authorized_operations",
        ours: "",
        theirs: "-2147483648",
        reason: "as above",
    },
    Known {
        api: "Metadata",
        path: "error_code",
        ours: "0",
        theirs: "-1",
        reason: "Kafka fails on a topic without name and id, which we say of that topic alone",
    },
    Known {
        api: "DescribeClientQuotas",
        path: "entries",
        ours: "None",
        theirs: "[]",
        reason: "quotas by IP address are not offered",
    },
    Known {
        api: "DescribeConfigs",
        path: "results.configs[min.insync.replicas].value",
        ours: "\"2\"",
        theirs: "\"1\"",
        reason: "two replicas hold what acks=all acknowledges, where there are two: no lost disk takes it away",
    },
    Known {
        api: "DescribeConfigs",
        path: "results.configs[min.insync.replicas].synonyms",
        ours: "",
        theirs: "",
        reason: "a default for the whole cluster, as with CreateTopics",
    },
    Known {
        api: "DescribeConfigs",
        path: "results.configs[retention.ms].synonyms",
        ours: "",
        theirs: "",
        reason: "Kafka leaves out log.retention.ms, for it has the default in hours",
    },
    Known {
        api: "IncrementalAlterConfigs",
        path: "responses.error_code",
        ours: "42",
        theirs: "-1",
        reason: "Kafka fails on an operation that is none, where we say so",
    },
    Known {
        api: "DescribeTransactions",
        path: "transaction_states.topics.partitions",
        ours: "",
        theirs: "",
        reason: "a group's partition of __consumer_offsets, which has another number of partitions here",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.log_append_time_ms",
        ours: "-1",
        theirs: "",
        reason: "of a batch that was there already, Kafka tells its time whatever the topic's timestamps are",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "76",
        theirs: "-1",
        reason: "Kafka fails on a codec that is none",
    },
    Known {
        api: "CreateTopics",
        path: "topics.error_code",
        ours: "17",
        theirs: "36",
        reason: "of the broker's own topics Kafka says that they exist, and we that the name is not to be had",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys.name",
        ours: "71",
        theirs: "absent",
        reason: "Kafka tells of clients' metrics (KIP-714) only with a plugin that takes them",
    },
    Known {
        api: "ApiVersions",
        path: "api_keys.name",
        ours: "72",
        theirs: "absent",
        reason: "as above",
    },
    Known {
        api: "ConsumerGroupHeartbeat",
        path: "error_code",
        ours: "0",
        theirs: "111",
        reason: "a static member that joins again by its own id, for an answer was lost, is taken; Kafka's answer would end its client",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "2",
        theirs: "49",
        reason: "of two errors of one batch each broker tells the one that it looks for first",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "76",
        theirs: "120",
        reason: "of two errors of one batch each broker tells the one that it looks for first",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "21",
        theirs: "-1",
        reason: "Kafka fails on a codec that is none, whatever else is wrong",
    },
    Known {
        api: "AlterConfigs",
        path: "",
        ours: "",
        theirs: "silent",
        reason: "Kafka never answers a request that names one resource twice: it fails while it counts its answer's errors",
    },
    Known {
        api: "CreateTopics",
        path: "topics.topic_id",
        ours: "00000000-0000-0000-0000-000000000000",
        theirs: "",
        reason: "Kafka draws an id even for a topic that is only validated",
    },
    Known {
        api: "ApiVersions",
        path: "supported_features",
        ours: "",
        theirs: "",
        reason: "features of Kafka's own quorum and of replicas, which a node of this kind does not have",
    },
    Known {
        api: "ApiVersions",
        path: "finalized_features",
        ours: "",
        theirs: "",
        reason: "as above",
    },
    Known {
        api: "ApiVersions",
        path: "finalized_features_epoch",
        ours: "",
        theirs: "",
        reason: "counted by each broker",
    },
    Known {
        api: "AlterClientQuotas",
        path: "entries.error_code",
        ours: "42",
        theirs: "0",
        reason: "quotas of controller mutations and of connections are not offered",
    },
    Known {
        api: "AddPartitionsToTxn",
        path: "results_by_transaction.topic_results.results_by_partition.partition_error_code",
        ours: "48",
        theirs: "120",
        reason: "a verification of version 4 gets a code of its time",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "19",
        theirs: "120",
        reason: "of two errors of one batch each broker tells the one that it looks for first",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "87",
        theirs: "120",
        reason: "of two errors of one batch each broker tells the one that it looks for first",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "87",
        theirs: "49",
        reason: "of two errors of one batch each broker tells the one that it looks for first",
    },
    Known {
        api: "Produce",
        path: "responses.partition_responses.error_code",
        ours: "87",
        theirs: "47",
        reason: "of two errors of one batch each broker tells the one that it looks for first",
    },
    Known {
        api: IN_TRANSACTION,
        path: "responses.partition_responses.error_code",
        ours: "45",
        theirs: "0",
        reason: "a sequence does not begin at zero (KIP-890); Kafka does not look where it refused the producer before, in a version of the time before",
    },
    Known {
        api: IN_TRANSACTION,
        path: "responses.partition_responses.base_offset",
        ours: "-1",
        theirs: "",
        reason: "as above",
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
        path: "api_keys.name",
        ours: "absent",
        theirs: "",
        reason: "an API that we do not serve yet",
    },
];

/// Instead of the API's name: a Produce request that names a transactional id.
const IN_TRANSACTION: &str = "Produce in a transaction";

/// The field in which an answer says that the whole request failed.
const WHOLE: &str = "error_code";

/// Why a batch is refused, and which of its records are at fault, which only some of the reasons name.
const REFUSED: &str = "responses.partition_responses.error_code";
const FAULTS: &str = "responses.partition_responses.record_errors";

/// The differences in the answer to a request that the table does not have. Where only one broker
/// refuses the whole, and why is known, the rest comes of that; as the records at fault come of the
/// error that is told of several.
pub fn unexplained<'a>(ask: &Ask, differences: &'a [Difference]) -> Vec<&'a Difference> {
    let known = |path: &str| {
        let mut of_path = differences.iter().filter(|d| d.path == path).peekable();
        of_path.peek().is_some() && of_path.all(|d| explained(ask, d))
    };
    if known(WHOLE) {
        return Vec::new();
    }
    let follows = |d: &Difference| d.path == FAULTS && known(REFUSED);
    let left = differences
        .iter()
        .filter(|d| !explained(ask, d) && !follows(d));
    left.collect()
}

/// Whether one broker took a batch that the other refused: what follows may come of it.
pub fn parted(differences: &[Difference]) -> bool {
    let taken = |d: &Difference| d.ours == "0" || d.theirs == "0";
    differences.iter().any(|d| d.path == REFUSED && taken(d))
}

/// Whether the table has a difference in the answer to a request.
fn explained(ask: &Ask, difference: &Difference) -> bool {
    let api = format!("{:?}", ask.key);
    KNOWN.iter().any(|known| {
        (known.api == api || (known.api == IN_TRANSACTION && in_transaction(ask)))
            && known.path == difference.path
            && (known.ours.is_empty() || known.ours == difference.ours)
            && (known.theirs.is_empty() || known.theirs == difference.theirs)
    })
}

fn in_transaction(ask: &Ask) -> bool {
    let Body::Message(message) = &ask.body else {
        return false;
    };
    matches!(&**message, RequestKind::Produce(produce) if produce.transactional_id.is_some())
}
