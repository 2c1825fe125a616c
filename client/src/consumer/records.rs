//! Fetched records, decoded when they are looked at: slices of the bytes that came, unless they
//! were compressed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ringmill_wire::batch::{BatchError, BatchHeader, BatchView, Batches, Compression};
use ringmill_wire::compression::decompress;
use ringmill_wire::fetch::AbortedTransaction;
use ringmill_wire::marker::EndTxnMarker;
use ringmill_wire::record::{Record, RecordError, Records};
use thiserror::Error;

/// Records that cannot be read.
#[derive(Debug, Error)]
#[error("{topic}-{partition}, in the batch at offset {offset}: {error}")]
pub struct RecordsError {
    /// Their topic.
    pub topic: Arc<str>,
    /// Their partition.
    pub partition: i32,
    /// The first offset of the batch at fault, or the wanted one if it has none.
    pub offset: i64,
    /// What is wrong.
    pub error: RecordError,
}

/// How fetched batches are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) check_crc: bool,
    /// Most bytes that a compressed batch may grow to.
    pub(crate) max_batch_bytes: usize,
}

/// Some records of one partition, one after the other, as one fetch brought them.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Whole batches.
    pub(crate) bytes: Bytes,
    /// The first offset wanted: the first batch may begin before it.
    pub(crate) from: i64,
    pub(crate) next_offset: i64,
    pub(crate) high_watermark: i64,
    /// Under read_committed: whose records are left out, from where on, by that place.
    pub(crate) aborted: Arc<[AbortedTransaction]>,
    pub(crate) reading: Reading,
}

impl Fetched {
    /// Their topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The same, to be shared.
    pub fn topic_name(&self) -> Arc<str> {
        self.topic.clone()
    }

    /// Their partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The offset that follows them.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The end of what consumers may see, when these were fetched.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Their bytes as fetched, headers of batches included.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The batches, each checked and decompressed when the iterator comes to it. Control batches,
    /// which hold no records of applications, are left out, and under read_committed those of
    /// aborted transactions.
    pub fn batches(&self) -> impl Iterator<Item = Result<FetchedBatch, RecordsError>> + '_ {
        let mut batches = Batches::new(&self.bytes);
        let mut aborted = Aborted::new(&self.aborted);
        std::iter::from_fn(move || {
            loop {
                let view = match batches.next()? {
                    Ok((_, view)) => view,
                    Err(error) => return Some(Err(self.wrong(self.from, error.error.into()))),
                };
                if !aborted.hides(&view) && !view.header().is_control() {
                    let offset = view.header().base_offset;
                    return Some(self.open(view).map_err(|error| self.wrong(offset, error)));
                }
            }
        })
    }

    /// Calls `visit` with each record; returns how many there were.
    ///
    /// # Errors
    /// At the first record that cannot be read; those before it were visited.
    pub fn for_each(&self, mut visit: impl FnMut(&Record<'_>)) -> Result<u64, RecordsError> {
        let mut count = 0;
        for batch in self.batches() {
            let batch = batch?;
            for record in batch.records() {
                let record =
                    record.map_err(|error| self.wrong(batch.header().base_offset, error))?;
                visit(&record);
                count += 1;
            }
        }
        Ok(count)
    }

    fn open(&self, view: BatchView<'_>) -> Result<FetchedBatch, RecordError> {
        if self.reading.check_crc {
            view.check_crc()?;
        }
        let header = *view.header();
        let content = match header.compression()? {
            Compression::None => self.bytes.slice_ref(view.records_bytes()),
            codec => {
                let limit = self.reading.max_batch_bytes;
                decompress(codec, view.records_bytes(), limit)?.into()
            }
        };
        Ok(FetchedBatch {
            header,
            content,
            from: self.from,
        })
    }

    fn wrong(&self, offset: i64, error: RecordError) -> RecordsError {
        RecordsError {
            topic: self.topic.clone(),
            partition: self.partition,
            offset,
            error,
        }
    }
}

