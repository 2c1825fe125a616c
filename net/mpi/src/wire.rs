//! What ranks say to each other: a header of fixed size before each payload, the same in shared
//! memory and on TCP. Numbers are little-endian. Lengths are checked before anything is made of
//! them.

use thiserror::Error;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;

/// The longest payload of one frame, on any transport.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A whole message.
    Eager = 1,
    /// A whole message whose sender waits for its match.
    EagerSync = 2,
    /// A message that waits at its sender. The payload is empty, or its address there (8 bytes):
    /// then the receiver may fetch it by itself.
    Request = 3,
    /// The receiver of a [`Kind::Request`] is ready: `length` bytes may come.
    Clear = 4,
    /// A piece of a message for which [`Kind::Clear`] came; `length` is its place.
    Data = 5,
    /// A [`Kind::EagerSync`] was matched, or a [`Kind::Request`] fetched.
    Matched = 6,
    /// The receiver has consumed `length` bytes of eager messages.
    Credit = 7,
    /// The sender will say nothing more, and goes.
    Goodbye = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Eager,
            2 => Kind::EagerSync,
            3 => Kind::Request,
            4 => Kind::Clear,
            5 => Kind::Data,
            6 => Kind::Matched,
            7 => Kind::Credit,
            8 => Kind::Goodbye,
            _ => return None,
        })
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes of payload that follow.
    pub payload: u32,
    /// The communicator's context, of messages; of [`Kind::Clear`], the receiver's request.
    pub context: u32,
    /// The message's tag.
    pub tag: i32,
    /// The sender's rank in the communicator.
    pub rank: u32,
    /// The request that an answer is to name, or that it names.
    pub request: u32,
    /// Bytes of the whole message, a place in it, or a number of bytes: as [`Kind`] says.
    pub length: u64,
}

/// A frame that no honest peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The kind is unknown.
    #[error("a frame of an unknown kind ({0})")]
    Kind(u8),
    /// A payload longer than frames may have.
    #[error("a frame of {0} bytes, longer than frames may be")]
    TooLong(u32),
    /// A length that does not fit the frame's kind.
    #[error("a frame whose lengths contradict each other")]
    Lengths,
    /// An answer to a request that does not exist, or is not the peer's.
    #[error("an answer to a request that was never made")]
    Request,
    /// More eager bytes than were granted.
    #[error("more bytes than were granted")]
    Credit,
    /// More messages wait for their receive than any program has a use for.
    #[error("more unmatched messages than the limit")]
    Unmatched,
}

impl Header {
    /// A header with all numbers zero.
    pub fn new(kind: Kind) -> Header {
        Header {
            kind,
            payload: 0,
            context: 0,
            tag: 0,
            rank: 0,
            request: 0,
            length: 0,
        }
    }

    /// Its bytes. The first eight are never all zero.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.payload.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.context.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.rank.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.request.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// A header from its bytes.
    ///
    /// # Errors
    /// If the kind is unknown or the lengths contradict each other.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Violation> {
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[24..32]);
        let header = Header {
            kind: Kind::from_byte(bytes[4]).ok_or(Violation::Kind(bytes[4]))?,
            payload: u32::from_le_bytes(four(0)),
            context: u32::from_le_bytes(four(8)),
            tag: i32::from_le_bytes(four(12)),
            rank: u32::from_le_bytes(four(16)),
            request: u32::from_le_bytes(four(20)),
            length: u64::from_le_bytes(eight),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), Violation> {
        if self.payload as usize > PAYLOAD_MAX {
            return Err(Violation::TooLong(self.payload));
        }
        let fits = match self.kind {
            Kind::Eager | Kind::EagerSync => self.length == u64::from(self.payload),
            Kind::Request => self.payload == 0 || self.payload == 8,
            Kind::Data => self.payload > 0,
            Kind::Clear | Kind::Matched | Kind::Credit | Kind::Goodbye => self.payload == 0,
        };
        if fits {
            Ok(())
        } else {
            Err(Violation::Lengths)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        let header = Header {
            payload: 17,
            context: 3,
            tag: -5,
            rank: 9,
            request: 77,
            length: 17,
            ..Header::new(Kind::EagerSync)
        };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let eager = Header {
            payload: 4,
            length: 5,
            ..Header::new(Kind::Eager)
        };
        assert_eq!(Header::decode(&eager.encode()), Err(Violation::Lengths));
        let long = Header {
            payload: u32::MAX,
            ..Header::new(Kind::Data)
        };
        assert_eq!(
            Header::decode(&long.encode()),
            Err(Violation::TooLong(u32::MAX))
        );
        let clear = Header {
            payload: 1,
            ..Header::new(Kind::Clear)
        };
        assert_eq!(Header::decode(&clear.encode()), Err(Violation::Lengths));
        assert_eq!(Header::decode(&[0; 32]), Err(Violation::Kind(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes: [u8; 32]) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }
}
