//! What the disk has of the log's end, whatever the page cache shows of it.
//!
//! After a failed flush the page cache may hold as clean what the disk does not have (see
//! [`renew`](crate::renew)). A read around the page cache (`O_DIRECT`, open(2)) tells the two
//! apart. Needed where there is no room to write the end of the log anew.

use ringmill_ring::{DIRECT_ALIGNMENT, File, OpenOptions, direct_buffer};

use crate::candidate::Candidate;
use crate::error::IoFailure;
use crate::scan::Scanner;
use crate::sweep::PIECE_BYTES;

/// Flushes the log's end, and returns where the last batch ends that is whole on the disk: at
/// most where the page cache has it.
pub(crate) async fn whole_end(c: &Candidate) -> Result<u64, IoFailure> {
    c.file
        .sync_data()
        .await
        .map_err(IoFailure::of("flush", &c.path))?;
    let file = File::open(&c.path, OpenOptions::new().read(true).direct(true))
        .await
        .map_err(IoFailure::of(
            "check, on a full disk and around the page cache,",
            &c.path,
        ))?;
    let (from, end) = (c.durable, c.mark.position);
    let mut scanner = Scanner::new(from.position, from.offset).compacted(c.compacted);
    let mut position = from.position;
    while position < end {
        let skip = position % DIRECT_ALIGNMENT as u64;
        let (read, piece) = file
            .read_into(position - skip, direct_buffer(PIECE_BYTES), PIECE_BYTES)
            .await;
        read.map_err(IoFailure::of("read", &c.path))?;
        let until = (end - position + skip).min(piece.len() as u64) as usize;
        let Some(bytes) = piece.get(skip as usize..until).filter(|b| !b.is_empty()) else {
            break;
        };
        if !scanner.push(bytes, |_, _| {}) {
            break;
        }
        position += bytes.len() as u64;
    }
    Ok(scanner.finish().position)
}
