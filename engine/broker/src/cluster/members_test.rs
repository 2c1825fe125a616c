//! Nodes come and go, and partitions with them.

use ringmill_replication::quorum::Address;

use super::*;
use crate::config::{BrokerConfig, Overrides};

const TOPIC: Uuid = Uuid::from_u128(1);

struct Lab {
    config: BrokerConfig,
    image: Image,
}

impl Lab {
    /// Nodes that are up, and a topic of which each partition is on the nodes given.
    fn new(nodes: &[NodeId], partitions: &[&[NodeId]]) -> Self {
        let config = BrokerConfig::default();
        let mut lab = Self {
            image: Image::new(&config),
            config,
        };
        for node in nodes {
            lab.register(*node, *node as u128);
            lab.apply(unfence(&lab.image, *node));
        }
        let state = |replicas: &&[NodeId]| PartitionState::new(replicas.to_vec(), |_| true);
        lab.apply(vec![Command::CreateTopic {
            id: TOPIC,
            name: "t".to_owned(),
            partitions: partitions.iter().map(state).collect(),
            overrides: Overrides::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
        }]);
        lab
    }

    fn apply(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.image.apply(&self.config, &command).unwrap();
        }
    }

    fn register(&mut self, node: NodeId, folder: u128) {
        self.register_as(node, folder, false);
    }

    fn register_as(&mut self, node: NodeId, folder: u128, lost_unflushed: bool) {
        let registration = Registration {
            node,
            folder,
            address: Address {
                host: "h".to_owned(),
                port: node as u16,
            },
            rack: None,
            supported: ringmill_wire::features::supported(),
            lost_unflushed,
        };
        self.apply(register(&self.image, registration).unwrap());
    }

    fn unfence(&mut self, node: NodeId) {
        self.apply(unfence(&self.image, node));
    }

    fn fence(&mut self, node: NodeId) {
        self.apply(fence(&self.image, node));
    }

    fn partition(&self, number: i32) -> PartitionState {
        let topic = self.image.topic("t").unwrap();
        PartitionState::clone(topic.partition(number).unwrap())
    }

    fn leader(&self, number: i32) -> (Option<NodeId>, i32) {
        let state = self.partition(number);
        (state.leader, state.leader_epoch)
    }
}

#[test]
fn the_next_in_sync_takes_over_and_the_first_comes_back_when_it_is_in_sync() {
    let mut lab = Lab::new(&[1, 2, 3], &[&[1, 2, 3]]);
    lab.fence(1);
    assert_eq!(lab.leader(0), (Some(2), 1));
    assert_eq!(lab.partition(0).isr, [2, 3]);
    lab.register(1, 1);
    lab.unfence(1);
    assert_eq!(lab.leader(0), (Some(2), 1), "it has to catch up first");
    assert_eq!(balance(&lab.image, 9), Elected::default());
    let before = lab.partition(0);
    let may_lead = |_: NodeId| true;
    let topic = lab.image.topic("t").unwrap();
    let joined = change_of(topic, &before, &may_lead).isr(vec![1, 2, 3]);
    let partitions = vec![(0, joined.build().unwrap())];
    let topic = TOPIC;
    lab.apply(vec![Command::SetPartitions { topic, partitions }]);
    let elected = balance(&lab.image, 9);
    assert_eq!((elected.count, elected.commands.len()), (1, 1));
    lab.apply(elected.commands);
    assert_eq!(lab.leader(0), (Some(1), 2));
}

/// What a leader had not flushed may be gone, and others may have it: a new life is a new epoch,
/// however short the pause.
#[test]
fn a_new_life_is_a_new_leader_epoch_unless_nobody_else_has_a_copy() {
    let mut lab = Lab::new(&[1, 2], &[&[1, 2], &[1]]);
    lab.register(1, 1);
    assert_eq!(lab.leader(0), (Some(2), 1));
    assert_eq!(lab.leader(1), (Some(1), 0), "nobody else has a copy");
    let epoch = lab.image.nodes()[&1].epoch;
    lab.unfence(1);
    lab.register(1, 1);
    assert!(lab.image.nodes()[&1].epoch > epoch);
}

#[test]
fn when_all_have_gone_whoever_was_in_sync_leads_again() {
    let mut lab = Lab::new(&[1, 2, 3], &[&[1, 2, 3], &[3]]);
    for node in [1, 2, 3] {
        lab.fence(node);
    }
    assert_eq!(lab.leader(0).0, None);
    assert_eq!(lab.leader(1).0, None);
    lab.register(1, 1);
    lab.unfence(1);
    assert_eq!(
        lab.leader(0).0,
        None,
        "it left while two others were in sync"
    );
    lab.register(2, 2);
    lab.unfence(2);
    assert_eq!(
        lab.leader(0).0,
        Some(2),
        "it left when nothing could be acknowledged without it"
    );
    lab.unfence(3);
    assert_eq!(lab.leader(1).0, Some(3));
}

