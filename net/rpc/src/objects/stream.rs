//! Streams and listeners of both kinds, TCP and Unix, as connections between objects use them.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{Shutdown, TcpListener, TcpStream, UnixListener, UnixStream};

/// A connected stream of either kind.
#[derive(Clone, Debug)]
pub enum ObjectStream {
    /// To a host.
    Tcp(TcpStream),
    /// Within a host.
    Unix(UnixStream),
}

impl From<TcpStream> for ObjectStream {
    fn from(stream: TcpStream) -> Self {
        ObjectStream::Tcp(stream)
    }
}

impl From<UnixStream> for ObjectStream {
    fn from(stream: UnixStream) -> Self {
        ObjectStream::Unix(stream)
    }
}

impl ObjectStream {
    pub(super) async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            ObjectStream::Tcp(stream) => stream.recv(into).await,
            ObjectStream::Unix(stream) => stream.recv(into).await,
        }
    }

    pub(super) async fn send(&self, bytes: Bytes) -> io::Result<()> {
        match self {
            ObjectStream::Tcp(stream) => stream.send(vec![bytes]).await,
            ObjectStream::Unix(stream) => stream.send(vec![bytes]).await,
        }
    }

    /// Says that nothing more will be sent.
    pub(super) async fn end(&self) -> io::Result<()> {
        match self {
            ObjectStream::Tcp(stream) => stream.shutdown(Shutdown::Write).await,
            ObjectStream::Unix(stream) => stream.shutdown(Shutdown::Write).await,
        }
    }
}

/// A listener of either kind.
#[derive(Debug)]
pub enum ObjectListener {
    /// For other hosts.
    Tcp(TcpListener),
    /// For this host.
    Unix(UnixListener),
}

impl From<TcpListener> for ObjectListener {
    fn from(listener: TcpListener) -> Self {
        ObjectListener::Tcp(listener)
    }
}

impl From<UnixListener> for ObjectListener {
    fn from(listener: UnixListener) -> Self {
        ObjectListener::Unix(listener)
    }
}

impl ObjectListener {
    /// The next connection, with the peer's address where it has one.
    pub(super) async fn accept(&self) -> io::Result<(ObjectStream, Option<SocketAddr>)> {
        match self {
            ObjectListener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((stream.into(), Some(address)))
            }
            ObjectListener::Unix(listener) => Ok((listener.accept().await?.into(), None)),
        }
    }
}
