//! Connected byte streams, TCP and Unix alike: the shared half of both handles.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::clock::Instant;
use crate::core::{self, Core, now};
use crate::file::{File, advance};
use crate::future::{run, run_with};
use crate::op::{Descriptor, Fd, Op, Shutdown, SlotKey, SocketAddress, SocketSpec};
use crate::setting::{Name, Setting};
use crate::slab::REARM;
use crate::time::sleep_until;

#[path = "stream/owned.rs"]
mod owned;

/// Bytes of one file transfer operation; longer ones are cut, so that a result fits its type.
const TRANSFER: u64 = 1 << 30;
/// From this length on, a file is spliced to a socket rather than read and sent: the core has its
/// time for others. Each splice wakes a thread of the kernel, which costs as much as copying some
/// 300 KiB; the measure stands at `transfer` in `benches/paths.rs`.
const SPLICE_MIN: u64 = 512 << 10;
/// Bytes of a file that are in memory at once when it is read and sent.
const COPY: u64 = 256 << 10;
/// How long a listener pauses after a failure. Most failures (no descriptor, no memory) are there
/// again at once, and the next accept would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One connection. Owned by the core that made it.
pub(crate) struct Stream {
    fd: Fd,
    core: Rc<Core>,
    /// The multishot receive, while one is submitted.
    receiving: Cell<Option<SlotKey>>,
    /// A receive into a buffer of its own, which nobody waits for any more and whose bytes are the
    /// next receive's.
    orphan: Cell<Option<SlotKey>>,
    /// Bytes that came and for which a receive had no room.
    rest: Cell<Option<Box<Bytes>>>,
    /// A receive future lives.
    awaited: Cell<bool>,
    /// How the stream ended: 0, or a negated errno.
    ended: Cell<Option<i32>>,
    sending: Cell<Sending>,
    /// The kernel cannot send on this one without a copy.
    copies: Cell<bool>,
}

/// What is known of the sending half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// Between two sends.
    Idle,
    /// A send future lives.
    Busy,
    /// A send failed, or was dropped half-way: where the peer's reading stands, nobody knows.
    Broken,
}

/// One send; unless it ends well, the stream is broken.
struct Turn<'a>(&'a Stream);

impl Turn<'_> {
    fn done(self) {
        self.0.sending.set(Sending::Idle);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.0.sending.get() == Sending::Busy {
            self.0.sending.set(Sending::Broken);
        }
    }
}

impl Stream {
    pub(crate) fn new(descriptor: Descriptor) -> Rc<Self> {
        Rc::new(Stream {
            fd: Rc::new(descriptor),
            core: core::current(),
            receiving: Cell::new(None),
            orphan: Cell::new(None),
            rest: Cell::new(None),
            awaited: Cell::new(false),
            ended: Cell::new(None),
            sending: Cell::new(Sending::Idle),
            copies: Cell::new(false),
        })
    }

    /// Two that are connected with each other.
    pub(crate) fn pair() -> io::Result<(Rc<Self>, Rc<Self>)> {
        let (one, other) = core::current().driver().socket_pair()?;
        Ok((Stream::new(one), Stream::new(other)))
    }

    /// Settings that count from the handshake on are set before it.
    pub(crate) async fn connect(
        spec: SocketSpec,
        addr: SocketAddress,
        settings: &[Setting],
    ) -> io::Result<Rc<Self>> {
        let descriptor = core::current().driver().socket(&spec)?;
        let stream = Stream::new(descriptor);
        for setting in settings {
            stream.set(*setting)?;
        }
        run(Op::Connect {
            fd: stream.fd.clone(),
            addr,
        })
        .await?;
        Ok(stream)
    }

    pub(crate) fn addr(&self, peer: bool) -> io::Result<SocketAddress> {
        self.core.driver().socket_addr(&self.fd, peer)
    }

    pub(crate) fn set(&self, setting: Setting) -> io::Result<()> {
        self.core.driver().set(&self.fd, setting)
    }

    pub(crate) fn get(&self, name: Name) -> io::Result<Setting> {
        self.core.driver().get(&self.fd, name)
    }

    pub(crate) fn recv<'a>(&'a self, into: &'a mut BytesMut) -> Recv<'a> {
        assert!(
            !self.awaited.replace(true),
            "two tasks receive from one stream"
        );
        Recv {
            stream: self,
            into,
            parked: None,
        }
    }

