//! Record batches, format version 2 (magic 2), as checked views over bytes that are never copied.
//!
//! A batch is a header of 61 bytes and its records; KIP-98 and Kafka's `DefaultRecordBatch` define
//! it. Three levels of checks, each including the ones before: [`BatchView::parse`] looks at
//! structure alone, [`BatchView::check_crc`] at the content's CRC-32C, [`BatchView::check_produced`]
//! at what a broker demands of a client. [`Batches`] walks a run of batches and tells a clean end,
//! the zeros of a pre-written file, and a torn tail apart. The base offset and the leader epoch lie
//! outside the CRC, so that a broker sets them in place ([`set_base_offset`], [`set_leader_epoch`],
//! or [`assigned_header`] where the bytes are shared).
//!
//! ```text
//!  0  base offset          i64  |             | 21  attributes        i16
//!  8  batch length         i32  | from byte 12| 23  last offset delta i32
//! 12  leader epoch         i32  |             | 27  base timestamp    i64   43  producer id    i64
//! 16  magic                i8   |             | 35  max timestamp     i64   51  producer epoch i16
//! 17  crc of 21..          u32  |             | 53  base sequence     i32   57  record count   i32
//! ```

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

pub use crate::assign::{
    Assignment, ProducerStamp, assigned_header, set_append_time, set_base_offset, set_leader_epoch,
    set_producer,
};
pub use crate::compression::Compression;

/// Bytes of a batch before its records.
pub const HEADER_LEN: usize = 61;
/// Bytes that the batch length does not count: base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;
/// Least value of the batch length field: a header without records.
pub const MIN_BATCH_LENGTH: i32 = (HEADER_LEN - LENGTH_OVERHEAD) as i32;
/// The format version that this crate reads and writes.
pub const MAGIC: i8 = 2;
/// Producer id of a batch without one.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch of a batch without one.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence of a batch without one.
pub const NO_SEQUENCE: i32 = -1;
/// Timestamp of a record without one.
pub const NO_TIMESTAMP: i64 = -1;
/// Leader epoch of a batch that no leader has stamped.
pub const NO_LEADER_EPOCH: i32 = -1;

pub(crate) const BASE_OFFSET: Range<usize> = 0..8;
pub(crate) const BATCH_LENGTH: Range<usize> = 8..12;
pub(crate) const LEADER_EPOCH: Range<usize> = 12..16;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC: Range<usize> = 17..21;
pub(crate) const ATTRIBUTES: Range<usize> = 21..23;
pub(crate) const LAST_OFFSET_DELTA: Range<usize> = 23..27;
pub(crate) const BASE_TIMESTAMP: Range<usize> = 27..35;
pub(crate) const MAX_TIMESTAMP: Range<usize> = 35..43;
pub(crate) const PRODUCER_ID: Range<usize> = 43..51;
pub(crate) const PRODUCER_EPOCH: Range<usize> = 51..53;
pub(crate) const BASE_SEQUENCE: Range<usize> = 53..57;
pub(crate) const RECORDS_COUNT: Range<usize> = 57..61;

pub(crate) const COMPRESSION_MASK: i16 = 0x07;
pub(crate) const APPEND_TIME_BIT: i16 = 1 << 3;
pub(crate) const TRANSACTIONAL_BIT: i16 = 1 << 4;
pub(crate) const CONTROL_BIT: i16 = 1 << 5;
pub(crate) const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Whose clock a batch's timestamps are of (attributes, bit 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, at the time of the append; then all records carry the max timestamp.
    LogAppendTime,
}

