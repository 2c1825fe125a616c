//! Produce, versions 3 to 13, by hand: the records stay slices of the frame they came in.
//!
//! A request is decoded without a look at its records and without a copy, and encoded as a list of
//! buffers in which the records stand as they are. Kafka's schema is `ProduceRequest.json` and
//! `ProduceResponse.json`. What differs by version: 5 the log's start offset, 8 errors of single
//! records (KIP-467), 9 the flexible encoding, 10 leader discovery (KIP-951), 13 topic ids
//! (KIP-516).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::api::ApiKey;
use crate::header::{RequestHeader, TooLarge, finish_frame, response_body, start_frame};
use crate::leader::{CurrentLeader, NodeEndpoint};
use crate::primitive::{ReadError, Reader, put_count, put_no_tags, put_nullable_string, put_tags};
use crate::topic::TopicRef;

/// `acks` of a producer that wants no response.
pub const ACKS_NONE: i16 = 0;
/// `acks` of a producer that waits for the leader alone.
pub const ACKS_LEADER: i16 = 1;
/// `acks` of a producer that waits for all in-sync replicas.
pub const ACKS_ALL: i16 = -1;

/// First version whose batches may be compressed with zstd (KIP-110): below it, the answer is
/// UNSUPPORTED_COMPRESSION_TYPE.
pub const FIRST_WITH_ZSTD: i16 = 7;

/// Least bytes of a partition in a request: index and null records.
const MIN_PARTITION_LEN: usize = 4 + 1;
/// Least bytes of a topic: its name or id and a count.
const MIN_TOPIC_LEN: usize = TopicRef::MIN_LEN + 1;
/// Least bytes of a partition in a response: index, error, offset and append time.
const MIN_RESPONSE_PARTITION_LEN: usize = 4 + 2 + 8 + 8;
/// Least bytes of a record's error: index and null message.
const MIN_RECORD_ERROR_LEN: usize = 4 + 1;

/// Up to this many bytes, records are copied into the request: cheaper than a buffer of their own.
const COPIED_LEN: usize = 512;

/// Tag of a partition's current leader.
const TAG_CURRENT_LEADER: u32 = 0;
/// Tag of the response's endpoints.
const TAG_NODE_ENDPOINTS: u32 = 0;

const FIRST_WITH_LOG_START: i16 = 5;
const FIRST_WITH_RECORD_ERRORS: i16 = 8;
const FIRST_WITH_LEADERS: i16 = 10;

/// A Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Set if the records belong to a transaction.
    pub transactional_id: Option<StrBytes>,
    /// [`ACKS_NONE`], [`ACKS_LEADER`] or [`ACKS_ALL`]; not yet checked to be one of them.
    pub acks: i16,
    /// How long the broker may wait for the acknowledgements, in milliseconds.
    pub timeout_ms: i32,
    /// Perhaps empty, perhaps with topics twice: not yet checked.
    pub topics: Vec<ProduceTopic>,
}

/// A topic's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    /// By name below version 13, by id from there on.
    pub topic: TopicRef,
    /// Perhaps empty, perhaps with partitions twice: not yet checked.
    pub partitions: Vec<ProducePartition>,
}

/// A partition's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's number within its topic.
    pub index: i32,
    /// One record batch, not yet checked: see [`crate::batch::produced_batch`]. Null comes as empty.
    pub records: Bytes,
}

/// Which of the two encodings, and which version of a message.
#[derive(Clone, Copy)]
struct Layout {
    version: i16,
    flexible: bool,
}

impl Layout {
    fn of(version: i16) -> Self {
        Self {
            version,
            flexible: ApiKey::Produce.api().is_flexible(version),
        }
    }
}

impl ProduceRequest {
    /// Decodes a request's body (see [`RequestHeader::decode`]), all of which it must fill. The
    /// records are slices of `body`.
    pub fn decode(version: i16, body: &Bytes) -> Result<Self, ReadError> {
        let flexible = Layout::of(version).flexible;
        let reader = &mut Reader::new(body);
        let transactional_id = reader.nullable_str(flexible, body)?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let count = reader.count(flexible, MIN_TOPIC_LEN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            topics.push(ProduceTopic::decode(version, flexible, body, reader)?);
        }
        reader.tagged_fields(flexible, |_, _| Ok(false))?;
        reader.finish()?;
        Ok(Self {
            transactional_id,
            acks,
            timeout_ms,
            topics,
        })
    }

