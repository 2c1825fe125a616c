//! The strategies' promises: every partition goes to one member that wants it, evenly, and the
//! sticky one moves no more than it must.

use proptest::prelude::*;

use super::*;

fn topics(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn member(id: &str, names: &[&str]) -> Member {
    Member {
        id: id.into(),
        instance_id: None,
        topics: topics(names),
        owned: BTreeSet::new(),
        generation: -1,
    }
}

fn counts(topics: &[(&str, usize)]) -> PartitionCounts {
    topics
        .iter()
        .map(|(topic, n)| (Arc::from(*topic), *n))
        .collect()
}

fn shown(assignment: &Assignment) -> Vec<String> {
    assignment
        .iter()
        .map(|(member, given)| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            format!("{member}: {}", given.join(" "))
        })
        .collect()
}

#[test]
fn range_gives_runs_and_the_first_one_more() {
    // the example of Kafka's RangeAssignor
    let members = [member("C1", &["t0", "t1"]), member("C0", &["t0", "t1"])];
    let assigned = Assignor::Range.assign(&members, &counts(&[("t0", 3), ("t1", 3)]));
    assert_eq!(
        shown(&assigned),
        ["C0: t0-0 t0-1 t1-0 t1-1", "C1: t0-2 t1-2"]
    );
}

#[test]
fn range_follows_the_lasting_name_of_static_members() {
    let mut first = member("zzz", &["t"]);
    first.instance_id = Some("a".into());
    let mut second = member("aaa", &["t"]);
    second.instance_id = Some("b".into());
    let assigned = Assignor::Range.assign(&[second, first], &counts(&[("t", 3)]));
    assert_eq!(shown(&assigned), ["aaa: t-2", "zzz: t-0 t-1"]);
}

#[test]
fn round_robin_deals_over_topics_and_passes_over_who_does_not_want() {
    // the two examples of Kafka's RoundRobinAssignor
    let members = [member("C0", &["t0", "t1"]), member("C1", &["t0", "t1"])];
    let assigned = Assignor::RoundRobin.assign(&members, &counts(&[("t0", 3), ("t1", 3)]));
    assert_eq!(
        shown(&assigned),
        ["C0: t0-0 t0-2 t1-1", "C1: t0-1 t1-0 t1-2"]
    );
    let members = [
        member("C0", &["t0"]),
        member("C1", &["t0", "t1"]),
        member("C2", &["t0", "t1", "t2"]),
    ];
    let topics = counts(&[("t0", 1), ("t1", 2), ("t2", 3)]);
    let assigned = Assignor::RoundRobin.assign(&members, &topics);
    assert_eq!(
        shown(&assigned),
        ["C0: t0-0", "C1: t1-0", "C2: t1-1 t2-0 t2-1 t2-2"]
    );
}

#[test]
fn a_topic_that_nobody_wants_or_that_is_not_there_harms_nobody() {
    for assignor in Assignor::ALL {
        let assigned = assignor.assign(&[member("m", &["gone"])], &counts(&[("other", 2)]));
        assert_eq!(shown(&assigned), ["m: "], "{assignor:?}");
        assert_eq!(
            assignor.assign(&[], &counts(&[("t", 1)])),
            Assignment::new()
        );
    }
}

/// Lets a group settle: assigns until nobody's partitions change any more, as the rebalances do.
fn settle(members: &mut [Member], partitions: &PartitionCounts) -> usize {
    let mut moved = 0;
    for generation in 1..5 {
        let assigned = Assignor::CooperativeSticky.assign(members, partitions);
        let mut changed = false;
        for member in members.iter_mut() {
            let given = assigned[&member.id].clone();
            moved += given.difference(&member.owned).count();
            changed |= given != member.owned;
            member.owned = given;
            member.generation = generation;
        }
        if !changed {
            return moved;
        }
    }
    panic!("the group does not settle: {members:?}");
}

#[test]
fn a_newcomer_takes_from_the_others_only_what_levels() {
    let partitions = counts(&[("t", 9)]);
    let mut members = vec![member("a", &["t"]), member("b", &["t"])];
    settle(&mut members, &partitions);
    members.push(member("c", &["t"]));
    let first = Assignor::CooperativeSticky.assign(&members, &partitions);
    assert_eq!(first["c"].len(), 0, "its partitions are not free yet");
    assert_eq!(settle(&mut members, &partitions), 3);
    assert!(members.iter().all(|m| m.owned.len() == 3));
}

