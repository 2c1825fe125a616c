//! How a core hears of what other threads did for it, awake or asleep: the protocol alone.
//!
//! A thread that has something for the core stores it first, then looks whether the core
//! sleeps; a core that wants to sleep says so first, then looks whether something was stored.
//! A full fence between the two steps on both sides makes it impossible that both miss each
//! other. Only one of several threads rings the bell, and nobody rings for a core that is awake.
//!
//! `model_test.rs` runs this very file under `loom`, in every order that threads and memory
//! allow.

use super::sync::{AtomicBool, Mutex, Ordering, PoisonError, fence};

/// What other threads leave for a core.
#[derive(Debug)]
pub(crate) struct Inbox<K> {
    woken: Mutex<Vec<K>>,
    has_woken: AtomicBool,
    /// The core sleeps, or is about to: the bell must be rung.
    asleep: AtomicBool,
}

impl<K> Inbox<K> {
    pub(crate) fn new() -> Self {
        Inbox {
            woken: Mutex::new(Vec::new()),
            has_woken: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        }
    }

    /// From any thread: leaves a key. True if the caller must ring the core's bell.
    #[must_use]
    pub(crate) fn push(&self, key: K) -> bool {
        self.woken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(key);
        self.has_woken.store(true, Ordering::Release);
        // Pairs with the fence in `fall_asleep`.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }

    /// From the core: something was left.
    pub(crate) fn has_some(&self) -> bool {
        self.has_woken.load(Ordering::Acquire)
    }

    /// From the core: takes what was left.
    pub(crate) fn take(&self, into: &mut impl Extend<K>) {
        if !self.has_woken.load(Ordering::Relaxed) {
            return;
        }
        self.has_woken.swap(false, Ordering::AcqRel);
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        into.extend(woken.drain(..));
    }

    /// From the core: from now on the bell is rung for it. False if there is something to do
    /// already, and then it must not sleep.
    #[must_use]
    pub(crate) fn fall_asleep(&self) -> bool {
        // Swaps here and in `wake_up`, as in `push`: the model follows no plain store among them.
        self.asleep.swap(true, Ordering::AcqRel);
        // Pairs with the fence in `push`.
        fence(Ordering::SeqCst);
        !self.has_woken.load(Ordering::Acquire)
    }

    /// From the core: it is awake and looks by itself.
    pub(crate) fn wake_up(&self) {
        self.asleep.swap(false, Ordering::AcqRel);
    }
}

/// Whether a task waits on its core's ready list: it is put there once, however often it is
/// woken.
#[derive(Debug)]
pub(crate) struct Queued(AtomicBool);

impl Queued {
    pub(crate) fn new(queued: bool) -> Self {
        Queued(AtomicBool::new(queued))
    }

    /// From any thread: true if the caller must put the task on the list.
    #[must_use]
    pub(crate) fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// From the core, before the task runs.
    ///
    /// A swap, not a store: a waker that found the flag raised goes away and relies on this run
    /// to see what it had stored before, also past this processor's store buffer.
    pub(crate) fn lower(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}
