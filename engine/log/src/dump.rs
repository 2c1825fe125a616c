//! Shows what a file of a partition holds (`ringmill log dump`): batches, records, index cells,
//! time entries, epochs, producers, checkpoints. Streams; stops where a file is not what its
//! name says, and says so.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions, fs};
use ringmill_wire::batch::{BatchError, BatchHeader, BatchView, TimestampType};
use ringmill_wire::marker::EndTxnMarker;
use ringmill_wire::record::{RecordError, Records, decoded};

use crate::aborted::{self, AbortedTxn};
use crate::checkpoint::Checkpoint;
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::epochs::{EpochEntry, Epochs};
use crate::error::IoFailure;
use crate::index::{self, IndexHeader};
use crate::names::{self, Kind};
use crate::producers::WrittenBatch;
use crate::snapshot;
use crate::time_index::{self, TimeEntry};
use crate::walk::Walk;

/// Most bytes that a batch may decompress to when its records are shown.
const DECODED_BYTES_MAX: usize = 1 << 30;

/// One thing in a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Dumped {
    /// What follows is out of this file.
    File(PathBuf),
    /// A batch of a `.log`.
    Batch {
        /// Where it begins.
        position: u64,
        /// Its header.
        header: BatchHeader,
        /// Its content has the CRC that the header states.
        valid: bool,
    },
    /// A record of the batch before.
    Record {
        /// Its offset.
        offset: i64,
        /// In milliseconds.
        timestamp: i64,
        /// May be null.
        key: Option<Bytes>,
        /// May be null.
        value: Option<Bytes>,
    },
    /// Here a `.log` is no log any more, or a batch cannot be decoded.
    Broken {
        /// Where.
        position: u64,
        /// Why.
        error: String,
    },
    /// The header of an `.index`.
    Index(IndexHeader),
    /// A cell of an `.index`.
    Cell {
        /// The first offset that it is for.
        offset: i64,
        /// Where the batch begins in the log; none in a cell that was never written.
        position: Option<u32>,
    },
    /// An entry of a `.timeindex`.
    Time(TimeEntry),
    /// An entry of a `.txnindex`.
    Aborted(AbortedTxn),
    /// The end of a transaction, in the batch before.
    Marker {
        /// Its offset.
        offset: i64,
        /// What it says.
        marker: EndTxnMarker,
    },
    /// An entry of `leader-epoch-checkpoint`.
    Epoch(EpochEntry),
    /// A producer's batch of a `.snapshot`.
    Producer {
        /// Whose.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The batch; none if a marker alone has brought the epoch.
        batch: Option<WrittenBatch>,
        /// Of who wrote its last marker, −1 for none.
        coordinator_epoch: i32,
        /// First offset of its open transaction.
        txn: Option<i64>,
    },
    /// The latest sound slot of `checkpoint`.
    Checkpoint(Checkpoint),
    /// `cleaner-checkpoint`.
    Cleaner(CleanerCheckpoint),
}

impl fmt::Display for Dumped {
    /// As Kafka's `kafka-dump-log` shows it, where it does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dumped::File(path) => write!(f, "Dumping {}", path.display()),
            Dumped::Batch {
                position,
                header,
                valid,
            } => fmt_batch(f, *position, header, *valid),
            Dumped::Record {
                offset,
                timestamp,
                key,
                value,
            } => {
                write!(f, "| offset: {offset} timestamp: {timestamp} key: ")?;
                fmt_bytes(f, key.as_deref())?;
                write!(f, " payload: ")?;
                fmt_bytes(f, value.as_deref())
            }
            Dumped::Broken { position, error } => {
                write!(f, "broken at position {position}: {error}")
            }
            Dumped::Index(header) => {
                write!(
                    f,
                    "baseOffset: {} stride: {}",
                    header.base_offset,
                    1u32 << header.shift
                )?;
                match header.seal {
                    None => write!(f, " not sealed"),
                    Some(seal) => write!(
                        f,
                        " sealed: {} bytes, endOffset: {} maxTimestamp: {} at {}",
                        seal.log_len,
                        seal.end_offset,
                        seal.max_timestamp,
                        seal.max_timestamp_offset
                    )
                    .and_then(|()| match seal.compacted {
                        Some(digest) => write!(f, " compacted: {digest:08x}"),
                        None => Ok(()),
                    }),
                }
            }
            Dumped::Cell {
                offset,
                position: Some(position),
            } => {
                write!(f, "offset: {offset} position: {position}")
            }
            Dumped::Cell {
                offset,
                position: None,
            } => write!(f, "offset: {offset} never written"),
            Dumped::Aborted(txn) => write!(
                f,
                "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                txn.producer_id, txn.first_offset, txn.last_offset, txn.last_stable_offset
            ),
            Dumped::Marker { offset, marker } => write!(
                f,
                "| offset: {offset} endTxnMarker: {} coordinatorEpoch: {}",
                if marker.committed { "COMMIT" } else { "ABORT" },
                marker.coordinator_epoch
            ),
            Dumped::Time(entry) => {
                write!(f, "timestamp: {} offset: {}", entry.timestamp, entry.offset)
            }
            Dumped::Epoch(entry) => write!(
                f,
                "epoch: {} startOffset: {}",
                entry.epoch, entry.start_offset
            ),
            Dumped::Producer {
                producer_id,
                epoch,
                batch,
                coordinator_epoch,
                txn,
            } => {
                let batch = batch.unwrap_or(WrittenBatch::NONE);
                write!(
                    f,
                    "producerId: {producer_id} producerEpoch: {epoch} firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {} coordinatorEpoch: {coordinator_epoch} currentTxnFirstOffset: ",
                    batch.base_sequence(),
                    batch.last_sequence,
                    batch.last_offset,
                    batch.offset_delta,
                    batch.timestamp
                )?;
                match txn {
                    Some(first) => write!(f, "{first}"),
                    None => f.write_str("None"),
                }
            }
            Dumped::Checkpoint(checkpoint) => fmt_checkpoint(f, checkpoint),
            Dumped::Cleaner(cleaner) => write!(
                f,
                "firstDirtyOffset: {} cleanedEnd: {}",
                cleaner.first_dirty, cleaner.cleaned_end
            ),
        }
    }
}

