//! Which segments are to be cleaned, whether it is worth it, and which become one. Kafka's rules
//! (`LogCleanerManager.cleanableOffsets`, `Cleaner.groupSegmentsBySize`). Pure.

use crate::config::{CompactionConfig, LogConfig};
use crate::index;

/// A sealed segment, as far as the plan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) base_offset: i64,
    pub(crate) end_offset: i64,
    pub(crate) bytes: u64,
    /// −1 if it is not known, or there is none.
    pub(crate) max_timestamp: i64,
}

/// How much of a log was never compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cleanable {
    /// Where that begins.
    pub first_dirty: i64,
    /// How far it may be compacted now.
    pub end: i64,
    /// Bytes before it.
    pub clean_bytes: u64,
    /// Its bytes.
    pub dirty_bytes: u64,
    /// Some of it has stayed for longer than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Cleanable {
    /// What of the bytes were never compacted.
    pub fn ratio(&self) -> f64 {
        self.dirty_bytes as f64 / (self.clean_bytes + self.dirty_bytes).max(1) as f64
    }

    /// Whether compaction is due.
    pub fn is_due(&self, config: &CompactionConfig) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.ratio() > config.min_cleanable_ratio)
    }
}

/// What may be compacted of a log: whole segments up to `bound`, and nothing from the first on that
/// is younger than `min.compaction.lag.ms`. `segments` are all sealed ones, in their order;
/// `oldest_dirty` is the timestamp of the first dirty record, if it is known.
pub(crate) fn cleanable(
    segments: &[Sealed],
    (first_dirty, oldest_dirty): (i64, Option<i64>),
    bound: i64,
    config: &CompactionConfig,
    now_ms: i64,
) -> Cleanable {
    let young = now_ms.saturating_sub(config.min_compaction_lag_ms);
    let is_young = |s: &Sealed| config.min_compaction_lag_ms > 0 && s.max_timestamp > young;
    let is_dirty = |s: &Sealed| s.end_offset > first_dirty;
    let stops = |s: &Sealed| s.end_offset > bound || is_dirty(s) && is_young(s);
    let mut found = Cleanable {
        first_dirty,
        end: first_dirty,
        clean_bytes: 0,
        dirty_bytes: 0,
        is_overdue: oldest_dirty
            .is_some_and(|oldest| now_ms.saturating_sub(oldest) > config.max_compaction_lag_ms),
    };
    for segment in segments.iter().take_while(|s| !stops(s)) {
        if !is_dirty(segment) {
            found.clean_bytes += segment.bytes;
            continue;
        }
        found.dirty_bytes += segment.bytes;
        found.end = segment.end_offset;
    }
    found
}

/// Which segments become one: as many neighbours as fit into one segment, by their sizes before.
/// Returns how many segments each group has.
pub(crate) fn groups(segments: &[Sealed], config: &LogConfig) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |segment: &&Sealed| {
            bytes += segment.bytes;
            let offsets = segment.end_offset - first.base_offset;
            let shift = index::shift_for(bytes, offsets as u64);
            let cells = index::cells_until(first.base_offset, shift, segment.end_offset);
            bytes <= config.segment_bytes.into()
                && offsets <= i32::MAX.into()
                && index::cell_position(cells) <= index::INDEX_BYTES_MAX
        };
        let count = rest.iter().take_while(fits).count().max(1);
        groups.push(count);
        rest = &rest[count..];
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segments(sizes: &[(u64, i64)]) -> Vec<Sealed> {
        let mut next = 0;
        let made = sizes.iter().map(|&(bytes, max_timestamp)| {
            let base_offset = next;
            next += 10;
            Sealed {
                base_offset,
                end_offset: next,
                bytes,
                max_timestamp,
            }
        });
        made.collect()
    }

    #[test]
    fn the_ratio_is_of_what_may_be_cleaned() {
        let all = segments(&[(100, 1), (100, 2), (200, 3), (500, 900)]);
        let mut config = CompactionConfig::default();
        let found = cleanable(&all, (20, None), 35, &config, 1_000);
        assert_eq!((found.clean_bytes, found.dirty_bytes), (200, 200));
        assert_eq!((found.end, found.is_overdue), (30, false));
        assert!(!found.is_due(&config), "half is not more than half");
        config.min_cleanable_ratio = 0.4;
        assert!(found.is_due(&config));
        config.min_cleanable_ratio = 1.0;
        config.max_compaction_lag_ms = 996;
        let found = cleanable(&all, (20, Some(4)), 40, &config, 1_000);
        assert!(!found.is_overdue);
        let found = cleanable(&all, (20, Some(3)), 40, &config, 1_000);
        assert!(found.is_overdue && found.is_due(&config));
        config.min_compaction_lag_ms = 500;
        assert_eq!(cleanable(&all, (0, None), 40, &config, 1_000).end, 30);
        assert_eq!(
            cleanable(&all, (40, None), 40, &config, 1_000).dirty_bytes,
            0
        );
    }

    proptest! {
        #[test]
        fn groups_fit_into_segments_and_leave_nothing_out(
            sizes in prop::collection::vec((0u64..400_000, Just(1i64)), 0..40),
        ) {
            let all = segments(&sizes);
            let config = LogConfig { segment_bytes: 300_000, ..LogConfig::default() };
            let groups = groups(&all, &config);
            prop_assert_eq!(groups.iter().sum::<usize>(), all.len());
            let mut rest = &all[..];
            for count in groups {
                let (group, after) = rest.split_at(count);
                let bytes: u64 = group.iter().map(|s| s.bytes).sum();
                prop_assert!(count == 1 || bytes <= 300_000);
                if let Some(next) = after.first() {
                    prop_assert!(bytes + next.bytes > 300_000);
                }
                rest = after;
            }
        }
    }
}
