//! Builds record batches: append records, then seal them into bytes with header and CRC.
//!
//! This is the producer's hot path: one pass over the data, one copy of key and value, no
//! allocation per record. A builder is reused after [`BatchBuilder::seal`]. It knows no clock: the
//! caller brings the timestamps.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::batch::{
    self, BatchHeader, Compression, HEADER_LEN, LENGTH_OVERHEAD, NO_LEADER_EPOCH, ProducerStamp,
};
use crate::compression::compress;
use crate::primitive::{put_uvarint, varint_len, zigzag, zigzag64};
use crate::record::Header;

/// A record to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// May be null.
    pub key: Option<&'a [u8]>,
    /// May be null: a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In the application's order.
    pub headers: &'a [Header<'a>],
}

/// The record does not fit into the batch; the batch is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record of {needed} bytes does not fit, {left} bytes are left in the batch")]
pub struct BatchFull {
    /// Bytes the record would take.
    pub needed: usize,
    /// Bytes that are left under the limit.
    pub left: usize,
}

/// Most bytes of a record before its key: length, attributes, timestamp and offset deltas, key
/// length.
const RECORD_HEAD_MAX: usize = 5 + 1 + 10 + 5 + 5;

/// Collects records for one batch of one partition.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Room for the header, then records, uncompressed.
    buffer: BytesMut,
    limit: usize,
    base_timestamp: i64,
    max_timestamp: i64,
    records_count: i32,
}

impl BatchBuilder {
    /// A builder whose batches take at most `limit` bytes before compression, header included.
    ///
    /// # Panics
    /// If `limit` is below a header's size or above `i32::MAX`.
    pub fn new(limit: usize) -> Self {
        assert!(
            (HEADER_LEN..=i32::MAX as usize).contains(&limit),
            "batch limit {limit}"
        );
        let mut builder = Self {
            buffer: BytesMut::new(),
            limit,
            base_timestamp: 0,
            max_timestamp: 0,
            records_count: 0,
        };
        builder.restart();
        builder
    }

    fn restart(&mut self) {
        // one allocation for a batch of usual size, or none if the sealed ones were dropped
        self.buffer
            .reserve(HEADER_LEN.max(self.limit.min(16 << 10)));
        self.buffer.extend_from_slice(&[0; HEADER_LEN]);
        self.records_count = 0;
    }

    /// Records appended so far.
    pub fn records_count(&self) -> i32 {
        self.records_count
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.records_count == 0
    }

    /// The batch's bytes so far, header included, before compression.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that `record` would take if appended next.
    pub fn size_of(&self, record: &NewRecord<'_>) -> usize {
        let body = self.body_len(record);
        varint_len(body as i64) + body
    }

    fn timestamp_delta(&self, timestamp: i64) -> i64 {
        if self.is_empty() {
            0
        } else {
            timestamp.wrapping_sub(self.base_timestamp)
        }
    }

    /// A record's bytes after its length.
    #[inline]
    fn body_len(&self, record: &NewRecord<'_>) -> usize {
        let slice_len =
            |slice: Option<&[u8]>| slice.map_or(1, |s| varint_len(s.len() as i64) + s.len());
        let mut len = 1
            + varint_len(self.timestamp_delta(record.timestamp))
            + varint_len(i64::from(self.records_count))
            + slice_len(record.key)
            + slice_len(record.value)
            + varint_len(record.headers.len() as i64);
        for header in record.headers {
            len += slice_len(Some(header.key)) + slice_len(header.value);
        }
        len
    }

