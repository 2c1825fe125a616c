//! The receiving side of NORM: what any number of senders send, in order, asking for what is
//! missing.
//!
//! Pure, as the sender. Streams are read by [`Receiver::read`]: what is not read stays in the
//! stream's window, and when that is full, no more is taken in until there is room; the sender's
//! policy for slow receivers decides what becomes of it then.

mod block;
mod config;
mod cycle;
mod feedback;
mod loss;
mod object;
mod overheard;
mod remote;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use ringmill_ring::Instant;

pub use self::config::{Boundary, Chunk, ReceiverConfig, ReceiverCounters, ReceiverEvent};
use self::object::Piece;
use self::remote::{Remote, chunk};
use crate::backoff::Chance;
use crate::transmit::{Destination, Transmit};
use crate::wire::{CcFeedback, Command, Message, NodeId, Packet, RepairRequest, SenderTag};

/// Events that wait to be taken. When there are more, no data is taken in until some are.
const EVENTS_MAX: usize = 1024;

/// What all senders of a receiver share.
#[derive(Debug)]
struct Shared {
    config: ReceiverConfig,
    chance: Chance,
    counters: ReceiverCounters,
    events: VecDeque<ReceiverEvent>,
    /// Messages that are to leave.
    queue: VecDeque<(Destination, Message)>,
    /// Streams with something to read.
    readable: BTreeSet<(NodeId, u64)>,
    /// What is left to read of streams that are gone.
    left_over: VecDeque<Chunk>,
}

impl Shared {
    fn tell(&mut self, event: ReceiverEvent) {
        self.events.push_back(event);
    }

    fn send(&mut self, sender: SocketAddr, message: Message) {
        let to = match self.config.unicast_feedback {
            true => Destination::Node(sender),
            false => Destination::Group,
        };
        self.queue.push_back((to, message));
    }
}

/// A receiver. Owned by the core of its socket.
#[derive(Debug)]
pub struct Receiver {
    shared: Shared,
    remotes: BTreeMap<NodeId, Remote>,
    sequence: u16,
}

impl Receiver {
    /// A receiver that has heard nothing.
    pub fn new(config: ReceiverConfig) -> Receiver {
        Receiver {
            shared: Shared {
                chance: Chance::new(config.seed),
                config,
                counters: ReceiverCounters::default(),
                events: VecDeque::new(),
                queue: VecDeque::new(),
                readable: BTreeSet::new(),
                left_over: VecDeque::new(),
            },
            remotes: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.config.node
    }

    /// What was counted.
    pub fn counters(&self) -> ReceiverCounters {
        self.shared.counters
    }

    /// A message did not decode.
    pub fn on_malformed(&mut self) {
        self.shared.counters.malformed += 1;
    }

    /// What happened since, oldest first.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        self.shared.events.pop_front()
    }

    /// A message arrived. `bytes` is its length as a datagram.
    pub fn on_packet(&mut self, now: Instant, from: SocketAddr, packet: Packet, bytes: usize) {
        if packet.source == self.shared.config.node {
            return;
        }
        let (sequence, source) = (packet.sequence, packet.source);
        match packet.message {
            Message::Info(info) => {
                let seen = (now, source, from, info.header.tag, sequence, bytes);
                if let Some((remote, shared)) = self.hear(seen) {
                    remote.on_info(&info, shared);
                    remote.check(now, shared);
                }
            }
            Message::Data(data) => {
                let seen = (now, source, from, data.header.tag, sequence, bytes);
                if let Some((remote, shared)) = self.hear(seen) {
                    let reorder = match shared.config.boundary {
                        Boundary::Block => None,
                        Boundary::Symbols(tolerated) => Some(tolerated),
                    };
                    remote.on_data(data, reorder, shared);
                    remote.check(now, shared);
                }
            }
            Message::Command(tag, command) => {
                let seen = (now, source, from, tag, sequence, bytes);
                self.on_command(seen, command);
            }
            Message::Nack(nack) => {
                let to = (nack.sender, nack.instance);
                self.on_others(now, to, nack.cc_feedback.as_ref(), &nack.requests);
            }
            Message::Ack(ack) => {
                self.on_others(
                    now,
                    (ack.sender, ack.instance),
                    ack.cc_feedback.as_ref(),
                    &[],
                );
            }
            Message::Report(_) => {}
        }
    }

    /// Notes a sender's sign of life; none if it is not listened to.
    fn hear(
        &mut self,
        (now, id, from, tag, sequence, bytes): Heard,
    ) -> Option<(&mut Remote, &mut Shared)> {
        let shared = &mut self.shared;
        if shared.events.len() >= EVENTS_MAX {
            shared.counters.no_room += 1;
            return None;
        }
        let full = self.remotes.len() >= shared.config.senders_max;
        let fresh = match self.remotes.get_mut(&id) {
            None if full => {
                shared.counters.strangers += 1;
                return None;
            }
            None => Some(VecDeque::new()),
            Some(remote) if remote.instance == tag.instance => None,
            Some(remote) if !remote.is_restart(now, tag.instance) => return None,
            Some(remote) => {
                remote.drain(&mut shared.left_over);
                shared.tell(ReceiverEvent::SenderDown(id));
                Some(remote.lives())
            }
        };
        if let Some(lives) = fresh {
            shared.readable.retain(|(node, _)| *node != id);
            shared.tell(ReceiverEvent::SenderUp {
                sender: id,
                address: from,
                instance: tag.instance,
            });
            self.remotes
                .insert(id, Remote::new(now, id, from, tag, lives));
        }
        shared.counters.messages += 1;
        let remote = self.remotes.get_mut(&id)?;
        remote.address = from;
        remote.tag = tag;
        remote.heard = now;
        remote.unheard = 0;
        remote.feedback.on_datagram(now, sequence, bytes, tag);
        Some((remote, shared))
    }

