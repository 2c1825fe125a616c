//! The rules by example.

use super::*;

const LAG: u64 = 1000;

fn state(isr: &[NodeId], partition_epoch: i32) -> PartitionState {
    PartitionState {
        replicas: vec![1, 2, 3],
        isr: isr.to_vec(),
        leader: Some(1),
        leader_epoch: 4,
        partition_epoch,
        ..PartitionState::default()
    }
}

fn leader(isr: &[NodeId], min_isr: usize) -> Leader {
    Leader::new(1, &state(isr, 7), min_isr, (10, 10, 5), LAG, 0)
}

#[test]
fn what_all_in_sync_have_is_safe() {
    let mut leader = leader(&[1, 2, 3], 2);
    assert_eq!(leader.high_watermark(), 5);
    assert_eq!(
        leader.on_fetch((2, 0), 10, 10, 1),
        Ok((None, None)),
        "3 has not been heard of"
    );
    assert_eq!(leader.on_fetch((3, 0), 8, 8, 1), Ok((Some(8), None)));
    assert_eq!(leader.on_own_end(20, 12, 2), None);
    assert_eq!(
        leader.on_fetch((3, 0), 20, 15, 3),
        Ok((Some(10), None)),
        "2 has 10"
    );
    assert_eq!(
        leader.on_fetch((2, 0), 20, 20, 3),
        Ok((Some(12), None)),
        "of its own, 12 are durable"
    );
    assert_eq!(leader.on_own_end(20, 20, 4), Some(15));
    assert_eq!(
        leader.on_fetch((9, 0), 20, 20, 3),
        Err(FetchRefused::NotAReplica)
    );
}

#[test]
fn a_fetch_from_further_on_does_not_make_its_bytes_durable() {
    let mut leader = leader(&[1, 2], 1);
    assert_eq!(leader.on_fetch((2, 0), 10, 6, 1), Ok((Some(6), None)));
    assert_eq!(
        leader.on_fetch((2, 0), 9, 99, 1),
        Ok((Some(9), None)),
        "nor does a claim of more"
    );
}

#[test]
fn too_few_in_sync_move_nothing() {
    let mut leader = leader(&[1], 2);
    assert!(!leader.has_min_isr());
    assert_eq!(leader.on_own_end(20, 20, 0), None);
    assert_eq!(leader.set_min_isr(1), Some(20));
}

#[test]
fn a_follower_that_has_caught_up_is_proposed_once_and_counts_at_once() {
    let mut leader = leader(&[1, 2], 1);
    leader.on_fetch((2, 0), 10, 10, 1).unwrap();
    assert_eq!(
        leader.on_fetch((3, 0), 7, 7, 1),
        Ok((None, None)),
        "10 are safe"
    );
    let (_, proposal) = leader.on_fetch((3, 0), 10, 10, 2).unwrap();
    let proposal = proposal.unwrap();
    assert_eq!(
        (&proposal.isr[..], proposal.partition_epoch),
        (&[1, 2, 3][..], 7)
    );
    assert_eq!(
        leader.on_fetch((3, 0), 10, 10, 3),
        Ok((None, None)),
        "one at a time"
    );
    leader.on_own_end(12, 12, 3);
    assert_eq!(
        leader.on_fetch((2, 0), 12, 12, 4),
        Ok((None, None)),
        "3 counts already"
    );
    assert_eq!(leader.on_state(&state(&[1, 2, 3], 8), 5), None);
    assert_eq!(leader.proposed(), None);
    assert_eq!(leader.on_fetch((3, 0), 12, 12, 6), Ok((Some(12), None)));
}

#[test]
fn one_that_the_cluster_has_fenced_is_not_proposed() {
    let mut leader = leader(&[1, 2], 1);
    leader.set_eligible(3, false, 0);
    leader.on_fetch((2, 0), 10, 10, 1).unwrap();
    assert_eq!(leader.on_fetch((3, 0), 10, 10, 1), Ok((None, None)));
    leader.set_eligible(3, true, 1);
    assert!(leader.on_fetch((3, 0), 10, 10, 1).unwrap().1.is_some());
}

