//! Tests of records: what was built is read back, and every way in which a record may lie.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::batch::{ProducerStamp, RunError};
use crate::builder::{BatchBuilder, NewRecord};

const LIMIT: usize = 1 << 20;

fn build(codec: Compression, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(LIMIT);
    for value in values {
        builder
            .append(&NewRecord {
                value: Some(value),
                ..NewRecord::default()
            })
            .unwrap();
    }
    builder.seal(codec, ProducerStamp::NONE)
}

/// A header for records put together by hand.
fn header(records_count: i32) -> BatchHeader {
    let batch = build(Compression::None, &[b"x"]);
    BatchHeader {
        records_count,
        ..*BatchView::parse(&batch).unwrap().header()
    }
}

fn error(records_count: i32, bytes: &[u8]) -> RecordError {
    Records::new(&header(records_count), bytes)
        .find_map(Result::err)
        .expect("the records are malformed")
}

#[test]
fn every_codec_gives_back_the_records() -> Result<(), RunError> {
    let values: Vec<Vec<u8>> = (0..500_usize).map(|i| vec![i as u8; i % 200]).collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    for codec in Compression::ALL {
        let batch = build(codec, &values);
        let view = BatchView::parse(&batch).unwrap();
        view.check_produced(LIMIT).unwrap();
        assert_eq!(view.header().compression(), Ok(codec));
        check_produced_records(&view, LIMIT, |_, _| {}).unwrap();
        let bytes = decoded(&view, LIMIT).unwrap();
        let read: Vec<_> = Records::new(view.header(), &bytes)
            .map(|r| r.unwrap().value.unwrap().to_vec())
            .collect();
        assert_eq!(read, values);
    }
    Ok(())
}

#[test]
fn a_bomb_in_a_batch_stops_at_the_limit() {
    let zeros = vec![0; LIMIT / 2];
    for codec in &Compression::ALL[1..] {
        let batch = build(*codec, &[&zeros]);
        let view = BatchView::parse(&batch).unwrap();
        let error = check_produced_records(&view, 1000, |_, _| {}).unwrap_err();
        assert!(matches!(
            error,
            RecordError::Decompress(DecompressError::TooLarge { .. })
        ));
    }
}

#[test]
fn a_count_that_lies_is_refused() {
    let batch = build(Compression::None, &[b"a", b"b", b"c"]);
    let view = BatchView::parse(&batch).unwrap();
    for counted in [i32::MIN, -1, 0, 1, 2, 4, i32::MAX] {
        let header = BatchHeader {
            records_count: counted,
            ..*view.header()
        };
        let last = Records::new(&header, view.records_bytes()).last().unwrap();
        assert!(matches!(last, Err(RecordError::Count { .. })), "{counted}");
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = [16, 0, 0, 0, 2, b'k', 2, b'v', 0];
    assert!(Records::new(&header(1), &good).all(|r| r.is_ok()));
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        error(1, &bytes)
    };
    assert!(matches!(
        with(0, 1),
        RecordError::Read {
            error: ReadError::Length { .. },
            ..
        }
    ));
    assert!(matches!(
        with(0, 14),
        RecordError::Length {
            stated: 7,
            used: 8,
            ..
        }
    ));
    assert!(matches!(
        with(0, 18),
        RecordError::Read {
            error: ReadError::Short { missing: 1, .. },
            ..
        }
    ));
    // key and value beyond the record, below null
    assert!(matches!(
        with(4, 100),
        RecordError::Read {
            error: ReadError::Short { .. },
            ..
        }
    ));
    assert!(matches!(
        with(4, 3),
        RecordError::Read {
            error: ReadError::Length { .. },
            ..
        }
    ));
    assert!(matches!(
        with(6, 3),
        RecordError::Read {
            error: ReadError::Length { .. },
            ..
        }
    ));
    // headers that no bytes stand for, and a negative number of them
    assert!(matches!(
        with(8, 2),
        RecordError::Read {
            error: ReadError::Count { .. },
            ..
        }
    ));
    assert!(matches!(
        with(8, 1),
        RecordError::Read {
            error: ReadError::Length { .. },
            ..
        }
    ));
}

