//! The coordinator against a log in memory: what is durable, what a restart brings back.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use ringmill_wire::StrBytes;

use super::admin::Commit;
use super::coordinator::{Capacity, Coordinator, partition_of};
use super::records::OffsetRecord;
use super::snapshot::Section;
use super::write::{Outcome, Write};
use super::{Claim, GroupError, Join, JoinRefused, Leaver, Reply, Sync, Token};
use crate::clock::Now;
use crate::config::broker::GroupConfig;

type Log = Vec<(Bytes, Option<Bytes>)>;

/// A coordinator of one partition with the log it is stored in.
struct Node {
    now: Now,
    coordinator: Coordinator,
    log: Log,
    flushed: usize,
    /// The life in which each was appended.
    unsettled: Vec<u64>,
}

fn coordinator() -> Coordinator {
    let config = GroupConfig {
        initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    };
    let capacity = Capacity {
        groups: 100,
        offsets: 1000,
        metadata_bytes: 10_000,
    };
    Coordinator::new(config, capacity)
}

/// A snapshot without transactions.
fn plain(sections: Vec<Section>) -> Log {
    let sections = sections.into_iter();
    sections.flat_map(|section| section.records).collect()
}

impl Node {
    fn new() -> Self {
        Self::over(Log::new(), Now::default())
    }

    /// A node that starts with a log.
    fn over(log: Log, now: Now) -> Self {
        let mut coordinator = coordinator();
        coordinator.begin_load(0);
        for (key, value) in &log {
            coordinator
                .load(now, 0, None, key.clone(), value.clone())
                .unwrap();
        }
        coordinator.finish_load(now, 0);
        let flushed = log.len();
        Self {
            now,
            coordinator,
            log,
            flushed,
            unsettled: Vec::new(),
        }
    }

    /// The same node after its power was cut.
    fn crashed(mut self) -> Self {
        self.log.truncate(self.flushed);
        Self::over(self.log, self.now)
    }

    fn append(&mut self, mut write: Write) {
        let life = self
            .coordinator
            .appended(write.partition, write.take_changes());
        self.log.append(&mut write.records);
        self.unsettled.push(life);
    }

    /// The disk is full: what was not yet flushed is taken back.
    fn take_back(&mut self) {
        self.log.truncate(self.flushed);
        self.settle(false);
    }

    fn flush(&mut self) {
        self.flushed = self.log.len();
        self.settle(true);
    }

    fn settle(&mut self, is_durable: bool) {
        for life in std::mem::take(&mut self.unsettled) {
            self.coordinator.settled(self.now, (0, life), is_durable);
        }
    }

    fn run(&mut self, outcome: Outcome) -> Vec<Reply> {
        let mut replies = outcome.replies;
        if let Some(mut write) = outcome.write {
            replies.append(&mut write.after);
            let (group, told) = (write.group.clone(), (write.is_beat, write.generation));
            self.append(write);
            self.flush();
            let outcome = self.coordinator.stored(self.now, &group, told.0, told.1);
            replies.extend(self.run(outcome));
        }
        replies
    }

    fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Result<(), GroupError> {
        let commit = Commit {
            topic: topic.to_owned(),
            partition: 0,
            record: OffsetRecord {
                offset,
                committed_ms: self.now.wall_ms,
                ..OffsetRecord::default()
            },
        };
        let claim = nobody();
        let (results, write) =
            self.coordinator
                .commit(self.now, group, 0, &claim, false, vec![commit])?;
        self.append(write.expect("one commit is admitted"));
        results[0]
    }

    fn offset(&self, group: &str, topic: &str) -> Option<i64> {
        let wanted = [(StrBytes::from_string(topic.to_owned()), vec![0])];
        let fetched = self
            .coordinator
            .fetch(group, 0, (None, -1), Some(&wanted))
            .unwrap();
        let (_, record) = &fetched[0].partitions[0];
        record.as_ref().map(|record| record.offset)
    }

