//! A whole cluster in a simulated world, from one seed: three or five nodes and clients that follow
//! their leaders, under all that goes wrong; then nothing goes wrong any more, the cluster has to serve
//! within a bounded time, and every promise is checked.
//!
//! Lives are short and many: rare orders of events are met by seeds, not by time. Actors, history and
//! rules are those of the mixed load ([`super::mixed`], [`crate::checkers`]).

mod administrators;
mod faults;
mod liveness;
#[cfg(feature = "mutations")]
pub mod mutations;
mod nodes;
mod operator;
mod producers;
mod readers;
mod roster;
mod rot;
pub(super) mod routes;
mod scenarios;
mod witness;

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{sleep, spawn};
use ringmill_wire::error::ErrorCode;

use self::faults::{Faults, some};
use self::liveness::WaitsFor;
use self::nodes::Nodes;
pub use self::roster::Moves;
use self::roster::{Plan, Roster};
use self::routes::Routes;
use self::scenarios::Scenario;
use super::mixed::groups::{EAGER, Group};
use super::mixed::scene::Scene;
use super::mixed::topics::{PARCELS, PARTITIONS, TOPICS, known};
use super::mixed::{TIMED_OUT, consumers, members, transactor};
use crate::ask;
use crate::checkers::{self, Chronicle, Inspection};
use crate::history::Outcome;

/// So many of the mixed load's topics are there.
const COUNT: usize = 4;
/// A group of the consumer protocol.
static CONSUMERS: Group = Group {
    name: ("incremental", 3),
    topic: PARCELS,
    migrates: false,
};
/// Of each partition.
const COPIES: usize = 3;
/// Of each topic: how many copies are to be in sync.
const MIN_IN_SYNC: [&str; COUNT] = ["2", "2", "1", "1"];
/// The same where any disk may be lost at any time.
const MIN_IN_SYNC_STRICT: [&str; COUNT] = ["2"; COUNT];
/// Virtual time in which a cluster comes into being, with its topics.
const FORMS_WITHIN: Duration = Duration::from_secs(60);
/// Virtual time in which it serves everything again when nothing goes wrong any more.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// Virtual time after which an operator has done enough.
const OPERATES_FOR: Duration = Duration::from_secs(20);
/// Virtual time in which an operator finishes what it is in the middle of, with all that it waits for.
const OPERATES_WITHIN: Duration = Duration::from_secs(90);
/// Virtual time in which copies whose bits have rotted are whole again.
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// Virtual time in which clients finish what they are in the middle of.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// How long members of groups and transactional producers wait for an answer: joining takes a while.
const COORDINATED: Duration = Duration::from_secs(15);
/// How often everything is read before copies that differ are wrong.
const READS_MAX: usize = 3;
/// Virtual time in which followers have all.
const SETTLED: Duration = Duration::from_secs(20);
/// Between two looks at what they have.
const LOOKS_AGAIN: Duration = Duration::from_millis(100);

/// What one seed came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Virtual time.
    pub time: Duration,
    /// Nodes.
    pub nodes: usize,
    /// Faults.
    pub faults: usize,
    /// Batches that were acknowledged.
    pub acknowledged: usize,
    /// Batches of which nobody knows.
    pub unknown: usize,
    /// Fetches whose content was checked.
    pub looks: usize,
    /// Times that a node began to lead a partition.
    pub elections: usize,
    /// What became of who belongs to the cluster.
    pub moves: Moves,
    /// Snapshots of the metadata that nodes were sent.
    pub snapshots: usize,
    /// Events of the world.
    pub events: u64,
    /// The hash of the story: the same seed has the same.
    pub trace: u64,
}

impl Summary {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.time += other.time;
        self.nodes += other.nodes;
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.looks += other.looks;
        self.elections += other.elections;
        self.moves.add(&other.moves);
        self.snapshots += other.snapshots;
        self.events += other.events;
        self.trace ^= other.trace;
    }
}

