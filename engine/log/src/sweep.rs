//! Goes over a segment's log from one place to another and feeds what is whole to whoever asks:
//! the shell of [`Scanner`], in bounded pieces, each of them a turn for others.

use bytes::BytesMut;
use ringmill_ring::File;

use crate::scan::{ScanEnd, Scanned, Scanner};

/// Bytes read at a time.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// From where to where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) position: u64,
    /// Of the batch that begins there.
    pub(crate) offset: i64,
    /// Not further than this, even if the file goes on.
    pub(crate) end: u64,
    /// Go on behind a batch of which only the content is damaged.
    pub(crate) lenient: bool,
    /// The segment may have been compacted.
    pub(crate) compacted: bool,
}

/// Reads the range and calls `visit` with each batch and its position.
pub(crate) async fn sweep(
    file: &File,
    range: Range,
    mut visit: impl FnMut(u64, Scanned<'_>),
) -> std::io::Result<ScanEnd> {
    let mut scanner = Scanner::new(range.position, range.offset).compacted(range.compacted);
    if range.lenient {
        scanner = scanner.lenient();
    }
    let mut position = range.position;
    let mut buffer = BytesMut::new();
    while position < range.end {
        buffer.clear();
        let len = (range.end - position).min(PIECE_BYTES as u64) as usize;
        let (read, back) = file.read_into(position, buffer, len).await;
        buffer = back;
        if read? == 0 {
            break;
        }
        if !scanner.push(&buffer, &mut visit) {
            break;
        }
        position += buffer.len() as u64;
    }
    Ok(scanner.finish())
}
