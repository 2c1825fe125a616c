//! How a classic group rebalances, and what silence does to it.

use super::lab::{Lab, REBALANCE_MS, SESSION_MS, again, claim, member, static_member};
use super::{ClassicGroup, NEW_MEMBER_JOIN_TIMEOUT_MS, State};
use crate::groups::{Claim, GroupError, Joined, Sync};

/// Joins `joined` again and lets everybody sync.
fn rejoin(lab: &mut Lab, names: &[&str], joined: &[Joined]) -> Vec<Joined> {
    let pairs = names.iter().zip(joined);
    let tokens: Vec<_> = pairs
        .map(|(name, joined)| lab.join(again(member(name), &joined.member_id)))
        .collect();
    tokens.into_iter().map(|token| lab.joined(token)).collect()
}

#[test]
fn members_wait_for_the_leaders_assignment_and_each_gets_its_own() {
    let mut lab = Lab::new();
    let tokens = ["a", "b"].map(|name| lab.join(member(name)));
    lab.pass(6_000);
    let [leader, follower] = tokens.map(|token| lab.joined(token));
    let waiting = lab.sync(&follower, &[]);
    assert!(lab.is_waiting(waiting));
    assert_eq!(
        lab.heartbeat(&follower),
        Ok(()),
        "heartbeats go on meanwhile"
    );
    let parts = [
        ("a-1", "part of a"),
        ("b-1", "part of b"),
        ("x", "nobody's"),
    ];
    let leading = lab.sync(&leader, &parts);
    assert_eq!(
        &lab.sync_reply(leading).unwrap().assignment[..],
        b"part of a"
    );
    assert_eq!(
        &lab.sync_reply(waiting).unwrap().assignment[..],
        b"part of b"
    );
    assert_eq!(lab.group.state(), State::Stable);
    assert_eq!(lab.stores, 1);
}

#[test]
fn an_assignment_is_told_only_when_it_is_stored() {
    let mut lab = Lab::eager();
    let token = lab.join(member("a"));
    let joined = lab.joined(token);
    lab.disk_works = false;
    let token = lab.sync(&joined, &[("a-1", "part")]);
    assert_eq!(
        lab.sync_reply(token),
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(lab.group.state(), State::PreparingRebalance);
    lab.disk_works = true;
    let joined = rejoin(&mut lab, &["a"], &[joined]).remove(0);
    let token = lab.sync(&joined, &[("a-1", "part")]);
    assert!(lab.sync_reply(token).is_ok());
}

/// Who asks for its part while the leader's assignment is on its way to the disk: the generation may be
/// gone with the node's power, and come again with other members in it.
#[test]
fn nobody_is_told_of_an_assignment_that_is_not_stored_yet() {
    for is_stored in [true, false] {
        let (mut lab, joined) = Lab::stable(&["a", "b"]);
        let joined = rejoin(&mut lab, &["a", "b"], &joined);
        lab.disk_waits = true;
        let parts = [("a-1", "part of a"), ("b-1", "part of b")];
        let leading = lab.sync(&joined[0], &parts);
        assert_eq!(lab.group.state(), State::Stable);
        let late = lab.sync(&joined[1], &[]);
        let impatient = lab.sync(&joined[0], &[]);
        assert!(lab.is_waiting(late) && lab.is_waiting(impatient));
        let outdone = Err(GroupError::RebalanceInProgress);
        assert_eq!(lab.sync_reply(leading), outdone);
        lab.settle(is_stored);
        match is_stored {
            true => {
                assert!(lab.sync_reply(impatient).is_ok());
                assert_eq!(&lab.sync_reply(late).unwrap().assignment[..], b"part of b");
            }
            false => {
                let refusal = GroupError::CoordinatorNotAvailable;
                assert_eq!(lab.sync_reply(late), Err(refusal));
                assert_eq!(lab.sync_reply(impatient), Err(refusal));
            }
        }
    }
}

/// A slow disk, or followers that are: the next generation may be there before this one is stored.
#[test]
fn an_assignment_that_another_rebalance_has_outdone_is_told_to_nobody() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    let joined = rejoin(&mut lab, &["a", "b"], &joined);
    lab.disk_waits = true;
    let follower = lab.sync(&joined[1], &[]);
    let leading = lab.sync(&joined[0], &[("a-1", "part of a"), ("b-1", "part of b")]);
    assert!(lab.is_waiting(leading) && lab.is_waiting(follower));
    let newcomer = lab.join(member("c"));
    assert_eq!(lab.group.state(), State::PreparingRebalance);
    let outdone = Err(GroupError::RebalanceInProgress);
    assert_eq!(lab.sync_reply(leading), outdone);
    assert_eq!(lab.sync_reply(follower), outdone);
    lab.settle(true);
    assert!(lab.is_waiting(newcomer));
}