struct Story {
    world: World,
    nodes: Nodes,
    roster: Rc<Roster>,
    clients: [NodeId; 2],
    inspector: NodeId,
    scene: Scene,
    faults: Faults,
    cast: Cast,
    struck: usize,
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
struct Cast {
    /// Of a group of the classic protocol.
    members: bool,
    /// Of a group of the consumer protocol (KIP-848).
    consumers: bool,
    transactors: bool,
    administrators: bool,
}

impl Cast {
    /// Producers and readers always do.
    fn new(world: &mut World, faults: &Faults) -> Self {
        Self {
            members: world.random().below(3) == 0,
            consumers: world.random().below(4) == 0,
            transactors: faults.has(Scenario::Late) || world.random().below(3) == 0,
            administrators: faults.has(Scenario::Quorum) || world.random().below(3) == 0,
        }
    }
}

/// Lives one seed; with so many nodes, or as many as the seed says.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, nodes: Option<usize>) -> Result<Summary, String> {
    witness::listen();
    let mut story = Story::new(seed, nodes);
    story.begin()?;
    story.suffer();
    story.recover()?;
    let inspection = story.inspect()?;
    let mut book = story.scene.book.borrow_mut();
    book.leaders = witness::heard();
    let broken = checkers::check(&book, &inspection, None);
    if let Some(first) = broken.first() {
        return Err(format!("{first} ({} in all)", broken.len()));
    }
    let is_acknowledged =
        |batch: &&checkers::Batch| matches!(batch.outcome, Outcome::Acknowledged(_));
    let acknowledged = book.batches.iter().filter(is_acknowledged).count();
    Ok(Summary {
        time: story.world.now(),
        nodes: story.nodes.count(),
        faults: story.struck,
        acknowledged,
        unknown: book.batches.len() - acknowledged,
        looks: book.looks.len(),
        elections: book.leaders.partitions.len(),
        moves: story.roster.moves(),
        snapshots: witness::snapshots(),
        events: story.world.events(),
        trace: story.world.trace_hash(),
    })
}

impl Story {
    fn new(seed: u64, nodes: Option<usize>) -> Self {
        let mut world = World::new(seed);
        let any = if world.random().below(3) == 0 { 5 } else { 3 };
        let plan = Plan::of(seed);
        let nodes = Nodes::new(&mut world, nodes.unwrap_or(any), &plan);
        let roster = Roster::new(plan, &nodes);
        let clients = [
            world.add_node("clients-1", [10, 0, 1, 1].into()),
            world.add_node("clients-2", [10, 0, 1, 2].into()),
        ];
        let inspector = world.add_node("inspector", [10, 0, 2, 1].into());
        let faults = Faults::new(&mut world, clients.to_vec(), roster.plan.has_operator);
        let mut topics = known();
        topics.truncate(COUNT);
        let chronicle = Chronicle {
            topics,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            ..Chronicle::default()
        };
        let think = Duration::from_millis(world.random().pick(&[10, 30, 100]));
        let mut scene = Scene::new(nodes.all_addresses(), chronicle, think);
        scene.patience = COORDINATED;
        let cast = Cast::new(&mut world, &faults);
        Self {
            world,
            nodes,
            roster,
            clients,
            inspector,
            scene,
            faults,
            cast,
            struck: 0,
        }
    }

    /// The cluster comes into being, and has its topics.
    fn begin(&mut self) -> Result<(), String> {
        self.nodes.start_all(&mut self.world);
        let seed = self.world.random().next_u64();
        let is_strict = self.roster.plan.is_strict;
        let creates = create_topics(self.scene_of_members(), is_strict, seed);
        self.world.start(self.inspector, creates);
        match self.inspector_is_done(FORMS_WITHIN) {
            true => Ok(()),
            false => Err("liveness: the cluster does not come into being".to_owned()),
        }
    }

    fn inspector_is_done(&mut self, time: Duration) -> bool {
        let inspector = self.inspector;
        let done = self.pass(time, |world| !world.is_running(inspector));
        if !done {
            self.world.kill(inspector);
        }
        done
    }

    /// Lets time pass, and has done what the operator orders; true if a condition was met.
    fn pass(&mut self, time: Duration, condition: impl Fn(&World) -> bool) -> bool {
        let until = self.world.now() + time;
        loop {
            let left = until.saturating_sub(self.world.now());
            let roster = Rc::clone(&self.roster);
            let met = self.scene.pass(&mut self.world, left, |world| {
                condition(world) || roster.has_orders()
            });
            self.roster.act(&mut self.world, &mut self.nodes);
            if !met || condition(&self.world) {
                return met;
            }
        }
    }

