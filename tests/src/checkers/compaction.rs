//! Compacted logs: of every key, the last record stays, and in the compacted part nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Broken, Chronicle, Findings, Inspection, Keyed, PartitionLog, Place, TxnEnd, What};
use crate::history::{Author, Outcome};

/// `max.compaction.lag.ms` of the compacted topics.
pub const LAG_MAX: Duration = Duration::from_secs(60);
/// The time that the cleaner may take, and the difference of clocks.
const SLACK: Duration = Duration::from_secs(20);

/// Checks every compacted partition.
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("compaction");
    for (place, log) in &inspection.logs {
        if chronicle.topics[place.0].keeps.is_compacted() {
            last_of_each_key(chronicle, *place, log, &mut findings);
            once_where_clean(chronicle, *place, log, &mut findings);
            clean_in_time(chronicle, inspection, *place, log, &mut findings);
        }
    }
    findings.broken
}

/// What a reader from the beginning ends up with, by key.
fn state(log: &PartitionLog) -> BTreeMap<u32, (i64, Option<Author>, bool)> {
    let mut state = BTreeMap::new();
    for found in &log.found {
        if let What::Record {
            author,
            keyed: Some(Keyed { key, tombstone }),
            ..
        } = found.what
            && found.visible
        {
            state.insert(key, (found.offset, author, tombstone));
        }
    }
    state
}

/// No key's last acknowledged record gave way to an older one, or to nothing.
fn last_of_each_key(
    chronicle: &Chronicle,
    place: Place,
    log: &PartitionLog,
    findings: &mut Findings,
) {
    let mut last: BTreeMap<u32, (i64, Author, bool)> = BTreeMap::new();
    for (attempt, batch) in (0..).zip(&chronicle.batches) {
        let Outcome::Acknowledged(base) = batch.outcome else {
            continue;
        };
        let committed = |t: usize| chronicle.transactions[t].end == TxnEnd::Committed;
        if batch.place != place || !batch.transaction.is_none_or(committed) {
            continue;
        }
        for (index, keyed) in (0..).zip(&batch.keys) {
            let offset = base + i64::from(index);
            let author = Author { attempt, index };
            let entry = last.entry(keyed.key).or_insert((-1, author, false));
            if offset > entry.0 {
                *entry = (offset, author, keyed.tombstone);
            }
        }
    }
    let state = state(log);
    for (key, (offset, author, tombstone)) in last {
        let name = chronicle.name(place);
        match state.get(&key) {
            // a newer one, that nobody was told of
            Some((found, ..)) if *found > offset => {}
            Some((found, written, _)) if *found == offset && *written == Some(author) => {}
            // its time may be over
            // what retention may not take is another rule
            None if tombstone || offset < log.start => {}
            found => findings.add(format!(
                "{name}: key {key} was {author:?} at {offset} (tombstone: {tombstone}), and is {found:?}"
            )),
        }
    }
}

/// Below the compacted part's end, every key stands once.
fn once_where_clean(
    chronicle: &Chronicle,
    place: Place,
    log: &PartitionLog,
    findings: &mut Findings,
) {
    let mut keys = BTreeSet::new();
    for found in log.found.iter().filter(|f| f.offset < log.clean_end) {
        if let What::Record {
            keyed: Some(keyed), ..
        } = found.what
            && !keys.insert(keyed.key)
        {
            let name = chronicle.name(place);
            findings.add(format!(
                "{name}: key {} stands once more at {}, below {}",
                keyed.key, found.offset, log.clean_end
            ));
        }
    }
}

/// What is older than the longest lag is in the compacted part, if the cleaner had the time.
fn clean_in_time(
    chronicle: &Chronicle,
    inspection: &Inspection,
    place: Place,
    log: &PartitionLog,
    findings: &mut Findings,
) {
    // a segment may take its lag to be full, and another one to be due
    let within = 2 * LAG_MAX + SLACK;
    if inspection.calm < within {
        return;
    }
    let overdue = chronicle.batches.iter().find_map(|batch| {
        let Outcome::Acknowledged(base) = batch.outcome else {
            return None;
        };
        let age = inspection.at.at.saturating_sub(batch.span.done?.at);
        let is_due = base < log.active && age > within;
        // what retention has taken needs no compaction
        let stays = base >= log.clean_end.max(log.start);
        (batch.place == place && stays && is_due).then_some((base, age))
    });
    if let Some((offset, age)) = overdue {
        findings.add(format!(
            "{}: {offset} was written {age:?} ago, and the log is compacted up to {}",
            chronicle.name(place),
            log.clean_end
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::super::lab::{chronicle, inspect};
    use super::*;

    /// Key 1 is written at 0 and 2, key 2 at 1 and deleted at 3.
    fn broken(log: &[(i64, u64, u32, bool)], clean_end: i64) -> Vec<Broken> {
        let mut history = chronicle();
        for (offset, key, tombstone) in [(0, 1, false), (1, 2, false), (2, 1, false), (3, 2, true)]
        {
            history.keyed(offset, key, tombstone);
        }
        let found = log.iter().map(|&(offset, attempt, key, tombstone)| Found {
            offset,
            what: What::Record {
                author: Some(Author { attempt, index: 0 }),
                keyed: Some(Keyed { key, tombstone }),
                transactional: None,
            },
            visible: true,
        });
        let mut inspection = inspect((4, 0), 0, found.collect());
        let log = inspection.logs.get_mut(&(4, 0)).expect("made above");
        log.clean_end = clean_end;
        check(&history, &inspection)
    }

    #[test]
    fn the_last_of_each_key_is_enough() {
        let all = [
            (0, 0, 1, false),
            (1, 1, 2, false),
            (2, 2, 1, false),
            (3, 3, 2, true),
        ];
        assert_eq!(broken(&all, 0), []);
        assert_eq!(broken(&all[2..], 4), []);
        assert_eq!(broken(&all[2..3], 4), [], "the tombstone has had its time");
    }

    #[test]
    fn an_older_value_or_none_is_found() {
        assert_eq!(broken(&[(0, 0, 1, false), (3, 3, 2, true)], 0).len(), 1);
        assert_eq!(broken(&[(3, 3, 2, true)], 0).len(), 1);
        let risen = [(1, 1, 2, false), (2, 2, 1, false)];
        assert_eq!(broken(&risen, 0).len(), 1, "a deleted key is back");
        let twice = [(0, 0, 1, false), (2, 2, 1, false)];
        assert_eq!(broken(&twice, 4).len(), 1, "compacted, and there twice");
        let another = [(2, 1, 1, false)];
        assert_eq!(broken(&another, 0).len(), 1, "another value at its offset");
    }

    #[test]
    fn what_is_never_compacted_is_found() {
        let mut history = chronicle();
        history.keyed(0, 1, false);
        let mut inspection = inspect((4, 0), 0, Vec::new());
        let mut broken = |calm, clean_end| {
            inspection.calm = calm;
            let log = inspection.logs.get_mut(&(4, 0)).expect("made above");
            (log.clean_end, log.active) = (clean_end, 1);
            let broken = check(&history, &inspection);
            broken.iter().filter(|b| b.what.contains("ago")).count()
        };
        assert_eq!(broken(Duration::from_secs(200), 0), 1);
        assert_eq!(broken(Duration::from_secs(200), 1), 0);
        assert_eq!(
            broken(Duration::from_secs(100), 0),
            0,
            "the cleaner had no time"
        );
    }
}