#[test]
fn stale_generations_and_foreign_protocols_are_refused() {
    let (mut lab, joined) = Lab::stable(&["a"]);
    let stale = Claim {
        generation: 0,
        ..claim(&joined[0])
    };
    assert_eq!(
        lab.group.on_heartbeat(lab.now, &stale),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        lab.group.on_commit(lab.now, &stale),
        Err(GroupError::IllegalGeneration)
    );
    let token = lab.token();
    let sync = Sync {
        claim: claim(&joined[0]),
        protocol: Some("sticky".to_owned()),
        ..Sync::default()
    };
    let effects = lab.group.on_sync(lab.now, &lab.config, token, sync);
    lab.take(effects);
    assert_eq!(lab.sync_reply(token), Err(GroupError::InconsistentProtocol));
}

#[test]
fn a_silent_member_is_dropped_and_the_others_rebalance() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    lab.pass(SESSION_MS - 1);
    assert_eq!(lab.heartbeat(&joined[0]), Ok(()));
    lab.pass(1);
    assert_eq!(
        lab.heartbeat(&joined[0]),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(lab.heartbeat(&joined[1]), Err(GroupError::UnknownMember));
    let next = rejoin(&mut lab, &["a"], &joined[..1]);
    assert_eq!((next[0].generation, next[0].members.len()), (2, 1));
}

#[test]
fn a_heartbeat_starts_the_session_anew() {
    let (mut lab, joined) = Lab::stable(&["a"]);
    for _ in 0..20 {
        lab.pass(SESSION_MS - 1);
        assert_eq!(lab.heartbeat(&joined[0]), Ok(()));
    }
    lab.pass(SESSION_MS);
    assert_eq!(lab.group.state(), State::Empty);
}

#[test]
fn members_that_do_not_rejoin_in_time_are_left_behind() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    let token = lab.join(again(member("a"), &joined[0].member_id));
    for _ in 0..(REBALANCE_MS / (SESSION_MS - 1)) {
        lab.pass(SESSION_MS - 1);
        assert_eq!(
            lab.heartbeat(&joined[1]),
            Err(GroupError::RebalanceInProgress)
        );
    }
    assert!(lab.is_waiting(token));
    lab.pass(SESSION_MS - 1);
    assert_eq!(lab.joined(token).members.len(), 1);
    assert_eq!(lab.heartbeat(&joined[1]), Err(GroupError::UnknownMember));
}

#[test]
fn waiting_for_others_is_not_silence() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    let waiting = lab.join(again(member("b"), &joined[1].member_id));
    // The rejoin of a follower with the same metadata answers at once; the leader's does not.
    assert!(!lab.is_waiting(waiting));
    let leader = lab.join(again(member("a"), &joined[0].member_id));
    for _ in 0..3 {
        lab.pass(SESSION_MS - 1);
        let _ = lab.heartbeat(&joined[1]);
    }
    assert!(lab.is_waiting(leader));
    assert_eq!(lab.group.member_count(), 2);
}

#[test]
fn a_follower_that_waited_for_a_dead_leader_has_its_whole_session_afterwards() {
    let mut lab = Lab::new();
    let tokens = ["a", "b"].map(|name| lab.join(member(name)));
    lab.pass(6_000);
    let [_, follower] = tokens.map(|token| lab.joined(token));
    lab.pass(SESSION_MS / 2);
    let waiting = lab.sync(&follower, &[]);
    lab.pass(SESSION_MS / 2);
    assert_eq!(
        lab.sync_reply(waiting),
        Err(GroupError::RebalanceInProgress)
    );
    lab.pass(SESSION_MS - 1);
    assert_eq!(
        lab.heartbeat(&follower),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(lab.group.member_count(), 1);
}

#[test]
fn members_that_never_ask_for_their_assignment_are_dropped() {
    let mut lab = Lab::new();
    let tokens = ["a", "b"].map(|name| lab.join(member(name)));
    lab.pass(6_000);
    let [leader, follower] = tokens.map(|token| lab.joined(token));
    lab.sync(&leader, &[]);
    let mut told = Ok(());
    for _ in 0..=(REBALANCE_MS / (SESSION_MS - 1)) {
        lab.pass(SESSION_MS - 1);
        told = lab.heartbeat(&leader);
        let _ = lab.heartbeat(&follower);
    }
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
    assert_eq!(lab.heartbeat(&follower), Err(GroupError::UnknownMember));
}

#[test]
fn a_new_member_that_vanished_while_waiting_does_not_stay_for_ever() {
    let (mut lab, joined) = Lab::stable(&["a"]);
    let ghost = lab.join(member("ghost"));
    for _ in 0..=(NEW_MEMBER_JOIN_TIMEOUT_MS / (SESSION_MS - 1)) {
        lab.pass(SESSION_MS - 1);
        let _ = lab.heartbeat(&joined[0]);
    }
    assert!(!lab.is_waiting(ghost));
    lab.pass(NEW_MEMBER_JOIN_TIMEOUT_MS);
    assert_eq!(lab.group.state(), State::Empty);
}

#[test]
fn the_last_to_leave_empties_the_group_and_its_record_is_stored() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    let stores = lab.stores;
    lab.leave(&joined[0].member_id).unwrap();
    assert_eq!(
        lab.heartbeat(&joined[1]),
        Err(GroupError::RebalanceInProgress)
    );
    lab.leave(&joined[1].member_id).unwrap();
    assert_eq!(lab.group.state(), State::Empty);
    assert_eq!(lab.stores, stores + 1);
    assert_eq!(
        lab.leave(&joined[1].member_id),
        Err(GroupError::UnknownMember)
    );
    assert!(lab.group.is_vacant());
    assert_eq!(
        lab.group.deadline().filter(|at| *at < lab.now.mono_ms),
        None
    );
}

