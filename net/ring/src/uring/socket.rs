//! Calls on sockets and files that never wait: made at once, beside the ring.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::Uring;
use super::flight::{sock_addr, socket_address};
use crate::op::{Descriptor, Multicast, SocketAddress, SocketKind, SocketSpec};

/// How long a splice may hold a thread of the kernel waiting for a socket's peer. Longer than a
/// peer that reads ever needs on a fast network, shorter than anyone notices.
const BLOCKING_SEND: Duration = Duration::from_millis(10);

impl Uring {
    /// Bounds the sends that a splice does on a thread of the kernel. Others never block: the
    /// ring waits for the socket by itself.
    pub(super) fn bound_blocking_sends(&self, socket: &Descriptor) {
        let Descriptor::Real(fd) = socket else {
            panic!("a simulated descriptor on a real ring")
        };
        if !fd.sends_bounded.replace(true) {
            // Fails on what is no socket, and then the splice says so.
            let _ = SockRef::from(&fd.fd).set_write_timeout(Some(BLOCKING_SEND));
        }
    }

    pub(crate) fn socket(&mut self, spec: &SocketSpec) -> io::Result<Descriptor> {
        let family = spec.bind.as_ref().or(spec.peer.as_ref());
        let domain = match family {
            Some(SocketAddress::Ip(addr)) => Domain::for_address(*addr),
            Some(SocketAddress::Unix(_)) => Domain::UNIX,
            None if spec.kind == SocketKind::UnixDatagram => Domain::UNIX,
            None => Domain::IPV4,
        };
        let (kind, protocol) = match spec.kind {
            SocketKind::Tcp => (Type::STREAM, Some(Protocol::TCP)),
            SocketKind::Udp => (Type::DGRAM, Some(Protocol::UDP)),
            SocketKind::Unix => (Type::STREAM, None),
            SocketKind::UnixDatagram => (Type::DGRAM, None),
        };
        let socket = Socket::new(domain, kind, protocol)?;
        if spec.kind == SocketKind::Tcp {
            socket.set_tcp_nodelay(true)?;
            if spec.listen.is_some() {
                socket.set_reuse_address(true)?;
            }
        }
        if spec.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(bytes) = spec.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        match spec.multicast {
            // Several members of a group on one host receive the same datagrams.
            Some(Multicast::Join(_)) => socket.set_reuse_address(true)?,
            Some(Multicast::Send {
                interface,
                ttl,
                loopback,
            }) => {
                socket.set_multicast_if_v4(&interface)?;
                socket.set_multicast_ttl_v4(ttl.into())?;
                socket.set_multicast_loop_v4(loopback)?;
            }
            None => {}
        }
        if let Some(addr) = &spec.bind {
            socket.bind(&sock_addr(addr)?)?;
        }
        if let (Some(Multicast::Join(interface)), Some(SocketAddress::Ip(SocketAddr::V4(group)))) =
            (spec.multicast, &spec.bind)
        {
            socket.join_multicast_v4(group.ip(), &interface)?;
        }
        if let Some(backlog) = spec.listen {
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        }
        Ok(self.adopt(socket.into()))
    }

    pub(crate) fn socket_addr(&self, fd: &Descriptor, peer: bool) -> io::Result<SocketAddress> {
        let Descriptor::Real(fd) = fd else {
            panic!("a simulated descriptor on a real ring")
        };
        let socket = SockRef::from(&fd.fd);
        let addr = if peer {
            socket.peer_addr()?
        } else {
            socket.local_addr()?
        };
        Ok(socket_address(&addr))
    }

    pub(crate) fn try_lock(&mut self, fd: &Descriptor) -> io::Result<bool> {
        let Descriptor::Real(fd) = fd else {
            panic!("a simulated descriptor on a real ring")
        };
        // The lock belongs to the open file, which the duplicate shares.
        match std::fs::File::from(fd.fd.try_clone()?).try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        }
    }
}
