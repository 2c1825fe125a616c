//! What simulated sockets were told, and probes to peers that are silent.

use std::time::Duration;

use super::{Effects, NetEvent, Network, Socket, SocketId, State};
use crate::op::SocketAddress;
use crate::setting::{Keepalive, Name, Setting};
use crate::sim::disk::Errno;

/// The settings of one socket. Connections inherit their listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    no_delay: bool,
    linger: Option<Duration>,
    pub keepalive: Option<Keepalive>,
    pub user_timeout: Option<Duration>,
    pub send_buffer: Option<usize>,
    pub receive_buffer: Option<usize>,
    ttl: u32,
    broadcast: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            // As the driver of the real ring makes its sockets.
            no_delay: true,
            linger: None,
            keepalive: None,
            user_timeout: None,
            send_buffer: None,
            receive_buffer: None,
            ttl: 64,
            broadcast: false,
        }
    }
}

impl Tuning {
    /// A close resets the connection.
    pub(super) fn resets(&self) -> bool {
        self.linger == Some(Duration::ZERO)
    }

    fn set(&mut self, setting: Setting) {
        match setting {
            Setting::NoDelay(yes) => self.no_delay = yes,
            Setting::Linger(linger) => self.linger = linger,
            Setting::Keepalive(keepalive) => self.keepalive = keepalive,
            Setting::UserTimeout(limit) => self.user_timeout = limit,
            // The kernel doubles it for its own overhead (socket(7)).
            Setting::SendBuffer(bytes) => self.send_buffer = Some(bytes.saturating_mul(2)),
            Setting::ReceiveBuffer(bytes) => self.receive_buffer = Some(bytes.saturating_mul(2)),
            Setting::Ttl(hops) => self.ttl = hops,
            Setting::Broadcast(yes) => self.broadcast = yes,
        }
    }

    fn get(&self, name: Name, buffer: usize) -> Setting {
        match name {
            Name::NoDelay => Setting::NoDelay(self.no_delay),
            Name::Linger => Setting::Linger(self.linger),
            Name::Keepalive => Setting::Keepalive(self.keepalive),
            Name::UserTimeout => Setting::UserTimeout(self.user_timeout),
            Name::SendBuffer => Setting::SendBuffer(self.send_buffer.unwrap_or(buffer)),
            Name::ReceiveBuffer => Setting::ReceiveBuffer(self.receive_buffer.unwrap_or(buffer)),
            Name::Ttl => Setting::Ttl(self.ttl),
            Name::Broadcast => Setting::Broadcast(self.broadcast),
        }
    }
}

/// Settings that only TCP has.
fn is_of_tcp(name: Name) -> bool {
    matches!(name, Name::NoDelay | Name::Keepalive | Name::UserTimeout)
}

fn name(setting: Setting) -> Name {
    match setting {
        Setting::NoDelay(_) => Name::NoDelay,
        Setting::Linger(_) => Name::Linger,
        Setting::Keepalive(_) => Name::Keepalive,
        Setting::UserTimeout(_) => Name::UserTimeout,
        Setting::SendBuffer(_) => Name::SendBuffer,
        Setting::ReceiveBuffer(_) => Name::ReceiveBuffer,
        Setting::Ttl(_) => Name::Ttl,
        Setting::Broadcast(_) => Name::Broadcast,
    }
}

impl Socket {
    fn has(&self, name: Name) -> bool {
        let tcp = matches!(self.local, SocketAddress::Ip(_))
            && !matches!(self.state, State::Datagrams(_));
        tcp || !is_of_tcp(name)
    }
}

impl Network {
    /// `setsockopt(2)`.
    pub(in crate::sim) fn set(
        &mut self,
        now: u64,
        id: SocketId,
        setting: Setting,
        out: &mut Effects,
    ) -> Result<(), Errno> {
        let socket = self.sockets.get_mut(&id).ok_or(libc::EBADF)?;
        if !socket.has(name(setting)) {
            return Err(libc::EOPNOTSUPP);
        }
        socket.tuning.set(setting);
        let tuning = socket.tuning;
        if let State::Connected { connection, end } = socket.state {
            self.with(now, connection, out, |c, wire| c.tune(end, tuning, wire));
        }
        Ok(())
    }

    /// `getsockopt(2)`.
    pub(in crate::sim) fn get(&self, id: SocketId, name: Name) -> Result<Setting, Errno> {
        let socket = self.sockets.get(&id).ok_or(libc::EBADF)?;
        if !socket.has(name) {
            return Err(libc::EOPNOTSUPP);
        }
        let buffer = match &socket.state {
            State::Datagrams(_) => self.faults.datagram_buffer,
            _ => self.faults.socket_buffer,
        };
        Ok(socket.tuning.get(name, buffer))
    }

    /// A connection's new end takes over what its socket was told.
    pub(super) fn tune(&mut self, now: u64, id: SocketId, out: &mut Effects) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        let tuning = socket.tuning;
        if tuning == Tuning::default() {
            return;
        }
        if let State::Connected { connection, end } = socket.state {
            self.with(now, connection, out, |c, wire| c.tune(end, tuning, wire));
        }
    }

    /// `socketpair(2)` of streams.
    pub(in crate::sim) fn pair(&mut self, now: u64, node: usize) -> (SocketId, SocketId) {
        let ids = [self.new_id(), self.new_id()];
        let connection = self.connect_pair(now, node, ids);
        for (end, id) in ids.into_iter().enumerate() {
            self.sockets.insert(
                id,
                Socket {
                    node,
                    local: SocketAddress::Unix(std::path::PathBuf::new()),
                    reuse_port: false,
                    loopback: true,
                    tuning: Tuning::default(),
                    state: State::Connected { connection, end },
                },
            );
        }
        (ids[0], ids[1])
    }

    /// It is time to look whether a silent peer is still there.
    pub(super) fn probe(&mut self, now: u64, connection: u64, end: usize, out: &mut Effects) {
        self.with(now, connection, out, |c, wire| c.probe(end, wire));
    }
}

/// When the next look is due.
pub(super) fn probe_event(at: u64, connection: u64, end: usize) -> (u64, NetEvent) {
    (at, NetEvent::Probe { connection, end })
}
