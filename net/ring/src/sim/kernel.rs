//! The simulated kernel: descriptors, operations in flight, and when they end.
//!
//! The disks, the network and the clocks are pure; this is where they meet the operations that
//! the cores submit. An operation takes effect at one moment between its submission and its
//! completion; which one, the seed decides.

mod files;
mod power;
mod sockets;

use std::collections::BTreeMap;

pub(super) use self::power::End;
use super::clock::NodeClock;
use super::disk::{Disk, Errno, Inode};
use super::driver::{Dropped, SimFd, number};
use super::events::Events;
use super::network::{Done, Effects, NetEvent, Network, OpKey, SocketId};
use super::random::{Purpose, Random};
use super::trace::{Trace, describe, hash_bytes};
use crate::op::{
    Chunk, Completion, Descriptor, Fd, Op, OpenOptions, Payload, SocketAddress, SocketKind,
    SocketSpec,
};

/// Descriptors that one process may have open (`RLIMIT_NOFILE`).
const DESCRIPTORS_MAX: usize = 1 << 20;

/// What happens later.
#[derive(Debug)]
enum Event {
    Network(NetEvent),
    /// An operation on files takes effect.
    Disk(OpKey),
}

/// One machine.
#[derive(Debug)]
pub(super) struct Node {
    pub name: String,
    pub ip: std::net::IpAddr,
    pub disk: Disk,
    pub clock: NodeClock,
    pub descriptors_max: usize,
}

/// One core of a process.
#[derive(Debug)]
struct SimCore {
    node: usize,
    process: u32,
    alive: bool,
    ready: Vec<Completion>,
    random: Random,
}

#[derive(Debug)]
enum Opened {
    File {
        inode: Inode,
        options: OpenOptions,
        /// Failed flushes of the file that this descriptor was told of.
        heard: u64,
    },
    Socket(SocketId),
}

#[derive(Debug)]
struct OpenDescriptor {
    node: usize,
    process: u32,
    what: Opened,
}

#[derive(Debug)]
struct InFlight {
    op: Op,
    /// What a flush that has begun will make durable.
    mark: u64,
    /// A write is done, its linked flush has begun.
    flushing: bool,
    cancelled: bool,
}

/// The world below the cores.
#[derive(Debug)]
pub(super) struct Kernel {
    pub now: u64,
    pub seed: u64,
    pub trace: Trace,
    pub network: Network,
    pub nodes: Vec<Node>,
    events: Events<Event>,
    cores: Vec<SimCore>,
    in_flight: BTreeMap<OpKey, InFlight>,
    open: BTreeMap<u32, OpenDescriptor>,
    last_descriptor: u32,
    dropped: Dropped,
    /// Locked files by node, and the descriptor that holds each.
    locks: BTreeMap<(usize, Inode), u32>,
    death: Random,
}

impl Kernel {
    pub(super) fn new(seed: u64) -> Self {
        Kernel {
            now: 0,
            seed,
            trace: Trace::new(seed),
            network: Network::new(Random::new(seed, Purpose::Network, 0)),
            nodes: Vec::new(),
            events: Events::new(Random::new(seed, Purpose::Schedule, 1)),
            cores: Vec::new(),
            in_flight: BTreeMap::new(),
            open: BTreeMap::new(),
            last_descriptor: 2,
            dropped: Dropped::default(),
            locks: BTreeMap::new(),
            death: Random::new(seed, Purpose::Death, 0),
        }
    }

    pub(super) fn add_node(&mut self, name: &str, ip: std::net::IpAddr) -> usize {
        let salt = self.nodes.len() as u64;
        let mut random = Random::new(self.seed, Purpose::Clock, salt);
        let mut clock = NodeClock::new(&mut random);
        clock.boot(self.now, &mut random);
        self.nodes.push(Node {
            name: name.to_owned(),
            ip,
            disk: Disk::new(Random::new(self.seed, Purpose::Disk, salt)),
            clock,
            descriptors_max: DESCRIPTORS_MAX,
        });
        self.network.add_host(ip);
        self.nodes.len() - 1
    }

