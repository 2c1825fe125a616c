//! The cleaner's memory has a bound, however many keys a log has. A program of its own: the
//! allocator counts everything that the process has.

use ringmill_log::{
    CLEANER_BUFFER_BYTES, CacheLimits, Cleaner, CompactionConfig, CoreCaches, Durability,
    LogConfig, Partition,
};
use ringmill_ring::{RingConfig, fs, run};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KEYS: u64 = 1_000_000;
const KEYS_PER_BATCH: u64 = 1_000;
/// Every so manyth key is written once more at the end.
const AGAIN: u64 = 4;
/// `log.cleaner.dedupe.buffer.size`: for a quarter of the keys or so.
const MAP_BYTES: usize = 8 << 20;
const SEGMENT_BYTES: u32 = 4 << 20;
const CLOSING_BYTES: usize = 900 << 10;
const CLOSING: usize = SEGMENT_BYTES as usize / CLOSING_BYTES + 2;

/// Keys `first`, `first + step`, … as one batch.
async fn append(partition: &Partition, first: u64, step: u64) {
    let mut builder = BatchBuilder::new(1 << 20);
    for number in 0..KEYS_PER_BATCH {
        let key = (first + number * step).to_be_bytes();
        let record = NewRecord {
            key: Some(&key),
            value: Some(&key[4..]),
            ..NewRecord::default()
        };
        builder.append(&record).expect("far below the limit");
    }
    put(partition, builder).await;
}

async fn put(partition: &Partition, mut builder: BatchBuilder) {
    let batch = builder.seal(Compression::None, ProducerStamp::NONE);
    let appended = partition.append(batch).expect("the log takes it");
    let written = partition.acknowledged(&appended.receipt).await;
    written.expect("the disk takes it");
}

async fn fill(partition: &Partition) {
    for first in (0..KEYS).step_by(KEYS_PER_BATCH as usize) {
        append(partition, first, 1).await;
    }
    for first in (0..KEYS).step_by((KEYS_PER_BATCH * AGAIN) as usize) {
        append(partition, first, AGAIN).await;
    }
    // the active segment, which is left alone, holds nothing of all that
    let value = vec![0; CLOSING_BYTES];
    for _ in 0..CLOSING {
        let mut builder = BatchBuilder::new(1 << 20);
        let record = NewRecord {
            key: Some(b"closing"),
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).expect("below the limit");
        put(partition, builder).await;
    }
}

/// Cleans until there is nothing more to do; the runs, the most memory that one took beside what was
/// there before, and how many records stay.
async fn clean(partition: &Partition) -> (usize, usize, u64) {
    let cleaner = Cleaner::new(MAP_BYTES, f64::INFINITY);
    let (mut runs, mut most, mut stay) = (0, 0, 0);
    loop {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let done = partition.clean(&cleaner, 0).await.expect("it cleans");
        let Some(done) = done else { break };
        most = most.max(MEMORY.peak_usage() - before);
        runs += 1;
        stay = done.records.retained;
    }
    (runs, most, stay)
}

#[test]
fn a_log_of_a_million_keys_is_compacted_within_the_bound() {
    let dir = std::env::temp_dir().join(format!("ringmill-cleaner-memory-{}", std::process::id()));
    let config = LogConfig {
        // a segment is flushed all the same before it may be cleaned
        durability: Durability::Relaxed,
        segment_bytes: SEGMENT_BYTES,
        compaction: Some(CompactionConfig::default()),
        ..LogConfig::default()
    };
    let (runs, most, stay) = run(RingConfig::default(), async {
        fs::create_dir_all(&dir).await.expect("a folder");
        let caches = CoreCaches::new(CacheLimits::default());
        let partition = Partition::open(&dir, config, &caches).await.expect("opens");
        fill(&partition).await;
        let done = clean(&partition).await;
        partition.close().await.expect("closes");
        fs::remove_dir_all(&dir).await.expect("removed");
        done
    })
    .expect("a ring");
    assert!(
        runs >= 4,
        "a buffer this small takes several runs, not {runs}"
    );
    assert_eq!(stay, KEYS + 1, "one record of each key, and of what closes");
    let bound = MAP_BYTES + CLEANER_BUFFER_BYTES + 3 * CLOSING_BYTES;
    println!("{KEYS} keys: {runs} runs, {most} bytes at most, allowed are {bound}");
    assert!(most <= bound, "{most} bytes, allowed are {bound}");
    assert!(most > MAP_BYTES / 2, "{most} bytes: the map is not counted");
}
