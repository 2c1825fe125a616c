//! The records of `__consumer_offsets`, byte for byte as Kafka writes them, so that Kafka's tools
//! read ours: keys `OffsetCommitKey` v1 and `GroupMetadataKey` v2, values `OffsetCommitValue` v3 and
//! `GroupMetadataValue` v3. A record without a value is a tombstone. Decoding checks everything and
//! allocates no more than the bytes at hand.
//!
//! ```text
//! key    i16 1, group string, topic string, partition i32          (0 before v1: the same)
//! value  i16 3, offset i64, leader epoch i32, metadata string, commit time i64
//! key    i16 2, group string
//! value  i16 3, protocol type string, generation i32, protocol string?, leader string?,
//!        state since i64, members [id string, instance string?, client id string, client host
//!        string, rebalance timeout i32, session timeout i32, subscription bytes, assignment bytes]
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::classic::Member;
use super::consumer::records as consumer;
use super::consumer::records::Subject;

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
const GROUP_VALUE_VERSION: i16 = 3;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A group's committed offset of one partition.
    Offset {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: i32,
    },
    /// A group's members and generation.
    Group(String),
    /// A part of a consumer group (KIP-848).
    Consumer(String, Subject),
}

impl Key {
    /// The group that the record belongs to.
    pub fn group(&self) -> &str {
        match self {
            Self::Offset { group, .. } | Self::Group(group) | Self::Consumer(group, _) => group,
        }
    }
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetRecord {
    /// The next offset to consume.
    pub offset: i64,
    /// The leader epoch of the last consumed record, -1 if unknown (KIP-320).
    pub leader_epoch: i32,
    /// The consumer's own note.
    pub metadata: String,
    /// When it was committed, in milliseconds since the epoch.
    pub committed_ms: i64,
    /// When it ends, if the commit said so (OffsetCommit v2 to v4).
    pub expires_ms: Option<i64>,
}

/// A group's stored state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupRecord {
    /// The kind of group, empty if it has none.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// When the group came into its state, in milliseconds since the epoch.
    pub state_since_ms: i64,
    /// Its members.
    pub members: Vec<MemberRecord>,
}

/// A stored member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberRecord {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long it may take to rejoin.
    pub rebalance_timeout_ms: i32,
    /// How long it may stay silent.
    pub session_timeout_ms: i32,
    /// Its metadata for the group's protocol.
    pub subscription: Bytes,
    /// What it is assigned.
    pub assignment: Bytes,
}

/// Why bytes are no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end inside of a field.
    #[error("the record ends inside of a field")]
    Truncated,
    /// A length is negative, or a text is not UTF-8.
    #[error("a field of the record is malformed")]
    Malformed,
    /// A version that this broker does not know.
    #[error("the record has the unknown version {0}")]
    UnknownVersion(i16),
}

impl MemberRecord {
    /// The record of a member, with its metadata for `protocol`.
    pub fn of(member: &Member, protocol: &str) -> Self {
        let millis = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
        Self {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: millis(member.rebalance_timeout_ms),
            session_timeout_ms: millis(member.session_timeout_ms),
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        }
    }

    /// The member again; of its protocols only the group's was stored.
    pub fn into_member(self, protocol: Option<&str>) -> Member {
        Member::restored(self, protocol)
    }
}

/// The bytes of a key.
pub fn encode_key(key: &Key) -> Bytes {
    let mut out = BytesMut::new();
    match key {
        Key::Offset {
            group,
            topic,
            partition,
        } => {
            out.put_i16(OFFSET_KEY_VERSION);
            put_string(&mut out, group);
            put_string(&mut out, topic);
            out.put_i32(*partition);
        }
        Key::Group(group) => {
            out.put_i16(GROUP_KEY_VERSION);
            put_string(&mut out, group);
        }
        Key::Consumer(group, subject) => return consumer::encode_key(group, subject),
    }
    out.freeze()
}

/// The key of its bytes; none for a kind of key that this broker does not know, which readers skip
/// (a newer version may have written it).
pub fn decode_key(mut bytes: Bytes) -> Result<Option<Key>, RecordError> {
    if let Some((group, subject)) = consumer::decode_key(&bytes)? {
        return Ok(Some(Key::Consumer(group, subject)));
    }
    let key = match get_i16(&mut bytes)? {
        0..=OFFSET_KEY_VERSION => Key::Offset {
            group: get_string(&mut bytes)?,
            topic: get_string(&mut bytes)?,
            partition: get_i32(&mut bytes)?,
        },
        GROUP_KEY_VERSION => Key::Group(get_string(&mut bytes)?),
        _ => return Ok(None),
    };
    Ok(Some(key))
}

