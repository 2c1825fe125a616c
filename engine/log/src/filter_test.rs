//! Tests of the filter against a log as a naive reader sees it.

use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::prelude::*;
use ringmill_wire::batch::{self, BatchHeader, Batches, Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::marker::EndTxnMarker;

use super::*;
use crate::aborted::AbortedTxn;

/// A record: its key (none for some), its value (none for a tombstone).
type Written = (Option<u8>, Option<u8>);

fn batch_of(records: &[Written], base_offset: i64, codec: Compression, id: i64) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for (n, (key, value)) in records.iter().enumerate() {
        let record = NewRecord {
            timestamp: 1_000 + base_offset + n as i64,
            key: key.as_ref().map(std::slice::from_ref),
            value: value.as_ref().map(std::slice::from_ref),
            headers: &[],
        };
        builder.append(&record).unwrap();
    }
    let stamp = match id {
        -1 => ProducerStamp::NONE,
        _ => ProducerStamp {
            producer_id: id,
            producer_epoch: 1,
            base_sequence: base_offset as i32,
            transactional: id >= 100,
        },
    };
    let mut bytes = BytesMut::from(&builder.seal(codec, stamp)[..]);
    batch::set_base_offset(&mut bytes, base_offset);
    bytes.freeze()
}

/// The end of a transaction.
fn marker(id: i64, base_offset: i64, committed: bool) -> Bytes {
    let marker = EndTxnMarker {
        producer_id: id,
        producer_epoch: 1,
        coordinator_epoch: 0,
        committed,
    };
    let mut bytes = BytesMut::from(&marker.seal(5)[..]);
    batch::set_base_offset(&mut bytes, base_offset);
    bytes.freeze()
}

struct Terms<'a> {
    now_ms: i64,
    aborted: &'a [AbortedTxn],
    memory: usize,
    start: i64,
    /// Offsets of batches that are some producer's last.
    last: &'a [i64],
}

const TERMS: Terms<'_> = Terms {
    now_ms: 10_000,
    aborted: &[],
    memory: 1 << 20,
    start: 0,
    last: &[],
};

/// Compacts a log; returns what is left, and how far the map went.
fn compact(log: &[Bytes], terms: &Terms<'_>) -> (Vec<Bytes>, i64) {
    let view = |bytes| BatchView::parse(bytes).unwrap();
    let mut map = OffsetMap::new(terms.memory, u64::MAX, terms.start, [7; 16]);
    let mut txns = CleanedTxns::new(terms.aborted);
    for bytes in log {
        let past = view(bytes).header().next_offset() <= terms.start;
        if !past && !map_batch(&mut map, &mut txns, &view(bytes), terms.start).unwrap() {
            break;
        }
    }
    let horizon = Horizon {
        now_ms: terms.now_ms,
        delete_retention_ms: 1_000,
    };
    let mut filter = Filter::new(&map, CleanedTxns::new(terms.aborted), horizon);
    let mut left = Vec::new();
    for bytes in log {
        let view = view(bytes);
        let is_last = terms.last.contains(&view.header().last_offset());
        match filter.keep(&view, is_last).unwrap() {
            Kept::Nothing => {}
            Kept::Whole => left.push(bytes.clone()),
            Kept::Changed(new) => {
                let (old, new_header) = (view.header(), BatchHeader::parse(&new).unwrap());
                assert_eq!(new_header.base_offset, old.base_offset);
                assert_eq!(new_header.last_offset(), old.last_offset());
                left.push(new);
            }
        }
    }
    (left, map.end())
}

/// Offset, key and value of every record.
fn records(log: &[Bytes]) -> Vec<(i64, Option<u8>, Option<u8>)> {
    let mut all = Vec::new();
    for bytes in log {
        for batch in Batches::new(bytes) {
            let (_, view) = batch.unwrap();
            view.check_crc().unwrap();
            let bytes = decoded(&view, 1 << 20).unwrap();
            for record in Records::new(view.header(), &bytes) {
                let record = record.unwrap();
                let byte = |slice: Option<&[u8]>| slice.map(|slice| slice[0]);
                all.push((record.offset, byte(record.key), byte(record.value)));
            }
        }
    }
    all
}

