//! UDP: datagrams with owned buffers, and trains of them (GSO).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::core;
use crate::future::{run, run_with};
use crate::op::{Fd, IOV_MAX, Multicast, Op, SocketAddress, SocketKind, SocketSpec};
use crate::tcp::ip;

/// As many buffers as one call takes: a datagram cannot go on with the next.
fn for_one_call(bufs: Vec<Bytes>) -> Vec<Bytes> {
    match bufs.len() {
        ..=IOV_MAX => bufs,
        _ => vec![bufs.concat().into()],
    }
}

/// A bound UDP socket. Clones share it.
#[derive(Clone, Debug)]
pub struct UdpSocket {
    fd: Fd,
}

impl UdpSocket {
    /// Binds; port 0 takes a free one.
    pub async fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::make(SocketSpec {
            bind: Some(SocketAddress::Ip(addr)),
            ..SocketSpec::new(SocketKind::Udp)
        })
    }

    /// Binds to a multicast group (ip(7)) and joins it by the interface with the address
    /// `interface` (unspecified: the system's choice): receives what is sent to the group's
    /// address and port, whoever sends it. Others of the host may do the same. `receive_buffer`
    /// bytes wait (`SO_RCVBUF`, as far as the system allows); none: the system's own choice.
    pub async fn join(
        group: SocketAddrV4,
        interface: Ipv4Addr,
        receive_buffer: Option<usize>,
    ) -> io::Result<UdpSocket> {
        if !group.ip().is_multicast() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        UdpSocket::make(SocketSpec {
            bind: Some(SocketAddress::Ip(group.into())),
            multicast: Some(Multicast::Join(interface)),
            receive_buffer,
            ..SocketSpec::new(SocketKind::Udp)
        })
    }

    /// Binds a socket that sends to multicast groups by the interface with the address
    /// `interface` (unspecified: the system's choice), at most `ttl` hops far; with `loopback`,
    /// members on this host receive it too.
    pub async fn bind_multicast(
        addr: SocketAddrV4,
        interface: Ipv4Addr,
        ttl: u8,
        loopback: bool,
    ) -> io::Result<UdpSocket> {
        UdpSocket::make(SocketSpec {
            bind: Some(SocketAddress::Ip(addr.into())),
            multicast: Some(Multicast::Send {
                interface,
                ttl,
                loopback,
            }),
            ..SocketSpec::new(SocketKind::Udp)
        })
    }

    fn make(spec: SocketSpec) -> io::Result<UdpSocket> {
        let descriptor = core::current().driver().socket(&spec)?;
        Ok(UdpSocket {
            fd: Rc::new(descriptor),
        })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(core::current().driver().socket_addr(&self.fd, false)?)
    }

    /// Sends one datagram made of all the buffers.
    pub async fn send_to(&self, bufs: Vec<Bytes>, to: SocketAddr) -> io::Result<usize> {
        run(Op::SendTo {
            fd: self.fd.clone(),
            bufs: for_one_call(bufs),
            to: Some(to),
            segment: None,
        })
        .await
    }

    /// Sends a train of datagrams of `segment` bytes each (the last may be shorter) with one
    /// call (UDP GSO, udp(7)); at most 64 KiB in all.
    pub async fn send_segments_to(
        &self,
        bufs: Vec<Bytes>,
        segment: u16,
        to: SocketAddr,
    ) -> io::Result<usize> {
        run(Op::SendTo {
            fd: self.fd.clone(),
            bufs: for_one_call(bufs),
            to: Some(to),
            segment: Some(segment),
        })
        .await
    }

    /// Receives one datagram into the spare capacity of `buf` (what does not fit is lost), with
    /// its sender.
    pub async fn recv_from(&self, buf: BytesMut) -> (io::Result<(usize, SocketAddr)>, BytesMut) {
        let op = Op::RecvFrom {
            fd: self.fd.clone(),
            buf,
            from: None,
        };
        let (result, op) = run_with(op).await;
        let Op::RecvFrom { buf, from, .. } = op else {
            unreachable!("a receive comes back as itself")
        };
        let sender = result.and_then(|count| {
            let from = from.ok_or(io::ErrorKind::InvalidData)?;
            Ok((count, from))
        });
        (sender, buf)
    }
}
