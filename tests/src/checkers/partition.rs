//! The logs: nothing acknowledged is lost, nothing stands twice, nothing is out of order.

use std::collections::BTreeMap;

use super::{Broken, Chronicle, Findings, Inspection, PartitionLog, Place, What};
use crate::history::{Author, Outcome};

/// Checks every partition's log against what was sent to it. What lies below the log's start is the
/// business of [`super::retention`]; keys that were compacted away are that of [`super::compaction`].
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("log");
    for (place, log) in &inspection.logs {
        dense(chronicle, *place, log, &mut findings);
        known(chronicle, *place, log, &mut findings);
        ordered(chronicle, *place, log, &mut findings);
    }
    lost(chronicle, inspection, &mut findings);
    findings.broken
}

/// No offset is missing between the log's ends, and none but goes up.
fn dense(chronicle: &Chronicle, place: Place, log: &PartitionLog, findings: &mut Findings) {
    let compacted = chronicle.topics[place.0].keeps.is_compacted();
    let mut expected = log.start;
    for found in &log.found {
        if found.offset < expected || (found.offset > expected && !compacted) {
            let name = chronicle.name(place);
            findings.add(format!(
                "{name}: offset {} where {expected} is due",
                found.offset
            ));
        }
        expected = found.offset + 1;
    }
    if expected > log.end || (expected < log.end && !compacted) {
        let name = chronicle.name(place);
        findings.add(format!("{name}: ends at {expected}, not at {}", log.end));
    }
}

/// Every record was sent to this partition, was not refused, and stands once.
fn known(chronicle: &Chronicle, place: Place, log: &PartitionLog, findings: &mut Findings) {
    let mut seen: BTreeMap<Author, i64> = BTreeMap::new();
    for found in &log.found {
        let What::Record { author, .. } = found.what else {
            continue;
        };
        let offset = found.offset;
        let sent = author.and_then(|a| Some((a, chronicle.batch(a)?)));
        let Some((author, batch)) = sent.filter(|(_, batch)| batch.place == place) else {
            let name = chronicle.name(place);
            findings.add(format!(
                "{name}: nobody sent what is at {offset}: {author:?}"
            ));
            continue;
        };
        if batch.outcome == Outcome::Refused {
            let name = chronicle.name(place);
            findings.add(format!("{name}: {author:?} at {offset} was refused"));
        }
        if let Some(first) = seen.insert(author, offset) {
            let name = chronicle.name(place);
            findings.add(format!("{name}: {author:?} stands at {first} and {offset}"));
        }
    }
}

/// The batches of each writer stand in the order in which they were sent, whole, in one piece.
fn ordered(chronicle: &Chronicle, place: Place, log: &PartitionLog, findings: &mut Findings) {
    let compacted = chronicle.topics[place.0].keeps.is_compacted();
    let mut last: BTreeMap<u32, Author> = BTreeMap::new();
    let mut before: Option<Author> = None;
    for found in &log.found {
        let What::Record { author, .. } = found.what else {
            before = None;
            continue;
        };
        let Some((author, batch)) = author.and_then(|a| Some((a, chronicle.batch(a)?))) else {
            continue;
        };
        if let Some(last) = last.insert(batch.writer, author)
            && last > author
        {
            let name = chronicle.name(place);
            findings.add(format!("{name}: {last:?} stands before {author:?}"));
        }
        let follows = match before {
            Some(before) if before.attempt == author.attempt => before.index + 1 == author.index,
            _ => author.index == 0 || found.offset == log.start,
        };
        if !follows && !compacted {
            let name = chronicle.name(place);
            findings.add(format!(
                "{name}: {author:?} at {} follows {before:?}",
                found.offset
            ));
        }
        before = Some(author);
    }
}

/// Every record that all in sync have acknowledged stands where it was acknowledged.
fn lost(chronicle: &Chronicle, inspection: &Inspection, findings: &mut Findings) {
    let none = PartitionLog::default();
    for (attempt, batch) in (0..).zip(&chronicle.batches) {
        let Outcome::Acknowledged(base) = batch.outcome else {
            continue;
        };
        if batch.by_leader || chronicle.topics[batch.place.0].keeps.is_compacted() {
            continue;
        }
        let log = inspection.logs.get(&batch.place).unwrap_or(&none);
        for index in 0..batch.records {
            let (author, offset) = (Author { attempt, index }, base + i64::from(index));
            if offset < log.start {
                continue;
            }
            let at = log.found.binary_search_by_key(&offset, |f| f.offset);
            let found = at.ok().map(|at| log.found[at].what);
            let there = match found {
                Some(What::Record { author, .. }) => author,
                _ => None,
            };
            if there != Some(author) {
                let name = chronicle.name(batch.place);
                findings.add(format!(
                    "{name}: acknowledged record {author:?} is not at {offset}, but {found:?}"
                ));
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::{chronicle, inspect, record};
    use super::*;

    /// Two batches to "kept-0": the first acknowledged at 0, of two records; the second unknown.
    fn broken(records: &[(i64, u64, u32)]) -> Vec<Broken> {
        let mut chronicle = chronicle();
        chronicle.sent((0, 0), 2, Outcome::Acknowledged(0));
        chronicle.sent((0, 0), 1, Outcome::Unknown);
        chronicle.sent((0, 0), 1, Outcome::Refused);
        let found = records
            .iter()
            .map(|&(at, attempt, index)| record(at, attempt, index));
        check(&chronicle, &inspect((0, 0), 0, found.collect()))
    }

    #[test]
    fn a_log_that_keeps_its_promises_passes() {
        assert_eq!(broken(&[(0, 0, 0), (1, 0, 1), (2, 1, 0)]), []);
        assert_eq!(broken(&[(0, 0, 0), (1, 0, 1)]), []);
    }

    #[test]
    fn each_broken_promise_is_found() {
        let says = |records: &[(i64, u64, u32)], words: &str| {
            let broken = broken(records);
            assert!(
                broken.iter().any(|b| b.what.contains(words)),
                "{words}: {broken:?}"
            );
        };
        says(&[(0, 1, 0)], "is not at 0");
        says(&[(0, 0, 0), (2, 0, 1)], "where 1 is due");
        says(&[(0, 0, 0), (1, 0, 1), (2, 0, 1)], "stands at 1 and 2");
        says(&[(0, 0, 0), (1, 0, 1), (2, 2, 0)], "was refused");
        says(&[(0, 0, 0), (1, 0, 1), (2, 7, 0)], "nobody sent");
        says(&[(0, 1, 0), (1, 0, 0), (2, 0, 1)], "stands before");
        says(&[(0, 0, 0), (1, 1, 0), (2, 0, 1)], "follows");
    }
}
