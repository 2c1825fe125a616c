//! The log's pieces one by one: `cargo bench -p ringmill-log --bench pieces`. What the disk makes of
//! them is `--bench log`'s to show, what a lookup takes in files of any size `--bench lookup`'s.
//!
//! Appends and reads go through a ring of this machine's into a file in memory: `BENCH_DIR`, or
//! /dev/shm.

use std::future::Future;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmill_log::checkpoint::Mark;
use ringmill_log::flush::{Commit, FlushPolicy, Front, Step};
use ringmill_log::index::{self, IndexBuilder, SHIFT_MAX, Walk, find_batch};
use ringmill_log::producers::{Producers, Verdict};
use ringmill_log::trie::OffsetTrie;
use ringmill_log::{CacheLimits, CoreCaches, Durability, LogConfig, Partition};
use ringmill_ring::{RingConfig, fs, run, spawn};
use ringmill_wire::batch::{BatchHeader, Compression, ProducerStamp, set_base_offset};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

/// Offsets of a segment of a gibibyte: records of 100 bytes and some.
const OFFSETS: u64 = 10_000_000;

/// Records with values of 100 bytes.
fn batch_of(records: usize, producer: ProducerStamp) -> Bytes {
    let mut builder = BatchBuilder::new(16 << 20);
    for _ in 0..records {
        let record = NewRecord {
            value: Some(&[b'v'; 100]),
            ..NewRecord::default()
        };
        builder.append(&record).expect("the batch has room");
    }
    builder.seal(Compression::None, producer)
}

fn batch(records: usize) -> Bytes {
    batch_of(records, ProducerStamp::NONE)
}

/// Numbers all over a range, the same each time.
fn scattered(n: u64, bound: u64) -> u64 {
    let hash = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 1) % bound
}

/// From an offset to its segment, in logs of so many: of 1 GiB each, up to 64 TiB.
fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment of an offset");
    for segments in [1_u64, 10, 1024, 65_536] {
        let mut trie = OffsetTrie::new();
        for segment in 0..segments {
            trie.insert(segment * OFFSETS, segment);
        }
        let offsets: Vec<u64> = (0..1024)
            .map(|n| scattered(n, segments * OFFSETS))
            .collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::new("scattered", segments), |b| {
            b.iter(|| {
                next = (next + 1) % offsets.len();
                trie.predecessor(black_box(offsets[next]))
            });
        });
        let last = segments * OFFSETS - 1;
        group.bench_function(BenchmarkId::new("the last", segments), |b| {
            b.iter(|| trie.predecessor(black_box(last)));
        });
    }
    group.finish();
}

/// From an offset to its batch in a segment whose cells and batches are in memory.
fn walks(c: &mut Criterion) {
    const BATCHES: i64 = 65_536;
    let mut group = c.benchmark_group("batch of an offset");
    for shift in [0, SHIFT_MAX] {
        let (one, mut log) = (batch(1), BytesMut::new());
        let mut cells = IndexBuilder::new(0, shift, 0);
        for offset in 0..BATCHES {
            let mut next = BytesMut::from(&one[..]);
            set_base_offset(&mut next, offset);
            cells.on_batch(offset, log.len() as u32);
            log.extend_from_slice(&next);
        }
        let mut n = 0;
        group.bench_function(BenchmarkId::new("stride", 1 << shift), |b| {
            b.iter(|| {
                n += 1;
                let offset = scattered(n, BATCHES as u64) as i64;
                let cell = index::cell_of(0, shift, offset).expect("it is in reach");
                let low = cells.bracket(cell).expect("all are in memory").low;
                let found = find_batch(&log[low as usize..], u64::from(low), offset);
                assert!(matches!(found, Walk::Found { .. }), "it is there");
                found
            });
        });
    }
    group.finish();
}

