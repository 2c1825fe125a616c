//! A plain thread's own ring: one operation at a time, driven until it has completed.
//!
//! Memory is borrowed here, not owned: a call comes back only with the operation's completion, so
//! that the kernel has let go of whatever the caller lent. A deadline asks for the operation's end
//! and still waits for it; where neither the completion nor the ring can be had any more, the
//! process ends rather than go on with memory that the kernel may write.
//!
//! A ring is made when its thread first needs one, and closed with the thread.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use socket2::SockAddr;

use super::probe;

/// An operation and the request for its early end.
const ENTRIES: u32 = 2;
/// `user_data` of the request for an early end.
const CANCEL: u64 = u64::MAX;
/// How long a ring that takes nothing is left alone before it is asked again.
const RETRY: Duration = Duration::from_millis(1);

thread_local! {
    static RING: RefCell<Option<ThreadRing>> = const { RefCell::new(None) };
}

struct ThreadRing {
    ring: IoUring,
    /// `user_data` of the last operation.
    last: u64,
}

/// Runs an operation on the present thread's ring.
///
/// # Safety
/// What the entry points to must stay as it is, and what the operation writes be nobody else's,
/// until this returns.
unsafe fn run(entry: squeue::Entry, deadline: Option<Instant>) -> io::Result<i32> {
    let mut entry = Some(entry);
    let within = RING.try_with(|place| {
        let mut place = place.borrow_mut();
        let ring = match &mut *place {
            Some(ring) => ring,
            none => none.insert(ThreadRing::new()?),
        };
        let entry = entry.take().expect("run once");
        // SAFETY: the caller vouches for the memory.
        let result = unsafe { ring.run(entry, deadline) };
        if ring.is_stuck() {
            *place = None;
        }
        result
    });
    match (within, entry) {
        (Ok(result), _) => result,
        // The thread is ending, and has let go of its ring already.
        // SAFETY: the caller vouches for the memory.
        (Err(_), Some(entry)) => unsafe { ThreadRing::new()?.run(entry, deadline) },
        (Err(_), None) => unreachable!("taken only where there is a ring"),
    }
}

impl ThreadRing {
    fn new() -> io::Result<Self> {
        let build = |defer: bool| {
            let mut builder = IoUring::builder();
            builder
                .setup_single_issuer()
                .setup_coop_taskrun()
                .dontfork();
            if defer {
                builder.setup_defer_taskrun();
            }
            builder.build(ENTRIES)
        };
        let ring = match build(true) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => build(false),
            made => made,
        };
        let ring = ring.map_err(|e| probe::explain(e, ENTRIES))?;
        Ok(ThreadRing { ring, last: 0 })
    }

    /// The kernel has not taken what is queued: it would later, when its memory is gone.
    fn is_stuck(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// # Safety
    /// As [`run`].
    unsafe fn run(&mut self, entry: squeue::Entry, deadline: Option<Instant>) -> io::Result<i32> {
        self.last = (self.last + 1) % CANCEL;
        let entry = entry.user_data(self.last);
        // SAFETY: the caller vouches for the memory until this returns, and this returns only
        // when the operation has completed, or was never taken by the kernel (`is_stuck`).
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut given_up = false;
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) && !given_up && !self.is_stuck() {
                given_up = self.give_up();
            }
            let entered = self.enter(left.filter(|_| !given_up));
            if let Some(result) = self.reap() {
                return match result {
                    _ if given_up && result == -libc::ECANCELED => {
                        Err(io::ErrorKind::TimedOut.into())
                    }
                    0.. => Ok(result),
                    _ => Err(io::Error::from_raw_os_error(-result)),
                };
            }
            match entered {
                Ok(()) => {}
                Err(error) if self.is_stuck() => return Err(error),
                // The kernel has the operation, and nothing is to be heard of it any more.
                Err(_) => std::process::abort(),
            }
        }
    }

    /// Asks for the operation's early end; false if there was no room to ask.
    fn give_up(&mut self) -> bool {
        let cancel = opcode::AsyncCancel::new(self.last).build();
        let cancel = cancel.user_data(CANCEL);
        // SAFETY: this entry points to no memory.
        unsafe { self.ring.submission().push(&cancel) }.is_ok()
    }

    /// Hands the queue over and sleeps until a completion, or until the time is over.
    fn enter(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let entered = match limit {
            None => self.ring.submit_and_wait(1),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                let args = types::SubmitArgs::new();
                let args = args.timespec(&limit);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match entered.map_err(|e| (e.raw_os_error(), e)) {
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR), _)) => Ok(()),
            Err((Some(libc::EBUSY | libc::EAGAIN), _)) => {
                std::thread::sleep(RETRY);
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    fn reap(&mut self) -> Option<i32> {
        let last = self.last;
        let of_last = |entry: &cqueue::Entry| entry.user_data() == last;
        // The rest are answers to requests for an end.
        let found = self.ring.completion().find(of_last);
        found.map(|entry| entry.result())
    }
}

