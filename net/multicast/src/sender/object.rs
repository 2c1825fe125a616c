//! An object as its sender keeps it: a stream that is being written, or bytes of known length.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use ringmill_ring::Instant;

use super::block::Block;
use crate::partition::Partition;
use crate::place::Place;
use crate::wire::StreamHeader;

/// What a stream is written with.
#[derive(Debug)]
pub(super) struct Writer {
    /// The segment that is being filled, behind the room for its header.
    partial: BytesMut,
    message_start: u16,
    /// Bytes of the stream before the segment.
    offset: u64,
    /// The next byte begins a message.
    at_start: bool,
    /// Its end was written.
    pub(super) closed: bool,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) id: u64,
    /// Bytes, of a stream those of its memory.
    pub(super) size: u64,
    pub(super) writer: Option<Writer>,
    pub(super) info: Option<Bytes>,
    pub(super) info_pending: bool,
    pub(super) info_asked: bool,
    /// It was sent as a whole.
    pub(super) sent: bool,
    /// The last source symbol that was sent.
    pub(super) last_sent: Option<Place>,
    /// The number of the first block that is kept.
    first: u64,
    blocks: VecDeque<Block>,
    /// Blocks with something to send.
    pending: BTreeSet<u64>,
    /// When it was last sent or asked for.
    pub(super) touched: Instant,
}

/// What all of a sender's objects are cut by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) segment: usize,
    pub(super) block_len: usize,
    pub(super) auto_parity: usize,
}

impl Object {
    fn new(now: Instant, id: u64, size: u64, info: Option<Bytes>) -> Object {
        Object {
            id,
            size,
            writer: None,
            info_pending: info.is_some(),
            info,
            info_asked: false,
            sent: false,
            last_sent: None,
            first: 0,
            blocks: VecDeque::new(),
            pending: BTreeSet::new(),
            touched: now,
        }
    }

    /// A stream with memory for so many bytes.
    pub(super) fn stream(now: Instant, id: u64, memory: u64, info: Option<Bytes>) -> Object {
        Object {
            writer: Some(Writer {
                partial: BytesMut::new(),
                message_start: 0,
                offset: 0,
                at_start: true,
                closed: false,
            }),
            ..Object::new(now, id, memory, info)
        }
    }

    /// Bytes of known length.
    pub(super) fn data(
        now: Instant,
        id: u64,
        content: &Bytes,
        info: Option<Bytes>,
        cut: Cut,
    ) -> Object {
        let size = content.len() as u64;
        let mut object = Object::new(now, id, size, info);
        let partition = Partition::new(size, cut.segment as u16, cut.block_len as u16);
        for number in 0..partition.blocks() {
            let len = partition.block_len(number);
            let mut block = Block::new(now, len);
            for segment in 0..len {
                let bytes = content.slice(partition.segment(number, segment));
                block.push(bytes, cut.auto_parity);
            }
            object.blocks.push_back(block);
            object.pending.insert(number);
        }
        object
    }

    pub(super) fn is_stream(&self) -> bool {
        self.writer.is_some()
    }

    /// The first block that is kept.
    pub(super) fn first_block(&self) -> u64 {
        self.first
    }

