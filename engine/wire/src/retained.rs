//! What compaction leaves of a batch (Kafka's `MemoryRecords.filterTo`): some of its records under
//! its own offsets, or none.
//!
//! Base offset, last offset delta, producer, epochs and sequence stay those of the original, so that
//! offsets and a producer's sequence go on as if nothing had been taken out; the records are
//! compressed with the original's codec again. A batch with a delete horizon (KIP-534) has it in
//! place of the base timestamp, and attribute bit 6 set.

use bytes::{Bytes, BytesMut};

use crate::assign::seal_crc;
use crate::batch::{
    BatchHeader, COMPRESSION_MASK, Compression, DELETE_HORIZON_BIT, HEADER_LEN, LENGTH_OVERHEAD,
    NO_TIMESTAMP, TimestampType,
};
use crate::compression::compress;
use crate::primitive::{put_uvarint, varint_len, zigzag64};
use crate::record::Record;

/// A batch that is put together from records of another, in their order.
#[derive(Debug)]
pub struct RetainedBatch {
    header: BatchHeader,
    codec: Compression,
    records: BytesMut,
}

impl RetainedBatch {
    /// From `original`, whose codec is `codec`. With a `delete_horizon` in milliseconds, the new
    /// batch has that one; otherwise the original's, if it has any.
    pub fn new(original: &BatchHeader, codec: Compression, delete_horizon: Option<i64>) -> Self {
        let mut header = BatchHeader {
            records_count: 0,
            ..*original
        };
        if let Some(horizon) = delete_horizon {
            header.attributes |= DELETE_HORIZON_BIT;
            header.base_timestamp = horizon;
        }
        Self {
            header,
            codec,
            records: BytesMut::new(),
        }
    }

    /// Takes over a record of the original.
    pub fn append(&mut self, record: &Record<'_>) {
        let header = &mut self.header;
        if header.records_count == 0 && !header.has_delete_horizon() {
            header.base_timestamp = record.timestamp;
        }
        if header.timestamp_type() == TimestampType::CreateTime {
            let first = header.records_count == 0;
            header.max_timestamp = match first {
                true => record.timestamp,
                false => header.max_timestamp.max(record.timestamp),
            };
        }
        header.records_count += 1;
        let timestamp_delta = record.timestamp.wrapping_sub(header.base_timestamp);
        let offset_delta = record.offset.wrapping_sub(header.base_offset);
        let slice_len =
            |slice: Option<&[u8]>| slice.map_or(1, |s| varint_len(s.len() as i64) + s.len());
        let (headers, count) = record.headers.encoded();
        let body = 1
            + varint_len(timestamp_delta)
            + varint_len(offset_delta)
            + slice_len(record.key)
            + slice_len(record.value)
            + varint_len(count as i64)
            + headers.len();
        let out = &mut self.records;
        put_uvarint(out, zigzag64(body as i64));
        out.extend_from_slice(&[0]);
        put_uvarint(out, zigzag64(timestamp_delta));
        put_uvarint(out, zigzag64(offset_delta));
        for slice in [record.key, record.value] {
            put_uvarint(out, zigzag64(slice.map_or(-1, |slice| slice.len() as i64)));
            out.extend_from_slice(slice.unwrap_or_default());
        }
        put_uvarint(out, zigzag64(count as i64));
        out.extend_from_slice(headers);
    }

    /// The batch.
    pub fn seal(self) -> Bytes {
        let mut batch = BytesMut::with_capacity(HEADER_LEN + self.records.len());
        batch.extend_from_slice(&[0; HEADER_LEN]);
        compress(self.codec, &self.records, &mut batch);
        finish(self.header, batch)
    }
}

/// What is left of a batch without records: its header, which tells a producer's last sequence
/// number (`DefaultRecordBatch.writeEmptyHeader`).
pub fn empty_batch(original: &BatchHeader) -> Bytes {
    let header = BatchHeader {
        attributes: original.attributes & !COMPRESSION_MASK & !DELETE_HORIZON_BIT,
        base_timestamp: NO_TIMESTAMP,
        records_count: 0,
        ..*original
    };
    finish(header, BytesMut::zeroed(HEADER_LEN))
}

