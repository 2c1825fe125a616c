//! Processes killed and machines without power at any moment: what was acknowledged is there,
//! whole and once; what was not is there whole or not at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_log::{
    AppendError, CacheLimits, CoreCaches, Durability, LogConfig, OpenError, Partition,
};
use ringmill_ring::sim::DiskFaults;
use ringmill_ring::{sleep, spawn, yield_now};
use ringmill_wire::batch::{Batches, NO_PRODUCER_ID};

use crate::fixture::*;

/// What the clients of a partition know, over all lives of its broker.
#[derive(Default)]
struct History {
    /// What may stand at an offset.
    appended: BTreeMap<i64, Vec<u8>>,
    /// What must.
    acked: BTreeMap<i64, Vec<u8>>,
    /// What consumers have seen the end of.
    seen_end: i64,
    /// A log start that was acknowledged.
    start: i64,
    producers: Vec<Client>,
    acks: usize,
    opens: usize,
}

/// An idempotent producer that sends a batch until it is acknowledged.
struct Client {
    producer: Producer,
    pending: Option<Bytes>,
}

type Shared = Rc<RefCell<History>>;

/// Compares the log with what its clients know, right after it was opened.
async fn check(p: &Partition, history: &Shared) {
    assert_eq!(p.damages(), [], "a crash is no damage");
    let start = p.log_start_offset();
    let (known_start, seen_end) = (history.borrow().start, history.borrow().seen_end);
    assert!(start >= known_start, "deleted records stay deleted");
    assert!(
        p.visible_end() >= seen_end,
        "what consumers have seen stays"
    );
    let content = read_all(p, start, 100_000)
        .await
        .expect("all of it can be read");
    let mut found = BTreeMap::new();
    let mut sequences = BTreeSet::new();
    let mut next = None;
    for batch in Batches::new(&content) {
        let (_, view) = batch.expect("whole batches");
        let header = view.header();
        assert!(
            next.is_none_or(|next| next == header.base_offset),
            "offsets are dense"
        );
        next = Some(header.next_offset());
        found.insert(header.base_offset, view.bytes().to_vec());
        if header.producer_id != NO_PRODUCER_ID {
            let once = sequences.insert((header.producer_id, header.base_sequence));
            assert!(once, "a batch is in the log twice");
        }
    }
    assert!(next.is_none_or(|next| next == p.log_end_offset()));
    let mut history = history.borrow_mut();
    for (offset, batch) in &found {
        assert_eq!(
            history.appended.get(offset),
            Some(batch),
            "nobody wrote what is at {offset}"
        );
    }
    for (offset, batch) in history.acked.range(start..) {
        assert_eq!(
            found.get(offset),
            Some(batch),
            "what was acknowledged at {offset} is lost"
        );
    }
    // what is there now stays, or the next life would take it back
    history.acked = found.clone();
    history.appended = found;
    history.start = start;
    history.seen_end = p.visible_end();
    history.opens += 1;
}

fn on_appended(history: &Shared, base_offset: i64, batch: &Bytes) {
    let bytes = stored(batch, base_offset, 3);
    history.borrow_mut().appended.insert(base_offset, bytes);
}

fn on_acked(history: &Shared, base_offset: i64, batch: &Bytes) {
    let mut history = history.borrow_mut();
    history
        .acked
        .insert(base_offset, stored(batch, base_offset, 3));
    history.acks += 1;
}

/// Now and then as large as the segment allows, so that write and flush are no linked pair.
fn some_len(p: &Partition) -> usize {
    let segment_bytes = p.config().segment_bytes;
    match below(20) {
        0..2 => below((u64::from(segment_bytes.min(1_000_000)) - 5_000) / 5) as usize,
        2..5 => below(5_000) as usize,
        _ => below(200) as usize,
    }
}

