//! The end of a log, as it is told to whoever asks for it (ListOffsets): whoever leads, it is never
//! below what was visible before the question ([KIP-207]).
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
}

/// Checks every listing against all that was seen before it was asked for.
pub fn check(chronicle: &Chronicle) -> Vec<Broken> {
    let mut findings = Findings::of("latest");
    let looks = chronicle.looks.iter();
    let seen = looks.map(|look| (look.place, look.span, look.ends[1]));
    let listed = chronicle.listings.iter().map(|l| (l.place, l.span, l.end));
    let mut known: BTreeMap<Place, Vec<(Moment, i64)>> = BTreeMap::new();
    for (place, span, end) in seen.chain(listed) {
        if let Some(done) = span.done {
            known.entry(place).or_default().push((done, end));
        }
    }
    for ends in known.values_mut() {
        ends.sort_unstable();
        // the largest so far
        let mut most = 0;
        for (_, end) in ends {
            most = most.max(*end);
            *end = most;
        }
    }
    for listing in &chronicle.listings {
        let ends = known.get(&listing.place).map_or(&[][..], |ends| ends);
        let before = ends.partition_point(|(done, _)| *done < listing.span.asked);
        let least = before.checked_sub(1).map_or(0, |at| ends[at].1);
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
        let place = (0, 0);
        lab.listings.push(Listing { place, end, span });
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
        let place = (0, 0);
        lab.listings.push(Listing {
            place,
            end: 6,
            span,
        });
        assert_eq!(check(&lab), []);
    }
}
