//! Unix sockets: streams between processes of one host.

use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::file::File;
use crate::op::{Shutdown, SocketAddress, SocketKind, SocketSpec};
use crate::stream::{Listener, Stream};

fn spec(bind: Option<&Path>, peer: Option<&Path>, listen: Option<u32>) -> SocketSpec {
    let address = |path: &Path| SocketAddress::Unix(path.to_owned());
    SocketSpec {
        bind: bind.map(address),
        peer: peer.map(address),
        listen,
        ..SocketSpec::new(SocketKind::Unix)
    }
}

/// A listening Unix socket. Its path stays when it is dropped, as unix(7) has it.
#[derive(Debug)]
pub struct UnixListener(Listener);

impl UnixListener {
    /// Binds to a path that must not exist yet, and listens.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        Ok(UnixListener(Listener::new(&spec(
            Some(path.as_ref()),
            None,
            Some(1024),
        ))?))
    }

    /// The next connection. One task at a time.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixStream(self.0.accept().await?))
    }
}

/// A connection; as [`crate::TcpStream`].
#[derive(Clone, Debug)]
pub struct UnixStream(Rc<Stream>);

impl UnixStream {
    /// Connects to a listener's path.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let path = path.as_ref();
        let address = SocketAddress::Unix(path.to_owned());
        Ok(UnixStream(
            Stream::connect(spec(None, Some(path), None), address).await?,
        ))
    }

    /// As [`crate::TcpStream::recv`].
    pub async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.0.recv(into).await
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
}
