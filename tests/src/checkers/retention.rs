//! What a log may have lost at its beginning, and no more.

use std::time::Duration;

use super::{Broken, Chronicle, Findings, Inspection, Keeps, Place};
use crate::history::Outcome;

/// Clocks of producers and brokers differ by so much, at most.
const CLOCKS: Duration = Duration::from_secs(2);

/// Checks that no log begins later than its topic's configuration and its administrators allow.
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("retention");
    for (place, log) in &inspection.logs {
        let (name, start) = (chronicle.name(*place), log.start);
        match chronicle.topics[place.0].keeps {
            Keeps::All | Keeps::Keys if start > 0 => {
                findings.add(format!("{name}: begins at {start}, and everything is kept"));
            }
            Keeps::Untrimmed => {
                let asked = chronicle.trims.get(place).copied().unwrap_or(0);
                if start > asked {
                    findings.add(format!("{name}: begins at {start}, asked for was {asked}"));
                }
            }
            Keeps::Bytes(bytes) if start > 0 && log.bytes < bytes => {
                findings.add(format!("{name}: {} bytes are left of {bytes}", log.bytes));
            }
            Keeps::Age(age) | Keeps::YoungKeys(age) => {
                if let Some(young) = deleted_young(chronicle, inspection, *place, start, age) {
                    findings.add(format!("{name}: begins at {start}; {young}"));
                }
            }
            _ => {}
        }
    }
    findings.broken
}

/// A record that is gone and was not old enough to go.
fn deleted_young(
    chronicle: &Chronicle,
    inspection: &Inspection,
    place: Place,
    start: i64,
    age: Duration,
) -> Option<String> {
    let read_at = inspection.at.at + inspection.took;
    chronicle.batches.iter().find_map(|batch| {
        let Outcome::Acknowledged(base) = batch.outcome else {
            return None;
        };
        let old = read_at.saturating_sub(batch.span.asked.at) + CLOCKS;
        (batch.place == place && base < start && old < age)
            .then(|| format!("{base} is only {old:?} old, of {age:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::lab::{chronicle, inspect};
    use super::*;

    #[test]
    fn a_log_may_lose_its_beginning_as_far_as_it_was_told_to() {
        let mut history = chronicle();
        let broken = |history: &Chronicle, topic, start| {
            check(history, &inspect((topic, 0), start, Vec::new())).len()
        };
        assert_eq!(broken(&history, 0, 0), 0);
        assert_eq!(broken(&history, 0, 1), 1, "kept");
        assert_eq!(broken(&history, 1, 1), 1, "no bytes are left");
        history.trims.insert((3, 0), 5);
        assert_eq!(broken(&history, 3, 5), 0);
        assert_eq!(broken(&history, 3, 6), 1, "more than was asked for");
    }

    #[test]
    fn what_is_young_stays() {
        let mut history = chronicle();
        history.at(900).sent((2, 0), 1, Outcome::Acknowledged(0));
        history.at(990).sent((2, 0), 1, Outcome::Acknowledged(1));
        let broken = |start| check(&history, &inspect((2, 0), start, Vec::new())).len();
        assert_eq!(broken(1), 0);
        assert_eq!(broken(2), 1);
        let mut slow = inspect((2, 0), 2, Vec::new());
        slow.took = Duration::from_secs(3600);
        assert_eq!(check(&history, &slow).len(), 0, "read when it was old");
    }
}
