//! The end of a ring: what waits for a peer is cancelled, what is under way to a disk may end.
//!
//! Memory that the kernel still has after that is leaked, never freed.

use std::mem;
use std::time::{Duration, Instant};

use io_uring::types;

use super::Uring;
use crate::op::{Completion, Payload};

/// How long a ring waits for the kernel to give its memory back.
const DRAIN: Duration = Duration::from_secs(10);
/// How long it leaves disk operations to end by themselves.
const DISK: Duration = Duration::from_secs(5);
/// How long it waits for memory that was sent without a copy: as long as that, a peer may leave it
/// unacknowledged.
const LENT: Duration = Duration::from_secs(1);
/// One wait for completions.
const PAUSE: Duration = Duration::from_millis(20);

impl Uring {
    /// Begins nothing new, ends what there is, and appends its completions to `out`.
    pub(crate) fn close(&mut self, out: &mut Vec<Completion>) {
        let begun = Instant::now();
        let waiting: Vec<_> = self
            .flights
            .iter()
            .flatten()
            .filter(|flight| flight.op.is_cancellable())
            .map(|flight| flight.key)
            .collect();
        for key in waiting {
            self.cancel(key);
        }
        self.closing = true;
        let lent = |ring: &Uring| !ring.lent.is_empty() && begun.elapsed() < LENT;
        while (self.in_flight > 0 || self.event_armed || lent(self)) && begun.elapsed() < DRAIN {
            self.flush_backlog();
            // Also messages to other cores that were still on their way.
            let _ = self.enter(None);
            self.reap(out);
            if self.in_flight == 0 || begun.elapsed() > DISK {
                // The eventfd's read, and what did not end by itself. Limited: a disk that hangs
                // must not hang us.
                let everything = types::CancelBuilder::any().all();
                let limit = Some(types::Timespec::from(PAUSE));
                let _ = self
                    .ring
                    .submitter()
                    .register_sync_cancel(limit, everything);
            }
            if self.in_flight > 0 || self.event_armed || lent(self) {
                let _ = self.enter(Some(Some(PAUSE)));
            }
            self.reap(out);
        }
        // The table's own references, which the kernel would drop some time after the ring:
        // addresses and locks are free at once.
        let _ = self.ring.submitter().unregister_files();
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.closing {
            let mut unwanted = Vec::new();
            self.close(&mut unwanted);
            for completion in unwanted {
                if let Payload::Chunk(chunk) = completion.payload {
                    self.take_chunk(chunk, None);
                }
            }
        }
        self.lent.leak();
        let buffers = self.buffers.take().expect("present until drop");
        if self.in_flight > 0 || self.event_armed {
            // The kernel still holds pointers into this memory.
            mem::forget(mem::take(&mut self.flights));
            mem::forget(buffers);
            mem::forget(mem::replace(&mut self.event_value, Box::new(0)));
            return;
        }
        let submitter = self.ring.submitter();
        if submitter.unregister_buf_ring(buffers.group()).is_ok() {
            // SAFETY: nothing is in flight and the group is unregistered.
            unsafe { buffers.release() };
        } else {
            mem::forget(buffers);
        }
    }
}
