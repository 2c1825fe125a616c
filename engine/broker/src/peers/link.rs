//! One connection to another node, made when it is needed and made anew when it breaks. Requests go
//! out one behind the other without waiting for answers, which find their calls by correlation id.
//!
//! A call whose answer is overdue breaks the connection, and with it all other calls: whoever does
//! not answer one will not answer the next. Belongs to the core that made it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use ringmill_replication::quorum::Address;
use ringmill_ring::{Notify, TcpStream, lookup, now, random_u64, sleep, sleep_until, timeout};
use ringmill_wire::frame::{DEFAULT_MAX_FRAME_LEN, Frame, split_frame};
use ringmill_wire::header::response_correlation_id;

use super::pending::Pending;

/// How long the address of a name may take to be found.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Before the second attempt to connect; doubled with each further one, and half of it is chance.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// No pause is longer: a node that comes back is not to be waited for.
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// One send carries at most so many buffers (the kernel takes 1024, `IOV_MAX`).
const SEND_BUFFERS: usize = 512;

type Answer = io::Result<Bytes>;

/// The way to one node.
pub(super) struct Link {
    address: RefCell<Address>,
    pending: RefCell<Pending<oneshot::Sender<Answer>>>,
    /// Requests that are not sent yet, by their ids.
    unsent: RefCell<VecDeque<(i32, Vec<Bytes>)>>,
    /// Rings when something is to be sent.
    work: Notify,
    /// Rings when a call has begun, and so a deadline.
    begun: Notify,
    /// Rings when a call has ended.
    room: Notify,
    /// Rings when the connection is to be given up.
    end: Notify,
    is_closed: Cell<bool>,
    is_connected: Cell<bool>,
    /// Attempts to connect that failed, one after the other.
    failures: Cell<u32>,
}

impl Link {
    /// Without a connection; [`Link::run`] makes it.
    pub(super) fn new(address: Address) -> Rc<Self> {
        Rc::new(Self {
            address: RefCell::new(address),
            pending: RefCell::default(),
            unsent: RefCell::default(),
            work: Notify::new(),
            begun: Notify::new(),
            room: Notify::new(),
            end: Notify::new(),
            is_closed: Cell::new(false),
            is_connected: Cell::new(false),
            failures: Cell::new(0),
        })
    }

    /// The node is reached there from now on.
    pub(super) fn set_address(&self, address: &Address) {
        if *self.address.borrow() != *address {
            self.address.replace(address.clone());
            self.failures.set(0);
            self.break_off(&io::ErrorKind::ConnectionAborted.into());
        }
    }

