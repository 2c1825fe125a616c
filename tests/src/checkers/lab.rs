//! Small histories for the checkers' own tests.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::{
    Batch, Chronicle, Found, Inspection, Keeps, Keyed, Moment, PartitionLog, Place, Span, Topic,
    What,
};
use crate::history::{Author, Outcome};

/// A history under construction.
pub(super) struct Lab(Chronicle);

impl Deref for Lab {
    type Target = Chronicle;

    fn deref(&self) -> &Chronicle {
        &self.0
    }
}

impl DerefMut for Lab {
    fn deref_mut(&mut self) -> &mut Chronicle {
        &mut self.0
    }
}

/// Topics 0 "kept", 1 "sized", 2 "aging", 3 "trimmed", 4 "state"; nothing has happened.
pub(super) fn chronicle() -> Lab {
    let topic = |name: &str, keeps| Topic {
        name: name.to_owned(),
        keeps,
    };
    let topics = vec![
        topic("kept", Keeps::All),
        topic("sized", Keeps::Bytes(1000)),
        topic("aging", Keeps::Age(Duration::from_secs(60))),
        topic("trimmed", Keeps::Untrimmed),
        topic("state", Keeps::Keys),
    ];
    Lab(Chronicle {
        topics,
        ..Chronicle::default()
    })
}

impl Lab {
    /// The time is so many seconds from now on.
    pub(super) fn at(&mut self, seconds: u64) -> &mut Self {
        self.now.at = Duration::from_secs(seconds);
        self
    }

    /// A request that was answered at once, or never.
    pub(super) fn span(&mut self, answered: bool) -> Span {
        let asked = self.moment();
        Span {
            asked,
            done: answered.then(|| self.moment()),
        }
    }

    /// A batch; all are of one writer.
    pub(super) fn sent(&mut self, place: Place, records: u32, outcome: Outcome) -> u64 {
        let span = self.span(matches!(outcome, Outcome::Acknowledged(_)));
        self.batches.push(Batch {
            place,
            records,
            keys: Vec::new(),
            writer: 0,
            transaction: None,
            span,
            outcome,
            by_leader: false,
        });
        self.batches.len() as u64 - 1
    }

    /// A batch of one record with a key to "state-0", acknowledged at `offset`.
    pub(super) fn keyed(&mut self, offset: i64, key: u32, tombstone: bool) -> u64 {
        let attempt = self.sent((4, 0), 1, Outcome::Acknowledged(offset));
        let batch = self.batches.last_mut().expect("just sent");
        batch.keys.push(Keyed { key, tombstone });
        attempt
    }
}

/// A record that is not part of a transaction.
pub(super) fn record(offset: i64, attempt: u64, index: u32) -> Found {
    let author = Some(Author { attempt, index });
    let what = What::Record {
        author,
        keyed: None,
        transactional: None,
    };
    Found {
        offset,
        what,
        visible: true,
    }
}

/// One partition as it was found.
pub(super) fn inspect(place: Place, start: i64, found: Vec<Found>) -> Inspection {
    let end = found.last().map_or(start, |f| f.offset + 1);
    let log = PartitionLog {
        start,
        end,
        stable: end,
        found,
        ..PartitionLog::default()
    };
    let at = Moment {
        order: u64::MAX,
        at: Duration::from_secs(1000),
    };
    Inspection {
        at,
        calm: Duration::ZERO,
        logs: [(place, log)].into(),
        ..Inspection::default()
    }
}