    /// Encodes the request as the buffers of one frame, in the order in which they are to be sent.
    ///
    /// # Panics
    /// If a topic is not named as the header's version names topics, or a name is longer than
    /// `i16::MAX` bytes.
    pub fn encode(&self, header: &RequestHeader) -> Result<Vec<Bytes>, TooLarge> {
        let layout = Layout::of(header.version);
        let flexible = layout.flexible;
        let mut out = Interleaved::default();
        start_frame(&mut out.buffer);
        header.encode(&mut out.buffer);
        put_nullable_string(&mut out.buffer, flexible, self.transactional_id.as_deref());
        out.buffer.put_i16(self.acks);
        out.buffer.put_i32(self.timeout_ms);
        put_count(&mut out.buffer, flexible, self.topics.len());
        for topic in &self.topics {
            topic.topic.write(&mut out.buffer, layout.version, flexible);
            put_count(&mut out.buffer, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                out.buffer.put_i32(partition.index);
                put_count(&mut out.buffer, flexible, partition.records.len());
                out.insert(&partition.records);
                put_no_tags(&mut out.buffer, flexible);
            }
            put_no_tags(&mut out.buffer, flexible);
        }
        put_no_tags(&mut out.buffer, flexible);
        out.finish()
    }
}

/// A frame under construction: a buffer of our own, and where others' bytes go in between.
#[derive(Default)]
struct Interleaved {
    buffer: BytesMut,
    inserts: Vec<(usize, Bytes)>,
}

impl Interleaved {
    fn insert(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_LEN {
            self.buffer.extend_from_slice(bytes);
        } else {
            self.inserts.push((self.buffer.len(), bytes.clone()));
        }
    }

    fn finish(mut self) -> Result<Vec<Bytes>, TooLarge> {
        let inserted = self.inserts.iter().map(|(_, bytes)| bytes.len()).sum();
        finish_frame(&mut self.buffer, inserted)?;
        let mut pieces = Vec::with_capacity(2 * self.inserts.len() + 1);
        let (own, mut done) = (self.buffer.freeze(), 0);
        for (at, bytes) in self.inserts {
            pieces.push(own.slice(done..at));
            pieces.push(bytes);
            done = at;
        }
        if done < own.len() {
            pieces.push(own.slice(done..));
        }
        Ok(pieces)
    }
}

impl ProduceTopic {
    fn decode(
        version: i16,
        flexible: bool,
        body: &Bytes,
        reader: &mut Reader<'_>,
    ) -> Result<Self, ReadError> {
        let topic = TopicRef::read(reader, version, flexible, body)?;
        let count = reader.count(flexible, MIN_PARTITION_LEN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            let index = reader.i32()?;
            let records = reader.nullable_bytes(flexible)?.unwrap_or_default();
            reader.tagged_fields(flexible, |_, _| Ok(false))?;
            partitions.push(ProducePartition {
                index,
                records: body.slice_ref(records),
            });
        }
        reader.tagged_fields(flexible, |_, _| Ok(false))?;
        Ok(Self { topic, partitions })
    }
}

/// A Produce response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProduceResponse {
    /// In the request's order.
    pub topics: Vec<ProducedTopic>,
    /// How long the client is to pause, or was kept waiting, because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Where the leaders are that partitions name; from version 10 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A topic's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducedTopic {
    /// As in the request.
    pub topic: TopicRef,
    /// In the request's order.
    pub partitions: Vec<ProducedPartition>,
}

/// A partition's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducedPartition {
    /// As in the request.
    pub index: i32,
    /// An [`crate::error::ErrorCode`].
    pub error_code: i16,
    /// The first record's offset; −1 with an error.
    pub base_offset: i64,
    /// The broker's time of the append in milliseconds; −1 if the topic keeps the producer's.
    pub log_append_time_ms: i64,
    /// First offset of the log, −1 if not known; from version 5 on.
    pub log_start_offset: i64,
    /// Which records were at fault; from version 8 on.
    pub record_errors: Vec<RecordError>,
    /// What was at fault with the batch; from version 8 on.
    pub error_message: Option<StrBytes>,
    /// Who leads instead, with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH; from version 10 on.
    pub current_leader: Option<CurrentLeader>,
}

impl ProducedPartition {
    /// The answer to a batch that was appended.
    pub fn appended(index: i32, base_offset: i64, log_start_offset: i64) -> Self {
        Self {
            base_offset,
            log_start_offset,
            ..Self::failed(index, 0)
        }
    }

