//! Goes from batch to batch of a log by their headers, without looking at what they hold.

use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use ringmill_ring::File;
use ringmill_wire::batch::{BatchError, BatchHeader, HEADER_LEN};

use crate::error::IoFailure;
use crate::sweep::PIECE_BYTES;

/// A walk over a part of a log. Reads ahead in bounded pieces.
pub(crate) struct Walk {
    file: File,
    path: PathBuf,
    position: u64,
    end: u64,
    piece: Bytes,
    piece_at: u64,
}

impl Walk {
    /// From where a batch begins, to where the log ends.
    pub(crate) fn new(file: File, path: PathBuf, range: Range<u64>) -> Self {
        Walk {
            file,
            path,
            position: range.start,
            end: range.end,
            piece: Bytes::new(),
            piece_at: range.start,
        }
    }

    /// Whether it came to the end.
    pub(crate) fn is_at_end(&self) -> bool {
        self.position >= self.end
    }

    /// The next batch and where it begins; `None` at the end, or where no whole batch is: then
    /// [`Walk::obstacle`] tells why.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, IoFailure> {
        let at = self.position;
        Ok(match self.header().await? {
            Some(Ok(header)) if header.size() as u64 <= self.end - at => {
                self.position += header.size() as u64;
                Some((at, header))
            }
            _ => None,
        })
    }

    /// Where the walk stands and what keeps it from going on; `None` at the end.
    pub(crate) async fn obstacle(&mut self) -> Result<Option<(u64, BatchError)>, IoFailure> {
        let left = (self.end - self.position) as usize;
        let error = match self.header().await? {
            None => return Ok(None),
            Some(Ok(header)) if header.size() > left => BatchError::Short {
                missing: header.size() - left,
            },
            Some(Ok(_)) => return Ok(None),
            Some(Err(error)) => error,
        };
        Ok(Some((self.position, error)))
    }

    async fn header(&mut self) -> Result<Option<Result<BatchHeader, BatchError>>, IoFailure> {
        if self.position >= self.end {
            return Ok(None);
        }
        let within = (self.position - self.piece_at) as usize;
        if within + HEADER_LEN > self.piece.len() {
            let len = (self.end - self.position).min(PIECE_BYTES as u64) as usize;
            let read = self.file.read_at(self.position, len).await;
            self.piece = read.map_err(IoFailure::of("read", &self.path))?;
            self.piece_at = self.position;
        }
        let within = (self.position - self.piece_at) as usize;
        Ok(Some(BatchHeader::parse(&self.piece[within..])))
    }

    /// The bytes of a batch that the walk has come by; no more than the file has.
    pub(crate) async fn batch(
        &self,
        position: u64,
        header: &BatchHeader,
    ) -> Result<Bytes, IoFailure> {
        let size = header.size();
        if let Some(within) = position.checked_sub(self.piece_at)
            && within as usize + size <= self.piece.len()
        {
            return Ok(self.piece.slice(within as usize..within as usize + size));
        }
        let read = self.file.read_exact_at(position, size).await;
        read.map_err(IoFailure::of("read", &self.path))
    }
}
