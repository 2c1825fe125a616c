//! A partition's folder full of any bytes at all: it opens or says why not, and when it opens,
//! what it serves is whole, what it is given stays, and it opens again the same.
//!
//! The input is a small archive: per file a byte that says which ([`FILES`]), a byte for the
//! offset in its name, two bytes of length, the content. With [`MENDED`] set in the first byte
//! the checksums of the content are made right, so that lies behind them are reached too. No
//! accident leaves a checkpoint, a seal or a snapshot that lies under a right checksum: then
//! nothing is promised but an end without panic, hang or much memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringmill_log::{
    CacheLimits, CoreCaches, FetchData, LogConfig, Partition, ReadError, dump, verify,
};
use ringmill_ring::sim::{NodeId, World};
use ringmill_wire::batch::{BatchHeader, Batches, Compression, HEADER_LEN, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

/// The partition's folder.
pub(crate) const DIR: &str = "/data/t-0";
/// Flag of an entry's first byte: its checksums are made right.
pub(crate) const MENDED: u8 = 0x80;
/// What the first byte of an entry names.
pub(crate) const FILES: [&str; 13] = [
    "log",
    "index",
    "timeindex",
    "snapshot",
    "leader-epoch-checkpoint",
    "checkpoint",
    "checkpoint",
    "log.deleted",
    "log.tmp",
    "log.cleaned",
    "index.cleaned",
    "swap",
    "cleaner-checkpoint",
];
const LOG: usize = 0;
const INDEX: usize = 1;
const SNAPSHOT: usize = 3;
const EPOCHS: usize = 4;
/// The two slots of the checkpoint are entries of their own: 8 KiB of it are mostly zeros.
pub(crate) const SLOT: usize = 5;
pub(crate) const SLOT_STRIDE: usize = 4096;
/// A compacted log that is to take the place of so many offsets.
pub(crate) const SWAP: usize = 11;
const SWAP_OFFSETS: i64 = 8;
pub(crate) const CLEANER: usize = 12;
const SLOT_CRC_AT: usize = 124;
/// Bytes of a slot that are not zeros.
pub(crate) const SLOT_LEN: usize = 128;
/// Offsets at which arithmetic goes wrong, as the last values of an entry's second byte.
const FAR: [i64; 5] = [
    1 << 31,
    (1 << 32) + 1,
    i64::MAX - (1 << 31),
    i64::MAX - 1,
    i64::MAX,
];
/// Files in a folder, and bytes in all, at most: so that a run is quick.
const ENTRIES_MAX: usize = 24;
/// Reads that one log may take.
const READS_MAX: usize = 10_000;

/// The offset that an entry's second byte stands for.
fn offset_of(byte: u8) -> i64 {
    let far = usize::from(byte).checked_sub(256 - FAR.len());
    far.map_or(i64::from(byte), |far| FAR[far])
}

/// What a file of the folder is called.
fn name_of(kind: usize, offset: i64) -> PathBuf {
    let name = FILES[kind];
    Path::new(DIR).join(match kind {
        EPOCHS..=6 | CLEANER => name.to_owned(),
        SWAP => {
            let end = offset.saturating_add(SWAP_OFFSETS);
            format!("{offset:020}.log.{end:020}.swap")
        }
        _ => format!("{offset:020}.{name}"),
    })
}

/// The files of a folder.
#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// One of them, beside the log itself, is a lie under a right checksum.
    lies: bool,
}

/// Makes the checksums of a file's content right.
fn mend(kind: usize, content: &mut [u8]) {
    let put = |content: &mut [u8], at: usize, covered: std::ops::Range<usize>| {
        let Some(bytes) = content.get(covered) else {
            return;
        };
        let crc = crc32c::crc32c(bytes).to_be_bytes();
        if let Some(place) = content.get_mut(at..at + crc.len()) {
            place.copy_from_slice(&crc);
        }
    };
    match kind {
        LOG | SWAP => {
            let mut at = 0;
            while let Some(Ok(header)) = content.get(at..).map(BatchHeader::parse) {
                let end = at.saturating_add(header.size());
                // the CRC covers what stands behind it (Kafka's message format)
                put(content, at + 17, at + 21..end);
                if end <= at + HEADER_LEN || end >= content.len() {
                    break;
                }
                at = end;
            }
        }
        INDEX => put(content, 60, 0..60),
        SNAPSHOT => put(content, 2, 6..content.len()),
        SLOT..=6 => put(content, SLOT_CRC_AT, 0..SLOT_CRC_AT),
        _ => {}
    }
}

/// The files of an archive.
fn unpack(mut data: &[u8]) -> Folder {
    let mut folder = Folder::default();
    while let Some((&[kind, offset, high, low], rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (content, rest) = rest.split_at(len);
        data = rest;
        let which = usize::from(kind & !MENDED) % FILES.len();
        let mut content = content.to_vec();
        if kind & MENDED != 0 {
            let before = content.clone();
            mend(which, &mut content);
            folder.lies |= ![LOG, SWAP].contains(&which) && content != before;
        }
        let path = name_of(which, offset_of(offset));
        if let Some(slot) = which.checked_sub(SLOT).filter(|slot| *slot < 2) {
            let file: &mut Vec<u8> = folder.files.entry(path).or_default();
            file.resize(2 * SLOT_STRIDE, 0);
            content.truncate(SLOT_STRIDE);
            file[slot * SLOT_STRIDE..][..content.len()].copy_from_slice(&content);
        } else {
            folder.files.insert(path, content);
        }
        if folder.files.len() == ENTRIES_MAX {
            break;
        }
    }
    folder
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(1 << 16);
    let record = NewRecord {
        timestamp: 1_700_000_000_000,
        value: Some(b"appended"),
        ..NewRecord::default()
    };
    builder.append(&record).expect("a small batch");
    builder.seal(Compression::None, ProducerStamp::NONE)
}

/// What a partition was seen to hold.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    start: i64,
    end: i64,
    appended: Option<i64>,
}