#[test]
fn when_the_leader_leaves_another_leads() {
    let (mut lab, joined) = Lab::stable(&["a", "b", "c"]);
    lab.leave(&joined[0].member_id).unwrap();
    let next = rejoin(&mut lab, &["b", "c"], &joined[1..]);
    assert_eq!((next[0].generation, next[0].leader.as_str()), (2, "b-1"));
    assert_eq!((next[0].members.len(), next[1].members.len()), (2, 0));
}

#[test]
fn static_members_that_are_late_stay_until_their_session_ends() {
    let mut lab = Lab::eager();
    let first = lab.join(static_member("i", "1"));
    let first = lab.joined(first);
    lab.sync(&first, &[]);
    let second = lab.join(static_member("j", "1"));
    assert!(lab.is_waiting(second));
    // The first one is alive but busy: it heartbeats and does not rejoin.
    let mut alive = claim(&first);
    alive.instance_id = Some("i".to_owned());
    for _ in 0..=(REBALANCE_MS / (SESSION_MS - 1)) {
        lab.pass(SESSION_MS - 1);
        let _ = lab.group.on_heartbeat(lab.now, &alive);
    }
    let second = lab.joined(second);
    assert_eq!(
        second.leader, second.member_id,
        "the one that rejoined leads"
    );
    assert_eq!(second.members.len(), 2, "the late one is still assigned to");
}

#[test]
fn commits_are_admitted_from_members_of_this_generation_or_while_the_group_is_empty() {
    let anybody = Claim {
        generation: -1,
        ..Claim::default()
    };
    let mut lab = Lab::eager();
    assert_eq!(lab.group.on_commit(lab.now, &anybody), Ok(()));
    let token = lab.join(member("a"));
    let joined = lab.joined(token);
    let mine = claim(&joined);
    assert_eq!(
        lab.group.on_commit(lab.now, &anybody),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        lab.group.on_commit(lab.now, &mine),
        Err(GroupError::RebalanceInProgress),
        "it has to sync first"
    );
    lab.sync(&joined, &[]);
    assert_eq!(lab.group.on_commit(lab.now, &mine), Ok(()));
    lab.join(member("b"));
    assert_eq!(
        lab.group.on_commit(lab.now, &mine),
        Ok(()),
        "the last chance before a rebalance"
    );
}

#[test]
fn too_large_an_assignment_is_refused_and_the_group_goes_on() {
    let mut lab = Lab::eager();
    let token = lab.join(member("a"));
    let joined = lab.joined(token);
    lab.config.max_metadata_bytes = 20;
    let token = lab.sync(&joined, &[("a-1", "twelve bytes and more")]);
    assert_eq!(lab.sync_reply(token), Err(GroupError::AssignmentTooLarge));
    let next = rejoin(&mut lab, &["a"], &[joined]);
    let token = lab.sync(&next[0], &[("a-1", "short")]);
    assert!(lab.sync_reply(token).is_ok());
}

#[test]
fn a_restored_group_goes_on_where_it_was() {
    let (mut lab, joined) = Lab::stable(&["a", "b"]);
    lab.group = ClassicGroup::restore(lab.now, lab.group.record());
    assert_eq!(lab.group.state(), State::Stable);
    assert_eq!(lab.heartbeat(&joined[0]), Ok(()));
    assert_eq!(lab.heartbeat(&joined[1]), Ok(()));
    lab.pass(SESSION_MS);
    assert_eq!(lab.group.state(), State::Empty, "nobody came back");
}
