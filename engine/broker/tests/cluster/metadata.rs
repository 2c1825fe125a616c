//! The metadata is one and the same on all nodes, and nothing that was acknowledged leaves it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::kafka_protocol::messages::InitProducerIdRequest;

use crate::world::{Cluster, NODES, SOON, ask, create, seeds, topics, trouble};

/// Whoever is asked, the topic is there for all, and at once for who asked.
#[test]
fn a_topic_created_by_any_node_is_seen_by_all() {
    for seed in 0..8 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, async move {
            for node in 1..=NODES {
                let name = format!("by{node}");
                let answer = ask(node, 7, create(&name, 3)).await.expect("an answer");
                assert_eq!(answer.topics[0].error_code, 0, "seed {seed}: {answer:?}");
                let seen = topics(node).await.expect("an answer");
                assert!(
                    seen.iter().any(|topic| topic.0 == name),
                    "seed {seed}: read your writes"
                );
            }
            loop {
                let mut all = Vec::new();
                for node in 1..=NODES {
                    all.push(topics(node).await.expect("an answer"));
                }
                if all
                    .iter()
                    .all(|seen| seen.len() == NODES && *seen == all[0])
                {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
}

#[test]
fn producer_ids_are_given_out_once_by_all_nodes_together() {
    let mut cluster = Cluster::new(5, NODES);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let ids = cluster.client(SOON, async {
        let mut ids = Vec::new();
        for _ in 0..5 {
            for node in 1..=NODES {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_producer_id((-1).into())
                    .with_producer_epoch(-1);
                let answer = ask(node, 4, request).await.expect("an answer");
                assert_eq!(answer.error_code, 0);
                ids.push(*answer.producer_id);
            }
        }
        ids
    });
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

/// Nodes are killed, paused and cut off in a network that loses; when all is well again they are one
/// cluster, and every topic that was acknowledged is there.
#[test]
fn in_a_bad_world_no_acknowledged_topic_is_lost() {
    let mut acknowledged = 0;
    let seeds = seeds(12);
    for seed in 0..seeds {
        let mut cluster = Cluster::new(100 + seed, NODES);
        cluster.world.swarm();
        cluster.start_all();
        let made: Rc<RefCell<Vec<String>>> = Rc::default();
        let told = Rc::clone(&made);
        cluster.world.start(cluster.clients, async move {
            for number in 0.. {
                let name = format!("t{number}");
                let answer = ask(1 + number % NODES, 7, create(&name, 1)).await;
                if answer.is_some_and(|answer| answer.topics[0].error_code == 0) {
                    told.borrow_mut().push(name);
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        for _ in 0..6 {
            trouble(&mut cluster);
        }
        *cluster.world.network().faults() = Default::default();
        cluster.world.network().heal();
        for node in 1..=NODES {
            if !cluster.is_running(node) {
                cluster.start(node);
            }
        }
        cluster.world.kill(cluster.clients);
        cluster.formed(&[1, 2, 3], Duration::from_secs(30));
        for node in 1..=NODES {
            // A node may lag a little; what it lacks for long is lost.
            let made = Rc::clone(&made);
            cluster.client(SOON, async move {
                loop {
                    let seen = topics(node).await.unwrap_or_default();
                    let is_there = |name: &String| seen.iter().any(|topic| topic.0 == *name);
                    if made.borrow().iter().all(is_there) {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        acknowledged += made.borrow().len();
    }
    assert!(
        acknowledged > 8 * seeds as usize,
        "only {acknowledged} topics were ever made"
    );
}
