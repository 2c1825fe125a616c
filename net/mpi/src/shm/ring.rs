//! One pair's ring: records behind each other, each a header and its payload, padded to lines of
//! the cache. An island of `unsafe`: plain memory that two processes share.
//!
//! The first word of the record that comes next is zero until it is written. So the reader watches
//! one word, and a short message is there with the same line of the cache. The writer makes the
//! word behind a record zero before it publishes the record; nothing needs to be cleaned.
//!
//! Neither side believes the other's lengths: the reader copies a header before it checks it.

use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::region::{RING_HEAD, Region};
use crate::wire::{HEADER_BYTES, Header, Violation};

/// Records begin at multiples of this.
const LINE: usize = 64;
/// The fifth byte of a record that only fills the rest of the ring up.
const FILLER: u64 = 0xff << 32;

fn padded(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(LINE)
}

/// The longest payload of a record in a ring of this many bytes.
pub(super) fn payload_max(ring: usize) -> usize {
    ring / 4 - HEADER_BYTES
}

/// The writing end.
#[derive(Debug)]
pub struct Writer {
    /// Keeps the memory mapped.
    _region: Rc<Region>,
    /// Where the reader says how far it is.
    head: NonNull<AtomicU64>,
    data: NonNull<u8>,
    size: usize,
    /// Bytes written ever, and read ever as far as we know.
    tail: u64,
    read: u64,
}

/// The reading end.
#[derive(Debug)]
pub struct Reader {
    /// Keeps the memory mapped.
    _region: Rc<Region>,
    head: NonNull<AtomicU64>,
    data: NonNull<u8>,
    size: usize,
    /// Bytes read ever.
    at: u64,
}

impl Writer {
    pub(super) fn new(region: Rc<Region>, base: NonNull<u8>, size: usize) -> Writer {
        // SAFETY: a ring has `RING_HEAD` bytes before its `size` bytes of records.
        let data = unsafe { base.add(RING_HEAD) };
        Writer {
            _region: region,
            head: base.cast(),
            data,
            size,
            tail: 0,
            read: 0,
        }
    }

    /// The longest payload.
    pub fn payload_max(&self) -> usize {
        payload_max(self.size)
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        let at = at as usize & (self.size - 1);
        // SAFETY: within the records, at a multiple of `LINE`: aligned. Both sides use the first
        // word of a record as an atomic, this end alone writes it.
        unsafe { self.data.add(at).cast::<AtomicU64>().as_ref() }
    }

    /// Whether `need` bytes and the word behind them are free.
    fn has_room(&mut self, need: usize) -> bool {
        let fits = |read: u64| (self.tail - read) as usize + need + LINE <= self.size;
        if fits(self.read) {
            return true;
        }
        // SAFETY: the ring's head, which both sides use as an atomic.
        let read = unsafe { self.head.as_ref() }.load(Ordering::Acquire);
        // A reader that claims to have read what was not written gets no room for it.
        if read < self.read || read > self.tail {
            return false;
        }
        self.read = read;
        fits(read)
    }

