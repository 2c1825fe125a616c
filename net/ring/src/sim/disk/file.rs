//! One simulated file: what the page cache shows, what the medium holds, and the changes in
//! between.
//!
//! After a power cut each sector holds one of the contents it had in the page cache since the
//! last flush that covered it, or the flushed one; the length is one of the lengths it had. Two
//! rules narrow that down to what journaling file systems can do: a truncation and what came
//! after it survive in this order (blocks that a truncation freed never come back into a file
//! that shows what was written later), and bytes that no unflushed write touched are never
//! harmed.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::extents::{Extents, Ranges, keep};
use crate::sim::faults::DiskFaults;
use crate::sim::random::{Random, mix};

/// What a disk writes at once or not at all.
pub(super) const SECTOR: u64 = 512;

/// What a file system allocates.
pub(super) const BLOCK: u64 = 4096;

/// Unflushed changes of one file; past it, the kernel writes the oldest back by itself.
const DIRTY_CHANGES_MAX: usize = 4096;

/// How far a misdirected write lands from its place, in sectors.
const MISDIRECTION_MAX: u64 = 16;

/// The medium under a file: its faults and its luck.
pub(super) struct Medium<'a> {
    pub faults: &'a mut DiskFaults,
    pub random: &'a mut Random,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Bytes },
    Length(u64),
}

/// Which of the unflushed writes a sector takes: those below its threshold.
enum Fate {
    /// Every sector takes all.
    All,
    /// No sector takes any.
    None,
    /// The first `count` writes, of the last of them only the sectors below `tear`.
    Prefix { count: usize, tear: u64 },
    /// Each sector has its own threshold.
    Scatter { salt: u64 },
}

impl Fate {
    fn choose(
        changes: usize,
        last_sectors: impl Fn(usize) -> Range<u64>,
        random: &mut Random,
    ) -> Self {
        match random.below(4) {
            0 => Fate::All,
            1 => Fate::None,
            2 => {
                let count = random.index(changes + 1);
                let sectors = if count == 0 {
                    0..0
                } else {
                    last_sectors(count - 1)
                };
                Fate::Prefix {
                    count,
                    tear: random.between(sectors.start, sectors.end),
                }
            }
            _ => Fate::Scatter {
                salt: random.next_u64(),
            },
        }
    }

