//! A topic's settings: the table of their names, and [`TopicConfig`], the typed form that the data
//! path reads. `durability` is our own; every other name is Kafka's (`TopicConfig.java`).

use std::time::Duration;

use ringmill_log::{CompactionConfig, LogConfig};
pub use ringmill_log::{Durability, TimestampType};

use super::throttled::ThrottledReplicas;
use super::{ConfigError, Key, Kind, Overrides, Reader, Table, list_items};

const LONG_MAX: &str = "9223372036854775807";
const MILLIS: Kind = Kind::Long(0, i64::MAX);
const MILLIS_OR_NONE: Kind = Kind::Long(-1, i64::MAX);

/// Why some settings are without effect.
const BY_DESIGN: &str = "Ringmill works without it.";

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonym: Option<&'static str>,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        synonym,
        dynamic: true,
        doc,
        without_effect: None,
    }
}

/// All settings of a topic.
pub static TABLE: Table = Table {
    scope: "topic",
    keys: &[
        key(
            "cleanup.policy",
            Kind::List(&["compact", "delete"]),
            "delete",
            Some("log.cleanup.policy"),
            "What becomes of old segments: \"delete\" drops them by retention.ms and retention.bytes, \"compact\" keeps the last record of every key; both may be named. With neither, everything stays.",
        ),
        key(
            "compression.type",
            Kind::Choice(&["producer"]),
            "producer",
            Some("compression.type"),
            "The codec that batches are stored with. The broker stores what the producer sent and never recompresses, so \"producer\" is the one value served.",
        ),
        key(
            "delete.retention.ms",
            MILLIS,
            "86400000",
            Some("log.cleaner.delete.retention.ms"),
            "How long a compacted topic keeps the tombstone of a deleted key, from the compaction on that left nothing else of the key, in milliseconds.",
        ),
        key(
            "durability",
            Kind::Choice(DURABILITIES),
            "flushed",
            Some("log.durability"),
            "What an acknowledged record has survived: \"flushed\" waits for fdatasync, \"replicated\" for the memory of the in-sync replicas (as Kafka), \"relaxed\" for the leader's write alone. Consumers see only records that reached it.",
        ),
        key(
            "file.delete.delay.ms",
            MILLIS,
            "60000",
            Some("log.segment.delete.delay.ms"),
            "How long a deleted segment's file stays for readers that are still inside it, in milliseconds.",
        ),
        key(
            "flush.messages",
            Kind::Long(1, i64::MAX),
            LONG_MAX,
            Some("log.flush.interval.messages"),
            "Flush a partition after so many records, whether or not somebody waits for it.",
        ),
        key(
            "flush.ms",
            MILLIS,
            LONG_MAX,
            Some("log.flush.interval.ms"),
            "Flush a partition when its oldest unflushed record is so old, in milliseconds, whether or not somebody waits for it.",
        ),
        key(
            "follower.replication.throttled.replicas",
            Kind::Replicas,
            "",
            None,
            "Whose fetching is held to follower.replication.throttled.rate while they are not in sync: PARTITION:NODE of replicas, separated by commas, or * for all of the topic.",
        ),
        key(
            "index.interval.bytes",
            Kind::Int(0, i32::MAX as i64),
            "4096",
            Some("log.index.interval.bytes"),
            "Bytes of records between two entries of Kafka's sparse index. Kept for tools; Ringmill's index has a fixed step.",
        )
        .changes_nothing(BY_DESIGN),
        key(
            "leader.replication.throttled.replicas",
            Kind::Replicas,
            "",
            None,
            "Which leaders hold what they give to followers that are not in sync to leader.replication.throttled.rate: PARTITION:NODE of replicas, separated by commas, or * for all of the topic.",
        ),
        key(
            "max.compaction.lag.ms",
            Kind::Long(1, i64::MAX),
            LONG_MAX,
            Some("log.cleaner.max.compaction.lag.ms"),
            "The longest time a record of a compacted topic may stay uncompacted, in milliseconds, whatever the dirty ratio; segments end after so long.",
        ),
        key(
            "max.message.bytes",
            Kind::Int(0, i32::MAX as i64),
            "1048588",
            Some("message.max.bytes"),
            "The largest record batch that the topic accepts, in bytes after compression.",
        ),
        key(
            "message.timestamp.after.max.ms",
            MILLIS,
            "3600000",
            Some("log.message.timestamp.after.max.ms"),
            "How far a record's timestamp may lie ahead of the broker's clock, in milliseconds; only checked for CreateTime.",
        ),
        key(
            "message.timestamp.before.max.ms",
            MILLIS,
            LONG_MAX,
            Some("log.message.timestamp.before.max.ms"),
            "How far a record's timestamp may lie behind the broker's clock, in milliseconds; only checked for CreateTime.",
        ),
        key(
            "message.timestamp.type",
            Kind::Choice(&["CreateTime", "LogAppendTime"]),
            "CreateTime",
            Some("log.message.timestamp.type"),
            "Whether a record keeps the producer's timestamp or gets the time of its append.",
        ),
        key(
            "min.cleanable.dirty.ratio",
            Kind::Double(0.0, 1.0),
            "0.5",
            Some("log.cleaner.min.cleanable.ratio"),
            "The share of a compacted log that must be uncompacted before it is compacted again.",
        ),
        key(
            "min.compaction.lag.ms",
            MILLIS,
            "0",
            Some("log.cleaner.min.compaction.lag.ms"),
            "How long a record of a compacted topic stays uncompacted at least, in milliseconds.",
        ),
        key(
            "min.insync.replicas",
            Kind::Int(1, i32::MAX as i64),
            // Kafka's is 1: there, who is left alone may acknowledge what one lost disk takes away
            "2",
            Some("min.insync.replicas"),
            "How many replicas must hold a record before acks=all is answered, or all of them if there are fewer; with fewer in sync, such a produce request is refused.",
        ),
        key(
            "preallocate",
            Kind::Bool,
            "false",
            Some("log.preallocate"),
            "Whether a new segment's file is allocated at its full size. Ringmill writes the next segment's blocks ahead by itself, so this changes nothing.",
        )
        .changes_nothing(BY_DESIGN),
        key(
            "retention.bytes",
            MILLIS_OR_NONE,
            "-1",
            Some("log.retention.bytes"),
            "The size a partition may reach before its oldest segments are deleted; -1 sets no limit.",
        ),
        key(
            "retention.ms",
            MILLIS_OR_NONE,
            "604800000",
            Some("log.retention.ms"),
            "How long records are kept, in milliseconds; -1 keeps them for ever.",
        ),
        key(
            "segment.bytes",
            Kind::Int(65_536, i32::MAX as i64),
            "1073741824",
            Some("log.segment.bytes"),
            "The size at which a partition starts its next segment file, in bytes.",
        ),
        key(
            "segment.index.bytes",
            Kind::Int(4, i32::MAX as i64),
            "10485760",
            Some("log.index.size.max.bytes"),
            "The largest size of Kafka's index file. Kept for tools; Ringmill's index grows with its segment.",
        )
        .changes_nothing(BY_DESIGN),
        key(
            "segment.jitter.ms",
            MILLIS,
            "0",
            Some("log.roll.jitter.ms"),
            "The most time that is taken off segment.ms at random, so that partitions do not roll together, in milliseconds.",
        ),
        key(
            "segment.ms",
            Kind::Long(1, i64::MAX),
            "604800000",
            Some("log.roll.ms"),
            "The age at which a partition starts its next segment file, in milliseconds.",
        ),
        key(
            "unclean.leader.election.enable",
            Kind::Bool,
            "false",
            Some("unclean.leader.election.enable"),
            "Whether a replica that may lack acknowledged records can become leader when no other is left.",
        ),
    ],
};

