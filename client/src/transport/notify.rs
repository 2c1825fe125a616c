//! A bell between the tasks of one thread, the same on every runtime.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Wakes tasks that wait for something to change. A ring of `notify_one` with nobody waiting is
/// kept for the next who waits; `notify_all` is for those who wait now.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    /// Who waits, by ticket: the longest first. None until the first poll.
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
    tickets: Cell<u64>,
    /// Tickets that `notify_one` rang and that have not seen it yet.
    rung: RefCell<BTreeSet<u64>>,
    kept: Cell<bool>,
}

impl Notify {
    /// A bell that has not rung.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Wakes the one who has waited longest; kept for the next if nobody waits.
    pub(crate) fn notify_one(&self) {
        let first = self.waiting.borrow_mut().pop_first();
        let Some((ticket, waker)) = first else {
            return self.kept.set(true);
        };
        self.rung.borrow_mut().insert(ticket);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes all who wait now.
    pub(crate) fn notify_all(&self) {
        for waker in self.waiting.take().into_values().flatten() {
            waker.wake();
        }
    }

    /// Waits for the next ring. The place in the queue is taken by this call, not by the first
    /// poll, so that nothing is missed between a check and the await.
    pub(crate) fn notified(&self) -> Notified<'_> {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        if self.kept.replace(false) {
            self.rung.borrow_mut().insert(ticket);
        } else {
            self.waiting.borrow_mut().insert(ticket, None);
        }
        Notified {
            notify: self,
            ticket,
        }
    }
}

/// Waits for a [`Notify`]. Dropped after a `notify_one` that it has not seen, it passes the ring
/// on to the next.
#[derive(Debug)]
#[must_use = "nothing waits until this is awaited"]
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    ticket: u64,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.notify.waiting.borrow_mut();
        match waiting.get_mut(&self.ticket) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(none) => *none = Some(cx.waker().clone()),
            // whoever has no place in the queue any more has been rung
            None => {
                self.notify.rung.borrow_mut().remove(&self.ticket);
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let waited = self.notify.waiting.borrow_mut().remove(&self.ticket);
        drop(waited);
        let rung = self.notify.rung.borrow_mut().remove(&self.ticket);
        if rung {
            self.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn is_rung(waiting: Pin<&mut Notified<'_>>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        waiting.poll(&mut context).is_ready()
    }

    #[test]
    fn a_ring_with_nobody_waiting_is_kept_once() {
        let bell = Notify::new();
        bell.notify_one();
        bell.notify_one();
        assert!(is_rung(pin!(bell.notified())));
        assert!(!is_rung(pin!(bell.notified())));
    }

    #[test]
    fn the_place_in_the_queue_is_taken_before_the_first_poll() {
        let bell = Notify::new();
        let (first, second) = (pin!(bell.notified()), pin!(bell.notified()));
        bell.notify_all();
        assert!(is_rung(first) && is_rung(second));
        assert!(!is_rung(pin!(bell.notified())), "it is not kept");
    }

    #[test]
    fn a_ring_that_was_not_seen_goes_to_the_next() {
        let bell = Notify::new();
        let gone = bell.notified();
        let mut next = pin!(bell.notified());
        bell.notify_one();
        assert!(!is_rung(next.as_mut()));
        drop(gone);
        assert!(is_rung(next));
    }
}
