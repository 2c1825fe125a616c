//! Copies move from node to node while records come in (KIP-455).

use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest,
};

use crate::records::{
    Written, create_on, ids, keep_writing, nothing_is_lost, read_all, until, write,
};
use crate::wire_client::topic_name;
use crate::world::{Cluster, SOON, ask, seeds, trouble};

/// Has a partition's copies go to these nodes, or takes that back.
pub(crate) async fn reassign(
    node: usize,
    topic: &str,
    index: i32,
    to: Option<&[i32]>,
) -> ErrorCode {
    let partition = ReassignablePartition::default()
        .with_partition_index(index)
        .with_replicas(to.map(ids));
    let topic = ReassignableTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    let answer = ask(node, 1, request).await.expect("an answer");
    assert_eq!(answer.error_code, 0);
    ErrorCode::from_code(answer.responses[0].partitions[0].error_code).unwrap()
}

/// How many partitions are on their way.
async fn on_their_way(node: usize) -> usize {
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let answer = ask(node, 0, request).await.expect("an answer");
    answer
        .topics
        .iter()
        .map(|topic| topic.partitions.len())
        .sum()
}

/// Waits until no copy is on its way.
pub(crate) async fn all_have_arrived(node: usize) {
    while on_their_way(node).await > 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// The folders of a topic's partitions on a node's disk.
fn folders(cluster: &Cluster, node: usize, topic: &str) -> Vec<String> {
    let disk = cluster.world.disk(cluster.members[node - 1].machine);
    let prefix = format!("/data/{topic}-");
    let mut folders: Vec<String> = disk.list().into_iter().map(|(path, _)| path).collect();
    folders.retain(|path| path.starts_with(&prefix) && path.ends_with('/'));
    folders
}

#[test]
fn copies_move_and_nothing_acknowledged_is_lost() {
    for seed in 0..8 {
        let mut cluster = Cluster::new(seed, 4);
        cluster.start_all();
        cluster.formed(&[1, 2, 3, 4], SOON);
        let configs = &[("min.insync.replicas", "2")];
        cluster.client(SOON, create_on(1, "t", &[&[1, 2, 3]], configs));
        let written = Written::default();
        let writer = keep_writing(&[2, 3, 4], "t", written.clone());
        cluster.world.start(cluster.clients, writer);
        cluster.world.run_for(Duration::from_secs(2));
        let before = written.borrow().len();
        assert!(before > 20, "seed {seed}: {before} were written");
        // the leader among those who go
        let asked = 1 + seed as usize % 4;
        let moving = cluster.world.start(cluster.admins, async move {
            let code = reassign(asked, "t", 0, Some(&[4, 3, 2])).await;
            assert_eq!(code, ErrorCode::None);
            all_have_arrived(asked).await;
            let is_there = |shown: &crate::records::Shown| {
                shown.replicas == [4, 3, 2] && shown.isr.len() == 3 && shown.leader.is_some()
            };
            until(4, ("t", 0), is_there).await.leader
        });
        let admins = cluster.admins;
        let moved = cluster
            .world
            .run_until(SOON, |world| !world.is_running(admins));
        moved.unwrap_or_else(|_| panic!("seed {seed}: the copies arrive"));
        let leader = moving.take().pop().flatten();
        assert_ne!(leader, Some(1), "seed {seed}");
        cluster.world.run_for(Duration::from_secs(2));
        let after = written.borrow().len();
        assert!(after > before + 20, "seed {seed}: {before}, then {after}");
        assert_eq!(folders(&cluster, 1, "t"), [""; 0], "seed {seed}");
        assert!(!folders(&cluster, 4, "t").is_empty(), "seed {seed}");
        cluster.world.kill(cluster.clients);
        let found = cluster.client(SOON, read_all(2, "t", 0));
        nothing_is_lost(seed, &written, &found);
    }
}

/// A node that was away learns of the move before it does anything with its copy.
#[test]
fn a_node_that_was_away_deletes_what_has_moved_meanwhile() {
    let mut cluster = Cluster::new(11, 4);
    cluster.start_all();
    cluster.formed(&[1, 2, 3, 4], SOON);
    cluster.client(SOON, async {
        create_on(2, "t", &[&[1, 2, 3], &[1, 2, 3]], &[]).await;
        for index in 0..2 {
            write(&[2], "t", index, "first").await;
        }
    });
    cluster.kill(1);
    cluster.formed(&[2, 3, 4], SOON);
    cluster.client(SOON, async {
        assert_eq!(reassign(3, "t", 0, Some(&[4, 2, 3])).await, ErrorCode::None);
        all_have_arrived(3).await;
        write(&[2], "t", 0, "second").await;
    });
    let gone = "/data/t-0/".to_owned();
    assert!(folders(&cluster, 1, "t").contains(&gone));
    cluster.start(1);
    cluster.formed(&[1, 2, 3, 4], SOON);
    assert_eq!(folders(&cluster, 1, "t"), ["/data/t-1/"]);
    let found = cluster.client(SOON, read_all(1, "t", 0));
    let values: Vec<&str> = found.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["first", "second"]);
}

