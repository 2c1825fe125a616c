//! The rate that is fair beside TCP: the equation of TFRC and NORM-CC (RFC 5740 §5.5.2).

use std::time::Duration;

/// Bytes per second for packets of `size` bytes, a round trip time and a fraction of loss events
/// above 0.
pub(crate) fn rate(size: f64, rtt: Duration, loss: f64) -> f64 {
    let rtt = rtt.as_secs_f64().max(1.0e-6);
    let loss = loss.clamp(1.0e-8, 1.0);
    let timeouts = 12.0 * loss * (1.0 + 32.0 * loss * loss) * (3.0 * loss / 8.0).sqrt();
    size / (rtt * ((2.0 * loss / 3.0).sqrt() + timeouts))
}

/// The loss that would make `rate` fair: the equation's first term, turned around. Where a first
/// loss ends slow start, it stands for the history that there is none of.
pub(crate) fn loss(size: f64, rtt: Duration, rate: f64) -> f64 {
    let per_trip = size / (rate.max(1.0) * rtt.as_secs_f64().max(1.0e-6));
    (1.5 * per_trip * per_trip).min(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_loss_and_longer_trips_are_slower() {
        let at = |ms, loss| rate(1400.0, Duration::from_millis(ms), loss);
        assert!(at(10, 0.01) > at(10, 0.1) && at(10, 0.01) > at(20, 0.01));
        // The textbook's 1.22 / sqrt(p) packets a trip at little loss.
        let trips = at(10, 0.0001) * 0.01 / 1400.0;
        assert!((100.0..125.0).contains(&trips), "{trips}");
        let back = loss(1400.0, Duration::from_millis(10), at(10, 0.0001));
        assert!((0.8e-4..1.3e-4).contains(&back), "{back}");
    }
}
