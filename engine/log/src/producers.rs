//! Idempotent producers: what each wrote last, so that a batch that is sent again is not written
//! again (KIP-98), and a lost one is noticed.
//!
//! Kafka's rules (`ProducerStateManager`, `ProducerAppendInfo`): per producer id the last five
//! batches are known. A batch whose sequence numbers are those of a known one is a duplicate; the
//! next must follow the last without a gap; a new epoch starts at sequence 0; an older epoch is
//! fenced. A producer that is not known may start anywhere (KIP-360). Idle producers expire, and
//! past [`PRODUCERS_MAX`] those that were idle longest are forgotten. Pure.

use std::collections::{BTreeMap, VecDeque};

use ringmill_wire::batch::{BatchHeader, NO_SEQUENCE, advance_sequence};
use thiserror::Error;

/// Batches known of each producer: as many as a client may have in flight
/// (`max.in.flight.requests.per.connection`).
pub const BATCHES_KEPT: usize = 5;
/// Producers known, at most.
pub const PRODUCERS_MAX: usize = 65_536;

/// Why a batch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProducerError {
    /// Batches between the last one and this one are missing, or it is an old one that was
    /// forgotten.
    #[error(
        "producer {producer_id} epoch {producer_epoch}: sequence {found} does not follow {last}"
    )]
    OutOfOrderSequence {
        /// Whose batch it is.
        producer_id: i64,
        /// Its epoch.
        producer_epoch: i16,
        /// The last sequence number that was appended; −1 if this epoch has appended nothing.
        last: i32,
        /// The batch's first sequence number.
        found: i32,
    },
    /// A newer instance of the producer has written.
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    InvalidProducerEpoch {
        /// Whose batch it is.
        producer_id: i64,
        /// The newest epoch that wrote.
        current: i16,
        /// The batch's epoch.
        found: i16,
    },
}

/// What became of a batch's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To be appended.
    New,
    /// It is in the log already.
    Duplicate(WrittenBatch),
}

/// A batch that a producer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenBatch {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Records less one.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: i64,
}

impl WrittenBatch {
    fn of(header: &BatchHeader) -> Self {
        WrittenBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    /// Offset of its first record.
    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    /// Sequence number of its first record.
    pub fn base_sequence(&self) -> i32 {
        if self.last_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        advance_sequence(self.last_sequence, self.offset_delta.wrapping_neg())
    }
}

/// One producer's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The newest epoch that wrote.
    pub epoch: i16,
    /// Its last batches, oldest first; at least one, at most [`BATCHES_KEPT`].
    pub batches: VecDeque<WrittenBatch>,
    /// When it wrote last, by this broker's clock (milliseconds). Not by the batch's timestamps:
    /// those are the producer's and may lie years back.
    pub active_at: i64,
}

impl ProducerEntry {
    fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }
}

/// A producer as administrators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub id: i64,
    /// The newest epoch that wrote.
    pub epoch: i16,
    /// Sequence number of the last record that it wrote.
    pub last_sequence: i32,
    /// Largest timestamp of its last batch, in milliseconds.
    pub last_timestamp: i64,
}

impl ActiveProducer {
    pub(crate) fn of((id, entry): (i64, &ProducerEntry)) -> Option<Self> {
        let last = entry.batches.back()?;
        Some(ActiveProducer {
            id,
            epoch: entry.epoch,
            last_sequence: last.last_sequence,
            last_timestamp: last.timestamp,
        })
    }
}

/// Takes one append back: see [`Producers::undo`].
#[derive(Debug)]
pub struct Undo {
    producer_id: i64,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Added,
    Pushed { forgotten: Option<WrittenBatch> },
    Replaced(Box<ProducerEntry>),
}

/// The idempotent producers of one partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, ProducerEntry>,
}

