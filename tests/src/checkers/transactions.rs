//! Transactions: all or nothing, in all partitions and offsets, exactly once, never by a zombie, and
//! none that hangs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Chronicle, Findings, Inspection, Place, TxnEnd, What};
use crate::history::{Author, Outcome};

/// Checks every transaction. The inspection must come so long after the last of them that those
/// whose producers died have timed out.
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("transactions");
    for (place, log) in &inspection.logs {
        if log.stable != log.end {
            findings.add(format!(
                "{}: a transaction hangs at {}, the log ends at {}",
                chronicle.name(*place),
                log.stable,
                log.end
            ));
        }
    }
    let seen = Seen::new(inspection);
    let mut batches: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for (attempt, batch) in (0..).zip(&chronicle.batches) {
        if let Some(transaction) = batch.transaction {
            batches.entry(transaction).or_default().push(attempt);
        }
    }
    for (number, attempts) in &batches {
        if let Some(broken) = whole(chronicle, inspection, *number, attempts, &seen) {
            findings.add(format!("transaction {number} {broken}"));
        }
    }
    exactly_once(chronicle, &seen, &mut findings);
    fenced(chronicle, &mut findings);
    findings.broken
}

/// Records of batches that readers of committed records get.
struct Seen(BTreeSet<Author>);

impl Seen {
    fn new(inspection: &Inspection) -> Self {
        let found = inspection.logs.values().flat_map(|log| &log.found);
        let visible = found.filter_map(|found| match found.what {
            What::Record { author, .. } if found.visible => author,
            _ => None,
        });
        Self(visible.collect())
    }
}

/// One transaction is there as a whole, or not at all, as its producer was told.
fn whole(
    chronicle: &Chronicle,
    inspection: &Inspection,
    number: usize,
    attempts: &[u64],
    seen: &Seen,
) -> Option<String> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for &attempt in attempts {
        let batch = &chronicle.batches[attempt as usize];
        let Outcome::Acknowledged(base) = batch.outcome else {
            // never part of a commit that was asked for
            there.extend(seen.0.get(&Author { attempt, index: 0 }));
            continue;
        };
        let start = inspection.logs.get(&batch.place).map_or(0, |log| log.start);
        let compacted = chronicle.topics[batch.place.0].keeps.is_compacted();
        for index in 0..batch.records {
            let author = Author { attempt, index };
            match seen.0.contains(&author) {
                true => there.push(author),
                false if base + i64::from(index) >= start && !compacted => missing.push(author),
                false => {}
            }
        }
    }
    match chronicle.transactions[number].end {
        TxnEnd::Dropped => {
            (!there.is_empty()).then(|| format!("was dropped, but {there:?} is seen"))
        }
        TxnEnd::Committed => {
            (!missing.is_empty()).then(|| format!("is committed, but {missing:?} is not seen"))
        }
        TxnEnd::Unknown => (!there.is_empty() && !missing.is_empty())
            .then(|| format!("is torn: {there:?} is seen, {missing:?} is not")),
    }
}

/// The transactions that are seen have taken every record of their source once, in order.
fn exactly_once(chronicle: &Chronicle, seen: &Seen, findings: &mut Findings) {
    let mut by_source: BTreeMap<Place, Vec<(i64, i64, usize)>> = BTreeMap::new();
    let shown: BTreeSet<usize> = seen
        .0
        .iter()
        .filter_map(|author| chronicle.batch(*author)?.transaction)
        .collect();
    for number in shown {
        let (place, from, to) = chronicle.transactions[number].source;
        by_source.entry(place).or_default().push((from, to, number));
    }
    for (place, mut taken) in by_source {
        taken.sort_unstable();
        let mut expected = 0;
        for (from, to, number) in taken {
            if from != expected {
                findings.add(format!(
                    "{}: transaction {number} took {from}..{to}, {expected} was due",
                    chronicle.name(place)
                ));
            }
            expected = to;
        }
    }
}

