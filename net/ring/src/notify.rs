//! A bell between tasks of one core.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Waiter {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Wakes tasks that wait for something to change. A ring of `notify_one` with nobody waiting is
/// kept for the next who waits; `notify_all` is for those who wait now.
#[derive(Default)]
pub struct Notify {
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    kept: Cell<bool>,
}

impl Notify {
    /// A bell that has not rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the one who has waited longest; kept for the next if nobody waits.
    pub fn notify_one(&self) {
        match self.waiters.borrow_mut().pop_front() {
            Some(waiter) => ring(&waiter),
            None => self.kept.set(true),
        }
    }

    /// Wakes all who wait now.
    pub fn notify_all(&self) {
        let waiters = self.waiters.take();
        for waiter in waiters {
            ring(&waiter);
        }
    }

    /// Somebody waits.
    pub fn is_awaited(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }

    /// Waits for the next ring. The place in the queue is taken by this call, not by the first
    /// poll, so that nothing is missed between a check and the await.
    pub fn notified(&self) -> Notified<'_> {
        let waiter = Rc::new(Waiter {
            rung: Cell::new(false),
            waker: RefCell::new(None),
        });
        if self.kept.replace(false) {
            waiter.rung.set(true);
        } else {
            self.waiters.borrow_mut().push_back(waiter.clone());
        }
        Notified {
            notify: self,
            waiter,
            done: false,
        }
    }
}

fn ring(waiter: &Waiter) {
    waiter.rung.set(true);
    if let Some(waker) = waiter.waker.borrow_mut().take() {
        waker.wake();
    }
}

/// Waits for a [`Notify`].
pub struct Notified<'a> {
    notify: &'a Notify,
    waiter: Rc<Waiter>,
    done: bool,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiter.rung.get() {
            self.done = true;
            return Poll::Ready(());
        }
        *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.notify
            .waiters
            .borrow_mut()
            .retain(|w| !Rc::ptr_eq(w, &self.waiter));
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
}
