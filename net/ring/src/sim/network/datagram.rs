//! Simulated datagrams: lost, doubled, overtaken, dropped by a full socket.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::{Done, Effects, NetEvent, Network, OpKey, SocketId, State};
use crate::op::SocketAddress;

/// The longest datagram over IPv4 (udp(7)).
const DATAGRAM_MAX: usize = 65507;

/// A datagram that is overtaken comes so many delays later.
const OVERTAKEN_DELAYS: u64 = 8;

/// One datagram on its way.
#[derive(Debug)]
pub(in crate::sim) struct Datagram {
    node_from: usize,
    node_to: usize,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

/// What a datagram socket holds.
#[derive(Debug, Default)]
pub(super) struct DatagramSocket {
    pub peer: Option<SocketAddr>,
    inbox: VecDeque<(Bytes, SocketAddr)>,
    held: usize,
    recvs: VecDeque<OpKey>,
}

impl DatagramSocket {
    pub(super) fn cancel(&mut self, op: OpKey) -> bool {
        let before = self.recvs.len();
        self.recvs.retain(|recv| *recv != op);
        self.recvs.len() < before
    }

    fn flush(&mut self, out: &mut Effects) {
        while !self.recvs.is_empty() {
            let Some((bytes, from)) = self.inbox.pop_front() else {
                break;
            };
            self.held -= bytes.len();
            if let Some(op) = self.recvs.pop_front() {
                out.done.push((op, Done::Datagram { bytes, from }));
            }
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
            Some(socket) => {
                socket.recvs.push_back(op);
                socket.flush(out);
            }
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
        let Some(to) = to.or(socket.peer) else {
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
                node_from,
                node_to,
                from,
                to,
                bytes,
            });
            out.events.push((at, NetEvent::Datagram(datagram)));
        }
    }

    pub(super) fn datagram_arrives(&mut self, datagram: Datagram, out: &mut Effects) {
        let Datagram {
            node_from,
            node_to,
            from,
            to,
            bytes,
        } = datagram;
        if !self.gets_through(node_from, node_to) {
            return;
        }
        let limit = self.faults.datagram_buffer;
        let Some(sharers) = self.bound.get(&(node_to, true, to.port())) else {
            return;
        };
        let fitting: Vec<SocketId> = sharers
            .iter()
            .copied()
            .filter(|id| match &self.sockets[id] {
                super::Socket { local: SocketAddress::Ip(own), state, .. } => {
                    let connected_elsewhere = matches!(
                        state, State::Datagrams(DatagramSocket { peer: Some(peer), .. }) if *peer != from
                    );
                    let everywhere = own.ip().is_unspecified() && !to.ip().is_multicast();
                    (own.ip() == to.ip() || everywhere) && !connected_elsewhere
                }
                _ => false,
            })
            .collect();
        if fitting.is_empty() {
            return;
        }
        // Every member of a group gets it; of the sharers of an address, one.
        let fitting = match to.ip().is_multicast() {
            true => fitting,
            false => vec![self.random.pick(&fitting)],
        };
        for id in fitting {
            let Some(socket) = self.datagrams(id) else {
                continue;
            };
            if socket.held + bytes.len() <= limit {
                socket.held += bytes.len();
                socket.inbox.push_back((bytes.clone(), from));
                socket.flush(out);
            }
        }
    }
}
