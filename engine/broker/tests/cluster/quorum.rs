//! The quorum that keeps the metadata: who leads it, who votes, and that it outlives its members.

use std::time::Duration;

use ringmill_ring::sim::NodeId;
use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;

use crate::world::{Cluster, NODES, SOON, ask, create, create_by, quorum, topics};

#[test]
fn another_leads_when_the_leader_is_killed_and_the_dead_come_back() {
    let mut slowest = Duration::ZERO;
    for seed in 0..12 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        let leader = cluster.formed(&[1, 2, 3], SOON);
        // All three vote before one of them dies.
        cluster.world.run_for(Duration::from_secs(2));
        cluster.kill(leader);
        let killed = cluster.world.now();
        let alive: &'static [usize] = match leader {
            1 => &[2, 3],
            2 => &[1, 3],
            _ => &[1, 2],
        };
        let new = cluster.formed(alive, Duration::from_secs(2));
        slowest = slowest.max(cluster.world.now() - killed);
        assert!(alive.contains(&new), "seed {seed}");
        cluster.client(Duration::from_secs(2), create_by(alive[0], "after"));
        cluster.start(leader);
        cluster.formed(&[1, 2, 3], SOON);
        let seen = cluster.client(SOON, topics(leader)).expect("an answer");
        assert_eq!(seen.len(), 1, "seed {seed}");
    }
    // The node that led the quorum is fenced, and so replaced wherever it led a partition.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn a_node_that_stops_gives_the_quorum_away() {
    for seed in 0..8 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        let leader = cluster.formed(&[1, 2, 3], SOON);
        cluster.world.run_for(Duration::from_secs(2));
        let begun = cluster.world.now();
        cluster.members[leader - 1].stopper.stop();
        let machine = cluster.members[leader - 1].machine;
        let ended = cluster
            .world
            .run_until(SOON, |world| !world.is_running(machine));
        ended.expect("it stops");
        let took = cluster.world.now() - begun;
        assert!(took < Duration::from_secs(1), "seed {seed}: {took:?}");
        let other = 1 + leader % NODES;
        let begun = cluster.world.now();
        cluster.client(SOON, create_by(other, "after"));
        let took = cluster.world.now() - begun;
        assert!(took < Duration::from_millis(300), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_whole_cluster_that_was_killed_comes_back() {
    for seed in 0..6 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, create_by(2, "kept"));
        (1..=NODES).for_each(|node| cluster.kill(node));
        cluster.world.run_for(Duration::from_secs(1));
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        for node in 1..=NODES {
            let seen = cluster.client(SOON, topics(node)).expect("an answer");
            assert_eq!(seen.len(), 1, "seed {seed}");
        }
    }
}

/// With five nodes all vote; a further one follows.
#[test]
fn so_many_nodes_vote_as_may() {
    let mut cluster = Cluster::new(7, 6);
    cluster.start_all();
    cluster.formed(&[1, 2, 3, 4, 5, 6], SOON);
    let members = cluster.client(SOON, async {
        loop {
            let members = quorum(6).await;
            let voters = members.iter().filter(|(_, votes)| *votes).count();
            if voters == 5 && members.len() == 6 {
                return members;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    // A voter that is down is replaced.
    let observer = members.iter().find(|(_, votes)| !votes).unwrap().0;
    let voter = members.iter().rev().find(|(_, votes)| *votes).unwrap().0;
    cluster.kill(voter as usize);
    cluster.client(SOON, async move {
        let asked = if voter == 1 { 2 } else { 1 };
        while !quorum(asked).await.contains(&(observer, true)) {
            sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A leader that is cut off promises nothing, the others go on, and afterwards all agree.
#[test]
fn a_leader_that_is_cut_off_decides_nothing() {
    for seed in 0..6 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        let leader = cluster.formed(&[1, 2, 3], SOON);
        cluster.world.run_for(Duration::from_secs(2));
        let machines: Vec<NodeId> = cluster.members.iter().map(|m| m.machine).collect();
        let cut = machines[leader - 1];
        let others: Vec<NodeId> = machines.into_iter().filter(|m| *m != cut).collect();
        cluster.world.network().partition(&[cut], &others);
        let code = cluster.client(Duration::from_secs(14), async move {
            let answer = ask(leader, 7, create("lost", 1)).await.expect("an answer");
            answer.topics[0].error_code
        });
        assert_eq!(code, ErrorCode::RequestTimedOut.code(), "seed {seed}");
        let other = 1 + leader % NODES;
        cluster.client(SOON, create_by(other, "kept"));
        cluster.world.network().heal();
        cluster.formed(&[1, 2, 3], SOON);
        for node in 1..=NODES {
            cluster.client(SOON, async move {
                loop {
                    let seen = topics(node).await.unwrap_or_default();
                    if seen.iter().map(|topic| &*topic.0).eq(["kept"]) {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
}
