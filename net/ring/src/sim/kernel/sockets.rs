//! Calls on simulated sockets that never wait.

use super::{Kernel, Opened};
use crate::op::{Descriptor, Op};
use crate::setting::{Name, Setting};
use crate::sim::disk::Errno;
use crate::sim::network::{Effects, OpKey, SocketId};

impl Kernel {
    pub(super) fn open_socket(&self, number: u32) -> Result<SocketId, Errno> {
        match self.open.get(&number).map(|open| &open.what) {
            Some(Opened::Socket(socket)) => Ok(*socket),
            Some(Opened::File { .. }) => Err(libc::ENOTSOCK),
            None => Err(libc::EBADF),
        }
    }

    pub(in crate::sim) fn socket_pair(
        &mut self,
        core: u32,
    ) -> Result<(Descriptor, Descriptor), Errno> {
        self.close_dropped();
        let super::SimCore { node, process, .. } = *self.core(core);
        if !self.has_room(node, process) {
            return Err(libc::EMFILE);
        }
        let (one, other) = self.network.pair(self.now, node);
        let one = self.install(node, process, Opened::Socket(one));
        let other = self.install(node, process, Opened::Socket(other));
        let facts = [11, u64::from(one.number), u64::from(other.number)];
        let words = format_args!("core {core} socket pair {} {}", one.number, other.number);
        self.trace.note(self.now, &facts, words);
        Ok((Descriptor::Sim(one), Descriptor::Sim(other)))
    }

    pub(in crate::sim) fn set(&mut self, number: u32, setting: Setting) -> Result<(), Errno> {
        self.close_dropped();
        let socket = self.open_socket(number)?;
        let mut effects = Effects::default();
        let set = self.network.set(self.now, socket, setting, &mut effects);
        self.settle(effects);
        let words = format_args!("socket {number} is told {setting:?}");
        self.trace.note(self.now, &[12, u64::from(number)], words);
        set
    }

    pub(in crate::sim) fn get(&self, number: u32, name: Name) -> Result<Setting, Errno> {
        self.network.get(self.open_socket(number)?, name)
    }

    pub(in crate::sim) fn socket_addr(
        &self,
        number: u32,
        peer: bool,
    ) -> Result<crate::op::SocketAddress, Errno> {
        self.network.addr(self.open_socket(number)?, peer)
    }

    /// A receive that takes one piece into a buffer of its own.
    pub(super) fn takes_once(&self, key: OpKey) -> bool {
        let flight = self.in_flight.get(&key);
        flight.is_some_and(|flight| matches!(flight.op, Op::RecvOnce { .. }))
    }

    /// Its piece has come.
    pub(super) fn fill(&mut self, key: OpKey, bytes: &[u8]) {
        if let Some(flight) = self.in_flight.get_mut(&key)
            && let Op::RecvOnce { buf, .. } = &mut flight.op
        {
            buf.extend_from_slice(bytes);
            self.end(key, bytes.len() as i32);
        }
    }
}
