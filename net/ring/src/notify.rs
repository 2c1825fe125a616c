//! A bell between tasks of one core.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Wakes tasks that wait for something to change. A ring of `notify_one` with nobody waiting is
/// kept for the next who waits; `notify_all` is for those who wait now.
#[derive(Debug, Default)]
pub struct Notify {
    /// Who waits, by ticket: the longest first. None until the first poll.
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
    tickets: Cell<u64>,
    /// Tickets that `notify_one` rang and that have not seen it yet.
    rung: RefCell<BTreeSet<u64>>,
    kept: Cell<bool>,
}

impl Notify {
    /// A bell that has not rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the one who has waited longest; kept for the next if nobody waits.
    pub fn notify_one(&self) {
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
    pub fn notify_all(&self) {
        for waker in self.waiting.take().into_values().flatten() {
            waker.wake();
        }
    }

    /// Somebody waits.
    pub fn is_awaited(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Waits for the next ring. The place in the queue is taken by this call, not by the first
    /// poll, so that nothing is missed between a check and the await.
    pub fn notified(&self) -> Notified<'_> {
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
pub struct Notified<'a> {
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
            // Whoever has no place in the queue any more has been rung.
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
    use super::*;
    use std::pin::pin;

    fn poll(f: Pin<&mut Notified<'_>>) -> bool {
        f.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_ring_with_nobody_waiting_is_kept_once() {
        let n = Notify::new();
        n.notify_one();
        n.notify_one();
        assert!(poll(pin!(n.notified())));
        assert!(!poll(pin!(n.notified())));
    }

    #[test]
    fn a_ring_between_check_and_await_is_not_missed() {
        let n = Notify::new();
        let waiting = n.notified();
        n.notify_all();
        assert!(poll(pin!(waiting)));
    }

    #[test]
    fn a_dropped_waiter_does_not_swallow_a_ring() {
        let n = Notify::new();
        drop(n.notified());
        let other = n.notified();
        n.notify_one();
        assert!(poll(pin!(other)));
        assert!(!n.is_awaited());
    }

    /// As when a time-out wins against a ring in the same turn.
    #[test]
    fn a_waiter_dropped_after_its_ring_passes_it_on() {
        let n = Notify::new();
        let (first, second) = (n.notified(), n.notified());
        n.notify_one();
        drop(first);
        assert!(poll(pin!(second)), "the ring went down with the first");
        let alone = n.notified();
        n.notify_one();
        drop(alone);
        assert!(poll(pin!(n.notified())), "the ring is kept for the next");
    }

    #[test]
    fn a_ring_for_all_is_not_passed_on() {
        let n = Notify::new();
        let (first, second) = (n.notified(), n.notified());
        n.notify_all();
        drop(first);
        assert!(poll(pin!(second)));
        assert!(!poll(pin!(n.notified())), "it was for those who waited");
        let (first, second) = (n.notified(), n.notified());
        n.notify_one();
        n.notify_all();
        drop((first, second));
        assert!(poll(pin!(n.notified())), "the ring for one is passed on");
    }
}
