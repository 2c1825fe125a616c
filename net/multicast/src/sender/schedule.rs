//! What a sender sends next, and when it next has something to do.

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::Instant;

use super::grtt::send_time;
use super::repair::Aggregation;
use super::{Sender, SenderEvent, SlowReceiver};
use crate::place::Place;
use crate::transmit::{Destination, Transmit};
use crate::wire::{
    Command, Data, FecId, Fti, Info, Message, ObjectHeader, Packet, PayloadId, Rate, Squelch,
    Watermark, object_flags,
};

/// A command that waits for its turn; its message is made at the moment of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// What is behind this place is all that there is.
    Squelch(Place),
    /// What was asked for by unicast.
    RepairAdv,
    /// The application's.
    Application(Bytes),
    /// For round trip times and congestion control.
    Probe,
}

/// Bytes of a probe that names no one.
const PROBE_LEN: usize = 28;

/// The end of the sender is said so often.
const END_COUNT: u32 = 3;

/// The flushes that follow the last data, and then the heartbeat.
#[derive(Debug, Default)]
pub(super) struct Flush {
    next: Option<Instant>,
    count: u32,
    /// Places that flushes name in turn.
    places: u32,
    interval: Duration,
    /// The sender ends: so often it is still to be said.
    ends: Option<u32>,
}

impl Flush {
    /// Data was sent: the flushes begin anew, a round trip behind it.
    fn on_data(&mut self, now: Instant, grtt: Duration) {
        self.next = Some(now + grtt);
        self.count = 0;
        self.interval = grtt * 2;
    }

    /// The sender ends.
    pub(super) fn end(&mut self, now: Instant) {
        self.ends = Some(END_COUNT);
        self.next = Some(now);
    }
}

impl Sender {
    /// The next datagram that may leave now. Ask until there is none.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.activate_repairs(now);
        if now >= self.probe_at && !self.is_over() {
            self.probe_at = now + self.grtt();
            self.controls.push_back(Control::Probe);
        }
        if !self.pacer.is_open(now) {
            return None;
        }
        let message = self
            .next_control(now)
            .or_else(|| self.next_ack_request(now))
            .or_else(|| self.next_object_message(now))
            .or_else(|| self.next_flush(now))?;
        let packet = Packet {
            sequence: self.sequence,
            source: self.config.node,
            message,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let datagram = packet.encode();
        self.pacer.spend(datagram.len());
        self.congestion.on_sent(datagram.len());
        self.counters.datagrams += 1;
        self.counters.bytes += datagram.len() as u64;
        Some(Transmit {
            to: Destination::Group,
            datagram,
        })
    }

