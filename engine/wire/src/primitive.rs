//! Kafka's primitive types, read and written with every bound checked
//! (<https://kafka.apache.org/protocol#protocol_types>).
//!
//! [`Reader`] walks a byte slice and fails with the position and the cause; it never allocates.
//! The writing half appends to a [`BytesMut`]. Variable-length integers come as `u*` (plain, used by
//! flexible versions for lengths and tags) and zigzag (`i*`, used inside records).

use bytes::{BufMut, BytesMut};
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
    /// A length that no writer produces (below −1, or null where null is not allowed).
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
    /// A variable-length integer runs over its type's width.
    #[error("variable-length integer at byte {at} is too long")]
    Varint {
        /// Where the integer starts.
        at: usize,
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

/// Walks a byte slice; every read is checked and moves on only when it succeeds.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
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
    /// Starts at the first byte.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
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
        let rest = &self.bytes[self.at..];
        if let Some(&first) = rest.first()
            && first < 0x80
        {
            self.at += 1;
            return Ok(u64::from(first));
        }
        self.uvarint64_slow(max_len)
    }

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

    /// Fails unless every byte was read.
    pub fn finish(&self) -> Result<(), ReadError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(ReadError::Trailing { at: self.at, left }),
        }
    }
}
