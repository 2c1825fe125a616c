//! The records of consumer groups in `__consumer_offsets`, byte for byte as Kafka writes them. Keys
//! are plain, values flexible (KIP-482) of version 0.
//!
//! ```text
//! key  3 group             value  epoch i32, tag 0: hash of the topics i64
//! key  5 group, member     value  instance string?, rack string?, client id string, client host
//!                                 string, topics [string], pattern string?, rebalance timeout i32,
//!                                 assignor string?, tag 0: classic offer (session timeout i32,
//!                                 protocols [name string, metadata bytes])
//! key  6 group             value  assignment epoch i32
//! key  7 group, member     value  target [topic uuid, partitions [i32]]
//! key  8 group, member     value  epoch i32, previous epoch i32, state i8, assigned [topic …],
//!                                 to be revoked [topic …]
//! key 16 group, pattern    value  topics [string], metadata version i64, time i64
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::Uuid;
use ringmill_wire::primitive::{
    ReadError, Reader, put_count, put_no_tags, put_nullable_string, put_string, put_tags,
};

use super::member::{ClassicOffer, Member, MemberState};
use super::partitions::Partitions;
use crate::groups::records::RecordError;

const PLAIN: bool = false;
const FLEXIBLE: bool = true;
const VALUE_VERSION: i16 = 0;
/// A topic's id and an empty list of partitions.
const MIN_TOPIC_BYTES: usize = 17;

/// What a record of a consumer group is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The group's epoch.
    Group,
    /// What a member said of itself.
    Member(String),
    /// The epoch of the target assignment.
    TargetEpoch,
    /// What a member is to have.
    Target(String),
    /// What a member has.
    Current(String),
    /// The topics that a pattern matches.
    Pattern(String),
}

/// A member's assignment as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    pub(super) assigned: Partitions,
    pub(super) revoking: Partitions,
}

/// What a record says of its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of the group: its epoch, and the fingerprint of its topics.
    Group(i32, i64),
    /// Of a member: what it said; the rest is empty.
    Member(Box<Member>),
    /// Of the target assignment: its epoch.
    TargetEpoch(i32),
    /// Of a member: its target.
    Target(Partitions),
    /// Of a member: its assignment.
    Current(Current),
    /// Of a pattern: its topics.
    Pattern(BTreeSet<String>),
}

impl Subject {
    const fn code(&self) -> i16 {
        match self {
            Self::Group => 3,
            Self::Member(_) => 5,
            Self::TargetEpoch => 6,
            Self::Target(_) => 7,
            Self::Current(_) => 8,
            Self::Pattern(_) => 16,
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Group | Self::TargetEpoch => None,
            Self::Member(name) | Self::Target(name) | Self::Current(name) | Self::Pattern(name) => {
                Some(name)
            }
        }
    }
}

/// The bytes of a key.
pub fn encode_key(group: &str, subject: &Subject) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(subject.code());
    put_string(&mut out, PLAIN, group);
    if let Some(name) = subject.name() {
        put_string(&mut out, PLAIN, name);
    }
    out.freeze()
}

/// The group and subject of a key's bytes; none if it is no consumer group's.
pub fn decode_key(bytes: &Bytes) -> Result<Option<(String, Subject)>, RecordError> {
    let mut reader = Reader::of_response(bytes);
    let code = reader.i16()?;
    if !matches!(code, 3 | 5..=8 | 16) {
        return Ok(None);
    }
    let group = text(&mut reader, PLAIN)?;
    let subject = match code {
        3 => Subject::Group,
        5 => Subject::Member(text(&mut reader, PLAIN)?),
        6 => Subject::TargetEpoch,
        7 => Subject::Target(text(&mut reader, PLAIN)?),
        8 => Subject::Current(text(&mut reader, PLAIN)?),
        _ => Subject::Pattern(text(&mut reader, PLAIN)?),
    };
    Ok(Some((group, subject)))
}

fn value(fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VALUE_VERSION);
    fill(&mut out);
    out.freeze()
}