    /// Appends a record and returns its offset less the batch's base offset.
    #[inline]
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<i32, BatchFull> {
        let body = self.body_len(record);
        let needed = varint_len(body as i64) + body;
        let left = self.limit - self.buffer.len();
        if needed > left {
            return Err(BatchFull { needed, left });
        }
        let timestamp_delta = self.timestamp_delta(record.timestamp);
        if self.is_empty() {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let delta = self.records_count;
        self.records_count += 1;

        let mut head = Head::default();
        head.uvarint(u64::from(zigzag(body as i32)));
        head.byte(0);
        head.uvarint(zigzag64(timestamp_delta));
        head.uvarint(u64::from(zigzag(delta)));
        head.length(record.key);
        self.buffer.reserve(needed);
        self.buffer.extend_from_slice(head.bytes());
        self.buffer
            .extend_from_slice(record.key.unwrap_or_default());
        self.put_slice(record.value);
        put_uvarint(&mut self.buffer, zigzag64(record.headers.len() as i64));
        for header in record.headers {
            self.put_slice(Some(header.key));
            self.put_slice(header.value);
        }
        Ok(delta)
    }

    /// Ends the batch: compresses the records, writes header and CRC, and starts the next batch.
    ///
    /// # Panics
    /// If nothing was appended: Kafka knows no empty batch from a producer.
    pub fn seal(&mut self, codec: Compression, producer: ProducerStamp) -> Bytes {
        assert!(!self.is_empty(), "a batch has records");
        let mut sealed = self.buffer.split();
        if codec != Compression::None {
            let mut packed = BytesMut::with_capacity(HEADER_LEN + sealed.len() / 2);
            packed.extend_from_slice(&[0; HEADER_LEN]);
            compress(codec, &sealed[HEADER_LEN..], &mut packed);
            sealed = packed;
        }
        let header = BatchHeader {
            base_offset: 0,
            batch_length: (sealed.len() - LENGTH_OVERHEAD) as i32,
            partition_leader_epoch: NO_LEADER_EPOCH,
            crc: 0,
            attributes: codec.id(),
            last_offset_delta: self.records_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            base_sequence: producer.base_sequence,
            records_count: self.records_count,
        };
        header.write(&mut sealed);
        batch::set_producer(&mut sealed, producer);
        self.restart();
        sealed.freeze()
    }

    #[inline]
    fn put_slice(&mut self, slice: Option<&[u8]>) {
        put_uvarint(
            &mut self.buffer,
            zigzag64(slice.map_or(-1, |slice| slice.len() as i64)),
        );
        self.buffer.extend_from_slice(slice.unwrap_or_default());
    }
}

/// The start of a record, put together on the stack.
#[derive(Default)]
struct Head {
    bytes: [u8; RECORD_HEAD_MAX],
    len: usize,
}

impl Head {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    #[inline]
    fn length(&mut self, slice: Option<&[u8]>) {
        self.uvarint(zigzag64(slice.map_or(-1, |slice| slice.len() as i64)));
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchView, produced_batch};

    fn record(value: &[u8]) -> NewRecord<'_> {
        NewRecord {
            value: Some(value),
            ..NewRecord::default()
        }
    }

    #[test]
    fn a_full_batch_refuses_and_stays_as_it_was() {
        let mut builder = BatchBuilder::new(200);
        builder.append(&record(&[1; 60])).unwrap();
        let size = builder.size();
        let full = builder.append(&record(&[2; 80])).unwrap_err();
        assert_eq!(full.left, 200 - size);
        assert!(full.needed > full.left);
        assert_eq!((builder.size(), builder.records_count()), (size, 1));
        // filled to the last byte
        let left = 200 - size;
        builder.append(&record(&vec![3; left - 8])).unwrap();
        assert_eq!(builder.size(), 200);
        let batch = builder.seal(Compression::None, ProducerStamp::NONE);
        assert_eq!(produced_batch(&batch, 200).unwrap().records_count, 2);
    }

    #[test]
    fn a_sealed_builder_starts_afresh() {
        let mut builder = BatchBuilder::new(1 << 16);
        for timestamp in [50, 10] {
            builder
                .append(&NewRecord {
                    timestamp,
                    ..record(b"v")
                })
                .unwrap();
            let batch = builder.seal(Compression::None, ProducerStamp::NONE);
            let header = *BatchView::parse(&batch).unwrap().header();
            assert_eq!(header.records_count, 1);
            assert_eq!(
                (header.base_timestamp, header.max_timestamp),
                (timestamp, timestamp)
            );
        }
    }

    #[test]
    fn the_max_timestamp_is_not_the_last() {
        let mut builder = BatchBuilder::new(1 << 16);
        for timestamp in [20, 90, 10] {
            builder
                .append(&NewRecord {
                    timestamp,
                    ..record(b"v")
                })
                .unwrap();
        }
        let batch = builder.seal(Compression::None, ProducerStamp::NONE);
        let header = *BatchView::parse(&batch).unwrap().header();
        assert_eq!((header.base_timestamp, header.max_timestamp), (20, 90));
    }

    #[test]
    #[should_panic(expected = "a batch has records")]
    fn an_empty_batch_cannot_be_sealed() {
        BatchBuilder::new(1 << 16).seal(Compression::None, ProducerStamp::NONE);
    }
}
