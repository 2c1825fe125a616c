//! Tests of producer state: duplicates, gaps and old epochs are told apart.

use super::*;
use proptest::prelude::*;

fn header(producer_id: i64, epoch: i16, sequence: i32, records: i32) -> BatchHeader {
    BatchHeader {
        base_offset: 0,
        batch_length: 100,
        partition_leader_epoch: 0,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id,
        producer_epoch: epoch,
        base_sequence: sequence,
        records_count: records,
    }
}

fn append(producers: &mut Producers, offset: &mut i64, mut h: BatchHeader) -> Option<Undo> {
    assert_eq!(producers.check(&h, None), Ok(Verdict::New));
    h.base_offset = *offset;
    *offset = h.next_offset();
    producers.on_batch(&h, None, 0).0
}

#[test]
fn a_batch_sent_again_gets_its_first_offsets() {
    let (mut p, mut offset) = (Producers::new(), 100);
    for n in 0..7 {
        append(&mut p, &mut offset, header(1, 0, n * 10, 10));
    }
    for n in 2..7 {
        let Ok(Verdict::Duplicate(batch)) = p.check(&header(1, 0, n * 10, 10), None) else {
            panic!("batch {n} is known")
        };
        assert_eq!(batch.base_offset(), 100 + i64::from(n) * 10);
    }
    // older than five batches: forgotten, hence out of order, never appended twice
    for n in 0..2 {
        let error = p.check(&header(1, 0, n * 10, 10), None).unwrap_err();
        assert!(matches!(
            error,
            ProducerError::OutOfOrderSequence { last: 69, .. }
        ));
    }
    // the same start, another length, is not the same batch
    assert!(p.check(&header(1, 0, 60, 9), None).is_err());
}

#[test]
fn a_gap_is_out_of_order() {
    let (mut p, mut offset) = (Producers::new(), 0);
    append(&mut p, &mut offset, header(1, 0, 5, 3));
    assert!(p.check(&header(1, 0, 9, 1), None).is_err());
    append(&mut p, &mut offset, header(1, 0, 8, 1));
}

#[test]
fn sequences_wrap_to_zero() {
    let (mut p, mut offset) = (Producers::new(), 0);
    append(&mut p, &mut offset, header(1, 0, i32::MAX - 1, 2));
    append(&mut p, &mut offset, header(1, 0, 0, 2));
    append(&mut p, &mut offset, header(2, 0, i32::MAX, 3));
    let Ok(Verdict::Duplicate(batch)) = p.check(&header(2, 0, i32::MAX, 3), None) else {
        panic!("a batch across the wrap is known")
    };
    assert_eq!((batch.base_sequence(), batch.last_sequence), (i32::MAX, 1));
    append(&mut p, &mut offset, header(2, 0, 2, 1));
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let (mut p, mut offset) = (Producers::new(), 0);
    append(&mut p, &mut offset, header(1, 3, 0, 5));
    let error = p.check(&header(1, 4, 5, 1), None).unwrap_err();
    assert!(matches!(
        error,
        ProducerError::OutOfOrderSequence { last: -1, .. }
    ));
    append(&mut p, &mut offset, header(1, 4, 0, 1));
    let error = p.check(&header(1, 3, 5, 1), None).unwrap_err();
    assert!(matches!(
        error,
        ProducerError::InvalidProducerEpoch {
            current: 4,
            found: 3,
            ..
        }
    ));
}

#[test]
fn idle_producers_expire_and_busy_ones_stay() {
    let mut p = Producers::new();
    p.on_batch(&header(1, 0, 0, 1), None, 1_000);
    p.on_batch(&header(2, 0, 0, 1), None, 5_000);
    assert!(!p.expire(1_999, 1_000));
    assert!(p.expire(2_001, 1_000));
    assert_eq!(p.iter().map(|(id, _)| id).collect::<Vec<_>>(), [2]);
}