    /// Writes a record, its payload by `fill`; false if there is no room.
    ///
    /// # Panics
    /// If the payload is longer than records may be.
    #[inline]
    pub fn push(&mut self, header: &Header, fill: impl FnOnce(&mut [u8])) -> bool {
        let payload = header.payload as usize;
        assert!(
            payload <= payload_max(self.size),
            "a record that is too long"
        );
        let need = padded(payload);
        let rest = self.size - (self.tail as usize & (self.size - 1));
        let wraps = rest < need;
        if !self.has_room(if wraps { rest + need } else { need }) {
            return false;
        }
        if wraps {
            self.word(self.tail + rest as u64)
                .store(0, Ordering::Relaxed);
            self.word(self.tail)
                .store(FILLER | rest as u64, Ordering::Release);
            self.tail += rest as u64;
        }
        let bytes = header.encode();
        let at = self.tail as usize & (self.size - 1);
        let next = self.tail + need as u64;
        self.word(next).store(0, Ordering::Relaxed);
        // SAFETY: `need` bytes from here on are within the records, and free: the reader has read
        // what stood there, and looks at none of it but the first word, which is left alone here.
        unsafe {
            let record = self.data.add(at);
            record
                .add(8)
                .copy_from_nonoverlapping(NonNull::from_ref(&bytes[8]), HEADER_BYTES - 8);
            if payload > 0 {
                let begin = record.add(HEADER_BYTES).as_ptr();
                fill(std::slice::from_raw_parts_mut(begin, payload));
            }
        }
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[..8]);
        self.word(self.tail)
            .store(u64::from_ne_bytes(first), Ordering::Release);
        self.tail = next;
        self.fetch_ahead();
        true
    }

    /// The next record's lines are the reader's, from a round before: they are fetched for writing
    /// now, not when they are needed.
    fn fetch_ahead(&self) {
        #[cfg(target_arch = "x86_64")]
        for lines in 0..2 {
            let at = (self.tail as usize + lines * LINE) & (self.size - 1);
            // SAFETY: within the records; a hint, which writes nothing.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_ET0>(self.data.add(at).as_ptr().cast());
            }
        }
    }
}

impl Reader {
    pub(super) fn new(region: Rc<Region>, base: NonNull<u8>, size: usize) -> Reader {
        // SAFETY: as in `Writer::new`.
        let data = unsafe { base.add(RING_HEAD) };
        Reader {
            _region: region,
            head: base.cast(),
            data,
            size,
            at: 0,
        }
    }

    #[inline]
    fn first_word(&self) -> u64 {
        let at = self.at as usize & (self.size - 1);
        // SAFETY: as in `Writer::word`.
        unsafe { self.data.add(at).cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    /// Whether a record is there.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.first_word() != 0
    }

    /// Hands the next record to `take`; `None` if there is none.
    ///
    /// # Errors
    /// If the writer has written what is no record, or what `take` says.
    #[inline]
    pub fn pop<T>(
        &mut self,
        take: impl FnOnce(&Header, &[u8]) -> Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        let mut first = self.first_word();
        if first == 0 {
            return Ok(None);
        }
        let mut at = self.at as usize & (self.size - 1);
        if first & (0xff << 32) == FILLER {
            if (first & 0xffff_ffff) as usize != self.size - at {
                return Err(Violation::Lengths);
            }
            self.advance(self.size - at);
            at = 0;
            first = self.first_word();
            if first == 0 {
                return Ok(None);
            }
        }
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&first.to_ne_bytes());
        // SAFETY: a line from a multiple of `LINE` on is within the records; the first word was
        // read as published, so the writer has written the rest before, and leaves it alone until
        // we say that it is read.
        unsafe {
            let rest = self.data.add(at + 8);
            NonNull::from_mut(&mut bytes[8]).copy_from_nonoverlapping(rest, HEADER_BYTES - 8);
        }
        let header = Header::decode(&bytes)?;
        let payload = header.payload as usize;
        let need = padded(payload);
        if need > self.size - at {
            return Err(Violation::TooLong(header.payload));
        }
        // SAFETY: checked to be within the records; the writer leaves it alone, as above. A writer
        // that breaks this rule is a process of the same job and user; what it changes are bytes
        // of a message, of which nothing is believed.
        let payload = unsafe {
            std::slice::from_raw_parts(self.data.add(at + HEADER_BYTES).as_ptr(), payload)
        };
        let taken = take(&header, payload);
        self.advance(need);
        taken.map(Some)
    }

