//! NORM-CC at the sender (RFC 5740 §5.5.2): the rate follows the receiver that can take least.

use std::time::Duration;

use ringmill_ring::Instant;

use super::config::RateControl;
use crate::fair;
use crate::wire::{CcFeedback, CcNode, NodeId, Rate, Rtt, cc_flags};

/// Receivers that are told that they matter: the limiting one, and those who may be next.
const NODES_MAX: usize = 5;

/// A receiver that was silent for so many round trips is forgotten, and never sooner than this.
const SILENT_TRIPS: u32 = 20;
const SILENT_MIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Node {
    id: NodeId,
    rtt: Duration,
    /// Its trip was measured: it returned the sender's clock.
    measured: bool,
    rate: f64,
    slow_start: bool,
    sequence: u16,
    heard: Instant,
}

/// The controller. Without congestion control it only keeps the set rate.
#[derive(Debug)]
pub(super) struct Congestion {
    control: RateControl,
    rate: f64,
    /// The limiting receiver first.
    nodes: Vec<Node>,
    sequence: u16,
    /// Bytes of a datagram, on average.
    datagram: f64,
}

impl Congestion {
    pub(super) fn new(control: RateControl, datagram: usize) -> Congestion {
        let rate = match control {
            RateControl::Fixed(rate) => rate,
            RateControl::Congestion { start, .. } => start,
        };
        Congestion {
            control,
            rate,
            nodes: Vec::new(),
            sequence: 0,
            datagram: datagram as f64,
        }
    }