    /// Whether `sector` takes the write that is the `index`-th of `end` changes.
    fn takes(&self, sector: u64, index: usize, end: usize) -> bool {
        match *self {
            Fate::All => true,
            Fate::None => false,
            Fate::Prefix { count, tear } => {
                index + 1 < count || index + 1 == count && sector < tear
            }
            Fate::Scatter { salt } => {
                let luck = mix(salt ^ sector);
                match luck % 3 {
                    0 => false,
                    1 => true,
                    _ => (index as u64) < mix(luck) % (end as u64 + 1),
                }
            }
        }
    }
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileImage {
    cache: Extents,
    cache_len: u64,
    durable: Extents,
    durable_len: u64,
    /// Changes that the cache has and the medium may lack, oldest first.
    dirty: VecDeque<Change>,
    /// How many changes have left `dirty`.
    settled: u64,
    blocks: Ranges,
    /// How often the file was made shorter.
    cuts: u64,
    /// Sectors that cannot be read until they are written again.
    broken: Ranges,
    /// Pages that a failed flush left clean in the cache: the medium may lack their content
    /// until they are written again.
    lost: Ranges,
    pub modified_ms: i64,
}

fn sectors_of(offset: u64, len: usize) -> Range<u64> {
    offset / SECTOR..(offset + len as u64).div_ceil(SECTOR)
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

impl FileImage {
    /// Length as the program sees it.
    pub(super) fn len(&self) -> u64 {
        self.cache_len
    }

    /// How often the file was made shorter.
    pub(super) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Bytes that are allocated.
    pub(super) fn allocated(&self) -> u64 {
        self.blocks.total() * BLOCK
    }

    /// The part of a range that lies in the file.
    fn within(&self, offset: u64, len: usize) -> Range<u64> {
        offset.min(self.cache_len)..offset.saturating_add(len as u64).min(self.cache_len)
    }

    /// Appends what the page cache shows of a range, up to the end of the file; returns the
    /// number of bytes, or nothing if a sector cannot be read.
    pub(super) fn read(&self, offset: u64, len: usize, out: &mut BytesMut) -> Option<usize> {
        let range = self.within(offset, len);
        if self.broken.touches(range.clone()) {
            return None;
        }
        let read = (range.end - range.start) as usize;
        self.cache.read(range, out);
        Some(read)
    }

    /// As [`FileImage::read`], shared instead of copied.
    pub(super) fn slices(&self, offset: u64, len: usize) -> Option<Vec<Bytes>> {
        let range = self.within(offset, len);
        (!self.broken.touches(range.clone())).then(|| self.cache.slices(range))
    }

    /// What a power cut could not take away.
    pub(super) fn durable_bytes(&self) -> BytesMut {
        let mut bytes = BytesMut::new();
        self.durable.read(0..self.durable_len, &mut bytes);
        bytes
    }

    /// Takes blocks for a range; `room` is what the disk has left, in bytes. Returns the part
    /// of the range that fits and the bytes that were newly allocated.
    pub(super) fn allocate(&mut self, range: Range<u64>, room: u64) -> (Range<u64>, u64) {
        let wanted = blocks_of(&range);
        let blocks = self.blocks.affordable(wanted, room / BLOCK);
        let fits = range.start..range.end.min((blocks.end * BLOCK).max(range.start));
        (fits, self.blocks.insert(blocks) * BLOCK)
    }

    fn push(&mut self, change: Change, medium: &mut Medium<'_>) {
        if self.dirty.len() >= DIRTY_CHANGES_MAX {
            let count = medium.random.index(DIRTY_CHANGES_MAX) + 1;
            self.promote(count, medium);
        }
        self.dirty.push_back(change);
    }

    /// Writes into the page cache.
    pub(super) fn write(&mut self, offset: u64, bytes: &Bytes, medium: &mut Medium<'_>) {
        if bytes.is_empty() {
            return;
        }
        let bytes = keep(bytes);
        let range = offset..offset + bytes.len() as u64;
        self.broken.remove(range.clone());
        self.cache.write(offset, bytes.clone());
        self.cache_len = self.cache_len.max(range.end);
        let pages = blocks_of(&range);
        let pages = pages.start * BLOCK..pages.end * BLOCK;
        if !self.lost.touches(pages.clone()) {
            return self.push(Change::Write { offset, bytes }, medium);
        }
        // The kernel writes whole pages: what the flush lost in them gets another chance.
        self.lost.remove(pages.clone());
        let mut whole = BytesMut::new();
        self.cache
            .read(pages.start..pages.end.min(self.cache_len), &mut whole);
        self.push(
            Change::Write {
                offset: pages.start,
                bytes: whole.freeze(),
            },
            medium,
        );
    }

    /// Makes the file longer, with zeros, or shorter. Returns the bytes that were freed.
    pub(super) fn set_len(&mut self, len: u64, medium: &mut Medium<'_>) -> u64 {
        if len == self.cache_len {
            return 0;
        }
        let shorter = len < self.cache_len;
        if shorter {
            self.cuts += 1;
            self.cache.clear(len..u64::MAX);
        }
        self.cache_len = len;
        self.push(Change::Length(len), medium);
        if shorter {
            self.blocks.truncate(len.div_ceil(BLOCK)) * BLOCK
        } else {
            0
        }
    }

    /// The mark of a flush that begins now: all changes before it will be durable.
    pub(super) fn mark(&self) -> u64 {
        self.settled + self.dirty.len() as u64
    }

    /// A flush ends well. What was changed since it began may or may not be a part of it.
    pub(super) fn sync(&mut self, mark: u64, medium: &mut Medium<'_>) {
        let begun = mark.saturating_sub(self.settled) as usize;
        let count = medium.random.between(begun as u64, self.dirty.len() as u64) as usize;
        self.promote(count, medium);
    }

    /// A flush fails: of the changes before `mark` any part may be durable, and nobody will
    /// try again to make the rest durable.
    pub(super) fn fail_sync(&mut self, mark: u64, medium: &mut Medium<'_>) {
        let count = mark.saturating_sub(self.settled) as usize;
        if count > 0 {
            for change in self.dirty.range(..count) {
                if let Change::Write { offset, bytes } = change {
                    let blocks = blocks_of(&(*offset..*offset + bytes.len() as u64));
                    self.lost.insert(blocks.start * BLOCK..blocks.end * BLOCK);
                }
            }
            let fate = self.choose_fate(count, medium.random);
            self.durable_len = self.settle(count, count, &fate, medium);
        }
        if medium.faults.evict_after_failed_sync.strikes(medium.random) {
            self.drop_cache();
        }
    }

    /// The page cache forgets what is clean: reads see the medium.
    pub(super) fn drop_cache(&mut self) {
        self.cache = self.durable.clone();
        for change in &self.dirty {
            match change {
                Change::Write { offset, bytes } => self.cache.write(*offset, bytes.clone()),
                Change::Length(len) => self.cache.clear(*len..u64::MAX),
            }
        }
        self.cache.clear(self.cache_len..u64::MAX);
    }

    /// Flips bits of one byte, on the medium and as it is read.
    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) {
        let images = [
            (&mut self.cache, self.cache_len),
            (&mut self.durable, self.durable_len),
        ];
        for (image, _) in images.into_iter().filter(|(_, len)| offset < *len) {
            let mut byte = BytesMut::new();
            image.read(offset..offset + 1, &mut byte);
            byte[0] ^= mask;
            image.write(offset, byte.freeze());
        }
    }

    /// Sectors of a range can no longer be read.
    pub(super) fn break_range(&mut self, range: Range<u64>) {
        let sectors = sectors_of(range.start, (range.end - range.start) as usize);
        self.broken
            .insert(sectors.start * SECTOR..sectors.end * SECTOR);
    }

    /// The oldest `count` changes reach the medium, unless the medium lies.
    fn promote(&mut self, count: usize, medium: &mut Medium<'_>) {
        for change in self.dirty.drain(..count) {
            match change {
                Change::Length(len) => {
                    self.durable.clear(len..u64::MAX);
                    self.durable_len = len;
                }
                Change::Write { offset, bytes } => {
                    self.durable_len = self.durable_len.max(offset + bytes.len() as u64);
                    if let Some((offset, bytes)) = write_back(offset, bytes, medium) {
                        self.durable.write(offset, bytes);
                    }
                }
            }
        }
        self.durable.clear(self.durable_len..u64::MAX);
        self.settled += count as u64;
    }

    fn choose_fate(&self, changes: usize, random: &mut Random) -> Fate {
        let sectors = |index: usize| match &self.dirty[index] {
            Change::Write { offset, bytes } => sectors_of(*offset, bytes.len()),
            Change::Length(_) => 0..0,
        };
        Fate::choose(changes, sectors, random)
    }

    /// Takes the first `end` changes out of `dirty`; each sector of the medium takes those of
    /// the writes that fate lets it take. Of the lengths, those before `ordered` are applied.
    /// Returns a length that the file had after one of the changes from `ordered` on.
    fn settle(&mut self, ordered: usize, end: usize, fate: &Fate, medium: &mut Medium<'_>) -> u64 {
        let stop = match fate {
            Fate::All => end,
            Fate::None => ordered,
            Fate::Prefix { count, .. } => ordered.max(*count),
            Fate::Scatter { .. } => medium.random.between(ordered as u64, end as u64) as usize,
        };
        let mut len = self.durable_len;
        let mut chosen = len;
        for (index, change) in self.dirty.drain(..end).enumerate() {
            match change {
                Change::Length(new) => {
                    if index < ordered {
                        self.durable.clear(new..u64::MAX);
                    }
                    len = new;
                }
                Change::Write { offset, bytes } => {
                    len = len.max(offset + bytes.len() as u64);
                    let takes = |sector| fate.takes(sector, index, end);
                    settle_write(&mut self.durable, offset, &bytes, takes, medium);
                }
            }
            if index < stop {
                chosen = len;
            }
        }
        self.settled += end as u64;
        self.durable.clear(chosen..u64::MAX);
        chosen
    }

    /// The power goes, and comes again. Returns nothing; the file is now what the medium holds.
    pub(super) fn power_cut(&mut self, medium: &mut Medium<'_>) {
        if !self.dirty.is_empty() {
            let (ordered, end) = self.choose_epoch(medium.random);
            let fate = self.choose_fate(end, medium.random);
            self.durable_len = self.settle(ordered, end, &fate, medium);
            self.settled += self.dirty.len() as u64;
            self.dirty.clear();
        }
        self.lost = Ranges::default();
        self.cache = self.durable.clone();
        self.cache_len = self.durable_len;
        self.blocks.truncate(self.cache_len.div_ceil(BLOCK));
    }

    /// Chooses how many of the truncations survive: the changes before the first bound are in
    /// order with them, those past the second are lost with the next truncation.
    fn choose_epoch(&self, random: &mut Random) -> (usize, usize) {
        let mut len = self.durable_len;
        let mut cuts = Vec::new();
        for (index, change) in self.dirty.iter().enumerate() {
            match change {
                Change::Write { offset, bytes } => len = len.max(offset + bytes.len() as u64),
                Change::Length(new) => {
                    if *new < len {
                        cuts.push(index);
                    }
                    len = *new;
                }
            }
        }
        let survive = random.index(cuts.len() + 1);
        let ordered = if survive == 0 {
            0
        } else {
            cuts[survive - 1] + 1
        };
        (
            ordered,
            cuts.get(survive).copied().unwrap_or(self.dirty.len()),
        )
    }
}

/// What the medium makes of a write that it reports as done.
fn write_back(offset: u64, bytes: Bytes, medium: &mut Medium<'_>) -> Option<(u64, Bytes)> {
    let Medium { faults, random } = medium;
    if faults.lost_write.strikes(random) {
        return None;
    }
    let mut place = offset;
    if faults.misdirected_write.strikes(random) {
        let distance = random.between(1, MISDIRECTION_MAX) * SECTOR;
        place = if random.coin() {
            offset + distance
        } else {
            offset.saturating_sub(distance)
        };
    }
    if faults.write_flip.strikes(random) {
        let mut flipped = BytesMut::from(&bytes[..]);
        flip_bit(&mut flipped, random);
        return Some((place, flipped.freeze()));
    }
    Some((place, bytes))
}

/// Flips one bit, if there is one.
pub(super) fn flip_bit(bytes: &mut [u8], random: &mut Random) {
    if !bytes.is_empty() {
        let bit = random.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Writes the runs of sectors that take a write, and now and then garbage into one of them.
fn settle_write(
    durable: &mut Extents,
    offset: u64,
    bytes: &Bytes,
    takes: impl Fn(u64) -> bool,
    medium: &mut Medium<'_>,
) {
    let end = offset + bytes.len() as u64;
    let sectors = sectors_of(offset, bytes.len());
    let within = |sector: u64| (sector * SECTOR).clamp(offset, end);
    let part = |from: u64, to: u64| bytes.slice((from - offset) as usize..(to - offset) as usize);
    let mut sector = sectors.start;
    while sector < sectors.end {
        let first = sector;
        let taken = takes(first);
        while sector < sectors.end && takes(sector) == taken {
            sector += 1;
        }
        if taken {
            durable.write(within(first), part(within(first), within(sector)));
        }
    }
    if medium.faults.torn_sector.strikes(medium.random) {
        let torn = medium.random.between(sectors.start, sectors.end - 1);
        let (from, to) = (within(torn), within(torn + 1));
        durable.write(from, tear(part(from, to), medium.random));
    }
}

/// A sector's part of a write whose transfer was interrupted: its end is noise.
fn tear(bytes: Bytes, random: &mut Random) -> Bytes {
    let keep = random.index(bytes.len() + 1);
    let mut torn = BytesMut::from(&bytes[..]);
    for byte in &mut torn[keep..] {
        *byte = random.next_u64() as u8;
    }
    torn.freeze()
}
