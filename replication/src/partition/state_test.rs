//! The rules by example, and by a model: logs that grow only as acknowledgements do, and leaders that
//! must have all of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn all(_: NodeId) -> bool {
    true
}

fn three() -> PartitionState {
    PartitionState::new(vec![1, 2, 3], all)
}

#[test]
fn a_partition_begins_with_those_who_are_there() {
    let state = PartitionState::new(vec![1, 2, 3], |node| node != 1);
    assert_eq!((state.leader, &state.isr[..]), (Some(2), &[2, 3][..]));
    assert_eq!(PartitionState::new(vec![1], |_| false).leader, None);
}

#[test]
fn who_is_gone_leaves_and_the_next_in_sync_leads() {
    let before = three();
    let alive = |node| node != 1;
    let after = Change::of(&before, 2, &alive).leave(&[1]).build().unwrap();
    assert_eq!((after.leader, &after.isr[..]), (Some(2), &[2, 3][..]));
    assert_eq!((after.leader_epoch, after.partition_epoch), (1, 1));
    assert!(after.elr.is_empty(), "two are enough");
    assert_eq!(Change::of(&after, 2, &alive).leave(&[1]).build(), None);

    let alive = |node| node == 3;
    let after = Change::of(&after, 2, &alive).leave(&[2]).build().unwrap();
    assert_eq!(
        (after.leader, &after.isr[..], &after.elr[..]),
        (Some(3), &[3][..], &[2][..])
    );
    let nobody = |_| false;
    let after = Change::of(&after, 2, &nobody).leave(&[3]).build().unwrap();
    assert_eq!((after.leader, after.last_leader), (None, Some(3)));
    assert_eq!((&after.isr[..], &after.elr[..]), (&[][..], &[2, 3][..]));
    // Either may come back first.
    let alive = |node| node == 2;
    let after = Change::of(&after, 2, &alive).build().unwrap();
    assert_eq!(
        (after.leader, &after.isr[..], &after.elr[..]),
        (Some(2), &[2][..], &[3][..])
    );
    assert_eq!(after.last_leader, None);
}

#[test]
fn who_has_lost_its_disk_leads_only_when_that_is_asked_for() {
    let before = PartitionState {
        isr: vec![1],
        ..three()
    };
    let after = Change::of(&before, 1, &all).lossy(&[1]).build().unwrap();
    assert_eq!(
        (after.leader, &after.isr[..], &after.elr[..]),
        (None, &[][..], &[][..])
    );
    assert_eq!(Change::of(&after, 1, &all).build(), None);
    let change = Change::of(&after, 1, &all).election(Election::Unclean);
    let after = change.build().unwrap();
    assert_eq!(
        (after.leader, after.is_recovering),
        (Some(1), true),
        "the last leader first"
    );
    let after = Change::of(&after, 1, &all).recovered().build().unwrap();
    assert!(!after.is_recovering);
}

#[test]
fn the_preferred_leader_takes_over_once_it_is_in_sync() {
    let before = PartitionState {
        leader: Some(2),
        isr: vec![2, 3],
        ..three()
    };
    let preferred = |before| {
        Change::of(before, 1, &all)
            .election(Election::Preferred)
            .build()
    };
    assert_eq!(preferred(&before), None);
    let after = Change::of(&before, 1, &all)
        .isr(vec![2, 3, 1])
        .build()
        .unwrap();
    assert_eq!(
        (after.leader, after.leader_epoch),
        (Some(2), 0),
        "a leader that can stays"
    );
    let after = preferred(&after).unwrap();
    assert_eq!((after.leader, after.leader_epoch), (Some(1), 1));
}

#[test]
fn a_reassignment_ends_when_all_of_the_new_are_in_sync() {
    let before = three();
    let change = Change::of(&before, 2, &all).reassign(&[4, 5, 3]);
    let moving = change.build().unwrap();
    assert_eq!(moving.replicas, [4, 5, 3, 1, 2]);
    assert_eq!(
        (&moving.adding[..], &moving.removing[..]),
        (&[4, 5][..], &[1, 2][..])
    );
    assert_eq!((moving.leader, moving.leader_epoch), (Some(1), 0));
    assert_eq!(
        (moving.target(), moving.original()),
        (vec![4, 5, 3], vec![3, 1, 2])
    );

    let half = Change::of(&moving, 2, &all)
        .isr(vec![1, 2, 3, 4])
        .build()
        .unwrap();
    assert!(half.is_reassigning());
    let after = Change::of(&half, 2, &all)
        .isr(vec![1, 2, 3, 4, 5])
        .build()
        .unwrap();
    assert_eq!(
        (&after.replicas[..], after.is_reassigning()),
        (&[4, 5, 3][..], false)
    );
    assert_eq!((&after.isr[..], after.leader), (&[3, 4, 5][..], Some(4)));

    let back = Change::of(&half, 2, &all)
        .cancel_reassignment()
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(
        (&back.replicas[..], &back.isr[..]),
        (&[3, 1, 2][..], &[1, 2, 3][..])
    );
    assert_eq!(
        back.leader_epoch,
        half.leader_epoch + 1,
        "4 may not be believed any more"
    );
}