    /// Load, and faults.
    fn suffer(&mut self) {
        for (number, machine) in (0..).zip(self.clients) {
            let seed = self.world.random().next_u64();
            let (scene, roster) = (self.scene.clone(), Rc::clone(&self.roster));
            self.world
                .start(machine, actors(scene, roster, self.cast, number, seed));
        }
        if self.roster.plan.has_operator {
            let machine = self.world.add_node("operator", [10, 0, 2, 2].into());
            let operates = operator::operate(self.scene.clone(), Rc::clone(&self.roster));
            self.world.start(machine, operates);
        }
        if self.world.random().coin() {
            self.world.swarm();
        }
        let most = self.world.random().pick(&[3, 8, 16]);
        let mut at_least = Duration::ZERO;
        let strikes = 1 + self.world.random().below(most);
        let is_enough = |story: &Self| story.roster.is_enough() || story.world.now() > OPERATES_FOR;
        while self.struck < strikes as usize || !is_enough(self) {
            let time = some(&mut self.world, Duration::from_secs(5)).max(at_least);
            let until = self.world.now() + time;
            while self.world.now() < until {
                let next = self.faults.next_due().map_or(until, |next| next.min(until));
                let time = next.saturating_sub(self.world.now());
                let (faults, roster) = (&self.faults, &self.roster);
                self.scene.pass(&mut self.world, time, |_| {
                    faults.is_sprung() || roster.has_orders()
                });
                self.roster.act(&mut self.world, &mut self.nodes);
                self.faults.act(&mut self.world, &mut self.nodes);
            }
            at_least = self.faults.strike(&mut self.world, &self.nodes);
            self.struck += 1;
        }
        let rest = some(&mut self.world, Duration::from_secs(3)).max(at_least);
        self.pass(rest, |_| false);
    }

    /// Nothing goes wrong any more.
    fn recover(&mut self) -> Result<(), String> {
        self.faults.end(&mut self.world, &mut self.nodes);
        self.nodes.calm(&mut self.world);
        // a cluster has to get up from its knees, and from its grave
        let ends = self.world.random().below(4);
        for machine in self.nodes.machines() {
            match ends {
                0 => self.world.kill(machine),
                1 => self.world.power_off(machine),
                _ => {}
            }
        }
        if let Some(which) = self.faults.rot.node() {
            // what is in memory is not read
            self.world.kill(self.nodes.machines()[which]);
        }
        self.nodes.start_all(&mut self.world);
        self.roster.close();
        let roster = Rc::clone(&self.roster);
        if !self.pass(OPERATES_WITHIN, |_| roster.is_idle()) {
            let waits_for = self.roster.waits_for();
            return Err(format!("liveness: the operator waits for {waits_for}"));
        }
        let waits_for = WaitsFor::default();
        let seed = self.world.random().next_u64();
        let serves = liveness::serve_again(self.scene_of_members(), waits_for.clone(), seed);
        self.world.start(self.inspector, serves);
        if !self.inspector_is_done(SERVES_WITHIN) {
            let waits_for = waits_for.borrow();
            return Err(format!("liveness: waits for {waits_for}"));
        }
        self.heal()?;
        self.scene.rest(true);
        let scene = self.scene.clone();
        match scene.pass(&mut self.world, QUIET_WITHIN, |_| scene.is_quiet()) {
            true => Ok(()),
            false => Err("liveness: a client waits for ever".to_owned()),
        }
    }

    /// What has rotted is repaired.
    fn heal(&mut self) -> Result<(), String> {
        if self.faults.rot.node().is_none() {
            return Ok(());
        }
        let waits_for = WaitsFor::default();
        let seed = self.world.random().next_u64();
        let heals = rot::heal(self.scene.clone(), waits_for.clone(), seed);
        self.world.start(self.inspector, heals);
        match self.inspector_is_done(HEALS_WITHIN) {
            true => Ok(()),
            false => Err(format!("liveness: waits for {}", waits_for.borrow())),
        }
    }

    /// What there is in the end. A transaction may come to its end behind what was read, by its time:
    /// then the copies have a marker more, and all is read again.
    fn inspect(&mut self) -> Result<Inspection, String> {
        let mut inspection = self.read_all()?;
        for _ in 1..READS_MAX {
            if self.look_at_copies(&mut inspection) {
                break;
            }
            inspection = self.read_all()?;
        }
        self.look_at_copies(&mut inspection);
        rot::look(&self.world, &self.nodes)?;
        Ok(inspection)
    }

    /// For whoever asks all nodes: those that belong to the cluster, and no others.
    fn scene_of_members(&self) -> Scene {
        let mut scene = self.scene.clone();
        scene.bootstrap = self.roster.addresses();
        scene
    }