    /// The address of the machine of this name.
    pub(super) fn host(&self, name: &str) -> Option<std::net::IpAddr> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.map(|node| node.ip)
    }

    /// A core of a new process. Returns its number, which no other core ever has.
    pub(super) fn add_core(&mut self, node: usize, process: u32) -> u32 {
        let number = self.cores.len() as u32;
        let random = Random::new(self.seed, Purpose::Application, u64::from(number));
        self.cores.push(SimCore {
            node,
            process,
            alive: true,
            ready: Vec::new(),
            random,
        });
        number
    }

    fn core(&self, core: u32) -> &SimCore {
        &self.cores[core as usize]
    }

    // ---- what a driver asks ----

    pub(super) fn monotonic_ns(&self, core: u32) -> u64 {
        self.nodes[self.core(core).node]
            .clock
            .monotonic_ns(self.now)
    }

    pub(super) fn wall_ms(&self, core: u32) -> i64 {
        self.nodes[self.core(core).node].clock.wall_ms(self.now)
    }

    pub(super) fn random_u64(&mut self, core: u32) -> u64 {
        self.cores[core as usize].random.next_u64()
    }

    pub(super) fn is_ready(&self, core: u32) -> bool {
        !self.core(core).ready.is_empty()
    }

    pub(super) fn reap(&mut self, core: u32, out: &mut Vec<Completion>) {
        self.close_dropped();
        out.append(&mut self.cores[core as usize].ready);
    }

    /// Operations that have not ended, of all cores of a node.
    pub(super) fn operations(&self, node: usize) -> usize {
        self.in_flight
            .keys()
            .filter(|key| self.core(key.core).node == node)
            .count()
    }

    /// Open descriptors of a node.
    pub(super) fn descriptors(&mut self, node: usize) -> usize {
        self.close_dropped();
        self.open.values().filter(|open| open.node == node).count()
    }

    // ---- descriptors ----

    fn has_room(&self, node: usize, process: u32) -> bool {
        let limit = self.nodes[node].descriptors_max;
        // Counting is only needed when somebody set a limit.
        limit == DESCRIPTORS_MAX
            || self
                .open
                .values()
                .filter(|open| open.process == process)
                .count()
                < limit
    }

    fn install(&mut self, node: usize, process: u32, what: Opened) -> SimFd {
        self.last_descriptor += 1;
        let number = self.last_descriptor;
        self.open.insert(
            number,
            OpenDescriptor {
                node,
                process,
                what,
            },
        );
        SimFd::new(number, self.dropped.clone())
    }

    /// Closes the descriptors that were dropped since the last call.
    pub(super) fn close_dropped(&mut self) {
        for number in self.dropped.take() {
            self.close(number, false);
        }
    }

    fn close(&mut self, number: u32, abort: bool) {
        // A descriptor of a process that is no more was closed with it.
        let Some(open) = self.open.remove(&number) else {
            return;
        };
        self.locks.retain(|_, holder| *holder != number);
        match open.what {
            Opened::File { inode, .. } => self.nodes[open.node].disk.close(inode),
            Opened::Socket(socket) => {
                let mut effects = Effects::default();
                self.network.close(self.now, socket, abort, &mut effects);
                self.settle(effects);
            }
        }
        self.trace.note(
            self.now,
            &[1, u64::from(number)],
            format_args!("close {number}"),
        );
    }

    fn socket_of(&self, fd: &Fd) -> Result<SocketId, Errno> {
        self.open_socket(number(fd))
    }

    pub(super) fn socket(&mut self, core: u32, spec: &SocketSpec) -> Result<Descriptor, Errno> {
        self.close_dropped();
        let SimCore { node, process, .. } = *self.core(core);
        if !self.has_room(node, process) {
            return Err(libc::EMFILE);
        }
        // The path of a Unix socket is a file that outlives it (unix(7)).
        if let (SocketKind::Unix | SocketKind::UnixDatagram, Some(SocketAddress::Unix(path))) =
            (spec.kind, &spec.bind)
        {
            let ms = self.nodes[node].clock.wall_ms(self.now);
            let options = OpenOptions::new().create_new(true);
            let made = self.nodes[node].disk.open(path, options, ms);
            let inode = made.map_err(|errno| match errno {
                libc::EEXIST | libc::EISDIR => libc::EADDRINUSE,
                errno => errno,
            })?;
            self.nodes[node].disk.close(inode);
        }
        let socket = self.network.socket(node, spec)?;
        let fd = self.install(node, process, Opened::Socket(socket));
        self.trace.note(
            self.now,
            &[2, socket],
            format_args!("core {core} socket {spec:?}"),
        );
        Ok(Descriptor::Sim(fd))
    }

    pub(super) fn try_lock(&mut self, number: u32) -> Result<bool, Errno> {
        self.close_dropped();
        let Some(OpenDescriptor {
            node,
            what: Opened::File { inode, .. },
            ..
        }) = self.open.get(&number)
        else {
            return Err(libc::EBADF);
        };
        let holder = *self.locks.entry((*node, *inode)).or_insert(number);
        Ok(holder == number)
    }

    // ---- operations ----

    pub(super) fn submit(&mut self, key: OpKey, op: Op) {
        self.close_dropped();
        let (name, facts) = describe(&op);
        let facts = [3, u64::from(key.core), u64::from(key.slot.index), facts];
        let node = &self.nodes[self.core(key.core).node].name;
        let words = format_args!("{node}: core {} {name} {:?}", key.core, key.slot);
        self.trace.note(self.now, &facts, words);
        self.in_flight.insert(
            key,
            InFlight {
                op,
                mark: 0,
                flushing: false,
                cancelled: false,
            },
        );
        if !self.core(key.core).alive {
            return self.end(key, -libc::ECANCELED);
        }
        let begun = self
            .begin_on_network(key)
            .unwrap_or_else(|| self.begin_on_disk(key));
        if let Err(errno) = begun {
            self.end(key, -errno);
        }
    }

    pub(super) fn cancel(&mut self, key: OpKey) {
        self.close_dropped();
        let Some(flight) = self.in_flight.get_mut(&key) else {
            return;
        };
        let (Op::Accept { fd }
        | Op::Connect { fd, .. }
        | Op::Recv { fd }
        | Op::RecvOnce { fd, .. }
        | Op::Send { fd, .. }
        | Op::SendTo { fd, .. }
        | Op::RecvFrom { fd, .. }
        | Op::SendFile { socket: fd, .. }) = &flight.op
        else {
            // Operations on files cannot be stopped once they run.
            return;
        };
        let fd = fd.clone();
        flight.cancelled = true;
        let Ok(socket) = self.socket_of(&fd) else {
            return;
        };
        let mut effects = Effects::default();
        self.network.cancel(self.now, socket, key, &mut effects);
        self.settle(effects);
    }

    /// Starts an operation on sockets; nothing if it is none.
    fn begin_on_network(&mut self, key: OpKey) -> Option<Result<(), Errno>> {
        let mut effects = Effects::default();
        let out = &mut effects;
        let now = self.now;
        let op = &self.in_flight[&key].op;
        let fd = match op {
            Op::Accept { fd }
            | Op::Connect { fd, .. }
            | Op::Recv { fd }
            | Op::RecvOnce { fd, .. }
            | Op::Send { fd, .. }
            | Op::SendTo { fd, .. }
            | Op::RecvFrom { fd, .. }
            | Op::Shutdown { fd, .. } => fd,
            _ => return None,
        };
        let socket = match self.socket_of(fd) {
            Ok(socket) => socket,
            Err(errno) => return Some(Err(errno)),
        };
        if let Op::Connect {
            addr: SocketAddress::Unix(path),
            ..
        }
        | Op::SendTo {
            to: Some(SocketAddress::Unix(path)),
            ..
        } = op
            && let Err(errno) = self.nodes[self.core(key.core).node].disk.find(path)
        {
            return Some(Err(errno));
        }
        let network = &mut self.network;
        let mut result = None;
        match op {
            Op::Accept { .. } => network.accept(now, socket, key, out),
            Op::Connect { addr, .. } => network.connect(now, socket, addr.clone(), key, out),
            Op::Recv { .. } => network.recv(now, socket, key, None, out),
            Op::RecvOnce { buf, .. } => {
                let room = buf.capacity() - buf.len();
                network.recv(now, socket, key, Some(room), out);
            }
            Op::Send {
                zero_copy: true, ..
            } if network.refuses_zero_copy(socket) => result = Some(-libc::EOPNOTSUPP),
            Op::Send { bufs, .. } => network.send(now, socket, key, bufs.clone(), None, out),
            Op::SendTo {
                bufs, to, segment, ..
            } => match to {
                Some(SocketAddress::Unix(to)) => {
                    network.send_unix(socket, key, bufs, Some(to), out);
                }
                None if network.is_unix(socket) => network.send_unix(socket, key, bufs, None, out),
                None => result = Some(network.send_to(now, socket, bufs, None, *segment, out)),
                Some(SocketAddress::Ip(to)) => {
                    result = Some(network.send_to(now, socket, bufs, Some(*to), *segment, out));
                }
            },
            Op::RecvFrom { .. } => network.recv_from(socket, key, out),
            Op::Shutdown { how, .. } => result = Some(network.shutdown(now, socket, *how, out)),
            _ => unreachable!("sorted out above"),
        }
        if let Some(result) = result {
            effects.done.push((key, Done::Result(result)));
        }
        self.settle(effects);
        Some(Ok(()))
    }

    /// What the network brought about becomes completions and events.
    fn settle(&mut self, effects: Effects) {
        for (at, event) in effects.events {
            self.events.push(at, Event::Network(event));
        }
        for (key, done) in effects.done {
            match done {
                Done::Result(result) => self.end(key, result),
                Done::Chunk { bytes, .. } if self.takes_once(key) => self.fill(key, &bytes),
                Done::Chunk { bytes, more } => {
                    if !more {
                        self.in_flight.remove(&key);
                    }
                    let result = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                    self.complete(key, result, more, Payload::Chunk(Chunk::Owned(bytes)));
                }
                Done::Accepted {
                    listener,
                    socket,
                    more,
                } => {
                    self.accepted(key, listener, socket, more);
                }
                Done::Datagram {
                    bytes,
                    from: sender,
                } => {
                    let Some(flight) = self.in_flight.get_mut(&key) else {
                        continue;
                    };
                    let Op::RecvFrom { buf, from, .. } = &mut flight.op else {
                        continue;
                    };
                    // What does not fit is lost (recv(2), MSG_TRUNC).
                    let fits = bytes.len().min(buf.capacity() - buf.len());
                    buf.extend_from_slice(&bytes[..fits]);
                    *from = Some(sender);
                    self.end(key, fits as i32);
                }
            }
        }
    }

    fn accepted(&mut self, key: OpKey, listener: SocketId, socket: SocketId, more: bool) {
        let SimCore { node, process, .. } = *self.core(key.core);
        if !self.in_flight.contains_key(&key) {
            return self.network.not_accepted(listener, socket, key);
        }
        if !self.has_room(node, process) {
            self.network.not_accepted(listener, socket, key);
            return self.end(key, -libc::EMFILE);
        }
        if !more {
            self.in_flight.remove(&key);
        }
        let fd = self.install(node, process, Opened::Socket(socket));
        self.complete(
            key,
            fd.number as i32,
            more,
            Payload::Descriptor(Descriptor::Sim(fd)),
        );
    }

    /// An operation ends and goes back to its core.
    fn end(&mut self, key: OpKey, result: i32) {
        let Some(flight) = self.in_flight.remove(&key) else {
            return;
        };
        let mut result = result;
        if matches!(flight.op, Op::SendFile { .. })
            && (0..flight.mark as i64).contains(&result.into())
        {
            // A transfer that broke off half-way: the stream is of no use.
            result = if flight.cancelled {
                -libc::ECANCELED
            } else {
                -libc::ECONNRESET
            };
        }
        self.complete(key, result, false, Payload::Op(flight.op));
    }

    fn complete(&mut self, slot: OpKey, result: i32, more: bool, payload: Payload) {
        let OpKey { core, slot } = slot;
        let content = match &payload {
            Payload::Chunk(Chunk::Owned(bytes)) => hash_bytes(std::slice::from_ref(bytes)),
            _ => 0,
        };
        let facts = [
            4,
            u64::from(core),
            u64::from(slot.index),
            result as u64,
            content,
        ];
        let node = &self.nodes[self.core(core).node].name;
        let more_to_come = if more { ", more" } else { "" };
        let words = format_args!("{node}: core {core} {slot:?} ends: {result}{more_to_come}");
        self.trace.note(self.now, &facts, words);
        self.cores[core as usize].ready.push(Completion {
            slot,
            result,
            more,
            payload,
        });
    }

    // ---- what the world does ----

    /// When the next event is due.
    pub(super) fn next_event_at(&self) -> Option<u64> {
        self.events.next_at()
    }

    /// Moves the time on and lets all happen that is due by then.
    pub(super) fn advance(&mut self, now: u64) {
        assert!(now >= self.now, "time runs backwards");
        self.now = now;
        while let Some(event) = self.events.pop_due(now) {
            match event {
                Event::Disk(key) => self.perform(key),
                Event::Network(event) => {
                    let mut effects = Effects::default();
                    if let NetEvent::Deliver { connection, end } = event {
                        let nodes = &self.nodes;
                        self.network.refresh(now, connection, end, |origin, len| {
                            nodes[origin.node].disk.lent(&origin, len)
                        });
                    }
                    self.network.on_event(now, event, &mut effects);
                    self.settle(effects);
                }
            }
        }
    }

    /// Lets nothing through any more, from one node to another.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.network.block(from, to);
        let words = format_args!(
            "{} hears no more of {}",
            self.nodes[to].name, self.nodes[from].name
        );
        self.trace
            .note(self.now, &[8, from as u64, to as u64], words);
    }

    /// Lets packets through again, from one node to another.
    pub(super) fn unblock(&mut self, from: usize, to: usize) {
        let mut effects = Effects::default();
        self.network.unblock(self.now, from, to, &mut effects);
        let words = format_args!("{} hears of {}", self.nodes[to].name, self.nodes[from].name);
        self.trace
            .note(self.now, &[9, from as u64, to as u64], words);
        self.settle(effects);
    }
}
