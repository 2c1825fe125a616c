//! Point-to-point messages of one rank: matching, eager and rendezvous, requests. Pure: frames go
//! out through an [`Outlet`] and come in by [`Engine::on_frame`]; there is no I/O and no clock.
//!
//! Short messages travel whole. Of those, a peer may have so many bytes on the way to a rank that
//! has not asked for them yet; past that ([`CREDIT_BYTES`]) and for long messages, only a request
//! travels, and the bytes follow when the receiver is ready, or it fetches them by itself.

#[cfg(test)]
mod engine_test;
mod incoming;
mod outlet;
mod request;

use std::collections::VecDeque;

use slab::Slab;

use crate::buffer::Buffer;
use crate::matching::{Envelope, Matcher, Pattern};
use crate::wire::{Header, Kind, Violation};

pub use outlet::{Outlet, Payload};
pub use request::{Fault, Status};
use request::{Request, State};

/// Eager bytes that one peer may have sent to a rank that has not consumed them.
pub const CREDIT_BYTES: u64 = 4 << 20;
/// Consumed bytes are told to the sender in lots of this.
const CREDIT_LOT: u64 = CREDIT_BYTES / 4;
/// What each eager message counts beside its bytes, so that empty ones are bounded too.
const MESSAGE_COST: u64 = 64;
/// Messages that may wait for their receive, requests of long ones among them.
const UNMATCHED_MAX: usize = 1 << 20;

/// A request by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// When a send is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When the buffer can be used again.
    Standard,
    /// When the message was matched, too.
    Synchronous,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The peer by its rank in the job.
    pub peer: u32,
    /// The communicator's context.
    pub context: u32,
    /// Our own rank in it.
    pub rank: u32,
    /// The tag.
    pub tag: i32,
}

/// What became of a call at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It is over.
    Done(Status),
    /// It goes on under this number.
    Pending(RequestId),
}

/// What is left to do for a peer.
#[derive(Debug)]
enum Task<B> {
    /// A frame, with a payload of a buffer's, of another eight bytes, or none.
    Frame(Header, Option<B>),
    /// A request with the address of its message.
    Offer(Header, u64),
    /// The pieces of a request's message, from a place on.
    Stream {
        request: u32,
        answer: u32,
        at: usize,
        end: usize,
    },
    /// A message to be fetched from the peer for a receive.
    Fetch {
        receive: u32,
        request: u32,
        address: u64,
        len: usize,
    },
}

#[derive(Debug)]
struct Peer<B> {
    backlog: VecDeque<Task<B>>,
    /// Our eager bytes that it has not consumed.
    uncredited: u64,
    /// Its eager bytes that we hold, and those consumed of which it does not know.
    held: u64,
    owed: u64,
    lost: bool,
}

/// A message that waits for its receive.
#[derive(Debug)]
enum Arrived {
    /// The whole message; whoever waits for its match is to be told.
    Eager {
        peer: u32,
        bytes: Box<[u8]>,
        waits: Option<u32>,
    },
    /// A request.
    Request {
        peer: u32,
        request: u32,
        length: u64,
        address: Option<u64>,
    },
}

impl Arrived {
    fn len(&self) -> u64 {
        match self {
            Arrived::Eager { bytes, .. } => bytes.len() as u64,
            Arrived::Request { length, .. } => *length,
        }
    }
}

/// A message that a matched probe took out of the queue.
#[derive(Debug)]
pub struct Message {
    envelope: Envelope,
    arrived: Arrived,
}

impl Message {
    /// What a probe says of it.
    pub fn status(&self) -> Status {
        Status::of(&self.envelope, self.arrived.len())
    }
}

/// The messages of one rank.
#[derive(Debug)]
pub struct Engine<B> {
    matcher: Matcher<u32, Arrived>,
    requests: Slab<Request<B>>,
    peers: Vec<Peer<B>>,
    /// Peers with a backlog.
    behind: Vec<u32>,
}

