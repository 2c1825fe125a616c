//! One object as it comes in: a stream that is read in order, or bytes of known length.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::block::Block;
use super::overheard::Overheard;
use crate::fec::Code;
use crate::partition::Partition;
use crate::place::unwrap;
use crate::requests::Requests;
use crate::wire::{Fti, StreamHeader};

/// A place within an object: block, and symbols before it.
pub(super) type Spot = (u64, usize);

/// Blocks that one NACK looks at: what is further ahead is asked for later.
const ASKED_MAX: u64 = 1024;

/// What became of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It was new; so many others could be computed by it.
    New(usize),
    /// It was here, or is not wanted any more.
    Duplicate,
    /// There is no room for it now.
    NoRoom,
    /// It cannot be.
    Malformed,
}

/// What a stream gives its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes: the stream's place of the first, how many were lost before, where a message begins.
    Bytes {
        offset: u64,
        lost: u64,
        message_start: Option<usize>,
        bytes: Bytes,
    },
    /// The end.
    End,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) id: u64,
    fti: Fti,
    /// Of a stream, none.
    partition: Option<Partition>,
    /// Its INFO is wanted.
    pub(super) info_missing: bool,
    pub(super) info: Option<Bytes>,
    blocks: BTreeMap<u64, Block>,
    /// Everything before it was read (a stream's only).
    read: Spot,
    /// Everything before it is here, or will never be.
    here: Spot,
    /// Everything before it was sent.
    sent: Spot,
    /// Blocks before this one are not repaired any more.
    given_up: u64,
    /// Blocks that may be held at a time.
    window: u64,
    /// The stream's place of the next byte.
    offset: Option<u64>,
    /// Segments that made no sense.
    pub(super) malformed: u64,
}

impl Object {
    /// A stream that is received from a place on.
    pub(super) fn stream(id: u64, fti: Fti, start: Spot, window: u64) -> Object {
        Object {
            id,
            fti,
            partition: None,
            info_missing: false,
            info: None,
            blocks: BTreeMap::new(),
            read: start,
            here: start,
            sent: start,
            given_up: 0,
            window,
            offset: None,
            malformed: 0,
        }
    }

    /// Bytes of known length.
    pub(super) fn data(id: u64, fti: Fti) -> Object {
        let partition = Partition::new(fti.object_size, fti.segment_size, fti.block_len);
        Object {
            partition: Some(partition),
            ..Object::stream(id, fti, (0, 0), partition.blocks().max(1))
        }
    }

    /// Bytes that it takes at most to keep account of an object of known length.
    pub(super) fn account_len(fti: &Fti) -> u64 {
        let partition = Partition::new(fti.object_size, fti.segment_size, fti.block_len);
        let symbols = partition.blocks() * u64::from(fti.block_len + fti.parity);
        symbols * size_of::<Option<Bytes>>() as u64
    }

    pub(super) fn is_stream(&self) -> bool {
        self.partition.is_none()
    }

    /// The number of a block, from the wire's. Of a known object, numbers do not wrap.
    pub(super) fn block_number(&self, wire: u32, bits: u32) -> Option<u64> {
        match self.partition {
            Some(_) => Some(wire.into()),
            None => unwrap(self.here.0.max(self.sent.0), wire, bits),
        }
    }

    pub(super) fn block_len(&self, block: u64) -> usize {
        match &self.partition {
            Some(partition) => partition.block_len(block),
            None => self.fti.block_len.into(),
        }
    }

    /// A symbol comes in.
    pub(super) fn put(&mut self, at: Spot, bytes: Bytes, code: &mut Code) -> Put {
        let (number, symbol) = at;
        let parity = usize::from(self.fti.parity);
        match &self.partition {
            Some(partition) if number >= partition.blocks() => return Put::Malformed,
            Some(_) => {}
            None if number < self.read.0 || number < self.given_up => return Put::Duplicate,
            None if number >= self.read.0.saturating_add(self.window) => return Put::NoRoom,
            None => {}
        }
        let len = self.block_len(number);
        if symbol >= len + parity || !self.fits(at, len, &bytes) {
            return Put::Malformed;
        }
        let block = self.blocks.entry(number);
        let block = block.or_insert_with(|| Block::new(len, parity));
        if !block.put(symbol, bytes) {
            return Put::Duplicate;
        }
        let decoded = block.decode(code);
        self.advance();
        Put::New(decoded)
    }

