//! Idempotent producers: what each wrote last, so that a batch that is sent again is not written
//! again (KIP-98), and a lost one is noticed.
//!
//! Kafka's rules (`ProducerStateManager`, `ProducerAppendInfo`): per producer id the last five
//! batches are known. A batch whose sequence numbers are those of a known one is a duplicate; the
//! next must follow the last without a gap; a new epoch starts at sequence 0; an older epoch is
//! fenced. A producer that is not known may start anywhere (KIP-360), unless its transactions are of
//! version 2 (KIP-890): then at 0. Idle producers expire, and
//! past [`PRODUCERS_MAX`] those that were idle longest are forgotten; those with an open
//! transaction (`transactions.rs`) stay. Pure.

use std::collections::{BTreeMap, VecDeque};

use ringmill_ring::planted;
use ringmill_wire::batch::{BatchHeader, NO_SEQUENCE, advance_sequence};
use ringmill_wire::marker::EndTxnMarker;
use thiserror::Error;

use crate::transactions::{EndedTxn, OpenTxns, VerificationGuard, Verifications};

/// Batches known of each producer: as many as a client may have in flight
/// (`max.in.flight.requests.per.connection`).
pub const BATCHES_KEPT: usize = 5;
/// What stands for the epoch of a coordinator that has written no marker.
pub const NO_COORDINATOR: i32 = -1;
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
    /// A batch outside of the transaction that its producer has open here, or one that would begin
    /// a transaction that the coordinator does not know of.
    #[error("producer {producer_id} epoch {producer_epoch}: the batch is in no known transaction")]
    InvalidTxnState {
        /// Whose batch it is.
        producer_id: i64,
        /// Its epoch.
        producer_epoch: i16,
    },
    /// A marker of a coordinator that has been replaced.
    #[error("producer {producer_id}: coordinator epoch {found} is older than {current}")]
    CoordinatorFenced {
        /// Whose marker it is.
        producer_id: i64,
        /// The newest coordinator that wrote a marker.
        current: i32,
        /// The marker's coordinator.
        found: i32,
    },
    /// More transactions are open than one partition keeps.
    #[error("too many transactions are open in this partition")]
    TooManyTransactions,
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
    /// What stands for the last batch of a producer that has written nothing in its epoch but a
    /// marker before it.
    pub const NONE: Self = WrittenBatch {
        last_sequence: NO_SEQUENCE,
        last_offset: -1,
        offset_delta: 0,
        timestamp: -1,
    };

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
    /// Its last batches in this epoch, oldest first; at most [`BATCHES_KEPT`]. None if a marker
    /// has brought the epoch.
    pub batches: VecDeque<WrittenBatch>,
    /// The sequence number before that of its next batch, as long as there are no batches; −1 if 0
    /// is due.
    pub last_before: i32,
    /// The largest timestamp of its last batch or marker (milliseconds).
    pub timestamp: i64,
    /// Who wrote its last marker; −1 if there is none.
    pub coordinator_epoch: i32,
    /// The first offset of the transaction that it has open.
    pub txn: Option<i64>,
    /// When it wrote last, by this broker's clock (milliseconds). Not by the batch's timestamps:
    /// those are the producer's and may lie years back.
    pub active_at: i64,
}

impl ProducerEntry {
    fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(self.last_before, |batch| batch.last_sequence)
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
    /// Epoch of the coordinator that wrote its last marker; −1 if there is none.
    pub coordinator_epoch: i32,
    /// First offset of the transaction that it has open.
    pub txn_start_offset: Option<i64>,
}

impl ActiveProducer {
    pub(crate) fn of((id, entry): (i64, &ProducerEntry)) -> Self {
        ActiveProducer {
            id,
            epoch: entry.epoch,
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            txn_start_offset: entry.txn,
        }
    }
}

/// Takes one append back: see [`Producers::undo`].
#[derive(Debug)]
pub struct Undo {
    producer_id: i64,
    change: Change,
    /// The transaction that it began.
    began: Option<i64>,
    /// The transaction that it ended.
    ended: Option<i64>,
}

#[derive(Debug)]
enum Change {
    Added,
    Pushed {
        forgotten: Option<WrittenBatch>,
        timestamp: i64,
    },
    Replaced(Box<ProducerEntry>),
}

