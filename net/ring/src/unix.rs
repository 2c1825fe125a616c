//! Unix sockets: streams and datagrams between processes of one host.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::file::File;
use crate::op::{Shutdown, SocketAddress, SocketKind, SocketSpec};
use crate::setting::{Name, Setting, buffer_settings};
use crate::stream::{Listener, Stream};
use crate::tcp::ListenOptions;
use crate::udp::Datagrams;

fn address(path: &Path) -> SocketAddress {
    SocketAddress::Unix(path.to_owned())
}

/// The path of an address; none if the socket was never bound.
fn path(addr: SocketAddress) -> io::Result<Option<PathBuf>> {
    match addr {
        SocketAddress::Unix(path) => Ok(Some(path).filter(|path| !path.as_os_str().is_empty())),
        SocketAddress::Ip(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A listening Unix socket. Its path stays when it is dropped, as unix(7) has it.
#[derive(Debug)]
pub struct UnixListener(Listener);

impl UnixListener {
    /// Binds to a path that must not exist yet, and listens.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        Ok(UnixListener(Listener::new(&SocketSpec {
            bind: Some(address(path.as_ref())),
            listen: Some(ListenOptions::default().backlog),
            ..SocketSpec::new(SocketKind::Unix)
        })?))
    }

    /// The next connection. One task at a time.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixStream(self.0.accept().await?))
    }

    /// The path it is bound to.
    pub fn local_path(&self) -> io::Result<Option<PathBuf>> {
        path(self.0.addr()?)
    }
}

/// A connection; as [`crate::TcpStream`].
#[derive(Clone, Debug)]
pub struct UnixStream(Rc<Stream>);

impl UnixStream {
    /// Connects to a listener's path.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let address = address(path.as_ref());
        let spec = SocketSpec {
            peer: Some(address.clone()),
            ..SocketSpec::new(SocketKind::Unix)
        };
        Ok(UnixStream(Stream::connect(spec, address, &[]).await?))
    }

    /// Two that are connected with each other (socketpair(2)).
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = Stream::pair()?;
        Ok((UnixStream(one), UnixStream(other)))
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    buffer_settings! {}

    /// As [`crate::TcpStream::recv`].
    pub async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.0.recv(into).await
    }

    /// As [`crate::TcpStream::recv_owned`].
    pub async fn recv_owned(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        self.0.recv_owned(buf).await
    }

    /// As [`crate::TcpStream::poll_recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, into)
    }

    /// As [`crate::TcpStream::send`].
    pub async fn send(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        self.0.send(bufs).await
    }

    /// As [`crate::TcpStream::send_file`].
    pub async fn send_file(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        self.0.send_file(file, offset, len).await
    }

    /// As [`crate::TcpStream::shutdown`].
    pub async fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how).await
    }

    /// The path of the listener that it was connected to; none at the listener's end.
    pub fn peer_path(&self) -> io::Result<Option<PathBuf>> {
        path(self.0.addr(true)?)
    }
}

/// A Unix datagram socket: messages keep their bounds and their order, none is lost, and a sender
/// waits for a receiver that has too many (unix(7)). Clones share it.
#[derive(Clone, Debug)]
pub struct UnixDatagram(Datagrams);

impl UnixDatagram {
    /// Binds to a path that must not exist yet; it stays when the socket is dropped.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        UnixDatagram::make(Some(address(path.as_ref())))
    }

    /// One that nobody can send to.
    pub async fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::make(None)
    }

    fn make(bind: Option<SocketAddress>) -> io::Result<UnixDatagram> {
        let spec = SocketSpec {
            bind,
            ..SocketSpec::new(SocketKind::UnixDatagram)
        };
        Datagrams::new(&spec).map(UnixDatagram)
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        self.0.set(setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        self.0.get(name)
    }

    buffer_settings! {}

    /// From now on [`UnixDatagram::send`] sends to `path`, and only what comes from there is
    /// received.
    pub async fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.0.connect(address(path.as_ref())).await
    }

    /// Sends one datagram made of all the buffers to the connected peer.
    ///
    /// # Errors
    /// `ConnectionRefused` if the peer has closed its socket.
    pub async fn send(&self, bufs: Vec<Bytes>) -> io::Result<usize> {
        self.0.send(bufs, None, None).await
    }

    /// Sends one datagram made of all the buffers to the socket at a path.
    pub async fn send_to(&self, bufs: Vec<Bytes>, path: impl AsRef<Path>) -> io::Result<usize> {
        self.0.send(bufs, Some(address(path.as_ref())), None).await
    }

    /// Receives one datagram into the spare capacity of `buf` (what does not fit is lost).
    pub async fn recv(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (received, buf) = self.0.recv(buf).await;
        (received.map(|(count, _)| count), buf)
    }

    /// As [`UnixDatagram::recv`], with the sender's path, if it has one.
    pub async fn recv_from(
        &self,
        buf: BytesMut,
    ) -> (io::Result<(usize, Option<PathBuf>)>, BytesMut) {
        let (received, buf) = self.0.recv(buf).await;
        let sender = received.and_then(|(count, from)| {
            let from = from.map_or(Ok(None), path)?;
            Ok((count, from))
        });
        (sender, buf)
    }

    /// The path it is bound to, if it is.
    pub fn local_path(&self) -> io::Result<Option<PathBuf>> {
        path(self.0.addr(false)?)
    }
}
