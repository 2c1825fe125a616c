//! Who waits for which end of the log, woken in the order of offsets and not before their time.
//! Pure, but for the channel that wakes. Bounded by the appends that connections may have in
//! flight.

use std::collections::BTreeMap;

use futures_channel::oneshot;

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Written,
    Flushed,
    /// And the replicas have it.
    Visible,
}

/// End offset, and a number to tell waits for the same one apart.
type WaitKey = (i64, u64);

/// The waits of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    written: BTreeMap<WaitKey, oneshot::Sender<()>>,
    flushed: BTreeMap<WaitKey, oneshot::Sender<()>>,
    visible: BTreeMap<WaitKey, oneshot::Sender<()>>,
    count: u64,
}

impl Waits {
    /// Waits until everything before `end` has reached the level, or for [`Waits::wake_from`]:
    /// whoever wakes looks for himself.
    pub(crate) fn register(&mut self, level: Level, end: i64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.count += 1;
        let key = (end, self.count);
        match level {
            Level::Written => self.written.insert(key, sender),
            Level::Flushed => self.flushed.insert(key, sender),
            Level::Visible => self.visible.insert(key, sender),
        };
        receiver
    }

    /// The ends have moved.
    pub(crate) fn on_progress(&mut self, written: i64, flushed: i64, visible: i64) {
        for (waits, end) in [
            (&mut self.written, written),
            (&mut self.flushed, flushed),
            (&mut self.visible, visible),
        ] {
            while let Some(first) = waits.first_entry() {
                if first.key().0 > end {
                    break;
                }
                // whoever does not wait any more need not know
                let _ = first.remove().send(());
            }
        }
    }

    /// Everything after `end` was taken back.
    pub(crate) fn wake_from(&mut self, end: i64) {
        for waits in [&mut self.written, &mut self.flushed, &mut self.visible] {
            for (_, wait) in waits.split_off(&(end, u64::MAX)) {
                let _ = wait.send(());
            }
        }
    }

    /// Gives back the memory of levels that nobody waits for.
    pub(crate) fn give_back(&mut self) {
        for waits in [&mut self.written, &mut self.flushed, &mut self.visible] {
            if waits.is_empty() {
                // an emptied map keeps its root
                *waits = BTreeMap::new();
            }
        }
    }

    /// The partition has failed or closed.
    pub(crate) fn wake_all(&mut self) {
        self.wake_from(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(receiver: &mut oneshot::Receiver<()>) -> bool {
        receiver.try_recv() == Ok(Some(()))
    }

    #[test]
    fn waits_end_at_their_level_and_in_their_order() {
        let mut waits = Waits::default();
        let mut early = waits.register(Level::Flushed, 5);
        let mut late = waits.register(Level::Flushed, 9);
        let mut written = waits.register(Level::Written, 9);
        let mut visible = waits.register(Level::Visible, 5);
        waits.on_progress(9, 4, 4);
        assert!(is_woken(&mut written) && !is_woken(&mut early));
        waits.on_progress(9, 5, 4);
        assert!(is_woken(&mut early) && !is_woken(&mut late) && !is_woken(&mut visible));
        waits.on_progress(9, 5, 5);
        assert!(is_woken(&mut visible));
        waits.wake_from(9);
        assert!(!is_woken(&mut late), "what ends there was not taken back");
        waits.wake_from(8);
        assert!(is_woken(&mut late));
    }
}
