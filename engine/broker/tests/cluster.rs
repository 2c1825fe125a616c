//! Several nodes in one simulated world: they find each other, go by the same metadata, take over from
//! each other, and let nobody in who does not belong to them.

mod wire_client;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_engine::{BrokerConfig, Launch, ServeError, Stopper};
use ringmill_ring::sim::{NodeId, Outputs, World};
use ringmill_ring::{Cores, RingConfig, sleep};
use ringmill_wire::api::ApiKey;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;
use ringmill_wire::kafka_protocol::messages::describe_quorum_request;
use ringmill_wire::kafka_protocol::messages::{
    CreateTopicsRequest, DescribeClusterRequest, DescribeQuorumRequest, InitProducerIdRequest,
    MetadataRequest, UnregisterBrokerRequest,
};
use ringmill_wire::quorum::{QuorumRequest, QuorumResponse};
use wire_client::{Client, topic_name};

const NODES: usize = 3;
/// Virtual time in which a cluster forms, or takes over, in a calm network.
const SOON: Duration = Duration::from_secs(10);

/// A node and what it was started with.
struct Member {
    machine: NodeId,
    settings: Vec<(String, String)>,
    stopper: Stopper,
    ends: Option<Outputs<Result<(), ServeError>>>,
    cores: usize,
}

struct Cluster {
    world: World,
    members: Vec<Member>,
    clients: NodeId,
}

fn address(node: usize) -> String {
    format!("10.0.0.{node}:9092")
}

impl Cluster {
    /// Machines 1 to `nodes`; the first begins the cluster, the others join it by each other.
    fn new(seed: u64, nodes: usize) -> Self {
        let mut world = World::new(seed);
        let clients = world.add_node("clients", "10.0.0.99".parse().unwrap());
        let members = (1..=nodes).map(|node| {
            let ip = format!("10.0.0.{node}").parse().unwrap();
            let machine = world.add_node(&format!("node{node}"), ip);
            let seeds: Vec<String> = (1..=nodes).map(address).collect();
            let seeds = if node == 1 {
                String::new()
            } else {
                seeds.join(",")
            };
            let settings = [
                ("node.id", node.to_string()),
                ("listeners", address(node)),
                ("log.dirs", "/data".to_owned()),
                ("cluster.seeds", seeds),
                ("broker.rack", format!("rack{node}")),
            ];
            Member {
                machine,
                settings: settings.map(|(k, v)| (k.to_owned(), v)).to_vec(),
                stopper: Stopper::new(),
                ends: None,
                cores: 1 + (seed as usize + node) % 2,
            }
        });
        let members = members.collect();
        Self {
            world,
            members,
            clients,
        }
    }

    fn set(&mut self, node: usize, name: &str, value: &str) {
        self.members[node - 1]
            .settings
            .push((name.to_owned(), value.to_owned()));
    }

    fn start(&mut self, node: usize) {
        let member = &mut self.members[node - 1];
        let config = BrokerConfig::from_pairs(member.settings.clone()).unwrap();
        let cores = Cores::new(member.cores);
        member.stopper = Stopper::new();
        let launch = Launch::new(config, &cores, member.stopper.clone(), |_| ());
        let ends = self
            .world
            .launch(member.machine, cores, RingConfig::default(), move |core| {
                let launch = launch.clone();
                async move { launch.run(core).await }
            });
        member.ends = Some(ends);
    }

    fn start_all(&mut self) {
        (1..=self.members.len()).for_each(|node| self.start(node));
    }

    fn kill(&mut self, node: usize) {
        let machine = self.members[node - 1].machine;
        self.world.kill(machine);
    }

    fn is_running(&self, node: usize) -> bool {
        self.world.is_running(self.members[node - 1].machine)
    }