/// Once another incarnation has its epoch, the one before it achieves nothing more.
fn fenced(chronicle: &Chronicle, findings: &mut Findings) {
    let fenced_since = |incarnation: usize| {
        let own = chronicle.incarnations[incarnation];
        let began = own.init.done?;
        let later = chronicle.incarnations.iter().filter(|other| {
            other.transactional_id == own.transactional_id && other.init.asked > began
        });
        later.filter_map(|other| other.init.done).min()
    };
    let since: Vec<_> = (0..chronicle.incarnations.len())
        .map(fenced_since)
        .collect();
    for (number, transaction) in chronicle.transactions.iter().enumerate() {
        let (Some(since), Some(commit)) = (since[transaction.incarnation], transaction.commit)
        else {
            continue;
        };
        if commit.done.is_some() && commit.asked > since {
            findings.add(format!(
                "transaction {number} of a fenced producer was committed"
            ));
        }
    }
    for (attempt, batch) in chronicle.batches.iter().enumerate() {
        let Some(transaction) = batch.transaction else {
            continue;
        };
        let incarnation = chronicle.transactions[transaction].incarnation;
        if since[incarnation].is_some_and(|since| batch.span.asked > since)
            && batch.span.done.is_some()
        {
            findings.add(format!("batch {attempt} of a fenced producer was taken"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::{Lab, chronicle, inspect, record};
    use super::super::{Incarnation, Transaction};
    use super::*;

    fn begin(lab: &mut Lab, incarnation: usize, source: (i64, i64)) -> usize {
        lab.transactions.push(Transaction {
            incarnation,
            source: ((0, 1), source.0, source.1),
            commit: None,
            end: TxnEnd::Dropped,
        });
        lab.transactions.len() - 1
    }

    fn incarnate(lab: &mut Lab) -> usize {
        let init = lab.span(true);
        lab.incarnations.push(Incarnation {
            transactional_id: 1,
            init,
        });
        lab.incarnations.len() - 1
    }

    fn write(lab: &mut Lab, transaction: usize, offset: i64) {
        lab.sent((0, 0), 1, Outcome::Acknowledged(offset));
        lab.batches.last_mut().expect("just sent").transaction = Some(transaction);
    }

    fn commit(lab: &mut Lab, transaction: usize, end: TxnEnd) {
        let span = lab.span(end == TxnEnd::Committed);
        lab.transactions[transaction].commit = Some(span);
        lab.transactions[transaction].end = end;
    }

    /// One transaction with records at 0 and 1; `visible` of them are seen.
    fn one(end: TxnEnd, visible: usize) -> usize {
        let mut lab = chronicle();
        let own = incarnate(&mut lab);
        let transaction = begin(&mut lab, own, (0, 5));
        write(&mut lab, transaction, 0);
        write(&mut lab, transaction, 1);
        commit(&mut lab, transaction, end);
        let mut found = vec![record(0, 0, 0), record(1, 1, 0)];
        for hidden in &mut found[visible..] {
            hidden.visible = false;
        }
        check(&lab, &inspect((0, 0), 0, found)).len()
    }

    #[test]
    fn all_or_nothing() {
        let broken = |end| [0, 1, 2].map(|visible| one(end, visible));
        assert_eq!(broken(TxnEnd::Committed), [1, 1, 0]);
        assert_eq!(broken(TxnEnd::Dropped), [0, 1, 1]);
        assert_eq!(broken(TxnEnd::Unknown), [0, 1, 0]);
    }

    #[test]
    fn every_record_of_the_source_once() {
        for (second, broken) in [((5, 7), 0), ((4, 7), 1), ((6, 7), 1)] {
            let mut lab = chronicle();
            let own = incarnate(&mut lab);
            for (offset, source) in [(0, (0, 5)), (1, second)] {
                let transaction = begin(&mut lab, own, source);
                write(&mut lab, transaction, offset);
                commit(&mut lab, transaction, TxnEnd::Committed);
            }
            let found = vec![record(0, 0, 0), record(1, 1, 0)];
            let found = check(&lab, &inspect((0, 0), 0, found));
            assert_eq!(found.len(), broken, "{found:?}");
        }
    }

    #[test]
    fn a_zombie_that_commits_or_writes_is_found() {
        let mut lab = chronicle();
        let zombie = incarnate(&mut lab);
        let transaction = begin(&mut lab, zombie, (0, 5));
        incarnate(&mut lab);
        write(&mut lab, transaction, 0);
        commit(&mut lab, transaction, TxnEnd::Committed);
        let broken = check(&lab, &inspect((0, 0), 0, vec![record(0, 0, 0)]));
        assert_eq!(broken.len(), 2, "{broken:?}");
    }

    #[test]
    fn a_transaction_that_hangs_is_found() {
        let mut inspection = inspect((0, 0), 0, vec![record(0, 0, 0)]);
        let log = inspection.logs.get_mut(&(0, 0)).expect("made above");
        log.stable = 0;
        assert_eq!(check(&chronicle(), &inspection).len(), 1);
    }
}
