//! Quotas: on average, a client gets no more through than it may.

use std::time::Duration;

use super::{Broken, Findings, Metered};

/// A quota is the average of this time (`quota.window.num` times `quota.window.size.seconds`), so
/// that so much may pass at once.
const WINDOW: Duration = Duration::from_secs(11);

/// Checks all intervals that end with a request.
pub fn check(metered: &Metered) -> Vec<Broken> {
    let mut findings = Findings::of("quota");
    let largest = metered.passed.iter().map(|(_, bytes)| *bytes).max();
    if metered.quota <= 0.0 {
        return Vec::new();
    }
    let (mut first, mut bytes) = (0, 0);
    for (last, (at, passed)) in metered.passed.iter().enumerate() {
        bytes += passed;
        // The longest interval in which the average must hold whatever happened before.
        let forgets = metered.restarts.iter().rfind(|restart| *restart <= at);
        while first < last && forgets.is_some_and(|f| metered.passed[first].0 < *f) {
            bytes -= metered.passed[first].1;
            first += 1;
        }
        let took = (*at - metered.passed[first].0) + WINDOW;
        let allowed = metered.quota * took.as_secs_f64() * 1.1 + largest.unwrap_or(0) as f64;
        if bytes as f64 > allowed {
            findings.add(format!(
                "{bytes} bytes in {took:?}, allowed are {allowed:.0}"
            ));
            break;
        }
    }
    findings.broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_above_the_quota_is_found() {
        let steady = |bytes| Metered {
            quota: 1000.0,
            passed: (0..100).map(|s| (Duration::from_secs(s), bytes)).collect(),
            restarts: Vec::new(),
        };
        assert_eq!(check(&steady(1000)), []);
        assert_eq!(check(&steady(2000)).len(), 1);
        let mut restarted = steady(1500);
        restarted.restarts = (0..10).map(|n| Duration::from_secs(n * 10)).collect();
        assert_eq!(check(&restarted), [], "a node that starts knows nothing");
    }
}
