//! What readers see: the same at an offset for all and for ever, and ends that never go back.

use std::collections::BTreeMap;

use super::{Broken, Chronicle, Findings, Found, Inspection, Look, Moment, Place, What};
use crate::history::Author;

/// The ends of a log, in the order of [`Look::ends`].
const ENDS: [&str; 3] = ["log start", "high watermark", "last stable offset"];

/// Checks all fetches since the inspection before, and the present one, with each other.
pub fn check(
    chronicle: &Chronicle,
    inspection: &Inspection,
    before: Option<&Inspection>,
) -> Vec<Broken> {
    let mut findings = Findings::of("views");
    let mut by_place: BTreeMap<Place, Vec<&Look>> = BTreeMap::new();
    for look in &chronicle.looks {
        by_place.entry(look.place).or_default().push(look);
    }
    for (place, log) in &inspection.logs {
        let looks = by_place.remove(place).unwrap_or_default();
        let before = before.and_then(|before| before.logs.get(place));
        let name = chronicle.name(*place);
        let mut seen: BTreeMap<i64, Found> = BTreeMap::new();
        let earlier = before.iter().flat_map(|log| &log.found);
        for found in earlier.chain(&log.found) {
            immutable(&name, &mut seen, found, &mut findings);
        }
        for look in &looks {
            for found in &look.found {
                immutable(&name, &mut seen, found, &mut findings);
            }
            contiguous(chronicle, &name, look, &mut findings);
        }
        let now = [log.start, log.end, log.stable];
        let then = before.map_or([0; 3], |log| [log.start, log.end, log.stable]);
        let mut by_epoch: BTreeMap<i32, Vec<&Look>> = BTreeMap::new();
        for look in &looks {
            by_epoch.entry(look.epoch).or_default().push(look);
        }
        for looks in by_epoch.values() {
            monotonic(&name, then, looks, (inspection.at, now), &mut findings);
        }
        committed(&name, &looks, &log.found, &mut findings);
    }
    findings.broken
}

fn author(found: &Found) -> Option<Author> {
    match found.what {
        What::Record { author, .. } => author,
        What::Marker { .. } => None,
    }
}

/// An offset shows every reader the same.
fn immutable(name: &str, seen: &mut BTreeMap<i64, Found>, found: &Found, findings: &mut Findings) {
    let first = seen.entry(found.offset).or_insert(*found);
    if author(first) != author(found) {
        findings.add(format!(
            "{name}: offset {} was {:?}, and is {:?}",
            found.offset, first.what, found.what
        ));
    }
}

/// A fetch leaves nothing out between its first offset and its last.
fn contiguous(chronicle: &Chronicle, name: &str, look: &Look, findings: &mut Findings) {
    if chronicle.topics[look.place.0].keeps.is_compacted() {
        return;
    }
    let mut expected = look.from;
    for found in &look.found {
        if found.offset != expected {
            findings.add(format!(
                "{name}: a fetch from {} leaves out {expected}, next is {}",
                look.from, found.offset
            ));
        }
        expected = found.offset + 1;
    }
}

/// No end of the log goes back in one leader's epoch: an answer shows at least what was answered before it was asked for.
fn monotonic(
    name: &str,
    then: [i64; 3],
    looks: &[&Look],
    last: (Moment, [i64; 3]),
    findings: &mut Findings,
) {
    let mut answered: Vec<(Moment, [i64; 3])> = looks
        .iter()
        .filter_map(|look| Some((look.span.done?, look.ends)))
        .collect();
    answered.sort_unstable();
    let mut asked: Vec<(Moment, [i64; 3])> = looks
        .iter()
        .map(|look| (look.span.asked, look.ends))
        .collect();
    asked.push(last);
    asked.sort_unstable();
    let (mut least, mut answered) = (then, answered.into_iter().peekable());
    for (moment, ends) in asked {
        while let Some((_, ends)) = answered.next_if(|(done, _)| *done < moment) {
            for (least, end) in least.iter_mut().zip(ends) {
                *least = end.max(*least);
            }
        }
        for (which, (end, least)) in ENDS.iter().zip(ends.into_iter().zip(least)) {
            if end < least {
                findings.add(format!(
                    "{name}: the {which} went back from {least} to {end}"
                ));
            }
        }
    }
}

/// Readers of committed records got the records that the markers commit, and no others.
fn committed(name: &str, looks: &[&Look], log: &[Found], findings: &mut Findings) {
    let status: BTreeMap<i64, bool> = log.iter().map(|f| (f.offset, f.visible)).collect();
    for look in looks.iter().filter(|look| look.committed) {
        for found in &look.found {
            let is_record = matches!(found.what, What::Record { .. });
            if let Some(visible) = status.get(&found.offset)
                && is_record
                && *visible != found.visible
            {
                findings.add(format!(
                    "{name}: {:?} at {}: a reader of committed records got it: {}, and should: {visible}",
                    author(found), found.offset, found.visible
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::{Lab, chronicle, inspect, record};
    use super::*;

    fn look(lab: &mut Lab, ends: [i64; 3], found: Vec<Found>) {
        let span = lab.span(true);
        lab.looks.push(Look {
            place: (0, 0),
            from: found.first().map_or(0, |f| f.offset),
            next: found.last().map_or(0, |f| f.offset + 1),
            ends,
            committed: true,
            found,
            span,
            epoch: 0,
        });
    }

    fn broken(lab: &Lab) -> Vec<Broken> {
        let log = inspect((0, 0), 0, (0..5).map(|n| record(n, n as u64, 0)).collect());
        check(lab, &log, None)
    }

    #[test]
    fn readers_who_see_the_same_pass() {
        let mut lab = chronicle();
        look(&mut lab, [0, 3, 3], vec![record(1, 1, 0), record(2, 2, 0)]);
        look(&mut lab, [0, 3, 3], vec![record(1, 1, 0)]);
        look(&mut lab, [0, 5, 4], Vec::new());
        assert_eq!(broken(&lab), []);
    }

    #[test]
    fn each_difference_is_found() {
        let says = |ends, found, words: &str| {
            let mut lab = chronicle();
            look(&mut lab, [0, 3, 3], vec![record(1, 1, 0)]);
            look(&mut lab, ends, found);
            let broken = broken(&lab);
            assert!(
                broken.iter().any(|b| b.what.contains(words)),
                "{words}: {broken:?}"
            );
        };
        says([0, 3, 3], vec![record(1, 2, 0)], "offset 1 was");
        says(
            [0, 3, 3],
            vec![record(1, 1, 0), record(3, 3, 0)],
            "leaves out 2",
        );
        says([0, 2, 2], Vec::new(), "the high watermark went back");
        says([1, 3, 3], Vec::new(), "the log start went back");
        let mut hidden = record(1, 1, 0);
        hidden.visible = false;
        says([0, 3, 3], vec![hidden], "should: true");
    }
}
