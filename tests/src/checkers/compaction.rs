//! Compacted logs: of every key, the last record stays, and in the compacted part nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    Broken, Chronicle, Findings, Inspection, Keyed, Moment, PartitionLog, Place, TxnEnd, What,
};
use crate::history::{Author, Outcome};

/// `max.compaction.lag.ms` of the compacted topics.
pub const LAG_MAX: Duration = Duration::from_secs(60);
/// The time that the cleaner may take, and the difference of clocks.
const SLACK: Duration = Duration::from_secs(20);

/// Checks every compacted partition; `before` is the inspection before.
pub fn check(
    chronicle: &Chronicle,
    inspection: &Inspection,
    before: Option<&Inspection>,
) -> Vec<Broken> {
    let mut findings = Findings::of("compaction");
    for (place, log) in &inspection.logs {
        if chronicle.topics[place.0].keeps.is_compacted() {
            let known = Known {
                chronicle,
                before,
                place: *place,
            };
            last_of_each_key(&known, log, &mut findings);
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

/// What is known of one partition beside its log.
struct Known<'a> {
    chronicle: &'a Chronicle,
    before: Option<&'a Inspection>,
    place: Place,
}

/// The last acknowledged record of a key.
#[derive(Clone, Copy)]
struct Last {
    offset: i64,
    author: Author,
    tombstone: bool,
    /// When it was known to be there for good.
    done: Option<Moment>,
}

impl Known<'_> {
    /// The last acknowledged record of each key.
    fn last(&self) -> BTreeMap<u32, Last> {
        let mut last: BTreeMap<u32, Last> = BTreeMap::new();
        for (attempt, batch) in (0..).zip(&self.chronicle.batches) {
            let Outcome::Acknowledged(base) = batch.outcome else {
                continue;
            };
            let transaction = batch.transaction.map(|t| self.chronicle.transactions[t]);
            let ended = transaction.is_none_or(|txn| txn.end == TxnEnd::Committed);
            if batch.place != self.place || !ended {
                continue;
            }
            let span = transaction.map_or(Some(batch.span), |txn| txn.commit);
            for (index, keyed) in (0..).zip(&batch.keys) {
                let record = Last {
                    offset: base + i64::from(index),
                    author: Author { attempt, index },
                    tombstone: keyed.tombstone,
                    done: span.and_then(|span| span.done),
                };
                let known = last.entry(keyed.key).or_insert(record);
                if record.offset > known.offset {
                    *known = record;
                }
            }
        }
        last
    }

    /// Whether a tombstone that nobody was told of may have overtaken the last record of a key, and
    /// have had its time. Whatever was sent before an inspection is in the log by then or will never
    /// be: so it was found there, or had gone by then, or was sent since.
    fn may_be_deleted(&self, key: u32, last: Last) -> bool {
        let since = self.before.map(|before| before.at);
        let before = self.before.and_then(|before| before.logs.get(&self.place));
        if let (Some(log), Some(since)) = (before, since) {
            match state(log).get(&key) {
                // whether that was right was asked then
                None if last.done.is_some_and(|done| done <= since) => return true,
                Some((offset, _, true)) if *offset > last.offset => return true,
                _ => {}
            }
        }
        self.chronicle.batches.iter().any(|batch| {
            let transaction = batch.transaction.map(|t| self.chronicle.transactions[t]);
            let end = transaction.map(|txn| txn.end);
            let told = matches!(batch.outcome, Outcome::Acknowledged(_))
                && end.is_none_or(|end| end == TxnEnd::Committed);
            let never = batch.outcome == Outcome::Refused || end == Some(TxnEnd::Dropped);
            let here = batch.place == self.place && since.is_none_or(|at| batch.span.asked > at);
            let mut keys = batch.keys.iter();
            here && !told && !never && keys.any(|keyed| keyed.key == key && keyed.tombstone)
        })
    }
}

/// No key's last acknowledged record gave way to an older one, or to nothing.
fn last_of_each_key(known: &Known<'_>, log: &PartitionLog, findings: &mut Findings) {
    let state = state(log);
    for (key, last) in known.last() {
        let name = known.chronicle.name(known.place);
        let Last {
            offset,
            author,
            tombstone,
            ..
        } = last;
        match state.get(&key) {
            // a newer one, that nobody was told of
            Some((found, ..)) if *found > offset => {}
            Some((found, written, _)) if *found == offset && *written == Some(author) => {}
            // its time may be over
            // what retention may not take is another rule
            None if tombstone || offset < log.start => {}
            None if known.may_be_deleted(key, last) => {}
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
        check(&history, &inspection, None)
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

    /// A key was written, and deleted by somebody who was never told; then it is gone.
    #[test]
    fn a_tombstone_that_nobody_was_told_of_may_have_had_its_time() {
        let mut history = chronicle();
        history.keyed(0, 1, false);
        let gone = inspect((4, 0), 0, Vec::new());
        let count =
            |history: &Chronicle, before: Option<&Inspection>| check(history, &gone, before).len();
        assert_eq!(count(&history, None), 1);
        let attempt = history.sent((4, 0), 1, Outcome::Unknown);
        let key = |tombstone| Keyed { key: 1, tombstone };
        history.batches[attempt as usize].keys.push(key(true));
        assert_eq!(count(&history, None), 0);
        let inspected = |offset, attempt, tombstone| {
            let found = Found {
                offset,
                what: What::Record {
                    author: Some(Author { attempt, index: 0 }),
                    keyed: Some(key(tombstone)),
                    transactional: None,
                },
                visible: true,
            };
            inspect((4, 0), 0, vec![found])
        };
        let there = inspected(1, attempt, true);
        assert_eq!(count(&history, Some(&there)), 0, "it was there");
        assert_eq!(count(&history, Some(&gone)), 0, "it had had its time");
        let mut before = inspected(0, 0, false);
        assert_eq!(count(&history, Some(&before)), 1, "it never came");
        before.at.order = 0;
        assert_eq!(count(&history, Some(&before)), 0, "it came later");
        history.batches[attempt as usize].outcome = Outcome::Refused;
        assert_eq!(count(&history, Some(&before)), 1, "it was not written");
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
            let broken = check(&history, &inspection, None);
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
