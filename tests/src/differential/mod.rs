//! The same requests to Ringmill and to Apache Kafka, from seeds; their answers are compared field
//! by field.
//!
//! A seed draws a sequence of requests about topics, records, groups and transactions of its own.
//! Both brokers get each in turn; what a broker names itself (ids, sessions, members) is put into
//! its later requests, and must stand for the same thing throughout. The first difference that no
//! table explains ends the sequence, for what follows may come of it; so does a batch that only one of
//! them has taken.

pub mod admin;
pub mod compare;
pub mod configs;
pub mod consumer_groups;
pub mod fetch;
pub mod groups;
pub mod known;
pub mod malformed;
pub mod mask;
pub mod offsets;
pub mod page;
pub mod produce;
pub mod side;
pub mod topics;
pub mod transactions;
pub mod tree;
pub mod world;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringmill_wire::kafka_protocol::messages::{ApiKey, RequestKind};

use self::compare::{Comparison, Difference, Names, Scene, shown};
use self::known::{parted, unexplained};
use self::side::{Ask, Body, Outcome, Side, Unsayable};
use self::world::{Step, World};

/// Requests of one seed, beside those that make and remove its topics.
const STEPS: usize = 40;

/// Answers that a client meets by asking again: the brokers come to their state at different times.
const PASSING: [i16; 9] = [
    3,   // UNKNOWN_TOPIC_OR_PARTITION, of a topic that was just made
    5,   // LEADER_NOT_AVAILABLE
    6,   // NOT_LEADER_OR_FOLLOWER
    14,  // COORDINATOR_LOAD_IN_PROGRESS
    15,  // COORDINATOR_NOT_AVAILABLE
    16,  // NOT_COORDINATOR
    51,  // CONCURRENT_TRANSACTIONS
    88,  // UNSTABLE_OFFSET_COMMIT
    100, // UNKNOWN_TOPIC_ID
];

/// How often coordinators are asked for before a run goes on without them.
const WARM_UP_TRIES: usize = 400;

/// How often a request is sent again before a difference counts.
const TRIES: usize = 20;

/// A request that was answered differently.
#[derive(Debug)]
pub struct Found {
    /// Replays it.
    pub seed: u64,
    /// Its place in the seed's sequence.
    pub step: usize,
    /// The API's name and version.
    pub api: String,
    /// The request to us.
    pub request: String,
    /// Our answer.
    pub ours: String,
    /// Kafka's.
    pub theirs: String,
    /// Where they differ.
    pub differences: Vec<Difference>,
}

/// What came of a seed.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests that both answered alike.
    pub alike: usize,
    /// Requests whose difference is explained.
    pub explained: usize,
    /// The last of them has led the two to different states, and ended the sequence.
    pub parted: bool,
    /// The first that is not.
    pub found: Option<Found>,
}

/// The two brokers, reused from seed to seed.
#[derive(Debug)]
pub struct Pair {
    ours: Side,
    theirs: Side,
    names: Names,
    run: (u32, i64),
    /// Each request and answer is told.
    pub loud: bool,
}

impl Pair {
    /// Two brokers, and a run's number, which tells its names from those of others, and its begin
    /// in milliseconds since the Unix epoch.
    pub fn new(ours: SocketAddr, theirs: SocketAddr, run: (u32, i64)) -> Self {
        Self {
            ours: Side::new(ours),
            theirs: Side::new(theirs),
            names: Names::default(),
            run,
            loud: false,
        }
    }

