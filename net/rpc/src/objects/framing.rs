//! Messages cut out of a stream of bytes: Cap'n Proto's standard framing, read by limits.
//!
//! A message begins with the number of its segments less one, and the length of each in words of
//! eight bytes, all of four bytes and together padded to a word. What the library itself reads, it
//! makes room for by these claims; here they are checked first, and memory grows with the bytes
//! that have come.
//!
//! Source: Cap'n Proto, "Encoding", "Serialization Over a Stream".

use std::fmt;

use bytes::{Buf, BytesMut};
use capnp::Word;
use capnp::message::{Builder, HeapAllocator, ReaderSegments};

/// Bytes of a word.
const WORD: usize = 8;
const ZERO: Word = capnp::word(0, 0, 0, 0, 0, 0, 0, 0);
/// Bytes of the count, and of each length.
const FIELD: usize = 4;

/// How large a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Segments of one message.
    pub segments_max: usize,
    /// Bytes of one message, without its table of segments.
    pub bytes_max: usize,
}

/// What is wrong with the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It claims more segments than are allowed.
    #[error("a message of {claimed} segments, at most {max} are allowed")]
    Segments {
        /// Segments by its table.
        claimed: u64,
        /// The limit.
        max: usize,
    },
    /// It claims to be longer than is allowed.
    #[error("a message of {claimed} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes by its table.
        claimed: u64,
        /// The limit.
        max: usize,
    },
    /// Its first segment, where the root must be, is empty.
    #[error("a message without a root")]
    Empty,
}

/// One message as it was received.
pub struct Frame {
    words: Vec<Word>,
    /// First word and end of each segment.
    segments: Vec<(u32, u32)>,
}

impl Frame {
    /// A message of our own, as its receiver has it.
    pub(super) fn of(message: &Builder<HeapAllocator>) -> Frame {
        let (mut words, mut segments) = (Vec::new(), Vec::new());
        for segment in message.get_segments_for_output().iter() {
            let first = words.len();
            words.resize(first + segment.len() / WORD, ZERO);
            Word::words_to_bytes_mut(&mut words[first..]).copy_from_slice(segment);
            segments.push((first as u32, words.len() as u32));
        }
        Frame { words, segments }
    }

    /// Bytes of all segments.
    pub fn size(&self) -> usize {
        self.words.len() * WORD
    }

    /// All segments, one after the other.
    pub(super) fn bytes(&self) -> &[u8] {
        Word::words_to_bytes(&self.words)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        Word::words_to_bytes_mut(&mut self.words)
    }
}

impl ReaderSegments for Frame {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        let (first, end) = *self.segments.get(index as usize)?;
        Some(Word::words_to_bytes(
            &self.words[first as usize..end as usize],
        ))
    }

    fn len(&self) -> usize {
        self.segments.len()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.size())
            .field("segments", &self.segments.len())
            .finish()
    }
}

/// Cuts one stream into its messages.
#[derive(Debug)]
pub struct Framing {
    limits: FrameLimits,
    /// The message whose table has been read.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    frame: Frame,
    /// Bytes of the whole message.
    len: usize,
    /// Bytes that have come.
    filled: usize,
}

impl Framing {
    /// A stream of which nothing has been read.
    pub fn new(limits: FrameLimits) -> Self {
        Framing {
            limits,
            begun: None,
        }
    }

    /// A table has been read, and its message is not complete.
    pub fn is_within_message(&self) -> bool {
        self.begun.is_some()
    }

    /// The next message, if it is complete. Takes what belongs to it out of `input`, and leaves
    /// there no more than a table that is not complete.
    ///
    /// # Errors
    /// If a table claims what is not allowed. The stream is of no further use then.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => match self.table(input)? {
                Some(begun) => begun,
                None => return Ok(None),
            },
        };
        begun.fill(input);
        if begun.filled < begun.len {
            self.begun = Some(begun);
            return Ok(None);
        }
        Ok(Some(begun.frame))
    }

    /// Reads a table of segments, if all of it is there.
    fn table(&self, input: &mut BytesMut) -> Result<Option<Begun>, FrameError> {
        let Some(count) = field(input, 0) else {
            return Ok(None);
        };
        let (claimed, max) = (u64::from(count) + 1, self.limits.segments_max);
        if claimed > max as u64 {
            return Err(FrameError::Segments { claimed, max });
        }
        let count = claimed as usize;
        let table = ((1 + count) * FIELD).next_multiple_of(WORD);
        if input.len() < table {
            return Ok(None);
        }
        let lengths = (1..=count).filter_map(|at| field(input, at));
        let words: u64 = lengths.clone().map(u64::from).sum();
        let (claimed, max) = (words.saturating_mul(WORD as u64), self.limits.bytes_max);
        if claimed > max as u64 || words > u64::from(u32::MAX) {
            return Err(FrameError::TooLong { claimed, max });
        }
        let mut end = 0;
        let segments: Vec<_> = lengths
            .map(|words| {
                let first = end;
                end += words;
                (first, end)
            })
            .collect();
        if segments.first().is_none_or(|(first, end)| first == end) {
            return Err(FrameError::Empty);
        }
        input.advance(table);
        let words = Vec::new();
        Ok(Some(Begun {
            frame: Frame { words, segments },
            len: claimed as usize,
            filled: 0,
        }))
    }
}

