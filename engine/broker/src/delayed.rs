//! The waiting of fetches for data. A fetch is answered when as many bytes as it asks for are
//! visible, or when its time is over; in between it sleeps, and is woken by the partitions it
//! watches. [`Progress`] is the pure part: how many bytes of a partition have become visible,
//! without looking at its records. (Produce requests wait on their receipts, one by one.)

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::future::{Either, LocalBoxFuture, select};
use ringmill_ring::Notified;

use crate::partition::{Hosted, Seen};

/// How many bytes of a partition were appended, and how many of them are visible.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    appended_bytes: u64,
    visible_bytes: u64,
    /// Appends that are not yet visible: where each ends, and the bytes appended until then.
    pending: VecDeque<(i64, u64)>,
}

impl Progress {
    /// A batch of so many bytes was appended; the log ends at `end` then.
    pub(crate) fn on_appended(&mut self, end: i64, bytes: u64) {
        self.appended_bytes += bytes;
        // Offsets that were taken back for want of space are given out again.
        while self
            .pending
            .pop_back_if(|(later, _)| *later >= end)
            .is_some()
        {}
        self.pending.push_back((end, self.appended_bytes));
    }

    /// The log is visible up to `end`. Returns the bytes that have become visible in all.
    pub(crate) fn on_visible(&mut self, end: i64) -> u64 {
        while let Some((_, bytes)) = self.pending.pop_front_if(|(until, _)| *until <= end) {
            self.visible_bytes = bytes;
        }
        self.visible_bytes
    }
}

/// One of the partitions that a fetch waits for.
pub(crate) struct Watched {
    hosted: Rc<Hosted>,
    seen: Seen,
    seen_bytes: u64,
    /// It had failed before: it is still readable up to its end, and waits for its deadline.
    had_failed: bool,
}

impl Watched {
    /// Begins to watch; `seen` is how far the fetch could read.
    pub(crate) fn new(hosted: Rc<Hosted>, seen: Seen) -> Self {
        let seen_bytes = hosted.visible_bytes();
        let had_failed = hosted.log.failure().is_some();
        Self {
            hosted,
            seen,
            seen_bytes,
            had_failed,
        }
    }

    /// Whether the fetch must look again at once: what it saw is not what is, and nobody counted.
    fn is_over(&self) -> bool {
        let log = &self.hosted.log;
        if let Some(offset) = self.seen.written {
            return log.written_end() > offset
                || log.visible_end() != self.seen.high_watermark
                || !self.hosted.replica.leads();
        }
        (log.failure().is_some() && !self.had_failed)
            || self.hosted.is_closed()
            || (log.visible_end() != self.seen.high_watermark && self.news() == 0)
            || self
                .seen
                .last_stable
                .is_some_and(|seen| log.last_stable_offset() != seen)
    }

    /// Rings when there may be something.
    fn bell(&self) -> Bell<'_> {
        let visible = self.hosted.log.changed().notified();
        match self.seen.written {
            None => Bell::Visible(visible),
            Some(offset) => Bell::Written(Box::pin(self.written(visible, offset))),
        }
    }

    /// For a follower: something is written from an offset on, has become visible, or this node
    /// leads no more.
    async fn written(&self, visible: Notified<'_>, offset: i64) {
        let written = pin!(self.hosted.log.written_beyond(offset));
        let changed = pin!(self.hosted.replica.changed.notified());
        match select(visible, select(written, changed)).await {
            // Failed, there will be nothing; the follower asks again when its time is over.
            Either::Right((Either::Left((Err(_), _)), _)) => std::future::pending().await,
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    /// Bytes that have become visible since.
    fn news(&self) -> u64 {
        self.hosted.visible_bytes() - self.seen_bytes
    }
}

/// What a watched partition rings; a consumer's takes no memory of its own.
enum Bell<'a> {
    Visible(Notified<'a>),
    Written(LocalBoxFuture<'a, ()>),
}

impl Bell<'_> {
    fn has_rung(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Visible(bell) => Pin::new(bell).poll(cx).is_ready(),
            Self::Written(bell) => bell.as_mut().poll(cx).is_ready(),
        }
    }
}

/// Waits until `need` bytes more are visible of the watched partitions together, or one of them
/// is closed or has failed.
pub(crate) async fn watch(watched: Vec<Watched>, need: u64) {
    loop {
        // A bell's place in the queue is taken before the look, so that no ring is missed.
        let mut bells: Vec<Bell<'_>> = watched.iter().map(Watched::bell).collect();
        let news: u64 = watched.iter().map(Watched::news).sum();
        if news >= need.max(1) || watched.iter().any(Watched::is_over) {
            return;
        }
        poll_fn(|cx| {
            let rung = bells.iter_mut().any(|bell| bell.has_rung(cx));
            if rung { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_when_they_become_visible_not_when_they_are_appended() {
        let mut progress = Progress::default();
        progress.on_appended(10, 100);
        progress.on_appended(20, 50);
        assert_eq!(progress.on_visible(9), 0);
        assert_eq!(progress.on_visible(10), 100);
        assert_eq!(progress.on_visible(20), 150);
        assert_eq!(progress.on_visible(20), 150);
    }

    #[test]
    fn offsets_that_are_given_out_again_replace_the_old_ones() {
        let mut progress = Progress::default();
        progress.on_appended(10, 100);
        progress.on_appended(20, 100);
        progress.on_appended(15, 100);
        assert_eq!(progress.pending.len(), 2);
        assert_eq!(progress.on_visible(10), 100);
        assert!(progress.on_visible(15) > 100);
    }
}
