//! What the end of a log holds after a crash: everything from the recovery point on is read,
//! checked and believed only as far as it is whole.
//!
//! What lies behind the last whole batch was never acknowledged as flushed, or the disk has lied;
//! it is cut off, reported ([`Cut`]) and kept in a file of its own. What is broken *before* the
//! recovery point was flushed and is damage: it stays, is reported, and the log goes on at the
//! recovery point. The reasoning, crash by crash, is in FORMAT.md.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmill_ring::{File, OpenOptions, fs};
use ringmill_wire::batch::{BatchHeader, HEADER_LEN};

use crate::append::FIRST_SHIFT;
use crate::checkpoint::{Mark, Replay};
use crate::epochs::Epochs;
use crate::error::{Damage, DamageReason, IoFailure, OpenError};
use crate::index::{self, IndexBuilder, IndexHeader, Seal};
use crate::names::{self, Kind};
use crate::partition::Active;
use crate::producers::Producers;
use crate::scan::{ScanEnd, ScanError, Scanned};
use crate::segment::Segment;
use crate::sweep::{PIECE_BYTES, Range, sweep};
use crate::time_index::{self, ENTRY_LEN, MaxTimestamp, TimeIndexBuilder};

/// Cut-off bytes are kept up to this size, for whoever wants to look into them.
const CUT_KEPT_MAX: u64 = 64 << 20;

/// What recovery cut off the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment's log file.
    pub file: PathBuf,
    /// Its end now.
    pub position: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: ScanError,
    /// Where they are kept.
    pub kept: Option<PathBuf>,
}

/// The end of a log as far as it is recovered, segment by segment.
pub(crate) struct Tail<'a> {
    pub(crate) dir: &'a Path,
    /// Everything before it is known to be flushed.
    pub(crate) point: Mark,
    pub(crate) replay: Replay,
    pub(crate) producers: Producers,
    pub(crate) producers_end: i64,
    pub(crate) epochs: Epochs,
    pub(crate) epochs_changed: bool,
    pub(crate) now_ms: i64,
    pub(crate) damages: Vec<Damage>,
    pub(crate) cut: Option<Cut>,
    pub(crate) swept_bytes: u64,
    /// Segments that turned out to be complete.
    pub(crate) sealed: Vec<Rc<Segment>>,
}

/// One segment of the tail while it is recovered.
struct Candidate {
    base: i64,
    len: u64,
    path: PathBuf,
    file: File,
    shift: u8,
    index: IndexBuilder,
    times: TimeIndexBuilder,
    mark: Mark,
}

/// What the tail ends in.
pub(crate) struct Found {
    pub(crate) active: Active,
    pub(crate) end: Mark,
    /// Something was written by the recovery, or is not known to be flushed.
    pub(crate) changed: bool,
}

