//! The nodes of a simulated cluster: how they start, what goes wrong with them, and how it ends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringmill_engine::{BrokerConfig, Launch, SnapshotEntries, Stopper};
use ringmill_ring::sim::{CpuFaults, DiskFaults, NetworkFaults, NodeId, World};
use ringmill_ring::{Cores, RingConfig};
use ringmill_wire::batch::Batches;

use super::super::mixed::consumers;
use super::super::mixed::topics::{PARTITIONS, TOPICS};
use super::super::mixed::transactional::ABORT_CHECK;
use super::COUNT;
use super::roster::{Plan, SPARES};
use crate::checkers::Place;
use crate::checkers::copies::{Copied, CopiedBatch};

const PORT: u16 = 9092;

/// A node and what runs on it.
struct Node {
    machine: NodeId,
    /// Its number in the cluster.
    number: usize,
    addr: SocketAddr,
    stopper: Stopper,
    cores: usize,
    /// Disks that it has lost.
    lost: usize,
    /// It is down until whoever said so lets it start.
    is_held: bool,
}

impl Node {
    /// Its data folder: an empty disk is a folder that nobody has used.
    fn folder(&self) -> String {
        match self.lost {
            0 => "/data".to_owned(),
            lost => format!("/data-{lost}"),
        }
    }
}

/// All nodes.
pub(super) struct Nodes {
    /// Those that join later are the last.
    nodes: Vec<Node>,
    /// So many have been there.
    begun: usize,
    settings: Vec<(&'static str, String)>,
    snapshots: SnapshotEntries,
}

impl Nodes {
    /// Machines for so many nodes; none runs yet.
    pub(super) fn new(world: &mut World, count: usize, plan: &Plan) -> Self {
        let mut nodes: Vec<Node> = (1..=count).map(|number| node(world, number)).collect();
        let settings = settings(world);
        if plan.has_operator {
            let joins = count + 1..=count + SPARES;
            nodes.extend(joins.map(|number| node(world, number)));
        }
        Self {
            nodes,
            begun: count,
            settings,
            snapshots: plan.snapshots,
        }
    }

    /// So many have been there.
    pub(super) fn count(&self) -> usize {
        self.begun
    }

    /// Where all are, also those that have not been there yet.
    pub(super) fn all_addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }

    /// The machines of those that have been there.
    pub(super) fn machines(&self) -> Vec<NodeId> {
        let begun = &self.nodes[..self.begun];
        begun.iter().map(|node| node.machine).collect()
    }

    pub(super) fn machine(&self, which: usize) -> NodeId {
        self.nodes[which].machine
    }

    /// A node is not started until it is released.
    pub(super) fn hold(&mut self, which: usize) {
        self.nodes[which].is_held = true;
    }

    pub(super) fn release(&mut self, which: usize) {
        self.nodes[which].is_held = false;
    }

    /// A node that is down has lost its disk.
    pub(super) fn lose_disk(&mut self, which: usize) {
        self.nodes[which].lost += 1;
    }

    /// Starts a node, unless it runs. A start may fail, on a disk that fails.
    pub(super) fn start(&mut self, world: &mut World, which: usize) {
        let node = &self.nodes[which];
        if world.is_running(node.machine) || node.is_held {
            return;
        }
        self.begun = self.begun.max(which + 1);
        let begun = &self.nodes[..self.begun];
        let seeds: Vec<String> = begun.iter().map(|n| n.addr.to_string()).collect();
        let node = &mut self.nodes[which];
        let mut settings = self.settings.clone();
        settings.push(("log.dirs", node.folder()));
        settings.push(("node.id", node.number.to_string()));
        settings.push(("listeners", node.addr.to_string()));
        settings.push(("broker.rack", format!("rack-{}", node.number)));
        settings.push(("cores", node.cores.to_string()));
        // the first begins the cluster, the others join it by each other
        if which > 0 || node.lost > 0 {
            settings.push(("cluster.seeds", seeds.join(",")));
        }
        let config = BrokerConfig::from_pairs(settings);
        let mut config = config.expect("the settings are in the table");
        config.metadata_snapshots = self.snapshots;
        let cores = Cores::new(node.cores);
        node.stopper = Stopper::new();
        let launch = Launch::new(config, &cores, node.stopper.clone(), |_| {});
        world.launch(node.machine, cores, RingConfig::default(), move |core| {
            let launch = launch.clone();
            async move { launch.run(core).await.map_err(|e| e.to_string()) }
        });
    }

