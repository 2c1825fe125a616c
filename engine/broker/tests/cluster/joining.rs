//! Nodes find each other, leave, come back, and let nobody in who does not belong to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmill_engine::SnapshotEntries;
use ringmill_ring::sleep;
use ringmill_wire::api::ApiKey;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::{DescribeClusterRequest, UnregisterBrokerRequest};
use ringmill_wire::quorum::{QuorumRequest, QuorumResponse};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, subscriber};

use crate::wire_client::Client;
use crate::world::{Cluster, NODES, SOON, address, ask, brokers, create_by, quorum, topics};

#[test]
fn three_nodes_become_one_cluster() {
    for seed in 0..8 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        let shown = cluster.client(SOON, async {
            let mut shown = Vec::new();
            for node in 1..=NODES {
                shown.push(brokers(node).await.unwrap());
            }
            shown
        });
        for one in &shown {
            assert_eq!(one.cluster_id, shown[0].cluster_id, "seed {seed}");
            let racks: Vec<_> = one.racks.iter().flatten().collect();
            assert_eq!(racks, ["rack1", "rack2", "rack3"], "seed {seed}");
        }
    }
}

#[test]
fn who_does_not_belong_is_told_why() {
    let mut cluster = Cluster::new(1, 4);
    cluster.start(1);
    cluster.start(2);
    cluster.formed(&[1, 2], SOON);
    // the number of another
    cluster.set(3, "node.id", "2");
    cluster.start(3);
    let why = cluster.refusal(3);
    assert!(
        why.contains("node 2 runs already, at 10.0.0.2:9092"),
        "{why}"
    );
    // the address of another
    cluster.set(3, "node.id", "3");
    cluster.set(3, "advertised.listeners", "10.0.0.2:9092");
    cluster.start(3);
    let why = cluster.refusal(3);
    assert!(why.contains("reached at 10.0.0.2:9092 already"), "{why}");
    // nowhere in particular
    cluster.set(3, "advertised.listeners", "");
    cluster.set(3, "listeners", "0.0.0.0:9092");
    cluster.start(3);
    let why = cluster.refusal(3);
    assert!(why.contains("advertised.listeners"), "{why}");
    // a cluster of its own, told to join
    cluster.set(3, "listeners", &address(3));
    cluster.set(3, "cluster.seeds", "");
    cluster.start(3);
    cluster.formed(&[3], SOON);
    cluster.kill(3);
    cluster.set(3, "cluster.seeds", &address(1));
    cluster.start(3);
    let why = cluster.refusal(3);
    assert!(why.contains("the data folder belongs to cluster"), "{why}");
    // nobody but itself
    cluster.set(4, "cluster.seeds", &address(4));
    cluster.start(4);
    let why = cluster.refusal(4);
    assert!(why.contains("names this node alone"), "{why}");
    assert!(cluster.is_running(1) && cluster.is_running(2));
    cluster.formed(&[1, 2], SOON);
}

/// What is not of this cluster, or no message at all, changes nothing.
#[test]
fn a_message_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new(2, NODES);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let codes = cluster.client(SOON, async {
        let mut client = Client::try_connect(address(1).parse().unwrap())
            .await
            .unwrap();
        let mut codes = Vec::new();
        let own = ringmill_wire::Uuid::from_bytes(own_cluster().await);
        for cluster in [ringmill_wire::Uuid::from_u128(1), own] {
            let header = client.header(ApiKey::QuorumMessage, 0);
            let request = QuorumRequest {
                cluster,
                sender: 2,
                message: Bytes::from_static(b"\x07nonsense"),
            };
            client.send(request.encode(&header).unwrap()).await;
            let frame = client.frame().await.expect("an answer");
            codes.push(QuorumResponse::decode(&frame).unwrap().error_code);
        }
        codes
    });
    let expected = [
        ErrorCode::InconsistentClusterId,
        ErrorCode::UnknownServerError,
    ];
    assert_eq!(codes, expected.map(ErrorCode::code));
    cluster.formed(&[1, 2, 3], SOON);
}

/// The cluster's id out of its text, which is base64 for URLs.
async fn own_cluster() -> [u8; 16] {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let text = brokers(1).await.expect("an answer").cluster_id;
    let mut bits = 0_u128;
    for (at, digit) in text.bytes().enumerate() {
        let six = DIGITS.iter().position(|d| *d == digit).unwrap() as u128;
        bits = if at == 21 {
            bits << 2 | six >> 4
        } else {
            bits << 6 | six
        };
    }
    bits.to_be_bytes()
}

