//! Several flushes of one segment at once: lanes, an open file each.
//!
//! Why not one file for all: Linux tells a failed write-back once to each open file (`errseq`), to
//! whichever flush comes first. Of two flushes of one file, the one that has everything on the disk
//! might get the error, and the one that lost something success. A file of its own tells each
//! lane of every failure since its last flush.

use std::rc::Rc;

use ringmill_ring::{File, OpenOptions, spawn};

use crate::caches::CoreCaches;
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
            None => &self.file,
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

    /// What is idle keeps no lanes.
    pub(crate) fn narrow(&self) {
        let mut state = self.state.borrow_mut();
        if state.commit.narrow() {
            state.active.lanes = Lanes::default();
        }
    }

    async fn open_lane(self: Rc<Self>, base_offset: i64, permit: Permit) {
        let path = self.path(base_offset, Kind::Log);
        let options = OpenOptions::new().read(true).write(true);
        let opened = File::open(&path, options).await;
        let mut state = self.state.borrow_mut();
        // once closed, the folder may be another one's
        let current = state.active.segment.base_offset == base_offset;
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
            Err(error) => tracing::debug!(file = %path.display(), %error, "no further lane"),
        }
    }
}