const DURABILITIES: &[&str] = &["flushed", "replicated", "relaxed"];

fn durability(name: &str) -> Durability {
    match name.trim() {
        "replicated" => Durability::Replicated,
        "relaxed" => Durability::Relaxed,
        _ => Durability::Flushed,
    }
}

/// A topic's settings, checked and typed; cheap to copy. All `Option`s are limits that may be
/// absent.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// Old segments are deleted by retention.
    pub delete: bool,
    /// The last record of every key is kept.
    pub compact: bool,
    /// When and how, if so.
    pub compaction: CompactionConfig,
    /// What an acknowledgement waits for.
    pub durability: Durability,
    /// Flush after so many records.
    pub flush_messages: Option<u64>,
    /// Flush when the oldest unflushed record is so old.
    pub flush_interval: Option<Duration>,
    /// The largest batch, in bytes.
    pub max_message_bytes: u32,
    /// How far ahead of the clock a timestamp may lie.
    pub timestamp_after_max_ms: i64,
    /// How far behind the clock a timestamp may lie.
    pub timestamp_before_max_ms: i64,
    /// Whose timestamp records carry.
    pub timestamp_type: TimestampType,
    /// How many replicas acks=all waits for.
    pub min_insync_replicas: u32,
    /// Whether a replica that may lack acknowledged records can lead when no other is left.
    pub unclean_leader_election: bool,
    /// Whose leaders hold back what they give to followers.
    pub leader_throttled: ThrottledReplicas,
    /// Whose followers hold back.
    pub follower_throttled: ThrottledReplicas,
    /// The most bytes that a partition keeps.
    pub retention_bytes: Option<u64>,
    /// How long records are kept.
    pub retention: Option<Duration>,
    /// A segment's largest size, in bytes.
    pub segment_bytes: u32,
    /// A segment's largest age.
    pub segment_age: Duration,
    /// The most that is taken off `segment_age` at random.
    pub segment_jitter: Duration,
    /// How long a deleted segment's file stays.
    pub file_delete_delay: Duration,
}

