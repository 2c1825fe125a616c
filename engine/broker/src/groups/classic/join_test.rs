//! Who may join a classic group, and under which id.

use bytes::Bytes;

use super::State;
use super::lab::{Lab, REBALANCE_MS, SESSION_MS, again, claim, member, static_member};
use crate::groups::{GroupError, Join, Leaver};

#[test]
fn a_new_member_of_today_joins_with_the_id_it_was_sent_back_with() {
    let mut lab = Lab::eager();
    let join = Join {
        require_known_member_id: true,
        ..member("c")
    };
    let first = lab.join(join.clone());
    let refused = lab.join_reply(first).unwrap_err();
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    assert_eq!(refused.member_id, "c-1");
    assert_eq!(
        lab.group.state(),
        State::Empty,
        "an id alone is no membership"
    );
    let second = lab.join(again(join, &refused.member_id));
    let joined = lab.joined(second);
    assert_eq!((joined.generation, joined.leader.as_str()), (1, "c-1"));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
}

#[test]
fn an_id_that_is_never_joined_with_lapses_and_stops_holding_up_the_rebalance() {
    let (mut lab, joined) = Lab::stable(&["a"]);
    let ghost = Join {
        require_known_member_id: true,
        ..member("ghost")
    };
    let ghost = lab.join(ghost);
    assert_eq!(lab.refused(ghost), GroupError::MemberIdRequired);
    let rejoin = lab.join(again(member("a"), &joined[0].member_id));
    assert!(lab.is_waiting(rejoin), "waits for the promised member");
    lab.pass(SESSION_MS);
    assert_eq!(lab.joined(rejoin).members.len(), 1);
}

#[test]
fn the_first_rebalance_waits_for_members_that_come_together() {
    let mut lab = Lab::new();
    let first = lab.join(member("a"));
    lab.pass(2_000);
    let second = lab.join(member("b"));
    lab.pass(1_500);
    assert!(lab.is_waiting(first), "a newcomer extends the delay");
    lab.pass(3_000);
    let (first, second) = (lab.joined(first), lab.joined(second));
    assert_eq!(first.generation, 1);
    assert_eq!(first.members.len(), 2, "the leader sees everybody");
    assert!(second.members.is_empty(), "a follower sees nobody");
    assert_eq!(first.leader, second.leader);
}

#[test]
fn newcomers_cannot_put_the_first_rebalance_off_for_ever() {
    let mut lab = Lab::new();
    let first = lab.join(member("0"));
    for n in 1..40 {
        lab.pass(2_000);
        lab.join(member(&n.to_string()));
    }
    assert!(!lab.is_waiting(first), "the rebalance timeout ends it");
    let joined = lab.joined(first);
    assert_eq!(joined.members.len() as u64, REBALANCE_MS / 2_000);
}

#[test]
fn protocols_must_be_common_to_all() {
    let (mut lab, _) = Lab::stable(&["a"]);
    let alien = Join {
        protocols: vec![("sticky".to_owned(), Bytes::new())],
        ..member("b")
    };
    let token = lab.join(alien);
    assert_eq!(lab.refused(token), GroupError::InconsistentProtocol);
    let connect = Join {
        protocol_type: "connect".to_owned(),
        ..member("b")
    };
    let token = lab.join(connect);
    assert_eq!(lab.refused(token), GroupError::InconsistentProtocol);
    let nothing = Join {
        protocols: Vec::new(),
        ..member("b")
    };
    let token = Lab::new().join(nothing.clone());
    assert_eq!(token.0, 1);
    let mut empty = Lab::new();
    let token = empty.join(nothing);
    assert_eq!(empty.refused(token), GroupError::InconsistentProtocol);
}

#[test]
fn the_protocol_that_most_members_prefer_wins() {
    let mut lab = Lab::new();
    let offer = |name: &str, protocols: [&str; 2]| Join {
        protocols: protocols.map(|p| (p.to_owned(), Bytes::new())).to_vec(),
        ..member(name)
    };
    let first = lab.join(offer("a", ["range", "sticky"]));
    lab.join(offer("b", ["sticky", "range"]));
    lab.join(offer("c", ["sticky", "range"]));
    lab.pass(10_000);
    assert_eq!(lab.joined(first).protocol.as_deref(), Some("sticky"));
}

#[test]
fn a_full_group_takes_nobody_and_keeps_whom_it_has() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    lab.config.max_size = 2;
    let third = lab.join(member("c"));
    assert_eq!(lab.refused(third), GroupError::GroupFull);
    assert_eq!(lab.heartbeat(&joined[0]), Ok(()));
    let rejoin = lab.join(again(member("a"), &joined[0].member_id));
    assert!(lab.is_waiting(rejoin));
}

#[test]
fn metadata_is_bounded_in_all() {
    let mut lab = Lab::new();
    lab.config.max_metadata_bytes = 1000;
    let join = |name: &str| Join {
        protocols: vec![("range".to_owned(), Bytes::from(vec![0; 600]))],
        ..member(name)
    };
    lab.join(join("a"));
    let token = lab.join(join("b"));
    assert_eq!(lab.refused(token), GroupError::GroupFull);
}

#[test]
fn promised_ids_are_bounded() {
    let mut lab = Lab::new();
    lab.config.max_size = 10;
    let mut last = None;
    for n in 0..11 {
        let join = Join {
            require_known_member_id: true,
            unique: n.to_string(),
            ..member("flood")
        };
        let token = lab.join(join);
        last = Some(lab.refused(token));
    }
    assert_eq!(last, Some(GroupError::GroupFull));
}

