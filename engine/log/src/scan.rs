//! Reads a segment's log from a known place to its end and says how far it is whole: structure,
//! offsets without a gap, CRC. In a segment that was compacted, offsets may be left out and batches
//! have fewer records than offsets; they still go up.
//!
//! Fed with the file's bytes in pieces of any size, it keeps one header, a running CRC and a marker's few
//! bytes, never a batch, so that memory does not depend on what the file claims. It stops at the first thing
//! that cannot be; zeros up to the end of the file are the unwritten part of a pre-written file
//! and no fault. Pure.

use ringmill_wire::batch::{BatchError, BatchHeader, Compression, HEADER_LEN, is_zeros};
use ringmill_wire::marker::{EndTxnMarker, MARKER_BYTES_MAX};
use thiserror::Error;

/// Where the CRC's range begins in a batch.
const CRC_FROM: usize = 21;

/// Why a scan stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanError {
    /// There is no whole batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A whole batch, yet one that does not belong here.
    #[error("offset {expected} is due, the batch has {base_offset} to {last_offset}")]
    Offset {
        /// The offset after the batch before it.
        expected: i64,
        /// As in the header.
        base_offset: i64,
        /// As in the header.
        last_offset: i64,
    },
    /// Bytes that are not zero behind zeros.
    #[error("zeros where a batch should be, and other bytes behind them")]
    Hole,
}

/// How far a scan came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanEnd {
    /// The end of the last whole batch.
    pub position: u64,
    /// The offset after it.
    pub next_offset: i64,
    /// What is wrong behind it, if anything is: all zeros are not.
    pub error: Option<ScanError>,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the header are there.
    Header(usize),
    /// So many bytes of the batch are to come.
    Body(usize),
    Zeros,
}

