//! What a group of the consumer protocol may rely on: heartbeats at the coordinator's pace, nothing
//! taken before what is to go was given up and told, the right epoch with everything, and a way back
//! from each refusal that has one. Checked against a coordinator in a few lines.

use proptest::prelude::*;

use super::*;

const TOPIC: Uuid = Uuid::from_u128(7);

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn ids(partitions: &[i32]) -> Ids {
    partitions.iter().map(|p| (TOPIC, *p)).collect()
}

fn names() -> [(Uuid, Arc<str>); 1] {
    [(TOPIC, "t".into())]
}

fn topics(names: &[&str]) -> Wants {
    Wants {
        topics: names.iter().map(|name| Arc::from(*name)).collect(),
        pattern: None,
    }
}

fn membership(config: &ConsumerConfig) -> ConsumerMembership {
    let mut membership = ConsumerMembership::new("g", "m", config, &ClientConfig::default());
    membership.on_coordinator(1);
    membership
}

fn subscribed() -> ConsumerMembership {
    let mut membership = membership(&ConsumerConfig::default());
    membership.subscribe(at(0), topics(&["t"]));
    membership
}

fn beaten(epoch: i32, assignment: Option<&[i32]>) -> Result<Beaten, Refused> {
    Ok(Beaten {
        member_id: "m".into(),
        epoch,
        interval: Duration::from_secs(5),
        assignment: assignment.map(ids),
    })
}

fn refused(code: ErrorCode) -> Result<Beaten, Refused> {
    let message = Some("as the test wants it".to_owned());
    Err(Refused { code, message })
}

/// Sends the heartbeat that is due, and answers it.
fn beat(
    membership: &mut ConsumerMembership,
    now: Instant,
    answer: Result<Beaten, Refused>,
) -> (Beat, Result<(), GroupError>) {
    let beat = membership.beat(now).expect("a heartbeat is due");
    let done = membership.on_beaten(now, &beat, answer, 0);
    (beat, done)
}

/// A member that has these partitions, and whose coordinator knows it.
fn settled(partitions: &[i32]) -> ConsumerMembership {
    let mut membership = subscribed();
    beat(&mut membership, at(0), beaten(1, Some(partitions)))
        .1
        .unwrap();
    take(&mut membership);
    beat(&mut membership, at(0), beaten(1, None)).1.unwrap();
    assert_eq!(membership.step(at(0)), Step::Rest);
    membership
}

fn take(membership: &mut ConsumerMembership) {
    membership.on_names(at(0), names(), 0);
    assert!(matches!(membership.step(at(0)), Step::Take { .. }));
    membership.on_taken();
}

#[test]
fn joining_says_everything_and_later_heartbeats_what_is_new() {
    let config = ConsumerConfig {
        group_instance_id: Some("i".into()),
        remote_assignor: Some("range".into()),
        rack: Some("r".into()),
        ..ConsumerConfig::default()
    };
    let mut membership = membership(&config);
    assert_eq!(membership.beat(at(0)), None, "nothing is wanted");
    membership.subscribe(at(0), topics(&["t"]));
    let (first, _) = beat(&mut membership, at(0), beaten(3, Some(&[0])));
    assert_eq!(first.member.generation, 0);
    assert_eq!(first.member.instance_id.as_deref(), Some("i"));
    assert_eq!(first.rebalance_timeout, Some(config.max_poll_interval));
    assert_eq!(first.topics, Some(BTreeSet::from(["t".into()])));
    assert_eq!(first.pattern, None, "brokers of version 0 have none");
    assert_eq!(first.assignor.as_deref(), Some("range"));
    assert_eq!(first.rack.as_deref(), Some("r"));
    assert_eq!(first.owned, Some(Ids::new()), "as it must be to join");
    take(&mut membership);
    let (second, _) = beat(&mut membership, at(0), beaten(3, None));
    assert_eq!(second.member.generation, 3);
    assert_eq!(second.owned, Some(ids(&[0])), "told at once");
    let silent = [&second.assignor, &second.rack, &second.pattern];
    assert!(silent.iter().all(|field| field.is_none()));
    assert_eq!((second.topics, second.rebalance_timeout), (None, None));
    assert_eq!(membership.beat(at(4)), None);
    let (third, _) = beat(&mut membership, at(5), beaten(3, None));
    assert_eq!(third.owned, None);
}

#[test]
fn the_coordinators_interval_is_kept() {
    let mut membership = settled(&[0]);
    let slow = Beaten {
        interval: Duration::from_secs(20),
        ..beaten(1, None).unwrap()
    };
    beat(&mut membership, at(5), Ok(slow)).1.unwrap();
    assert_eq!(membership.beat(at(24)), None);
    assert_eq!(membership.next_heartbeat(), Some(at(25)));
    assert!(membership.beat(at(25)).is_some());
    assert_eq!(membership.beat(at(99)), None, "one at a time");
}

