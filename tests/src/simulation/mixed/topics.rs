//! The topics of a mixed load, what each promises, and what plays a bug when the node is told
//! something else than the checkers.

use std::time::Duration;

use crate::checkers::{Keeps, Topic};

/// A topic by its number in the history.
pub(in crate::simulation) const ORDERS: usize = 0;
pub(in crate::simulation) const PARCELS: usize = 1;
pub(in crate::simulation) const BILLS: usize = 2;
pub(in crate::simulation) const PLAIN: usize = 3;
pub(in crate::simulation) const EVENTS: usize = 4;
pub(in crate::simulation) const SIZED: usize = 5;
pub(in crate::simulation) const AGING: usize = 6;
pub(in crate::simulation) const TRIMMED: usize = 7;
pub(in crate::simulation) const STATE: usize = 8;
pub(in crate::simulation) const LEDGER: usize = 9;
pub(in crate::simulation) const RECENT: usize = 10;

/// Those that are compacted.
pub(in crate::simulation) const COMPACTED: [usize; 3] = [STATE, LEDGER, RECENT];

/// Every topic has as many partitions.
pub(in crate::simulation) const PARTITIONS: i32 = 3;
/// What "sized" keeps at least.
const SIZED_BYTES: u64 = 131_072;
/// What "aging" keeps at least.
const AGE: Duration = Duration::from_secs(60);
/// What "recent" keeps at least, of each key the last.
const RECENT_AGE: Duration = Duration::from_secs(150);

/// A topic and what its creator asks for.
pub(in crate::simulation) struct Spec {
    pub(in crate::simulation) name: &'static str,
    pub(in crate::simulation) keeps: Keeps,
    configs: &'static [(&'static str, &'static str)],
}

const FOREVER: &[(&str, &str)] = &[("retention.ms", "-1"), ("segment.bytes", "65536")];
const COMPACT: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "65536"),
    ("segment.ms", "20000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "60000"),
    ("delete.retention.ms", "15000"),
    ("file.delete.delay.ms", "1000"),
];

const fn spec(
    name: &'static str,
    keeps: Keeps,
    configs: &'static [(&'static str, &'static str)],
) -> Spec {
    Spec {
        name,
        keeps,
        configs,
    }
}

const COMPACT_AND_DELETE: &[(&str, &str)] = &[
    ("cleanup.policy", "compact,delete"),
    ("retention.ms", "150000"),
    ("segment.bytes", "65536"),
    ("segment.ms", "20000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "60000"),
    ("delete.retention.ms", "15000"),
    ("file.delete.delay.ms", "1000"),
];

/// By number.
pub(in crate::simulation) const TOPICS: [Spec; 11] = [
    spec("orders", Keeps::All, FOREVER),
    spec("parcels", Keeps::All, FOREVER),
    spec("bills", Keeps::All, &[("retention.ms", "-1")]),
    spec("plain", Keeps::All, FOREVER),
    spec("events", Keeps::All, FOREVER),
    spec(
        "sized",
        Keeps::Bytes(SIZED_BYTES),
        &[
            ("retention.bytes", "131072"),
            ("segment.bytes", "65536"),
            ("file.delete.delay.ms", "1000"),
        ],
    ),
    spec(
        "aging",
        Keeps::Age(AGE),
        &[("retention.ms", "60000"), ("segment.ms", "15000")],
    ),
    spec("trimmed", Keeps::Untrimmed, FOREVER),
    spec("state", Keeps::Keys, COMPACT),
    spec("ledger", Keeps::Keys, COMPACT),
    spec("recent", Keeps::YoungKeys(RECENT_AGE), COMPACT_AND_DELETE),
];

/// The topics as the history has them.
pub(in crate::simulation) fn known() -> Vec<Topic> {
    let topic = |spec: &Spec| Topic {
        name: spec.name.to_owned(),
        keeps: spec.keeps,
    };
    TOPICS.iter().map(topic).collect()
}

/// A bug, played by a node that is configured to do what the checkers take for wrong: what is
/// found is what a broken node would do, and the node needs no switch for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledges before the flush.
    Unflushed,
    /// Forgets what producers wrote last, so that what is sent once more stands twice.
    ForgetsProducers,
    /// Never ends transactions whose producers died.
    NeverTimesOut,
    /// Forgets committed offsets.
    ForgetsOffsets,
    /// Deletes what is to be kept.
    Deletes,
    /// Loses the newest values of keys.
    DropsKeys,
    /// Never compacts.
    NeverCompacts,
    /// Knows no quotas.
    NoQuotas,
    /// Never forgets transactional ids.
    KeepsTransactionalIds,
    /// Never forgets producers.
    KeepsProducers,
    /// Never forgets offsets.
    KeepsOffsets,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Unflushed,
        Self::ForgetsProducers,
        Self::NeverTimesOut,
        Self::ForgetsOffsets,
        Self::Deletes,
        Self::DropsKeys,
        Self::NeverCompacts,
        Self::NoQuotas,
        Self::KeepsTransactionalIds,
        Self::KeepsProducers,
        Self::KeepsOffsets,
    ];

    /// Settings of the node.
    pub(in crate::simulation) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ForgetsProducers => &[("producer.id.expiration.ms", "1")],
            Self::ForgetsOffsets => &[
                ("offsets.retention.minutes", "1"),
                ("offsets.retention.check.interval.ms", "5000"),
            ],
            Self::KeepsTransactionalIds => &[("transactional.id.expiration.ms", "86400000")],
            Self::KeepsProducers => &[("producer.id.expiration.ms", "86400000")],
            Self::KeepsOffsets => &[("offsets.retention.check.interval.ms", "86400000")],
            Self::NeverCompacts => &[("log.cleaner.enable", "false")],
            _ => &[],
        }
    }

    /// Settings of a topic.
    fn configs(self, number: usize) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Unflushed => &[("durability", "relaxed")],
            Self::Deletes if number == PARCELS => &[("retention.bytes", "1")],
            Self::DropsKeys if number == STATE => {
                &[("cleanup.policy", "delete"), ("retention.ms", "1000")]
            }
            _ => &[],
        }
    }
}

/// What the creator of a topic asks for.
pub(in crate::simulation) fn configs(
    number: usize,
    bug: Option<Bug>,
) -> Vec<(&'static str, &'static str)> {
    let mut configs = TOPICS[number].configs.to_vec();
    for (name, value) in bug.map_or(&[][..], |bug| bug.configs(number)) {
        configs.retain(|(other, _)| other != name);
        configs.push((name, value));
    }
    configs
}
