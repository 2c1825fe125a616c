//! Opening a partition's folder: names, checkpoint and seals, then the end of the log
//! ([`recover`](crate::recover)), and nothing else after a clean stop.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use futures_util::lock::Mutex;
use futures_util::stream::{self, StreamExt};
use ringmill_ring::{File, Notify, OpenOptions, fs, random_u64, spawn, wall_clock_ms};

use crate::aborted;
use crate::append::FIRST_SHIFT;
use crate::caches::CoreCaches;
use crate::candidate::new_active;
use crate::checkpoint::{Checkpoint, Mark, Replay};
use crate::cleaner::{Cleaning, limit_checkpoint, read_checkpoint};
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::error::{Damage, DamageReason, IoFailure, OpenError};
use crate::flush::Commit;
use crate::index::{self, IndexHeader, Seal};
use crate::meta::{self, Meta};
use crate::names::{self, Kind};
use crate::partition::{Appending, Inner, Phase, State};
use crate::prewrite::Prewrite;
use crate::producers::Producers;
use crate::queue::Queue;
use crate::recover::{Cut, Found, Tail};
use crate::reset;
use crate::scan::Scanned;
use crate::segment::Segment;
use crate::snapshot;
use crate::swap::{self, Swaps};
use crate::sweep::{Range, sweep};
use crate::tail;
use crate::trie::OffsetTrie;
use crate::upkeep::Upkeep;
use crate::waits::Waits;

/// Seals read at once.
const SEALS_IN_FLIGHT: usize = 8;
/// Files of cut-off bytes that are kept in a folder.
const CUTS_KEPT: usize = 2;

/// What opening a partition found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of log that were read and checked; none after a clean stop.
    pub swept_bytes: u64,
    /// What was cut off the end.
    pub cut: Option<Cut>,
    /// Sealed segments whose index is missing or wrong; they are built anew in the background.
    pub indexes_missing: usize,
}

impl RecoveryReport {
    fn of(tail: &Tail<'_>, sealed: &[Rc<Segment>]) -> Self {
        let missing = sealed.iter().filter(|segment| !segment.indexed.get());
        RecoveryReport {
            swept_bytes: tail.swept_bytes,
            cut: tail.cut.clone(),
            indexes_missing: missing.count(),
        }
    }
}

/// Base offset and length of the logs of segments.
type Segments<'a> = &'a [(i64, u64)];

/// What is in a partition's folder.
#[derive(Debug, Default)]
struct Folder {
    /// Base offset and length of each segment's log.
    logs: Vec<(i64, u64)>,
    snapshots: Vec<i64>,
    cuts: Vec<String>,
    /// To be removed: left behind by a crash. Some at once, since their names will be used
    /// again, the large ones in the background.
    unfinished: Vec<String>,
    deleted: Vec<String>,
}

impl Folder {
    async fn read(dir: &Path) -> Result<Self, IoFailure> {
        let entries = fs::read_dir(dir)
            .await
            .map_err(IoFailure::of("list", dir))?;
        let mut folder = Folder::default();
        for entry in entries {
            let name = entry.name;
            if name.ends_with(names::DELETED) {
                folder.deleted.push(name);
            } else if name.ends_with(names::TEMPORARY) || name.ends_with(names::CLEANED) {
                folder.unfinished.push(name);
            } else if name.ends_with(names::CUT) {
                folder.cuts.push(name);
            } else {
                match names::parse(&name) {
                    Some((base, Kind::Log)) => folder.logs.push((base, entry.len)),
                    Some((offset, Kind::Snapshot)) => folder.snapshots.push(offset),
                    _ => {}
                }
            }
        }
        let old = folder.cuts.len().saturating_sub(CUTS_KEPT);
        folder.deleted.extend(folder.cuts.drain(..old));
        // a listing is sorted by name, and so are these; not relied upon
        folder.logs.sort_unstable();
        folder.snapshots.sort_unstable();
        Ok(folder)
    }

    /// The segments before the recovery point's, and from it on.
    fn split(&self, dir: &Path, point: Mark) -> Result<(Segments<'_>, Segments<'_>), OpenError> {
        let of_point = |(base, _): &(i64, u64)| *base == point.segment;
        match self.logs.iter().position(of_point) {
            Some(at) => Ok(self.logs.split_at(at)),
            None => Err(OpenError::Missing {
                file: names::path_of(dir, point.segment, Kind::Log),
                end_offset: point.offset,
            }),
        }
    }
}

