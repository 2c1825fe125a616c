//! Who votes in the metadata's quorum. Pure.
//!
//! As many as `quorum.voters.max` allows, an odd number: an even one needs one node more for a majority
//! and survives no more losses. A voter that is down keeps its vote until somebody else can have it,
//! and an even number stays while somebody may come who makes it odd: fewer voters would mean fewer
//! disks that have what is decided.

use std::collections::BTreeSet;

use ringmill_replication::partition::NodeId;
use ringmill_ring::planted;

/// The quorum as its leader sees it.
#[derive(Debug)]
pub(super) struct Electorate<'a> {
    /// The leader itself.
    pub(super) leader: NodeId,
    /// Who votes.
    pub(super) voters: &'a BTreeSet<NodeId>,
    /// Who is registered in the cluster.
    pub(super) known: &'a BTreeSet<NodeId>,
    /// Of them, who is up and stays.
    pub(super) up: &'a BTreeSet<NodeId>,
    /// Who has about all of the log.
    pub(super) up_to_date: &'a BTreeSet<NodeId>,
    /// `quorum.voters.max`.
    pub(super) max: usize,
}

impl Electorate<'_> {
    /// Who is to vote instead; none if it is good as it is. The leader is always among them; one that
    /// votes no more is about to lead no more, and decides nothing.
    pub(super) fn next(&self) -> Option<BTreeSet<NodeId>> {
        if !self.voters.contains(&self.leader) {
            return None;
        }
        let belongs = |node: &NodeId| self.known.contains(node) || planted("leaver-still-counts");
        let stays = |node: &NodeId| *node == self.leader || belongs(node);
        let mut next: BTreeSet<NodeId> = self.voters.iter().copied().filter(stays).collect();
        let can = |node: &&NodeId| self.up_to_date.contains(node) && !next.contains(node);
        let candidates: Vec<NodeId> = self.up.iter().filter(can).copied().collect();
        let wanted = odd(self.max.min(next.len() + candidates.len()));
        let may_grow = next.len() < self.max && self.known.len() > next.len();
        let wanted = wanted.max(if may_grow { next.len() } else { 1 });
        let mut candidates = candidates.into_iter();
        let more = wanted.saturating_sub(next.len());
        next.extend(candidates.by_ref().take(more));
        while next.len() > wanted {
            let last = self.least(&next);
            next.remove(&last);
        }
        // One at a time: what goes out with one that is down may be the only copy but for ours.
        if next == *self.voters
            && let Some(candidate) = candidates.next()
            && let Some(down) = next.iter().find(|node| !self.is_well(**node)).copied()
        {
            next.remove(&down);
            next.insert(candidate);
        }
        (next != *self.voters).then_some(next)
    }

    fn is_well(&self, node: NodeId) -> bool {
        node == self.leader || self.up.contains(&node)
    }

    /// Who is missed least.
    fn least(&self, voters: &BTreeSet<NodeId>) -> NodeId {
        let worth = |node: &NodeId| {
            let has_all = self.up_to_date.contains(node);
            (*node == self.leader, self.is_well(*node), has_all)
        };
        let others = voters.iter().copied().rev();
        others.min_by_key(worth).expect("the leader votes")
    }
}

/// The largest odd number that is not larger.
fn odd(number: usize) -> usize {
    (number.max(1) - 1) | 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    fn next(
        voters: &[NodeId],
        known: &[NodeId],
        up: &[NodeId],
        up_to_date: &[NodeId],
    ) -> Option<Vec<NodeId>> {
        let (voters, known) = (set(voters), set(known));
        let electorate = Electorate {
            leader: 1,
            voters: &voters,
            known: &known,
            up: &set(up),
            up_to_date: &set(up_to_date),
            max: 5,
        };
        electorate.next().map(|next| next.into_iter().collect())
    }

    #[test]
    fn voters_grow_with_the_cluster_by_odd_numbers() {
        let all = [1, 2, 3, 4, 5, 6, 7];
        assert_eq!(next(&[1], &all[..2], &all[..2], &all), None);
        assert_eq!(next(&[1], &all[..3], &all[..3], &all), Some(vec![1, 2, 3]));
        assert_eq!(next(&[1, 2, 3], &all[..4], &all[..4], &all), None);
        assert_eq!(
            next(&[1, 2, 3], &all, &all, &all),
            Some(vec![1, 2, 3, 4, 5])
        );
        assert_eq!(next(&[1, 2, 3, 4, 5], &all, &all, &all), None);
    }

    #[test]
    fn nobody_votes_who_lacks_the_log() {
        assert_eq!(next(&[1], &[1, 2, 3], &[1, 2, 3], &[1, 2]), None);
    }

    #[test]
    fn a_voter_that_is_down_is_replaced_or_kept() {
        let voters = [1, 2, 3];
        assert_eq!(next(&voters, &voters, &[1, 3], &voters), None);
        assert_eq!(next(&voters, &voters, &[1], &voters), None);
        let all = [1, 2, 3, 4, 5];
        assert_eq!(
            next(&voters, &all[..4], &[1, 3, 4], &all),
            Some(vec![1, 3, 4])
        );
    }

    #[test]
    fn two_voters_stay_while_the_third_has_lost_its_disk() {
        assert_eq!(next(&[1, 2], &[1, 2, 3], &[1, 2], &[1, 2]), None);
        assert_eq!(
            next(&[1, 2], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]),
            Some(vec![1, 2, 3])
        );
    }

    #[test]
    fn a_voter_that_has_left_does_not_vote() {
        assert_eq!(next(&[1, 2, 3], &[1, 3], &[1, 3], &[1, 3]), Some(vec![1]));
        let all = [1, 2, 3, 4];
        assert_eq!(
            next(&[1, 2, 3], &[1, 3, 4], &[1, 3, 4], &all),
            Some(vec![1, 3, 4])
        );
    }

    #[test]
    fn a_leader_that_votes_no_more_decides_nothing() {
        assert_eq!(next(&[2], &[1], &[1], &[]), None);
        assert_eq!(next(&[2, 3, 4], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]), None);
    }

    proptest! {
        /// Whatever the cluster looks like: an odd number of known nodes with the leader, at most
        /// one replaced at a time, and after some steps nothing is left to do.
        #[test]
        fn it_settles(
            voters in proptest::collection::btree_set(1..9_i32, 0..6),
            known in proptest::collection::btree_set(1..9_i32, 0..9),
            up in proptest::collection::btree_set(1..9_i32, 0..9),
            up_to_date in proptest::collection::btree_set(1..9_i32, 0..9),
            max in 1..8_usize,
        ) {
            let up = &up & &known;
            let mut voters = &voters | &set(&[1]);
            for _ in 0..10 {
                let electorate = Electorate {
                    leader: 1,
                    voters: &voters,
                    known: &known,
                    up: &up,
                    up_to_date: &up_to_date,
                    max,
                };
                let Some(next) = electorate.next() else {
                    let may_grow = known.iter().any(|node| !voters.contains(node));
                    prop_assert!(voters.len() % 2 == 1 || may_grow);
                    prop_assert!(voters.contains(&1) && voters.len() <= max);
                    return Ok(());
                };
                for added in &next - &voters {
                    prop_assert!(up.contains(&added) && up_to_date.contains(&added));
                }
                voters = next;
            }
            prop_assert!(false, "it never settles");
        }
    }
}