    /// Ends the connection and all calls, for good.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.break_off(&io::ErrorKind::NotConnected.into());
        self.work.notify_all();
    }

    /// Ends the connection and all calls of now. Those that begin from now on get another.
    fn break_off(&self, error: &io::Error) {
        self.fail_all(error);
        self.end.notify_all();
    }

    /// Sends what `encode` makes of the correlation id that it is given, and waits for the frame
    /// that answers it, without its length.
    ///
    /// # Errors
    /// No answer within `time`, a connection that cannot be made or breaks, a peer that answers
    /// what it was not asked.
    pub(super) async fn call(
        &self,
        time: Duration,
        encode: impl FnOnce(i32) -> io::Result<Vec<Bytes>>,
    ) -> Answer {
        let answered = timeout(time, async {
            let answer = self.begin(time, encode).await?;
            let ended = Err(io::ErrorKind::ConnectionAborted.into());
            answer.await.unwrap_or(ended)
        });
        answered.await.unwrap_or_else(|_| {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            if self.is_connected.get() {
                self.break_off(&error);
            }
            Err(error)
        })
    }

    async fn begin(
        &self,
        time: Duration,
        encode: impl FnOnce(i32) -> io::Result<Vec<Bytes>>,
    ) -> io::Result<oneshot::Receiver<Answer>> {
        let deadline = now() + time;
        loop {
            let room = self.room.notified();
            if self.is_closed.get() {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if self.pending.borrow().has_room() {
                break;
            }
            room.await;
        }
        let id = self.pending.borrow().next_id();
        let frame = encode(id)?;
        let bytes = frame.iter().map(Bytes::len).sum();
        let (waiter, answer) = oneshot::channel();
        self.pending.borrow_mut().begin(bytes, deadline, waiter);
        self.unsent.borrow_mut().push_back((id, frame));
        self.work.notify_all();
        self.begun.notify_all();
        Ok(answer)
    }

    /// Keeps the connection for as long as there are calls, until it is closed.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            self.wanted().await;
            if self.is_closed.get() {
                return;
            }
            self.back_off().await;
            let address = self.address.borrow().clone();
            let connecting = connect(&address);
            let Some(connected) = self.unless_ended(connecting).await else {
                continue;
            };
            self.failures.set(self.failures.get().saturating_add(1));
            let failed = match connected {
                Ok(stream) => {
                    self.is_connected.set(true);
                    let failed = self.unless_ended(self.exchange(&stream)).await;
                    self.is_connected.set(false);
                    failed
                }
                Err(error) => Some(error),
            };
            // If it was ended, the calls of then have ended with it.
            if let Some(error) = failed {
                tracing::debug!(%address, %error, "a connection to another node has ended");
                self.fail_all(&error);
            }
        }
    }

    /// Waits for something to send.
    async fn wanted(&self) {
        loop {
            let work = self.work.notified();
            if self.is_closed.get() || !self.unsent.borrow().is_empty() {
                return;
            }
            work.await;
        }
    }

    async fn back_off(&self) {
        let Some(more) = self.failures.get().checked_sub(1) else {
            return;
        };
        let longest = (BACKOFF_MIN * (1 << more.min(10))).min(BACKOFF_MAX);
        let half = longest / 2;
        let chance = random_u64() % (half.as_nanos() as u64 + 1);
        // Ended early, it is seen at the next step.
        let _ = self
            .unless_ended(sleep(half + Duration::from_nanos(chance)))
            .await;
    }

    /// Does something; none if the connection is to be given up before.
    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let end = pin!(self.end.notified());
        // The end is looked at first: what comes after it is not for this connection.
        match select(end, pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        }
    }

    /// Sends and receives until that fails, and gives the reason.
    async fn exchange(&self, stream: &TcpStream) -> io::Error {
        self.drop_forsaken();
        let receiving = pin!(self.receive(stream));
        let sending = pin!(self.send(stream));
        let overdue = pin!(self.overdue());
        match select(receiving, select(sending, overdue)).await {
            Either::Left((error, _)) => error,
            Either::Right((ended, _)) => ended.factor_first().0,
        }
    }

    /// Nobody waits any more for some of what was to be sent.
    fn drop_forsaken(&self) {
        let mut pending = self.pending.borrow_mut();
        self.unsent.borrow_mut().retain(|(id, _)| {
            let is_awaited = pending
                .waiter(*id)
                .is_some_and(|waiter| !waiter.is_canceled());
            if !is_awaited {
                pending.end(*id);
            }
            is_awaited
        });
        self.room.notify_all();
    }

    async fn send(&self, stream: &TcpStream) -> io::Error {
        loop {
            self.wanted().await;
            let mut bufs = Vec::new();
            while bufs.len() < SEND_BUFFERS
                && let Some((_, frame)) = self.unsent.borrow_mut().pop_front()
            {
                bufs.extend(frame);
            }
            if bufs.is_empty() {
                return io::ErrorKind::ConnectionAborted.into();
            }
            if let Err(error) = stream.send(bufs).await {
                return error;
            }
        }
    }

    async fn receive(&self, stream: &TcpStream) -> io::Error {
        let mut received = BytesMut::new();
        loop {
            match split_frame(&mut received, DEFAULT_MAX_FRAME_LEN) {
                Ok(Frame::Complete(frame)) => {
                    if !self.answered(frame) {
                        return malformed("an answer to what was not asked");
                    }
                    self.failures.set(0);
                }
                Ok(Frame::Partial { .. }) => match stream.recv(&mut received).await {
                    Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                    Ok(_) => {}
                    Err(error) => return error,
                },
                Err(error) => return malformed(&error.to_string()),
            }
        }
    }

    /// Gives an answer to whoever waits for it; false if nobody ever did.
    fn answered(&self, frame: Bytes) -> bool {
        let Ok(id) = response_correlation_id(&frame) else {
            return false;
        };
        let Some(waiter) = self.pending.borrow_mut().end(id) else {
            return false;
        };
        // Whoever has gone meanwhile does not miss it.
        let _ = waiter.send(Ok(frame));
        self.room.notify_all();
        true
    }

    /// Waits until an answer is overdue.
    async fn overdue(&self) -> io::Error {
        loop {
            let begun = pin!(self.begun.notified());
            let first = self.pending.borrow().first_deadline();
            match first {
                None => begun.await,
                Some(first) if first <= now() => return io::ErrorKind::TimedOut.into(),
                Some(first) => drop(select(sleep_until(first), begun).await),
            }
        }
    }

    fn fail_all(&self, error: &io::Error) {
        self.unsent.borrow_mut().clear();
        let waiters: Vec<_> = self.pending.borrow_mut().end_all().collect();
        for waiter in waiters {
            let same = io::Error::new(error.kind(), error.to_string());
            // Whoever has gone meanwhile does not miss it.
            let _ = waiter.send(Err(same));
        }
        self.room.notify_all();
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Connects to a node. A name is looked up each time: it may stand for another address by now, as
/// where machines come and go.
async fn connect(address: &Address) -> io::Result<TcpStream> {
    let found = timeout(LOOKUP_TIME, lookup(&address.host)).await??;
    let mut failed = io::ErrorKind::NotFound.into();
    for ip in found {
        let connecting = TcpStream::connect(SocketAddr::new(ip, address.port));
        match timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(elapsed) => failed = elapsed.into(),
        }
    }
    Err(failed)
}
