//! Where frames go: what carries them for an engine.

use crate::buffer::Buffer;
use crate::wire::Header;

/// The payload of a frame, before it is written to its last place.
#[derive(Debug)]
pub enum Payload<'a, B> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// A part of a buffer: from where, how long.
    Part(&'a B, usize, usize),
}

impl<B: Buffer> Payload<'_, B> {
    /// Writes it.
    pub fn fill(&self, into: &mut [u8]) {
        match self {
            Payload::Bytes(bytes) => into.copy_from_slice(bytes),
            Payload::Part(buffer, at, _) => buffer.read(*at, into),
        }
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Part(_, _, len) => *len,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where frames go. Frames to one peer arrive in the order of their pushes.
pub trait Outlet<B: Buffer> {
    /// Puts a frame on its way; false if there is no room for it now.
    fn push(&mut self, peer: u32, header: &Header, payload: &Payload<'_, B>) -> bool;

    /// The longest message that travels whole to this peer.
    fn eager_max(&self, peer: u32) -> usize;

    /// The longest piece of a long message.
    fn piece_max(&self, peer: u32) -> usize;

    /// Whether the peer can fetch a message of this length from our memory.
    fn offers_fetch(&self, _peer: u32, _len: usize) -> bool {
        false
    }

    /// Reads `len` bytes at `address` in the peer's memory; false if that is not possible.
    fn fetch(&mut self, _peer: u32, _address: u64, _into: &B, _len: usize) -> bool {
        false
    }
}
