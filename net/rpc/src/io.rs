//! A ring's stream as hyper reads and writes it.
//!
//! hyper lends slices for the length of a poll, the ring owns buffers until their operation is
//! over: the one copy in each direction that follows from that is all that is copied here. What
//! hyper writes is gathered and sent by a task of its own, one send at a time: while one is in
//! flight the next fills up, and hyper is bothered only when it waits for room, or when the
//! connection has broken.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use ringmill_ring::{JoinHandle, Shutdown, TcpStream};

/// Bytes that wait to be sent before hyper is asked to wait; beside them as many may be in flight.
const WAITING_MAX: usize = 128 << 10;

/// A connection between hyper and the ring. Dropped, it closes the connection; what was not sent
/// by then is lost, unless it was shut down before.
pub struct RingIo {
    stream: TcpStream,
    /// Received and not yet read.
    received: BytesMut,
    outgoing: Rc<RefCell<Outgoing>>,
    writer: JoinHandle<()>,
}

/// What is on its way to the peer.
#[derive(Debug, Default)]
struct Outgoing {
    waiting: BytesMut,
    /// The last that is ever written is written: after it our half is shut.
    ending: bool,
    /// Everything was sent and our half is shut.
    ended: bool,
    /// The connection broke.
    broken: Option<io::ErrorKind>,
    /// The task that sends, while it waits for bytes.
    writer: Option<Waker>,
    /// hyper's task, which hears of the end, and of room if it wants some.
    owner: Option<Waker>,
    wants_room: bool,
}

impl Outgoing {
    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn keep_owner(&mut self, cx: &Context<'_>) {
        match &mut self.owner {
            Some(owner) => owner.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn wake_owner(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.wake();
        }
    }

    fn check(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// The next bytes to send: empty at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<BytesMut> {
        if self.waiting.is_empty() && !self.ending {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let next = self.waiting.split();
        if std::mem::take(&mut self.wants_room) {
            self.wake_owner();
        }
        Poll::Ready(next)
    }
}

impl RingIo {
    /// Takes a connection.
    pub fn new(stream: TcpStream) -> Self {
        let outgoing = Rc::new(RefCell::new(Outgoing::default()));
        let writer = ringmill_ring::spawn(write(stream.clone(), outgoing.clone()));
        RingIo {
            stream,
            received: BytesMut::new(),
            outgoing,
            writer,
        }
    }

    /// Room for more bytes to send; the owner is woken when there is some.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.check()?;
        let room = WAITING_MAX.saturating_sub(outgoing.waiting.len());
        if room == 0 {
            outgoing.wants_room = true;
            outgoing.keep_owner(cx);
            outgoing.wake_writer();
            return Poll::Pending;
        }
        Poll::Ready(Ok(room))
    }
}

/// Sends what is written, in order, until the end or until the connection breaks.
async fn write(stream: TcpStream, outgoing: Rc<RefCell<Outgoing>>) {
    loop {
        let next = poll_fn(|cx| outgoing.borrow_mut().poll_next(cx)).await;
        let ending = next.is_empty();
        let done = match ending {
            true => stream.shutdown(Shutdown::Write).await,
            false => stream.send(vec![next.freeze()]).await,
        };
        let mut outgoing = outgoing.borrow_mut();
        outgoing.ended = ending && done.is_ok();
        outgoing.broken = done.err().map(|error| error.kind());
        if ending || outgoing.broken.is_some() {
            return outgoing.wake_owner();
        }
    }
}

impl Drop for RingIo {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Read for RingIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.received.is_empty() {
            match this.stream.poll_recv(cx, &mut this.received) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let count = this.received.len().min(buf.remaining());
        buf.put_slice(&this.received[..count]);
        this.received.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl Write for RingIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = match self.poll_room(cx) {
            Poll::Ready(room) => room?,
            Poll::Pending => return Poll::Pending,
        };
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.ending {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut taken = 0;
        for buf in bufs {
            let count = buf.len().min(room);
            outgoing.waiting.extend_from_slice(&buf[..count]);
            room -= count;
            taken += count;
        }
        Poll::Ready(Ok(taken))
    }

    /// Hands what is written to the task that sends; that it has left is no more known than with
    /// any socket.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.check()?;
        if !outgoing.waiting.is_empty() {
            outgoing.wake_writer();
        }
        // Nobody may be reading when it breaks.
        outgoing.keep_owner(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.check()?;
        if outgoing.ended {
            return Poll::Ready(Ok(()));
        }
        outgoing.ending = true;
        outgoing.wake_writer();
        outgoing.keep_owner(cx);
        Poll::Pending
    }
}

impl fmt::Debug for RingIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingIo")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
