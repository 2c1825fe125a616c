//! The Fetch request.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::header::{RequestHeader, TooLarge, finish_frame, start_frame};
use crate::primitive::{ReadError, Reader, put_count, put_no_tags, put_string, put_tags};

/// Least bytes of a partition: number, offset and size.
const MIN_PARTITION_LEN: usize = 4 + 8 + 4;
/// Bytes of a forgotten partition: its number.
const FORGOTTEN_LEN: usize = 4;
/// Tag of the replica's state.
const TAG_REPLICA_STATE: u32 = 1;
/// Tag of [`FetchPartition::safe_end`]: our own, out of the way of Kafka's.
const TAG_SAFE_END: u32 = 21_000;

/// What a consumer may see of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// All records.
    #[default]
    ReadUncommitted,
    /// Records below the last stable offset, with a list of aborted transactions to skip.
    ReadCommitted,
}

impl IsolationLevel {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let at = reader.position();
        match reader.i8()? {
            0 => Ok(Self::ReadUncommitted),
            1 => Ok(Self::ReadCommitted),
            value => Err(ReadError::Value {
                at,
                value: value.into(),
            }),
        }
    }
}

/// A Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// [`CONSUMER_REPLICA_ID`], or the id of a following broker, which a client must not claim.
    pub replica_id: i32,
    /// The following broker's epoch, −1 if none; from version 15 on.
    pub replica_epoch: i64,
    /// How long the broker may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Least bytes to answer with before that time is over.
    pub min_bytes: i32,
    /// Most bytes to answer with, but for a first batch that is larger.
    pub max_bytes: i32,
    /// What to see of transactions.
    pub isolation_level: IsolationLevel,
    /// [`NO_SESSION_ID`] or the session's; from version 7 on.
    pub session_id: i32,
    /// The request's number in its session, or one of the special epochs; from version 7 on.
    pub session_epoch: i32,
    /// In a session, only what has changed. Not yet checked for doubles.
    pub topics: Vec<FetchTopic>,
    /// What to take out of the session; from version 7 on.
    pub forgotten: Vec<ForgottenTopic>,
    /// Where the consumer stands, empty if unknown; from version 11 on.
    pub rack_id: StrBytes,
}

/// A topic's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// By name below version 13, by id from there on.
    pub topic: TopicRef,
    /// In the order in which they are to be served.
    pub partitions: Vec<FetchPartition>,
}

/// A partition's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's number within its topic.
    pub partition: i32,
    /// The leader epoch that the consumer knows, −1 if none; from version 9 on.
    pub current_leader_epoch: i32,
    /// The first offset wanted.
    pub fetch_offset: i64,
    /// Epoch of the last record fetched, −1 if not known; from version 12 on.
    pub last_fetched_epoch: i32,
    /// The follower's own log start, −1 from a consumer; from version 5 on.
    pub log_start_offset: i64,
    /// Most bytes of this partition, but for a first batch that is larger.
    pub max_bytes: i32,
    /// From a follower: everything before it is as safe there as the topic's durability demands,
    /// on the disk by default. −1 from a consumer. Ours, not Kafka's; from version 12 on.
    pub safe_end: i64,
}

/// Partitions to take out of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// As in [`FetchTopic`].
    pub topic: TopicRef,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

impl FetchRequest {
    /// Decodes a request's body (see [`RequestHeader::decode`]), all of which it must fill.
    pub fn decode(version: i16, body: &Bytes) -> Result<Self, ReadError> {
        let layout = Layout::of(version);
        let flexible = layout.flexible;
        let reader = &mut Reader::new(body);
        let has_state = version >= FIRST_WITH_REPLICA_STATE;
        let mut request = Self {
            replica_id: if has_state {
                CONSUMER_REPLICA_ID
            } else {
                reader.i32()?
            },
            replica_epoch: -1,
            max_wait_ms: reader.i32()?,
            min_bytes: reader.i32()?,
            max_bytes: reader.i32()?,
            isolation_level: IsolationLevel::read(reader)?,
            session_id: NO_SESSION_ID,
            session_epoch: FINAL_SESSION_EPOCH,
            topics: Vec::new(),
            forgotten: Vec::new(),
            rack_id: StrBytes::new(),
        };
        if version >= FIRST_WITH_SESSIONS {
            request.session_id = reader.i32()?;
            request.session_epoch = reader.i32()?;
        }
        request.topics = FetchTopic::decode_all(layout, body, reader)?;
        if version >= FIRST_WITH_SESSIONS {
            request.forgotten = ForgottenTopic::decode_all(layout, body, reader)?;
        }
        if version >= FIRST_WITH_RACKS {
            request.rack_id = reader.str(flexible, body)?;
        }
        reader.tagged_fields(flexible, |tag, content| {
            let known = tag == TAG_REPLICA_STATE && has_state;
            if known {
                request.replica_id = content.i32()?;
                request.replica_epoch = content.i64()?;
                content.tagged_fields(true, |_, _| Ok(false))?;
            }
            Ok(known)
        })?;
        reader.finish()?;
        Ok(request)
    }