/// Which producers' transactional records are to be left out at the moment, as Java's
/// `CompletedFetch` keeps it: a producer is in from its aborted transaction's first offset to the
/// abort's marker.
struct Aborted<'a> {
    to_come: &'a [AbortedTransaction],
    producers: BTreeSet<i64>,
}

impl<'a> Aborted<'a> {
    fn new(by_first_offset: &'a [AbortedTransaction]) -> Self {
        Self {
            to_come: by_first_offset,
            producers: BTreeSet::new(),
        }
    }

    /// Whether a batch, the next in the log, is of an aborted transaction.
    fn hides(&mut self, view: &BatchView<'_>) -> bool {
        let header = view.header();
        if !header.has_producer_id() {
            return false;
        }
        while let Some((next, rest)) = self.to_come.split_first()
            && next.first_offset < header.next_offset()
        {
            self.producers.insert(next.producer_id);
            self.to_come = rest;
        }
        if header.is_control() {
            let marker = EndTxnMarker::parse(header, view.records_bytes());
            if marker.is_some_and(|marker| !marker.committed) {
                self.producers.remove(&header.producer_id);
            }
            return false;
        }
        header.is_transactional() && self.producers.contains(&header.producer_id)
    }
}

/// One batch with its records decompressed.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    header: BatchHeader,
    content: Bytes,
    from: i64,
}

impl FetchedBatch {
    /// As stored.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// A part of the batch's content, shared in place of copied.
    ///
    /// # Panics
    /// If it is no part of it.
    pub fn slice(&self, part: &[u8]) -> Bytes {
        self.content.slice_ref(part)
    }

    /// The records from the wanted offset on.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
        let from = self.from;
        Records::new(&self.header, &self.content)
            .skip_while(move |record| record.as_ref().is_ok_and(|record| record.offset < from))
    }
}