/// What is known before the log's end is looked at.
struct Known {
    checkpoint: Option<Checkpoint>,
    log_start: i64,
    point: Mark,
    replay: Replay,
    /// The producers and epochs must be had from the whole log.
    rescan: bool,
    producers: Producers,
    epochs: Epochs,
    cleaner: CleanerCheckpoint,
}

pub(crate) async fn open(
    dir: &Path,
    config: LogConfig,
    caches: Rc<CoreCaches>,
) -> Result<Rc<Inner>, OpenError> {
    fs::create_dir_all(dir)
        .await
        .map_err(IoFailure::of("create", dir))?;
    loop {
        // each time that nothing comes back, the log has become shorter
        let opened = try_open(dir, config.clone(), caches.clone()).await?;
        if let Some(inner) = opened {
            return Ok(inner);
        }
    }
}

/// What is in the folder, with a first segment if there was none, and without what a crash left
/// behind.
async fn prepare(dir: &Path) -> Result<(Folder, File, Option<Checkpoint>), OpenError> {
    reset::finish_interrupted(dir).await?;
    swap::finish_interrupted(dir).await?;
    let mut folder = Folder::read(dir).await?;
    let (checkpoint_file, content) = meta::open_checkpoint(dir).await?;
    let checkpoint = Checkpoint::parse(&content);
    match checkpoint {
        None => sync_names(dir).await?,
        // Who was killed while it wrote one has left it in the page cache alone. Whatever else it
        // says may be lost again (see `ensure_checkpoint`), and a flush for each of ten thousand
        // partitions would be the most of a start.
        Some(_) if Checkpoint::moves_start(&content) => checkpoint_file
            .sync_data()
            .await
            .map_err(IoFailure::of("flush", &dir.join(names::CHECKPOINT)))?,
        Some(_) => {}
    }
    if folder.logs.is_empty() {
        check_nothing_lost(dir, checkpoint)?;
        new_active(dir, 0, FIRST_SHIFT).await?;
        folder.logs.push((0, 0));
    }
    for name in &folder.unfinished {
        let path = dir.join(name);
        fs::remove_file(&path)
            .await
            .map_err(IoFailure::of("remove", &path))?;
    }
    remove_later(dir, std::mem::take(&mut folder.deleted));
    Ok((folder, checkpoint_file, checkpoint))
}

/// Reads a folder that is open already and was cut: what a start would begin with.
pub(crate) async fn read(dir: &Path, config: LogConfig) -> Result<(State, Meta), OpenError> {
    loop {
        if let Some((assembled, _)) = assemble(dir, config.clone()).await? {
            let (state, meta, _) = assembled.into_parts();
            return Ok((state, meta));
        }
    }
}

async fn try_open(
    dir: &Path,
    config: LogConfig,
    caches: Rc<CoreCaches>,
) -> Result<Option<Rc<Inner>>, OpenError> {
    let Some((assembled, changed)) = assemble(dir, config).await? else {
        return Ok(None);
    };
    let inner = assembled.into_inner(dir, caches);
    settle(&inner, changed).await;
    inner.let_go();
    Ok(Some(inner))
}

/// Puts together what is in the folder, and whether it is other than the checkpoint says; nothing
/// if the log has become shorter.
async fn assemble(
    dir: &Path,
    config: LogConfig,
) -> Result<Option<(Assembled<'_>, bool)>, OpenError> {
    let (folder, checkpoint_file, checkpoint) = prepare(dir).await?;
    let known = read_known(dir, &folder, checkpoint).await?;
    let (before, after) = folder.split(dir, known.point)?;
    let (mut sealed, mut damages) = read_sealed(dir, before, &known).await?;
    let mut tail = Tail {
        dir,
        point: known.point,
        replay: known.replay,
        producers: known.producers,
        producers_end: known.replay.offset,
        epochs: known.epochs,
        epochs_changed: known.checkpoint.is_none(),
        rescanned: known.rescan,
        now_ms: wall_clock_ms(),
        damages: Vec::new(),
        cut: None,
        swept_bytes: 0,
        cleaner: known.cleaner,
        sealed: Vec::new(),
    };
    // what is told beyond the recovery point may be of a log that ended otherwise
    tail.epochs_changed |= tail.epochs.truncate_end(known.point.offset);
    if known.rescan {
        rescan(&mut tail, &sealed).await?;
    }
    let Some(found) = tail.recover(after).await? else {
        return Ok(None);
    };
    if found.end.offset < known.log_start {
        return Err(OpenError::Missing {
            file: names::path_of(dir, found.end.offset, Kind::Log),
            end_offset: known.log_start,
        });
    }
    let ends = (found.active.segment.base_offset, found.end.offset);
    tail.cleaner = limit_checkpoint(dir, tail.cleaner, ends).await?;
    damages.append(&mut tail.damages);
    sealed.append(&mut tail.sealed);
    let report = RecoveryReport::of(&tail, &sealed);
    let blank = Checkpoint {
        sequence: 0,
        log_start_offset: known.log_start,
        recovery_point: known.point,
        replay: known.replay,
        replicated: None,
    };
    let meta = Meta::new(
        checkpoint_file,
        checkpoint.unwrap_or(blank),
        folder.snapshots,
    );
    let changed = found.changed || checkpoint.is_none() || known.rescan;
    let assembled = Assembled {
        config,
        log_start: known.log_start,
        sealed,
        damages,
        report,
        meta,
        tail,
        found,
    };
    Ok(Some((assembled, changed)))
}

