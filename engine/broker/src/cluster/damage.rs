//! What becomes of copies that can go on no more. Those whose disk has no room leave ISR, and another leads
//! what they led. What becomes of damaged copies: they leave ISR and ELR, another copy leads, and then they may be
//! thrown away as far as they are broken, to be fetched anew. Pure.
//!
//! All of it happens only if another copy is there that has everything and of which no damage is known:
//! without one, what is left of this one is the best that there is, and it stays what it is. A copy that
//! is thrown away must count for nothing, so the leadership begins anew with its leave: what it has said
//! of its log in a leader epoch before that one is refused.

use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_ring::planted;
use ringmill_wire::Uuid;

use super::changes::Changes;
use super::command::Command;
use super::image::{Image, Topic};
use super::members::change_of;

/// A damaged copy, as its node tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedCopy {
    /// Its topic.
    pub topic: Uuid,
    /// Its number.
    pub partition: i32,
    /// The leader epoch that the node knows.
    pub leader_epoch: i32,
    /// The leader may have been told in that epoch how far the copy goes.
    pub has_fetched: bool,
    /// It is whole, but its disk has no room for more.
    pub is_full: bool,
}

/// What is to become of a damaged copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Its topic.
    pub topic: Uuid,
    /// Its number.
    pub partition: i32,
    /// In this leader epoch it may be thrown away; none if it is to be kept as it is.
    pub repair_in: Option<i32>,
}

/// Whether a node's copy of a partition is whole, as far as is known.
pub type IsWhole<'a> = &'a dyn Fn(NodeId, (Uuid, i32)) -> bool;

/// What becomes of a node's damaged copies, and the commands that make it so. Of a copy that there is no
/// word of, the node knows less than the metadata, and is to tell again.
pub fn decide(
    image: &Image,
    node: NodeId,
    copies: &[DamagedCopy],
    is_whole: IsWhole<'_>,
) -> (Vec<Verdict>, Vec<Command>) {
    let mut changes = Changes::default();
    let verdicts = copies.iter().filter_map(|copy| {
        let topic = image.topic_by_id(copy.topic)?;
        let state = topic.partition(copy.partition)?;
        let id = (copy.topic, copy.partition);
        let is_known = copy.leader_epoch == state.leader_epoch;
        if !is_known || !state.replicas.contains(&node) || changes.contains(id.0, id.1) {
            return None;
        }
        let is_good =
            |other: NodeId| other != node && image.is_usable(other) && is_whole(other, id);
        if copy.is_full {
            let next = leave_full(topic, state, node, &is_good)?;
            // What it has stays: there is nothing to say of it.
            _ = changes.add(id.0, id.1, next);
            return None;
        }
        let repair_in = match decide_one(topic, state, node, copy.has_fetched, &is_good) {
            Decision::Keep => None,
            Decision::Repair => Some(state.leader_epoch),
            Decision::Leave(next) => {
                let epoch = next.leader_epoch;
                changes.add(id.0, id.1, next).ok()?;
                Some(epoch)
            }
        };
        Some(Verdict {
            topic: copy.topic,
            partition: copy.partition,
            repair_in,
        })
    });
    let verdicts = verdicts.collect();
    (verdicts, changes.commands())
}

enum Decision {
    /// There is no better copy.
    Keep,
    /// It counts for nothing: it may go.
    Repair,
    /// It is to count for nothing first.
    Leave(PartitionState),
}

fn decide_one(
    topic: &Topic,
    state: &PartitionState,
    node: NodeId,
    has_fetched: bool,
    is_good: &dyn Fn(NodeId) -> bool,
) -> Decision {
    let leads = state.leader == Some(node);
    if planted("damaged-copy-leads") && leads {
        return Decision::Keep;
    }
    if planted("repair-counts-before-fetched") {
        return Decision::Repair;
    }
    let counts = leads || state.isr.contains(&node) || state.elr.contains(&node);
    // Beside an ISR too small for an acknowledgement, who is eligible has all that was acknowledged too.
    let mut has_everything = state.isr.iter().chain(&state.elr);
    if !has_everything.any(|other| is_good(*other)) {
        return Decision::Keep;
    }
    if !counts && !has_fetched {
        return match state.leader.is_some_and(is_good) {
            true => Decision::Repair,
            false => Decision::Keep,
        };
    }
    let gone = [node];
    let change = change_of(topic, state, is_good).lossy(&gone).begin_anew();
    match change.build() {
        Some(next) if next.leader.is_some_and(is_good) => Decision::Leave(next),
        _ => Decision::Keep,
    }
}