/// The bytes of a committed offset.
pub fn encode_offset(record: &OffsetRecord) -> Bytes {
    let mut out = BytesMut::new();
    // Only version 1 has a place for an expiry of its own.
    let version = record.expires_ms.map_or(OFFSET_VALUE_VERSION, |_| 1);
    out.put_i16(version);
    out.put_i64(record.offset);
    if version >= 3 {
        out.put_i32(record.leader_epoch);
    }
    put_string(&mut out, &record.metadata);
    out.put_i64(record.committed_ms);
    if let Some(expires) = record.expires_ms {
        out.put_i64(expires);
    }
    out.freeze()
}

/// The committed offset of its bytes, versions 0 to 3.
pub fn decode_offset(mut bytes: Bytes) -> Result<OffsetRecord, RecordError> {
    let version = get_i16(&mut bytes)?;
    if !(0..=OFFSET_VALUE_VERSION).contains(&version) {
        return Err(RecordError::UnknownVersion(version));
    }
    Ok(OffsetRecord {
        offset: get_i64(&mut bytes)?,
        leader_epoch: if version >= 3 {
            get_i32(&mut bytes)?
        } else {
            -1
        },
        metadata: get_string(&mut bytes)?,
        committed_ms: get_i64(&mut bytes)?,
        expires_ms: if version == 1 {
            Some(get_i64(&mut bytes)?)
        } else {
            None
        },
    })
}

/// The bytes of a group's state.
pub fn encode_group(record: &GroupRecord) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_VALUE_VERSION);
    put_string(&mut out, &record.protocol_type);
    out.put_i32(record.generation);
    put_nullable(&mut out, record.protocol.as_deref());
    put_nullable(&mut out, record.leader.as_deref());
    out.put_i64(record.state_since_ms);
    out.put_i32(i32::try_from(record.members.len()).expect("bounded by group.max.size"));
    for member in &record.members {
        put_string(&mut out, &member.member_id);
        put_nullable(&mut out, member.instance_id.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out.freeze()
}

/// The group's state of its bytes, versions 0 to 3.
pub fn decode_group(mut bytes: Bytes) -> Result<GroupRecord, RecordError> {
    let version = get_i16(&mut bytes)?;
    if !(0..=GROUP_VALUE_VERSION).contains(&version) {
        return Err(RecordError::UnknownVersion(version));
    }
    let mut record = GroupRecord {
        protocol_type: get_string(&mut bytes)?,
        generation: get_i32(&mut bytes)?,
        protocol: get_nullable(&mut bytes)?,
        leader: get_nullable(&mut bytes)?,
        state_since_ms: if version >= 2 {
            get_i64(&mut bytes)?
        } else {
            -1
        },
        members: Vec::new(),
    };
    let count = get_i32(&mut bytes)?;
    for _ in 0..count {
        record.members.push(decode_member(&mut bytes, version)?);
    }
    Ok(record)
}

fn decode_member(bytes: &mut Bytes, version: i16) -> Result<MemberRecord, RecordError> {
    let member_id = get_string(bytes)?;
    let instance_id = if version >= 3 {
        get_nullable(bytes)?
    } else {
        None
    };
    let client_id = get_string(bytes)?;
    let client_host = get_string(bytes)?;
    let rebalance = if version >= 1 {
        Some(get_i32(bytes)?)
    } else {
        None
    };
    let session_timeout_ms = get_i32(bytes)?;
    Ok(MemberRecord {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: get_bytes(bytes)?,
        assignment: get_bytes(bytes)?,
    })
}

/// The topics in a consumer's subscription (`ConsumerProtocolSubscription`: version, then topics);
/// none if the bytes are not one.
pub fn subscription_topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut bytes = metadata.clone();
    if get_i16(&mut bytes).ok()? < 0 {
        return None;
    }
    let count = get_i32(&mut bytes).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(get_string(&mut bytes).ok()?);
    }
    Some(topics)
}

/// A string's length has 16 bits. Group, topic and instance names that are longer were refused when
/// they came in (`MAX_NAME_BYTES`); a client's id with our suffix may lose its end.
fn put_string(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(i16::MAX as usize);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_i16(end as i16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).expect("bounded by group.metadata.max.bytes"));
    out.put_slice(bytes);
}

fn need(bytes: &Bytes, len: usize) -> Result<(), RecordError> {
    if bytes.remaining() < len {
        return Err(RecordError::Truncated);
    }
    Ok(())
}

fn get_i16(bytes: &mut Bytes) -> Result<i16, RecordError> {
    need(bytes, 2)?;
    Ok(bytes.get_i16())
}

