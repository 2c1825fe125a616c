//! One simulated core's driver: the same seam as the real ring's, into a shared world.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::rc::Rc;

use bytes::BytesMut;

use super::kernel::Kernel;
use super::network::OpKey;
use crate::driver::Wait;
use crate::op::{Chunk, Completion, Descriptor, Op, SlotKey, SocketAddress, SocketSpec};
use crate::setting::{Name, Setting};

/// Descriptors that were dropped and are still to be closed. A drop may happen anywhere, also
/// while the world is at work; it only leaves a note here.
#[derive(Clone, Debug, Default)]
pub(super) struct Dropped(Rc<RefCell<Vec<u32>>>);

impl Dropped {
    /// All notes since the last call.
    pub(super) fn take(&self) -> Vec<u32> {
        mem::take(&mut *self.0.borrow_mut())
    }
}

/// An open descriptor of the simulated world; closes when it is dropped.
#[derive(Debug)]
pub(crate) struct SimFd {
    pub(super) number: u32,
    dropped: Dropped,
}

impl SimFd {
    pub(super) fn new(number: u32, dropped: Dropped) -> Self {
        SimFd { number, dropped }
    }
}

impl Drop for SimFd {
    fn drop(&mut self) {
        self.dropped.0.borrow_mut().push(self.number);
    }
}

/// The number of a simulated descriptor.
///
/// # Panics
/// If it is a real one: cores of two worlds share nothing.
pub(super) fn number(fd: &Descriptor) -> u32 {
    match fd {
        Descriptor::Sim(fd) => fd.number,
        Descriptor::Real(fd) => panic!("the real descriptor {fd:?} in a simulated world"),
    }
}

/// A core's view of the world.
pub(crate) struct SimDriver {
    kernel: Rc<RefCell<Kernel>>,
    core: u32,
}

impl SimDriver {
    pub(super) fn new(kernel: Rc<RefCell<Kernel>>, core: u32) -> Self {
        SimDriver { kernel, core }
    }

    fn key(&self, slot: SlotKey) -> OpKey {
        OpKey {
            core: self.core,
            slot,
        }
    }

    pub(crate) fn submit(&mut self, slot: SlotKey, op: Op) {
        self.kernel.borrow_mut().submit(self.key(slot), op);
    }

    pub(crate) fn cancel(&mut self, slot: SlotKey) {
        self.kernel.borrow_mut().cancel(self.key(slot));
    }

    /// A simulated turn never sleeps: the world knows when there is something to do.
    pub(crate) fn turn(&mut self, _wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        self.kernel.borrow_mut().reap(self.core, out);
        Ok(())
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        self.kernel.borrow().is_ready(self.core)
    }

    pub(crate) fn take_chunk(&mut self, chunk: Chunk, into: Option<&mut BytesMut>) {
        match (chunk, into) {
            (Chunk::Owned(bytes), Some(into)) => into.extend_from_slice(&bytes),
            (Chunk::Owned(_), None) => {}
            (Chunk::Provided { .. }, _) => unreachable!("no provided buffers in a simulated world"),
        }
    }

    pub(crate) fn socket(&mut self, spec: &SocketSpec) -> io::Result<Descriptor> {
        let made = self.kernel.borrow_mut().socket(self.core, spec);
        made.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn socket_addr(&self, fd: &Descriptor, peer: bool) -> io::Result<SocketAddress> {
        let addr = self.kernel.borrow().socket_addr(number(fd), peer);
        addr.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn socket_pair(&mut self) -> io::Result<(Descriptor, Descriptor)> {
        let made = self.kernel.borrow_mut().socket_pair(self.core);
        made.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn set(&mut self, fd: &Descriptor, setting: Setting) -> io::Result<()> {
        let set = self.kernel.borrow_mut().set(number(fd), setting);
        set.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn get(&self, fd: &Descriptor, name: Name) -> io::Result<Setting> {
        let found = self.kernel.borrow().get(number(fd), name);
        found.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn try_lock(&mut self, fd: &Descriptor) -> io::Result<bool> {
        let locked = self.kernel.borrow_mut().try_lock(number(fd));
        locked.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn host(&self, name: &str) -> Option<std::net::IpAddr> {
        self.kernel.borrow().host(name)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.kernel.borrow().monotonic_ns(self.core)
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        self.kernel.borrow().wall_ms(self.core)
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        self.kernel.borrow_mut().random_u64(self.core)
    }
}
