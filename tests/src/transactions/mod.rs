//! A consume-transform-produce loop under SIGKILL of its clients and of the node: every record of the
//! source comes out exactly once, in order, for those who read committed records.
//!
//! Each worker has a partition of the source, a transactional id and an offset of a group. An
//! incarnation of it fetches, writes what it makes of the records to the sink, commits the offset in
//! the same transaction and ends it; now and then it aborts, or dies in the middle. After each kill
//! of the node the sink is read and held against the committed offsets.

mod check;
mod producer;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

use crate::node::Node;
use crate::plain::{PlainClient, PlainError};

pub use check::Faults;

/// Partitions of the source, each with a worker of its own; and of the sink.
const PARTITIONS: i32 = 3;
const SOURCE: &str = "source";
const SINK: &str = "sink";
const GROUP: &str = "workers";
/// A transaction that is left open is aborted after so long.
const TIMEOUT_MS: i32 = 1_000;
/// The node looks for those so often.
const SETTINGS: [&str; 2] = [
    "--transaction-abort-timed-out-transaction-cleanup-interval-ms",
    "100",
];
/// Records that are added to each partition of the source before a round.
const RECORDS_PER_ROUND: i64 = 4_000;

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `ringmill` binary.
    pub binary: PathBuf,
    /// An empty folder, removed by the caller.
    pub folder: PathBuf,
    /// Kills of the node.
    pub rounds: usize,
    /// Decides load and moments.
    pub seed: u64,
    /// The longest life of a round, milliseconds.
    pub life_ms_max: u64,
}

/// What a run has seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Transactions whose commit was answered.
    pub committed: usize,
    /// Transactions whose abort was answered.
    pub aborted: usize,
    /// Transactions without an answer, or left open.
    pub unknown: usize,
    /// Clients that died in the middle.
    pub deaths: usize,
    /// Records in the sink at the end.
    pub records: usize,
    /// What should not be.
    pub faults: Faults,
}

/// How a transaction ended, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
    Unknown,
}

/// What the workers know of the transactions, by number.
type Outcomes = BTreeMap<u64, Outcome>;

/// A record of the sink: which record of which source partition, and in which transaction it was
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    source: i32,
    number: i64,
    transaction: u64,
}

impl Made {
    fn encode(self) -> Vec<u8> {
        [
            &self.source.to_be_bytes()[..],
            &self.number.to_be_bytes(),
            &self.transaction.to_be_bytes(),
        ]
        .concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (source, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let transaction = rest.try_into().ok()?;
        Some(Self {
            source: i32::from_be_bytes(*source),
            number: i64::from_be_bytes(*number),
            transaction: u64::from_be_bytes(transaction),
        })
    }
}

/// A batch of records with these values.
fn batch(values: &[Vec<u8>], stamp: ProducerStamp) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for value in values {
        let record = NewRecord {
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(value),
            headers: &[],
        };
        builder.append(&record).expect("small records");
    }
    builder.seal(Compression::None, stamp)
}

/// Runs the rounds. What should not be is counted in the summary; an error is a run that could not
/// go on.
pub fn run(plan: &Plan, mut progress: impl FnMut(usize, &Summary)) -> Result<Summary, String> {
    let data = plan.folder.join("data");
    let start = || Node::start(&plan.binary, &data, &SETTINGS);
    let mut random = SmallRng::seed_from_u64(plan.seed);
    let (mut outcomes, mut summary) = (Outcomes::new(), Summary::default());
    let next = AtomicU64::new(1);
    let mut node = start().map_err(|e| format!("first start: {e}"))?;
    prepare(node.addr()).map_err(|e| format!("prepare: {e}"))?;
    for round in 1..=plan.rounds {
        let context = |e: String| format!("seed {} round {round}: {e}", plan.seed);
        fill(node.addr()).map_err(|e| context(format!("fill: {e}")))?;
        let life = Duration::from_millis(random.random_range(50..=plan.life_ms_max));
        let lives = live(node, life, &mut random, &next).map_err(context)?;
        for (known, deaths) in lives {
            outcomes.extend(known);
            summary.deaths += deaths;
        }
        node = start().map_err(|e| context(format!("start after kill: {e}")))?;
        let count = |outcome| outcomes.values().filter(|o| **o == outcome).count();
        summary.committed = count(Outcome::Committed);
        summary.aborted = count(Outcome::Aborted);
        summary.unknown = count(Outcome::Unknown);
        let checked = check::check(node.addr(), &outcomes);
        let (records, faults) = checked.map_err(|e| context(format!("check: {e}")))?;
        summary.records = records;
        summary.faults = faults;
        progress(round, &summary);
        if faults.any() {
            break;
        }
    }
    node.stop().map_err(|e| format!("clean stop: {e}"))?;
    Ok(summary)
}

fn prepare(addr: SocketAddr) -> Result<(), PlainError> {
    let mut client = PlainClient::connect(addr)?;
    for topic in [SOURCE, SINK] {
        let code = client.create_topic(topic, PARTITIONS, &[])?;
        if code != 0 {
            return Err(PlainError::Unexpected(format!(
                "topic {topic}: error {code}"
            )));
        }
    }
    producer::find_coordinators(&mut client)
}

/// Adds records to the source; each says its own number, which is its offset.
fn fill(addr: SocketAddr) -> Result<(), PlainError> {
    let mut client = PlainClient::connect(addr)?;
    for partition in 0..PARTITIONS {
        let end = client.offset_for(SOURCE, partition, -1)?;
        let numbers = end..end + RECORDS_PER_ROUND;
        let values: Vec<Vec<u8>> = numbers.map(|n| n.to_be_bytes().to_vec()).collect();
        let records = batch(&values, ProducerStamp::NONE);
        let answer = client.produce(SOURCE, partition, -1, records)?;
        if answer.is_none_or(|answer| answer.error_code != 0) {
            return Err(PlainError::Unexpected("the source takes nothing".into()));
        }
    }
    Ok(())
}

/// Lets the workers work until the node's life is over, and kills it in the middle.
fn live(
    node: Node,
    life: Duration,
    random: &mut SmallRng,
    next: &AtomicU64,
) -> Result<Vec<(Outcomes, usize)>, String> {
    let addr = node.addr();
    let over = AtomicBool::new(false);
    let seeds: Vec<u64> = (0..PARTITIONS).map(|_| random.next_u64()).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..PARTITIONS)
            .zip(seeds)
            .map(|(source, seed)| {
                let over = &over;
                scope.spawn(move || worker::work(addr, source, seed, next, over))
            })
            .collect();
        std::thread::sleep(life);
        let killed = node.kill();
        over.store(true, Ordering::Release);
        let mut lives = Vec::new();
        for worker in workers {
            let lived = worker.join().map_err(|_| "a worker panicked".to_owned())?;
            lives.push(lived?);
        }
        killed.map_err(|e| format!("kill: {e}"))?;
        Ok(lives)
    })
}
