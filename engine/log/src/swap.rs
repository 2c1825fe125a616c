//! A compacted segment takes the place of those that it was made of, so that neither a crash nor a
//! reader finds the log half exchanged.
//!
//! The new files are complete and durable under temporary names. Then one rename decides: the new
//! log's name becomes one that says which segments it replaces ([`names::swap_name`]). From there
//! on everything is done again from any point until it is done ([`finish`]), by whoever opens the
//! folder if need be; before, nothing has happened. FORMAT.md, "Order of writes".

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmill_ring::{Notify, fs, spawn};

use crate::cleaner::CleanError;
use crate::error::IoFailure;
use crate::names::{self, Kind};
use crate::partition::Inner;
use crate::retain::{remove_later, set_aside};
use crate::segment::Segment;

/// The swaps of one partition and its truncations, as its readers have to know of them: they find
/// segments by their names, and for a moment a name may be the old segment's or the new one's.
#[derive(Debug, Default)]
pub(crate) struct Swaps {
    begun: Cell<u64>,
    ended: Cell<u64>,
    done: Notify,
}

/// A swap that goes on.
pub(crate) struct Swapping<'a>(&'a Swaps);

impl Swaps {
    /// Reads that open files by their names wait from now on, and those that have begun are begun
    /// again. By whoever holds the lock of `Meta`: one at a time.
    pub(crate) fn begin(&self) -> Swapping<'_> {
        self.begun.set(self.begun.get() + 1);
        Swapping(self)
    }
}

impl Drop for Swapping<'_> {
    fn drop(&mut self) {
        self.0.ended.set(self.0.begun.get());
        self.0.done.notify_all();
    }
}

/// A compacted segment whose files are complete and durable under temporary names.
pub(crate) struct Compacted {
    pub(crate) segment: Rc<Segment>,
    pub(crate) end_offset: i64,
}

impl Inner {
    /// Does work that opens files by their names, again if a swap or a truncation came in between:
    /// the ends of the log have to be looked up in it. What it has opened stays what it is.
    pub(crate) async fn undisturbed<T>(&self, work: impl AsyncFn() -> T) -> T {
        loop {
            let done = self.swaps.done.notified();
            let begun = self.swaps.begun.get();
            if self.swaps.ended.get() != begun {
                done.await;
                continue;
            }
            let result = work().await;
            if self.swaps.begun.get() == begun {
                return result;
            }
        }
    }

    /// Puts a compacted segment in the place of `old`, unless any of them has gone meanwhile.
    pub(crate) async fn swap(
        self: &Rc<Self>,
        old: &[Rc<Segment>],
        new: Compacted,
    ) -> Result<(), CleanError> {
        let mut meta = self.lock_meta().await.map_err(|_| CleanError::Closed)?;
        let (base, end) = (new.segment.base_offset, new.end_offset);
        let still = old.iter().all(|segment| self.has(segment));
        if !still || end > meta.last.recovery_point.segment {
            return Err(CleanError::Changed);
        }
        if self.state.borrow().failure.is_some() {
            return Err(CleanError::Closed);
        }
        self.ensure_checkpoint(&mut meta).await?;
        let swapping = self.swaps.begin();
        let cleaned = names::with_suffix(&self.path(base, Kind::Log), names::CLEANED);
        let renamed = fs::rename(&cleaned, self.dir.join(names::swap_name(base, end))).await;
        match renamed.map_err(IoFailure::of("rename", &cleaned)) {
            Ok(()) => {}
            Err(failure) if failure.is_no_space() => return Err(failure.into()),
            // it may have happened
            Err(failure) => return Err(self.failed(failure)),
        }
        let bases: Vec<i64> = old.iter().map(|segment| segment.base_offset).collect();
        let done = match fs::sync_dir(&self.dir).await {
            Ok(()) => finish(&self.dir, (base, end), &bases).await,
            Err(error) => Err(IoFailure::of("flush", &self.dir)(error)),
        };
        let deleted = done.map_err(|failure| self.failed(failure))?;
        self.exchange(old, new.segment);
        drop(swapping);
        let delay = self.state.borrow().config.file_delete_delay;
        spawn(remove_later(deleted, delay));
        Ok(())
    }

    /// In memory, at once.
    fn exchange(&self, old: &[Rc<Segment>], new: Rc<Segment>) {
        let mut state = self.state.borrow_mut();
        for segment in old {
            state.segments.remove(segment.key());
            for kind in Kind::OF_SEGMENT {
                self.forget_file(segment.base_offset, kind);
            }
        }
        state.segments.insert(new.key(), new);
    }

    /// Half of a swap is done: the next start does the other half, and until then nothing else may
    /// be written beside it.
    fn failed(&self, failure: IoFailure) -> CleanError {
        self.fail(failure);
        CleanError::Closed
    }
}

/// Everything after the rename that decided, in an order in which it may be interrupted and done
/// again: the segments that are replaced are renamed, the new indexes take their places, and all of
/// that is durable before the new log takes its own. `bases` are segments of the folder. Returns
/// what may be removed.
pub(crate) async fn finish(
    dir: &Path,
    (base, end): (i64, i64),
    bases: &[i64],
) -> Result<Vec<PathBuf>, IoFailure> {
    let mut deleted = Vec::new();
    for old in bases.iter().filter(|old| base < **old && **old < end) {
        for kind in Kind::OF_SEGMENT {
            let path = names::path_of(dir, *old, kind);
            deleted.extend(set_aside(&path).await?);
        }
    }
    for kind in [Kind::Index, Kind::TimeIndex, Kind::TxnIndex] {
        let path = names::path_of(dir, base, kind);
        rename_if_there(&names::with_suffix(&path, names::CLEANED), &path).await?;
    }
    let sync = async || {
        let synced = fs::sync_dir(dir).await;
        synced.map_err(IoFailure::of("flush", dir))
    };
    sync().await?;
    let swap = dir.join(names::swap_name(base, end));
    rename_if_there(&swap, &names::path_of(dir, base, Kind::Log)).await?;
    sync().await?;
    Ok(deleted)
}

async fn rename_if_there(from: &Path, to: &Path) -> Result<bool, IoFailure> {
    match fs::rename(from, to).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(IoFailure::of("rename", from)(error)),
    }
}

/// Finishes the swaps that a crash has interrupted in a folder.
pub(crate) async fn finish_interrupted(dir: &Path) -> Result<(), IoFailure> {
    let entries = fs::read_dir(dir)
        .await
        .map_err(IoFailure::of("list", dir))?;
    let swaps = entries
        .iter()
        .filter_map(|entry| names::parse_swap(&entry.name));
    let swaps: Vec<_> = swaps.collect();
    if swaps.is_empty() {
        return Ok(());
    }
    let parsed = entries
        .iter()
        .filter_map(|entry| names::parse(&entry.name))
        .filter(|(_, kind)| Kind::OF_SEGMENT.contains(kind));
    let mut bases: Vec<i64> = parsed.map(|(base, _)| base).collect();
    bases.sort_unstable();
    bases.dedup();
    // the rename that decided may be in the page cache alone
    fs::sync_dir(dir)
        .await
        .map_err(IoFailure::of("flush", dir))?;
    for (base, end) in swaps {
        // the log goes on at the end of what is compacted, always
        if !bases.contains(&end) {
            let swap = dir.join(names::swap_name(base, end));
            tracing::error!(path = %swap.display(), "no segment follows it: it is left alone");
            continue;
        }
        tracing::info!(
            dir = %dir.display(), base, end,
            "a compacted segment takes its place, which a crash had interrupted",
        );
        finish(dir, (base, end), &bases).await?;
    }
    Ok(())
}
