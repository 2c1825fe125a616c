//! Unix sockets for plain threads.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Handle, sending_methods, shared_methods, stream_traits};
use crate::setting::{Name, Setting, buffer_settings};
use crate::tcp::ListenOptions;

fn socket(kind: Type) -> io::Result<Socket> {
    Socket::new(Domain::UNIX, kind, None)
}

/// The path of an address; none if the socket was never bound.
fn path(addr: &SockAddr) -> Option<PathBuf> {
    addr.as_pathname().map(Into::into)
}

/// A listening Unix socket; as `std::os::unix::net::UnixListener`. Its path stays when it is
/// dropped.
#[derive(Debug)]
pub struct UnixListener(Handle);

impl UnixListener {
    /// Binds to a path that must not exist yet, and listens.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        let socket = socket(Type::STREAM)?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(ListenOptions::default().backlog as i32)?;
        Ok(UnixListener(Handle::new(socket)))
    }

    /// The next connection, with its peer's path, if it has one.
    pub fn accept(&self) -> io::Result<(UnixStream, Option<PathBuf>)> {
        let (fd, from) = self.0.accept()?;
        Ok((UnixStream(Handle::new(fd)), path(&from)))
    }

    /// One connection after the other; never ends by itself.
    pub fn incoming(&self) -> UnixIncoming<'_> {
        UnixIncoming(self)
    }

    /// The path it is bound to.
    pub fn local_path(&self) -> io::Result<Option<PathBuf>> {
        Ok(path(&self.0.socket().local_addr()?))
    }
}

shared_methods!(UnixListener);

/// Connections as they come in: [`UnixListener::incoming`].
#[derive(Debug)]
pub struct UnixIncoming<'a>(&'a UnixListener);

impl Iterator for UnixIncoming<'_> {
    type Item = io::Result<UnixStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

/// A connection; as `std::os::unix::net::UnixStream`.
#[derive(Debug)]
pub struct UnixStream(Handle);

impl UnixStream {
    /// Connects to a listener's path.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let handle = Handle::new(socket(Type::STREAM)?);
        handle.connect(&SockAddr::unix(path)?, None)?;
        Ok(UnixStream(handle))
    }

    /// Two that are connected with each other.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        Ok((UnixStream(Handle::new(one)), UnixStream(Handle::new(other))))
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    buffer_settings! {}
}

shared_methods!(UnixStream);
sending_methods!(UnixStream);
stream_traits!(UnixStream);

impl TryFrom<OwnedFd> for UnixStream {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Handle::adopt(fd).map(UnixStream)
    }
}

/// A Unix datagram socket; as `std::os::unix::net::UnixDatagram`.
#[derive(Debug)]
pub struct UnixDatagram(Handle);

impl UnixDatagram {
    /// Binds to a path that must not exist yet; it stays when the socket is dropped.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        let socket = socket(Type::DGRAM)?;
        socket.bind(&SockAddr::unix(path)?)?;
        Ok(UnixDatagram(Handle::new(socket)))
    }

    /// One that nobody can send to.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram(Handle::new(socket(Type::DGRAM)?)))
    }

    /// From now on [`UnixDatagram::send`] sends there.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.0.connect(&SockAddr::unix(path)?, None)
    }

    /// Sends one datagram to the socket at a path.
    pub fn send_to(&self, buf: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        let to = SockAddr::unix(path)?;
        self.0.send_message(&[IoSlice::new(buf)], Some(&to))
    }

    /// One datagram (what does not fit is lost), with its sender's path, if it has one.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, Option<PathBuf>)> {
        let (count, from) = self.0.recv_message(&mut [IoSliceMut::new(buf)], 0)?;
        Ok((count, path(&from)))
    }

    /// Sends one datagram to the connected peer.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)
    }

    /// One datagram (what does not fit is lost).
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buf)
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    buffer_settings! {}
}

shared_methods!(UnixDatagram);
sending_methods!(UnixDatagram);