impl Begun {
    /// Takes what has come of the message.
    fn fill(&mut self, input: &mut BytesMut) {
        let count = input.len().min(self.len - self.filled);
        let end = self.filled + count;
        self.frame.words.resize(end.div_ceil(WORD), ZERO);
        self.frame.bytes_mut()[self.filled..end].copy_from_slice(&input[..count]);
        input.advance(count);
        self.filled = end;
    }
}

/// A little-endian field of four bytes, counted from the beginning.
fn field(input: &[u8], at: usize) -> Option<u32> {
    let bytes = input.get(at * FIELD..(at + 1) * FIELD)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: FrameLimits = FrameLimits {
        segments_max: 4,
        bytes_max: 1024,
    };

    fn framed(segments: &[&[u64]]) -> Vec<u8> {
        let mut bytes = (segments.len() as u32 - 1).to_le_bytes().to_vec();
        for segment in segments {
            bytes.extend((segment.len() as u32).to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        let words = segments.iter().copied().flatten();
        bytes.extend(words.flat_map(|word| word.to_le_bytes()));
        bytes
    }

    fn segments(frame: &Frame) -> Vec<Vec<u64>> {
        let all = (0..).map_while(|index| frame.get_segment(index));
        let words = |segment: &[u8]| {
            let words = segment.chunks_exact(WORD);
            words
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
                .collect()
        };
        all.map(words).collect()
    }

    #[test]
    fn messages_are_cut_wherever_the_stream_breaks() {
        let messages: [&[&[u64]]; 3] = [&[&[1, 2, 3]], &[&[4], &[], &[5, 6]], &[&[7], &[8]]];
        let stream = messages.map(framed).concat();
        for step in 1..=stream.len() {
            let mut framing = Framing::new(LIMITS);
            let (mut input, mut cut) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(frame) = framing.next(&mut input).unwrap() {
                    assert_eq!(frame.size() % WORD, 0);
                    cut.push(segments(&frame));
                }
            }
            assert_eq!(cut, messages, "in steps of {step}");
            assert!(input.is_empty() && !framing.is_within_message());
        }
    }

    #[test]
    fn claims_beyond_the_limits_are_refused_before_their_bytes_come() {
        let refused = |bytes: &[u8]| {
            let mut input = BytesMut::from(bytes);
            Framing::new(LIMITS).next(&mut input).unwrap_err()
        };
        // The count alone is enough; so is the largest, which wraps in four bytes.
        let segments = |claimed| FrameError::Segments { claimed, max: 4 };
        assert_eq!(refused(&4_u32.to_le_bytes()), segments(5));
        assert_eq!(refused(&[255; 4]), segments(1 << 32));
        let two = [1_u32, 100, 29, 0].map(u32::to_le_bytes).concat();
        let too_long = |claimed| FrameError::TooLong { claimed, max: 1024 };
        assert_eq!(refused(&two), too_long(129 * 8));
        let most = [3, u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0];
        let most = most.map(u32::to_le_bytes).concat();
        assert_eq!(refused(&most), too_long(4 * 8 * u64::from(u32::MAX)));
        let rootless = [1_u32, 0, 5, 0].map(u32::to_le_bytes).concat();
        assert_eq!(refused(&rootless), FrameError::Empty);
    }

    #[test]
    fn memory_grows_with_what_has_come() {
        let limits = FrameLimits {
            bytes_max: 1 << 30,
            ..LIMITS
        };
        let mut framing = Framing::new(limits);
        let claim = [0_u32, 1 << 27].map(u32::to_le_bytes).concat();
        let mut input = BytesMut::from(&claim[..]);
        input.extend_from_slice(&[1; 100]);
        assert!(framing.next(&mut input).unwrap().is_none());
        assert!(framing.is_within_message());
        let words = &framing.begun.as_ref().unwrap().frame.words;
        assert!(words.capacity() * WORD < 1024, "{}", words.capacity());
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_or_refused(bytes: Vec<u8>, step in 1_usize..64) {
            let mut framing = Framing::new(LIMITS);
            let mut input = BytesMut::new();
            for piece in bytes.chunks(step) {
                input.extend_from_slice(piece);
                loop {
                    match framing.next(&mut input) {
                        Ok(Some(frame)) => prop_assert!(frame.size() <= LIMITS.bytes_max),
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(input.len() < 2 * FIELD + LIMITS.segments_max * FIELD);
            }
        }
    }
}
