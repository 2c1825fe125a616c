//! Committed offsets: what a group committed is what it finds, and never something older.
//!
//! A group's offset for a partition is a register (Herlihy and Wing, 1990): a read shows a write that
//! began before the read was over, and that no other write had certainly overwritten when the
//! read began. Each write is known by its metadata text, so that the check needs no search.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Broken, Chronicle, Commit, Findings, Lookup, Moment, Place, TxnEnd};

/// Clocks of the nodes and the true time differ by less.
const CLOCKS: Duration = Duration::from_secs(60);

/// Checks every lookup, and that no commit was taken in the name of a generation that is over.
pub fn check(chronicle: &Chronicle) -> Vec<Broken> {
    let mut findings = Findings::of("offsets");
    let mut registers: BTreeMap<(u32, Place), Vec<(usize, Write)>> = BTreeMap::new();
    for (number, commit) in chronicle.commits.iter().enumerate() {
        if let Some(write) = Write::of(chronicle, commit) {
            let key = (commit.group, commit.place);
            registers.entry(key).or_default().push((number, write));
        }
    }
    let mut lookups: Vec<&Lookup> = chronicle.lookups.iter().collect();
    lookups.sort_by_key(|lookup| lookup.span.done);
    for lookup in lookups {
        let key = (lookup.group, lookup.place);
        let writes = registers.entry(key).or_default();
        if let Some(why) = stale(lookup, writes) {
            let (group, name) = (lookup.group, chronicle.name(lookup.place));
            findings.add(format!(
                "group {group}, {name}, asked at {:?}: {why}",
                lookup.span.asked
            ));
        }
    }
    generations(chronicle, &mut findings);
    findings.broken
}

/// When a commit may, and must, have taken effect.
#[derive(Debug, Clone, Copy)]
struct Write {
    began: Moment,
    /// It is there at the latest then; `None` if it may come at any time.
    there: Option<Moment>,
    /// For so long.
    lives: Duration,
}

impl Write {
    /// `None` for what must never be found.
    fn of(chronicle: &Chronicle, commit: &Commit) -> Option<Self> {
        let there = match commit.transaction.map(|t| chronicle.transactions[t]) {
            None if commit.refused => return None,
            None => commit.span.done,
            Some(transaction) if transaction.end == TxnEnd::Dropped => return None,
            Some(transaction) => transaction.commit.and_then(|commit| commit.done),
        };
        Some(Self {
            began: commit.span.asked,
            there,
            lives: commit.lives.unwrap_or(chronicle.offsets_retention),
        })
    }
}

/// Why a lookup shows what it must not.
fn stale(lookup: &Lookup, writes: &mut [(usize, Write)]) -> Option<String> {
    let (asked, done) = (lookup.span.asked, lookup.span.done?);
    let since = match lookup.found {
        None => {
            // old offsets of silent groups are forgotten
            let known = |w: &Write| {
                w.there
                    .is_some_and(|t| t < asked && asked.at < t.at + w.lives.saturating_sub(CLOCKS))
            };
            let lost = writes.iter().rfind(|(_, w)| known(w))?;
            return Some(format!("nothing is found, commit {} was there", lost.0));
        }
        Some(found) => {
            // commits stand in the order of their numbers
            let at = writes.binary_search_by_key(&found, |(number, _)| *number);
            let Some((_, write)) = at.ok().map(|at| &mut writes[at]) else {
                return Some(format!(
                    "commit {found} is found, which was refused or never made"
                ));
            };
            if write.began > done {
                return Some(format!("commit {found} is found before it was made"));
            }
            // from now on it is known to have been there
            let there = write.there.map_or(done, |there| there.min(done));
            write.there = Some(there);
            there
        }
    };
    // and in that in which they were begun
    let later = &writes[writes.partition_point(|(_, w)| w.began <= since)..];
    let mut later = later.iter().take_while(|(_, w)| w.began < asked);
    let newer = later.find(|(_, w)| w.there.is_some_and(|there| there < asked))?;
    Some(format!(
        "commit {:?} is found, though {} came after it",
        lookup.found, newer.0
    ))
}

