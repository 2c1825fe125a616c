//! Simulated datagrams: lost, doubled, overtaken, dropped by a full socket.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::unix_datagram::Waiting;
use super::{Done, Effects, NetEvent, Network, OpKey, SocketId, State};
use crate::op::SocketAddress;

/// The longest datagram over IPv4 (udp(7)).
const DATAGRAM_MAX: usize = 65507;

/// A datagram that is overtaken comes so many delays later.
const OVERTAKEN_DELAYS: u64 = 8;

/// One datagram on its way.
#[derive(Debug)]
pub(in crate::sim) struct Datagram {
    /// The socket that sent it.
    sender: SocketId,
    node_from: usize,
    node_to: usize,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

/// What a datagram socket holds.
#[derive(Debug, Default)]
pub(super) struct DatagramSocket {
    pub peer: Option<SocketAddress>,
    /// The peer's socket, on the same node.
    pub peer_id: Option<SocketId>,
    pub(super) inbox: VecDeque<(Bytes, SocketAddress)>,
    pub(super) held: usize,
    recvs: VecDeque<OpKey>,
    /// Senders of Unix datagrams that found no room here.
    pub(super) waiting: VecDeque<Waiting>,
    /// The peer's host has answered that nobody is there (icmp(7)); told once.
    refused: bool,
}

impl DatagramSocket {
    pub(super) fn cancel(&mut self, op: OpKey) -> bool {
        let before = self.recvs.len();
        self.recvs.retain(|recv| *recv != op);
        self.recvs.len() < before
    }

    /// Takes the error that is to be told.
    fn take_error(&mut self) -> Option<i32> {
        std::mem::take(&mut self.refused).then_some(libc::ECONNREFUSED)
    }

    pub(super) fn flush(&mut self, out: &mut Effects) {
        while !self.recvs.is_empty() {
            let Some((bytes, from)) = self.inbox.pop_front() else {
                break;
            };
            self.held -= bytes.len();
            if let Some(op) = self.recvs.pop_front() {
                out.done.push((op, Done::Datagram { bytes, from }));
            }
            self.let_in(out);
        }
    }
}

impl Network {
    fn datagrams(&mut self, id: SocketId) -> Option<&mut DatagramSocket> {
        match &mut self.sockets.get_mut(&id)?.state {
            State::Datagrams(datagrams) => Some(datagrams),
            _ => None,
        }
    }

    /// Waits for one datagram.
    pub(in crate::sim) fn recv_from(&mut self, id: SocketId, op: OpKey, out: &mut Effects) {
        match self.datagrams(id) {
            Some(socket) => match socket.take_error() {
                Some(errno) => out.done.push((op, Done::Result(-errno))),
                None => {
                    socket.recvs.push_back(op);
                    socket.flush(out);
                }
            },
            None => out.done.push((op, Done::Result(-libc::EOPNOTSUPP))),
        }
    }

    /// Sends one datagram, or a train of them of `segment` bytes each. Returns the operation's
    /// result.
    pub(in crate::sim) fn send_to(
        &mut self,
        now: u64,
        id: SocketId,
        bufs: &[Bytes],
        to: Option<SocketAddr>,
        segment: Option<u16>,
        out: &mut Effects,
    ) -> i32 {
        let Some(socket) = self.datagrams(id) else {
            return -libc::EOPNOTSUPP;
        };
        if let Some(errno) = socket.take_error() {
            return -errno;
        }
        let peer = match socket.peer {
            Some(SocketAddress::Ip(peer)) => Some(peer),
            _ => None,
        };
        let Some(to) = to.or(peer) else {
            return -libc::EDESTADDRREQ;
        };
        let mut joined = BytesMut::new();
        bufs.iter().for_each(|buf| joined.extend_from_slice(buf));
        if joined.len() > DATAGRAM_MAX {
            return -libc::EMSGSIZE;
        }
        let mut left = joined.freeze();
        let total = left.len();
        let Some((node_from, from)) = self.sender(id, to) else {
            return -libc::EBADF;
        };
        let nodes_to = self.nodes_of(id, node_from, to);
        let step = segment.map_or(total, usize::from).max(1);
        loop {
            let bytes = left.split_to(step.min(left.len()));
            for &node_to in &nodes_to {
                let bytes = bytes.clone();
                let datagram = Datagram {
                    sender: id,
                    node_from,
                    node_to,
                    from,
                    to,
                    bytes,
                };
                self.launch(now, datagram, out);
            }
            if left.is_empty() {
                return total as i32;
            }
        }
    }

