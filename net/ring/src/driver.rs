//! The one seam: operations go in, completions come out.
//!
//! Two drivers stand behind it: io_uring on a real Linux, and a share of a seeded simulated
//! world. Everything above is the same code on both, down to the last byte.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::bell::Bell;
use crate::op::{Chunk, Completion, Descriptor, Op, SlotKey, SocketSpec};
use crate::setting::{Name, Setting};
use crate::sim::SimDriver;
use crate::uring::Uring;

/// How long a turn may sleep for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Submit and reap what is there.
    Poll,
    /// Sleep until a completion, a wake-up, or the time is over.
    Until(Option<Duration>),
}

/// Either world.
pub(crate) enum Driver {
    Uring(Box<Uring>),
    Sim(SimDriver),
}

macro_rules! both {
    ($self:expr, $driver:ident => $body:expr) => {
        match $self {
            Driver::Uring($driver) => $body,
            Driver::Sim($driver) => $body,
        }
    };
}

impl Driver {
    /// Takes an operation; its completion will name `slot`. Reaches the kernel at the latest
    /// with the next [`Driver::turn`].
    pub(crate) fn submit(&mut self, slot: SlotKey, op: Op) {
        both!(self, d => d.submit(slot, op))
    }

    /// Asks for an early end of the operation. Its own completion still comes, with `ECANCELED`
    /// or with what it had achieved; until then its buffers and descriptor stay here.
    pub(crate) fn cancel(&mut self, slot: SlotKey) {
        both!(self, d => d.cancel(slot))
    }

    /// Submits once, sleeps if told to, and appends what completed to `out`.
    pub(crate) fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        both!(self, d => d.turn(wait, out))
    }

    /// True if a turn would find work without sleeping (for a spinning core; makes no call).
    pub(crate) fn is_ready(&mut self) -> bool {
        both!(self, d => d.is_ready())
    }

    /// Appends a chunk's bytes to `into`, if anyone wants them, and gives its memory back to the
    /// driver.
    pub(crate) fn take_chunk(&mut self, chunk: Chunk, into: Option<&mut BytesMut>) {
        both!(self, d => d.take_chunk(chunk, into))
    }

    /// Makes, binds and listens on a socket; none of this waits.
    pub(crate) fn socket(&mut self, spec: &SocketSpec) -> io::Result<Descriptor> {
        both!(self, d => d.socket(spec))
    }

    /// Two Unix streams that are connected with each other (socketpair(2)).
    pub(crate) fn socket_pair(&mut self) -> io::Result<(Descriptor, Descriptor)> {
        both!(self, d => d.socket_pair())
    }

    /// Tells a socket a setting.
    pub(crate) fn set(&mut self, fd: &Descriptor, setting: Setting) -> io::Result<()> {
        both!(self, d => d.set(fd, setting))
    }

    /// Asks a socket for a setting.
    pub(crate) fn get(&self, fd: &Descriptor, name: Name) -> io::Result<Setting> {
        both!(self, d => d.get(fd, name))
    }

    /// The addresses of a socket: its own, and its peer's if it is connected.
    pub(crate) fn socket_addr(
        &self,
        fd: &Descriptor,
        peer: bool,
    ) -> io::Result<crate::op::SocketAddress> {
        both!(self, d => d.socket_addr(fd, peer))
    }

    /// Locks a file for this process alone, until its descriptor closes (`flock(2)`); false if
    /// another holds it.
    pub(crate) fn try_lock(&mut self, fd: &Descriptor) -> io::Result<bool> {
        both!(self, d => d.try_lock(fd))
    }

    /// Rings another core's bell by a message to its ring (`IORING_OP_MSG_RING`), with the next
    /// turn; false if this driver has no such thing.
    pub(crate) fn send_ring(&mut self, bell: &Arc<Bell>) -> bool {
        match self {
            Driver::Uring(d) => d.send_ring(bell),
            Driver::Sim(_) => false,
        }
    }

    /// There are operations that have not reached the kernel yet.
    pub(crate) fn has_queued(&mut self) -> bool {
        match self {
            Driver::Uring(d) => d.has_queued(),
            Driver::Sim(_) => false,
        }
    }

    /// Whether `SendFile` saves anything over a read and a send.
    pub(crate) fn splices(&self) -> bool {
        match self {
            Driver::Uring(d) => d.features().splice,
            Driver::Sim(_) => true,
        }
    }

    /// Whether a send from the caller's own memory can be asked for.
    pub(crate) fn sends_without_copy(&self) -> bool {
        match self {
            Driver::Uring(d) => d.features().zero_copy,
            Driver::Sim(_) => true,
        }
    }

    /// The end: cancels what waits for a peer, lets the rest complete, and appends it to `out`.
    pub(crate) fn close(&mut self, out: &mut Vec<Completion>) {
        match self {
            Driver::Uring(d) => d.close(out),
            // Ends with its process, which the world ends.
            Driver::Sim(_) => {}
        }
    }

    /// The address of a machine of a simulated world, if it has one of this name; `None` if the world
    /// is the real one.
    pub(crate) fn simulated_host(&self, name: &str) -> Option<Option<IpAddr>> {
        match self {
            Driver::Uring(_) => None,
            Driver::Sim(d) => Some(d.host(name)),
        }
    }

    /// Monotonic nanoseconds since an arbitrary start.
    pub(crate) fn now_ns(&self) -> u64 {
        both!(self, d => d.now_ns())
    }

    /// Milliseconds since the Unix epoch, by this node's wall clock.
    pub(crate) fn wall_clock_ms(&self) -> i64 {
        both!(self, d => d.wall_clock_ms())
    }

    /// A random number: the system's, or the seed's.
    pub(crate) fn random_u64(&mut self) -> u64 {
        both!(self, d => d.random_u64())
    }
}
