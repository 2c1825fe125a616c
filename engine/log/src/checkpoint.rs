//! What is known to be durable, written down: the recovery point and the log's start.
//!
//! The file `checkpoint` holds two slots in blocks of their own, written in turn, each with a
//! sequence number and a CRC, so that a crash in the middle of one write leaves the other. The
//! blocks exist from the start, so that a checkpoint costs one fdatasync without a journal
//! commit. Recovery trusts what lies before the recovery point and looks only at what lies
//! behind it; damage before it is damage, never a torn tail. Byte by byte: FORMAT.md. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::batch::BatchHeader;

use crate::index::OffsetsDigest;
use crate::mend::time_of;
use crate::time_index::MaxTimestamp;

/// From one slot to the next: a disk block, so that a torn write hits one slot only.
pub const SLOT_STRIDE: usize = 4096;
/// Bytes of a slot that mean something.
pub const SLOT_LEN: usize = 128;
/// Bytes of the file.
pub const FILE_LEN: usize = 2 * SLOT_STRIDE;

const MAGIC: &[u8; 4] = b"RMCP";
const VERSION: u16 = 1;
const CRC_AT: usize = SLOT_LEN - 4;

/// An end of the log: everything before it was appended, written or flushed, depending on whose
/// mark it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Base offset of the segment that the end lies in.
    pub segment: i64,
    /// Bytes of that segment's log file.
    pub position: u64,
    /// The offset after the last one.
    pub offset: i64,
    /// Of the segment, up to here.
    pub max: MaxTimestamp,
    /// Of the segment's batches up to here, if it is known: a checkpoint of an earlier version
    /// does not tell.
    pub digest: Option<OffsetsDigest>,
}

impl Mark {
    /// The start of a new segment.
    pub fn start_of(base_offset: i64) -> Self {
        Mark {
            segment: base_offset,
            position: 0,
            offset: base_offset,
            max: MaxTimestamp::NONE,
            digest: Some(OffsetsDigest::default()),
        }
    }

    /// After some offsets in so many bytes.
    #[cfg(test)]
    pub(crate) fn plus(self, offsets: i64, bytes: u64) -> Self {
        Mark {
            position: self.position + bytes,
            offset: self.offset + offsets,
            ..self
        }
    }

    /// After one more batch.
    pub fn after(self, header: &BatchHeader) -> Self {
        let last_offset = header.last_offset();
        let digest = self.digest.map(|mut digest| {
            digest.on_batch(header.base_offset);
            digest
        });
        Mark {
            segment: self.segment,
            position: self.position + header.size() as u64,
            offset: last_offset + 1,
            max: self.max.with(time_of(header), last_offset),
            digest,
        }
    }
}

/// From where the producers' state must be built up again: the snapshot before it, then what the
/// log holds from here on. Always in the recovery point's segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The snapshot to start from, by the offset in its name; `None` to start from nothing.
    pub snapshot: Option<i64>,
    /// Bytes into the segment's log file; a batch begins here.
    pub position: u64,
    /// The offset of that batch.
    pub offset: i64,
}

/// One slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Grows by one with each checkpoint.
    pub sequence: u64,
    /// The first offset that readers may have (delete-records, retention).
    pub log_start_offset: i64,
    /// Everything before it is on the disk.
    pub recovery_point: Mark,
    /// For the producers' state.
    pub replay: Replay,
    /// Of a replicated partition.
    pub replicated: Option<Replicated>,
}

/// What a replica knew of the others, as a hint (Kafka's `replication-offset-checkpoint`): it may
/// lag behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicated {
    /// The high watermark.
    pub high_watermark: i64,
    /// The first offset of the transactions whose markers stand behind the high watermark: the
    /// producers' snapshot does not tell of those that it has seen the end of.
    pub first_undecided: Option<i64>,
}

impl Checkpoint {
    /// Where this checkpoint's slot stands.
    pub fn position(&self) -> u64 {
        (self.sequence % 2) * SLOT_STRIDE as u64
    }

    /// The slot's bytes.
    pub fn encode(&self) -> Bytes {
        let point = &self.recovery_point;
        let mut out = BytesMut::with_capacity(SLOT_LEN);
        out.put_slice(MAGIC);
        out.put_u16(VERSION);
        out.put_u16(0);
        out.put_u64(self.sequence);
        out.put_i64(self.log_start_offset);
        out.put_i64(point.segment);
        out.put_u64(point.position);
        out.put_i64(point.offset);
        out.put_i64(point.max.timestamp);
        out.put_i64(point.max.offset);
        out.put_u64(self.replay.position);
        out.put_i64(self.replay.offset);
        out.put_i64(self.replay.snapshot.unwrap_or(-1));
        let hint = self.replicated;
        let undecided = hint.and_then(|hint| hint.first_undecided);
        // one more than the offset: zeros are what earlier versions wrote
        out.put_i64(hint.map_or(0, |hint| hint.high_watermark + 1));
        out.put_i64(undecided.map_or(0, |first| first + 1));
        let digest = point.digest.filter(|_| point.position > 0);
        out.put_u64(digest.map_or(0, |digest| u64::from(digest.get()) + 1));
        out.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out.freeze()
    }

