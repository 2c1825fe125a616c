//! FEC schemes on the wire: how an encoding symbol is named (FEC payload id), and how a sender
//! says what it encodes with (FEC object transmission information, EXT_FTI).
//!
//! Fully specified Reed–Solomon has ids 2 and 5 (RFC 5510), small block codes of whatever kind
//! have 129 (RFC 5445); NORM's use of them is RFC 5740 §4.2.1.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::WireError;

/// A FEC encoding id, and what decides how its payload ids are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FecId {
    /// 2: Reed–Solomon over GF(2^m), m being 8 or 16.
    Rs {
        /// Bits of a field element.
        bits: u8,
    },
    /// 5: Reed–Solomon over GF(2^8). What libnorm sends by default.
    Rs8,
    /// 129: a small block systematic code; instance 0 is libnorm's Reed–Solomon over GF(2^8).
    SmallBlock,
}

impl FecId {
    /// From the wire's byte. Id 2 does not say its field here: 16 bits is all that libnorm uses
    /// it for.
    pub fn from_wire(id: u8) -> Result<FecId, WireError> {
        match id {
            2 => Ok(FecId::Rs { bits: 16 }),
            5 => Ok(FecId::Rs8),
            129 => Ok(FecId::SmallBlock),
            other => Err(WireError::UnknownFec(other)),
        }
    }

    /// The wire's byte.
    pub fn to_wire(self) -> u8 {
        match self {
            FecId::Rs { .. } => 2,
            FecId::Rs8 => 5,
            FecId::SmallBlock => 129,
        }
    }

    /// Bytes of a payload id.
    pub fn payload_id_len(self) -> usize {
        match self {
            FecId::SmallBlock => 8,
            _ => 4,
        }
    }

    /// Bits of a block number.
    pub fn block_bits(self) -> u32 {
        match self {
            FecId::Rs { bits: 16 } => 16,
            FecId::Rs { .. } | FecId::Rs8 => 24,
            FecId::SmallBlock => 32,
        }
    }
}

/// The name of one encoding symbol within its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadId {
    /// The source block, modulo [`FecId::block_bits`].
    pub block: u32,
    /// The symbol within it: source symbols first, then parity.
    pub symbol: u16,
    /// Source symbols of the block; only id 129 carries it, others read 0.
    pub block_len: u16,
}

impl PayloadId {
    pub(super) fn read(fec: FecId, from: &mut Bytes) -> Result<PayloadId, WireError> {
        if from.len() < fec.payload_id_len() {
            return Err(WireError::Short);
        }
        Ok(match fec {
            FecId::SmallBlock => PayloadId {
                block: from.get_u32(),
                block_len: from.get_u16(),
                symbol: from.get_u16(),
            },
            FecId::Rs { bits: 16 } => PayloadId {
                block: from.get_u16().into(),
                symbol: from.get_u16(),
                block_len: 0,
            },
            FecId::Rs { .. } | FecId::Rs8 => {
                let both = from.get_u32();
                PayloadId {
                    block: both >> 8,
                    symbol: (both & 0xff) as u16,
                    block_len: 0,
                }
            }
        })
    }

    pub(super) fn write(self, fec: FecId, to: &mut BytesMut) {
        match fec {
            FecId::SmallBlock => {
                to.put_u32(self.block);
                to.put_u16(self.block_len);
                to.put_u16(self.symbol);
            }
            FecId::Rs { bits: 16 } => {
                to.put_u16(self.block as u16);
                to.put_u16(self.symbol);
            }
            FecId::Rs { .. } | FecId::Rs8 => {
                to.put_u32(self.block << 8 | u32::from(self.symbol & 0xff))
            }
        }
    }
}

/// What a sender encodes an object with (EXT_FTI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fti {
    /// Bytes of the object, 48 bits; of a stream, of its sender's buffer.
    pub object_size: u64,
    /// Bytes of a source symbol; a stream's header of eight comes on top.
    pub segment_size: u16,
    /// Source symbols of a block, at most.
    pub block_len: u16,
    /// Parity symbols of a block.
    pub parity: u16,
    /// The code's instance (id 129 only).
    pub instance: u16,
}

/// The longest object that 48 bits can say.
pub const OBJECT_SIZE_MAX: u64 = (1 << 48) - 1;

impl Fti {
    /// Words of the whole extension.
    pub(super) fn words(fec: FecId) -> u8 {
        match fec {
            FecId::Rs8 => 3,
            _ => 4,
        }
    }

    /// Reads the content of an EXT_FTI behind its type and length; tells the field's bits too.
    pub(super) fn read(fec: FecId, mut from: Bytes) -> Result<(Fti, FecId), WireError> {
        if from.len() < usize::from(Fti::words(fec)) * 4 - 2 {
            return Err(WireError::Extension);
        }
        let object_size = u64::from(from.get_u16()) << 32 | u64::from(from.get_u32());
        let mut fti = Fti {
            object_size,
            segment_size: 0,
            block_len: 0,
            parity: 0,
            instance: 0,
        };
        let mut field = fec;
        match fec {
            FecId::Rs8 => {
                fti.segment_size = from.get_u16();
                fti.block_len = from.get_u8().into();
                fti.parity = from.get_u8().into();
                return Ok((fti, field));
            }
            FecId::SmallBlock => fti.instance = from.get_u16(),
            FecId::Rs { .. } => {
                let (bits, _symbols_per_packet) = (from.get_u8(), from.get_u8());
                if bits != 8 && bits != 16 {
                    return Err(WireError::Extension);
                }
                field = FecId::Rs { bits };
            }
        }
        fti.segment_size = from.get_u16();
        fti.block_len = from.get_u16();
        fti.parity = from.get_u16();
        Ok((fti, field))
    }

    /// Writes the content behind type and length.
    pub(super) fn write(&self, fec: FecId, to: &mut BytesMut) {
        to.put_u16((self.object_size >> 32) as u16);
        to.put_u32(self.object_size as u32);
        match fec {
            FecId::Rs8 => {
                to.put_u16(self.segment_size);
                to.put_u8(self.block_len as u8);
                to.put_u8(self.parity as u8);
                return;
            }
            FecId::SmallBlock => to.put_u16(self.instance),
            FecId::Rs { bits } => {
                to.put_u8(bits);
                to.put_u8(1);
            }
        }
        to.put_u16(self.segment_size);
        to.put_u16(self.block_len);
        to.put_u16(self.parity);
    }
}
