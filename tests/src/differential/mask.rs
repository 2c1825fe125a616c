//! THE table of what two brokers may say otherwise in the same answer, and why.

/// What is left of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Each broker names it in its own way: names of this kind must stand for each other throughout.
    Named(&'static str),
    /// A text for people: both have one, or neither.
    Present,
    /// A time: both have one, or neither (negative).
    Sign,
    /// A record's time, the producer's or the broker's: later than all producers' it is the broker's,
    /// and then both have one of those.
    Late,
    /// A list of all that a broker holds: elements of this run alone, in any order.
    OfThisRun,
    /// A list in any order.
    Unordered,
    /// A list in any order, in which a topic may come in several parts.
    Merged,
    /// A list in any order of what a request named: what it named twice may be told twice, or once.
    Once,
    /// A list whose elements have names, in any order: one that only one side has is a difference.
    ByName,
    /// How many partitions there are in it, of whatever topics.
    Partitions,
    /// Not compared.
    Ignored,
}

impl What {
    /// Whether it is about a list's order, and its elements are compared.
    pub fn is_of_lists(self) -> bool {
        matches!(
            self,
            Self::OfThisRun | Self::Unordered | Self::Merged | Self::Once | Self::ByName
        )
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// Kafka's name of the API; every one if empty.
    pub api: &'static str,
    /// The field.
    pub field: &'static str,
    /// What is compared still.
    pub what: What,
    /// Why.
    pub reason: &'static str,
}

const fn mask(api: &'static str, field: &'static str, what: What, reason: &'static str) -> Mask {
    Mask {
        api,
        field,
        what,
        reason,
    }
}

use What::{
    ByName, Ignored, Late, Merged, Named, OfThisRun, Once, Partitions, Present, Sign, Unordered,
};

const BY_CHANCE: &str = "drawn at random by the broker";
const COUNTED: &str = "counted by each broker for all of its clients";
const WORDS: &str = "words for people";
const EPOCHS: &str = "each broker counts what moves a group's epoch in its own way";
const CLOCK: &str = "the broker's clock";
const WHOLE: &str = "holds what other runs left; a hash map's order";
const AGAIN: &str = "what a request names again and again is told once, lest a small request make a \
                     large answer";
const MACHINE: &str = "each broker's own place";

/// The table; the first row that fits holds.
pub const MASKS: &[Mask] = &[
    mask("", "error_message", Ignored, WORDS),
    mask("", "batch_index_error_message", Present, WORDS),
    mask("", "member_epoch", Sign, EPOCHS),
    mask("", "group_epoch", Sign, EPOCHS),
    mask("", "assignment_epoch", Sign, EPOCHS),
    mask("", "topic_id", Named("topic"), BY_CHANCE),
    mask("", "producer_id", Named("producer"), COUNTED),
    mask("", "session_id", Named("fetch session"), BY_CHANCE),
    mask("", "member_id", Named("member"), BY_CHANCE),
    mask("JoinGroup", "leader", Named("member"), BY_CHANCE),
    mask(
        "Fetch",
        "crc",
        Ignored,
        "covers the producer's id; whether it is right is compared",
    ),
    mask("Fetch", "preferred_read_replica", Named("node"), MACHINE),
    mask("", "node_id", Named("node"), MACHINE),
    mask("", "leader_id", Named("node"), MACHINE),
    mask("", "controller_id", Named("node"), MACHINE),
    mask("", "broker_id", Named("node"), MACHINE),
    mask("Metadata", "replica_nodes", Named("node"), MACHINE),
    mask("Metadata", "isr_nodes", Named("node"), MACHINE),
    mask(
        "DescribeTopicPartitions",
        "replica_nodes",
        Named("node"),
        MACHINE,
    ),
    mask(
        "DescribeTopicPartitions",
        "isr_nodes",
        Named("node"),
        MACHINE,
    ),
    mask("", "coordinator_id", Named("node"), MACHINE),
    mask("", "host", Named("host"), MACHINE),
    mask("", "port", Named("port"), MACHINE),
    mask("", "client_host", Named("client host"), MACHINE),
    mask("", "cluster_id", Named("cluster"), BY_CHANCE),
    mask("", "log_dir", Named("folder"), MACHINE),
    mask("DescribeLogDirs", "total_bytes", Sign, MACHINE),
    mask("DescribeLogDirs", "usable_bytes", Sign, MACHINE),
    mask("", "log_append_time_ms", Sign, CLOCK),
    mask("ListOffsets", "timestamp", Late, CLOCK),
    mask("", "transaction_start_time_ms", Sign, CLOCK),
    mask("DescribeProducers", "last_timestamp", Sign, CLOCK),
    mask("", "documentation", Present, WORDS),
    mask("ListGroups", "groups", OfThisRun, WHOLE),
    mask("ListTransactions", "transaction_states", OfThisRun, WHOLE),
    mask("ListConfigResources", "config_resources", OfThisRun, WHOLE),
    mask("DescribeClientQuotas", "entries", OfThisRun, WHOLE),
    mask(
        "OffsetFetch",
        "topics",
        Unordered,
        "a hash map's order, when all are asked for",
    ),
    mask(
        "OffsetFetch",
        "partitions",
        Unordered,
        "a hash map's order, when all are asked for",
    ),
    mask("Metadata", "topics", OfThisRun, WHOLE),
    mask("DescribeLogDirs", "topics", OfThisRun, WHOLE),
    mask("", "configs", ByName, "a hash map's order"),
    mask("ApiVersions", "api_keys", ByName, "the order means nothing"),
    mask("DescribeGroups", "members", Unordered, "a hash map's order"),
    mask("JoinGroup", "members", Unordered, "a hash map's order"),
    mask(
        "ConsumerGroupDescribe",
        "members",
        Unordered,
        "a hash map's order",
    ),
    mask(
        "",
        "results_by_topic_v3_and_below",
        Unordered,
        "a hash map's order",
    ),
    mask("", "results_by_partition", Unordered, "a hash map's order"),
    mask(
        "",
        "results_by_transaction",
        Unordered,
        "a hash map's order",
    ),
    mask("", "topic_results", Unordered, "a hash map's order"),
    mask(
        "ConsumerGroupDescribe",
        "target_assignment",
        Partitions,
        "shares of several topics go by the order of their ids, which are drawn at random",
    ),
    mask("", "topic_partitions", Unordered, "a hash map's order"),
    mask(
        "",
        "subscribed_topic_names",
        Unordered,
        "a hash map's order",
    ),
    mask("ConsumerGroupDescribe", "groups", Once, AGAIN),
    mask("DescribeGroups", "groups", Once, AGAIN),
    mask("DescribeTransactions", "transaction_states", Once, AGAIN),
    mask("", "results", Unordered, "a hash map's order"),
    mask(
        "Fetch",
        "responses",
        Merged,
        "partitions with an error come first, and others behind those that were served",
    ),
    mask("", "responses", Unordered, "a hash map's order"),
    mask("", "partitions", Unordered, "a hash map's order"),
    mask("", "topics", Unordered, "a hash map's order"),
    mask("", "entity", Unordered, "a hash map's order"),
    mask("", "values", Unordered, "a hash map's order"),
    mask("", "errors", Unordered, "a hash map's order"),
];

/// The row for a field.
pub fn mask_of(api: &str, field: &str) -> Option<&'static Mask> {
    let fits = |mask: &&Mask| mask.field == field && (mask.api.is_empty() || mask.api == api);
    MASKS.iter().find(fits)
}