#[test]
fn the_partitions_of_a_member_that_left_are_spread_and_no_other_moves() {
    let partitions = counts(&[("t", 9)]);
    let mut members = ["a", "b", "c"].map(|id| member(id, &["t"])).to_vec();
    settle(&mut members, &partitions);
    members.remove(1);
    assert_eq!(settle(&mut members, &partitions), 3);
}

#[test]
fn a_claim_of_an_older_generation_is_void_and_a_tie_too() {
    let partitions = counts(&[("t", 1)]);
    let claim = |id: &str, generation| Member {
        owned: BTreeSet::from([TopicPartition::new("t", 0)]),
        generation,
        ..member(id, &["t"])
    };
    let assign =
        |members: &[Member]| shown(&Assignor::CooperativeSticky.assign(members, &partitions));
    assert_eq!(assign(&[claim("a", 3), claim("b", 4)]), ["a: ", "b: t-0"]);
    assert_eq!(assign(&[claim("a", 4), claim("b", 4)]), ["a: t-0", "b: "]);
}

#[test]
fn strategies_are_cooperative_only_together() {
    use Assignor::{CooperativeSticky, Range};
    assert_eq!(
        common_rebalance(&[CooperativeSticky]),
        Rebalance::Cooperative
    );
    assert_eq!(
        common_rebalance(&[Range, CooperativeSticky]),
        Rebalance::Eager
    );
    for assignor in Assignor::ALL {
        assert_eq!(Assignor::from_name(assignor.name()), Some(assignor));
    }
}

fn groups() -> impl Strategy<Value = (Vec<Member>, PartitionCounts)> {
    let wanted = proptest::collection::vec(proptest::collection::btree_set(0_usize..4, 1..4), 1..6);
    (wanted, proptest::collection::vec(0_usize..7, 4)).prop_map(|(wanted, sizes)| {
        let name = |at: usize| format!("t{at}");
        let members = wanted.iter().enumerate().map(|(at, wanted)| Member {
            topics: wanted.iter().map(|t| Arc::from(name(*t))).collect(),
            ..member(&format!("m{at}"), &[])
        });
        let counts = sizes
            .iter()
            .enumerate()
            .map(|(at, n)| (Arc::from(name(at)), *n));
        (members.collect(), counts.collect())
    })
}

proptest! {
    #[test]
    fn every_partition_goes_to_one_member_that_wants_it((mut members, partitions) in groups()) {
        for assignor in Assignor::ALL {
            let assigned = assignor.assign(&members, &partitions);
            check_complete(&members, &partitions, &assigned);
            members.reverse();
            prop_assert_eq!(&assigned, &assignor.assign(&members, &partitions));
        }
    }

    #[test]
    fn sticky_groups_settle_level_over_joins_and_leaves(
        (mut members, partitions) in groups(),
        leaver: prop::sample::Index,
    ) {
        settle(&mut members, &partitions);
        check_level(&members);
        let gone = leaver.index(members.len());
        let left = members.remove(gone);
        settle(&mut members, &partitions);
        check_level(&members);
        members.push(Member { owned: BTreeSet::new(), generation: -1, ..left });
        settle(&mut members, &partitions);
        check_level(&members);
        let owned = members.iter().map(|m| (m.id.clone(), m.owned.clone())).collect();
        check_complete(&members, &partitions, &owned);
    }
}

fn check_complete(members: &[Member], partitions: &PartitionCounts, assigned: &Assignment) {
    let mut given: Vec<&TopicPartition> = assigned.values().flatten().collect();
    let total = given.len();
    given.sort();
    given.dedup();
    assert_eq!(
        given.len(),
        total,
        "one partition, one member: {assigned:?}"
    );
    let wanted = |topic: &Arc<str>| members.iter().any(|m| m.topics.contains(topic));
    let due: usize = partitions
        .iter()
        .filter(|(t, _)| wanted(t))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(total, due, "nothing is left over: {assigned:?}");
    for member in members {
        assert!(
            assigned[&member.id]
                .iter()
                .all(|p| member.topics.contains(&p.topic))
        );
    }
}

fn check_level(members: &[Member]) {
    for giver in members {
        for taker in members
            .iter()
            .filter(|m| m.owned.len() + 1 < giver.owned.len())
        {
            let could = giver.owned.iter().any(|p| taker.topics.contains(&p.topic));
            assert!(!could, "{} could give to {}", giver.id, taker.id);
        }
    }
}
