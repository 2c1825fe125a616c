//! One sender as a receiver knows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ringmill_ring::Instant;

use super::cycle::Cycle;
use super::feedback::Feedback;
use super::object::{Object, Piece, Put};
use super::overheard::Overheard;
use super::{Chunk, ReceiverEvent, Shared};
use crate::fec::{Code, SYMBOLS_MAX};
use crate::place::{first_contact, unwrap};
use crate::wire::{
    Data, FecId, Fti, Info, NodeId, ObjectHeader, PayloadId, SenderTag, Squelch, StreamHeader,
    Watermark, object_flags,
};

/// Streams that are known to be over.
const OVER_MAX: usize = 256;

/// No datagram is under way for longer, and few for so long.
const LATEST: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(500);

/// Earlier lives of a sender whose late datagrams are known as such.
const LIVES: usize = 4;

/// A sender.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) instance: u16,
    earlier: VecDeque<u16>,
    pub(super) tag: SenderTag,
    pub(super) fec: Option<FecId>,
    code: Option<Code>,
    pub(super) objects: BTreeMap<u64, Object>,
    /// Objects that must exist, and of which nothing was heard.
    pub(super) missing: BTreeSet<u64>,
    /// Streams that were received and are over.
    over: BTreeSet<u64>,
    /// The number after the last object that is known of; none before anything was received.
    pub(super) next: Option<u64>,
    /// A flush that was heard before anything else: what is sent behind it is wanted.
    after: Option<Watermark>,
    pub(super) cycle: Cycle,
    pub(super) overheard: Overheard,
    /// Requests in vain without a word of the sender.
    pub(super) unheard: u32,
    pub(super) feedback: Feedback,
    pub(super) heard: Instant,
    /// When this life was heard first.
    since: Instant,
    /// It said that it ends.
    pub(super) ended: bool,
}

impl Remote {
    pub(super) fn new(
        now: Instant,
        id: NodeId,
        address: SocketAddr,
        tag: SenderTag,
        earlier: VecDeque<u16>,
    ) -> Remote {
        Remote {
            id,
            address,
            instance: tag.instance,
            earlier,
            tag,
            fec: None,
            code: None,
            objects: BTreeMap::new(),
            missing: BTreeSet::new(),
            over: BTreeSet::new(),
            next: None,
            after: None,
            cycle: Cycle::Idle,
            overheard: Overheard::default(),
            unheard: 0,
            feedback: Feedback::new(now),
            heard: now,
            since: now,
            ended: false,
        }
    }

    /// Whether a datagram that names another life of the sender tells that it restarted, or is
    /// a late one of a life that is over. Who has listened for long knows the lives that late
    /// ones may come from; who has not waits for a silence.
    pub(super) fn is_restart(&self, now: Instant, instance: u16) -> bool {
        let silent = now - self.heard;
        match self.earlier.contains(&instance) {
            true => silent >= LATEST,
            false => now - self.since >= LATEST || silent >= SILENCE,
        }
    }

    /// The earlier lives of the sender's next life.
    pub(super) fn lives(&self) -> VecDeque<u16> {
        let mut lives = self.earlier.clone();
        lives.push_back(self.instance);
        if lives.len() > LIVES {
            lives.pop_front();
        }
        lives
    }

    fn bits(&self) -> u32 {
        self.fec.map_or(24, FecId::block_bits)
    }

    /// What is left to read of all streams.
    pub(super) fn drain(&mut self, into: &mut VecDeque<Chunk>) {
        let objects = std::mem::take(&mut self.objects);
        for (_, mut object) in objects {
            while let Some(piece) = object.next_piece() {
                into.extend(chunk((self.id, self.instance, object.id), piece));
            }
        }
        self.missing.clear();
    }

    // ---- objects ----

    /// An INFO came.
    pub(super) fn on_info(&mut self, info: &Info, shared: &mut Shared) {
        let header = &info.header;
        let Some(id) = self.admit(header, None, shared) else {
            return;
        };
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        if object.info.is_some() {
            shared.counters.duplicates += 1;
            return;
        }
        object.info_missing = false;
        object.info = Some(info.content.clone());
        if object.is_stream() {
            shared.tell(ReceiverEvent::StreamInfo {
                sender: self.id,
                stream: id,
                info: info.content.clone(),
            });
        }
        self.settle(id, shared);
    }

