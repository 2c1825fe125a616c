//! A mixed load on a simulated cluster, from one seed: everything that clients do at once, under all
//! that goes wrong, with calm hours between, and every promise checked again and again.
//!
//! Actors (producers, transactions, members of groups, readers, administrators) live on client
//! machines of their own and outlive the nodes. They speak the bare protocol, not through our client
//! library: what a broker answers is seen as it is, zombies and both protocols of groups and
//! transactions can be played, and no retry hides a wrong answer. They know addresses alone, and
//! write a history; [`crate::checkers`] knows the history alone; so a cluster of several nodes
//! (`cluster.rs`) changes neither.

mod admin;
mod brief;
pub(super) mod claims;
mod cluster;
pub(super) mod commits;
pub(super) mod consumers;
pub(super) mod groups;
pub(super) mod members;
mod metered;
mod readers;
pub(super) mod reading;
pub(super) mod scene;
pub(super) mod topics;
pub(super) mod transactional;
pub(super) mod transactor;
pub(super) mod writers;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{sleep, spawn};

use self::cluster::{Cluster, End};
use self::commits::Committer;
use self::groups::{EAGER, INCREMENTAL, MIGRATING};
use self::scene::Scene;
pub use self::topics::Bug;
use self::topics::{COMPACTED, ORDERS, PARTITIONS, TOPICS};
use self::transactional::{ABORT_CHECK, TIMEOUT};
use crate::checkers::{self, Chronicle, Inspection};
use crate::history::Outcome;
use crate::plain::PlainError;

/// Actors finish what they are in the middle of within this time.
const QUIET_WITHIN: Duration = Duration::from_secs(300);
/// Transactions whose producers died are over by then.
pub(super) const TIMED_OUT: Duration =
    Duration::from_secs(5).saturating_add(TIMEOUT.saturating_add(ABORT_CHECK));
/// How long, in seconds, nothing happens before some inspections: long enough for what must be
/// over by then, in some.
const CALM: [u64; 10] = [0, 0, 0, 0, 0, 0, 10, 30, 200, 900];
/// Virtual time that a restarted node may take to serve.
const SERVES_WITHIN: Duration = Duration::from_secs(600);
/// Offsets of silent groups are kept for so long.
const OFFSETS_MINUTES: u64 = 7 * 24 * 60;

/// What one seed came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Virtual time.
    pub time: Duration,
    /// Of it, under load.
    pub loaded: Duration,
    /// Batches that were acknowledged.
    pub acknowledged: usize,
    /// Batches of which nobody knows.
    pub unknown: usize,
    /// Transactions.
    pub transactions: usize,
    /// Committed offsets.
    pub commits: usize,
    /// Partitions that members of groups were given.
    pub claims: usize,
    /// Fetches whose content was checked.
    pub looks: usize,
    /// Lives of nodes.
    pub lives: usize,
    /// Events of the world.
    pub events: u64,
    /// The hash of the story: the same seed has the same.
    pub trace: u64,
}

impl Summary {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.time += other.time;
        self.loaded += other.loaded;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.transactions += other.transactions;
        self.commits += other.commits;
        self.claims += other.claims;
        self.looks += other.looks;
        self.lives += other.lives;
        self.events += other.events;
        self.trace ^= other.trace;
    }
}

struct Story {
    world: World,
    cluster: Cluster,
    clients: [NodeId; 2],
    inspector: NodeId,
    scene: Scene,
    bug: Option<Bug>,
    before: Option<Inspection>,
    calm_since: Duration,
    summary: Summary,
}

/// Lives one seed for so much virtual time, with a node that has a bug or none.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, time: Duration, bug: Option<Bug>) -> Result<Summary, String> {
    run_at(None, seed, time, bug)
}

/// The same; actors pause between two steps for so long at most.
fn run_at(
    think: Option<Duration>,
    seed: u64,
    time: Duration,
    bug: Option<Bug>,
) -> Result<Summary, String> {
    let mut story = Story::new(seed, bug, think);
    story.create_topics()?;
    while story.world.now() < time {
        story.chapter()?;
    }
    let mut summary = story.summary;
    summary.time = story.world.now();
    summary.events = story.world.events();
    summary.trace = story.world.trace_hash();
    let book = story.scene.book.borrow();
    for batch in &book.batches {
        match batch.outcome {
            Outcome::Acknowledged(_) => summary.acknowledged += 1,
            _ => summary.unknown += 1,
        }
    }
    summary.transactions = book.transactions.len();
    summary.commits = book.commits.len();
    summary.claims = book.claims.len();
    Ok(summary)
}

