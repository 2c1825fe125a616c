//! TCP for plain threads.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Handle, first, ip, sending_methods, shared_methods, stream_traits};
use crate::setting::{Name, Setting, accessors, tcp_settings};
use crate::tcp::ListenOptions;

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// A listening socket; as `std::net::TcpListener`.
#[derive(Debug)]
pub struct TcpListener(Handle);

impl TcpListener {
    /// Binds to the first address that can be had, and listens; port 0 takes a free one.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        first(addr, |addr| {
            TcpListener::bind_with(addr, ListenOptions::default())
        })
    }

    /// As [`TcpListener::bind`], with options.
    pub fn bind_with(addr: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
        let socket = socket(addr)?;
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Ok(TcpListener(Handle::new(socket)))
    }

    /// The next connection, with its peer's address.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, from) = self.0.accept()?;
        Ok((TcpStream(Handle::new(fd)), ip(&from)?))
    }

    /// One connection after the other; never ends by itself.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.0.socket().local_addr()?)
    }
}

shared_methods!(TcpListener);

/// Connections as they come in: [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

/// A connection; as `std::net::TcpStream`.
#[derive(Debug)]
pub struct TcpStream(Handle);

impl TcpStream {
    /// Connects to the first address that answers, with `TCP_NODELAY`.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        first(addr, |addr| TcpStream::attempt(addr, None))
    }

    /// Connects within a time.
    ///
    /// # Errors
    /// `TimedOut`, or as [`TcpStream::connect`].
    pub fn connect_timeout(addr: &SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        if limit.is_zero() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        TcpStream::attempt(*addr, Some(limit))
    }

    fn attempt(addr: SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
        let handle = Handle::new(socket(addr)?);
        handle.connect(&SockAddr::from(addr), limit)?;
        Ok(TcpStream(handle))
    }

    /// What has arrived, without taking it.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buf)
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.0.socket().peer_addr()?)
    }

    /// Our own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.0.socket().local_addr()?)
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    tcp_settings! {}
    accessors! {
        /// How long the close of the last handle waits for what is unsent (`SO_LINGER`); zero
        /// resets the connection.
        set_linger, linger: Linger(Option<Duration>);
    }
}

shared_methods!(TcpStream);
sending_methods!(TcpStream);
stream_traits!(TcpStream);

impl TryFrom<OwnedFd> for TcpListener {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Handle::adopt(fd).map(TcpListener)
    }
}

impl TryFrom<OwnedFd> for TcpStream {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Handle::adopt(fd).map(TcpStream)
    }
}