    /// A symbol came.
    pub(super) fn on_data(&mut self, data: Data, reorder: Option<u16>, shared: &mut Shared) {
        let Some(id) = self.admit(&data.header, Some(data.id), shared) else {
            return;
        };
        let bits = self.bits();
        let (Some(object), Some(code)) = (self.objects.get_mut(&id), self.code.as_mut()) else {
            return;
        };
        let Some(block) = object.block_number(data.id.block, bits) else {
            shared.counters.duplicates += 1;
            return;
        };
        let symbol = usize::from(data.id.symbol);
        match object.put((block, symbol), data.payload, code) {
            Put::New(decoded) => {
                shared.counters.decoded += decoded as u64;
                match symbol < object.block_len(block) {
                    true => shared.counters.source += 1,
                    false => shared.counters.parity += 1,
                }
            }
            Put::Duplicate => shared.counters.duplicates += 1,
            Put::NoRoom => shared.counters.no_room += 1,
            Put::Malformed => {
                shared.counters.malformed += 1;
                return;
            }
        }
        // What lies before a symbol that is sent for the first time was sent before.
        if symbol >= object.block_len(block) {
            object.on_sent_before((block + 1, 0));
        } else {
            let tolerated = reorder.map(usize::from).unwrap_or(usize::MAX);
            object.on_sent_before((block, (symbol + 1).saturating_sub(tolerated)));
        }
        self.settle(id, shared);
    }

    /// A complete object is handed out, a readable stream is noted.
    fn settle(&mut self, id: u64, shared: &mut Shared) {
        let Some(object) = self.objects.get(&id) else {
            return;
        };
        if object.is_readable() {
            shared.readable.insert((self.id, id));
        }
        if object.is_complete() && !object.info_missing {
            let object = self.objects.remove(&id).expect("it was just there");
            shared.tell(ReceiverEvent::Object {
                sender: self.id,
                object: id,
                content: object.content(),
                info: object.info,
            });
        }
    }

    /// The object that a message belongs to, if it is wanted; a new one is begun.
    fn admit(
        &mut self,
        header: &ObjectHeader,
        id: Option<PayloadId>,
        shared: &mut Shared,
    ) -> Option<u64> {
        if wants_whole(shared) {
            self.begin_whole(header.object, shared);
        }
        let Some(next) = self.next else {
            return self.synchronise(header, id, shared);
        };
        let Some(number) = unwrap(next, header.object.into(), 16) else {
            shared.counters.duplicates += 1;
            return None;
        };
        if self.objects.contains_key(&number) {
            return Some(number);
        }
        // A stream goes on beside later objects: it may be joined when those are known already.
        let joins = header.has(object_flags::STREAM)
            && !header.has(object_flags::REPAIR)
            && id.is_some()
            && !self.over.contains(&number);
        if number < next && !self.missing.contains(&number) && !joins {
            shared.counters.duplicates += 1;
            return None;
        }
        if self.objects.len() >= shared.config.objects_max {
            shared.counters.no_room += 1;
            return None;
        }
        let fti = self.learn(header, shared)?;
        self.know_of(number, shared);
        let start = match self.missing.remove(&number) {
            // It began behind what was received already: wanted from its first block on.
            true => (1 << self.bits(), 0),
            false => self.start_of(id, shared),
        };
        self.begin(number, header, fti, start, shared)
    }

    /// Everything that a sender has sent is wanted: its first objects as well, if there can be
    /// no more than are kept.
    fn begin_whole(&mut self, object: u16, shared: &Shared) {
        if self.next.is_none() {
            let before = u64::from(object).min(shared.config.objects_max as u64 - 1);
            self.next = Some(first_contact(object.into(), 16) - before);
        }
    }

    /// Where a stream that is joined at a symbol is received from.
    fn start_of(&self, id: Option<PayloadId>, shared: &Shared) -> (u64, usize) {
        let heard = id.map_or(0, |id| id.block);
        let from = match heard < shared.config.catch_up_blocks {
            true => 0,
            false => heard,
        };
        (first_contact(from, self.bits()), 0)
    }

