//! Faults × clients on real processes: nodes in network namespaces of their own, one client that
//! produces with `acks=all`, groups of consumers that read all the time, one fault; then everything that
//! was acknowledged is looked for, what was read is held against what is there, and how long each
//! partition was silent is told.

pub mod chart;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod fault;
mod fill;
pub mod load;
pub mod network;
pub mod page;
pub mod readers;
pub mod seen;
mod strike;
pub mod teller;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::crash::read_log;
use crate::history;
use cluster::{Cluster, Partitions, Parts};
use fault::Fault;
use load::{Became, Load, Told, attempts_of, longest_silence, p99};
use network::{Network, within};
use readers::{GroupReads, Readers};
use seen::Seen;
use strike::strike;

/// The topic's partitions.
pub const PARTITIONS: i32 = 6;
const TOPIC: &str = "matrix";
/// Records per second to each partition.
const RATE: u32 = 100;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// One case.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `ringmill` binary.
    pub binary: PathBuf,
    /// An empty folder.
    pub folder: PathBuf,
    /// The client's program and its first arguments.
    pub client: Vec<String>,
    /// The program of a member of a group that reads.
    pub reader: PathBuf,
    /// What happens.
    pub fault: Fault,
    /// Further arguments of the nodes.
    pub args: Vec<String>,
}

/// A case while it goes on.
struct Scene {
    cluster: Cluster,
    begun: Instant,
    load: Load,
    readers: Readers,
    /// What the topic held before.
    filled: Vec<Told>,
    /// Who led at first.
    before: Partitions,
}

/// When things happened, since the case began.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Everything was well.
    from: Duration,
    /// The fault began.
    struck: Duration,
    /// What happened has happened.
    done: Duration,
    /// Everything is well again.
    to: Duration,
}

fn told<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Runs a case; from within the hub's namespace of `network`, with mounts of its own.
///
/// # Errors
/// A broken promise, or something that does not come back; the text names it.
pub fn run(plan: &Plan, network: Network) -> Result<Seen, String> {
    let mut scene = begin(plan, network)?;
    let now = |scene: &Scene| scene.begun.elapsed();
    let from = now(&scene);
    std::thread::sleep(match plan.fault {
        Fault::Grown => Duration::from_secs(8),
        _ => Duration::from_secs(1),
    });
    let victim = scene.before.get(&0).map_or(1, |seen| seen.leader);
    let victim = u8::try_from(victim).map_err(|_| "nobody leads".to_owned())?;
    let struck = now(&scene);
    strike(&mut scene.cluster, plan.fault, victim).map_err(told("the fault"))?;
    let done = now(&scene);
    wait_for_all(&scene, done).map_err(told("after the fault"))?;
    let whole = scene.cluster.wait_in_sync(TOPIC, PATIENCE);
    whole.map_err(told("after the fault"))?;
    std::thread::sleep(Duration::from_millis(500));
    let times = Times {
        from,
        struck,
        done,
        to: now(&scene),
    };
    end(scene, plan.fault.struck(victim), times)
}

fn begin(plan: &Plan, network: Network) -> Result<Scene, String> {
    let parts = Parts {
        binary: plan.binary.clone(),
        folder: plan.folder.clone(),
        args: plan.args.clone(),
        has_disks: plan.fault.has_disks(),
        has_clocks: plan.fault == Fault::Clocks,
    };
    let cluster = Cluster::start(network, parts, plan.fault.nodes());
    let cluster = cluster.map_err(told("starting the nodes"))?;
    // So that what the nodes take the time to be is in the log.
    let stamped = [("message.timestamp.type", "LogAppendTime")];
    let configs = match plan.fault {
        Fault::Clocks => &stamped[..],
        _ => &[],
    };
    let created = cluster.create_topic(TOPIC, PARTITIONS, configs);
    created.map_err(told("creating the topic"))?;
    let before = cluster.wait_in_sync(TOPIC, PATIENCE);
    let before = before.map_err(told("at first"))?;
    let filled = match plan.fault {
        Fault::Grown => fill::fill(&cluster, TOPIC, PARTITIONS),
        _ => Ok(Vec::new()),
    };
    let begun = Instant::now();
    let hub = cluster.network.hub();
    let reader = |group: &str| {
        let mut command = within(&hub, &plan.reader);
        command.args([&*cluster.bootstrap(), TOPIC, group]);
        complaining(command, plan, "readers")
    };
    let readers = Readers::start(reader, begun);
    let load = complaining(client(plan, &cluster), plan, "client");
    let load = load.and_then(|load| Load::start(load, begun));
    let scene = Scene {
        load: load.map_err(told("starting the client"))?,
        readers: readers.map_err(told("starting the readers"))?,
        filled: filled.map_err(told("filling the topic"))?,
        cluster,
        begun,
        before,
    };
    wait_for_all(&scene, Duration::ZERO).map_err(told("before the fault"))?;
    Ok(scene)
}