    fn on_command(&mut self, seen: Heard, command: Command) {
        let (now, id, _, tag, ..) = seen;
        let Some((remote, shared)) = self.hear(seen) else {
            return;
        };
        let me = shared.config.node;
        match command {
            Command::Flush { at, acking, .. } => {
                let asked = acking.contains(&me);
                let here = remote.on_flush(at, asked, shared);
                #[cfg(test)]
                let here = here || crate::planted_test::is(crate::planted_test::Bug::AcksBlindly);
                if here && asked {
                    remote.owe_ack(now, at, shared);
                }
            }
            Command::EndOfTransmission => {
                if !std::mem::replace(&mut remote.ended, true) {
                    shared.tell(ReceiverEvent::SenderDown(id));
                }
            }
            Command::Squelch(squelch) => remote.on_squelch(&squelch, shared),
            Command::Cc {
                sequence,
                sent,
                rate,
                nodes,
                ..
            } => {
                let probe = (sequence, sent, &nodes[..]);
                let own = (me, &mut shared.chance);
                remote
                    .feedback
                    .on_probe(now, probe, rate.is_some(), tag, own);
            }
            Command::RepairAdv {
                cc_feedback,
                requests,
                ..
            } => {
                remote.overhear(&requests);
                if let Some(theirs) = &cc_feedback {
                    remote.feedback.on_others(now, theirs, tag);
                }
            }
            Command::Application(content) => shared.tell(ReceiverEvent::Command {
                sender: id,
                content,
            }),
            // Requests of the application's own are not offered; RFC 5740 leaves them open.
            Command::AckRequest { .. } => {}
        }
        remote.check(now, shared);
    }

    /// Another receiver was heard.
    fn on_others(
        &mut self,
        now: Instant,
        (sender, instance): (NodeId, u16),
        feedback: Option<&CcFeedback>,
        requests: &[RepairRequest],
    ) {
        let remote = self.remotes.get_mut(&sender);
        let Some(remote) = remote.filter(|remote| remote.instance == instance) else {
            return;
        };
        remote.overhear(requests);
        if let Some(theirs) = feedback {
            remote.feedback.on_others(now, theirs, remote.tag);
        }
    }

    /// The next datagram that may leave now. Ask until there is none.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let timeout = self.shared.config.sender_timeout;
        let shared = &mut self.shared;
        self.remotes.retain(|id, remote| {
            let silent = now - remote.heard >= timeout;
            if silent {
                remote.drain(&mut shared.left_over);
                shared.readable.retain(|(node, _)| node != id);
                if !remote.ended {
                    shared.tell(ReceiverEvent::SenderDown(*id));
                }
            } else {
                remote.run(now, shared);
            }
            !silent
        });
        let (to, message) = self.shared.queue.pop_front()?;
        self.sequence = self.sequence.wrapping_add(1);
        let packet = Packet {
            sequence: self.sequence,
            source: self.shared.config.node,
            message,
        };
        Some(Transmit {
            to,
            datagram: packet.encode(),
        })
    }

    /// When [`Receiver::poll_transmit`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timeout = self.shared.config.sender_timeout;
        let remotes = self.remotes.values();
        remotes.map(|remote| remote.next_deadline(timeout)).min()
    }

    /// The next piece of any stream, each stream's in order.
    pub fn read(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.shared.left_over.pop_front() {
            return Some(chunk);
        }
        while let Some(&(sender, stream)) = self.shared.readable.first() {
            let piece = self.read_piece(sender, stream);
            let Some(piece) = piece else {
                self.shared.readable.remove(&(sender, stream));
                continue;
            };
            if piece == Piece::End {
                self.end_stream(sender, stream);
                continue;
            }
            let instance = self
                .remotes
                .get(&sender)
                .map_or(0, |remote| remote.instance);
            let read = chunk((sender, instance, stream), piece);
            if let Some(read) = &read {
                self.shared.counters.lost_bytes += read.lost;
            }
            return read;
        }
        None
    }

    fn read_piece(&mut self, sender: NodeId, stream: u64) -> Option<Piece> {
        let object = self.remotes.get_mut(&sender)?.objects.get_mut(&stream)?;
        let piece = object.next_piece();
        self.shared.counters.malformed += std::mem::take(&mut object.malformed);
        piece
    }

    fn end_stream(&mut self, sender: NodeId, stream: u64) {
        self.shared.readable.remove(&(sender, stream));
        if let Some(remote) = self.remotes.get_mut(&sender) {
            remote.end_stream(stream);
        }
        self.shared
            .tell(ReceiverEvent::StreamEnd { sender, stream });
    }
}

/// A sender's message: when, whose, from where, what it says of itself, its number and length.
type Heard = (Instant, NodeId, SocketAddr, SenderTag, u16, usize);
