//! Features that clients and nodes ask for by name beside the APIs (KIP-584): which levels of each a
//! build supports, and which level of each a cluster is at.

use std::collections::BTreeMap;
use std::fmt;

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};

use crate::StrBytes;

/// The consumer protocol (KIP-848), from level 1.
pub const GROUP_VERSION: &str = "group.version";
/// What is written into the metadata, and what nodes say to each other: at 0, as builds did that knew
/// no levels; from 1, with the levels themselves, and with what each node supports; from 2, nodes tell of
/// their damaged copies, and have them anew from others. Not Kafka's `metadata.version`: its numbers name
/// Kafka's own records, and its tools take them for that.
pub const RINGMILL_VERSION: &str = "ringmill.version";
/// From level 2, the epoch goes up with every end of a transaction, and partitions join implicitly
/// (KIP-890).
pub const TRANSACTION_VERSION: &str = "transaction.version";

/// Levels of one feature, from the lowest to the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelRange {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl LevelRange {
    /// From `min` to `max`.
    pub const fn new(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// Whether a level is among them.
    pub fn contains(self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// As Kafka writes it: `0-2`, or `1` where there is no other.
impl fmt::Display for LevelRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{}-{}", self.min, self.max),
        }
    }
}

/// What a node supports, by the features' names. What is not in it is supported at level 0 alone: not
/// at all.
pub type Supported = BTreeMap<String, LevelRange>;

/// What a cluster is at, by the features' names; level 0 is that of a feature that is not in it.
pub type Levels = BTreeMap<String, i16>;

/// What this build supports.
pub const FEATURES: &[(&str, LevelRange)] = &[
    (GROUP_VERSION, LevelRange::new(0, 1)),
    (RINGMILL_VERSION, LevelRange::new(0, 2)),
    (TRANSACTION_VERSION, LevelRange::new(0, 2)),
];

/// [`FEATURES`] as a node says it.
pub fn supported() -> Supported {
    let features = FEATURES.iter();
    features
        .map(|(name, range)| ((*name).to_owned(), *range))
        .collect()
}

/// Adds what a node supports, and what its cluster is at, to the answer to ApiVersions of a version
/// from 3. `epoch` counts the changes of the cluster's metadata.
pub(crate) fn tell(
    response: ApiVersionsResponse,
    version: i16,
    supported: &Supported,
    levels: &Levels,
    epoch: i64,
) -> ApiVersionsResponse {
    // Clients of version 3 take a lowest level of 0 for an error (KAFKA-17011).
    let shown = supported
        .iter()
        .filter(|(_, range)| version > 3 || range.min > 0);
    let shown = shown.map(|(name, range)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_min_version(range.min)
            .with_max_version(range.max)
    });
    let finalized = levels.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    response
        .with_supported_features(shown.collect())
        .with_finalized_features_epoch(epoch)
        .with_finalized_features(finalized.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_kafka_writes_them() {
        assert_eq!(LevelRange::new(0, 2).to_string(), "0-2");
        assert_eq!(LevelRange::new(1, 1).to_string(), "1");
        let range = LevelRange::new(1, 2);
        assert_eq!(
            [0, 1, 2, 3].map(|level| range.contains(level)),
            [false, true, true, false]
        );
    }
}
