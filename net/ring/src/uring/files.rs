//! Registered files: descriptors that the kernel has looked up once.
//!
//! Each operation on a registered file saves a lookup and two atomic counts. The table holds a
//! reference of its own, so a place is emptied before the next turn after its descriptor was
//! dropped: only then does a socket really close.
//!
//! Source: io_uring_register_files_sparse(3), io_uring_register_files_update(3).

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::Submitter;

/// The places of one ring's table.
#[derive(Debug, Default)]
pub(crate) struct FileTable {
    free: RefCell<Vec<u32>>,
    released: RefCell<Vec<u32>>,
}

/// A place in the table; released when dropped.
#[derive(Debug)]
pub(crate) struct FixedSlot {
    index: u32,
    table: Rc<FileTable>,
}

impl Drop for FixedSlot {
    fn drop(&mut self) {
        self.table.released.borrow_mut().push(self.index);
    }
}

/// A descriptor of the kernel's, with its place in the ring's table if it found one.
#[derive(Debug)]
pub(crate) struct RealFd {
    pub(super) fd: OwnedFd,
    fixed: Option<FixedSlot>,
    /// A socket whose blocking sends have a time-out.
    pub(super) sends_bounded: Cell<bool>,
}

impl RealFd {
    /// The place in this table of registered files, if it is here that the descriptor has one:
    /// a file may outlive its ring and be used on another.
    pub(super) fn fixed(&self, table: &Rc<FileTable>) -> Option<u32> {
        let slot = self.fixed.as_ref()?;
        Rc::ptr_eq(&slot.table, table).then_some(slot.index)
    }
}

impl FileTable {
    /// Registers an empty table; without room for one (memlock), goes without.
    pub(super) fn new(submitter: &Submitter<'_>, places: u32) -> Rc<Self> {
        let table = FileTable::default();
        if places > 0 && submitter.register_files_sparse(places).is_ok() {
            table.free.borrow_mut().extend((0..places).rev());
        }
        Rc::new(table)
    }

    /// There is a table.
    pub(super) fn has_places(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    /// Takes a descriptor in, with a place in the table while there is room.
    pub(super) fn adopt(self: &Rc<Self>, submitter: &Submitter<'_>, fd: OwnedFd) -> RealFd {
        let index = self.free.borrow_mut().pop();
        let fixed = index.and_then(|index| {
            match submitter.register_files_update(index, &[fd.as_raw_fd()]) {
                Ok(_) => Some(FixedSlot {
                    index,
                    table: self.clone(),
                }),
                Err(_) => {
                    self.free.borrow_mut().push(index);
                    None
                }
            }
        });
        RealFd {
            fd,
            fixed,
            sends_bounded: Cell::new(false),
        }
    }

    /// Empties the places whose descriptors were dropped; one that cannot be emptied now is tried
    /// again.
    pub(super) fn sweep(&self, submitter: &Submitter<'_>) {
        if self.released.borrow().is_empty() {
            return;
        }
        for index in self.released.take() {
            match submitter.register_files_update(index, &[-1]) {
                Ok(_) => self.free.borrow_mut().push(index),
                Err(_) => self.released.borrow_mut().push(index),
            }
        }
    }
}