/// To a node that is down nothing moves, and what does not end can be taken back.
#[test]
fn a_move_that_cannot_end_is_taken_back() {
    let mut cluster = Cluster::new(12, 4);
    cluster.start_all();
    cluster.formed(&[1, 2, 3, 4], SOON);
    cluster.client(SOON, create_on(2, "t", &[&[1, 2, 3]], &[]));
    cluster.kill(4);
    cluster.formed(&[1, 2, 3], SOON);
    cluster.client(SOON, async {
        let nothing = reassign(2, "t", 0, None).await;
        assert_eq!(nothing, ErrorCode::NoReassignmentInProgress);
        assert_eq!(reassign(2, "t", 0, Some(&[2, 4])).await, ErrorCode::None);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(on_their_way(3).await, 1);
        write(&[3], "t", 0, "meanwhile").await;
        assert_eq!(reassign(3, "t", 0, None).await, ErrorCode::None);
        assert_eq!(on_their_way(1).await, 0);
        until(1, ("t", 0), |shown| shown.replicas == [2, 1, 3]).await;
        write(&[3], "t", 0, "after").await;
    });
}

/// From one copy to three, and back to one on another node.
#[test]
fn the_number_of_copies_grows_and_shrinks() {
    for seed in 20..24 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        let found = cluster.client(Duration::from_secs(20), async {
            create_on(2, "t", &[&[1]], &[]).await;
            write(&[2], "t", 0, "one").await;
            for to in [&[1, 2, 3][..], &[3]] {
                assert_eq!(reassign(2, "t", 0, Some(to)).await, ErrorCode::None);
                all_have_arrived(2).await;
                until(2, ("t", 0), |shown| shown.replicas == to && shown.isr == to).await;
                write(&[2], "t", 0, "more").await;
            }
            read_all(2, "t", 0).await
        });
        let values: Vec<&str> = found.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["one", "more", "more"], "seed {seed}");
        for node in [1, 2] {
            assert_eq!(folders(&cluster, node, "t"), [""; 0], "seed {seed}");
        }
    }
}

/// Moves the copies of `t` to some three of the four nodes, again and again.
async fn keep_moving(turn: u64) {
    for number in turn.. {
        let left_out = (number % 4) as i32 + 1;
        let mut to: Vec<i32> = (1..=4).filter(|node| *node != left_out).collect();
        to.rotate_left((number / 4 % 3) as usize);
        let partition = ReassignablePartition::default()
            .with_partition_index(0)
            .with_replicas((number % 5 > 0).then(|| ids(&to)));
        let topic = ReassignableTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        // Whoever is asked may be down, and there may be nothing to take back.
        ask(1 + (number % 4) as usize, 1, request).await;
        sleep(Duration::from_millis(700)).await;
    }
}

/// Nodes are killed, paused and cut off while copies move: what two nodes' disks have acknowledged is
/// there in the end, and the last move ends.
#[test]
fn in_a_bad_world_copies_that_move_lose_nothing() {
    let mut acknowledged = 0;
    let seeds = seeds(4);
    for seed in 0..seeds {
        let mut cluster = Cluster::new(300 + seed, 4);
        cluster.start_all();
        cluster.formed(&[1, 2, 3, 4], SOON);
        let configs = &[("min.insync.replicas", "2")];
        cluster.client(SOON, create_on(1, "t", &[&[1, 2, 3]], configs));
        cluster.world.swarm();
        // A disk that fails for good would have to be replaced.
        for member in &cluster.members {
            *cluster.world.disk(member.machine).faults() = Default::default();
        }
        let written = Written::default();
        let writer = keep_writing(&[1, 2, 3, 4], "t", written.clone());
        cluster.world.start(cluster.clients, writer);
        cluster.world.start(cluster.admins, keep_moving(seed));
        for _ in 0..6 {
            trouble(&mut cluster);
        }
        *cluster.world.network().faults() = Default::default();
        cluster.world.network().heal();
        for node in 1..=4 {
            if !cluster.is_running(node) {
                cluster.start(node);
            }
        }
        cluster.world.run_for(Duration::from_secs(3));
        cluster.world.kill(cluster.clients);
        cluster.world.kill(cluster.admins);
        cluster.formed(&[1, 2, 3, 4], Duration::from_secs(30));
        let found = cluster.client(Duration::from_secs(30), async {
            all_have_arrived(1).await;
            until(1, ("t", 0), |shown| shown.isr.len() == shown.replicas.len()).await;
            read_all(1, "t", 0).await
        });
        nothing_is_lost(300 + seed, &written, &found);
        acknowledged += written.borrow().len();
    }
    assert!(acknowledged > 50 * seeds as usize, "only {acknowledged}");
}