/// A commit of a generation was not asked for after members of a later one had their partitions.
fn generations(chronicle: &Chronicle, findings: &mut Findings) {
    let mut begun: BTreeMap<(u32, i32), Moment> = BTreeMap::new();
    for claim in &chronicle.claims {
        if let Some(generation) = claim.generation {
            let first = begun.entry((claim.group, generation)).or_insert(claim.from);
            *first = claim.from.min(*first);
        }
    }
    for (number, commit) in chronicle.commits.iter().enumerate() {
        let Some(generation) = commit.generation.filter(|_| commit.span.done.is_some()) else {
            continue;
        };
        let later = (commit.group, generation + 1)..=(commit.group, i32::MAX);
        let over = begun
            .range(later)
            .find(|(_, from)| **from < commit.span.asked);
        if let Some(((group, later), from)) = over {
            let (asked, from) = (commit.span.asked, *from);
            findings.add(format!(
                "group {group}: commit {number} of generation {generation}, asked at {asked:?}, was \
                 taken in {later}, which began at {from:?}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::{Lab, chronicle};
    use super::super::{Claim, Span};
    use super::*;

    fn commit(lab: &mut Lab, offset: i64, answered: bool) -> usize {
        let span = lab.span(answered);
        add(lab, offset, span)
    }

    fn add(lab: &mut Lab, offset: i64, span: Span) -> usize {
        lab.commits.push(Commit {
            group: 1,
            place: (0, 0),
            offset,
            span,
            refused: false,
            transaction: None,
            generation: Some(1),
            lives: None,
        });
        lab.commits.len() - 1
    }

    fn lookup(lab: &mut Lab, found: Option<usize>) {
        let span = lab.span(true);
        lab.lookups.push(Lookup {
            group: 1,
            place: (0, 0),
            span,
            found,
        });
    }

    fn found(make: impl Fn(&mut Lab)) -> usize {
        let mut lab = chronicle();
        lab.offsets_retention = Duration::from_secs(600);
        make(&mut lab);
        check(&lab).len()
    }

    #[test]
    fn the_last_commit_is_found() {
        let story = |shown: Option<usize>| {
            found(|lab| {
                commit(lab, 5, true);
                commit(lab, 7, true);
                lookup(lab, shown);
            })
        };
        assert_eq!(story(Some(1)), 0);
        assert_eq!(story(Some(0)), 1, "it went back");
        assert_eq!(story(None), 1, "it is lost");
        assert_eq!(story(Some(7)), 1, "nobody made it");
    }

    #[test]
    fn a_commit_without_an_answer_comes_or_not_but_not_back() {
        let story = |shown: [usize; 2]| {
            found(|lab| {
                commit(lab, 5, true);
                commit(lab, 7, false);
                lookup(lab, Some(shown[0]));
                lookup(lab, Some(shown[1]));
            })
        };
        assert_eq!([story([0, 0]), story([0, 1]), story([1, 1])], [0; 3]);
        assert_eq!(story([1, 0]), 1);
    }

    #[test]
    fn a_refused_commit_is_never_found_and_silent_groups_are_forgotten() {
        let refused = found(|lab| {
            commit(lab, 5, false);
            lab.commits[0].refused = true;
            lookup(lab, Some(0));
        });
        assert_eq!(refused, 1);
        let forgotten = found(|lab| {
            commit(lab, 5, true);
            lab.at(601);
            lookup(lab, None);
        });
        assert_eq!(forgotten, 0);
    }

    #[test]
    fn a_generation_that_is_over_commits_nothing() {
        let story = |generation| {
            found(|lab| {
                let from = lab.moment();
                lab.claims.push(Claim {
                    group: 1,
                    member: 2,
                    place: (0, 0),
                    generation: Some(generation),
                    from,
                    until: None,
                    heard: from,
                    session: Duration::from_secs(10),
                });
                commit(lab, 5, true);
            })
        };
        assert_eq!([story(1), story(2)], [0, 1]);
    }
}