    /// Whether a symbol has the length that it must have.
    fn fits(&self, (number, symbol): Spot, len: usize, bytes: &Bytes) -> bool {
        let segment = usize::from(self.fti.segment_size);
        match &self.partition {
            _ if symbol >= len => bytes.len() <= segment + StreamHeader::LEN,
            Some(partition) => bytes.len() == partition.segment(number, symbol).len(),
            None => {
                let header = StreamHeader::split(bytes.clone());
                header.is_ok_and(|(header, _)| usize::from(header.len) <= segment)
            }
        }
    }

    /// Moves on what is here.
    fn advance(&mut self) {
        loop {
            let (number, symbol) = self.here;
            let Some(block) = self.blocks.get(&number) else {
                return;
            };
            let len = match &self.partition {
                Some(partition) => partition.block_len(number),
                None => self.fti.block_len.into(),
            };
            if block.is_complete() {
                self.here = (number + 1, 0);
            } else if block.source(symbol).is_some() {
                self.here = if symbol + 1 == len {
                    (number + 1, 0)
                } else {
                    (number, symbol + 1)
                };
            } else {
                return;
            }
        }
    }

    /// The sender has sent everything up to and with a symbol.
    pub(super) fn on_sent_through(&mut self, (number, symbol): Spot) {
        let spot = match symbol + 1 >= self.block_len(number) {
            true => (number + 1, 0),
            false => (number, symbol + 1),
        };
        self.on_sent_before(spot);
    }

    /// The sender has sent everything before a place.
    pub(super) fn on_sent_before(&mut self, spot: Spot) {
        self.sent = self.sent.max(spot);
        #[cfg(test)]
        if self.is_stream() && crate::planted_test::is(crate::planted_test::Bug::SkipsHoles) {
            self.here = self.here.max(spot);
        }
    }

    /// All of it was sent (nothing is known by that of a stream).
    pub(super) fn on_all_sent(&mut self) {
        if let Some(partition) = &self.partition {
            self.sent = (partition.blocks(), 0);
        }
    }

    /// The sender does not have blocks before this one: what is missing of them stays so. True
    /// if anything is.
    pub(super) fn give_up(&mut self, before: u64) -> bool {
        if before <= self.here.0 || !self.is_stream() {
            return false;
        }
        self.given_up = self.given_up.max(before);
        self.here = (before, 0);
        self.advance();
        true
    }

    /// Everything up to and with a symbol is here.
    pub(super) fn has_through(&self, (number, symbol): Spot) -> bool {
        self.here > (number, symbol)
    }

    /// All of a known object is here, but perhaps its INFO.
    pub(super) fn is_complete(&self) -> bool {
        let whole = |partition: &Partition| self.here.0 >= partition.blocks();
        self.partition.as_ref().is_some_and(whole)
    }

    /// Something that was sent is missing, and there would be room for it.
    pub(super) fn is_missing_something(&self) -> bool {
        self.info_missing
            || (self.here < self.sent && self.here.0 < self.read.0.saturating_add(self.window))
    }

    /// The bytes of a complete object.
    pub(super) fn content(&self) -> Bytes {
        let mut content = BytesMut::with_capacity(self.fti.object_size as usize);
        let Some(partition) = &self.partition else {
            return Bytes::new();
        };
        for (number, block) in &self.blocks {
            for symbol in 0..partition.block_len(*number) {
                let len = partition.segment(*number, symbol).len();
                if let Some(bytes) = block.source(symbol) {
                    content.extend_from_slice(&bytes[..len.min(bytes.len())]);
                }
            }
        }
        content.freeze()
    }

    // ---- reading a stream ----

