//! Frames: every Kafka message is preceded by its length as an INT32.
//!
//! [`split_frame`] takes one frame off the front of what was received, without copying, and says of
//! an incomplete one how many bytes are missing. A peer that speaks something else is told so.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of the length in front of each frame.
pub const LENGTH_LEN: usize = 4;
/// Default of `socket.request.max.bytes`: 100 MiB.
pub const DEFAULT_MAX_FRAME_LEN: usize = 100 << 20;

/// Why a stream of bytes cannot be Kafka's; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A negative length.
    #[error("frame length {0} is negative")]
    Negative(i32),
    /// A frame without content.
    #[error("frame is empty")]
    Empty,
    /// More than the limit.
    #[error("frame of {length} bytes exceeds the limit of {max}")]
    TooLarge {
        /// As the frame says.
        length: usize,
        /// The receiver's limit.
        max: usize,
    },
    /// A TLS ClientHello.
    #[error(
        "the peer speaks TLS, but this port speaks plain Kafka: set security.protocol=PLAINTEXT"
    )]
    Tls,
    /// An HTTP request.
    #[error("the peer speaks HTTP, but this port speaks the Kafka protocol")]
    Http,
}

/// What the front of a receive buffer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A frame's content, without the length; taken off the buffer and sharing its memory.
    Complete(Bytes),
    /// Not all of a frame yet; the buffer is untouched.
    Partial {
        /// Bytes to receive until the frame (or, before that, its length) is complete; never zero,
        /// and at most the limit and the length's own bytes.
        missing: usize,
    },
}

/// Takes one frame of at most `max` bytes off the front of `received`.
pub fn split_frame(received: &mut BytesMut, max: usize) -> Result<Frame, FrameError> {
    let Some(prefix) = received.first_chunk::<LENGTH_LEN>() else {
        return Ok(Frame::Partial {
            missing: LENGTH_LEN - received.len(),
        });
    };
    let length = frame_length(*prefix, max)?;
    let have = received.len() - LENGTH_LEN;
    if have < length {
        return Ok(Frame::Partial {
            missing: length - have,
        });
    }
    received.advance(LENGTH_LEN);
    Ok(Frame::Complete(received.split_to(length).freeze()))
}

/// The length that a frame's first four bytes state, if it is within 1 to `max`.
pub fn frame_length(prefix: [u8; LENGTH_LEN], max: usize) -> Result<usize, FrameError> {
    let stated = i32::from_be_bytes(prefix);
    let length = usize::try_from(stated).map_err(|_| FrameError::Negative(stated))?;
    match length {
        0 => Err(FrameError::Empty),
        1.. if length <= max => Ok(length),
        _ => Err(foreign(prefix).unwrap_or(FrameError::TooLarge { length, max })),
    }
}

/// Recognises what else is often sent to a port by mistake. Only asked when the length is over the
/// limit, which all of these are under limits below 355 MiB.
fn foreign(prefix: [u8; LENGTH_LEN]) -> Option<FrameError> {
    match &prefix {
        // a handshake record of TLS 1.x (RFC 8446 §5.1)
        [0x16, 0x03, 0..=4, _] => Some(FrameError::Tls),
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"CONN" | b"OPTI" | b"TRAC" | b"PATC"
        | b"PRI " => Some(FrameError::Http),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1000;

    fn split(bytes: &[u8]) -> Result<Frame, FrameError> {
        split_frame(&mut BytesMut::from(bytes), MAX)
    }

    #[test]
    fn bad_lengths_are_refused_from_the_first_four_bytes() {
        assert_eq!(
            split(&(-1_i32).to_be_bytes()),
            Err(FrameError::Negative(-1))
        );
        assert_eq!(
            split(&i32::MIN.to_be_bytes()),
            Err(FrameError::Negative(i32::MIN))
        );
        assert_eq!(split(&[0; 4]), Err(FrameError::Empty));
        let too_large = FrameError::TooLarge {
            length: MAX + 1,
            max: MAX,
        };
        assert_eq!(split(&(MAX as i32 + 1).to_be_bytes()), Err(too_large));
        let largest = split(&(MAX as i32).to_be_bytes());
        assert_eq!(largest, Ok(Frame::Partial { missing: MAX }));
    }

    #[test]
    fn tls_and_http_are_told_what_this_port_is() {
        let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
        let default = |bytes: &[u8]| split_frame(&mut BytesMut::from(bytes), DEFAULT_MAX_FRAME_LEN);
        assert_eq!(default(&hello), Err(FrameError::Tls));
        for verb in [
            "GET / HTTP/1.1",
            "POST /x",
            "OPTIONS *",
            "PRI * HTTP/2.0",
            "DELETE /",
        ] {
            assert_eq!(default(verb.as_bytes()), Err(FrameError::Http), "{verb}");
        }
        assert!(FrameError::Tls.to_string().contains("PLAINTEXT"));
    }

    #[test]
    fn a_dribbled_frame_always_says_what_is_missing() {
        let frame = [
            &9_i32.to_be_bytes()[..],
            b"123456789",
            &5_i32.to_be_bytes()[..],
        ]
        .concat();
        let mut received = BytesMut::new();
        for (at, byte) in frame[..13].iter().enumerate() {
            let missing = if at < 4 { 4 - at } else { 13 - at };
            assert_eq!(
                split_frame(&mut received, MAX),
                Ok(Frame::Partial { missing })
            );
            received.extend_from_slice(&[*byte]);
        }
        received.extend_from_slice(&frame[13..]);
        let complete = split_frame(&mut received, MAX);
        assert_eq!(
            complete,
            Ok(Frame::Complete(Bytes::from_static(b"123456789")))
        );
        assert_eq!(
            split_frame(&mut received, MAX),
            Ok(Frame::Partial { missing: 5 })
        );
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
            cuts in proptest::collection::vec(1_usize..20, 1..50),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend_from_slice(&(frame.len() as i32).to_be_bytes());
                stream.extend_from_slice(frame);
            }
            let (mut received, mut rest, mut out) = (BytesMut::new(), &stream[..], Vec::new());
            for cut in cuts.iter().cycle() {
                while let Frame::Complete(frame) = split_frame(&mut received, MAX).unwrap() {
                    out.push(frame.to_vec());
                }
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                received.extend_from_slice(now);
                rest = later;
            }
            prop_assert_eq!(out, frames);
            prop_assert!(received.is_empty());
        }
    }
}
