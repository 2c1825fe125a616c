//! Rounds of SIGKILL under load: whatever a producer was told is true after the restart.
//!
//! Each round starts the node on the same data, loads it from several connections at once, kills it
//! at a random moment, now and then damages what may be rebuilt (indexes), starts it again and reads
//! everything back. One topic is loaded and kept, one rolls and expires quickly.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use ringmill_wire::batch::{Batches, Compression, ProducerStamp};
use ringmill_wire::builder::BatchBuilder;
use ringmill_wire::record::{Records, decoded};

use crate::history::{self, Attempt, Outcome};
use crate::node::Node;
use crate::plain::{PlainClient, PlainError};

/// Partitions of each topic.
const PARTITIONS: i32 = 3;
/// Connections that produce at once.
const PRODUCERS: usize = 6;
/// Every so many rounds, and at the end, the logs are read from their start; else from where the
/// last check ended.
const FULL_CHECK_EVERY: usize = 25;
/// `NONE` of Kafka's error codes.
const NONE: i16 = 0;
/// TOPIC_ALREADY_EXISTS.
const EXISTS: i16 = 36;

const TOPICS: [(&str, &[(&str, &str)]); 2] = [
    (
        "kept",
        &[("segment.bytes", "1048576"), ("retention.ms", "-1")],
    ),
    (
        "expiring",
        &[("segment.bytes", "262144"), ("retention.bytes", "524288")],
    ),
];

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `ringmill` binary.
    pub binary: PathBuf,
    /// An empty folder, removed by the caller.
    pub folder: PathBuf,
    /// Kills.
    pub rounds: usize,
    /// Decides load and moments.
    pub seed: u64,
    /// The longest life of a round, milliseconds.
    pub life_ms_max: u64,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
}

/// What a run has seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Batches that were acknowledged.
    pub acknowledged: usize,
    /// Batches without an answer.
    pub unknown: usize,
    /// Records read back in the last check.
    pub records: usize,
    /// The slowest start after a kill, milliseconds.
    pub slowest_start_ms: u64,
}

type Key = (usize, i32);
type Attempts = BTreeMap<Key, Vec<Attempt>>;

/// Runs the rounds; the first broken promise ends it with a text that names it.
pub fn run(plan: &Plan, mut progress: impl FnMut(usize)) -> Result<Summary, String> {
    let data = plan.folder.join("data");
    let args: Vec<&str> = plan.args.iter().map(String::as_str).collect();
    let start = || Node::start(&plan.binary, &data, &args);
    let mut random = SmallRng::seed_from_u64(plan.seed);
    let mut attempts = Attempts::new();
    let mut summary = Summary::default();
    let ids = AtomicU64::new(1);
    let mut checked = BTreeMap::new();
    let context = |round: usize| format!("seed {} round {round}", plan.seed);
    let mut node = start().map_err(|e| format!("first start: {e}"))?;
    create_topics(node.addr()).map_err(|e| format!("create topics: {e}"))?;
    for round in 1..=plan.rounds {
        let life = Duration::from_millis(random.random_range(5..=plan.life_ms_max));
        let seeds: Vec<u64> = (0..PRODUCERS).map(|_| random.next_u64()).collect();
        let sent =
            load(node, life, &seeds, &ids).map_err(|e| format!("{}: {e}", context(round)))?;
        for (key, mut made) in sent {
            attempts.entry(key).or_default().append(&mut made);
        }
        if random.random_ratio(1, 4) {
            damage_indexes(&data, &mut random).map_err(|e| format!("{}: {e}", context(round)))?;
        }
        let began = std::time::Instant::now();
        node = start().map_err(|e| format!("{}: start after kill: {e}", context(round)))?;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        summary.slowest_start_ms = summary.slowest_start_ms.max(took);
        if round.is_multiple_of(FULL_CHECK_EVERY) || round == plan.rounds {
            checked.clear();
        }
        summary.records = verify(node.addr(), &attempts, &mut checked)
            .map_err(|e| format!("{}: {e}", context(round)))?;
        progress(round);
    }
    node.stop().map_err(|e| format!("clean stop: {e}"))?;
    for attempt in attempts.values().flatten() {
        match attempt.outcome {
            Outcome::Acknowledged(_) => summary.acknowledged += 1,
            Outcome::Unknown => summary.unknown += 1,
            Outcome::Refused => {}
        }
    }
    Ok(summary)
}

fn create_topics(addr: SocketAddr) -> Result<(), PlainError> {
    let mut client = PlainClient::connect(addr)?;
    for (name, configs) in TOPICS {
        let code = client.create_topic(name, PARTITIONS, configs)?;
        if code != NONE && code != EXISTS {
            return Err(PlainError::Unexpected(format!(
                "create topic {name}: error {code}"
            )));
        }
    }
    Ok(())
}

/// Produces from all connections until the node's life is over, and kills it in the middle.
fn load(
    node: Node,
    life: Duration,
    seeds: &[u64],
    ids: &AtomicU64,
) -> Result<Vec<(Key, Vec<Attempt>)>, String> {
    let addr = node.addr();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producers: Vec<_> = seeds
            .iter()
            .map(|seed| scope.spawn(|| produce(addr, *seed, ids, &over)))
            .collect();
        std::thread::sleep(life);
        let killed = node.kill();
        over.store(true, Ordering::Release);
        let mut sent = Vec::new();
        for producer in producers {
            sent.extend(
                producer
                    .join()
                    .map_err(|_| "a producer panicked".to_owned())??,
            );
        }
        killed.map_err(|e| format!("kill: {e}"))?;
        Ok(sent)
    })
}