    /// One look for bytes, as [`Stream::recv`] takes them. What arrives later waits in the slot,
    /// and the waker of the last look is called.
    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.recv(into)).poll(cx)
    }

    fn begin_send(&self) -> io::Result<Turn<'_>> {
        match self.sending.get() {
            Sending::Idle => {
                self.sending.set(Sending::Busy);
                Ok(Turn(self))
            }
            Sending::Busy => panic!("two tasks send on one stream"),
            Sending::Broken => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "an earlier send on this stream broke off",
            )),
        }
    }

    pub(crate) async fn send(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        let turn = self.begin_send()?;
        self.send_all(bufs, false).await?;
        turn.done();
        Ok(())
    }

    pub(crate) async fn send_zero_copy(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        let turn = self.begin_send()?;
        let zero_copy = !self.copies.get() && self.core.driver().sends_without_copy();
        self.send_all(bufs, zero_copy).await?;
        turn.done();
        Ok(())
    }

    async fn send_all(&self, bufs: Vec<Bytes>, zero_copy: bool) -> io::Result<()> {
        let mut bufs = bufs;
        let mut zero_copy = zero_copy;
        let mut left: usize = bufs.iter().map(Bytes::len).sum();
        while left > 0 {
            let (result, op) = run_with(Op::Send {
                fd: self.fd.clone(),
                bufs,
                zero_copy,
            })
            .await;
            let Op::Send { bufs: back, .. } = op else {
                unreachable!("a send comes back as itself")
            };
            bufs = back;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left -= count;
                    advance(&mut bufs, count);
                }
                Err(e) if is_passing(&e) => {}
                // Nothing of this piece was sent.
                Err(e) if zero_copy && refuses_zero_copy(&e) => {
                    self.copies.set(e.raw_os_error() == Some(libc::EOPNOTSUPP));
                    zero_copy = false;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(crate) async fn send_file(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let turn = self.begin_send()?;
        let mut splices = len >= SPLICE_MIN && self.core.driver().splices();
        let mut done = 0;
        while done < len {
            let (at, left) = (offset + done, len - done);
            let count = if splices {
                let op = Op::SendFile {
                    file: file.fd.clone(),
                    offset: at,
                    len: left.min(TRANSFER),
                    socket: self.fd.clone(),
                };
                match run(op).await {
                    // No descriptor is left for a pipe; nothing of this piece was sent.
                    Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                        splices = false;
                        continue;
                    }
                    sent => sent?,
                }
            } else {
                let bytes = file.read_at(at, left.min(COPY) as usize).await?;
                let count = bytes.len();
                self.send_all(vec![bytes], false).await?;
                count
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count as u64;
        }
        turn.done();
        Ok(())
    }

    pub(crate) async fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        run(Op::Shutdown {
            fd: self.fd.clone(),
            how,
        })
        .await
        .map(drop)
    }
}

/// Errors after which the same call is simply made again. A send never answers `WouldBlock`
/// while the ring waits for the socket; it may when a thread of the kernel does.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// The family of sockets has no such send, or no more memory may be lent to the kernel
/// (`RLIMIT_MEMLOCK`).
fn refuses_zero_copy(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOMEM | libc::ENOBUFS)
    )
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("fd", &self.fd)
            .field("sending", &self.sending)
            .finish_non_exhaustive()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(key) = self.receiving.take() {
            self.core.forget(key, true);
        }
        if let Some(key) = self.orphan.take() {
            self.core.forget(key, true);
        }
    }
}

/// Waits for bytes. While it waits, its buffer lies in the slot, so that what arrives is copied
/// once, to its last place; dropped, it takes the buffer back.
pub(crate) struct Recv<'a> {
    stream: &'a Stream,
    into: &'a mut BytesMut,
    /// Length of our buffer when it was parked in the slot.
    parked: Option<usize>,
}

impl Recv<'_> {
    /// Takes our buffer, with what was received, out of the slot. Returns the bytes received.
    fn unpark(&mut self, key: SlotKey) -> usize {
        let mut slots = self.stream.core.slots();
        let gathered = slots.stream(key);
        gathered.parked = 0;
        let inbox = &mut gathered.inbox;
        match self.parked.take() {
            Some(before) => {
                *self.into = mem::take(inbox);
                self.into.len() - before
            }
            None if inbox.is_empty() => 0,
            None if self.into.is_empty() => {
                mem::swap(self.into, inbox);
                self.into.len()
            }
            None => {
                let received = inbox.split();
                self.into.extend_from_slice(&received);
                received.len()
            }
        }
    }

    fn park(&mut self, key: SlotKey, cx: &Context<'_>) {
        let mut slots = self.stream.core.slots();
        let gathered = slots.stream(key);
        if self.parked.is_none() {
            self.parked = Some(self.into.len());
            gathered.inbox = mem::take(self.into);
            gathered.parked = gathered.inbox.len();
        }
        match &mut gathered.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// The operation ended: keep why, free the slot.
    fn retire(&self, key: SlotKey) {
        let gathered = self.stream.core.slots().retire_stream(key);
        self.stream.receiving.set(None);
        debug_assert!(gathered.inbox.is_empty());
        match gathered.ended {
            // Paused by ourselves, out of buffers for a moment, or interrupted: go on.
            Some(REARM) => {}
            Some(e) if e == -libc::ENOBUFS || e == -libc::EINTR => {}
            Some(e) if e == -libc::ECANCELED && gathered.pausing => {}
            ended => self.stream.ended.set(ended),
        }
    }
}

