//! Who leads: preferred leaders by request and by themselves, and others only where it is allowed.

use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::ElectLeadersRequest;
use ringmill_wire::kafka_protocol::messages::elect_leaders_request::TopicPartitions;

use crate::records::{Shown, create_on, read_all, shown, until, write};
use crate::throttle::{TOPIC, configure};
use crate::wire_client::topic_name;
use crate::world::{Cluster, SOON, ask};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Has a leader of the topic's only partition elected.
async fn elect(node: usize, topic: &str, election: i8) -> ErrorCode {
    let asked = TopicPartitions::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![0]);
    let request = ElectLeadersRequest::default()
        .with_election_type(election)
        .with_topic_partitions(Some(vec![asked]));
    let answer = ask(node, 2, request).await.expect("an answer");
    assert_eq!(answer.error_code, 0);
    let part = &answer.replica_election_results[0].partition_result[0];
    ErrorCode::from_code(part.error_code).unwrap()
}

/// A cluster of which the leader of `t`, which is on all three nodes, has come back from a crash.
fn with_another_leader(seed: u64, settings: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::new(seed, 3);
    for node in 1..=3 {
        for (name, value) in settings {
            cluster.set(node, name, value);
        }
    }
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    cluster.client(SOON, create_on(2, "t", &[&[1, 2, 3]], &[]));
    cluster.client(SOON, async {
        write(&[2], "t", 0, "first").await;
    });
    cluster.kill(1);
    cluster.formed(&[2, 3], SOON);
    cluster.start(1);
    cluster.client(SOON, until(2, ("t", 0), |shown| shown.isr == [1, 2, 3]));
    cluster
}

#[test]
fn the_preferred_leader_is_elected_on_demand() {
    for seed in 0..3 {
        let mut cluster = with_another_leader(seed, &[]);
        let codes = cluster.client(SOON, async {
            let first = elect(3, "t", PREFERRED).await;
            until(3, ("t", 0), |shown| shown.leader == Some(1)).await;
            write(&[2], "t", 0, "second").await;
            let codes = [first, elect(2, "t", PREFERRED).await];
            (codes, elect(1, "t", UNCLEAN).await)
        });
        let not_needed = ErrorCode::ElectionNotNeeded;
        assert_eq!(codes, ([ErrorCode::None, not_needed], not_needed), "{seed}");
        cluster.kill(1);
        cluster.formed(&[2, 3], SOON);
        let code = cluster.client(SOON, elect(2, "t", PREFERRED));
        assert_eq!(code, ErrorCode::PreferredLeaderNotAvailable, "{seed}");
        let found = cluster.client(SOON, read_all(2, "t", 0));
        assert_eq!(found.len(), 2, "{seed}");
    }
}

#[test]
fn preferred_leaders_come_back_by_themselves_unless_they_are_not_to() {
    let often = ("leader.imbalance.check.interval.seconds", "2");
    let mut cluster = with_another_leader(5, &[often]);
    let is_back = |shown: &Shown| shown.leader == Some(1);
    cluster.client(Duration::from_secs(4), until(2, ("t", 0), is_back));

    let never = ("auto.leader.rebalance.enable", "false");
    let mut cluster = with_another_leader(5, &[often, never]);
    let leader = cluster.client(SOON, async {
        sleep(Duration::from_secs(6)).await;
        shown(2, "t", 0).await.and_then(|shown| shown.leader)
    });
    assert!(leader.is_some_and(|leader| leader != 1), "{leader:?}");
}

/// Two has not what one has acknowledged alone: it leads only if it is told to.
fn with_nobody_to_lead(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 4);
    cluster.start_all();
    cluster.formed(&[1, 2, 3, 4], SOON);
    cluster.world.run_for(Duration::from_secs(2));
    cluster.client(
        SOON,
        create_on(3, "t", &[&[1, 2]], &[("min.insync.replicas", "1")]),
    );
    cluster.kill(2);
    cluster.formed(&[1, 3, 4], SOON);
    cluster.client(SOON, async {
        write(&[3], "t", 0, "alone").await;
    });
    cluster.kill(1);
    cluster.formed(&[3, 4], SOON);
    cluster.start(2);
    cluster.formed(&[2, 3, 4], SOON);
    let shown = cluster.client(SOON, async {
        sleep(Duration::from_secs(2)).await;
        shown(3, "t", 0).await.expect("an answer")
    });
    assert_eq!(shown.leader, None, "seed {seed}");
    cluster
}

#[test]
fn whoever_may_lack_records_leads_only_if_it_is_told_to() {
    for seed in 0..3 {
        let mut cluster = with_nobody_to_lead(seed);
        let codes = cluster.client(SOON, async {
            let preferred = elect(3, "t", PREFERRED).await;
            let unclean = elect(3, "t", UNCLEAN).await;
            until(3, ("t", 0), |shown| shown.leader == Some(2)).await;
            write(&[3], "t", 0, "anew").await;
            [preferred, unclean]
        });
        let none = ErrorCode::PreferredLeaderNotAvailable;
        assert_eq!(codes, [none, ErrorCode::None], "seed {seed}");
        // Whoever comes back goes by what is now.
        cluster.start(1);
        let both = |shown: &Shown| shown.isr == [1, 2];
        cluster.client(SOON, until(3, ("t", 0), both));
        let found = cluster.client(SOON, read_all(3, "t", 0));
        assert_eq!(found, [(0, "anew".to_owned())], "seed {seed}");
    }
}

#[test]
fn a_setting_lets_whoever_is_there_lead() {
    let mut cluster = with_nobody_to_lead(7);
    cluster.client(SOON, async {
        configure(3, TOPIC, "t", "unclean.leader.election.enable", "true").await;
        until(3, ("t", 0), |shown| shown.leader == Some(2)).await;
        write(&[3], "t", 0, "anew").await;
    });
}