    /// When [`Sender::poll_transmit`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let opens = self.pacer.opens_at();
        let partial = || self.objects.values().any(|object| object.has_partial());
        let mut next = self.probe_at;
        if !self.controls.is_empty() || !self.pending.is_empty() || partial() {
            next = next.min(opens);
        } else if let Some(flush) = self.flush.next {
            next = next.min(flush.max(opens));
        }
        if let Aggregation::Until(until) = self.aggregation {
            next = next.min(until);
        }
        if self.acks.watermark().is_some() && !self.is_below_watermark() {
            next = next.min(self.ask_at.max(opens));
        }
        Some(next)
    }

    /// All is said: the end too.
    pub fn is_over(&self) -> bool {
        self.flush.ends == Some(0)
    }

    // ---- commands ----

    fn next_control(&mut self, now: Instant) -> Option<Message> {
        let control = self.controls.pop_front()?;
        let command = match control {
            Control::Squelch(from) => {
                self.counters.squelches += 1;
                Command::Squelch(self.squelch_command(from))
            }
            Control::RepairAdv => {
                let (requests, limited) = self.asked_for();
                if requests.is_empty() {
                    return self.next_control(now);
                }
                self.counters.repair_advs += 1;
                Command::RepairAdv {
                    limited,
                    cc_feedback: None,
                    requests,
                }
            }
            Control::Application(content) => Command::Application(content),
            Control::Probe => self.probe(now),
        };
        Some(Message::Command(self.tag(), command))
    }

    fn squelch_command(&self, from: Place) -> Squelch {
        let between = from.object..self.next_object;
        let gone = between.filter(|id| !self.objects.contains_key(id));
        Squelch {
            from: self.watermark(from),
            gone: gone
                .map(|id| id as u16)
                .take(self.list_room() / 2)
                .collect(),
        }
    }

    fn probe(&mut self, now: Instant) -> Command {
        self.counters.probes += 1;
        let interval = self.grtt.on_probe();
        let grtt = self.grtt();
        let active = std::mem::take(&mut self.active) || !self.pending.is_empty();
        let (sequence, nodes) = self.congestion.on_probe(now, grtt, active);
        self.pacer.set_rate(now, self.congestion.rate());
        let interval = match self.congestion.is_on() && active {
            true => self.congestion.probe_interval(grtt),
            false => interval,
        };
        // However short the trips, data has nine tenths of the rate.
        let bytes = (PROBE_LEN + 8 * nodes.len()) as f64;
        let least = Duration::from_secs_f64((10.0 * bytes / self.pacer.rate()).min(1.0));
        self.probe_at = now + interval.max(least);
        Command::Cc {
            sequence,
            flags: 0,
            sent: send_time(now),
            rate: Some(Rate::quantize(self.pacer.rate())),
            nodes,
        }
    }

    /// A place as the wire has it.
    pub(super) fn watermark(&self, at: Place) -> Watermark {
        Watermark {
            fec: self.config.fec,
            object: at.object as u16,
            id: self.payload_id(at, self.cut.block_len),
        }
    }

    fn payload_id(&self, at: Place, block_len: usize) -> PayloadId {
        PayloadId {
            block: (at.block & ((1 << self.config.fec.block_bits()) - 1)) as u32,
            symbol: at.symbol,
            block_len: match self.config.fec {
                FecId::SmallBlock => block_len as u16,
                _ => 0,
            },
        }
    }

    // ---- flushes and acknowledgement ----

    /// Something up to the watermark is to be sent again: those who are asked now cannot have it.
    fn is_below_watermark(&self) -> bool {
        let Some(watermark) = self.acks.watermark() else {
            return false;
        };
        let Some(object) = self.pending.first().and_then(|id| self.objects.get(id)) else {
            return false;
        };
        let next = object.next_pending().unwrap_or_default();
        (object.id, next.0, next.1) <= (watermark.object, watermark.block, watermark.symbol.into())
    }

    fn next_ack_request(&mut self, now: Instant) -> Option<Message> {
        let watermark = self.acks.watermark()?;
        if now < self.ask_at || self.is_below_watermark() {
            return None;
        }
        let interval = self.grtt() * 2;
        self.ask_at = now
            + match self.acks.is_hopeless(self.config.robust) {
                true => self.config.heartbeat.max(interval),
                false => interval,
            };
        for node in self.acks.unresponsive(self.config.robust) {
            if self.config.slow_receiver == SlowReceiver::Drop {
                self.tell(SenderEvent::Dropped(node));
                self.remove_receiver(node);
            } else {
                self.tell(SenderEvent::Unresponsive(node));
            }
        }
        let acking = self.acks.ask(self.list_room() / 4);
        if acking.is_empty() {
            return None;
        }
        Some(self.flush_message(watermark, acking))
    }

    fn flush_message(&mut self, at: Place, acking: Vec<u32>) -> Message {
        self.counters.flushes += 1;
        let command = Command::Flush {
            at: self.watermark(at),
            acking,
            app_ack: None,
        };
        Message::Command(self.tag(), command)
    }

    fn next_flush(&mut self, now: Instant) -> Option<Message> {
        if now < self.flush.next? {
            return None;
        }
        if let Some(left) = self.flush.ends {
            self.flush.ends = Some(left.checked_sub(1)?);
            self.flush.next = Some(now + self.grtt());
            return Some(Message::Command(self.tag(), Command::EndOfTransmission));
        }
        #[cfg(test)]
        if crate::planted_test::is(crate::planted_test::Bug::NeverFlushes) {
            self.flush.next = None;
            return None;
        }
        let Some(at) = self.flush_place() else {
            self.flush.next = None;
            return None;
        };
        self.flush.count += 1;
        let mut interval = self.grtt() * 2;
        let robust = self.config.robust * self.flush.places;
        if self.flush.count == robust {
            self.tell(SenderEvent::Flushed);
        }
        if self.flush.count >= robust {
            if self.config.heartbeat.is_zero() {
                self.flush.next = None;
                return Some(self.flush_message(at, Vec::new()));
            }
            interval = (self.flush.interval * 2)
                .min(self.config.heartbeat)
                .max(interval);
        }
        self.flush.interval = interval;
        self.flush.next = Some(now + interval);
        if self.acks.set_watermark(at) {
            self.ask_at = now;
            return self.next_ack_request(now);
        }
        Some(self.flush_message(at, Vec::new()))
    }

    /// The place that the next flush names: in turn the last of the latest object, which says
    /// all of those before it, and of each stream, which goes on beside them.
    fn flush_place(&mut self) -> Option<Place> {
        let sent = self
            .objects
            .values()
            .filter(|object| object.last_sent.is_some());
        let latest = sent.clone().next_back().map(|object| object.id);
        let told = sent.filter(|object| object.is_stream() || Some(object.id) == latest);
        let places: Vec<Place> = told.filter_map(|object| object.last_sent).collect();
        self.flush.places = places.len() as u32;
        let turn = self.flush.count as usize % places.len().max(1);
        places.get(turn).copied()
    }

    // ---- objects ----

    fn next_object_message(&mut self, now: Instant) -> Option<Message> {
        if self.pending.is_empty() {
            let partial = self.objects.values().find(|object| object.has_partial());
            let stream = partial.map(|object| object.id)?;
            self.seal(stream);
        }
        let id = *self.pending.first()?;
        let grtt = self.grtt();
        let tag = self.tag();
        let fec = self.config.fec;
        let object = self.objects.get_mut(&id)?;
        object.touched = now;
        let mut header = ObjectHeader {
            tag,
            flags: 0,
            fec,
            object: id as u16,
            fti: Some(Fti {
                object_size: object.size,
                segment_size: self.cut.segment as u16,
                block_len: self.cut.block_len as u16,
                parity: self.code.parity() as u16,
                instance: 0,
            }),
        };
        if object.is_stream() {
            header.flags |= object_flags::STREAM;
        }
        if let Some(content) = &object.info {
            header.flags |= object_flags::INFO;
            if std::mem::take(&mut object.info_pending) {
                let content = content.clone();
                self.flush.on_data(now, grtt);
                if object.end_block() == 0 {
                    // There is nothing but the INFO: flushes have it to name.
                    let only = Place {
                        object: id,
                        ..Place::default()
                    };
                    object.last_sent = Some(only);
                }
                self.settle(id);
                return Some(Message::Info(Info { header, content }));
            }
        }
        let (number, symbol) = object.next_pending()?;
        let block = object.block(number)?;
        let (payload, again) = block.take(now, symbol, &mut self.code);
        let (len, is_parity) = (block.len(), symbol >= block.len());
        object.settle(number);
        let at = Place {
            object: id,
            block: number,
            symbol: symbol as u16,
        };
        if !is_parity {
            object.last_sent = object.last_sent.max(Some(at));
        }
        if again || is_parity {
            header.flags |= object_flags::REPAIR;
        }
        self.on_symbol_sent(now, at, (len, is_parity, again));
        self.settle(id);
        Some(Message::Data(Data {
            header,
            id: self.payload_id(at, len),
            payload,
        }))
    }

    fn on_symbol_sent(
        &mut self,
        now: Instant,
        at: Place,
        (len, is_parity, again): (usize, bool, bool),
    ) {
        match (is_parity, again) {
            (true, _) => self.counters.parity += 1,
            (false, true) => self.counters.source_repair += 1,
            (false, false) => self.counters.source += 1,
        }
        self.active = true;
        self.flush.on_data(now, self.grtt());
        if is_parity || again {
            return;
        }
        // A quarter of the memory at a time is asked for, so that the rest goes on meanwhile.
        let quarter = (self.config.buffer_blocks as u64 / 4).max(1);
        let full = usize::from(at.symbol) + 1 == len;
        if full && (at.block + 1).is_multiple_of(quarter) {
            self.acks.set_watermark(at);
        }
    }

    /// An object may have nothing more to send.
    fn settle(&mut self, id: u64) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        if object.has_pending() {
            return;
        }
        self.pending.remove(&id);
        let over = object.writer.as_ref().is_none_or(|writer| writer.closed);
        if over && !std::mem::replace(&mut object.sent, true) {
            self.tell(SenderEvent::Sent(id));
        }
    }
}
