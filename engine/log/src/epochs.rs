//! Leader epochs: which leader wrote from which offset on (KIP-101, KIP-279).
//!
//! The list goes to `leader-epoch-checkpoint` in Kafka's text format. Epochs and start offsets
//! both grow strictly. Pure.

use std::fmt::Write as _;

use bytes::Bytes;
use thiserror::Error;

/// The version of the checkpoint's format.
const VERSION: &str = "0";
/// Leader changes kept, at most; the oldest go first. A follower that far behind is behind the
/// log's start as well.
pub const EPOCHS_MAX: usize = 10_000;

/// From `start_offset` on, the leader had this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader's epoch.
    pub epoch: i32,
    /// The first offset it wrote.
    pub start_offset: i64,
}

/// Why a checkpoint cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EpochFileError {
    /// Another version of the format.
    #[error("version {0:?}, but only version {VERSION} is known")]
    Version(String),
    /// A line that is no entry, or an entry count that does not fit.
    #[error("line {line} is malformed")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
}

/// The leader epochs of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochEntry>,
}

impl Epochs {
    /// None known.
    pub fn new() -> Self {
        Self::default()
    }

    /// In their order.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The latest epoch that wrote something.
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// A batch of `epoch` was appended at `offset`. Returns whether that is news. Entries that
    /// the new one contradicts (Kafka's `truncateFromEnd` in `assign`) go.
    pub fn on_batch(&mut self, epoch: i32, offset: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|last| last.epoch >= epoch) {
            return false;
        }
        let keep = self.entries.partition_point(|e| e.start_offset < offset);
        self.entries.truncate(keep);
        self.entries.push(EpochEntry {
            epoch,
            start_offset: offset,
        });
        if self.entries.len() > EPOCHS_MAX {
            self.entries.remove(0);
        }
        true
    }

    /// A batch of `epoch` was appended at `offset` as its leader has it. Unlike
    /// [`Epochs::on_batch`], an epoch that is older than the latest counts: this replica may have
    /// led, in an epoch of which nobody else has anything, from the very offset on at which it
    /// now gets another leader's batches. Entries that the new one contradicts go (Kafka's
    /// `assign`). Returns whether something changed.
    pub fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        if epoch < 0 {
            return false;
        }
        let newer = |e: &EpochEntry| e.epoch > epoch;
        let keep = self.entries.iter().position(newer);
        let keep = keep.unwrap_or(self.entries.len());
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        self.on_batch(epoch, offset) || changed
    }

    /// The log now ends before `end_offset`. Returns whether something changed.
    pub fn truncate_end(&mut self, end_offset: i64) -> bool {
        let keep = self
            .entries
            .partition_point(|e| e.start_offset < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// The log now starts at `start_offset`: of the epochs before it only the one that holds it
    /// stays, moved up. Returns whether something changed.
    pub fn truncate_start(&mut self, start_offset: i64) -> bool {
        let past = self
            .entries
            .partition_point(|e| e.start_offset <= start_offset);
        let Some(holds) = past.checked_sub(1) else {
            return false;
        };
        let changed = holds > 0 || self.entries[0].start_offset < start_offset;
        self.entries.drain(..holds);
        self.entries[0].start_offset = start_offset;
        changed
    }

    /// The epoch in which the batch of `offset` was written.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let past = self.entries.partition_point(|e| e.start_offset <= offset);
        past.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// The end of the largest epoch not above `epoch`, as OffsetForLeaderEpoch asks for it:
    /// that epoch and the first offset of the next one, or `log_end` for the latest. An epoch
    /// before all that are known ends, as in Kafka, where the first known one begins: what it
    /// wrote has left the log.
    pub fn end_of(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let past = self.entries.partition_point(|e| e.epoch <= epoch);
        let before = past.checked_sub(1).map(|last| self.entries[last].epoch);
        if epoch < 0 || self.entries.is_empty() {
            return None;
        }
        let found = before.unwrap_or(epoch);
        let end = self
            .entries
            .get(past)
            .map_or(log_end, |next| next.start_offset);
        Some((found, end))
    }

    /// As `leader-epoch-checkpoint` holds them.
    pub fn encode(&self) -> Bytes {
        let mut out = format!("{VERSION}\n{}\n", self.entries.len());
        for entry in &self.entries {
            writeln!(out, "{} {}", entry.epoch, entry.start_offset).expect("memory takes it");
        }
        out.into()
    }

    /// Reads a checkpoint.
    pub fn parse(bytes: &[u8]) -> Result<Self, EpochFileError> {
        let malformed = |line| EpochFileError::Malformed { line };
        let text = std::str::from_utf8(bytes).map_err(|_| malformed(1))?;
        let mut lines = text.lines();
        match lines.next() {
            Some(VERSION) => {}
            other => {
                return Err(EpochFileError::Version(
                    other.unwrap_or_default().to_owned(),
                ));
            }
        }
        let count: usize = lines
            .next()
            .and_then(|l| l.parse().ok())
            .ok_or(malformed(2))?;
        let mut epochs = Epochs::new();
        for (number, line) in (3..).zip(lines) {
            let (epoch, start) = line.split_once(' ').ok_or(malformed(number))?;
            let entry = EpochEntry {
                epoch: epoch.parse().map_err(|_| malformed(number))?,
                start_offset: start.parse().map_err(|_| malformed(number))?,
            };
            let grows = epochs
                .latest()
                .is_none_or(|l| entry.epoch > l.epoch && entry.start_offset > l.start_offset);
            if !grows || entry.epoch < 0 || epochs.entries.len() >= EPOCHS_MAX {
                return Err(malformed(number));
            }
            epochs.entries.push(entry);
        }
        if epochs.entries.len() == count {
            Ok(epochs)
        } else {
            Err(malformed(2))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::new();
        for &(epoch, offset) in entries {
            assert!(epochs.on_batch(epoch, offset));
        }
        epochs
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let e = epochs(&[(1, 0), (3, 10), (7, 25)]);
        assert_eq!(e.end_of(0, 40), Some((0, 0)));
        assert_eq!(e.end_of(-1, 40), None);
        assert_eq!(epochs(&[(3, 10)]).end_of(1, 40), Some((1, 10)));
        assert_eq!(Epochs::new().end_of(1, 40), None);
        assert_eq!(e.end_of(1, 40), Some((1, 10)));
        assert_eq!(e.end_of(2, 40), Some((1, 10)));
        assert_eq!(e.end_of(3, 40), Some((3, 25)));
        assert_eq!(e.end_of(9, 40), Some((7, 40)));
        assert_eq!(e.epoch_of(9), Some(1));
        assert_eq!(e.epoch_of(10), Some(3));
    }

    #[test]
    fn an_epoch_that_wrote_nothing_is_replaced() {
        let mut e = epochs(&[(1, 0), (3, 10)]);
        assert!(e.on_batch(4, 10));
        assert_eq!(e, epochs(&[(1, 0), (4, 10)]));
        assert!(!e.on_batch(4, 20), "known");
        assert!(!e.on_batch(2, 30), "old");
        assert!(!e.on_batch(-1, 30), "none");
    }

    #[test]
    fn an_older_epoch_replaces_one_that_nobody_else_has() {
        let mut e = epochs(&[(1, 0), (5, 50), (7, 100)]);
        assert!(e.assign(6, 100));
        assert_eq!(e, epochs(&[(1, 0), (5, 50), (6, 100)]));
        assert!(e.assign(5, 100));
        assert_eq!(e, epochs(&[(1, 0), (5, 50)]));
        assert!(!e.assign(5, 110), "known");
        assert!(!e.assign(-1, 110), "none");
        assert!(e.assign(8, 120));
        assert_eq!(e, epochs(&[(1, 0), (5, 50), (8, 120)]));
    }

    #[test]
    fn truncation_keeps_what_holds_the_rest() {
        let mut e = epochs(&[(1, 0), (3, 10), (7, 25)]);
        assert!(e.truncate_end(25));
        assert_eq!(e, epochs(&[(1, 0), (3, 10)]));
        assert!(!e.truncate_end(25));
        assert!(e.truncate_start(12));
        assert_eq!(e, epochs(&[(3, 12)]));
        assert!(!e.truncate_start(12));
        assert!(!e.truncate_start(5));
    }

    proptest! {
        #[test]
        fn a_checkpoint_reads_back(steps in prop::collection::vec((0i32..5, 0i64..9), 0..20)) {
            let (mut epoch, mut offset, mut e) = (0, 0, Epochs::new());
            for (by, on) in steps {
                epoch += by;
                e.on_batch(epoch, offset);
                offset += on;
            }
            let text = e.encode();
            prop_assert_eq!(Epochs::parse(&text), Ok(e));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "0\n[0-9]{1,2}\n([0-9]{1,2} [0-9]{1,2}\n){0,4}") {
            let _ = Epochs::parse(&bytes);
            let _ = Epochs::parse(text.as_bytes());
        }
    }

    #[test]
    fn a_checkpoint_that_contradicts_itself_is_refused() {
        for bad in [
            "",
            "1\n0\n",
            "0\n1\n",
            "0\n2\n1 0\n1 5\n",
            "0\n2\n1 5\n2 4\n",
            "0\nx\n",
            "0\n1\n1\n",
        ] {
            assert!(Epochs::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(Epochs::parse(b"0\n1\n2 5\n").unwrap(), epochs(&[(2, 5)]));
    }
}
