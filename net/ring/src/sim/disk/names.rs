//! The folders of a simulated disk: the tree that programs see, the tree that the journal
//! holds, and the changes in between.
//!
//! A change of names is durable only after its folder was flushed (`fsync(2)`: "does not
//! necessarily ensure that the entry in the directory containing the file has also reached
//! disk"). After a power cut the changes of each folder that survive are the first ones, in
//! order; a rename between two folders survives in both or in neither, and not before what was
//! done earlier in either. That is less than most journals promise (one order for all folders),
//! and all that POSIX lets a program count on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Component, Path};

use super::{Errno, Inode};
use crate::sim::random::Random;

/// The folder above all.
pub(super) const ROOT: Inode = 1;

/// Unflushed changes of names; past it, the journal commits the oldest by itself.
const PENDING_MAX: usize = 256;

type Folder = BTreeMap<String, Inode>;

/// A place in the tree: a folder and a name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub dir: Inode,
    pub name: String,
}

#[derive(Clone, Debug)]
enum Change {
    Link {
        at: Place,
        inode: Inode,
        is_dir: bool,
    },
    Unlink {
        at: Place,
    },
    Rename {
        from: Place,
        to: Place,
    },
}

impl Change {
    fn dirs(&self) -> [Inode; 2] {
        match self {
            Change::Link { at, .. } | Change::Unlink { at } => [at.dir, at.dir],
            Change::Rename { from, to } => [from.dir, to.dir],
        }
    }
}

#[derive(Clone, Debug)]
struct Tree {
    /// Every folder that ever was linked, by its number.
    dirs: BTreeMap<Inode, Folder>,
}

impl Tree {
    fn new() -> Self {
        Tree {
            dirs: BTreeMap::from([(ROOT, Folder::new())]),
        }
    }

    fn get(&self, place: &Place) -> Option<Inode> {
        self.dirs.get(&place.dir)?.get(&place.name).copied()
    }

    fn folder(&mut self, dir: Inode) -> &mut Folder {
        self.dirs.entry(dir).or_default()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { at, inode, is_dir } => {
                self.folder(at.dir).insert(at.name.clone(), *inode);
                if *is_dir {
                    self.folder(*inode);
                }
            }
            Change::Unlink { at } => {
                let gone = self.folder(at.dir).remove(&at.name);
                self.forget_empty(gone);
            }
            Change::Rename { from, to } => {
                if let Some(inode) = self.folder(from.dir).remove(&from.name) {
                    let replaced = self.folder(to.dir).insert(to.name.clone(), inode);
                    self.forget_empty(replaced);
                }
            }
        }
    }

    fn forget_empty(&mut self, inode: Option<Inode>) {
        if let Some(inode) = inode
            && self.dirs.get(&inode).is_some_and(Folder::is_empty)
        {
            self.dirs.remove(&inode);
        }
    }

    /// Calls `each` for everything below a folder, with its path.
    fn walk(&self, dir: Inode, path: &str, each: &mut impl FnMut(String, Inode, bool)) {
        for (name, inode) in self.dirs.get(&dir).into_iter().flatten() {
            let path = format!("{path}/{name}");
            let is_dir = self.dirs.contains_key(inode);
            each(path.clone(), *inode, is_dir);
            if is_dir {
                self.walk(*inode, &path, each);
            }
        }
    }

    /// All that can be reached, with the root.
    fn reachable(&self) -> BTreeSet<Inode> {
        let mut reachable = BTreeSet::from([ROOT]);
        self.walk(ROOT, "", &mut |_, inode, _| {
            reachable.insert(inode);
        });
        reachable
    }
}

/// The names of one disk.
#[derive(Clone, Debug)]
pub(super) struct Names {
    cache: Tree,
    durable: Tree,
    /// Changes that the cache has and the journal may lack, oldest first, each with its number.
    pending: VecDeque<(u64, Change)>,
    /// The number of the next change.
    next: u64,
}

impl Names {
    pub(super) fn new() -> Self {
        Names {
            cache: Tree::new(),
            durable: Tree::new(),
            pending: VecDeque::new(),
            next: 0,
        }
    }

