//! The bytes that members of the classic protocol say and are told in: what they subscribe to and own
//! (`ConsumerProtocolSubscription`, versions 0 to 3) and what they are assigned
//! (`ConsumerProtocolAssignment`). Later versions only add fields at the end.
//!
//! ```text
//! subscription  version i16, topics [string], user data bytes?, from 1: owned [topic string,
//!               partitions [i32]], from 2: generation i32, from 3: rack string?
//! assignment    version i16, partitions [topic string, partitions [i32]], user data bytes?
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::primitive::{ReadError, Reader, put_count, put_nullable_count, put_string};

use super::partitions::Partitions;
use crate::cluster::image::Image;

const PLAIN: bool = false;
/// An empty name and an empty list of partitions.
const MIN_TOPIC_BYTES: usize = 6;
/// The last version that says all that is read here.
const VERSION_MAX: i16 = 3;

/// What a member subscribes to and owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: BTreeSet<String>,
    /// Empty before version 1: such members give everything up before they join.
    pub(super) owned: Partitions,
    pub(super) rack: Option<String>,
}

/// The subscription in a member's metadata; none if the bytes are not one.
pub(super) fn subscription(bytes: &Bytes, image: &Image) -> Option<Subscription> {
    let mut reader = Reader::of_response(bytes);
    read_subscription(&mut reader, image).ok()
}

fn read_subscription(reader: &mut Reader<'_>, image: &Image) -> Result<Subscription, ReadError> {
    let version = version(reader)?;
    let mut topics = BTreeSet::new();
    for _ in 0..reader.count(PLAIN, 2)? {
        topics.insert(text(reader)?);
    }
    reader.nullable_bytes(PLAIN)?;
    let owned = match version {
        0 => Partitions::default(),
        _ => partitions(reader, image)?,
    };
    if version >= 2 {
        reader.i32()?;
    }
    let rack = match version {
        0..=2 => None,
        _ => optional_text(reader)?,
    };
    Ok(Subscription {
        version,
        topics,
        owned,
        rack,
    })
}

/// The partitions in a member's assignment; none if the bytes are not one. A member that was
/// assigned nothing may have no bytes.
pub(super) fn assignment(bytes: &Bytes, image: &Image) -> Option<Partitions> {
    if bytes.is_empty() {
        return Some(Partitions::default());
    }
    let mut reader = Reader::of_response(bytes);
    version(&mut reader).ok()?;
    partitions(&mut reader, image).ok()
}

/// The bytes of an assignment; partitions of deleted topics have no name and are left out.
pub(super) fn encode_assignment(version: i16, assigned: &Partitions, image: &Image) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version.clamp(0, VERSION_MAX));
    let named: Vec<_> = assigned
        .topics()
        .filter_map(|(id, numbers)| Some((image.topic_by_id(id)?, numbers)))
        .collect();
    put_count(&mut out, PLAIN, named.len());
    for (topic, numbers) in named {
        put_string(&mut out, PLAIN, &topic.name);
        put_count(&mut out, PLAIN, numbers.len());
        for number in numbers {
            out.put_i32(*number);
        }
    }
    put_nullable_count(&mut out, PLAIN, None);
    out.freeze()
}

fn version(reader: &mut Reader<'_>) -> Result<i16, ReadError> {
    let at = reader.position();
    match reader.i16()? {
        version if version < 0 => Err(ReadError::Value {
            at,
            value: version.into(),
        }),
        version => Ok(version),
    }
}

fn optional_text(reader: &mut Reader<'_>) -> Result<Option<String>, ReadError> {
    let at = reader.position();
    let Some(bytes) = reader.nullable_string(PLAIN)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes).map_err(|_| ReadError::Utf8 { at })?;
    Ok(Some(text.to_owned()))
}

fn text(reader: &mut Reader<'_>) -> Result<String, ReadError> {
    let at = reader.position();
    optional_text(reader)?.ok_or(ReadError::Length { at, length: -1 })
}

/// Partitions by the names of their topics; those that do not exist are nobody's.
fn partitions(reader: &mut Reader<'_>, image: &Image) -> Result<Partitions, ReadError> {
    let mut all = Partitions::default();
    for _ in 0..reader.count(PLAIN, MIN_TOPIC_BYTES)? {
        let name = text(reader)?;
        let topic = image.topic(&name);
        for _ in 0..reader.count(PLAIN, 4)? {
            let number = reader.i32()?;
            if let Some(topic) = topic.filter(|topic| topic.has(number)) {
                all.insert(topic.id, number);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lab::Lab;
    use super::*;

    #[test]
    fn the_bytes_are_kafkas() {
        let lab = Lab::new(&[("t", 3)]);
        let both = lab.partitions(&[("t", 0), ("t", 2)]);
        let bytes = encode_assignment(1, &both, &lab.image);
        assert_eq!(
            &bytes[..],
            b"\0\x01\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x02\xff\xff\xff\xff"
        );
        assert_eq!(assignment(&bytes, &lab.image), Some(both));
        let said = b"\0\x03\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x01\
            \0\0\0\x05\0\x01r";
        let read = subscription(&Bytes::from_static(said), &lab.image).unwrap();
        assert_eq!(read.topics, BTreeSet::from(["t".to_owned()]));
        assert_eq!(read.owned, lab.partitions(&[("t", 1)]));
        assert_eq!((read.version, read.rack.as_deref()), (3, Some("r")));
        let old = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
        let read = subscription(&Bytes::from_static(old), &lab.image).unwrap();
        assert!(read.owned.is_empty() && read.version == 0);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let (lab, bytes) = (Lab::new(&[]), Bytes::from(bytes));
            let _ = subscription(&bytes, &lab.image);
            let _ = assignment(&bytes, &lab.image);
        }
    }
}