/// The value of [`Subject::Group`].
pub(super) fn encode_group(epoch: i32, hash: i64) -> Bytes {
    value(|out| {
        out.put_i32(epoch);
        let hash_bytes = BytesMut::from(&hash.to_be_bytes()[..]);
        // Kafka writes no tag for its default.
        let tags = [(0, hash_bytes)];
        put_tags(out, FLEXIBLE, if hash == 0 { &[] } else { &tags });
    })
}

/// The value of [`Subject::Member`].
pub(super) fn encode_member(member: &Member) -> Bytes {
    value(|out| {
        put_nullable_string(out, FLEXIBLE, member.instance_id.as_deref());
        put_nullable_string(out, FLEXIBLE, member.rack_id.as_deref());
        put_string(out, FLEXIBLE, &member.client_id);
        put_string(out, FLEXIBLE, &member.client_host);
        put_texts(out, &member.names);
        put_nullable_string(out, FLEXIBLE, member.regex.as_deref());
        out.put_i32(member.rebalance_timeout_ms);
        put_nullable_string(out, FLEXIBLE, member.assignor.as_deref());
        let offer = member.classic.as_ref().map(encode_offer);
        let tags: Vec<(u32, BytesMut)> = offer.map(|offer| (0, offer)).into_iter().collect();
        put_tags(out, FLEXIBLE, &tags);
    })
}

fn encode_offer(offer: &ClassicOffer) -> BytesMut {
    let mut out = BytesMut::new();
    // It is there: the structure may be null.
    out.put_i8(1);
    out.put_i32(offer.session_timeout_ms);
    put_count(&mut out, FLEXIBLE, offer.protocols.len());
    for (name, metadata) in &offer.protocols {
        put_string(&mut out, FLEXIBLE, name);
        put_count(&mut out, FLEXIBLE, metadata.len());
        out.put_slice(metadata);
        put_no_tags(&mut out, FLEXIBLE);
    }
    put_no_tags(&mut out, FLEXIBLE);
    out
}

/// The value of [`Subject::TargetEpoch`].
pub(super) fn encode_target_epoch(epoch: i32) -> Bytes {
    value(|out| {
        out.put_i32(epoch);
        put_no_tags(out, FLEXIBLE);
    })
}

/// The value of [`Subject::Target`].
pub(super) fn encode_target(target: &Partitions) -> Bytes {
    value(|out| {
        put_partitions(out, target);
        put_no_tags(out, FLEXIBLE);
    })
}

/// The value of [`Subject::Current`].
pub(super) fn encode_current(member: &Member) -> Bytes {
    value(|out| {
        out.put_i32(member.epoch);
        out.put_i32(member.previous_epoch);
        out.put_i8(member.state as i8);
        put_partitions(out, &member.assigned);
        put_partitions(out, &member.revoking);
        put_no_tags(out, FLEXIBLE);
    })
}

/// The value of [`Subject::Pattern`].
pub(super) fn encode_pattern(topics: &BTreeSet<String>, version: i64, time_ms: i64) -> Bytes {
    value(|out| {
        put_texts(out, topics);
        out.put_i64(version);
        out.put_i64(time_ms);
        put_no_tags(out, FLEXIBLE);
    })
}

fn put_texts(out: &mut BytesMut, texts: &BTreeSet<String>) {
    put_count(out, FLEXIBLE, texts.len());
    for text in texts {
        put_string(out, FLEXIBLE, text);
    }
}

fn put_partitions(out: &mut BytesMut, partitions: &Partitions) {
    put_count(out, FLEXIBLE, partitions.topics().len());
    for (topic, numbers) in partitions.topics() {
        out.put_slice(topic.as_bytes());
        put_count(out, FLEXIBLE, numbers.len());
        for number in numbers {
            out.put_i32(*number);
        }
        put_no_tags(out, FLEXIBLE);
    }
}