    /// The answer to a batch that was not, because of `error_code`.
    pub fn failed(index: i32, error_code: i16) -> Self {
        Self {
            index,
            error_code,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

/// A record that made a batch fail (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in its batch.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: Option<StrBytes>,
}

impl ProduceResponse {
    /// Encodes the response as the whole frame to send.
    ///
    /// # Panics
    /// If a topic is not named as the header's version names topics.
    pub fn encode(&self, header: &RequestHeader) -> Result<Bytes, TooLarge> {
        let layout = Layout::of(header.version);
        let flexible = layout.flexible;
        let mut out = BytesMut::with_capacity(128);
        start_frame(&mut out);
        header.encode_response_header(&mut out);
        put_count(&mut out, flexible, self.topics.len());
        for topic in &self.topics {
            topic.topic.write(&mut out, layout.version, flexible);
            put_count(&mut out, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                partition.encode(layout, &mut out);
            }
            put_no_tags(&mut out, flexible);
        }
        out.put_i32(self.throttle_time_ms);
        if layout.version >= FIRST_WITH_LEADERS && !self.node_endpoints.is_empty() {
            let content = NodeEndpoint::tag_content(&self.node_endpoints);
            put_tags(&mut out, flexible, &[(TAG_NODE_ENDPOINTS, content)]);
        } else {
            put_no_tags(&mut out, flexible);
        }
        finish_frame(&mut out, 0)?;
        Ok(out.freeze())
    }

    /// Decodes a response's frame, all of which it must fill. The correlation id is not looked at.
    pub fn decode(version: i16, frame: &Bytes) -> Result<Self, ReadError> {
        let layout = Layout::of(version);
        let body = &response_body(ApiKey::Produce, version, frame)?;
        let reader = &mut Reader::of_response(body);
        let count = reader.count(layout.flexible, MIN_TOPIC_LEN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            topics.push(ProducedTopic::decode(layout, body, reader)?);
        }
        let throttle_time_ms = reader.i32()?;
        let mut node_endpoints = Vec::new();
        reader.tagged_fields(layout.flexible, |tag, content| {
            let known = tag == TAG_NODE_ENDPOINTS && version >= FIRST_WITH_LEADERS;
            if known {
                node_endpoints = NodeEndpoint::read_all(content, body)?;
            }
            Ok(known)
        })?;
        reader.finish()?;
        Ok(Self {
            topics,
            throttle_time_ms,
            node_endpoints,
        })
    }
}

impl ProducedTopic {
    fn decode(layout: Layout, body: &Bytes, reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let topic = TopicRef::read(reader, layout.version, layout.flexible, body)?;
        let count = reader.count(layout.flexible, MIN_RESPONSE_PARTITION_LEN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(ProducedPartition::decode(layout, body, reader)?);
        }
        reader.tagged_fields(layout.flexible, |_, _| Ok(false))?;
        Ok(Self { topic, partitions })
    }
}

impl ProducedPartition {
    fn encode(&self, layout: Layout, out: &mut BytesMut) {
        let Layout { version, flexible } = layout;
        out.put_i32(self.index);
        out.put_i16(self.error_code);
        out.put_i64(self.base_offset);
        out.put_i64(self.log_append_time_ms);
        if version >= FIRST_WITH_LOG_START {
            out.put_i64(self.log_start_offset);
        }
        if version >= FIRST_WITH_RECORD_ERRORS {
            put_count(out, flexible, self.record_errors.len());
            for error in &self.record_errors {
                out.put_i32(error.batch_index);
                put_nullable_string(out, flexible, error.message.as_deref());
                put_no_tags(out, flexible);
            }
            put_nullable_string(out, flexible, self.error_message.as_deref());
        }
        match self
            .current_leader
            .filter(|_| version >= FIRST_WITH_LEADERS)
        {
            Some(leader) => put_tags(out, flexible, &[(TAG_CURRENT_LEADER, leader.tag_content())]),
            None => put_no_tags(out, flexible),
        }
    }

    fn decode(layout: Layout, body: &Bytes, reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let Layout { version, flexible } = layout;
        let mut partition = Self::failed(reader.i32()?, reader.i16()?);
        partition.base_offset = reader.i64()?;
        partition.log_append_time_ms = reader.i64()?;
        if version >= FIRST_WITH_LOG_START {
            partition.log_start_offset = reader.i64()?;
        }
        if version >= FIRST_WITH_RECORD_ERRORS {
            let count = reader.count(flexible, MIN_RECORD_ERROR_LEN)?;
            partition.record_errors.reserve_exact(count);
            for _ in 0..count {
                let batch_index = reader.i32()?;
                let message = reader.nullable_str(flexible, body)?;
                reader.tagged_fields(flexible, |_, _| Ok(false))?;
                partition.record_errors.push(RecordError {
                    batch_index,
                    message,
                });
            }
            partition.error_message = reader.nullable_str(flexible, body)?;
        }
        reader.tagged_fields(flexible, |tag, content| {
            let known = tag == TAG_CURRENT_LEADER && version >= FIRST_WITH_LEADERS;
            if known {
                partition.current_leader = Some(CurrentLeader::read(content)?);
            }
            Ok(known)
        })?;
        Ok(partition)
    }
}

#[cfg(test)]
#[path = "produce_test.rs"]
mod tests;
