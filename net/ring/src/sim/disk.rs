//! One node's simulated disk: files, folders, space, and all that can go wrong with them.
//!
//! Pure: no clock, no waiting. Each method is what a system call does at the moment at which it
//! takes effect; when that moment comes is decided by the caller, with the latencies from here.
//! The rules of what survives a power cut stand in `file` (contents) and `names` (folders).

mod extents;
mod file;
mod inspect;
mod names;

#[cfg(test)]
mod disk_test;
#[cfg(test)]
mod file_test;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Bytes, BytesMut};

use self::file::{FileImage, Medium, SECTOR, flip_bit};
use self::names::Names;
use super::faults::DiskFaults;
use super::network::Origin;
use super::random::Random;
use crate::op::{DirEntry, Metadata, OpenOptions, Space};

/// The number of a file or folder.
pub(super) type Inode = u64;

/// An error number of the system (`errno(3)`).
pub(super) type Errno = i32;

/// What the system calls of a disk are told apart by, for their latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Read,
    Write,
    Sync,
    Names,
}

#[derive(Clone, Debug, Default)]
struct Node {
    image: FileImage,
    /// It has a name.
    linked: bool,
    /// Open descriptors.
    opens: u32,
    /// Flushes that failed, and how many of them somebody was told of.
    failures: u64,
    told: u64,
}

impl Node {
    /// Its blocks are taken.
    fn is_alive(&self) -> bool {
        self.linked || self.opens > 0
    }
}

/// One disk.
#[derive(Debug)]
pub(super) struct Disk {
    names: Names,
    files: BTreeMap<Inode, Node>,
    last_inode: Inode,
    /// Bytes in the blocks of all files that have a name or are open.
    used: u64,
    /// Number of files at which those that nothing remembers are dropped.
    sweep_at: usize,
    /// Nothing ends before this time: a disk that hangs.
    pub stalled_until: u64,
    pub faults: DiskFaults,
    random: Random,
}

/// Files at which the first sweep is made.
const SWEEP_MIN: usize = 64;

impl Disk {
    pub(super) fn new(random: Random) -> Self {
        Disk {
            names: Names::new(),
            files: BTreeMap::new(),
            last_inode: names::ROOT,
            used: 0,
            sweep_at: SWEEP_MIN,
            stalled_until: 0,
            faults: DiskFaults::default(),
            random,
        }
    }

    /// When a call that begins now and moves `bytes` takes effect.
    pub(super) fn done_at(&mut self, now: u64, work: Work, bytes: u64) -> u64 {
        let latency = match work {
            Work::Read => &mut self.faults.read_latency,
            Work::Write => &mut self.faults.write_latency,
            Work::Sync => &mut self.faults.sync_latency,
            Work::Names => &mut self.faults.name_latency,
        };
        // About 2 GB/s.
        (now + latency.draw(&mut self.random) + bytes / 2).max(self.stalled_until)
    }

    fn names_work(&mut self) -> Result<(), Errno> {
        if self.faults.name_error.strikes(&mut self.random) {
            Err(libc::EIO)
        } else {
            Ok(())
        }
    }

    fn room_for_names(&mut self) -> Result<(), Errno> {
        self.names_work()?;
        match self.faults.name_no_space.strikes(&mut self.random) {
            true => Err(libc::ENOSPC),
            false => Ok(()),
        }
    }

    fn node(&mut self, inode: Inode) -> &mut Node {
        self.files
            .get_mut(&inode)
            .expect("an open or linked file is kept")
    }

    fn parts(&mut self, inode: Inode) -> (&mut FileImage, Medium<'_>) {
        let node = self
            .files
            .get_mut(&inode)
            .expect("an open or linked file is kept");
        (
            &mut node.image,
            Medium {
                faults: &mut self.faults,
                random: &mut self.random,
            },
        )
    }

    fn new_inode(&mut self) -> Inode {
        self.last_inode += 1;
        self.last_inode
    }

