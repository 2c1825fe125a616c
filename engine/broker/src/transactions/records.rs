//! The records of `__transaction_state`, byte for byte as Kafka writes them, so that Kafka's tools
//! read ours: key `TransactionLogKey` v0, value `TransactionLogValue` v1 (v0 is read too). A record
//! without a value is a tombstone. Decoding checks everything and allocates no more than the bytes
//! at hand.
//!
//! ```text
//! key    i16 0, transactional id string
//! value  i16 1, producer id i64, epoch i16, time-out i32, state i8,
//!        partitions [topic compact string, numbers compact [i32], tags]?, last update i64,
//!        start i64, tags: 0 previous producer id i64, 1 next producer id i64, 2 client version i16
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::primitive::{ReadError, Reader, put_uvarint};
use thiserror::Error;

use super::state::{Metadata, Partitions, State};
use super::{ClientVersion, NO_EPOCH, NO_PRODUCER_ID};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;
/// The first version in the flexible encoding.
const FIRST_FLEXIBLE: i16 = 1;

/// Why bytes are no record of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes are not of the record's shape.
    #[error(transparent)]
    Shape(#[from] ReadError),
    /// A value that is none of the field's.
    #[error("the record's {0} has no such value")]
    Value(&'static str),
    /// A version that this broker does not know.
    #[error("the record has the unknown version {0}")]
    UnknownVersion(i16),
}

/// The bytes of a transactional id's key.
pub fn encode_key(id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + id.len());
    out.put_i16(KEY_VERSION);
    out.put_i16(i16::try_from(id.len()).expect("longer ids are refused when they come in"));
    out.put_slice(id.as_bytes());
    out.freeze()
}

/// The transactional id of a key; none for a kind of key that this broker does not know, which
/// readers skip.
pub fn decode_key(bytes: &[u8]) -> Result<Option<String>, RecordError> {
    let reader = &mut Reader::new(bytes);
    if reader.i16()? != KEY_VERSION {
        return Ok(None);
    }
    let id = text(reader, false)?;
    reader.finish()?;
    Ok(Some(id))
}

/// The bytes of a state.
pub fn encode_value(metadata: &Metadata) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VALUE_VERSION);
    out.put_i64(metadata.producer_id);
    out.put_i16(metadata.epoch);
    out.put_i32(metadata.timeout_ms);
    out.put_i8(metadata.state as i8);
    if metadata.state == State::Empty {
        // null
        put_uvarint(&mut out, 0);
    } else {
        put_count(&mut out, metadata.partitions.len());
        for (topic, numbers) in &metadata.partitions {
            put_count(&mut out, topic.len());
            out.put_slice(topic.as_bytes());
            put_count(&mut out, numbers.len());
            for number in numbers {
                out.put_i32(*number);
            }
            put_uvarint(&mut out, 0);
        }
    }
    out.put_i64(metadata.updated_ms);
    out.put_i64(metadata.start_ms);
    put_tags(&mut out, metadata);
    out.freeze()
}

/// A compact length: one more than it is.
fn put_count(out: &mut BytesMut, count: usize) {
    let count = u32::try_from(count).expect("bounded by the partitions of a transaction");
    put_uvarint(out, u64::from(count) + 1);
}

fn put_tags(out: &mut BytesMut, metadata: &Metadata) {
    let previous = metadata.previous_producer_id;
    let next = metadata.next_producer_id;
    let client = metadata.client as i16;
    let ids = [(0, previous), (1, next)];
    let ids = ids.into_iter().filter(|(_, id)| *id != NO_PRODUCER_ID);
    let count = ids.clone().count() as u64 + u64::from(client != 0);
    put_uvarint(out, count);
    for (tag, id) in ids {
        put_uvarint(out, tag);
        put_uvarint(out, 8);
        out.put_i64(id);
    }
    if client != 0 {
        put_uvarint(out, 2);
        put_uvarint(out, 2);
        out.put_i16(client);
    }
}

