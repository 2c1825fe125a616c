//! NORM's messages (RFC 5740 §4) as values, and the bytes they are.
//!
//! Decoding checks every length against the datagram that brought it, allocates no more than the
//! datagram's own size, and never panics. What RFC 5740 leaves open follows libnorm, which is
//! what runs in the field; such places say so.

mod command;
mod extension;
mod feedback;
mod object;
mod quantize;
mod repair;
mod scheme;
#[cfg(test)]
pub(crate) mod wire_test;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use self::command::{CcNode, Command, SendTime, Squelch, Watermark, cc_probe_flags};
pub use self::extension::{CcFeedback, Extensions, cc_flags};
pub use self::feedback::{Ack, AckKind, Nack};
pub use self::object::{Data, Info, ObjectHeader, SenderTag, StreamHeader, object_flags};
pub use self::quantize::{GroupSize, Loss, Rate, Rtt};
pub use self::repair::{Form, RepairItem, RepairRequest, repair_flags};
pub(crate) use self::repair::{REQUEST_HEAD, item_len};
pub use self::scheme::{FecId, Fti, OBJECT_SIZE_MAX, PayloadId};

/// A participant's number, unique in its group; 0 and 0xffffffff name no one.
pub type NodeId = u32;

/// The protocol's version.
const VERSION: u8 = 1;

/// Bytes in front of every message.
const COMMON: usize = 8;

/// Why a datagram is not a NORM message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends before what it says it holds.
    #[error("the message ends early")]
    Short,
    /// Another protocol, or another version of it.
    #[error("not a message of NORM version 1")]
    Version,
    /// A type or command that RFC 5740 does not know.
    #[error("unknown message type or command {0}")]
    UnknownType(u8),
    /// The header's length is not one that its type can have.
    #[error("impossible header length")]
    HeaderLength,
    /// A FEC scheme that is not spoken here.
    #[error("unknown FEC encoding id {0}")]
    UnknownFec(u8),
    /// A header extension that is broken.
    #[error("malformed header extension")]
    Extension,
    /// A repair request that is broken.
    #[error("malformed repair request")]
    Repair,
}

/// A message, and who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Counts a sender's messages, so that their loss can be measured.
    pub sequence: u16,
    /// Who sends it.
    pub source: NodeId,
    /// The rest.
    pub message: Message,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What an object is about, out of band.
    Info(Info),
    /// One encoding symbol of an object.
    Data(Data),
    /// A sender's command.
    Command(SenderTag, Command),
    /// A receiver asks for repair.
    Nack(Nack),
    /// A receiver answers.
    Ack(Ack),
    /// Experimental, content undefined.
    Report(Bytes),
}

/// A message's bytes in two parts: the second is shared with whoever holds the payload.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The header, and what was written for this message alone.
    pub head: Bytes,
    /// The payload, possibly empty.
    pub body: Bytes,
}

impl Encoded {
    /// Bytes of both parts.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// No message is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Both in one.
    pub fn to_bytes(&self) -> Bytes {
        match self.body.is_empty() {
            true => self.head.clone(),
            false => [&self.head[..], &self.body[..]].concat().into(),
        }
    }
}

impl Packet {
    /// Reads a datagram.
    pub fn decode(mut datagram: Bytes) -> Result<Packet, WireError> {
        if datagram.len() < COMMON {
            return Err(WireError::Short);
        }
        let first = datagram.get_u8();
        if first >> 4 != VERSION {
            return Err(WireError::Version);
        }
        let header_len = usize::from(datagram.get_u8()) * 4;
        let (sequence, source) = (datagram.get_u16(), datagram.get_u32());
        let rest = header_len
            .checked_sub(COMMON)
            .ok_or(WireError::HeaderLength)?;
        if rest > datagram.len() {
            return Err(WireError::Short);
        }
        let header = datagram.split_to(rest);
        let content = datagram;
        let message = match first & 0x0f {
            1 => Message::Info(Info::read(header, content)?),
            2 => Message::Data(Data::read(header, content)?),
            3 => {
                let (tag, command) = Command::read(header, content)?;
                Message::Command(tag, command)
            }
            4 => Message::Nack(Nack::read(header, content)?),
            5 => Message::Ack(Ack::read(header, content)?),
            6 => Message::Report(content),
            other => return Err(WireError::UnknownType(other)),
        };
        Ok(Packet {
            sequence,
            source,
            message,
        })
    }

    /// The message's bytes.
    pub fn encode(&self) -> Encoded {
        let mut head = BytesMut::with_capacity(96);
        let kind = match &self.message {
            Message::Info(_) => 1,
            Message::Data(_) => 2,
            Message::Command(..) => 3,
            Message::Nack(_) => 4,
            Message::Ack(_) => 5,
            Message::Report(_) => 6,
        };
        head.put_u8(VERSION << 4 | kind);
        head.put_u8(0);
        head.put_u16(self.sequence);
        head.put_u32(self.source);
        let body = match &self.message {
            Message::Info(info) => info.write(&mut head),
            Message::Data(data) => data.write(&mut head),
            Message::Command(tag, command) => return command.write(*tag, head),
            Message::Nack(nack) => return nack.write(head),
            Message::Ack(ack) => return ack.write(head),
            Message::Report(content) => content.clone(),
        };
        close_header(&mut head);
        Encoded {
            head: head.freeze(),
            body,
        }
    }
}

/// All that was written so far is the header: says its length.
fn close_header(head: &mut BytesMut) {
    head[1] = u8::try_from(head.len() / 4).expect("extensions are bounded by those who add them");
}

/// Splits a fixed part off a header, whose rest are extensions.
fn fixed_part(header: &mut Bytes, len: usize) -> Result<Bytes, WireError> {
    if header.len() < len {
        return Err(WireError::HeaderLength);
    }
    Ok(header.split_to(len))
}
