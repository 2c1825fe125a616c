//! Tests of the batch view: what a run of batches may look like, and every way in which it may lie.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::assign::seal_crc;
use crate::builder::{BatchBuilder, NewRecord};

/// A batch of `count` records of `value_len` bytes.
pub(crate) fn sample(count: usize, value_len: usize) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    let value = vec![b'v'; value_len];
    for index in 0..count {
        let timestamp = 1_700_000_000_000 + index as i64;
        let key = Some(&b"key"[..]);
        builder
            .append(&NewRecord {
                timestamp,
                key,
                value: Some(&value),
                headers: &[],
            })
            .unwrap();
    }
    builder.seal(Compression::None, ProducerStamp::NONE)
}

/// As [`sample`], changed by `change` and with a CRC that suits it.
fn changed(change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut batch = BytesMut::from(&sample(3, 10)[..]);
    change(&mut batch);
    seal_crc(&mut batch);
    batch.freeze()
}

fn refusal(batch: &Bytes) -> BatchError {
    produced_batch(batch, 1 << 20).unwrap_err()
}

/// Offset 7, leader epoch 3, one record (key "k", value "v", no headers) at 1,700,000,000,000 ms,
/// put together by hand from the format's definition.
pub(crate) const GOLDEN: [u8; 70] = [
    0, 0, 0, 0, 0, 0, 0, 7, // base offset
    0, 0, 0, 58, // batch length
    0, 0, 0, 3, // leader epoch
    2, // magic
    0xe9, 0x9b, 0x8d, 0xd8, // crc, from a bitwise CRC-32C
    0, 0, // attributes
    0, 0, 0, 0, // last offset delta
    0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, // base timestamp
    0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, // max timestamp
    255, 255, 255, 255, 255, 255, 255, 255, // producer id
    255, 255, // producer epoch
    255, 255, 255, 255, // base sequence
    0, 0, 0, 1, // records count
    16, 0, 0, 0, 2, b'k', 2, b'v', 0, // length 8, attributes, deltas, key, value, no headers
];

#[test]
fn a_hand_made_batch_is_read_as_written() {
    let view = BatchView::parse(&GOLDEN).unwrap();
    view.check_crc().unwrap();
    assert_eq!(view.size(), GOLDEN.len());
    let header = view.header();
    assert_eq!((header.base_offset, header.next_offset()), (7, 8));
    assert_eq!(header.partition_leader_epoch, 3);
    assert_eq!(header.base_timestamp, 1_700_000_000_000);
    assert!(!header.has_producer_id() && !header.is_control() && !header.is_transactional());
    assert_eq!(header.compression(), Ok(Compression::None));
}

#[test]
fn the_builder_writes_the_hand_made_batch() {
    let mut builder = BatchBuilder::new(1 << 10);
    let (key, value) = (Some(&b"k"[..]), Some(&b"v"[..]));
    let record = NewRecord {
        timestamp: 1_700_000_000_000,
        key,
        value,
        headers: &[],
    };
    builder.append(&record).unwrap();
    let batch = builder.seal(Compression::None, ProducerStamp::NONE);
    let mut batch = BytesMut::from(&batch[..]);
    set_base_offset(&mut batch, 7);
    set_leader_epoch(&mut batch, 3);
    assert_eq!(batch[..], GOLDEN);
}

#[test]
fn a_produced_batch_passes() {
    let batch = sample(5, 100);
    let header = produced_batch(&batch, batch.len()).unwrap();
    assert_eq!(header.records_count, 5);
    assert_eq!(header.last_offset(), 4);
    assert_eq!(header.max_timestamp - header.base_timestamp, 4);
}

