//! UDP: datagrams with owned buffers, and trains of them (GSO).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::core;
use crate::future::{run, run_with};
use crate::op::{Fd, IOV_MAX, Multicast, Op, SocketAddress, SocketKind, SocketSpec};
use crate::setting::{Name, Setting, udp_settings};
use crate::tcp::ip;

/// How a UDP socket is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpOptions {
    /// Several sockets share one address, the kernel spreads senders among them
    /// (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Bytes of received datagrams that wait (`SO_RCVBUF`); the system's own if none.
    pub receive_buffer: Option<usize>,
}

/// As many buffers as one call takes: a datagram cannot go on with the next.
fn for_one_call(bufs: Vec<Bytes>) -> Vec<Bytes> {
    match bufs.len() {
        ..=IOV_MAX => bufs,
        _ => vec![bufs.concat().into()],
    }
}

/// What UDP and Unix datagrams share.
#[derive(Clone, Debug)]
pub(crate) struct Datagrams(Fd);

impl Datagrams {
    pub(crate) fn new(spec: &SocketSpec) -> io::Result<Self> {
        let descriptor = core::current().driver().socket(spec)?;
        Ok(Datagrams(Rc::new(descriptor)))
    }

    pub(crate) async fn connect(&self, addr: SocketAddress) -> io::Result<()> {
        let fd = self.0.clone();
        run(Op::Connect { fd, addr }).await.map(drop)
    }

    pub(crate) fn addr(&self, peer: bool) -> io::Result<SocketAddress> {
        core::current().driver().socket_addr(&self.0, peer)
    }

    pub(crate) fn set(&self, setting: Setting) -> io::Result<()> {
        core::current().driver().set(&self.0, setting)
    }

    pub(crate) fn get(&self, name: Name) -> io::Result<Setting> {
        core::current().driver().get(&self.0, name)
    }

    pub(crate) async fn send(
        &self,
        bufs: Vec<Bytes>,
        to: Option<SocketAddress>,
        segment: Option<u16>,
    ) -> io::Result<usize> {
        run(Op::SendTo {
            fd: self.0.clone(),
            bufs: for_one_call(bufs),
            to,
            segment,
        })
        .await
    }

    pub(crate) async fn recv(
        &self,
        buf: BytesMut,
    ) -> (io::Result<(usize, Option<SocketAddress>)>, BytesMut) {
        let op = Op::RecvFrom {
            fd: self.0.clone(),
            buf,
            from: None,
        };
        let (result, op) = run_with(op).await;
        let Op::RecvFrom { buf, from, .. } = op else {
            unreachable!("a receive comes back as itself")
        };
        (result.map(|count| (count, from)), buf)
    }
}

/// A bound UDP socket. Clones share it.
#[derive(Clone, Debug)]
pub struct UdpSocket(Datagrams);

impl UdpSocket {
    /// Binds; port 0 takes a free one.
    pub async fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind_with(addr, UdpOptions::default()).await
    }

    /// As [`UdpSocket::bind`], with options.
    pub async fn bind_with(addr: SocketAddr, options: UdpOptions) -> io::Result<UdpSocket> {
        UdpSocket::make(SocketSpec {
            bind: Some(SocketAddress::Ip(addr)),
            reuse_port: options.reuse_port,
            receive_buffer: options.receive_buffer,
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
        Datagrams::new(&spec).map(UdpSocket)
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    udp_settings! {}

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(self.0.addr(false)?)
    }

    /// The peer that it is connected with.
    ///
    /// # Errors
    /// `NotConnected` without one.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(self.0.addr(true)?)
    }

    /// From now on [`UdpSocket::send`] sends to `addr`, and only what comes from there is
    /// received. Connecting again changes the peer.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<()> {
        self.0.connect(SocketAddress::Ip(addr)).await
    }

    /// Sends one datagram made of all the buffers to the connected peer.
    ///
    /// # Errors
    /// `ConnectionRefused` if the peer's host answered an earlier datagram that nobody is there
    /// (udp(7)); this one was not sent then.
    pub async fn send(&self, bufs: Vec<Bytes>) -> io::Result<usize> {
        self.0.send(bufs, None, None).await
    }

    /// Sends one datagram made of all the buffers.
    pub async fn send_to(&self, bufs: Vec<Bytes>, to: SocketAddr) -> io::Result<usize> {
        self.0.send(bufs, Some(SocketAddress::Ip(to)), None).await
    }

    /// Sends a train of datagrams of `segment` bytes each (the last may be shorter) with one
    /// call (UDP GSO, udp(7)); at most 64 KiB in all.
    pub async fn send_segments_to(
        &self,
        bufs: Vec<Bytes>,
        segment: u16,
        to: SocketAddr,
    ) -> io::Result<usize> {
        let to = Some(SocketAddress::Ip(to));
        self.0.send(bufs, to, Some(segment)).await
    }

    /// Receives one datagram into the spare capacity of `buf` (what does not fit is lost), with
    /// its sender.
    pub async fn recv_from(&self, buf: BytesMut) -> (io::Result<(usize, SocketAddr)>, BytesMut) {
        let (received, buf) = self.0.recv(buf).await;
        let sender = received.and_then(|(count, from)| {
            let from = from.ok_or(io::ErrorKind::InvalidData)?;
            Ok((count, ip(from)?))
        });
        (sender, buf)
    }

    /// As [`UdpSocket::recv_from`], without the sender.
    ///
    /// # Errors
    /// `ConnectionRefused` if it is connected, and nobody is at the peer's address.
    pub async fn recv(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (received, buf) = self.0.recv(buf).await;
        (received.map(|(count, _)| count), buf)
    }
}
