//! The sending side of NORM: objects and streams, repair, flushes, probes.
//!
//! Pure: datagrams and the time go in by [`Sender::on_packet`] and [`Sender::poll_transmit`],
//! datagrams and events come out. Whoever drives it calls `poll_transmit` until there is nothing,
//! and again at [`Sender::next_deadline`], or after a call that gave it something to send.

mod acks;
mod block;
mod config;
mod congestion;
mod grtt;
mod object;
mod repair;
mod schedule;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::Instant;

use self::acks::Acks;
pub use self::config::{
    ConfigError, RateControl, SenderConfig, SenderCounters, SenderEvent, SlowReceiver,
};
use self::congestion::Congestion;
use self::grtt::Grtt;
use self::object::{Cut, Object};
use self::repair::Aggregation;
use self::schedule::{Control, Flush};
use crate::fec::{Code, SYMBOLS_MAX};
use crate::pacer::Pacer;
use crate::place::Place;
use crate::wire::{AckKind, FecId, GroupSize, Message, NodeId, Packet, SenderTag, StreamHeader};

/// Events that wait to be taken; the oldest go when there are more.
const EVENTS_MAX: usize = 1024;

/// Commands of the application that wait to be sent.
const COMMANDS_MAX: usize = 64;

/// Bytes of headers in front of a symbol: NORM, FEC payload id, EXT_FTI, stream.
const HEADERS: usize = 48;

/// Why something cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such stream, or it was closed.
    #[error("no open stream {0}")]
    NoStream(u64),
    /// So many objects are kept for repair already, or so many bytes of them.
    #[error("the memory for repair is full")]
    Full,
    /// INFO, commands and objects have their limits.
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// An object of no bytes and without INFO is nothing.
    #[error("there is nothing to send")]
    Empty,
    /// The sender was ended.
    #[error("the sender has ended")]
    Ended,
}

/// A sender. Owned by the core of its socket.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    cut: Cut,
    code: Code,
    objects: BTreeMap<u64, Object>,
    /// Objects with something to send.
    pending: BTreeSet<u64>,
    next_object: u64,
    data_bytes: usize,
    sequence: u16,
    pacer: Pacer,
    congestion: Congestion,
    grtt: Grtt,
    aggregation: Aggregation,
    acks: Acks,
    ask_at: Instant,
    flush: Flush,
    probe_at: Instant,
    squelch_at: Instant,
    controls: VecDeque<Control>,
    /// Data was sent since the last probe.
    active: bool,
    ended: bool,
    events: VecDeque<SenderEvent>,
    counters: SenderCounters,
}