#[test]
fn a_flipped_bit_anywhere_after_the_crc_is_caught() {
    let batch = sample(2, 20);
    for at in CRC.start..batch.len() {
        for bit in 0..8 {
            let mut flipped = batch.to_vec();
            flipped[at] ^= 1 << bit;
            let view = BatchView::parse(&flipped).unwrap();
            assert!(
                matches!(view.check_crc(), Err(BatchError::Crc { .. })),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn lies_of_a_producer_are_refused() {
    let offsets = |change: fn(&mut [u8])| {
        let error = refusal(&changed(change));
        assert!(matches!(error, BatchError::Offsets { .. }), "{error}");
    };
    offsets(|b| b[BASE_OFFSET][7] = 1);
    offsets(|b| b[RECORDS_COUNT][3] = 4);
    offsets(|b| b[RECORDS_COUNT].fill(0));
    offsets(|b| b[RECORDS_COUNT].fill(0xff));
    offsets(|b| b[LAST_OFFSET_DELTA].fill(0xff));
    // count 0 with delta -1 agree with each other, and still are no batch
    offsets(|b| {
        b[LAST_OFFSET_DELTA].fill(0xff);
        b[RECORDS_COUNT].fill(0);
    });
    // i32::MIN - 1 must not overflow
    offsets(|b| b[RECORDS_COUNT].copy_from_slice(&i32::MIN.to_be_bytes()));

    assert_eq!(
        refusal(&changed(|b| b[ATTRIBUTES][1] = CONTROL_BIT as u8)),
        BatchError::Control
    );
    for codec in 5..8 {
        let error = refusal(&changed(|b| b[ATTRIBUTES][1] = codec as u8));
        assert_eq!(error, BatchError::Codec(codec));
    }
    for bit in [APPEND_TIME_BIT, DELETE_HORIZON_BIT] {
        let error = refusal(&changed(|b| b[ATTRIBUTES][1] = bit as u8));
        assert_eq!(error, BatchError::Attributes(bit));
    }
    assert_eq!(refusal(&changed(|b| b[MAGIC_AT] = 1)), BatchError::Magic(1));
}

#[test]
fn producer_fields_must_go_together() {
    let stamped = |producer_id, producer_epoch, base_sequence, transactional| {
        let stamp = ProducerStamp {
            producer_id,
            producer_epoch,
            base_sequence,
            transactional,
        };
        let mut batch = BytesMut::from(&sample(1, 1)[..]);
        set_producer(&mut batch, stamp);
        produced_batch(&batch.freeze(), 1 << 20)
    };
    assert!(stamped(9, 0, 0, false).is_ok());
    assert!(stamped(9, 0, 0, true).unwrap().is_transactional());
    for (id, epoch, sequence, transactional) in [
        (9, 0, -1, false),
        (9, -1, 0, false),
        (-2, -1, -1, false),
        (-1, -1, -1, true),
    ] {
        let error = stamped(id, epoch, sequence, transactional).unwrap_err();
        assert!(
            matches!(error, BatchError::Producer { .. }),
            "{id} {epoch} {sequence}"
        );
    }
}

#[test]
fn size_limits_and_second_batches_are_refused() {
    let batch = sample(3, 10);
    let limit = batch.len() - 1;
    let too_large = BatchError::TooLarge {
        size: batch.len(),
        limit,
    };
    assert_eq!(produced_batch(&batch, limit), Err(too_large));
    let twice = Bytes::from([&batch[..], &batch[..]].concat());
    assert_eq!(
        produced_batch(&twice, 1 << 20),
        Err(BatchError::Trailing(batch.len()))
    );
    assert!(matches!(
        produced_batch(&Bytes::new(), 1),
        Err(BatchError::Short { .. })
    ));
}

#[test]
fn lengths_below_a_header_are_refused_before_use() {
    for length in [i32::MIN, -1, 1, MIN_BATCH_LENGTH - 1] {
        let mut batch = sample(1, 1).to_vec();
        batch[BATCH_LENGTH].copy_from_slice(&length.to_be_bytes());
        assert_eq!(BatchView::parse(&batch), Err(BatchError::Length(length)));
        assert_eq!(
            BatchView::parse(&batch[..20]),
            Err(BatchError::Length(length))
        );
    }
    let mut batch = sample(1, 1).to_vec();
    batch[BATCH_LENGTH].copy_from_slice(&i32::MAX.to_be_bytes());
    let missing = i32::MAX as usize + LENGTH_OVERHEAD - batch.len();
    assert_eq!(BatchView::parse(&batch), Err(BatchError::Short { missing }));
}

#[test]
fn a_run_cut_at_any_byte_gives_its_whole_batches_and_says_torn() {
    let batch = |count, value_len| {
        let mut batch = sample(count, value_len).to_vec();
        // zeros at the very front would read as a file's unwritten end
        set_base_offset(&mut batch, i64::MAX);
        batch
    };
    let run = [batch(2, 10), batch(1, 90), batch(7, 3)].concat();
    let bounds: Vec<usize> = Batches::new(&run)
        .map(|b| b.unwrap().0)
        .chain([run.len()])
        .collect();
    assert_eq!(bounds.len(), 4);
    for end in 0..run.len() {
        let mut walk = Batches::new(&run[..end]);
        let whole = walk.by_ref().take_while(Result::is_ok).count();
        assert_eq!(
            whole,
            bounds
                .iter()
                .filter(|&&bound| bound > 0 && bound <= end)
                .count()
        );
        assert_eq!(walk.position(), bounds[whole]);
        let last = Batches::new(&run[..end]).last();
        if bounds.contains(&end) {
            assert!(
                last.is_none_or(|last| last.is_ok()),
                "cut between batches at {end}"
            );
        } else {
            let error = last.unwrap().unwrap_err();
            assert_eq!(error.position, bounds[whole]);
            assert!(matches!(error.error, BatchError::Short { missing } if missing > 0));
        }
    }
}

#[test]
fn zeros_end_a_run_without_an_error() {
    let batch = sample(2, 10);
    for zeros in [1, 8, 12, 60, 61, 4096] {
        let run = [&batch[..], &vec![0; zeros]].concat();
        let mut walk = Batches::new(&run);
        assert!(walk.next().unwrap().is_ok());
        assert!(walk.next().is_none());
        assert!(walk.ended_in_zeros());
        assert_eq!(walk.position(), batch.len());
    }
    let mut walk = Batches::new(&batch);
    walk.next();
    assert!(walk.next().is_none() && !walk.ended_in_zeros());
}

#[test]
fn garbage_after_a_batch_is_an_error_with_its_place() {
    let batch = sample(2, 10);
    let run = [&batch[..], &[0xff; 100]].concat();
    let mut walk = Batches::new(&run);
    walk.next();
    let error = walk.next().unwrap().unwrap_err();
    assert_eq!(
        error,
        RunError {
            position: batch.len(),
            error: BatchError::Length(-1)
        }
    );
    assert!(walk.next().is_none(), "the walk ends with its first error");
}

#[test]
fn assigning_offset_and_epoch_keeps_the_crc() {
    let batch = sample(4, 10);
    let mut patched = BytesMut::from(&batch[..]);
    set_base_offset(&mut patched, 1 << 40);
    set_leader_epoch(&mut patched, 77);
    let view = BatchView::parse(&patched).unwrap();
    view.check_crc().unwrap();
    assert_eq!(view.header().next_offset(), (1 << 40) + 4);
    assert_eq!(view.header().partition_leader_epoch, 77);
    let assignment = Assignment {
        base_offset: 1 << 40,
        leader_epoch: 77,
        append_time: None,
    };
    let header = assigned_header(&BatchView::parse(&batch).unwrap(), assignment);
    assert_eq!(header, patched[..HEADER_LEN]);
}

#[test]
fn append_time_is_set_with_a_new_crc() {
    let batch = sample(4, 10);
    let mut patched = BytesMut::from(&batch[..]);
    set_append_time(&mut patched, 1_800_000_000_000);
    let view = BatchView::parse(&patched).unwrap();
    view.check_crc().unwrap();
    assert_eq!(view.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(view.header().max_timestamp, 1_800_000_000_000);
    let assignment = Assignment {
        base_offset: 0,
        leader_epoch: -1,
        append_time: Some(1_800_000_000_000),
    };
    let header = assigned_header(&BatchView::parse(&batch).unwrap(), assignment);
    assert_eq!(header, patched[..HEADER_LEN]);
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 1, 5), 3);
    assert_eq!(advance_sequence(3, 4), 7);
}

#[test]
fn codecs_have_kafkas_names_and_ids() {
    for (id, codec) in (0..).zip(Compression::ALL) {
        assert_eq!(codec.id(), id);
        assert_eq!(Compression::from_id(id), Some(codec));
        assert_eq!(Compression::from_name(codec.name()), Some(codec));
    }
    assert_eq!(Compression::from_name("brotli"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for batch in Batches::new(&bytes).flatten() {
            let _ = batch.1.check_produced(100);
        }
    }

    #[test]
    fn zeros_are_told_from_others(mut bytes in proptest::collection::vec(Just(0_u8), 1..100), at: prop::sample::Index) {
        prop_assert!(is_zeros(&bytes));
        let at = at.index(bytes.len());
        bytes[at] = 1;
        prop_assert!(!is_zeros(&bytes));
    }
}