fn name(fd: BorrowedFd<'_>) -> types::Fd {
    types::Fd(fd.as_raw_fd())
}

fn count(result: io::Result<i32>) -> io::Result<usize> {
    result.map(|count| usize::try_from(count).unwrap_or(0))
}

/// Lengths of an entry are 32 bits; a shorter count is no error.
fn len(buf: &[u8]) -> u32 {
    buf.len().min(1 << 30) as u32
}

/// A header without address and buffers.
fn header() -> libc::msghdr {
    // SAFETY: integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// `recv(2)`.
pub(crate) fn recv(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: i32,
    deadline: Option<Instant>,
) -> io::Result<usize> {
    let entry = opcode::Recv::new(name(fd), buf.as_mut_ptr(), len(buf)).flags(flags);
    // SAFETY: the buffer is borrowed for as long as this call takes, as is the descriptor.
    count(unsafe { run(entry.build(), deadline) })
}

/// `send(2)`.
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8], deadline: Option<Instant>) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL;
    let entry = opcode::Send::new(name(fd), buf.as_ptr(), len(buf)).flags(flags);
    // SAFETY: as in `recv`; the buffer is only read.
    count(unsafe { run(entry.build(), deadline) })
}

/// `recvmsg(2)`, with the sender.
pub(crate) fn recv_message(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    flags: i32,
    deadline: Option<Instant>,
) -> io::Result<(usize, SockAddr)> {
    let mut header = header();
    // An `IoSliceMut` is an iovec.
    header.msg_iov = bufs.as_mut_ptr().cast();
    header.msg_iovlen = bufs.len().min(crate::op::IOV_MAX);
    let mut storage = socket2::SockAddrStorage::zeroed();
    header.msg_name = (&raw mut storage).cast();
    header.msg_namelen = storage.size_of();
    let entry = opcode::RecvMsg::new(name(fd), &raw mut header).flags(flags as u32);
    // SAFETY: header, address and buffers are this frame's or borrowed for as long as the call
    // takes.
    let count = count(unsafe { run(entry.build(), deadline) })?;
    // SAFETY: the kernel wrote an address of this length, which is none if it is zero.
    let from = unsafe { SockAddr::new(storage, header.msg_namelen) };
    Ok((count, from))
}

/// `sendmsg(2)`.
pub(crate) fn send_message(
    fd: BorrowedFd<'_>,
    bufs: &[IoSlice<'_>],
    to: Option<&SockAddr>,
    deadline: Option<Instant>,
) -> io::Result<usize> {
    let mut header = header();
    // An `IoSlice` is an iovec.
    header.msg_iov = bufs.as_ptr().cast_mut().cast();
    header.msg_iovlen = bufs.len().min(crate::op::IOV_MAX);
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len();
    }
    let flags = libc::MSG_NOSIGNAL as u32;
    let entry = opcode::SendMsg::new(name(fd), &raw const header).flags(flags);
    // SAFETY: as in `recv_message`; all of it is only read.
    count(unsafe { run(entry.build(), deadline) })
}

/// `accept4(2)`.
pub(crate) fn accept(
    fd: BorrowedFd<'_>,
    deadline: Option<Instant>,
) -> io::Result<(OwnedFd, SockAddr)> {
    let mut storage = socket2::SockAddrStorage::zeroed();
    let mut len = storage.size_of();
    let into = (&raw mut storage).cast();
    let entry = opcode::Accept::new(name(fd), into, &raw mut len).flags(libc::SOCK_CLOEXEC);
    // SAFETY: the address is this frame's.
    let accepted = unsafe { run(entry.build(), deadline) }?;
    // SAFETY: the kernel made this descriptor for us, and wrote an address of this length.
    unsafe { Ok((OwnedFd::from_raw_fd(accepted), SockAddr::new(storage, len))) }
}

/// `connect(2)`.
pub(crate) fn connect(
    fd: BorrowedFd<'_>,
    to: &SockAddr,
    deadline: Option<Instant>,
) -> io::Result<()> {
    let entry = opcode::Connect::new(name(fd), to.as_ptr().cast(), to.len());
    // SAFETY: the address is borrowed for as long as the call takes.
    unsafe { run(entry.build(), deadline) }.map(drop)
}
