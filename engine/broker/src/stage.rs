//! A request's stages and what they lead to. The first has fixed the request's order when it returns;
//! the second, if there is one, finishes in its own time, and its response waits for its turn.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use ringmill_ring::File;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::tell_throttle;

use crate::connection::Closed;

/// A piece of a response.
pub(crate) enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A part of a file, to go from page cache to socket.
    File { file: File, offset: u64, len: u64 },
}

/// A finished response.
pub(crate) enum Response {
    /// The request wants none.
    Nothing,
    /// A whole frame.
    Frame(Bytes),
    /// A whole frame in pieces.
    Pieces(Vec<Chunk>),
    /// The connection ends.
    Close(Closed),
    /// After it the client is not heard for a while: it is beyond its quota.
    Pausing(Box<Response>, Duration),
}

/// A request after its first stage.
pub(crate) enum Stage {
    /// There is nothing to wait for.
    Done(Response),
    /// The second stage.
    Waits(LocalBoxFuture<'static, Response>),
    /// The second stage of a request that waits for other clients and holds nothing of what was
    /// received: it takes up the connection's limits alone, for the clients it waits for need
    /// room.
    Parks(LocalBoxFuture<'static, Response>),
    /// The second stage of a request whose batches are in memory until they are written, whatever
    /// becomes of the client.
    Appends(LocalBoxFuture<'static, (Response, Rest)>),
}

/// What holds memory after the response; none if nothing does.
pub(crate) type Rest = Option<LocalBoxFuture<'static, ()>>;

impl Stage {
    /// A frame to send at once.
    pub(crate) fn frame(frame: Bytes) -> Self {
        Self::Done(Response::Frame(frame))
    }

    /// A second stage.
    pub(crate) fn waits(work: impl Future<Output = Response> + 'static) -> Self {
        Self::Waits(Box::pin(work))
    }

    /// Looks whether the response is there.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Response, Rest)> {
        match self {
            Self::Done(response) => {
                Poll::Ready((std::mem::replace(response, Response::Nothing), None))
            }
            Self::Waits(work) | Self::Parks(work) => {
                work.as_mut().poll(cx).map(|response| (response, None))
            }
            Self::Appends(work) => work.as_mut().poll(cx),
        }
    }

    /// Bytes of a response that waits to be sent.
    pub(crate) fn ready_bytes(&self) -> usize {
        match self {
            Self::Done(response) => response.len(),
            _ => 0,
        }
    }
}

impl Response {
    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nothing | Self::Close(_) => 0,
            Self::Frame(frame) => frame.len(),
            Self::Pieces(pieces) => pieces.iter().map(Chunk::len).sum(),
            Self::Pausing(response, _) => response.len(),
        }
    }

    /// The same, with the pause in the frame's `throttle_time_ms`.
    pub(crate) fn telling(self, key: ApiKey, version: i16, pause: Duration) -> Self {
        let ms = pause.as_millis().try_into().unwrap_or(i32::MAX);
        match self {
            Self::Frame(frame) => Self::Frame(tell_throttle(key, version, frame, ms)),
            Self::Pieces(mut pieces) => {
                if let Some(Chunk::Bytes(front)) = pieces.first_mut() {
                    *front = tell_throttle(key, version, std::mem::take(front), ms);
                }
                Self::Pieces(pieces)
            }
            Self::Pausing(response, other) => {
                Self::Pausing(Box::new(response.telling(key, version, pause)), other)
            }
            Self::Nothing | Self::Close(_) => self,
        }
    }

    /// The response itself, and the longest of its pauses.
    pub(crate) fn and_pause(self) -> (Self, Duration) {
        match self {
            Self::Pausing(response, pause) => {
                let (response, inner) = response.and_pause();
                (response, pause.max(inner))
            }
            response => (response, Duration::ZERO),
        }
    }

    /// The same, and then the client is not heard for so long.
    pub(crate) fn pausing(self, pause: Duration) -> Self {
        match pause {
            Duration::ZERO => self,
            pause => Self::Pausing(Box::new(self), pause),
        }
    }
}

impl Chunk {
    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File { len, .. } => *len as usize,
        }
    }
}
