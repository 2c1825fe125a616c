//! What a mixed load has done and seen, and the rules that this must obey.
//!
//! Actors write down what they ask for and what they are answered, in the order in which it happens;
//! an inspection reads everything back in a calm world. The checkers are pure functions over the
//! two. They know nothing of how many nodes there are, or of what went wrong meanwhile.

pub mod compaction;
pub mod copies;
pub mod expiry;
pub mod groups;
#[cfg(test)]
mod lab;
pub mod latest;
pub mod leadership;
pub mod offsets;
pub mod partition;
pub mod quota;
pub mod retention;
pub mod topics;
pub mod transactions;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Author, Outcome};

/// A moment of the history. Moments are ordered as they happened, also within one instant.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Counts moments.
    pub order: u64,
    /// True time since the world began.
    pub at: Duration,
}

/// A partition: the number of its topic in the history, and its own.
pub type Place = (usize, i32);

/// What a topic promises to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Everything.
    All,
    /// At least the last so many bytes.
    Bytes(u64),
    /// Everything younger than this.
    Age(Duration),
    /// Everything above the offsets that administrators have asked to delete up to.
    Untrimmed,
    /// The last record of every key.
    Keys,
    /// The last record of every key that is younger than this.
    YoungKeys(Duration),
}

impl Keeps {
    /// Whether what is overtaken by a later record of its key goes.
    pub fn is_compacted(self) -> bool {
        matches!(self, Self::Keys | Self::YoungKeys(_))
    }
}

/// A topic of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What it promises.
    pub keeps: Keeps,
}

/// A request and its answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before the request was sent.
    pub asked: Moment,
    /// After the answer said that it is done; `None` if nobody knows.
    pub done: Option<Moment>,
}

/// What a record of a compacted topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyed {
    /// The key.
    pub key: u32,
    /// The key is deleted.
    pub tombstone: bool,
}

/// One batch that was sent. Its attempt (as [`Author`] has it) is its place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Where to.
    pub place: Place,
    /// How many records.
    pub records: u32,
    /// Their keys, in a compacted topic.
    pub keys: Vec<Keyed>,
    /// One incarnation of one producer: its batches stand in the order in which they were sent.
    pub writer: u32,
    /// The transaction it is part of.
    pub transaction: Option<usize>,
    /// When it was sent first, and acknowledged.
    pub span: Span,
    /// What came back in the end.
    pub outcome: Outcome,
    /// Its leader alone acknowledges it (`acks=1`): it may be lost with its leader.
    pub by_leader: bool,
}

/// How a transaction has ended, as its producer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnEnd {
    /// Its producer never asked for an end, or for an abort: it is never seen.
    Dropped,
    /// The commit was answered.
    Committed,
    /// The commit was asked for, and nobody knows.
    Unknown,
}

/// One transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// The incarnation of the producer.
    pub incarnation: usize,
    /// The records that it made something of: a partition, the first offset, the one after the last.
    pub source: (Place, i64, i64),
    /// The request for its commit.
    pub commit: Option<Span>,
    /// How it ended.
    pub end: TxnEnd,
}

/// One incarnation of a transactional producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// Which transactional id.
    pub transactional_id: u32,
    /// The request for its epoch.
    pub init: Span,
}

/// One committed offset of a group. Its place in the history is its metadata text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: u32,
    /// The partition.
    pub place: Place,
    /// The offset.
    pub offset: i64,
    /// The request; of a transaction's, its commit.
    pub span: Span,
    /// The broker said no.
    pub refused: bool,
    /// The transaction it is part of.
    pub transaction: Option<usize>,
    /// The generation of the classic group in whose name it was made.
    pub generation: Option<i32>,
    /// How long it is kept, if not as long as its group's offsets are.
    pub lives: Option<Duration>,
}

/// Somebody asked for a committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// The group.
    pub group: u32,
    /// The partition.
    pub place: Place,
    /// The request.
    pub span: Span,
    /// The number of the commit that was found.
    pub found: Option<usize>,
}

/// A member of a group believes that a partition is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The group.
    pub group: u32,
    /// One incarnation of one member.
    pub member: u32,
    /// The partition.
    pub place: Place,
    /// The generation of a classic group.
    pub generation: Option<i32>,
    /// When it was told.
    pub from: Moment,
    /// When it gave the partition up.
    pub until: Option<Moment>,
    /// When the last heartbeat that was answered well was sent.
    pub heard: Moment,
    /// How long it may be silent.
    pub session: Duration,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A record.
    Record {
        /// Who wrote it, if not a byte has changed.
        author: Option<Author>,
        /// Its key, in a compacted topic.
        keyed: Option<Keyed>,
        /// The producer's id, if the record is part of a transaction.
        transactional: Option<i64>,
    },
    /// The end of a transaction.
    Marker {
        /// The producer's id.
        producer: i64,
        /// Or aborted.
        committed: bool,
    },
}

/// One offset of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The offset.
    pub offset: i64,
    /// What is there.
    pub what: What,
    /// A reader of committed records gets it.
    pub visible: bool,
}

/// What one fetch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The partition.
    pub place: Place,
    /// From here.
    pub from: i64,
    /// To here, exclusive.
    pub next: i64,
    /// The log's start, its high watermark and its last stable offset, as answered.
    pub ends: [i64; 3],
    /// Only committed records were asked for: `visible` says which came out.
    pub committed: bool,
    /// What came.
    pub found: Vec<Found>,
    /// The fetch.
    pub span: Span,
    /// The leader epoch in which it was served, in a cluster: the next leader may know of a high
    /// watermark a little later, and so show less, though never something else.
    pub epoch: i32,
}