#[test]
fn what_goes_is_given_up_and_told_before_anything_new_is_taken() {
    let mut membership = settled(&[0, 1]);
    beat(&mut membership, at(5), beaten(1, Some(&[1, 2])))
        .1
        .unwrap();
    let revoke = Step::Revoke {
        partitions: [tp(0)].into(),
        lost: false,
    };
    assert_eq!(membership.step(at(5)), revoke);
    // while the application takes its time, heartbeats go on and the revocation stays what it is
    let (during, _) = beat(&mut membership, at(10), beaten(1, Some(&[2])));
    assert_eq!(during.owned, None);
    assert_eq!(membership.step(at(10)), revoke);
    membership.on_revoked();
    let then = Step::Revoke {
        partitions: [tp(1)].into(),
        lost: false,
    };
    assert_eq!(membership.step(at(10)), then);
    let (told, _) = beat(&mut membership, at(10), beaten(1, None));
    assert_eq!(
        told.owned,
        Some(ids(&[1])),
        "at once, not at the next interval"
    );
    membership.on_revoked();
    let take = Step::Take {
        partitions: [tp(2)].into(),
    };
    assert_eq!(membership.step(at(10)), take);
    let (told, _) = beat(&mut membership, at(10), beaten(2, None));
    assert_eq!(told.owned, Some(Ids::new()));
    membership.on_taken();
    let (told, _) = beat(&mut membership, at(10), beaten(2, None));
    assert_eq!((told.owned, told.member.generation), (Some(ids(&[2])), 2));
    assert_eq!(membership.step(at(10)), Step::Rest);
}

#[test]
fn what_was_assigned_and_never_taken_is_confirmed_gone() {
    let mut membership = settled(&[0]);
    beat(&mut membership, at(5), beaten(1, Some(&[0, 1])))
        .1
        .unwrap();
    assert!(matches!(membership.step(at(5)), Step::Take { .. }));
    // before the application polls, the coordinator wants it for another
    beat(&mut membership, at(10), beaten(1, Some(&[0])))
        .1
        .unwrap();
    assert_eq!(membership.step(at(10)), Step::Rest);
    let (told, _) = beat(&mut membership, at(10), beaten(2, None));
    assert_eq!(told.owned, Some(ids(&[0])), "it waits to hear that");
    assert_eq!(membership.beat(at(14)), None);
}

#[test]
fn topics_without_a_name_are_asked_for_and_do_not_hold_up_the_others() {
    let mut membership = subscribed();
    let other = Uuid::from_u128(8);
    let mut assigned = beaten(1, Some(&[0])).unwrap();
    assigned.assignment.as_mut().unwrap().insert((other, 4));
    beat(&mut membership, at(0), Ok(assigned)).1.unwrap();
    let ask = |topics: &[Uuid]| Step::Name {
        topics: topics.iter().copied().collect(),
    };
    assert_eq!(membership.step(at(0)), ask(&[TOPIC, other]));
    take(&mut membership);
    assert!(matches!(membership.step(at(0)), Step::Wait(_)));
    assert_eq!(membership.step(at(2)), ask(&[other]));
    membership.on_names(at(2), [(other, "u".into())], 0);
    let partitions = BTreeSet::from([TopicPartition::new("u", 4)]);
    assert_eq!(membership.step(at(2)), Step::Take { partitions });
}

#[test]
fn a_fenced_member_loses_what_it_has_and_joins_again() {
    for code in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId] {
        let mut membership = settled(&[0, 1]);
        beat(&mut membership, at(5), refused(code)).1.unwrap();
        assert!(!membership.is_member());
        let partitions = [tp(0), tp(1)].into();
        let lost = Step::Revoke {
            partitions,
            lost: true,
        };
        assert_eq!(membership.step(at(5)), lost);
        assert_eq!(membership.beat(at(5)), None, "not before it has let go");
        membership.on_revoked();
        let (again, _) = beat(&mut membership, at(5), beaten(9, Some(&[1])));
        assert_eq!(
            (again.member.generation, &*again.member.member_id),
            (0, "m")
        );
        assert_eq!(again.owned, Some(Ids::new()));
        membership.on_names(at(5), names(), 0);
        assert!(matches!(membership.step(at(5)), Step::Take { .. }));
    }
}