impl Story {
    fn new(seed: u64, bug: Option<Bug>, think: Option<Duration>) -> Self {
        let mut world = World::new(seed);
        let cluster = Cluster::new(&mut world, bug, OFFSETS_MINUTES);
        let clients = [
            world.add_node("clients-1", [10, 0, 1, 1].into()),
            world.add_node("clients-2", [10, 0, 1, 2].into()),
        ];
        let inspector = world.add_node("inspector", [10, 0, 2, 1].into());
        let chronicle = Chronicle {
            topics: topics::known(),
            offsets_retention: Duration::from_secs(OFFSETS_MINUTES * 60),
            memory: cluster::MEMORY,
            ..Chronicle::default()
        };
        let any = Duration::from_millis(world.random().pick(&[20, 100, 400]));
        let think = think.unwrap_or(any);
        let scene = Scene::new(cluster.addresses(), chronicle, think);
        Self {
            world,
            cluster,
            clients,
            inspector,
            scene,
            bug,
            before: None,
            calm_since: Duration::ZERO,
            summary: Summary::default(),
        }
    }

    fn boot(&mut self) {
        if self.cluster.boot(&mut self.world) {
            self.summary.lives += 1;
            self.calm_since = self.world.now();
            let now = self.world.now();
            self.scene.book.borrow_mut().metered.restarts.push(now);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.scene.pass(&mut self.world, time, |_| false);
    }

    /// A random time up to this one, short ones as likely as long ones.
    fn some(&mut self, longest: Duration) -> Duration {
        let longest = longest.as_millis() as u64;
        let scale = self.world.random().pick(&[1, 10, 100]);
        let time = self.world.random().between(1, (longest / scale).max(1));
        Duration::from_millis(time)
    }

    fn create_topics(&mut self) -> Result<(), String> {
        self.boot();
        let seed = self.world.random().next_u64();
        let creates = admin::create_topics(self.scene.clone(), self.bug, seed);
        self.world.start(self.inspector, creates);
        let inspector = self.inspector;
        let created = self
            .scene
            .pass(&mut self.world, SERVES_WITHIN, |w| !w.is_running(inspector));
        match created {
            true => Ok(()),
            false => Err("the topics are not made".to_owned()),
        }
    }

    /// Starts the actors of client machines that do not run.
    fn start_clients(&mut self) {
        for (number, machine) in self.clients.into_iter().enumerate() {
            if self.world.is_running(machine) {
                continue;
            }
            let seed = self.world.random().next_u64();
            let limited = self.bug != Some(Bug::NoQuotas);
            let actors = actors(self.scene.clone(), number as u32, limited, seed);
            self.world.start(machine, actors);
        }
    }

    /// Load under incidents, calm for a while, and the check of everything so far.
    fn chapter(&mut self) -> Result<(), String> {
        self.cluster.trouble(&mut self.world);
        self.boot();
        self.start_clients();
        self.scene.rest(false);
        let began = self.world.now();
        for _ in 0..1 + self.world.random().below(4) {
            let time = self.some(Duration::from_secs(45));
            self.pass(time);
            self.incident();
        }
        self.summary.loaded += self.world.now() - began;
        for machine in self.clients {
            if self.world.random().below(3) == 0 {
                self.world.kill(machine);
            }
        }
        if self.world.random().coin() {
            self.end_node();
        }
        self.inspect()
    }

    fn end_node(&mut self) {
        let ends = [End::Kill, End::PowerOff, End::PowerOff, End::Stop];
        let end = self.world.random().pick(&ends);
        self.cluster.end(&self.scene, &mut self.world, end);
    }

    /// Something happens that actors must live with.
    fn incident(&mut self) {
        match self.world.random().below(10) {
            0..=2 => {
                self.end_node();
                let off = self.some(Duration::from_secs(20));
                self.pass(off);
                self.boot();
            }
            3 => {
                let nodes = self.cluster.ids();
                let which = self.world.random().index(self.clients.len());
                self.world
                    .network()
                    .partition(&nodes, &[self.clients[which]]);
                let cut = self.some(Duration::from_secs(30));
                self.pass(cut);
                self.world.network().heal();
            }
            4 => {
                let node = self.cluster.ids()[0];
                self.world.pause(node);
                let paused = self.some(Duration::from_secs(15));
                self.pass(paused);
                self.world.resume(node);
            }
            5 => {
                let stalled = self.some(Duration::from_secs(5));
                self.world.disk(self.cluster.ids()[0]).stall(stalled);
            }
            6 => {
                let which = self.world.random().index(self.clients.len());
                self.world.kill(self.clients[which]);
                let away = self.some(Duration::from_secs(15));
                self.pass(away);
                self.start_clients();
            }
            7 => {
                let room = self.world.random().pick(&[0, 4096, 1 << 20]);
                self.cluster.fill_disk(&mut self.world, room);
                let full = self.some(Duration::from_secs(5));
                self.pass(full);
                self.cluster.trouble(&mut self.world);
            }
            _ => self.cluster.trouble(&mut self.world),
        }
    }

    /// Lets everything come to rest in a calm world, reads it all and checks it.
    fn inspect(&mut self) -> Result<(), String> {
        self.cluster.calm(&mut self.world);
        // what a failed disk has closed opens again
        self.cluster.end(&self.scene, &mut self.world, End::Kill);
        self.boot();
        self.scene.rest(true);
        let scene = self.scene.clone();
        let quiet = scene.pass(&mut self.world, QUIET_WITHIN, |_| scene.is_quiet());
        let when = format!("after {:?}", self.world.now());
        if !quiet {
            return Err(format!("{when}: a client waits for ever"));
        }
        let calm = self.world.random().pick(&CALM);
        self.pass(TIMED_OUT + Duration::from_secs(calm));
        let inspection = self.read_all().map_err(|e| format!("{when}: {e}"))?;
        let mut book = self.scene.book.borrow_mut();
        let broken = checkers::check(&book, &inspection, self.before.as_ref());
        if let Some(first) = broken.first() {
            return Err(format!("{when}: {first} ({} in all)", broken.len()));
        }
        self.summary.looks += book.looks.len();
        book.looks.clear();
        drop(book);
        self.before = Some(inspection);
        Ok(())
    }

    fn read_all(&mut self) -> Result<Inspection, String> {
        let mut clean = BTreeMap::new();
        for topic in COMPACTED {
            for partition in 0..PARTITIONS {
                let name = format!("{}-{partition}", TOPICS[topic].name);
                let cleaned = self.cluster.cleaned(&self.world, &name);
                clean.insert((topic, partition), cleaned);
            }
        }
        let at = self.scene.book.borrow_mut().moment();
        let seed = self.world.random().next_u64();
        let outputs = self
            .world
            .start(self.inspector, read_logs(self.scene.clone(), seed));
        let inspector = self.inspector;
        let read = self
            .scene
            .pass(&mut self.world, SERVES_WITHIN, |w| !w.is_running(inspector));
        if !read {
            self.world.kill(inspector);
            return Err("the nodes do not serve their logs".to_owned());
        }
        let output = outputs.take().pop();
        let mut read = output.unwrap_or_else(|| Err("nothing was read".to_owned()))?;
        for (place, log) in &mut read.logs {
            (log.clean_end, log.active) = clean.get(place).copied().unwrap_or((0, 0));
        }
        let read_at = self.scene.book.borrow_mut().moment();
        Ok(Inspection {
            at,
            took: read_at.at - at.at,
            calm: at.at - self.calm_since,
            ..read
        })
    }
}

/// The actors of one client machine.
async fn actors(scene: Scene, machine: u32, limited: bool, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut seed = || random.random();
    for _ in 0..2 {
        spawn(writers::write(scene.clone(), seed()));
        spawn(members::take_part(scene.clone(), &EAGER, None, seed()));
        spawn(consumers::take_part(
            scene.clone(),
            &INCREMENTAL,
            None,
            seed(),
        ));
    }
    spawn(members::take_part(scene.clone(), &MIGRATING, None, seed()));
    spawn(consumers::take_part(
        scene.clone(),
        &MIGRATING,
        None,
        seed(),
    ));
    spawn(readers::watch(scene.clone(), seed()));
    let instance = |kind: &str| Some(format!("{kind}-{machine}"));
    match machine {
        0 => {
            spawn(transactor::transact(scene.clone(), 0, seed()));
            spawn(transactor::transact(scene.clone(), 1, seed()));
            spawn(admin::administer(scene.clone(), seed()));
            spawn(members::take_part(
                scene.clone(),
                &EAGER,
                instance("member"),
                seed(),
            ));
        }
        _ => {
            spawn(transactor::transact(scene.clone(), 2, seed()));
            spawn(metered::send(scene.clone(), limited, seed()));
            spawn(brief::remember(scene.clone(), seed()));
            spawn(consumers::take_part(
                scene.clone(),
                &INCREMENTAL,
                instance("consumer"),
                seed(),
            ));
        }
    }
    loop {
        sleep(Duration::from_secs(3600)).await;
    }
}

/// All logs, the committed offsets of all groups, and which producers are remembered.
async fn read_logs(scene: Scene, seed: u64) -> Result<Inspection, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut client = scene.connect(&mut random).await;
    let (mut logs, mut producers) = (BTreeMap::new(), Vec::new());
    let ids = brief::transactional_ids(&mut client).await;
    for (topic, named) in TOPICS.iter().enumerate() {
        let known = brief::producers(&mut client, topic).await;
        producers.extend(known.map_err(|e| format!("{}: {e}", named.name))?);
        for partition in 0..PARTITIONS {
            let place = (topic, partition);
            let name = scene.topic(place);
            let log = reading::read_all(&mut client, &name, partition).await;
            let log = log.map_err(|e| format!("{name}-{partition}: {e}"))?;
            logs.insert(place, log);
        }
    }
    let groups = [
        (transactor::GROUP, ORDERS),
        (EAGER.name, EAGER.topic),
        (INCREMENTAL.name, INCREMENTAL.topic),
        (MIGRATING.name, MIGRATING.topic),
        (brief::NAME, brief::TOPIC),
    ];
    for (group, topic) in groups {
        let nobody = Committer::nobody(group);
        for partition in 0..PARTITIONS {
            let place = (topic, partition);
            let found = nobody.committed(&scene, &mut client, place, true).await;
            match found {
                Ok(Ok(_)) => {}
                // a group that never was
                Ok(Err(code)) => return Err(format!("{}: error {code}", group.0)),
                Err(PlainError::Connection(e)) => return Err(e.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Ok(Inspection {
        logs,
        producers,
        transactional_ids: ids.map_err(|e| format!("ListTransactions: {e}"))?,
        ..Inspection::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An easy pace: whole lives pass within seconds, without optimisation too.
    const THINK: Option<Duration> = Some(Duration::from_millis(400));
    const TIME: Duration = Duration::from_secs(120);

    #[test]
    fn a_node_under_a_mixed_load_keeps_its_promises() {
        let mut total = Summary::default();
        for seed in 1..=4 {
            let lived = run_at(THINK, seed, TIME, None);
            total.add(&lived.unwrap_or_else(|broken| panic!("seed {seed}: {broken}")));
        }
        let Summary {
            acknowledged,
            transactions,
            commits,
            looks,
            ..
        } = total;
        assert!(acknowledged > 200 && transactions > 10, "{total:?}");
        assert!(commits > 50 && looks > 50, "{total:?}");
    }

    /// The checkers bite: whatever a node does wrong is found, by the rule that forbids it. (The
    /// others take more load: `sim --mixed --bug NAME`.)
    #[test]
    fn a_node_with_a_bug_is_found_out() {
        let bugs = [
            (Bug::Deletes, "retention: "),
            (Bug::DropsKeys, "and everything is kept"),
            (Bug::NeverCompacts, "compacted up to 0"),
            (Bug::ForgetsOffsets, "offsets: "),
            (Bug::Unflushed, "acknowledged record"),
        ];
        for (bug, words) in bugs {
            let lives = (1..=16).map(|seed| run_at(THINK, seed, TIME, Some(bug)));
            let found: Vec<String> = lives.filter_map(Result::err).take(2).collect();
            let by_its_rule = found.iter().any(|found| found.contains(words));
            assert!(by_its_rule, "{bug:?} is not found out: {found:?}");
        }
    }

    #[test]
    fn the_same_seed_tells_the_same_story() {
        let time = Duration::from_secs(30);
        assert_eq!(run_at(THINK, 7, time, None), run_at(THINK, 7, time, None));
    }
}
