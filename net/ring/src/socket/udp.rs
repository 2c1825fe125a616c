//! UDP for plain threads.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Handle, first, ip, sending_methods, shared_methods};
use crate::setting::{Name, Setting, udp_settings};

/// A bound UDP socket; as `std::net::UdpSocket`.
#[derive(Debug)]
pub struct UdpSocket(Handle);

impl UdpSocket {
    /// Binds to the first address that can be had; port 0 takes a free one.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        first(addr, |addr| {
            let domain = Domain::for_address(addr);
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&addr.into())?;
            Ok(UdpSocket(Handle::new(socket)))
        })
    }

    /// From now on [`UdpSocket::send`] sends there, and only what comes from there is received.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        first(addr, |addr| self.0.connect(&SockAddr::from(addr), None))
    }

    /// Sends one datagram to the first of the addresses.
    pub fn send_to(&self, buf: &[u8], addr: impl ToSocketAddrs) -> io::Result<usize> {
        let mut addrs = addr.to_socket_addrs()?;
        let to = addrs.next().ok_or(io::ErrorKind::InvalidInput)?;
        let to = SockAddr::from(to);
        self.0.send_message(&[IoSlice::new(buf)], Some(&to))
    }

    /// One datagram (what does not fit is lost), with its sender.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (count, from) = self.0.recv_message(&mut [IoSliceMut::new(buf)], 0)?;
        Ok((count, ip(&from)?))
    }

    /// As [`UdpSocket::recv_from`], and the datagram stays.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let bufs = &mut [IoSliceMut::new(buf)];
        let (count, from) = self.0.recv_message(bufs, libc::MSG_PEEK)?;
        Ok((count, ip(&from)?))
    }

    /// Sends one datagram to the connected peer.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)
    }

    /// One datagram of the connected peer (what does not fit is lost).
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf)
    }

    /// As [`UdpSocket::recv`], and the datagram stays.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buf)
    }

    /// Receives what is sent to a group, by the interface with this address.
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.socket().join_multicast_v4(group, interface)
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.0.socket().local_addr()?)
    }

    /// The peer that it is connected with.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.0.socket().peer_addr()?)
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    udp_settings! {}
}

shared_methods!(UdpSocket);
sending_methods!(UdpSocket);
