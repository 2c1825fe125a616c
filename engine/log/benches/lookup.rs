//! From an offset to its batch in logs of 1 MB to 1 TB: `cargo bench -p ringmill-log --bench
//! lookup`. The time must not depend on the size.
//!
//! Sparse files stand in for the size: of each segment only the batches that are looked up are
//! there, with the index cells that lead to them. Each is looked up twice in a row: the first time
//! its segment's files may have to be opened, the second time they are. Before that, the log
//! itself is opened. Of both the part that needs no file is shown too: an offset's segment, among
//! as many as the log has. The folder is `BENCH_DIR`, or the system's temporary one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringmill_log::checkpoint::{self, Checkpoint, Mark, Replay};
use ringmill_log::index::{HEADER_LEN, IndexHeader, Seal, cell_position};
use ringmill_log::time_index::MaxTimestamp;
use ringmill_log::trie::OffsetTrie;
use ringmill_log::{CacheLimits, CoreCaches, LogConfig, Partition};
use ringmill_ring::{RingConfig, run};
use ringmill_wire::batch::{self, Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

/// Offsets of a segment of 1 GiB: records of 100 bytes and some.
const OFFSETS_PER_GIB: i64 = 10_000_000;
const SHIFT: u8 = 6;
const LOOKUPS: usize = 400;
/// Batches that are there, in the whole log.
const PROBES: usize = 200;

/// 64 records, as the stride has offsets.
fn probe() -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for _ in 0..1 << SHIFT {
        let record = NewRecord {
            value: Some(&[7; 80]),
            ..NewRecord::default()
        };
        builder.append(&record).expect("within the limit");
    }
    builder.seal(Compression::None, ProducerStamp::NONE)
}

/// Without a clock or a seed of the system: the same log each time.
fn scattered(n: usize, bound: i64) -> i64 {
    let hash = (n as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29);
    (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 1) as i64 % bound
}

fn file(dir: &Path, base: i64, extension: &str) -> File {
    let path = dir.join(format!("{base:020}.{extension}"));
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .clone();
    options.open(path).expect("a file")
}

/// A log of so many bytes, and the offsets that can be looked up.
fn make(dir: &Path, size: u64) -> Vec<i64> {
    std::fs::create_dir_all(dir).expect("a folder");
    let segment_len = size.min(1 << 30);
    let segments = (size / segment_len) as i64;
    let offsets = (OFFSETS_PER_GIB * segment_len as i64 / (1 << 30)) >> SHIFT << SHIFT;
    for n in 0..=segments {
        let base = n * offsets;
        let log_len = if n < segments { segment_len } else { 0 };
        file(dir, base, "log")
            .set_len(log_len)
            .expect("a sparse file");
        let seal = Seal {
            log_len,
            end_offset: base + offsets,
            max_timestamp: 0,
            max_timestamp_offset: base,
            time_entries: 0,
            aborted_entries: 0,
            compacted: None,
        };
        let header = IndexHeader {
            base_offset: base,
            shift: SHIFT,
            seal: (n < segments).then_some(seal),
        };
        file(dir, base, "index")
            .write_all_at(&header.encode(), 0)
            .expect("room");
    }
    let probe = probe();
    let mut probes = Vec::new();
    for n in 0..PROBES {
        let base = scattered(2 * n, segments) * offsets;
        let cell = scattered(2 * n + 1, (offsets >> SHIFT) - 1);
        // each cell's batch has a place of its own
        let room = segment_len / (offsets as u64 >> SHIFT);
        let position = cell as u64 * room;
        let mut bytes = BytesMut::from(&probe[..]);
        batch::set_base_offset(&mut bytes, base + (cell << SHIFT));
        file(dir, base, "log")
            .write_all_at(&bytes, position)
            .expect("room");
        let next = position + room;
        let cells = [position as u32 + 1, next as u32 + 1].map(u32::to_be_bytes);
        let index = file(dir, base, "index");
        index
            .write_all_at(cells.as_flattened(), cell_position(cell as u32))
            .expect("room");
        probes.push(base + (cell << SHIFT) + scattered(n, 1 << SHIFT));
    }
    write_state(dir, segments * offsets);
    probes
}

