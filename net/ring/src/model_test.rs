//! The protocols between threads, run by `loom` in every order that threads and memory allow.
//!
//! `wake.rs` is compiled here a second time, over `loom`'s atomics. A lost wake-up shows as a
//! deadlock of the model, a missed value as a failed assertion.

mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    pub(crate) use std::sync::PoisonError;
}

#[path = "wake.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
mod wake;

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
