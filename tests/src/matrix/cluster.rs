//! Real nodes in namespaces of their own, as one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::TopicName;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringmill_wire::kafka_protocol::messages::metadata_request::{
    MetadataRequest, MetadataRequestTopic,
};

use super::clock::Clock;
use super::disk::Disk;
use super::network::{Network, address, within};
use super::teller::wait_until;
use crate::ask;
use crate::node::Node;
use crate::plain::{PlainClient, PlainError};

const PORT: u16 = 9092;
const METADATA_VERSION: i16 = 12;
/// Copies of each partition.
const COPIES: usize = 3;
/// How large a node's disk is, where it has one of its own.
const DISK_BYTES: u64 = 192 << 20;

/// What a partition's metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSeen {
    /// The node that leads, -1 if none does.
    pub leader: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// Who has a copy.
    pub replicas: Vec<i32>,
    /// How many are in sync.
    pub in_sync: usize,
}

/// The partitions of a topic, by their numbers.
pub type Partitions = BTreeMap<i32, PartitionSeen>;

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The `ringmill` binary.
    pub binary: PathBuf,
    /// Where data and logs are.
    pub folder: PathBuf,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
    /// Each node's data is on a disk of its own.
    pub has_disks: bool,
    /// Each node's wall clock can be set.
    pub has_clocks: bool,
}

/// A cluster, whose nodes are numbered from 1.
#[derive(Debug)]
pub struct Cluster {
    /// Its wires.
    pub network: Network,
    parts: Parts,
    nodes: BTreeMap<u8, Node>,
    disks: BTreeMap<u8, Disk>,
    clocks: BTreeMap<u8, Clock>,
    /// Nodes that have been a part of it, and have not left.
    members: BTreeSet<u8>,
}

impl Cluster {
    /// Starts nodes 1 to `count`; the first one begins alone.
    pub fn start(network: Network, parts: Parts, count: u8) -> io::Result<Self> {
        let mut cluster = Self {
            network,
            parts,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            clocks: BTreeMap::new(),
            members: BTreeSet::new(),
        };
        for node in 1..=count {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// The bootstrap servers.
    pub fn bootstrap(&self) -> String {
        addresses(self.members.iter())
    }

    fn data(&self, id: u8) -> PathBuf {
        self.parts.folder.join(format!("node{id}"))
    }

    /// Starts a node; it joins those that have been started before.
    pub fn start_node(&mut self, id: u8) -> io::Result<()> {
        self.start_nodes(&[id])
    }

    /// Starts nodes at once: some may need each other to be ready.
    pub fn start_nodes(&mut self, ids: &[u8]) -> io::Result<()> {
        for id in ids {
            self.equip(*id)?;
        }
        let here = &*self;
        let started: Vec<(u8, io::Result<Node>)> = std::thread::scope(|scope| {
            let starting = ids
                .iter()
                .map(|id| (*id, scope.spawn(|| here.run_node(*id))));
            let starting: Vec<_> = starting.collect();
            let panicked = |_| Err(io::Error::other("starting a node panicked"));
            let started = starting.into_iter();
            let started = started.map(|(id, node)| (id, node.join().unwrap_or_else(panicked)));
            started.collect()
        });
        for (id, node) in started {
            let told = |error| io::Error::other(format!("node {id}: {error}"));
            self.nodes.insert(id, node.map_err(told)?);
            self.members.insert(id);
        }
        Ok(())
    }

    /// Gives a node what it has of its own, once.
    fn equip(&mut self, id: u8) -> io::Result<()> {
        let data = self.data(id);
        if self.parts.has_disks && !self.disks.contains_key(&id) {
            self.disks.insert(id, Disk::make(&data, DISK_BYTES)?);
        }
        if self.parts.has_clocks && !self.clocks.contains_key(&id) {
            let clock = Clock::new(&data.with_extension("clock"))?;
            self.clocks.insert(id, clock);
        }
        Ok(())
    }

    fn run_node(&self, id: u8) -> io::Result<Node> {
        let mut args = vec![
            format!("--node-id={id}"),
            format!(
                "--join={}",
                addresses(self.members.iter().filter(|other| **other != id))
            ),
            "--cores=1".to_owned(),
        ];
        args.extend(self.parts.args.iter().cloned());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = within(&self.network.node(id), &self.parts.binary);
        if let Some(clock) = self.clocks.get(&id) {
            clock.wear(&mut command);
        }
        let listen = format!("{}:{PORT}", address(id));
        Node::start_by(command, &self.data(id), &listen, &args)
    }

    /// A node's disk, where it has one of its own.
    pub fn disk(&self, id: u8) -> io::Result<&Disk> {
        let disk = self.disks.get(&id);
        disk.ok_or_else(|| io::Error::other(format!("node {id} has no disk of its own")))
    }

    /// A node's clock, where it can be set.
    pub fn clock(&self, id: u8) -> io::Result<&Clock> {
        let clock = self.clocks.get(&id);
        clock.ok_or_else(|| io::Error::other(format!("node {id} has the machine's clock")))
    }

    /// Nodes lose their power at once, and their disks what was not flushed; their disks are there
    /// again when this returns.
    pub fn cut_power(&mut self, ids: &[u8]) -> io::Result<()> {
        for id in ids {
            self.signal(*id, "-STOP")?;
        }
        for id in ids {
            self.disk(*id)?.cut_power()?;
        }
        for id in ids {
            self.kill(*id)?;
        }
        for id in ids {
            let disk = self.disk(*id)?;
            disk.unmount()?;
            disk.mount()?;
        }
        Ok(())
    }

    /// Removes all data of a node that does not run.
    pub fn empty(&self, id: u8) -> io::Result<()> {
        std::fs::remove_dir_all(self.data(id))
    }

    /// Has an administrator do something by our own commands; gives what they print.
    pub fn administer(&self, words: &[&str]) -> io::Result<String> {
        let node = self.nodes.keys().next().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(&self.parts.binary);
        command.args(words);
        command.args(["--bootstrap", &format!("{}:{PORT}", address(*node))]);
        let output = command.output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                let told = String::from_utf8_lossy(&output.stderr);
                Err(io::Error::other(format!("{words:?}: {}", told.trim())))
            }
        }
    }

