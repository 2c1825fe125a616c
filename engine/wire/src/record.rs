//! Records inside a batch, decoded one by one as slices of the batch's bytes.
//!
//! Every length is checked against what remains before it is used, and the number of records
//! against the header's. Nothing is allocated, except by [`decoded`] for compressed batches. The
//! writing half is [`crate::builder`].
//!
//! ```text
//! length varint | attributes i8 | timestamp delta varlong | offset delta varint
//! key length varint | key | value length varint | value
//! headers count varint | per header: key length varint | key | value length varint | value
//! ```

use std::borrow::Cow;

use thiserror::Error;

use crate::batch::{BatchError, BatchHeader, BatchView, Compression, TimestampType};
use crate::compression::{DecompressError, decompress};
use crate::primitive::{ReadError, Reader, unzigzag};

/// Least bytes of a header within a record: two lengths.
const MIN_HEADER_LEN: usize = 2;

/// Why a batch's records cannot be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The batch itself is at fault.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The compressed content is at fault.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A field of record number `index` cannot be read.
    #[error("record {index}: {error}")]
    Read {
        /// Records before it in the batch.
        index: i32,
        /// What is wrong, positions counted from the start of the records.
        error: ReadError,
    },
    /// A record's content is shorter than its stated length.
    #[error("record {index} states {stated} bytes, its fields take {used}")]
    Length {
        /// Records before it in the batch.
        index: i32,
        /// As the record says.
        stated: usize,
        /// As its fields say.
        used: usize,
    },
    /// The batch ends before the records that its header counts, or goes on after them.
    #[error("the header counts {counted} records, {left} bytes are left after record {index}")]
    Count {
        /// As the header says.
        counted: i32,
        /// Records read.
        index: i32,
        /// Bytes that follow them.
        left: usize,
    },
    /// A produced record's offset is not its place in the batch.
    #[error("record {index} has offset delta {delta}")]
    Offset {
        /// Records before it in the batch.
        index: i32,
        /// As the record says.
        delta: i32,
    },
}

/// A record's header: an application's own key and value (KIP-82).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by Kafka's convention, which no broker checks.
    pub key: &'a [u8],
    /// May be null.
    pub value: Option<&'a [u8]>,
}

/// One record, its bytes still in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch, of the clock that the batch names.
    pub timestamp: i64,
    /// May be null.
    pub key: Option<&'a [u8]>,
    /// May be null: a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In the application's order.
    pub headers: Headers<'a>,
}

/// A record's headers, still encoded; they were checked when the record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// As they stand in the record, behind their count, and how many they are.
    pub(crate) fn encoded(&self) -> (&'a [u8], usize) {
        (self.bytes, self.count)
    }

    /// In the application's order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| read_header(&mut reader).ok())
    }
}

/// The records' bytes of a batch, decompressed to at most `limit` bytes if need be; to be walked
/// with [`Records::new`].
pub fn decoded<'a>(view: &BatchView<'a>, limit: usize) -> Result<Cow<'a, [u8]>, RecordError> {
    match view.header().compression()? {
        Compression::None => Ok(Cow::Borrowed(view.records_bytes())),
        codec => Ok(Cow::Owned(decompress(codec, view.records_bytes(), limit)?)),
    }
}

/// Walks the records of a produced batch without keeping them: each must be well-formed, as many as
/// the header counts, with dense offsets (Kafka's `LogValidator`). Each is shown to `visit` with its
/// place in the batch, also if one after it is wrong. Decompresses to at most `limit` bytes, and tells
/// how many they were. Costs a visit to every record, unlike [`BatchView::check_produced`].
pub fn check_produced_records(
    view: &BatchView<'_>,
    limit: usize,
    mut visit: impl FnMut(i32, &Record<'_>),
) -> Result<usize, RecordError> {
    let bytes = decoded(view, limit)?;
    let base_offset = view.header().base_offset;
    for (index, record) in (0..).zip(Records::new(view.header(), &bytes)) {
        let record = record?;
        let delta = record.offset.wrapping_sub(base_offset) as i32;
        if delta != index {
            return Err(RecordError::Offset { index, delta });
        }
        visit(index, &record);
    }
    Ok(bytes.len())
}

/// Lazy walk over a batch's records. Ends after the last record that the header counts, or after
/// the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: Reader<'a>,
    header: BatchHeader,
    index: i32,
    done: bool,
}