impl<B: Buffer> Engine<B> {
    /// An engine of a job of `ranks`.
    pub fn new(ranks: u32) -> Self {
        let peer = |_| Peer {
            backlog: VecDeque::new(),
            uncredited: 0,
            held: 0,
            owed: 0,
            lost: false,
        };
        Engine {
            matcher: Matcher::default(),
            requests: Slab::new(),
            peers: (0..ranks).map(peer).collect(),
            behind: Vec::new(),
        }
    }

    /// Sends a message.
    pub fn send(
        &mut self,
        out: &mut impl Outlet<B>,
        to: &Destination,
        mode: Mode,
        buffer: &B,
    ) -> Started {
        let len = buffer.len();
        let peer = &mut self.peers[to.peer as usize];
        if peer.lost {
            return Started::Done(Status::failed(Fault::PeerLost));
        }
        let mut header = Header {
            context: to.context,
            tag: to.tag,
            rank: to.rank,
            length: len as u64,
            ..Header::new(Kind::Eager)
        };
        let cost = len as u64 + MESSAGE_COST;
        if len > out.eager_max(to.peer) || peer.uncredited + cost > CREDIT_BYTES {
            return self.send_by_request(out, to.peer, header, buffer);
        }
        peer.uncredited += cost;
        header.payload = len as u32;
        let waits = mode == Mode::Synchronous;
        let mut id = None;
        if waits {
            let request =
                self.requests
                    .insert(Request::send(to.peer, buffer.clone(), State::Matching));
            header.kind = Kind::EagerSync;
            header.request = request as u32;
            id = Some(request as u32);
        }
        let peer = &mut self.peers[to.peer as usize];
        let whole = Payload::Part(buffer, 0, len);
        let pushed = peer.backlog.is_empty() && out.push(to.peer, &header, &whole);
        if !pushed {
            if id.is_none() {
                let request =
                    self.requests
                        .insert(Request::send(to.peer, buffer.clone(), State::Leaving));
                header.request = request as u32;
                id = Some(request as u32);
            }
            self.queue(to.peer, Task::Frame(header, Some(buffer.clone())));
        }
        match id {
            Some(id) => Started::Pending(RequestId(id)),
            None => Started::Done(Status::sent()),
        }
    }

    fn send_by_request(
        &mut self,
        out: &mut impl Outlet<B>,
        peer: u32,
        mut header: Header,
        buffer: &B,
    ) -> Started {
        let request = self
            .requests
            .insert(Request::send(peer, buffer.clone(), State::Matching));
        header.kind = Kind::Request;
        header.request = request as u32;
        let offered = buffer
            .address()
            .filter(|_| out.offers_fetch(peer, buffer.len()));
        if offered.is_some() {
            header.payload = 8;
        }
        let address = offered.unwrap_or(0).to_le_bytes();
        let payload = Payload::Bytes(&address[..header.payload as usize]);
        let idle = self.peers[peer as usize].backlog.is_empty();
        if !(idle && out.push(peer, &header, &payload)) {
            let task = match offered {
                Some(address) => Task::Offer(header, address),
                None => Task::Frame(header, None),
            };
            self.queue(peer, task);
        }
        Started::Pending(RequestId(request as u32))
    }

    /// Asks for a message; longer ones than the buffer are cut, with [`Fault::Truncated`].
    pub fn receive(&mut self, pattern: Pattern, buffer: B) -> Started {
        if let Some((envelope, arrived)) = self.matcher.take(&pattern) {
            return self.receive_message(Message { envelope, arrived }, buffer);
        }
        let request = self.requests.insert(Request::receive(buffer)) as u32;
        self.matcher.post(pattern, request);
        Started::Pending(RequestId(request))
    }

    /// Receives a message that a matched probe took.
    pub fn receive_message(&mut self, message: Message, buffer: B) -> Started {
        let Message { envelope, arrived } = message;
        match arrived {
            Arrived::Eager { peer, bytes, waits } => {
                let fits = bytes.len().min(buffer.len());
                buffer.write(0, &bytes[..fits]);
                self.consumed(peer, bytes.len() as u64);
                if let Some(request) = waits {
                    self.answer_matched(peer, request);
                }
                Started::Done(Status::of(&envelope, bytes.len() as u64).cut_to(buffer.len()))
            }
            Arrived::Request {
                peer,
                request,
                length,
                address,
            } => {
                let receive = self.requests.insert(Request::receive(buffer)) as u32;
                self.begin(receive, &envelope, peer, request, length, address);
                Started::Pending(RequestId(receive))
            }
        }
    }