/// Sends batches of its own, several at once, until the log does not take them any more.
async fn anonymous(p: Partition, history: Shared) {
    loop {
        let mut sent = Vec::new();
        for _ in 0..=below(4) {
            let batch = batch(1 + below(5) as usize, some_len(&p), below(1000) as i64);
            match p.append(batch.clone()) {
                Ok(appended) => {
                    on_appended(&history, appended.base_offset, &batch);
                    sent.push((appended, batch));
                }
                Err(AppendError::Full) => p.room().await,
                Err(_) => return,
            }
        }
        for (appended, batch) in sent {
            if p.acknowledged(&appended.receipt).await.is_err() {
                return;
            }
            on_acked(&history, appended.base_offset, &batch);
        }
        sleep(Duration::from_micros(below(2_000))).await;
    }
}

/// Sends the same batch until it is acknowledged, then the next.
async fn idempotent(p: Partition, history: Shared, number: usize) {
    loop {
        let batch = {
            let mut history = history.borrow_mut();
            let client = &mut history.producers[number];
            let next = || {
                client
                    .producer
                    .batch(1 + below(3) as usize, some_len(&p), 5)
            };
            client.pending.get_or_insert_with(next).clone()
        };
        let appended = match p.append(batch.clone()) {
            Ok(appended) => appended,
            Err(AppendError::Full) => {
                p.room().await;
                continue;
            }
            Err(AppendError::Producer(error)) => panic!("{error}"),
            Err(_) => return,
        };
        if !appended.duplicate {
            on_appended(&history, appended.base_offset, &batch);
        }
        if p.acknowledged(&appended.receipt).await.is_err() {
            return;
        }
        on_acked(&history, appended.base_offset, &batch);
        history.borrow_mut().producers[number].pending = None;
        // now and then an answer is lost
        if below(4) == 0 {
            let again = p.append(batch).map(|appended| appended.duplicate);
            assert!(
                !matches!(again, Ok(false)),
                "an acknowledged batch was appended again"
            );
        }
        sleep(Duration::from_micros(below(2_000))).await;
    }
}

/// Reads at random places, and remembers what it has seen the end of.
async fn consume(p: Partition, history: Shared) {
    loop {
        let (start, end) = (p.log_start_offset(), p.visible_end());
        let from = start + below((end - start) as u64 + 1) as i64;
        if let Ok(slice) = p.read(from, 1 + below(100_000) as usize).await {
            let bytes = bytes_of(&slice).await;
            let (_, next) = whole_batches(&bytes);
            let mut history = history.borrow_mut();
            history.seen_end = history.seen_end.max(next);
        }
        sleep(Duration::from_micros(below(3_000))).await;
    }
}

/// Deletes from the beginning of the log, by retention and on demand.
async fn tidy_up(p: Partition, history: Shared) {
    loop {
        sleep(Duration::from_micros(below(20_000))).await;
        let (start, end) = (p.log_start_offset(), p.visible_end());
        let done = if below(2) == 0 {
            p.apply_retention(0).await
        } else {
            let offset = start + below((end - start) as u64 / 4 + 1) as i64;
            p.delete_records(offset).await
        };
        let Ok(start) = done else { return };
        history.borrow_mut().start = start;
    }
}

/// One life of a broker: until it is killed.
async fn live(config: LogConfig, history: Shared, tail_bytes: usize) -> Result<(), OpenError> {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes,
        open_files: 3,
    });
    let p = Partition::open(DIR, config, &caches).await?;
    p.set_leader_epoch(3);
    check(&p, &history).await;
    spawn(anonymous(p.clone(), history.clone()));
    spawn(consume(p.clone(), history.clone()));
    spawn(tidy_up(p.clone(), history.clone()));
    for number in 0..history.borrow().producers.len() {
        spawn(idempotent(p.clone(), history.clone(), number));
    }
    if below(3) == 0 {
        sleep(Duration::from_micros(below(100_000))).await;
        let _ = p.close().await;
    }
    loop {
        sleep(Duration::from_secs(3600)).await;
        yield_now().await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Either,
}

