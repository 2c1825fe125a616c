//! One simulated connection: two ends, and bytes on their way to each of them.
//!
//! Bytes arrive in order, in pieces, after a while; a sender whose peer does not read has to
//! wait. What is lost is sent again and delays all that follows. Nothing is heard from a host
//! that is off or behind a partition; a host that is up and does not know the connection (any
//! more) answers with a reset. The names of the states follow tcp(7).

use std::collections::VecDeque;

use bytes::Bytes;

use super::tuning::{Tuning, probe_event};
use super::{Done, Effects, NetEvent, OpKey, SocketId};
use crate::op::SocketAddress;
use crate::sim::faults::{Latency, NetworkFaults};
use crate::sim::random::Random;

/// The longest piece in which bytes arrive.
const SEGMENT_MAX: usize = 64 << 10;

/// The pieces into which one send is cut at most, by chance.
const FRAGMENTS_MAX: u64 = 4;

const SECOND: u64 = 1_000_000_000;

/// The first retransmission time-out (RFC 6298, with Linux's minimum), and the longest.
const RTO_MIN: u64 = SECOND / 5;
const RTO_MAX: u64 = 120 * SECOND;

/// A peer that was not heard of for so long is given up (`tcp_retries2`, tcp(7)).
const USER_TIMEOUT: u64 = 924 * SECOND;

/// The world around a connection at one moment.
pub(super) struct Wire<'a> {
    pub now: u64,
    pub id: u64,
    pub faults: &'a mut NetworkFaults,
    pub random: &'a mut Random,
    pub out: &'a mut Effects,
    /// By end: packets towards it get through.
    pub open: [bool; 2],
    /// By end: its host is on.
    pub up: [bool; 2],
    /// By end: how long packets towards it take.
    pub delay: [Latency; 2],
    /// Both ends are on one host: nothing is lost.
    pub local: bool,
}

impl Wire<'_> {
    fn draw_delay(&mut self, to: usize) -> u64 {
        self.delay[to].draw(self.random)
    }

    fn reaches(&self, to: usize) -> bool {
        self.open[to] && self.up[to]
    }

    fn done(&mut self, op: OpKey, done: Done) {
        self.out.done.push((op, done));
    }
}

/// The place in a file that bytes in flight come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Origin {
    pub node: usize,
    pub inode: u64,
    pub offset: u64,
    /// How often the file was cut before: a page that was cut off keeps its content.
    pub cuts: u64,
}

#[derive(Debug)]
struct Segment {
    at: u64,
    /// Nothing for the end of the stream.
    bytes: Vec<Bytes>,
    len: usize,
    file: Option<Origin>,
}

/// Bytes on their way to one end.
#[derive(Debug, Default)]
struct Way {
    flight: VecDeque<Segment>,
    /// Arrived, and not read.
    inbox: VecDeque<Bytes>,
    /// Bytes that count against the socket buffer.
    held: usize,
    /// Bytes that were read, while the sender could not hear of it.
    withheld: usize,
    /// When the last segment arrives.
    last_at: u64,
    /// When the next event for this way is due.
    event_at: Option<u64>,
    /// Since when nothing gets through, and how long to wait before the next attempt.
    stalled: Option<(u64, u64)>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Its program closed it.
    Closed,
    /// Its host went down with it.
    Gone,
}

#[derive(Debug)]
struct Sending {
    op: OpKey,
    bufs: VecDeque<Bytes>,
    left: usize,
    total: usize,
    /// Where the next byte comes from, if the page cache lends it.
    file: Option<Origin>,
}

/// A receive.
#[derive(Clone, Copy, Debug)]
struct Receiving {
    op: OpKey,
    /// The room for one piece; none for a multishot one.
    once: Option<usize>,
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub node: usize,
    pub addr: SocketAddress,
    /// The socket of a program; none while it waits to be accepted.
    pub socket: Option<SocketId>,
    state: State,
    recvs: VecDeque<Receiving>,
    sends: VecDeque<Sending>,
    error: Option<i32>,
    error_told: bool,
    no_more_reads: bool,
    no_more_writes: bool,
    end_sent: bool,
    tuning: Tuning,
    /// When the peer was last heard of.
    heard_at: u64,
    /// Probes that it has not answered.
    unanswered: u32,
    /// A look at it is to come.
    probing: bool,
}