    /// Encodes the request as the whole frame to send.
    ///
    /// # Panics
    /// If a topic is not named as the header's version names topics, or a name is longer than
    /// `i16::MAX` bytes.
    pub fn encode(&self, header: &RequestHeader) -> Result<Bytes, TooLarge> {
        let layout = Layout::of(header.version);
        let Layout { version, flexible } = layout;
        let mut out = BytesMut::with_capacity(256);
        start_frame(&mut out);
        header.encode(&mut out);
        if version < FIRST_WITH_REPLICA_STATE {
            out.put_i32(self.replica_id);
        }
        out.put_i32(self.max_wait_ms);
        out.put_i32(self.min_bytes);
        out.put_i32(self.max_bytes);
        out.put_i8(self.isolation_level as i8);
        if version >= FIRST_WITH_SESSIONS {
            out.put_i32(self.session_id);
            out.put_i32(self.session_epoch);
        }
        put_count(&mut out, flexible, self.topics.len());
        self.topics
            .iter()
            .for_each(|topic| topic.encode(layout, &mut out));
        if version >= FIRST_WITH_SESSIONS {
            put_count(&mut out, flexible, self.forgotten.len());
            self.forgotten
                .iter()
                .for_each(|topic| topic.encode(layout, &mut out));
        }
        if version >= FIRST_WITH_RACKS {
            put_string(&mut out, flexible, &self.rack_id);
        }
        let is_follower = self.replica_id != CONSUMER_REPLICA_ID;
        if version >= FIRST_WITH_REPLICA_STATE && is_follower {
            let mut state = BytesMut::new();
            state.put_i32(self.replica_id);
            state.put_i64(self.replica_epoch);
            put_no_tags(&mut state, true);
            put_tags(&mut out, flexible, &[(TAG_REPLICA_STATE, state)]);
        } else {
            put_no_tags(&mut out, flexible);
        }
        finish_frame(&mut out, 0)?;
        Ok(out.freeze())
    }
}

impl FetchTopic {
    fn decode_all(
        layout: Layout,
        body: &Bytes,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<Self>, ReadError> {
        let Layout { version, flexible } = layout;
        let count = reader.count(flexible, MIN_TOPIC_LEN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            let topic = TopicRef::read(reader, version, flexible, body)?;
            let count = reader.count(flexible, MIN_PARTITION_LEN)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                partitions.push(FetchPartition::decode(layout, reader)?);
            }
            reader.tagged_fields(flexible, |_, _| Ok(false))?;
            topics.push(Self { topic, partitions });
        }
        Ok(topics)
    }

    fn encode(&self, layout: Layout, out: &mut BytesMut) {
        let Layout { version, flexible } = layout;
        self.topic.write(out, version, flexible);
        put_count(out, flexible, self.partitions.len());
        for partition in &self.partitions {
            out.put_i32(partition.partition);
            if version >= FIRST_WITH_LEADER_EPOCH {
                out.put_i32(partition.current_leader_epoch);
            }
            out.put_i64(partition.fetch_offset);
            if version >= FIRST_WITH_FETCHED_EPOCH {
                out.put_i32(partition.last_fetched_epoch);
            }
            if version >= FIRST_WITH_LOG_START {
                out.put_i64(partition.log_start_offset);
            }
            out.put_i32(partition.max_bytes);
            if flexible && partition.safe_end >= 0 {
                let mut safe_end = BytesMut::new();
                safe_end.put_i64(partition.safe_end);
                put_tags(out, flexible, &[(TAG_SAFE_END, safe_end)]);
            } else {
                put_no_tags(out, flexible);
            }
        }
        put_no_tags(out, flexible);
    }
}

impl FetchPartition {
    fn decode(layout: Layout, reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let Layout { version, flexible } = layout;
        let from = |first: i16| version >= first;
        let mut partition = Self {
            partition: reader.i32()?,
            current_leader_epoch: if from(FIRST_WITH_LEADER_EPOCH) {
                reader.i32()?
            } else {
                -1
            },
            fetch_offset: reader.i64()?,
            last_fetched_epoch: if from(FIRST_WITH_FETCHED_EPOCH) {
                reader.i32()?
            } else {
                -1
            },
            log_start_offset: if from(FIRST_WITH_LOG_START) {
                reader.i64()?
            } else {
                -1
            },
            max_bytes: reader.i32()?,
            safe_end: -1,
        };
        reader.tagged_fields(flexible, |tag, content| {
            let known = tag == TAG_SAFE_END;
            if known {
                partition.safe_end = content.i64()?;
            }
            Ok(known)
        })?;
        Ok(partition)
    }
}

impl ForgottenTopic {
    fn decode_all(
        layout: Layout,
        body: &Bytes,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<Self>, ReadError> {
        let Layout { version, flexible } = layout;
        let count = reader.count(flexible, MIN_TOPIC_LEN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            let topic = TopicRef::read(reader, version, flexible, body)?;
            let count = reader.count(flexible, FORGOTTEN_LEN)?;
            let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
            reader.tagged_fields(flexible, |_, _| Ok(false))?;
            topics.push(Self { topic, partitions });
        }
        Ok(topics)
    }

    fn encode(&self, layout: Layout, out: &mut BytesMut) {
        self.topic.write(out, layout.version, layout.flexible);
        put_count(out, layout.flexible, self.partitions.len());
        self.partitions
            .iter()
            .for_each(|partition| out.put_i32(*partition));
        put_no_tags(out, layout.flexible);
    }
}