/// Makes the names of a folder and of those above it durable. A process that was killed while it
/// made them may have left them in the page cache alone; once there is a checkpoint, they are
/// known to be on the disk.
async fn sync_names(dir: &Path) -> Result<(), IoFailure> {
    let parent = dir.parent();
    for above in dir
        .ancestors()
        .filter(|above| !above.as_os_str().is_empty())
    {
        let synced = fs::sync_dir(above).await;
        if above == dir || Some(above) == parent {
            synced.map_err(IoFailure::of("flush", above))?;
        } else if synced.is_err() {
            // not ours to open; then it is not ours to have made either
            break;
        }
    }
    Ok(())
}

/// An empty folder is a new partition, unless its checkpoint knows better.
fn check_nothing_lost(dir: &Path, checkpoint: Option<Checkpoint>) -> Result<(), OpenError> {
    match checkpoint {
        None => Ok(()),
        Some(checkpoint) => Err(OpenError::Missing {
            file: names::path_of(dir, checkpoint.recovery_point.segment, Kind::Log),
            end_offset: checkpoint.recovery_point.offset,
        }),
    }
}

/// Removes files in the background.
fn remove_later(dir: &Path, names: Vec<String>) {
    let paths: Vec<_> = names.into_iter().map(|name| dir.join(name)).collect();
    if paths.is_empty() {
        return;
    }
    spawn(async move {
        for path in paths {
            if let Err(error) = fs::remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "a stale file stays");
            }
        }
    });
}

async fn read_known(
    dir: &Path,
    folder: &Folder,
    checkpoint: Option<Checkpoint>,
) -> Result<Known, OpenError> {
    let (first, _) = folder.logs[0];
    let (last, _) = folder.logs[folder.logs.len() - 1];
    let fresh = folder.logs == [(0, 0)];
    let cleaner = read_checkpoint(dir).await?;
    if cleaner != CleanerCheckpoint::default() {
        // the same of its name: what is allowed by it must be allowed after a power cut as well
        fs::sync_dir(dir)
            .await
            .map_err(IoFailure::of("flush", dir))?;
    }
    let mut known = Known {
        checkpoint,
        log_start: first,
        point: Mark::start_of(last),
        replay: Replay {
            snapshot: None,
            position: 0,
            offset: last,
        },
        rescan: checkpoint.is_none() && !fresh,
        producers: Producers::new(),
        epochs: Epochs::new(),
        cleaner,
    };
    if let Some(checkpoint) = checkpoint {
        known.log_start = checkpoint.log_start_offset;
        known.point = checkpoint.recovery_point;
        known.replay = checkpoint.replay;
        match read_epochs(dir).await? {
            Some(epochs) => known.epochs = epochs,
            None => known.rescan = true,
        }
    } else if !fresh {
        tracing::warn!(dir = %dir.display(), "no checkpoint: the whole log is read");
    }
    if let (Some(offset), false) = (known.replay.snapshot, known.rescan) {
        match read_snapshot(dir, offset).await? {
            Some(producers) => known.producers = producers,
            None => known.rescan = true,
        }
    }
    Ok(known)
}

async fn read_existing(path: &Path) -> Result<Option<bytes::Bytes>, IoFailure> {
    match fs::read(path).await {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoFailure::of("read", path)(error)),
    }
}

async fn read_epochs(dir: &Path) -> Result<Option<Epochs>, IoFailure> {
    let path = dir.join(names::EPOCHS);
    let Some(content) = read_existing(&path).await? else {
        return Ok(None);
    };
    let parsed = Epochs::parse(&content);
    if let Err(error) = &parsed {
        tracing::warn!(path = %path.display(), %error, "the whole log is read instead");
    }
    Ok(parsed.ok())
}

