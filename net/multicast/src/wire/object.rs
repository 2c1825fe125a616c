//! INFO and DATA: the messages that objects are made of (RFC 5740 §4.2.1, §4.2.2).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::extension::Extensions;
use super::quantize::{GroupSize, Rtt};
use super::scheme::{FecId, Fti, PayloadId};
use super::{WireError, fixed_part};

/// What a sender says of itself with every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderTag {
    /// Which life of the sender this is.
    pub instance: u16,
    /// The group's greatest round trip time, as the sender knows it.
    pub grtt: Rtt,
    /// The factor K of the NACK back-off; 4 bits.
    pub backoff: u8,
    /// The group's size, as the sender estimates it.
    pub group_size: GroupSize,
}

impl SenderTag {
    /// Bytes on the wire.
    pub(super) const LEN: usize = 4;

    pub(super) fn read(from: &mut Bytes) -> SenderTag {
        let (instance, grtt, both) = (from.get_u16(), Rtt(from.get_u8()), from.get_u8());
        SenderTag {
            instance,
            grtt,
            backoff: both >> 4,
            group_size: GroupSize::from_bits(both),
        }
    }

    pub(super) fn write(self, to: &mut BytesMut) {
        to.put_u16(self.instance);
        to.put_u8(self.grtt.0);
        to.put_u8((self.backoff & 0x0f) << 4 | self.group_size.bits());
    }
}

/// Flags of an object's message.
pub mod object_flags {
    /// It is sent again.
    pub const REPAIR: u8 = 0x01;
    /// It is sent again by explicit request, so that middle boxes may know.
    pub const EXPLICIT: u8 = 0x02;
    /// The object has an INFO.
    pub const INFO: u8 = 0x04;
    /// The object is not repaired.
    pub const UNRELIABLE: u8 = 0x08;
    /// The object is a file.
    pub const FILE: u8 = 0x10;
    /// The object is a stream.
    pub const STREAM: u8 = 0x20;
    /// The first of a sender's life (libnorm's own).
    pub const SYN: u8 = 0x40;
}

/// What INFO and DATA begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectHeader {
    /// The sender.
    pub tag: SenderTag,
    /// [`object_flags`].
    pub flags: u8,
    /// The FEC scheme.
    pub fec: FecId,
    /// The object's number, counted by the sender.
    pub object: u16,
    /// How the object is encoded, if this message says so.
    pub fti: Option<Fti>,
}

impl ObjectHeader {
    const LEN: usize = SenderTag::LEN + 4;

    fn read(fixed: &mut Bytes) -> Result<ObjectHeader, WireError> {
        let tag = SenderTag::read(fixed);
        let flags = fixed.get_u8();
        let fec = FecId::from_wire(fixed.get_u8())?;
        Ok(ObjectHeader {
            tag,
            flags,
            fec,
            object: fixed.get_u16(),
            fti: None,
        })
    }

    fn read_extensions(&mut self, extensions: Bytes) -> Result<(), WireError> {
        let mut fec = Some(self.fec);
        self.fti = Extensions::read(extensions, &mut fec)?.fti;
        self.fec = fec.unwrap_or(self.fec);
        Ok(())
    }

    fn write(&self, to: &mut BytesMut) {
        self.tag.write(to);
        to.put_u8(self.flags);
        to.put_u8(self.fec.to_wire());
        to.put_u16(self.object);
    }

    fn write_extensions(&self, to: &mut BytesMut) {
        let extensions = Extensions {
            fti: self.fti,
            ..Extensions::default()
        };
        extensions.write(Some(self.fec), to);
    }

    /// Whether a flag of [`object_flags`] is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What an object is about, out of band: at most one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The object.
    pub header: ObjectHeader,
    /// The application's bytes.
    pub content: Bytes,
}

impl Info {
    pub(super) fn read(mut header: Bytes, content: Bytes) -> Result<Info, WireError> {
        let mut object = ObjectHeader::read(&mut fixed_part(&mut header, ObjectHeader::LEN)?)?;
        object.read_extensions(header)?;
        Ok(Info {
            header: object,
            content,
        })
    }

    pub(super) fn write(&self, to: &mut BytesMut) -> Bytes {
        self.header.write(to);
        self.header.write_extensions(to);
        self.content.clone()
    }
}

/// One encoding symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The object.
    pub header: ObjectHeader,
    /// The symbol's name.
    pub id: PayloadId,
    /// Its bytes; of a stream's source symbol, a [`StreamHeader`] first.
    pub payload: Bytes,
}

impl Data {
    pub(super) fn read(mut header: Bytes, payload: Bytes) -> Result<Data, WireError> {
        let mut object = ObjectHeader::read(&mut fixed_part(&mut header, ObjectHeader::LEN)?)?;
        let mut id = fixed_part(&mut header, object.fec.payload_id_len())?;
        object.read_extensions(header)?;
        Ok(Data {
            // The extensions have told how to read it.
            id: PayloadId::read(object.fec, &mut id)?,
            header: object,
            payload,
        })
    }

    pub(super) fn write(&self, to: &mut BytesMut) -> Bytes {
        self.header.write(to);
        self.id.write(self.header.fec, to);
        self.header.write_extensions(to);
        self.payload.clone()
    }
}

/// What a stream's source symbols begin with (RFC 5740 §4.2.1, "payload_len" to
/// "payload_offset"). Parity covers it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamHeader {
    /// Bytes of the stream in this segment; 0 is a control code, see `message_start`.
    pub len: u16,
    /// 1 + the place of the first beginning of a message in the segment; 0 if none begins in
    /// it. With `len` 0: a control code, of which 0 is the stream's end.
    pub message_start: u16,
    /// The place of the segment's first byte in the stream, modulo 2^32.
    pub offset: u32,
}

impl StreamHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// Splits the header off a segment; bytes behind its length are padding.
    pub fn split(mut segment: Bytes) -> Result<(StreamHeader, Bytes), WireError> {
        if segment.len() < StreamHeader::LEN {
            return Err(WireError::Short);
        }
        let header = StreamHeader {
            len: segment.get_u16(),
            message_start: segment.get_u16(),
            offset: segment.get_u32(),
        };
        if usize::from(header.len) > segment.len() {
            return Err(WireError::Short);
        }
        segment.truncate(header.len.into());
        Ok((header, segment))
    }

    /// The header's bytes.
    pub fn to_array(self) -> [u8; StreamHeader::LEN] {
        let mut bytes = [0; StreamHeader::LEN];
        bytes[..2].copy_from_slice(&self.len.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.message_start.to_be_bytes());
        bytes[4..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }
}