    /// `open(2)`.
    pub(super) fn open(&mut self, path: &Path, how: OpenOptions, ms: i64) -> Result<Inode, Errno> {
        self.names_work()?;
        let (place, found) = self.names.look(path).map_err(|errno| match errno {
            libc::EEXIST => libc::EISDIR,
            errno => errno,
        })?;
        let inode = match found {
            Some(_) if how.create_new => return Err(libc::EEXIST),
            Some(inode) if self.names.is_dir(inode) => return Err(libc::EISDIR),
            Some(inode) => inode,
            None if how.create || how.create_new => {
                self.sweep();
                let inode = self.new_inode();
                self.names.link(place, inode, false);
                let node = Node {
                    linked: true,
                    ..Node::default()
                };
                self.files.entry(inode).or_insert(node).image.modified_ms = ms;
                inode
            }
            None => return Err(libc::ENOENT),
        };
        self.node(inode).opens += 1;
        if how.truncate && how.write {
            self.set_len(inode, 0, ms);
        }
        Ok(inode)
    }

    /// The last share of a descriptor is gone.
    pub(super) fn close(&mut self, inode: Inode) {
        self.node(inode).opens -= 1;
        self.release(inode);
    }

    fn unlinked(&mut self, inode: Inode) {
        if let Some(node) = self.files.get_mut(&inode) {
            node.linked = false;
            self.release(inode);
        }
    }

    /// Gives the blocks back of a file without name and descriptor. Its content is kept: a
    /// power cut may bring the name back.
    fn release(&mut self, inode: Inode) {
        let node = self.node(inode);
        if !node.is_alive() {
            let freed = node.image.allocated();
            self.used -= freed;
        }
    }

    /// Drops the files that can never be seen again.
    fn sweep(&mut self) {
        if self.files.len() < self.sweep_at {
            return;
        }
        let remembered = self.names.remembered();
        self.files
            .retain(|inode, node| node.opens > 0 || remembered.contains(inode));
        self.sweep_at = SWEEP_MIN.max(2 * self.files.len());
    }

    fn early_end(&mut self, write: bool, len: usize) -> usize {
        let chance = if write {
            &mut self.faults.short_write
        } else {
            &mut self.faults.short_read
        };
        if len > 1 && chance.strikes(&mut self.random) {
            return self.random.between(1, len as u64 - 1) as usize;
        }
        len
    }

    /// `pread(2)` of a file opened with `O_DIRECT`: what the medium has, whatever the page cache
    /// shows, but for what is still to be written back.
    pub(super) fn read_direct(
        &mut self,
        inode: Inode,
        offset: u64,
        len: usize,
        out: &mut BytesMut,
    ) -> Result<usize, Errno> {
        if self.faults.read_error.strikes(&mut self.random) {
            return Err(libc::EIO);
        }
        let mut image = self.node(inode).image.clone();
        image.drop_cache();
        image.read(offset, len, out).ok_or(libc::EIO)
    }

    /// `pread(2)`: appends to `out`.
    pub(super) fn read(
        &mut self,
        inode: Inode,
        offset: u64,
        len: usize,
        out: &mut BytesMut,
    ) -> Result<usize, Errno> {
        if self.faults.read_error.strikes(&mut self.random) {
            return Err(libc::EIO);
        }
        let held = self.node(inode).image.len().saturating_sub(offset);
        let len = self.early_end(false, len.min(held.try_into().unwrap_or(usize::MAX)));
        let start = out.len();
        let read = self
            .node(inode)
            .image
            .read(offset, len, out)
            .ok_or(libc::EIO)?;
        if self.faults.read_flip.strikes(&mut self.random) {
            flip_bit(&mut out[start..], &mut self.random);
        }
        Ok(read)
    }

