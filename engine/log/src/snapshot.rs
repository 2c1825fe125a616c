//! Producer snapshots: Kafka's `<offset>.snapshot`, the state of the idempotent producers as the
//! log's batches before that offset have left it.
//!
//! Kafka's version 1, byte for byte, so that its dump tool reads it:
//! ```text
//! version i16 = 1 | crc u32 (CRC-32C of all that follows) | entries i32 | per entry:
//! producer id i64 | producer epoch i16 | last sequence i32 | last offset i64 | offset delta i32
//! timestamp i64 | coordinator epoch i32 | first offset of the open transaction i64
//! ```
//! Kafka writes one entry for each producer, its last batch, and so forgets four of the five
//! batches over which it promises to find duplicates. Here a producer has as many entries as
//! batches are known, oldest first; a reader that keeps the last one only is still right. Pure.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmill_wire::batch::NO_SEQUENCE;
use thiserror::Error;

use crate::producers::{BATCHES_KEPT, PRODUCERS_MAX, ProducerEntry, Producers, WrittenBatch};
use crate::transactions::OPEN_MAX;

const VERSION: i16 = 1;
const HEADER_LEN: usize = 2 + 4 + 4;
const ENTRY_LEN: usize = 46;
/// The first offset of a transaction when none is open.
const NONE: i64 = -1;
/// Why a snapshot cannot be used. The one before it, or the log itself, has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// Another version of the format.
    #[error("version {0}, but only version {VERSION} is known")]
    Version(i16),
    /// It is not what was written.
    #[error("CRC does not match")]
    Crc,
    /// Too short, too long, or too many entries.
    #[error("{entries} entries in {bytes} bytes")]
    Length {
        /// As it says.
        entries: i64,
        /// Bytes of the file.
        bytes: usize,
    },
}

/// How many entries a producer takes.
fn slots(entry: &ProducerEntry) -> usize {
    entry.batches.len().max(1)
}

/// The file's content.
pub fn encode(producers: &Producers) -> Bytes {
    let entries: usize = producers.iter().map(|(_, entry)| slots(entry)).sum();
    let mut out = BytesMut::with_capacity(HEADER_LEN + entries * ENTRY_LEN);
    out.put_i16(VERSION);
    out.put_u32(0);
    out.put_i32(entries as i32);
    for (producer_id, entry) in producers.iter() {
        for n in 0..slots(entry) {
            let none = WrittenBatch {
                last_sequence: entry.last_before,
                ..WrittenBatch::NONE
            };
            let batch = entry.batches.get(n).copied().unwrap_or(none);
            let last = n + 1 == slots(entry);
            out.put_i64(producer_id);
            out.put_i16(entry.epoch);
            out.put_i32(batch.last_sequence);
            out.put_i64(batch.last_offset);
            out.put_i32(batch.offset_delta);
            out.put_i64(if last {
                entry.timestamp
            } else {
                batch.timestamp
            });
            out.put_i32(entry.coordinator_epoch);
            out.put_i64(entry.txn.unwrap_or(NONE));
        }
    }
    let crc = crc32c::crc32c(&out[6..]);
    out[2..6].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

/// Reads a snapshot; all producers count as active at `now_ms`.
pub fn parse(file: &[u8], now_ms: i64) -> Result<Producers, SnapshotError> {
    let mut bytes = file;
    let length = |entries| SnapshotError::Length {
        entries,
        bytes: file.len(),
    };
    let version = bytes.try_get_i16().map_err(|_| length(0))?;
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let crc = bytes.try_get_u32().map_err(|_| length(0))?;
    if crc != crc32c::crc32c(bytes) {
        return Err(SnapshotError::Crc);
    }
    let entries = bytes.try_get_i32().map_err(|_| length(0))?;
    let (slots, rest) = bytes.as_chunks::<ENTRY_LEN>();
    let fits = slots.len() as i64 == i64::from(entries) && rest.is_empty();
    if !fits || slots.len() > (PRODUCERS_MAX + OPEN_MAX) * BATCHES_KEPT {
        return Err(length(entries.into()));
    }
    let mut producers = Producers::new();
    for slot in slots {
        let mut slot = &slot[..];
        let (producer_id, epoch) = (slot.get_i64(), slot.get_i16());
        let batch = WrittenBatch {
            last_sequence: slot.get_i32(),
            last_offset: slot.get_i64(),
            offset_delta: slot.get_i32(),
            timestamp: slot.get_i64(),
        };
        let restored = ProducerEntry {
            epoch,
            batches: VecDeque::new(),
            last_before: match batch.last_offset {
                0.. => NO_SEQUENCE,
                _ => batch.last_sequence.max(NO_SEQUENCE),
            },
            timestamp: batch.timestamp,
            coordinator_epoch: slot.get_i32(),
            txn: Some(slot.get_i64()).filter(|first| *first >= 0),
            active_at: now_ms,
        };
        let batch = (batch.last_offset >= 0).then_some(batch);
        producers.restore(producer_id, restored, batch);
    }
    Ok(producers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(epoch: i16, timestamp: i64, txn: Option<i64>) -> ProducerEntry {
        ProducerEntry {
            epoch,
            batches: VecDeque::new(),
            last_before: NO_SEQUENCE,
            timestamp,
            coordinator_epoch: 5,
            txn,
            active_at: 77,
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_reads_back_with_all_batches(
            batches in prop::collection::vec(
                (0i64..4, 0i16..2, any::<i32>(), 0i64.., any::<i32>(), any::<i64>(), any::<bool>()),
                0..40,
            ),
            flip: prop::sample::Index,
        ) {
            let mut producers = Producers::new();
            for (id, epoch, last_sequence, last_offset, offset_delta, timestamp, open) in batches {
                let batch = WrittenBatch { last_sequence, last_offset, offset_delta, timestamp };
                let entry = entry(epoch, timestamp, open.then_some(1_000 + id));
                producers.restore(id, entry, Some(batch));
            }
            producers.restore(9, entry(3, 8, None), None);
            let due = ProducerEntry { last_before: 41, ..entry(3, 8, None) };
            producers.restore(10, due, None);
            let mut file = encode(&producers).to_vec();
            prop_assert_eq!(parse(&file, 77), Ok(producers));
            let at = flip.index(file.len() * 8);
            file[at / 8] ^= 1 << (at % 8);
            prop_assert!(parse(&file, 77).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let _ = parse(&bytes, 0);
            // and past the CRC
            if bytes.len() >= 6 {
                bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
                let crc = crc32c::crc32c(&bytes[6..]);
                bytes[2..6].copy_from_slice(&crc.to_be_bytes());
                let _ = parse(&bytes, 0);
            }
        }
    }

    #[test]
    fn the_layout_is_kafkas() {
        let mut producers = Producers::new();
        let batch = WrittenBatch {
            last_sequence: 9,
            last_offset: 109,
            offset_delta: 9,
            timestamp: 1_000,
        };
        producers.restore(4242, entry(3, 1_000, Some(100)), Some(batch));
        let file = encode(&producers);
        let expected = [
            &1i16.to_be_bytes()[..],
            &crc32c::crc32c(&file[6..]).to_be_bytes(),
            &1i32.to_be_bytes(),
            &4242i64.to_be_bytes(),
            &3i16.to_be_bytes(),
            &9i32.to_be_bytes(),
            &109i64.to_be_bytes(),
            &9i32.to_be_bytes(),
            &1_000i64.to_be_bytes(),
            &5i32.to_be_bytes(),
            &100i64.to_be_bytes(),
        ]
        .concat();
        assert_eq!(file, expected);
    }
}