    /// Makes `group` a stable group of one consumer and returns its claim.
    fn form(&mut self, group: &str) -> Claim {
        let outcome = self
            .coordinator
            .join(self.now, group, 0, Token(1), consumer());
        let replies = self.run(outcome);
        let [Reply::Join(_, Ok(joined))] = &replies[..] else {
            panic!("{replies:?}");
        };
        let claim = Claim {
            member_id: joined.member_id.clone(),
            instance_id: None,
            generation: joined.generation,
        };
        let sync = Sync {
            claim: claim.clone(),
            ..Sync::default()
        };
        let outcome = self.coordinator.sync(self.now, group, 0, Token(2), sync);
        let replies = self.run(outcome);
        assert!(
            matches!(replies[..], [Reply::Sync(_, Ok(_))]),
            "{replies:?}"
        );
        claim
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms as i64;
        for outcome in self.coordinator.on_timer(self.now) {
            self.run(outcome);
        }
    }

    fn states(&self) -> Vec<(String, &'static str)> {
        let mut all: Vec<_> = self
            .coordinator
            .list()
            .map(|g| (g.group, g.state))
            .collect();
        all.sort_unstable();
        all
    }
}

fn consumer() -> Join {
    let topic_a = Bytes::from_static(b"\0\0\0\0\0\x01\0\x01a");
    Join {
        client_id: "c".to_owned(),
        unique: "1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), topic_a)],
        ..Join::default()
    }
}

#[test]
fn sessions_outside_the_brokers_range_are_refused_whoever_asks() {
    let mut node = Node::new();
    let known = node.form("g").member_id;
    for session_timeout_ms in [0, 5_999, 1_800_001] {
        for (group, member_id) in [
            ("g", ""),
            ("g", &*known),
            ("g", "unknown"),
            ("h", "unknown"),
        ] {
            let join = Join {
                member_id: member_id.to_owned(),
                session_timeout_ms,
                ..consumer()
            };
            let outcome = node.coordinator.join(node.now, group, 0, Token(9), join);
            let [Reply::Join(_, Err(refused))] = &outcome.replies[..] else {
                panic!("{:?}", outcome.replies);
            };
            assert_eq!(
                refused.error,
                GroupError::InvalidSessionTimeout,
                "{member_id}"
            );
        }
    }
}

fn nobody() -> Claim {
    Claim {
        generation: -1,
        ..Claim::default()
    }
}

#[test]
fn a_commit_is_read_back_only_when_it_is_flushed() {
    let mut node = Node::new();
    node.commit("g", "a", 5).unwrap();
    assert_eq!(node.offset("g", "a"), None);
    node.flush();
    assert_eq!(node.offset("g", "a"), Some(5));
    node.commit("g", "a", 6).unwrap();
    let node = node.crashed();
    assert_eq!(
        node.offset("g", "a"),
        Some(5),
        "what was read is still there"
    );
}

#[test]
fn groups_and_offsets_come_back_after_a_restart() {
    let mut node = Node::new();
    let claim = node.form("g");
    node.coordinator
        .commit(node.now, "g", 0, &claim, false, Vec::new())
        .unwrap();
    node.commit("alone", "b", 1).unwrap();
    node.flush();
    let mut node = node.crashed();
    assert_eq!(
        node.states(),
        [("alone".to_owned(), "Empty"), ("g".to_owned(), "Stable")]
    );
    assert_eq!(node.coordinator.heartbeat(node.now, "g", 0, &claim), Ok(()));
    node.pass(10_000);
    assert_eq!(
        node.coordinator.heartbeat(node.now, "g", 0, &claim),
        Err(GroupError::UnknownMember),
        "sessions end after a restart too"
    );
}

#[test]
fn a_snapshot_in_the_middle_of_a_rebalance_gives_nobody_an_empty_assignment() {
    let mut node = Node::new();
    let mut claim = node.form("g");
    let rejoin = Join {
        member_id: claim.member_id.clone(),
        ..consumer()
    };
    let outcome = node.coordinator.join(node.now, "g", 0, Token(3), rejoin);
    assert!(matches!(node.run(outcome)[..], [Reply::Join(_, Ok(_))]));
    claim.generation += 1;
    let log = plain(node.coordinator.snapshot(node.now, 0));
    let mut node = Node::over(log, node.now);
    let sync = Sync {
        claim,
        ..Sync::default()
    };
    let outcome = node.coordinator.sync(node.now, "g", 0, Token(4), sync);
    let refused = Reply::Sync(Token(4), Err(GroupError::RebalanceInProgress));
    assert_eq!(node.run(outcome), [refused], "it joins again");
}

