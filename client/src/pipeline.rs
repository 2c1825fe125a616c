//! The requests in flight on one connection: answers come in the order of the requests, each with
//! its correlation id.
//!
//! Pure: bytes in, answered requests out. `W` is whatever waits for the answer.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use ringmill_wire::frame::{Frame, FrameError, split_frame};
use thiserror::Error;

/// Most requests in flight on a connection; more is a programmer's error, since each user of a
/// connection has a limit of its own below this.
const MAX_IN_FLIGHT: usize = 4096;
/// Most bytes reserved at once for the rest of a frame, so that a length alone allocates little.
const RESERVE_MAX: usize = 4 << 20;
/// Bytes reserved for what may come when nothing is known.
const RESERVE_MIN: usize = 16 << 10;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// What came is no frame.
    #[error("the peer is no Kafka broker: {0}")]
    Frame(#[from] FrameError),
    /// A response without a correlation id.
    #[error("a response of {0} bytes has no correlation id")]
    Short(usize),
    /// A response to no request, or out of order.
    #[error("response {came} came where response {expected:?} was due")]
    OutOfOrder {
        /// Its correlation id.
        came: i32,
        /// That of the oldest request in flight, if any.
        expected: Option<i32>,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pipeline<W> {
    waiting: VecDeque<(i32, W)>,
    next_id: i32,
    received: BytesMut,
    max_frame: usize,
}

impl<W> Pipeline<W> {
    /// Takes responses of at most `max_frame` bytes.
    pub(crate) fn new(max_frame: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            next_id: 0,
            received: BytesMut::new(),
            max_frame,
        }
    }

    /// The correlation id of the next request.
    pub(crate) fn next_id(&mut self) -> i32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1) & i32::MAX;
        id
    }

    /// A request was sent that will be answered.
    ///
    /// # Panics
    /// If there are more in flight than any user of a connection sends.
    pub(crate) fn on_sent(&mut self, id: i32, waiter: W) {
        assert!(
            self.waiting.len() < MAX_IN_FLIGHT,
            "{MAX_IN_FLIGHT} requests in flight on one connection"
        );
        self.waiting.push_back((id, waiter));
    }

    /// Takes the receive buffer, with room for more; to be given back by
    /// [`Pipeline::on_received`].
    pub(crate) fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.received)
    }

    /// The receive buffer comes back with what has arrived.
    pub(crate) fn on_received(&mut self, received: BytesMut) {
        self.received = received;
    }

    /// The next answered request with the response's whole frame. `None` when more must be
    /// received first, for which the buffer then has room.
    pub(crate) fn next_answer(&mut self) -> Result<Option<(W, Bytes)>, ProtocolError> {
        match split_frame(&mut self.received, self.max_frame)? {
            Frame::Partial { missing } => {
                let room = missing.clamp(RESERVE_MIN, RESERVE_MAX);
                self.received.reserve(room);
                Ok(None)
            }
            Frame::Complete(frame) => {
                let came = correlation_id(&frame)?;
                let expected = self.waiting.front().map(|(id, _)| *id);
                match self.waiting.pop_front_if(|(id, _)| *id == came) {
                    Some((_, waiter)) => Ok(Some((waiter, frame))),
                    None => Err(ProtocolError::OutOfOrder { came, expected }),
                }
            }
        }
    }

    /// The connection is over: whoever still waited.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = W> + use<W> {
        self.received = BytesMut::new();
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, waiter)| waiter)
    }
}

fn correlation_id(frame: &[u8]) -> Result<i32, ProtocolError> {
    match frame.first_chunk() {
        Some(id) => Ok(i32::from_be_bytes(*id)),
        None => Err(ProtocolError::Short(frame.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(id: i32, body: &[u8]) -> Vec<u8> {
        let length = (4 + body.len()) as i32;
        [&length.to_be_bytes()[..], &id.to_be_bytes(), body].concat()
    }

    fn receive(pipeline: &mut Pipeline<char>, bytes: &[u8]) {
        let mut buffer = pipeline.take_buffer();
        buffer.extend_from_slice(bytes);
        pipeline.on_received(buffer);
    }

    fn pipeline_with(waiters: &str) -> Pipeline<char> {
        let mut pipeline = Pipeline::new(1 << 20);
        for waiter in waiters.chars() {
            let id = pipeline.next_id();
            pipeline.on_sent(id, waiter);
        }
        pipeline
    }

    #[test]
    fn answers_find_their_requests_across_any_cut() {
        let stream = [response(0, b"one"), response(1, b""), response(2, b"three")].concat();
        for cut in 0..stream.len() {
            let mut pipeline = pipeline_with("abc");
            let mut answers = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                receive(&mut pipeline, part);
                while let Some((waiter, frame)) = pipeline.next_answer().unwrap() {
                    answers.push((waiter, frame[4..].to_vec()));
                }
            }
            let expected = [
                ('a', b"one".to_vec()),
                ('b', vec![]),
                ('c', b"three".to_vec()),
            ];
            assert_eq!(answers, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_response_out_of_order_ends_the_connection() {
        let mut pipeline = pipeline_with("ab");
        receive(&mut pipeline, &response(1, b"x"));
        let error = ProtocolError::OutOfOrder {
            came: 1,
            expected: Some(0),
        };
        assert_eq!(pipeline.next_answer(), Err(error));
        assert_eq!(pipeline.close().collect::<String>(), "ab");
    }

    #[test]
    fn a_response_nobody_waits_for_ends_the_connection() {
        let mut pipeline = pipeline_with("");
        receive(&mut pipeline, &response(0, b"x"));
        assert!(matches!(
            pipeline.next_answer(),
            Err(ProtocolError::OutOfOrder { expected: None, .. })
        ));
    }

    #[test]
    fn a_frame_too_short_or_too_long_ends_the_connection() {
        let mut pipeline = pipeline_with("a");
        receive(&mut pipeline, &[0, 0, 0, 2, 9, 9]);
        assert_eq!(pipeline.next_answer(), Err(ProtocolError::Short(2)));
        let mut pipeline = pipeline_with("a");
        receive(&mut pipeline, &(2_i32 << 20).to_be_bytes());
        assert!(matches!(
            pipeline.next_answer(),
            Err(ProtocolError::Frame(FrameError::TooLarge { .. }))
        ));
    }

    #[test]
    fn a_claimed_length_alone_allocates_little() {
        let mut pipeline: Pipeline<char> = Pipeline::new(1 << 30);
        receive(&mut pipeline, &(1_i32 << 29).to_be_bytes());
        assert_eq!(pipeline.next_answer(), Ok(None));
        assert!(pipeline.take_buffer().capacity() <= RESERVE_MAX + 64);
    }
}