fn lives(seed: u64, durability: Durability, end: End) -> (usize, usize) {
    let _seed = Seed(seed);
    let mut machine = Machine::new(seed);
    machine.world.swarm();
    let history = Shared::default();
    for id in 0..machine.world.random().below(3) {
        history.borrow_mut().producers.push(Client {
            producer: Producer::new(id as i64),
            pending: None,
        });
    }
    for _ in 0..4 {
        let random = machine.world.random();
        let config = LogConfig {
            durability,
            segment_bytes: random.pick(&[66_000, 150_000, 1 << 30]),
            retention_bytes: random.pick(&[None, Some(200_000)]),
            file_delete_delay: Duration::from_millis(random.below(20)),
            ..LogConfig::default()
        };
        let tail_bytes = random.pick(&[0, 20_000, 1 << 20]);
        let time = random.pick(&[5_000, 100_000, 12_000_000]);
        let time = Duration::from_micros(random.below(time));
        let kill = end == End::Kill || end == End::Either && random.coin();
        let outputs = machine
            .world
            .start(machine.node, live(config, history.clone(), tail_bytes));
        machine.world.run_for(time);
        assert!(outputs.take().is_empty(), "the log opens");
        if kill {
            machine.world.kill(machine.node);
        } else {
            machine.world.power_off(machine.node);
        }
    }
    let last = history.clone();
    machine.life(LogConfig::default(), async move |p| check(&p, &last).await);
    let history = history.borrow();
    (history.acks, history.opens)
}

/// Worlds in a test run; `SEEDS=n` runs more.
const SEEDS: u64 = 30;

#[test]
fn what_was_acknowledged_survives_kills_and_power_cuts() {
    let (mut acks, mut opens) = (0, 0);
    for seed in seeds(SEEDS) {
        let done = lives(seed, Durability::Flushed, End::Either);
        acks += done.0;
        opens += done.1;
    }
    println!("{acks} acknowledgements, {opens} starts");
    assert!(
        std::env::var("SEED").is_ok() || acks > 1_000,
        "{acks} acknowledgements are no test"
    );
}

#[test]
fn what_was_written_survives_a_kill_in_relaxed_mode() {
    for seed in seeds(SEEDS / 3) {
        lives(seed, Durability::Relaxed, End::Kill);
    }
}

/// A recovery that is killed leaves names in the page cache alone; the next one builds upon them.
#[test]
fn starts_that_are_cut_short_lose_nothing() {
    let mut cut_short = 0;
    for seed in seeds(400) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let faults = DiskFaults::swarm(machine.world.random());
        *machine.world.disk(machine.node).faults() = faults;
        let end = machine.life(small_segments(40_000), async move |p| {
            for burst in 0..1 + below(4) {
                if burst > 0 {
                    // a checkpoint is written, or not
                    sleep(Duration::from_secs(below(16))).await;
                }
                for _ in 0..1 + below(4) {
                    let appended = p.append(batch(1, below(4_000) as usize, 1)).unwrap();
                    p.flushed(&appended.receipt).await.unwrap();
                }
            }
            p.written_end()
        });
        machine.world.kill(machine.node);
        for _ in 0..4 {
            let reached = machine.world.start(machine.node, async move {
                let caches = CoreCaches::new(CacheLimits::default());
                let p = Partition::open(DIR, small_segments(40_000), &caches).await;
                p.expect("the log opens").written_end()
            });
            let time = machine.world.random().below(60_000);
            machine.world.run_for(Duration::from_micros(time));
            cut_short += usize::from(reached.take().is_empty());
            match machine.world.random().coin() {
                true => machine.world.kill(machine.node),
                false => machine.world.power_off(machine.node),
            }
        }
        *machine.world.disk(machine.node).faults() = DiskFaults::default();
        machine.life(LogConfig::default(), async move |p| {
            assert_eq!((p.written_end(), p.damages()), (end, Vec::new()));
        });
    }
    assert!(
        std::env::var("SEED").is_ok() || cut_short > 100,
        "{cut_short}"
    );
}