/// Why bytes are not a batch that can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The batch is cut off. In a file, a torn tail.
    #[error("batch is cut off, {missing} bytes are missing")]
    Short {
        /// Bytes that are not there; a lower bound while the length field itself is cut off.
        missing: usize,
    },
    /// Nothing but zeros stands where a header should be: the unwritten end of a file.
    #[error("zeros where a batch should be")]
    Zeros,
    /// The length field is below that of an empty batch.
    #[error("batch length {0} is below the header's size")]
    Length(i32),
    /// A format version other than 2.
    #[error("magic {0}, but only record format 2 is served")]
    Magic(i8),
    /// The content is not what was written.
    #[error("batch has CRC {stored:#010x}, its content has {computed:#010x}")]
    Crc {
        /// As the header says.
        stored: u32,
        /// As the bytes say.
        computed: u32,
    },
    /// A codec id that Kafka does not define.
    #[error("unknown compression codec {0}")]
    Codec(i16),
    /// A base offset, an offset delta or a record count that cannot be.
    #[error("offsets {base_offset} + {last_offset_delta} with {records_count} records cannot be")]
    Offsets {
        /// As in the header.
        base_offset: i64,
        /// As in the header.
        last_offset_delta: i32,
        /// As in the header.
        records_count: i32,
    },
    /// The batch is larger than the topic allows.
    #[error("batch of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The whole batch in bytes.
        size: usize,
        /// The topic's `max.message.bytes`.
        limit: usize,
    },
    /// The batch is larger than a segment of the topic's log.
    #[error("batch of {size} bytes exceeds the segment size of {limit}")]
    LargerThanSegment {
        /// The whole batch in bytes.
        size: usize,
        /// The topic's `segment.bytes`.
        limit: usize,
    },
    /// A client set the control bit.
    #[error("clients cannot write control batches")]
    Control,
    /// A client set an attribute that only a broker may set: the append time's or the delete
    /// horizon's.
    #[error("attributes {0:#06x} are the broker's to set")]
    Attributes(i16),
    /// Producer id, epoch and sequence do not go together.
    #[error("producer {producer_id} epoch {producer_epoch} sequence {base_sequence} cannot be")]
    Producer {
        /// As in the header.
        producer_id: i64,
        /// As in the header.
        producer_epoch: i16,
        /// As in the header.
        base_sequence: i32,
    },
    /// The bytes go on after the one batch that a produce request may carry.
    #[error("{0} bytes follow the batch")]
    Trailing(usize),
}

/// A batch's header in host byte order. Structure is checked by [`BatchHeader::parse`]; the values
/// are the sender's claims until the other checks have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; 0 in what a producer sends.
    pub base_offset: i64,
    /// Bytes of the batch from byte 12 on.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec and flags; see the methods.
    pub attributes: i16,
    /// Offset of the last record less the base offset; stays as it is through compaction.
    pub last_offset_delta: i32,
    /// Milliseconds; the records' timestamps are relative to it.
    pub base_timestamp: i64,
    /// Milliseconds.
    pub max_timestamp: i64,
    /// −1 if the producer is not idempotent.
    pub producer_id: i64,
    /// −1 if the producer is not idempotent.
    pub producer_epoch: i16,
    /// Sequence number of the first record; −1 if the producer is not idempotent.
    pub base_sequence: i32,
    /// Records in the batch.
    pub records_count: i32,
}

fn field<const N: usize>(header: &[u8; HEADER_LEN], range: Range<usize>) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[range]);
    out
}

/// The size that a batch claims for itself, its header included, whatever else is wrong with that
/// header; none if its length is cut off or too short for a batch.
pub fn claimed_size(header: &[u8]) -> Option<usize> {
    let length = header.get(BATCH_LENGTH)?.first_chunk::<4>()?;
    let length = i32::from_be_bytes(*length);
    (length >= MIN_BATCH_LENGTH).then(|| length as usize + LENGTH_OVERHEAD)
}