    /// Runs a client's story, which has to end in time.
    fn client<T: 'static>(
        &mut self,
        time: Duration,
        story: impl Future<Output = T> + 'static,
    ) -> T {
        let output = self.world.start(self.clients, story);
        let clients = self.clients;
        let ended = self
            .world
            .run_until(time, |world| !world.is_running(clients));
        if ended.is_err() {
            panic!("seed {}: not within {time:?}", self.world.seed());
        }
        output.take().pop().expect("it has ended")
    }

    /// Waits until all of `nodes` show exactly them as brokers; gives the controller.
    fn formed(&mut self, nodes: &'static [usize], time: Duration) -> usize {
        self.client(time, async move {
            let mut leaders = Vec::new();
            for node in nodes {
                loop {
                    let shown = brokers(*node).await;
                    if shown
                        .as_ref()
                        .is_some_and(|shown| shown.brokers.iter().eq(nodes.iter()))
                    {
                        leaders.push(shown.unwrap().controller);
                        break;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
            *leaders.last().unwrap()
        })
    }

    /// Why a node has ended by itself.
    fn refusal(&mut self, node: usize) -> String {
        let machine = self.members[node - 1].machine;
        let ended = self
            .world
            .run_until(SOON, |world| !world.is_running(machine));
        ended.expect("it gives up");
        let ends = self.members[node - 1].ends.take().expect("it was started");
        let error = ends.take().into_iter().find_map(Result::err);
        error.expect("it was not let in").to_string()
    }
}

/// The cluster as a node shows it.
struct Shown {
    brokers: Vec<usize>,
    controller: usize,
    cluster_id: String,
    racks: Vec<Option<String>>,
}

async fn brokers(node: usize) -> Option<Shown> {
    let request = DescribeClusterRequest::default().with_endpoint_type(1);
    let answer = ask(node, 1, request).await?;
    let mut brokers: Vec<_> = answer
        .brokers
        .iter()
        .map(|broker| {
            let rack = broker.rack.as_ref().map(ToString::to_string);
            (*broker.broker_id as usize, rack)
        })
        .collect();
    brokers.sort();
    let (brokers, racks) = brokers.into_iter().unzip();
    Some(Shown {
        brokers,
        racks,
        controller: *answer.controller_id as usize,
        cluster_id: answer.cluster_id.to_string(),
    })
}

/// Asks a node on a connection of its own; none if it does not answer.
async fn ask<R: ringmill_wire::control::Call>(
    node: usize,
    version: i16,
    request: R,
) -> Option<R::Response> {
    let asked = ringmill_ring::timeout(Duration::from_secs(15), async {
        let mut client = Client::try_connect(address(node).parse().unwrap()).await?;
        client.try_call(version, &request).await
    });
    asked.await.ok()?
}

fn create(name: &str, partitions: i32) -> CreateTopicsRequest {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000)
}

/// Creates a topic by a node, again and again until it is there.
async fn create_by(node: usize, name: &str) {
    loop {
        if let Some(answer) = ask(node, 7, create(name, 2)).await {
            match ErrorCode::from_code(answer.topics[0].error_code) {
                Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => return,
                Some(code) if code.is_retriable() => {}
                code => panic!("{code:?}"),
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The topics as a node shows them: name, id and leaders.
async fn topics(node: usize) -> Option<Vec<(String, u128, Vec<i32>)>> {
    let request = MetadataRequest::default().with_topics(None);
    let answer = ask(node, 12, request).await?;
    let shown = answer.topics.iter().map(|topic| {
        let leaders = topic.partitions.iter().map(|part| *part.leader_id);
        let name = topic.name.as_ref().map(|name| name.to_string());
        (
            name.unwrap_or_default(),
            topic.topic_id.as_u128(),
            leaders.collect(),
        )
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    Some(shown)
}

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
    // a name
    cluster.set(4, "cluster.seeds", "node1.example:9092");
    cluster.start(4);
    let why = cluster.refusal(4);
    assert!(why.contains("by IP addresses"), "{why}");
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

/// The members of the quorum as a node tells of them, and whether each votes.
async fn quorum(node: usize) -> Vec<(i32, bool)> {
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(topic_name("__cluster_metadata"))
        .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let answer = ask(node, 2, request).await.expect("an answer");
    let part = &answer.topics[0].partitions[0];
    let voters = part
        .current_voters
        .iter()
        .map(|member| (*member.replica_id, true));
    let observers = part
        .observers
        .iter()
        .map(|member| (*member.replica_id, false));
    let mut members: Vec<_> = voters.chain(observers).collect();
    members.sort_unstable();
    members
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

/// Nodes are killed, paused and cut off in a network that loses; when all is well again they are one
/// cluster, and every topic that was acknowledged is there.
#[test]
fn in_a_bad_world_no_acknowledged_topic_is_lost() {
    let mut acknowledged = 0;
    // CLUSTER_SEEDS=N for more
    let seeds = std::env::var("CLUSTER_SEEDS").map_or(12, |seeds| seeds.parse().expect("a number"));
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

/// Something goes wrong with one node for a while.
fn trouble(cluster: &mut Cluster) {
    let node = 1 + cluster.world.random().index(NODES);
    let machine = cluster.members[node - 1].machine;
    let time = Duration::from_millis(cluster.world.random().between(1, 3_000));
    match cluster.world.random().below(4) {
        0 => {
            if cluster.is_running(node) {
                cluster.kill(node);
            }
            cluster.world.run_for(time);
            cluster.start(node);
        }
        1 => {
            cluster.world.pause(machine);
            cluster.world.run_for(time);
            cluster.world.resume(machine);
        }
        2 => {
            let others: Vec<NodeId> = cluster.members.iter().map(|m| m.machine).collect();
            let others: Vec<NodeId> = others.into_iter().filter(|m| *m != machine).collect();
            cluster.world.network().partition(&[machine], &others);
            cluster.world.run_for(time);
            cluster.world.network().heal();
        }
        _ => cluster.world.run_for(time),
    }
}