/// What a scan comes across.
#[derive(Debug, Clone, Copy)]
pub enum Scanned<'a> {
    /// A whole batch; a transaction's end, if it is one.
    Whole(&'a BatchHeader, Option<EndTxnMarker>),
    /// A batch whose content is damaged, though its header belongs here and the next batch's
    /// follows it; only a lenient scan ([`Scanner::lenient`]) tells of it and goes on.
    Damaged(&'a BatchHeader, ScanError),
}

/// A scan in progress.
#[derive(Debug)]
pub struct Scanner {
    lenient: bool,
    compacted: bool,
    position: u64,
    next_offset: i64,
    state: State,
    header: [u8; HEADER_LEN],
    parsed: Option<BatchHeader>,
    crc: u32,
    /// The beginning of a control batch's body.
    control: Vec<u8>,
    /// A damaged batch, until the next header shows that this one's can be trusted.
    damaged: Option<(u64, BatchHeader, ScanError)>,
    error: Option<ScanError>,
}

/// Bytes of the smallest record: seven fields of one byte.
const RECORD_LEN_MIN: usize = 7;

/// Whether a batch has a record for each of its offsets, as every append has, and they may fit
/// into its bytes. A few bytes that claim 2^31 offsets would cost their index as many cells.
/// Appends are held to the same: what is taken must be found whole again.
pub(crate) fn holds_its_offsets(header: &BatchHeader) -> bool {
    let Some(count) = header.last_offset_delta.checked_add(1) else {
        return false;
    };
    let room = (header.size() - HEADER_LEN) / RECORD_LEN_MIN;
    let compressed = header.compression() != Ok(Compression::None);
    count == header.records_count && (compressed || count as usize <= room)
}

/// The same for what compaction may have left of a batch: at most a record for each offset.
pub(crate) fn holds_some_offsets(header: &BatchHeader) -> bool {
    let room = (header.size() - HEADER_LEN) / RECORD_LEN_MIN;
    let compressed = header.compression() != Ok(Compression::None);
    let Ok(count) = usize::try_from(header.records_count) else {
        return false;
    };
    i64::from(header.records_count) <= i64::from(header.last_offset_delta) + 1
        && (compressed || count <= room)
}

/// Whether a batch may come where an offset is due: at it, or, in a segment that was compacted,
/// behind it.
pub(crate) fn follows(header: &BatchHeader, due: i64, compacted: bool) -> bool {
    header.base_offset == due || compacted && header.base_offset > due
}

impl Scanner {
    /// Starts at `position`, where the batch of `next_offset` begins.
    pub fn new(position: u64, next_offset: i64) -> Self {
        Scanner {
            lenient: false,
            compacted: false,
            position,
            next_offset,
            state: State::Header(0),
            header: [0; HEADER_LEN],
            parsed: None,
            crc: 0,
            control: Vec::new(),
            damaged: None,
            error: None,
        }
    }

    /// The same, but a batch of which only the content is damaged is told and stepped over.
    pub fn lenient(self) -> Self {
        Scanner {
            lenient: true,
            ..self
        }
    }

    /// The same for a segment that may have been `compacted`: there may be gaps.
    pub fn compacted(self, compacted: bool) -> Self {
        Scanner { compacted, ..self }
    }

    /// The next bytes of the file. Calls `visit` for each batch, with its position. Returns whether to go on.
    pub fn push(&mut self, bytes: &[u8], mut visit: impl FnMut(u64, Scanned<'_>)) -> bool {
        let mut rest = bytes;
        while self.error.is_none() && !rest.is_empty() {
            match self.state {
                State::Header(have) => {
                    let take = rest.len().min(HEADER_LEN - have);
                    self.header[have..have + take].copy_from_slice(&rest[..take]);
                    rest = &rest[take..];
                    self.state = State::Header(have + take);
                    if have + take == HEADER_LEN {
                        self.on_header(&mut visit);
                    }
                }
                State::Body(left) => {
                    let (part, after) = rest.split_at(rest.len().min(left));
                    rest = after;
                    self.crc = crc32c::crc32c_append(self.crc, part);
                    self.keep_control(part);
                    self.state = State::Body(left - part.len());
                }
                State::Zeros => {
                    if !is_zeros(rest) {
                        self.error = Some(ScanError::Hole);
                    }
                    rest = &[];
                }
            }
            if let State::Body(0) = self.state {
                self.on_body(&mut visit);
            }
        }
        self.error.is_none()
    }

    fn keep_control(&mut self, part: &[u8]) {
        if self.parsed.is_some_and(|header| header.is_control()) {
            let room = MARKER_BYTES_MAX - self.control.len();
            self.control
                .extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    /// Back to a damaged batch whose header leads nowhere: the scan ends there.
    fn give_up_damaged(&mut self) {
        if let Some((position, header, error)) = self.damaged.take() {
            self.position = position;
            self.next_offset = header.base_offset;
            self.state = State::Header(0);
            self.error = Some(error);
        }
    }

    fn on_header(&mut self, visit: &mut impl FnMut(u64, Scanned<'_>)) {
        self.parse_header();
        match (&self.damaged, &self.state) {
            (Some((position, header, error)), State::Body(_)) => {
                visit(*position, Scanned::Damaged(header, *error));
                self.damaged = None;
            }
            _ => self.give_up_damaged(),
        }
    }

    fn parse_header(&mut self) {
        let header = match BatchHeader::parse(&self.header) {
            Ok(header) => header,
            Err(BatchError::Zeros) => {
                self.state = State::Zeros;
                return;
            }
            Err(error) => {
                self.error = Some(error.into());
                return;
            }
        };
        // no delta that turns back or overflows
        let fits = follows(&header, self.next_offset, self.compacted)
            && header.last_offset_delta >= 0
            && header.last_offset() < i64::MAX;
        if !fits {
            self.error = Some(ScanError::Offset {
                expected: self.next_offset,
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
            });
            return;
        }
        let holds = match self.compacted {
            true => holds_some_offsets(&header),
            false => holds_its_offsets(&header),
        };
        if !holds {
            let error = BatchError::Offsets {
                base_offset: header.base_offset,
                last_offset_delta: header.last_offset_delta,
                records_count: header.records_count,
            };
            self.error = Some(error.into());
            return;
        }
        self.crc = crc32c::crc32c(&self.header[CRC_FROM..]);
        self.control.clear();
        self.parsed = Some(header);
        self.state = State::Body(header.size() - HEADER_LEN);
    }

    fn on_body(&mut self, visit: &mut impl FnMut(u64, Scanned<'_>)) {
        let Some(header) = self.parsed.take() else {
            return;
        };
        let error = ScanError::Batch(BatchError::Crc {
            stored: header.crc,
            computed: self.crc,
        });
        match (self.crc == header.crc, self.lenient) {
            (true, _) => {
                let marker = EndTxnMarker::parse(&header, &self.control);
                visit(self.position, Scanned::Whole(&header, marker));
            }
            (false, true) => self.damaged = Some((self.position, header, error)),
            (false, false) => {
                self.error = Some(error);
                return;
            }
        }
        self.position += header.size() as u64;
        self.next_offset = header.next_offset();
        self.state = State::Header(0);
    }

    /// The file is over, or the scan has stopped.
    pub fn finish(mut self) -> ScanEnd {
        self.give_up_damaged();
        let torn = match self.state {
            State::Header(0) | State::Zeros => None,
            State::Header(have) if is_zeros(&self.header[..have]) => None,
            State::Header(have) => BatchHeader::parse(&self.header[..have]).err(),
            State::Body(missing) => Some(BatchError::Short { missing }),
        };
        ScanEnd {
            position: self.position,
            next_offset: self.next_offset,
            error: self.error.or(torn.map(ScanError::Batch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_wire::batch::{self, ProducerStamp};
    use ringmill_wire::builder::{BatchBuilder, NewRecord};

    fn log_of(shapes: &[(usize, usize)]) -> (Vec<u8>, Vec<u64>) {
        let (mut log, mut starts, mut next) = (Vec::new(), Vec::new(), 50);
        for &(records, value_len) in shapes {
            let mut builder = BatchBuilder::new(1 << 20);
            let value = vec![1; value_len];
            for _ in 0..records {
                let record = NewRecord {
                    value: Some(&value),
                    ..NewRecord::default()
                };
                builder.append(&record).unwrap();
            }
            starts.push(log.len() as u64);
            let start = log.len();
            log.extend_from_slice(&builder.seal(Compression::None, ProducerStamp::NONE));
            batch::set_base_offset(&mut log[start..], next);
            next += records as i64;
        }
        (log, starts)
    }

    fn scan(file: &[u8], piece: usize) -> (Vec<u64>, ScanEnd) {
        let mut scanner = Scanner::new(0, 50);
        let mut found = Vec::new();
        for piece in file.chunks(piece) {
            if !scanner.push(piece, |position, _| found.push(position)) {
                break;
            }
        }
        (found, scanner.finish())
    }

    fn shapes() -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec((1usize..4, 0usize..60), 1..6)
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_batches_before_it() {
        let (log, starts) = log_of(&[(1, 5), (3, 40), (2, 0)]);
        for cut in 0..=log.len() {
            for (zeros, piece) in [(0, 7), (0, 4096), (100, 64)] {
                let mut file = log[..cut].to_vec();
                file.resize(cut + zeros, 0);
                let (found, end) = scan(&file, piece);
                let ends = starts[1..].iter().copied().chain([log.len() as u64]);
                let whole: Vec<u64> = ends.filter(|end| *end <= cut as u64).collect();
                // a batch that ends in zeros may be whole without its last bytes
                if zeros == 0 {
                    assert_eq!(found, starts[..whole.len()]);
                    assert_eq!(end.position, whole.last().copied().unwrap_or(0));
                    assert_eq!(
                        end.error.is_none(),
                        end.position == cut as u64 || is_zeros(&log[end.position as usize..cut])
                    );
                } else {
                    assert!(found.len() >= whole.len());
                }
            }
        }
    }

    /// Under a right CRC: nobody but a liar writes it.
    #[test]
    fn a_few_bytes_that_claim_a_thousand_million_records_are_no_batch() {
        for (delta, count) in [(1 << 30, 1), (1 << 30, (1 << 30) + 1), (i32::MAX, 1)] {
            let (mut log, _) = log_of(&[(1, 5)]);
            log[23..27].copy_from_slice(&i32::to_be_bytes(delta));
            log[57..61].copy_from_slice(&i32::to_be_bytes(count));
            let crc = crc32c::crc32c(&log[CRC_FROM..]);
            log[17..21].copy_from_slice(&crc.to_be_bytes());
            let (found, end) = scan(&log, 4096);
            assert_eq!(found, []);
            let offsets = ScanError::Batch(BatchError::Offsets {
                base_offset: 50,
                last_offset_delta: delta,
                records_count: count,
            });
            assert_eq!(end.error, Some(offsets));
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_found_in_its_batch(
            shapes in shapes(), flip: prop::sample::Index, bit in 0u32..8, piece in 1usize..200,
        ) {
            let (mut log, starts) = log_of(&shapes);
            let at = flip.index(log.len());
            let hit = starts.partition_point(|start| *start <= at as u64) - 1;
            let within = at - starts[hit] as usize;
            // the leader epoch is outside of the CRC and tells nothing
            prop_assume!(!(12..16).contains(&within));
            log[at] ^= 1 << bit;
            let (found, end) = scan(&log, piece);
            prop_assert_eq!(&found[..], &starts[..hit]);
            prop_assert_eq!(end.position, starts[hit]);
            prop_assert!(end.error.is_some());
        }

        /// A recycled or misdirected block: a whole batch of another place is not taken.
        #[test]
        fn a_batch_of_another_life_is_not_taken(shapes in shapes(), old in 0i64..200) {
            let (mut log, _) = log_of(&shapes);
            let (mut stale, _) = log_of(&[(2, 10)]);
            let (_, whole) = scan(&log, 4096);
            prop_assume!(old != whole.next_offset);
            batch::set_base_offset(&mut stale, old);
            log.extend_from_slice(&stale);
            let (_, end) = scan(&log, 4096);
            prop_assert_eq!(end.position, whole.position);
            let refused = matches!(end.error, Some(ScanError::Offset { .. }));
            prop_assert!(refused);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(2), any::<u8>()], 0..400),
            piece in 1usize..100,
        ) {
            scan(&bytes, piece);
        }
    }

    #[test]
    fn a_lenient_scan_goes_on_behind_damaged_content() {
        let (mut log, starts) = log_of(&[(1, 5), (3, 40), (2, 0)]);
        let hit = starts[2] as usize - 1;
        log[hit] ^= 1;
        let mut scanner = Scanner::new(0, 50).lenient();
        let mut found = Vec::new();
        scanner.push(&log, |position, batch| {
            found.push((position, matches!(batch, Scanned::Whole(..))));
        });
        assert_eq!(
            found,
            [(starts[0], true), (starts[1], false), (starts[2], true)]
        );
        assert_eq!(scanner.finish().error, None);
    }

    #[test]
    fn a_lenient_scan_does_not_believe_a_damaged_header() {
        let (log, starts) = log_of(&[(1, 5), (3, 40), (2, 0)]);
        let last = starts[2] as usize;
        // an offset delta that is not the next batch's, or no next batch at all
        for (hit, end) in [(starts[1] as usize + 26, log.len()), (last - 1, last)] {
            let mut log = log[..end].to_vec();
            log[hit] ^= 1;
            let mut scanner = Scanner::new(0, 50).lenient();
            let mut found = Vec::new();
            scanner.push(&log, |position, _| found.push(position));
            let end = scanner.finish();
            assert_eq!((end.position, end.next_offset), (starts[1], 51));
            assert_eq!(found, [0]);
            assert!(end.error.is_some());
        }
    }

    #[test]
    fn gaps_are_taken_in_a_compacted_segment_alone() {
        let (log, starts) = log_of(&[(1, 5), (3, 40), (2, 0)]);
        let gap = [&log[..starts[1] as usize], &log[starts[2] as usize..]].concat();
        let (found, end) = scan(&gap, 100);
        assert_eq!(found, [0]);
        assert!(matches!(end.error, Some(ScanError::Offset { .. })));
        let scan_compacted = |log: &[u8]| {
            let mut scanner = Scanner::new(0, 50).compacted(true);
            let mut found = Vec::new();
            scanner.push(log, |position, _| found.push(position));
            (found, scanner.finish())
        };
        let (found, end) = scan_compacted(&gap);
        assert_eq!((found, end.error), (vec![0, starts[1]], None));
        assert_eq!(end.next_offset, 56);
        // offsets still go up
        let turned = [&log[starts[1] as usize..], &log[..starts[1] as usize]].concat();
        let (found, end) = scan_compacted(&turned);
        assert_eq!(found.len(), 2);
        assert!(matches!(end.error, Some(ScanError::Offset { .. })));
    }

    #[test]
    fn zeros_are_the_end_unless_something_follows() {
        let (mut log, _) = log_of(&[(1, 5)]);
        let whole = log.len() as u64;
        log.resize(log.len() + 5000, 0);
        let (_, end) = scan(&log, 100);
        assert_eq!((end.position, end.error), (whole, None));
        log.push(1);
        let (_, end) = scan(&log, 100);
        assert_eq!((end.position, end.error), (whole, Some(ScanError::Hole)));
    }
}
