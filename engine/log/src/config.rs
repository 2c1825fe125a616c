//! What a topic's configuration means to one partition's log. The fields carry Kafka's names in
//! Rust's spelling; `durability` is our own.

use std::time::Duration;

pub use ringmill_wire::batch::TimestampType;

/// What an acknowledgement, and a record's visibility to consumers, waits for on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// The fdatasync of the record's file.
    #[default]
    Flushed,
    /// The write to the page cache here; the memory of the other in-sync replicas is
    /// replication's to wait for (as Kafka).
    Replicated,
    /// The write to the page cache here and nothing else.
    Relaxed,
}

/// A partition's settings; may be changed while it runs
/// ([`Partition::update_config`](crate::Partition::update_config)).
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `durability`.
    pub durability: Durability,
    /// `segment.bytes`: a segment's log file grows to this size at most, if batches allow.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment takes records for so long at most, by the records' timestamps.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: so much at most is taken off `segment_ms`, by chance.
    pub segment_jitter_ms: i64,
    /// `retention.ms`: a segment whose newest record is older is deleted.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`: the oldest segments are deleted as long as the rest is not below this.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: the largest batch.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `flush.messages`: flush after so many records even if nobody waits.
    pub flush_messages: Option<u64>,
    /// `flush.ms`: flush when the oldest unflushed record is so old even if nobody waits.
    pub flush_interval: Option<Duration>,
    /// `file.delete.delay.ms`: deleted files stay for so long.
    pub file_delete_delay: Duration,
    /// `producer.id.expiration.ms`: an idempotent producer that is idle for so long is forgotten.
    pub producer_id_expiration_ms: i64,
    /// `cleanup.policy` has `compact`: the last record of every key is kept, by these settings.
    pub compaction: Option<CompactionConfig>,
}

/// When and how a log is compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactionConfig {
    /// `min.cleanable.dirty.ratio`: so much of the log must never have been compacted.
    pub min_cleanable_ratio: f64,
    /// `min.compaction.lag.ms`: a record stays for so long at least.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: whatever the ratio, a record does not stay for longer.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: a tombstone stays for so long after its first compaction.
    pub delete_retention_ms: i64,
}

impl Default for CompactionConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        CompactionConfig {
            min_cleanable_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}

impl Default for LogConfig {
    /// Kafka's defaults, save `durability`.
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        LogConfig {
            durability: Durability::Flushed,
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            flush_messages: None,
            flush_interval: None,
            file_delete_delay: Duration::from_secs(60),
            producer_id_expiration_ms: DAY_MS,
            compaction: None,
        }
    }
}
