//! The nodes under test: how they start, and what happens to them. One node for now; actors and
//! checkers only know addresses.

use std::net::SocketAddr;
use std::time::Duration;

use ringmill_engine::{BrokerConfig, Launch, Stopper};
use ringmill_ring::sim::{DiskFaults, NetworkFaults, NodeId, World};
use ringmill_ring::{Cores, RingConfig};

use super::consumers;
use super::scene::Scene;
use super::topics::Bug;
use super::transactional::{ABORT_CHECK, TIMEOUT};
use crate::checkers::expiry::Memory;

/// Virtual time that a clean stop may take.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Transactional ids are forgotten that nobody has used for so long, at this interval.
const TRANSACTIONAL_ID_LIVES: Duration = Duration::from_secs(300);
const TRANSACTIONAL_ID_CHECK: Duration = Duration::from_secs(60);
/// And producers. No producer sends a batch again for as long.
const PRODUCER_LIVES: Duration = Duration::from_secs(240);
const RETENTION_CHECK: Duration = Duration::from_secs(1);
/// How often committed offsets are looked at.
const OFFSETS_CHECK: Duration = Duration::from_secs(30);

/// What nodes remember for how long.
pub(super) const MEMORY: Memory = Memory {
    transactional_ids: TRANSACTIONAL_ID_LIVES.saturating_add(TRANSACTIONAL_ID_CHECK),
    producers: PRODUCER_LIVES.saturating_add(RETENTION_CHECK),
    offsets: OFFSETS_CHECK,
};

/// How a life of a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Kill,
    PowerOff,
    Stop,
}

/// A node and what runs on it.
struct Node {
    id: NodeId,
    addr: SocketAddr,
    stopper: Stopper,
}