/// What the bytes of a value say of their subject.
pub fn decode_value(subject: &Subject, bytes: &Bytes) -> Result<Value, RecordError> {
    let mut reader = Reader::of_response(bytes);
    let version = reader.i16()?;
    if version != VALUE_VERSION {
        return Err(RecordError::UnknownVersion(version));
    }
    let reader = &mut reader;
    Ok(match subject {
        Subject::Group => {
            let (epoch, mut hash) = (reader.i32()?, 0);
            reader.tagged_fields(FLEXIBLE, |tag, content| {
                if tag == 0 {
                    hash = content.i64()?;
                }
                Ok(tag == 0)
            })?;
            Value::Group(epoch, hash)
        }
        Subject::Member(id) => Value::Member(Box::new(decode_member(id, reader)?)),
        Subject::TargetEpoch => Value::TargetEpoch(reader.i32()?),
        Subject::Target(_) => Value::Target(partitions(reader)?),
        Subject::Current(_) => Value::Current(Current {
            epoch: reader.i32()?,
            previous_epoch: reader.i32()?,
            state: MemberState::of_code(reader.i8()?),
            assigned: partitions(reader)?,
            revoking: partitions(reader)?,
        }),
        Subject::Pattern(_) => Value::Pattern(texts(reader)?),
    })
}

fn decode_member(id: &str, reader: &mut Reader<'_>) -> Result<Member, RecordError> {
    let mut member = Member {
        instance_id: optional_text(reader, FLEXIBLE)?,
        rack_id: optional_text(reader, FLEXIBLE)?,
        client_id: text(reader, FLEXIBLE)?,
        client_host: text(reader, FLEXIBLE)?,
        names: texts(reader)?,
        regex: optional_text(reader, FLEXIBLE)?,
        rebalance_timeout_ms: reader.i32()?,
        assignor: optional_text(reader, FLEXIBLE)?,
        ..Member::new(id.to_owned())
    };
    let mut offer = None;
    reader.tagged_fields(FLEXIBLE, |tag, content| {
        if tag == 0 && content.i8()? == 1 {
            offer = Some(decode_offer(content));
        }
        Ok(tag == 0)
    })?;
    member.classic = offer.transpose()?;
    Ok(member)
}

fn decode_offer(reader: &mut Reader<'_>) -> Result<ClassicOffer, RecordError> {
    let session_timeout_ms = reader.i32()?;
    let mut protocols = Vec::new();
    for _ in 0..reader.count(FLEXIBLE, 3)? {
        let name = text(reader, FLEXIBLE)?;
        let metadata = reader.nullable_bytes(FLEXIBLE)?.unwrap_or_default();
        protocols.push((name, Bytes::copy_from_slice(metadata)));
        reader.tagged_fields(FLEXIBLE, |_, _| Ok(false))?;
    }
    reader.tagged_fields(FLEXIBLE, |_, _| Ok(false))?;
    Ok(ClassicOffer {
        session_timeout_ms,
        protocols,
    })
}

fn optional_text(reader: &mut Reader<'_>, flexible: bool) -> Result<Option<String>, RecordError> {
    let Some(bytes) = reader.nullable_string(flexible)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Malformed)?;
    Ok(Some(text.to_owned()))
}

fn text(reader: &mut Reader<'_>, flexible: bool) -> Result<String, RecordError> {
    optional_text(reader, flexible)?.ok_or(RecordError::Malformed)
}

fn texts(reader: &mut Reader<'_>) -> Result<BTreeSet<String>, RecordError> {
    let count = reader.count(FLEXIBLE, 1)?;
    (0..count).map(|_| text(reader, FLEXIBLE)).collect()
}

fn partitions(reader: &mut Reader<'_>) -> Result<Partitions, RecordError> {
    let mut all = Partitions::default();
    for _ in 0..reader.count(FLEXIBLE, MIN_TOPIC_BYTES)? {
        let topic = Uuid::from_bytes(reader.uuid()?);
        for _ in 0..reader.count(FLEXIBLE, 4)? {
            all.insert(topic, reader.i32()?);
        }
        // Assignment epochs (KIP-1251) may be among them.
        reader.tagged_fields(FLEXIBLE, |_, _| Ok(false))?;
    }
    Ok(all)
}

