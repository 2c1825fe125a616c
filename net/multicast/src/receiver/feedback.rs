//! What a receiver tells a sender beside its requests: round trip times, congestion control,
//! acknowledgements (RFC 5740 §5.5).

use std::time::Duration;

use ringmill_ring::Instant;

use super::loss::{LossHistory, ReceiveRate};
use crate::backoff::Chance;
use crate::fair;
use crate::wire::{
    CcFeedback, CcNode, Loss, NodeId, Rate, Rtt, SendTime, SenderTag, Watermark, cc_flags,
};

/// Others' feedback is waited for by at least this factor of the round trip time, however small
/// the sender's own is.
const BACKOFF_MIN: u8 = 4;

/// Whether feedback is waiting for others to give it first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Idle,
    /// To be given then.
    At(Instant),
    /// It was given, by us or by others; not again before then.
    HoldOff(Instant),
}

/// What is measured of a sender, and what it is owed.
#[derive(Debug)]
pub(super) struct Feedback {
    /// The sender's clock as last heard, and when that was.
    probe: Option<(SendTime, Instant)>,
    sequence: u16,
    /// What the sender knows of us: [`cc_flags`], and our trip, if it measured it.
    flags: u8,
    rtt: Option<Duration>,
    loss: LossHistory,
    rate: ReceiveRate,
    turn: Turn,
    /// An acknowledgement that is due.
    ack: Option<(Instant, Watermark)>,
}

impl Feedback {
    pub(super) fn new(now: Instant) -> Feedback {
        Feedback {
            probe: None,
            sequence: 0,
            flags: 0,
            rtt: None,
            loss: LossHistory::default(),
            rate: ReceiveRate::new(now),
            turn: Turn::Idle,
            ack: None,
        }
    }

    fn trip(&self, tag: SenderTag) -> Duration {
        self.rtt.unwrap_or_else(|| tag.grtt.duration())
    }

    /// A datagram of the sender's came.
    pub(super) fn on_datagram(
        &mut self,
        now: Instant,
        sequence: u16,
        bytes: usize,
        tag: SenderTag,
    ) {
        let trip = self.trip(tag);
        self.rate.on_datagram(now, bytes, trip);
        if !self.loss.on_datagram(now, sequence, trip) {
            return;
        }
        self.loss
            .begin_with(fair::loss(self.rate.datagram, trip, self.rate.rate()));
        if self.flags & cc_flags::CLR != 0 {
            // The one whose loss decides says so at once; under a number of its own, or it
            // would be taken for what was said already.
            self.sequence = self.sequence.wrapping_add(1);
            self.turn = Turn::At(now);
        }
    }

    /// A probe came; `me` is this node's number.
    pub(super) fn on_probe(
        &mut self,
        now: Instant,
        (sequence, sent, nodes): (u16, SendTime, &[CcNode]),
        wanted: bool,
        tag: SenderTag,
        (me, chance): (NodeId, &mut Chance),
    ) {
        self.probe = Some((sent, now));
        self.sequence = sequence;
        let own = nodes.iter().find(|node| node.node == me);
        self.flags = own.map_or(0, |node| node.flags & (cc_flags::CLR | cc_flags::PLR));
        if let Some(node) = own.filter(|node| node.flags & cc_flags::RTT != 0) {
            self.rtt = Some(node.rtt.duration());
        }
        if !wanted {
            return;
        }
        if self.flags != 0 || tag.backoff == 0 {
            self.turn = Turn::At(now);
        } else if self.turn == Turn::Idle {
            let max = tag.grtt.duration() * u32::from(tag.backoff.max(BACKOFF_MIN));
            let wait = chance.exponential(max, tag.group_size.members());
            self.turn = Turn::At(now + wait);
        }
    }

    /// Another receiver gave feedback: if it is slower than we are, ours says nothing new.
    pub(super) fn on_others(&mut self, now: Instant, theirs: &CcFeedback, tag: SenderTag) {
        let waiting = matches!(self.turn, Turn::At(at) if at > now) && self.flags == 0;
        if !waiting || theirs.flags & cc_flags::CLR != 0 {
            return;
        }
        let known = self.rtt.is_some() || theirs.flags & cc_flags::RTT == 0;
        let ours = self.give(tag).rate.bytes_per_second();
        if known && ours > 0.9 * theirs.rate.bytes_per_second() {
            self.hold_off(now, tag);
        }
    }

    fn hold_off(&mut self, now: Instant, tag: SenderTag) {
        let wait = tag.grtt.duration() * u32::from(tag.backoff.max(1));
        self.turn = Turn::HoldOff(now + wait);
    }

    /// Feedback is due now, and is held to be given by that.
    pub(super) fn take_turn(&mut self, now: Instant, tag: SenderTag) -> bool {
        match self.turn {
            Turn::At(at) if at <= now => {
                self.hold_off(now, tag);
                true
            }
            Turn::HoldOff(until) if until <= now => {
                self.turn = Turn::Idle;
                false
            }
            _ => false,
        }
    }

    /// Feedback goes along with something else.
    pub(super) fn give_along(&mut self, now: Instant, tag: SenderTag) -> CcFeedback {
        if self.turn != Turn::Idle {
            self.hold_off(now, tag);
        }
        self.give(tag)
    }

    fn give(&self, tag: SenderTag) -> CcFeedback {
        let trip = self.trip(tag);
        let mut flags = self.flags;
        if self.rtt.is_some() {
            flags |= cc_flags::RTT;
        }
        let loss = self.loss.fraction();
        let rate = if self.loss.is_clean() {
            flags |= cc_flags::START;
            2.0 * self.rate.rate()
        } else {
            fair::rate(self.rate.datagram, trip, loss)
        };
        CcFeedback {
            sequence: self.sequence,
            flags,
            rtt: Rtt::quantize(trip),
            loss: Loss::quantize(loss),
            rate: Rate::quantize(rate),
        }
    }

    /// The sender's clock as it would be heard now; 0 if it never was.
    pub(super) fn response(&self, now: Instant) -> SendTime {
        let Some((sent, heard)) = self.probe else {
            return SendTime::default();
        };
        let micros = u64::from(sent.micros) + (now - heard).as_micros() as u64;
        SendTime {
            seconds: sent.seconds.wrapping_add((micros / 1_000_000) as u32),
            micros: (micros % 1_000_000) as u32,
        }
    }

    /// Everything up to a watermark is here: to be said soon.
    pub(super) fn owe_ack(
        &mut self,
        now: Instant,
        at: Watermark,
        tag: SenderTag,
        chance: &mut Chance,
    ) {
        let wait = match tag.backoff {
            0 => Duration::ZERO,
            _ => chance.uniform(tag.grtt.duration()),
        };
        let due = self.ack.map_or(now + wait, |(due, _)| due);
        self.ack = Some((due, at));
    }

    /// The acknowledgement that is due now.
    pub(super) fn take_ack(&mut self, now: Instant) -> Option<Watermark> {
        let (due, at) = self.ack?;
        if due > now {
            return None;
        }
        self.ack = None;
        Some(at)
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let turn = match self.turn {
            Turn::Idle => None,
            Turn::At(at) | Turn::HoldOff(at) => Some(at),
        };
        turn.into_iter().chain(self.ack.map(|(due, _)| due)).min()
    }
}