    fn parse_slot(bytes: &[u8]) -> Option<Self> {
        let slot = bytes.first_chunk::<SLOT_LEN>()?;
        let (content, crc) = slot.split_at(CRC_AT);
        let known = content[..4] == *MAGIC && content[4..6] == VERSION.to_be_bytes();
        if !known || crc != crc32c::crc32c(content).to_be_bytes() {
            return None;
        }
        let fields = content[8..].as_chunks::<8>().0;
        let int = |n: usize| i64::from_be_bytes(fields[n]);
        let checkpoint = Checkpoint {
            sequence: int(0) as u64,
            log_start_offset: int(1),
            recovery_point: Mark {
                segment: int(2),
                position: u64::try_from(int(3)).ok()?,
                offset: int(4),
                max: MaxTimestamp {
                    timestamp: int(5),
                    offset: int(6),
                },
                digest: match int(3) {
                    0 => Some(OffsetsDigest::default()),
                    _ => int(12)
                        .checked_sub(1)
                        .and_then(|digest| u32::try_from(digest).ok())
                        .map(OffsetsDigest::of),
                },
            },
            replay: Replay {
                position: u64::try_from(int(7)).ok()?,
                offset: int(8),
                snapshot: (int(9) >= 0).then(|| int(9)),
            },
            replicated: Self::parse_replicated(int(10), int(11)),
        };
        checkpoint.is_sound().then_some(checkpoint)
    }

    /// What earlier versions have left as zeros.
    fn parse_replicated(high_watermark: i64, first_undecided: i64) -> Option<Replicated> {
        Some(Replicated {
            high_watermark: high_watermark.checked_sub(1).filter(|hw| *hw >= 0)?,
            first_undecided: first_undecided.checked_sub(1).filter(|first| *first >= 0),
        })
    }

    fn is_sound(&self) -> bool {
        let (point, replay) = (&self.recovery_point, &self.replay);
        0 <= point.segment
            && 0 <= self.log_start_offset
            && (point.segment..=point.offset).contains(&replay.offset)
            && replay.position <= point.position
    }

    /// The latest sound slot of the file.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let first = Self::parse_slot(file);
        let second = file.get(SLOT_STRIDE..).and_then(Self::parse_slot);
        first
            .into_iter()
            .chain(second)
            .max_by_key(|slot| slot.sequence)
    }

    /// Whether the log's start may go back if the latest slot is lost: it may be in the page cache
    /// alone, when whoever wrote it was killed before the flush.
    pub fn moves_start(file: &[u8]) -> bool {
        let slots = [
            Self::parse_slot(file),
            file.get(SLOT_STRIDE..).and_then(Self::parse_slot),
        ];
        match slots {
            [Some(one), Some(other)] => one.log_start_offset != other.log_start_offset,
            // Without any, the log begins where its first segment does.
            [Some(only), None] | [None, Some(only)] => only.log_start_offset > 0,
            [None, None] => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(sequence: u64) -> Checkpoint {
        Checkpoint {
            sequence,
            log_start_offset: 5 + sequence as i64,
            recovery_point: Mark {
                position: 4096,
                offset: 150,
                max: MaxTimestamp {
                    timestamp: 1_700_000_000_000,
                    offset: 149,
                },
                digest: (!sequence.is_multiple_of(3)).then_some(OffsetsDigest::of(sequence as u32)),
                ..Mark::start_of(100)
            },
            replay: Replay {
                snapshot: Some(120),
                position: 1000,
                offset: 120,
            },
            replicated: (sequence % 2 == 1).then_some(Replicated {
                high_watermark: 140,
                first_undecided: (sequence % 4 == 1).then_some(0),
            }),
        }
    }

    fn file_of(checkpoints: &[Checkpoint]) -> Vec<u8> {
        let mut file = vec![0; FILE_LEN];
        for c in checkpoints {
            file[c.position() as usize..][..SLOT_LEN].copy_from_slice(&c.encode());
        }
        file
    }

    #[test]
    fn the_later_slot_counts() {
        assert_eq!(Checkpoint::parse(&file_of(&[])), None);
        assert_eq!(Checkpoint::parse(&file_of(&[sample(4)])), Some(sample(4)));
        assert_eq!(
            Checkpoint::parse(&file_of(&[sample(4), sample(5)])),
            Some(sample(5))
        );
        assert_eq!(
            Checkpoint::parse(&file_of(&[sample(5), sample(6)])),
            Some(sample(6))
        );
    }

    #[test]
    fn a_start_that_only_the_latest_slot_knows_may_go_back() {
        let same = |sequence| Checkpoint {
            log_start_offset: 7,
            ..sample(sequence)
        };
        let first = Checkpoint {
            log_start_offset: 0,
            ..sample(1)
        };
        assert!(!Checkpoint::moves_start(&file_of(&[])));
        assert!(!Checkpoint::moves_start(&file_of(&[first])));
        assert!(!Checkpoint::moves_start(&file_of(&[same(4), same(5)])));
        assert!(Checkpoint::moves_start(&file_of(&[same(4)])));
        assert!(Checkpoint::moves_start(&file_of(&[sample(4), sample(5)])));
    }

    proptest! {
        /// A crash in the middle of writing a slot: any bytes of it may be old or garbage.
        #[test]
        fn a_torn_slot_leaves_the_one_before(
            sequence in 1u64..9, torn_at in 0..SLOT_LEN, garbage: u8,
        ) {
            let (old, new) = (sample(sequence), sample(sequence + 1));
            let mut file = file_of(&[sample(sequence - 1), old]);
            let whole = new.encode();
            let slot = &mut file[new.position() as usize..][..SLOT_LEN];
            slot[..torn_at].copy_from_slice(&whole[..torn_at]);
            slot[torn_at] = garbage;
            let found = Checkpoint::parse(&file).unwrap();
            prop_assert!(found == old || (found == new && slot_is_whole(&file, &new)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2 * FILE_LEN)) {
            prop_assert_eq!(Checkpoint::parse(&bytes), None);
        }
    }

    fn slot_is_whole(file: &[u8], c: &Checkpoint) -> bool {
        file[c.position() as usize..][..SLOT_LEN] == c.encode()[..]
    }
}
