//! Simulated Unix datagrams: in order, none lost, and senders that wait (unix(7)).

use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::{Done, Effects, Network, OpKey, SocketId, State};
use crate::op::SocketAddress;
use crate::sim::disk::Errno;

/// The longest one (`SO_SNDBUF` as a system has it by default).
const DATAGRAM_MAX: usize = 208 << 10;

/// How many wait for a receiver before a sender has to (`net.unix.max_dgram_qlen`).
const QUEUE_MAX: usize = 10;

/// A sender that waits for room.
#[derive(Debug)]
pub(super) struct Waiting {
    pub op: OpKey,
    bytes: Bytes,
    from: SocketAddress,
}

impl Network {
    /// The datagram socket that a path of a node leads to.
    pub(super) fn unix_datagrams(&self, node: usize, path: &Path) -> Result<SocketId, Errno> {
        let id = self.unix.get(&(node, path.to_owned()));
        let id = *id.ok_or(libc::ECONNREFUSED)?;
        match self.sockets[&id].state {
            State::Datagrams(_) => Ok(id),
            _ => Err(libc::EPROTOTYPE),
        }
    }

    /// A socket that never leaves its node.
    pub(in crate::sim) fn is_unix(&self, id: SocketId) -> bool {
        let socket = self.sockets.get(&id);
        socket.is_some_and(|socket| matches!(socket.local, SocketAddress::Unix(_)))
    }

    /// Whether a send from the sender's own memory is refused here: on Unix sockets always.
    pub(in crate::sim) fn refuses_zero_copy(&mut self, id: SocketId) -> bool {
        self.is_unix(id) || self.faults.no_zero_copy.strikes(&mut self.random)
    }

    /// Sends one, at once or when there is room.
    pub(in crate::sim) fn send_unix(
        &mut self,
        id: SocketId,
        op: OpKey,
        bufs: &[Bytes],
        to: Option<&Path>,
        out: &mut Effects,
    ) {
        if let Err(errno) = self.try_send_unix(id, op, bufs, to, out) {
            out.done.push((op, Done::Result(-errno)));
        }
    }

    fn try_send_unix(
        &mut self,
        id: SocketId,
        op: OpKey,
        bufs: &[Bytes],
        to: Option<&Path>,
        out: &mut Effects,
    ) -> Result<(), Errno> {
        let socket = self.sockets.get(&id).ok_or(libc::EBADF)?;
        let (node, from) = (socket.node, socket.local.clone());
        let State::Datagrams(own) = &socket.state else {
            return Err(libc::EOPNOTSUPP);
        };
        let receiver = match (to, &own.peer) {
            (Some(path), _) => self.unix_datagrams(node, path)?,
            // The peer is that socket, whatever has its path by now.
            (None, Some(_)) => own.peer_id.ok_or(libc::ECONNREFUSED)?,
            (None, None) => return Err(libc::ENOTCONN),
        };
        let mut joined = BytesMut::new();
        bufs.iter().for_each(|buf| joined.extend_from_slice(buf));
        if joined.len() > DATAGRAM_MAX {
            return Err(libc::EMSGSIZE);
        }
        let bytes = joined.freeze();
        let receiver = self.sockets.get_mut(&receiver);
        let Some(State::Datagrams(receiving)) = receiver.map(|socket| &mut socket.state) else {
            return Err(libc::ECONNREFUSED);
        };
        // Connected elsewhere, it takes nothing of ours.
        if receiving.peer.as_ref().is_some_and(|peer| *peer != from) {
            return Err(libc::EPERM);
        }
        receiving.waiting.push_back(Waiting { op, bytes, from });
        receiving.let_in(out);
        receiving.flush(out);
        Ok(())
    }

    /// A sender that waits somewhere for room gives up.
    pub(super) fn stop_sending(&mut self, op: OpKey) -> bool {
        self.sockets
            .values_mut()
            .any(|socket| match &mut socket.state {
                State::Datagrams(receiving) => receiving.stop_waiting(op),
                _ => false,
            })
    }
}

impl super::datagram::DatagramSocket {
    /// Those that wait come in while there is room.
    pub(super) fn let_in(&mut self, out: &mut Effects) {
        while self.inbox.len() < QUEUE_MAX
            && let Some(Waiting { op, bytes, from }) = self.waiting.pop_front()
        {
            out.done.push((op, Done::Result(bytes.len() as i32)));
            self.held += bytes.len();
            self.inbox.push_back((bytes, from));
        }
    }

    /// A sender gives up.
    pub(super) fn stop_waiting(&mut self, op: OpKey) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.op != op);
        self.waiting.len() < before
    }

    /// The receiver is gone.
    pub(super) fn refuse_all(&mut self, out: &mut Effects) {
        for waiting in self.waiting.drain(..) {
            out.done
                .push((waiting.op, Done::Result(-libc::ECONNREFUSED)));
        }
    }
}
