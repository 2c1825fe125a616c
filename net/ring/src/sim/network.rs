//! The simulated network: hosts, sockets, and what travels between them.
//!
//! Pure: no clock, no waiting. Each method is told the time and writes down in [`Effects`]
//! which operations ended and what is to happen later. Connections are in `connection`,
//! datagrams in `datagram`; here are addresses, listening, connecting, and partitions.

mod connecting;
mod connection;
mod datagram;
mod tuning;
mod unix_datagram;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bytes::Bytes;

pub(super) use self::connection::Origin;
use self::connection::{Connection, Wire};
pub(super) use self::datagram::Datagram;
use self::datagram::DatagramSocket;
use self::tuning::Tuning;
use super::disk::Errno;
use super::faults::{Latency, NetworkFaults};
use super::random::Random;
use crate::op::{Multicast, Shutdown, SlotKey, SocketAddress, SocketKind, SocketSpec};

pub(super) type SocketId = u64;

/// An operation in flight: the core that submitted it, and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpKey {
    pub core: u32,
    pub slot: SlotKey,
}

/// How an operation went on.
#[derive(Debug)]
pub(super) enum Done {
    /// It ended.
    Result(i32),
    /// Bytes of a stream.
    Chunk { bytes: Bytes, more: bool },
    /// A new connection.
    Accepted {
        listener: SocketId,
        socket: SocketId,
        more: bool,
    },
    /// A datagram.
    Datagram { bytes: Bytes, from: SocketAddress },
}

/// What is to happen in the network later.
#[derive(Debug)]
pub(super) enum NetEvent {
    /// An attempt to connect reaches the other host.
    Knock { socket: SocketId, attempt: u32 },
    /// The answer to it comes back.
    Answer { socket: SocketId, result: i32 },
    /// Segments towards one end of a connection are due.
    Deliver { connection: u64, end: usize },
    /// A reset reaches one end of a connection.
    Reset { connection: u64, end: usize },
    /// A connection breaks.
    Break { connection: u64 },
    /// A datagram arrives.
    Datagram(Box<Datagram>),
    /// A connected datagram socket hears that nobody is at its peer's address.
    Refused { socket: SocketId },
    /// One end looks whether its silent peer is still there.
    Probe { connection: u64, end: usize },
    /// A cancellation takes effect.
    Cancel { socket: SocketId, op: OpKey },
}

/// What a step of the network brought about.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub done: Vec<(OpKey, Done)>,
    pub events: Vec<(u64, NetEvent)>,
}

/// Ports that are given to sockets that do not ask for one (`ip_local_port_range`).
const EPHEMERAL: std::ops::Range<u16> = 32768..60999;

/// The longest time that a slow cancellation takes.
const CANCEL_MAX: u64 = 100_000;

#[derive(Debug)]
struct Host {
    ip: IpAddr,
    up: bool,
    next_port: u16,
}

#[derive(Debug)]
enum State {
    /// A stream socket that is not connected yet.
    Fresh,
    Listening {
        backlog: usize,
        queue: VecDeque<u64>,
        accepts: VecDeque<OpKey>,
    },
    Connecting {
        op: OpKey,
        to: SocketAddress,
        connection: Option<u64>,
    },
    Connected {
        connection: u64,
        end: usize,
    },
    Datagrams(DatagramSocket),
}

