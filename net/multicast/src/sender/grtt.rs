//! The group's greatest round trip time (RFC 5740 §5.5.1): up at once, down by and by.

use std::time::Duration;

use ringmill_ring::Instant;

use crate::wire::{Rtt, SendTime};

/// The lowest that is told to receivers: timers are no finer.
const GRTT_MIN: Duration = Duration::from_micros(500);

/// Probes are at least so far apart, and at most so far.
const PROBE_MIN: Duration = Duration::from_millis(20);
const PROBE_MAX: Duration = Duration::from_secs(5);

/// While the estimate falls, at most so far.
const PROBE_FALLING_MAX: Duration = Duration::from_millis(100);

/// The estimate and its probes.
#[derive(Debug)]
pub(super) struct Grtt {
    measured: Duration,
    max: Duration,
    /// The greatest response since the last probe.
    peak: Option<Duration>,
    /// The greatest responses to the probes before, the latest first.
    earlier: [Duration; 2],
    interval: Duration,
}

impl Grtt {
    pub(super) fn new(start: Duration, max: Duration) -> Grtt {
        Grtt {
            measured: start.clamp(GRTT_MIN, max),
            max,
            peak: None,
            earlier: [start; 2],
            interval: PROBE_MIN,
        }
    }

    /// What receivers are told, never less than the time that one datagram takes at the rate.
    pub(super) fn advertised(&self, datagram_time: Duration) -> Rtt {
        Rtt::quantize(self.measured.max(datagram_time).min(self.max))
    }

    /// A receiver returned the time that a probe was sent at.
    pub(super) fn on_response(&mut self, rtt: Duration) {
        if rtt > self.measured {
            self.measured = (self.measured.mul_f64(0.25) + rtt.mul_f64(0.75)).min(self.max);
        }
        self.peak = Some(self.peak.unwrap_or_default().max(rtt));
    }

    /// A probe is due: the answers to the last are in. Returns the time to the next one, short
    /// while the estimate is on its way down.
    pub(super) fn on_probe(&mut self) -> Duration {
        let mut falling = false;
        if let Some(peak) = self.peak.take() {
            let greatest = self.earlier.into_iter().fold(peak, Duration::max);
            self.earlier = [peak, self.earlier[0]];
            let before = self.measured;
            let tenth = before.mul_f64(0.9).max(peak);
            // RFC 5740 goes down by tenths. A single late answer, though, would stretch every
            // timer of the group for long: when three in a row say less than half, it is halved.
            self.measured = match greatest < before / 2 {
                true => before / 2,
                false => tenth.min(before),
            };
            self.measured = self.measured.max(GRTT_MIN);
            // What only wavers is not on its way.
            falling = greatest < before.mul_f64(0.8) && before > GRTT_MIN;
        }
        self.interval = match falling {
            true => self.measured.clamp(PROBE_MIN, PROBE_FALLING_MAX),
            false => self.interval.mul_f64(1.5).min(PROBE_MAX),
        };
        self.interval
    }
}

/// The sender's clock as probes carry it; never 0, which says that there is none.
pub(super) fn send_time(now: Instant) -> SendTime {
    let micros = now.as_nanos() / 1_000;
    SendTime {
        seconds: (micros / 1_000_000) as u32 + 1,
        micros: (micros % 1_000_000) as u32,
    }
}

/// The round trip time that a returned clock tells; none if it tells nothing sensible.
pub(super) fn round_trip(now: Instant, response: SendTime, max: Duration) -> Option<Duration> {
    let seconds = response.seconds.checked_sub(1)?;
    let then = Duration::from_secs(seconds.into()) + Duration::from_micros(response.micros.into());
    let now = Duration::from_nanos(now.as_nanos());
    let rtt = now.checked_sub(then)?;
    // A forged or very old one would stretch every timer of the group.
    (rtt <= max).then_some(rtt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_by_tenths() {
        let ms = Duration::from_millis;
        let mut grtt = Grtt::new(ms(100), ms(10_000));
        grtt.on_response(ms(500));
        assert_eq!(grtt.measured, ms(400));
        for _ in 0..100 {
            grtt.on_response(ms(40));
            grtt.on_probe();
        }
        assert!((ms(39)..ms(46)).contains(&grtt.measured), "{grtt:?}");
        // A spike does not last.
        grtt.on_response(ms(4_000));
        assert!(grtt.measured > ms(3_000));
        for _ in 0..10 {
            grtt.on_probe();
            grtt.on_response(ms(40));
        }
        assert!(grtt.measured < ms(80), "{grtt:?}");
        for _ in 0..20 {
            grtt.on_response(ms(40));
            grtt.on_probe();
        }
        // Silence says nothing.
        for _ in 0..10 {
            grtt.on_probe();
        }
        assert!(grtt.measured > ms(39));
        assert_eq!(grtt.on_probe(), PROBE_MAX);
    }

    #[test]
    fn a_returned_clock_tells_the_trip_and_nonsense_nothing() {
        let at = |us| Instant::default() + Duration::from_micros(us);
        let max = Duration::from_secs(10);
        let sent = send_time(at(1_999_999));
        let rtt = round_trip(at(2_000_500), sent, max);
        assert_eq!(rtt, Some(Duration::from_micros(501)));
        assert_eq!(round_trip(at(5), SendTime::default(), max), None);
        assert_eq!(round_trip(at(5), sent, max), None);
        assert_eq!(round_trip(at(20_000_000), sent, max), None);
    }
}
