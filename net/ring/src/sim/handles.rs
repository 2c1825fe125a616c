//! The hands of a test in a simulated world: one node's disk, and the network.

use std::cell::{RefCell, RefMut};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::NodeId;
use super::faults::{DiskFaults, Latency, NetworkFaults};
use super::kernel::Kernel;

/// One node's disk. What is read or harmed here takes no time and is no event of the world.
pub struct DiskHandle<'a> {
    pub(super) kernel: &'a RefCell<Kernel>,
    pub(super) node: usize,
}

impl DiskHandle<'_> {
    /// What goes wrong on this disk, and how long things take, from now on.
    pub fn faults(&self) -> RefMut<'_, DiskFaults> {
        RefMut::map(self.kernel.borrow_mut(), |kernel| {
            &mut kernel.nodes[self.node].disk.faults
        })
    }

    /// The whole content of a file as programs see it; nothing if there is none at this path,
    /// or if a part of it cannot be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Bytes> {
        self.kernel.borrow().nodes[self.node]
            .disk
            .content(path.as_ref())
    }

    /// What a power cut could not take from the content of a file; whether the file's name
    /// would survive is another matter.
    pub fn read_durable(&self, path: impl AsRef<Path>) -> Option<Bytes> {
        self.kernel.borrow().nodes[self.node]
            .disk
            .durable_content(path.as_ref())
    }

    /// All paths, sorted, with their lengths; folders end in `/`.
    pub fn list(&self) -> Vec<(String, u64)> {
        self.kernel.borrow().nodes[self.node].disk.list()
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        self.kernel.borrow().nodes[self.node].disk.used()
    }

    /// Puts a durable file at a path, with its folders; replaces one that is there.
    pub fn put(&self, path: impl AsRef<Path>, content: impl Into<Bytes>) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.nodes[self.node]
            .disk
            .put(path.as_ref(), content.into());
    }

    /// Flips the bits of `mask` in one byte of a file, on the medium and as it is read.
    ///
    /// # Panics
    /// If there is no such file, or no such byte.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.nodes[self.node]
            .disk
            .corrupt(path.as_ref(), offset, mask);
    }

    /// Makes the sectors of a range unreadable (`EIO`) until they are written again.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn break_sectors(&self, path: impl AsRef<Path>, range: Range<u64>) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.nodes[self.node]
            .disk
            .break_range(path.as_ref(), range);
    }

    /// The page cache forgets what is clean: reads see the medium, with all that a disk that
    /// lies has done to it.
    pub fn drop_caches(&self) {
        self.kernel.borrow_mut().nodes[self.node].disk.drop_caches();
    }

    /// The disk hangs: what is asked of it from now on ends only after so long.
    pub fn stall(&self, time: Duration) {
        let mut kernel = self.kernel.borrow_mut();
        let until = kernel.now + time.as_nanos() as u64;
        kernel.nodes[self.node].disk.stalled_until = until;
    }
}

/// The network between all nodes.
pub struct NetworkHandle<'a> {
    pub(super) kernel: &'a RefCell<Kernel>,
}

impl NetworkHandle<'_> {
    /// What goes wrong in the network, and how long things take, from now on.
    pub fn faults(&self) -> RefMut<'_, NetworkFaults> {
        RefMut::map(self.kernel.borrow_mut(), |kernel| {
            &mut kernel.network.faults
        })
    }

    /// Gives one direction between two nodes a delay of its own.
    pub fn delay(&self, from: NodeId, to: NodeId, delay: Latency) {
        self.kernel
            .borrow_mut()
            .network
            .delays
            .insert((from.0, to.0), delay);
    }

    /// Nothing gets through from one node to another any more; the other way it does.
    pub fn block(&self, from: NodeId, to: NodeId) {
        self.kernel.borrow_mut().block(from.0, to.0);
    }

    /// Nothing gets through between any of `these` and any of `those`, in either direction.
    pub fn partition(&self, these: &[NodeId], those: &[NodeId]) {
        for &this in these {
            for &that in those {
                self.block(this, that);
                self.block(that, this);
            }
        }
    }

    /// Lets packets from one node to another through again. Streams go on when their senders
    /// try again, which may take as long as the partition did.
    pub fn unblock(&self, from: NodeId, to: NodeId) {
        self.kernel.borrow_mut().unblock(from.0, to.0);
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        let mut kernel = self.kernel.borrow_mut();
        for (from, to) in kernel.network.blocked() {
            kernel.unblock(from, to);
        }
    }
}
