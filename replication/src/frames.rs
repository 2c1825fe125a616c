//! A journal of numbered frames, appended and flushed before any of them counts.
//!
//! ```text
//! journal  each frame twice, one behind the other; the changes are numbered from 0
//! frame    FF "RMJ", CRC-32C of what follows u32, payload length u32, number of the change u64,
//!          payload
//! ```
//!
//! Numbers are big-endian. A frame begins with a byte that no UTF-8 text has, so none is found
//! inside of a name. Of the last change, one whole copy is enough, and none means that a crash tore
//! its write, of which nobody was told. Any other change has at least one whole copy, or the journal
//! is refused with the place of the damage: what comes behind was acknowledged. So one flipped bit,
//! or one lost sector of a change that fills several, loses nothing wherever it is. Each write to
//! the file is one frame: of several, a crash could lose the first and leave the second.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

const MAGIC: &[u8; 4] = b"\xffRMJ";
const HEADER_LEN: usize = 20;
/// The CRC covers the frame from here on.
const CRC_FROM: usize = 8;
const COPIES: usize = 2;

/// A change in the middle of a journal is lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the journal is damaged at byte {at}: {reason}; restore it from a copy")]
pub struct Damaged {
    /// Where the damage begins.
    pub at: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// A journal that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The payload of each change, and the byte at which its frame begins.
    pub changes: Vec<(usize, Bytes)>,
    /// Where the next frame belongs; bytes from here on were torn off a write.
    pub end: usize,
    /// A copy of a change that counts is not whole: the journal is to be rewritten.
    pub is_worn: bool,
}

impl Scan {
    /// The number of the next change.
    pub fn next(&self) -> u64 {
        self.changes.len() as u64
    }
}

/// Appends a change.
///
/// # Panics
/// If it is empty or has more than 4 GiB.
pub fn encode(number: u64, payload: &[u8], out: &mut BytesMut) {
    assert!(!payload.is_empty(), "a change changes something");
    let start = out.len();
    out.reserve(encoded_len(payload.len()) as usize);
    out.put_slice(MAGIC);
    out.put_u32(0);
    out.put_u32(u32::try_from(payload.len()).expect("changes are smaller"));
    out.put_u64(number);
    out.put_slice(payload);
    let crc = crc32c::crc32c(&out[start + CRC_FROM..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
    let frame = start..out.len();
    for _ in 1..COPIES {
        out.extend_from_within(frame.clone());
    }
}

/// How many bytes a change of so many takes.
pub fn encoded_len(payload: usize) -> u64 {
    (COPIES * (HEADER_LEN + payload)) as u64
}

/// Reads a whole journal.
///
/// # Errors
/// A change that was acknowledged has no whole copy.
pub fn scan(journal: &Bytes) -> Result<Scan, Damaged> {
    let mut scan = Scan {
        changes: Vec::new(),
        end: 0,
        is_worn: false,
    };
    // Where a copy should be that is not whole, and why it is not, until the next that is.
    let mut damage: Option<(usize, &'static str)> = None;
    let mut at = 0;
    while at < journal.len() {
        let frame = match Frame::at(&journal[at..]) {
            Ok(frame) => frame,
            Err(reason) => {
                damage.get_or_insert((at, reason));
                match next_frame(&journal[at + 1..]) {
                    Some(skipped) => at += 1 + skipped,
                    None => break,
                }
                continue;
            }
        };
        if frame.number == scan.next() {
            let payload = journal.slice(at + HEADER_LEN..at + frame.len());
            scan.changes.push((at, payload));
        } else if frame.number.checked_add(1) != Some(scan.next()) {
            let missing = (at, "a change is missing");
            let (at, reason) = damage.unwrap_or(missing);
            return Err(Damaged { at, reason });
        }
        scan.is_worn |= damage.take().is_some();
        at += frame.len();
        scan.end = at;
    }
    Ok(scan)
}

/// A whole frame.
struct Frame {
    number: u64,
    payload_len: usize,
}

impl Frame {
    /// The frame that `bytes` begin with.
    fn at(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((mut header, rest)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err("a frame's header is cut off");
        };
        if !header.starts_with(MAGIC) {
            return Err("a frame does not begin here");
        }
        header.advance(MAGIC.len());
        let (crc, len, number) = (header.get_u32(), header.get_u32(), header.get_u64());
        let payload_len = len as usize;
        if payload_len > rest.len() {
            return Err("a frame is cut off");
        }
        if crc32c::crc32c(&bytes[CRC_FROM..HEADER_LEN + payload_len]) != crc {
            return Err("a frame's checksum does not match");
        }
        Ok(Self {
            number,
            payload_len,
        })
    }

    fn len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }
}

/// Where the first whole frame begins in `bytes`.
fn next_frame(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(MAGIC.len()).enumerate();
    let mut starts = starts.filter(|(_, window)| window == MAGIC);
    starts.find_map(|(at, _)| Frame::at(&bytes[at..]).is_ok().then_some(at))
}
