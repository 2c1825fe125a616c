//! Bits that rot on a disk while nothing is written there: of one node in each seed, so that what it may
//! lose is whole on the others.
//!
//! A log's bits rot where every acknowledged record is on another node as well, in sync or eligible:
//! where `min.insync.replicas` is two. And they rot before the last checkpoint on the disk: behind it, a
//! start takes what is broken for the end that a crash has torn, as Kafka does. Of what is written twice
//! for the sake of that, one copy rots. Not touched is what Kafka's formats give no sum to: leader epochs,
//! in batches and beside them, and aborted transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ringmill_log::checkpoint::Checkpoint;
use ringmill_ring::sim::{NodeId, World};
use ringmill_wire::StrBytes;
use ringmill_wire::batch::Batches;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{
    CONSUMER_REPLICA_ID, FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchTopic,
    IsolationLevel, NO_SESSION_ID,
};
use ringmill_wire::kafka_protocol::messages::MetadataRequest;
use ringmill_wire::topic::TopicRef;

use super::super::mixed::scene::{METADATA_VERSION, Scene, text};
use super::super::mixed::topics::TOPICS;
use super::liveness::WaitsFor;
use super::nodes::Nodes;
use super::routes::Routes;
use super::{COUNT, MIN_IN_SYNC};
use crate::ask::FETCH_VERSION;

/// Where a node keeps everything.
const DATA: &str = "/data/";
/// The broker's own topics, of which two are to be in sync.
const OWN: [&str; 2] = ["__consumer_offsets", "__transaction_state"];
/// Where a batch has the epoch of its leader.
const EPOCH: std::ops::Range<u64> = 12..16;
/// Flips at a time, at most.
const FLIPS: u64 = 4;

/// What rots in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rots {
    Logs,
    /// What stands beside the logs: were it both, a start might take the log's middle for its end.
    Others,
}

/// The disk that rots.
#[derive(Debug, Default)]
pub(super) struct Rot {
    node: Option<usize>,
    folders: BTreeMap<String, Rots>,
    /// Of which there is one sound copy left.
    once: BTreeSet<String>,
}

impl Rot {
    /// Whose disk has rotted, if one has.
    pub(super) fn node(&self) -> Option<usize> {
        self.node
    }

    /// Whose disk rots: this one's, if none has yet.
    pub(super) fn which(&mut self, which: usize) -> usize {
        *self.node.get_or_insert(which)
    }

    /// Some bits flip on the disk that rots.
    pub(super) fn strike(&mut self, world: &mut World, machines: &[NodeId]) {
        let Some(which) = self.node else {
            return;
        };
        let machine = machines[which];
        for _ in 0..1 + world.random().below(FLIPS) {
            let rots = match world.random().below(4) {
                0 => Rots::Others,
                _ => Rots::Logs,
            };
            let chosen = self.choose(world, machine, rots);
            if let Some((file, at)) = chosen {
                let mask = 1 << world.random().below(8);
                tracing::info!(at = ?world.now(), file, byte = at, mask, "a bit rots");
                world.disk(machine).corrupt(&file, at, mask);
            }
        }
    }

    /// A byte that may rot: zeros between what is written mean nothing.
    fn choose(&mut self, world: &mut World, machine: NodeId, rots: Rots) -> Option<(String, u64)> {
        let files = world.disk(machine).list();
        let may_rot = |(path, len): &(String, u64)| {
            let (folder, name) = path.strip_prefix(DATA)?.split_once('/')?;
            let is_of_kind = match rots {
                Rots::Logs => has_copies(folder) && name.ends_with(".log"),
                Rots::Others => is_summed(name) && !self.once.contains(path),
            };
            let is_free = self.folders.get(folder).is_none_or(|other| *other == rots);
            (*len > 0 && is_of_kind && is_free).then(|| (folder.to_owned(), name.to_owned()))
        };
        let files: Vec<(String, String)> = files.iter().filter_map(may_rot).collect();
        if files.is_empty() {
            return None;
        }
        let (folder, name) = files[world.random().index(files.len())].clone();
        let path = format!("{DATA}{folder}/{name}");
        let at = match rots {
            Rots::Logs => of_log(world, machine, &folder, &name)?,
            Rots::Others => {
                let content = world.disk(machine).read(&path)?;
                let at = world.random().index(content.len());
                let written = content[at..].iter().position(|byte| *byte != 0);
                (at + written?) as u64
            }
        };
        if name == "checkpoint" || name.ends_with(".journal") {
            self.once.insert(path.clone());
        }
        self.folders.insert(folder, rots);
        Some((path, at))
    }
}

