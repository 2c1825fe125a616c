//! Sockets by io_uring within tokio applications: completions in place of readiness, buffers owned
//! by the kernel while it uses them.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use super::tokio::{advance, resolve};

/// Most parts of one vectored write (UIO_MAXIOV is 1024).
const MAX_SLICES: usize = 64;

/// Whether this process may use io_uring: containers often forbid it, and so may
/// `/proc/sys/kernel/io_uring_disabled`. Asked of the kernel once.
pub(crate) fn is_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    // on a thread of its own: an application's runtime allows no other to be dropped on its
    let probe = || tokio_uring::Runtime::new(&tokio_uring::builder()).is_ok();
    *ALLOWED.get_or_init(|| {
        std::thread::spawn(probe)
            .join()
            .is_ok_and(|allowed| allowed)
    })
}

/// Runs a future and what it spawns. A failure drops it.
pub(super) fn block_on(main: impl Future<Output = ()>) {
    if let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) {
        runtime.block_on(main);
    }
}

/// A connected socket.
pub(crate) struct Stream(TcpStream);

impl Drop for Stream {
    /// A receive that is in flight holds on to the socket: this ends it.
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Stream {
    /// Connects to the first of a host's addresses that answers.
    pub(super) async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let mut failure = io::ErrorKind::NotFound.into();
        for address in resolve(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self(stream));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Sends all parts, one behind the other.
    pub(super) async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        let mut parts: VecDeque<Bytes> = parts.into();
        parts.retain(|part| !part.is_empty());
        while !parts.is_empty() {
            let now: Vec<Bytes> = parts.iter().take(MAX_SLICES).cloned().collect();
            let (sent, _) = self.0.writev(now).await;
            advance(&mut parts, sent?)?;
        }
        Ok(())
    }

    /// Appends what has come to `into`, at most its spare capacity; 0 at the stream's end.
    pub(super) async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        let buffer = std::mem::take(into);
        let held = buffer.len();
        let (received, slice) = self.0.read(buffer.slice(held..)).await;
        *into = slice.into_inner();
        received
    }
}
