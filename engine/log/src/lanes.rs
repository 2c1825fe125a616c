//! The open files of the segment that is written to. An idle partition keeps none.
//!
//! Several flushes of one segment at once have a lane each, and a lane has an open file of its own.
//! Why not one file for all: Linux tells a failed write-back once to each open file (`errseq`), to
//! whichever flush comes first. Of two flushes of one file, the one that has everything on the disk
//! might get the error, and the one that lost something success. A file of its own tells each
//! lane of every failure since its last flush.

use std::rc::Rc;

use ringmill_ring::{File, OpenOptions, spawn};

use crate::caches::CoreCaches;
use crate::error::IoFailure;
use crate::flush::Front;
use crate::names::Kind;
use crate::partition::{Active, Inner, Phase};

/// The lanes beside the first, which is the segment's own file. Opened when appends would have
/// had to wait for one, and let go when the partition is idle.
#[derive(Default)]
pub(crate) struct Lanes {
    more: Vec<(File, Permit)>,
    /// One is being opened, or could not be: there will be no more for now.
    shut: bool,
}

/// The right to one more open file, out of the core's.
struct Permit(Rc<CoreCaches>);

impl Permit {
    fn take(caches: &Rc<CoreCaches>) -> Option<Self> {
        let left = caches.lanes_left.get().checked_sub(1)?;
        caches.lanes_left.set(left);
        Some(Permit(caches.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left = &self.0.lanes_left;
        left.set(left.get() + 1);
    }
}

impl Active {
    pub(crate) fn lane(&self, lane: usize) -> &File {
        match lane.checked_sub(1) {
            None => self
                .file
                .as_ref()
                .expect("it is open while it is written to"),
            Some(nth) => &self.lanes.more[nth].0,
        }
    }
}

impl Inner {
    /// Opens one more lane if it would be of use.
    pub(crate) fn widen(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let front = state.front();
        if state.active.lanes.shut || !state.commit.wants_lane(front) {
            return;
        }
        if let Some(permit) = Permit::take(&self.caches) {
            state.active.lanes.shut = true;
            let base_offset = state.active.segment.base_offset;
            spawn(self.clone().open_lane(base_offset, permit));
        }
    }

    /// What is idle keeps no files, and no memory for what comes next.
    pub(crate) fn let_go(&self) {
        let mut state = self.state.borrow_mut();
        // what has failed may still be looked at
        if state.failure.is_some() || !state.commit.narrow() {
            return;
        }
        state.active.lanes = Lanes::default();
        let flushed = state.commit.flushed().offset == state.commit.written().offset;
        if flushed && !state.prewrite.is_filling() {
            state.active.file = None;
            state.queue.give_back();
            state.commit.give_back();
            state.waits.give_back();
        }
        drop(state);
        // whoever has them is busy
        if let Some(mut meta) = self.meta.try_lock() {
            meta.let_go();
        }
    }

    /// Opens the file that appends wait for.
    pub(crate) fn open_for_writing(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let waits = state.queue.front() != Front::Empty;
        let closed = state.active.file.is_none() && !state.active.opening;
        if waits && closed && state.failure.is_none() {
            state.active.opening = true;
            spawn(self.clone().reopen());
        }
    }

    async fn reopen(self: Rc<Self>) {
        let (base_offset, incarnation) = {
            let state = self.state.borrow();
            (state.active.segment.base_offset, state.incarnation)
        };
        let opened = self.open_log(base_offset).await;
        let mut state = self.state.borrow_mut();
        if state.incarnation != incarnation {
            return;
        }
        state.active.opening = false;
        if state.phase == Phase::Closed || state.failure.is_some() {
            return;
        }
        match opened {
            Ok(file) => {
                state.active.file = Some(file);
                drop(state);
                self.schedule_pump();
            }
            Err(failure) => {
                // nothing is in flight; there may be descriptors again later
                tracing::warn!(%failure, "appends are refused");
                state.commit.on_no_space();
                state.take_back();
                drop(state);
                self.room.notify_all();
                self.changed.notify_all();
            }
        }
    }

    async fn open_log(&self, base_offset: i64) -> Result<File, IoFailure> {
        let path = self.path(base_offset, Kind::Log);
        let options = OpenOptions::new().read(true).write(true);
        File::open(&path, options)
            .await
            .map_err(IoFailure::of("open", &path))
    }

    /// The active segment's file, for whoever changes it while nothing is written.
    pub(crate) async fn active_file(&self) -> Result<File, IoFailure> {
        let (file, base_offset) = {
            let state = self.state.borrow();
            (state.active.file.clone(), state.active.segment.base_offset)
        };
        match file {
            Some(file) => Ok(file),
            None => self.open_log(base_offset).await,
        }
    }

    async fn open_lane(self: Rc<Self>, base_offset: i64, permit: Permit) {
        let incarnation = self.state.borrow().incarnation;
        let opened = self.open_log(base_offset).await;
        let mut state = self.state.borrow_mut();
        // once closed, the folder may be another one's; once truncated, the file another one
        let current =
            state.active.segment.base_offset == base_offset && state.incarnation == incarnation;
        if !current || state.phase != Phase::Open || state.failure.is_some() {
            return;
        }
        match opened {
            Ok(file) => {
                state.active.lanes.more.push((file, permit));
                state.active.lanes.shut = false;
                let lanes = 1 + state.active.lanes.more.len();
                state.commit.set_lanes(lanes);
                drop(state);
                self.schedule_pump();
            }
            Err(failure) => tracing::debug!(%failure, "no further lane"),
        }
    }
}
