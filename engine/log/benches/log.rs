//! What one partition does on this machine's disk: `cargo bench -p ringmill-log`.
//!
//! Three questions: what a flush per append costs against the disk's own fdatasync, alone and in
//! company; how fast a stream of batches goes in, flushed; and whether a lookup takes the same
//! time whatever the log's size (sparse files stand in for the size). The folder is `BENCH_DIR`,
//! or the system's temporary one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmill_log::{AppendError, CacheLimits, CoreCaches, Durability, LogConfig, Partition};
use ringmill_ring::{File, OpenOptions, RingConfig, fs, run, spawn};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

fn batch(records: usize, value_len: usize) -> Bytes {
    let mut builder = BatchBuilder::new(64 << 20);
    let value = vec![7; value_len];
    for _ in 0..records {
        let record = NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).expect("within the limit");
    }
    builder.seal(Compression::None, ProducerStamp::NONE)
}

fn folder() -> PathBuf {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    base.join(format!("ringmill-log-bench-{}", std::process::id()))
}

/// Quantiles of durations, in microseconds.
fn show(what: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_micros();
    let rate = times.len() as f64 / took.as_secs_f64();
    // the first decile is what the machine does when nobody else is on it
    let (p10, p50, p99) = (at(0.1), at(0.5), at(0.99));
    println!("{what:<44} p10 {p10:>6} p50 {p50:>6} p99 {p99:>6} µs {rate:>8.0}/s");
}

