//! How much of a sender's datagrams is lost, and how fast they come: what congestion control asks
//! receivers (RFC 5740 §5.5.2, after TFRC, RFC 5348 §5).

use std::time::Duration;

use ringmill_ring::Instant;

/// Loss intervals that are remembered, and what each counts for, the latest first.
const WEIGHTS: [f64; 8] = [1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2];

/// A datagram that is overtaken by so many is lost.
const OVERTAKEN: u32 = 3;

/// Further than this, numbers tell nothing: the sender was out of hearing.
const OUTAGE: u16 = 48;

/// The history of loss.
#[derive(Debug, Default)]
pub(super) struct LossHistory {
    highest: Option<u16>,
    /// Bit i: the datagram i before the highest was seen.
    seen: u64,
    /// Datagrams since the last loss event began.
    current: u32,
    /// Of earlier loss events, the latest first.
    intervals: Vec<f64>,
    event_at: Option<Instant>,
}

impl LossHistory {
    /// A datagram came; true if by it a loss event has begun. All loss within one round trip is
    /// one event.
    pub(super) fn on_datagram(&mut self, now: Instant, sequence: u16, rtt: Duration) -> bool {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            self.seen = u64::MAX;
            return false;
        };
        let ahead = sequence.wrapping_sub(highest);
        let behind = highest.wrapping_sub(sequence);
        if behind < OUTAGE {
            self.seen |= 1 << behind;
            return false;
        }
        if ahead > OUTAGE {
            self.highest = Some(sequence);
            self.seen = u64::MAX;
            return false;
        }
        self.highest = Some(sequence);
        let mut begun = false;
        for step in 1..=ahead {
            self.seen = self.seen << 1 | u64::from(step == ahead);
            self.current += 1;
            let lost = self.seen >> OVERTAKEN & 1 == 0;
            begun |= lost && self.on_loss(now, rtt);
        }
        begun
    }

    fn on_loss(&mut self, now: Instant, rtt: Duration) -> bool {
        if self.event_at.is_some_and(|at| now - at < rtt) {
            return false;
        }
        self.event_at = Some(now);
        self.intervals.insert(0, f64::from(self.current.max(1)));
        self.intervals.truncate(WEIGHTS.len());
        self.current = 0;
        true
    }

    /// The first event says little: what was fair until then stands for the history before.
    pub(super) fn begin_with(&mut self, loss: f64) {
        if self.intervals.len() == 1 {
            self.intervals[0] = self.intervals[0].max(1.0 / loss.max(1.0e-6));
        }
    }

    /// No loss was seen yet.
    pub(super) fn is_clean(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The fraction of loss events among datagrams.
    pub(super) fn fraction(&self) -> f64 {
        if self.is_clean() {
            return 0.0;
        }
        let average = |intervals: &mut dyn Iterator<Item = f64>| {
            let (mut sum, mut weight) = (0.0, 0.0);
            for (interval, w) in intervals.zip(WEIGHTS) {
                sum += interval * w;
                weight += w;
            }
            sum / weight
        };
        let closed = average(&mut self.intervals.iter().copied());
        let current = std::iter::once(f64::from(self.current));
        let open = average(&mut current.chain(self.intervals.iter().copied()));
        1.0 / closed.max(open).max(1.0)
    }
}

/// The rate of receiving is measured over no less than this.
const MEASURE_MIN: Duration = Duration::from_millis(100);

/// The rate of receiving, in bytes per second.
#[derive(Debug)]
pub(super) struct ReceiveRate {
    since: Instant,
    bytes: u64,
    rate: f64,
    /// Bytes of a datagram, on average.
    pub(super) datagram: f64,
}

impl ReceiveRate {
    pub(super) fn new(now: Instant) -> ReceiveRate {
        ReceiveRate {
            since: now,
            bytes: 0,
            rate: 0.0,
            datagram: 0.0,
        }
    }

    /// A datagram of so many bytes came.
    pub(super) fn on_datagram(&mut self, now: Instant, bytes: usize, rtt: Duration) {
        self.bytes += bytes as u64;
        let weight = if self.datagram == 0.0 { 1.0 } else { 0.05 };
        self.datagram += weight * (bytes as f64 - self.datagram);
        let passed = now - self.since;
        if passed >= rtt.max(MEASURE_MIN) {
            self.rate = self.bytes as f64 / passed.as_secs_f64();
            self.since = now;
            self.bytes = 0;
        }
    }

    /// Bytes per second.
    pub(super) fn rate(&self) -> f64 {
        match self.rate {
            0.0 => self.bytes as f64 / MEASURE_MIN.as_secs_f64(),
            rate => rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    fn history(lost: impl Fn(u32) -> bool) -> LossHistory {
        let mut history = LossHistory::default();
        for n in (0..100_000u32).filter(|n| !lost(*n)) {
            let now = Instant::default() + Duration::from_millis(20) * n;
            history.on_datagram(now, n as u16, RTT);
        }
        history
    }

    #[test]
    fn every_hundredth_is_one_in_a_hundred() {
        let fraction = history(|n| n % 100 == 99).fraction();
        assert!((0.0095..0.0105).contains(&fraction), "{fraction}");
        assert!(history(|_| false).is_clean());
    }

    #[test]
    fn overtaking_and_outages_are_no_loss() {
        let mut history = LossHistory::default();
        let order = [0, 2, 1, 4, 5, 3, 6, 6, 7, 300, 301, 302, 303, 304];
        for sequence in order {
            assert!(!history.on_datagram(Instant::default(), sequence, RTT));
        }
        assert!(history.is_clean());
    }

    #[test]
    fn what_is_lost_within_a_trip_is_one_event() {
        let mut history = LossHistory::default();
        let begun: Vec<bool> = [0u16, 1, 2, 5, 6, 9, 10, 11, 12, 13]
            .map(|sequence| history.on_datagram(Instant::default(), sequence, RTT))
            .to_vec();
        assert_eq!(begun.iter().filter(|begun| **begun).count(), 1);
        history.begin_with(0.001);
        assert!(history.fraction() <= 0.0011);
    }

    #[test]
    fn the_rate_is_what_comes_in_a_second() {
        let mut rate = ReceiveRate::new(Instant::default());
        for n in 1..=1_000 {
            let now = Instant::default() + Duration::from_millis(n);
            rate.on_datagram(now, 1_000, RTT);
        }
        assert!((0.98e6..1.02e6).contains(&rate.rate()), "{}", rate.rate());
        assert!((rate.datagram - 1_000.0).abs() < 1.0);
    }
}
