//! The quorum's journal on disk: what is stored, and the one task that writes it.
//!
//! Whatever happens meanwhile is gathered and written as one change with one flush. What is gathered
//! is in memory at once, as [`openraft`] wants it, and told as done when it is on the disk. A write
//! or flush that failed leaves the file in an unknown state, and is not tried again on it: the
//! journal is written anew, from memory, under another name, until the disk takes it. Until then
//! nothing more is told as done; the other nodes of the quorum go on.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures_channel::oneshot;
use openraft::storage::IOFlushed;
use ringmill_ring::{Notify, sleep, spawn};
use thiserror::Error;

use super::stored::{self, NotStored, Record, Stored};
use super::types::Types;
use crate::frame_file::{FrameFile, OpenError};
use crate::frames::Damaged;

/// The journal's name within its folder.
pub const JOURNAL_NAME: &str = "quorum.journal";
/// Between attempts to write on a disk that refuses.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why the journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("{path}: {error}")]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A change in the middle is lost.
    #[error("{path}: {damage}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damaged,
    },
    /// Its records do not follow from each other.
    #[error("{path}, at byte {at}: {error}")]
    Records {
        /// The file.
        path: PathBuf,
        /// Where the change begins.
        at: usize,
        /// What is wrong with it.
        error: NotStored,
    },
}

impl JournalError {
    fn of(path: &Path, error: OpenError) -> Self {
        let path = path.to_owned();
        match error {
            OpenError::Io(error) => Self::Io { path, error },
            OpenError::Damaged(damage) => Self::Damaged { path, damage },
        }
    }
}

/// Who is told that something is on the disk.
pub(crate) enum Done {
    Raft(IOFlushed<Types>),
    Task(oneshot::Sender<()>),
}

impl Done {
    fn tell(self) {
        match self {
            Self::Raft(flushed) => flushed.io_completed(Ok(())),
            // Whoever asked may be gone.
            Self::Task(sender) => drop(sender.send(())),
        }
    }

