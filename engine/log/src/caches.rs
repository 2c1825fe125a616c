//! What the partitions of one core share: the memory of their hot tails and the open files of
//! their sealed segments. Both are bounded for the core, not for each partition, so that neither
//! grows with the number of partitions or the size of their logs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringmill_ring::{File, OpenOptions};

use crate::names::Kind;
use crate::tail::TailPool;

/// How much the partitions of one core may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Memory for hot tails, in bytes.
    pub tail_bytes: usize,
    /// Open files of segments that are read. Partitions that are written to have a few more each,
    /// idle ones none; and there may be as many again as this for flushes that overlap.
    pub open_files: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits {
            tail_bytes: 16 << 20,
            open_files: 256,
        }
    }
}

/// Which file of which partition.
pub(crate) type FileKey = (u64, i64, Kind);

/// The caches of one core. Belongs to that core.
#[derive(Debug)]
pub struct CoreCaches {
    pub(crate) tails: TailPool,
    files: RefCell<Recent<FileKey, File>>,
    partitions: Cell<u64>,
    /// Lanes that may still be opened: an idle partition's are let go, a busy one takes turns.
    pub(crate) lanes_left: Cell<usize>,
    /// How often a file was forgotten.
    forgotten: Cell<u64>,
}

impl CoreCaches {
    /// Empty caches.
    pub fn new(limits: CacheLimits) -> Rc<Self> {
        Rc::new(CoreCaches {
            tails: TailPool::new(limits.tail_bytes),
            files: RefCell::new(Recent::new(limits.open_files)),
            partitions: Cell::new(0),
            lanes_left: Cell::new(limits.open_files),
            forgotten: Cell::new(0),
        })
    }

    /// Memory that the hot tails take, in bytes.
    pub fn tail_bytes(&self) -> usize {
        self.tails.bytes()
    }

    /// A number for a partition, to tell its files from others'.
    pub(crate) fn next_partition(&self) -> u64 {
        self.partitions.set(self.partitions.get() + 1);
        self.partitions.get()
    }

    /// The file, opened for reading unless it still is open.
    pub(crate) async fn file(
        &self,
        key: FileKey,
        path: impl FnOnce() -> PathBuf,
    ) -> io::Result<File> {
        if let Some(file) = self.files.borrow_mut().get(&key) {
            return Ok(file.clone());
        }
        let forgotten = self.forgotten.get();
        let file = File::open(&path(), OpenOptions::new().read(true)).await?;
        // what was renamed or replaced while it was opened must not stay
        if forgotten == self.forgotten.get() {
            self.files.borrow_mut().put(key, file.clone());
        }
        Ok(file)
    }

    /// Forgets a file that was renamed or replaced.
    pub(crate) fn forget(&self, key: FileKey) {
        self.forgotten.set(self.forgotten.get() + 1);
        self.files.borrow_mut().remove(&key);
    }

    /// Forgets all files of a partition.
    pub(crate) fn forget_partition(&self, partition: u64) {
        self.forgotten.set(self.forgotten.get() + 1);
        self.files.borrow_mut().retain(|key| key.0 != partition);
    }
}

/// A map that keeps what was used last.
#[derive(Debug)]
struct Recent<K, V> {
    entries: BTreeMap<K, (V, u64)>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
    limit: usize,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    fn new(limit: usize) -> Self {
        Recent {
            entries: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            limit,
        }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        let (value, used) = self.entries.get_mut(key)?;
        let key = self.by_use.remove(used)?;
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        self.remove(&key);
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, (value, self.uses));
        while self.entries.len() > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.entries.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some((_, used)) = self.entries.remove(key) {
            self.by_use.remove(&used);
        }
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| keep(key));
        self.by_use.retain(|_, key| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut recent = Recent::new(2);
        recent.put('a', 1);
        recent.put('b', 2);
        assert_eq!(recent.get(&'a'), Some(&1));
        recent.put('c', 3);
        assert_eq!(recent.get(&'b'), None);
        assert_eq!(recent.get(&'a'), Some(&1));
        recent.put('a', 4);
        assert_eq!(recent.get(&'a'), Some(&4));
        recent.retain(|key| *key == 'c');
        assert_eq!((recent.entries.len(), recent.by_use.len()), (1, 1));
        let mut none: Recent<char, i32> = Recent::new(0);
        none.put('a', 1);
        assert_eq!(none.get(&'a'), None);
    }
}