impl Sender {
    /// A sender with nothing to send.
    pub fn new(now: Instant, config: SenderConfig) -> Result<Sender, ConfigError> {
        if matches!(config.node, 0 | u32::MAX) {
            return Err(ConfigError::Node(config.node));
        }
        if !matches!(config.fec, FecId::Rs8 | FecId::SmallBlock) {
            return Err(ConfigError::Fec);
        }
        if !(64..=65_000).contains(&config.segment_size) {
            return Err(ConfigError::Segment(config.segment_size));
        }
        let limit = 1usize << (config.fec.block_bits() - 2);
        let block_bytes = u64::from(config.segment_size) * u64::from(config.block_len);
        let memory = config.buffer_blocks as u64 * block_bytes;
        if !(2..limit).contains(&config.buffer_blocks) || memory > crate::wire::OBJECT_SIZE_MAX {
            return Err(ConfigError::Buffer(config.buffer_blocks));
        }
        let (source, parity) = (usize::from(config.block_len), usize::from(config.parity));
        if config.auto_parity > config.parity || source + parity > SYMBOLS_MAX {
            return Err(ConfigError::Block);
        }
        let datagram = usize::from(config.segment_size) + HEADERS;
        let congestion = Congestion::new(config.rate, datagram);
        Ok(Sender {
            cut: Cut {
                segment: config.segment_size.into(),
                block_len: source,
                auto_parity: config.auto_parity.into(),
            },
            code: Code::new(source, parity).ok_or(ConfigError::Block)?,
            objects: BTreeMap::new(),
            pending: BTreeSet::new(),
            next_object: 0,
            data_bytes: 0,
            sequence: 0,
            pacer: Pacer::new(now, congestion.rate(), config.burst),
            congestion,
            grtt: Grtt::new(config.grtt, config.grtt_max),
            aggregation: Aggregation::Idle,
            acks: Acks::default(),
            ask_at: now,
            flush: Flush::default(),
            probe_at: now,
            squelch_at: Instant::default(),
            controls: VecDeque::new(),
            active: false,
            ended: false,
            events: VecDeque::new(),
            counters: SenderCounters::default(),
            config,
        })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    /// What was counted.
    pub fn counters(&self) -> SenderCounters {
        self.counters
    }

    /// The rate at present, in bytes per second.
    pub fn rate(&self) -> f64 {
        self.pacer.rate()
    }

    /// The group's round trip time, as receivers are told.
    pub fn grtt(&self) -> Duration {
        self.grtt_wire().duration()
    }

    /// What happened since, oldest first.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: SenderEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Another rate, or other bounds.
    pub fn set_rate(&mut self, now: Instant, rate: RateControl) {
        self.config.rate = rate;
        self.congestion.set(rate);
        self.pacer.set_rate(now, self.congestion.rate());
    }

    /// How many receivers there are, roughly, and the back-off factor that suits them.
    pub fn set_group(&mut self, size: u32, backoff: u8) {
        self.config.group_size = size;
        self.config.backoff = backoff.min(15);
    }

    /// A receiver is to acknowledge all that is sent from now on, and is waited for where the
    /// policy waits (see [`crate::ReceiverConfig::catch_up_blocks`]). What all who are registered
    /// have acknowledged makes room at once, under every policy: register all or none.
    pub fn add_receiver(&mut self, node: NodeId) {
        let objects = self.objects.values();
        let sent = objects.filter_map(|object| Some((object.id, object.last_sent?)));
        self.acks.add(node, sent.collect());
    }

    /// A receiver is waited for no longer.
    pub fn remove_receiver(&mut self, node: NodeId) {
        if let Some(at) = self.acks.remove(node) {
            self.tell(SenderEvent::Acknowledged(at));
        }
    }

    // ---- what is sent ----

    fn add_object(&mut self, object: Object) -> u64 {
        let id = object.id;
        self.next_object += 1;
        if object.has_pending() {
            self.pending.insert(id);
        }
        self.objects.insert(id, object);
        id
    }

    fn check_new(&mut self, now: Instant, info: &Option<Bytes>) -> Result<(), SendError> {
        if self.ended {
            return Err(SendError::Ended);
        }
        let info_len = info.as_ref().map_or(0, Bytes::len);
        if info_len > self.cut.segment {
            return Err(SendError::TooLong(info_len));
        }
        while self.objects.len() >= self.config.objects_max {
            if !self.purge_oldest(now) {
                return Err(SendError::Full);
            }
        }
        Ok(())
    }

    /// Opens a stream; `info` tells receivers out of band what it is, in one segment at most.
    pub fn open_stream(&mut self, now: Instant, info: Option<Bytes>) -> Result<u64, SendError> {
        self.check_new(now, &info)?;
        let memory = (self.config.buffer_blocks * self.cut.block_len * self.cut.segment) as u64;
        Ok(self.add_object(Object::stream(now, self.next_object, memory, info)))
    }

    /// Sends bytes of known length as one object (NORM_OBJECT_DATA).
    pub fn send_object(
        &mut self,
        now: Instant,
        content: Bytes,
        info: Option<Bytes>,
    ) -> Result<u64, SendError> {
        let len = content.len();
        if len == 0 && info.is_none() {
            return Err(SendError::Empty);
        }
        if len > self.config.object_bytes_max {
            return Err(SendError::TooLong(len));
        }
        self.check_new(now, &info)?;
        while self.data_bytes + len > self.config.object_bytes_max {
            if !self.purge_oldest(now) {
                return Err(SendError::Full);
            }
        }
        self.data_bytes += len;
        let object = Object::data(now, self.next_object, &content, info, self.cut);
        Ok(self.add_object(object))
    }

    /// The oldest DATA object goes, if it may.
    fn purge_oldest(&mut self, now: Instant) -> bool {
        let hold = self.hold();
        let oldest = self.objects.values().find(|object| {
            let over = object.writer.as_ref().is_none_or(|writer| writer.closed);
            over && object.is_quiet()
        });
        let Some(object) = oldest else { return false };
        let id = object.id;
        let last = object.last_sent.unwrap_or_default();
        let quiet = now - object.touched >= hold;
        let free = match (self.waits(), object.is_stream()) {
            (true, true) => self.acks.covers(last),
            (true, false) => self.acks.covers_object(last),
            (false, _) => quiet,
        };
        if !free {
            return false;
        }
        if let Some(object) = self.objects.remove(&id)
            && !object.is_stream()
        {
            self.data_bytes -= object.size as usize;
        }
        self.pending.remove(&id);
        self.acks.forget(id);
        self.tell(SenderEvent::Purged(id));
        true
    }

    /// The policy is to wait for receivers, and there are some.
    fn waits(&self) -> bool {
        self.config.slow_receiver != SlowReceiver::Squelch && !self.acks.is_empty()
    }

    /// How long a NACK may take from the loss, all back-off included, times the factor.
    fn hold(&self) -> Duration {
        let cycles = 2.0 * f64::from(self.config.backoff) + 3.0;
        self.grtt().mul_f64(cycles * self.config.hold)
    }

    /// Writes to a stream; returns how many bytes found room. With `end`, the last byte ends a
    /// message: the next begins one, and receivers that join may begin there.
    pub fn write(
        &mut self,
        now: Instant,
        stream: u64,
        bytes: &[u8],
        end: bool,
    ) -> Result<usize, SendError> {
        let mut written = 0;
        while written < bytes.len() {
            if !self.reserve(now, stream)? {
                self.counters.stalls += (bytes.len() - written) as u64;
                return Ok(written);
            }
            let Some(object) = self.objects.get_mut(&stream) else {
                return Err(SendError::NoStream(stream));
            };
            written += object.fill(&bytes[written..], self.cut);
            if object.has_pending() {
                self.pending.insert(stream);
            }
        }
        if end && let Some(object) = self.objects.get_mut(&stream) {
            object.end_message();
        }
        Ok(written)
    }

    /// Makes room for the next segment of a stream; false if there is none.
    fn reserve(&mut self, now: Instant, stream: u64) -> Result<bool, SendError> {
        let (hold, waits) = (self.hold(), self.waits());
        let no_stream = SendError::NoStream(stream);
        let object = self.objects.get_mut(&stream).ok_or(no_stream)?;
        if object.writer.as_ref().is_none_or(|writer| writer.closed) {
            return Err(no_stream);
        }
        if object.has_partial() || !object.needs_block() {
            return Ok(true);
        }
        if object.kept() == self.config.buffer_blocks {
            let first = object.first_block();
            let Some(oldest) = object.oldest() else {
                return Ok(false);
            };
            let last = Place {
                object: stream,
                block: first,
                symbol: oldest.len() as u16 - 1,
            };
            let free = self.acks.covers(last) || (!waits && now - oldest.touched >= hold);
            #[cfg(test)]
            let free = free || crate::planted_test::is(crate::planted_test::Bug::EvictsEarly);
            if !free || !oldest.is_quiet() {
                return Ok(false);
            }
            object.evict_oldest();
        }
        object.add_block(now, self.cut);
        Ok(true)
    }

    /// Whether a stream can be written to.
    pub fn is_open(&self, stream: u64) -> bool {
        let object = self.objects.get(&stream);
        let writer = object.and_then(|object| object.writer.as_ref());
        writer.is_some_and(|writer| !writer.closed)
    }

    /// Bytes that [`Sender::write`] would take at least, without making room by forgetting.
    pub fn room(&self, stream: u64) -> usize {
        let Some(object) = self.objects.get(&stream) else {
            return 0;
        };
        (self.config.buffer_blocks - object.kept()) * self.cut.block_len * self.cut.segment
    }

    /// Nothing waits to be sent.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let partial = self.objects.values().any(Object::has_partial);
        self.pending.is_empty() && self.controls.is_empty() && !partial
    }