fn fmt_batch(
    f: &mut fmt::Formatter<'_>,
    position: u64,
    h: &BatchHeader,
    valid: bool,
) -> fmt::Result {
    let clock = match h.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    let codec = h.compression().map_or("unknown", |codec| codec.name());
    write!(
        f,
        "baseOffset: {} lastOffset: {} count: {}",
        h.base_offset,
        h.last_offset(),
        h.records_count
    )?;
    write!(
        f,
        " baseSequence: {} lastSequence: {}",
        h.base_sequence,
        h.last_sequence()
    )?;
    write!(
        f,
        " producerId: {} producerEpoch: {}",
        h.producer_id, h.producer_epoch
    )?;
    write!(f, " partitionLeaderEpoch: {}", h.partition_leader_epoch)?;
    write!(
        f,
        " isTransactional: {} isControl: {}",
        h.is_transactional(),
        h.is_control()
    )?;
    match h.has_delete_horizon() {
        true => write!(f, " deleteHorizonMs: OptionalLong[{}]", h.base_timestamp)?,
        false => f.write_str(" deleteHorizonMs: OptionalLong.empty")?,
    }
    write!(
        f,
        " position: {position} {clock}: {} size: {}",
        h.max_timestamp,
        h.size()
    )?;
    write!(
        f,
        " magic: 2 compresscodec: {codec} crc: {} isvalid: {valid}",
        h.crc
    )
}

fn fmt_bytes(f: &mut fmt::Formatter<'_>, bytes: Option<&[u8]>) -> fmt::Result {
    match bytes {
        None => f.write_str("null"),
        Some(bytes) => write!(f, "{}", bytes.escape_ascii()),
    }
}

fn fmt_checkpoint(f: &mut fmt::Formatter<'_>, c: &Checkpoint) -> fmt::Result {
    let (point, replay) = (&c.recovery_point, &c.replay);
    write!(
        f,
        "sequence: {} logStartOffset: {}",
        c.sequence, c.log_start_offset
    )?;
    write!(
        f,
        " recoveryPoint: {} (segment {} position {})",
        point.offset, point.segment, point.position
    )?;
    write!(
        f,
        " producersFrom: {} (position {})",
        replay.offset, replay.position
    )?;
    match replay.snapshot {
        None => write!(f, " snapshot: none"),
        Some(offset) => write!(f, " snapshot: {offset}"),
    }
}

/// Shows a file, or all files of a partition's folder; with `records`, those of the batches too.
pub async fn dump(
    path: &Path,
    records: bool,
    mut show: impl FnMut(Dumped),
) -> Result<(), IoFailure> {
    let metadata = fs::metadata(path)
        .await
        .map_err(IoFailure::of("look at", path))?;
    if !metadata.is_dir {
        return dump_file(path, records, &mut show).await;
    }
    let entries = fs::read_dir(path)
        .await
        .map_err(IoFailure::of("list", path))?;
    for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
        dump_file(&path.join(&entry.name), records, &mut show).await?;
    }
    Ok(())
}

