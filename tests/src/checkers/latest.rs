//! The end of a log, as it is told to whoever asks for it (ListOffsets): it is never below what was
//! visible in the same or an earlier leader epoch before the question ([KIP-207]). Who was paused while
//! another was elected may answer for his own epoch before he hears of it.
//!
//! [KIP-207]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-207

use std::collections::BTreeMap;

use super::{Broken, Chronicle, Findings, Moment, Place, Span};

/// Somebody asked for the end of a partition's log, and was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// The partition.
    pub place: Place,
    /// Its end, for readers of everything.
    pub end: i64,
    /// The request.
    pub span: Span,
    /// The leader epoch in which it was answered.
    pub epoch: i32,
}

/// Checks every listing against all that was seen before it was asked for.
pub fn check(chronicle: &Chronicle) -> Vec<Broken> {
    let mut findings = Findings::of("latest");
    let looks = chronicle.looks.iter();
    let seen = looks.map(|look| (look.place, look.span, look.epoch, look.ends[1]));
    let listings = chronicle.listings.iter();
    let listed = listings.map(|l| (l.place, l.span, l.epoch, l.end));
    let mut known: BTreeMap<Place, Vec<(Moment, i32, i64)>> = BTreeMap::new();
    for (place, span, epoch, end) in seen.chain(listed) {
        if let Some(done) = span.done {
            known.entry(place).or_default().push((done, epoch, end));
        }
    }
    for listing in &chronicle.listings {
        let ends = known.get(&listing.place).map_or(&[][..], |ends| ends);
        let before = ends
            .iter()
            .filter(|(done, epoch, _)| *done < listing.span.asked && *epoch <= listing.epoch);
        let least = before.map(|(.., end)| *end).max().unwrap_or(0);
        if listing.end < least {
            findings.add(format!(
                "{}: the log ends at {}, of which {least} was seen before ({:?})",
                chronicle.name(listing.place),
                listing.end,
                listing.span.asked.at
            ));
        }
    }
    findings.broken
}

#[cfg(test)]
mod tests {
    use super::super::lab::{Lab, chronicle};
    use super::*;

    fn list(lab: &mut Lab, end: i64) {
        let span = lab.span(true);
        list_in(lab, end, span, 5);
    }

    fn list_in(lab: &mut Lab, end: i64, span: Span, epoch: i32) {
        lab.listings.push(Listing {
            place: (0, 0),
            end,
            span,
            epoch,
        });
    }

    #[test]
    fn an_end_that_goes_back_is_found() {
        let mut lab = chronicle();
        [0, 5, 5, 7].into_iter().for_each(|end| list(&mut lab, end));
        assert_eq!(check(&lab), []);
        list(&mut lab, 6);
        assert_eq!(check(&lab).len(), 1);
    }

    #[test]
    fn of_two_at_a_time_either_may_be_the_older() {
        let mut lab = chronicle();
        let asked = lab.moment();
        list(&mut lab, 7);
        let done = Some(lab.moment());
        let span = Span { asked, done };
        list_in(&mut lab, 6, span, 5);
        assert_eq!(check(&lab), []);
    }

    #[test]
    fn who_was_deposed_may_not_know_it_yet() {
        let mut lab = chronicle();
        list(&mut lab, 7);
        let span = lab.span(true);
        list_in(&mut lab, 6, span, 4);
        assert_eq!(check(&lab), []);
        let span = lab.span(true);
        list_in(&mut lab, 6, span, 6);
        assert_eq!(check(&lab).len(), 1);
    }
}