    /// A stream is over: what still comes of it is late.
    pub(super) fn end_stream(&mut self, stream: u64) {
        self.objects.remove(&stream);
        self.over.insert(stream);
        if self.over.len() > OVER_MAX {
            self.over.pop_first();
        }
    }

    /// The first message of a sender from which there is anything to be made.
    fn synchronise(
        &mut self,
        header: &ObjectHeader,
        id: Option<PayloadId>,
        shared: &mut Shared,
    ) -> Option<u64> {
        let begins = id.is_none_or(|id| id.block == 0);
        if header.has(object_flags::REPAIR) || !(header.has(object_flags::STREAM) || begins) {
            return None;
        }
        // A stream's INFO does not say where the stream is.
        if id.is_none() && header.has(object_flags::STREAM) {
            return None;
        }
        let fti = self.learn(header, shared)?;
        let bits = self.bits();
        let mut number = first_contact(header.object.into(), 16);
        let mut start = self.start_of(id, shared);
        if let Some(after) = self.after.take() {
            let flushed = first_contact(after.object.into(), 16);
            number = unwrap(flushed, header.object.into(), 16)?;
            self.next = Some(flushed + 1);
            if number < flushed {
                return None;
            }
            if number == flushed {
                start = (
                    first_contact(after.id.block, bits),
                    usize::from(after.id.symbol) + 1,
                );
                if start.1 >= usize::from(fti.block_len) {
                    start = (start.0 + 1, 0);
                }
                if !header.has(object_flags::STREAM) {
                    return None;
                }
            } else {
                start = (1 << bits, 0);
                self.know_of(number, shared);
                self.missing.remove(&number);
            }
        }
        self.next = Some(self.next.unwrap_or(0).max(number + 1));
        self.begin(number, header, fti, start, shared)
    }

    fn begin(
        &mut self,
        number: u64,
        header: &ObjectHeader,
        fti: Fti,
        start: (u64, usize),
        shared: &mut Shared,
    ) -> Option<u64> {
        let mut object = if header.has(object_flags::STREAM) {
            let block = u64::from(fti.block_len) * (u64::from(fti.segment_size) + 8);
            let memory = (shared.config.window_bytes / block).max(2);
            let window = shared.config.window_blocks.min(memory);
            shared.tell(ReceiverEvent::StreamUp {
                sender: self.id,
                stream: number,
            });
            Object::stream(number, fti, start, window)
        } else if fti.object_size <= shared.config.object_max
            && Object::account_len(&fti) <= shared.config.object_max
        {
            Object::data(number, fti)
        } else {
            shared.tell(ReceiverEvent::ObjectLost {
                sender: self.id,
                object: number,
            });
            return None;
        };
        object.info_missing = header.has(object_flags::INFO);
        if self.next > Some(number + 1) {
            object.on_all_sent();
        }
        self.objects.insert(number, object);
        Some(number)
    }

    /// An object is known to exist, and so are those before it, whose sending is over.
    fn know_of(&mut self, number: u64, shared: &mut Shared) {
        let Some(next) = self.next.filter(|next| *next <= number) else {
            return;
        };
        let room = shared.config.objects_max as u64;
        if number - next > room {
            // Too much was missed: it begins anew from here.
            self.lose_objects_before(number, shared);
        }
        self.missing
            .extend(next.max((number + 1).saturating_sub(room))..=number);
        self.next = Some(number + 1);
        self.objects.values_mut().for_each(Object::on_all_sent);
    }

    /// What a message says of its object's encoding, and a code for it.
    fn learn(&mut self, header: &ObjectHeader, shared: &mut Shared) -> Option<Fti> {
        let fti = header.fti?;
        let spoken = match header.fec {
            FecId::Rs8 | FecId::Rs { bits: 8 } => true,
            FecId::SmallBlock => fti.instance == 0,
            FecId::Rs { .. } => false,
        };
        let (source, parity) = (usize::from(fti.block_len), usize::from(fti.parity));
        let fits = source > 0 && source + parity <= SYMBOLS_MAX;
        let segment = usize::from(fti.segment_size);
        let sane = (1..=usize::from(u16::MAX) - StreamHeader::LEN).contains(&segment);
        if !spoken || !fits || !sane {
            shared.counters.malformed += 1;
            return None;
        }
        let same = |code: &Code| (code.source(), code.parity()) == (source, parity);
        if !self.code.as_ref().is_some_and(same) || self.fec != Some(header.fec) {
            if !self.objects.is_empty() {
                // A sender encodes all that it sends alike, as libnorm's do.
                shared.counters.malformed += 1;
                return None;
            }
            self.code = Code::new(source, parity);
            self.fec = Some(header.fec);
        }
        Some(fti)
    }