impl TopicConfig {
    /// The typed form of a topic's `overrides`; `fallback` gives the broker's value for a key that
    /// the topic leaves alone.
    pub fn resolve(overrides: &Overrides, fallback: &dyn Fn(&Key) -> Option<String>) -> Self {
        let read = Reader::new(&TABLE, overrides, fallback);
        let policy = read.text("cleanup.policy");
        let millis = |name| Duration::from_millis(read.u64(name));
        let replicas = |name| ThrottledReplicas::parse(&read.text(name)).unwrap_or_default();
        Self {
            delete: list_items(&policy).any(|word| word == "delete"),
            compact: list_items(&policy).any(|word| word == "compact"),
            compaction: CompactionConfig {
                min_cleanable_ratio: read.double("min.cleanable.dirty.ratio"),
                min_compaction_lag_ms: read.long("min.compaction.lag.ms"),
                max_compaction_lag_ms: read.long("max.compaction.lag.ms"),
                delete_retention_ms: read.long("delete.retention.ms"),
            },
            durability: durability(&read.text("durability")),
            flush_messages: finite(read.u64("flush.messages")),
            flush_interval: finite(read.u64("flush.ms")).map(Duration::from_millis),
            max_message_bytes: read.u32("max.message.bytes"),
            timestamp_after_max_ms: read.long("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: read.long("message.timestamp.before.max.ms"),
            timestamp_type: match read.text("message.timestamp.type").trim() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_insync_replicas: read.u32("min.insync.replicas"),
            unclean_leader_election: read.bool("unclean.leader.election.enable"),
            leader_throttled: replicas("leader.replication.throttled.replicas"),
            follower_throttled: replicas("follower.replication.throttled.replicas"),
            retention_bytes: read.limit("retention.bytes"),
            retention: read.limit("retention.ms").map(Duration::from_millis),
            segment_bytes: read.u32("segment.bytes"),
            segment_age: millis("segment.ms"),
            segment_jitter: millis("segment.jitter.ms"),
            file_delete_delay: millis("file.delete.delay.ms"),
        }
    }

    /// What a partition's log is to know. The broker's own topics take records of any size, for it
    /// bounds them itself.
    pub fn log_config(&self, is_internal: bool, producer_id_expiration: Duration) -> LogConfig {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        LogConfig {
            durability: self.durability,
            segment_bytes: self.segment_bytes,
            segment_ms: match self.compact {
                // the active segment is never compacted (as Kafka's maxSegmentMs)
                true => millis(self.segment_age).min(self.compaction.max_compaction_lag_ms),
                false => millis(self.segment_age),
            },
            segment_jitter_ms: millis(self.segment_jitter),
            retention_ms: self.retention.filter(|_| self.delete).map(millis),
            retention_bytes: self.retention_bytes.filter(|_| self.delete),
            max_message_bytes: if is_internal {
                u32::MAX
            } else {
                self.max_message_bytes
            },
            timestamp_type: self.timestamp_type,
            flush_messages: self.flush_messages,
            flush_interval: self.flush_interval,
            file_delete_delay: self.file_delete_delay,
            producer_id_expiration_ms: millis(producer_id_expiration),
            compaction: self.compact.then_some(self.compaction),
        }
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::resolve(&Overrides::new(), &|_| None)
    }
}

/// Kafka writes "never" as the largest number.
pub(super) fn finite(value: u64) -> Option<u64> {
    (value != i64::MAX as u64).then_some(value)
}

/// Checks a whole set of overrides, also against each other.
pub fn check(overrides: &Overrides) -> Result<(), ConfigError> {
    for (name, value) in overrides {
        TABLE.check(name, value)?;
    }
    let read = Reader::new(&TABLE, overrides, &|_| None);
    let (min, max) = (
        read.long("min.compaction.lag.ms"),
        read.long("max.compaction.lag.ms"),
    );
    if min > max {
        // As Kafka's LogConfig.validateTopicLogConfigValues.
        return Err(ConfigError::Contradiction(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_are_kafkas_but_durable() {
        let config = TopicConfig::default();
        assert!(config.delete && !config.compact);
        assert_eq!(config.durability, Durability::Flushed);
        assert_eq!(config.retention, Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.flush_messages, None);
        assert_eq!(config.max_message_bytes, 1_048_588);
    }

    #[test]
    fn an_override_beats_the_broker_and_the_broker_beats_the_table() {
        let set = overrides(&[
            ("retention.ms", "1000"),
            ("cleanup.policy", "compact, delete"),
        ]);
        let broker =
            |key: &Key| (key.synonym == Some("log.retention.bytes")).then(|| "77".to_owned());
        let config = TopicConfig::resolve(&set, &broker);
        assert_eq!(config.retention, Some(Duration::from_secs(1)));
        assert_eq!(config.retention_bytes, Some(77));
        assert!(config.delete && config.compact);
        assert_eq!(config.segment_bytes, 1 << 30);
    }

    #[test]
    fn minus_one_means_no_limit() {
        let config = TopicConfig::resolve(&overrides(&[("retention.ms", "-1")]), &|_| None);
        assert_eq!(config.retention, None);
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let lag = overrides(&[
            ("min.compaction.lag.ms", "10"),
            ("max.compaction.lag.ms", "5"),
        ]);
        assert!(matches!(check(&lag), Err(ConfigError::Contradiction(_))));
        for policy in ["", "compact", "delete,compact"] {
            let set = overrides(&[("cleanup.policy", policy)]);
            assert_eq!(check(&set), Ok(()), "{policy:?}");
        }
    }

    #[test]
    fn a_topic_without_a_cleanup_policy_keeps_everything() {
        let set = overrides(&[("cleanup.policy", ""), ("retention.ms", "1")]);
        let config = TopicConfig::resolve(&set, &|_| None);
        assert!(!config.delete && !config.compact);
        let log = config.log_config(false, Duration::from_secs(1));
        assert_eq!((log.retention_ms, log.retention_bytes), (None, None));
        assert_eq!(log.compaction, None);
    }
}