    /// Walks to the folder that holds the last name of `path`. The root itself has no place.
    fn place(&self, path: &Path) -> Result<Option<Place>, Errno> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name.to_str().ok_or(libc::EINVAL)?),
                Component::ParentDir => {
                    names.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let Some((last, above)) = names.split_last() else {
            return Ok(None);
        };
        if last.len() > 255 {
            return Err(libc::ENAMETOOLONG);
        }
        let mut dir = ROOT;
        for name in above {
            let folder = self.cache.dirs.get(&dir).ok_or(libc::ENOTDIR)?;
            dir = *folder.get(*name).ok_or(libc::ENOENT)?;
        }
        if !self.is_dir(dir) {
            return Err(libc::ENOTDIR);
        }
        Ok(Some(Place {
            dir,
            name: (*last).to_owned(),
        }))
    }

    /// Where a new name would stand, and what stands there now.
    pub(super) fn look(&self, path: &Path) -> Result<(Place, Option<Inode>), Errno> {
        let place = self.place(path)?.ok_or(libc::EEXIST)?;
        let inode = self.cache.get(&place);
        Ok((place, inode))
    }

    /// The file or folder at a path.
    pub(super) fn find(&self, path: &Path) -> Result<Inode, Errno> {
        match self.place(path)? {
            Some(place) => self.cache.get(&place).ok_or(libc::ENOENT),
            None => Ok(ROOT),
        }
    }

    pub(super) fn is_dir(&self, inode: Inode) -> bool {
        self.cache.dirs.contains_key(&inode)
    }

    /// The entries of a folder, sorted by name.
    pub(super) fn entries(&self, dir: Inode) -> Result<&BTreeMap<String, Inode>, Errno> {
        self.cache.dirs.get(&dir).ok_or(libc::ENOTDIR)
    }

    /// All paths that programs see, with their numbers and whether they are folders.
    pub(super) fn paths(&self) -> Vec<(String, Inode, bool)> {
        let mut paths = Vec::new();
        self.cache.walk(ROOT, "", &mut |path, inode, is_dir| {
            paths.push((path, inode, is_dir))
        });
        paths
    }

    fn change(&mut self, change: Change) {
        self.cache.apply(&change);
        self.pending.push_back((self.next, change));
        self.next += 1;
        if self.pending.len() > PENDING_MAX
            && let Some((_, oldest)) = self.pending.pop_front()
        {
            self.durable.apply(&oldest);
        }
    }

    /// A new file or folder.
    pub(super) fn link(&mut self, at: Place, inode: Inode, is_dir: bool) {
        self.change(Change::Link { at, inode, is_dir });
    }

    /// `unlink(2)`, or `rmdir(2)` with `dir`. Returns what went.
    pub(super) fn unlink(&mut self, path: &Path, dir: bool) -> Result<Inode, Errno> {
        let at = self.place(path)?.ok_or(libc::EBUSY)?;
        let inode = self.cache.get(&at).ok_or(libc::ENOENT)?;
        match (dir, self.cache.dirs.get(&inode)) {
            (true, None) => return Err(libc::ENOTDIR),
            (false, Some(_)) => return Err(libc::EISDIR),
            (true, Some(folder)) if !folder.is_empty() => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        self.change(Change::Unlink { at });
        Ok(inode)
    }

    /// `rename(2)`. Returns what was replaced.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<Option<Inode>, Errno> {
        let from = self.place(from)?.ok_or(libc::EBUSY)?;
        let to = self.place(to)?.ok_or(libc::EBUSY)?;
        let inode = self.cache.get(&from).ok_or(libc::ENOENT)?;
        let replaced = self.cache.get(&to);
        if replaced == Some(inode) {
            return Ok(None);
        }
        let mut below = BTreeSet::new();
        self.cache.walk(inode, "", &mut |_, inode, _| {
            below.insert(inode);
        });
        if inode == to.dir || below.contains(&to.dir) {
            return Err(libc::EINVAL);
        }
        if let Some(old) = replaced {
            match (self.is_dir(inode), self.cache.dirs.get(&old)) {
                (true, None) => return Err(libc::ENOTDIR),
                (false, Some(_)) => return Err(libc::EISDIR),
                (true, Some(folder)) if !folder.is_empty() => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        self.change(Change::Rename { from, to });
        Ok(replaced)
    }

    /// The mark of a folder's flush that begins now.
    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    /// The flush of a folder ends well: its changes before `mark` are durable, and what they
    /// need of other folders.
    pub(super) fn sync_dir(&mut self, dir: Inode, mark: u64) {
        let mut needed = BTreeSet::from([dir]);
        let mut chosen = Vec::new();
        for (index, (number, change)) in self.pending.iter().enumerate().rev() {
            let dirs = change.dirs();
            if *number < mark && dirs.iter().any(|dir| needed.contains(dir)) {
                needed.extend(dirs);
                chosen.push(index);
            }
        }
        for index in chosen.iter().rev() {
            self.durable.apply(&self.pending[*index].1);
        }
        for index in chosen {
            self.pending.remove(index);
        }
    }

    /// All changes are durable.
    pub(super) fn sync_all(&mut self) {
        for (_, change) in self.pending.drain(..) {
            self.durable.apply(&change);
        }
    }

    /// The power goes, and comes again. The tree is now what the journal holds, with those of
    /// the pending changes that chance let survive.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        let cut_in_million = random.pick(&[0, 50_000, 500_000, 1_000_000]);
        // One journal for all folders, or one for each.
        let one_order = random.coin();
        let mut cut = BTreeSet::new();
        let mut ended = false;
        for (_, change) in self.pending.drain(..) {
            let dirs = change.dirs();
            let blocked = ended || dirs.iter().any(|dir| cut.contains(dir));
            if blocked || random.per_million(cut_in_million) {
                cut.extend(dirs);
                ended |= one_order;
            } else {
                self.durable.apply(&change);
            }
        }
        let reachable = self.durable.reachable();
        self.durable.dirs.retain(|dir, _| reachable.contains(dir));
        self.cache = self.durable.clone();
    }

    /// Everything that has a name now or may have one after a power cut.
    pub(super) fn remembered(&self) -> BTreeSet<Inode> {
        let mut remembered = self.cache.reachable();
        for folder in self.durable.dirs.values() {
            remembered.extend(folder.values());
        }
        for (_, change) in &self.pending {
            if let Change::Link { inode, .. } = change {
                remembered.insert(*inode);
            }
        }
        remembered
    }
}