/// A copy that takes no more keeps nobody waiting: another one that has everything leads, and it is in
/// sync no more. It stays as good as it was when it left.
fn leave_full(
    topic: &Topic,
    state: &PartitionState,
    node: NodeId,
    is_good: &dyn Fn(NodeId) -> bool,
) -> Option<PartitionState> {
    if !state.isr.contains(&node) || !state.isr.iter().any(|other| is_good(*other)) {
        return None;
    }
    let change = change_of(topic, state, is_good).leave(&[node]);
    let next = change.build()?;
    next.leader.is_some_and(is_good).then_some(next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use ringmill_replication::nodes::Registration;
    use ringmill_replication::quorum::Address;

    use super::super::members::{fence, register, unfence};
    use super::*;
    use crate::config::{BrokerConfig, Overrides};

    const TOPIC: Uuid = Uuid::from_u128(1);

    /// Nodes 1 to 3 that are up, all with a copy.
    struct Lab {
        config: BrokerConfig,
        image: Image,
        /// Whose copies are damaged, as far as is known.
        damaged: BTreeSet<NodeId>,
    }

    impl Lab {
        fn new() -> Self {
            let config = BrokerConfig::default();
            let image = Image::new(&config);
            let damaged = BTreeSet::new();
            let mut lab = Self {
                config,
                image,
                damaged,
            };
            for node in 1..=3 {
                let registration = Registration {
                    node,
                    folder: node as u128,
                    address: Address {
                        host: "h".to_owned(),
                        port: node as u16,
                    },
                    rack: None,
                    supported: ringmill_wire::features::supported(),
                    lost_unflushed: false,
                };
                lab.apply(register(&lab.image, registration).unwrap());
                lab.apply(unfence(&lab.image, node));
            }
            lab.apply(vec![Command::CreateTopic {
                id: TOPIC,
                name: "t".to_owned(),
                partitions: vec![PartitionState::new(vec![1, 2, 3], |_| true)],
                overrides: Overrides::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
            }]);
            lab
        }

        fn apply(&mut self, commands: Vec<Command>) {
            for command in commands {
                self.image.apply(&self.config, &command).unwrap();
            }
        }

        fn state(&self) -> Arc<PartitionState> {
            let topic = self.image.topic_by_id(TOPIC).unwrap();
            Arc::clone(topic.partition(0).unwrap())
        }

        /// A node tells of its copy; gives the epoch in which it may be thrown away.
        fn tell(&mut self, node: NodeId, has_fetched: bool) -> Option<i32> {
            self.damaged.insert(node);
            let copy = DamagedCopy {
                topic: TOPIC,
                partition: 0,
                leader_epoch: self.state().leader_epoch,
                has_fetched,
                is_full: false,
            };
            let is_whole = |other, _| !self.damaged.contains(&other);
            let (verdicts, commands) = decide(&self.image, node, &[copy], &is_whole);
            self.apply(commands);
            assert_eq!(verdicts.len(), 1);
            verdicts[0].repair_in
        }
    }

    impl Lab {
        /// A node tells that its disk has no room for more of its copy.
        fn tell_full(&mut self, node: NodeId) -> Vec<Option<i32>> {
            self.damaged.insert(node);
            let copy = DamagedCopy {
                topic: TOPIC,
                partition: 0,
                leader_epoch: self.state().leader_epoch,
                has_fetched: true,
                is_full: true,
            };
            let is_whole = |other, _| !self.damaged.contains(&other);
            let (verdicts, commands) = decide(&self.image, node, &[copy], &is_whole);
            self.apply(commands);
            verdicts.iter().map(|verdict| verdict.repair_in).collect()
        }
    }

    #[test]
    fn another_copy_leads_and_the_damaged_one_counts_for_nothing() {
        let mut lab = Lab::new();
        assert_eq!(lab.tell(1, false), Some(1));
        let state = lab.state();
        assert_eq!((state.leader, state.leader_epoch), (Some(2), 1));
        assert_eq!((&state.isr[..], &state.elr[..]), (&[2, 3][..], &[][..]));
    }

    #[test]
    fn a_followers_leave_begins_the_leadership_anew() {
        let mut lab = Lab::new();
        assert_eq!(lab.tell(3, true), Some(1));
        let state = lab.state();
        assert_eq!((state.leader, state.leader_epoch), (Some(1), 1));
        assert_eq!(state.isr, [1, 2]);
        // Out already: it may go, unless the leader may believe it again.
        assert_eq!(lab.tell(3, false), Some(1));
        assert_eq!(lab.state(), state);
        assert_eq!(lab.tell(3, true), Some(2));
        assert_eq!(lab.state().leader_epoch, 2);
    }

    #[test]
    fn a_small_isr_keeps_no_damaged_copy_eligible() {
        let mut lab = Lab::new();
        lab.apply(fence(&lab.image, 3));
        lab.tell(1, false);
        let state = lab.state();
        assert_eq!((&state.isr[..], &state.elr[..]), (&[2][..], &[][..]));
    }

    #[test]
    fn without_a_whole_copy_in_sync_it_stays_what_it_is() {
        let mut lab = Lab::new();
        lab.apply(fence(&lab.image, 2));
        lab.apply(fence(&lab.image, 3));
        let before = lab.state();
        assert_eq!((before.leader, &before.isr[..]), (Some(1), &[1][..]));
        assert_eq!(lab.tell(1, false), None);
        assert_eq!(lab.state(), before);
        // One that is there, and is not in sync, is no better.
        lab.apply(unfence(&lab.image, 2));
        assert_eq!(lab.tell(1, false), None);
        // Nor is one that is damaged itself; and it is not to be thrown away for the leader's sake.
        assert_eq!(lab.tell(2, false), None);
        assert_eq!(lab.state(), before);
    }

    #[test]
    fn an_eligible_copy_takes_over_from_the_last_one_in_sync() {
        let mut lab = Lab::new();
        lab.apply(fence(&lab.image, 2));
        lab.apply(fence(&lab.image, 3));
        lab.apply(unfence(&lab.image, 3));
        let before = lab.state();
        assert_eq!((&before.isr[..], &before.elr[..]), (&[1][..], &[3][..]));
        assert_eq!(lab.tell(1, true), Some(before.leader_epoch + 1));
        let state = lab.state();
        assert_eq!((state.leader, &state.isr[..]), (Some(3), &[3][..]));
        assert!(state.elr.is_empty(), "nothing of the damaged copy counts");
    }

    #[test]
    fn of_damaged_copies_the_whole_one_leads() {
        let mut lab = Lab::new();
        lab.damaged.insert(2);
        assert_eq!(lab.tell(1, false), Some(1));
        assert_eq!(lab.state().leader, Some(3));
        assert_eq!(lab.tell(2, true), Some(2));
        let state = lab.state();
        assert_eq!((state.leader, &state.isr[..]), (Some(3), &[3][..]));
    }

    #[test]
    fn a_copy_without_room_keeps_nobody_waiting_and_stays_eligible() {
        let mut lab = Lab::new();
        assert_eq!(lab.tell_full(1), []);
        let state = lab.state();
        assert_eq!((state.leader, state.leader_epoch), (Some(2), 1));
        assert_eq!((&state.isr[..], &state.elr[..]), (&[2, 3][..], &[][..]));
        // A follower leaves in the same leadership; what everybody had acknowledged, it has.
        assert_eq!(lab.tell_full(3), []);
        let state = lab.state();
        assert_eq!((state.leader, state.leader_epoch), (Some(2), 1));
        assert_eq!((&state.isr[..], &state.elr[..]), (&[2][..], &[3][..]));
        // Nobody else could go on.
        assert_eq!(lab.tell_full(2), []);
        assert_eq!(lab.state(), state);
    }

    #[test]
    fn what_is_older_than_the_metadata_is_passed_over() {
        let lab = Lab::new();
        let copy = DamagedCopy {
            topic: TOPIC,
            partition: 0,
            leader_epoch: -1,
            has_fetched: false,
            is_full: false,
        };
        let unknown = DamagedCopy {
            partition: 1,
            ..copy
        };
        let decided = decide(&lab.image, 1, &[copy, unknown], &|_, _| true);
        assert_eq!(decided, (Vec::new(), Vec::new()));
    }
}