    fn read_all(&mut self) -> Result<Inspection, String> {
        let at = self.scene.book.borrow_mut().moment();
        let seed = self.world.random().next_u64();
        let patience = TIMED_OUT + self.faults.clocks_back();
        let reads = liveness::read_all(self.scene_of_members(), self.cast, patience, seed);
        let outputs = self.world.start(self.inspector, reads);
        if !self.inspector_is_done(SERVES_WITHIN + patience) {
            return Err("liveness: the logs are not served".to_owned());
        }
        let mut inspection = outputs.take().pop().expect("it has ended")?;
        inspection.at = at;
        Ok(inspection)
    }

    /// Waits for all copies to be as they were read; tells whether they are.
    fn look_at_copies(&mut self, inspection: &mut Inspection) -> bool {
        let until = self.world.now() + SETTLED;
        loop {
            let members = self.roster.members();
            let copies = Nodes::places();
            let copies =
                copies.map(|place| (place, self.nodes.copies(&self.world, &members, place)));
            inspection.copies = copies.collect();
            let differ = checkers::copies::check(&self.scene.book.borrow(), inspection);
            if differ.is_empty() || self.world.now() >= until {
                return differ.is_empty();
            }
            self.scene.pass(&mut self.world, LOOKS_AGAIN, |_| false);
        }
    }
}

/// Creates the topics as soon as all nodes are there.
async fn create_topics(scene: Scene, is_strict: bool, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut routes = Routes::new(&scene);
    let is_whole = async |routes: &mut Routes, addr| {
        let told = routes.metadata(addr).await;
        told.is_some_and(|told| told.brokers.len() == scene.bootstrap.len())
    };
    for addr in scene.bootstrap.clone() {
        while !is_whole(&mut routes, addr).await {
            Routes::back_off(&mut random).await;
        }
    }
    let min_in_sync = match is_strict {
        true => MIN_IN_SYNC_STRICT,
        false => MIN_IN_SYNC,
    };
    for (topic, min_in_sync) in TOPICS.iter().zip(min_in_sync) {
        let configs = [
            ("retention.ms", "-1"),
            ("segment.bytes", "65536"),
            ("min.insync.replicas", min_in_sync),
        ];
        let mut request = ask::create_topic(topic.name, PARTITIONS, &configs);
        request.topics[0].replication_factor = COPIES as i16;
        loop {
            let addr = routes.any(&mut random);
            let created = match routes.at(addr).await {
                Ok(client) => client.call(ask::CREATE_TOPICS_VERSION, &request).await,
                Err(error) => Err(error),
            };
            match created.and_then(|created| ask::created(&created)) {
                Ok(code) if code == 0 || code == ErrorCode::TopicAlreadyExists.code() => break,
                Ok(_) => {}
                Err(error) => {
                    routes.drop_connection(addr);
                    scene.lost("CreateTopics", &error);
                }
            }
            Routes::back_off(&mut random).await;
        }
    }
}

/// The actors of one client machine.
async fn actors(scene: Scene, roster: Rc<Roster>, cast: Cast, number: u32, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    if cast.members {
        let take_part = members::take_part(scene.clone(), &EAGER, None, random.random());
        spawn(take_part);
    }
    if cast.consumers {
        let take_part = consumers::take_part(scene.clone(), &CONSUMERS, None, random.random());
        spawn(take_part);
    }
    if cast.administrators && number == 0 {
        let administer = administrators::administer(scene.clone(), roster, random.random());
        spawn(administer);
    }
    if cast.transactors {
        spawn(transactor::transact(scene.clone(), number, random.random()));
    }
    for _ in 0..2 {
        spawn(producers::write(scene.clone(), random.random()));
        spawn(readers::watch(scene.clone(), random.random()));
    }
    loop {
        sleep(Duration::from_secs(3600)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_in_a_bad_world_keeps_its_promises() {
        let mut total = Summary::default();
        // 1030 and 1016 have shown an end that went back after an election
        for seed in [1, 2, 3, 4, 1030, 1016] {
            let lived = run(seed, None);
            let lived = lived.unwrap_or_else(|broken| {
                panic!("cargo xtask sim --cluster --seed {seed} --seeds 1: {broken}")
            });
            total.add(&lived);
        }
        let has_lived = total.acknowledged > 300 && total.looks > 100;
        assert!(has_lived && total.faults > 5, "{total:?}");
        assert!(total.elections > 36, "leaders never change: {total:?}");
    }

    #[test]
    fn the_same_seed_tells_the_same_story() {
        assert_eq!(run(3, Some(3)), run(3, Some(3)));
    }
}