#[test]
fn the_only_copy_is_not_given_up() {
    let moving = PartitionState {
        replicas: vec![4, 5, 1, 2],
        adding: vec![4, 5],
        removing: vec![1, 2],
        isr: vec![4],
        leader: Some(4),
        ..three()
    };
    let change = || Change::of(&moving, 1, &all);
    assert_eq!(change().cancel_reassignment().err(), Some(OnlyCopies));
    let unclean = change().election(Election::Unclean).cancel_reassignment();
    let after = unclean.unwrap().build().unwrap();
    assert_eq!((after.leader, &after.isr[..]), (Some(1), &[1][..]));
    assert!(after.is_recovering);
}

/// The new one takes the place of the old, whose copies stay until it ends.
#[test]
fn a_reassignment_takes_the_place_of_another() {
    let before = three();
    let first = Change::of(&before, 1, &all).reassign(&[4, 2, 3]);
    let first = first.build().unwrap();
    let alone = PartitionState {
        isr: vec![4],
        leader: Some(4),
        ..first
    };
    let second = Change::of(&alone, 1, &all).reassign(&[5, 2, 3]);
    let second = second.build().unwrap();
    assert_eq!(second.replicas, [5, 2, 3, 1, 4]);
    assert_eq!(
        (&second.adding[..], &second.removing[..]),
        (&[4, 5][..], &[1, 4][..])
    );
    assert_eq!(second.leader, Some(4), "nobody else has everything");
    assert_eq!(second.original(), [2, 3, 1]);
    let ended = Change::of(&second, 1, &all).isr(vec![4, 2, 3, 5]);
    let ended = ended.build().unwrap();
    assert_eq!(ended.replicas, [5, 2, 3]);
    assert_eq!((ended.leader, &ended.isr[..]), (Some(5), &[2, 3, 5][..]));
}

/// Back to where it began, it has ended.
#[test]
fn a_reassignment_to_what_is_in_sync_ends_at_once() {
    let before = three();
    let moving = Change::of(&before, 2, &all).reassign(&[1, 2, 4]);
    let moving = moving.build().unwrap();
    let back = Change::of(&moving, 2, &all).reassign(&[3, 2, 1]);
    let back = back.build().unwrap();
    assert_eq!(
        (&back.replicas[..], back.is_reassigning(), back.leader),
        (&[3, 2, 1][..], false, Some(1))
    );
    assert_eq!(back.leader_epoch, moving.leader_epoch + 1, "4 is out");
}

#[test]
fn whoever_left_under_a_larger_min_isr_is_not_eligible_under_a_smaller_one() {
    let before = PartitionState {
        isr: vec![1],
        elr: vec![2],
        ..three()
    };
    let alive = |node| node != 1;
    let after = Change::of(&before, 1, &alive).leave(&[1]).build().unwrap();
    assert_eq!((after.leader, &after.elr[..]), (None, &[1][..]));
}

/// What happens to the partition of a model.
#[derive(Debug, Clone)]
enum Event {
    Append,
    Fence(NodeId),
    Unfence(NodeId),
    /// It comes back without its disk.
    Lose(NodeId),
    /// The leader takes a follower out of the ISR, or one that has caught up in.
    Shrink(NodeId),
    Expand(NodeId),
    Reassign(Vec<NodeId>),
    Cancel,
    Elect(Election),
    MinIsr(usize),
}

const NODES: NodeId = 5;

fn event() -> impl Strategy<Value = Event> {
    let node = 1..=NODES;
    let nodes = proptest::sample::subsequence((1..=NODES).collect::<Vec<_>>(), 1..=3);
    let election = prop_oneof![Just(Election::Online), Just(Election::Preferred)];
    prop_oneof![
        4 => Just(Event::Append),
        2 => node.clone().prop_map(Event::Fence),
        3 => node.clone().prop_map(Event::Unfence),
        1 => node.clone().prop_map(Event::Lose),
        1 => node.clone().prop_map(Event::Shrink),
        3 => node.prop_map(Event::Expand),
        1 => nodes.prop_map(Event::Reassign),
        1 => Just(Event::Cancel),
        1 => election.prop_map(Event::Elect),
        1 => (1..4_usize).prop_map(Event::MinIsr),
    ]
}

/// Nodes with logs, of which only the lengths matter.
struct Model {
    state: PartitionState,
    min_isr: usize,
    fenced: BTreeSet<NodeId>,
    logs: BTreeMap<NodeId, u64>,
    acknowledged: u64,
}

