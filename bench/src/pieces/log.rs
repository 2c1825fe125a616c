//! The log's state machines alone, and one partition on a simulated disk.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use ringmill_log::checkpoint::Mark;
use ringmill_log::flush::{Commit, FlushPolicy, Front, Step};
use ringmill_log::index::{self, IndexBuilder, SHIFT_MAX, Walk, find_batch};
use ringmill_log::producers::{Producers, Verdict};
use ringmill_log::trie::OffsetTrie;
use ringmill_log::{CacheLimits, CoreCaches, LogConfig, Partition};
use ringmill_ring::Instant;
use ringmill_wire::batch::{BatchHeader, ProducerStamp, set_base_offset};

use crate::material::{batch, batch_of};
use crate::stage::{Curtain, act_alone};
use crate::{Piece, collect_here};

/// Segments of a log of a tebibyte.
const SEGMENTS: u64 = 1024;
/// Offsets of a segment of a gibibyte: records of 100 bytes and some.
const OFFSETS: u64 = 10_000_000;
/// Where the partition is.
const DIR: &str = "/data/flights-0";

pub(crate) fn pieces() -> Vec<Piece> {
    let piece = Piece::new;
    vec![
        piece(
            "trie-lookup",
            "lookup",
            20_000,
            "an offset's segment, of the 1,024 of a log of 1 TiB",
            look_up,
        ),
        piece(
            "index-walk",
            "lookup",
            5_000,
            "an offset's batch in its segment: the two cells, and the walk over 64 offsets",
            walk,
        ),
        piece(
            "group-commit",
            "append",
            5_000,
            "an append, its linked write and flush, decided",
            commit,
        ),
        piece(
            "producer-check",
            "batch",
            5_000,
            "an idempotent producer's next batch, one of 1,000 producers",
            check_producers,
        ),
        piece(
            "log-append-1",
            "batch",
            500,
            "a batch of one record appended, written, flushed, acknowledged",
            |units| append(1, units),
        ),
        piece(
            "log-append-1000",
            "batch",
            100,
            "the same, 1,000 records",
            |units| append(1000, units),
        ),
        piece(
            "log-read-tail",
            "read",
            2_000,
            "a read of a batch of 100 records out of the hot tail",
            |units| read(1 << 20, units),
        ),
        piece(
            "log-read-file",
            "read",
            500,
            "the same out of the files, checked before it is handed out",
            |units| read(0, units),
        ),
    ]
}

/// Numbers all over a range, the same each time.
fn scattered(n: u64, bound: u64) -> u64 {
    let hash = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 1) % bound
}

fn look_up(units: u64) {
    let mut trie = OffsetTrie::new();
    for segment in 0..SEGMENTS {
        trie.insert(segment * OFFSETS, segment);
    }
    collect_here(&mut || {
        for n in 0..units {
            let offset = scattered(n, SEGMENTS * OFFSETS);
            black_box(trie.predecessor(black_box(offset)));
        }
    });
}

fn walk(units: u64) {
    const BATCHES: i64 = 4096;
    let one = batch(1);
    let (mut log, mut cells) = (BytesMut::new(), IndexBuilder::new(0, SHIFT_MAX, 0));
    for offset in 0..BATCHES {
        let mut next = BytesMut::from(&one[..]);
        set_base_offset(&mut next, offset);
        cells.on_batch(offset, log.len() as u32);
        log.extend_from_slice(&next);
    }
    let log = log.freeze();
    collect_here(&mut || {
        for n in 0..units {
            let offset = scattered(n, BATCHES as u64 - (1 << SHIFT_MAX)) as i64;
            let cell = index::cell_of(0, SHIFT_MAX, offset).expect("it is in reach");
            let low = cells.bracket(cell).expect("all are in memory").low;
            let found = find_batch(&log[low as usize..], u64::from(low), offset);
            assert!(matches!(found, Walk::Found { .. }), "it is there");
            black_box(found);
        }
    });
}

fn commit(units: u64) {
    let policy = FlushPolicy::from(&LogConfig::default());
    let mut header = BatchHeader::parse(&batch(1)).expect("our own batch");
    let bytes = header.size() as u64;
    let mut end = Mark::start_of(0);
    let (mut commit, now) = (Commit::new(policy, end), Instant::from_nanos(1));
    collect_here(&mut || {
        for _ in 0..units {
            end = end.after(&header);
            header.base_offset = end.offset;
            commit.on_appended(end);
            commit.want(end.offset);
            let step = commit.step(now, black_box(Front::Batches { bytes }));
            let Some(Step::Pair { lane }) = step else {
                panic!("a pair is due, not {step:?}");
            };
            commit.begin_pair(lane, end, bytes);
            assert_eq!(commit.step(now, Front::Empty), None);
            black_box(commit.on_pair(lane));
        }
    });
}

fn check_producers(units: u64) {
    const PRODUCERS: i64 = 1000;
    let mut producers = Producers::new();
    let header_of = |id: i64| {
        let stamp = ProducerStamp {
            producer_id: id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: false,
        };
        BatchHeader::parse(&batch_of(1, stamp)).expect("our own batch")
    };
    let mut headers: Vec<BatchHeader> = (0..PRODUCERS).map(header_of).collect();
    let mut offset = 0;
    let mut next = |header: &mut BatchHeader| {
        header.base_offset = offset;
        offset += 1;
        let verdict = producers.check(header, None).expect("it is the next");
        assert_eq!(verdict, Verdict::New);
        black_box(producers.on_batch(header, None, 1));
        producers.on_visible(offset);
        header.base_sequence += 1;
    };
    headers.iter_mut().for_each(&mut next);
    collect_here(&mut || {
        for n in 0..units {
            next(&mut headers[scattered(n, PRODUCERS as u64) as usize]);
        }
    });
}

async fn open(tail_bytes: usize) -> Partition {
    let limits = CacheLimits {
        tail_bytes,
        open_files: 16,
    };
    let caches = CoreCaches::new(limits);
    let opened = Partition::open(DIR, LogConfig::default(), &caches).await;
    opened.expect("a new log")
}

async fn put(partition: &Partition, batch: Bytes) {
    let appended = partition.append(batch).expect("there is room");
    let flushed = partition.acknowledged(&appended.receipt).await;
    flushed.expect("the disk takes it");
}

/// Appends one after the other: none shares another's flush.
fn append(records: usize, units: u64) {
    act_alone(move |curtain: Curtain| async move {
        let partition = open(1 << 20).await;
        let batch = batch(records);
        let copy = |_| Bytes::copy_from_slice(&batch);
        for batch in (0..20).map(copy) {
            put(&partition, batch).await;
        }
        // each has its bytes to itself, as what was received has
        let batches: Vec<Bytes> = (0..units).map(copy).collect();
        curtain.rises().await;
        for batch in batches {
            put(&partition, batch).await;
        }
        curtain.falls().await;
    });
}

fn read(tail_bytes: usize, units: u64) {
    const RECORDS: i64 = 100;
    const BATCHES: i64 = 50;
    act_alone(move |curtain: Curtain| async move {
        let partition = open(tail_bytes).await;
        for _ in 0..BATCHES {
            put(&partition, batch(RECORDS as usize)).await;
        }
        curtain.rises().await;
        for n in 0..units {
            let offset = scattered(n, (BATCHES * RECORDS) as u64) as i64;
            let slice = partition.read(offset, 1).await.expect("it is there");
            assert_eq!(slice.base_offset, offset - offset % RECORDS);
            black_box(slice);
        }
        curtain.falls().await;
    });
}