    fn advance(&mut self, by: usize) {
        self.at += by as u64;
        // SAFETY: the ring's head, which both sides use as an atomic.
        unsafe { self.head.as_ref() }.store(self.at, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Life, Region, ring_bytes};
    use crate::wire::{Header, Kind, Violation};

    fn header(len: usize, number: u64) -> Header {
        Header {
            payload: len as u32,
            length: number,
            ..Header::new(Kind::Data)
        }
    }

    #[test]
    fn records_come_in_their_order_around_the_end() {
        let region = Region::create(2).unwrap();
        let (mut writer, mut reader) = (region.writer(0, 1), region.reader(0, 1));
        let lengths = [1, 31, 32, 33, 64, 4000, 96, writer.payload_max()];
        let (mut written, mut read) = (0u64, 0u64);
        for _ in 0..10_000 {
            let len = lengths[written as usize % lengths.len()];
            if writer.push(&header(len, written), |into| into.fill(written as u8)) {
                written += 1;
                continue;
            }
            let took = reader.pop(|header, payload| {
                assert_eq!(header.length, read);
                assert_eq!(payload.len(), lengths[read as usize % lengths.len()]);
                assert!(payload.iter().all(|byte| *byte == read as u8));
                Ok(())
            });
            assert_eq!(took, Ok(Some(())));
            read += 1;
        }
        assert!(written > read && read > 1000);
    }

    #[test]
    fn a_full_ring_takes_nothing_and_loses_nothing() {
        let region = Region::create(2).unwrap();
        let (mut writer, mut reader) = (region.writer(1, 0), region.reader(1, 0));
        let mut written = 0;
        while writer.push(&header(100, written), |into| into.fill(1)) {
            written += 1;
        }
        assert!(written as usize <= ring_bytes(2) / 128);
        for number in 0..written {
            assert_eq!(reader.pop(|header, _| Ok(header.length)), Ok(Some(number)));
        }
        assert_eq!(reader.pop(|_, _| Ok(())), Ok(None));
        assert!(writer.push(&header(100, 0), |_| {}));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let region = Region::create(2).unwrap();
        let (writer, mut reader) = (region.writer(0, 1), region.reader(0, 1));
        let store = |word: u64| {
            writer
                .word(0)
                .store(word, std::sync::atomic::Ordering::Release)
        };
        store(0x00aa_0000_0000);
        assert_eq!(reader.pop(|_, _| Ok(())), Err(Violation::Kind(0xaa)));
        store(super::FILLER | 7);
        assert_eq!(reader.pop(|_, _| Ok(())), Err(Violation::Lengths));
        let long = u64::from_le_bytes([0, 0, 0x10, 0, Kind::Data as u8, 0, 0, 0]);
        store(long);
        assert_eq!(reader.pop(|_, _| Ok(())), Err(Violation::TooLong(1 << 20)));
    }

    #[test]
    fn a_region_is_opened_by_its_path_and_checked() {
        let region = Region::create(3).unwrap();
        let other = Region::open(&region.path(), 3).unwrap();
        assert!(Region::open(&region.path(), 2).is_err());
        other.set_life(2, Life::Running);
        assert_eq!(
            (region.life(1), region.life(2)),
            (Life::Unborn, Life::Running)
        );
        let mut writer = other.writer(2, 0);
        assert!(writer.push(&header(5, 0), |into| into.copy_from_slice(b"hello")));
        let mut seen = Vec::new();
        let mut reader = region.reader(2, 0);
        let take = |_: &Header, payload: &[u8]| {
            seen.extend_from_slice(payload);
            Ok(())
        };
        reader.pop(take).unwrap();
        assert_eq!(seen, b"hello");
    }

    #[test]
    fn memory_of_another_is_read_or_refused() {
        let region = Region::create(1).unwrap();
        region.set_life(0, Life::Running);
        let (from, mut into) = (*b"from afar", [0; 9]);
        if region.can_fetch() {
            assert!(region.fetch(0, from.as_ptr().addr() as u64, &mut into));
            assert_eq!(into, from);
        }
        assert!(!region.fetch(0, 16, &mut into));
    }
}
