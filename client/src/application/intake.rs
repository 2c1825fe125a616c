//! Where records cross from the application's threads to the I/O thread: a queue in a lock that is
//! held for a push or a swap, bounded together with what the producer holds (`buffer.memory`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_channel::oneshot;

use super::record::ProducerRecord;
use crate::producer::{Delivered, DeliveryError, FlushError, SendError};

/// A record on its way to the I/O thread.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) record: ProducerRecord,
    pub(crate) delivered: oneshot::Sender<Result<Delivered, DeliveryError>>,
}

/// What comes through the queue, in the order of the calls.
#[derive(Debug)]
pub(crate) enum Entry {
    Send(Submission),
    /// Tell when all that came before is settled.
    Flush(oneshot::Sender<Result<(), FlushError>>),
    /// Tell when all that came before is with the producer, or waits for its topic.
    Mark(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Bytes of records that the producer has not yet taken into its batches.
    outside: usize,
    /// Bytes that it has.
    inside: usize,
    closed: bool,
    /// Wakes the I/O thread.
    bell: Option<Waker>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    state: Mutex<State>,
    limit: usize,
}

impl Intake {
    /// Holds `limit` bytes of records, or one larger record alone.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // no code of others runs within: the state is whole even after a panic
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record if there is room, else gives it back.
    #[expect(clippy::result_large_err, reason = "the record comes back as it was")]
    pub(crate) fn offer(&self, submission: Submission) -> Result<(), (SendError, Submission)> {
        let bytes = submission.record.size();
        let mut state = self.lock();
        let held = state.outside + state.inside;
        if state.closed {
            return Err((SendError::Closed, submission));
        }
        if held > 0 && held + bytes > self.limit {
            return Err((SendError::Full, submission));
        }
        state.outside += bytes;
        state.push(Entry::Send(submission));
        Ok(())
    }

    /// Asks for a word when all that was taken so far is settled.
    pub(crate) fn flush(&self) -> Option<oneshot::Receiver<Result<(), FlushError>>> {
        let (tell, told) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.push(Entry::Flush(tell));
        Some(told)
    }

    /// Asks for a word when all that was taken so far is out of the queue.
    pub(crate) fn mark(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.lock().push(Entry::Mark(tell));
        told
    }

    /// Nothing more is taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Whether a record of `bytes` would be taken now, or refused for good.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let state = self.lock();
        let held = state.outside + state.inside;
        state.closed || held == 0 || held + bytes <= self.limit
    }

    /// Bytes of records that wait for their delivery.
    pub(crate) fn held(&self) -> usize {
        let state = self.lock();
        state.outside + state.inside
    }

    /// For the I/O thread: all that has come.
    pub(crate) fn poll_entries(&self, cx: &mut Context<'_>) -> Poll<Vec<Entry>> {
        let mut state = self.lock();
        if state.entries.is_empty() {
            match &mut state.bell {
                Some(bell) => bell.clone_from(cx.waker()),
                bell => *bell = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.entries))
    }

    /// For the I/O thread: `moved` bytes of records are inside now, or have failed, and the
    /// producer holds `inside` bytes.
    pub(crate) fn on_moved(&self, moved: usize, inside: usize) {
        let mut state = self.lock();
        state.outside = state.outside.saturating_sub(moved);
        state.inside = inside;
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        if self.entries.len() == 1
            && let Some(bell) = self.bell.take()
        {
            bell.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(bytes: usize) -> Submission {
        let record = ProducerRecord::to("t").value(vec![0; bytes]);
        let (delivered, _) = oneshot::channel();
        Submission { record, delivered }
    }

    fn taken(intake: &Intake) -> usize {
        match intake.poll_entries(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(entries) => entries.len(),
            Poll::Pending => 0,
        }
    }

    #[test]
    fn the_bound_holds_over_the_queue_and_the_producer() {
        let intake = Intake::new(1000);
        assert!(intake.offer(submission(400)).is_ok());
        assert!(intake.offer(submission(400)).is_ok());
        let refused = intake.offer(submission(400)).unwrap_err().0;
        assert_eq!(refused, SendError::Full);
        assert_eq!(taken(&intake), 2);
        // what left the queue is inside the producer, not gone
        intake.on_moved(intake.held(), 900);
        assert!(!intake.has_room(400));
        intake.on_moved(0, 0);
        assert!(intake.has_room(400));
    }

    #[test]
    fn a_record_larger_than_the_bound_goes_alone() {
        let intake = Intake::new(100);
        assert!(intake.offer(submission(5000)).is_ok());
        assert!(intake.offer(submission(1)).is_err());
    }

    #[test]
    fn a_closed_intake_says_so() {
        let intake = Intake::new(100);
        intake.close();
        assert_eq!(
            intake.offer(submission(1)).unwrap_err().0,
            SendError::Closed
        );
        assert!(intake.flush().is_none());
        assert!(intake.has_room(1 << 20), "nobody waits for a closed one");
    }

    #[test]
    fn flushes_keep_their_place_among_the_records() {
        let intake = Intake::new(10_000);
        intake.offer(submission(1)).unwrap();
        let _told = intake.flush().unwrap();
        intake.offer(submission(1)).unwrap();
        let Poll::Ready(entries) = intake.poll_entries(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("three entries")
        };
        let flushes: Vec<bool> = entries
            .iter()
            .map(|entry| matches!(entry, Entry::Flush(_)))
            .collect();
        assert_eq!(flushes, [false, true, false]);
    }
}
