//! What is to be forgotten is forgotten: offsets with a time to live, transactional ids and producer
//! ids that nobody uses. (That nothing is forgotten too early is the other rules' business.)

use std::time::Duration;

use super::{Broken, Chronicle, Findings, Inspection};

/// Clocks of the nodes and the true time differ by less.
const CLOCKS: Duration = Duration::from_secs(60);

/// How long a cluster remembers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// `transactional.id.expiration.ms`, and how often that is looked at.
    pub transactional_ids: Duration,
    /// `producer.id.expiration.ms`, and how often that is looked at.
    pub producers: Duration,
    /// How often committed offsets are looked at.
    pub offsets: Duration,
}

/// Checks what the inspection found after a calm that was long enough for it to be gone.
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("expiry");
    let memory = &chronicle.memory;
    let is_over = |time: Duration| inspection.calm > time + CLOCKS;
    if is_over(memory.transactional_ids) && !inspection.transactional_ids.is_empty() {
        findings.add(format!(
            "after {:?} of calm there are transactional ids: {:?}",
            inspection.calm, inspection.transactional_ids
        ));
    }
    if is_over(memory.producers) && !inspection.producers.is_empty() {
        findings.add(format!(
            "after {:?} of calm there are producers (partition, id): {:?}",
            inspection.calm, inspection.producers
        ));
    }
    offsets(chronicle, inspection, &mut findings);
    findings.broken
}

/// No offset that has outlived its time is found. Those of the inspection only: before, a disk may
/// have kept a node from forgetting.
fn offsets(chronicle: &Chronicle, inspection: &Inspection, findings: &mut Findings) {
    for lookup in &chronicle.lookups {
        let Some(number) = lookup.found.filter(|_| lookup.span.asked > inspection.at) else {
            continue;
        };
        let Some(commit) = chronicle.commits.get(number) else {
            continue;
        };
        let (Some(lives), Some(there)) = (commit.lives, commit.span.done) else {
            continue;
        };
        let over = there.at + lives + CLOCKS;
        let calm_since = inspection.at.at.saturating_sub(inspection.calm);
        let due = over.max(calm_since) + 2 * chronicle.memory.offsets;
        if lookup.span.asked.at > due {
            findings.add(format!(
                "{}: commit {number} was to live for {lives:?} from {:?} on, and is found at {:?}",
                chronicle.name(commit.place),
                there.at,
                lookup.span.asked.at
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::{chronicle, inspect};
    use super::super::{Commit, Lookup, Moment};
    use super::*;

    const MEMORY: Memory = Memory {
        transactional_ids: Duration::from_secs(360),
        producers: Duration::from_secs(240),
        offsets: Duration::from_secs(30),
    };

    #[test]
    fn ids_that_outlive_their_time_are_found() {
        let mut history = chronicle();
        history.memory = MEMORY;
        let broken = |calm, ids: &[&str], producers: &[i64]| {
            let mut inspection = inspect((0, 0), 0, Vec::new());
            inspection.calm = Duration::from_secs(calm);
            inspection.transactional_ids = ids.iter().map(|&id| id.to_owned()).collect();
            inspection.producers = producers.iter().map(|&id| ((0, 0), id)).collect();
            check(&history, &inspection).len()
        };
        assert_eq!(broken(421, &["a"], &[1]), 2);
        assert_eq!(broken(421, &[], &[]), 0);
        assert_eq!(broken(301, &["a"], &[1]), 1, "ids live longer");
        assert_eq!(broken(300, &["a"], &[1]), 0, "there was no time");
    }

    #[test]
    fn offsets_that_outlive_their_time_are_found() {
        let broken = |asked: u64, lives| {
            let mut history = chronicle();
            history.memory = MEMORY;
            let span = history.at(500).span(true);
            history.commits.push(Commit {
                group: 1,
                place: (0, 0),
                offset: 7,
                span,
                refused: false,
                transaction: None,
                generation: None,
                lives,
            });
            let mut inspection = inspect((0, 0), 0, Vec::new());
            inspection.at = Moment {
                order: 0,
                at: Duration::from_secs(asked),
            };
            inspection.calm = Duration::from_secs(asked - 520);
            let span = history.at(asked).span(true);
            history.lookups.push(Lookup {
                group: 1,
                place: (0, 0),
                span,
                found: Some(0),
            });
            check(&history, &inspection).len()
        };
        let lives = Some(Duration::from_secs(20));
        assert_eq!(broken(641, lives), 1);
        assert_eq!(broken(640, lives), 0, "it may still be there");
        assert_eq!(broken(641, None), 0, "it lives as long as its group");
    }
}