#[test]
fn the_number_of_producers_is_bounded() {
    let mut p = Producers::new();
    for id in 0..(PRODUCERS_MAX as i64 + 10) {
        p.on_batch(&header(id, 0, 0, 1), None, id);
    }
    assert!(p.len() <= PRODUCERS_MAX);
    assert_eq!(
        p.check(&header(0, 0, 7, 1), None),
        Ok(Verdict::New),
        "the oldest is forgotten"
    );
    let newest = PRODUCERS_MAX as i64 + 9;
    assert!(
        p.check(&header(newest, 0, 7, 1), None).is_err(),
        "the newest is not"
    );
}

proptest! {
    /// However a client repeats itself, the log holds each sequence number once, in order; and
    /// appends that were taken back leave no trace, but where their producer was to begin.
    #[test]
    fn each_sequence_is_appended_once_and_undo_is_exact(
        steps in prop::collection::vec((0i64..3, 0i16..3, 0i32..40, 1i32..5, any::<bool>()), 1..120),
    ) {
        let mut p = Producers::new();
        let mut log: Vec<BatchHeader> = Vec::new();
        let mut offset = 0;
        for (id, epoch, sequence, records, fails) in steps {
            let mut h = header(id, epoch, sequence, records);
            let mut mine = log.iter().filter(|b| b.producer_id == id);
            let known = p.entries.get(&id).map(|entry| entry.epoch);
            let due = p.entries.get(&id).filter(|entry| entry.epoch == epoch);
            let due = due.map_or(0, |entry| entry.last_before + 1);
            let newest = mine.clone().map(|b| b.producer_epoch).max().max(known);
            match p.check(&h, None) {
                Ok(Verdict::New) => {
                    prop_assert!(newest.is_none_or(|n| n <= epoch));
                    let last = mine.rfind(|b| b.producer_epoch == epoch);
                    match last {
                        Some(last) => prop_assert_eq!(last.last_sequence() + 1, sequence),
                        None => prop_assert!(newest.is_none() || sequence == due),
                    }
                    h.base_offset = offset;
                    let before = p.clone();
                    let undo = p.on_batch(&h, None, 0).0.unwrap();
                    if fails {
                        p.undo(undo);
                        if known.is_none() {
                            let kept = p.entries.remove(&id).unwrap();
                            prop_assert!(kept.batches.is_empty() && kept.txn.is_none());
                            prop_assert_eq!(kept.last_before, sequence - 1);
                            prop_assert_eq!(&p, &before);
                            p.entries.insert(id, kept);
                        }
                        else {
                            prop_assert_eq!(&p, &before);
                        }
                    } else {
                        offset = h.next_offset();
                        log.push(h);
                    }
                }
                Ok(Verdict::Duplicate(b)) => {
                    let original = log.iter().find(|x| x.base_offset == b.base_offset()).unwrap();
                    prop_assert_eq!(original.base_sequence, sequence);
                    prop_assert_eq!(original.records_count, records);
                    prop_assert_eq!(original.producer_epoch, epoch);
                }
                Err(ProducerError::InvalidProducerEpoch { current, .. }) => {
                    prop_assert_eq!(Some(current), newest);
                }
                Err(ProducerError::OutOfOrderSequence { .. }) => prop_assert!(newest.is_some()),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

proptest! {
    /// Against a naive model: one open transaction per producer, and the oldest undecided one holds
    /// the stable end. What was taken back leaves no trace.
    #[test]
    fn transactions_open_end_and_are_taken_back(
        steps in prop::collection::vec((0i64..4, 0u8..4, any::<bool>(), any::<bool>()), 1..80),
    ) {
        let mut p = Producers::new();
        let (mut open, mut sequences, mut offset) = (BTreeMap::new(), BTreeMap::new(), 0);
        for (id, kind, committed, fails) in steps {
            let sequence: &mut i32 = sequences.entry(id).or_default();
            let mut h = header(id, 0, *sequence, 1);
            h.base_offset = offset;
            h.attributes = 1 << 4;
            let marker = EndTxnMarker { producer_id: id, producer_epoch: 0, coordinator_epoch: 0, committed };
            let marker = (kind == 0).then_some(marker);
            if marker.is_some() {
                h.attributes |= 1 << 5;
            }
            let guard = p.begin_verification(id, 0);
            let before = p.clone();
            if marker.is_none() {
                prop_assert_eq!(p.check(&h, Some(&guard)), Ok(Verdict::New));
            }
            let (undo, ended) = p.on_batch(&h, marker.as_ref(), 0);
            if fails {
                p.undo(undo.unwrap());
                // where it was to begin is kept
                if !before.entries.contains_key(&id) {
                    p.entries.remove(&id);
                }
                prop_assert_eq!(p.first_unstable(), before.first_unstable());
                prop_assert_eq!(&p.entries, &before.entries);
                prop_assert_eq!(&p.txns, &before.txns);
                continue;
            }
            match marker {
                Some(_) => {
                    let first = open.remove(&id);
                    prop_assert_eq!(ended.map(|txn| txn.first_offset), first);
                    prop_assert_eq!(ended.map(|txn| txn.aborted), first.map(|_| !committed));
                }
                None => {
                    open.entry(id).or_insert(offset);
                    *sequence += 1;
                }
            }
            offset += 1;
            p.on_visible(offset);
            prop_assert_eq!(p.first_unstable(), open.values().copied().min());
        }
    }
}

/// Several batches are on their way; the disk is full for the first alone.
#[test]
fn the_second_batch_does_not_take_the_place_of_a_first_that_was_taken_back() {
    // a producer that has expired begins where it was
    for began in [0, 7] {
        let mut p = Producers::new();
        let first = header(1, 0, began, 3);
        let undo = p.on_batch(&first, None, 0).0.unwrap();
        p.undo(undo);
        let second = p.check(&header(1, 0, began + 3, 2), None);
        assert!(
            matches!(second, Err(ProducerError::OutOfOrderSequence { last, .. }) if last == began - 1),
            "{second:?}"
        );
        assert_eq!(p.check(&first, None), Ok(Verdict::New));
    }
}

#[test]
fn a_coordinators_batches_are_in_no_sequence_and_never_duplicates() {
    let (mut p, mut offset) = (Producers::new(), 0);
    for epoch in 0..2 {
        let offsets = BatchHeader {
            attributes: 1 << 4,
            ..header(1, epoch, NO_SEQUENCE, 1)
        };
        assert!(p.check(&offsets, None).is_err(), "not verified");
        let guard = p.begin_verification(1, epoch);
        assert_eq!(p.check(&offsets, Some(&guard)), Ok(Verdict::New));
        for _ in 0..2 * BATCHES_KEPT {
            let mut next = offsets;
            next.base_offset = offset;
            offset = next.next_offset();
            p.on_batch(&next, None, 0);
            assert_eq!(p.check(&offsets, None), Ok(Verdict::New));
        }
        let marker = EndTxnMarker {
            producer_id: 1,
            producer_epoch: epoch,
            coordinator_epoch: 0,
            committed: true,
        };
        let mut end = header(1, epoch, NO_SEQUENCE, 1);
        (end.attributes, end.base_offset) = (0b11 << 4, offset);
        offset = end.next_offset();
        p.on_batch(&end, Some(&marker), 0);
    }
}

/// KIP-890: a producer of transaction version 2 begins at 0 wherever it is not known; an older one may
/// have been forgotten.
#[test]
fn an_unknown_producer_of_the_second_transaction_version_begins_at_zero() {
    let mut p = Producers::new();
    let guard = p.begin_verification(1, 0);
    let batch = |sequence| BatchHeader {
        attributes: 1 << 4,
        ..header(1, 0, sequence, 1)
    };
    let later = p.check(&batch(5), Some(&guard.from_zero()));
    assert!(
        matches!(
            later,
            Err(ProducerError::OutOfOrderSequence {
                last: NO_SEQUENCE,
                ..
            })
        ),
        "{later:?}"
    );
    assert_eq!(p.check(&batch(5), Some(&guard)), Ok(Verdict::New));
    assert_eq!(
        p.check(&batch(0), Some(&guard.from_zero())),
        Ok(Verdict::New)
    );
}