/// All nodes.
pub(super) struct Cluster {
    nodes: Vec<Node>,
    settings: Vec<(&'static str, String)>,
    cores: usize,
    /// Their disks fail now and then.
    failing: bool,
}

impl Cluster {
    pub(super) fn new(world: &mut World, bug: Option<Bug>, offsets_minutes: u64) -> Self {
        let cores = 1 + world.random().index(2);
        let failing = world.random().below(5) == 0;
        let addr = SocketAddr::from(([10, 0, 0, 1], 9092));
        let node = Node {
            id: world.add_node("node-1", addr.ip()),
            addr,
            stopper: Stopper::new(),
        };
        Self {
            nodes: vec![node],
            settings: settings(cores, bug, offsets_minutes),
            cores,
            failing,
        }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Starts every node that does not run; tells whether there was one. A start may fail, on a
    /// disk that fails.
    pub(super) fn boot(&mut self, world: &mut World) -> bool {
        let mut started = false;
        for node in &mut self.nodes {
            if world.is_running(node.id) {
                continue;
            }
            started = true;
            let mut settings = self.settings.clone();
            settings.push(("listeners", node.addr.to_string()));
            let config = BrokerConfig::from_pairs(settings).expect("the settings are in the table");
            let cores = Cores::new(self.cores);
            node.stopper = Stopper::new();
            let launch = Launch::new(config, &cores, node.stopper.clone(), |_| {});
            world.launch(node.id, cores, RingConfig::default(), move |core| {
                let launch = launch.clone();
                async move { launch.run(core).await.map_err(|e| e.to_string()) }
            });
        }
        started
    }

    /// Everything is slow, lossy and cut in pieces in a new way; disks fail, if they do.
    pub(super) fn trouble(&self, world: &mut World) {
        world.swarm();
        for node in self.nodes.iter().filter(|_| self.failing) {
            let faults = DiskFaults::failing_swarm(world.random());
            *world.disk(node.id).faults() = faults;
        }
    }

    /// The disk has room for no more than so many further bytes.
    pub(super) fn fill_disk(&self, world: &mut World, room: u64) {
        for node in &self.nodes {
            let used = world.disk(node.id).used();
            world.disk(node.id).faults().capacity = used + room;
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&self, world: &mut World) {
        *world.network().faults() = NetworkFaults::default();
        world.network().heal();
        *world.cpu() = ringmill_ring::sim::CpuFaults::default();
        for node in &self.nodes {
            world.resume(node.id);
            *world.disk(node.id).faults() = DiskFaults::default();
        }
    }

    /// Ends the life of one node.
    pub(super) fn end(&mut self, scene: &Scene, world: &mut World, end: End) {
        let which = world.random().index(self.nodes.len());
        let node = &self.nodes[which];
        // a node on a failing disk may have ended by itself
        if !world.is_running(node.id) {
            return;
        }
        world.resume(node.id);
        match end {
            End::Kill => world.kill(node.id),
            End::PowerOff => world.power_off(node.id),
            End::Stop => {
                node.stopper.stop();
                let id = node.id;
                // one that hangs is killed, as an operator would
                if !scene.pass(world, STOPS_WITHIN, |w| !w.is_running(id)) {
                    world.kill(id);
                }
            }
        }
    }

    /// How far a partition is compacted, by the cleaner's own checkpoint, and where its active
    /// segment begins.
    pub(super) fn cleaned(&self, world: &World, partition: &str) -> (i64, i64) {
        let folder = format!("/{partition}/");
        let disk = world.disk(self.nodes[0].id);
        let (mut clean, mut active) = (0, 0);
        for (path, _) in disk.list() {
            let Some((_, file)) = path.split_once(&folder) else {
                continue;
            };
            if let Some(base) = file.strip_suffix(".log") {
                active = base.parse().unwrap_or(0).max(active);
            }
            if file == "cleaner-checkpoint" {
                let content = disk.read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&content);
                let mut lines = text.lines();
                let value = lines.find_map(|line| line.strip_prefix("firstDirtyOffset "));
                clean = value.and_then(|value| value.parse().ok()).unwrap_or(0);
            }
        }
        (clean, active)
    }
}

fn settings(cores: usize, bug: Option<Bug>, offsets_minutes: u64) -> Vec<(&'static str, String)> {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let abort_check = match bug {
        Some(Bug::NeverTimesOut) => Duration::from_secs(86_400),
        _ => ABORT_CHECK,
    };
    let mut settings = vec![
        ("log.dirs", "/data".to_owned()),
        ("cores", cores.to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("log.retention.check.interval.ms", ms(RETENTION_CHECK)),
        ("log.segment.delete.delay.ms", "1000".to_owned()),
        ("log.cleaner.backoff.ms", "1000".to_owned()),
        ("log.cleaner.dedupe.buffer.size", "2097152".to_owned()),
        ("offsets.topic.num.partitions", "2".to_owned()),
        ("offsets.topic.segment.bytes", "131072".to_owned()),
        ("group.metadata.max.bytes", "65536".to_owned()),
        ("offsets.retention.minutes", offsets_minutes.to_string()),
        ("offsets.retention.check.interval.ms", ms(OFFSETS_CHECK)),
        ("transaction.state.log.num.partitions", "2".to_owned()),
        ("transaction.max.timeout.ms", ms(2 * TIMEOUT)),
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            ms(abort_check),
        ),
        ("transactional.id.expiration.ms", ms(TRANSACTIONAL_ID_LIVES)),
        (
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            ms(TRANSACTIONAL_ID_CHECK),
        ),
        ("producer.id.expiration.ms", ms(PRODUCER_LIVES)),
        ("group.initial.rebalance.delay.ms", "500".to_owned()),
        ("group.consumer.min.session.timeout.ms", "6000".to_owned()),
        ("group.consumer.session.timeout.ms", ms(consumers::SESSION)),
        ("group.consumer.min.heartbeat.interval.ms", "500".to_owned()),
        (
            "group.consumer.heartbeat.interval.ms",
            ms(consumers::HEARTBEAT),
        ),
        ("max.incremental.fetch.session.cache.slots", "3".to_owned()),
    ];
    for (name, value) in bug.map_or(&[][..], Bug::settings) {
        settings.retain(|(other, _)| other != name);
        settings.push((name, (*value).to_owned()));
    }
    settings
}