#[derive(Debug)]
struct Socket {
    node: usize,
    local: SocketAddress,
    reuse_port: bool,
    /// What it sends to a multicast group comes to its own host too.
    loopback: bool,
    tuning: Tuning,
    state: State,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Network {
    hosts: Vec<Host>,
    by_ip: BTreeMap<IpAddr, usize>,
    sockets: BTreeMap<SocketId, Socket>,
    connections: BTreeMap<u64, Connection>,
    /// Sockets by node, kind and port that wait for whom they do not know.
    bound: BTreeMap<(usize, bool, u16), Vec<SocketId>>,
    unix: BTreeMap<(usize, PathBuf), SocketId>,
    last_id: u64,
    /// Pairs of nodes, from and to, between which nothing gets through.
    blocked: BTreeSet<(usize, usize)>,
    /// Pairs of nodes, from and to, with a delay of their own.
    pub delays: BTreeMap<(usize, usize), Latency>,
    pub faults: NetworkFaults,
    random: Random,
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

impl Network {
    pub(super) fn new(random: Random) -> Self {
        Network {
            hosts: Vec::new(),
            by_ip: BTreeMap::new(),
            sockets: BTreeMap::new(),
            connections: BTreeMap::new(),
            bound: BTreeMap::new(),
            unix: BTreeMap::new(),
            last_id: 0,
            blocked: BTreeSet::new(),
            delays: BTreeMap::new(),
            faults: NetworkFaults::default(),
            random,
        }
    }

    /// A new host, up, with one address; its number counts from 0.
    pub(super) fn add_host(&mut self, ip: IpAddr) {
        let other = self.by_ip.insert(ip, self.hosts.len());
        assert!(
            other.is_none() && !ip.is_loopback() && !ip.is_unspecified(),
            "address {ip}"
        );
        self.hosts.push(Host {
            ip,
            up: true,
            next_port: EPHEMERAL.start,
        });
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The node that an address names, as seen from `node`.
    fn host_of(&self, node: usize, ip: IpAddr) -> Option<usize> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(node);
        }
        self.by_ip.get(&ip).copied()
    }

    fn gets_through(&self, from: usize, to: usize) -> bool {
        self.hosts[to].up && !self.blocked.contains(&(from, to))
    }

    fn draw_delay(&mut self, from: usize, to: usize) -> u64 {
        self.latency(from, to).draw(&mut self.random)
    }

    fn latency(&self, from: usize, to: usize) -> Latency {
        if from == to {
            return self.faults.loopback_delay;
        }
        self.delays
            .get(&(from, to))
            .copied()
            .unwrap_or(self.faults.delay)
    }

    // ---- sockets ----

    fn ephemeral_port(&mut self, node: usize) -> u16 {
        let host = &mut self.hosts[node];
        let port = host.next_port;
        host.next_port = if port + 1 >= EPHEMERAL.end {
            EPHEMERAL.start
        } else {
            port + 1
        };
        port
    }

    /// `socket(2)`, `bind(2)` and `listen(2)`.
    pub(super) fn socket(&mut self, node: usize, spec: &SocketSpec) -> Result<SocketId, Errno> {
        let mut local = spec.bind.clone().unwrap_or(SocketAddress::Ip(NOWHERE));
        let datagrams = spec.kind.is_datagram();
        let unix = matches!(spec.kind, SocketKind::Unix | SocketKind::UnixDatagram);
        if unix && spec.bind.is_none() {
            local = SocketAddress::Unix(PathBuf::new());
        }
        let id = self.new_id();
        let waits_for_strangers = datagrams || spec.listen.is_some();
        match &mut local {
            SocketAddress::Ip(addr) if waits_for_strangers => {
                self.bind(node, id, addr, datagrams, spec.reuse_port)?;
            }
            SocketAddress::Unix(path) if spec.bind.is_some() && waits_for_strangers => {
                self.unix.insert((node, path.clone()), id);
            }
            _ => {}
        }
        let state = match spec.listen {
            _ if datagrams => State::Datagrams(DatagramSocket::default()),
            Some(backlog) => State::Listening {
                backlog: backlog.max(1) as usize,
                queue: VecDeque::new(),
                accepts: VecDeque::new(),
            },
            None => State::Fresh,
        };
        self.sockets.insert(
            id,
            Socket {
                node,
                local,
                reuse_port: spec.reuse_port,
                loopback: !matches!(
                    spec.multicast,
                    Some(Multicast::Send {
                        loopback: false,
                        ..
                    })
                ),
                tuning: Tuning::default(),
                state,
            },
        );
        Ok(id)
    }

    fn bind(
        &mut self,
        node: usize,
        id: SocketId,
        addr: &mut SocketAddr,
        datagrams: bool,
        reuse_port: bool,
    ) -> Result<(), Errno> {
        let ip = addr.ip();
        let own = ip.is_loopback() || ip.is_unspecified() || ip == self.hosts[node].ip;
        let group = datagrams && ip.is_multicast();
        if !own && !group {
            return Err(libc::EADDRNOTAVAIL);
        }
        if addr.port() == 0 {
            let mut tries = EPHEMERAL.len();
            let mut port = self.ephemeral_port(node);
            while self.bound.contains_key(&(node, datagrams, port)) {
                tries = tries.checked_sub(1).ok_or(libc::EADDRINUSE)?;
                port = self.ephemeral_port(node);
            }
            addr.set_port(port);
        }
        let sharers = self
            .bound
            .entry((node, datagrams, addr.port()))
            .or_default();
        let taken = sharers.iter().any(|other| {
            let other = &self.sockets[other];
            let SocketAddress::Ip(theirs) = other.local else {
                return false;
            };
            let overlap = theirs.ip() == ip || theirs.ip().is_unspecified() || ip.is_unspecified();
            let members = ip.is_multicast() && theirs.ip().is_multicast();
            overlap && !members && !(reuse_port && other.reuse_port)
        });
        if taken {
            return Err(libc::EADDRINUSE);
        }
        sharers.push(id);
        Ok(())
    }

    /// `getsockname(2)` or `getpeername(2)`.
    pub(super) fn addr(&self, socket: SocketId, peer: bool) -> Result<SocketAddress, Errno> {
        let socket = self.sockets.get(&socket).ok_or(libc::EBADF)?;
        match &socket.state {
            State::Connected { connection, end } => {
                let connection = self.connections.get(connection).ok_or(libc::ENOTCONN)?;
                if peer && connection.ends[*end].is_broken() {
                    return Err(libc::ENOTCONN);
                }
                let end = if peer { 1 - *end } else { *end };
                Ok(connection.ends[end].addr.clone())
            }
            State::Datagrams(datagrams) if peer => datagrams.peer.clone().ok_or(libc::ENOTCONN),
            _ if peer => Err(libc::ENOTCONN),
            _ => Ok(socket.local.clone()),
        }
    }

    /// Runs `f` on a connection with the world around it.
    fn with<T>(
        &mut self,
        now: u64,
        id: u64,
        out: &mut Effects,
        f: impl FnOnce(&mut Connection, &mut Wire<'_>) -> T,
    ) -> Option<T> {
        let nodes = self
            .connections
            .get(&id)?
            .ends
            .each_ref()
            .map(|end| end.node);
        let delay = [
            self.latency(nodes[1], nodes[0]),
            self.latency(nodes[0], nodes[1]),
        ];
        let blocked = |from, to| self.blocked.contains(&(from, to));
        let connection = self.connections.get_mut(&id)?;
        let mut wire = Wire {
            now,
            id,
            open: [!blocked(nodes[1], nodes[0]), !blocked(nodes[0], nodes[1])],
            up: nodes.map(|node| self.hosts[node].up),
            delay,
            local: nodes[0] == nodes[1],
            faults: &mut self.faults,
            random: &mut self.random,
            out,
        };
        let result = f(connection, &mut wire);
        if connection.is_over() {
            self.connections.remove(&id);
        }
        Some(result)
    }

    /// The connection of a socket, if it has one, and which end it is.
    fn end_of(&self, socket: SocketId) -> Option<(u64, usize)> {
        match self.sockets.get(&socket)?.state {
            State::Connected { connection, end } => Some((connection, end)),
            _ => None,
        }
    }

    /// Runs `f` on the connection of a socket, or ends the operation.
    fn on_connection(
        &mut self,
        now: u64,
        socket: SocketId,
        op: OpKey,
        out: &mut Effects,
        f: impl FnOnce(&mut Connection, usize, &mut Wire<'_>),
    ) {
        let Some((connection, end)) = self.end_of(socket) else {
            out.done.push((op, Done::Result(-libc::ENOTCONN)));
            return;
        };
        self.with(now, connection, out, |connection, wire| {
            f(connection, end, wire)
        });
    }

    /// Receive from a stream: multishot, or at most `once` bytes at once.
    pub(super) fn recv(
        &mut self,
        now: u64,
        socket: SocketId,
        op: OpKey,
        once: Option<usize>,
        out: &mut Effects,
    ) {
        self.on_connection(now, socket, op, out, |c, end, wire| {
            c.recv(end, op, once, wire)
        });
    }

    /// Sends to a stream; the bytes may be pages of a file.
    pub(super) fn send(
        &mut self,
        now: u64,
        socket: SocketId,
        op: OpKey,
        bufs: Vec<Bytes>,
        file: Option<Origin>,
        out: &mut Effects,
    ) {
        self.on_connection(now, socket, op, out, |c, end, wire| {
            c.send(end, op, bufs, file, wire)
        });
    }

    /// `shutdown(2)`.
    pub(super) fn shutdown(
        &mut self,
        now: u64,
        socket: SocketId,
        how: Shutdown,
        out: &mut Effects,
    ) -> i32 {
        let (read, write) = (how != Shutdown::Write, how != Shutdown::Read);
        if let Some(Socket {
            state: State::Listening { accepts, .. },
            ..
        }) = self.sockets.get_mut(&socket)
        {
            let ended = accepts
                .drain(..)
                .map(|op| (op, Done::Result(-libc::EINVAL)));
            out.done.extend(ended);
            return 0;
        }
        let Some((connection, end)) = self.end_of(socket) else {
            return -libc::ENOTCONN;
        };
        let broken = self
            .connections
            .get(&connection)
            .is_none_or(|c| c.ends[end].is_broken());
        if broken {
            return -libc::ENOTCONN;
        }
        self.with(now, connection, out, |c, wire| {
            c.shutdown(end, read, write, wire)
        });
        0
    }

    /// `close(2)`; with `abort` peers get a reset in any case. Operations on the socket are
    /// forgotten.
    pub(super) fn close(&mut self, now: u64, id: SocketId, abort: bool, out: &mut Effects) {
        let Some(socket) = self.sockets.remove(&id) else {
            return;
        };
        self.unbind(id, &socket);
        let abort = abort || socket.tuning.resets();
        match socket.state {
            State::Fresh => {}
            State::Datagrams(mut datagrams) => datagrams.refuse_all(out),
            State::Listening { queue, .. } => {
                for connection in queue {
                    self.with(now, connection, out, |c, wire| c.abort(1, wire));
                }
            }
            State::Connecting { connection, .. } => {
                if let Some(connection) = connection {
                    self.with(now, connection, out, |c, wire| c.abort(0, wire));
                }
            }
            State::Connected { connection, end } => {
                self.with(now, connection, out, |c, wire| {
                    if abort {
                        c.abort(end, wire)
                    } else {
                        c.close(end, wire)
                    }
                });
            }
        }
    }

    fn unbind(&mut self, id: SocketId, socket: &Socket) {
        match &socket.local {
            SocketAddress::Ip(addr) => {
                let datagrams = matches!(socket.state, State::Datagrams(_));
                let key = (socket.node, datagrams, addr.port());
                if let Some(sharers) = self.bound.get_mut(&key) {
                    sharers.retain(|other| *other != id);
                    if sharers.is_empty() {
                        self.bound.remove(&key);
                    }
                }
            }
            SocketAddress::Unix(path) => {
                let key = (socket.node, path.clone());
                if self.unix.get(&key) == Some(&id) {
                    self.unix.remove(&key);
                }
            }
        }
    }

    /// Asks for the end of an operation on a socket, at once or after a while.
    pub(super) fn cancel(&mut self, now: u64, socket: SocketId, op: OpKey, out: &mut Effects) {
        if self.faults.slow_cancel.strikes(&mut self.random) {
            let at = now + self.random.between(1, CANCEL_MAX);
            out.events.push((at, NetEvent::Cancel { socket, op }));
        } else {
            self.cancel_now(now, socket, op, out);
        }
    }

    fn cancel_now(&mut self, now: u64, id: SocketId, op: OpKey, out: &mut Effects) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        let was_here = match &mut socket.state {
            State::Fresh => false,
            State::Listening { accepts, .. } => {
                let before = accepts.len();
                accepts.retain(|accept| *accept != op);
                accepts.len() < before
            }
            State::Connecting {
                op: connect,
                connection,
                ..
            } if *connect == op => {
                let connection = *connection;
                socket.state = State::Fresh;
                if let Some(connection) = connection {
                    self.with(now, connection, out, |c, wire| c.abort(0, wire));
                }
                true
            }
            State::Connecting { .. } => false,
            State::Connected { connection, end } => {
                let (connection, end) = (*connection, *end);
                self.with(now, connection, out, |c, wire| c.cancel(end, op, wire));
                false
            }
            State::Datagrams(datagrams) => datagrams.cancel(op) || self.stop_sending(op),
        };
        if was_here {
            out.done.push((op, Done::Result(-libc::ECANCELED)));
        }
    }

    // ---- what the world does ----

    /// Something that was written down earlier happens.
    pub(super) fn on_event(&mut self, now: u64, event: NetEvent, out: &mut Effects) {
        match event {
            NetEvent::Knock { socket, attempt } => self.knock(now, socket, attempt, out),
            NetEvent::Answer { socket, result } => self.answer(now, socket, result, out),
            NetEvent::Deliver { connection, end } => {
                self.with(now, connection, out, |c, wire| c.deliver(end, wire));
            }
            NetEvent::Reset { connection, end } => {
                self.with(now, connection, out, |c, wire| c.reset(end, wire));
            }
            NetEvent::Break { connection } => {
                self.with(now, connection, out, |c, wire| c.break_off(wire));
            }
            NetEvent::Datagram(datagram) => self.datagram_arrives(now, *datagram, out),
            NetEvent::Refused { socket } => self.refused(socket, out),
            NetEvent::Probe { connection, end } => self.probe(now, connection, end, out),
            NetEvent::Cancel { socket, op } => self.cancel_now(now, socket, op, out),
        }
    }

    /// Looks up once more what page caches lent to a connection and is due now.
    pub(super) fn refresh(
        &mut self,
        now: u64,
        connection: u64,
        end: usize,
        look_up: impl FnMut(Origin, usize) -> Option<Vec<Bytes>>,
    ) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.refresh(end, now, look_up);
        }
    }

