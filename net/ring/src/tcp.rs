//! TCP: thin handles with owned buffers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::file::File;
use crate::op::{Shutdown, SocketAddress, SocketKind, SocketSpec};
use crate::stream::{Listener, Stream};

/// How a listener is made.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted (`listen(2)`).
    pub backlog: u32,
    /// Several cores listen on one address, the kernel spreads connections (`SO_REUSEPORT`).
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: 1024,
            reuse_port: false,
        }
    }
}

pub(crate) fn ip(addr: SocketAddress) -> io::Result<SocketAddr> {
    match addr {
        SocketAddress::Ip(addr) => Ok(addr),
        SocketAddress::Unix(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A listening socket (socket, bind, listen, accept). Dropped, it closes with the ring's next
/// turns, and its address is free again.
#[derive(Debug)]
pub struct TcpListener(Listener);

impl TcpListener {
    /// Binds and listens; port 0 takes a free one.
    pub async fn bind(addr: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
        Ok(TcpListener(Listener::new(&SocketSpec {
            bind: Some(SocketAddress::Ip(addr)),
            listen: Some(options.backlog),
            reuse_port: options.reuse_port,
            ..SocketSpec::new(SocketKind::Tcp)
        })?))
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(self.0.addr()?)
    }

    /// The next connection, with its peer's address. One task at a time.
    ///
    /// # Errors
    /// If the process has no descriptor or memory left. It may go on accepting: the call after a
    /// failure waits for a moment first, so that a loop neither spins nor has to give up.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let stream = self.0.accept().await?;
            // A peer that has gone again has no address any more.
            if let Ok(addr) = stream.addr(true) {
                return Ok((TcpStream(stream), ip(addr)?));
            }
        }
    }
}

/// A connection. Clones share it; one task may receive while another sends. It closes when the
/// last clone is dropped.
#[derive(Clone, Debug)]
pub struct TcpStream(Rc<Stream>);

impl TcpStream {
    /// Connects to a peer, with `TCP_NODELAY`.
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let addr = SocketAddress::Ip(addr);
        let spec = SocketSpec {
            peer: Some(addr.clone()),
            ..SocketSpec::new(SocketKind::Tcp)
        };
        Ok(TcpStream(Stream::connect(spec, addr).await?))
    }

    /// Appends what has arrived, at least one byte; 0 means that the peer closed its side.
    /// What comes while nobody waits is kept up to a limit; beyond it the peer is slowed down.
    ///
    /// # Panics
    /// If another task receives from this stream.
    pub async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.0.recv(into).await
    }

    /// As [`TcpStream::recv`], for those who are polled themselves: one look for bytes. With none
    /// there, `cx` is woken when some have come.
    ///
    /// # Panics
    /// If another task receives from this stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, into)
    }

    /// Sends all of the buffers. Dropped half-way, nobody knows how much was sent, and the
    /// stream takes no more.
    ///
    /// # Errors
    /// `BrokenPipe` after an earlier send broke off.
    ///
    /// # Panics
    /// If another task sends on this stream.
    pub async fn send(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        self.0.send(bufs).await
    }

    /// Sends `len` bytes of a file; long ones don't pass through user space.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter; the stream takes no more after any error.
    ///
    /// # Panics
    /// As [`TcpStream::send`].
    pub async fn send_file(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        self.0.send_file(file, offset, len).await
    }

    /// Shuts one half of the connection, or both.
    pub async fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how).await
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(self.0.addr(true)?)
    }

    /// Our own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(self.0.addr(false)?)
    }
}
