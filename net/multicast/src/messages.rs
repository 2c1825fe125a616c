//! Messages over streams: each as long as it is, in the order in which its sender sent them.
//!
//! A message is its length in four bytes (big-endian), then its bytes. NORM marks in each segment
//! where the first message of it begins: who joins a stream, or has lost a part of it, goes on
//! with the next message that begins behind.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::receiver::Chunk;
use crate::wire::NodeId;

/// Bytes in front of a message.
pub const LENGTH: usize = 4;

/// What a message begins with on its stream; none if it is too long for that.
pub fn length(message: &[u8]) -> Option<[u8; LENGTH]> {
    Some(u32::try_from(message.len()).ok()?.to_be_bytes())
}

/// What comes out of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message {
        /// Whose.
        sender: NodeId,
        /// Which life of it.
        instance: u16,
        /// The stream.
        stream: u64,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Messages are lost: so many bytes are gone for good, and with them what began or ended
    /// there.
    Gap {
        /// Whose.
        sender: NodeId,
        /// Which life of it.
        instance: u16,
        /// The stream.
        stream: u64,
        /// Bytes of the stream.
        lost: u64,
    },
}

/// One stream.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes that were received and belong to no finished message; they begin with one.
    held: BytesMut,
    /// The place in the stream where a message begins is known.
    in_step: bool,
}

impl Frames {
    fn is_fresh(&self) -> bool {
        !self.in_step && self.held.is_empty()
    }

    /// Falls out of step: goes on with the next message that is marked.
    fn fall_out(&mut self) {
        self.held.clear();
        self.in_step = false;
    }

    /// Takes a piece and hands out the messages that it completes. False if one is longer than
    /// `max`.
    fn push(
        &mut self,
        mut bytes: Bytes,
        start: Option<usize>,
        max: usize,
        out: &mut Vec<Bytes>,
    ) -> bool {
        if !self.in_step {
            let Some(start) = start else { return true };
            bytes = bytes.slice(start..);
            self.in_step = true;
        }
        loop {
            // Of what is whole within its piece, nothing is copied.
            let head = match self.held.is_empty() {
                true => &bytes[..],
                false => {
                    let missing = self.missing().min(bytes.len());
                    self.held.extend_from_slice(&bytes.split_to(missing));
                    &self.held[..]
                }
            };
            let Some((length, body)) = head.split_first_chunk::<LENGTH>() else {
                return self.hold(bytes);
            };
            let len = u32::from_be_bytes(*length) as usize;
            if len > max {
                return false;
            }
            if body.len() < len {
                let whole = self.held.is_empty();
                if whole || bytes.is_empty() {
                    return self.hold(bytes);
                }
                continue;
            }
            out.push(match self.held.is_empty() {
                true => bytes.split_to(LENGTH + len).slice(LENGTH..),
                false => self.held.split().freeze().slice(LENGTH..),
            });
            if bytes.is_empty() {
                return true;
            }
        }
    }

    /// Bytes that the held message still lacks, as far as its length is known.
    fn missing(&self) -> usize {
        match self.held.split_first_chunk::<LENGTH>() {
            None => LENGTH - self.held.len(),
            Some((length, body)) => u32::from_be_bytes(*length) as usize - body.len(),
        }
    }

    fn hold(&mut self, bytes: Bytes) -> bool {
        self.held.extend_from_slice(&bytes);
        true
    }
}

/// The messages of all streams that a receiver reads.
#[derive(Debug)]
pub struct Inbox {
    /// The longest message; a longer one is passed over as if it were lost.
    max: usize,
    streams: BTreeMap<(NodeId, u16, u64), Frames>,
    ready: VecDeque<Received>,
}