/// The state of its bytes, versions 0 and 1.
pub fn decode_value(bytes: &[u8]) -> Result<Metadata, RecordError> {
    let reader = &mut Reader::new(bytes);
    let version = reader.i16()?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return Err(RecordError::UnknownVersion(version));
    }
    let flexible = version >= FIRST_FLEXIBLE;
    let producer_id = reader.i64()?;
    let epoch = reader.i16()?;
    let timeout_ms = reader.i32()?;
    let state = State::from_code(reader.i8()?).ok_or(RecordError::Value("state"))?;
    let partitions = partitions(reader, flexible)?;
    let mut metadata = Metadata {
        producer_id,
        epoch,
        timeout_ms,
        state,
        partitions,
        updated_ms: reader.i64()?,
        start_ms: reader.i64()?,
        last_epoch: NO_EPOCH,
        ..Metadata::new(producer_id, timeout_ms, 0)
    };
    let mut client = 0;
    reader.tagged_fields(flexible, |tag, content| {
        match tag {
            0 => metadata.previous_producer_id = content.i64()?,
            1 => metadata.next_producer_id = content.i64()?,
            2 => client = content.i16()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    metadata.client = match client {
        0 => ClientVersion::V0,
        1 => ClientVersion::V1,
        2 => ClientVersion::V2,
        _ => return Err(RecordError::Value("client version")),
    };
    reader.finish()?;
    check(&metadata)?;
    Ok(metadata)
}

/// What later steps take for granted.
fn check(metadata: &Metadata) -> Result<(), RecordError> {
    if matches!(metadata.state, State::Dead | State::PrepareEpochFence) {
        return Err(RecordError::Value("state"));
    }
    if metadata.producer_id < 0 {
        return Err(RecordError::Value("producer id"));
    }
    if metadata.epoch < 0 {
        return Err(RecordError::Value("epoch"));
    }
    Ok(())
}

fn partitions(reader: &mut Reader<'_>, flexible: bool) -> Result<Partitions, RecordError> {
    let mut partitions = Partitions::new();
    for _ in 0..reader.nullable_count(flexible, 1)?.unwrap_or(0) {
        let topic = text(reader, flexible)?;
        let mut numbers = BTreeSet::new();
        for _ in 0..reader.nullable_count(flexible, 4)?.unwrap_or(0) {
            numbers.insert(reader.i32()?);
        }
        reader.tagged_fields(flexible, |_, _| Ok(false))?;
        partitions.insert(topic, numbers);
    }
    Ok(partitions)
}

fn text(reader: &mut Reader<'_>, flexible: bool) -> Result<String, RecordError> {
    let bytes = reader.nullable_string(flexible)?;
    let text = bytes.map(|bytes| std::str::from_utf8(bytes).map(str::to_owned));
    text.ok_or(RecordError::Value("text"))?
        .map_err(|_| RecordError::Value("text"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes follow Kafka's schemas `TransactionLogKey.json` and `TransactionLogValue.json`.
    #[test]
    fn records_are_kafkas_byte_for_byte() {
        assert_eq!(&encode_key("t")[..], b"\0\0\0\x01t");
        let metadata = Metadata {
            previous_producer_id: 6,
            epoch: 2,
            state: State::PrepareCommit,
            partitions: Partitions::from([("a".to_owned(), BTreeSet::from([0, 258]))]),
            start_ms: 3,
            client: ClientVersion::V2,
            ..Metadata::new(7, 60_000, 4)
        };
        let bytes: &[u8] = b"\0\x01\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\x02\
            \x02\x02a\x03\0\0\0\0\0\0\x01\x02\0\
            \0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x03\
            \x02\0\x08\0\0\0\0\0\0\0\x06\x02\x02\0\x02";
        assert_eq!(&encode_value(&metadata)[..], bytes);
        assert_eq!(decode_value(bytes), Ok(metadata));
    }

    #[test]
    fn the_older_version_is_read() {
        let bytes = b"\0\0\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\x01\
            \0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x05\
            \0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x03";
        let read = decode_value(bytes).unwrap();
        assert!(read.has("a", 5) && read.state == State::Ongoing);
        assert_eq!((read.producer_id, read.epoch, read.start_ms), (7, 2, 3));
        let empty = b"\0\0\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\0\xff\xff\xff\xff\
            \0\0\0\0\0\0\0\x04\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(decode_value(empty).unwrap().state, State::Empty);
    }

    #[test]
    fn what_is_not_known_is_skipped_or_refused() {
        assert_eq!(decode_key(b"\0\x05rest"), Ok(None));
        assert!(decode_key(b"\0\0\0\x05t").is_err());
        assert!(decode_key(b"\0\0\xff\xff").is_err());
        assert_eq!(decode_value(b"\0\x09"), Err(RecordError::UnknownVersion(9)));
        let mut metadata = Metadata::new(7, 1, 1);
        assert!(decode_value(&encode_value(&metadata)).is_err(), "no epoch");
        metadata.epoch = 0;
        assert!(decode_value(&encode_value(&metadata)).is_ok());
        metadata.state = State::Dead;
        assert!(decode_value(&encode_value(&metadata)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode_key(&bytes);
            let _ = decode_value(&bytes);
            let _ = decode_value(&[&[0, 1][..], &bytes].concat());
        }

        #[test]
        fn what_is_written_is_read(
            ids in any::<[u32; 3]>(),
            epoch in 0..i16::MAX,
            times in any::<[i64; 2]>(),
            state in 0..6_i8,
            client in 0..3_usize,
            numbers in prop::collection::btree_map("[a-z]{1,5}", prop::collection::btree_set(0..9, 1..4), 0..4),
        ) {
            let state = State::from_code(state).unwrap();
            let partitions = if state == State::Empty { Partitions::new() } else { numbers };
            let metadata = Metadata {
                previous_producer_id: ids[1].into(),
                next_producer_id: i64::from(ids[2]) - 1,
                epoch,
                state,
                partitions,
                start_ms: times[0],
                client: [ClientVersion::V0, ClientVersion::V1, ClientVersion::V2][client],
                ..Metadata::new(ids[0].into(), 5, times[1])
            };
            prop_assert_eq!(decode_value(&encode_value(&metadata)), Ok(metadata));
        }
    }
}
