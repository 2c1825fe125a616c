//! What a group may rely on: no partition is read by two members of one generation, members let go
//! before others take, and every group that is left in peace settles. Checked against a coordinator
//! in a few lines.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PARTITIONS: i32 = 7;

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn membership(assignor: Assignor) -> Membership {
    let config = ConsumerConfig {
        assignors: vec![assignor],
        ..ConsumerConfig::default()
    };
    let mut membership = Membership::new("g", &config, &ClientConfig::default());
    membership.on_coordinator(1);
    membership
}

fn subscribed(assignor: Assignor) -> Membership {
    let mut membership = membership(assignor);
    membership.subscribe(at(0), BTreeSet::from(["t".into()]));
    membership
}

fn joined(generation: i32) -> Joined {
    Joined {
        member_id: "m".into(),
        generation,
        protocol: "range".into(),
        leader: "other".into(),
        ..Joined::default()
    }
}

fn assignment(partitions: &[i32]) -> Bytes {
    encode_assignment(&partitions.iter().map(|p| tp(*p)).collect())
}

/// A member that has been given partitions.
fn settled(partitions: &[i32]) -> Membership {
    let mut membership = subscribed(Assignor::Range);
    assert!(matches!(membership.step(at(0)), Step::Join { .. }));
    membership.on_join_sent();
    membership.on_joined(at(0), Ok(joined(1)), "m", 0).unwrap();
    assert_eq!(
        membership.step(at(0)),
        Step::Sync {
            assignments: vec![]
        }
    );
    membership
        .on_synced(at(0), Ok(assignment(partitions)), 0)
        .unwrap();
    assert!(matches!(membership.step(at(0)), Step::Take { .. }));
    membership.on_taken();
    assert_eq!(membership.step(at(0)), Step::Rest);
    membership
}

fn heartbeat(membership: &mut Membership, code: ErrorCode) -> Result<(), GroupError> {
    let id = membership.id();
    membership.on_heartbeat(at(3), &id, code, 0)
}

#[test]
fn nobody_joins_without_topics_and_the_coordinator_comes_first() {
    let mut membership = membership(Assignor::Range);
    assert_eq!(membership.step(at(0)), Step::Rest);
    membership.coordinator = None;
    membership.subscribe(at(0), BTreeSet::from(["t".into()]));
    assert_eq!(membership.step(at(0)), Step::FindCoordinator);
    membership.on_failed(at(0), 0);
    assert!(matches!(membership.step(at(0)), Step::Wait(_)));
    assert_eq!(membership.step(at(1)), Step::FindCoordinator);
}

#[test]
fn a_settled_member_that_lost_its_coordinator_looks_for_it() {
    let mut membership = settled(&[0]);
    assert!(!membership.wants_coordinator(at(3)));
    membership.on_failed(at(3), 0);
    assert_eq!(membership.heartbeat(at(9)), None, "to whom?");
    assert!(!membership.wants_coordinator(at(3)), "after a pause");
    assert!(membership.wants_coordinator(at(9)));
    membership.on_coordinator(2);
    assert!(!membership.wants_coordinator(at(9)));
    assert!(membership.heartbeat(at(9)).is_some());
}

#[test]
fn a_given_member_id_is_used_in_the_next_join() {
    let mut membership = subscribed(Assignor::Range);
    membership.on_join_sent();
    let refused = Err(ErrorCode::MemberIdRequired);
    membership.on_joined(at(0), refused, "given", 0).unwrap();
    assert_eq!(&*membership.id().member_id, "given");
    assert!(matches!(membership.step(at(0)), Step::Join { .. }));
}

#[test]
fn an_eager_member_lets_go_before_it_joins_again() {
    let mut membership = settled(&[0, 1]);
    heartbeat(&mut membership, ErrorCode::RebalanceInProgress).unwrap();
    let all = BTreeSet::from([tp(0), tp(1)]);
    let revoke = Step::Revoke {
        partitions: all,
        lost: false,
    };
    assert_eq!(membership.step(at(3)), revoke);
    assert!(
        membership.heartbeat(at(9)).is_some(),
        "alive until it joins"
    );
    membership.on_revoked();
    assert!(matches!(membership.step(at(3)), Step::Join { .. }));
}

#[test]
fn heartbeats_come_at_their_interval_and_only_from_settled_members() {
    let mut membership = settled(&[0]);
    assert_eq!(membership.heartbeat(at(2)), None);
    let id = membership.heartbeat(at(3)).unwrap();
    membership.on_heartbeat_sent(at(3));
    assert_eq!(membership.heartbeat(at(4)), None);
    assert_eq!(membership.next_heartbeat(), at(6));
    // an answer to a member that is none any more
    let mut other = settled(&[0]);
    other.leave();
    other
        .on_heartbeat(at(4), &id, ErrorCode::UnknownMemberId, 0)
        .unwrap();
    assert_eq!(other.heartbeat(at(99)), None);
}