#[test]
fn an_earlier_life_of_a_node_is_not_believed() {
    let mut leader = leader(&[1, 2], 1);
    leader.on_fetch((2, 0), 10, 10, 1).unwrap();
    let (_, proposal) = leader.on_fetch((3, 4), 10, 10, 1).unwrap();
    assert_eq!(proposal.unwrap().joining, Some((3, 4)));
    assert_eq!(
        leader.on_fetch((3, 3), 10, 10, 1),
        Err(FetchRefused::StaleNode)
    );
}

#[test]
fn one_that_is_not_let_in_counts_until_no_copy_of_the_proposal_does() {
    let mut leader = leader(&[1], 1);
    leader.on_fetch((2, 0), 10, 10, 0).unwrap();
    let mut later = LAG + 1;
    leader.on_own_end(20, 20, later);
    assert_eq!(leader.high_watermark(), 10);
    let withdrawal = leader.on_ineligible().unwrap();
    assert_eq!((&withdrawal.isr[..], withdrawal.joining), (&[1][..], None));
    assert_eq!(
        leader.proposed(),
        Some(withdrawal),
        "sent until it is agreed to"
    );
    assert_eq!(leader.on_own_end(21, 21, later), None);
    later += 1;
    assert_eq!(leader.on_state(&state(&[1], 8), later), Some(21));
    assert_eq!(leader.proposed(), None);
}

#[test]
fn one_that_joins_under_load_is_waited_for() {
    let mut leader = leader(&[1], 1);
    assert_eq!(
        leader.on_own_end(20, 20, 0),
        Some(20),
        "nobody else has been heard of"
    );
    leader.on_fetch((2, 0), 5, 5, 10).unwrap();
    assert_eq!(
        leader.on_own_end(30, 30, 11),
        Some(30),
        "a copy that is being made holds nobody up"
    );
    leader.on_fetch((2, 0), 20, 20, 12).unwrap();
    assert_eq!(leader.on_own_end(40, 40, 13), None, "2 is close");
    let (moved, proposal) = leader.on_fetch((2, 0), 30, 30, 14).unwrap();
    assert!(
        moved.is_none() && proposal.is_some(),
        "and has what is safe"
    );
    // but not for ever
    let mut leader = Leader::new(1, &state(&[1], 7), 1, (10, 10, 5), LAG, 0);
    leader.on_fetch((2, 0), 10, 10, 0).unwrap();
    assert_eq!(leader.on_ineligible().unwrap().isr, [1]);
    assert_eq!(leader.on_state(&state(&[1], 8), 1), None);
    assert_eq!(leader.on_own_end(50, 50, 1), None);
    assert_eq!(leader.on_own_end(51, 51, LAG + 1), Some(51));
}

#[test]
fn whoever_is_behind_for_too_long_is_to_leave_and_counts_until_it_has() {
    let mut leader = leader(&[1, 2, 3], 1);
    leader.on_own_end(20, 20, 0);
    leader.on_fetch((2, 0), 20, 20, 500).unwrap();
    leader.on_fetch((3, 0), 10, 10, 500).unwrap();
    assert_eq!(leader.on_tick(LAG), None);
    let proposal = leader.on_tick(LAG + 1).unwrap();
    assert_eq!(proposal.isr, [1, 2]);
    assert_eq!(leader.on_tick(LAG + 2), None, "one at a time");
    assert_eq!(leader.high_watermark(), 10);
    assert_eq!(leader.on_fetch((2, 0), 20, 20, LAG + 2), Ok((None, None)));
    assert_eq!(leader.on_state(&state(&[1, 2], 8), LAG + 3), Some(20));
    assert_eq!(
        leader.on_state(&state(&[1, 2, 3], 7), LAG + 3),
        None,
        "older news"
    );
    assert_eq!(leader.isr(), [1, 2]);
}

#[test]
fn a_follower_that_has_all_of_an_idle_log_stays() {
    let mut leader = leader(&[1, 2], 1);
    leader.on_fetch((2, 0), 10, 10, 0).unwrap();
    assert_eq!(leader.on_tick(100 * LAG), None);
}

#[test]
fn nobody_is_in_sync_before_the_leaders_own_start() {
    // The safe part is behind what the leader had when it was elected.
    let mut leader = Leader::new(1, &state(&[1], 7), 2, (10, 10, 5), LAG, 0);
    assert_eq!(leader.on_fetch((2, 0), 7, 7, 0), Ok((None, None)));
    assert!(leader.on_fetch((2, 0), 10, 10, 0).unwrap().1.is_some());
}

