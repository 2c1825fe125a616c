//! What a request is, and how it ends.

use crate::buffer::Buffer;
use crate::matching::Envelope;

/// What went wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was longer than the buffer; the buffer holds its beginning.
    Truncated,
    /// The peer, or a peer that it might have come from, is gone.
    PeerLost,
}

/// How a message or a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The sender's rank in the communicator; of a receive.
    pub source: Option<u32>,
    /// The tag; of a receive.
    pub tag: i32,
    /// Bytes that are in the buffer; of a probe, bytes of the message.
    pub length: u64,
    /// What went wrong.
    pub fault: Option<Fault>,
    /// It was cancelled.
    pub cancelled: bool,
}

impl Status {
    /// Of a send.
    pub fn sent() -> Status {
        Status {
            source: None,
            tag: 0,
            length: 0,
            fault: None,
            cancelled: false,
        }
    }

    pub(super) fn of(envelope: &Envelope, length: u64) -> Status {
        Status {
            source: Some(envelope.source),
            tag: envelope.tag,
            length,
            ..Status::sent()
        }
    }

    pub(super) fn cancelled() -> Status {
        Status {
            cancelled: true,
            ..Status::sent()
        }
    }

    pub(super) fn failed(fault: Fault) -> Status {
        Status {
            fault: Some(fault),
            ..Status::sent()
        }
    }

    /// The same for a buffer of `capacity` bytes.
    pub(super) fn cut_to(mut self, capacity: usize) -> Status {
        if self.length > capacity as u64 {
            self.length = capacity as u64;
            self.fault = Some(Fault::Truncated);
        }
        self
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// A send that has not left yet.
    Leaving,
    /// A send whose receiver has not said that it is ready.
    Matching,
    /// A send whose pieces leave.
    Streaming,
    /// A receive without a message.
    Posted,
    /// A receive whose message comes in pieces: what came, what is to come, and the outcome.
    Coming {
        got: usize,
        wanted: usize,
        outcome: Status,
    },
    /// It is over.
    Over(Status),
}

#[derive(Debug)]
pub(super) struct Request<B> {
    pub buffer: B,
    /// The other side, once it is known.
    pub peer: Option<u32>,
    pub state: State,
    /// Nobody will ask for the outcome.
    pub forgotten: bool,
}

impl<B: Buffer> Request<B> {
    pub(super) fn send(peer: u32, buffer: B, state: State) -> Self {
        Request {
            buffer,
            peer: Some(peer),
            state,
            forgotten: false,
        }
    }

    pub(super) fn receive(buffer: B) -> Self {
        Request {
            buffer,
            peer: None,
            state: State::Posted,
            forgotten: false,
        }
    }
}
