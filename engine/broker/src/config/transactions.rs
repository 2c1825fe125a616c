//! The broker's settings of transactions, by Kafka's names (`TransactionLogConfig.java`,
//! `TransactionStateManagerConfig.java`).

use super::broker_keys::{INT_MAX, fixed};
use super::{Key, Kind, Reader};

/// The keys, for the broker's table.
pub(super) const KEYS: &[Key] = &[
    fixed(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Kind::Int(1, INT_MAX),
        "10000",
        "How often transactions that take too long are looked for, to abort them, in milliseconds.",
    ),
    fixed(
        "transaction.max.timeout.ms",
        Kind::Int(1, INT_MAX),
        "900000",
        "The longest time-out that a producer may ask for its transactions, in milliseconds.",
    ),
    fixed(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Kind::Int(1, INT_MAX),
        "3600000",
        "How often transactional ids that nobody uses any more are looked for, in milliseconds.",
    ),
    fixed(
        "transaction.state.log.min.isr",
        Kind::Int(1, i32::MAX as i64),
        "2",
        "How many in-sync replicas a write of __transaction_state needs; all of them where it has fewer.",
    ),
    fixed(
        "transaction.state.log.num.partitions",
        Kind::Int(1, 1000),
        "16",
        "How many partitions __transaction_state is created with. Kafka has 50; fewer let more transactions share a flush, and 16 still spread over 16 cores.",
    ),
    fixed(
        "transaction.state.log.replication.factor",
        Kind::Int(-1, i16::MAX as i64),
        "-1",
        "How many replicas __transaction_state gets; -1 for three, or as many as there are nodes for when it is created.",
    ),
    fixed(
        "transaction.state.log.segment.bytes",
        // one record names all partitions of a transaction, and has to fit
        Kind::Int(8_388_608, INT_MAX),
        "16777216",
        "The size of a segment of __transaction_state; small, so that old states leave the disk soon.",
    ),
    fixed(
        "transactional.id.expiration.ms",
        Kind::Int(1, INT_MAX),
        "604800000",
        "A transactional id that is not used for so long is forgotten, in milliseconds.",
    ),
    fixed(
        "transactional.ids.max",
        Kind::Int(1, INT_MAX),
        "100000",
        "How many transactional ids the broker keeps.",
    ),
];

/// The limits of transactions; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`.
    pub id_expiration_ms: i64,
    /// `transactional.ids.max`.
    pub max_ids: usize,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_check_ms: u64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_check_ms: u64,
    /// `transaction.state.log.num.partitions`.
    pub log_partitions: i32,
    /// `transaction.state.log.replication.factor`; -1 for what the number of nodes allows.
    pub log_replication: i32,
    /// `transaction.state.log.min.isr`.
    pub log_min_isr: u32,
    /// `transaction.state.log.segment.bytes`.
    pub log_segment_bytes: u32,
}

impl TransactionConfig {
    pub(super) fn resolve(read: &Reader<'_>) -> Self {
        Self {
            max_timeout_ms: read.i32("transaction.max.timeout.ms"),
            id_expiration_ms: read.long("transactional.id.expiration.ms"),
            max_ids: read.usize("transactional.ids.max"),
            abort_check_ms: read.u64("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            expiration_check_ms: read
                .u64("transaction.remove.expired.transaction.cleanup.interval.ms"),
            log_partitions: read.i32("transaction.state.log.num.partitions"),
            log_replication: read.i32("transaction.state.log.replication.factor"),
            log_min_isr: read.u32("transaction.state.log.min.isr"),
            log_segment_bytes: read.u32("transaction.state.log.segment.bytes"),
        }
    }
}

impl Default for TransactionConfig {
    fn default() -> Self {
        super::BrokerConfig::default().transactions
    }
}