fn write_state(dir: &Path, end: i64) {
    let recovery_point = Mark {
        max: MaxTimestamp::NONE,
        ..Mark::start_of(end)
    };
    let replay = Replay {
        snapshot: None,
        position: 0,
        offset: end,
    };
    let slot = Checkpoint {
        sequence: 2,
        log_start_offset: 0,
        recovery_point,
        replay,
        replicated: None,
    };
    let mut content = vec![0; checkpoint::FILE_LEN];
    content[..checkpoint::SLOT_LEN].copy_from_slice(&slot.encode());
    std::fs::write(dir.join("checkpoint"), content).expect("room");
    std::fs::write(dir.join("leader-epoch-checkpoint"), "0\n0\n").expect("room");
    assert_eq!(HEADER_LEN as u64, cell_position(0));
}

async fn measure(dir: &Path, offsets: &[i64]) -> (Duration, Vec<Duration>) {
    let limits = CacheLimits {
        tail_bytes: 0,
        open_files: 64,
    };
    let begun = Instant::now();
    let caches = CoreCaches::new(limits);
    let p = Partition::open(dir, LogConfig::default(), &caches)
        .await
        .expect("the log opens");
    let opened = begun.elapsed();
    let mut times = Vec::new();
    for n in 0..LOOKUPS {
        // each twice in a row: with its files closed, then open
        let offset = offsets[n / 2 % offsets.len()];
        let begun = Instant::now();
        let slice = p.read(offset, 1).await.expect("the batch is there");
        times.push(begun.elapsed());
        assert!((offset - 63..=offset).contains(&slice.base_offset));
    }
    assert_eq!(p.damages(), []);
    (opened, times)
}

/// Nanoseconds from an offset to its segment, by the trie alone: the median of some rounds.
fn in_memory(segments: u64) -> f64 {
    const ROUNDS: usize = 51;
    const CALLS: i64 = 10_000;
    let mut trie = OffsetTrie::new();
    for n in 0..=segments {
        trie.insert(n * OFFSETS_PER_GIB as u64, n);
    }
    let end = segments as i64 * OFFSETS_PER_GIB;
    let offsets: Vec<u64> = (0..CALLS as usize)
        .map(|n| scattered(n, end) as u64)
        .collect();
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for offset in &offsets {
                std::hint::black_box(trie.predecessor(std::hint::black_box(*offset)));
            }
            begun.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2].as_nanos() as f64 / CALLS as f64
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let base = base.join(format!("ringmill-lookup-bench-{}", std::process::id()));
    println!(
        "    size  segments      opening   in memory   first lookup   second lookup (medians)"
    );
    let sizes: [(&str, u64); 4] = [
        ("1 MB", 1 << 20),
        ("100 MB", 100 << 20),
        ("10 GB", 10 << 30),
        ("1 TB", 1 << 40),
    ];
    for (name, size) in sizes {
        let dir = base.join(name.replace(' ', "-"));
        let offsets = make(&dir, size);
        let done = run(RingConfig::default(), measure(&dir, &offsets));
        let (opened, times) = done.expect("a ring");
        let median = |first: usize| {
            let mut times: Vec<_> = times.iter().skip(first).step_by(2).copied().collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        let segments = size.div_ceil(1 << 30);
        let (first, second) = (median(0), median(1));
        let in_memory = in_memory(segments);
        println!(
            "{name:>8} {segments:>9} {opened:>12.1?} {in_memory:>8.1} ns {first:>14.1?} {second:>15.1?}"
        );
    }
    std::fs::remove_dir_all(&base).expect("gone");
}