impl Tail<'_> {
    /// Recovers the segments from the recovery point's on, each with its base offset and length.
    pub(crate) async fn recover(&mut self, segments: &[(i64, u64)]) -> Result<Found, OpenError> {
        let mut changed = segments.len() > 1;
        let mut left = segments.iter().copied();
        let mut current = left.next().expect("the recovery point's segment is there");
        loop {
            let mut candidate = self.open_candidate(current).await?;
            let end = self.sweep_candidate(&mut candidate).await?;
            let next = left.next();
            match next {
                Some((base, len)) if candidate.mark.offset > base => {
                    // made for a roll that the full disk did not allow
                    if len > 0 || left.next().is_some() {
                        return Err(OpenError::Overlap {
                            file: candidate.path,
                            end_offset: candidate.mark.offset,
                            next: base,
                        });
                    }
                    let path = names::path_of(self.dir, base, Kind::Log);
                    fs::remove_file(&path)
                        .await
                        .map_err(IoFailure::of("remove", &path))?;
                }
                Some((base, len)) => {
                    self.complete(candidate, end, base).await?;
                    current = (base, len);
                    continue;
                }
                None => {}
            }
            if candidate.len < candidate.mark.position {
                // flushed bytes are missing from the file's end: nothing can follow there
                let base = candidate.mark.offset;
                self.complete(candidate, end, base).await?;
                let active = new_active(self.dir, base, FIRST_SHIFT).await?;
                return Ok(Found {
                    active,
                    end: Mark::start_of(base),
                    changed: true,
                });
            }
            changed |= self.cut_off(&candidate, end).await?;
            // the index may be in memory only
            changed |= candidate.mark != self.point || candidate.index.pending() > 0;
            return self.activate(candidate, changed).await;
        }
    }

    async fn open_candidate(&self, (base, len): (i64, u64)) -> Result<Candidate, IoFailure> {
        let path = names::path_of(self.dir, base, Kind::Log);
        let options = OpenOptions::new().read(true).write(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("open", &path))?;
        // too short for what is known of it, it is read from its beginning
        let at_point = base == self.point.segment && len >= self.point.position;
        let known = if at_point {
            self.known_index(base).await?
        } else {
            None
        };
        let (shift, index, times) = match known {
            Some((shift, cells)) => {
                let times = self.known_times(base).await?;
                (shift, IndexBuilder::new(base, shift, cells), times)
            }
            None => {
                let times = TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE);
                (FIRST_SHIFT, IndexBuilder::new(base, FIRST_SHIFT, 0), times)
            }
        };
        let mark = if known.is_some() {
            self.point
        } else {
            Mark::start_of(base)
        };
        Ok(Candidate {
            base,
            len,
            path,
            file,
            shift,
            index,
            times,
            mark,
        })
    }

    /// The stride and the number of cells of the recovery point's segment, if its index file has
    /// all that belong before the recovery point.
    async fn known_index(&self, base: i64) -> Result<Option<(u8, u32)>, IoFailure> {
        if self.point.position == 0 {
            return Ok(None);
        }
        let path = names::path_of(self.dir, base, Kind::Index);
        let Some((file, len)) = open_existing(&path).await? else {
            return Ok(None);
        };
        let bytes = file.read_at(0, index::HEADER_LEN).await;
        let bytes = bytes.map_err(IoFailure::of("read", &path))?;
        let Some(header) = IndexHeader::parse(&bytes, base) else {
            return Ok(None);
        };
        let cells = index::cells_until(base, header.shift, self.point.offset);
        if len < index::cell_position(cells) {
            return Ok(None);
        }
        // cells of batches that may not be there any more
        if len > index::cell_position(cells) {
            let cut = file.set_len(index::cell_position(cells)).await;
            cut.map_err(IoFailure::of("cut", &path))?;
        }
        Ok(Some((header.shift, cells)))
    }

    async fn known_times(&self, base: i64) -> Result<TimeIndexBuilder, IoFailure> {
        let path = names::path_of(self.dir, base, Kind::TimeIndex);
        let Some((file, len)) = open_existing(&path).await? else {
            return Ok(TimeIndexBuilder::new(base, 0, -1, self.point.max));
        };
        // bounded: an entry for every interval of the log
        let limit = self.point.position / time_index::INTERVAL + 1;
        let bytes = file
            .read_at(0, (len.min(limit * ENTRY_LEN as u64)) as usize)
            .await;
        let bytes = bytes.map_err(IoFailure::of("read", &path))?;
        let entries = time_index::parse(&bytes, base, self.point.offset);
        let whole = (entries.len() * ENTRY_LEN) as u64;
        if len > whole {
            file.set_len(whole)
                .await
                .map_err(IoFailure::of("cut", &path))?;
        }
        let last = entries.last().map_or(-1, |entry| entry.timestamp);
        Ok(TimeIndexBuilder::new(
            base,
            entries.len() as u32,
            last,
            self.point.max,
        ))
    }

    /// Reads the segment from where something is to be learnt to its end.
    async fn sweep_candidate(&mut self, candidate: &mut Candidate) -> Result<ScanEnd, IoFailure> {
        let at_point = candidate.base == self.point.segment;
        let whole = candidate.mark.position == 0;
        let (position, offset) = match (at_point, whole) {
            (true, false) => (self.replay.position, self.replay.offset),
            _ => (0, candidate.base),
        };
        let end = self.sweep_from(candidate, position, offset).await?;
        let lost = at_point && end.next_offset < self.point.offset;
        if !lost {
            return Ok(end);
        }
        // flushed, and not whole: the log goes on where it is known to
        let reason = match end.error {
            Some(error) if candidate.len >= self.point.position => error.into(),
            _ => DamageReason::Truncated {
                found: candidate.len,
                expected: self.point.position,
            },
        };
        self.damages.push(Damage {
            file: candidate.path.clone(),
            bytes: end.position..self.point.position,
            offsets: end.next_offset..self.point.offset,
            reason,
        });
        candidate.mark = self.point;
        if candidate.len <= self.point.position {
            return Ok(end);
        }
        self.sweep_from(candidate, self.point.position, self.point.offset)
            .await
    }

    async fn sweep_from(
        &mut self,
        candidate: &mut Candidate,
        position: u64,
        offset: i64,
    ) -> Result<ScanEnd, IoFailure> {
        let at_point = candidate.base == self.point.segment;
        let range = Range {
            position,
            offset,
            end: candidate.len,
            lenient: false,
            renew_from: if at_point { self.point.position } else { 0 },
        };
        let file = candidate.file.clone();
        let end = sweep(&file, range, |position, batch| {
            if let Scanned::Whole(header) = batch {
                self.on_batch(candidate, position, header);
            }
        });
        let end = end.await.map_err(IoFailure::of("read", &candidate.path))?;
        self.swept_bytes += candidate.len.saturating_sub(position);
        Ok(end)
    }

    fn on_batch(&mut self, candidate: &mut Candidate, position: u64, header: &BatchHeader) {
        if header.base_offset >= self.replay.offset {
            let news = self.producers.on_appended(header, self.now_ms).is_some();
            if news {
                self.producers_end = header.next_offset();
            }
        }
        if header.base_offset < candidate.mark.offset {
            return;
        }
        let (last, max, size) = (
            header.last_offset(),
            header.max_timestamp,
            header.size() as u64,
        );
        candidate.index.on_batch(last, position as u32);
        candidate.times.on_batch(last, max, size);
        candidate.mark = candidate.mark.after(last, max, size);
        self.epochs_changed |= self
            .epochs
            .on_batch(header.partition_leader_epoch, header.base_offset);
    }

    /// A segment that has a successor: all of it was flushed before that was made.
    async fn complete(&mut self, c: Candidate, end: ScanEnd, next: i64) -> Result<(), IoFailure> {
        let Candidate {
            base,
            path,
            shift,
            index,
            mut times,
            mark,
            ..
        } = c;
        if mark.offset < next {
            let reason = match end.error {
                Some(error) => error.into(),
                None => DamageReason::Missing,
            };
            self.damages.push(Damage {
                file: path,
                bytes: mark.position..mark.position.max(c.len),
                offsets: mark.offset..next,
                reason,
            });
        }
        times.close();
        let seal = Seal {
            log_len: mark.position.min(c.len),
            end_offset: next,
            max_timestamp: mark.max.timestamp,
            max_timestamp_offset: mark.max.offset,
            time_entries: times.entries(),
        };
        let header = IndexHeader {
            base_offset: base,
            shift,
            seal: Some(seal),
        };
        let log = &c.file;
        log.sync_data()
            .await
            .map_err(IoFailure::of("flush", self.dir))?;
        write_part(
            self.dir,
            base,
            Kind::TimeIndex,
            times.encode_pending(),
            None,
        )
        .await?;
        let cells = index.encode_pending();
        write_part(self.dir, base, Kind::Index, cells, Some(header)).await?;
        self.sealed
            .push(Rc::new(Segment::new(base, shift, Some(seal), true)));
        Ok(())
    }

    /// Cuts off what stands behind the last whole batch. Returns whether there was something.
    async fn cut_off(&mut self, c: &Candidate, end: ScanEnd) -> Result<bool, IoFailure> {
        let position = c.mark.position;
        if c.len <= position {
            return Ok(false);
        }
        if let Some(reason) = end.error {
            let kept = keep_cut(c, position).await;
            let cut = Cut {
                file: c.path.clone(),
                position,
                bytes: c.len - position,
                reason,
                kept,
            };
            tracing::warn!(
                file = %cut.file.display(), position, bytes = cut.bytes, %reason, kept = ?cut.kept,
                "a torn end was cut off the log",
            );
            self.cut = Some(cut);
        }
        c.file
            .set_len(position)
            .await
            .map_err(IoFailure::of("cut", &c.path))?;
        Ok(true)
    }

    async fn activate(&mut self, c: Candidate, changed: bool) -> Result<Found, OpenError> {
        if changed {
            // what was read may be in the page cache only
            c.file
                .sync_data()
                .await
                .map_err(IoFailure::of("flush", &c.path))?;
        }
        let mut first_timestamp = None;
        if c.mark.position > 0 {
            let header = c.file.read_at(0, HEADER_LEN).await;
            let header = header.map_err(IoFailure::of("read", &c.path))?;
            let first = BatchHeader::parse(&header)
                .ok()
                .map(|header| header.max_timestamp);
            first_timestamp = first.filter(|timestamp| *timestamp >= 0);
        }
        Ok(Found {
            active: Active {
                segment: Rc::new(Segment::new(c.base, c.shift, None, true)),
                file: c.file,
                index: c.index,
                times: c.times,
                first_timestamp,
            },
            end: c.mark,
            changed,
        })
    }
}

