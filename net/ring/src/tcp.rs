//! TCP: thin handles with owned buffers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::file::File;
use crate::op::{Shutdown, SocketAddress, SocketKind, SocketSpec};
use crate::setting::{Name, Setting, accessors, buffer_settings, tcp_settings};
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

/// How a connection is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions {
    /// Our own address; the system's choice if none. Port 0 takes a free one.
    pub local: Option<SocketAddr>,
    /// `SO_SNDBUF`, bytes; the system's own if none.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF`, bytes: before the handshake, because the window's scale is told there; the
    /// system's own if none.
    pub receive_buffer: Option<usize>,
}

impl ConnectOptions {
    fn settings(&self) -> Vec<Setting> {
        let send = self.send_buffer.map(Setting::SendBuffer);
        let receive = self.receive_buffer.map(Setting::ReceiveBuffer);
        send.into_iter().chain(receive).collect()
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

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    // What connections inherit that are accepted later (tcp(7)).
    buffer_settings! {}
    accessors! {
        /// As [`TcpStream::set_keepalive`], for connections that are accepted later.
        set_keepalive, keepalive: Keepalive(Option<crate::setting::Keepalive>);
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
        TcpStream::connect_with(addr, ConnectOptions::default()).await
    }

    /// As [`TcpStream::connect`], from an address of ours, with buffers of a size.
    pub async fn connect_with(addr: SocketAddr, options: ConnectOptions) -> io::Result<TcpStream> {
        let addr = SocketAddress::Ip(addr);
        let spec = SocketSpec {
            bind: options.local.map(SocketAddress::Ip),
            peer: Some(addr.clone()),
            ..SocketSpec::new(SocketKind::Tcp)
        };
        let connected = Stream::connect(spec, addr, &options.settings()).await?;
        Ok(TcpStream(connected))
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    tcp_settings! {}

    /// Whether the connection is reset when it closes (`SO_LINGER` of zero): what is unsent is lost,
    /// the peer gets `ECONNRESET`, and no `TIME_WAIT` holds our address.
    pub fn set_reset_on_close(&self, yes: bool) -> io::Result<()> {
        self.set(Setting::Linger(yes.then_some(Duration::ZERO)))
    }

    /// Appends what has arrived, at least one byte; 0 means that the peer closed its side.
    /// What comes while nobody waits is kept up to a limit; beyond it the peer is slowed down.
    ///
    /// # Panics
    /// If another task receives from this stream.
    pub async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.0.recv(into).await
    }

    /// Receives into the spare capacity of a buffer of the caller's own, with the count; 0 means that
    /// the peer closed its side. The kernel copies to the last place itself, which pays for large
    /// pieces (from some 16 KiB on) and holds the buffer while nothing comes. Dropped early, it
    /// takes the buffer along and loses nothing: what had come is the next receive's.
    ///
    /// # Errors
    /// `InvalidInput` for a buffer without room.
    ///
    /// # Panics
    /// If another task receives from this stream.
    pub async fn recv_owned(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        self.0.recv_owned(buf).await
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

    /// As [`TcpStream::send`], without a copy where the kernel can (`SEND_ZC`, Linux 6.0): it
    /// sends from the buffers themselves. This returns when all is on its way; the ring keeps a
    /// share of the buffers until the peer has them, so that their memory is freed only then.
    /// Pays from some tens of KiB on; over loopback the kernel copies all the same. Where it
    /// refuses (Unix sockets, too much memory lent already), the bytes are sent with a copy.
    ///
    /// # Errors
    /// As [`TcpStream::send`].
    ///
    /// # Panics
    /// As [`TcpStream::send`].
    pub async fn send_zero_copy(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        self.0.send_zero_copy(bufs).await
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