    /// Asks for coordinators until they are there: their topics are made by the first who asks.
    pub fn warm_up(&mut self) -> io::Result<()> {
        let world = World::new(self.run, 0);
        for step in admin::warm_up(&world) {
            for side in [&mut self.ours, &mut self.theirs] {
                for _ in 0..WARM_UP_TRIES {
                    let ask = (step.ask)(&side.memory);
                    let codes = exchange(side, &step, &ask)?.tree().error_codes();
                    if codes.is_empty() {
                        break;
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Runs one seed.
    pub fn run(&mut self, seed: u64) -> io::Result<Report> {
        self.ours.restart();
        self.theirs.restart();
        self.names = Names::default();
        let mut world = World::new(self.run, seed);
        let mut report = Report::default();
        let mut steps = Vec::new();
        for _ in 0..STEPS {
            steps.extend(draw(&mut world));
        }
        let setup = topics::setup(&mut world);
        let scene = Scene {
            tag: &world.tag,
            newest_ms: world.began_ms + produce::TIMES_MS,
        };
        self.walk(&scene, setup, &mut report)?;
        if report.found.is_none() {
            self.walk(&scene, steps, &mut report)?;
        }
        if let Some(found) = &mut report.found {
            found.seed = seed;
        }
        self.sweep(&world)?;
        Ok(report)
    }

    /// Takes the steps in turn, up to the first that is answered differently.
    fn walk(&mut self, scene: &Scene<'_>, steps: Vec<Step>, report: &mut Report) -> io::Result<()> {
        let mut waiting = Vec::new();
        for (place, step) in steps.into_iter().enumerate() {
            let asks = (
                (step.ask)(&self.ours.memory),
                (step.ask)(&self.theirs.memory),
            );
            let Some(sent) = self.send(&step, &asks)? else {
                continue;
            };
            let together = step.together;
            let turn = Turn {
                place,
                step,
                asks,
                sent,
            };
            if together {
                std::thread::sleep(TOGETHER);
                waiting.push(turn);
                continue;
            }
            for turn in std::iter::once(turn).chain(waiting.drain(..)) {
                let key = turn.asks.0.key;
                report.found = self.answer(scene, turn, report)?;
                if report.found.is_some() || report.parted {
                    return Ok(());
                }
                if changes_topics(key) {
                    std::thread::sleep(SETTLING);
                }
            }
        }
        Ok(())
    }

    /// Removes what the seed has made, so that the brokers stay small.
    fn sweep(&mut self, world: &World) -> io::Result<()> {
        self.ours.restart();
        self.theirs.restart();
        let step = topics::remove_all(world);
        for side in [&mut self.ours, &mut self.theirs] {
            let ask = (step.ask)(&side.memory);
            exchange(side, &step, &ask)?;
        }
        Ok(())
    }

    fn send(&mut self, step: &Step, asks: &(Ask, Ask)) -> io::Result<Option<(i32, i32)>> {
        let ours = self.ours.send(step.connection, &asks.0)?;
        let theirs = self.theirs.send(step.connection, &asks.1)?;
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => Ok(Some((ours, theirs))),
            (Err(Unsayable), _) | (_, Err(Unsayable)) => Ok(None),
        }
    }

    fn answer(
        &mut self,
        scene: &Scene<'_>,
        turn: Turn,
        report: &mut Report,
    ) -> io::Result<Option<Found>> {
        let Turn {
            place,
            step,
            asks,
            sent,
        } = turn;
        let ours = self.ours.receive(step.connection, &asks.0, sent.0)?;
        let theirs = self.theirs.receive(step.connection, &asks.1, sent.1)?;
        let mut answers = (ours, theirs);
        let compared = self.agree(scene, &step, &asks, &mut answers)?;
        if self.loud {
            println!("{place} {:?} {}", asks.0.key, asks.0.version);
            for (ask, answer) in [(&asks.0, &answers.0), (&asks.1, &answers.1)] {
                println!("  {:?}\n  -> {}", ask.body, shown(&answer.tree()));
            }
        }
        for (side, outcome) in [(&mut self.ours, &answers.0), (&mut self.theirs, &answers.1)] {
            if let (Some(learn), Outcome::Answer(answer, _)) = (&step.learn, outcome) {
                learn(&mut side.memory, answer);
            }
        }
        let unexplained = unexplained(&asks.0, &compared);
        if unexplained.is_empty() {
            report.alike += usize::from(compared.is_empty());
            report.explained += usize::from(!compared.is_empty());
            report.parted = asks.0.key == ApiKey::Produce && parted(&compared);
            return Ok(None);
        }
        Ok(Some(Found {
            seed: 0,
            step: place,
            api: format!("{:?} {}", asks.0.key, asks.0.version),
            request: format!("{:?}", asks.0.body),
            ours: shown(&answers.0.tree()),
            theirs: shown(&answers.1.tree()),
            differences: unexplained.into_iter().cloned().collect(),
        }))
    }

    /// Compares two answers; while they differ and may pass, asks again. Returns the differences
    /// that stay.
    fn agree(
        &mut self,
        scene: &Scene<'_>,
        step: &Step,
        asks: &(Ask, Ask),
        answers: &mut (Outcome, Outcome),
    ) -> io::Result<Vec<Difference>> {
        let api = format!("{:?}", asks.0.key);
        for attempt in 0.. {
            let mut names = self.names.clone();
            let trees = (answers.0.tree(), answers.1.tree());
            let all = Comparison::of(&api, scene, &mut names, (&trees.0, &trees.1));
            let settled = unexplained(&asks.0, &all).is_empty();
            let again = match reads(&asks.0) {
                true => (true, true),
                false => (
                    passing(&answers.0, &answers.1),
                    passing(&answers.1, &answers.0),
                ),
            };
            if settled || attempt == TRIES || again == (false, false) {
                self.names = names;
                return Ok(all);
            }
            std::thread::sleep(PAUSE);
            if again.0 {
                answers.0 = exchange(&mut self.ours, step, &asks.0)?;
            }
            if again.1 {
                answers.1 = exchange(&mut self.theirs, step, &asks.1)?;
            }
        }
        unreachable!("the loop ends by its count")
    }
}

/// One request on its way.
struct Turn {
    place: usize,
    step: Step,
    asks: (Ask, Ask),
    sent: (i32, i32),
}

/// Long enough for a broker to have taken up a request that it does not answer yet.
const TOGETHER: Duration = Duration::from_millis(50);

/// How long new topics take to be known everywhere.
const SETTLING: Duration = Duration::from_millis(300);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether an answer may pass: it has an error of those that do, and the other has not.
fn passing(answer: &Outcome, other: &Outcome) -> bool {
    let codes = |outcome: &Outcome| match outcome {
        Outcome::Answer(_, tree) => tree.error_codes(),
        _ => Vec::new(),
    };
    let (codes, others) = (codes(answer), codes(other));
    codes
        .iter()
        .any(|code| PASSING.contains(code) && !others.contains(code))
}

/// Requests that change nothing, and may be sent again whatever was answered: what was changed
/// before spreads through a broker in its own time, as the end of a transaction does.
fn reads(ask: &Ask) -> bool {
    use ApiKey::*;
    if let Body::Message(message) = &ask.body
        && let RequestKind::Fetch(fetch) = &**message
    {
        return fetch.session_epoch == NO_SESSION;
    }
    matches!(
        ask.key,
        Metadata
            | DescribeConfigs
            | ListOffsets
            | OffsetForLeaderEpoch
            | OffsetFetch
            | FindCoordinator
            | DescribeTopicPartitions
            | DescribeGroups
            | ListGroups
            | ConsumerGroupDescribe
            | DescribeLogDirs
            | DescribeProducers
            | DescribeTransactions
            | ListTransactions
            | DescribeClientQuotas
            | ListConfigResources
            | DescribeCluster
    )
}

/// The epoch of a fetch that neither has a session nor begins one (KIP-227).
const NO_SESSION: i32 = -1;

/// Requests that change which topics there are: the parts of a broker hear of it one after the other.
fn changes_topics(key: ApiKey) -> bool {
    use ApiKey::*;
    matches!(key, CreateTopics | CreatePartitions | DeleteTopics)
}

fn exchange(side: &mut Side, step: &Step, ask: &Ask) -> io::Result<Outcome> {
    match side.send(step.connection, ask)? {
        Ok(sent) => side.receive(step.connection, ask, sent),
        Err(Unsayable) => Ok(Outcome::Nothing),
    }
}

/// The next requests of a sequence.
fn draw(world: &mut World) -> Vec<Step> {
    match world.below(100) {
        0..10 => topics::draw(world),
        10..30 => produce::draw(world),
        30..42 => fetch::draw(world),
        42..52 => offsets::draw(world),
        52..64 => groups::draw(world),
        64..72 => consumer_groups::draw(world),
        72..84 => transactions::draw(world),
        84..90 => configs::draw(world),
        90..96 => admin::draw(world),
        _ => malformed::draw(world),
    }
}
