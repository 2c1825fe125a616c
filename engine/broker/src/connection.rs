//! One client's connection: frames in, responses out in the order of their requests.
//!
//! Two futures share it. The reader takes frames and runs each request's first stage, which fixes
//! its order, one after the other; the writer finishes the second stages from the front of the
//! queue and sends whatever is ready in one vectored send. What is in work is metered: past a limit
//! the connection is not read, so that a client that does not read its answers, or asks faster
//! than it is served, waits in its own socket. A connection lives on the core that accepted it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use ringmill_ring::{File, Instant, Notified, Notify, TcpStream, now, sleep_until, spawn, timeout};
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{DecodeError, EncodeError};
use ringmill_wire::frame::{Frame, FrameError, LENGTH_LEN, split_frame};
use ringmill_wire::header::{HeaderError, TooLarge};
use ringmill_wire::primitive::ReadError;
use thiserror::Error;

use crate::dispatch::dispatch;
use crate::limits::{EAGER_FRAME_BYTES, Meter, SMALL_FRAME_BYTES};
use crate::quotas::effort::Effort;
use crate::shard::{Peer, Shard};
use crate::stage::{Chunk, Response, Stage};

/// One send carries at most so many bytes; the client has to take them within
/// `response.write.timeout.ms`.
const SEND_BYTES: usize = 1 << 20;
/// One send carries at most so many buffers (the kernel takes 1024, `IOV_MAX`).
const SEND_BUFFERS: usize = 512;
/// The receive buffer is given up after a frame of this size, so that the frame's bytes have it to
/// themselves and nobody has to copy them.
const OWN_BUFFER_BYTES: usize = 16 << 10;
/// A connection with so many bytes of responses ready that wait to be sent is not read.
const READY_BYTES: usize = 4 << 20;
/// The least that a buffer has room for when it is new.
const READ_BYTES: usize = 16 << 10;
/// The least room that a buffer is kept for: what small requests leave of one serves the next.
const ROOM_BYTES: usize = 4 << 10;

