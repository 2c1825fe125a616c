//! Which nodes get the copies of new partitions: leaders go round all nodes, copies of one partition
//! to as many racks as there are (KIP-36). Pure.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::partition::NodeId;

/// A node that may get copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub node: NodeId,
    /// Where it stands (`broker.rack`).
    pub rack: Option<String>,
}

/// There are not as many nodes as copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("replication factor {wanted} is larger than the number of usable nodes, {nodes}")]
pub struct TooFewNodes {
    /// Copies of each partition.
    pub wanted: usize,
    /// Nodes that may get one.
    pub nodes: usize,
}

/// Places `partitions` with `copies` each, from `first` on (a random number, or how many there are
/// already, so that not all topics begin at the same node). The first of a partition's nodes is its
/// preferred leader.
///
/// # Errors
/// There are fewer nodes than copies.
pub fn place(
    candidates: &[Candidate],
    partitions: usize,
    copies: usize,
    first: u64,
) -> Result<Vec<Vec<NodeId>>, TooFewNodes> {
    let nodes = candidates.len();
    if copies > nodes || copies == 0 {
        return Err(TooFewNodes {
            wanted: copies,
            nodes,
        });
    }
    let order = by_turns(candidates);
    let racks: BTreeSet<&Option<String>> = order.iter().map(|c| &c.rack).collect();
    let first = (first % nodes as u64) as usize;
    let placed = (0..partitions).map(|partition| {
        let leader = (first + partition) % nodes;
        // Each time that the leaders have gone round, the others are chosen from further on.
        let shift = first + partition / nodes;
        let others = (0..nodes - 1).map(|at| (leader + 1 + (shift + at) % (nodes - 1)) % nodes);
        choose(&order, leader, others.collect(), copies, racks.len())
    });
    Ok(placed.collect())
}

/// The leader, then one of each rack in turn, then whoever is left.
fn choose(
    order: &[&Candidate],
    leader: usize,
    mut others: Vec<usize>,
    copies: usize,
    racks: usize,
) -> Vec<NodeId> {
    let mut chosen = vec![order[leader].node];
    let mut used = BTreeSet::from([&order[leader].rack]);
    while chosen.len() < copies {
        if used.len() == racks {
            used.clear();
        }
        let fresh = others
            .iter()
            .position(|at| !used.contains(&order[*at].rack));
        // Every other rack may have run out of nodes.
        let at = others.remove(fresh.unwrap_or(0));
        used.insert(&order[at].rack);
        chosen.push(order[at].node);
    }
    chosen
}

/// The nodes so that those who follow each other are of different racks, as far as that goes.
fn by_turns(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut racks: BTreeMap<&Option<String>, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        racks.entry(&candidate.rack).or_default().push(candidate);
    }
    for rack in racks.values_mut() {
        rack.sort_by_key(|candidate| candidate.node);
    }
    let deepest = racks.values().map(Vec::len).max().unwrap_or(0);
    let turns = (0..deepest).flat_map(|at| racks.values().filter_map(move |rack| rack.get(at)));
    turns.copied().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(racks: &[Option<&str>]) -> Vec<Candidate> {
        let candidate = |(node, rack): (usize, &Option<&str>)| Candidate {
            node: node as NodeId + 1,
            rack: rack.map(str::to_owned),
        };
        racks.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn copies_of_a_partition_are_in_different_racks() {
        let nodes = nodes(&[Some("a"), Some("a"), Some("b"), Some("b"), Some("c")]);
        let rack = |node: &NodeId| nodes[*node as usize - 1].rack.clone();
        for copies in place(&nodes, 50, 3, 7).unwrap() {
            let racks: BTreeSet<_> = copies.iter().map(rack).collect();
            assert_eq!(racks.len(), 3, "{copies:?}");
        }
    }

    #[test]
    fn more_copies_than_nodes_are_refused() {
        let too_few = TooFewNodes {
            wanted: 3,
            nodes: 2,
        };
        assert_eq!(place(&nodes(&[None, None]), 1, 3, 0), Err(too_few));
        assert!(place(&[], 1, 0, 0).is_err());
        assert_eq!(place(&nodes(&[None]), 2, 1, 9), Ok(vec![vec![1], vec![1]]));
    }

    proptest! {
        #[test]
        fn leaders_and_copies_are_spread(
            racks in proptest::collection::vec(0..4_u8, 1..9),
            partitions in 1..60_usize,
            copies in 1..5_usize,
            first: u64,
        ) {
            prop_assume!(copies <= racks.len());
            let names = ["a", "b", "c", "d"];
            let racks: Vec<_> = racks.iter().map(|rack| Some(names[*rack as usize])).collect();
            let nodes = nodes(&racks);
            let placed = place(&nodes, partitions, copies, first).unwrap();
            let mut leaders: BTreeMap<NodeId, usize> = nodes.iter().map(|c| (c.node, 0)).collect();
            let all: BTreeSet<_> = racks.iter().collect();
            for chosen in &placed {
                *leaders.get_mut(&chosen[0]).unwrap() += 1;
                let distinct: BTreeSet<_> = chosen.iter().collect();
                prop_assert_eq!(distinct.len(), copies);
                let used: BTreeSet<_> = chosen.iter().map(|n| racks[*n as usize - 1]).collect();
                prop_assert_eq!(used.len(), copies.min(all.len()), "{:?}", chosen);
            }
            let most = leaders.values().max().unwrap();
            let least = leaders.values().min().unwrap();
            prop_assert!(most - least <= 1, "{:?}", leaders);
        }
    }
}