    /// Bytes per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Whether the rate follows the receivers.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.control, RateControl::Congestion { .. })
    }

    /// Another set rate, or other bounds.
    pub(super) fn set(&mut self, control: RateControl) {
        self.control = control;
        self.rate = match control {
            RateControl::Fixed(rate) => rate,
            RateControl::Congestion { min, max, .. } => self.rate.clamp(min, max),
        };
    }

    /// A datagram of so many bytes was sent.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.datagram += 0.01 * (bytes as f64 - self.datagram);
    }

    fn set_rate(&mut self, rate: f64) {
        if let RateControl::Congestion { min, max, .. } = self.control {
            self.rate = rate.clamp(min, max);
        }
    }

    /// A receiver's feedback; `rtt` is its trip if it was measured now. The rate may change only
    /// while data is being sent: else there is nothing that it would be about.
    pub(super) fn on_feedback(
        &mut self,
        now: Instant,
        id: NodeId,
        feedback: &CcFeedback,
        rtt: Option<Duration>,
        active: bool,
    ) {
        let old = self.nodes.iter().position(|node| node.id == id);
        let before = old.map(|at| self.nodes[at]);
        if before.is_some_and(|n| (feedback.sequence.wrapping_sub(n.sequence) as i16) <= 0) {
            return;
        }
        let smoothed = match (before, rtt) {
            (Some(old), Some(rtt)) if old.measured => old.rtt.mul_f64(0.9) + rtt.mul_f64(0.1),
            (_, Some(rtt)) => rtt,
            (Some(old), None) => old.rtt,
            (None, None) => feedback.rtt.duration(),
        };
        let slow_start = feedback.flags & cc_flags::START != 0;
        let mut node = Node {
            id,
            rtt: smoothed,
            measured: rtt.is_some() || before.is_some_and(|old| old.measured),
            rate: feedback.rate.bytes_per_second(),
            slow_start,
            sequence: feedback.sequence,
            heard: now,
        };
        if !slow_start {
            // The receiver may know its trip by the sender's last word only; here it is fresh.
            node.rate = fair::rate(self.datagram, node.rtt, feedback.loss.fraction());
        }
        if feedback.flags & cc_flags::LEAVE != 0 {
            self.nodes.retain(|other| other.id != id);
            return;
        }
        match old {
            Some(at) => self.nodes[at] = node,
            None => self.nodes.push(node),
        }
        let was_limiting = old == Some(0);
        self.rank();
        if self.is_on()
            && active
            && (was_limiting || self.nodes.first().is_some_and(|first| first.id == id))
        {
            self.follow();
        }
    }

    /// The slowest first; of those that are close, the one with the longest trip. At a set rate,
    /// the trips alone matter: those who are named answer each probe at once, so that the
    /// group's greatest is known by them.
    fn rank(&mut self) {
        if !self.is_on() {
            self.nodes.sort_by_key(|node| std::cmp::Reverse(node.rtt));
            self.nodes.truncate(NODES_MAX);
            return;
        }
        self.nodes.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let close = |node: &&Node| node.rate < self.nodes[0].rate * 1.1;
        let limiting = self
            .nodes
            .iter()
            .take_while(close)
            .max_by_key(|node| node.rtt)
            .map(|node| node.id);
        if let Some(at) = self.nodes.iter().position(|n| Some(n.id) == limiting) {
            self.nodes[..=at].rotate_right(1);
        }
        self.nodes.truncate(NODES_MAX);
    }

    /// The limiting receiver's rate, though never more than twice the present one.
    fn follow(&mut self) {
        let Some(limiting) = self.nodes.first() else {
            return;
        };
        self.set_rate(limiting.rate.min(2.0 * self.rate));
    }

    /// A probe is due: its number and the receivers that it names. Without feedback, or without
    /// anything to send, the rate is halved.
    pub(super) fn on_probe(
        &mut self,
        now: Instant,
        grtt: Duration,
        active: bool,
    ) -> (u16, Vec<CcNode>) {
        self.sequence = self.sequence.wrapping_add(1);
        self.nodes.retain(|node| {
            let patience = (grtt.max(node.rtt) * SILENT_TRIPS).max(SILENT_MIN);
            now - node.heard <= patience
        });
        if !active || self.nodes.is_empty() {
            self.set_rate(self.rate / 2.0);
        }
        let told = self.nodes.iter().enumerate().map(|(at, node)| {
            let mut flags = if at == 0 {
                cc_flags::CLR
            } else {
                cc_flags::PLR
            };
            if node.measured {
                flags |= cc_flags::RTT;
            }
            if node.slow_start {
                flags |= cc_flags::START;
            }
            CcNode {
                node: node.id,
                flags,
                rtt: Rtt::quantize(node.rtt),
                rate: Rate::quantize(node.rate),
            }
        });
        (self.sequence, told.collect())
    }

    /// How long until the next probe: a trip to the limiting receiver.
    pub(super) fn probe_interval(&self, grtt: Duration) -> Duration {
        let limiting = self.nodes.first().map_or(grtt, |node| node.rtt.min(grtt));
        limiting.max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Loss;

    const CONTROL: RateControl = RateControl::Congestion {
        start: 1.0e5,
        min: 1.0e3,
        max: 1.0e7,
    };

    fn feedback(sequence: u16, flags: u8, loss: f64, rate: f64) -> CcFeedback {
        CcFeedback {
            sequence,
            flags,
            rtt: Rtt::quantize(Duration::from_millis(10)),
            loss: Loss::quantize(loss),
            rate: Rate::quantize(rate),
        }
    }

    #[test]
    fn slow_start_doubles_and_loss_ends_it() {
        let mut cc = Congestion::new(CONTROL, 1400);
        let (now, rtt) = (Instant::default(), Some(Duration::from_millis(10)));
        for sequence in 1..=4 {
            cc.on_feedback(
                now,
                7,
                &feedback(sequence, cc_flags::START, 0.0, 1.0e9),
                rtt,
                true,
            );
        }
        assert!((cc.rate() - 1.6e6).abs() < 1.0, "{}", cc.rate());
        cc.on_feedback(now, 7, &feedback(5, 0, 0.1, 0.0), rtt, true);
        let fair = fair::rate(1400.0, Duration::from_millis(10), 0.1);
        assert!((cc.rate() / fair - 1.0).abs() < 0.01);
    }

    #[test]
    fn the_slowest_limits_and_is_told() {
        let mut cc = Congestion::new(CONTROL, 1400);
        let (now, rtt) = (Instant::default(), Some(Duration::from_millis(10)));
        for node in 1..=8 {
            let loss = 0.01 * f64::from(node);
            cc.on_feedback(now, node, &feedback(1, 0, loss, 0.0), rtt, true);
        }
        let (_, told) = cc.on_probe(now, Duration::from_millis(10), true);
        assert_eq!(told.len(), NODES_MAX);
        assert_eq!(told[0].node, 8);
        assert_eq!(told[0].flags, cc_flags::CLR | cc_flags::RTT);
        assert_eq!(told[1].flags, cc_flags::PLR | cc_flags::RTT);
        // Stale feedback changes nothing, and who is silent is forgotten.
        let rate = cc.rate();
        cc.on_feedback(now, 8, &feedback(1, 0, 0.9, 0.0), rtt, true);
        assert_eq!(cc.rate(), rate);
        let later = now + Duration::from_secs(5);
        let (_, told) = cc.on_probe(later, Duration::from_millis(10), true);
        assert!(told.is_empty());
        assert_eq!(cc.rate(), rate / 2.0);
    }

    #[test]
    fn a_set_rate_stays() {
        let mut cc = Congestion::new(RateControl::Fixed(5.0e5), 1400);
        cc.on_feedback(Instant::default(), 7, &feedback(1, 0, 0.5, 0.0), None, true);
        cc.on_probe(Instant::default(), Duration::from_millis(10), false);
        assert_eq!(cc.rate(), 5.0e5);
    }
}