impl Model {
    fn change(&mut self, build: impl FnOnce(Change<'_>) -> Change<'_>) {
        let (before, fenced) = (self.state.clone(), self.fenced.clone());
        let may_lead = |node: NodeId| !fenced.contains(&node);
        if let Some(next) = build(Change::of(&before, self.min_isr, &may_lead)).build() {
            self.check_step(&before, &next);
            self.state = next;
        }
    }

    fn move_copies(
        &mut self,
        build: impl for<'a> FnOnce(Change<'a>) -> Result<Change<'a>, OnlyCopies>,
    ) {
        let (before, fenced) = (self.state.clone(), self.fenced.clone());
        let may_lead = |node: NodeId| !fenced.contains(&node);
        let change = build(Change::of(&before, self.min_isr, &may_lead));
        if let Some(next) = change.ok().and_then(Change::build) {
            self.check_step(&before, &next);
            let had_some = !before.isr.is_empty() || !before.elr.is_empty();
            let has_some = !next.isr.is_empty() || !next.elr.is_empty();
            assert!(has_some || !had_some, "{before:?} to {next:?}");
            self.state = next;
        }
    }

    fn check_step(&self, before: &PartitionState, next: &PartitionState) {
        assert_eq!(next.partition_epoch, before.partition_epoch + 1);
        assert!(
            next.leader_epoch == before.leader_epoch
                || next.leader_epoch == before.leader_epoch + 1
        );
        if next.leader != before.leader {
            assert_eq!(next.leader_epoch, before.leader_epoch + 1);
        }
        let distinct =
            |nodes: &[NodeId]| nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len();
        for part in [&next.isr, &next.elr, &next.adding, &next.removing] {
            assert!(
                distinct(part) && part.iter().all(|node| next.replicas.contains(node)),
                "{next:?}"
            );
        }
        assert!(
            distinct(&next.replicas) && !next.replicas.is_empty(),
            "{next:?}"
        );
        assert!(
            next.isr.iter().all(|node| !next.elr.contains(node)),
            "{next:?}"
        );
        assert!(
            next.leader.is_none_or(|leader| next.isr.contains(&leader)),
            "{next:?}"
        );
        assert!(!next.is_recovering, "nobody asked for it");
        if next.isr.len() >= self.min_isr {
            assert!(next.elr.is_empty(), "{next:?}");
        }
    }

    /// Everybody who may lead without a loss has all that was acknowledged.
    fn check(&self) {
        for node in self.state.isr.iter().chain(&self.state.elr) {
            let log = self.logs.get(node).copied().unwrap_or(0);
            assert!(
                log >= self.acknowledged,
                "{node} has {log} of {}: {:?}",
                self.acknowledged,
                self.state
            );
        }
    }

    fn take(&mut self, event: Event) {
        let leads = self.state.leader;
        match event {
            Event::Append => {
                let min_isr = self.min_isr.min(self.state.replicas.len());
                if leads.is_some() && self.state.isr.len() >= min_isr {
                    self.acknowledged += 1;
                    for node in &self.state.isr {
                        self.logs.insert(*node, self.acknowledged);
                    }
                }
            }
            Event::Fence(node) => {
                self.fenced.insert(node);
                self.change(|change| change.leave(&[node]));
            }
            Event::Unfence(node) => {
                self.fenced.remove(&node);
                self.change(|change| change);
            }
            Event::Lose(node) => {
                self.logs.remove(&node);
                let lossy = [node];
                let (before, fenced) = (self.state.clone(), self.fenced.clone());
                let may_lead = |node: NodeId| !fenced.contains(&node);
                let change = Change::of(&before, self.min_isr, &may_lead).lossy(&lossy);
                if let Some(next) = change.build() {
                    self.check_step(&before, &next);
                    self.state = next;
                }
            }
            Event::Shrink(node) if leads.is_some() && leads != Some(node) => {
                self.change(|change| change.leave(&[node]));
            }
            Event::Expand(node) if leads.is_some() => {
                let is_new = self.state.replicas.contains(&node) && !self.state.isr.contains(&node);
                if is_new && !self.fenced.contains(&node) {
                    self.logs.insert(node, self.acknowledged);
                    let isr = [&self.state.isr[..], &[node]].concat();
                    self.change(|change| change.isr(isr));
                }
            }
            Event::Reassign(target) => self.move_copies(|change| Ok(change.reassign(&target))),
            Event::Cancel => self.move_copies(|change| change.cancel_reassignment()),
            // The cluster's news of it and the leader's are one.
            Event::MinIsr(min_isr) => {
                self.min_isr = min_isr;
                self.change(|change| change);
            }
            Event::Elect(election) => self.change(|change| change.election(election)),
            Event::Shrink(_) | Event::Expand(_) => {}
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whoever_may_lead_has_all_that_was_acknowledged(
        min_isr in 1..4_usize,
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut model = Model {
            state: three(),
            min_isr,
            fenced: BTreeSet::new(),
            logs: BTreeMap::new(),
            acknowledged: 0,
        };
        for event in events {
            model.take(event);
        }
    }
}