    /// The number after the last block.
    pub(super) fn end_block(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    pub(super) fn block(&mut self, number: u64) -> Option<&mut Block> {
        let index = number.checked_sub(self.first)?;
        self.blocks.get_mut(usize::try_from(index).ok()?)
    }

    /// The block and symbol to send next; INFO goes before them.
    pub(super) fn next_pending(&self) -> Option<(u64, usize)> {
        let number = *self.pending.first()?;
        let symbol = self.blocks[(number - self.first) as usize].next_pending()?;
        Some((number, symbol))
    }

    pub(super) fn has_pending(&self) -> bool {
        self.info_pending || !self.pending.is_empty()
    }

    /// Something of a block was sent: it may have nothing more.
    pub(super) fn settle(&mut self, number: u64) {
        if self
            .block(number)
            .is_none_or(|b| b.next_pending().is_none())
        {
            self.pending.remove(&number);
        }
    }

    /// Makes pending what was asked for of one block.
    pub(super) fn activate_block(&mut self, number: u64) -> bool {
        let any = self.block(number).is_some_and(Block::activate);
        if any {
            self.pending.insert(number);
        }
        any
    }

    /// Makes pending all that was asked for.
    pub(super) fn activate(&mut self) -> bool {
        let mut any = std::mem::take(&mut self.info_asked);
        self.info_pending |= any;
        for number in self.first..self.end_block() {
            any |= self.activate_block(number);
        }
        any
    }

    /// Nothing is to be sent or was asked for.
    pub(super) fn is_quiet(&self) -> bool {
        !self.info_asked && !self.has_pending() && self.blocks.iter().all(Block::is_quiet)
    }

    // ---- streams ----

    /// The oldest block of a stream.
    pub(super) fn oldest(&self) -> Option<&Block> {
        self.blocks.front()
    }

    /// The oldest block goes.
    pub(super) fn evict_oldest(&mut self) {
        self.blocks.pop_front();
        self.pending.remove(&self.first);
        self.first += 1;
    }

    /// Blocks that are kept.
    pub(super) fn kept(&self) -> usize {
        self.blocks.len()
    }

    /// The next segment needs a new block.
    pub(super) fn needs_block(&self) -> bool {
        self.blocks.back().is_none_or(Block::is_full)
    }

    pub(super) fn add_block(&mut self, now: Instant, cut: Cut) {
        self.blocks.push_back(Block::new(now, cut.block_len));
    }

    /// A segment has been begun.
    pub(super) fn has_partial(&self) -> bool {
        let partial = |writer: &Writer| !writer.partial.is_empty();
        self.writer.as_ref().is_some_and(partial)
    }

    /// Appends to the segment that is being filled, whose place is reserved; returns how many
    /// bytes found room, and seals it when it is full.
    pub(super) fn fill(&mut self, bytes: &[u8], cut: Cut) -> usize {
        let writer = self.writer.as_mut().expect("only streams are written");
        if writer.partial.is_empty() {
            writer.partial.reserve(cut.segment + StreamHeader::LEN);
            writer.partial.extend_from_slice(&[0; StreamHeader::LEN]);
        }
        let filled = writer.partial.len() - StreamHeader::LEN;
        if writer.at_start && writer.message_start == 0 {
            writer.message_start = filled as u16 + 1;
        }
        writer.at_start = false;
        let count = bytes.len().min(cut.segment - filled);
        writer.partial.extend_from_slice(&bytes[..count]);
        if filled + count == cut.segment {
            self.seal(cut);
        }
        count
    }

    /// The next byte begins a message.
    pub(super) fn end_message(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.at_start = true;
        }
    }

    /// The segment that is being filled is sent as it is.
    pub(super) fn seal(&mut self, cut: Cut) {
        let writer = self.writer.as_mut().expect("only streams are written");
        let len = writer.partial.len() - StreamHeader::LEN;
        let header = StreamHeader {
            len: len as u16,
            message_start: std::mem::take(&mut writer.message_start),
            offset: writer.offset as u32,
        };
        writer.partial[..StreamHeader::LEN].copy_from_slice(&header.to_array());
        writer.offset += len as u64;
        let segment = writer.partial.split().freeze();
        self.push_segment(segment, cut);
    }

    /// The stream ends; its last place is reserved.
    pub(super) fn close(&mut self, cut: Cut) {
        let writer = self.writer.as_mut().expect("only streams are closed");
        writer.closed = true;
        let header = StreamHeader {
            offset: writer.offset as u32,
            ..StreamHeader::default()
        };
        self.push_segment(Bytes::copy_from_slice(&header.to_array()), cut);
    }

    fn push_segment(&mut self, segment: Bytes, cut: Cut) {
        let number = self.end_block() - 1;
        let block = self.blocks.back_mut().expect("its place is reserved");
        block.push(segment, cut.auto_parity);
        self.pending.insert(number);
    }
}