fn some_log() -> impl Strategy<Value = Vec<Bytes>> {
    let key = prop_oneof![1 => Just(None), 9 => (0u8..12).prop_map(Some)];
    let value = prop_oneof![1 => Just(None), 3 => any::<u8>().prop_map(Some)];
    let batch = (
        prop::collection::vec((key, value), 1..6),
        prop::sample::select(Compression::ALL.to_vec()),
        -1i64..2,
    );
    prop::collection::vec(batch, 1..40).prop_map(|batches| {
        let mut next = 0;
        let made = batches.into_iter().map(|(records, codec, id)| {
            let base = next;
            next += records.len() as i64;
            batch_of(&records, base, codec, id)
        });
        made.collect()
    })
}

proptest! {
    /// After compaction the last record of each key, and nothing else, is there.
    #[test]
    fn the_last_record_of_every_key_survives_and_nothing_else(log in some_log(), memory in 0usize..3_000) {
        let terms = Terms { memory, ..TERMS };
        let (left, end) = compact(&log, &terms);
        let all = records(&log);
        let below = all.iter().filter(|(offset, ..)| *offset < end);
        let last: BTreeMap<_, _> = below.filter_map(|r| Some((r.1?, *r))).collect();
        let mut expected: Vec<_> = last.into_values().collect();
        expected.sort_unstable();
        expected.extend(all.iter().filter(|(offset, ..)| *offset >= end));
        prop_assert_eq!(records(&left), expected, "up to {}", end);
    }

    /// Whatever the steps, the last values of all keys are the same; and in the end no tombstone is
    /// left.
    #[test]
    fn compaction_again_changes_no_value(log in some_log(), first in 0usize..2_000) {
        let values = |log: &[Bytes]| -> BTreeMap<u8, u8> {
            let mut values = BTreeMap::new();
            for (_, key, value) in records(log) {
                match (key, value) {
                    (Some(key), Some(value)) => drop(values.insert(key, value)),
                    (Some(key), None) => drop(values.remove(&key)),
                    _ => {}
                }
            }
            values
        };
        let known = values(&log);
        let (mut left, mut start) = compact(&log, &Terms { memory: first, ..TERMS });
        prop_assert_eq!(values(&left), known.clone());
        for now_ms in [10_999, 13_000, 15_000] {
            (left, start) = compact(&left, &Terms { now_ms, start, ..TERMS });
            prop_assert_eq!(values(&left), known.clone());
        }
        prop_assert!(records(&left).iter().all(|(_, _, value)| value.is_some()));
        let keys: Vec<_> = records(&left).iter().map(|(_, key, _)| *key).collect();
        prop_assert_eq!(keys.len(), known.len());
    }
}

#[test]
fn a_tombstone_goes_when_its_time_is_over_and_not_before() {
    let log = [
        batch_of(
            &[(Some(1), Some(5)), (Some(2), Some(6))],
            0,
            Compression::None,
            -1,
        ),
        batch_of(
            &[(Some(1), None), (Some(3), Some(7))],
            2,
            Compression::Lz4,
            -1,
        ),
    ];
    let (left, end) = compact(&log, &TERMS);
    let tombstone = (2, Some(1), None);
    assert_eq!(
        records(&left),
        [(1, Some(2), Some(6)), tombstone, (3, Some(3), Some(7))]
    );
    let header = BatchHeader::parse(&left[1]).unwrap();
    assert!(header.has_delete_horizon());
    assert_eq!(header.base_timestamp, 11_000, "now and delete.retention.ms");
    assert_eq!(header.max_timestamp, 1_003);
    let again = |now_ms| {
        let terms = Terms {
            now_ms,
            start: end,
            ..TERMS
        };
        compact(&left, &terms).0
    };
    assert_eq!(again(10_999), left, "nothing is written anew");
    assert_eq!(
        records(&again(11_000)),
        [(1, Some(2), Some(6)), (3, Some(3), Some(7))]
    );
    let header = BatchHeader::parse(&again(11_000)[1]).unwrap();
    assert_eq!((header.base_timestamp, header.last_offset()), (11_000, 3));
}

