//! Group commit: when the appended batches of a partition are written and flushed.
//!
//! Large appends: one write and one flush are in flight at most. A flush makes durable whatever
//! was written when it began, so that one fdatasync serves all who wait; when it ends and somebody
//! still waits, the next begins at once. Small appends that arrive during a flush gather for the
//! next write ([`GATHER_BYTES`]); large ones are written meanwhile.
//!
//! Small appends: write and flush go to the kernel as one linked *pair*. Who comes while it is
//! under way need not wait for its end: a few pairs may be in flight at once, each in a lane of
//! its own, one behind the other in the file. The log's ends move over pairs in their order,
//! whichever lands first.
//!
//! Four ends of the log, in this order, and never mixed up: *flushed* ≤ *written* ≤ *appended*,
//! and *visible*, which is one of the first two ([`Commit::visible`]). Pure: the shell reports
//! what happened, with the time, and does the [`Step`] that comes back.

use std::collections::VecDeque;
use std::time::Duration;

use ringmill_ring::{Instant, planted};

use crate::checkpoint::Mark;
use crate::config::{Durability, LogConfig};

/// During a flush, fewer appended bytes than this wait for its end instead of costing a write of
/// their own.
pub const GATHER_BYTES: u64 = 64 << 10;
/// A write of at most so many bytes is linked with the flush that follows it. Larger ones are
/// better known to be written early, so that the next write can overlap with the flush.
pub const LINKED_BYTES_MAX: u64 = 256 << 10;
/// Pairs in flight at once, at most.
pub const LANES_MAX: usize = 4;
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
    /// The end of the segment, or of the part of it that has no gaps.
    Roll,
}

/// What the shell is to do next. It calls `begin_…` when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write the front of the queue.
    Write,
    /// Write the front of the queue and flush it, as a linked pair.
    Pair {
        /// No other pair in flight has this lane.
        lane: usize,
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
}

