//! The state that the quorum's commands lead to: the machine of whoever uses the quorum, kept where
//! the log is applied, and its snapshots.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::journal::Journal;
use super::stored::{Record, Snapshot};
use super::types::{Command, LogId, Payload, SnapshotMeta, StoredMembership, Types};

/// A deterministic state: the same commands in the same order lead every node to the same state and
/// the same answers. It knows nothing of time, chance or I/O.
pub trait Machine: 'static {
    /// Takes the next command and gives its answer, for whoever proposed it. What cannot be applied
    /// is answered so, and changes nothing.
    fn apply(&self, index: u64, command: &Bytes) -> Bytes;

    /// All of the state, as [`Machine::restore`] takes it.
    fn snapshot(&self) -> Bytes;

    /// Becomes what a snapshot says.
    ///
    /// # Errors
    /// It says nothing that can be understood; then nothing has changed.
    fn restore(&self, snapshot: &Bytes) -> io::Result<()>;
}

/// A machine, and how far it is.
pub(crate) struct Applied<M> {
    machine: Rc<M>,
    journal: Rc<Journal>,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl<M: Machine> Applied<M> {
    /// As the journal's snapshot says.
    pub(crate) fn new(machine: Rc<M>, journal: Rc<Journal>) -> io::Result<Self> {
        let snapshot = journal.stored.borrow().snapshot.clone();
        let mut applied = Self {
            machine,
            journal,
            last: None,
            membership: StoredMembership::default(),
        };
        if let Some(snapshot) = snapshot {
            applied.restore(&snapshot.meta, &snapshot.data)?;
        }
        Ok(applied)
    }

    fn restore(&mut self, meta: &SnapshotMeta, data: &Bytes) -> io::Result<()> {
        self.machine.restore(data)?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        }
    }
}

impl<M: Machine> RaftStateMachine<Types> for Applied<M> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let id = entry.log_id;
            let answer = match entry.payload {
                Payload::Blank => Bytes::new(),
                Payload::Normal(Command(command)) => self.machine.apply(id.index(), &command),
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(id), membership);
                    Bytes::new()
                }
            };
            self.last = Some(id);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            journal: Rc::clone(&self.journal),
            snapshot: Snapshot {
                meta: self.meta(),
                data: self.machine.snapshot(),
            },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        self.restore(meta, &data)?;
        let index = self.last.map(|id| id.index());
        tracing::info!(index, "the quorum's leader has sent a snapshot");
        let meta = meta.clone();
        keep(&self.journal, Snapshot { meta, data }).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let snapshot = self.journal.stored.borrow().snapshot.clone();
        Ok(snapshot.map(raft_snapshot))
    }
}

type RaftSnapshot = openraft::type_config::alias::SnapshotOf<Types, Bytes>;

fn raft_snapshot(snapshot: Snapshot) -> RaftSnapshot {
    RaftSnapshot {
        meta: snapshot.meta,
        snapshot: snapshot.data,
    }
}

/// Stores a snapshot, unless a later one is there.
async fn keep(journal: &Journal, snapshot: Snapshot) -> io::Result<()> {
    let has = journal
        .stored
        .borrow()
        .snapshot
        .as_ref()
        .and_then(|s| s.meta.last_log_id);
    if has.is_some() && has >= snapshot.meta.last_log_id {
        return Ok(());
    }
    journal.put_durably([Record::Snapshot(snapshot)]).await
}

/// Stores the state of the moment at which it was made.
pub(crate) struct Builder {
    journal: Rc<Journal>,
    snapshot: Snapshot,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        keep(&self.journal, self.snapshot.clone()).await?;
        Ok(raft_snapshot(self.snapshot.clone()))
    }
}