    /// The pages of a range, for a transfer that never passes through the program.
    pub(super) fn pages(
        &mut self,
        inode: Inode,
        offset: u64,
        len: u64,
    ) -> Result<Vec<Bytes>, Errno> {
        if self.faults.read_error.strikes(&mut self.random) {
            return Err(libc::EIO);
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.node(inode).image.slices(offset, len).ok_or(libc::EIO)
    }

    /// How often a file was cut.
    pub(super) fn cuts(&mut self, inode: Inode) -> u64 {
        self.node(inode).image.cuts()
    }

    /// The present content of pages that were lent to a socket; nothing if they are no longer
    /// the file's.
    pub(super) fn lent(&self, origin: &Origin, len: usize) -> Option<Vec<Bytes>> {
        let image = &self.files.get(&origin.inode)?.image;
        let end = origin.offset + len as u64;
        let same = image.cuts() == origin.cuts && end <= image.len();
        same.then(|| image.slices(origin.offset, len)).flatten()
    }

    /// `pwritev(2)` into the page cache; `limit` bytes of the buffers at most. Returns how many
    /// bytes were written.
    pub(super) fn write(
        &mut self,
        inode: Inode,
        offset: u64,
        bufs: &[Bytes],
        ms: i64,
    ) -> Result<usize, Errno> {
        let total: usize = bufs.iter().map(Bytes::len).sum();
        if offset
            .checked_add(total as u64)
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(libc::EFBIG);
        }
        let fails = self.faults.write_error.strikes(&mut self.random);
        let mut len = self.early_end(true, total);
        if fails {
            len = self.random.index(total + 1);
        }
        let room = self.faults.capacity.saturating_sub(self.used);
        let (image, mut medium) = self.parts(inode);
        let (fits, added) = image.allocate(offset..offset + len as u64, room);
        let mut left = (fits.end - fits.start) as usize;
        let written = left;
        let mut at = offset;
        for buf in bufs {
            let part = buf.len().min(left);
            image.write(at, &buf.slice(..part), &mut medium);
            at += part as u64;
            left -= part;
        }
        image.modified_ms = ms;
        self.used += added;
        match (fails, written) {
            (true, _) => Err(libc::EIO),
            (false, 0) if total > 0 => Err(libc::ENOSPC),
            _ => Ok(written),
        }
    }

    /// The mark of a flush of a file that begins now.
    pub(super) fn mark(&mut self, inode: Inode) -> u64 {
        self.node(inode).image.mark()
    }

    /// `fdatasync(2)` or `fsync(2)` ends: what was changed before `mark` is durable.
    pub(super) fn sync(&mut self, inode: Inode, mark: u64) -> Result<(), Errno> {
        let fails = self.faults.sync_error.strikes(&mut self.random);
        let (image, mut medium) = self.parts(inode);
        if fails {
            image.fail_sync(mark, &mut medium);
            self.node(inode).failures += 1;
            return Err(libc::EIO);
        }
        image.sync(mark, &mut medium);
        Ok(())
    }

    /// What a descriptor that is opened now counts as heard of: a failure that nobody was told
    /// of is still to be told (`errseq_sample` in Linux).
    pub(super) fn failures_told(&mut self, inode: Inode) -> u64 {
        self.node(inode).told
    }

    /// Tells a descriptor of a failed flush since `heard`, its own or another's, once
    /// (`errseq_check_and_advance` in Linux).
    pub(super) fn tell(&mut self, inode: Inode, heard: &mut u64) -> Result<(), Errno> {
        let node = self.node(inode);
        if *heard == node.failures {
            return Ok(());
        }
        node.told = node.failures;
        *heard = node.failures;
        Err(libc::EIO)
    }

    /// `fallocate(2)`, mode 0.
    pub(super) fn allocate(
        &mut self,
        inode: Inode,
        offset: u64,
        len: u64,
        ms: i64,
    ) -> Result<(), Errno> {
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(libc::EFBIG)?;
        if len == 0 {
            return Err(libc::EINVAL);
        }
        let room = self.faults.capacity.saturating_sub(self.used);
        let (image, mut medium) = self.parts(inode);
        let (fits, added) = image.allocate(offset..end, room);
        let whole = fits.end == end;
        if whole && end > image.len() {
            image.set_len(end, &mut medium);
        }
        image.modified_ms = ms;
        self.used += added;
        if whole { Ok(()) } else { Err(libc::ENOSPC) }
    }

