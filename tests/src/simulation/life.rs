//! What runs on the machines of a simulated world: the broker, its load, and its reader.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_engine::{BrokerConfig, Launch, Stopper};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{Cores, RingConfig, sleep, spawn};
use ringmill_wire::batch::{Batches, Compression, ProducerStamp};
use ringmill_wire::builder::BatchBuilder;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::record::{Records, decoded};

use super::client::RingClient;
use super::{Key, Log, PARTITIONS, Shared, TOPICS};
use crate::history::{self, Attempt, Outcome};
use crate::plain::PlainError;

/// Starts the broker on a machine; it may fail to, on a disk that fails.
pub(super) fn boot(world: &mut World, node: NodeId, addr: SocketAddr, cores: usize) -> Stopper {
    let settings = [
        ("log.dirs", "/data".to_owned()),
        ("listeners", addr.to_string()),
        ("cores", cores.to_string()),
        ("log.retention.check.interval.ms", "50".to_owned()),
        ("log.segment.delete.delay.ms", "100".to_owned()),
    ];
    let config = BrokerConfig::from_pairs(settings).expect("the settings are in the table");
    let (cores, stopper) = (Cores::new(cores), Stopper::new());
    let launch = Launch::new(config, &cores, stopper.clone(), |_| {});
    world.launch(node, cores, RingConfig::default(), move |core| {
        let launch = launch.clone();
        async move { launch.run(core).await.map_err(|e| e.to_string()) }
    });
    stopper
}

/// Produces from several connections, again and again, until the world ends it.
pub(super) async fn load(
    addr: SocketAddr,
    promises: Shared,
    seed: u64,
    producers: usize,
    durability: &'static str,
) {
    create_topics(addr, durability).await;
    let mut random = SmallRng::seed_from_u64(seed);
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let (seed, promises) = (random.random(), promises.clone());
            spawn(produce(addr, promises, seed))
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

async fn create_topics(addr: SocketAddr, durability: &str) {
    for (name, configs) in TOPICS {
        let configs = [configs, &[("durability", durability)]].concat();
        loop {
            if let Ok(mut client) = RingClient::connect(addr).await {
                match client.create_topic(name, PARTITIONS, &configs).await {
                    Ok(code) if code == 0 || code == ErrorCode::TopicAlreadyExists.code() => break,
                    _ => {}
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn produce(addr: SocketAddr, promises: Shared, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut builder = BatchBuilder::new(1 << 20);
    loop {
        if let Ok(mut client) = RingClient::connect(addr).await {
            while step(&mut client, &promises, &mut random, &mut builder).await {
                if random.random_ratio(1, 4) {
                    sleep(Duration::from_micros(random.random_range(1..5000))).await;
                }
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// One batch; false when the connection is of no more use.
async fn step(
    client: &mut RingClient,
    promises: &Shared,
    random: &mut SmallRng,
    builder: &mut BatchBuilder,
) -> bool {
    let key = (
        random.random_range(0..TOPICS.len()),
        random.random_range(0..PARTITIONS),
    );
    let count: u32 = if random.random_ratio(1, 10) {
        60
    } else {
        random.random_range(1..8)
    };
    let longest = if random.random_ratio(1, 4) { 900 } else { 120 };
    let lens: Vec<usize> = (0..count)
        .map(|_| random.random_range(12..longest))
        .collect();
    let id = {
        let mut promises = promises.borrow_mut();
        promises.next_id += 1;
        let id = promises.next_id;
        let attempt = Attempt {
            id,
            records: count,
            outcome: Outcome::Unknown,
        };
        promises.attempts.entry(key).or_default().push(attempt);
        id
    };
    history::fill(builder, id, &lens, 1_700_000_000_000 + id as i64);
    let codec = if random.random_ratio(1, 4) {
        Compression::Lz4
    } else {
        Compression::None
    };
    let batch = builder.seal(codec, ProducerStamp::NONE);
    let acks = if random.random_ratio(1, 4) { 1 } else { -1 };
    let answer = client.produce(TOPICS[key.0].0, key.1, acks, batch).await;
    let mut promises = promises.borrow_mut();
    match answer {
        Ok(answer) if answer.error_code == 0 => {
            let attempts = promises.attempts.get_mut(&key).expect("made above");
            let attempt = attempts
                .iter_mut()
                .rfind(|a| a.id == id)
                .expect("made above");
            attempt.outcome = Outcome::Acknowledged(answer.base_offset);
            true
        }
        // A disk that fails, a node that ends: the batch may be there or not.
        Ok(_) | Err(PlainError::Connection(_)) => false,
        Err(e) => {
            promises
                .scandal
                .get_or_insert(format!("produce was answered by nonsense: {e}"));
            false
        }
    }
}

/// All logs of the node, read as a consumer reads them; waits for the node to be ready.
pub(super) async fn read_all(addr: SocketAddr) -> Result<BTreeMap<Key, (i64, Log)>, String> {
    let mut client = loop {
        match RingClient::connect(addr).await {
            Ok(client) => break client,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let mut logs = BTreeMap::new();
    for (topic, (name, _)) in TOPICS.iter().enumerate() {
        for partition in 0..PARTITIONS {
            // A topic whose creation was never acknowledged need not be there.
            let Ok(start) = client.offset_for(name, partition, -2).await else {
                continue;
            };
            let read = read(&mut client, name, partition, start);
            let read = read.await.map_err(|e| format!("{name}-{partition}: {e}"))?;
            logs.insert((topic, partition), read);
        }
    }
    Ok(logs)
}

async fn read(
    client: &mut RingClient,
    topic: &str,
    partition: i32,
    mut start: i64,
) -> Result<(i64, Log), PlainError> {
    let unexpected = |what: String| Err(PlainError::Unexpected(what));
    let end = client.offset_for(topic, partition, -1).await?;
    let mut log = Log::new();
    let mut next = start;
    while next < end {
        let fetched = client.fetch(topic, partition, next, 64 << 10).await?;
        if fetched.error_code == ErrorCode::OffsetOutOfRange.code() {
            // Retention may take the log's front while it is read.
            start = client.offset_for(topic, partition, -2).await?;
            if start > next {
                log.clear();
                next = start;
                continue;
            }
        }
        if fetched.error_code != 0 {
            return unexpected(format!("fetch at {next}: error {}", fetched.error_code));
        }
        let before = next;
        for batch in Batches::new(&fetched.records) {
            let Ok((_, view)) = batch else { break };
            if let Err(e) = view.check_crc() {
                return unexpected(format!("at {next}: {e}"));
            }
            let bytes =
                decoded(&view, 1 << 20).map_err(|e| PlainError::Unexpected(e.to_string()))?;
            for record in Records::new(view.header(), &bytes) {
                let record = record.map_err(|e| PlainError::Unexpected(e.to_string()))?;
                if record.offset >= next {
                    log.push((record.offset, record.value.and_then(history::author)));
                }
            }
            next = view.header().next_offset();
        }
        if next == before {
            return unexpected(format!("nothing at {next}, though the end is {end}"));
        }
    }
    Ok((start, log))
}