#[test]
fn a_refusal_for_good_ends_the_subscription_with_the_coordinators_words() {
    for code in [
        ErrorCode::UnreleasedInstanceId,
        ErrorCode::UnsupportedAssignor,
        ErrorCode::GroupMaxSizeReached,
        ErrorCode::FencedInstanceId,
        ErrorCode::InvalidRegularExpression,
    ] {
        let mut membership = subscribed();
        let error = beat(&mut membership, at(0), refused(code)).1.unwrap_err();
        assert!(
            error.to_string().contains("as the test wants it"),
            "{error}"
        );
        assert_eq!(membership.beat(at(60)), None);
        assert_eq!(membership.step(at(60)), Step::Rest);
        // and a later subscription tries anew
        membership.subscribe(at(60), topics(&["t"]));
        assert!(membership.beat(at(60)).is_some());
    }
}

#[test]
fn after_a_failure_everything_is_said_again() {
    let mut membership = settled(&[0]);
    let code = ErrorCode::CoordinatorLoadInProgress;
    beat(&mut membership, at(5), refused(code)).1.unwrap();
    assert_eq!(membership.beat(at(5)), None, "after a pause");
    let (again, _) = beat(&mut membership, at(6), beaten(1, Some(&[0])));
    assert_eq!((again.owned, again.member.generation), (Some(ids(&[0])), 1));
    assert!(again.topics.is_some() && again.rebalance_timeout.is_some());
    membership.beat(at(11)).unwrap();
    membership.on_failed(at(11), 0);
    assert_eq!(membership.beat(at(12)), None, "to whom?");
    assert!(membership.wants_coordinator(at(12)));
    membership.on_coordinator(2);
    assert_eq!(membership.beat(at(12)).unwrap().owned, Some(ids(&[0])));
}

#[test]
fn a_change_of_subscription_is_told_at_once_and_a_pattern_taken_back() {
    let mut membership = settled(&[0]);
    let pattern = Wants {
        topics: BTreeSet::new(),
        pattern: Some("t.*".into()),
    };
    membership.subscribe(at(1), pattern);
    let (told, _) = beat(&mut membership, at(1), beaten(2, None));
    assert_eq!(told.pattern.as_deref(), Some("t.*"));
    assert_eq!(told.topics, Some(BTreeSet::new()));
    membership.subscribe(at(2), topics(&["u"]));
    let (told, _) = beat(&mut membership, at(2), beaten(3, None));
    assert_eq!(told.pattern.as_deref(), Some(""));
    assert_eq!(told.topics, Some(BTreeSet::from(["u".into()])));
    // what changes while a heartbeat is under way is in the next, at once
    let under_way = membership.beat(at(7)).unwrap();
    membership.subscribe(at(7), topics(&["v"]));
    membership
        .on_beaten(at(7), &under_way, beaten(3, None), 0)
        .unwrap();
    let told = membership.beat(at(7)).unwrap();
    assert_eq!(told.topics, Some(BTreeSet::from(["v".into()])));
}

#[test]
fn a_member_that_leaves_names_its_way_and_old_answers_mean_nothing() {
    let mut membership = settled(&[0]);
    let under_way = membership.beat(at(5)).unwrap();
    assert!(membership.may_be_known());
    assert_eq!(membership.farewell().member.generation, -1);
    membership.unsubscribe();
    membership
        .on_beaten(at(5), &under_way, beaten(2, Some(&[0, 1])), 0)
        .unwrap();
    assert!(!membership.is_member());
    assert!(matches!(
        membership.step(at(5)),
        Step::Revoke { lost: true, .. }
    ));
    membership.on_revoked();
    assert_eq!(membership.step(at(5)), Step::Rest);
    assert_eq!(membership.beat(at(60)), None);
    let config = ConsumerConfig {
        group_instance_id: Some("i".into()),
        ..ConsumerConfig::default()
    };
    let mut lasting = self::membership(&config);
    lasting.subscribe(at(0), topics(&["t"]));
    assert!(!lasting.may_be_known());
    lasting.beat(at(0)).unwrap();
    assert!(lasting.may_be_known(), "though it has no answer");
    assert_eq!(lasting.farewell().member.generation, -2);
}

#[test]
fn who_does_not_poll_leaves_and_joins_again_with_the_next_poll() {
    let mut membership = settled(&[0]);
    assert!(!membership.is_overdue(at(299)));
    assert!(membership.is_overdue(at(300)));
    membership.leave();
    assert!(!membership.is_overdue(at(300)));
    membership.on_revoked();
    assert_eq!(membership.beat(at(300)), None);
    membership.on_poll(at(400));
    assert_eq!(membership.beat(at(400)).unwrap().member.generation, 0);
}