/// Whether all that is acknowledged is on two nodes at least.
fn has_copies(folder: &str) -> bool {
    let topics = TOPICS[..COUNT].iter().zip(MIN_IN_SYNC);
    let safe = topics
        .filter(|(_, min)| *min != "1")
        .map(|(topic, _)| topic.name);
    let mut safe = safe.chain(OWN);
    let topic = folder.rsplit_once('-').map(|(topic, _)| topic);
    safe.any(|name| topic == Some(name))
}

/// Whether what a file holds shows whether it is what was written.
fn is_summed(name: &str) -> bool {
    let names = ["checkpoint", "cleaner-checkpoint", "quorum.journal"];
    let ends = [".index", ".timeindex", ".snapshot"];
    names.contains(&name) || ends.iter().any(|end| name.ends_with(end))
}

/// A byte of a log that the checkpoint on the medium covers.
fn of_log(world: &mut World, machine: NodeId, folder: &str, name: &str) -> Option<u64> {
    let disk = world.disk(machine);
    let checkpoint = disk.read_durable(format!("{DATA}{folder}/checkpoint"))?;
    let content = disk.read(format!("{DATA}{folder}/{name}"))?;
    let end = covered(&checkpoint, name, content.len() as u64)?;
    let whole = Batches::new(&content).map_while(Result::ok);
    let batches: Vec<(u64, u64)> = whole
        .map(|(at, view)| (at as u64, view.size() as u64))
        .filter(|(at, size)| at + size <= end)
        .collect();
    if batches.is_empty() {
        return None;
    }
    let (start, size) = batches[world.random().index(batches.len())];
    let within = world.random().below(size);
    (!EPOCH.contains(&within)).then_some(start + within)
}

/// How many bytes of a log's file of a length a checkpoint covers.
fn covered(checkpoint: &[u8], name: &str, len: u64) -> Option<u64> {
    let base: i64 = name.strip_suffix(".log")?.parse().ok()?;
    let point = Checkpoint::parse(checkpoint)?.recovery_point;
    Some(match base.cmp(&point.segment) {
        std::cmp::Ordering::Less => len,
        std::cmp::Ordering::Equal => point.position,
        std::cmp::Ordering::Greater => 0,
    })
}

/// Reads every copy from its own node, again and again, until all of each is whole: what has rotted
/// has to be found, and to be had anew. A copy shows as much as its node knows to be safe, and clients go
/// on: it is whole when it shows as much as any copy did the last time.
pub(super) async fn heal(scene: Scene, waits_for: WaitsFor, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut routes = Routes::new(&scene);
    let mut due: BTreeMap<(String, i32), i64> = BTreeMap::new();
    loop {
        let (mut lacks, mut ends) = (None, due.clone());
        for (copy, addr) in copies(&mut routes, &mut random).await {
            let end = read_copy(&mut routes, addr, &copy).await;
            let partition = (copy.1.clone(), copy.2);
            let longest = ends.entry(partition.clone()).or_default();
            *longest = (*longest).max(end.unwrap_or_default());
            if end.is_none() || end < due.get(&partition).copied() || !due.contains_key(&partition)
            {
                lacks = Some(copy);
            }
        }
        due = ends;
        let Some((node, topic, partition)) = lacks else {
            return;
        };
        waits_for.replace(format!(
            "node {node}'s copy of {topic}-{partition} to be whole"
        ));
        Routes::back_off(&mut random).await;
    }
}