#[test]
fn where_there_is_no_room_for_more_offsets_those_that_are_there_move_on() {
    let mut node = Node::new();
    for n in 0..1000 {
        node.commit("g", &n.to_string(), 1).unwrap();
    }
    node.flush();
    assert_eq!(
        node.commit("g", "more", 1),
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(node.commit("g", "7", 2), Ok(()));
    node.flush();
    assert_eq!(node.offset("g", "7"), Some(2));
}

#[test]
fn all_groups_together_have_room_for_so_much_metadata() {
    let mut node = Node::new();
    let join = |node: &mut Node, group: &str, bytes: usize| {
        let join = Join {
            protocols: vec![("range".to_owned(), Bytes::from(vec![0; bytes]))],
            ..consumer()
        };
        let outcome = node.coordinator.join(node.now, group, 0, Token(9), join);
        let [Reply::Join(_, answer)] = &node.run(outcome)[..] else {
            panic!("one answer");
        };
        answer.clone().map(|joined| joined.member_id)
    };
    let first = join(&mut node, "a", 4_000).unwrap();
    join(&mut node, "b", 4_000).unwrap();
    let refused = join(&mut node, "c", 4_000).unwrap_err();
    assert_eq!(refused.error, GroupError::GroupFull);
    assert_eq!(node.states().len(), 2, "nothing is left of it");
    let leaver = Leaver {
        member_id: first,
        instance_id: None,
    };
    let left = node.coordinator.leave(node.now, "a", 0, &[leaver]);
    node.run(left.unwrap().1);
    assert!(join(&mut node, "c", 4_000).is_ok(), "who leaves makes room");
}

#[test]
fn a_tool_that_calls_itself_a_member_may_commit_for_an_empty_group() {
    let mut node = Node::new();
    node.commit("g", "a", 5).unwrap();
    node.flush();
    let claim = Claim {
        member_id: "tool".to_owned(),
        ..nobody()
    };
    let committed = node
        .coordinator
        .commit(node.now, "g", 0, &claim, false, Vec::new());
    assert!(committed.is_ok(), "{committed:?}");
    node.form("g");
    let committed = node
        .coordinator
        .commit(node.now, "g", 0, &claim, false, Vec::new());
    assert_eq!(committed.unwrap_err(), GroupError::UnknownMember);
}

#[test]
fn a_deleted_group_stays_deleted_whatever_was_in_flight() {
    let mut node = Node::new();
    node.commit("g", "a", 5).unwrap();
    node.flush();
    node.commit("g", "b", 6).unwrap();
    let write = node.coordinator.delete("g", 0).unwrap();
    node.append(write);
    node.flush();
    assert_eq!(node.offset("g", "a"), None);
    assert_eq!(node.offset("g", "b"), None);
    assert!(node.coordinator.is_empty());
    let node = node.crashed();
    assert!(node.coordinator.is_empty());
    assert_eq!(
        node.coordinator.describe("g", 0),
        Ok(None),
        "nothing of it came back"
    );
}

#[test]
fn a_group_whose_deletion_did_not_fit_on_the_disk_is_still_there() {
    let mut node = Node::new();
    node.commit("g", "a", 5).unwrap();
    node.flush();
    let write = node.coordinator.delete("g", 0).unwrap();
    node.append(write);
    let twice = node.coordinator.delete("g", 0);
    assert_eq!(twice, Err(GroupError::CoordinatorNotAvailable));
    node.take_back();
    assert_eq!(node.offset("g", "a"), Some(5));
    assert!(node.coordinator.delete("g", 0).is_ok());
}

#[test]
fn groups_with_members_are_not_deleted() {
    let mut node = Node::new();
    let claim = node.form("g");
    assert_eq!(
        node.coordinator.delete("g", 0),
        Err(GroupError::NonEmptyGroup)
    );
    assert_eq!(
        node.coordinator.delete("x", 0),
        Err(GroupError::GroupIdNotFound)
    );
    let leaver = super::Leaver {
        member_id: claim.member_id,
        instance_id: None,
    };
    let (_, outcome) = node.coordinator.leave(node.now, "g", 0, &[leaver]).unwrap();
    node.run(outcome);
    let write = node.coordinator.delete("g", 0).unwrap();
    node.append(write);
    node.flush();
    assert!(node.crashed().coordinator.is_empty());
}

#[test]
fn a_group_that_has_only_promised_an_id_can_be_deleted() {
    let mut node = Node::new();
    let join = |member_id: &str| Join {
        require_known_member_id: true,
        member_id: member_id.to_owned(),
        ..consumer()
    };
    let refused = |replies: &[Reply]| match replies {
        [Reply::Join(_, Err(refused))] => (refused.error, refused.member_id.clone()),
        other => panic!("{other:?}"),
    };
    let outcome = node.coordinator.join(node.now, "g", 0, Token(1), join(""));
    let (error, id) = refused(&node.run(outcome));
    assert_eq!(error, GroupError::MemberIdRequired);
    let write = node.coordinator.delete("g", 0).unwrap();
    node.append(write);
    node.flush();
    assert!(node.coordinator.is_empty());
    let outcome = node.coordinator.join(node.now, "g", 0, Token(2), join(&id));
    assert_eq!(refused(&node.run(outcome)).0, GroupError::UnknownMember);
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut node = Node::new();
    node.commit("g", "a", 1).unwrap();
    node.commit("g", "b", 1).unwrap();
    node.flush();
    node.form("g");
    let wanted = [("a".to_owned(), 0), ("b".to_owned(), 0)];
    let (results, write) = node.coordinator.delete_offsets("g", 0, &wanted).unwrap();
    assert_eq!(results, [Err(GroupError::SubscribedToTopic), Ok(())]);
    node.append(write.unwrap());
    node.flush();
    assert_eq!(node.offset("g", "a"), Some(1));
    assert_eq!(node.offset("g", "b"), None);
}

#[test]
fn deleted_topics_take_all_offsets_of_them_along() {
    let mut node = Node::new();
    node.commit("g", "a", 1).unwrap();
    node.commit("h", "a", 1).unwrap();
    node.flush();
    node.commit("h", "b", 1).unwrap();
    node.commit("i", "a", 1).unwrap();
    for write in node
        .coordinator
        .forget_topics(&BTreeSet::from(["a".to_owned()]))
    {
        node.append(write);
    }
    node.flush();
    for group in ["g", "h", "i"] {
        assert_eq!(node.offset(group, "a"), None, "{group}");
    }
    assert_eq!(node.offset("h", "b"), Some(1));
}

#[test]
fn expired_offsets_go_and_with_the_last_of_them_the_group() {
    let mut node = Node::new();
    let retention = node.coordinator.config().offsets_retention_ms as u64;
    node.commit("g", "a", 1).unwrap();
    node.flush();
    node.pass(retention - 1);
    assert!(node.coordinator.expire(node.now).is_empty());
    node.pass(1);
    for write in node.coordinator.expire(node.now) {
        node.append(write);
    }
    node.flush();
    assert!(node.coordinator.is_empty());
    assert!(node.crashed().coordinator.is_empty());
}

#[test]
fn a_group_that_was_only_asked_about_leaves_nothing() {
    let mut node = Node::new();
    let join = Join {
        require_known_member_id: true,
        session_timeout_ms: 6_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        ..Join::default()
    };
    let outcome = node.coordinator.join(node.now, "g", 0, Token(1), join);
    node.run(outcome);
    assert_eq!(node.coordinator.len(), 1);
    node.pass(6_000);
    assert!(node.coordinator.is_empty());
    assert!(node.log.is_empty());
}

#[test]
fn requests_are_refused_while_loading_and_after_a_failure() {
    let mut node = Node::new();
    let claim = node.form("g");
    let mut loading = coordinator();
    loading.begin_load(0);
    assert_eq!(
        loading.heartbeat(node.now, "g", 0, &claim),
        Ok(()),
        "hold on"
    );
    assert_eq!(loading.describe("g", 0), Err(GroupError::LoadInProgress));
    node.coordinator.fail(0);
    assert_eq!(
        node.coordinator.heartbeat(node.now, "g", 0, &claim),
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(node.coordinator.deadline(), None);
    assert_eq!(
        node.coordinator.describe("", 1),
        Err(GroupError::NotCoordinator)
    );
}

/// Who leads on in another epoch reads its partition again.
#[test]
fn a_partition_that_is_read_again_begins_anew() {
    let mut node = Node::new();
    let outcome = node
        .coordinator
        .join(node.now, "fresh", 0, Token(1), consumer());
    assert!(outcome.write.is_none(), "it waits for others");
    assert!(node.coordinator.deadline().is_some());
    node.commit("other", "t", 7).unwrap();
    node.coordinator.begin_load(0);
    let log = node.log.clone();
    for (key, value) in log {
        node.coordinator
            .load(node.now, 0, None, key, value)
            .unwrap();
    }
    node.coordinator.finish_load(node.now, 0);
    assert_eq!(node.offset("other", "t"), Some(7));
    assert_eq!(node.coordinator.len(), 1, "nothing tells of the other one");
    node.pass(3_600_000);
    // What was appended before settles nothing of what came since.
    let before = std::mem::take(&mut node.unsettled);
    node.commit("other", "t", 8).unwrap();
    let since = std::mem::replace(&mut node.unsettled, before);
    node.settle(true);
    assert_eq!(node.offset("other", "t"), Some(7));
    node.unsettled = since;
    node.settle(true);
    assert_eq!(node.offset("other", "t"), Some(8));
}

#[test]
fn groups_leave_with_their_partition() {
    let mut node = Node::new();
    let claim = node.form("g");
    node.coordinator.resign(0);
    assert_eq!(
        node.coordinator.heartbeat(node.now, "g", 0, &claim),
        Err(GroupError::NotCoordinator)
    );
    assert!(node.coordinator.is_empty());
    assert_eq!(node.coordinator.deadline(), None);
}

#[test]
fn groups_and_offsets_are_bounded() {
    let mut node = Node::new();
    for n in 0..100 {
        node.commit(&n.to_string(), "a", 1).unwrap();
        node.flush();
    }
    assert_eq!(
        node.commit("one more", "a", 1),
        Err(GroupError::CoordinatorNotAvailable)
    );
    for n in 0..900 {
        node.commit("0", &n.to_string(), 1).unwrap();
        node.flush();
    }
    assert_eq!(
        node.commit("0", "b", 1),
        Err(GroupError::CoordinatorNotAvailable)
    );
    let long = "x".repeat(40_000);
    assert_eq!(node.commit(&long, "a", 1), Err(GroupError::InvalidGroupId));
}

/// A join of who has no id yet and is promised one (KIP-394).
fn promised(node: &mut Node, group: &str) -> JoinRefused {
    let join = Join {
        require_known_member_id: true,
        ..consumer()
    };
    let outcome = node.coordinator.join(node.now, group, 0, Token(9), join);
    let replies = node.run(outcome);
    let [Reply::Join(_, Err(refused))] = &replies[..] else {
        panic!("{replies:?}");
    };
    refused.clone()
}

#[test]
fn groups_of_promises_alone_make_room_for_others_oldest_first() {
    let mut node = Node::new();
    node.commit("kept", "a", 1).unwrap();
    node.flush();
    let ids: Vec<_> = (0..200)
        .map(|n| promised(&mut node, &format!("p{n}")))
        .collect();
    assert!(ids.iter().all(|r| r.error == GroupError::MemberIdRequired));
    assert_eq!(node.states().len(), 100);
    // a client with offsets of its own, one that joins at once, and one whose id is forgotten
    assert_eq!(node.commit("new", "a", 1), Ok(()));
    node.flush();
    node.form("formed");
    assert_eq!(node.states().len(), 100);
    let with_id = |node: &mut Node, n: usize| {
        let join = Join {
            member_id: ids[n].member_id.clone(),
            require_known_member_id: true,
            ..consumer()
        };
        let group = format!("p{n}");
        let outcome = node.coordinator.join(node.now, &group, 0, Token(9), join);
        let [Reply::Join(_, answer)] = &node.run(outcome)[..] else {
            panic!("one answer");
        };
        answer.clone().map_err(|refused| refused.error).map(drop)
    };
    assert_eq!(with_id(&mut node, 5), Err(GroupError::UnknownMember));
    assert_eq!(with_id(&mut node, 150), Ok(()));
    assert_eq!(node.offset("kept", "a"), Some(1));
    // offsets that are not yet on the disk keep their group
    node.commit("p160", "a", 7).unwrap();
    for n in 0..300 {
        promised(&mut node, &format!("q{n}"));
    }
    node.flush();
    assert_eq!(node.offset("p160", "a"), Some(7));
    assert!(node.states().iter().any(|(id, _)| id == "p150"));
    // those that have members or offsets stay, however many come
    for n in 0..100 {
        let _ = node.commit(&format!("o{n}"), "a", 1);
        node.flush();
    }
    let refused = promised(&mut node, "late");
    assert_eq!(refused.error, GroupError::GroupFull);
    assert_eq!(
        node.commit("late", "a", 1),
        Err(GroupError::CoordinatorNotAvailable)
    );
}

#[test]
fn groups_are_found_where_kafkas_tools_look_for_them() {
    // Values of Java's "...".hashCode(): "group" 98629247, "polygenelubricants" -2147483648,
    // "é" 233.
    assert_eq!(partition_of("group", 50), 98_629_247 % 50);
    assert_eq!(partition_of("polygenelubricants", 50), 0);
    assert_eq!(partition_of("é", 50), 33);
    assert_eq!(partition_of("", 50), 0);
}

/// What may happen to the offsets of a few groups.
#[derive(Debug, Clone)]
enum Step {
    Commit(u8, u8, i64),
    Delete(u8),
    DeleteOffset(u8, u8),
    ForgetTopic(u8),
    Flush,
    TakeBack,
    Compact,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_u8, 0..3_u8, 0..100_i64).prop_map(|(g, t, o)| Step::Commit(g, t, o)),
        1 => (0..3_u8).prop_map(Step::Delete),
        1 => (0..3_u8, 0..3_u8).prop_map(|(g, t)| Step::DeleteOffset(g, t)),
        1 => (0..3_u8).prop_map(Step::ForgetTopic),
        3 => Just(Step::Flush),
        1 => Just(Step::TakeBack),
        1 => Just(Step::Compact),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

fn take(mut node: Node, step: &Step) -> Node {
    let (group, topic) = (|g: u8| format!("g{g}"), |t: u8| format!("t{t}"));
    match *step {
        Step::Commit(g, t, offset) => match node.commit(&group(g), &topic(t), offset) {
            Ok(()) | Err(GroupError::CoordinatorNotAvailable) => {}
            Err(error) => panic!("{error}"),
        },
        Step::Delete(g) => {
            if let Ok(write) = node.coordinator.delete(&group(g), 0) {
                node.append(write);
            }
        }
        Step::DeleteOffset(g, t) => {
            let wanted = [(topic(t), 0)];
            if let Ok((_, Some(write))) = node.coordinator.delete_offsets(&group(g), 0, &wanted) {
                node.append(write);
            }
        }
        Step::ForgetTopic(t) => {
            for write in node.coordinator.forget_topics(&BTreeSet::from([topic(t)])) {
                node.append(write);
            }
        }
        Step::Flush => node.flush(),
        Step::TakeBack => node.take_back(),
        Step::Compact => {
            // The snapshot goes to the log's end, is flushed, and the rest is cut off.
            let snapshot = plain(node.coordinator.snapshot(node.now, 0));
            node.flush();
            node.log = snapshot;
            node.flushed = node.log.len();
        }
        Step::Crash => node = node.crashed(),
    }
    node
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_served_is_what_a_restart_would_serve(steps in steps()) {
        let mut node = Node::new();
        for step in &steps {
            node = take(node, step);
            let served: Vec<_> = all_offsets(&node.coordinator);
            let flushed = Log::from(&node.log[..node.flushed]);
            let restarted = all_offsets(&Node::over(flushed, node.now).coordinator);
            let missing: Vec<_> = served.iter().filter(|o| !restarted.contains(o)).collect();
            prop_assert!(missing.is_empty(), "{missing:?} would be lost");
            if node.unsettled.is_empty() {
                prop_assert_eq!(served, restarted);
            }
        }
        node.flush();
        let restarted = Node::over(node.log.clone(), node.now);
        prop_assert_eq!(all_offsets(&node.coordinator), all_offsets(&restarted.coordinator));
    }
}

fn all_offsets(coordinator: &Coordinator) -> Vec<(String, String, i64)> {
    let mut all = Vec::new();
    for group in coordinator.list() {
        for fetched in coordinator
            .fetch(&group.group, 0, (None, -1), None)
            .unwrap()
        {
            for (_, record) in fetched.partitions {
                let offset = record.expect("only committed ones are listed").offset;
                all.push((group.group.clone(), fetched.topic.to_string(), offset));
            }
        }
    }
    all.sort_unstable();
    all
}