/// Where the whole batches at the front of `bytes` end, and the offset that follows them. A last
/// batch that is cut off is left out: brokers send as many bytes as they were asked for.
pub(crate) fn whole_batches(bytes: &[u8]) -> Result<Option<(usize, i64)>, BatchError> {
    let mut batches = Batches::new(bytes);
    let mut next_offset = None;
    loop {
        match batches.next() {
            Some(Ok((_, view))) => next_offset = Some(view.header().next_offset()),
            Some(Err(error)) if !matches!(error.error, BatchError::Short { .. }) => {
                return Err(error.error);
            }
            Some(Err(_)) | None => break,
        }
    }
    Ok(next_offset.map(|next| (batches.position(), next)))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use ringmill_wire::batch::{ProducerStamp, set_base_offset};
    use ringmill_wire::builder::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(base_offset: i64, values: &[&str], codec: Compression) -> BytesMut {
        let mut builder = BatchBuilder::new(1 << 16);
        for value in values {
            let record = NewRecord {
                value: Some(value.as_bytes()),
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        let sealed = builder.seal(codec, ProducerStamp::NONE);
        let mut batch = BytesMut::from(&sealed[..]);
        set_base_offset(&mut batch, base_offset);
        batch
    }

    fn fetched(bytes: BytesMut, from: i64) -> Fetched {
        Fetched {
            topic: "t".into(),
            partition: 4,
            bytes: bytes.freeze(),
            from,
            next_offset: 0,
            high_watermark: 0,
            aborted: Arc::default(),
            reading: Reading {
                check_crc: true,
                max_batch_bytes: 1000,
            },
        }
    }

    fn values(fetched: &Fetched) -> Result<Vec<(i64, String)>, RecordsError> {
        let mut seen = Vec::new();
        fetched.for_each(|record| {
            let value = String::from_utf8_lossy(record.value.unwrap()).into_owned();
            seen.push((record.offset, value));
        })?;
        Ok(seen)
    }

    #[test]
    fn records_of_all_codecs_come_from_the_wanted_offset_on() {
        for codec in Compression::ALL {
            let mut bytes = batch(10, &["a", "b", "c"], codec);
            bytes.extend_from_slice(&batch(13, &["d"], Compression::None));
            let expected = [(12, "c".to_owned()), (13, "d".to_owned())];
            assert_eq!(values(&fetched(bytes, 12)).unwrap(), expected, "{codec}");
        }
    }

    #[test]
    fn uncompressed_records_are_slices_of_what_came() {
        let fetched = fetched(batch(0, &["abc"], Compression::None), 0);
        let whole = fetched.bytes.as_ptr_range();
        let count = fetched.for_each(|record| {
            assert!(whole.contains(&record.value.unwrap().as_ptr()));
        });
        assert_eq!(count.unwrap(), 1);
    }

    #[test]
    fn a_flipped_bit_is_found_and_named() {
        let mut bytes = batch(10, &["a"], Compression::None);
        bytes.extend_from_slice(&batch(11, &["b"], Compression::None));
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        let mut flawed = fetched(bytes, 0);
        let error = values(&flawed).unwrap_err();
        assert_eq!(error.offset, 11);
        assert!(
            error
                .to_string()
                .starts_with("t-4, in the batch at offset 11: "),
            "{error}"
        );
        flawed.reading.check_crc = false;
        assert_eq!(values(&flawed).unwrap().len(), 2);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = "0".repeat(60_000);
        let error = values(&fetched(batch(0, &[&zeros], Compression::Zstd), 0)).unwrap_err();
        assert!(
            error.to_string().contains("more than 1000 bytes"),
            "{error}"
        );
    }

    /// A batch of a transaction, or its marker.
    fn of_transaction(offset: i64, producer_id: i64, value: Option<&str>) -> BytesMut {
        let stamp = ProducerStamp {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
        };
        let mut batch = match value {
            Some(value) => {
                let mut batch = batch(0, &[value], Compression::None);
                ringmill_wire::batch::set_producer(&mut batch, stamp);
                batch
            }
            None => {
                let marker = EndTxnMarker {
                    producer_id,
                    producer_epoch: 0,
                    coordinator_epoch: 0,
                    committed: false,
                };
                BytesMut::from(&marker.seal(0)[..])
            }
        };
        set_base_offset(&mut batch, offset);
        batch
    }

    #[test]
    fn records_of_aborted_transactions_and_markers_are_left_out() {
        let mut bytes = batch(0, &["plain"], Compression::None);
        for (offset, producer, value) in [
            (1, 7, Some("aborted")),
            (2, 8, Some("committed")),
            (3, 7, None),
            // the same producer's next transaction
            (4, 7, Some("next")),
            (5, 9, Some("aborted later")),
        ] {
            bytes.extend_from_slice(&of_transaction(offset, producer, value));
        }
        let mut fetched = fetched(bytes, 0);
        let all = values(&fetched).unwrap().into_iter().map(|(at, _)| at);
        assert_eq!(all.collect::<Vec<_>>(), [0, 1, 2, 4, 5], "read_uncommitted");
        let aborted = |producer_id, first_offset| AbortedTransaction {
            producer_id,
            first_offset,
        };
        fetched.aborted = [aborted(7, 1), aborted(9, 5)].into();
        let seen: Vec<i64> = values(&fetched)
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(seen, [0, 2, 4]);
    }

    #[test]
    fn a_batch_that_is_cut_off_is_left_for_the_next_fetch() {
        let mut bytes = batch(10, &["a", "b"], Compression::None);
        let first = bytes.len();
        bytes.extend_from_slice(&batch(12, &["c"], Compression::None));
        for cut in first..bytes.len() {
            let whole = whole_batches(&bytes[..cut]).unwrap();
            assert_eq!(whole, Some((first, 12)), "cut at {cut}");
        }
        assert_eq!(whole_batches(&bytes).unwrap(), Some((bytes.len(), 13)));
        assert_eq!(whole_batches(&bytes[..first - 1]).unwrap(), None);
        assert!(whole_batches(&[1; 100]).is_err());
    }
}