impl Future for Recv<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.parked.is_none()
            && let Some(rest) = this.stream.rest.take()
        {
            this.into.extend_from_slice(&rest);
            return Poll::Ready(Ok(rest.len()));
        }
        if let Some(key) = this.stream.receiving.get() {
            let count = this.unpark(key);
            let ended = this.stream.core.slots().stream(key).ended.is_some();
            if ended {
                this.retire(key);
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if !ended {
                this.park(key, cx);
                return Poll::Pending;
            }
        }
        if !this.stream.settle_orphan(cx) {
            return Poll::Pending;
        }
        if let Some(rest) = this.stream.rest.take() {
            this.into.extend_from_slice(&rest);
            return Poll::Ready(Ok(rest.len()));
        }
        match this.stream.ended.get() {
            Some(0) => return Poll::Ready(Ok(0)),
            Some(e) => return Poll::Ready(Err(io::Error::from_raw_os_error(-e))),
            None => {}
        }
        this.stream.core.assert_current();
        let key = this.stream.core.submit_stream(Op::Recv {
            fd: this.stream.fd.clone(),
        });
        this.stream.receiving.set(Some(key));
        this.park(key, cx);
        Poll::Pending
    }
}

impl Drop for Recv<'_> {
    fn drop(&mut self) {
        self.stream.awaited.set(false);
        if self.parked.is_some()
            && let Some(key) = self.stream.receiving.get()
        {
            self.unpark(key);
        }
    }
}

/// A listening socket of either family.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: Fd,
    core: Rc<Core>,
    accepting: Cell<Option<SlotKey>>,
    /// After a failure, when to try again.
    paused_until: Cell<Option<Instant>>,
}

impl Listener {
    pub(crate) fn new(spec: &SocketSpec) -> io::Result<Self> {
        let core = core::current();
        let descriptor = core.driver().socket(spec)?;
        Ok(Listener {
            fd: Rc::new(descriptor),
            core,
            accepting: Cell::new(None),
            paused_until: Cell::new(None),
        })
    }

    pub(crate) fn addr(&self) -> io::Result<SocketAddress> {
        self.core.driver().socket_addr(&self.fd, false)
    }

    pub(crate) fn set(&self, setting: Setting) -> io::Result<()> {
        self.core.driver().set(&self.fd, setting)
    }

    pub(crate) fn get(&self, name: Name) -> io::Result<Setting> {
        self.core.driver().get(&self.fd, name)
    }

    pub(crate) async fn accept(&self) -> io::Result<Rc<Stream>> {
        if let Some(end) = self.paused_until.get() {
            sleep_until(end).await;
            self.paused_until.set(None);
        }
        let accepted = std::future::poll_fn(|cx| self.poll_accept(cx)).await;
        if accepted.is_err() {
            self.paused_until.set(Some(now() + ACCEPT_PAUSE));
        }
        accepted
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Rc<Stream>>> {
        loop {
            let key = match self.accepting.get() {
                Some(key) => key,
                None => {
                    self.core.assert_current();
                    let key = self.core.submit_stream(Op::Accept {
                        fd: self.fd.clone(),
                    });
                    self.accepting.set(Some(key));
                    key
                }
            };
            let mut slots = self.core.slots();
            let gathered = slots.stream(key);
            if let Some(descriptor) = gathered.accepted.pop_front() {
                drop(slots);
                return Poll::Ready(Ok(Stream::new(descriptor)));
            }
            let Some(ended) = gathered.ended else {
                gathered.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let paused = slots.retire_stream(key).pausing && ended == -libc::ECANCELED;
            self.accepting.set(None);
            if !paused && ![REARM, -libc::EINTR, -libc::ECONNABORTED].contains(&ended) {
                return Poll::Ready(Err(io::Error::from_raw_os_error(-ended)));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(key) = self.accepting.take() {
            self.core.forget(key, true);
        }
    }
}