impl End {
    pub(super) fn new(node: usize, addr: SocketAddress, socket: Option<SocketId>) -> Self {
        End {
            node,
            addr,
            socket,
            state: State::Open,
            recvs: VecDeque::new(),
            sends: VecDeque::new(),
            error: None,
            error_told: false,
            no_more_reads: false,
            no_more_writes: false,
            end_sent: false,
            tuning: Tuning::default(),
            heard_at: 0,
            unanswered: 0,
            probing: false,
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    fn fail_sends(&mut self, errno: i32, wire: &mut Wire<'_>) {
        for sending in self.sends.drain(..) {
            let sent = sending.total - sending.left;
            self.error_told |= sent == 0;
            wire.done(
                sending.op,
                Done::Result(if sent > 0 { sent as i32 } else { -errno }),
            );
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub ends: [End; 2],
    ways: [Way; 2],
}

/// Takes the first `len` bytes out of a list of buffers.
fn take_front(bufs: &mut VecDeque<Bytes>, mut len: usize) -> Vec<Bytes> {
    let mut taken = Vec::new();
    while len > 0 {
        let Some(mut buf) = bufs.pop_front() else {
            break;
        };
        if buf.len() > len {
            bufs.push_front(buf.split_off(len));
        }
        len -= buf.len();
        if !buf.is_empty() {
            taken.push(buf);
        }
    }
    taken
}

impl Connection {
    pub(super) fn new(client: End, server: End, client_hears_at: u64) -> Self {
        let mut ways = [Way::default(), Way::default()];
        ways[0].last_at = client_hears_at;
        Connection {
            ends: [client, server],
            ways,
        }
    }

    /// No program holds either end.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.state != State::Open)
    }

    // ---- operations of the program at end `e` ----

    /// Receive: multishot, or at most `once` bytes at once.
    pub(super) fn recv(&mut self, e: usize, op: OpKey, once: Option<usize>, wire: &mut Wire<'_>) {
        self.ends[e].recvs.push_back(Receiving { op, once });
        self.flush(e, wire);
    }

    /// Sends all of the buffers, which may be pages of a file.
    pub(super) fn send(
        &mut self,
        e: usize,
        op: OpKey,
        bufs: Vec<Bytes>,
        file: Option<Origin>,
        wire: &mut Wire<'_>,
    ) {
        let end = &mut self.ends[e];
        let total = bufs.iter().map(Bytes::len).sum();
        let refused = match end.error {
            Some(errno) if !end.error_told => Some(errno),
            Some(_) => Some(libc::EPIPE),
            None if end.no_more_writes => Some(libc::EPIPE),
            None => None,
        };
        if let Some(errno) = refused {
            end.error_told = true;
            return wire.done(op, Done::Result(-errno));
        }
        if total == 0 {
            return wire.done(op, Done::Result(0));
        }
        end.sends.push_back(Sending {
            op,
            bufs: bufs.into(),
            left: total,
            total,
            file,
        });
        self.pump(e, wire);
    }

    /// `shutdown(2)` of either half.
    pub(super) fn shutdown(&mut self, e: usize, read: bool, write: bool, wire: &mut Wire<'_>) {
        let end = &mut self.ends[e];
        end.no_more_reads |= read;
        end.no_more_writes |= write;
        self.flush(e, wire);
        self.pump(e, wire);
    }

    /// Ends an operation before its time; true if it was still here.
    pub(super) fn cancel(&mut self, e: usize, op: OpKey, wire: &mut Wire<'_>) -> bool {
        let end = &mut self.ends[e];
        if let Some(index) = end.recvs.iter().position(|recv| recv.op == op) {
            end.recvs.remove(index);
            wire.done(op, Done::Result(-libc::ECANCELED));
            return true;
        }
        let Some(index) = end.sends.iter().position(|sending| sending.op == op) else {
            return false;
        };
        if let Some(sending) = end.sends.remove(index) {
            let sent = sending.total - sending.left;
            let result = if sent > 0 {
                sent as i32
            } else {
                -libc::ECANCELED
            };
            wire.done(op, Done::Result(result));
        }
        true
    }

    /// `close(2)`: an orderly end, or a reset if something was left unread (RFC 2525 §2.17).
    pub(super) fn close(&mut self, e: usize, wire: &mut Wire<'_>) {
        if self.ways[e].inbox.is_empty() {
            self.leave(e, wire);
            self.ends[e].no_more_writes = true;
            self.pump(e, wire);
        } else {
            self.abort(e, wire);
        }
    }

    /// Ends at once: the peer gets a reset.
    pub(super) fn abort(&mut self, e: usize, wire: &mut Wire<'_>) {
        self.leave(e, wire);
        self.drop_flight(1 - e);
        if self.ends[e].error.is_none() {
            self.send_reset(1 - e, wire);
        }
    }

    /// Nobody holds end `e` any more. What the peer has still to send goes out, to be answered
    /// with a reset.
    fn leave(&mut self, e: usize, wire: &mut Wire<'_>) {
        let end = &mut self.ends[e];
        end.state = State::Closed;
        end.socket = None;
        end.recvs.clear();
        end.sends.clear();
        let way = &mut self.ways[e];
        way.inbox.clear();
        way.withheld = 0;
        way.held = way.flight.iter().map(|segment| segment.len).sum();
        self.pump(1 - e, wire);
    }

    // ---- what the world does ----

    /// The host of end `e` goes down. Of what it sent, the first part is on its way.
    pub(super) fn host_down(&mut self, e: usize, wire: &mut Wire<'_>) {
        self.leave(e, wire);
        self.ends[e].state = State::Gone;
        let way = &mut self.ways[1 - e];
        let travelling = wire.random.index(way.flight.len() + 1);
        for lost in way.flight.drain(travelling..) {
            way.held -= lost.len;
        }
        for segment in &mut way.flight {
            segment.file = None;
        }
    }

    /// What is due towards end `e` and was lent by a page cache is looked up once more:
    /// sendfile(2) sends pages as they are when they leave, not as they were when it was called.
    pub(super) fn refresh(
        &mut self,
        e: usize,
        now: u64,
        mut look_up: impl FnMut(Origin, usize) -> Option<Vec<Bytes>>,
    ) {
        for segment in self.ways[e]
            .flight
            .iter_mut()
            .take_while(|segment| segment.at <= now)
        {
            if let Some(pages) = segment.file.and_then(|file| look_up(file, segment.len)) {
                segment.bytes = pages;
            }
        }
    }

    /// A partition ended: news of what was read gets through again.
    pub(super) fn heal(&mut self, wire: &mut Wire<'_>) {
        for e in 0..2 {
            if wire.reaches(1 - e) {
                self.ways[e].held -= std::mem::take(&mut self.ways[e].withheld);
                self.pump(1 - e, wire);
            }
        }
    }

    /// Segments towards end `e` are due.
    pub(super) fn deliver(&mut self, e: usize, wire: &mut Wire<'_>) {
        let way = &mut self.ways[e];
        if way.event_at.is_some_and(|at| at <= wire.now) {
            way.event_at = None;
        }
        if way
            .flight
            .front()
            .is_none_or(|segment| segment.at > wire.now)
        {
            return self.schedule(e, wire);
        }
        if !wire.reaches(e) {
            return self.stall(e, wire);
        }
        way.stalled = None;
        self.ends[e].heard_at = wire.now;
        if self.ends[e].state != State::Open {
            return self.answer_stranger(e, wire);
        }
        while let Some(segment) = way.flight.pop_front_if(|segment| segment.at <= wire.now) {
            way.ended |= segment.len == 0;
            if self.ends[e].no_more_reads {
                way.held -= segment.len;
            } else {
                way.inbox.extend(segment.bytes);
            }
        }
        self.flush(e, wire);
        self.schedule(e, wire);
    }

    /// A packet gets lost on its way to end `e`; the sender waits, and tries again.
    fn stall(&mut self, e: usize, wire: &mut Wire<'_>) {
        if self.ends[1 - e].state == State::Gone {
            return self.drop_flight(e);
        }
        let way = &mut self.ways[e];
        let (since, timeout) = match way.stalled {
            None => (wire.now, RTO_MIN),
            Some((since, timeout)) => (since, (2 * timeout).min(RTO_MAX)),
        };
        way.stalled = Some((since, timeout));
        let limit = self.ends[1 - e].tuning.user_timeout;
        let limit = limit.map_or(USER_TIMEOUT, |limit| limit.as_nanos() as u64);
        if wire.now - since >= limit {
            self.drop_flight(e);
            return self.fail(1 - e, libc::ETIMEDOUT, wire);
        }
        if let Some(front) = way.flight.front_mut() {
            front.at = wire.now + timeout;
        }
        self.schedule(e, wire);
    }

    /// Something arrives for an end that nobody holds.
    fn answer_stranger(&mut self, e: usize, wire: &mut Wire<'_>) {
        let only_end = self.ways[e].flight.iter().all(|segment| segment.len == 0);
        self.drop_flight(e);
        if !only_end || self.ends[e].state == State::Gone {
            self.send_reset(1 - e, wire);
        }
    }

    fn send_reset(&mut self, to: usize, wire: &mut Wire<'_>) {
        let at = wire.now + wire.draw_delay(to);
        wire.out.events.push((
            at,
            NetEvent::Reset {
                connection: wire.id,
                end: to,
            },
        ));
    }

    /// A reset arrives at end `e`, unless it is lost.
    pub(super) fn reset(&mut self, e: usize, wire: &mut Wire<'_>) {
        if wire.reaches(e) {
            self.fail(e, libc::ECONNRESET, wire);
        }
    }

    /// The connection breaks for both sides.
    pub(super) fn break_off(&mut self, wire: &mut Wire<'_>) {
        self.fail(0, libc::ECONNRESET, wire);
        self.fail(1, libc::ECONNRESET, wire);
    }

    fn fail(&mut self, e: usize, errno: i32, wire: &mut Wire<'_>) {
        self.drop_flight(0);
        self.drop_flight(1);
        let end = &mut self.ends[e];
        if end.state == State::Open && end.error.is_none() {
            end.error = Some(errno);
            end.fail_sends(errno, wire);
            self.flush(e, wire);
        }
    }

    /// An end takes over what its socket was told.
    pub(super) fn tune(&mut self, e: usize, tuning: Tuning, wire: &mut Wire<'_>) {
        let end = &mut self.ends[e];
        end.tuning = tuning;
        if let Some(keepalive) = tuning.keepalive
            && !end.probing
        {
            end.probing = true;
            end.heard_at = wire.now;
            let at = wire.now + keepalive.idle.as_nanos() as u64;
            wire.out.events.push(probe_event(at, wire.id, e));
        }
        self.pump(e, wire);
        self.pump(1 - e, wire);
    }

    /// Looks whether the peer of end `e` is still there, if it was silent (tcp(7), keepalive).
    pub(super) fn probe(&mut self, e: usize, wire: &mut Wire<'_>) {
        let peer_gone = self.ends[1 - e].state == State::Gone;
        let answers = wire.reaches(1 - e) && wire.reaches(e);
        let end = &mut self.ends[e];
        let wanted = end.tuning.keepalive.filter(|_| end.state == State::Open);
        let Some(keepalive) = wanted.filter(|_| end.error.is_none()) else {
            end.probing = false;
            return;
        };
        let [idle, interval] =
            [keepalive.idle, keepalive.interval].map(|time| time.as_nanos() as u64);
        let due = end.heard_at + idle;
        let next = if wire.now < due {
            due
        } else if answers && peer_gone {
            end.probing = false;
            return self.send_reset(e, wire);
        } else if answers {
            end.heard_at = wire.now;
            end.unanswered = 0;
            wire.now + idle
        } else if end.unanswered >= keepalive.probes {
            end.probing = false;
            return self.fail(e, libc::ETIMEDOUT, wire);
        } else {
            end.unanswered += 1;
            wire.now + interval
        };
        wire.out.events.push(probe_event(next, wire.id, e));
    }

    /// Bytes that the way from one end holds.
    fn buffer(&self, from: usize, default: usize) -> usize {
        let send = self.ends[from].tuning.send_buffer;
        let receive = self.ends[1 - from].tuning.receive_buffer;
        match (send, receive) {
            (None, None) => default,
            (one, other) => one.unwrap_or(default).min(other.unwrap_or(default)),
        }
    }

    // ---- the moving parts ----

    fn drop_flight(&mut self, e: usize) {
        let way = &mut self.ways[e];
        for lost in way.flight.drain(..) {
            way.held -= lost.len;
        }
        way.stalled = None;
    }

    fn schedule(&mut self, e: usize, wire: &mut Wire<'_>) {
        let way = &mut self.ways[e];
        let Some(front) = way.flight.front() else {
            return;
        };
        if way.event_at.is_none_or(|at| at > front.at) {
            way.event_at = Some(front.at);
            wire.out.events.push((
                front.at,
                NetEvent::Deliver {
                    connection: wire.id,
                    end: e,
                },
            ));
        }
    }

    /// Moves bytes from the sends of end `from` onto the way, as far as there is room.
    fn pump(&mut self, from: usize, wire: &mut Wire<'_>) {
        let to = 1 - from;
        while !self.ends[from].sends.is_empty() {
            let buffer = self.buffer(from, wire.faults.socket_buffer);
            let room = buffer.saturating_sub(self.ways[to].held);
            let Some(sending) = self.ends[from].sends.front_mut() else {
                break;
            };
            let len = room.min(sending.left);
            // Many small gaps are not filled one by one (RFC 9293 §3.8.6.2, silly windows).
            if len == 0 || len < sending.left && room < buffer / 4 {
                break;
            }
            sending.left -= len;
            let bufs = take_front(&mut sending.bufs, len);
            let file = sending.file;
            if let Some(file) = &mut sending.file {
                file.offset += len as u64;
            }
            if sending.left == 0 {
                let (op, total) = (sending.op, sending.total);
                self.ends[from].sends.pop_front();
                wire.done(op, Done::Result(i32::try_from(total).unwrap_or(i32::MAX)));
            }
            self.transmit(to, bufs.into(), len, file, wire);
        }
        let end = &mut self.ends[from];
        let over = end.no_more_writes && end.sends.is_empty() && end.error.is_none();
        if over && !end.end_sent {
            end.end_sent = true;
            self.put(
                to,
                Segment {
                    at: 0,
                    bytes: Vec::new(),
                    len: 0,
                    file: None,
                },
                wire,
            );
        }
    }

    fn transmit(
        &mut self,
        to: usize,
        mut bufs: VecDeque<Bytes>,
        len: usize,
        mut file: Option<Origin>,
        wire: &mut Wire<'_>,
    ) {
        let mut left = len;
        let mut pieces = 1;
        if wire.faults.fragment.strikes(wire.random) {
            pieces = wire.random.between(2, FRAGMENTS_MAX);
        }
        while left > 0 {
            let cut = pieces > 1 && left > 1;
            let part = if cut {
                wire.random.between(1, left as u64 - 1) as usize
            } else {
                left
            };
            let part = part.min(SEGMENT_MAX);
            pieces = pieces.saturating_sub(1);
            left -= part;
            let bytes = take_front(&mut bufs, part);
            self.put(
                to,
                Segment {
                    at: 0,
                    bytes,
                    len: part,
                    file,
                },
                wire,
            );
            if let Some(file) = &mut file {
                file.offset += part as u64;
            }
        }
        if !wire.local && wire.faults.reset.strikes(wire.random) {
            let at = wire.now + wire.draw_delay(to);
            wire.out.events.push((
                at,
                NetEvent::Break {
                    connection: wire.id,
                },
            ));
        }
    }

    /// One segment leaves. About 1 GB/s.
    fn put(&mut self, to: usize, mut segment: Segment, wire: &mut Wire<'_>) {
        let mut at = wire.now + wire.draw_delay(to);
        if !wire.local && wire.faults.loss.strikes(wire.random) {
            at += RTO_MIN;
        }
        let way = &mut self.ways[to];
        segment.at = at.max(way.last_at) + segment.len as u64;
        way.last_at = segment.at;
        way.held += segment.len;
        way.flight.push_back(segment);
        self.schedule(to, wire);
    }

    /// Hands what arrived at end `e` to the operations that wait for it.
    fn flush(&mut self, e: usize, wire: &mut Wire<'_>) {
        let mut read = 0;
        while let Some(&Receiving { op, once }) = self.ends[e].recvs.front() {
            let Some(mut bytes) = self.ways[e].inbox.pop_front() else {
                break;
            };
            if let Some(room) = once {
                if bytes.len() > room {
                    self.ways[e].inbox.push_front(bytes.split_off(room));
                }
                read += bytes.len();
                self.ends[e].recvs.pop_front();
                wire.done(op, Done::Chunk { bytes, more: false });
                continue;
            }
            read += bytes.len();
            if !wire.faults.rearm.strikes(wire.random) {
                wire.done(op, Done::Chunk { bytes, more: true });
                continue;
            }
            self.ends[e].recvs.pop_front();
            let out_of_buffers = wire.random.coin();
            wire.done(
                op,
                Done::Chunk {
                    bytes,
                    more: out_of_buffers,
                },
            );
            if out_of_buffers {
                wire.done(op, Done::Result(-libc::ENOBUFS));
            }
        }
        if read > 0 {
            self.credit(e, read, wire);
        }
        let end = &mut self.ends[e];
        let result = match end.error {
            _ if self.ways[e].ended || end.no_more_reads => 0,
            Some(errno) => -errno,
            None => return,
        };
        if self.ways[e].inbox.is_empty() {
            for recv in end.recvs.drain(..) {
                end.error_told |= result < 0;
                wire.done(recv.op, Done::Result(result));
            }
        }
    }

    /// `read` bytes were read at end `e`: the sender has room again, once it hears of it.
    fn credit(&mut self, e: usize, read: usize, wire: &mut Wire<'_>) {
        let way = &mut self.ways[e];
        if wire.reaches(1 - e) {
            way.held -= read;
            self.pump(1 - e, wire);
        } else {
            way.withheld += read;
        }
    }
}