    /// Ends a stream: receivers are told behind its last byte. False if there is no room for
    /// the end yet.
    pub fn close_stream(&mut self, now: Instant, stream: u64) -> Result<bool, SendError> {
        self.seal(stream);
        if !self.reserve(now, stream)? {
            return Ok(false);
        }
        if let Some(object) = self.objects.get_mut(&stream) {
            object.close(self.cut);
            self.pending.insert(stream);
        }
        Ok(true)
    }

    /// A stream's segment that is being filled is sent as it is. This happens by itself when
    /// there is nothing else to send.
    pub fn seal(&mut self, stream: u64) {
        if let Some(object) = self.objects.get_mut(&stream).filter(|o| o.has_partial()) {
            object.seal(self.cut);
            self.pending.insert(stream);
        }
    }

    /// A command of the application to all receivers: at once, in one datagram, unrepaired.
    pub fn send_command(&mut self, content: Bytes) -> Result<(), SendError> {
        if content.len() > self.cut.segment {
            return Err(SendError::TooLong(content.len()));
        }
        let is_command = |control: &&Control| matches!(control, Control::Application(_));
        if self.controls.iter().filter(is_command).count() >= COMMANDS_MAX {
            return Err(SendError::Full);
        }
        self.controls.push_back(Control::Application(content));
        Ok(())
    }

