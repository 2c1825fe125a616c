//! Faults × clients on real processes: three nodes in network namespaces of their own, one client that
//! produces with `acks=all`, one fault; then everything that was acknowledged is looked for, and how
//! long each partition was silent is told.

pub mod cluster;
pub mod load;
pub mod network;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use crate::crash::read_log;
use crate::history;
use cluster::Cluster;
use load::{Load, attempts_of, longest_silence};
use network::{Network, within};

/// The topic's partitions.
pub const PARTITIONS: i32 = 6;
const TOPIC: &str = "matrix";
/// Nodes of a cluster.
pub const NODES: u8 = 3;
/// Records per second to each partition.
const RATE: u32 = 100;
/// How long a node is away.
const AWAY: Duration = Duration::from_secs(4);
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// What happens to the node that leads the first partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGTERM, and a new start.
    Shutdown,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// Its network is down, and up again.
    Isolation,
    /// What it sends to the other nodes does not arrive; clients reach it.
    Mute,
    /// What the other nodes send to it does not arrive; clients reach it.
    Deaf,
    /// It and the other nodes do not reach each other; clients reach them all.
    Split,
    /// All nodes one after the other: SIGTERM, and a new start.
    Roll,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Shutdown,
        Self::Pause,
        Self::Isolation,
        Self::Mute,
        Self::Deaf,
        Self::Split,
        Self::Roll,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill",
            Self::Shutdown => "shutdown",
            Self::Pause => "pause",
            Self::Isolation => "isolation",
            Self::Mute => "mute",
            Self::Deaf => "deaf",
            Self::Split => "split",
            Self::Roll => "roll",
        })
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|fault| fault.to_string() == name);
        found.ok_or_else(|| format!("there is no fault {name:?}"))
    }
}

/// One case.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `ringmill` binary.
    pub binary: PathBuf,
    /// An empty folder.
    pub folder: PathBuf,
    /// The client's program and its first arguments.
    pub client: Vec<String>,
    /// What happens.
    pub fault: Fault,
}

/// What a case has seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Records that were acknowledged, all of which are there.
    pub acknowledged: usize,
    /// Records of which the client knows nothing.
    pub unknown: usize,
    /// The longest silence of each partition that the struck node led.
    pub struck: Vec<Duration>,
    /// Of each other partition.
    pub others: Vec<Duration>,
}

/// Runs a case; from within the hub's namespace of `network`.
///
/// # Errors
/// A broken promise, or something that does not come back; the text names it.
pub fn run(plan: &Plan, network: Network) -> Result<Seen, String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let mut cluster = Cluster::start(network, &plan.binary, &plan.folder, NODES)
        .map_err(told("starting the nodes"))?;
    cluster
        .create_topic(TOPIC, PARTITIONS)
        .map_err(|error| format!("creating the topic: {error}"))?;
    let before = cluster
        .wait_in_sync(TOPIC, PATIENCE)
        .map_err(told("at first"))?;
    let load = Load::start(client(plan, &cluster)).map_err(told("starting the client"))?;
    load.wait_for_all(PARTITIONS, Duration::ZERO, PATIENCE)
        .map_err(told("before the fault"))?;
    std::thread::sleep(Duration::from_secs(1));
    let victim = before.get(&0).map_or(1, |partition| partition.leader);
    let begun = load.now();
    strike(&mut cluster, plan.fault, victim as u8).map_err(told("the fault"))?;
    load.wait_for_all(PARTITIONS, load.now(), PATIENCE)
        .map_err(told("after the fault"))?;
    cluster
        .wait_in_sync(TOPIC, PATIENCE)
        .map_err(told("after the fault"))?;
    std::thread::sleep(Duration::from_millis(500));
    let ended = load.now();
    let all = load.end(PATIENCE).map_err(told("ending the load"))?;
    let mut seen = verify(&cluster, &all)?;
    for (partition, was) in before {
        let silence = longest_silence(&all, partition, (begun, ended));
        match was.leader == victim {
            true => seen.struck.push(silence),
            false => seen.others.push(silence),
        }
    }
    Ok(seen)
}

fn client(plan: &Plan, cluster: &Cluster) -> Command {
    let (program, arguments) = plan.client.split_first().expect("a client has a program");
    let mut command = within(&cluster.network.hub(), program.as_ref());
    command.args(arguments).args([
        cluster.bootstrap(),
        TOPIC.to_owned(),
        PARTITIONS.to_string(),
        RATE.to_string(),
        "1".to_owned(),
    ]);
    command
}

fn strike(cluster: &mut Cluster, fault: Fault, victim: u8) -> io::Result<()> {
    let pause = || std::thread::sleep(AWAY);
    match fault {
        Fault::Kill => {
            cluster.kill(victim)?;
            pause();
            cluster.start_node(victim)
        }
        Fault::Shutdown => {
            cluster.stop(victim)?;
            pause();
            cluster.start_node(victim)
        }
        Fault::Pause => {
            cluster.signal(victim, "-STOP")?;
            pause();
            cluster.signal(victim, "-CONT")
        }
        Fault::Isolation => {
            cluster.network.set_link(victim, false)?;
            pause();
            cluster.network.set_link(victim, true)
        }
        Fault::Mute | Fault::Deaf | Fault::Split => {
            set_ways(cluster, fault, victim, false)?;
            pause();
            set_ways(cluster, fault, victim, true)
        }
        Fault::Roll => {
            for node in 1..=NODES {
                cluster.stop(node)?;
                cluster.start_node(node)?;
                let _ = cluster.wait_in_sync(TOPIC, PATIENCE)?;
            }
            Ok(())
        }
    }
}

fn set_ways(cluster: &Cluster, fault: Fault, victim: u8, open: bool) -> io::Result<()> {
    for other in cluster.network.others(victim) {
        if fault != Fault::Deaf {
            cluster.network.set_way(victim, other, open)?;
        }
        if fault != Fault::Mute {
            cluster.network.set_way(other, victim, open)?;
        }
    }
    Ok(())
}

/// Reads everything back from whoever leads, and holds it against what was promised.
fn verify(cluster: &Cluster, all: &[load::Told]) -> Result<Seen, String> {
    let mut seen = Seen {
        acknowledged: 0,
        unknown: 0,
        struck: Vec::new(),
        others: Vec::new(),
    };
    let leaders = cluster.wait_in_sync(TOPIC, PATIENCE);
    for (partition, state) in leaders.map_err(|e| format!("at last: {e}"))? {
        let attempts = attempts_of(all, partition);
        let mut client = cluster.client(state.leader).map_err(|e| e.to_string())?;
        let (start, log) = read_log(&mut client, TOPIC, partition, 0)
            .map_err(|error| format!("reading partition {partition}: {error}"))?;
        let violations = history::check(&attempts, start, &log);
        if let Some(first) = violations.first() {
            let count = violations.len();
            return Err(format!(
                "partition {partition}: {count} violations, the first: {first}"
            ));
        }
        let is_acked =
            |a: &&history::Attempt| matches!(a.outcome, history::Outcome::Acknowledged(_));
        let acknowledged = attempts.iter().filter(is_acked).count();
        seen.acknowledged += acknowledged;
        seen.unknown += attempts.len() - acknowledged;
    }
    Ok(seen)
}