impl BatchHeader {
    /// Reads and checks the header at the front of `bytes`: it must be there in full, hold magic 2
    /// and a possible length. The records need not be there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(h) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Self::incomplete(bytes));
        };
        let batch_length = i32::from_be_bytes(field(h, BATCH_LENGTH));
        if batch_length < MIN_BATCH_LENGTH {
            return Err(if is_zeros(h) {
                BatchError::Zeros
            } else {
                BatchError::Length(batch_length)
            });
        }
        if h[MAGIC_AT] as i8 != MAGIC {
            return Err(BatchError::Magic(h[MAGIC_AT] as i8));
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(h, BASE_OFFSET)),
            batch_length,
            partition_leader_epoch: i32::from_be_bytes(field(h, LEADER_EPOCH)),
            crc: u32::from_be_bytes(field(h, CRC)),
            attributes: i16::from_be_bytes(field(h, ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(h, LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(h, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(h, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(h, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(h, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(h, BASE_SEQUENCE)),
            records_count: i32::from_be_bytes(field(h, RECORDS_COUNT)),
        })
    }

    /// Writes the header, its CRC field as it stands, over the front of `batch`.
    pub(crate) fn write(&self, batch: &mut [u8]) {
        batch[BASE_OFFSET].copy_from_slice(&self.base_offset.to_be_bytes());
        batch[BATCH_LENGTH].copy_from_slice(&self.batch_length.to_be_bytes());
        batch[LEADER_EPOCH].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        batch[MAGIC_AT] = MAGIC as u8;
        batch[CRC].copy_from_slice(&self.crc.to_be_bytes());
        batch[ATTRIBUTES].copy_from_slice(&self.attributes.to_be_bytes());
        batch[LAST_OFFSET_DELTA].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        batch[BASE_TIMESTAMP].copy_from_slice(&self.base_timestamp.to_be_bytes());
        batch[MAX_TIMESTAMP].copy_from_slice(&self.max_timestamp.to_be_bytes());
        batch[PRODUCER_ID].copy_from_slice(&self.producer_id.to_be_bytes());
        batch[PRODUCER_EPOCH].copy_from_slice(&self.producer_epoch.to_be_bytes());
        batch[BASE_SEQUENCE].copy_from_slice(&self.base_sequence.to_be_bytes());
        batch[RECORDS_COUNT].copy_from_slice(&self.records_count.to_be_bytes());
    }

    /// What to say of fewer bytes than a header has.
    #[cold]
    fn incomplete(bytes: &[u8]) -> BatchError {
        if !bytes.is_empty() && is_zeros(bytes) {
            return BatchError::Zeros;
        }
        let size = match bytes.get(BATCH_LENGTH) {
            Some(length) => {
                let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
                if length < MIN_BATCH_LENGTH {
                    return BatchError::Length(length);
                }
                length as usize + LENGTH_OVERHEAD
            }
            None => HEADER_LEN,
        };
        BatchError::Short {
            missing: size - bytes.len(),
        }
    }

    /// The whole batch in bytes, header included.
    #[inline]
    pub fn size(&self) -> usize {
        self.batch_length as usize + LENGTH_OVERHEAD
    }

    /// Offset of the last record. Saturates, since the header may lie.
    #[inline]
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset that follows this batch.
    #[inline]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence number of the last record; wraps after `i32::MAX` to 0, as Kafka's do.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The codec, or the id that is none.
    #[inline]
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = self.attributes & COMPRESSION_MASK;
        Compression::from_id(id).ok_or(BatchError::Codec(id))
    }

    /// Whose clock the timestamps are of.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction (KIP-98).
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds control records (transaction markers), which consumers never see.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is a compaction's delete horizon (KIP-534).
    #[inline]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// Whether an idempotent producer wrote it.
    #[inline]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// What a client may send (Kafka's `LogValidator` and `UnifiedLog.analyzeAndValidateRecords`),
    /// as far as the header tells it.
    fn check_claims(&self, max_size: usize) -> Result<(), BatchError> {
        if self.size() > max_size {
            return Err(BatchError::TooLarge {
                size: self.size(),
                limit: max_size,
            });
        }
        let dense = self.records_count > 0 && self.last_offset_delta == self.records_count - 1;
        if self.base_offset != 0 || !dense {
            return Err(BatchError::Offsets {
                base_offset: self.base_offset,
                last_offset_delta: self.last_offset_delta,
                records_count: self.records_count,
            });
        }
        self.compression()?;
        if self.is_control() {
            return Err(BatchError::Control);
        }
        if self.attributes & (APPEND_TIME_BIT | DELETE_HORIZON_BIT) != 0 {
            return Err(BatchError::Attributes(self.attributes));
        }
        let possible = if self.has_producer_id() {
            self.producer_epoch >= 0 && self.base_sequence >= 0
        } else {
            self.producer_id == NO_PRODUCER_ID && !self.is_transactional()
        };
        if possible {
            return Ok(());
        }
        Err(BatchError::Producer {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
        })
    }
}

/// The sequence number `records` after `sequence`; wraps after `i32::MAX` to 0.
#[inline]
pub fn advance_sequence(sequence: i32, records: i32) -> i32 {
    (i64::from(sequence) + i64::from(records)).rem_euclid(1 << 31) as i32
}

/// Whether all of `bytes` is zero.
pub fn is_zeros(bytes: &[u8]) -> bool {
    // whole words first: this runs over megabytes of pre-written file
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// One batch in a larger run of bytes: header parsed, all of its bytes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Takes the batch at the front of `bytes`, checking structure alone. More may follow it.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size();
        match bytes.get(..size) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Short {
                missing: size - bytes.len(),
            }),
        }
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch's bytes, header included.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The whole batch in bytes, header included.
    #[inline]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The records' bytes: compressed, if the header names a codec.
    #[inline]
    pub fn records_bytes(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Fails unless the content has the CRC that the header states.
    #[inline]
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[ATTRIBUTES.start..]);
        let stored = self.header.crc;
        if stored == computed {
            Ok(())
        } else {
            Err(BatchError::Crc { stored, computed })
        }
    }

    /// Fails unless the batch is one that a client may produce: no larger than `max_size` bytes,
    /// base offset 0, as many records as offsets and at least one, a codec that exists, no control
    /// batch, no other attribute of the broker's, producer fields that go together, and the right
    /// CRC. Records are not looked at: [`crate::record::check_produced_records`] does.
    pub fn check_produced(&self, max_size: usize) -> Result<(), BatchError> {
        self.header.check_claims(max_size)?;
        self.check_crc()
    }
}

