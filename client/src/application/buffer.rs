//! Records that came with one fetch and are handed to the application one by one.
//!
//! Pure. The single-threaded consumer counts a fetch as processed once it gave it away; what is
//! still in here is not, so commits and positions ask here first.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::record::ConsumerRecord;
use crate::assignor::TopicPartition;
use crate::consumer::{Fetched, PollError, RecordsError};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    partition: Option<TopicPartition>,
    records: VecDeque<ConsumerRecord>,
    /// What is wrong with the records behind those.
    flaw: Option<PollError>,
}

impl Buffer {
    /// Takes a fetch; what was there before is to be empty.
    pub(crate) fn fill(&mut self, fetched: &Fetched) {
        self.partition = Some(TopicPartition::new(fetched.topic(), fetched.partition()));
        if let Err(error) = decode(fetched, &mut self.records) {
            self.flaw = Some(PollError::Records(error.to_string()));
        }
    }

    /// The next record, if there is one.
    pub(crate) fn next(&mut self) -> Option<Result<ConsumerRecord, PollError>> {
        match self.records.pop_front() {
            Some(record) => Some(Ok(record)),
            None => self.flaw.take().map(Err),
        }
    }

    /// An error that is to be told later.
    pub(crate) fn put_back(&mut self, flaw: PollError) {
        self.flaw = Some(flaw);
    }

    /// The offset of the next record that was not handed over, by its partition.
    pub(crate) fn held(&self) -> BTreeMap<TopicPartition, i64> {
        let next = self.records.front().map(|record| record.offset);
        self.partition.iter().cloned().zip(next).collect()
    }

    /// Drops what is held of a partition for which `is_gone` holds, and tells where it stood.
    pub(crate) fn drop_if(
        &mut self,
        is_gone: impl FnOnce(&TopicPartition) -> bool,
    ) -> Option<(TopicPartition, i64)> {
        if !self.partition.as_ref().is_some_and(is_gone) {
            return None;
        }
        let next = self.records.front().map(|record| record.offset);
        self.records.clear();
        self.flaw = None;
        self.partition.take().zip(next)
    }
}

fn decode(fetched: &Fetched, into: &mut VecDeque<ConsumerRecord>) -> Result<(), RecordsError> {
    let topic = fetched.topic_name();
    for batch in fetched.batches() {
        let batch = batch?;
        for record in batch.records() {
            let record = record.map_err(|error| RecordsError {
                topic: topic.clone(),
                partition: fetched.partition(),
                offset: batch.header().base_offset,
                error,
            })?;
            let bytes = |part: &[u8]| batch.slice(part);
            let headers = record.headers.iter().map(|header| {
                let name = String::from_utf8_lossy(header.key).into_owned();
                (name, header.value.map(bytes))
            });
            into.push_back(ConsumerRecord {
                topic: topic.clone(),
                partition: fetched.partition(),
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(bytes),
                value: record.value.map(bytes),
                headers: headers.collect::<Vec<(String, Option<Bytes>)>>(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(offsets: &[i64]) -> Buffer {
        let record = |offset: &i64| ConsumerRecord {
            topic: "t".into(),
            partition: 2,
            offset: *offset,
            timestamp: 0,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        Buffer {
            partition: Some(TopicPartition::new("t", 2)),
            records: offsets.iter().map(record).collect(),
            flaw: None,
        }
    }

    #[test]
    fn what_was_not_handed_over_is_not_processed() {
        let mut buffer = buffer(&[5, 8]);
        assert_eq!(buffer.held(), [(TopicPartition::new("t", 2), 5)].into());
        assert_eq!(buffer.next().unwrap().unwrap().offset, 5);
        assert_eq!(buffer.held(), [(TopicPartition::new("t", 2), 8)].into());
        assert_eq!(buffer.next().unwrap().unwrap().offset, 8);
        assert_eq!(buffer.held(), BTreeMap::new());
        assert_eq!(buffer.next(), None);
    }

    #[test]
    fn a_flaw_comes_once_behind_the_records_before_it() {
        let mut buffer = buffer(&[5]);
        buffer.flaw = Some(PollError::Records("bad".into()));
        assert!(buffer.next().unwrap().is_ok());
        assert!(buffer.next().unwrap().is_err());
        assert_eq!(buffer.next(), None);
    }

    #[test]
    fn another_place_drops_what_is_held_of_that_partition_alone() {
        let mut buffer = buffer(&[5, 8]);
        assert_eq!(buffer.drop_if(|partition| partition.partition == 1), None);
        let dropped = buffer.drop_if(|partition| partition.partition == 2);
        assert_eq!(dropped, Some((TopicPartition::new("t", 2), 5)));
        assert_eq!(buffer.next(), None);
    }
}
