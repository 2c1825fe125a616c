//! One partition's batches on their way: their order, their sequence numbers, their retries.
//!
//! Pure. Batches leave in order and, while nothing fails, several at a time. When one fails and is
//! sent again, the lane goes on with one in flight until it is through, so that no later batch
//! overtakes it. Sequence numbers are dense in the log (KIP-98): when a batch is given up that was
//! certainly not written, those behind it are numbered anew. If it may have been, they keep their
//! numbers, and the broker's answer to the next one tells: it takes it, or it misses the lost one,
//! and then the lane starts under a new epoch (KIP-360).

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_wire::batch::{Compression, ProducerStamp, advance_sequence, set_producer};
use ringmill_wire::builder::BatchBuilder;

use super::delivery::{BatchResult, DeliveryError, Outcome};
use crate::transport::Instant;

/// Who a producer is to the brokers (InitProducerId).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// Its batches belong to transactions; new epochs are the coordinator's to give.
    pub(crate) transactional: bool,
}

impl Identity {
    fn stamp(self, base_sequence: i32) -> ProducerStamp {
        ProducerStamp {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence,
            transactional: self.transactional,
        }
    }
}

/// A sealed batch.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Names the batch within its producer.
    pub(crate) serial: u64,
    pub(crate) bytes: Bytes,
    pub(crate) records: i32,
    pub(crate) created: Instant,
    pub(crate) outcome: Option<Rc<Outcome>>,
    base_sequence: i32,
    attempts: u32,
    in_flight: bool,
    /// An attempt ended without an answer: the batch may be in the log.
    uncertain: bool,
    /// The application was told that its time was over, while the batch was in flight.
    given_up: bool,
    /// What the last attempt met with.
    last_failure: String,
}

/// A batch that is settled, and how.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) serial: u64,
    pub(crate) records: i32,
    pub(crate) bytes: usize,
    /// `None` if the application was told before.
    pub(crate) result: Option<BatchResult>,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Worth another attempt after a wait. `uncertain`: the batch may have been written.
    Retry { uncertain: bool, text: String },
    /// The broker missed a sequence number before this batch's.
    Gap { text: String },
    /// The broker knows nothing of the identity, or knows a newer epoch.
    Identity { text: String },
}

/// Why sequence numbers must be given anew, once nothing is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Renumber {
    No,
    /// A batch that is certainly not in the log was given up.
    SameEpoch,
    /// What the broker has seen is not known any more.
    NewEpoch,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    batches: VecDeque<Batch>,
    in_flight: usize,
    identity: Option<Identity>,
    /// Sequence number of the oldest batch.
    first_sequence: i32,
    /// Sequence number of the next batch to be sealed.
    next_sequence: i32,
    renumber: Renumber,
    /// A batch was given up that may have been written: the broker's next number is not known.
    unresolved: bool,
    retry_at: Instant,
}

impl Lane {
    /// Without an identity, batches are not numbered.
    pub(crate) fn new(identity: Option<Identity>) -> Self {
        Self {
            batches: VecDeque::new(),
            in_flight: 0,
            identity,
            first_sequence: 0,
            next_sequence: 0,
            renumber: Renumber::No,
            unresolved: false,
            retry_at: Instant::default(),
        }
    }

    /// There are batches that are not in flight.
    pub(crate) fn has_waiting(&self) -> bool {
        self.batches.len() > self.in_flight
    }