    /// `ftruncate(2)`.
    pub(super) fn set_len(&mut self, inode: Inode, len: u64, ms: i64) {
        let (image, mut medium) = self.parts(inode);
        let freed = image.set_len(len, &mut medium);
        image.modified_ms = ms;
        self.used -= freed;
    }

    /// `statvfs(3)`.
    pub(super) fn space(&mut self, path: &Path) -> Result<Space, Errno> {
        self.stat(path)?;
        let total = self.faults.capacity;
        Ok(Space {
            total,
            available: total.saturating_sub(self.used),
        })
    }

    /// `fstat(2)`.
    pub(super) fn metadata(&self, inode: Inode) -> Metadata {
        match self.files.get(&inode) {
            Some(Node { image, .. }) => Metadata {
                len: image.len(),
                allocated: image.allocated(),
                is_dir: false,
                modified_ms: image.modified_ms,
            },
            None => Metadata {
                len: 0,
                allocated: 0,
                is_dir: true,
                modified_ms: 0,
            },
        }
    }

    /// What a path leads to.
    pub(super) fn find(&self, path: &Path) -> Result<Inode, Errno> {
        self.names.find(path)
    }

    /// `stat(2)`.
    pub(super) fn stat(&mut self, path: &Path) -> Result<Metadata, Errno> {
        self.names_work()?;
        let inode = self.names.find(path)?;
        Ok(self.metadata(inode))
    }

    /// `readdir(3)` with the lengths of the files, sorted by name.
    pub(super) fn read_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        self.names_work()?;
        let dir = self.names.find(path)?;
        let entry = |(name, inode): (&String, &Inode)| {
            let Metadata { len, is_dir, .. } = self.metadata(*inode);
            DirEntry {
                name: name.clone(),
                is_dir,
                len,
            }
        };
        Ok(self.names.entries(dir)?.iter().map(entry).collect())
    }

    /// `mkdir(2)`.
    pub(super) fn mkdir(&mut self, path: &Path) -> Result<(), Errno> {
        self.names_work()?;
        let (place, found) = self.names.look(path)?;
        if found.is_some() {
            return Err(libc::EEXIST);
        }
        let inode = self.new_inode();
        self.names.link(place, inode, true);
        Ok(())
    }

    /// `unlink(2)`, or `rmdir(2)` with `dir`.
    pub(super) fn unlink(&mut self, path: &Path, dir: bool) -> Result<(), Errno> {
        self.room_for_names()?;
        let gone = self.names.unlink(path, dir)?;
        self.unlinked(gone);
        Ok(())
    }

    /// `rename(2)`.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        self.room_for_names()?;
        if let Some(replaced) = self.names.rename(from, to)? {
            self.unlinked(replaced);
        }
        Ok(())
    }

    /// The mark of a folder's flush that begins now.
    pub(super) fn names_mark(&self) -> u64 {
        self.names.mark()
    }

    /// `fsync(2)` of a folder ends.
    pub(super) fn sync_dir(&mut self, path: &Path, mark: u64) -> Result<(), Errno> {
        let dir = self.names.find(path)?;
        if !self.names.is_dir(dir) {
            return Err(libc::ENOTDIR);
        }
        if self.faults.sync_error.strikes(&mut self.random) {
            return Err(libc::EIO);
        }
        self.names.sync_dir(dir, mark);
        Ok(())
    }

    /// The power goes, and comes again: what was not flushed is at the mercy of chance. Nothing
    /// is open any more.
    pub(super) fn power_cut(&mut self) {
        self.names.power_cut(&mut self.random);
        let remembered = self.names.remembered();
        self.files.retain(|inode, _| remembered.contains(inode));
        self.used = 0;
        for node in self.files.values_mut() {
            node.opens = 0;
            node.linked = true;
            let mut medium = Medium {
                faults: &mut self.faults,
                random: &mut self.random,
            };
            node.image.power_cut(&mut medium);
            self.used += node.image.allocated();
        }
    }
}

/// The length of a sector, for what must be aligned.
pub(super) const ALIGNMENT: u64 = SECTOR;