/// A write and its flush, in flight or landed behind one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    end: Mark,
    bytes: u64,
    lane: usize,
    landed: Option<Landed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landed {
    Flushed,
    NoSpace,
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
    /// In the order of the log. Not together with a write or a flush.
    pairs: VecDeque<Pair>,
    /// Pairs in flight at most.
    lanes: usize,
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
            pairs: VecDeque::new(),
            lanes: 1,
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

    /// Gives back the memory of pairs that are over.
    pub fn give_back(&mut self) {
        self.pairs.shrink_to_fit();
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
        if self.policy.always && !planted("ack-before-flush") {
            self.flushed
        } else {
            self.written
        }
    }

    /// Where the next write goes: behind all that are in flight.
    pub fn begun(&self) -> Mark {
        let writing = self.writing.map(|write| write.end);
        let pair = self.pairs.back().map(|pair| pair.end);
        writing.or(pair).unwrap_or(self.written)
    }

    /// Nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.writing.is_none() && self.syncing.is_none() && self.pairs.is_empty() && !self.rolling
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
        if front == Front::Roll && self.is_idle() {
            let durable = self.flushed.offset == self.written.offset;
            return Some(if durable { Step::Roll } else { Step::Sync });
        }
        if let (Front::Batches { bytes }, None) = (front, self.writing) {
            if self.is_worth_a_pair(bytes) {
                return self.free_lane().map(|lane| Step::Pair { lane });
            }
            let overlaps = bytes >= GATHER_BYTES || !self.policy.always;
            if self.pairs.is_empty() && (self.is_all_flushed() || overlaps) {
                return Some(Step::Write);
            }
        }
        let flushes = self.syncing.is_some() || !self.pairs.is_empty();
        (!flushes && self.is_flush_due(now)).then_some(Step::Sync)
    }

    fn is_worth_a_pair(&self, bytes: u64) -> bool {
        // a failed pair must not put older data into doubt, hence the last condition
        bytes <= LINKED_BYTES_MAX && self.wanted > self.begun().offset && self.is_all_flushed()
    }

    /// All that is written is flushed; pairs may be in flight.
    fn is_all_flushed(&self) -> bool {
        self.syncing.is_none() && self.flushed.offset == self.written.offset
    }

    /// A lane without a pair in it.
    fn free_lane(&self) -> Option<usize> {
        let full = self.pairs.len() >= self.lanes;
        let spoilt = self
            .pairs
            .iter()
            .any(|pair| pair.landed == Some(Landed::NoSpace));
        let mut lanes = 0..self.lanes;
        let free = lanes.find(|lane| self.pairs.iter().all(|pair| pair.lane != *lane));
        free.filter(|_| !full && !spoilt)
    }

    /// Whether one more lane would be of use now: appends wait for a pair to end that could be
    /// on their way.
    pub fn wants_lane(&self, front: Front) -> bool {
        let Front::Batches { bytes } = front else {
            return false;
        };
        self.lanes < LANES_MAX
            && self.writing.is_none()
            && !self.poisoned
            && self.pairs.len() == self.lanes
            && self.is_worth_a_pair(bytes)
    }

    /// The segment's file has so many lanes.
    pub fn set_lanes(&mut self, lanes: usize) {
        self.lanes = lanes.clamp(1, LANES_MAX);
    }

    /// Lets all lanes go but the first, if nothing is in flight. Returns whether it has.
    pub fn narrow(&mut self) -> bool {
        if self.is_idle() {
            self.lanes = 1;
        }
        self.is_idle()
    }

    /// The write of the queue's front up to `end` begins.
    pub fn begin_write(&mut self, end: Mark, bytes: u64) {
        assert!(self.writing.is_none() && self.pairs.is_empty() && !self.rolling);
        assert!(end.offset <= self.appended.offset);
        self.writing = Some(Writing { end, bytes });
    }

    /// The write is done.
    pub fn on_written(&mut self, now: Instant) {
        let write = self.writing.take().expect("a write was begun");
        self.written = write.end;
        self.written_total += write.bytes;
        if self.syncing.is_some() {
            self.oldest_after_sync.get_or_insert(now);
        } else {
            self.oldest.get_or_insert(now);
        }
    }

    /// The write of the queue's front up to `end` and its flush begin.
    pub fn begin_pair(&mut self, lane: usize, end: Mark, bytes: u64) {
        assert!(self.writing.is_none() && !self.rolling && self.is_all_flushed());
        assert!(end.offset <= self.appended.offset && self.free_lane() == Some(lane));
        self.pairs.push_back(Pair {
            end,
            bytes,
            lane,
            landed: None,
        });
    }

    /// The pair in this lane is done. Returns how many pairs are behind the log's ends now that
    /// were not before.
    pub fn on_pair(&mut self, lane: usize) -> usize {
        self.land(lane, Landed::Flushed);
        let mut passed = 0;
        while let Some(pair) = self.pairs.front()
            && pair.landed == Some(Landed::Flushed)
        {
            self.written = pair.end;
            self.written_total += pair.bytes;
            self.flushed = pair.end;
            self.flushed_total = self.written_total;
            self.oldest = None;
            self.pairs.pop_front();
            passed += 1;
        }
        passed
    }

    /// The pair in this lane found no room. Once none is under way any more, as
    /// [`Commit::is_spoilt`] tells, the shell cuts the file at the written end and calls
    /// [`Commit::on_no_space`].
    pub fn on_pair_no_space(&mut self, lane: usize) {
        self.land(lane, Landed::NoSpace);
    }

    fn land(&mut self, lane: usize, landed: Landed) {
        let flying = |pair: &&mut Pair| pair.lane == lane && pair.landed.is_none();
        let pair = self.pairs.iter_mut().find(flying);
        pair.expect("a pair was begun").landed = Some(landed);
    }

    /// Pairs have landed, and the first of them found no room.
    pub fn is_spoilt(&self) -> bool {
        let spoilt = |pair: &Pair| pair.landed == Some(Landed::NoSpace);
        self.pairs.front().is_some_and(spoilt)
            && self.pairs.iter().all(|pair| pair.landed.is_some())
    }

    /// A write found no room; nothing of what was begun is left in the file. All that was
    /// appended and not written is given up, and so are the waits for it.
    pub fn on_no_space(&mut self) {
        self.writing = None;
        self.pairs.clear();
        self.appended = self.written;
        self.wanted = self.wanted.min(self.written.offset);
    }

    /// A flush of all that is written begins.
    pub fn begin_sync(&mut self) {
        assert!(self.syncing.is_none() && self.pairs.is_empty() && !self.rolling);
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

    /// The segment goes on after all.
    pub fn on_turned(&mut self) {
        assert!(self.rolling);
        self.rolling = false;
    }

    /// The next segment has begun; behind a gap, maybe.
    pub fn on_rolled(&mut self, base_offset: i64) {
        assert!(self.rolling && self.written.offset <= base_offset);
        self.rolling = false;
        self.written = Mark::start_of(base_offset);
        self.flushed = self.written;
        self.lanes = 1;
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
        self.pairs.clear();
        self.rolling = false;
    }
}

#[cfg(test)]
#[path = "flush_test.rs"]
mod tests;