async fn dump_file(
    path: &Path,
    records: bool,
    show: &mut impl FnMut(Dumped),
) -> Result<(), IoFailure> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let known = names::parse(name);
    let others = [names::CHECKPOINT, names::EPOCHS, names::CLEANER];
    if known.is_none() && !others.contains(&name) {
        let error = io::Error::new(
            io::ErrorKind::InvalidInput,
            "its name is not one of a partition's files",
        );
        return Err(IoFailure::of("dump", path)(error));
    }
    show(Dumped::File(path.to_owned()));
    if let Some((_, Kind::Log)) = known {
        return dump_log(path, records, show).await;
    }
    let content = fs::read(path).await.map_err(IoFailure::of("read", path))?;
    let broken = match known {
        Some((base, Kind::Index)) => dump_index(&content, base, show),
        Some((base, Kind::TimeIndex)) => {
            let entries = time_index::parse(&content, base, i64::MAX);
            let end = entries.len() * time_index::ENTRY_LEN;
            entries
                .into_iter()
                .for_each(|entry| show(Dumped::Time(entry)));
            (end < content.len()).then(|| "an entry is cut off or out of order".to_owned())
        }
        Some((_, Kind::TxnIndex)) => {
            let txns = aborted::parse(&content);
            let end = aborted::position(txns.len() as u32) as usize;
            txns.into_iter().for_each(|txn| show(Dumped::Aborted(txn)));
            (end < content.len()).then(|| "an entry is cut off or out of order".to_owned())
        }
        Some((_, Kind::Snapshot)) => dump_snapshot(&content, show),
        Some((_, Kind::Log)) => None,
        None => dump_text(name, &content, show),
    };
    if let Some(error) = broken {
        show(Dumped::Broken { position: 0, error });
    }
    Ok(())
}

/// A file that is named for what it holds.
fn dump_text(name: &str, content: &[u8], show: &mut impl FnMut(Dumped)) -> Option<String> {
    match name {
        names::EPOCHS => match Epochs::parse(content) {
            Ok(epochs) => {
                epochs
                    .entries()
                    .iter()
                    .for_each(|entry| show(Dumped::Epoch(*entry)));
                None
            }
            Err(error) => Some(error.to_string()),
        },
        names::CLEANER => match CleanerCheckpoint::parse(content) {
            Some(cleaner) => {
                show(Dumped::Cleaner(cleaner));
                None
            }
            None => Some("not what was written".to_owned()),
        },
        _ => match Checkpoint::parse(content) {
            Some(checkpoint) => {
                show(Dumped::Checkpoint(checkpoint));
                None
            }
            None => Some("no sound slot".to_owned()),
        },
    }
}

fn dump_index(content: &[u8], base: i64, show: &mut impl FnMut(Dumped)) -> Option<String> {
    let Some(header) = IndexHeader::parse(content, base) else {
        return Some("no sound header".to_owned());
    };
    show(Dumped::Index(header));
    let cells = content[index::HEADER_LEN..]
        .as_chunks::<{ index::CELL_LEN }>()
        .0;
    for (cell, stored) in (0..).zip(cells) {
        show(Dumped::Cell {
            offset: base.saturating_add(cell << header.shift),
            position: u32::from_be_bytes(*stored).checked_sub(1),
        });
    }
    None
}

fn dump_snapshot(content: &[u8], show: &mut impl FnMut(Dumped)) -> Option<String> {
    match snapshot::parse(content, 0) {
        Err(error) => Some(error.to_string()),
        Ok(producers) => {
            for (producer_id, entry) in producers.iter() {
                let none = entry.batches.is_empty().then_some(None);
                let batches = entry.batches.iter().copied().map(Some);
                for batch in batches.chain(none) {
                    show(Dumped::Producer {
                        producer_id,
                        epoch: entry.epoch,
                        batch,
                        coordinator_epoch: entry.coordinator_epoch,
                        txn: entry.txn,
                    });
                }
            }
            None
        }
    }
}

async fn dump_log(
    path: &Path,
    records: bool,
    show: &mut impl FnMut(Dumped),
) -> Result<(), IoFailure> {
    let options = OpenOptions::new().read(true);
    let file = File::open(path, options)
        .await
        .map_err(IoFailure::of("open", path))?;
    let len = file.len().await.map_err(IoFailure::of("look at", path))?;
    let mut walk = Walk::new(file, path.to_owned(), 0..len);
    while let Some((position, header)) = walk.next().await? {
        let batch = walk.batch(position, &header).await?;
        let view = BatchView::parse(&batch);
        let valid = view.is_ok_and(|view| view.check_crc().is_ok());
        show(Dumped::Batch {
            position,
            header,
            valid,
        });
        if records && let Ok(view) = view {
            dump_records(&view, position, show);
        }
    }
    match walk.obstacle().await? {
        // the unwritten end of the file
        None | Some((_, BatchError::Zeros)) => {}
        Some((position, error)) => show(Dumped::Broken {
            position,
            error: error.to_string(),
        }),
    }
    Ok(())
}

fn dump_records(view: &BatchView<'_>, position: u64, show: &mut impl FnMut(Dumped)) {
    if let Some(marker) = EndTxnMarker::parse(view.header(), view.records_bytes()) {
        let offset = view.header().base_offset;
        return show(Dumped::Marker { offset, marker });
    }
    let broken = |error: RecordError| Dumped::Broken {
        position,
        error: error.to_string(),
    };
    let bytes = match decoded(view, DECODED_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => return show(broken(error)),
    };
    for record in Records::new(view.header(), &bytes) {
        match record {
            Ok(record) => show(Dumped::Record {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(Bytes::copy_from_slice),
                value: record.value.map(Bytes::copy_from_slice),
            }),
            Err(error) => show(broken(error)),
        }
    }
}
