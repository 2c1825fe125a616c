//! The cycle of a receiver's requests: wait at random, hear what others ask for, ask for the
//! rest, hold off until the answer can have come (RFC 5401 §3.2.3, RFC 5740 §5.3).

use std::time::Duration;

use ringmill_ring::Instant;

use super::Shared;
use super::object::Object;
use super::overheard::Overheard;
use super::remote::Remote;
use crate::requests::Requests;
use crate::wire::{Ack, AckKind, Message, Nack, RepairRequest, Watermark};

/// Where in the cycle a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cycle {
    /// Nothing is missing.
    Idle,
    /// Something is: waits for others to ask for it.
    BackOff(Instant),
    /// It was asked for.
    HoldOff(Instant),
}

impl Remote {
    fn is_missing_something(&self) -> bool {
        let of = |object: &Object| object.is_missing_something();
        !self.ended && (!self.missing.is_empty() || self.objects.values().any(of))
    }

    /// Something was heard of the sender: is anything missing by it?
    pub(super) fn check(&mut self, now: Instant, shared: &mut Shared) {
        if self.cycle != Cycle::Idle || !self.is_missing_something() {
            return;
        }
        self.overheard = Overheard::default();
        let max = self.tag.grtt.duration() * self.tag.backoff.into();
        let wait = shared
            .chance
            .exponential(max, self.tag.group_size.members());
        self.cycle = Cycle::BackOff(now + wait);
    }

    /// Another receiver's requests were heard, or the sender told of them.
    pub(super) fn overhear(&mut self, requests: &[RepairRequest]) {
        if matches!(self.cycle, Cycle::BackOff(_)) {
            let near = self.next.unwrap_or(0);
            let bits = self.fec.map_or(24, |fec| fec.block_bits());
            self.overheard.add(requests, near, bits, &self.objects);
        }
    }

    /// What is due now.
    pub(super) fn run(&mut self, now: Instant, shared: &mut Shared) {
        match self.cycle {
            Cycle::BackOff(until) if until <= now => self.ask(now, shared),
            Cycle::HoldOff(until) if until <= now => {
                self.cycle = Cycle::Idle;
                // Who is not heard at all is not asked for ever.
                self.unheard += 1;
                if self.unheard <= shared.config.robust {
                    self.check(now, shared);
                }
            }
            _ => {}
        }
        if let Some(at) = self.feedback.take_ack(now) {
            self.send_ack(now, AckKind::Flush(at), shared);
        } else if self.feedback.take_turn(now, self.tag) {
            self.send_ack(now, AckKind::Cc, shared);
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self, timeout: Duration) -> Instant {
        let cycle = match self.cycle {
            Cycle::Idle => None,
            Cycle::BackOff(until) | Cycle::HoldOff(until) => Some(until),
        };
        let due = cycle.into_iter().chain(self.feedback.next_deadline());
        due.min()
            .unwrap_or(self.heard + timeout)
            .min(self.heard + timeout)
    }

    /// The back-off is over: asks for what is still missing and no one asked for.
    fn ask(&mut self, now: Instant, shared: &mut Shared) {
        let mut missing = !self.missing.is_empty();
        let mut requests = Vec::new();
        // Before anything was received there is nothing to be missed.
        if let Some(fec) = self.fec {
            let mut build = Requests::new(fec, shared.config.nack_room);
            let unheard = self
                .missing
                .iter()
                .filter(|id| !self.overheard.has_object(**id));
            unheard.for_each(|id| build.object(*id));
            for object in self.objects.values() {
                missing |= object.ask(&mut build, &self.overheard);
            }
            requests = build.finish();
        }
        if !missing || self.ended {
            self.cycle = Cycle::Idle;
            return;
        }
        let factor = match self.tag.backoff {
            0 => 2,
            k => u32::from(k) + 2,
        };
        self.cycle = Cycle::HoldOff(now + self.tag.grtt.duration() * factor);
        #[cfg(test)]
        if crate::planted_test::is(crate::planted_test::Bug::NeverAsks) {
            return;
        }
        if requests.is_empty() {
            shared.counters.suppressed += 1;
            return;
        }
        shared.counters.nacks += 1;
        let nack = Message::Nack(Nack {
            sender: self.id,
            instance: self.instance,
            grtt_response: self.feedback.response(now),
            cc_feedback: Some(self.feedback.give_along(now, self.tag)),
            requests,
        });
        shared.send(self.address, nack);
    }

    fn send_ack(&mut self, now: Instant, kind: AckKind, shared: &mut Shared) {
        shared.counters.acks += 1;
        let ack = Message::Ack(Ack {
            sender: self.id,
            instance: self.instance,
            ack_id: 0,
            grtt_response: self.feedback.response(now),
            cc_feedback: Some(self.feedback.give_along(now, self.tag)),
            app_ack: None,
            kind,
        });
        shared.send(self.address, ack);
    }

    /// Everything up to a watermark is here, and the sender asked us to say so.
    pub(super) fn owe_ack(&mut self, now: Instant, at: Watermark, shared: &mut Shared) {
        self.feedback.owe_ack(now, at, self.tag, &mut shared.chance);
    }
}