/// A segment that begins now.
pub(crate) async fn new_active(dir: &Path, base: i64, shift: u8) -> Result<Active, IoFailure> {
    let path = names::path_of(dir, base, Kind::Log);
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true);
    let file = File::open(&path, options)
        .await
        .map_err(IoFailure::of("create", &path))?;
    fs::sync_dir(dir)
        .await
        .map_err(IoFailure::of("flush", dir))?;
    Ok(Active::new(
        Rc::new(Segment::new(base, shift, None, true)),
        file,
    ))
}

async fn open_existing(path: &Path) -> Result<Option<(File, u64)>, IoFailure> {
    match File::open(path, OpenOptions::new().read(true).write(true)).await {
        Ok(file) => {
            let len = file.len().await.map_err(IoFailure::of("look at", path))?;
            Ok(Some((file, len)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoFailure::of("open", path)(error)),
    }
}

/// Writes the part of an index that is not in its file, and a header, and makes both durable.
async fn write_part(
    dir: &Path,
    base: i64,
    kind: Kind,
    (position, content): (u64, bytes::Bytes),
    header: Option<IndexHeader>,
) -> Result<(), IoFailure> {
    let path = names::path_of(dir, base, kind);
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = File::open(&path, options)
        .await
        .map_err(IoFailure::of("open", &path))?;
    file.set_len(position)
        .await
        .map_err(IoFailure::of("cut", &path))?;
    file.write_at(position, vec![content])
        .await
        .map_err(IoFailure::of("write", &path))?;
    if let Some(header) = header {
        let written = file.write_at(0, vec![header.encode()]).await;
        written.map_err(IoFailure::of("write", &path))?;
    }
    file.sync_all().await.map_err(IoFailure::of("flush", &path))
}

/// Copies what is to be cut off into a file beside the log. Not being able to is no reason to
/// stop.
async fn keep_cut(c: &Candidate, position: u64) -> Option<PathBuf> {
    let kept = names::with_suffix(&c.path, &format!(".{position}{}", names::CUT));
    let options = OpenOptions::new().write(true).create(true).truncate(true);
    let end = c.len.min(position + CUT_KEPT_MAX);
    let copy = async {
        let file = File::open(&kept, options).await?;
        let mut at = position;
        while at < end {
            let piece = c
                .file
                .read_at(at, (end - at).min(PIECE_BYTES as u64) as usize)
                .await?;
            if piece.is_empty() {
                break;
            }
            let len = piece.len() as u64;
            file.write_at(at - position, vec![piece]).await?;
            at += len;
        }
        file.sync_data().await
    };
    match copy.await {
        Ok(()) => Some(kept),
        Err(error) => {
            tracing::warn!(path = %kept.display(), %error, "what is cut off cannot be kept");
            let _ = fs::remove_file(&kept).await;
            None
        }
    }
}