#[test]
fn a_member_that_nobody_knows_is_told_so() {
    let (mut lab, joined) = Lab::stable(&["a"]);
    let token = lab.join(again(member("a"), "never-seen"));
    assert_eq!(lab.refused(token), GroupError::UnknownMember);
    lab.leave(&joined[0].member_id).unwrap();
    let token = lab.join(again(member("a"), &joined[0].member_id));
    assert_eq!(lab.refused(token), GroupError::UnknownMember);
}

#[test]
fn a_follower_that_missed_its_answer_gets_it_again_without_a_rebalance() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    let token = lab.join(again(member("b"), &joined[1].member_id));
    assert_eq!(lab.joined(token), joined[1]);
    assert_eq!(lab.group.state(), State::Stable);
    let changed = Join {
        protocols: vec![("range".to_owned(), Bytes::from_static(b"other"))],
        ..again(member("b"), &joined[1].member_id)
    };
    let token = lab.join(changed);
    assert!(lab.is_waiting(token), "new metadata needs a new assignment");
    assert_eq!(
        lab.heartbeat(&joined[0]),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_second_request_of_a_member_ends_its_first() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    let first = lab.join(again(member("a"), &joined[0].member_id));
    let second = lab.join(again(member("a"), &joined[0].member_id));
    assert_eq!(lab.refused(first), GroupError::RebalanceInProgress);
    assert!(lab.is_waiting(second));
}

#[test]
fn a_static_member_that_restarts_keeps_its_assignment_without_a_rebalance() {
    let mut lab = Lab::eager();
    let token = lab.join(static_member("i", "1"));
    let joined = lab.joined(token);
    let mut sync_claim = claim(&joined);
    sync_claim.instance_id = Some("i".to_owned());
    lab.sync(&joined, &[("i-1", "parts")]);
    assert_eq!(lab.group.state(), State::Stable);
    let stores = lab.stores;

    let token = lab.join(static_member("i", "2"));
    let back = lab.joined(token);
    assert_eq!((back.member_id.as_str(), back.generation), ("i-2", 1));
    assert_eq!(back.leader, "i-1", "an old client must not assign again");
    assert_eq!(lab.stores, stores + 1, "the new id is stored first");
    let token = lab.sync(&back, &[]);
    assert_eq!(&lab.sync_reply(token).unwrap().assignment[..], b"parts");
    assert_eq!(
        lab.group.on_heartbeat(lab.now, &sync_claim),
        Err(GroupError::FencedInstanceId),
        "the old process is fenced"
    );
}

#[test]
fn a_static_leader_that_knows_skip_assignment_learns_that_it_leads() {
    let mut lab = Lab::eager();
    let token = lab.join(static_member("i", "1"));
    let joined = lab.joined(token);
    lab.sync(&joined, &[]);
    let join = Join {
        supports_skip_assignment: true,
        ..static_member("i", "2")
    };
    let token = lab.join(join);
    let back = lab.joined(token);
    assert!(back.skip_assignment);
    assert_eq!(back.leader, "i-2");
    assert_eq!(back.members.len(), 1);
}

#[test]
fn a_static_member_that_restarts_while_it_waits_fences_its_old_request() {
    let mut lab = Lab::new();
    let old = lab.join(static_member("i", "1"));
    let new = lab.join(static_member("i", "2"));
    assert_eq!(lab.refused(old), GroupError::FencedInstanceId);
    lab.pass(10_000);
    assert_eq!(lab.joined(new).member_id, "i-2");
    assert_eq!(lab.group.member_count(), 1);
}

#[test]
fn a_static_member_leaves_by_its_instance_alone() {
    let mut lab = Lab::eager();
    let token = lab.join(static_member("i", "1"));
    let joined = lab.joined(token);
    lab.sync(&joined, &[]);
    let leave = |instance: &str, member_id: &str| Leaver {
        member_id: member_id.to_owned(),
        instance_id: Some(instance.to_owned()),
    };
    let leavers = [leave("none", ""), leave("i", "wrong"), leave("i", "")];
    let (results, effects) = lab.group.on_leave(lab.now, &leavers);
    lab.take(effects);
    assert_eq!(
        results,
        [
            Err(GroupError::UnknownMember),
            Err(GroupError::FencedInstanceId),
            Ok(())
        ]
    );
    assert_eq!(lab.group.state(), State::Empty);
}

#[test]
fn a_static_member_that_cannot_be_stored_starts_over() {
    let mut lab = Lab::eager();
    let token = lab.join(static_member("i", "1"));
    let joined = lab.joined(token);
    lab.sync(&joined, &[]);
    lab.disk_works = false;
    let token = lab.join(static_member("i", "2"));
    assert_eq!(lab.refused(token), GroupError::CoordinatorNotAvailable);
    assert_eq!(lab.group.state(), State::PreparingRebalance);
}

#[test]
fn the_id_of_a_member_with_a_very_long_client_id_can_be_told_in_every_version() {
    let mut lab = Lab::eager();
    let long = Join {
        client_id: "ä".repeat(16_383),
        unique: "u".repeat(36),
        ..member("")
    };
    let token = lab.join(long);
    let id = lab.joined(token).member_id;
    assert!(id.len() <= i16::MAX as usize, "{} bytes", id.len());
    assert!(id.ends_with(&"u".repeat(36)));
}
