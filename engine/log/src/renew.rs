//! What a crash leaves beyond the recovery point is copied before it is built upon.
//!
//! After a failed flush the page cache may hold, as if it were clean, what never reached the disk
//! (Rebello et al., "Can Applications Recover from fsync Failures?"); a later process reads it
//! there, flushes, and is told that all is well. Only what is written again is flushed again. It
//! is written elsewhere, since a power cut in the middle of writing it in place could harm what
//! had been acknowledged: into a segment of its own that begins at the recovery point, or, where
//! the recovery point is the segment's beginning, into a file that takes the old one's name.

use std::path::Path;
use std::rc::Rc;

use bytes::BytesMut;
use ringmill_ring::{File, OpenOptions, fs};

use crate::aborted::AbortedIndexBuilder;
use crate::candidate::Candidate;
use crate::checkpoint::Mark;
use crate::error::IoFailure;
use crate::index::IndexBuilder;
use crate::names::{self, Kind};
use crate::scan::{Scanned, Scanner};
use crate::segment::Segment;
use crate::sweep::PIECE_BYTES;
use crate::time_index::{MaxTimestamp, TimeIndexBuilder};

/// The end of the log after its renewal.
pub(crate) struct Renewed {
    /// What stays of the segment, if anything does.
    pub(crate) sealed: Option<Rc<Segment>>,
    /// What is written to next.
    pub(crate) candidate: Candidate,
}

/// Puts a copy in its place, and seals what stays of the old segment.
pub(crate) async fn renew(
    dir: &Path,
    mut old: Candidate,
    mut copied: Candidate,
) -> Result<Renewed, IoFailure> {
    for txn in old.aborted.take_pending() {
        // those before the recovery point are in the file
        copied.aborted.push(txn);
    }
    let from = old.durable;
    let path = names::path_of(dir, from.offset, Kind::Log);
    fs::rename(&copied.path, &path)
        .await
        .map_err(IoFailure::of("rename", &copied.path))?;
    fs::sync_dir(dir)
        .await
        .map_err(IoFailure::of("flush", dir))?;
    let sealed = if from.position > 0 {
        Some(old.seal(dir, from, from.offset).await?)
    } else {
        None
    };
    Ok(Renewed {
        sealed,
        candidate: Candidate { path, ..copied },
    })
}

/// Copies what `old` holds beyond what is known to be durable into a file of its own, durably.
pub(crate) async fn copy(dir: &Path, old: &Candidate) -> Result<Candidate, IoFailure> {
    let path = names::path_of(dir, old.durable.offset, Kind::Log);
    let temporary = names::with_suffix(&path, names::TEMPORARY);
    let copied = copy_to(old, &temporary).await;
    if copied.is_err() {
        // what is left of it would be removed at the next start
        let _ = fs::remove_file(&temporary).await;
    }
    copied
}

/// The checkpoint's place in the log is no place between batches: somebody has changed files.
fn astray(old: &Candidate) -> IoFailure {
    let text = "it is not the log that the checkpoint beside it was written for; with the \
                checkpoint removed, the log is read from its beginning";
    IoFailure::of("recover", &old.path)(std::io::Error::other(text))
}

async fn copy_to(old: &Candidate, temporary: &Path) -> Result<Candidate, IoFailure> {
    let (from, end) = (old.durable, old.mark);
    if end.position < from.position {
        return Err(astray(old));
    }
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true);
    let file = File::open(temporary, options)
        .await
        .map_err(IoFailure::of("create", temporary))?;
    let mut new = Candidate {
        base: from.offset,
        len: end.position - from.position,
        path: temporary.to_owned(),
        file: file.clone(),
        shift: old.shift,
        compacted: old.compacted,
        index: IndexBuilder::new(from.offset, old.shift, 0),
        times: TimeIndexBuilder::new(from.offset, 0, -1, MaxTimestamp::NONE),
        aborted: AbortedIndexBuilder::default(),
        durable: Mark::start_of(from.offset),
        mark: Mark::start_of(from.offset),
    };
    let mut scanner = Scanner::new(0, from.offset).compacted(old.compacted);
    let mut position = from.position;
    while position < end.position {
        let len = (end.position - position).min(PIECE_BYTES as u64) as usize;
        let (read, piece) = old.file.read_into(position, BytesMut::new(), len).await;
        read.map_err(IoFailure::of("read", &old.path))?;
        // what is written is what was checked, byte for byte
        scanner.push(&piece, |at, batch| {
            if let Scanned::Whole(header, _) = batch {
                new.on_batch(at, header, None);
            }
        });
        if piece.len() < len {
            break;
        }
        let at = position - from.position;
        let written = file.write_at(at, vec![piece.freeze()]).await;
        written.map_err(IoFailure::of("write", temporary))?;
        position += len as u64;
    }
    if new.mark.offset != end.offset {
        return Err(astray(old));
    }
    file.sync_all()
        .await
        .map_err(IoFailure::of("flush", temporary))?;
    Ok(new)
}