/// The disk's own: write and fdatasync by the ring, no log around it.
async fn raw(dir: &Path, size: usize, prewritten: bool, workers: usize, time: Duration) {
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for worker in 0..workers {
        let path = dir.join(format!("raw-{worker}"));
        let options = OpenOptions::new().write(true).create(true).truncate(true);
        let file = File::open(&path, options).await.expect("a file");
        if prewritten {
            let zeros = Bytes::from(vec![0; 64 << 20]);
            file.write_at(0, vec![zeros]).await.expect("room");
            file.sync_all().await.expect("a flush");
        }
        let content = Bytes::from(vec![1; size]);
        tasks.push(spawn(async move {
            let (mut at, mut times) = (0, Vec::new());
            while begun.elapsed() < time {
                let one = Instant::now();
                file.write_at_sync(at, vec![content.clone()])
                    .await
                    .expect("a write");
                times.push(one.elapsed());
                at += size as u64;
                if prewritten && at + size as u64 > 64 << 20 {
                    at = 0;
                }
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("it ends"));
    }
    let how = if prewritten { "overwrite" } else { "append" };
    show(
        &format!("raw {how} of {size} B, {workers} file(s)"),
        times,
        begun.elapsed(),
    );
}

/// `workers` appends in flight, each waits for its flush.
async fn flushes(dir: &Path, content: &Bytes, workers: usize, time: Duration) {
    let caches = CoreCaches::new(CacheLimits::default());
    let p = Partition::open(dir.join("flush-0"), LogConfig::default(), &caches)
        .await
        .expect("a log");
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..workers {
        let (p, content) = (p.clone(), content.clone());
        tasks.push(spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < time {
                let one = Instant::now();
                let appended = p.append(content.clone()).expect("it is taken");
                p.acknowledged(&appended.receipt)
                    .await
                    .expect("it is flushed");
                times.push(one.elapsed());
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("it ends"));
    }
    let took = begun.elapsed();
    show(
        &format!(
            "log: flush per {} B append, {workers} in flight",
            content.len()
        ),
        times,
        took,
    );
    p.close().await.expect("it closes");
    fs::remove_dir_all(dir.join("flush-0")).await.expect("gone");
}

/// A stream of batches, as many in flight as the queue takes.
async fn stream(dir: &Path, content: &Bytes, records: usize, durability: Durability, total: usize) {
    let caches = CoreCaches::new(CacheLimits::default());
    let config = LogConfig {
        durability,
        ..LogConfig::default()
    };
    let p = Partition::open(dir.join("stream-0"), config, &caches)
        .await
        .expect("a log");
    let begun = Instant::now();
    let mut last = None;
    for _ in 0..total / content.len() {
        loop {
            match p.append(content.clone()) {
                Ok(appended) => {
                    last = Some(appended);
                    break;
                }
                Err(AppendError::Full) => p.room().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
    p.acknowledged(&last.expect("one at least").receipt)
        .await
        .expect("it is flushed");
    let took = begun.elapsed().as_secs_f64();
    let count = (total / content.len() * records) as f64;
    let what = format!("log: stream of {} B batches, {durability:?}", content.len());
    println!(
        "{what:<44} {:>8.0} MB/s   {:>10.0} records/s",
        total as f64 / took / 1e6,
        count / took
    );
    p.close().await.expect("it closes");
    fs::remove_dir_all(dir.join("stream-0"))
        .await
        .expect("gone");
}

/// Reads from the page cache, of `max_bytes` each: what the check of every batch costs, against
/// the same reads without a log.
async fn cold(dir: &Path, content: &Bytes, max_bytes: usize, total: usize) {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: 0,
        open_files: 16,
    });
    let config = LogConfig {
        durability: Durability::Relaxed,
        ..LogConfig::default()
    };
    let p = Partition::open(dir.join("cold-0"), config, &caches)
        .await
        .expect("a log");
    for _ in 0..total / content.len() {
        let appended = p.append(content.clone()).expect("it is taken");
        p.acknowledged(&appended.receipt).await.expect("written");
    }
    let records = p.log_end_offset() as usize / (total / content.len());
    let per_read = (max_bytes / content.len()).max(1) * records;
    let (begun, mut reads) = (Instant::now(), 0);
    for offset in (0..p.log_end_offset()).step_by(per_read) {
        p.read(offset, max_bytes).await.expect("a read");
        reads += 1;
    }
    let took = begun.elapsed();
    let path = dir.join("cold-0").join(format!("{:020}.log", 0));
    let options = OpenOptions::new().read(true);
    let file = File::open(&path, options).await.expect("its file");
    let begun = Instant::now();
    for n in 0..reads {
        let at = n * max_bytes as u64;
        file.read_at(at, max_bytes).await.expect("a read");
    }
    let raw = begun.elapsed();
    let each = |took: Duration| took.as_secs_f64() * 1e6 / reads as f64;
    let what = format!(
        "log: cold reads of {max_bytes} B, {} B batches",
        content.len()
    );
    println!(
        "{what:<54} {:>7.1} µs each, {:>7.1} µs raw, {:>6.0} MB/s",
        each(took),
        each(raw),
        total as f64 / took.as_secs_f64() / 1e6
    );
    p.close().await.expect("it closes");
    fs::remove_dir_all(dir.join("cold-0")).await.expect("gone");
}

fn main() {
    // `cargo test` runs benches too, with this flag: nothing to show then
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let dir = folder();
    let done = run(RingConfig::default(), async {
        fs::create_dir_all(&dir).await.expect("a folder");
        let time = Duration::from_secs(3);
        let single = batch(1, 100);
        for workers in [1, 16, 64] {
            flushes(&dir, &single, workers, time).await;
        }
        raw(&dir, single.len(), false, 1, time).await;
        raw(&dir, single.len(), true, 1, time).await;
        raw(&dir, 16 * single.len(), false, 1, time).await;
        flushes(&dir, &batch(1, 64 << 10), 1, time).await;
        raw(&dir, 64 << 10, false, 1, time).await;
        raw(&dir, 64 << 10, true, 1, time).await;
        for max_bytes in [16 << 10, 64 << 10, 1 << 20] {
            cold(&dir, &batch(150, 100), max_bytes, 256 << 20).await;
        }
        for durability in [Durability::Flushed, Durability::Relaxed] {
            for records in [10, 150, 9_000] {
                stream(&dir, &batch(records, 100), records, durability, 1 << 30).await;
            }
        }
        fs::remove_dir_all(&dir).await.expect("gone");
    });
    done.expect("a ring");
}