/// Why a connection ends. Nothing is told to the client but the end itself.
#[derive(Debug, Error)]
pub(crate) enum Closed {
    #[error("the client closed it")]
    ByPeer,
    #[error("no request came for {0:?}")]
    Idle(Duration),
    #[error("a request did not arrive within {0:?}")]
    SlowRequest(Duration),
    #[error("the client did not take its response within {0:?}")]
    SlowReader(Duration),
    #[error("the broker stops")]
    Stopping,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("{api}: {error}")]
    Body { api: &'static str, error: ReadError },
    #[error(transparent)]
    Control(#[from] DecodeError),
    #[error("cannot answer: {0}")]
    Encode(#[from] EncodeError),
    #[error("cannot answer: {0}")]
    TooLarge(#[from] TooLarge),
    #[error("records without acknowledgement were refused: {0}")]
    RefusedUnacknowledged(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Closed {
    /// Whether nobody is there any more to whom the rest could be answered.
    fn is_immediate(&self) -> bool {
        matches!(self, Self::ByPeer | Self::Io(_) | Self::SlowRequest(_))
    }

    /// Whether the client did, or failed to do, something it should not.
    fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::ByPeer | Self::Idle(_) | Self::Stopping | Self::Io(_)
        )
    }
}

/// What a connection has in work.
struct InWork {
    meter: RefCell<Meter>,
    /// Bytes of responses that wait to be sent.
    ready: Cell<usize>,
    /// Rings when one of them went down.
    room: Notify,
    /// The client is not heard before (KIP-219).
    paused_until: Cell<Instant>,
}

impl InWork {
    fn pause(&self, pause: Duration) {
        let until = now() + pause;
        self.paused_until.set(self.paused_until.get().max(until));
    }
}

/// What a request takes up of the limits, given back when its response is ready or the connection
/// is gone.
struct Admission {
    shard: Rc<Shard>,
    in_work: Rc<InWork>,
    bytes: u64,
    /// Whether the core's limits count it.
    is_gated: bool,
}

impl Admission {
    fn leave_gate(&mut self) {
        if std::mem::replace(&mut self.is_gated, false) {
            self.shard.gate.give_back(self.bytes);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.in_work.meter.borrow_mut().give_back(self.bytes);
        self.in_work.room.notify_all();
        self.leave_gate();
    }
}

/// What a large frame takes up of its core's limits while it is received.
struct Receiving {
    shard: Rc<Shard>,
    bytes: u64,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.shard.receiving.give_back(self.bytes);
    }
}

struct Slot {
    stage: Stage,
    admission: Option<Admission>,
    effort: Option<Effort>,
}

/// What reader and writer share.
struct Connection {
    shard: Rc<Shard>,
    stream: TcpStream,
    peer: Peer,
    queue: RefCell<VecDeque<Slot>>,
    /// The writer, when it waits for the next request's first stage.
    writer: RefCell<Option<Waker>>,
    in_work: Rc<InWork>,
    /// When a request came or a response was sent last.
    active: Cell<Instant>,
    is_sending: Cell<bool>,
}

/// Serves a client until one side ends it.
pub(crate) async fn serve(shard: Rc<Shard>, stream: TcpStream, peer: Peer) {
    let config = &shard.config;
    let meter = Meter::new(config.max_inflight_requests, config.max_inflight_bytes);
    let connection = Connection {
        stream,
        peer,
        queue: RefCell::default(),
        writer: RefCell::default(),
        active: Cell::new(now()),
        is_sending: Cell::new(false),
        in_work: Rc::new(InWork {
            meter: RefCell::new(meter),
            ready: Cell::new(0),
            room: Notify::new(),
            paused_until: Cell::new(now()),
        }),
        shard,
    };
    let closed = {
        let reader = pin!(connection.read());
        let writer = pin!(connection.write());
        match select(reader, writer).await {
            Either::Left((closed, _)) | Either::Right((closed, _)) => closed,
        }
    };
    connection.leave_appends();
    connection.shard.close_telemetry(&connection.peer).await;
    let metrics = &connection.shard.metrics;
    let client = &connection.peer.host;
    if closed.is_fault() {
        metrics.connections_aborted.one();
        tracing::info!(client, reason = %closed, "closed a connection");
    } else {
        tracing::debug!(client, reason = %closed, "closed a connection");
    }
}

impl Connection {
    // ---- the reader ----

    /// Takes requests until the client, or what it sends, ends that; then, if there is something
    /// to answer first, the writer ends the connection.
    async fn read(&self) -> Closed {
        let mut received = BytesMut::new();
        let mut stopping = pin!(self.shard.stopping());
        loop {
            let (frame, room) = match self.next_frame(&mut received, stopping.as_mut()).await {
                Ok(frame) => frame,
                Err(closed) if closed.is_immediate() => return closed,
                Err(closed) => return self.end_after_answers(closed).await,
            };
            self.active.set(now());
            self.peer.arrivals.on_request();
            let bytes = frame.len() as u64;
            let admission = self.admitted(bytes, is_urgent(&frame)).await;
            drop(room);
            let metrics = &self.shard.metrics;
            metrics.requests.one();
            metrics.request_bytes.add(bytes + LENGTH_LEN as u64);
            let mut effort = Effort::of(&self.shard, &frame);
            let begun = pin!(dispatch(&self.shard, &self.peer, frame));
            match Effort::count(&mut effort, begun).await {
                Ok(stage) => self.push(stage, Some(admission), effort),
                Err(closed) => return self.end_after_answers(closed).await,
            }
        }
    }

    /// What came before is still answered.
    async fn end_after_answers(&self, closed: Closed) -> Closed {
        self.push(Stage::Done(Response::Close(closed)), None, None);
        std::future::pending().await
    }

    /// The next frame, once all of it is there, and the room that it was received into if it is
    /// large.
    async fn next_frame(
        &self,
        received: &mut BytesMut,
        mut stopping: Pin<&mut Notified<'_>>,
    ) -> Result<(Bytes, Option<Receiving>), Closed> {
        let config = &self.shard.config;
        let mut began: Option<Instant> = (!received.is_empty()).then(now);
        let mut large = None;
        loop {
            // what has come meanwhile waits, and takes up no more than one read
            if large.is_none() && self.pause(stopping.as_mut()).await? {
                began = began.map(|_| now());
            }
            let missing = match split_frame(received, config.request_max_bytes)? {
                Frame::Complete(frame) => {
                    if received.is_empty() && frame.len() >= OWN_BUFFER_BYTES {
                        *received = BytesMut::new();
                    }
                    return Ok((frame, large));
                }
                Frame::Partial { missing } => missing,
            };
            let whole = received.len() + missing;
            if whole > SMALL_FRAME_BYTES && large.is_none() {
                large = Some(self.room_to_receive(whole, stopping.as_mut()).await?);
                // It was not the client that took so long.
                began = Some(now());
            }
            // As much as has come, but for frames that are small anyway.
            let room = missing.min(received.len().max(EAGER_FRAME_BYTES));
            if received.capacity() - received.len() < room.max(ROOM_BYTES) {
                received.reserve(room.max(READ_BYTES));
            }
            let allowed = match began {
                None => config.connection_idle.saturating_sub(self.silence()),
                Some(began) => config.request_read_timeout.saturating_sub(now() - began),
            };
            let is_idle = began.is_none();
            match self.receive(received, allowed, stopping.as_mut()).await? {
                Some(0) => return Err(Closed::ByPeer),
                Some(_) => began = began.or(Some(now())),
                None if is_idle && self.silence() < config.connection_idle => {}
                None if is_idle => return Err(Closed::Idle(config.connection_idle)),
                None => return Err(Closed::SlowRequest(config.request_read_timeout)),
            }
        }
    }

    /// Hears nothing while the client is to pause; tells whether it was.
    async fn pause(&self, stopping: Pin<&mut Notified<'_>>) -> Result<bool, Closed> {
        let until = self.in_work.paused_until.get();
        if until <= now() {
            return Ok(false);
        }
        match select(sleep_until(until), stopping).await {
            Either::Left(_) => {
                self.active.set(now());
                Ok(true)
            }
            Either::Right(_) => Err(Closed::Stopping),
        }
    }

    /// For how long nothing has been asked, worked on or answered.
    fn silence(&self) -> Duration {
        if self.is_sending.get() || !self.queue.borrow().is_empty() {
            self.active.set(now());
        }
        now() - self.active.get()
    }

    /// Waits until a large frame may be received: what dribbles in must not fill the memory. Those
    /// that have room have to make use of it within `request.read.timeout.ms`.
    async fn room_to_receive(
        &self,
        bytes: usize,
        stopping: Pin<&mut Notified<'_>>,
    ) -> Result<Receiving, Closed> {
        let bytes = bytes as u64;
        let shard = Rc::clone(&self.shard);
        let room = pin!(shard.receiving.take(bytes, &shard.metrics));
        if let Either::Right(_) = select(room, stopping).await {
            return Err(Closed::Stopping);
        }
        let shard = Rc::clone(&self.shard);
        Ok(Receiving { shard, bytes })
    }

    /// Receives for so long; none if nothing came.
    async fn receive(
        &self,
        received: &mut BytesMut,
        allowed: Duration,
        stopping: Pin<&mut Notified<'_>>,
    ) -> Result<Option<usize>, Closed> {
        if self.shard.is_stopping() {
            return Err(Closed::Stopping);
        }
        let receiving = pin!(timeout(allowed, self.stream.recv(received)));
        match select(receiving, stopping).await {
            Either::Left((Ok(result), _)) => Ok(Some(result?)),
            Either::Left((Err(_), _)) => Ok(None),
            Either::Right(_) => Err(Closed::Stopping),
        }
    }

    /// Waits until a request of so many bytes fits, within the connection's limits and the core's.
    /// What is urgent does not wait for the core's other requests.
    async fn admitted(&self, bytes: u64, is_urgent: bool) -> Admission {
        let fits = || {
            let in_work = &self.in_work;
            in_work.ready.get() <= READY_BYTES && in_work.meter.borrow().admits(bytes)
        };
        while !fits() {
            self.shard.metrics.read_stalls.one();
            self.in_work.room.notified().await;
        }
        if !is_urgent {
            self.shard.gate.take(bytes, &self.shard.metrics).await;
        }
        self.in_work.meter.borrow_mut().take(bytes);
        Admission {
            shard: Rc::clone(&self.shard),
            in_work: Rc::clone(&self.in_work),
            bytes,
            is_gated: !is_urgent,
        }
    }

    fn push(&self, stage: Stage, mut admission: Option<Admission>, effort: Option<Effort>) {
        if let (Stage::Parks(_), Some(admission)) = (&stage, &mut admission) {
            admission.leave_gate();
        }
        let ready = &self.in_work.ready;
        ready.set(ready.get() + stage.ready_bytes());
        let slot = Slot {
            stage,
            admission,
            effort,
        };
        self.queue.borrow_mut().push_back(slot);
        if let Some(writer) = self.writer.borrow_mut().take() {
            writer.wake();
        }
    }

    // ---- the writer ----

    async fn write(&self) -> Closed {
        loop {
            let (chunks, end) = poll_fn(|cx| self.poll_ready(cx)).await;
            self.is_sending.set(true);
            if let Err(closed) = self.send(chunks).await {
                return closed;
            }
            self.is_sending.set(false);
            self.active.set(now());
            if let Some(closed) = end {
                return closed;
            }
        }
    }

    /// The responses that are ready at the front of the queue, at least one, as much as one send
    /// takes; and the reason if the connection ends after them.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<(Vec<Chunk>, Option<Closed>)> {
        let (mut chunks, mut bytes, mut end) = (Vec::new(), 0, None);
        while bytes < SEND_BYTES && chunks.len() < SEND_BUFFERS && end.is_none() {
            let Some(mut slot) = self.queue.borrow_mut().pop_front() else {
                *self.writer.borrow_mut() = Some(cx.waker().clone());
                break;
            };
            let ready = slot.stage.ready_bytes();
            let polled = Effort::timed(&mut slot.effort, || slot.stage.poll(cx));
            let Poll::Ready((response, rest)) = polled else {
                self.queue.borrow_mut().push_front(slot);
                break;
            };
            self.in_work.ready.set(self.in_work.ready.get() - ready);
            if let Some(effort) = slot.effort.take() {
                let shard = Rc::clone(&self.shard);
                slot.stage = Stage::Appends(Box::pin(async move {
                    (effort.charge(&shard, response).await, rest)
                }));
                self.queue.borrow_mut().push_front(slot);
                continue;
            }
            if let Some(rest) = rest {
                spawn(async move {
                    rest.await;
                    drop(slot);
                });
            }
            let (response, pause) = response.and_pause();
            self.in_work.pause(pause);
            match response {
                Response::Nothing | Response::Pausing(..) => {}
                Response::Frame(frame) => {
                    bytes += frame.len();
                    chunks.push(Chunk::Bytes(frame));
                }
                Response::Pieces(pieces) => {
                    bytes += pieces.iter().map(Chunk::len).sum::<usize>();
                    chunks.extend(pieces);
                }
                Response::Close(closed) => end = Some(closed),
            }
        }
        if chunks.is_empty() && end.is_none() {
            return Poll::Pending;
        }
        Poll::Ready((chunks, end))
    }

    /// The client is gone; what it appended takes up the limits until it is written.
    fn leave_appends(&self) {
        for slot in self.queue.take() {
            if let Stage::Appends(work) = slot.stage {
                spawn(async move {
                    if let (_, Some(rest)) = work.await {
                        rest.await;
                    }
                    drop(slot.admission);
                });
            }
        }
    }

    async fn send(&self, chunks: Vec<Chunk>) -> Result<(), Closed> {
        let (mut bufs, mut bytes) = (Vec::with_capacity(chunks.len()), 0);
        for chunk in chunks {
            match chunk {
                Chunk::Bytes(mut rest) => {
                    while !rest.is_empty() {
                        let part = rest.split_to(rest.len().min(SEND_BYTES - bytes));
                        bytes += part.len();
                        bufs.push(part);
                        if bytes == SEND_BYTES || bufs.len() == SEND_BUFFERS {
                            self.send_bytes(std::mem::take(&mut bufs), bytes).await?;
                            bytes = 0;
                        }
                    }
                }
                Chunk::File { file, offset, len } => {
                    self.send_bytes(std::mem::take(&mut bufs), bytes).await?;
                    bytes = 0;
                    self.send_file(&file, offset, len).await?;
                }
            }
        }
        self.send_bytes(bufs, bytes).await
    }

    async fn send_bytes(&self, bufs: Vec<Bytes>, bytes: usize) -> Result<(), Closed> {
        if bytes == 0 {
            return Ok(());
        }
        let metrics = &self.shard.metrics;
        metrics.sends.one();
        metrics.response_bytes.add(bytes as u64);
        self.within_time(self.stream.send(bufs)).await
    }

    async fn send_file(&self, file: &File, offset: u64, len: u64) -> Result<(), Closed> {
        let mut done = 0;
        while done < len {
            let step = (len - done).min(SEND_BYTES as u64);
            let sent = self.stream.send_file(file, offset + done, step);
            self.within_time(sent).await?;
            done += step;
        }
        let metrics = &self.shard.metrics;
        metrics.response_bytes.add(len);
        metrics.responses_from_files.add(len);
        Ok(())
    }

    async fn within_time(&self, sent: impl Future<Output = io::Result<()>>) -> Result<(), Closed> {
        let allowed = self.shard.config.response_write_timeout;
        match timeout(allowed, sent).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Closed::SlowReader(allowed)),
        }
    }
}

/// Small messages of the quorum, and heartbeats: a node that is busy is not to be taken for one that
/// is dead. What they take up is bounded by the connection's own limits.
fn is_urgent(frame: &[u8]) -> bool {
    let urgent = [ApiKey::QuorumMessage, ApiKey::BrokerHeartbeat];
    let mut urgent = urgent.iter().map(|key| key.code().to_be_bytes());
    frame.len() <= SMALL_FRAME_BYTES && urgent.any(|key| frame.starts_with(&key))
}