impl Producers {
    /// None known.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By producer id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// Whether a batch of an idempotent producer may be appended. Batches of others may.
    pub fn check(&self, header: &BatchHeader) -> Result<Verdict, ProducerError> {
        if !header.has_producer_id() {
            return Ok(Verdict::New);
        }
        let Some(entry) = self.entries.get(&header.producer_id) else {
            return Ok(Verdict::New);
        };
        if header.producer_epoch < entry.epoch {
            return Err(ProducerError::InvalidProducerEpoch {
                producer_id: header.producer_id,
                current: entry.epoch,
                found: header.producer_epoch,
            });
        }
        let same_epoch = header.producer_epoch == entry.epoch;
        if same_epoch {
            let (first, last) = (header.base_sequence, header.last_sequence());
            let known = |b: &&WrittenBatch| b.last_sequence == last && b.base_sequence() == first;
            if let Some(batch) = entry.batches.iter().find(known) {
                return Ok(Verdict::Duplicate(*batch));
            }
        }
        let last = if same_epoch {
            entry.last_sequence()
        } else {
            NO_SEQUENCE
        };
        // wraps to 0; and what follows nothing is 0
        if header.base_sequence == advance_sequence(last, 1) {
            return Ok(Verdict::New);
        }
        Err(ProducerError::OutOfOrderSequence {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            last,
            found: header.base_sequence,
        })
    }

    /// A batch was appended, by the offsets in `header`; no check. Returns what takes it back,
    /// if its producer is idempotent.
    pub fn on_appended(&mut self, header: &BatchHeader, now_ms: i64) -> Option<Undo> {
        if !header.has_producer_id() {
            return None;
        }
        let producer_id = header.producer_id;
        let batch = WrittenBatch::of(header);
        let new_entry = || ProducerEntry {
            epoch: header.producer_epoch,
            batches: VecDeque::from([batch]),
            active_at: now_ms,
        };
        let change = match self.entries.get_mut(&producer_id) {
            None => {
                self.make_room();
                self.entries.insert(producer_id, new_entry());
                Change::Added
            }
            Some(entry) if entry.epoch != header.producer_epoch => {
                Change::Replaced(Box::new(std::mem::replace(entry, new_entry())))
            }
            Some(entry) => {
                let full = entry.batches.len() == BATCHES_KEPT;
                let forgotten = if full {
                    entry.batches.pop_front()
                } else {
                    None
                };
                entry.batches.push_back(batch);
                entry.active_at = now_ms;
                Change::Pushed { forgotten }
            }
        };
        Some(Undo {
            producer_id,
            change,
        })
    }

    /// Takes appends back that did not reach the disk: the latest first, none left out.
    pub fn undo(&mut self, undo: Undo) {
        match undo.change {
            Change::Added => {
                self.entries.remove(&undo.producer_id);
            }
            Change::Replaced(entry) => {
                self.entries.insert(undo.producer_id, *entry);
            }
            Change::Pushed { forgotten } => {
                // it may have expired meanwhile
                if let Some(entry) = self.entries.get_mut(&undo.producer_id) {
                    entry.batches.pop_back();
                    if let Some(batch) = forgotten {
                        entry.batches.push_front(batch);
                    }
                }
            }
        }
    }

    /// Forgets those who wrote nothing for `idle_ms`. Returns whether there were any.
    pub fn expire(&mut self, now_ms: i64, idle_ms: i64) -> bool {
        let before = self.entries.len();
        let limit = now_ms.saturating_sub(idle_ms);
        self.entries.retain(|_, entry| entry.active_at > limit);
        self.entries.len() < before
    }

    /// Room for one more: if full, the eighth that was idle longest is forgotten.
    fn make_room(&mut self) {
        if self.entries.len() < PRODUCERS_MAX {
            return;
        }
        let mut by_age: Vec<(i64, i64)> = self
            .entries
            .iter()
            .map(|(id, entry)| (entry.active_at, *id))
            .collect();
        let (oldest, _, _) = by_age.select_nth_unstable(PRODUCERS_MAX / 8);
        for (_, id) in oldest {
            self.entries.remove(id);
        }
    }

    /// Puts a producer in as a snapshot has it.
    pub(crate) fn restore(
        &mut self,
        producer_id: i64,
        epoch: i16,
        batch: WrittenBatch,
        now_ms: i64,
    ) {
        let entry = self
            .entries
            .entry(producer_id)
            .or_insert_with(|| ProducerEntry {
                epoch,
                batches: VecDeque::new(),
                active_at: now_ms,
            });
        if entry.epoch != epoch {
            entry.epoch = epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == BATCHES_KEPT {
            entry.batches.pop_front();
        }
        entry.batches.push_back(batch);
    }
}

#[cfg(test)]
#[path = "producers_test.rs"]
mod tests;