#[test]
fn logs_that_have_parted_are_told_where() {
    let fetch = |offset, last_epoch| Fetch {
        leader: 1,
        leader_epoch: 9,
        offset,
        last_epoch,
        durable_end: 0,
    };
    let told = |offset, last, found| parting(&fetch(offset, last), (10, 50), found);
    assert_eq!(told(50, 4, Some((4, 50))), None);
    assert_eq!(
        told(10, -1, None),
        None,
        "an empty log has parted from nothing"
    );
    let range = Answer::OutOfRange { start: 10, end: 50 };
    assert_eq!(told(9, 4, Some((4, 50))), Some(range));
    assert_eq!(told(51, -1, None), Some(range));
    let diverging = |epoch, end_offset| Some(Answer::Diverging { epoch, end_offset });
    assert_eq!(told(30, 4, Some((3, 40))), diverging(3, 40));
    assert_eq!(told(45, 4, Some((4, 40))), diverging(4, 40));
    assert_eq!(told(30, 4, None), diverging(-1, 10), "all here is later");
}

#[test]
fn a_new_leader_does_not_know_how_far_the_last_ones_high_watermark_was() {
    let mut leader = leader(&[1, 2], 2);
    assert!(leader.may_be_behind(), "5 of 10");
    leader.on_fetch((2, 0), 9, 9, 1).unwrap();
    assert!(leader.may_be_behind());
    leader.on_fetch((2, 0), 10, 10, 2).unwrap();
    assert!(!leader.may_be_behind());
}

#[test]
fn a_leader_whom_nobody_in_sync_asks_any_more_is_cut_off() {
    let mut leader = leader(&[1, 2], 2);
    assert!(!leader.is_cut_off(500, 500));
    assert!(leader.is_cut_off(500, 501), "since it began");
    leader.on_fetch((2, 0), 10, 10, 700).unwrap();
    leader.on_fetch((3, 0), 5, 5, 1_500).unwrap();
    assert!(!leader.is_cut_off(500, 1_200));
    assert!(leader.is_cut_off(500, 1_201), "3 is not in sync");
    leader.on_state(&state(&[1], 8), 2_000);
    assert!(!leader.is_cut_off(500, 9_000), "the cluster has told");
}

#[test]
fn consumers_read_from_who_is_near_and_has_what_they_want() {
    let mut leader = leader(&[1, 2, 3], 1);
    assert_eq!(
        leader.nearest(0, |_| true),
        None,
        "nobody has been heard of"
    );
    leader.on_fetch((2, 0), 10, 10, 1).unwrap();
    leader.on_fetch((3, 0), 8, 8, 1).unwrap();
    assert_eq!(leader.nearest(8, |_| true), Some(2));
    assert_eq!(leader.nearest(8, |node| node == 3), Some(3));
    assert_eq!(leader.nearest(9, |node| node == 3), None);
    leader.set_eligible(2, false, 1);
    assert_eq!(leader.nearest(9, |_| true), None);
    leader.on_state(&state(&[1, 2], 8), 2);
    assert_eq!(leader.nearest(8, |_| true), None, "3 is out of sync");
}

#[test]
fn who_has_left_is_not_waited_for_before_it_has_caught_up_again() {
    let mut leader = leader(&[1, 2, 3], 2);
    for node in [2, 3] {
        leader.on_fetch((node, 0), 10, 10, 1).unwrap();
    }
    leader.on_own_end(20, 20, 2);
    assert_eq!(leader.on_fetch((2, 0), 20, 20, 3), Ok((None, None)));
    // It has been up to date a moment ago, and is out by the cluster's will.
    assert_eq!(leader.on_state(&state(&[1, 2], 8), 4), Some(20));
    leader.on_own_end(30, 30, 5);
    leader.on_fetch((3, 0), 10, 10, 6).unwrap();
    let (moved, _) = leader.on_fetch((2, 0), 30, 30, 7).unwrap();
    assert_eq!(moved, Some(30));
    // About to come back, it is.
    let (_, proposal) = leader.on_fetch((3, 0), 30, 30, 8).unwrap();
    assert_eq!(proposal.unwrap().isr, [1, 2, 3]);
    leader.on_own_end(40, 40, 9);
    assert_eq!(leader.on_fetch((2, 0), 40, 40, 10), Ok((None, None)));
}
