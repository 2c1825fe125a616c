//! The protocols between threads, run by `loom` in every order that threads and memory allow.
//!
//! `wake.rs` and `mailbox.rs` are compiled here a second time, over `loom`'s atomics. A lost
//! wake-up shows as a deadlock of the model, a missed value as a failed assertion.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    pub(crate) use loom::sync::{Arc, Mutex};
    pub(crate) use std::sync::PoisonError;

    use std::task::Waker;

    use loom::sync::atomic::AtomicUsize;

    /// Orders what the real one orders: a registration sees what was stored before any wake
    /// that it came too late for.
    pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            AtomicWaker(Mutex::new(None))
        }

        pub(crate) fn register(&self, waker: &Waker) {
            *self.0.lock().unwrap() = Some(waker.clone());
        }

        pub(crate) fn wake(&self) {
            let waker = self.0.lock().unwrap().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// A queue of one place that promises no more than the real one: an attempt that fails
    /// orders nothing.
    pub(crate) struct ArrayQueue<M> {
        /// 0: empty, 1: full, 2: somebody is at it.
        state: AtomicUsize,
        place: Mutex<Option<M>>,
    }

    impl<M> ArrayQueue<M> {
        pub(crate) fn new(depth: usize) -> Self {
            assert_eq!(depth, 1);
            ArrayQueue {
                state: AtomicUsize::new(0),
                place: Mutex::new(None),
            }
        }

        fn begin(&self, expected: usize) -> bool {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            let begun = self.state.compare_exchange(expected, 2, success, failure);
            begun.is_ok()
        }

        pub(crate) fn push(&self, message: M) -> Result<(), M> {
            if !self.begin(0) {
                return Err(message);
            }
            *self.place.lock().unwrap() = Some(message);
            self.state.store(1, Ordering::Release);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<M> {
            if !self.begin(1) {
                return None;
            }
            let message = self.place.lock().unwrap().take();
            self.state.store(0, Ordering::Release);
            message
        }
    }
}

#[path = "wake.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
mod wake;

#[path = "mailbox.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
#[expect(unreachable_pub, dead_code, reason = "public in its own place")]
mod mailbox;

use loom::future::block_on;
use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Notify};
use loom::thread;
use sync::Ordering;
use wake::{Inbox, Queued};

/// All orders with at most so many preemptions, which is enough for each fault that was put in
/// to be found; `LOOM_MAX_PREEMPTIONS` tries more.
const PREEMPTIONS: usize = 2;

fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(model);
}

struct Core {
    inbox: Inbox<()>,
    queued: Queued,
    /// The kernel's part: a ring before the sleep ends the sleep at once.
    bell: Notify,
    /// What the task is to see.
    mail: AtomicUsize,
}

impl Core {
    fn new() -> Arc<Self> {
        Arc::new(Core {
            inbox: Inbox::new(),
            queued: Queued::new(false),
            bell: Notify::new(),
            mail: AtomicUsize::new(0),
        })
    }

    /// As another thread: store, then wake.
    fn send(&self) {
        self.mail.fetch_add(1, Ordering::Relaxed);
        if self.queued.raise() && self.inbox.push(()) {
            self.bell.notify();
        }
    }

    /// As the core: turns and sleeps until the task has seen `count` messages.
    fn receive(&self, count: usize) {
        let mut ready = Vec::new();
        loop {
            self.inbox.take(&mut ready);
            for () in ready.drain(..) {
                self.queued.lower();
                if self.mail.load(Ordering::Relaxed) == count {
                    return;
                }
            }
            // A spin looks once more before it gives up.
            if self.inbox.has_some() {
                continue;
            }
            if self.inbox.fall_asleep() {
                self.bell.wait();
            }
            self.inbox.wake_up();
        }
    }
}

#[test]
fn a_sleeping_core_hears_another_thread() {
    in_every_order(|| {
        let core = Core::new();
        let sender = {
            let core = core.clone();
            thread::spawn(move || core.send())
        };
        core.receive(1);
        sender.join().unwrap();
    });
}

/// The second waker finds the task queued and goes away: the run it relies on must see its
/// message.
#[test]
fn a_waker_that_finds_the_task_queued_is_not_forgotten() {
    in_every_order(|| {
        let core = Core::new();
        let senders = [core.clone(), core.clone()].map(|core| thread::spawn(move || core.send()));
        core.receive(2);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn a_waiting_receiver_hears_a_message() {
    in_every_order(|| {
        let mut ports = mailbox::mesh::<u32>(2, 1);
        let (two, one) = (ports.pop().unwrap(), ports.pop().unwrap());
        let receiver = thread::spawn(move || assert_eq!(block_on(two.recv()), (0, 7)));
        block_on(one.send(1, 7));
        receiver.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_for_room_hears_of_it() {
    in_every_order(|| {
        let mut ports = mailbox::mesh::<u32>(2, 1);
        let (two, one) = (ports.pop().unwrap(), ports.pop().unwrap());
        let receiver = thread::spawn(move || {
            for expected in 0..2 {
                assert_eq!(block_on(two.recv()), (0, expected));
            }
            two
        });
        for message in 0..2 {
            block_on(one.send(1, message));
        }
        receiver.join().unwrap();
    });
}

/// The message holds what its sender waits for: it must be dropped, on whichever side.
#[test]
fn a_message_to_a_port_that_closes_is_dropped() {
    in_every_order(|| {
        let held = std::sync::Arc::new(());
        let mut ports = mailbox::mesh::<std::sync::Arc<()>>(2, 1);
        let (two, one) = (ports.pop().unwrap(), ports.pop().unwrap());
        let receiver = thread::spawn(move || drop(two));
        // The second would wait for room for ever.
        for _ in 0..2 {
            block_on(one.send(1, held.clone()));
        }
        receiver.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    });
}