/// A node whose disk is gone comes back under its number. In the log that it reads again it was alone
/// once: it must not take that for the present, and lead a quorum of its own.
#[test]
fn a_node_that_has_lost_its_disk_takes_nothing_over() {
    for seed in 0..8 {
        let mut cluster = Cluster::new(seed, NODES);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, create_by(2, "kept"));
        cluster.kill(1);
        cluster.set(1, "log.dirs", "/empty");
        cluster.set(1, "cluster.seeds", &address(2));
        cluster.start(1);
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, create_by(1, "new"));
        for node in 1..=NODES {
            cluster.client(SOON, async move {
                let names = ["kept", "new"];
                loop {
                    let seen = topics(node).await.unwrap_or_default();
                    if seen.iter().map(|(name, ..)| name).eq(names) {
                        break;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        // With its new disk it is a voter like any other, also when all start anew; one of them that
        // stays away is missed, though nobody has heard it who leads now.
        (1..=NODES).for_each(|node| cluster.kill(node));
        cluster.start(1);
        cluster.start(2);
        cluster.formed(&[1, 2], SOON);
    }
}

/// A node that is up stays, one that has stopped leaves, and the quorum goes on without it.
#[test]
fn a_node_that_has_stopped_leaves_for_good() {
    let mut cluster = Cluster::new(6, NODES);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let leave = |node: i32| UnregisterBrokerRequest::default().with_broker_id(node.into());
    let code = cluster.client(SOON, async move {
        ask(2, 0, leave(3)).await.unwrap().error_code
    });
    assert_eq!(code, ErrorCode::InvalidRequest.code());
    cluster.kill(3);
    cluster.formed(&[1, 2], SOON);
    let code = cluster.client(SOON, async move {
        ask(2, 0, leave(3)).await.unwrap().error_code
    });
    assert_eq!(code, 0);
    let code = cluster.client(SOON, async move {
        ask(1, 0, leave(3)).await.unwrap().error_code
    });
    assert_eq!(code, ErrorCode::BrokerIdNotRegistered.code());
    let members = cluster.client(SOON, async {
        loop {
            let quorum = quorum(1).await;
            if quorum.len() == 2 {
                return quorum;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let voters = members.iter().filter(|(_, votes)| *votes).count();
    assert_eq!(voters, 1, "{members:?}");
}

/// A node of the same number on a new disk, when the old one is out.
#[test]
fn a_node_whose_disk_was_replaced_takes_its_old_place() {
    let mut cluster = Cluster::new(3, NODES);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    cluster.client(SOON, create_by(1, "kept"));
    cluster.kill(3);
    cluster.formed(&[1, 2], SOON);
    cluster.set(3, "log.dirs", "/new");
    cluster.start(3);
    cluster.formed(&[1, 2, 3], SOON);
    let seen = cluster.client(SOON, topics(3)).expect("an answer");
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_node_that_moves_is_found_where_it_is() {
    let mut cluster = Cluster::new(4, NODES);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    cluster.world.run_for(Duration::from_secs(2));
    cluster.kill(3);
    cluster.formed(&[1, 2], SOON);
    cluster.set(3, "listeners", "10.0.0.3:9999");
    cluster.start(3);
    cluster.client(SOON, async move {
        loop {
            let shown = brokers(1).await.expect("an answer");
            if shown.brokers == [1, 2, 3] {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    // It votes where it is: with it and one other there is a majority.
    cluster.kill(2);
    cluster.client(SOON, create_by(1, "news"));
}

/// As where machines get other addresses whenever they start: seeds and listeners are names, and clients
/// are told the names.
#[test]
fn nodes_reach_each_other_by_name() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(seed, NODES);
        for node in 1..=NODES {
            cluster.set(node, "advertised.listeners", &format!("node{node}:9092"));
            let seeds = if node == 1 {
                ""
            } else {
                "nowhere:9092,node1:9092"
            };
            cluster.set(node, "cluster.seeds", seeds);
        }
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        let hosts = cluster.client(SOON, async {
            let request = DescribeClusterRequest::default().with_endpoint_type(1);
            let told = ask(2, 1, request).await.unwrap().brokers;
            let mut hosts: Vec<_> = told.iter().map(|broker| broker.host.to_string()).collect();
            hosts.sort();
            hosts
        });
        assert_eq!(hosts, ["node1", "node2", "node3"], "seed {seed}");
        cluster.kill(1);
        cluster.formed(&[2, 3], SOON);
        cluster.start(1);
        cluster.formed(&[1, 2, 3], SOON);
    }
}

/// Counts the snapshots of the metadata that nodes of this thread are sent.
struct SentSnapshots(Arc<AtomicUsize>);

impl Subscriber for SentSnapshots {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringmill_replication::quorum::machine"
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What a node lacks of the log may be gone everywhere: whoever has lost its disk or joins is sent a
/// snapshot, and goes on from there.
#[test]
fn whoever_is_far_behind_is_sent_a_snapshot() {
    let sent = Arc::new(AtomicUsize::new(0));
    let _listens = subscriber::set_default(SentSnapshots(Arc::clone(&sent)));
    for seed in 0..2 {
        let mut cluster = Cluster::new(seed, 4);
        for member in &mut cluster.members {
            member.snapshots = SnapshotEntries { every: 10, kept: 1 };
        }
        (1..=3).for_each(|node| cluster.start(node));
        cluster.formed(&[1, 2, 3], SOON);
        for topic in 0..60 {
            cluster.client(SOON, async move {
                create_by(1, &format!("topic-{topic:02}")).await;
            });
        }
        let mut before = sent.load(Ordering::Relaxed);
        let mut comes = |cluster: &mut Cluster, node: usize, nodes: &'static [usize]| {
            cluster.start(node);
            cluster.formed(nodes, SOON);
            let seen = cluster.client(SOON, topics(node)).expect("an answer");
            assert_eq!(seen.len(), 60, "seed {seed}, node {node}");
            let now = sent.load(Ordering::Relaxed);
            assert!(now > before, "seed {seed}: node {node} got no snapshot");
            before = now;
        };
        cluster.kill(2);
        cluster.formed(&[1, 3], SOON);
        cluster.set(2, "log.dirs", "/empty");
        comes(&mut cluster, 2, &[1, 2, 3]);
        comes(&mut cluster, 4, &[1, 2, 3, 4]);
        // they vote with what the snapshot says, after a start as well
        (1..=4).for_each(|node| cluster.kill(node));
        (2..=4).for_each(|node| cluster.start(node));
        cluster.formed(&[2, 3, 4], SOON);
    }
}

/// A leader that has just been elected may have no more of the metadata than its last snapshot, in which a
/// node is up with the disk that it has lost since: it must not take the node for somebody else.
#[test]
fn a_new_leader_refuses_nobody_by_old_metadata() {
    for seed in 0..6 {
        let mut cluster = Cluster::new(seed, NODES);
        for member in &mut cluster.members {
            member.snapshots = SnapshotEntries {
                every: 40,
                kept: 10,
            };
        }
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        for topic in 0..40 {
            cluster.client(SOON, async move {
                create_by(1, &format!("topic-{topic:02}")).await;
            });
        }
        cluster.kill(1);
        cluster.formed(&[2, 3], SOON);
        cluster.set(1, "log.dirs", "/empty");
        cluster.set(1, "cluster.seeds", &address(2));
        cluster.start(1);
        cluster.formed(&[1, 2, 3], SOON);
        (1..=NODES).for_each(|node| cluster.kill(node));
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        assert!(cluster.is_running(1), "seed {seed}");
    }
}

/// A node on an empty disk may ask to be let in just when its former life is given up. However that falls
/// together, it is taken out of the quorum first: the leader believes that it has what its old disk had.
#[test]
fn who_is_let_in_without_its_disk_is_out_of_the_quorum_first() {
    for seed in 0..6 {
        let mut cluster = Cluster::new(seed, 4);
        cluster.start_all();
        cluster.formed(&[1, 2, 3, 4], SOON);
        cluster.kill(4);
        cluster.set(4, "log.dirs", "/empty");
        // whoever runs it starts it again and again
        for _ in 0..2_000 {
            if !cluster.is_running(4) {
                cluster.start(4);
            }
            cluster.world.run_for(Duration::from_millis(1));
        }
        cluster.formed(&[1, 2, 3, 4], SOON);
    }
}
