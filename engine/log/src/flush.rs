//! Group commit: when the appended batches of a partition are written and flushed.
//!
//! One write and one flush are in flight at most. A flush makes durable whatever was written when
//! it began, so that one fdatasync serves all who wait; when it ends and somebody still waits,
//! the next begins at once. Small appends that arrive during a flush gather for the next write
//! ([`GATHER_BYTES`]); large ones are written meanwhile. When nothing is in flight and the append
//! is small, write and flush go to the kernel as one linked pair.
//!
//! Four ends of the log, in this order, and never mixed up: *flushed* ≤ *written* ≤ *appended*,
//! and *visible*, which is one of the first two ([`Commit::visible`]). Pure: the shell reports
//! what happened, with the time, and does the [`Step`] that comes back.

use std::time::Duration;

use ringmill_ring::Instant;

use crate::checkpoint::Mark;
use crate::config::{Durability, LogConfig};

/// During a flush, fewer appended bytes than this wait for its end instead of costing a write of
/// their own.
pub const GATHER_BYTES: u64 = 64 << 10;
/// A write of at most so many bytes is linked with the flush that follows it. Larger ones are
/// better known to be written early, so that the next write can overlap with the flush.
pub const LINKED_BYTES_MAX: u64 = 256 << 10;
/// Written bytes that are not flushed, at most, before a flush begins by itself: bounds what a
/// crash costs to recover, and how long the seal of a segment takes.
pub const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;

/// When to flush, out of a topic's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Acknowledgements wait for the flush.
    pub always: bool,
    /// Flush after so many records.
    pub records: Option<u64>,
    /// Flush when the oldest is so old.
    pub interval: Option<Duration>,
}

impl From<&LogConfig> for FlushPolicy {
    fn from(config: &LogConfig) -> Self {
        FlushPolicy {
            always: config.durability == Durability::Flushed,
            records: config.flush_messages,
            interval: config.flush_interval,
        }
    }
}

/// What the queue of appended batches begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Nothing is queued.
    Empty,
    /// Batches, so many bytes in the next write.
    Batches {
        /// Of the next write.
        bytes: u64,
    },
    /// The end of the segment.
    Roll,
}