/// The idempotent producers of one partition, and their transactions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, ProducerEntry>,
    txns: OpenTxns,
    verifications: Verifications,
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

    /// Whether a batch of an idempotent producer may be appended. Batches of others may. The first
    /// batch of a transaction needs a guard.
    pub fn check(
        &self,
        header: &BatchHeader,
        guard: Option<&VerificationGuard>,
    ) -> Result<Verdict, ProducerError> {
        if !header.has_producer_id() {
            return Ok(Verdict::New);
        }
        let Some(entry) = self.entries.get(&header.producer_id) else {
            self.check_transaction(header, None, guard)?;
            let from_zero = guard.is_some_and(VerificationGuard::wants_zero);
            if from_zero && header.base_sequence > 0 {
                return Err(out_of_order(header, NO_SEQUENCE));
            }
            return Ok(Verdict::New);
        };
        check_epoch(header.producer_id, header.producer_epoch, entry)?;
        if header.base_sequence == NO_SEQUENCE {
            // a coordinator's own batch, of offsets that a transaction commits: it knows what it
            // has appended
            self.check_transaction(header, entry.txn, guard)?;
            return Ok(Verdict::New);
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
            self.check_transaction(header, entry.txn, guard)?;
            return Ok(Verdict::New);
        }
        Err(out_of_order(header, last))
    }

    fn check_transaction(
        &self,
        header: &BatchHeader,
        open: Option<i64>,
        guard: Option<&VerificationGuard>,
    ) -> Result<(), ProducerError> {
        let producer = (header.producer_id, header.producer_epoch);
        let allowed = match (header.is_transactional(), open) {
            (false, open) => open.is_none(),
            (true, Some(_)) => true,
            (true, None) => guard.is_some_and(|guard| self.verifications.allows(guard, producer)),
        };
        if !allowed {
            return Err(ProducerError::InvalidTxnState {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
            });
        }
        let begins = header.is_transactional() && open.is_none();
        if begins && self.txns.is_full() {
            return Err(ProducerError::TooManyTransactions);
        }
        Ok(())
    }

    /// Whether a marker may be appended.
    pub fn check_marker(&self, marker: &EndTxnMarker) -> Result<(), ProducerError> {
        let Some(entry) = self.entries.get(&marker.producer_id) else {
            return Ok(());
        };
        check_epoch(marker.producer_id, marker.producer_epoch, entry)?;
        if marker.coordinator_epoch < entry.coordinator_epoch && !planted("markers-unfenced") {
            return Err(ProducerError::CoordinatorFenced {
                producer_id: marker.producer_id,
                current: entry.coordinator_epoch,
                found: marker.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Whether the producer has a transaction open in this epoch.
    pub fn has_open_transaction(&self, producer_id: i64, producer_epoch: i16) -> bool {
        let entry = self.entries.get(&producer_id);
        entry.is_some_and(|entry| entry.epoch == producer_epoch && entry.txn.is_some())
    }

    /// Begins to verify a producer's first batch in a transaction.
    pub fn begin_verification(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
    ) -> VerificationGuard {
        self.verifications.begin(producer_id, producer_epoch)
    }

    /// Whether the guard still allows its producer to open a transaction.
    pub fn is_valid(&self, guard: &VerificationGuard) -> bool {
        self.verifications.allows(guard, guard.producer())
    }

    /// The first offset that no marker has decided, or whose marker is not visible yet.
    pub fn first_unstable(&self) -> Option<i64> {
        self.txns.first_unstable()
    }

    /// The log is visible up to `end`.
    pub fn on_visible(&mut self, end: i64) {
        self.txns.on_visible(end);
    }

    /// Holds the last stable offset at `first`, a transaction of which nothing more is known than
    /// that its marker stands at `marker` or before it, until that is visible.
    pub(crate) fn hold(&mut self, first: i64, marker: i64) {
        self.txns.hold(first, marker);
    }

    /// The first offset of the transactions whose markers are not visible yet.
    pub(crate) fn first_ended(&self) -> Option<i64> {
        self.txns.first_ended()
    }

    /// A batch, data or marker, was appended, by the offsets in `header`; no check. Returns what
    /// takes it back, if it has a producer, and the transaction that it has ended.
    pub fn on_batch(
        &mut self,
        header: &BatchHeader,
        marker: Option<&EndTxnMarker>,
        now_ms: i64,
    ) -> (Option<Undo>, Option<EndedTxn>) {
        match marker {
            Some(marker) => {
                let (undo, ended) = self.on_marker(header, marker, now_ms);
                (Some(undo), ended)
            }
            None if header.is_control() => (None, None),
            None => (self.on_appended(header, now_ms), None),
        }
    }

    fn on_marker(
        &mut self,
        header: &BatchHeader,
        marker: &EndTxnMarker,
        now_ms: i64,
    ) -> (Undo, Option<EndedTxn>) {
        let producer_id = marker.producer_id;
        self.verifications.end(producer_id);
        if !self.entries.contains_key(&producer_id) {
            self.make_room();
        }
        let old = self.entries.get(&producer_id).cloned();
        let mut entry = old.clone().unwrap_or_else(|| ProducerEntry {
            epoch: marker.producer_epoch,
            batches: VecDeque::new(),
            last_before: NO_SEQUENCE,
            timestamp: header.max_timestamp,
            coordinator_epoch: marker.coordinator_epoch,
            txn: None,
            active_at: now_ms,
        });
        if entry.epoch != marker.producer_epoch {
            entry.epoch = marker.producer_epoch;
            entry.batches.clear();
            entry.last_before = NO_SEQUENCE;
        }
        entry.timestamp = header.max_timestamp;
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.active_at = now_ms;
        let ended = entry.txn.take();
        self.entries.insert(producer_id, entry);
        let last_offset = header.last_offset();
        let txn = ended.map(|first_offset| EndedTxn {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: self.txns.end(first_offset, last_offset),
            aborted: !marker.committed,
        });
        let undo = Undo {
            producer_id,
            change: old.map_or(Change::Added, |old| Change::Replaced(Box::new(old))),
            began: None,
            ended,
        };
        (undo, txn)
    }

    fn on_appended(&mut self, header: &BatchHeader, now_ms: i64) -> Option<Undo> {
        if !header.has_producer_id() {
            return None;
        }
        let producer_id = header.producer_id;
        let batch = WrittenBatch::of(header);
        let first = header.is_transactional().then_some(header.base_offset);
        let new_entry = |old: Option<&ProducerEntry>| ProducerEntry {
            epoch: header.producer_epoch,
            batches: VecDeque::from([batch]),
            last_before: NO_SEQUENCE,
            timestamp: header.max_timestamp,
            coordinator_epoch: old.map_or(NO_COORDINATOR, |old| old.coordinator_epoch),
            txn: old.and_then(|old| old.txn).or(first),
            active_at: now_ms,
        };
        let began = match self.entries.get(&producer_id).and_then(|entry| entry.txn) {
            Some(_) => None,
            None => first,
        };
        if let Some(first) = began {
            self.txns.begin(first, producer_id);
            self.verifications.end(producer_id);
        }
        let change = match self.entries.get_mut(&producer_id) {
            None => {
                self.make_room();
                self.entries.insert(producer_id, new_entry(None));
                Change::Added
            }
            Some(entry) if entry.epoch != header.producer_epoch => {
                let new = new_entry(Some(entry));
                Change::Replaced(Box::new(std::mem::replace(entry, new)))
            }
            Some(entry) => {
                let full = entry.batches.len() == BATCHES_KEPT;
                let forgotten = if full {
                    entry.batches.pop_front()
                } else {
                    None
                };
                entry.batches.push_back(batch);
                let timestamp = std::mem::replace(&mut entry.timestamp, header.max_timestamp);
                entry.txn = entry.txn.or(first);
                entry.active_at = now_ms;
                Change::Pushed {
                    forgotten,
                    timestamp,
                }
            }
        };
        Some(Undo {
            producer_id,
            change,
            began,
            ended: None,
        })
    }

    /// Takes appends back that did not reach the disk: the latest first, none left out.
    pub fn undo(&mut self, undo: Undo) {
        if let Some(first) = undo.began {
            self.txns.cancel_begin(first);
        }
        if let Some(first) = undo.ended {
            self.txns.cancel_end(first, undo.producer_id);
        }
        match undo.change {
            Change::Added => self.forget_batches(undo.producer_id),
            Change::Replaced(entry) => {
                self.entries.insert(undo.producer_id, *entry);
            }
            Change::Pushed {
                forgotten,
                timestamp,
            } => {
                // it may have expired meanwhile
                if let Some(entry) = self.entries.get_mut(&undo.producer_id) {
                    entry.batches.pop_back();
                    entry.timestamp = timestamp;
                    if undo.began.is_some() {
                        entry.txn = None;
                    }
                    if let Some(batch) = forgotten {
                        entry.batches.push_front(batch);
                    }
                }
            }
        }
    }

    /// The first batch of a producer that was not known was taken back. The producer stays known as
    /// one of which that batch is due: its next batches, which are on their way already, must not take
    /// the place of the first.
    fn forget_batches(&mut self, producer_id: i64) {
        let Some(entry) = self.entries.get_mut(&producer_id) else {
            return;
        };
        let first = entry.batches.front().map(WrittenBatch::base_sequence);
        match first.filter(|first| *first != NO_SEQUENCE) {
            Some(first) => {
                entry.batches.clear();
                // 0 follows nothing, or the last number before the sequence wraps
                entry.last_before = first - 1;
                entry.txn = None;
            }
            None => {
                self.entries.remove(&producer_id);
            }
        }
    }

    /// Forgets those who wrote nothing for `idle_ms`. Returns whether there were any.
    pub fn expire(&mut self, now_ms: i64, idle_ms: i64) -> bool {
        let before = self.entries.len();
        let limit = now_ms.saturating_sub(idle_ms);
        self.entries
            .retain(|_, entry| entry.txn.is_some() || entry.active_at > limit);
        self.entries.len() < before
    }

    /// Whether a batch of the log holds what its producer, still known, wrote last: its sequence
    /// number is needed if the producers must be learnt from the log again.
    pub(crate) fn is_last(&self, header: &BatchHeader) -> bool {
        let entry = self.entries.get(&header.producer_id);
        entry.is_some_and(|entry| match entry.batches.back() {
            Some(last) => last.last_offset == header.last_offset(),
            None => header.is_control() && header.producer_epoch == entry.epoch,
        })
    }

    /// Room for one more: if full, the eighth that was idle longest is forgotten. There are fewer
    /// open transactions than that leaves.
    fn make_room(&mut self) {
        if self.entries.len() < PRODUCERS_MAX {
            return;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.txn.is_none());
        let mut by_age: Vec<(i64, i64)> = idle.map(|(id, entry)| (entry.active_at, *id)).collect();
        let (oldest, _, _) = by_age.select_nth_unstable(PRODUCERS_MAX / 8);
        for (_, id) in oldest {
            self.entries.remove(id);
        }
    }

    /// Puts a producer in as a snapshot has it; of what it wrote, `batch` comes next.
    pub(crate) fn restore(
        &mut self,
        producer_id: i64,
        restored: ProducerEntry,
        batch: Option<WrittenBatch>,
    ) {
        let entry = self.entries.entry(producer_id);
        let entry = entry.or_insert_with(|| restored.clone());
        if let Some(first) = entry.txn {
            self.txns.cancel_begin(first);
        }
        if let Some(first) = restored.txn {
            self.txns.begin(first, producer_id);
        }
        let same = entry.epoch == restored.epoch;
        let batches = std::mem::take(&mut entry.batches);
        *entry = ProducerEntry {
            batches: if same { batches } else { VecDeque::new() },
            ..restored
        };
        if entry.batches.len() == BATCHES_KEPT {
            entry.batches.pop_front();
        }
        entry.batches.extend(batch);
    }
}

fn out_of_order(header: &BatchHeader, last: i32) -> ProducerError {
    ProducerError::OutOfOrderSequence {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        last,
        found: header.base_sequence,
    }
}

fn check_epoch(id: i64, found: i16, entry: &ProducerEntry) -> Result<(), ProducerError> {
    if found >= entry.epoch {
        return Ok(());
    }
    Err(ProducerError::InvalidProducerEpoch {
        producer_id: id,
        current: entry.epoch,
        found,
    })
}

#[cfg(test)]
#[path = "producers_test.rs"]
mod tests;