/// What is decided of each append, without doing it.
fn decisions(c: &mut Criterion) {
    let mut header = BatchHeader::parse(&batch(1)).expect("our own batch");
    let bytes = header.size() as u64;
    let mut end = Mark::start_of(0);
    let now = ringmill_ring::Instant::from_nanos(1);
    let mut commit = Commit::new(FlushPolicy::from(&LogConfig::default()), end);
    c.bench_function("group commit", |b| {
        b.iter(|| {
            end = end.after(&header);
            header.base_offset = end.offset;
            commit.on_appended(end);
            commit.want(end.offset);
            let step = commit.step(now, black_box(Front::Batches { bytes }));
            let Some(Step::Pair { lane }) = step else {
                panic!("a pair is due, not {step:?}");
            };
            commit.begin_pair(lane, end, bytes);
            commit.on_pair(lane)
        });
    });
    let mut group = c.benchmark_group("idempotent producer's batch");
    for known in [1_i64, 10_000] {
        let mut producers = Producers::new();
        let header_of = |id| {
            let stamp = ProducerStamp {
                producer_id: id,
                producer_epoch: 0,
                base_sequence: 0,
                transactional: false,
            };
            BatchHeader::parse(&batch_of(1, stamp)).expect("our own batch")
        };
        let mut headers: Vec<BatchHeader> = (0..known).map(header_of).collect();
        let (mut offset, mut n) = (0, 0);
        let mut next = |header: &mut BatchHeader| {
            header.base_offset = offset;
            offset += 1;
            let verdict = producers.check(header, None).expect("it is the next");
            assert_eq!(verdict, Verdict::New);
            black_box(producers.on_batch(header, None, 1));
            producers.on_visible(offset);
            header.base_sequence += 1;
        };
        group.bench_function(BenchmarkId::new("known", known), |b| {
            b.iter(|| {
                n += 1;
                next(&mut headers[scattered(n, known as u64) as usize]);
            });
        });
    }
    group.finish();
}

fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = match std::env::var_os("BENCH_DIR") {
        Some(dir) => PathBuf::from(dir),
        None if memory.is_dir() => memory,
        None => std::env::temp_dir(),
    };
    base.join(format!("ringmill-log-pieces-{}", std::process::id()))
}

/// Opens a new log, prepares, and takes the time of what comes then.
fn timed<P, F>(
    dir: &Path,
    prepare: impl FnOnce(Partition) -> P,
    work: impl FnOnce(Partition) -> F,
) -> Duration
where
    P: Future<Output = ()>,
    F: Future<Output = Duration>,
{
    let done = run(RingConfig::default(), async {
        fs::create_dir_all(dir).await.expect("a folder");
        let caches = CoreCaches::new(CacheLimits::default());
        let config = LogConfig {
            durability: Durability::Relaxed,
            ..LogConfig::default()
        };
        let p = Partition::open(dir.join("flights-0"), config, &caches);
        let p = p.await.expect("a log");
        prepare(p.clone()).await;
        let took = work(p.clone()).await;
        p.close().await.expect("it closes");
        fs::remove_dir_all(dir).await.expect("gone");
        took
    });
    done.expect("a ring")
}

async fn put(partition: &Partition, batch: Bytes) {
    let appended = partition.append(batch).expect("there is room");
    let written = partition.acknowledged(&appended.receipt).await;
    written.expect("there is memory");
}

/// Appends that are written and acknowledged, one after the other or so many at once.
fn appends(c: &mut Criterion) {
    let dir = folder();
    let mut group = c.benchmark_group("append");
    group.sample_size(20);
    for (records, in_flight) in [(1, 1), (1, 64), (1000, 1), (1000, 16)] {
        let batch = batch(records);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        let name = BenchmarkId::new(format!("{records} records"), format!("{in_flight} at once"));
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let each = count.div_ceil(in_flight);
                let took = timed(
                    &dir,
                    |_| std::future::ready(()),
                    async |p| {
                        let begun = Instant::now();
                        let task = |_| {
                            let (p, batch) = (p.clone(), batch.clone());
                            spawn(async move {
                                for _ in 0..each {
                                    put(&p, batch.clone()).await;
                                }
                            })
                        };
                        for task in (0..in_flight).map(task).collect::<Vec<_>>() {
                            task.await.expect("it ends");
                        }
                        begun.elapsed()
                    },
                );
                // a few more than were asked for
                took.mul_f64(count as f64 / (each * in_flight) as f64)
            });
        });
    }
    group.finish();
}

/// Reads of one batch that the tail has in memory, of so many batches that are there.
fn tails(c: &mut Criterion) {
    let dir = folder();
    let mut group = c.benchmark_group("read of the tail");
    group.sample_size(20);
    for batches in [10_u64, 1_000, 10_000] {
        group.bench_function(BenchmarkId::new("batches", batches), |b| {
            b.iter_custom(|count| {
                let prepare = async |p: Partition| {
                    for _ in 0..batches {
                        put(&p, batch(1)).await;
                    }
                };
                timed(&dir, prepare, async |p| {
                    let begun = Instant::now();
                    for n in 0..count {
                        let offset = scattered(n, batches) as i64;
                        black_box(p.read(offset, 1).await.expect("it is there"));
                    }
                    begun.elapsed()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, segments, walks, decisions, appends, tails);
criterion_main!(benches);