pub(crate) async fn read_snapshot(dir: &Path, offset: i64) -> Result<Option<Producers>, IoFailure> {
    let path = names::path_of(dir, offset, Kind::Snapshot);
    let Some(content) = read_existing(&path).await? else {
        return Ok(None);
    };
    let parsed = snapshot::parse(&content, wall_clock_ms());
    if let Err(error) = &parsed {
        tracing::warn!(path = %path.display(), %error, "the whole log is read instead");
    }
    Ok(parsed.ok())
}

/// The segments before the recovery point's: by their seals, or by their names alone.
async fn read_sealed(
    dir: &Path,
    logs: &[(i64, u64)],
    known: &Known,
) -> Result<(Vec<Rc<Segment>>, Vec<Damage>), OpenError> {
    let nexts = logs
        .iter()
        .skip(1)
        .map(|(base, _)| *base)
        .chain([known.point.segment]);
    let headers = logs.iter().map(|(base, _)| read_header(dir, *base));
    let headers: Vec<_> = stream::iter(headers)
        .buffered(SEALS_IN_FLIGHT)
        .collect()
        .await;
    let (mut segments, mut damages, mut expected) = (Vec::new(), Vec::new(), known.log_start);
    for ((&(base, len), next), header) in logs.iter().zip(nexts).zip(headers) {
        let seal = header?.and_then(|header| header.seal.map(|seal| (header.shift, seal)));
        let segment = match seal {
            Some((shift, seal)) => Segment::new(base, shift, Some(seal), seal.log_len <= len),
            None => {
                let seal = Seal {
                    log_len: len,
                    end_offset: next,
                    max_timestamp: -1,
                    max_timestamp_offset: -1,
                    time_entries: 0,
                    aborted_entries: aborted_entries(dir, base).await?,
                    compacted: None,
                };
                let segment = Segment::new(base, FIRST_SHIFT, Some(seal), false);
                segment.compacted.set(base < known.cleaner.cleaned_end);
                segment
            }
        };
        let end_offset = segment.seal.get().map_or(next, |seal| seal.end_offset);
        if end_offset > next {
            return Err(OpenError::Overlap {
                file: names::path_of(dir, base, Kind::Log),
                end_offset,
                next,
            });
        }
        damages.extend(missing(dir, expected, base));
        expected = end_offset.max(expected);
        segments.push(Rc::new(segment));
    }
    damages.extend(missing(dir, expected, known.point.segment));
    Ok((segments, damages))
}

/// Offsets that no segment holds.
fn missing(dir: &Path, expected: i64, found: i64) -> Option<Damage> {
    (found > expected).then(|| Damage {
        file: names::path_of(dir, expected, Kind::Log),
        bytes: 0..0,
        offsets: expected..found,
        reason: DamageReason::Missing,
    })
}

async fn read_header(dir: &Path, base: i64) -> Result<Option<IndexHeader>, IoFailure> {
    let path = names::path_of(dir, base, Kind::Index);
    let file = match File::open(&path, OpenOptions::new().read(true)).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IoFailure::of("open", &path)(error)),
    };
    let bytes = file
        .read_at(0, index::HEADER_LEN)
        .await
        .map_err(IoFailure::of("read", &path))?;
    Ok(IndexHeader::parse(&bytes, base))
}

/// How many aborted transactions a segment's file has: for one whose seal is lost.
async fn aborted_entries(dir: &Path, base: i64) -> Result<u32, IoFailure> {
    let path = names::path_of(dir, base, Kind::TxnIndex);
    let content = read_existing(&path).await?;
    Ok(content.map_or(0, |content| aborted::parse(&content).len() as u32))
}

/// Builds producers and epochs from all of the log before the replay's start.
async fn rescan(tail: &mut Tail<'_>, sealed: &[Rc<Segment>]) -> Result<(), IoFailure> {
    tail.producers = Producers::new();
    tail.epochs = Epochs::new();
    tail.epochs_changed = true;
    let replay = tail.replay;
    let before = sealed
        .iter()
        .filter_map(|s| Some((s.base_offset, s.seal.get()?.log_len, s.compacted.get())));
    let compacted = tail.point.segment < tail.cleaner.cleaned_end;
    let last = (tail.point.segment, replay.position, compacted);
    for (base, len, compacted) in before.chain([last]) {
        let path = names::path_of(tail.dir, base, Kind::Log);
        let options = OpenOptions::new().read(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("open", &path))?;
        let range = Range {
            position: 0,
            offset: base,
            end: len,
            lenient: true,
            compacted,
        };
        let swept = sweep(&file, range, |_, batch| {
            if let Scanned::Whole(header, marker) = batch {
                tail.producers
                    .on_batch(header, marker.as_ref(), tail.now_ms);
                tail.epochs
                    .on_batch(header.partition_leader_epoch, header.base_offset);
            }
        });
        swept.await.map_err(IoFailure::of("read", &path))?;
        tail.swept_bytes += len;
    }
    Ok(())
}