fn get_i32(bytes: &mut Bytes) -> Result<i32, RecordError> {
    need(bytes, 4)?;
    Ok(bytes.get_i32())
}

fn get_i64(bytes: &mut Bytes) -> Result<i64, RecordError> {
    need(bytes, 8)?;
    Ok(bytes.get_i64())
}

fn get_string(bytes: &mut Bytes) -> Result<String, RecordError> {
    get_nullable(bytes)?.ok_or(RecordError::Malformed)
}

fn get_nullable(bytes: &mut Bytes) -> Result<Option<String>, RecordError> {
    let len = get_i16(bytes)?;
    if len == -1 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| RecordError::Malformed)?;
    need(bytes, len)?;
    let text = std::str::from_utf8(&bytes[..len]).map_err(|_| RecordError::Malformed)?;
    let text = text.to_owned();
    bytes.advance(len);
    Ok(Some(text))
}

fn get_bytes(bytes: &mut Bytes) -> Result<Bytes, RecordError> {
    let len = usize::try_from(get_i32(bytes)?).map_err(|_| RecordError::Malformed)?;
    need(bytes, len)?;
    Ok(bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes follow Kafka's schemas `OffsetCommitKey.json` and `OffsetCommitValue.json`.
    #[test]
    fn offset_records_are_kafkas_byte_for_byte() {
        let key = Key::Offset {
            group: "g".into(),
            topic: "t".into(),
            partition: 3,
        };
        assert_eq!(&encode_key(&key)[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        let value = OffsetRecord {
            offset: 7,
            leader_epoch: 2,
            metadata: "n".into(),
            committed_ms: 258,
            expires_ms: None,
        };
        let bytes = b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x02\0\x01n\0\0\0\0\0\0\x01\x02";
        assert_eq!(&encode_offset(&value)[..], bytes);
        assert_eq!(decode_offset(Bytes::from_static(bytes)), Ok(value));
    }

    #[test]
    fn group_records_are_kafkas_byte_for_byte() {
        assert_eq!(&encode_key(&Key::Group("g".into()))[..], b"\0\x02\0\x01g");
        let record = GroupRecord {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: None,
            state_since_ms: 1,
            members: vec![MemberRecord {
                member_id: "m".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 5,
                session_timeout_ms: 6,
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::new(),
            }],
        };
        let bytes: &[u8] = b"\0\x03\0\x08consumer\0\0\0\x04\0\x05range\xff\xff\0\0\0\0\0\0\0\x01\
            \0\0\0\x01\0\x01m\0\x01i\0\x01c\0\x02/h\0\0\0\x05\0\0\0\x06\0\0\0\x01s\0\0\0\0";
        assert_eq!(&encode_group(&record)[..], bytes);
        assert_eq!(decode_group(Bytes::copy_from_slice(bytes)), Ok(record));
    }

    #[test]
    fn keys_of_a_later_kind_are_skipped_and_later_values_are_refused() {
        assert_eq!(decode_key(Bytes::from_static(b"\0\x0brest")), Ok(None));
        assert_eq!(
            decode_group(Bytes::from_static(b"\0\x09")),
            Err(RecordError::UnknownVersion(9))
        );
        assert_eq!(
            decode_key(Bytes::from_static(b"\0\x02\0\x05g")),
            Err(RecordError::Truncated)
        );
        assert_eq!(
            decode_key(Bytes::from_static(b"\0\x02\xff\xfe")),
            Err(RecordError::Malformed)
        );
    }

    #[test]
    fn an_expiry_of_its_own_survives() {
        let record = OffsetRecord {
            offset: 1,
            leader_epoch: -1,
            expires_ms: Some(9),
            ..OffsetRecord::default()
        };
        assert_eq!(decode_offset(encode_offset(&record)), Ok(record));
    }

    #[test]
    fn a_claimed_member_count_allocates_nothing() {
        let mut bytes =
            BytesMut::from(&b"\0\x03\0\0\0\0\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0"[..]);
        bytes.put_i32(i32::MAX);
        assert_eq!(decode_group(bytes.freeze()), Err(RecordError::Truncated));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_key(bytes.clone());
            let _ = decode_offset(bytes.clone());
            let _ = decode_group(bytes.clone());
            let _ = subscription_topics(&bytes);
        }

        #[test]
        fn keys_come_back(group in ".{0,20}", topic in "[a-z.]{0,20}", partition: i32) {
            for key in [Key::Offset { group: group.clone(), topic, partition }, Key::Group(group)] {
                prop_assert_eq!(decode_key(encode_key(&key)), Ok(Some(key)));
            }
        }
    }
}