/// A node's copy of a topic's partition.
type Copy = (i32, String, i32);

/// All copies, each with the address of its node.
async fn copies(routes: &mut Routes, random: &mut SmallRng) -> Vec<(Copy, SocketAddr)> {
    let request = MetadataRequest::default().with_topics(None);
    let told = loop {
        let addr = routes.any(random);
        let asked = match routes.at(addr).await {
            Ok(client) => client.call(METADATA_VERSION, &request).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(told) => break told,
            Err(_) => routes.drop_connection(addr),
        }
        Routes::back_off(random).await;
    };
    let mut copies = Vec::new();
    for topic in &told.topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        for part in &topic.partitions {
            for node in &part.replica_nodes {
                let broker = told.brokers.iter().find(|broker| broker.node_id == *node);
                let ip = broker.and_then(|broker| broker.host.parse::<IpAddr>().ok());
                if let Some((broker, ip)) = broker.zip(ip) {
                    let addr = SocketAddr::new(ip, broker.port as u16);
                    let copy = (node.0, name.to_owned(), part.partition_index);
                    copies.push((copy, addr));
                }
            }
        }
    }
    copies
}

/// Reads a copy as far as it is shown, and gives the end of that; none if it is not whole.
async fn read_copy(
    routes: &mut Routes,
    addr: SocketAddr,
    (_, topic, partition): &Copy,
) -> Option<i64> {
    let mut from = 0;
    loop {
        let request = request(topic, *partition, from);
        let fetched = match routes.at(addr).await {
            Ok(client) => client.fetch_with(FETCH_VERSION, &request).await,
            Err(error) => Err(error),
        };
        let Ok(mut fetched) = fetched else {
            routes.drop_connection(addr);
            return None;
        };
        let part = fetched.topics.pop().and_then(|mut t| t.partitions.pop())?;
        match ErrorCode::from_code(part.error_code) {
            Some(ErrorCode::None) => {}
            // One that is deleted is not named again.
            _ => return None,
        }
        let batches = Batches::new(&part.records).map_while(Result::ok);
        match batches.last() {
            Some((_, view)) => from = view.header().next_offset(),
            None => return Some(from),
        }
    }
}

/// By a consumer that reads from followers as well.
fn request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let part = FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        safe_end: -1,
    };
    FetchRequest {
        replica_id: CONSUMER_REPLICA_ID,
        replica_epoch: -1,
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id: NO_SESSION_ID,
        session_epoch: FINAL_SESSION_EPOCH,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(text(topic)),
            partitions: vec![part],
        }],
        forgotten: Vec::new(),
        rack_id: StrBytes::default(),
    }
}

/// Looks at the logs on all disks, as far as their checkpoints cover them: behind a log's end its file
/// may hold what was taken back.
///
/// # Errors
/// Where one is not whole.
pub(super) fn look(world: &World, nodes: &Nodes) -> Result<(), String> {
    for machine in nodes.machines() {
        let disk = world.disk(machine);
        let logs = disk.list().into_iter().map(|(path, _)| path);
        for path in logs.filter(|path| path.starts_with(DATA) && path.ends_with(".log")) {
            let content: Bytes = disk.read(&path).unwrap_or_default();
            let (folder, name) = path.rsplit_once('/').unwrap_or_default();
            let checkpoint = disk.read(format!("{folder}/checkpoint"));
            let end = checkpoint.and_then(|point| covered(&point, name, content.len() as u64));
            let whole = Batches::new(&content).map_while(Result::ok);
            let mut covered = whole.take_while(|(at, _)| (*at as u64) < end.unwrap_or(0));
            if let Some((at, _)) = covered.find(|(_, view)| view.check_crc().is_err()) {
                return Err(format!(
                    "rot: {path} on {machine:?} is damaged at byte {at}"
                ));
            }
        }
    }
    Ok(())
}
