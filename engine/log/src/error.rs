//! What can go wrong with a partition, one enum per operation.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmill_wire::batch::BatchError;
use thiserror::Error;

use crate::producers::ProducerError;
use crate::scan::ScanError;

/// A system call that failed, and on what.
#[derive(Debug, Error)]
#[error("cannot {operation} {}: {error}", path.display())]
pub struct IoFailure {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    pub error: io::Error,
}

impl IoFailure {
    /// For use in `map_err`.
    pub(crate) fn of(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| IoFailure {
            operation,
            path: path.to_owned(),
            error,
        }
    }

    /// Whether room on the disk was missing, and nothing else: there may be some later.
    pub fn is_no_space(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(
            self.error.kind(),
            StorageFull | QuotaExceeded | FileTooLarge
        )
    }
}

/// A part of a log that cannot be read. It is named to whoever asks for it and never skipped in
/// silence; what is beside it is served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{}: damaged at byte {}: {reason}; offsets {} to {} cannot be read",
    file.display(), bytes.start, offsets.start, offsets.end - 1
)]
pub struct Damage {
    /// The segment's log file.
    pub file: PathBuf,
    /// What of the file cannot be read; as far as is known.
    pub bytes: Range<u64>,
    /// The offsets that are lost with it.
    pub offsets: Range<i64>,
    /// What is wrong.
    pub reason: DamageReason,
}

/// What is wrong with a part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DamageReason {
    /// The bytes are not the batches that were written.
    #[error(transparent)]
    Content(#[from] ScanError),
    /// The file ends too early.
    #[error("the file has {found} bytes, it had {expected}")]
    Truncated {
        /// Its length now.
        found: u64,
        /// Its length when it was whole.
        expected: u64,
    },
    /// A file, or its end, is not there.
    #[error("what should be here is missing")]
    Missing,
    /// Between two whole batches, offsets are left out.
    #[error("no batch holds the offset")]
    Unreachable,
}

/// Why a batch was not appended, or will not become durable.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    /// It is no batch that can be taken.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Its producer may not write it.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// Too many bytes wait to be written; there will be room soon
    /// ([`Partition::room`](crate::Partition::room)).
    #[error("too many appends are waiting for the disk")]
    Full,
    /// The disk is full. Nothing of the batch is in the log; it may be sent again.
    #[error("no space is left on the disk")]
    NoSpace,
    /// A write or flush has failed before. What is not flushed is lost or in doubt, and the
    /// partition takes nothing more until it is opened again.
    #[error("the log has failed and takes no appends: {0}")]
    Failed(Rc<IoFailure>),
    /// A leader's batch that does not follow what is here: what is in between is missing, or is
    /// here already.
    #[error("the leader's batch begins at offset {found}, but {expected} is due")]
    Offset {
        /// The log's end.
        expected: i64,
        /// Where the batch begins.
        found: i64,
    },
    /// The log was truncated, and what was appended before may be gone.
    #[error("the log was truncated meanwhile")]
    Truncated,
    /// The log has used up its 2^63 offsets.
    #[error("no offsets are left")]
    Exhausted,
    /// The partition was closed or removed.
    #[error("the log is closed")]
    Closed,
}

/// Why a read has nothing to give.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// The offset is before the log's start, or after its end.
    #[error("offset {offset} is not within {} to {}", range.start, range.end)]
    OutOfRange {
        /// As asked for.
        offset: i64,
        /// From the log's start to its end.
        range: Range<i64>,
    },
    /// The part of the log that holds the offset is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk does not give it.
    #[error(transparent)]
    Io(Rc<IoFailure>),
    /// The partition was closed or removed.
    #[error("the log is closed")]
    Closed,
}

impl From<IoFailure> for ReadError {
    fn from(failure: IoFailure) -> Self {
        ReadError::Io(Rc::new(failure))
    }
}

/// Why a partition could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk does not take part.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// A file without which nothing is known of the log's end is not there. Starting anew would
    /// give out offsets twice.
    #[error("{} is missing; the log has records up to offset {end_offset}: put the file back, or remove the partition's folder to give the records up", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The offset after the last flushed one.
        end_offset: i64,
    },
    /// Two segments claim the same offsets.
    #[error("{} ends at offset {end_offset}, but the next segment begins at {next}", file.display())]
    Overlap {
        /// The earlier one.
        file: PathBuf,
        /// Where it ends.
        end_offset: i64,
        /// Where the next begins.
        next: i64,
    },
}

/// Why records could not be deleted, a configuration not kept, or a partition not closed.
#[derive(Debug, Clone, Error)]
pub enum ChangeError {
    /// The offset is after what consumers may see.
    #[error("offset {offset} is beyond the visible end {visible_end}")]
    OutOfRange {
        /// As asked for.
        offset: i64,
        /// The first offset that consumers may not see.
        visible_end: i64,
    },
    /// The disk does not take it.
    #[error(transparent)]
    Io(Rc<IoFailure>),
    /// The log is being truncated, or was meanwhile.
    #[error("the log was truncated meanwhile")]
    Truncated,
    /// A write or flush has failed before.
    #[error("the log has failed: {0}")]
    Failed(Rc<IoFailure>),
    /// The partition was closed or removed.
    #[error("the log is closed")]
    Closed,
}

impl From<IoFailure> for ChangeError {
    fn from(failure: IoFailure) -> Self {
        ChangeError::Io(Rc::new(failure))
    }
}