    /// A node leaves for good.
    pub fn leave(&mut self, id: u8) -> io::Result<()> {
        self.administer(&["cluster", "leave", &id.to_string()])?;
        self.members.remove(&id);
        Ok(())
    }

    /// Waits until no copies are on their way any more.
    pub fn wait_moved(&self, patience: Duration) -> io::Result<()> {
        wait_until(patience, || {
            let moves = self.administer(&["cluster", "moves"]);
            match moves.map_err(|error| error.to_string())? {
                told if told.starts_with("all copies are") => Ok(()),
                told => Err(format!("copies are on their way: {told}")),
            }
        })
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: u8) -> io::Result<()> {
        self.nodes.remove(&id).map_or(Ok(()), Node::kill)
    }

    /// SIGTERM, and the wait for the end.
    pub fn stop(&mut self, id: u8) -> io::Result<()> {
        self.nodes.remove(&id).map_or(Ok(()), Node::stop)
    }

    /// Another signal, by its name.
    pub fn signal(&self, id: u8, name: &str) -> io::Result<()> {
        let node = self.nodes.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let pid = node.id().to_string();
        match Command::new("kill").args([name, &pid]).status()?.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("kill {name} {pid} failed"))),
        }
    }

    /// Makes a topic of three replicas.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), PlainError> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let configs = configs.iter().map(|(name, value)| {
            let config = CreatableTopicConfig::default();
            config.with_name(text(name)).with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(COPIES as i16)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let mut client = self.client(1)?;
        match ask::created(&client.call(ask::CREATE_TOPICS_VERSION, &request)?)? {
            0 => Ok(()),
            code => Err(PlainError::Refused(code)),
        }
    }

    /// A client of one node.
    pub fn client(&self, node: i32) -> io::Result<PlainClient> {
        let node = u8::try_from(node).map_err(io::Error::other)?;
        PlainClient::connect(SocketAddr::new(address(node).into(), PORT))
    }

    /// The partitions of a topic as all nodes show them, those that have heard nothing lately too;
    /// nothing if they are not of one mind.
    pub fn partitions(&self, topic: &str) -> Result<Option<Partitions>, PlainError> {
        let mut all = self.nodes.keys().map(|node| self.shown_by(*node, topic));
        let Some(first) = all.next().transpose()? else {
            return Ok(None);
        };
        for other in all {
            if other? != first {
                return Ok(None);
            }
        }
        Ok(Some(first))
    }

    /// Who leads a partition, as whoever knows the latest leader epoch shows it.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let all = self.nodes.keys().map(|node| self.shown_by(*node, topic));
        let seen = all.filter_map(|shown| shown.ok()?.remove(&partition));
        let latest = seen.max_by_key(|seen| seen.leader_epoch)?;
        (latest.leader > 0).then_some(latest.leader)
    }

    fn shown_by(&self, node: u8, topic: &str) -> Result<Partitions, PlainError> {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let asked = MetadataRequestTopic::default().with_name(Some(name));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let answer = self.client(node.into())?.call(METADATA_VERSION, &request)?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let seen = partitions.map(|partition| {
            let seen = PartitionSeen {
                leader: partition.leader_id.0,
                leader_epoch: partition.leader_epoch,
                replicas: partition.replica_nodes.iter().map(|node| node.0).collect(),
                in_sync: partition.isr_nodes.len(),
            };
            (partition.partition_index, seen)
        });
        Ok(seen.collect())
    }

    /// Waits until all nodes show that all replicas of a topic are in sync; gives what they show.
    pub fn wait_in_sync(&self, topic: &str, patience: Duration) -> io::Result<Partitions> {
        let is_whole = |seen: &Partitions| {
            !seen.is_empty() && seen.values().all(|p| p.in_sync == COPIES && p.leader > 0)
        };
        let mut whole = None;
        wait_until(patience, || match self.partitions(topic) {
            Ok(Some(seen)) if is_whole(&seen) => {
                whole = Some(seen);
                Ok(())
            }
            seen => Err(format!("not in sync: {seen:?}")),
        })?;
        whole.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

fn addresses<'a>(nodes: impl Iterator<Item = &'a u8>) -> String {
    let all = nodes.map(|node| format!("{}:{PORT}", address(*node)));
    all.collect::<Vec<_>>().join(",")
}