impl Inbox {
    /// For messages of at most `max` bytes.
    pub fn new(max: usize) -> Inbox {
        Inbox {
            max,
            streams: BTreeMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes a piece of a stream.
    pub fn on_chunk(&mut self, chunk: Chunk) {
        let (sender, instance, stream) = (chunk.sender, chunk.instance, chunk.stream);
        let frames = self.streams.entry((sender, instance, stream)).or_default();
        let gap = |lost| Received::Gap {
            sender,
            instance,
            stream,
            lost,
        };
        if chunk.lost > 0 {
            frames.fall_out();
            self.ready.push_back(gap(chunk.lost));
        }
        let len = chunk.bytes.len() as u64;
        let mut messages = Vec::new();
        let fits = frames.push(chunk.bytes, chunk.message_start, self.max, &mut messages);
        let message = |bytes| Received::Message {
            sender,
            instance,
            stream,
            bytes,
        };
        self.ready.extend(messages.into_iter().map(message));
        if !fits {
            frames.fall_out();
            self.ready.push_back(gap(len));
        }
    }

    /// A sender's streams are over; what was begun of them will not be finished.
    pub fn forget(&mut self, sender: NodeId) {
        self.streams.retain(|(id, ..), _| *id != sender);
    }

    /// Streams that are in the middle of a message.
    pub fn unfinished(&self) -> usize {
        let begun = |frames: &&Frames| !frames.is_fresh() && !frames.held.is_empty();
        self.streams.values().filter(begun).count()
    }

    /// The next message or gap.
    pub fn next_received(&mut self) -> Option<Received> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn chunk(offset: u64, lost: u64, message_start: Option<usize>, bytes: &[u8]) -> Chunk {
        Chunk {
            sender: 1,
            instance: 1,
            stream: 0,
            offset,
            lost,
            message_start,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    fn messages(inbox: &mut Inbox) -> Vec<Option<Vec<u8>>> {
        std::iter::from_fn(|| inbox.next_received())
            .map(|received| match received {
                Received::Message { bytes, .. } => Some(bytes.to_vec()),
                Received::Gap { .. } => None,
            })
            .collect()
    }

    #[test]
    fn too_long_a_message_is_passed_over() {
        let mut inbox = Inbox::new(5);
        inbox.on_chunk(chunk(0, 0, Some(0), b"\0\0\0\x06abc"));
        inbox.on_chunk(chunk(7, 0, Some(3), b"def\0\0\0\x01x"));
        assert_eq!(messages(&mut inbox), [None, Some(b"x".to_vec())]);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            lens in vec(0usize..40, 1..30),
            cuts in vec(1usize..50, 1..60),
            gone in vec(any::<bool>(), 60),
            joined in 0usize..5,
        ) {
            // The stream, the messages' beginnings, and each segment as NORM would cut it.
            let mut stream = Vec::new();
            let mut starts = Vec::new();
            let mut sent = Vec::new();
            for (number, len) in lens.into_iter().enumerate() {
                let message = vec![number as u8; len];
                starts.push(stream.len());
                stream.extend(length(&message).unwrap());
                stream.extend(&message);
                sent.push(message);
            }
            let mut inbox = Inbox::new(40);
            let (mut at, mut lost, mut cut) = (0, 0, cuts.into_iter().cycle());
            let mut intact = vec![true; sent.len()];
            let mut segment = 0;
            while at < stream.len() {
                let end = (at + cut.next().unwrap()).min(stream.len());
                let is_gone = segment < joined || (segment < 60 && gone[segment] && segment % 7 == 3);
                if is_gone {
                    if segment >= joined {
                        lost += (end - at) as u64;
                    }
                    for (number, start) in starts.iter().enumerate() {
                        let over = start + LENGTH + sent[number].len();
                        if *start < end && over > at {
                            intact[number] = false;
                        }
                    }
                } else {
                    let start = starts.iter().find(|s| (at..end).contains(*s)).map(|s| s - at);
                    inbox.on_chunk(chunk(at as u64, lost, start, &stream[at..end]));
                    lost = 0;
                }
                at = end;
                segment += 1;
            }
            let got: Vec<Vec<u8>> = messages(&mut inbox).into_iter().flatten().collect();
            let whole = intact.iter().zip(sent).filter(|(intact, _)| **intact);
            let expected: Vec<Vec<u8>> = whole.map(|(_, message)| message).collect();
            prop_assert_eq!(got, expected);
            if intact.iter().all(|intact| *intact) {
                prop_assert_eq!(inbox.unfinished(), 0);
            }
        }
    }
}
