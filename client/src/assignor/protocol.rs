//! The bytes in which members of a `consumer` group tell their leader what they want, and it them
//! what they get: `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, versions 0 to 3.
//!
//! The broker passes them on unread, so they come from other clients and are checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::primitive::{ReadError, Reader, put_count, put_nullable_string, put_string};
use thiserror::Error;

use super::TopicPartition;

/// The version written. 1 added the owned partitions (KIP-429), 2 their generation, 3 the rack
/// (KIP-881).
const VERSION: i16 = 3;
/// Least bytes of a topic with its partitions: two lengths.
const MIN_TOPIC: usize = 6;
/// Null where bytes may be.
const NULL_LENGTH: i32 = -1;

/// A subscription or assignment that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupProtocolError {
    /// The bytes are not of the format.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// Text that is not UTF-8.
    #[error("a topic's name is not UTF-8")]
    Utf8,
    /// A version below 0.
    #[error("version {0} cannot be")]
    Version(i16),
}

/// What a member wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    pub(crate) topics: BTreeSet<Arc<str>>,
    pub(crate) owned: BTreeSet<TopicPartition>,
    pub(crate) generation: i32,
}

impl Subscription {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        put_count(&mut out, false, self.topics.len());
        for topic in &self.topics {
            put_string(&mut out, false, topic);
        }
        out.put_i32(NULL_LENGTH); // no user data
        put_partitions(&mut out, &self.owned);
        out.put_i32(self.generation);
        put_nullable_string(&mut out, false, None); // no rack
        out.freeze()
    }

    /// Reads what it knows of a version; what a later one adds comes after it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, GroupProtocolError> {
        let mut reader = Reader::new(bytes);
        let version = version(&mut reader)?;
        let mut topics = BTreeSet::new();
        for _ in 0..reader.count(false, 2)? {
            topics.insert(string(&mut reader)?);
        }
        skip_bytes(&mut reader)?;
        let owned = match version {
            0 => BTreeSet::new(),
            _ => partitions(&mut reader)?,
        };
        let generation = match version {
            0 | 1 => -1,
            _ => reader.i32()?,
        };
        Ok(Self {
            topics,
            owned,
            generation,
        })
    }
}

/// What a member gets.
pub(crate) fn encode_assignment(assigned: &BTreeSet<TopicPartition>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put_partitions(&mut out, assigned);
    out.put_i32(NULL_LENGTH); // no user data
    out.freeze()
}

/// The leader's word; no bytes at all mean nothing.
pub(crate) fn decode_assignment(
    bytes: &[u8],
) -> Result<BTreeSet<TopicPartition>, GroupProtocolError> {
    if bytes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut reader = Reader::new(bytes);
    version(&mut reader)?;
    partitions(&mut reader)
}

fn version(reader: &mut Reader<'_>) -> Result<i16, GroupProtocolError> {
    match reader.i16()? {
        version @ 0.. => Ok(version),
        version => Err(GroupProtocolError::Version(version)),
    }
}

fn put_partitions(out: &mut BytesMut, partitions: &BTreeSet<TopicPartition>) {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        let numbers = by_topic.entry(&partition.topic).or_default();
        numbers.push(partition.partition);
    }
    put_count(out, false, by_topic.len());
    for (topic, numbers) in by_topic {
        put_string(out, false, topic);
        put_count(out, false, numbers.len());
        for number in numbers {
            out.put_i32(number);
        }
    }
}

fn partitions(reader: &mut Reader<'_>) -> Result<BTreeSet<TopicPartition>, GroupProtocolError> {
    let mut partitions = BTreeSet::new();
    for _ in 0..reader.count(false, MIN_TOPIC)? {
        let topic = string(reader)?;
        for _ in 0..reader.count(false, 4)? {
            partitions.insert(TopicPartition::new(topic.clone(), reader.i32()?));
        }
    }
    Ok(partitions)
}

fn string(reader: &mut Reader<'_>) -> Result<Arc<str>, GroupProtocolError> {
    let length = reader.i16()?;
    let bytes = reader.take(usize::try_from(length).unwrap_or(0))?;
    let text = std::str::from_utf8(bytes).map_err(|_| GroupProtocolError::Utf8)?;
    Ok(text.into())
}

fn skip_bytes(reader: &mut Reader<'_>) -> Result<(), GroupProtocolError> {
    reader.nullable_bytes(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partitions_strategy() -> impl Strategy<Value = BTreeSet<TopicPartition>> {
        let one = ("[a-c]{1,3}", 0..5).prop_map(|(topic, p)| TopicPartition::new(topic, p));
        proptest::collection::btree_set(one, 0..12)
    }

    proptest! {
        #[test]
        fn subscriptions_come_back_as_they_were(
            topics in proptest::collection::btree_set("[a-z]{1,5}", 0..5),
            owned in partitions_strategy(),
            generation: i32,
        ) {
            let topics = topics.into_iter().map(Arc::from).collect();
            let subscription = Subscription { topics, owned, generation };
            prop_assert_eq!(Subscription::decode(&subscription.encode()), Ok(subscription));
        }

        #[test]
        fn assignments_come_back_as_they_were(assigned in partitions_strategy()) {
            prop_assert_eq!(decode_assignment(&encode_assignment(&assigned)), Ok(assigned));
        }

        #[test]
        fn no_bytes_of_another_member_panic(bytes: Vec<u8>) {
            let _ = Subscription::decode(&bytes);
            let _ = decode_assignment(&bytes);
        }
    }

    #[test]
    fn older_subscriptions_are_read() {
        // version 0: one topic, no user data
        let v0 = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
        let read = Subscription::decode(v0).unwrap();
        assert_eq!(read.topics, BTreeSet::from([Arc::from("t")]));
        assert_eq!((read.owned.len(), read.generation), (0, -1));
        // version 1: and one partition that it owns
        let v1 = b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x05";
        let read = Subscription::decode(v1).unwrap();
        assert_eq!(read.owned, BTreeSet::from([TopicPartition::new("t", 5)]));
    }

    #[test]
    fn a_member_without_an_assignment_has_nothing() {
        assert_eq!(decode_assignment(b""), Ok(BTreeSet::new()));
        let negative = decode_assignment(b"\xff\xff");
        assert_eq!(negative, Err(GroupProtocolError::Version(-1)));
    }
}
