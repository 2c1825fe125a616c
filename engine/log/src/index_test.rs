//! Tests of the index: what it answers is what a walk over the log would find.

use super::*;
use proptest::prelude::*;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

fn batch(base_offset: i64, records: usize, value_len: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(64 << 20);
    let value = vec![7; value_len];
    for _ in 0..records {
        let record = NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    let mut bytes = BytesMut::from(&builder.seal(Compression::None, ProducerStamp::NONE)[..]);
    batch::set_base_offset(&mut bytes, base_offset);
    bytes
}

/// A log of batches with so many records each.
fn log_of(base_offset: i64, shapes: &[usize]) -> (Vec<u8>, Vec<(i64, i64, u32)>) {
    let (mut log, mut batches, mut next) = (Vec::new(), Vec::new(), base_offset);
    for &records in shapes {
        let base = next;
        next = base + records as i64;
        batches.push((base, next - 1, log.len() as u32));
        log.extend_from_slice(&batch(base, records, 3));
    }
    (log, batches)
}

/// As a reader does it: two cells, then a walk from the lower one.
fn look_up(file: &[u8], log: &[u8], base: i64, shift: u8, offset: i64) -> Walk {
    let at = cell_position(cell_of(base, shift, offset).unwrap()) as usize;
    let cells = &file[at.min(file.len())..(at + 2 * CELL_LEN).min(file.len())];
    let bracket = Bracket::parse(cells).expect("a cell for every offset");
    let high = bracket.high.map_or(log.len(), |high| high as usize);
    match find_batch(&log[bracket.low as usize..high], bracket.low.into(), offset) {
        Walk::Further { position } => find_batch(&log[position as usize..], position, offset),
        done => done,
    }
}

proptest! {
    /// Against the naive model: a scan over all batches.
    #[test]
    fn every_offset_leads_to_its_batch(
        base in prop_oneof![Just(0i64), Just(1 << 40), 0i64..1000],
        shift in 0..=SHIFT_MAX,
        shapes in prop::collection::vec(1usize..200, 1..40),
        flush_every in 1usize..10,
    ) {
        let (log, batches) = log_of(base, &shapes);
        let mut builder = IndexBuilder::new(base, shift, 0);
        let header = IndexHeader { base_offset: base, shift, seal: None };
        let mut file = header.encode().to_vec();
        for (n, &(_, last, position)) in batches.iter().enumerate() {
            builder.on_batch(last, position);
            if n % flush_every == 0 {
                let (at, cells) = builder.encode_pending();
                prop_assert_eq!(at as usize, file.len());
                file.extend_from_slice(&cells);
                builder.on_written(builder.next_cell());
            }
        }
        let last = batches.last().unwrap().1;
        for cell in 0..builder.next_cell() {
            let in_memory = builder.bracket(cell);
            prop_assert_eq!(in_memory.is_some(), cell as usize >= (file.len() - HEADER_LEN) / CELL_LEN);
        }
        file.extend_from_slice(&builder.encode_pending().1);
        prop_assert_eq!(builder.next_cell(), cells_until(base, shift, last + 1));
        for offset in base..=last {
            let &(first, _, position) = batches.iter().find(|b| b.1 >= offset).unwrap();
            match look_up(&file, &log, base, shift, offset) {
                Walk::Found { position: found, header } => {
                    prop_assert_eq!(found, u64::from(position));
                    prop_assert_eq!(header.base_offset, first);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_header_survives_and_a_changed_one_does_not(
        base_offset in 0i64..i64::MAX,
        shift in 0..=SHIFT_MAX,
        seal in prop::option::of((0u64..1 << 40, any::<i64>(), any::<i64>(), any::<i64>(), any::<u32>(), any::<u32>(), any::<Option<u32>>())),
        flip in 0..HEADER_LEN * 8,
    ) {
        let seal = seal.map(|(log_len, end_offset, max_timestamp, max_timestamp_offset, time_entries, aborted_entries, compacted)| {
            Seal { log_len, end_offset, max_timestamp, max_timestamp_offset, time_entries, aborted_entries, compacted }
        });
        let header = IndexHeader { base_offset, shift, seal };
        let mut bytes = header.encode().to_vec();
        prop_assert_eq!(bytes.len(), HEADER_LEN);
        prop_assert_eq!(IndexHeader::parse(&bytes, base_offset), Some(header));
        prop_assert_eq!(IndexHeader::parse(&bytes, base_offset ^ 1), None);
        prop_assert_eq!(IndexHeader::parse(&bytes[..HEADER_LEN - 1], base_offset), None);
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(IndexHeader::parse(&bytes, base_offset), None);
    }

    #[test]
    fn no_bytes_make_a_walk_panic(bytes: Vec<u8>, position in 0u64..1 << 40, offset: i64) {
        find_batch(&bytes, position, offset);
        Bracket::parse(&bytes);
        IndexHeader::parse(&bytes, offset);
    }
}

proptest! {
    /// In a compacted segment: the batch that holds the offset, or the first one behind it; and no
    /// cell that was changed leads past a batch.
    #[test]
    fn an_offset_in_a_gap_leads_to_the_next_batch(
        base in prop_oneof![Just(0i64), 0i64..1000],
        shift in 0..=SHIFT_MAX,
        shapes in prop::collection::vec((0usize..300, 1usize..5), 1..30),
        gap_at_end in 0i64..300,
        flip in any::<prop::sample::Index>(),
        stored in any::<u32>(),
    ) {
        let (mut log, mut batches, mut next) = (Vec::new(), Vec::new(), base);
        let mut builder = IndexBuilder::new(base, shift, 0);
        for (gap, records) in shapes {
            let first = next + gap as i64;
            next = first + records as i64;
            builder.on_gap(first);
            builder.on_batch(next - 1, log.len() as u32);
            batches.push((first, next - 1, log.len() as u64));
            log.extend_from_slice(&batch(first, records, 3));
        }
        let end = next + gap_at_end;
        builder.on_end(end);
        let mut cells = builder.encode_pending().1.to_vec();
        prop_assert_eq!(cells.len() / CELL_LEN, cells_until(base, shift, end) as usize);
        let look_up = |cells: &[u8], offset: i64| {
            let at = cell_of(base, shift, offset).unwrap() as usize * CELL_LEN;
            let Some(bracket) = Bracket::parse(&cells[at..(at + 2 * CELL_LEN).min(cells.len())])
            else {
                return Walk::Beyond;
            };
            let low = bracket.low as usize;
            let rest = log.get(low..).unwrap_or_default();
            find_batch_or_next(rest, low as u64, offset, &mut None)
        };
        let expected = |offset| batches.iter().find(|(_, last, _)| *last >= offset);
        for offset in base..end {
            match (look_up(&cells, offset), expected(offset)) {
                (Walk::Found { position, header }, Some(&(first, _, at))) => {
                    prop_assert_eq!((position, header.base_offset), (at, first));
                }
                (Walk::Further { position }, None) => prop_assert_eq!(position, log.len() as u64),
                (other, expected) => prop_assert!(false, "{offset}: {other:?}, {expected:?}"),
            }
        }
        let hit = flip.index(cells.len() / CELL_LEN) * CELL_LEN;
        let stored = 1 + stored % (log.len() as u32 + 100);
        cells[hit..hit + CELL_LEN].copy_from_slice(&stored.to_be_bytes());
        for offset in base..end {
            if let Walk::Found { position, .. } = look_up(&cells, offset) {
                prop_assert_eq!(Some(position), expected(offset).map(|batch| batch.2));
            }
        }
    }
}

#[test]
fn strides_fit_the_records() {
    assert_eq!(shift_for(0, 0), SHIFT_DEFAULT);
    assert_eq!(shift_for(100 << 20, 1 << 20), SHIFT_MAX);
    assert_eq!(shift_for(4096 * 1000, 1000), 4);
    assert_eq!(shift_for(1 << 40, 1 << 20), 0);
}

#[test]
fn records_too_large_for_the_stride_are_noticed() {
    let mut builder = IndexBuilder::new(0, SHIFT_DEFAULT, 0);
    for n in 0..16u32 {
        builder.on_batch(i64::from(n), n * 60_000);
    }
    assert!(
        !builder.is_misfit(),
        "16 records of 60 KB are within one read"
    );
    for n in 16..20u32 {
        builder.on_batch(i64::from(n), 1_000_000 + (n - 16) * 600_000);
    }
    assert!(builder.is_misfit());
    let mut exact = IndexBuilder::new(0, 0, 0);
    for n in 0..20u32 {
        exact.on_batch(i64::from(n), n * 2_000_000);
    }
    assert!(!exact.is_misfit(), "a stride of one fits everything");
}

#[test]
fn a_huge_batch_alone_between_two_cells_is_no_misfit() {
    let mut builder = IndexBuilder::new(0, SHIFT_DEFAULT, 0);
    builder.on_batch(15, 0);
    builder.on_batch(31, 50 << 20);
    builder.on_batch(47, 100 << 20);
    assert!(!builder.is_misfit());
}

#[test]
fn the_end_of_a_compacted_segment_costs_bounded_memory() {
    let mut index = IndexBuilder::new(100, 0, 0);
    index.on_end(1 << 40);
    assert_eq!(index.pending(), 0, "there is no batch");
    index.on_batch(100, 0);
    index.on_batch(101, 70);
    index.on_end(1 << 40);
    assert_eq!(cell_position(index.next_cell()), INDEX_BYTES_MAX);
    let last = compacted_cell_of(100, 0, (1 << 30) + 7).unwrap();
    let bracket = index.bracket(last).unwrap();
    assert_eq!((bracket.low, bracket.high), (70, None));
}

/// A header may claim two thousand million records in a few bytes.
#[test]
fn a_batch_that_lies_about_its_offsets_costs_bounded_memory() {
    let mut index = IndexBuilder::new(0, 0, 0);
    index.on_batch(i64::from(i32::MAX) - 1, 0);
    index.on_batch(i64::from(i32::MAX), 100);
    assert_eq!(index.pending(), CELLS_MAX as usize);
}