async fn bytes_at(p: &Partition, offset: i64) -> Result<Bytes, ReadError> {
    let slice = p.read(offset, 4096).await?;
    let bytes = match &slice.data {
        FetchData::Empty => Bytes::new(),
        FetchData::Memory(parts) => Bytes::from(parts.concat()),
        FetchData::File { file, position } => {
            let read = file.read_exact_at(*position, slice.len).await;
            // a seal that lies about the file's length
            read.map_err(|_| ReadError::Closed)?
        }
    };
    assert_eq!(bytes.len(), slice.len);
    Ok(bytes)
}

/// Reads all that can be read.
async fn read_all(p: &Partition, lies: bool) {
    let (mut offset, end) = (p.log_start_offset(), p.visible_end());
    for _ in 0..READS_MAX {
        if offset >= end {
            return;
        }
        match bytes_at(p, offset).await {
            // everything up to there was compacted away
            Ok(bytes) if bytes.is_empty() => return,
            Ok(bytes) => {
                let next = Batches::new(&bytes)
                    .map_while(Result::ok)
                    .map(|(_, view)| view.header().next_offset())
                    .last();
                let next = next.expect("at least one whole batch");
                assert!(next > offset, "a read at {offset} led back to {next}");
                offset = next;
            }
            Err(ReadError::Damaged(damage)) => {
                assert!(damage.offsets.contains(&offset), "{damage} met at {offset}");
                offset = damage.offsets.end;
            }
            Err(ReadError::OutOfRange { .. }) if !lies => {
                panic!("{offset} is within {}..{end}", p.log_start_offset());
            }
            Err(error) => {
                assert!(lies, "a read at {offset}: {error}");
                return;
            }
        }
    }
}

/// Opens the partition, asks it everything, appends, and closes it or not.
async fn use_it(close: bool, lies: bool) -> Option<Seen> {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: 0,
        open_files: 4,
    });
    let config = LogConfig {
        segment_bytes: 4096,
        ..LogConfig::default()
    };
    let p = Partition::open(DIR, config, &caches).await.ok()?;
    p.set_leader_epoch(3);
    read_all(&p, lies).await;
    for timestamp in [-1, 0, 1_700_000_000_000, i64::MAX] {
        let _ = p.offset_for_timestamp(timestamp).await;
    }
    let _ = p.offset_of_max_timestamp().await;
    let _ = (
        p.end_of_epoch(3),
        p.epoch_of(p.log_end_offset() - 1),
        p.size(),
    );
    let mut appended = None;
    if let Ok(done) = p.append(batch()) {
        let kept = p.acknowledged(&done.receipt).await;
        if kept.is_ok() {
            let bytes = bytes_at(&p, done.base_offset).await;
            // Empty where a checkpoint says that the end is for other replicas to decide.
            let header = bytes.ok().and_then(|bytes| BatchHeader::parse(&bytes).ok());
            let found = header.map(|header| header.base_offset);
            assert!(lies || found == Some(done.base_offset), "{found:?}");
            appended = Some(done.base_offset);
        }
    }
    let (start, end) = (p.log_start_offset(), p.log_end_offset());
    assert!(start <= end && p.visible_end() <= end);
    if close {
        let _ = p.close().await;
    }
    Some(Seen {
        start,
        end,
        appended,
    })
}

/// Opens the folder again: what it was given is there.
async fn use_again(seen: Seen) {
    let caches = CoreCaches::new(CacheLimits::default());
    let p = Partition::open(DIR, LogConfig::default(), &caches).await;
    let p = p.expect("what opened once opens again");
    assert_eq!(p.log_end_offset(), seen.end);
    assert!(p.log_start_offset() >= seen.start);
    if let Some(offset) = seen.appended {
        match bytes_at(&p, offset).await {
            Ok(bytes) => {
                let first = Batches::new(&bytes).next();
                assert!(first.is_some_and(|batch| batch.is_ok()));
            }
            // nothing in the files leads over a header that was broken before it was appended
            Err(ReadError::Damaged(damage)) => assert!(damage.offsets.start < offset, "{damage}"),
            Err(error) => panic!("what was acknowledged is not there: {error}"),
        }
    }
    p.close().await.expect("a disk without faults");
}

fn run_in(world: &mut World, node: NodeId, power_cut: bool, lies: bool) {
    world.block_on(node, async {
        let _ = verify(Path::new(DIR), |_| {}).await;
        let _ = dump(Path::new(DIR), true, |_| {}).await;
    });
    let seen = world.block_on(node, use_it(!power_cut, lies));
    if power_cut {
        world.power_off(node);
    }
    match seen {
        Some(seen) if !lies => world.block_on(node, use_again(seen)),
        _ => drop(world.block_on(node, use_it(true, lies))),
    }
}

/// See the module.
pub(crate) fn recovery(data: &[u8]) {
    let Some((&flags, data)) = data.split_first() else {
        return;
    };
    let mut world = World::new(1);
    let node = world.add_node("a", [10, 0, 0, 1].into());
    let folder = unpack(data);
    for (path, content) in folder.files {
        world.disk(node).put(path, content);
    }
    run_in(&mut world, node, flags & 1 != 0, folder.lies);
}
