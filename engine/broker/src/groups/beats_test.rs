//! Groups of both protocols under one coordinator, against a log in memory: migration while members
//! work, restarts, and writes that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use ringmill_wire::Uuid;

use super::consumer::partitions::Partitions;
use super::consumer::{Beat, BeatError, Beaten};
use super::coordinator::{Capacity, Coordinator};
use super::write::Outcome;
use super::{Claim, GroupError, Join, JoinRefused, Joined, Leaver, Reply, Sync, Synced, Token};
use crate::clock::Now;
use crate::cluster::command::Command;
use crate::cluster::image::{Image, on_one_node};
use crate::config::broker::GroupConfig;
use crate::config::{BrokerConfig, Overrides};

const TOPIC: Uuid = Uuid::from_u128(7);

struct Node {
    now: Now,
    coordinator: Coordinator,
    log: Vec<(Bytes, Option<Bytes>)>,
    disk_works: bool,
    next_token: u64,
    answers: BTreeMap<Token, Reply>,
}

impl Node {
    fn new(settings: &[(&str, &str)]) -> Self {
        let now = Now {
            mono_ms: 1,
            wall_ms: 1,
        };
        let settings = settings.iter().copied();
        let settings = settings.chain([("group.initial.rebalance.delay.ms", "0")]);
        let broker = BrokerConfig::from_pairs(settings).unwrap();
        Self {
            now,
            coordinator: Self::coordinator(&broker.live.groups, now, &[]),
            log: Vec::new(),
            disk_works: true,
            next_token: 0,
            answers: BTreeMap::new(),
        }
    }

    fn coordinator(config: &GroupConfig, now: Now, log: &[(Bytes, Option<Bytes>)]) -> Coordinator {
        let capacity = Capacity {
            groups: 9,
            offsets: 99,
            metadata_bytes: 99_999,
        };
        let mut coordinator = Coordinator::new(config.clone(), capacity);
        let broker = BrokerConfig::default();
        let mut image = Image::new(&broker);
        let create = Command::CreateTopic {
            id: TOPIC,
            name: "t".to_owned(),
            partitions: on_one_node(1, 6),
            overrides: Overrides::new(),
        };
        image.apply(&broker, &create).unwrap();
        coordinator.set_image(Arc::new(image));
        coordinator.begin_load(0);
        for (key, value) in log {
            let loaded = coordinator.load(now, 0, None, key.clone(), value.clone());
            loaded.unwrap();
        }
        coordinator.finish_load(now, 0);
        coordinator
    }