    // ---- commands ----

    /// All up to a place was sent. True if all of it is here. `asked`: the sender waits for us
    /// to have it.
    pub(super) fn on_flush(&mut self, at: Watermark, asked: bool, shared: &mut Shared) -> bool {
        if asked || wants_whole(shared) {
            // We were there when it was sent, and heard nothing: all of it is wanted.
            self.fec = self.fec.or(Some(at.fec));
            self.begin_whole(at.object, shared);
        }
        let Some(next) = self.next else {
            self.after = self.after.or(Some(at));
            return true;
        };
        let Some(number) = unwrap(next, at.object.into(), 16) else {
            return true;
        };
        self.know_of(number, shared);
        let bits = self.bits();
        let symbol = usize::from(at.id.symbol);
        let mut here = true;
        if let Some(object) = self.objects.get_mut(&number)
            && let Some(block) = object.block_number(at.id.block, bits)
        {
            object.on_sent_through((block, symbol));
            here = object.has_through((block, symbol));
        }
        let others = self.objects.range(..number);
        let known = others.clone().filter(|(_, object)| !object.is_stream());
        here && known.count() == 0 && self.missing.range(..=number).next().is_none()
    }

    /// What the sender does not have any more.
    pub(super) fn on_squelch(&mut self, squelch: &Squelch, shared: &mut Shared) {
        let Some(next) = self.next else { return };
        let Some(number) = unwrap(next, squelch.from.object.into(), 16) else {
            return;
        };
        self.lose_objects_before(number, shared);
        self.next = Some(next.max(number));
        let bits = self.bits();
        if let Some(object) = self.objects.get_mut(&number)
            && let Some(block) = object.block_number(squelch.from.id.block, bits)
            && object.give_up(block)
        {
            shared.counters.squelched += 1;
            shared.readable.insert((self.id, number));
        }
        for gone in &squelch.gone {
            if let Some(gone) = unwrap(next, (*gone).into(), 16) {
                self.lose_object(gone, shared);
            }
        }
    }

    fn lose_objects_before(&mut self, number: u64, shared: &mut Shared) {
        let begun = self.objects.range(..number).map(|(id, _)| *id);
        let lost: BTreeSet<u64> = begun.chain(self.missing.range(..number).copied()).collect();
        lost.into_iter().for_each(|id| self.lose_object(id, shared));
    }

    fn lose_object(&mut self, id: u64, shared: &mut Shared) {
        let object = self.objects.remove(&id);
        if object.is_none() && !self.missing.remove(&id) {
            return;
        }
        let mut object = object;
        if object.as_ref().is_some_and(Object::is_stream) {
            self.end_stream(id);
        }
        while let Some(piece) = object.as_mut().and_then(Object::next_piece) {
            shared
                .left_over
                .extend(chunk((self.id, self.instance, id), piece));
        }
        shared.counters.squelched += 1;
        shared.tell(ReceiverEvent::ObjectLost {
            sender: self.id,
            object: id,
        });
    }
}

/// Whether nothing may be missed, even of what was sent before anything was heard.
fn wants_whole(shared: &Shared) -> bool {
    shared.config.catch_up_blocks == u32::MAX
}

/// A piece of a stream as its reader gets it; none of its end.
pub(super) fn chunk((sender, instance, stream): (NodeId, u16, u64), piece: Piece) -> Option<Chunk> {
    match piece {
        Piece::End => None,
        Piece::Bytes {
            offset,
            lost,
            message_start,
            bytes,
        } => Some(Chunk {
            sender,
            instance,
            stream,
            offset,
            lost,
            message_start,
            bytes,
        }),
    }
}
