//! A cluster in a simulated world, and what is asked of its nodes.

use std::time::Duration;

use ringmill_engine::{BrokerConfig, Launch, ServeError, SnapshotEntries, Stopper};
use ringmill_ring::sim::{NodeId, Outputs, World};
use ringmill_ring::{Cores, RingConfig, sleep};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::features::{Supported, supported};
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;
use ringmill_wire::kafka_protocol::messages::describe_quorum_request;
use ringmill_wire::kafka_protocol::messages::{
    CreateTopicsRequest, DescribeClusterRequest, DescribeQuorumRequest, MetadataRequest,
};

use crate::wire_client::{Client, topic_name};

pub(crate) const NODES: usize = 3;

/// Virtual time in which a cluster forms, or takes over, in a calm network.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A node and what it was started with.
pub(crate) struct Member {
    pub(crate) machine: NodeId,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) stopper: Stopper,
    pub(crate) ends: Option<Outputs<Result<(), ServeError>>>,
    pub(crate) cores: usize,
    /// Of which build it is.
    pub(crate) supported: Supported,
    /// When its metadata's log makes way for a snapshot.
    pub(crate) snapshots: SnapshotEntries,
    /// How often its machine was switched on.
    pub(crate) boots: u32,
}

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) members: Vec<Member>,
    pub(crate) clients: NodeId,
    /// Beside clients that go on.
    pub(crate) admins: NodeId,
}

impl Cluster {
    /// Machines 1 to `nodes`; the first begins the cluster, the others join it by each other.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut world = World::new(seed);
        let clients = world.add_node("clients", "10.0.0.99".parse().unwrap());
        let admins = world.add_node("admins", "10.0.0.98".parse().unwrap());
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
                supported: supported(),
                snapshots: SnapshotEntries::default(),
                boots: 1,
            }
        });
        let members = members.collect();
        Self {
            world,
            members,
            clients,
            admins,
        }
    }

    pub(crate) fn set(&mut self, node: usize, name: &str, value: &str) {
        self.members[node - 1]
            .settings
            .push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn start(&mut self, node: usize) {
        let member = &mut self.members[node - 1];
        let mut config = BrokerConfig::from_pairs(member.settings.clone()).unwrap();
        config.boot_id = Some(format!("boot {}", member.boots));
        config.supported = member.supported.clone();
        config.metadata_snapshots = member.snapshots;
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

    pub(crate) fn start_all(&mut self) {
        (1..=self.members.len()).for_each(|node| self.start(node));
    }

    pub(crate) fn kill(&mut self, node: usize) {
        let machine = self.members[node - 1].machine;
        self.world.kill(machine);
    }

    /// A node's machine loses its power; it is switched on with the next start.
    pub(crate) fn power_off(&mut self, node: usize) {
        let member = &mut self.members[node - 1];
        member.boots += 1;
        let machine = member.machine;
        self.world.power_off(machine);
    }

    pub(crate) fn is_running(&self, node: usize) -> bool {
        self.world.is_running(self.members[node - 1].machine)
    }

    /// Runs a client's story, which has to end in time.
    pub(crate) fn client<T: 'static>(
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
    pub(crate) fn formed(&mut self, nodes: &'static [usize], time: Duration) -> usize {
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
    pub(crate) fn refusal(&mut self, node: usize) -> String {
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

pub(crate) fn address(node: usize) -> String {
    format!("10.0.0.{node}:9092")
}

/// The cluster as a node shows it.
pub(crate) struct Shown {
    pub(crate) brokers: Vec<usize>,
    pub(crate) controller: usize,
    pub(crate) cluster_id: String,
    pub(crate) racks: Vec<Option<String>>,
}

pub(crate) async fn brokers(node: usize) -> Option<Shown> {
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
pub(crate) async fn ask<R: ringmill_wire::control::Call>(
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

pub(crate) fn create(name: &str, partitions: i32) -> CreateTopicsRequest {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000)
}

/// Creates a topic by a node, again and again until it is there.
pub(crate) async fn create_by(node: usize, name: &str) {
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
pub(crate) async fn topics(node: usize) -> Option<Vec<(String, u128, Vec<i32>)>> {
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

/// The members of the quorum as a node tells of them, and whether each votes.
pub(crate) async fn quorum(node: usize) -> Vec<(i32, bool)> {
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

/// How many worlds a test looks at; CLUSTER_SEEDS=N for more.
pub(crate) fn seeds(few: u64) -> u64 {
    std::env::var("CLUSTER_SEEDS").map_or(few, |seeds| seeds.parse().expect("a number"))
}

/// Something goes wrong with one node for a while.
pub(crate) fn trouble(cluster: &mut Cluster) {
    let nodes = cluster.members.len();
    let node = 1 + cluster.world.random().index(nodes);
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
