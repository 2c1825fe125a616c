//! Kafka's primitive types, read and written with every bound checked
//! (<https://kafka.apache.org/protocol#protocol_types>).
//!
//! [`Reader`] walks a byte slice and fails with the position and the cause; it never allocates.
//! The writing half appends to a [`BytesMut`]. Variable-length integers come as `u*` (plain, used by
//! flexible versions for lengths and tags) and zigzag (`i*`, used inside records).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use thiserror::Error;

/// What is wrong with a message, and at which byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The bytes end before the value does.
    #[error("message ends {missing} bytes short of the value at byte {at}")]
    Short {
        /// Where the value starts.
        at: usize,
        /// How many bytes are not there.
        missing: usize,
    },
    /// A length that no writer produces: below −1, null where null is not allowed, or beyond what
    /// a string may have.
    #[error("length {length} at byte {at} is not allowed")]
    Length {
        /// Where the length stands.
        at: usize,
        /// The length as read.
        length: i64,
    },
    /// An array claims more elements than the bytes that remain can hold.
    #[error("array of {count} elements at byte {at}, but only {left} bytes remain")]
    Count {
        /// Where the count stands.
        at: usize,
        /// The count as read.
        count: u64,
        /// Bytes after the count.
        left: usize,
    },
    /// A message has more array elements and tagged fields than its reader takes.
    #[error("message has more than {max} elements at byte {at}")]
    Elements {
        /// Where the count that is too much stands.
        at: usize,
        /// The reader's limit.
        max: usize,
    },
    /// A variable-length integer runs over its type's width.
    #[error("variable-length integer at byte {at} is too long")]
    Varint {
        /// Where the integer starts.
        at: usize,
    },
    /// A number stands for nothing.
    #[error("value {value} at byte {at} is not defined")]
    Value {
        /// Where it stands.
        at: usize,
        /// The number as read.
        value: i64,
    },
    /// A string is not UTF-8.
    #[error("string at byte {at} is not UTF-8")]
    Utf8 {
        /// Where the string's bytes start.
        at: usize,
    },
    /// Tagged fields must come in strictly ascending order (KIP-482).
    #[error("tagged field {tag} at byte {at} is out of order")]
    TagOrder {
        /// Where the tag stands.
        at: usize,
        /// The tag.
        tag: u32,
    },
    /// A tagged field's content is longer or shorter than its stated size.
    #[error("tagged field {tag} at byte {at} does not fill its stated size")]
    TagSize {
        /// Where the field's content starts.
        at: usize,
        /// The tag.
        tag: u32,
    },
    /// Bytes are left after the last field.
    #[error("{left} bytes are left over after the message at byte {at}")]
    Trailing {
        /// Where the message ended.
        at: usize,
        /// How many bytes follow.
        left: usize,
    },
}

/// Most bytes of a string, whatever its encoding could say.
pub const MAX_STRING_LEN: usize = i16::MAX as usize;
/// Most bytes of an unsigned 32-bit varint.
pub const MAX_VARINT_LEN: usize = 5;
/// Most bytes of an unsigned 64-bit varint.
pub const MAX_VARLONG_LEN: usize = 10;

/// Maps small negative numbers to small unsigned ones.
#[inline]
pub const fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

/// Undoes [`zigzag`].
#[inline]
pub const fn unzigzag(value: u32) -> i32 {
    ((value >> 1) as i32) ^ -((value & 1) as i32)
}