/// What the shell is to do next. It calls `begin_…` when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write the front of the queue.
    Write {
        /// And flush it, as a linked pair.
        linked: bool,
    },
    /// Flush.
    Sync,
    /// Seal the segment and begin the next; nothing else is in flight.
    Roll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Writing {
    end: Mark,
    bytes: u64,
    linked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Syncing {
    end: Mark,
    /// Of `written_total`, what the flush covers.
    total: u64,
}

/// The state of one partition's group commit.
#[derive(Debug)]
pub struct Commit {
    policy: FlushPolicy,
    appended: Mark,
    written: Mark,
    flushed: Mark,
    written_total: u64,
    flushed_total: u64,
    writing: Option<Writing>,
    syncing: Option<Syncing>,
    rolling: bool,
    /// Somebody wants everything before this offset on the disk.
    wanted: i64,
    /// When the oldest unflushed record was written: of those that a running flush covers, and
    /// of those that it does not.
    oldest: Option<Instant>,
    oldest_after_sync: Option<Instant>,
    poisoned: bool,
}

impl Commit {
    /// For a log of which everything up to `end` is on the disk.
    pub fn new(policy: FlushPolicy, end: Mark) -> Self {
        Commit {
            policy,
            appended: end,
            written: end,
            flushed: end,
            written_total: 0,
            flushed_total: 0,
            writing: None,
            syncing: None,
            rolling: false,
            wanted: end.offset,
            oldest: None,
            oldest_after_sync: None,
            poisoned: false,
        }
    }

    /// Changes the policy.
    pub fn set_policy(&mut self, policy: FlushPolicy) {
        self.policy = policy;
        if policy.always {
            self.wanted = self.wanted.max(self.appended.offset);
        }
    }

    /// Where the next append goes.
    pub fn appended(&self) -> Mark {
        self.appended
    }

    /// What is in the page cache.
    pub fn written(&self) -> Mark {
        self.written
    }

    /// What is on the disk.
    pub fn flushed(&self) -> Mark {
        self.flushed
    }

    /// What consumers may read, and what an acknowledgement may claim.
    pub fn visible(&self) -> Mark {
        if self.policy.always {
            self.flushed
        } else {
            self.written
        }
    }

    /// Nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.writing.is_none() && self.syncing.is_none() && !self.rolling
    }

    /// A batch was appended to the queue, up to `end`.
    pub fn on_appended(&mut self, end: Mark) {
        debug_assert!(end.offset >= self.appended.offset);
        self.appended = end;
        if self.policy.always {
            self.wanted = end.offset;
        }
    }

    /// Somebody waits for everything before `offset` to be flushed.
    pub fn want(&mut self, offset: i64) {
        self.wanted = self.wanted.max(offset.min(self.appended.offset));
    }

    fn unflushed_bytes(&self) -> u64 {
        self.written_total - self.flushed_total
    }

    /// Whether what is written should be flushed now.
    fn is_flush_due(&self, now: Instant) -> bool {
        let unflushed = self.written.offset - self.flushed.offset;
        if unflushed <= 0 {
            return false;
        }
        let policy = &self.policy;
        self.wanted > self.flushed.offset
            || self.unflushed_bytes() >= UNFLUSHED_BYTES_MAX
            || policy
                .records
                .is_some_and(|limit| unflushed as u64 >= limit)
            || self
                .flush_deadline()
                .is_some_and(|deadline| deadline <= now)
    }

    /// When `flush.ms` demands a flush, if nothing else does before.
    pub fn flush_deadline(&self) -> Option<Instant> {
        Some(self.oldest? + self.policy.interval?)
    }

    /// What to do next, if anything. The same answer comes until the shell begins it.
    pub fn step(&self, now: Instant, front: Front) -> Option<Step> {
        if self.poisoned || self.rolling {
            return None;
        }
        if front == Front::Roll && self.writing.is_none() && self.syncing.is_none() {
            let durable = self.flushed.offset == self.written.offset;
            return Some(if durable { Step::Roll } else { Step::Sync });
        }
        if let (Front::Batches { bytes }, None) = (front, self.writing) {
            let small = bytes <= LINKED_BYTES_MAX;
            // a failed pair must not put older data into doubt, hence the last condition
            if small && self.wanted > self.written.offset && self.is_all_flushed() {
                return Some(Step::Write { linked: true });
            }
            if self.syncing.is_none() || bytes >= GATHER_BYTES || !self.policy.always {
                return Some(Step::Write { linked: false });
            }
        }
        let linked = self.writing.is_some_and(|write| write.linked);
        (self.syncing.is_none() && !linked && self.is_flush_due(now)).then_some(Step::Sync)
    }

    fn is_all_flushed(&self) -> bool {
        self.syncing.is_none() && self.flushed.offset == self.written.offset
    }

    /// The write of the queue's front up to `end` begins.
    pub fn begin_write(&mut self, end: Mark, bytes: u64, linked: bool) {
        assert!(self.writing.is_none() && !self.rolling && end.offset <= self.appended.offset);
        assert!(!linked || self.is_all_flushed());
        self.writing = Some(Writing { end, bytes, linked });
    }

    /// The write is done (and flushed, if it was linked).
    pub fn on_written(&mut self, now: Instant) {
        let write = self.writing.take().expect("a write was begun");
        self.written = write.end;
        self.written_total += write.bytes;
        if write.linked {
            self.flushed = write.end;
            self.flushed_total = self.written_total;
            self.oldest = None;
        } else if self.syncing.is_some() {
            self.oldest_after_sync.get_or_insert(now);
        } else {
            self.oldest.get_or_insert(now);
        }
    }

    /// The write found no room; nothing of it is left in the file. All that was appended and not
    /// written is given up, and so are the waits for it.
    pub fn on_no_space(&mut self) {
        self.writing = None;
        self.appended = self.written;
        self.wanted = self.wanted.min(self.written.offset);
    }

    /// A flush of all that is written begins.
    pub fn begin_sync(&mut self) {
        assert!(self.syncing.is_none() && !self.rolling);
        self.syncing = Some(Syncing {
            end: self.written,
            total: self.written_total,
        });
    }

    /// The flush is done.
    pub fn on_synced(&mut self) {
        let sync = self.syncing.take().expect("a flush was begun");
        self.flushed = sync.end;
        self.flushed_total = sync.total;
        self.oldest = self.oldest_after_sync.take();
    }

    /// The segment is being sealed.
    pub fn begin_roll(&mut self) {
        assert!(self.is_idle() && self.flushed.offset == self.written.offset);
        self.rolling = true;
    }

    /// The next segment has begun.
    pub fn on_rolled(&mut self, base_offset: i64) {
        assert!(self.rolling && self.written.offset == base_offset);
        self.rolling = false;
        self.written = Mark::start_of(base_offset);
        self.flushed = self.written;
    }

    /// There is no room for the next segment; the last one goes on.
    pub fn on_roll_no_space(&mut self) {
        assert!(self.rolling);
        self.rolling = false;
        self.on_no_space();
    }

    /// A write or a flush failed, and with it what the page cache says: nothing is done any more.
    pub fn poison(&mut self) {
        self.poisoned = true;
        self.writing = None;
        self.syncing = None;
        self.rolling = false;
    }
}

#[cfg(test)]
#[path = "flush_test.rs"]
mod tests;
