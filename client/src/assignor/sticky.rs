//! The sticky strategy: every member keeps what it has, as far as the loads stay within one of each
//! other; then the rest goes to whoever has least (KIP-54, KIP-341).
//!
//! Where subscriptions differ, "as even as can be" means that no single move from one member to
//! another would narrow the gap between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Assignment, Member, PartitionCounts, TopicPartition, nothing_yet};

/// Sticky, and cooperative: a partition that changes hands is given to nobody in this round, so that
/// its owner can let go of it first; the rebalance that follows hands it over (KIP-429).
pub(super) fn cooperative(members: &[&Member], partitions: &PartitionCounts) -> Assignment {
    let owners = owners(members, partitions);
    let mut assignment = balanced(members, partitions, &owners);
    for (member, given) in &mut assignment {
        given.retain(|partition| owners.get(partition).is_none_or(|owner| owner == member));
    }
    assignment
}

/// Who has what now. Of two who claim the same, the later generation is right; of two of the same
/// generation neither, for one of them is wrong (KAFKA-12984).
fn owners(members: &[&Member], partitions: &PartitionCounts) -> BTreeMap<TopicPartition, Arc<str>> {
    let mut claims: BTreeMap<&TopicPartition, (i32, Option<&Member>)> = BTreeMap::new();
    for member in members {
        for partition in &member.owned {
            let exists = partitions
                .get(&partition.topic)
                .is_some_and(|&count| (0..count as i32).contains(&partition.partition));
            if !exists || !member.topics.contains(&partition.topic) {
                continue;
            }
            let claim = claims.entry(partition).or_insert((i32::MIN, None));
            match member.generation.cmp(&claim.0) {
                std::cmp::Ordering::Greater => *claim = (member.generation, Some(member)),
                std::cmp::Ordering::Equal => claim.1 = None,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    claims
        .into_iter()
        .filter_map(|(partition, (_, owner))| Some((partition.clone(), owner?.id.clone())))
        .collect()
}

fn balanced(
    members: &[&Member],
    partitions: &PartitionCounts,
    owners: &BTreeMap<TopicPartition, Arc<str>>,
) -> Assignment {
    let mut assignment = nothing_yet(members);
    for (partition, owner) in owners {
        if let Some(kept) = assignment.get_mut(owner) {
            kept.insert(partition.clone());
        }
    }
    // topics that few want first: they have the least choice
    let mut topics: Vec<(usize, &Arc<str>, usize)> = partitions
        .iter()
        .map(|(topic, &count)| (wanting(members, topic).count(), topic, count))
        .collect();
    topics.sort();
    for (_, topic, count) in topics {
        for partition in (0..count as i32).map(|p| TopicPartition::new(topic.clone(), p)) {
            if owners.contains_key(&partition) {
                continue;
            }
            let load = |member: &&&Member| assignment[&member.id].len();
            let least = wanting(members, topic)
                .min_by_key(load)
                .map(|m| m.id.clone());
            if let Some(given) = least.and_then(|id| assignment.get_mut(&id)) {
                given.insert(partition);
            }
        }
    }
    level(members, &mut assignment);
    assignment
}

fn wanting<'a>(members: &'a [&'a Member], topic: &str) -> impl Iterator<Item = &'a &'a Member> {
    members
        .iter()
        .filter(move |member| member.topics.contains(topic))
}

/// Moves partitions from the loaded to the idle until no move narrows a gap. Each move makes the
/// sum of the squared loads smaller, so this ends.
fn level(members: &[&Member], assignment: &mut Assignment) {
    while let Some((from, to, partition)) = next_move(members, assignment) {
        if let Some(given) = assignment.get_mut(&from) {
            given.remove(&partition);
        }
        if let Some(given) = assignment.get_mut(&to) {
            given.insert(partition);
        }
    }
}

fn next_move(
    members: &[&Member],
    assignment: &Assignment,
) -> Option<(Arc<str>, Arc<str>, TopicPartition)> {
    let load = |member: &Member| assignment[&member.id].len();
    let mut by_load: Vec<&&Member> = members.iter().collect();
    by_load.sort_by_key(|member| load(member));
    for giver in by_load.iter().rev() {
        let takers = by_load
            .iter()
            .take_while(|taker| load(taker) + 1 < load(giver));
        for taker in takers {
            let moved = movable(&assignment[&giver.id], &taker.topics);
            if let Some(partition) = moved {
                return Some((giver.id.clone(), taker.id.clone(), partition.clone()));
            }
        }
    }
    None
}

/// What a taker wants of a giver's partitions: the last, so that the first stay put.
fn movable<'a>(
    given: &'a BTreeSet<TopicPartition>,
    topics: &BTreeSet<Arc<str>>,
) -> Option<&'a TopicPartition> {
    given
        .iter()
        .rev()
        .find(|partition| topics.contains(&partition.topic))
}