    /// What the oldest message that fits says of itself.
    pub fn probe(&self, pattern: &Pattern) -> Option<Status> {
        let (envelope, arrived) = self.matcher.look(pattern)?;
        Some(Status::of(envelope, arrived.len()))
    }

    /// Takes the oldest message that fits out of the queue: a matched probe.
    pub fn extract(&mut self, pattern: &Pattern) -> Option<Message> {
        let (envelope, arrived) = self.matcher.take(pattern)?;
        Some(Message { envelope, arrived })
    }

    /// Whether a request is over.
    pub fn is_done(&self, id: RequestId) -> bool {
        let request = self.requests.get(id.0 as usize);
        request.is_none_or(|request| matches!(request.state, State::Over(_)))
    }

    /// The outcome of a request that is over; its number is free then.
    pub fn take(&mut self, id: RequestId) -> Option<Status> {
        let State::Over(status) = self.requests.get(id.0 as usize)?.state else {
            return None;
        };
        self.requests.remove(id.0 as usize);
        Some(status)
    }

    /// The outcome of a request that is over, and stays.
    pub fn look(&self, id: RequestId) -> Option<Status> {
        match self.requests.get(id.0 as usize)?.state {
            State::Over(status) => Some(status),
            _ => None,
        }
    }

    /// Takes back a receive that has no message yet. Sends are not taken back.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let cancelled = self.matcher.retract(|receive| *receive == id.0);
        if cancelled {
            self.over(id.0, Status::cancelled());
        }
        cancelled
    }

    /// Nobody will ask for the request's outcome.
    pub fn forget(&mut self, id: RequestId) {
        if self.take(id).is_none()
            && let Some(request) = self.requests.get_mut(id.0 as usize)
        {
            request.forgotten = true;
        }
    }

    /// Requests that are not over, or whose outcome nobody has taken.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Whether everything that was to leave has left.
    pub fn is_flushed(&self) -> bool {
        self.behind.is_empty()
    }

    /// A peer is gone: what waits for it fails, and so does what might have waited for it.
    pub fn lost(&mut self, peer: u32) {
        let this = &mut self.peers[peer as usize];
        if std::mem::replace(&mut this.lost, true) {
            return;
        }
        this.backlog.clear();
        self.behind.retain(|behind| *behind != peer);
        let mut failed = Vec::new();
        self.matcher.retract_all(|_, receive| {
            failed.push(*receive);
            true
        });
        for (id, request) in &self.requests {
            if request.peer == Some(peer) && !matches!(request.state, State::Over(_)) {
                failed.push(id as u32);
            }
        }
        for id in failed {
            self.over(id, Status::failed(Fault::PeerLost));
        }
    }

    /// Whether any peer is gone.
    pub fn has_lost(&self) -> Option<u32> {
        let at = self.peers.iter().position(|peer| peer.lost)?;
        Some(at as u32)
    }

    // ---- the backlog ----

    fn queue(&mut self, peer: u32, task: Task<B>) {
        let this = &mut self.peers[peer as usize];
        if this.lost {
            return;
        }
        if this.backlog.is_empty() {
            self.behind.push(peer);
        }
        this.backlog.push_back(task);
    }

    /// Lets leave what there is room for.
    pub fn flush(&mut self, out: &mut impl Outlet<B>) {
        let mut at = 0;
        while let Some(&peer) = self.behind.get(at) {
            while let Some(task) = self.peers[peer as usize].backlog.pop_front() {
                if let Some(rest) = self.work(out, peer, task) {
                    self.peers[peer as usize].backlog.push_front(rest);
                    break;
                }
            }
            if self.peers[peer as usize].backlog.is_empty() {
                self.behind.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Does one thing of the backlog; returns what is left of it if there is no room.
    fn work(&mut self, out: &mut impl Outlet<B>, peer: u32, task: Task<B>) -> Option<Task<B>> {
        match task {
            Task::Frame(header, buffer) => {
                let payload = match &buffer {
                    Some(buffer) => Payload::Part(buffer, 0, buffer.len()),
                    None => Payload::Bytes(&[]),
                };
                if !out.push(peer, &header, &payload) {
                    return Some(Task::Frame(header, buffer));
                }
                if header.kind == Kind::Eager {
                    self.over(header.request, Status::sent());
                }
                None
            }
            Task::Offer(header, address) => {
                let pushed = out.push(peer, &header, &Payload::Bytes(&address.to_le_bytes()));
                (!pushed).then_some(Task::Offer(header, address))
            }
            Task::Stream {
                request,
                answer,
                at,
                end,
            } => {
                let rest = self.stream(out, peer, request, answer, at, end);
                rest.map(|at| Task::Stream {
                    request,
                    answer,
                    at,
                    end,
                })
            }
            Task::Fetch {
                receive,
                request,
                address,
                len,
            } => {
                self.fetch(out, peer, receive, request, address, len);
                None
            }
        }
    }

    /// Sends pieces while there is room; where it stopped, if before the end.
    fn stream(
        &mut self,
        out: &mut impl Outlet<B>,
        peer: u32,
        request: u32,
        answer: u32,
        mut at: usize,
        end: usize,
    ) -> Option<usize> {
        let buffer = &self.requests.get(request as usize)?.buffer;
        let piece_max = out.piece_max(peer);
        while at < end {
            let piece = piece_max.min(end - at);
            let header = Header {
                payload: piece as u32,
                request: answer,
                length: at as u64,
                ..Header::new(Kind::Data)
            };
            if !out.push(peer, &header, &Payload::Part(buffer, at, piece)) {
                return Some(at);
            }
            at += piece;
        }
        self.over(request, Status::sent());
        None
    }

    fn fetch(
        &mut self,
        out: &mut impl Outlet<B>,
        peer: u32,
        receive: u32,
        request: u32,
        address: u64,
        len: usize,
    ) {
        let Some(asked) = self.requests.get(receive as usize) else {
            return;
        };
        if out.fetch(peer, address, &asked.buffer, len) {
            self.answer_matched(peer, request);
            self.finish_receive(receive);
        } else {
            self.clear(peer, receive, request, len);
        }
    }

    // ---- ends ----

    fn over(&mut self, id: u32, status: Status) {
        let Some(request) = self.requests.get_mut(id as usize) else {
            return;
        };
        request.state = State::Over(status);
        if request.forgotten {
            self.requests.remove(id as usize);
        }
    }

    fn finish_receive(&mut self, id: u32) {
        if let Some(Request {
            state: State::Coming { outcome, .. },
            ..
        }) = self.requests.get(id as usize)
        {
            let outcome = *outcome;
            self.over(id, outcome);
        }
    }

    fn answer_matched(&mut self, peer: u32, request: u32) {
        let header = Header {
            request,
            ..Header::new(Kind::Matched)
        };
        self.queue(peer, Task::Frame(header, None));
    }

    fn clear(&mut self, peer: u32, receive: u32, request: u32, len: usize) {
        let header = Header {
            request,
            context: receive,
            length: len as u64,
            ..Header::new(Kind::Clear)
        };
        self.queue(peer, Task::Frame(header, None));
    }

    /// A peer's message has left our memory.
    fn consumed(&mut self, peer: u32, len: u64) {
        let this = &mut self.peers[peer as usize];
        this.held -= len + MESSAGE_COST;
        this.owed += len + MESSAGE_COST;
        if this.owed >= CREDIT_LOT {
            let header = Header {
                length: std::mem::take(&mut this.owed),
                ..Header::new(Kind::Credit)
            };
            self.queue(peer, Task::Frame(header, None));
        }
    }

    fn violation(ok: bool, violation: Violation) -> Result<(), Violation> {
        if ok { Ok(()) } else { Err(violation) }
    }
}
