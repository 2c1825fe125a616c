//! Real nodes in namespaces of their own, as one cluster.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::TopicName;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreateTopicsRequest,
};
use ringmill_wire::kafka_protocol::messages::metadata_request::{
    MetadataRequest, MetadataRequestTopic,
};

use super::network::{Network, address, within};
use crate::ask;
use crate::node::Node;
use crate::plain::{PlainClient, PlainError};

const PORT: u16 = 9092;
const METADATA_VERSION: i16 = 12;

/// What a partition's metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSeen {
    /// The node that leads, -1 if none does.
    pub leader: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// How many are in sync.
    pub in_sync: usize,
}

/// The partitions of a topic, by their numbers.
pub type Partitions = BTreeMap<i32, PartitionSeen>;

/// A cluster, whose nodes are numbered from 1.
#[derive(Debug)]
pub struct Cluster {
    /// Its wires.
    pub network: Network,
    binary: PathBuf,
    folder: PathBuf,
    nodes: BTreeMap<u8, Node>,
    count: u8,
}

impl Cluster {
    /// Starts nodes 1 to `count` with data below `folder`; the first one begins alone.
    pub fn start(network: Network, binary: &Path, folder: &Path, count: u8) -> io::Result<Self> {
        let mut cluster = Self {
            network,
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            nodes: BTreeMap::new(),
            count,
        };
        for node in 1..=count {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// The bootstrap servers.
    pub fn bootstrap(&self) -> String {
        let all = (1..=self.count).map(|node| format!("{}:{PORT}", address(node)));
        all.collect::<Vec<_>>().join(",")
    }

    /// Starts a node; it joins those that have been started before.
    pub fn start_node(&mut self, id: u8) -> io::Result<()> {
        let data = self.folder.join(format!("node{id}"));
        let seeds: Vec<String> = match data.exists() {
            true => (1..=self.count).filter(|other| *other != id).collect(),
            false => (1..id).collect::<Vec<u8>>(),
        }
        .into_iter()
        .map(|other| format!("{}:{PORT}", address(other)))
        .collect();
        let args = [
            format!("--node-id={id}"),
            format!("--join={}", seeds.join(",")),
            "--cores=1".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let command = within(&self.network.node(id), &self.binary);
        let listen = format!("{}:{PORT}", address(id));
        let node = Node::start_by(command, &data, &listen, &args)?;
        self.nodes.insert(id, node);
        Ok(())
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
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), PlainError> {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(partitions)
            .with_replication_factor(3);
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
                in_sync: partition.isr_nodes.len(),
            };
            (partition.partition_index, seen)
        });
        Ok(seen.collect())
    }

    /// Waits until all nodes show that all replicas of a topic are in sync; gives what they show.
    pub fn wait_in_sync(&self, topic: &str, patience: Duration) -> io::Result<Partitions> {
        let deadline = Instant::now() + patience;
        loop {
            let seen = self.partitions(topic);
            let is_whole = |seen: &Partitions| {
                !seen.is_empty() && seen.values().all(|p| p.in_sync == 3 && p.leader > 0)
            };
            match seen {
                Ok(Some(seen)) if is_whole(&seen) => return Ok(seen),
                seen if Instant::now() > deadline => {
                    return Err(io::Error::other(format!("not in sync: {seen:?}")));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}