/// [`zigzag`] for 64 bits.
#[inline]
pub const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag64`].
#[inline]
pub const fn unzigzag64(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Bytes that `value` takes as an unsigned varint, 1 to 10.
#[inline]
pub const fn uvarint_len(value: u64) -> usize {
    // ceil(bits / 7), with zero taking one byte
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Bytes that `value` takes as a zigzag varint, 1 to 10.
#[inline]
pub const fn varint_len(value: i64) -> usize {
    uvarint_len(zigzag64(value))
}

/// Appends an unsigned varint.
#[inline]
pub fn put_uvarint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_length(out: &mut BytesMut, length: Option<usize>) {
    put_uvarint(out, length.map_or(0, |length| length as u64 + 1));
}

/// Appends a string or null.
///
/// # Panics
/// In the plain encoding, if the string is longer than `i16::MAX` bytes: callers check names.
pub fn put_nullable_string(out: &mut BytesMut, flexible: bool, string: Option<&str>) {
    if flexible {
        put_length(out, string.map(str::len));
    } else {
        let length = string.map_or(Ok(-1), |string| i16::try_from(string.len()));
        out.put_i16(length.expect("a string has at most 32767 bytes"));
    }
    out.extend_from_slice(string.unwrap_or_default().as_bytes());
}

/// Appends a string; panics as [`put_nullable_string`].
pub fn put_string(out: &mut BytesMut, flexible: bool, string: &str) {
    put_nullable_string(out, flexible, Some(string));
}

/// Appends an array's count, or null.
pub fn put_nullable_count(out: &mut BytesMut, flexible: bool, count: Option<usize>) {
    if flexible {
        put_length(out, count);
    } else {
        out.put_i32(count.map_or(-1, |count| count as i32));
    }
}

/// Appends the length of bytes or records, or the count of an array.
pub fn put_count(out: &mut BytesMut, flexible: bool, count: usize) {
    put_nullable_count(out, flexible, Some(count));
}

/// Ends a structure without tagged fields; in the plain encoding, does nothing.
pub fn put_no_tags(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}

/// Ends a structure with tagged fields in ascending order; in the plain encoding, does nothing.
pub fn put_tags(out: &mut BytesMut, flexible: bool, tags: &[(u32, BytesMut)]) {
    if !flexible {
        return;
    }
    put_uvarint(out, tags.len() as u64);
    for (tag, content) in tags {
        put_uvarint(out, u64::from(*tag));
        put_uvarint(out, content.len() as u64);
        out.extend_from_slice(content);
    }
}

/// Array elements and tagged fields that one request may have. An element takes up to some hundred
/// bytes of memory once decoded, though as little as one byte on the wire: this bounds a decoded
/// request to some tens of MiB whatever the frame's size.
pub const MAX_REQUEST_ELEMENTS: usize = 1 << 18;
/// The same for responses, which a client asked for: metadata of a large cluster has a few elements
/// per partition.
pub const MAX_RESPONSE_ELEMENTS: usize = 1 << 22;
/// Least bytes of a tagged field: tag and size.
const MIN_TAGGED_LEN: usize = 2;

/// Walks a byte slice; every read is checked and moves on only when it succeeds.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: usize,
    max_elements: usize,
}

macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub fn $name(&mut self) -> Result<$type, ReadError> {
                Ok(<$type>::from_be_bytes(self.array()?))
            }
        )*
    };
}

impl<'a> Reader<'a> {
    /// Starts at the first byte, with at most [`MAX_REQUEST_ELEMENTS`] to come.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            elements: 0,
            max_elements: MAX_REQUEST_ELEMENTS,
        }
    }

    /// Starts at the first byte, with at most [`MAX_RESPONSE_ELEMENTS`] to come.
    #[inline]
    pub fn of_response(bytes: &'a [u8]) -> Self {
        Self {
            max_elements: MAX_RESPONSE_ELEMENTS,
            ..Self::new(bytes)
        }
    }

    /// The next byte's position.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// All bytes not yet read, without reading them.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Takes `length` bytes as a slice.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(ReadError::Short {
                at: self.at,
                missing: length - self.remaining(),
            }),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(ReadError::Short {
                at: self.at,
                missing: N - self.remaining(),
            }),
        }
    }

    fixed! {
        /// INT8.
        i8: i8;
        /// INT16, big-endian like all fixed-width integers.
        i16: i16;
        /// INT32.
        i32: i32;
        /// INT64.
        i64: i64;
        /// UINT32.
        u32: u32;
    }

    /// UUID, 16 bytes as they stand.
    #[inline]
    pub fn uuid(&mut self) -> Result<[u8; 16], ReadError> {
        self.array()
    }

    /// BOOLEAN: zero is false, all else true.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, ReadError> {
        Ok(self.i8()? != 0)
    }

    /// UNSIGNED_VARINT of at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, ReadError> {
        let value = self.uvarint64(MAX_VARINT_LEN)?;
        u32::try_from(value).map_err(|_| ReadError::Varint {
            at: self.at - MAX_VARINT_LEN,
        })
    }

    /// VARINT, zigzag, 32 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<i32, ReadError> {
        Ok(unzigzag(self.uvarint()?))
    }

    /// VARLONG, zigzag, 64 bits.
    #[inline]
    pub fn varlong(&mut self) -> Result<i64, ReadError> {
        Ok(unzigzag64(self.uvarint64(MAX_VARLONG_LEN)?))
    }

    #[inline]
    fn uvarint64(&mut self, max_len: usize) -> Result<u64, ReadError> {
        // Most are of one byte; lengths, offsets and times of records are often of two.
        match self.bytes[self.at..] {
            [first, ..] if first < 0x80 => {
                self.at += 1;
                Ok(u64::from(first))
            }
            [first, second, ..] if second < 0x80 => {
                self.at += 2;
                Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.uvarint64_slow(max_len),
        }
    }

    #[cold]
    fn uvarint64_slow(&mut self, max_len: usize) -> Result<u64, ReadError> {
        let rest = &self.bytes[self.at..];
        let mut value = 0_u64;
        for (index, &byte) in rest.iter().take(max_len).enumerate() {
            // the tenth byte of a varlong carries one bit
            if index == MAX_VARLONG_LEN - 1 && byte > 1 {
                return Err(ReadError::Varint { at: self.at });
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        if rest.len() >= max_len {
            Err(ReadError::Varint { at: self.at })
        } else {
            Err(ReadError::Short {
                at: self.at,
                missing: 1,
            })
        }
    }

    /// The length of what follows: compact (one more than it, as an unsigned varint) or, as `plain`
    /// reads it, an integer with −1 for null.
    #[inline]
    fn length(
        &mut self,
        flexible: bool,
        plain: impl Fn(&mut Self) -> Result<i32, ReadError>,
    ) -> Result<Option<usize>, ReadError> {
        let at = self.at;
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        match plain(self)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(ReadError::Length {
                    at,
                    length: length.into(),
                }),
            },
        }
    }

    /// NULLABLE_STRING or COMPACT_NULLABLE_STRING; not yet checked to be UTF-8. Kafka's readers
    /// take no longer ones in either encoding: what was taken can be answered in any version.
    #[inline]
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, ReadError> {
        let at = self.at;
        match self.length(flexible, |reader| reader.i16().map(i32::from))? {
            Some(length) if length > MAX_STRING_LEN => Err(ReadError::Length {
                at,
                length: length as i64,
            }),
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// NULLABLE_BYTES or COMPACT_NULLABLE_BYTES, also RECORDS.
    #[inline]
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, ReadError> {
        match self.length(flexible, Self::i32)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// NULLABLE_STRING or COMPACT_NULLABLE_STRING as a slice of `whole`, the bytes read from.
    #[inline]
    pub fn nullable_str(
        &mut self,
        flexible: bool,
        whole: &Bytes,
    ) -> Result<Option<StrBytes>, ReadError> {
        let Some(string) = self.nullable_string(flexible)? else {
            return Ok(None);
        };
        match StrBytes::from_utf8(whole.slice_ref(string)) {
            Ok(string) => Ok(Some(string)),
            Err(_) => Err(ReadError::Utf8 {
                at: self.at - string.len(),
            }),
        }
    }

    /// STRING or COMPACT_STRING as a slice of `whole`, the bytes read from.
    #[inline]
    pub fn str(&mut self, flexible: bool, whole: &Bytes) -> Result<StrBytes, ReadError> {
        let at = self.at;
        self.nullable_str(flexible, whole)?
            .ok_or(ReadError::Length { at, length: -1 })
    }

    /// The count of an array whose elements take at least `min_element` bytes each: what it returns
    /// is safe to allocate for.
    #[inline]
    pub fn nullable_count(
        &mut self,
        flexible: bool,
        min_element: usize,
    ) -> Result<Option<usize>, ReadError> {
        let at = self.at;
        match self.length(flexible, Self::i32)? {
            Some(count) => self.expect(count, min_element, at).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Reader::nullable_count`], where null is not allowed.
    #[inline]
    pub fn count(&mut self, flexible: bool, min_element: usize) -> Result<usize, ReadError> {
        let at = self.at;
        let count = self.nullable_count(flexible, min_element)?;
        count.ok_or(ReadError::Length { at, length: -1 })
    }

    /// Takes note of `count` elements to come, which was read at byte `at`.
    fn expect(&mut self, count: usize, min_element: usize, at: usize) -> Result<usize, ReadError> {
        let left = self.remaining();
        if count > left / min_element {
            return Err(ReadError::Count {
                at,
                count: count as u64,
                left,
            });
        }
        self.elements += count;
        if self.elements > self.max_elements {
            return Err(ReadError::Elements {
                at,
                max: self.max_elements,
            });
        }
        Ok(count)
    }

    /// The tagged fields at the end of a flexible structure (KIP-482). `known` gets each tag and a
    /// reader over its content alone; it reads all of it and returns true, or leaves it and returns
    /// false. In the plain encoding there are none.
    pub fn tagged_fields(
        &mut self,
        flexible: bool,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        if !flexible {
            return Ok(());
        }
        let at = self.at;
        let fields = self.uvarint()? as usize;
        let mut next_tag = 0_u64;
        for _ in 0..self.expect(fields, MIN_TAGGED_LEN, at)? {
            let at = self.at;
            let tag = self.uvarint()?;
            if u64::from(tag) < next_tag {
                return Err(ReadError::TagOrder { at, tag });
            }
            next_tag = u64::from(tag) + 1;
            let size = self.uvarint()? as usize;
            let start = self.at;
            self.take(size)?;
            let mut content = self.clone();
            (content.bytes, content.at) = (&self.bytes[..self.at], start);
            if known(tag, &mut content)? && content.remaining() > 0 {
                return Err(ReadError::TagSize { at: start, tag });
            }
            self.elements = content.elements;
        }
        Ok(())
    }

    /// Fails unless every byte was read.
    pub fn finish(&self) -> Result<(), ReadError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(ReadError::Trailing { at: self.at, left }),
        }
    }
}

#[cfg(test)]
#[path = "primitive_test.rs"]
mod tests;
