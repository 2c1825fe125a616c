//! The eyes and hands of a test on a simulated disk: nothing here is a system call.

use std::ops::Range;
use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::file::FileImage;
use super::names::Names;
use super::{Disk, Inode};
use crate::op::OpenOptions;

impl Disk {
    /// All paths, sorted, with their lengths; folders end in `/`.
    pub(in crate::sim) fn list(&self) -> Vec<(String, u64)> {
        let name = |(path, inode, is_dir): (String, Inode, bool)| match is_dir {
            true => (path + "/", 0),
            false => (path, self.metadata(inode).len),
        };
        Names::paths(&self.names).into_iter().map(name).collect()
    }

    fn image(&self, path: &Path) -> Option<&FileImage> {
        let inode = self.names.find(path).ok()?;
        self.files.get(&inode).map(|node| &node.image)
    }

    fn image_mut(&mut self, path: &Path) -> &mut FileImage {
        let inode = self.names.find(path).ok();
        let node = inode.and_then(|inode| self.files.get_mut(&inode));
        &mut node.expect("a file to be harmed").image
    }

    /// The whole content of a file as programs see it.
    pub(in crate::sim) fn content(&self, path: &Path) -> Option<Bytes> {
        let image = self.image(path)?;
        let mut bytes = BytesMut::new();
        image.read(0, usize::try_from(image.len()).ok()?, &mut bytes)?;
        Some(bytes.freeze())
    }

    /// The whole content of a file on the medium.
    pub(in crate::sim) fn durable_content(&self, path: &Path) -> Option<Bytes> {
        Some(self.image(path)?.durable_bytes().freeze())
    }

    /// Puts a durable file at a path, with its folders.
    pub(in crate::sim) fn put(&mut self, path: &Path, content: Bytes) {
        let faults = std::mem::take(&mut self.faults);
        for folder in path
            .ancestors()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            // It may be there.
            let _ = self.mkdir(folder);
        }
        let how = OpenOptions::new().write(true).create(true).truncate(true);
        let inode = self.open(path, how, 0).expect("a path for a file");
        self.write(inode, 0, &[content], 0)
            .expect("a disk without faults");
        let mark = self.mark(inode);
        self.sync(inode, mark).expect("a disk without faults");
        self.close(inode);
        self.names.sync_all();
        self.faults = faults;
    }

    /// Flips bits of one byte, on the medium and as it is read.
    pub(in crate::sim) fn corrupt(&mut self, path: &Path, offset: u64, mask: u8) {
        let image = self.image_mut(path);
        assert!(offset < image.len(), "byte {offset} of {}", image.len());
        image.corrupt(offset, mask);
    }

    /// Sectors of a range can no longer be read.
    pub(in crate::sim) fn break_range(&mut self, path: &Path, range: Range<u64>) {
        self.image_mut(path).break_range(range);
    }

    /// Reads see the medium wherever the cache holds nothing that is still to be written.
    pub(in crate::sim) fn drop_caches(&mut self) {
        for node in self.files.values_mut() {
            node.image.drop_cache();
        }
    }

    /// Bytes that are taken.
    pub(in crate::sim) fn used(&self) -> u64 {
        self.used
    }
}