/// Everything that a partition is made of.
struct Assembled<'a> {
    config: LogConfig,
    log_start: i64,
    sealed: Vec<Rc<Segment>>,
    damages: Vec<Damage>,
    report: RecoveryReport,
    meta: Meta,
    tail: Tail<'a>,
    found: Found,
}

impl Assembled<'_> {
    fn into_parts(self) -> (State, Meta, RecoveryReport) {
        let Found { active, end, .. } = self.found;
        let mut segments = OffsetTrie::new();
        for segment in self.sealed.into_iter().chain([active.segment.clone()]) {
            segments.insert(segment.key(), segment);
        }
        let mut epochs = self.tail.epochs;
        let truncated = epochs.truncate_end(end.offset) | epochs.truncate_start(self.log_start);
        let mut producers = self.tail.producers;
        let hint = self.meta.last.replicated;
        let high_watermark =
            hint.map(|hint| hint.high_watermark.max(self.log_start).min(end.offset));
        if let Some(first) = hint.and_then(|hint| hint.first_undecided) {
            // its marker is somewhere before what was replayed
            producers.hold(first, self.meta.last.replay.offset - 1);
        }
        let visible = high_watermark.unwrap_or(end.offset);
        producers.on_visible(visible);
        let mut upkeep = Upkeep::new(self.tail.point, self.tail.replay, self.tail.producers_end);
        upkeep.replicated = self.meta.last.replicated;
        upkeep.unsaved = self.tail.rescanned || self.tail.point.segment != end.segment;
        let state = State {
            commit: Commit::new((&self.config).into(), end),
            config: self.config,
            leader_epoch: epochs.latest().map_or(-1, |entry| entry.epoch),
            leads: false,
            log_start: self.log_start,
            queue: Queue::default(),
            appending: Appending {
                first_timestamp: active.first_timestamp,
                shift: active.segment.shift.get(),
                gaps: active.segment.compacted.get(),
            },
            active,
            prewrite: Prewrite::default(),
            segments,
            leaving: Vec::new(),
            damages: self.damages,
            producers,
            epochs,
            epochs_dirty: self.tail.epochs_changed || truncated,
            waits: Waits::default(),
            tail: Rc::new(RefCell::new(tail::Tail::new())),
            incarnation: 0,
            rollbacks: 0,
            upkeep,
            cleaning: Cleaning::new(self.tail.cleaner),
            pump_scheduled: false,
            flush_timer: None,
            spilling: false,
            told_visible: visible,
            high_watermark,
            phase: Phase::Open,
            failure: None,
            no_space: None,
            taken_back: None,
            told_of_no_room: None,
            jitter_seed: random_u64(),
        };
        (state, self.meta, self.report)
    }

    fn into_inner(self, dir: &Path, caches: Rc<CoreCaches>) -> Rc<Inner> {
        let (state, meta, report) = self.into_parts();
        let id = caches.next_partition();
        Rc::new(Inner {
            dir: dir.to_owned(),
            id,
            caches,
            state: RefCell::new(state),
            meta: Mutex::new(meta),
            alone: Mutex::new(()),
            changed: Notify::new(),
            room: Notify::new(),
            swaps: Swaps::default(),
            report,
        })
    }
}

/// Writes down what was found, and begins what may take longer.
async fn settle(inner: &Rc<Inner>, changed: bool) {
    for damage in &inner.state.borrow().damages {
        tracing::error!(%damage, "damaged log");
    }
    if changed {
        // a full disk must not keep the log from being read
        if let Err(error) = inner.checkpoint_anew().await {
            tracing::warn!(%error, "the next start will have to read the same again");
        }
    }
    let missing: Vec<_> = {
        let state = inner.state.borrow();
        let all = state.segments.iter().map(|(_, segment)| segment.clone());
        all.filter(|segment| !segment.indexed.get()).collect()
    };
    if missing.is_empty() {
        return;
    }
    let inner = Rc::downgrade(inner);
    spawn(async move {
        for segment in missing {
            let Some(inner) = inner.upgrade() else { return };
            // told and dealt with by whoever met it
            let _ = inner.mend(&segment, 0).await;
        }
    });
}
