//! The bell of a sleeping core: a message to its ring from another ring, or a write to its
//! eventfd from a thread that has none.
//!
//! Which of the two is decided by who rings, not by who sleeps. A message can fail (the sleeper's
//! ring is out of memory, or closed by now); then the eventfd is written after all, so that a
//! ring of the bell is never lost.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// One core's bell. Shared by all threads.
#[derive(Debug)]
pub(crate) struct Bell {
    /// The ring's descriptor, for `IORING_OP_MSG_RING`; -1 without one.
    ring: AtomicI32,
    event: OnceLock<std::fs::File>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Bell {
            ring: AtomicI32::new(-1),
            event: OnceLock::new(),
        }
    }

    /// Tells how the core's driver is woken.
    pub(crate) fn hang(&self, ring: Option<RawFd>, event: OwnedFd) {
        let _ = self.event.set(event.into());
        self.ring.store(ring.unwrap_or(-1), Ordering::Release);
    }

    /// The core has ended: its ring's number may soon be another's.
    pub(crate) fn take_down(&self) {
        self.ring.store(-1, Ordering::Release);
    }

    /// The ring to send a message to, if messages are to be had.
    pub(crate) fn ring(&self) -> Option<RawFd> {
        let ring = self.ring.load(Ordering::Acquire);
        (ring >= 0).then_some(ring)
    }

    /// Rings by the eventfd.
    pub(crate) fn write_event(&self) {
        if let Some(event) = self.event.get() {
            // Fails only when the counter is full, and then the core is awake anyway.
            let _ = io::Write::write(&mut &*event, &1u64.to_ne_bytes());
        }
    }
}
