//! Which records of a well-formed batch their topic does not take, told one by one (KIP-467): those
//! without a key where each key's last record is kept, and those whose time is too far from the
//! broker's (KIP-937). One of them, and the batch is refused as a whole.

use std::ops::RangeInclusive;

use ringmill_wire::StrBytes;
use ringmill_wire::batch::{NO_TIMESTAMP, TimestampType};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::produce::RecordError;
use ringmill_wire::record::Record;

use crate::config::topic::TopicConfig;

/// The most records that one response names, a hundred bytes each: a batch of a hundred bytes may
/// decompress to a million of them. What is at fault beyond them counts all the same.
pub(super) const RECORDS_TOLD_MAX: usize = 10_000;

/// What a topic asks of each record of a batch, and which have not fulfilled it.
pub(super) struct RecordFaults {
    is_compacted: bool,
    /// The times that the topic takes, if the producers' count.
    times: Option<RangeInclusive<i64>>,
    has_wrong_time: bool,
    count: usize,
    told: Vec<RecordError>,
    told_max: usize,
}

impl RecordFaults {
    /// None yet of a batch whose header states `newest_ms`; at most `told_max` are to be named.
    pub(super) fn of(config: &TopicConfig, wall_ms: i64, newest_ms: i64, told_max: usize) -> Self {
        let oldest = wall_ms.saturating_sub(config.timestamp_before_max_ms);
        let newest = wall_ms.saturating_add(config.timestamp_after_max_ms);
        let counts = config.timestamp_type == TimestampType::CreateTime;
        // Kafka writes the right one over it, where a batch of ours is stored as it was sent: a
        // segment must not be kept for a thousand years because of what a header claims.
        let is_wrong = counts && newest_ms > newest;
        Self {
            is_compacted: config.compact,
            times: counts.then_some(oldest..=newest),
            has_wrong_time: is_wrong,
            count: usize::from(is_wrong),
            told: Vec::new(),
            told_max,
        }
    }

    /// Looks at the next record.
    pub(super) fn on_record(&mut self, index: i32, record: &Record<'_>) {
        if self.is_compacted && record.key.is_none() {
            self.add(index, || {
                "Compacted topic cannot accept message without key".to_owned()
            });
            return;
        }
        let time = record.timestamp;
        let Some(times) = &self.times else { return };
        if time == NO_TIMESTAMP || times.contains(&time) {
            return;
        }
        let (oldest, newest) = (*times.start(), *times.end());
        self.has_wrong_time = true;
        self.add(index, || {
            format!(
                "Timestamp {time} of message with offset {} is out of range. The timestamp should be within [{oldest}, {newest}]",
                record.offset
            )
        });
    }

    fn add(&mut self, index: i32, message: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < self.told_max {
            self.told.push(RecordError {
                batch_index: index,
                message: Some(StrBytes::from_string(message())),
            });
        }
    }

    /// Why the batch is refused, if it is: for its code a wrong time weighs more than a missing key.
    pub(super) fn verdict(self) -> Option<(ErrorCode, String, Vec<RecordError>)> {
        if self.count == 0 {
            return None;
        }
        if self.has_wrong_time {
            let message = "One or more records have been rejected due to invalid timestamp";
            return Some((ErrorCode::InvalidTimestamp, message.to_owned(), self.told));
        }
        let message = format!(
            "One or more records have been rejected due to {} record errors in total",
            self.count
        );
        Some((ErrorCode::InvalidRecord, message, self.told))
    }
}

#[cfg(test)]
mod tests {
    use ringmill_wire::batch::{BatchView, Compression, ProducerStamp};
    use ringmill_wire::builder::{BatchBuilder, NewRecord};
    use ringmill_wire::record::check_produced_records;

    use super::*;

    /// What is said of records with these keys and times, at the time 1,000.
    fn told(
        config: &TopicConfig,
        records: &[(Option<&[u8]>, i64)],
        told_max: usize,
    ) -> Option<(ErrorCode, Vec<i32>)> {
        let mut builder = BatchBuilder::new(1 << 16);
        for &(key, timestamp) in records {
            let record = NewRecord {
                key,
                timestamp,
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        let batch = builder.seal(Compression::None, ProducerStamp::NONE);
        let view = BatchView::parse(&batch).unwrap();
        let newest = view.header().max_timestamp;
        let mut faults = RecordFaults::of(config, 1_000, newest, told_max);
        check_produced_records(&view, 1 << 16, |index, r| faults.on_record(index, r)).unwrap();
        let (code, _, told) = faults.verdict()?;
        Some((code, told.iter().map(|error| error.batch_index).collect()))
    }

    fn config() -> TopicConfig {
        TopicConfig {
            timestamp_before_max_ms: 100,
            timestamp_after_max_ms: 10,
            ..TopicConfig::default()
        }
    }

    #[test]
    fn each_record_whose_time_is_not_taken_is_named() {
        let key = Some(&b"k"[..]);
        let times = [1_000, 899, 900, -1, 1_010, 1_011].map(|time| (key, time));
        let wrong = Some((ErrorCode::InvalidTimestamp, vec![1, 5]));
        assert_eq!(told(&config(), &times, 10), wrong);
        let appended = TopicConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..config()
        };
        assert_eq!(told(&appended, &times, 10), None);
    }

    #[test]
    fn a_compacted_topic_names_the_records_without_a_key() {
        let compacted = TopicConfig {
            compact: true,
            ..config()
        };
        let mut records = [(None, 1_000), (Some(&b""[..]), 1_000), (None, 1_000)];
        let wrong = Some((ErrorCode::InvalidRecord, vec![0, 2]));
        assert_eq!(told(&compacted, &records, 10), wrong);
        assert_eq!(told(&config(), &records, 10), None);
        records[1].1 = 0;
        let wrong = Some((ErrorCode::InvalidTimestamp, vec![0, 1, 2]));
        assert_eq!(told(&compacted, &records, 10), wrong);
    }

    #[test]
    fn a_header_that_claims_a_time_to_come_is_refused_alone() {
        let code = |newest| {
            let faults = RecordFaults::of(&config(), 1_000, newest, 10);
            faults.verdict().map(|(code, _, told)| (code, told.len()))
        };
        assert_eq!(code(1_010), None);
        assert_eq!(code(1_011), Some((ErrorCode::InvalidTimestamp, 0)));
    }

    #[test]
    fn what_is_not_named_counts_all_the_same() {
        let records = [(None, 1_000), (Some(&b""[..]), 0)];
        let compacted = TopicConfig {
            compact: true,
            ..config()
        };
        let wrong = Some((ErrorCode::InvalidTimestamp, vec![0]));
        assert_eq!(told(&compacted, &records, 1), wrong);
    }
}