    fn restart(&mut self) {
        let config = self.coordinator.config().clone();
        self.coordinator = Self::coordinator(&config, self.now, &self.log);
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn run(&mut self, outcome: Outcome) {
        let mut replies = outcome.replies;
        if let Some(mut write) = outcome.write {
            let (after, keys) = (std::mem::take(&mut write.after), write.keys());
            let changes = write.take_changes();
            if self.disk_works {
                let life = self.coordinator.appended(0, changes);
                self.log.append(&mut write.records);
                self.coordinator.settled(self.now, (0, life), true);
                replies.extend(after);
                let (is_beat, generation) = (write.is_beat, write.generation);
                let more = self.coordinator.stored(self.now, "g", is_beat, generation);
                assert!(more.write.is_none());
                replies.extend(more.replies);
            } else {
                self.coordinator.not_appended(changes);
                let more =
                    self.coordinator
                        .store_failed(self.now, "g", (write.is_beat, keys), after);
                assert!(more.write.is_none());
                replies.extend(more.replies);
            }
        }
        for reply in replies {
            let other = self.answers.insert(reply.token(), reply);
            assert!(other.is_none(), "a request is answered once");
        }
    }

    fn beat(&mut self, beat: Beat) -> Result<Beaten, BeatError> {
        let token = self.token();
        let outcome = self.coordinator.beat(self.now, "g", 0, token, beat);
        self.run(outcome);
        match self.answers.remove(&token) {
            Some(Reply::Beat(_, result)) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Joins; none while the answer waits for others.
    fn join(&mut self, join: Join) -> (Token, Option<Result<Joined, JoinRefused>>) {
        let token = self.token();
        let outcome = self.coordinator.join(self.now, "g", 0, token, join);
        self.run(outcome);
        (token, self.joined(token))
    }

    fn joined(&mut self, token: Token) -> Option<Result<Joined, JoinRefused>> {
        match self.answers.remove(&token)? {
            Reply::Join(_, result) => Some(result),
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, sync: Sync) -> Result<Synced, GroupError> {
        let token = self.token();
        let outcome = self.coordinator.sync(self.now, "g", 0, token, sync);
        self.run(outcome);
        match self.answers.remove(&token) {
            Some(Reply::Sync(_, result)) => result,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, claim: &Claim) -> Result<(), GroupError> {
        self.coordinator.heartbeat(self.now, "g", 0, claim)
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        for outcome in self.coordinator.on_timer(self.now) {
            self.run(outcome);
        }
    }

    fn kind(&self) -> &'static str {
        self.coordinator.list().next().unwrap().kind
    }
}

/// A member that speaks the classic protocol, with a cooperative assignor.
struct Classic {
    claim: Claim,
    owned: BTreeSet<i32>,
}

fn put_topic(out: &mut BytesMut, numbers: &BTreeSet<i32>) {
    out.put_i32(1);
    out.put_slice(b"\0\x01t");
    out.put_i32(numbers.len() as i32);
    numbers.iter().for_each(|number| out.put_i32(*number));
}

fn assignment(numbers: &BTreeSet<i32>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    put_topic(&mut out, numbers);
    out.put_i32(-1);
    out.freeze()
}

fn assigned(bytes: &Bytes) -> BTreeSet<i32> {
    if bytes.len() < 8 || bytes[2..6] == [0; 4] {
        return BTreeSet::new();
    }
    let count = i32::from_be_bytes(bytes[9..13].try_into().unwrap()) as usize;
    let numbers = bytes[13..13 + 4 * count].chunks_exact(4);
    numbers
        .map(|number| i32::from_be_bytes(number.try_into().unwrap()))
        .collect()
}

impl Classic {
    fn new(id: &str) -> Self {
        Self {
            claim: Claim {
                member_id: id.to_owned(),
                ..Claim::default()
            },
            owned: BTreeSet::new(),
        }
    }

    fn request(&self) -> Join {
        let mut data = BytesMut::new();
        data.put_i16(1);
        data.put_slice(b"\0\0\0\x01\0\x01t\xff\xff\xff\xff");
        put_topic(&mut data, &self.owned);
        Join {
            member_id: self.claim.member_id.clone(),
            rebalance_timeout_ms: 30_000,
            session_timeout_ms: 10_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("cooperative-sticky".to_owned(), data.freeze())],
            unique: "x".to_owned(),
            ..Join::default()
        }
    }

    /// Joins a consumer group and takes what it is assigned.
    fn rejoin(&mut self, node: &mut Node) {
        let (_, joined) = node.join(self.request());
        let joined = joined
            .expect("the broker assigns: nobody is waited for")
            .unwrap();
        assert!(joined.members.is_empty() && joined.leader.is_empty());
        self.claim.generation = joined.generation;
        let claim = self.claim.clone();
        let sync = Sync {
            claim,
            ..Sync::default()
        };
        let synced = node.sync(sync).unwrap();
        self.owned = assigned(&synced.assignment);
    }

    /// A heartbeat, and what it is told to do.
    fn live(&mut self, node: &mut Node) {
        match node.heartbeat(&self.claim.clone()) {
            Ok(()) => {}
            Err(GroupError::RebalanceInProgress | GroupError::IllegalGeneration) => {
                self.rejoin(node);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Two classic members in a stable group of three partitions each.
fn classic_pair(node: &mut Node) -> [Classic; 2] {
    let (_, first) = node.join(Classic::new("").request());
    let first = first.unwrap().unwrap();
    let mut a = Classic::new(&first.member_id);
    let (token, joined) = node.join(Join {
        unique: "y".to_owned(),
        ..Classic::new("").request()
    });
    assert!(joined.is_none());
    let (_, led) = node.join(a.request());
    let led = led.unwrap().unwrap();
    let other = node.joined(token).unwrap().unwrap();
    let mut b = Classic::new(&other.member_id);
    (a.owned, b.owned) = ((0..3).collect(), (3..6).collect());
    (a.claim.generation, b.claim.generation) = (led.generation, led.generation);
    let sync = Sync {
        claim: a.claim.clone(),
        assignments: vec![
            (a.claim.member_id.clone(), assignment(&a.owned)),
            (b.claim.member_id.clone(), assignment(&b.owned)),
        ],
        ..Sync::default()
    };
    node.sync(sync).unwrap();
    [a, b]
}

fn newcomer() -> Beat {
    Beat {
        member_id: "new".to_owned(),
        rebalance_timeout_ms: Some(30_000),
        names: Some(vec!["t".to_owned()]),
        owned: Some(Partitions::default()),
        brings_id: true,
        ..Beat::default()
    }
}

fn beat_of(epoch: i32, owned: &BTreeSet<i32>) -> Beat {
    Beat {
        member_id: "new".to_owned(),
        epoch,
        owned: Some(owned.iter().map(|number| (TOPIC, *number)).collect()),
        brings_id: true,
        ..Beat::default()
    }
}

fn one_owner(all: &[&BTreeSet<i32>]) -> usize {
    let union: BTreeSet<i32> = all.iter().copied().flatten().copied().collect();
    let count: usize = all.iter().map(|owned| owned.len()).sum();
    assert_eq!(union.len(), count, "two owners: {all:?}");
    count
}

#[test]
fn a_group_moves_to_the_consumer_protocol_and_back_while_its_members_work() {
    let mut node = Node::new(&[]);
    let [mut a, mut b] = classic_pair(&mut node);
    let joined = node.beat(newcomer()).unwrap();
    assert_eq!(node.kind(), "consumer");
    assert!(joined.assignment.unwrap().is_empty(), "nothing is free yet");
    let (mut epoch, mut owned) = (joined.epoch, BTreeSet::new());
    for round in 0..6 {
        a.live(&mut node);
        one_owner(&[&a.owned, &b.owned, &owned]);
        b.live(&mut node);
        one_owner(&[&a.owned, &b.owned, &owned]);
        let beaten = node.beat(beat_of(epoch, &owned)).unwrap();
        epoch = beaten.epoch;
        if let Some(assignment) = beaten.assignment {
            owned = assignment.iter().map(|(_, number)| number).collect();
        }
        one_owner(&[&a.owned, &b.owned, &owned]);
        if round == 2 {
            node.restart();
        }
    }
    assert_eq!([a.owned.len(), b.owned.len(), owned.len()], [2, 2, 2]);
    let listed = node
        .coordinator
        .describe_consumers("g", 0)
        .unwrap()
        .unwrap();
    assert_eq!((listed.state, listed.members.len()), ("Stable", 3));
    assert_eq!(node.coordinator.describe("g", 0), Ok(None));

    let leave = Beat {
        epoch: -1,
        ..beat_of(-1, &owned)
    };
    node.beat(leave).unwrap();
    assert_eq!(node.kind(), "classic");
    let told = node.heartbeat(&a.claim);
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
    let (token, waits) = node.join(a.request());
    assert!(waits.is_none(), "all members are waited for again");
    let (_, last) = node.join(b.request());
    let generation = last.unwrap().unwrap().generation;
    assert_eq!(node.joined(token).unwrap().unwrap().generation, generation);
    assert!(generation > epoch);
    node.restart();
    assert_eq!(node.kind(), "classic");
}

/// Two classic members in a group that was of the consumer protocol for a moment: it is to take
/// partitions from them, and they have not yet heard of it.
fn there_and_back(node: &mut Node) -> [Classic; 2] {
    let pair = classic_pair(node);
    node.beat(newcomer()).unwrap();
    node.beat(beat_of(-1, &BTreeSet::new())).unwrap();
    assert_eq!(node.kind(), "classic");
    pair
}

#[test]
fn a_group_that_moves_to_and_fro_knows_what_its_members_hold() {
    let mut node = Node::new(&[]);
    let [mut a, mut b] = there_and_back(&mut node);
    let mut again = Modern::join(&mut node, 0);
    assert_eq!(node.kind(), "consumer");
    one_owner(&[&a.owned, &b.owned, &again.owned]);
    a.rejoin(&mut node);
    b.rejoin(&mut node);
    for _ in 0..4 {
        one_owner(&[&a.owned, &b.owned, &again.owned]);
        a.live(&mut node);
        b.live(&mut node);
        again.live(&mut node);
    }
    assert_eq!(one_owner(&[&a.owned, &b.owned, &again.owned]), 6);
}

#[test]
fn a_group_that_was_moved_back_still_waits_for_its_members_after_a_restart() {
    let mut node = Node::new(&[]);
    let [a, b] = there_and_back(&mut node);
    node.restart();
    let third = Join {
        unique: "z".to_owned(),
        ..Classic::new("").request()
    };
    let (token, joined) = node.join(third);
    assert_eq!(joined, None, "the others may still consume all there is");
    let (_, joined) = node.join(a.request());
    assert_eq!(joined, None, "and both are waited for");
    let (_, joined) = node.join(b.request());
    assert_eq!(joined.unwrap().unwrap().members.len(), 0);
    node.joined(token).unwrap().unwrap();
}

#[test]
fn a_move_back_that_could_not_be_stored_is_stored_with_the_next_generation() {
    let mut node = Node::new(&[]);
    let [mut a, _] = classic_pair(&mut node);
    node.beat(newcomer()).unwrap();
    node.disk_works = false;
    let refused = node.beat(beat_of(-1, &BTreeSet::new())).unwrap_err();
    assert_eq!(refused, GroupError::CoordinatorNotAvailable.into());
    assert_eq!(node.kind(), "classic");
    node.disk_works = true;
    let (token, waits) = node.join(a.request());
    assert_eq!(waits, None);
    node.wait(30_000);
    a.claim.generation = node.joined(token).unwrap().unwrap().generation;
    let sync = Sync {
        claim: a.claim.clone(),
        assignments: vec![(a.claim.member_id.clone(), assignment(&a.owned))],
        ..Sync::default()
    };
    node.sync(sync).unwrap();
    node.restart();
    assert_eq!(node.kind(), "classic");
    assert_eq!(node.heartbeat(&a.claim), Ok(()));
}

#[test]
fn a_group_stays_what_it_is_where_the_policy_says_so() {
    let mut node = Node::new(&[("group.consumer.migration.policy", "disabled")]);
    let [a, b] = classic_pair(&mut node);
    let refused = node.beat(newcomer()).unwrap_err();
    assert!(matches!(refused, BeatError::NotConsumerGroup(_)));
    assert_eq!(node.heartbeat(&a.claim), Ok(()));
    // One without members may always change.
    let leavers = [a, b].map(|member| Leaver {
        member_id: member.claim.member_id,
        instance_id: None,
    });
    let (results, outcome) = node.coordinator.leave(node.now, "g", 0, &leavers).unwrap();
    assert_eq!(results, [Ok(()), Ok(())]);
    node.run(outcome);
    node.beat(newcomer()).unwrap();
    node.restart();
    assert_eq!(node.kind(), "consumer");
    let leave = Beat {
        epoch: -1,
        ..beat_of(-1, &BTreeSet::new())
    };
    node.beat(leave).unwrap();
    let (_, joined) = node.join(Classic::new("").request());
    joined.unwrap().unwrap();
    assert_eq!(node.kind(), "classic");
    // Of the group that it was nothing is left in the log, and the new one is not yet stored.
    node.restart();
    assert!(node.coordinator.is_empty());
}

#[test]
fn members_that_are_no_consumers_are_not_moved() {
    let mut node = Node::new(&[]);
    let join = Join {
        protocol_type: "connect".to_owned(),
        ..Classic::new("").request()
    };
    let (_, joined) = node.join(join);
    joined.unwrap().unwrap();
    let refused = node.beat(newcomer()).unwrap_err();
    assert!(matches!(refused, BeatError::NotConsumerGroup(_)));
}

#[test]
fn what_could_not_be_stored_is_stored_with_the_next_heartbeat() {
    let mut node = Node::new(&[]);
    node.beat(newcomer()).unwrap();
    node.disk_works = false;
    let second = Beat {
        member_id: "other".to_owned(),
        ..newcomer()
    };
    let refused = node.beat(second.clone()).unwrap_err();
    assert_eq!(refused, GroupError::CoordinatorNotAvailable.into());
    node.disk_works = true;
    // The client tries again, and both are found after a restart.
    node.beat(second).unwrap();
    node.restart();
    let found = node
        .coordinator
        .describe_consumers("g", 0)
        .unwrap()
        .unwrap();
    assert_eq!((found.members.len(), found.epoch), (2, 3));
}

#[test]
fn a_group_that_its_members_left_can_be_deleted() {
    let mut node = Node::new(&[]);
    node.beat(newcomer()).unwrap();
    assert_eq!(
        node.coordinator.delete("g", 0).unwrap_err(),
        GroupError::NonEmptyGroup
    );
    let leave = Beat {
        epoch: -1,
        ..beat_of(-1, &BTreeSet::new())
    };
    node.beat(leave).unwrap();
    node.restart();
    let write = node.coordinator.delete("g", 0).unwrap();
    node.run(Outcome {
        replies: Vec::new(),
        write: Some(write),
    });
    assert!(node.coordinator.is_empty());
    node.restart();
    assert!(node.coordinator.is_empty());
}

/// A member of the consumer protocol.
struct Modern {
    id: String,
    epoch: i32,
    owned: BTreeSet<i32>,
}

impl Modern {
    fn join(node: &mut Node, number: usize) -> Self {
        let id = format!("modern-{number}");
        let beat = Beat {
            member_id: id.clone(),
            ..newcomer()
        };
        let joined = node.beat(beat).unwrap();
        let mut member = Self {
            id,
            epoch: 0,
            owned: BTreeSet::new(),
        };
        member.take(joined);
        member
    }

    fn take(&mut self, beaten: Beaten) {
        self.epoch = beaten.epoch;
        if let Some(assignment) = beaten.assignment {
            self.owned = assignment.iter().map(|(_, number)| number).collect();
        }
    }

    fn live(&mut self, node: &mut Node) {
        let beat = Beat {
            member_id: self.id.clone(),
            ..beat_of(self.epoch, &self.owned)
        };
        let beaten = node.beat(beat).unwrap();
        self.take(beaten);
    }

    fn leave(self, node: &mut Node) {
        let beat = Beat {
            member_id: self.id,
            ..beat_of(-1, &self.owned)
        };
        node.beat(beat).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Members of both protocols in one group, in any order of their requests.
    #[test]
    fn in_a_mixed_group_no_partition_has_two_owners(
        steps in prop::collection::vec((0..8_u8, any::<prop::sample::Index>()), 1..80),
    ) {
        let mut node = Node::new(&[]);
        let mut classic: Vec<Classic> = classic_pair(&mut node).into_iter().collect();
        let mut modern = vec![Modern::join(&mut node, 0)];
        for (number, (step, which)) in steps.into_iter().enumerate() {
            match step {
                0 if modern.len() < 4 => modern.push(Modern::join(&mut node, number + 1)),
                1 => {
                    modern.remove(which.index(modern.len())).leave(&mut node);
                    // A group of the classic protocol for a moment.
                    if modern.is_empty() {
                        if number % 2 == 0 {
                            node.restart();
                        }
                        modern.push(Modern::join(&mut node, number + 1));
                    }
                }
                2 if classic.len() < 4 => {
                    let mut member = Classic::new(&format!("classic-{number}"));
                    member.rejoin(&mut node);
                    classic.push(member);
                }
                3 if !classic.is_empty() => {
                    let member = classic.remove(which.index(classic.len()));
                    let leaver = Leaver { member_id: member.claim.member_id, instance_id: None };
                    let left = node.coordinator.leave(node.now, "g", 0, &[leaver]);
                    let (results, outcome) = left.unwrap();
                    prop_assert_eq!(results, [Ok(())]);
                    node.run(outcome);
                }
                4 => node.restart(),
                5 | 6 if !classic.is_empty() => {
                    let at = which.index(classic.len());
                    classic[at].live(&mut node);
                }
                _ => {
                    let at = which.index(modern.len());
                    modern[at].live(&mut node);
                }
            }
            let owned = classic.iter().map(|m| &m.owned).chain(modern.iter().map(|m| &m.owned));
            one_owner(&owned.collect::<Vec<_>>());
        }
        for _ in 0..12 {
            classic.iter_mut().for_each(|member| member.live(&mut node));
            modern.iter_mut().for_each(|member| member.live(&mut node));
        }
        let owned = classic.iter().map(|m| &m.owned).chain(modern.iter().map(|m| &m.owned));
        let owned: Vec<&BTreeSet<i32>> = owned.collect();
        prop_assert_eq!(one_owner(&owned), 6, "all have an owner");
        let most = owned.iter().map(|owned| owned.len()).max().unwrap();
        let least = owned.iter().map(|owned| owned.len()).min().unwrap();
        prop_assert!(most - least <= 1, "{:?}", owned);
    }
}