    /// A host goes down: nothing more is heard of it.
    pub(super) fn host_down(&mut self, now: u64, node: usize, out: &mut Effects) {
        self.hosts[node].up = false;
        let own: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, s)| s.node == node)
            .map(|(id, _)| *id)
            .collect();
        for id in own {
            if let Some(socket) = self.sockets.remove(&id) {
                self.unbind(id, &socket);
            }
        }
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.with(now, id, out, |c, wire| {
                for end in 0..2 {
                    if c.ends[end].node == node {
                        c.host_down(end, wire);
                    }
                }
            });
        }
    }

    /// A host is back, and knows nothing. False if it was there already.
    pub(super) fn host_up(&mut self, node: usize) -> bool {
        !std::mem::replace(&mut self.hosts[node].up, true)
    }

    /// Nothing gets through from one node to another any more.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    /// Lets packets from one node to another through again.
    pub(super) fn unblock(&mut self, now: u64, from: usize, to: usize, out: &mut Effects) {
        if !self.blocked.remove(&(from, to)) {
            return;
        }
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.with(now, id, out, |c, wire| c.heal(wire));
        }
    }

    /// All that is blocked.
    pub(super) fn blocked(&self) -> Vec<(usize, usize)> {
        self.blocked.iter().copied().collect()
    }
}