/// The coordinator's half, for one topic of which each partition has at most one owner.
#[derive(Default)]
struct Coordinator {
    epoch: i32,
    /// What each member is to have.
    target: BTreeMap<usize, Ids>,
    /// What each may have, or still has.
    assigned: BTreeMap<usize, Ids>,
    told: BTreeMap<usize, Ids>,
}

impl Coordinator {
    fn retarget(&mut self, members: &[usize]) {
        self.epoch += 1;
        self.target.clear();
        for partition in 0..5 {
            let member = members.get(partition as usize % members.len().max(1));
            if let Some(member) = member {
                let target = self.target.entry(*member).or_default();
                target.insert((TOPIC, partition));
            }
        }
    }

    fn on_beat(&mut self, member: usize, beat: &Beat) -> Result<Beaten, Refused> {
        if beat.member.generation > self.epoch {
            return refused(ErrorCode::FencedMemberEpoch);
        }
        let target = self.target.get(&member).cloned().unwrap_or_default();
        if let Some(owned) = &beat.owned {
            let kept: Ids = self.assigned.remove(&member).unwrap_or_default();
            let kept = kept
                .into_iter()
                .filter(|p| target.contains(p) || owned.contains(p));
            self.assigned.insert(member, kept.collect());
        }
        let others: Ids = self
            .assigned
            .iter()
            .filter(|(m, _)| **m != member)
            .flat_map(|(_, a)| a.clone())
            .collect();
        let may: Ids = target.difference(&others).copied().collect();
        self.assigned
            .entry(member)
            .or_default()
            .extend(may.iter().copied());
        let is_new = beat.owned.is_some() || self.told.get(&member) != Some(&may);
        self.told.insert(member, may.clone());
        Ok(Beaten {
            member_id: "m".into(),
            epoch: self.epoch,
            interval: Duration::from_secs(5),
            assignment: is_new.then_some(may),
        })
    }
}

proptest! {
    /// Members join, leave and are slow in any order: no partition is ever with two of them, and
    /// left in peace they come to have them all.
    #[test]
    fn a_partition_has_one_owner_and_every_group_settles(
        events in proptest::collection::vec((0_usize..4, 0_u8..4), 0..60)
    ) {
        let mut coordinator = Coordinator::default();
        let mut members: BTreeMap<usize, ConsumerMembership> = BTreeMap::new();
        let mut second = 0;
        let settle = (0..40).flat_map(|_| (0_usize..4).flat_map(|m| [(m, 2), (m, 3)]));
        for (member, event) in events.into_iter().chain(settle) {
            second += 5;
            match event {
                0 if !members.contains_key(&member) => {
                    members.insert(member, subscribed());
                }
                1 => {
                    members.remove(&member);
                    coordinator.assigned.remove(&member);
                    coordinator.told.remove(&member);
                }
                2 => {
                    let Some(membership) = members.get_mut(&member) else { continue };
                    membership.on_poll(at(second));
                    let Some(beat) = membership.beat(at(second)) else { continue };
                    let answer = coordinator.on_beat(member, &beat);
                    membership.on_beaten(at(second), &beat, answer, 0).unwrap();
                    continue;
                }
                _ => {
                    let Some(membership) = members.get_mut(&member) else { continue };
                    match membership.step(at(second)) {
                        Step::Revoke { lost, .. } => {
                            prop_assert!(!lost);
                            membership.on_revoked();
                        }
                        Step::Take { .. } => membership.on_taken(),
                        Step::Name { .. } => membership.on_names(at(second), names(), 0),
                        _ => {}
                    }
                    let all: Vec<_> = members.values().flat_map(|m| m.owned.iter()).collect();
                    let distinct: BTreeSet<_> = all.iter().collect();
                    prop_assert_eq!(all.len(), distinct.len());
                    continue;
                }
            }
            let present: Vec<usize> = members.keys().copied().collect();
            coordinator.retarget(&present);
        }
        let owned: usize = members.values().map(|member| member.owned.len()).sum();
        prop_assert_eq!(owned, if members.is_empty() { 0 } else { 5 });
    }
}

#[test]
fn whoever_has_left_does_not_join_behind_its_own_farewell() {
    let mut membership = subscribed();
    beat(&mut membership, at(0), beaten(1, Some(&[])))
        .1
        .unwrap();
    membership.leave();
    assert_eq!(membership.beat(at(1)), None, "nobody has polled since");
    membership.on_poll(at(1));
    assert!(membership.beat(at(1)).is_some());
    let mut membership = subscribed();
    beat(&mut membership, at(0), beaten(1, Some(&[])))
        .1
        .unwrap();
    membership.unsubscribe();
    membership.on_poll(at(1));
    assert_eq!(membership.beat(at(1)), None, "it wants nothing");
}