    /// Tells receivers that this sender is about to be gone. Nothing more can be sent.
    pub fn end(&mut self, now: Instant) {
        self.ended = true;
        self.flush.end(now);
    }

    // ---- what arrives ----

    /// Something arrived that may be for this sender.
    pub fn on_packet(&mut self, now: Instant, from: SocketAddr, packet: &Packet) {
        let own = (self.config.node, self.config.instance);
        match &packet.message {
            Message::Nack(nack) if (nack.sender, nack.instance) == own => {
                self.on_nack(now, packet.source, from, nack);
            }
            Message::Ack(ack) if (ack.sender, ack.instance) == own => {
                self.counters.acks += 1;
                self.acks.on_sign_of_life(packet.source);
                let feedback = ack.cc_feedback.as_ref();
                self.on_feedback(now, packet.source, ack.grtt_response, feedback);
                if let AckKind::Flush(at) = &ack.kind {
                    self.on_flush_ack(packet.source, at);
                }
            }
            _ => {}
        }
    }

    fn on_feedback(
        &mut self,
        now: Instant,
        node: NodeId,
        response: crate::wire::SendTime,
        feedback: Option<&crate::wire::CcFeedback>,
    ) {
        let rtt = grtt::round_trip(now, response, self.config.grtt_max);
        if let Some(rtt) = rtt {
            self.grtt.on_response(rtt);
        }
        if let Some(feedback) = feedback {
            let cc = &mut self.congestion;
            cc.on_feedback(now, node, feedback, rtt, self.active);
            self.pacer.set_rate(now, self.congestion.rate());
        }
    }

    fn on_flush_ack(&mut self, node: NodeId, at: &crate::wire::Watermark) {
        // Only the watermark that is out can be acknowledged: nothing has to be reconstructed.
        let Some(watermark) = self.acks.watermark() else {
            return;
        };
        let expected = self.watermark(watermark);
        if (at.object, at.id.block, at.id.symbol)
            == (expected.object, expected.id.block, expected.id.symbol)
            && let Some(done) = self.acks.on_ack(node)
        {
            self.tell(SenderEvent::Acknowledged(done));
        }
    }

    fn grtt_wire(&self) -> crate::wire::Rtt {
        let datagram = (self.cut.segment + HEADERS) as f64 / self.pacer.rate();
        let datagram = Duration::from_secs_f64(datagram.min(self.config.grtt_max.as_secs_f64()));
        self.grtt.advertised(datagram)
    }

    fn tag(&self) -> SenderTag {
        SenderTag {
            instance: self.config.instance,
            grtt: self.grtt_wire(),
            backoff: self.config.backoff.min(15),
            group_size: GroupSize::quantize(self.config.group_size),
        }
    }

    /// Bytes of a datagram's repair requests or lists.
    fn list_room(&self) -> usize {
        self.cut.segment + StreamHeader::LEN
    }
}