    fn fail(self) {
        match self {
            Self::Raft(flushed) => flushed.io_completed(Err(closed())),
            // Dropped, it tells.
            Self::Task(sender) => drop(sender),
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the quorum's journal is closed")
}

/// What is to be written next.
#[derive(Default)]
struct Gathered {
    change: BytesMut,
    done: Vec<Done>,
    /// The file is to be written anew.
    rewrite: bool,
}

/// What this node has stored, in memory and on disk.
pub(crate) struct Journal {
    path: PathBuf,
    pub(crate) stored: RefCell<Stored>,
    gathered: RefCell<Gathered>,
    /// Rings when there is something to write, and at the end.
    bell: Notify,
    is_closed: Cell<bool>,
    /// The next write that the disk refuses is the last.
    gives_up: Cell<bool>,
    /// Rings when the writer has ended.
    ended: Notify,
    has_ended: Cell<bool>,
    /// The disk refused the last write.
    is_stuck: Cell<bool>,
    /// Rings when it begins to.
    stuck: Notify,
}

impl Journal {
    /// Opens the journal in `folder`, making it if need be, and reads what it says.
    pub(crate) async fn open(folder: &Path) -> Result<Rc<Self>, JournalError> {
        let path = folder.join(JOURNAL_NAME);
        let opened = FrameFile::open(&path).await;
        let (mut file, changes) = opened.map_err(|error| JournalError::of(&path, error))?;
        let mut stored = Stored::default();
        for (at, change) in changes {
            let replayed = stored::replay(&mut stored, change);
            replayed.map_err(|error| JournalError::Records {
                path: path.clone(),
                at,
                error,
            })?;
        }
        file.set_compact(whole(&stored).len());
        let journal = Rc::new(Self {
            path,
            stored: RefCell::new(stored),
            gathered: RefCell::default(),
            bell: Notify::new(),
            is_closed: Cell::new(false),
            gives_up: Cell::new(false),
            ended: Notify::new(),
            has_ended: Cell::new(false),
            is_stuck: Cell::new(false),
            stuck: Notify::new(),
        });
        spawn(Rc::clone(&journal).write(file));
        Ok(journal)
    }

    /// Takes steps: they count in memory now, and are told as done when they are on the disk.
    ///
    /// # Panics
    /// If they do not follow from what is stored.
    pub(crate) fn put(&self, records: impl IntoIterator<Item = Record>, done: Option<Done>) {
        let mut gathered = self.gathered.borrow_mut();
        let mut stored = self.stored.borrow_mut();
        for record in records {
            // A snapshot is large, and replaces what the file holds.
            gathered.rewrite |= matches!(record, Record::Snapshot(_));
            stored::encode(&record, &mut gathered.change);
            let applied = stored.apply(record);
            applied.expect("the library writes its log in order");
        }
        match self.has_ended.get() {
            // Nothing is written any more, and whoever waits is told so.
            true => done.into_iter().for_each(Done::fail),
            false => gathered.done.extend(done),
        }
        self.bell.notify_one();
    }

    /// The same, until it is on the disk.
    ///
    /// # Errors
    /// The journal was closed while the disk refused.
    pub(crate) async fn put_durably(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> io::Result<()> {
        let (sender, done) = oneshot::channel();
        self.put(records, Some(Done::Task(sender)));
        done.await.map_err(|_| closed())
    }

    /// The disk refused the last write, and has not taken another since.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.get()
    }

    /// Waits until the disk refuses.
    pub(crate) async fn stuck(&self) {
        let stuck = self.stuck.notified();
        if !self.is_stuck.get() {
            stuck.await;
        }
    }

    /// Does not wait for a disk that refuses any more: what waits for it fails.
    pub(crate) fn give_up(&self) {
        self.gives_up.set(true);
    }

    /// Writes what is gathered, and ends; unless the disk refuses.
    pub(crate) async fn close(&self) {
        self.give_up();
        self.is_closed.set(true);
        self.bell.notify_one();
        let ended = self.ended.notified();
        if !self.has_ended.get() {
            ended.await;
        }
    }

    async fn write(self: Rc<Self>, mut file: FrameFile) {
        loop {
            let mut gathered = self.gathered.take();
            if gathered.change.is_empty() && gathered.done.is_empty() {
                if self.is_closed.get() {
                    break;
                }
                self.bell.notified().await;
                continue;
            }
            if self.write_one(&mut file, &mut gathered).await.is_err() {
                self.has_ended.set(true);
                let rest = self.gathered.take().done;
                gathered.done.into_iter().chain(rest).for_each(Done::fail);
                break;
            }
            gathered.done.into_iter().for_each(Done::tell);
        }
        self.has_ended.set(true);
        self.ended.notify_all();
    }

    /// Writes a change, however long it takes. Fails if the disk refuses and nobody waits for it.
    async fn write_one(&self, file: &mut FrameFile, gathered: &mut Gathered) -> io::Result<()> {
        loop {
            let written = match gathered.rewrite || file.is_due() {
                true => {
                    // All that is stored, and so also what was gathered since.
                    gathered.done.append(&mut self.gathered.take().done);
                    let all = whole(&self.stored.borrow());
                    file.rewrite(&all).await
                }
                false if gathered.change.is_empty() => Ok(()),
                false => file.append(&gathered.change).await,
            };
            let Err(error) = written else {
                self.is_stuck.set(false);
                return Ok(());
            };
            if !self.is_stuck.replace(true) {
                self.stuck.notify_all();
                tracing::error!(path = %self.path.display(), %error, "the quorum's journal cannot be written");
            }
            if self.gives_up.get() {
                return Err(error);
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Everything that is stored, as one change.
fn whole(stored: &Stored) -> BytesMut {
    let mut change = BytesMut::new();
    for record in stored.records() {
        stored::encode(&record, &mut change);
    }
    change
}