fn finish(header: BatchHeader, mut batch: BytesMut) -> Bytes {
    let header = BatchHeader {
        batch_length: (batch.len() - LENGTH_OVERHEAD) as i32,
        ..header
    };
    header.write(&mut batch);
    seal_crc(&mut batch);
    batch.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchView, ProducerStamp, set_base_offset, set_leader_epoch};
    use crate::builder::{BatchBuilder, NewRecord};
    use crate::record::{Header, Records, decoded};
    use proptest::prelude::*;

    const STAMP: ProducerStamp = ProducerStamp {
        producer_id: 77,
        producer_epoch: 3,
        base_sequence: 100,
        transactional: true,
    };

    fn original(timestamps: &[i64], codec: Compression) -> BytesMut {
        let mut builder = BatchBuilder::new(1 << 20);
        let headers = [Header {
            key: b"h",
            value: Some(b"v"),
        }];
        for (n, timestamp) in timestamps.iter().enumerate() {
            let record = NewRecord {
                timestamp: *timestamp,
                key: Some(&[n as u8; 3]),
                value: (n % 3 != 0).then_some(&b"some value"[..]),
                headers: &headers[..n % 2],
            };
            builder.append(&record).unwrap();
        }
        let mut batch = BytesMut::from(&builder.seal(codec, STAMP)[..]);
        set_base_offset(&mut batch, 1_000);
        set_leader_epoch(&mut batch, 9);
        batch
    }

    proptest! {
        #[test]
        fn what_is_retained_is_as_it_was_but_for_what_is_gone(
            timestamps in prop::collection::vec(0i64..1_000_000, 1..20),
            keep: u32,
            codec in prop::sample::select(Compression::ALL.to_vec()),
            horizon in prop::option::of(0i64..1 << 50),
        ) {
            let bytes = original(&timestamps, codec);
            let view = BatchView::parse(&bytes).unwrap();
            let records = decoded(&view, 1 << 20).unwrap();
            let all: Vec<_> = Records::new(view.header(), &records).map(Result::unwrap).collect();
            let kept = || all.iter().enumerate().filter(|(n, _)| keep >> n & 1 == 1).map(|(_, r)| r);
            prop_assume!(kept().count() > 0);
            let mut retained = RetainedBatch::new(view.header(), codec, horizon);
            kept().for_each(|record| retained.append(record));
            let new = retained.seal();
            let new = BatchView::parse(&new).unwrap();
            new.check_crc().unwrap();
            let (old, header) = (view.header(), new.header());
            prop_assert_eq!(header.records_count as usize, kept().count());
            prop_assert_eq!((header.base_offset, header.last_offset()), (old.base_offset, old.last_offset()));
            prop_assert_eq!(header.partition_leader_epoch, 9);
            prop_assert_eq!((header.producer_id, header.producer_epoch), (77, 3));
            prop_assert_eq!((header.base_sequence, header.last_sequence()), (100, old.last_sequence()));
            prop_assert!(header.is_transactional());
            prop_assert_eq!(header.compression().unwrap(), codec);
            prop_assert_eq!(header.max_timestamp, kept().map(|r| r.timestamp).max().unwrap());
            prop_assert_eq!(header.has_delete_horizon(), horizon.is_some());
            if let Some(horizon) = horizon {
                prop_assert_eq!(header.base_timestamp, horizon);
            }
            let records = decoded(&new, 1 << 20).unwrap();
            let found: Vec<_> = Records::new(header, &records).map(Result::unwrap).collect();
            prop_assert_eq!(found.len(), kept().count());
            for (found, kept) in found.iter().zip(kept()) {
                prop_assert_eq!((found.offset, found.timestamp), (kept.offset, kept.timestamp));
                prop_assert_eq!((found.key, found.value), (kept.key, kept.value));
                prop_assert!(found.headers.iter().eq(kept.headers.iter()));
            }
        }
    }

    #[test]
    fn an_empty_batch_keeps_its_place_and_its_sequence() {
        let bytes = original(&[5, 9], Compression::Zstd);
        let old = *BatchView::parse(&bytes).unwrap().header();
        let empty = empty_batch(&old);
        let view = BatchView::parse(&empty).unwrap();
        view.check_crc().unwrap();
        let header = view.header();
        assert_eq!((empty.len(), header.records_count), (HEADER_LEN, 0));
        assert_eq!((header.base_offset, header.last_offset()), (1_000, 1_001));
        assert_eq!((header.base_sequence, header.last_sequence()), (100, 101));
        assert_eq!((header.base_timestamp, header.max_timestamp), (-1, 9));
        assert_eq!(header.compression(), Ok(Compression::None));
        assert_eq!(Records::new(header, &[]).count(), 0);
    }
}
