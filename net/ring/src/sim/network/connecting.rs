//! Listening, connecting and accepting in the simulated network.
//!
//! An attempt to connect travels to the other host; what it finds there decides: no listener, a
//! refusal; a full queue, a partition or a host that is off, silence and another attempt; else
//! the connection waits in the listener's queue from then on, whether or not the listening
//! process ever runs again (a stopped process still accepts connections).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::connection::{Connection, End};
use super::{Done, Effects, NetEvent, Network, OpKey, Socket, SocketId, State};
use crate::op::SocketAddress;

const SECOND: u64 = 1_000_000_000;

/// Attempts to connect, one second after the first and twice as long after each further one
/// (`tcp_syn_retries`, tcp(7)).
const KNOCKS: u32 = 7;

/// An address that no host has is reported after so long (ARP).
const NO_ROUTE_AFTER: u64 = 3 * SECOND;

impl Network {
    /// Multishot accept.
    pub(in crate::sim) fn accept(&mut self, now: u64, id: SocketId, op: OpKey, out: &mut Effects) {
        match self.sockets.get_mut(&id).map(|socket| &mut socket.state) {
            Some(State::Listening { accepts, .. }) => {
                accepts.push_back(op);
                self.serve_accepts(now, id, out);
            }
            _ => out.done.push((op, Done::Result(-libc::EINVAL))),
        }
    }

    fn serve_accepts(&mut self, now: u64, id: SocketId, out: &mut Effects) {
        loop {
            let Some(Socket {
                node,
                local,
                tuning,
                state: State::Listening { queue, accepts, .. },
                ..
            }) = self.sockets.get_mut(&id)
            else {
                return;
            };
            let (node, local, tuning) = (*node, local.clone(), *tuning);
            let (Some(&op), Some(&connection)) = (accepts.front(), queue.front()) else {
                return;
            };
            queue.pop_front();
            let more = !self.faults.rearm.strikes(&mut self.random);
            if !more {
                accepts.pop_front();
            }
            let socket = self.new_id();
            let state = State::Connected { connection, end: 1 };
            self.sockets.insert(
                socket,
                Socket {
                    node,
                    local,
                    reuse_port: false,
                    loopback: true,
                    tuning,
                    state,
                },
            );
            if let Some(connection) = self.connections.get_mut(&connection) {
                connection.ends[1].socket = Some(socket);
            }
            self.tune(now, socket, out);
            out.done.push((
                op,
                Done::Accepted {
                    listener: id,
                    socket,
                    more,
                },
            ));
        }
    }