/// One connection's load, until the node is gone.
fn produce(
    addr: SocketAddr,
    seed: u64,
    ids: &AtomicU64,
    over: &AtomicBool,
) -> Result<Vec<(Key, Vec<Attempt>)>, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut sent: BTreeMap<Key, Vec<Attempt>> = BTreeMap::new();
    let mut builder = BatchBuilder::new(1 << 20);
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
    let Ok(mut client) = PlainClient::connect(addr) else {
        return Ok(Vec::new());
    };
    while !over.load(Ordering::Acquire) {
        let key = (
            random.random_range(0..TOPICS.len()),
            random.random_range(0..PARTITIONS),
        );
        let count = if random.random_ratio(1, 8) {
            400
        } else {
            random.random_range(1..20)
        };
        let lens: Vec<usize> = (0..count).map(|_| random.random_range(12..300)).collect();
        let id = ids.fetch_add(1, Ordering::Relaxed);
        history::fill(&mut builder, id, &lens, 1_700_000_000_000 + id as i64);
        let codec = codecs[random.random_range(0..codecs.len())];
        let batch = builder.seal(codec, ProducerStamp::NONE);
        let acks = if random.random_bool(0.8) { -1 } else { 1 };
        let outcome = match client.produce(TOPICS[key.0].0, key.1, acks, batch) {
            Ok(Some(answer)) if answer.error_code == NONE => {
                Outcome::Acknowledged(answer.base_offset)
            }
            Ok(answer) => return Err(format!("produce was refused: {answer:?}")),
            Err(PlainError::Connection(_)) => Outcome::Unknown,
            Err(e) => return Err(format!("produce: {e}")),
        };
        let records = u32::try_from(count).expect("a small batch");
        sent.entry(key).or_default().push(Attempt {
            id,
            records,
            outcome,
        });
        if outcome == Outcome::Unknown {
            break;
        }
    }
    Ok(sent.into_iter().collect())
}

/// Removes or scribbles over some index files: they are only a help, never the truth.
fn damage_indexes(data: &Path, random: &mut SmallRng) -> io::Result<()> {
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let extension = path.extension().and_then(|e| e.to_str());
            if !matches!(extension, Some("index" | "timeindex")) || random.random_bool(0.5) {
                continue;
            }
            match random.random_range(0..3) {
                0 => std::fs::remove_file(&path)?,
                1 => std::fs::write(&path, b"")?,
                _ => {
                    let mut garbage = vec![0; random.random_range(1..5000)];
                    random.fill_bytes(&mut garbage);
                    std::fs::write(&path, garbage)?;
                }
            }
        }
    }
    Ok(())
}

/// Reads every partition, from where `checked` says, and holds it against what was promised.
fn verify(
    addr: SocketAddr,
    attempts: &Attempts,
    checked: &mut BTreeMap<Key, i64>,
) -> Result<usize, String> {
    let mut client = PlainClient::connect(addr).map_err(|e| format!("connect: {e}"))?;
    let mut records = 0;
    let none = Vec::new();
    for (topic, (name, _)) in TOPICS.iter().enumerate() {
        for partition in 0..PARTITIONS {
            let (key, at) = ((topic, partition), format!("{name}-{partition}"));
            let from = checked.get(&key).copied().unwrap_or(0);
            let (start, log) =
                read_log(&mut client, name, partition, from).map_err(|e| format!("{at}: {e}"))?;
            let sent = attempts.get(&key).unwrap_or(&none);
            let violations = history::check(sent, start, &log);
            if let Some(first) = violations.first() {
                return Err(format!(
                    "{at}: {} violations, the first: {first}",
                    violations.len()
                ));
            }
            if let Some((last, _)) = log.last() {
                checked.insert(key, last + 1);
            }
            records += log.len();
        }
    }
    Ok(records)
}

type Log = Vec<(i64, Option<history::Author>)>;

/// All records of a partition at `from` and behind it, by way of fetches as a consumer makes them;
/// with the offset at which they begin.
pub fn read_log(
    client: &mut PlainClient,
    topic: &str,
    partition: i32,
    from: i64,
) -> Result<(i64, Log), PlainError> {
    let start = client.offset_for(topic, partition, -2)?.max(from);
    let end = client.offset_for(topic, partition, -1)?;
    let mut log = Log::new();
    let mut next = start;
    while next < end {
        let fetched = client.fetch(topic, partition, next, 1 << 20, 500)?;
        if fetched.error_code != NONE {
            return Err(PlainError::Unexpected(format!(
                "fetch at {next}: error {}",
                fetched.error_code
            )));
        }
        let before = next;
        for batch in Batches::new(&fetched.records) {
            // A fetch may end within a batch.
            let Ok((_, view)) = batch else { break };
            view.check_crc()
                .map_err(|e| PlainError::Unexpected(format!("at {next}: {e}")))?;
            let bytes =
                decoded(&view, 64 << 20).map_err(|e| PlainError::Unexpected(e.to_string()))?;
            for record in Records::new(view.header(), &bytes) {
                let record = record.map_err(|e| PlainError::Unexpected(e.to_string()))?;
                if record.offset >= next {
                    log.push((record.offset, record.value.and_then(history::author)));
                }
            }
            next = view.header().next_offset();
        }
        if next == before {
            return Err(PlainError::Unexpected(format!(
                "nothing at {next}, though the end is {end}"
            )));
        }
    }
    Ok((start, log))
}