/// Everything between the ends of one partition, as the inspection has read it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PartitionLog {
    /// The first offset.
    pub start: i64,
    /// The one after the last.
    pub end: i64,
    /// The end for readers of committed records.
    pub stable: i64,
    /// The size of its batches.
    pub bytes: u64,
    /// What is there.
    pub found: Vec<Found>,
    /// The compacted part ends here: below, every key stands once at most.
    pub clean_end: i64,
    /// The active segment, which is never compacted, begins here.
    pub active: i64,
}

/// All partitions, read while nothing happens.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// When it began.
    pub at: Moment,
    /// How long it took: what was read last may have gone in the meantime.
    pub took: Duration,
    /// All nodes were up, and nothing went wrong, for so long before.
    pub calm: Duration,
    /// By partition.
    pub logs: BTreeMap<Place, PartitionLog>,
    /// Those that nodes know.
    pub transactional_ids: Vec<String>,
    /// The ids of producers that partitions know.
    pub producers: Vec<(Place, i64)>,
    /// The copies of each partition, as they are on the nodes' disks.
    pub copies: BTreeMap<Place, Vec<copies::Copied>>,
    /// The names of all topics, as each node of a cluster tells them.
    pub topics: BTreeMap<String, BTreeSet<String>>,
}

/// Bytes that a client with a quota got through.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Metered {
    /// The quota, in bytes per second; 0 before it is set.
    pub quota: f64,
    /// When, and how many.
    pub passed: Vec<(Duration, u64)>,
    /// When a node came up, and knew nothing of what has passed.
    pub restarts: Vec<Duration>,
}

/// What the actors did and saw.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Chronicle {
    /// By their numbers.
    pub topics: Vec<Topic>,
    /// All that was sent.
    pub batches: Vec<Batch>,
    /// All transactions.
    pub transactions: Vec<Transaction>,
    /// Of transactional producers.
    pub incarnations: Vec<Incarnation>,
    /// Of groups.
    pub commits: Vec<Commit>,
    /// Of commits.
    pub lookups: Vec<Lookup>,
    /// On partitions.
    pub claims: Vec<Claim>,
    /// Since the last inspection.
    pub looks: Vec<Look>,
    /// Of the ends of logs.
    pub listings: Vec<latest::Listing>,
    /// What the nodes of a cluster say of who leads what.
    pub leaders: leadership::Leaders,
    /// The highest offset up to which administrators asked to delete a partition's records.
    pub trims: BTreeMap<Place, i64>,
    /// Whether a topic that an administrator has made for itself is there, as it was told last; `None`
    /// if nobody knows.
    pub own_topics: BTreeMap<String, Option<bool>>,
    /// Of the client with a quota.
    pub metered: Metered,
    /// An actor was answered what no broker may answer.
    pub scandal: Option<String>,
    /// The present moment.
    pub now: Moment,
    /// How long offsets of silent groups are kept.
    pub offsets_retention: Duration,
    /// How long nodes remember other things.
    pub memory: expiry::Memory,
}

impl Chronicle {
    /// A new moment.
    pub fn moment(&mut self) -> Moment {
        self.now.order += 1;
        self.now
    }

    /// The request is sent now.
    pub fn ask(&mut self) -> Span {
        Span {
            asked: self.moment(),
            done: None,
        }
    }

    /// The first thing that no broker may answer is kept.
    pub fn scandal(&mut self, what: impl FnOnce() -> String) {
        if self.scandal.is_none() {
            self.scandal = Some(format!("{:?}: {}", self.now.at, what()));
        }
    }

    /// A partition by its topic's name.
    pub fn name(&self, place: Place) -> String {
        format!("{}-{}", self.topics[place.0].name, place.1)
    }

    /// The batch of a record.
    pub fn batch(&self, author: Author) -> Option<&Batch> {
        let batch = self.batches.get(usize::try_from(author.attempt).ok()?)?;
        (author.index < batch.records).then_some(batch)
    }
}

/// A rule that was broken, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The checker.
    pub rule: &'static str,
    /// Where, and what was found instead.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Gathers what one checker finds.
struct Findings {
    rule: &'static str,
    broken: Vec<Broken>,
}

impl Findings {
    fn of(rule: &'static str) -> Self {
        Self {
            rule,
            broken: Vec::new(),
        }
    }

    fn add(&mut self, what: String) {
        self.broken.push(Broken {
            rule: self.rule,
            what,
        });
    }
}

/// All rules, over the history so far, the present inspection and the one before.
pub fn check(
    chronicle: &Chronicle,
    inspection: &Inspection,
    before: Option<&Inspection>,
) -> Vec<Broken> {
    let mut broken = Vec::new();
    if let Some(scandal) = &chronicle.scandal {
        broken.push(Broken {
            rule: "answers",
            what: scandal.clone(),
        });
    }
    broken.extend(partition::check(chronicle, inspection));
    broken.extend(compaction::check(chronicle, inspection, before));
    broken.extend(retention::check(chronicle, inspection));
    broken.extend(transactions::check(chronicle, inspection));
    broken.extend(views::check(chronicle, inspection, before));
    broken.extend(latest::check(chronicle));
    broken.extend(copies::check(chronicle, inspection));
    broken.extend(topics::check(chronicle, inspection));
    broken.extend(leadership::check(&chronicle.leaders));
    broken.extend(offsets::check(chronicle));
    broken.extend(expiry::check(chronicle, inspection));
    broken.extend(groups::check(chronicle));
    broken.extend(quota::check(&chronicle.metered));
    broken
}