/// Has what a process complains of written beside the nodes' logs.
fn complaining(mut command: Command, plan: &Plan, name: &str) -> io::Result<Command> {
    let mut options = std::fs::File::options();
    let path = plan.folder.join(name).with_extension("log");
    command.stderr(options.create(true).append(true).open(path)?);
    Ok(command)
}

/// Waits until everything that is sent after `since` comes through everywhere.
fn wait_for_all(scene: &Scene, since: Duration) -> io::Result<()> {
    scene.load.wait_for_all(PARTITIONS, since, PATIENCE)?;
    scene.readers.wait_for_all(PARTITIONS, since, PATIENCE)
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

type Log = Vec<(i64, Option<history::Author>)>;

/// Ends the clients and holds what they were told against what is there.
fn end(scene: Scene, struck: Vec<u8>, times: Times) -> Result<Seen, String> {
    let loaded = scene.load.end(PATIENCE).map_err(told("ending the load"))?;
    let logs = read_all(&scene.cluster)?;
    let ends: BTreeMap<i32, i64> = logs
        .iter()
        .map(|(partition, (start, log))| (*partition, start + log.len() as i64))
        .collect();
    let at_ends = scene.readers.wait_for_ends(&ends, PATIENCE);
    at_ends.map_err(told("at last"))?;
    let groups = scene.readers.end(PATIENCE);
    let groups = groups.map_err(told("ending the readers"))?;
    let all: Vec<Told> = scene.filled.into_iter().chain(loaded).collect();
    let mut seen = Seen::default();
    for (partition, (start, log)) in &logs {
        count(&mut seen, &all, *partition, (*start, log))?;
        for group in &groups {
            check_reads(group, *partition, (*start, log))?;
        }
    }
    for (partition, was) in &scene.before {
        let is_struck = struck.iter().any(|node| i32::from(*node) == was.leader);
        measure(&mut seen, (&all, &groups), (*partition, is_struck), times);
    }
    seen.p99_before = p99(&all, (times.from, times.struck));
    seen.p99_during = p99(&all, (times.struck, times.done));
    Ok(seen)
}

/// Reads everything back from whoever leads.
fn read_all(cluster: &Cluster) -> Result<BTreeMap<i32, (i64, Log)>, String> {
    let leaders = cluster.wait_in_sync(TOPIC, PATIENCE);
    let leaders = leaders.map_err(told("at last"))?;
    let read = leaders.into_iter().map(|(partition, state)| {
        let client = cluster.client(state.leader);
        let mut client = client.map_err(|error| error.to_string())?;
        let log = read_log(&mut client, TOPIC, partition, 0);
        let log = log.map_err(|error| format!("reading partition {partition}: {error}"))?;
        Ok((partition, log))
    });
    read.collect()
}

/// Holds a partition's log against what the client was told.
fn count(
    seen: &mut Seen,
    all: &[Told],
    partition: i32,
    (start, log): (i64, &Log),
) -> Result<(), String> {
    let attempts = attempts_of(all, partition);
    let violations = history::check(&attempts, start, log);
    if let Some(first) = violations.first() {
        let count = violations.len();
        return Err(format!(
            "partition {partition}: {count} violations, the first: {first}"
        ));
    }
    let is_acked = |a: &&history::Attempt| matches!(a.outcome, history::Outcome::Acknowledged(_));
    let acknowledged = attempts.iter().filter(is_acked).count();
    seen.acknowledged += acknowledged;
    seen.unknown += attempts.len() - acknowledged;
    let of_it = all.iter().filter(|told| told.partition == partition);
    seen.failed += of_it.filter(|told| told.became == Became::Failed).count();
    Ok(())
}

fn check_reads(
    group: &GroupReads,
    partition: i32,
    (start, log): (i64, &Log),
) -> Result<(), String> {
    let reads = group.get(&partition).map_or(&[][..], Vec::as_slice);
    let broken = readers::check(reads, start, log);
    match broken.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "readers of partition {partition}: {} promises broken, the first: {first}",
            broken.len()
        )),
    }
}

/// How long a partition was silent, to its client and to the readers.
fn measure(
    seen: &mut Seen,
    (all, groups): (&[Told], &[GroupReads]),
    (partition, is_struck): (i32, bool),
    times: Times,
) {
    let window = (times.struck, times.to);
    let of_it = |told: &&Told| told.partition == partition && told.is_acknowledged();
    let silence = longest_silence(all.iter().filter(of_it).map(|told| told.at), window);
    match is_struck {
        true => seen.struck.push(silence),
        false => seen.others.push(silence),
    }
    for reads in groups.iter().filter_map(|group| group.get(&partition)) {
        let silence = longest_silence(reads.iter().map(|read| read.at), window);
        match is_struck {
            true => seen.readers_struck.push(silence),
            false => seen.readers_others.push(silence),
        }
    }
}
