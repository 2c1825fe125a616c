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
use ringmill_wire::batch::BatchHeader;
use ringmill_wire::marker::EndTxnMarker;

use crate::aborted::AbortedTxn;
use crate::append::FIRST_SHIFT;
use crate::candidate::{Candidate, new_active};
use crate::checkpoint::{Mark, Replay};
use crate::cleaner::write_checkpoint;
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::epochs::Epochs;
use crate::error::{Damage, DamageReason, IoFailure, OpenError};
use crate::names::{self, Kind};
use crate::on_disk;
use crate::partition::Active;
use crate::producers::Producers;
use crate::renew::{copy, renew};
use crate::scan::{ScanEnd, ScanError, Scanned};
use crate::segment::Segment;
use crate::sweep::{PIECE_BYTES, Range, sweep};

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
    /// What comes before the replay's start was read anew as well.
    pub(crate) rescanned: bool,
    pub(crate) now_ms: i64,
    pub(crate) damages: Vec<Damage>,
    pub(crate) cut: Option<Cut>,
    pub(crate) swept_bytes: u64,
    pub(crate) cleaner: CleanerCheckpoint,
    /// Segments that turned out to be complete.
    pub(crate) sealed: Vec<Rc<Segment>>,
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
    /// Nothing comes back if the disk turned out to have less than was read: it is cut off, and
    /// what was learnt of it is to be forgotten.
    pub(crate) async fn recover(
        &mut self,
        segments: &[(i64, u64)],
    ) -> Result<Option<Found>, OpenError> {
        if segments.len() > 1 {
            // whoever made the later ones may have been killed before their names were durable; what
            // is cut off the one before is in them, and what is appended to the last is acknowledged
            fs::sync_dir(self.dir)
                .await
                .map_err(IoFailure::of("flush", self.dir))?;
        }
        let mut left = segments.iter().copied().peekable();
        loop {
            let current = left.next().expect("the recovery point's segment is there");
            let mut candidate =
                Candidate::open(self.dir, current, self.point, self.cleaner.cleaned_end).await?;
            let next = left.peek().copied();
            // what is there again at its beginning was copied there by a renewal
            let limit = next.filter(|(_, len)| *len > 0).map(|(base, _)| base);
            let end = self.sweep_candidate(&mut candidate, limit).await?;
            match next {
                Some((base, 0)) if candidate.mark.offset > base => {
                    // made for a roll that the full disk did not allow
                    let path = names::path_of(self.dir, base, Kind::Log);
                    fs::remove_file(&path)
                        .await
                        .map_err(IoFailure::of("remove", &path))?;
                    return self.end_with(candidate, end).await;
                }
                Some((base, _)) if candidate.mark.offset > base => {
                    return Err(OpenError::Overlap {
                        file: candidate.path,
                        end_offset: candidate.mark.offset,
                        next: base,
                    });
                }
                Some((base, _)) => self.complete(candidate, end, base).await?,
                None => {
                    let found = self.end_with(candidate, end).await?;
                    let more = segments.len() > 1;
                    return Ok(found.map(|found| Found {
                        changed: found.changed || more,
                        ..found
                    }));
                }
            }
        }
    }

    /// Reads the segment from where something is to be learnt to its end, or to the offset at
    /// which the next one begins.
    async fn sweep_candidate(
        &mut self,
        candidate: &mut Candidate,
        limit: Option<i64>,
    ) -> Result<ScanEnd, IoFailure> {
        let at_point = candidate.base == self.point.segment;
        let indexed = candidate.mark.position > 0;
        let (position, offset) = match (at_point, indexed) {
            (true, true) => (self.replay.position, self.replay.offset),
            _ => (0, candidate.base),
        };
        let end = self.sweep_from(candidate, position, offset, limit).await?;
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
        let (position, offset) = (self.point.position, self.point.offset);
        self.sweep_from(candidate, position, offset, limit).await
    }

    async fn sweep_from(
        &mut self,
        candidate: &mut Candidate,
        position: u64,
        offset: i64,
        limit: Option<i64>,
    ) -> Result<ScanEnd, IoFailure> {
        let range = Range {
            position,
            offset,
            end: candidate.len,
            lenient: false,
            compacted: candidate.compacted,
        };
        let file = candidate.file.clone();
        let end = sweep(&file, range, |position, batch| match batch {
            Scanned::Whole(header, marker)
                if limit.is_none_or(|limit| header.base_offset < limit) =>
            {
                self.on_batch(candidate, position, header, marker);
            }
            _ => {}
        });
        let end = end.await.map_err(IoFailure::of("read", &candidate.path))?;
        self.swept_bytes += candidate.len.saturating_sub(position);
        Ok(end)
    }

    fn on_batch(
        &mut self,
        candidate: &mut Candidate,
        position: u64,
        header: &BatchHeader,
        marker: Option<EndTxnMarker>,
    ) {
        let mut ended = None;
        if header.base_offset >= self.replay.offset {
            let undo;
            (undo, ended) = self
                .producers
                .on_batch(header, marker.as_ref(), self.now_ms);
            if undo.is_some() {
                self.producers_end = header.next_offset();
            }
        }
        let known = header.base_offset < candidate.mark.offset;
        if !known || self.rescanned {
            let (epoch, start) = (header.partition_leader_epoch, header.base_offset);
            self.epochs_changed |= self.epochs.assign(epoch, start);
        }
        if known {
            return;
        }
        let aborted = ended.and_then(AbortedTxn::of);
        candidate.on_batch(position, header, aborted);
    }

    /// A segment that has a successor: all of it was flushed before that was made.
    async fn complete(&mut self, c: Candidate, end: ScanEnd, next: i64) -> Result<(), IoFailure> {
        // where there may be gaps, there may be one at the end
        let is_whole = c.compacted && end.error.is_none();
        if c.mark.offset < next && !is_whole {
            let reason = match end.error {
                Some(error) => error.into(),
                None => DamageReason::Missing,
            };
            self.damages.push(Damage {
                file: c.path.clone(),
                bytes: c.mark.position..c.mark.position.max(c.len),
                offsets: c.mark.offset..next,
                reason,
            });
        }
        let mark = c.mark;
        self.sealed.push(c.seal(self.dir, mark, next).await?);
        Ok(())
    }

    /// The last segment.
    async fn end_with(&mut self, c: Candidate, end: ScanEnd) -> Result<Option<Found>, OpenError> {
        let mark = c.mark;
        if c.len < mark.position {
            // flushed bytes are missing from the file's end: nothing can follow there
            let base = mark.offset;
            self.complete(c, end, base).await?;
            let active = new_active(self.dir, base, FIRST_SHIFT).await?;
            return Ok(Some(Found {
                active,
                end: Mark::start_of(base),
                changed: true,
            }));
        }
        self.report_cut(&c, &end).await;
        let changed = c.len > mark.position || mark != c.durable || c.index.pending() > 0;
        let candidate = if mark.offset > c.durable.offset {
            match self.renewed(c).await? {
                Some(renewed) => renewed,
                None => return Ok(None),
            }
        } else {
            cut_off(&c).await?;
            c
        };
        Ok(Some(Found {
            end: candidate.mark,
            active: candidate.into_active().await?,
            changed,
        }))
    }

    /// Renews the end of the log. On a full disk it stays where it is, as far as the disk has it.
    async fn renewed(&mut self, mut c: Candidate) -> Result<Option<Candidate>, IoFailure> {
        let copied = match self.allow_gaps(&c).await {
            Ok(()) => copy(self.dir, &c).await,
            Err(failure) => Err(failure),
        };
        let failure = match copied {
            Ok(copied) => {
                let renewed = renew(self.dir, c, copied).await?;
                self.sealed.extend(renewed.sealed);
                return Ok(Some(renewed.candidate));
            }
            Err(failure) if failure.is_no_space() => failure,
            Err(failure) => return Err(failure),
        };
        let (end, read) = (on_disk::whole_end(&c).await?, c.mark.position);
        c.mark.position = end;
        cut_off(&c).await?;
        if end < read {
            tracing::warn!(
                file = %c.path.display(), position = end, bytes = read - end,
                "a failed flush lost the end of the log, which was not acknowledged: cut off",
            );
            return Ok(None);
        }
        tracing::warn!(%failure, "the end of the log is used where it is");
        Ok(Some(c))
    }

    /// A copy of a segment that may have gaps may have them too, under its own name.
    async fn allow_gaps(&mut self, c: &Candidate) -> Result<(), IoFailure> {
        let cleaned_end = c.durable.offset + 1;
        if !c.compacted || self.cleaner.cleaned_end >= cleaned_end {
            return Ok(());
        }
        let cleaner = CleanerCheckpoint {
            cleaned_end,
            ..self.cleaner
        };
        write_checkpoint(self.dir, cleaner).await?;
        self.cleaner = cleaner;
        Ok(())
    }

    /// Tells what stands behind the last whole batch and is no batch, and keeps a copy of it.
    async fn report_cut(&mut self, c: &Candidate, end: &ScanEnd) {
        let position = c.mark.position;
        let Some(reason) = end.error.filter(|_| c.len > position) else {
            return;
        };
        let cut = Cut {
            file: c.path.clone(),
            position,
            bytes: c.len - position,
            reason,
            kept: keep_cut(c, position).await,
        };
        tracing::warn!(
            file = %cut.file.display(), position, bytes = cut.bytes, %reason, kept = ?cut.kept,
            "a torn end was cut off the log",
        );
        self.cut = Some(cut);
    }
}

/// Cuts off what stands behind the last whole batch, and flushes the rest.
async fn cut_off(c: &Candidate) -> Result<(), IoFailure> {
    let position = c.mark.position;
    if c.len > position {
        c.file
            .set_len(position)
            .await
            .map_err(IoFailure::of("cut", &c.path))?;
    } else if c.mark == c.durable {
        return Ok(());
    }
    c.file
        .sync_data()
        .await
        .map_err(IoFailure::of("flush", &c.path))
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
