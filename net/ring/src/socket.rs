//! Sockets for plain threads: as `std::net`, on io_uring.
//!
//! A call blocks its thread until it is done, or until its time-out. Underneath, each thread has a
//! ring of its own, made when it first needs one and closed with it; an operation is submitted and
//! waited for by one system call. Handles are `Send` and `Sync`, clones share one socket, and what
//! std's handles do these do, with three differences: `TCP_NODELAY` is on, a time-out is the error
//! `TimedOut` (std's is `WouldBlock` on Linux), and there is no non-blocking mode.
//!
//! It costs a thread two pages of queues and a descriptor. An echo of 64 B took 6 to 9 % more
//! processor time than by std's plain calls, with a thousand threads a third more
//! (`ringmill-bench sockets`): where sockets alone are wanted, and nothing else of the ring, std's
//! are as good. What these give beside is time-outs that are exact and set nothing on the socket. On a core of a ring they block everything, as std's would; there,
//! the asynchronous ones of the crate's root are at home. In simulated worlds there are no threads,
//! and so none of these. A process that forks uses them in the child only after `exec`.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use ringmill_ring::socket::TcpListener;
//!
//! let listener = TcpListener::bind("127.0.0.1:7")?;
//! for stream in listener.incoming() {
//!     let mut stream = stream?;
//!     std::thread::spawn(move || {
//!         let mut buf = [0; 4096];
//!         while let Ok(count @ 1..) = stream.read(&mut buf) {
//!             stream.write_all(&buf[..count])?;
//!         }
//!         std::io::Result::Ok(())
//!     });
//! }
//! # std::io::Result::Ok(())
//! ```

mod tcp;
mod udp;
mod unix;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use crate::setting::{Name, Setting};
use crate::uring::{settings, thread};

pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixIncoming, UnixListener, UnixStream};

/// What all of them are.
#[derive(Clone, Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    /// Nanoseconds; none if zero.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

/// A time-out of the user's; zero is none of std's either.
fn nanos(limit: Option<Duration>) -> io::Result<u64> {
    match limit {
        None => Ok(0),
        Some(Duration::ZERO) => Err(io::ErrorKind::InvalidInput.into()),
        Some(limit) => Ok(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)),
    }
}

fn duration(nanos: &AtomicU64) -> Option<Duration> {
    let nanos = nanos.load(Ordering::Relaxed);
    (nanos > 0).then_some(Duration::from_nanos(nanos))
}

/// When a call that begins now has to end; never, if that is further than a clock counts.
fn deadline(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}

impl Handle {
    fn new(fd: impl Into<OwnedFd>) -> Self {
        Handle(Arc::new(Shared {
            fd: fd.into(),
            read_timeout: AtomicU64::new(0),
            write_timeout: AtomicU64::new(0),
        }))
    }

    /// One that came from elsewhere: a ring would not wait for a non-blocking one.
    fn adopt(fd: OwnedFd) -> io::Result<Self> {
        SockRef::from(&fd).set_nonblocking(false)?;
        Ok(Handle::new(fd))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.0.fd)
    }

    fn set(&self, setting: Setting) -> io::Result<()> {
        settings::set(&self.socket(), setting)
    }

    fn get(&self, name: Name) -> io::Result<Setting> {
        settings::get(&self.socket(), name)
    }

    fn read_deadline(&self) -> Option<Instant> {
        deadline(duration(&self.0.read_timeout))
    }

    fn write_deadline(&self) -> Option<Instant> {
        deadline(duration(&self.0.write_timeout))
    }

    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        thread::recv(self.fd(), buf, 0, self.read_deadline())
    }

    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        thread::recv(self.fd(), buf, libc::MSG_PEEK, self.read_deadline())
    }

    fn recv_message(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        flags: i32,
    ) -> io::Result<(usize, SockAddr)> {
        thread::recv_message(self.fd(), bufs, flags, self.read_deadline())
    }

    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        thread::send(self.fd(), buf, self.write_deadline())
    }

    fn send_message(&self, bufs: &[IoSlice<'_>], to: Option<&SockAddr>) -> io::Result<usize> {
        thread::send_message(self.fd(), bufs, to, self.write_deadline())
    }

    fn accept(&self) -> io::Result<(OwnedFd, SockAddr)> {
        loop {
            match thread::accept(self.fd(), self.read_deadline()) {
                // The peer has gone again.
                Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => {}
                accepted => return accepted,
            }
        }
    }

    fn connect(&self, to: &SockAddr, limit: Option<Duration>) -> io::Result<()> {
        thread::connect(self.fd(), to, deadline(limit))
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket().shutdown(how)
    }
}

/// An address of the internet's families.
fn ip(addr: &SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Tries each address until one will do.
fn first<T>(
    addrs: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no address to try");
    for addr in addrs.to_socket_addrs()? {
        match attempt(addr) {
            Ok(done) => return Ok(done),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What the handles of one connection or socket share, written once.
macro_rules! shared_methods {
    ($type:ident) => {
        impl $type {
            /// How long a receive may take (an accept, for a listener); none: for ever. Clones
            /// share it.
            ///
            /// # Errors
            /// `InvalidInput` for zero.
            pub fn set_read_timeout(&self, limit: Option<std::time::Duration>) -> io::Result<()> {
                let nanos = super::nanos(limit)?;
                self.0.0.read_timeout.store(nanos, Ordering::Relaxed);
                Ok(())
            }

            /// What [`Self::set_read_timeout`] has set.
            pub fn read_timeout(&self) -> io::Result<Option<std::time::Duration>> {
                Ok(super::duration(&self.0.0.read_timeout))
            }

            /// Another handle of the same socket.
            pub fn try_clone(&self) -> io::Result<Self> {
                Ok($type(self.0.clone()))
            }

            /// The error that the socket has kept (`SO_ERROR`), once.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.0.socket().take_error()
            }
        }

        impl AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.fd()
            }
        }
    };
}

/// What is sent with, beside that.
macro_rules! sending_methods {
    ($type:ident) => {
        impl $type {
            /// How long a send may take; none: for ever. Clones share it.
            ///
            /// # Errors
            /// `InvalidInput` for zero.
            pub fn set_write_timeout(&self, limit: Option<std::time::Duration>) -> io::Result<()> {
                let nanos = super::nanos(limit)?;
                self.0.0.write_timeout.store(nanos, Ordering::Relaxed);
                Ok(())
            }

            /// What [`Self::set_write_timeout`] has set.
            pub fn write_timeout(&self) -> io::Result<Option<std::time::Duration>> {
                Ok(super::duration(&self.0.0.write_timeout))
            }

            /// Shuts one half, or both; a thread that waits in it comes back.
            pub fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
                self.0.shutdown(how)
            }
        }
    };
}

/// `Read` and `Write`, of the handle and of a shared reference to it, as std's.
macro_rules! stream_traits {
    ($type:ident) => {
        impl io::Read for &$type {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.recv(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.recv_message(bufs, 0).map(|(count, _)| count)
            }
        }

        impl io::Write for &$type {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.0.send(buf)
            }

            fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
                self.0.send_message(bufs, None)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl io::Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(bufs)
            }
        }

        impl io::Write for $type {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                (&*self).write(buf)
            }

            fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
                (&*self).write_vectored(bufs)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

use {sending_methods, shared_methods, stream_traits};