impl From<ReadError> for RecordError {
    fn from(_: ReadError) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member() -> Member {
        let topic = Uuid::from_u128(1);
        Member {
            instance_id: Some("i".into()),
            rack_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 5,
            names: BTreeSet::from(["t".to_owned()]),
            regex: None,
            assignor: Some("range".into()),
            epoch: 4,
            previous_epoch: 3,
            state: MemberState::Unreleased,
            assigned: [(topic, 7)].into_iter().collect(),
            ..Member::new("m".into())
        }
    }

    /// The bytes follow the schemas `ConsumerGroup*Key.json` and `ConsumerGroup*Value.json`.
    #[test]
    fn records_are_kafkas_byte_for_byte() {
        let key = encode_key("g", &Subject::Current("m".into()));
        assert_eq!(&key[..], b"\0\x08\0\x01g\0\x01m");
        assert_eq!(&encode_key("g", &Subject::Group)[..], b"\0\x03\0\x01g");
        let topic = b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        let current = [
            &b"\0\0\0\0\0\x04\0\0\0\x03\x02\x02"[..],
            topic,
            b"\x02\0\0\0\x07\0\x01\0",
        ];
        assert_eq!(encode_current(&member()), current.concat());
        assert_eq!(
            &encode_member(&member())[..],
            b"\0\0\x02i\0\x02c\x03/h\x02\x02t\0\0\0\0\x05\x06range\0"
        );
        assert_eq!(&encode_group(2, 0)[..], b"\0\0\0\0\0\x02\0");
        assert_eq!(
            &encode_group(2, 5)[..],
            b"\0\0\0\0\0\x02\x01\0\x08\0\0\0\0\0\0\0\x05"
        );
    }

    #[test]
    fn values_come_back() {
        let mut member = member();
        member.classic = Some(ClassicOffer {
            session_timeout_ms: 6,
            protocols: vec![("range".into(), Bytes::from_static(b"meta"))],
        });
        let subject = Subject::Member("m".into());
        let decoded = decode_value(&subject, &encode_member(&member)).unwrap();
        let Value::Member(found) = decoded else {
            panic!("{decoded:?}");
        };
        assert!(found.says_as(&member) && found.id == "m");
        let topics = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let subject = Subject::Pattern("a|b".into());
        let decoded = decode_value(&subject, &encode_pattern(&topics, 1, 2));
        assert_eq!(decoded, Ok(Value::Pattern(topics)));
        let decoded = decode_value(&Subject::Group, &encode_group(3, -9));
        assert_eq!(decoded, Ok(Value::Group(3, -9)));
    }

    #[test]
    fn keys_come_back_and_other_kinds_are_left_alone() {
        let member = || "m".to_owned();
        let subjects = [
            Subject::Group,
            Subject::Member(member()),
            Subject::TargetEpoch,
            Subject::Target(member()),
            Subject::Current(member()),
            Subject::Pattern(member()),
        ];
        for subject in subjects {
            let key = encode_key("g", &subject);
            assert_eq!(decode_key(&key), Ok(Some(("g".to_owned(), subject))));
        }
        for other in [b"\0\x02\0\x01g", b"\0\x0b\0\x01g"] {
            assert_eq!(decode_key(&Bytes::from_static(other)), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok(Some((_, subject))) = decode_key(&bytes) {
                let _ = decode_value(&subject, &bytes);
            }
            for code in [3, 5, 6, 7, 8, 16_u8] {
                let key = [&[0, code, 0, 1, b'g', 0, 1, b'm'][..]].concat();
                if let Ok(Some((_, subject))) = decode_key(&Bytes::from(key)) {
                    let _ = decode_value(&subject, &[&[0, 0], &bytes[..]].concat().into());
                }
            }
        }
    }
}
