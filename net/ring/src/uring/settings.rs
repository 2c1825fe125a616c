//! Settings of the kernel's sockets: calls that never wait, made beside the ring.

use std::io;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use super::Uring;
use crate::op::Descriptor;
use crate::setting::{Keepalive, Name, Setting};

/// Sets one of a socket.
pub(crate) fn set(socket: &SockRef<'_>, setting: Setting) -> io::Result<()> {
    match setting {
        Setting::NoDelay(yes) => socket.set_tcp_nodelay(yes),
        Setting::Linger(linger) => socket.set_linger(linger),
        Setting::Keepalive(None) => socket.set_keepalive(false),
        Setting::Keepalive(Some(keepalive)) => {
            let parameters = TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.probes);
            // Switches it on as well.
            socket.set_tcp_keepalive(&parameters)
        }
        Setting::UserTimeout(limit) => socket.set_tcp_user_timeout(limit),
        Setting::SendBuffer(bytes) => socket.set_send_buffer_size(bytes),
        Setting::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(bytes),
        Setting::Ttl(hops) if is_v6(socket)? => socket.set_unicast_hops_v6(hops),
        Setting::Ttl(hops) => socket.set_ttl_v4(hops),
        Setting::Broadcast(yes) => socket.set_broadcast(yes),
    }
}

/// Asks a socket for one.
pub(crate) fn get(socket: &SockRef<'_>, name: Name) -> io::Result<Setting> {
    Ok(match name {
        Name::NoDelay => Setting::NoDelay(socket.tcp_nodelay()?),
        Name::Linger => Setting::Linger(socket.linger()?),
        Name::Keepalive if !socket.keepalive()? => Setting::Keepalive(None),
        Name::Keepalive => Setting::Keepalive(Some(Keepalive {
            idle: socket.tcp_keepalive_time()?,
            interval: socket.tcp_keepalive_interval()?,
            probes: socket.tcp_keepalive_retries()?,
        })),
        Name::UserTimeout => Setting::UserTimeout(socket.tcp_user_timeout()?),
        Name::SendBuffer => Setting::SendBuffer(socket.send_buffer_size()?),
        Name::ReceiveBuffer => Setting::ReceiveBuffer(socket.recv_buffer_size()?),
        Name::Ttl if is_v6(socket)? => Setting::Ttl(socket.unicast_hops_v6()?),
        Name::Ttl => Setting::Ttl(socket.ttl_v4()?),
        Name::Broadcast => Setting::Broadcast(socket.broadcast()?),
    })
}

fn is_v6(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(socket.domain()? == Domain::IPV6)
}

fn real(fd: &Descriptor) -> SockRef<'_> {
    match fd {
        Descriptor::Real(fd) => SockRef::from(&fd.fd),
        Descriptor::Sim(_) => panic!("a simulated descriptor on a real ring"),
    }
}

impl Uring {
    pub(crate) fn set(&mut self, fd: &Descriptor, setting: Setting) -> io::Result<()> {
        set(&real(fd), setting)
    }

    pub(crate) fn get(&self, fd: &Descriptor, name: Name) -> io::Result<Setting> {
        get(&real(fd), name)
    }

    pub(crate) fn socket_pair(&mut self) -> io::Result<(Descriptor, Descriptor)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        Ok((self.adopt(one.into()), self.adopt(other.into())))
    }
}
