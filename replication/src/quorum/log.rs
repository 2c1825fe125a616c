//! The journal as [`openraft`] sees it: a log that it appends to, cuts and reads.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::rc::Rc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use ringmill_ring::planted;

use super::journal::{Done, Journal};
use super::stored::Record;
use super::types::{Entry, LogId, Types, Vote};

/// A log may be read in pieces of so many bytes of commands, so that one message to a node that is
/// far behind stays small; one entry is always given.
const READ_BYTES_MAX: usize = 1 << 20;

/// A handle; all are the same log.
#[derive(Clone)]
pub(crate) struct Log(pub(crate) Rc<Journal>);

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug,
    {
        Ok(inclusive(&range).map_or_else(Vec::new, |range| self.0.stored.borrow().entries(range)))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.stored.borrow().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let Some(last) = end.checked_sub(1) else {
            return Ok(Vec::new());
        };
        let mut entries = self.0.stored.borrow().entries(start..=last);
        let mut bytes = 0;
        let fits = entries.iter().take_while(|entry| {
            bytes += size_of(entry);
            bytes <= READ_BYTES_MAX
        });
        let fitting = fits.count().max(1);
        entries.truncate(fitting);
        Ok(entries)
    }
}

fn size_of(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len(),
        _ => 0,
    }
}

/// None if nothing is in it.
fn inclusive(range: &impl RangeBounds<u64>) -> Option<RangeInclusive<u64>> {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.checked_add(1)?,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => *to,
        Bound::Excluded(end) => end.checked_sub(1)?,
        Bound::Unbounded => u64::MAX,
    };
    Some(from..=to)
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let stored = self.0.stored.borrow();
        Ok(LogState {
            last_purged_log_id: stored.purged,
            last_log_id: stored.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if planted("vote-not-stored") {
            self.0.stored.borrow_mut().vote = Some(*vote);
            return Ok(());
        }
        self.0.put_durably([Record::Vote(*vote)]).await
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry>,
    {
        let records = entries.into_iter().map(Record::Entry);
        self.0.put(records, Some(Done::Raft(flushed)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index() + 1);
        self.0.put([Record::Truncate(from)], None);
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.0.put([Record::Purge(id)], None);
        Ok(())
    }
}