/// Takes the one batch that a produce request may carry for a partition (Kafka's
/// `ProduceRequest.validateRecords`), with all checks of [`BatchView::check_produced`].
pub fn produced_batch(records: &Bytes, max_size: usize) -> Result<BatchHeader, BatchError> {
    let view = BatchView::parse(records)?;
    view.check_produced(max_size)?;
    match records.len() - view.size() {
        0 => Ok(view.header),
        more => Err(BatchError::Trailing(more)),
    }
}

/// A batch that cannot be taken, and where in the run it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("at byte {position}: {error}")]
pub struct RunError {
    /// Bytes from the start of the run.
    pub position: usize,
    /// What is wrong.
    pub error: BatchError,
}

/// Walks batches that stand one after the other, by structure alone (call the views' own checks for
/// more). Ends at the end of the bytes, at zeros, or after the first error; [`Batches::position`]
/// then tells where.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    zeros: bool,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Starts at the first byte, which must be the first of a batch.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            zeros: false,
            failed: false,
        }
    }

    /// Where the next batch would start: after the end of the walk, the bytes before it are whole
    /// batches.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether the walk ended because a header's place held only zeros. What follows that place was
    /// not looked at ([`is_zeros`] does).
    #[inline]
    pub fn ended_in_zeros(&self) -> bool {
        self.zeros
    }
}

impl<'a> Iterator for Batches<'a> {
    /// The position of each batch and its view.
    type Item = Result<(usize, BatchView<'a>), RunError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let position = self.position;
        if self.zeros || self.failed || position == self.bytes.len() {
            return None;
        }
        match BatchView::parse(&self.bytes[position..]) {
            Ok(view) => {
                self.position += view.size();
                Some(Ok((position, view)))
            }
            Err(BatchError::Zeros) => {
                self.zeros = true;
                None
            }
            Err(error) => {
                self.failed = true;
                Some(Err(RunError { position, error }))
            }
        }
    }
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