#[test]
fn a_member_that_was_forgotten_has_lost_what_it_had_and_joins_as_a_new_one() {
    for (code, kept) in [
        (ErrorCode::UnknownMemberId, ""),
        (ErrorCode::IllegalGeneration, "m"),
    ] {
        let mut membership = settled(&[4]);
        heartbeat(&mut membership, code).unwrap();
        let revoke = Step::Revoke {
            partitions: BTreeSet::from([tp(4)]),
            lost: true,
        };
        assert_eq!(membership.step(at(3)), revoke, "{code}");
        assert!(!membership.is_member());
        membership.on_revoked();
        assert!(matches!(membership.step(at(3)), Step::Join { .. }));
        assert_eq!(&*membership.id().member_id, kept);
    }
}

#[test]
fn an_application_that_does_not_poll_is_overdue_and_stays_out_until_it_does() {
    let mut membership = settled(&[0]);
    assert!(!membership.is_overdue(at(299)));
    assert!(membership.is_overdue(at(300)));
    membership.leave();
    assert!(matches!(
        membership.step(at(300)),
        Step::Revoke { lost: true, .. }
    ));
    membership.on_revoked();
    assert_eq!(membership.step(at(300)), Step::Rest);
    membership.on_poll(at(301));
    assert!(matches!(membership.step(at(301)), Step::Join { .. }));
}

#[test]
fn a_refusal_for_good_ends_the_membership_and_is_told() {
    let mut membership = settled(&[0]);
    let error = heartbeat(&mut membership, ErrorCode::FencedInstanceId).unwrap_err();
    assert!(error.to_string().contains("FENCED_INSTANCE_ID"), "{error}");
    membership.on_revoked();
    assert_eq!(membership.step(at(9)), Step::Rest);
}

#[test]
fn a_subscription_changed_under_way_is_followed_by_another_join() {
    let mut membership = subscribed(Assignor::Range);
    membership.on_join_sent();
    membership.subscribe(at(0), BTreeSet::from(["t".into(), "u".into()]));
    membership.on_joined(at(0), Ok(joined(1)), "m", 0).unwrap();
    membership.on_synced(at(0), Ok(assignment(&[])), 0).unwrap();
    membership.on_taken();
    let Step::Join { protocols } = membership.step(at(0)) else {
        panic!("{:?}", membership.step(at(0)))
    };
    let wants = Subscription::decode(&protocols[0].1).unwrap();
    assert_eq!(wants.topics.len(), 2);
}

#[test]
fn the_leader_rebalances_when_a_topic_grows_and_not_when_it_cannot_be_seen() {
    let mut membership = subscribed(Assignor::Range);
    membership.on_join_sent();
    let Step::Join { protocols } = subscribed(Assignor::Range).step(at(0)) else {
        panic!()
    };
    let leads = Joined {
        leader: "m".into(),
        members: vec![("m".into(), None, protocols[0].1.clone())],
        ..joined(1)
    };
    membership.on_joined(at(0), Ok(leads), "m", 0).unwrap();
    let topics = BTreeSet::from(["t".into()]);
    assert_eq!(membership.step(at(0)), Step::Count { topics });
    membership.on_counts(BTreeMap::from([("t".into(), 2)]));
    let Step::Sync { assignments } = membership.step(at(0)) else {
        panic!()
    };
    let own = assignments[0].1.clone();
    membership.on_synced(at(0), Ok(own), 0).unwrap();
    membership.on_taken();
    membership.on_metadata(|_| None);
    membership.on_metadata(|_| Some(2));
    assert_eq!(membership.step(at(0)), Step::Rest);
    membership.on_metadata(|_| Some(3));
    assert!(matches!(
        membership.step(at(0)),
        Step::Revoke { lost: false, .. }
    ));
}

#[test]
fn a_strategy_that_was_not_offered_and_bytes_that_are_none_are_errors() {
    let mut membership = subscribed(Assignor::RoundRobin);
    membership.on_join_sent();
    let error = membership
        .on_joined(at(0), Ok(joined(1)), "m", 0)
        .unwrap_err();
    assert!(error.to_string().contains("\"range\""), "{error}");
    let mut membership = subscribed(Assignor::Range);
    membership.on_join_sent();
    membership.on_joined(at(0), Ok(joined(1)), "m", 0).unwrap();
    let garbage = Ok(Bytes::from_static(b"\0"));
    assert!(membership.on_synced(at(0), garbage, 0).is_err());
}

/// A group's coordinator, without time-outs: a rebalance waits for all who are members.
#[derive(Default)]
struct Coordinator {
    generation: i32,
    members: BTreeSet<usize>,
    /// Who has joined the rebalance under way, with its wants.
    joining: BTreeMap<usize, Bytes>,
    rebalancing: bool,
    assignments: Option<BTreeMap<usize, Bytes>>,
    leader: usize,
}

struct Group {
    assignor: Assignor,
    coordinator: Coordinator,
    members: BTreeMap<usize, Membership>,
}

fn name(member: usize) -> String {
    format!("m{member}")
}

impl Group {
    fn enter(&mut self, member: usize) {
        let mut membership = subscribed(self.assignor);
        membership.member_id = name(member).into();
        self.members.insert(member, membership);
    }