impl<'a> Records<'a> {
    /// `bytes` are the batch's records, decompressed: see [`decoded`].
    pub fn new(header: &BatchHeader, bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
            header: *header,
            index: 0,
            done: false,
        }
    }

    /// Moves over the next record if it is as most are: whole, and without headers. Of all others, and of
    /// those that are wrong, [`Self::read`] tells what they are.
    #[inline(always)]
    fn plain(&mut self) -> Option<Record<'a>> {
        let rest = self.reader.rest();
        let mut at = 0;
        let stated = usize::try_from(unzigzag(short_uvarint(rest, &mut at)?)).ok()?;
        let end = at + stated;
        // of attributes, records have none
        at += 1;
        let timestamp_delta = i64::from(unzigzag(short_uvarint(rest, &mut at)?));
        let offset_delta = i64::from(unzigzag(short_uvarint(rest, &mut at)?));
        let key = plain_nullable(rest, &mut at)?;
        let value = plain_nullable(rest, &mut at)?;
        // What was read is the record if it ends with it, whatever it has touched.
        if *rest.get(at)? != 0 || at + 1 != end {
            return None;
        }
        self.reader.take(end).ok()?;
        let no_headers = Headers {
            bytes: &[],
            count: 0,
        };
        Some(self.record(timestamp_delta, offset_delta, (key, value), no_headers))
    }

    #[inline(always)]
    fn record(
        &self,
        timestamp_delta: i64,
        offset_delta: i64,
        (key, value): (Option<&'a [u8]>, Option<&'a [u8]>),
        headers: Headers<'a>,
    ) -> Record<'a> {
        let timestamp = match self.header.timestamp_type() {
            TimestampType::CreateTime => self.header.base_timestamp.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.header.max_timestamp,
        };
        Record {
            offset: self.header.base_offset.wrapping_add(offset_delta),
            timestamp,
            key,
            value,
            headers,
        }
    }

    #[cold]
    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let index = self.index;
        let wrong = |error| RecordError::Read { index, error };
        let at = self.reader.position();
        let stated = self.reader.varint().map_err(wrong)?;
        let Ok(stated) = usize::try_from(stated) else {
            return Err(wrong(ReadError::Length {
                at,
                length: stated.into(),
            }));
        };
        if let Some(missing) = stated.checked_sub(self.reader.remaining() + 1) {
            let at = self.reader.position();
            return Err(wrong(ReadError::Short {
                at,
                missing: missing + 1,
            }));
        }
        let start = self.reader.position();
        let record = self.fields().map_err(wrong)?;
        match self.reader.position() - start {
            used if used == stated => Ok(record),
            used => Err(RecordError::Length {
                index,
                stated,
                used,
            }),
        }
    }

    fn fields(&mut self) -> Result<Record<'a>, ReadError> {
        let reader = &mut self.reader;
        reader.i8()?; // attributes: none defined for records
        let timestamp_delta = reader.varlong()?;
        let offset_delta = reader.varint()?;
        let key = nullable(reader)?;
        let value = nullable(reader)?;
        let at = reader.position();
        let count = reader.varint()?;
        let Ok(count) = usize::try_from(count) else {
            return Err(ReadError::Length {
                at,
                length: count.into(),
            });
        };
        let left = reader.remaining();
        if count > left / MIN_HEADER_LEN {
            return Err(ReadError::Count {
                at,
                count: count as u64,
                left,
            });
        }
        let rest = reader.rest();
        for _ in 0..count {
            read_header(reader)?;
        }
        let bytes = &rest[..rest.len() - reader.remaining()];
        let headers = Headers { bytes, count };
        Ok(self.record(timestamp_delta, offset_delta.into(), (key, value), headers))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let counted = self.header.records_count;
        let left = self.reader.remaining();
        if self.index < counted && left > 0 {
            if let Some(record) = self.plain() {
                self.index += 1;
                return Some(Ok(record));
            }
            let record = self.read();
            self.index = self.index.saturating_add(1);
            self.done = record.is_err();
            return Some(record);
        }
        self.done = true;
        if self.index == counted && left == 0 {
            return None;
        }
        Some(Err(RecordError::Count {
            counted,
            index: self.index,
            left,
        }))
    }
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, ReadError> {
    let at = reader.position();
    let key = nullable(reader)?.ok_or(ReadError::Length { at, length: -1 })?;
    Ok(Header {
        key,
        value: nullable(reader)?,
    })
}

/// An unsigned varint of at most three bytes, as most lengths and deltas of records are, with one byte behind
/// it at least; none otherwise.
#[inline(always)]
fn short_uvarint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let word = u32::from_le_bytes(*bytes.get(*at..)?.first_chunk()?);
    let (first, second, third) = (word & 0x7f, word >> 1 & 0x3f80, word >> 2 & 0x1f_c000);
    if word & 0x80 == 0 {
        *at += 1;
        return Some(first);
    }
    if word & 0x8000 == 0 {
        *at += 2;
        return Some(first | second);
    }
    *at += 3;
    (word & 0x80_0000 == 0).then_some(first | second | third)
}

/// [`nullable`], of what is in place and short.
#[inline(always)]
fn plain_nullable<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    match unzigzag(short_uvarint(bytes, at)?) {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok()?;
            let taken = bytes.get(*at..)?.get(..length)?;
            *at += length;
            Some(Some(taken))
        }
    }
}

/// A slice with its length as a zigzag varint, −1 for null.
#[inline]
fn nullable<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, ReadError> {
    let at = reader.position();
    match reader.varint()? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) => reader.take(length).map(Some),
            Err(_) => Err(ReadError::Length {
                at,
                length: length.into(),
            }),
        },
    }
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