    pub(super) fn start_all(&mut self, world: &mut World) {
        (0..self.count()).for_each(|which| self.start(world, which));
    }

    /// Asks a node to stop; whether it does, shows.
    pub(super) fn stop(&self, which: usize) {
        self.nodes[which].stopper.stop();
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&self, world: &mut World) {
        *world.network().faults() = NetworkFaults::default();
        world.network().heal();
        *world.cpu() = CpuFaults::default();
        for node in &self.nodes[..self.begun] {
            world.resume(node.machine);
            *world.disk(node.machine).faults() = DiskFaults::default();
        }
    }

    /// The copies of a partition on the disks of these nodes.
    pub(super) fn copies(&self, world: &World, members: &[usize], place: Place) -> Vec<Copied> {
        let members = members.iter().map(|which| &self.nodes[*which]);
        let copied = members.filter_map(|node| {
            let (topic, partition) = (TOPICS[place.0].name, place.1);
            let folder = format!("{}/{topic}-{partition}/", node.folder());
            let disk = world.disk(node.machine);
            let mut files: Vec<String> = disk.list().into_iter().map(|(path, _)| path).collect();
            files.retain(|path| path.starts_with(&folder) && path.ends_with(".log"));
            files.sort();
            let read = files.iter().filter_map(|path| disk.read(path));
            let batches = read.flat_map(|bytes| {
                let whole = Batches::new(&bytes).map_while(Result::ok);
                // zeros may stand behind the end
                let copied = whole.map(|(_, view)| CopiedBatch {
                    base: view.header().base_offset,
                    last: view.header().last_offset(),
                    epoch: view.header().partition_leader_epoch,
                    crc: view.header().crc,
                });
                copied.collect::<Vec<_>>()
            });
            (!files.is_empty()).then(|| Copied {
                node: node.number as i32,
                batches: batches.collect(),
            })
        });
        copied.collect()
    }

    /// Of all partitions.
    pub(super) fn places() -> impl Iterator<Item = Place> {
        (0..COUNT).flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)))
    }
}

fn node(world: &mut World, number: usize) -> Node {
    let ip = IpAddr::from([10, 0, 0, number as u8]);
    Node {
        machine: world.add_node(&format!("node-{number}"), ip),
        number,
        addr: SocketAddr::from((ip, PORT)),
        stopper: Stopper::new(),
        cores: 1 + world.random().index(2),
        lost: 0,
        is_held: false,
    }
}

fn settings(world: &mut World) -> Vec<(&'static str, String)> {
    let random = world.random();
    let lag = random.pick(&[300, 1_000, 3_000, 10_000]);
    let session = random.pick(&[500, 500, 2_000]);
    let balance = random.pick(&[1, 300]);
    let replication = || "3".to_owned();
    let ms = |time: Duration| time.as_millis().to_string();
    vec![
        ("auto.create.topics.enable", "false".to_owned()),
        ("replica.lag.time.max.ms", lag.to_string()),
        ("broker.session.timeout.ms", session.to_string()),
        // leaders move while all goes well, too
        (
            "leader.imbalance.check.interval.seconds",
            balance.to_string(),
        ),
        ("leader.imbalance.per.broker.percentage", "0".to_owned()),
        ("min.insync.replicas", "2".to_owned()),
        ("offsets.topic.num.partitions", "2".to_owned()),
        ("offsets.topic.replication.factor", replication()),
        ("transaction.state.log.num.partitions", "2".to_owned()),
        ("transaction.state.log.replication.factor", replication()),
        ("transaction.state.log.min.isr", "2".to_owned()),
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            ms(ABORT_CHECK),
        ),
        ("group.initial.rebalance.delay.ms", "500".to_owned()),
        ("group.consumer.min.session.timeout.ms", "6000".to_owned()),
        ("group.consumer.session.timeout.ms", ms(consumers::SESSION)),
        ("group.consumer.min.heartbeat.interval.ms", "500".to_owned()),
        (
            "group.consumer.heartbeat.interval.ms",
            ms(consumers::HEARTBEAT),
        ),
    ]
}

/// How long a clean stop may take, before an operator kills what still runs.
pub(super) const STOPS_WITHIN: Duration = Duration::from_secs(20);