    fn leave(&mut self, member: usize) {
        self.members.remove(&member);
        self.coordinator.members.remove(&member);
        self.coordinator.joining.remove(&member);
        self.coordinator.rebalancing = true;
        self.complete();
    }

    /// Lets a member take its next step; false if it has none.
    fn advance(&mut self, member: usize) -> bool {
        let coordinator = &mut self.coordinator;
        let Some(membership) = self.members.get_mut(&member) else {
            return false;
        };
        match membership.step(at(0)) {
            Step::Join { .. } if coordinator.joining.contains_key(&member) => return false,
            Step::Join { protocols } => {
                membership.on_join_sent();
                coordinator.members.insert(member);
                coordinator.joining.insert(member, protocols[0].1.clone());
                coordinator.rebalancing = true;
                self.complete();
            }
            Step::Count { .. } => {
                membership.on_counts(BTreeMap::from([("t".into(), PARTITIONS as usize)]));
            }
            Step::Sync { assignments } => {
                if coordinator.rebalancing {
                    let again = Err(ErrorCode::RebalanceInProgress);
                    membership.on_synced(at(0), again, 0).unwrap();
                    return true;
                }
                if member == coordinator.leader && coordinator.assignments.is_none() {
                    let number = |id: &str| id[1..].parse().unwrap();
                    let by_member = assignments.into_iter().map(|(id, a)| (number(&id), a));
                    coordinator.assignments = Some(by_member.collect());
                }
                let Some(assignments) = &coordinator.assignments else {
                    return false;
                };
                let own = assignments.get(&member).cloned().unwrap_or_default();
                membership.on_synced(at(0), Ok(own), 0).unwrap();
            }
            Step::Revoke { lost, .. } => {
                assert!(!lost, "nobody was away");
                membership.on_revoked();
            }
            Step::Take { .. } => membership.on_taken(),
            Step::Rest if coordinator.rebalancing => {
                heartbeat(membership, ErrorCode::RebalanceInProgress).unwrap();
            }
            Step::Rest => return false,
            step @ (Step::Wait(_) | Step::FindCoordinator | Step::Name { .. }) => {
                panic!("{step:?}")
            }
        }
        self.check();
        true
    }

    /// The rebalance ends when all members have joined it.
    fn complete(&mut self) {
        let coordinator = &mut self.coordinator;
        if !coordinator.joining.keys().eq(coordinator.members.iter()) {
            return;
        }
        let joining = std::mem::take(&mut coordinator.joining);
        let Some(leader) = joining.keys().next().copied() else {
            coordinator.rebalancing = false;
            return;
        };
        coordinator.rebalancing = false;
        coordinator.generation += 1;
        coordinator.assignments = None;
        coordinator.leader = leader;
        for member in joining.keys() {
            let everybody = joining
                .iter()
                .map(|(id, wants)| (name(*id), None, wants.clone()));
            let joined = Joined {
                member_id: name(*member),
                generation: coordinator.generation,
                protocol: self.assignor.name().into(),
                leader: name(leader),
                skip_assignment: false,
                members: if *member == leader {
                    everybody.collect()
                } else {
                    Vec::new()
                },
            };
            let membership = self.members.get_mut(member).unwrap();
            membership.on_joined(at(0), Ok(joined), "", 0).unwrap();
        }
    }

    /// No partition is owned twice.
    fn check(&self) {
        let mut owned: Vec<_> = self.members.values().flat_map(|m| &m.owned).collect();
        let all = owned.len();
        owned.sort();
        owned.dedup();
        assert_eq!(owned.len(), all, "a partition is owned twice");
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let members: Vec<usize> = self.members.keys().copied().collect();
            let moved = members.into_iter().filter(|m| self.advance(*m)).count();
            if moved == 0 {
                let owned: usize = self.members.values().map(|m| m.owned.len()).sum();
                let due = if self.members.is_empty() {
                    0
                } else {
                    PARTITIONS
                };
                assert_eq!(owned as i32, due, "everything is read by somebody");
                return;
            }
        }
        panic!("the group does not settle");
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Enter(usize),
    Leave(usize),
    Advance(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let member = 0..4_usize;
    let one = prop_oneof![
        1 => member.clone().prop_map(Happening::Enter),
        1 => member.clone().prop_map(Happening::Leave),
        8 => member.prop_map(Happening::Advance),
    ];
    proptest::collection::vec(one, 0..80)
}

proptest! {
    #[test]
    fn groups_never_share_a_partition_and_always_settle(happenings in happenings()) {
        for assignor in Assignor::ALL {
            let mut group = Group {
                assignor,
                coordinator: Coordinator::default(),
                members: BTreeMap::new(),
            };
            for happening in &happenings {
                match happening {
                    Happening::Enter(member) if !group.members.contains_key(member) => {
                        group.enter(*member);
                    }
                    Happening::Enter(_) => {}
                    Happening::Leave(member) if group.members.contains_key(member) => {
                        group.leave(*member);
                    }
                    Happening::Leave(_) => {}
                    Happening::Advance(member) => drop(group.advance(*member)),
                }
            }
            group.settle();
        }
    }
}
