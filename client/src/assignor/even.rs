//! The two strategies that know nothing of before: range and round-robin.

use std::sync::Arc;

use super::{Assignment, Member, PartitionCounts, TopicPartition, nothing_yet};

/// Kafka's `RangeAssignor`: each topic by itself, in runs; the first members get one more where it
/// does not divide.
pub(super) fn range(members: &[&Member], partitions: &PartitionCounts) -> Assignment {
    let mut assignment = nothing_yet(members);
    for (topic, &count) in partitions {
        let takers: Vec<&&Member> = members
            .iter()
            .filter(|m| m.topics.contains(topic))
            .collect();
        if takers.is_empty() {
            continue;
        }
        let (each, more) = (count / takers.len(), count % takers.len());
        let mut next = 0;
        for (nth, member) in takers.iter().enumerate() {
            let run = each + usize::from(nth < more);
            give(&mut assignment, member, topic, next..next + run);
            next += run;
        }
    }
    assignment
}

/// Kafka's `RoundRobinAssignor`: all partitions in order, dealt to the members in turn; a member
/// that does not want a topic is passed over.
pub(super) fn round_robin(members: &[&Member], partitions: &PartitionCounts) -> Assignment {
    let mut assignment = nothing_yet(members);
    let mut turn = members.iter().cycle().peekable();
    for (topic, &count) in partitions {
        if !members.iter().any(|m| m.topics.contains(topic)) {
            continue;
        }
        for partition in 0..count {
            let taker = turn.by_ref().find(|member| member.topics.contains(topic));
            if let Some(member) = taker {
                give(&mut assignment, member, topic, partition..partition + 1);
            }
        }
    }
    assignment
}

fn give(
    assignment: &mut Assignment,
    member: &Member,
    topic: &Arc<str>,
    partitions: std::ops::Range<usize>,
) {
    if let Some(given) = assignment.get_mut(&member.id) {
        given.extend(partitions.map(|p| TopicPartition::new(topic.clone(), p as i32)));
    }
}