    /// The next piece of a stream; other objects have none.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        while self.is_readable() {
            let (number, symbol) = self.read;
            let segment = self
                .blocks
                .get(&number)
                .map(|block| block.source(symbol).cloned());
            if segment.is_none() {
                // Given up as a whole, perhaps with many more.
                let next = self
                    .blocks
                    .range(number..)
                    .next()
                    .map(|(next, _)| (*next, 0));
                self.read = next.unwrap_or(self.here).min(self.here);
            } else if symbol + 1 == self.block_len(number) {
                self.blocks.remove(&number);
                self.read = (number + 1, 0);
            } else {
                self.read = (number, symbol + 1);
            }
            if let Some(Some(segment)) = segment
                && let Some(piece) = self.open(segment)
            {
                return Some(piece);
            }
        }
        None
    }

    /// Whether [`Object::next_piece`] may have something.
    pub(super) fn is_readable(&self) -> bool {
        self.is_stream() && self.read < self.here
    }

    fn open(&mut self, segment: Bytes) -> Option<Piece> {
        let Ok((header, bytes)) = StreamHeader::split(segment) else {
            // Only what was computed from forged parity can be broken here.
            self.malformed += 1;
            return None;
        };
        if header.len == 0 {
            let end = header.message_start == 0;
            self.malformed += u64::from(!end);
            return end.then_some(Piece::End);
        }
        let expected = self.offset;
        let offset = match expected {
            None => header.offset.into(),
            Some(expected) => unwrap(expected, header.offset, 32)?,
        };
        let lost = offset.saturating_sub(expected.unwrap_or(offset));
        self.offset = Some(offset + bytes.len() as u64);
        let message_start = usize::from(header.message_start).checked_sub(1);
        Some(Piece::Bytes {
            offset,
            lost,
            message_start: message_start.filter(|start| *start < bytes.len()),
            bytes,
        })
    }

    // ---- asking ----

    /// Adds what is missing to a NACK, but for what others have asked for. Tells whether
    /// anything is missing at all.
    pub(super) fn ask(&self, requests: &mut Requests, overheard: &Overheard) -> bool {
        let mut missing = false;
        if self.info_missing {
            missing = true;
            if !overheard.has_info(self.id) {
                requests.info(self.id);
            }
        }
        let window = self.read.0.saturating_add(self.window - 1);
        let end = self.sent.0.min(window).min(self.here.0 + ASKED_MAX);
        let mut run: Option<(u64, u64)> = None;
        for number in self.here.0..=end {
            let whole = number < self.sent.0;
            let sent = if whole {
                self.block_len_if(number)
            } else {
                Some(self.sent.1)
            };
            let Some(sent) = sent.filter(|sent| *sent > 0) else {
                break;
            };
            let block = self.blocks.get(&number);
            if block.is_none() && whole {
                missing = true;
                if !overheard.has_block(self.id, number) {
                    match &mut run {
                        Some((_, last)) if *last + 1 == number => *last = number,
                        _ => {
                            self.ask_run(requests, run.replace((number, number)));
                        }
                    }
                }
                continue;
            }
            let wish = match block {
                Some(block) if whole => block.wish(),
                Some(block) => block.wish_within(sent),
                None => crate::symbols::SymbolSet::range(0..sent),
            };
            if !wish.is_empty() {
                missing = true;
                let len = self.block_len(number);
                let rest = overheard.uncovered(self.id, number, wish, len);
                if !rest.is_empty() {
                    self.ask_run(requests, run.take());
                    requests.symbols(self.id, number, len, rest);
                }
            }
        }
        self.ask_run(requests, run);
        missing
    }

    fn block_len_if(&self, number: u64) -> Option<usize> {
        match &self.partition {
            Some(partition) if number >= partition.blocks() => None,
            _ => Some(self.block_len(number)),
        }
    }

    fn ask_run(&self, requests: &mut Requests, run: Option<(u64, u64)>) {
        if let Some((first, last)) = run {
            requests.blocks(self.id, first, last, self.block_len(first));
        }
    }
}