/// Whoever has left is known no more, and may come with any folder: what partitions remember of it
/// does not count.
#[test]
fn whoever_had_left_comes_with_nothing() {
    let mut lab = Lab::new(&[1, 2, 3], &[&[1, 2, 3], &[1]]);
    for node in [3, 2, 1] {
        lab.fence(node);
    }
    assert_eq!(lab.partition(0).elr, [2, 1]);
    lab.apply(vec![Command::RemoveNode { node: 1 }]);
    lab.register(1, 77);
    lab.unfence(1);
    assert_eq!(
        lab.leader(0).0,
        None,
        "it may have lost what it had acknowledged"
    );
    assert_eq!(lab.leader(1).0, None);
    lab.unfence(2);
    assert_eq!(lab.leader(0).0, Some(2));
}

#[test]
fn whoever_comes_with_another_disk_leads_nothing() {
    let mut lab = Lab::new(&[1, 2], &[&[1, 2], &[1]]);
    lab.fence(1);
    lab.register(1, 77);
    lab.unfence(1);
    assert_eq!(lab.leader(0).0, Some(2));
    assert_eq!(lab.partition(0).isr, [2]);
    assert_eq!(lab.leader(1).0, None, "its only copy is gone");
}

/// KIP-966: it may not be elected before it has fetched again.
#[test]
fn a_machine_that_lost_its_power_is_no_eligible_replica_where_acknowledgements_do_not_wait_for_the_disk()
 {
    for (durability, leader) in [
        ("flushed", Some(1)),
        ("replicated", None),
        ("relaxed", None),
    ] {
        let mut lab = Lab::new(&[1, 2], &[&[1, 2]]);
        let set = [("min.insync.replicas", "2"), ("durability", durability)];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        lab.apply(vec![Command::ConfigureTopic {
            id: TOPIC,
            overrides: Overrides::from(set),
        }]);
        lab.fence(1);
        lab.fence(2);
        lab.register_as(1, 1, true);
        lab.unfence(1);
        assert_eq!(lab.leader(0).0, leader, "{durability}");
        lab.register(2, 2);
        lab.unfence(2);
        assert_eq!(lab.leader(0).0, leader.or(Some(2)), "{durability}");
    }
}

#[test]
fn when_all_have_lost_their_power_the_last_copy_stays_as_it_is() {
    let mut lab = Lab::new(&[1, 2], &[&[1, 2], &[1]]);
    let set = ("durability".to_owned(), "relaxed".to_owned());
    lab.apply(vec![Command::ConfigureTopic {
        id: TOPIC,
        overrides: Overrides::from([set]),
    }]);
    for node in [1, 2] {
        lab.register_as(node, node as u128, true);
    }
    lab.unfence(1);
    assert_eq!(lab.leader(0).0, None, "another is safer");
    assert_eq!(lab.leader(1).0, Some(1), "the only copy");
    lab.unfence(2);
    assert_eq!(lab.leader(0).0, Some(2));
}

#[test]
fn a_node_that_stops_hands_over_and_goes_when_it_leads_nothing_that_others_could() {
    let mut lab = Lab::new(&[1, 2], &[&[1, 2], &[1]]);
    assert!(!may_stop(&lab.image, 1));
    lab.apply(stop(&lab.image, 1));
    assert_eq!(lab.leader(0), (Some(2), 1));
    assert_eq!(lab.leader(1), (Some(1), 0), "to the end");
    assert!(may_stop(&lab.image, 1));
}

#[test]
fn so_many_elections_are_held_at_a_time() {
    let mut lab = Lab::new(&[1, 2], &[&[1, 2], &[1, 2], &[1, 2]]);
    lab.fence(1);
    lab.unfence(1);
    for number in 0..3 {
        let before = lab.partition(number);
        let back = Change::of(&before, 2, &|_| true).isr(vec![2, 1]).build();
        lab.apply(vec![Command::SetPartitions {
            topic: TOPIC,
            partitions: vec![(number, back.unwrap())],
        }]);
    }
    let mut counts = Vec::new();
    loop {
        let elected = balance(&lab.image, 2);
        counts.push(elected.count);
        if elected.count == 0 {
            break;
        }
        lab.apply(elected.commands);
    }
    assert_eq!(counts, [2, 1, 0]);
}

#[test]
fn nobody_is_elected_uncleanly_where_no_setting_allows_it() {
    let mut lab = Lab::new(&[1, 2], &[&[1, 2], &[2, 1]]);
    let alone = ("min.insync.replicas".to_owned(), "1".to_owned());
    lab.apply(vec![Command::ConfigureTopic {
        id: TOPIC,
        overrides: Overrides::from([alone.clone()]),
    }]);
    // 2 falls behind, and 1 is gone with everything.
    lab.fence(2);
    lab.unfence(2);
    lab.fence(1);
    assert_eq!((lab.leader(0).0, lab.leader(1).0), (None, None));
    assert_eq!(elect_uncleanly(&lab.image, 9), Elected::default());
    let allowed = (
        "unclean.leader.election.enable".to_owned(),
        "true".to_owned(),
    );
    lab.apply(vec![Command::ConfigureTopic {
        id: TOPIC,
        overrides: Overrides::from([alone, allowed]),
    }]);
    let elected = elect_uncleanly(&lab.image, 9);
    assert_eq!(elected.count, 2);
    lab.apply(elected.commands);
    let state = lab.partition(0);
    assert_eq!((state.leader, &state.isr[..]), (Some(2), &[2][..]));
    assert!(state.is_recovering);
}