    /// `connect(2)`. A datagram socket only notes its peer.
    pub(in crate::sim) fn connect(
        &mut self,
        now: u64,
        id: SocketId,
        to: SocketAddress,
        op: OpKey,
        out: &mut Effects,
    ) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return out.done.push((op, Done::Result(-libc::EBADF)));
        };
        let node = socket.node;
        let result = match (&mut socket.state, &to) {
            (State::Datagrams(_), _) => self.connect_datagrams(id, &to),
            (State::Fresh, _) => {
                let target = match &to {
                    SocketAddress::Ip(addr) => self.host_of(node, addr.ip()),
                    SocketAddress::Unix(_) => Some(node),
                };
                if let Some(socket) = self.sockets.get_mut(&id) {
                    socket.state = State::Connecting {
                        op,
                        to,
                        connection: None,
                    };
                }
                let event = match target {
                    Some(host) => {
                        let at = now + self.draw_delay(node, host);
                        (
                            at,
                            NetEvent::Knock {
                                socket: id,
                                attempt: 1,
                            },
                        )
                    }
                    None => {
                        let result = -libc::EHOSTUNREACH;
                        (
                            now + NO_ROUTE_AFTER,
                            NetEvent::Answer { socket: id, result },
                        )
                    }
                };
                return out.events.push(event);
            }
            _ => -libc::EISCONN,
        };
        out.done.push((op, Done::Result(result)));
    }

    /// A datagram socket notes its peer, and from where the peer is reached.
    fn connect_datagrams(&mut self, id: SocketId, to: &SocketAddress) -> i32 {
        let node = self.sockets[&id].node;
        let peer_id = match to {
            SocketAddress::Ip(_) => None,
            SocketAddress::Unix(path) => match self.unix_datagrams(node, path) {
                Ok(peer) => Some(peer),
                Err(errno) => return -errno,
            },
        };
        let own_ip = self.hosts[node].ip;
        let Some(Socket {
            local,
            state: State::Datagrams(datagrams),
            ..
        }) = self.sockets.get_mut(&id)
        else {
            return -libc::EBADF;
        };
        if let (SocketAddress::Ip(local), SocketAddress::Ip(to)) = (local, to)
            && local.ip().is_unspecified()
        {
            let near = to.ip().is_loopback();
            local.set_ip(if near { to.ip() } else { own_ip });
        }
        datagrams.peer = Some(to.clone());
        datagrams.peer_id = peer_id;
        0
    }

    /// The two ends of a connection within a node.
    pub(super) fn connect_pair(&mut self, now: u64, node: usize, ids: [SocketId; 2]) -> u64 {
        let connection = self.new_id();
        let [one, other] = ids.map(|id| {
            let nameless = SocketAddress::Unix(PathBuf::new());
            End::new(node, nameless, Some(id))
        });
        self.connections
            .insert(connection, Connection::new(one, other, now));
        connection
    }

    /// The listener that an address leads to, on a node.
    fn listener(&mut self, node: usize, to: &SocketAddress) -> Option<SocketId> {
        let addr = match to {
            SocketAddress::Unix(path) => return self.unix_listener(node, path),
            SocketAddress::Ip(addr) => addr,
        };
        let matching: Vec<SocketId> = self
            .bound
            .get(&(node, false, addr.port()))?
            .iter()
            .copied()
            .filter(|id| match self.sockets[id].local {
                SocketAddress::Ip(own) => own.ip() == addr.ip() || own.ip().is_unspecified(),
                SocketAddress::Unix(_) => false,
            })
            .collect();
        (!matching.is_empty()).then(|| self.random.pick(&matching))
    }

    fn unix_listener(&self, node: usize, path: &Path) -> Option<SocketId> {
        let id = self.unix.get(&(node, path.to_owned())).copied()?;
        matches!(self.sockets[&id].state, State::Listening { .. }).then_some(id)
    }

    /// An attempt to connect reaches the other host, or does not.
    pub(super) fn knock(&mut self, now: u64, id: SocketId, attempt: u32, out: &mut Effects) {
        let Some(Socket {
            node,
            state:
                State::Connecting {
                    to,
                    connection: None,
                    ..
                },
            ..
        }) = self.sockets.get(&id)
        else {
            return;
        };
        let (node, to) = (*node, to.clone());
        let host = match &to {
            SocketAddress::Ip(addr) => self.host_of(node, addr.ip()),
            SocketAddress::Unix(_) => Some(node),
        };
        let Some(host) = host else { return };
        let lost = !self.gets_through(node, host)
            || !self.gets_through(host, node)
            || host != node && self.faults.loss.strikes(&mut self.random);
        let listener = if lost { None } else { self.listener(host, &to) };
        let crowded = listener.is_some_and(|listener| match &self.sockets[&listener].state {
            State::Listening { backlog, queue, .. } => queue.len() >= *backlog,
            _ => true,
        });
        let answer_at = now + self.draw_delay(host, node);
        match listener {
            Some(listener) if !crowded => {
                self.welcome(now, (id, node), listener, answer_at, out);
            }
            None if !lost => {
                let result = -libc::ECONNREFUSED;
                out.events
                    .push((answer_at, NetEvent::Answer { socket: id, result }));
            }
            _ if attempt >= KNOCKS => self.answer(now, id, -libc::ETIMEDOUT, out),
            _ => {
                let at = now + (SECOND << (attempt - 1));
                out.events.push((
                    at,
                    NetEvent::Knock {
                        socket: id,
                        attempt: attempt + 1,
                    },
                ));
            }
        }
    }

    /// A listener takes a connection into its queue.
    fn welcome(
        &mut self,
        now: u64,
        (client, node): (SocketId, usize),
        listener: SocketId,
        answer_at: u64,
        out: &mut Effects,
    ) {
        let id = self.new_id();
        let port = self.ephemeral_port(node);
        let own_ip = self.hosts[node].ip;
        let Some(Socket {
            state: State::Connecting { to, connection, .. },
            local,
            ..
        }) = self.sockets.get_mut(&client)
        else {
            return;
        };
        *connection = Some(id);
        let own = match (&to, &local) {
            (_, SocketAddress::Ip(bound)) if bound.port() != 0 => SocketAddress::Ip(*bound),
            (SocketAddress::Ip(to), _) => {
                let ip = if to.ip().is_loopback() {
                    to.ip()
                } else {
                    own_ip
                };
                SocketAddress::Ip(SocketAddr::new(ip, port))
            }
            (SocketAddress::Unix(_), _) => SocketAddress::Unix(PathBuf::new()),
        };
        *local = own.clone();
        let to = to.clone();
        let server = End::new(self.sockets[&listener].node, to, None);
        let client_end = End::new(node, own, Some(client));
        self.connections
            .insert(id, Connection::new(client_end, server, answer_at));
        out.events.push((
            answer_at,
            NetEvent::Answer {
                socket: client,
                result: 0,
            },
        ));
        if let Some(Socket {
            state: State::Listening { queue, .. },
            ..
        }) = self.sockets.get_mut(&listener)
        {
            queue.push_back(id);
        }
        self.serve_accepts(now, listener, out);
    }

    /// The answer to an attempt to connect is here.
    pub(super) fn answer(&mut self, now: u64, id: SocketId, result: i32, out: &mut Effects) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        let State::Connecting { op, connection, .. } = &socket.state else {
            return;
        };
        let op = *op;
        socket.state = match *connection {
            Some(connection) if result == 0 => State::Connected { connection, end: 0 },
            None if result != 0 => State::Fresh,
            // An answer to an earlier connect of the same socket, which was cancelled.
            _ => return,
        };
        self.tune(now, id, out);
        out.done.push((op, Done::Result(result)));
    }

    /// Takes back an accepted connection that its process had no descriptor for: it waits for
    /// the next accept.
    pub(in crate::sim) fn not_accepted(&mut self, listener: SocketId, socket: SocketId, op: OpKey) {
        let Some((connection, _)) = self.end_of(socket) else {
            return;
        };
        self.sockets.remove(&socket);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.ends[1].socket = None;
        }
        if let Some(Socket {
            state: State::Listening { queue, accepts, .. },
            ..
        }) = self.sockets.get_mut(&listener)
        {
            queue.push_front(connection);
            accepts.retain(|accept| *accept != op);
        }
    }
}