#[test]
fn two_billion_headers_are_refused_at_once() {
    let claim = [26, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    let error = error(1, &claim);
    assert!(
        matches!(
            error,
            RecordError::Read {
                error: ReadError::Count { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_null_header_key_is_refused() {
    let null_key = [16, 0, 0, 0, 1, 1, 2, 1, 1];
    let error = error(1, &null_key);
    assert!(
        matches!(
            error,
            RecordError::Read {
                error: ReadError::Length { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn produced_offsets_must_be_dense() {
    let batch = build(Compression::None, &[b"a", b"b"]);
    let mut bytes = batch.to_vec();
    let second = bytes.len() - 8 + 3;
    assert_eq!(bytes[second], 2, "zigzag of offset delta 1");
    bytes[second] = 4;
    let view = BatchView::parse(&bytes).unwrap();
    let error = check_produced_records(&view, LIMIT, |_, _| {}).unwrap_err();
    assert!(
        matches!(error, RecordError::Offset { index: 1, delta: 2 }),
        "{error}"
    );
}

#[test]
fn append_time_replaces_the_records_own() {
    let mut batch = build(Compression::None, &[b"a", b"b"]).to_vec();
    crate::batch::set_append_time(&mut batch, 42);
    let view = BatchView::parse(&batch).unwrap();
    let mut records = Records::new(view.header(), view.records_bytes());
    assert!(records.all(|record| record.unwrap().timestamp == 42));
}

type OwnedRecord = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

fn any_slice() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..100)
}

fn any_record() -> impl Strategy<Value = OwnedRecord> {
    let slice = || proptest::option::of(any_slice());
    let headers = proptest::collection::vec((any_slice(), slice()), 0..4);
    (any::<i64>(), slice(), slice(), headers)
}

proptest! {
    #[test]
    fn any_records_come_back(records in proptest::collection::vec(any_record(), 1..20)) {
        let mut builder = BatchBuilder::new(LIMIT);
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<Header<'_>> =
                headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
            let record = NewRecord {
                timestamp: *timestamp,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
            };
            let size = builder.size() + builder.size_of(&record);
            builder.append(&record).unwrap();
            prop_assert_eq!(builder.size(), size, "size_of() must tell the truth");
        }
        let batch = builder.seal(Compression::None, ProducerStamp::NONE);
        let view = BatchView::parse(&batch).unwrap();
        view.check_produced(LIMIT).unwrap();
        let mut read = Records::new(view.header(), view.records_bytes());
        for (offset, (timestamp, key, value, headers)) in (0..).zip(&records) {
            let record = read.next().unwrap().unwrap();
            prop_assert_eq!(record.offset, offset);
            prop_assert_eq!(record.timestamp, *timestamp);
            prop_assert_eq!(record.key, key.as_deref());
            prop_assert_eq!(record.value, value.as_deref());
            prop_assert_eq!(record.headers.len(), headers.len());
            for (read, (key, value)) in record.headers.iter().zip(headers) {
                prop_assert_eq!(read, Header { key, value: value.as_deref() });
            }
        }
        prop_assert!(read.next().is_none());
    }

    /// The quick way over records and the exact one are the same way.
    #[test]
    fn a_plain_record_is_what_it_is_read_as(
        delta in -2_000_000_i32..2_000_000,
        key in proptest::option::of(any_slice()),
        value in proptest::option::of(any_slice()),
        bits in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8_u32), 0..3),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut builder = BatchBuilder::new(LIMIT);
        for timestamp in [0, i64::from(delta)] {
            let (key, value) = (key.as_deref(), value.as_deref());
            builder.append(&NewRecord { timestamp, key, value, ..NewRecord::default() }).unwrap();
        }
        let batch = builder.seal(Compression::None, ProducerStamp::NONE);
        let view = BatchView::parse(&batch).unwrap();
        let mut bytes = view.records_bytes().to_vec();
        prop_assert!(Records::new(view.header(), &bytes).plain().is_some());
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for (at, bit) in bits {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1_u8 << bit;
            }
        }
        let (mut quick, mut exact) = (Records::new(view.header(), &bytes), Records::new(view.header(), &bytes));
        while let Some(record) = quick.plain() {
            let read = exact.read();
            prop_assert_eq!(read.ok(), Some(record));
            prop_assert_eq!(quick.reader.position(), exact.reader.position());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        count: i32,
    ) {
        for record in Records::new(&header(count), &bytes).flatten() {
            prop_assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
}

#[test]
fn a_check_shows_each_record_with_its_place() {
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(1 << 16);
        for key in [Some(&b"k"[..]), None] {
            let record = NewRecord {
                key,
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        let batch = builder.seal(codec, ProducerStamp::NONE);
        let view = BatchView::parse(&batch).unwrap();
        let mut seen = Vec::new();
        let visit = |index, record: &Record<'_>| seen.push((index, record.key.is_some()));
        check_produced_records(&view, 1 << 16, visit).unwrap();
        assert_eq!(seen, [(0, true), (1, false)]);
    }
}