    /// When the oldest batch was begun that the application still waits for.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let waited_for = self.batches.iter().find(|batch| !batch.given_up);
        waited_for.map(|batch| batch.created)
    }

    /// Not before this time is anything sent.
    pub(crate) fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// There is nothing to wait for any more before the next attempt.
    pub(crate) fn end_wait(&mut self) {
        self.retry_at = Instant::default();
    }

    /// Seals what `builder` holds as the next batch, named `serial`, begun at `created`. Returns its
    /// bytes.
    pub(crate) fn seal(
        &mut self,
        builder: &mut BatchBuilder,
        codec: Compression,
        serial: u64,
        created: Instant,
        outcome: Option<Rc<Outcome>>,
    ) -> usize {
        let records = builder.records_count();
        let stamp = self.identity.map_or(ProducerStamp::NONE, |identity| {
            identity.stamp(self.next_sequence)
        });
        self.next_sequence = advance_sequence(self.next_sequence, records);
        let bytes = builder.seal(codec, stamp);
        let size = bytes.len();
        self.batches.push_back(Batch {
            serial,
            bytes,
            records,
            created,
            outcome,
            base_sequence: stamp.base_sequence,
            attempts: 0,
            in_flight: false,
            uncertain: false,
            given_up: false,
            last_failure: String::from("no attempt was made, for want of a leader or of room"),
        });
        size
    }

    /// The batch to send next, if one may be sent now.
    pub(crate) fn next(&self, now: Instant) -> Option<&Batch> {
        if now < self.retry_at || self.renumber != Renumber::No || self.needs_identity() {
            return None;
        }
        let at = self.batches.iter().position(|batch| !batch.in_flight)?;
        let batch = &self.batches[at];
        let repeats = |batch: &Batch| batch.attempts > 0;
        let free = match repeats(batch) {
            true => self.in_flight == 0,
            false => !self
                .batches
                .iter()
                .take(at)
                .any(|before| before.attempts > 1),
        };
        free.then_some(batch)
    }

    /// The batch that [`Lane::next`] gave was sent.
    pub(crate) fn on_sent(&mut self, serial: u64) {
        if let Some(batch) = self.find(serial) {
            batch.in_flight = true;
            batch.attempts += 1;
            self.in_flight += 1;
        }
    }

    /// The broker has the batch.
    pub(crate) fn on_written(&mut self, serial: u64, result: BatchResult) -> Option<Settled> {
        let at = self.landed(serial)?;
        let batch = &self.batches[at];
        if at == 0 {
            self.unresolved = false;
            self.first_sequence = advance_sequence(batch.base_sequence, batch.records);
        }
        let settled = self.settle(at, result);
        self.renumber_if_idle();
        Some(settled)
    }

    /// The broker refused the batch for good, without writing it.
    pub(crate) fn on_rejected(&mut self, serial: u64, result: BatchResult) -> Option<Settled> {
        let at = self.landed(serial)?;
        self.give_up_number(at);
        let settled = self.settle(at, result);
        self.renumber_if_idle();
        Some(settled)
    }

    /// An attempt failed, another will be made after `wait`; or, if the application has been told
    /// that the time was over, none.
    pub(crate) fn on_failed(
        &mut self,
        now: Instant,
        serial: u64,
        failure: Failure,
        wait: impl FnOnce(u32) -> Duration,
    ) -> Option<Settled> {
        let at = self.landed(serial)?;
        // the one before it is still to come, or is gone and the numbers follow
        let explained = at > 0 || self.renumber != Renumber::No;
        let idempotent = self.identity.is_some();
        let transactional = self.identity.is_some_and(|identity| identity.transactional);
        let batch = &mut self.batches[at];
        match failure {
            Failure::Retry { uncertain, text } => {
                batch.uncertain |= uncertain;
                batch.last_failure = text;
                self.retry_at = now + wait(batch.attempts.saturating_sub(1));
            }
            Failure::Gap { text } if explained => batch.last_failure = text,
            Failure::Gap { text } | Failure::Identity { text } if transactional => {
                return Some(self.settle(at, Err(DeliveryError::Failed(text))));
            }
            Failure::Gap { text } | Failure::Identity { text } => {
                batch.last_failure = text;
                if idempotent {
                    self.renumber = Renumber::NewEpoch;
                }
                self.retry_at = now + wait(batch.attempts.saturating_sub(1));
            }
        }
        let settled = self.batches[at].given_up.then(|| {
            self.give_up_number(at);
            self.remove(at, None)
        });
        self.renumber_if_idle();
        settled
    }

    /// What waits could not be sent, for this reason.
    pub(crate) fn note(&mut self, text: &str) {
        for batch in self.batches.iter_mut().filter(|batch| !batch.in_flight) {
            text.clone_into(&mut batch.last_failure);
        }
    }

    /// Gives up what has been under way for `limit`. Batches in flight stay until their answer, for
    /// the sake of the sequence numbers, but the application is told.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        limit: Duration,
        timed_out: impl Fn(&str, bool) -> BatchResult,
    ) -> Vec<Settled> {
        let mut settled = Vec::new();
        let mut at = 0;
        while let Some(batch) = self.batches.get_mut(at) {
            if now < batch.created + limit {
                break;
            }
            let result = timed_out(&batch.last_failure, batch.uncertain || batch.in_flight);
            if batch.in_flight {
                if !std::mem::replace(&mut batch.given_up, true) {
                    settle_outcome(batch, &result);
                    settled.push(Settled {
                        serial: batch.serial,
                        records: batch.records,
                        bytes: 0,
                        result: Some(result),
                    });
                }
                at += 1;
            } else {
                self.give_up_number(at);
                settled.push(self.settle(at, result));
            }
        }
        self.renumber_if_idle();
        settled
    }

    /// Gives everything up.
    pub(crate) fn fail_all(&mut self, result: &BatchResult) -> Vec<Settled> {
        self.in_flight = 0;
        let all = std::mem::take(&mut self.batches);
        self.first_sequence = self.next_sequence;
        all.into_iter()
            .map(|batch| settle_batch(batch, result.clone()))
            .collect()
    }

    /// The epochs are used up: a new identity is needed.
    pub(crate) fn needs_identity(&self) -> bool {
        self.identity.is_some_and(|identity| identity.epoch < 0)
    }

    /// Gives up what is not in flight. The numbers are right again after the next
    /// [`Lane::set_identity`].
    pub(crate) fn drop_waiting(&mut self, result: &BatchResult) -> Vec<Settled> {
        let all = std::mem::take(&mut self.batches).into_iter();
        let (kept, dropped): (Vec<_>, Vec<_>) = all.partition(|batch| batch.in_flight);
        self.batches = kept.into();
        let dropped = dropped.into_iter();
        dropped
            .map(|batch| settle_batch(batch, result.clone()))
            .collect()
    }

    /// There is no batch, in flight or waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// A new identity; everything still waiting is numbered under it.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.renumber = Renumber::No;
        self.renumber_from(0);
    }

    fn find(&mut self, serial: u64) -> Option<&mut Batch> {
        self.batches.iter_mut().find(|batch| batch.serial == serial)
    }

    /// A batch's attempt is over: its place.
    fn landed(&mut self, serial: u64) -> Option<usize> {
        let at = self
            .batches
            .iter()
            .position(|batch| batch.serial == serial && batch.in_flight)?;
        self.batches[at].in_flight = false;
        self.in_flight -= 1;
        Some(at)
    }

    fn settle(&mut self, at: usize, result: BatchResult) -> Settled {
        let told = self.batches[at].given_up;
        settle_outcome(&self.batches[at], &result);
        self.remove(at, (!told).then_some(result))
    }

    fn remove(&mut self, at: usize, result: Option<BatchResult>) -> Settled {
        let batch = self.batches.remove(at).expect("the caller found it");
        Settled {
            serial: batch.serial,
            records: batch.records,
            bytes: batch.bytes.len(),
            result,
        }
    }

    /// A batch's numbers will not be used, unless it is in the log after all.
    fn give_up_number(&mut self, at: usize) {
        match self.batches[at].uncertain {
            true => self.unresolved = true,
            false => self.renumber = self.renumber.max(Renumber::SameEpoch),
        }
    }

    fn renumber_if_idle(&mut self) {
        if self.in_flight > 0 {
            return;
        }
        match (
            std::mem::replace(&mut self.renumber, Renumber::No),
            &mut self.identity,
        ) {
            (Renumber::No, _) | (_, None) => {}
            // numbers that may have been used are not used again: the next answer tells
            (Renumber::SameEpoch, Some(_)) if self.unresolved => {}
            (Renumber::SameEpoch, Some(_)) => self.renumber_from(self.first_sequence),
            (Renumber::NewEpoch, Some(identity)) => {
                // after the last epoch comes −1: the lane then waits for a new identity
                identity.epoch = identity.epoch.checked_add(1).unwrap_or(-1);
                self.renumber_from(0);
            }
        }
    }

    fn renumber_from(&mut self, first: i32) {
        let Some(identity) = self.identity else {
            return;
        };
        self.unresolved = false;
        self.first_sequence = first;
        self.next_sequence = first;
        for batch in &mut self.batches {
            let stamp = identity.stamp(self.next_sequence);
            batch.base_sequence = stamp.base_sequence;
            batch.bytes = restamped(std::mem::take(&mut batch.bytes), stamp);
            self.next_sequence = advance_sequence(self.next_sequence, batch.records);
        }
    }
}

/// The batch under another stamp: in place if nobody else holds its bytes.
fn restamped(bytes: Bytes, stamp: ProducerStamp) -> Bytes {
    let mut bytes = bytes
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    set_producer(&mut bytes, stamp);
    bytes.freeze()
}

fn settle_outcome(batch: &Batch, result: &BatchResult) {
    if let Some(outcome) = &batch.outcome {
        outcome.settle(result.clone());
    }
}

fn settle_batch(batch: Batch, result: BatchResult) -> Settled {
    settle_outcome(&batch, &result);
    Settled {
        serial: batch.serial,
        records: batch.records,
        bytes: batch.bytes.len(),
        result: (!batch.given_up).then_some(result),
    }
}

#[cfg(test)]
#[path = "lane_test.rs"]
mod tests;