#[test]
fn what_a_producer_wrote_last_leaves_its_sequence() {
    let log = [
        batch_of(
            &[(Some(1), Some(5)), (Some(1), Some(6))],
            0,
            Compression::Zstd,
            42,
        ),
        batch_of(&[(Some(1), Some(7))], 2, Compression::None, -1),
    ];
    let terms = Terms {
        last: &[1],
        ..TERMS
    };
    let (left, end) = compact(&log, &terms);
    assert_eq!(records(&left), [(2, Some(1), Some(7))]);
    let header = BatchHeader::parse(&left[0]).unwrap();
    assert_eq!((header.records_count, header.producer_id), (0, 42));
    assert_eq!((header.base_sequence, header.last_sequence()), (0, 1));
    let terms = Terms {
        start: end,
        ..terms
    };
    assert_eq!(compact(&left, &terms).0, left);
    let terms = Terms { last: &[], ..terms };
    assert_eq!(
        compact(&left, &terms).0.len(),
        1,
        "its producer has expired"
    );
}

#[test]
fn records_of_an_aborted_transaction_go_and_overtake_nothing() {
    let write =
        |key, value, at, id| batch_of(&[(Some(key), Some(value))], at, Compression::None, id);
    let log = [
        write(1, 10, 0, -1),
        write(1, 11, 1, 100),
        write(2, 12, 2, 101),
        write(2, 13, 3, 100),
        marker(100, 4, false),
        marker(101, 5, true),
        write(3, 14, 6, 100),
        marker(100, 7, true),
    ];
    let aborted = [AbortedTxn {
        producer_id: 100,
        first_offset: 1,
        last_offset: 4,
        last_stable_offset: 2,
    }];
    let terms = Terms {
        aborted: &aborted,
        ..TERMS
    };
    let data = |log: &[Bytes]| -> Vec<_> {
        let all = records(log).into_iter();
        all.filter(|(offset, ..)| ![4, 5, 7].contains(offset))
            .collect()
    };
    let at = |log: &[Bytes], offset| {
        let headers = log.iter().map(|bytes| BatchHeader::parse(bytes).unwrap());
        headers.clone().find(|header| header.base_offset == offset)
    };
    let (left, end) = compact(&log, &terms);
    let values = [
        (0, Some(1), Some(10)),
        (2, Some(2), Some(12)),
        (6, Some(3), Some(14)),
    ];
    assert_eq!(data(&left), values);
    // the markers stay as long as something of their transactions was there
    for offset in [4, 5, 7] {
        assert!(!at(&left, offset).unwrap().has_delete_horizon());
    }
    let again = |log: &[Bytes], now_ms| {
        let terms = Terms {
            start: end,
            now_ms,
            ..TERMS
        };
        compact(log, &terms).0
    };
    let left = again(&left, 20_000);
    assert_eq!(data(&left), values);
    let abort = at(&left, 4).unwrap();
    assert_eq!(
        (abort.has_delete_horizon(), abort.base_timestamp),
        (true, 21_000)
    );
    assert!(
        !at(&left, 5).unwrap().has_delete_horizon(),
        "its record is still there"
    );
    assert_eq!(again(&left, 20_999), left);
    let left = again(&left, 21_000);
    assert!(at(&left, 4).is_none());
    assert!(at(&left, 5).is_some() && at(&left, 7).is_some());
    assert_eq!(data(&left), values);
}

/// Kafka keeps an empty batch in its place, for the epoch; a replay of the log learns nothing from
/// one here, and the snapshots have the epoch.
#[test]
fn a_marker_goes_even_if_it_holds_its_producers_epoch() {
    let log = [marker(100, 0, true)];
    let terms = Terms {
        last: &[0],
        ..TERMS
    };
    let (left, end) = compact(&log, &terms);
    assert_eq!(left.len(), 1);
    let terms = Terms {
        now_ms: 11_000,
        start: end,
        ..terms
    };
    assert!(compact(&left, &terms).0.is_empty());
}
