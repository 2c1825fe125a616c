//! The file of a journal of [`frames`]: opened, appended to, and written anew.
//!
//! What counts is never overwritten where it stands: a power cut may tear the sector that is being
//! written. So a journal that was read is written anew beside itself and takes the old one's place.
//! It has to be: after a kill before a flush some of it may be in the page cache alone, and a flush
//! now would not do if an earlier one has failed. The same after a write or flush that failed.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use ringmill_ring::{File, OpenOptions, fs};
use thiserror::Error;

use crate::frames::{self, Damaged};

/// A journal is rewritten when it is so many times as large as it needs to be,
const REWRITE_FACTOR: u64 = 4;
/// but not while it is smaller than this.
const REWRITE_BYTES_MIN: u64 = 256 << 10;

/// Why a journal does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A change in the middle is lost.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// A journal on disk. One writer; each call is to be awaited before the next.
pub struct FrameFile {
    path: PathBuf,
    file: File,
    /// The number of the next change.
    next: u64,
    end: u64,
    /// Its size when it was last rewritten, or would have been.
    compact: u64,
    /// Nothing is known of what the file holds, or a copy in it is damaged.
    is_suspect: bool,
}

impl FrameFile {
    /// Opens the journal at `path`, making it if need be, and gives its changes, each with the byte
    /// at which it begins. They are durable.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path) -> Result<(Self, Vec<(usize, Bytes)>), OpenError> {
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = File::open(path, options).await?;
        let folder = path.parent().expect("a file is in a folder");
        fs::sync_dir(folder).await?;
        let content = fs::read(path).await?;
        let scan = frames::scan(&content)?;
        if scan.end < content.len() {
            let bytes = content.len() - scan.end;
            tracing::warn!(path = %path.display(), bytes, "cut an interrupted write off");
        }
        if scan.is_worn {
            tracing::warn!(path = %path.display(), "a damaged frame was read from its copy");
        }
        let mut journal = Self {
            path: path.to_owned(),
            file,
            next: scan.next(),
            end: scan.end as u64,
            compact: 0,
            is_suspect: scan.is_worn,
        };
        if !content.is_empty() {
            journal.renew(&content, scan.end).await?;
        }
        Ok((journal, scan.changes))
    }

    /// Makes what was read durable.
    async fn renew(&mut self, content: &Bytes, end: usize) -> io::Result<()> {
        let whole = vec![content.slice(..end)];
        let full = match fs::write_atomic(&self.path, whole).await {
            Ok(()) => return self.reopen().await,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => error,
            Err(error) => return Err(error),
        };
        // No reason not to start: space may be won by what the node does next.
        tracing::warn!(path = %self.path.display(), error = %full, "flushed where it is");
        self.is_suspect = true;
        if end < content.len() {
            self.file.set_len(end as u64).await?;
        }
        self.file.sync_all().await
    }

    async fn reopen(&mut self) -> io::Result<()> {
        let options = OpenOptions::new().read(true).write(true);
        self.file = File::open(&self.path, options).await?;
        Ok(())
    }

    /// Says how large a change would be that says everything.
    pub fn set_compact(&mut self, change: usize) {
        self.compact = frames::encoded_len(change);
    }

    /// The next change is to come by [`FrameFile::rewrite`].
    pub fn is_due(&self) -> bool {
        self.is_suspect || self.end > REWRITE_BYTES_MIN.max(REWRITE_FACTOR * self.compact)
    }

    /// Adds a change, and flushes it.
    ///
    /// # Errors
    /// The disk refuses; then the journal is due to be rewritten.
    pub async fn append(&mut self, change: &[u8]) -> io::Result<()> {
        debug_assert!(!self.is_suspect);
        let mut bytes = BytesMut::new();
        frames::encode(self.next, change, &mut bytes);
        let end = self.end + bytes.len() as u64;
        let written = self
            .file
            .write_at_sync(self.end, vec![bytes.freeze()])
            .await;
        self.note(written.map(drop))?;
        (self.end, self.next) = (end, self.next + 1);
        Ok(())
    }

    /// Puts a journal of one change, which says everything, in the place of this one; of none, if
    /// it is empty.
    ///
    /// # Errors
    /// The disk refuses; then the journal is due to be rewritten.
    pub async fn rewrite(&mut self, change: &[u8]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        if !change.is_empty() {
            frames::encode(0, change, &mut bytes);
        }
        let len = bytes.len() as u64;
        let written = fs::write_atomic(&self.path, vec![bytes.freeze()]).await;
        self.note(written)?;
        let opened = self.reopen().await;
        self.note(opened)?;
        (self.end, self.next) = (len, u64::from(len > 0));
        (self.compact, self.is_suspect) = (len, false);
        Ok(())
    }

    fn note(&mut self, done: io::Result<()>) -> io::Result<()> {
        self.is_suspect |= done.is_err();
        done
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmill_ring::sim::{Chance, DiskFaults, World};

    use super::*;

    async fn open() -> (FrameFile, Vec<(usize, Bytes)>) {
        let opened = FrameFile::open(Path::new("/journal")).await;
        opened.expect("the disk is well")
    }

    /// Power cuts tear the sector that is being written, while the journal is read again.
    #[test]
    fn what_counts_survives_a_power_cut_while_it_is_opened() {
        for seed in 0..300 {
            let mut world = World::new(seed);
            let node = world.add_node("n", [10, 0, 0, 1].into());
            world.block_on(node, async {
                let (mut journal, _) = open().await;
                for change in 0..5 {
                    journal.append(&[change; 70]).await.unwrap();
                }
            });
            world.disk(node).faults().torn_sector = Chance::Always;
            world.start(node, async {
                open().await;
            });
            world.run_for(Duration::from_micros(seed * 20));
            world.power_off(node);
            *world.disk(node).faults() = DiskFaults::default();
            let changes = world.block_on(node, async { open().await.1.len() });
            assert_eq!(changes, 5, "seed {seed}");
        }
    }

    /// Nor does it on a disk without space for a second one.
    #[test]
    fn a_full_disk_is_no_reason_not_to_open() {
        let mut world = World::new(1);
        let node = world.add_node("n", [10, 0, 0, 1].into());
        world.block_on(node, async {
            let (mut journal, _) = open().await;
            journal.append(&[1; 70]).await.unwrap();
        });
        world.disk(node).faults().capacity = 1;
        world.block_on(node, async {
            let (mut journal, changes) = open().await;
            assert_eq!(changes.len(), 1);
            assert!(journal.is_due());
            journal.rewrite(&[2; 70]).await.unwrap_err();
        });
        world.disk(node).faults().capacity = u64::MAX;
        world.block_on(node, async {
            let (mut journal, changes) = open().await;
            assert_eq!(changes.len(), 1);
            journal.append(&[2; 70]).await.unwrap();
            assert_eq!(journal.next, 2);
        });
    }
}