    /// The nodes that a datagram goes to: of a multicast group all that have a member, each by
    /// a way of its own, on which it may be lost.
    fn nodes_of(&self, id: SocketId, node_from: usize, to: SocketAddr) -> Vec<usize> {
        if !to.ip().is_multicast() {
            return self.host_of(node_from, to.ip()).into_iter().collect();
        }
        let loopback = self.sockets.get(&id).is_some_and(|socket| socket.loopback);
        let members = |node: usize| self.bound.contains_key(&(node, true, to.port()));
        let nodes = (0..self.hosts.len()).filter(|node| *node != node_from || loopback);
        nodes.filter(|node| members(*node)).collect()
    }

    /// The node and address that a datagram to `to` comes from.
    fn sender(&self, id: SocketId, to: SocketAddr) -> Option<(usize, SocketAddr)> {
        let socket = self.sockets.get(&id)?;
        let SocketAddress::Ip(local) = socket.local else {
            return None;
        };
        let ip = match local.ip() {
            ip if !ip.is_unspecified() => ip,
            _ if to.ip().is_loopback() => to.ip(),
            _ => self.hosts[socket.node].ip,
        };
        Some((socket.node, SocketAddr::new(ip, local.port())))
    }

    fn launch(&mut self, now: u64, datagram: Datagram, out: &mut Effects) {
        let Datagram {
            sender,
            node_from,
            node_to,
            from,
            to,
            ref bytes,
        } = datagram;
        let remote = node_from != node_to;
        let mut copies = 1;
        if remote {
            copies += u32::from(self.faults.duplicate.strikes(&mut self.random));
        }
        for _ in 0..copies {
            if remote && self.faults.loss.strikes(&mut self.random) {
                continue;
            }
            let mut at = now + self.draw_delay(node_from, node_to);
            if remote && self.faults.reorder.strikes(&mut self.random) {
                for _ in 0..OVERTAKEN_DELAYS {
                    at += self.draw_delay(node_from, node_to);
                }
            }
            let bytes = bytes.clone();
            let datagram = Box::new(Datagram {
                sender,
                node_from,
                node_to,
                from,
                to,
                bytes,
            });
            out.events.push((at, NetEvent::Datagram(datagram)));
        }
    }

    pub(super) fn datagram_arrives(&mut self, now: u64, datagram: Datagram, out: &mut Effects) {
        let Datagram {
            sender,
            node_from,
            node_to,
            from,
            to,
            bytes,
        } = datagram;
        if !self.gets_through(node_from, node_to) {
            return;
        }
        let nobody = Vec::new();
        let sharers = self.bound.get(&(node_to, true, to.port()));
        let sharers = sharers.unwrap_or(&nobody);
        let fitting: Vec<SocketId> = sharers
            .iter()
            .copied()
            .filter(|id| match &self.sockets[id] {
                super::Socket { local: SocketAddress::Ip(own), state, .. } => {
                    let connected_elsewhere = matches!(
                        state, State::Datagrams(DatagramSocket { peer: Some(SocketAddress::Ip(peer)), .. }) if *peer != from
                    );
                    let everywhere = own.ip().is_unspecified() && !to.ip().is_multicast();
                    (own.ip() == to.ip() || everywhere) && !connected_elsewhere
                }
                _ => false,
            })
            .collect();
        if fitting.is_empty() {
            return self.refuse_datagram(sender, (node_to, node_from), to, now, out);
        }
        // Every member of a group gets it; of the sharers of an address, one.
        let fitting = match to.ip().is_multicast() {
            true => fitting,
            false => vec![self.random.pick(&fitting)],
        };
        for id in fitting {
            let own = self.sockets.get(&id);
            let limit = own.and_then(|socket| socket.tuning.receive_buffer);
            let limit = limit.unwrap_or(self.faults.datagram_buffer);
            let Some(socket) = self.datagrams(id) else {
                continue;
            };
            if socket.held + bytes.len() <= limit {
                socket.held += bytes.len();
                let from = SocketAddress::Ip(from);
                socket.inbox.push_back((bytes.clone(), from));
                socket.flush(out);
            }
        }
    }

    /// Nobody is where a datagram went. Only a sender that is connected hears of it (udp(7)).
    fn refuse_datagram(
        &mut self,
        sender: SocketId,
        (node, back): (usize, usize),
        to: SocketAddr,
        now: u64,
        out: &mut Effects,
    ) {
        let connected = match self.datagrams(sender) {
            Some(socket) => socket.peer == Some(SocketAddress::Ip(to)),
            None => false,
        };
        if connected && self.gets_through(node, back) {
            let at = now + self.draw_delay(node, back);
            out.events.push((at, NetEvent::Refused { socket: sender }));
        }
    }

    /// The host of a connected peer answers that nobody is there.
    pub(super) fn refused(&mut self, id: SocketId, out: &mut Effects) {
        let Some(socket) = self.datagrams(id) else {
            return;
        };
        match socket.recvs.pop_front() {
            Some(op) => out.done.push((op, Done::Result(-libc::ECONNREFUSED))),
            None => socket.refused = true,
        }
    }
}
