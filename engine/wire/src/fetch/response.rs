//! The Fetch response.

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::header::{RequestHeader, TooLarge, finish_frame, response_body, start_frame};
use crate::leader::{CurrentLeader, NodeEndpoint};
use crate::primitive::{ReadError, Reader, put_count, put_no_tags, put_nullable_count, put_tags};

/// Least bytes of a partition: number, error, two offsets, null transactions and records.
const MIN_PARTITION_LEN: usize = 4 + 2 + 8 + 8 + 1 + 1;
/// Least bytes of an aborted transaction: producer and offset.
const MIN_ABORTED_LEN: usize = 8 + 8;
/// Tag of a partition's diverging epoch.
const TAG_DIVERGING_EPOCH: u32 = 0;
/// Tag of a partition's current leader.
const TAG_CURRENT_LEADER: u32 = 1;
/// Tag of the response's endpoints.
const TAG_NODE_ENDPOINTS: u32 = 0;

/// A Fetch response. `R` stands for a partition's records: their number of bytes (`usize`) on the
/// broker's side, which encodes; the bytes themselves on the client's, which decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse<R> {
    /// How long the client is to pause, or was kept waiting, because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`crate::error::ErrorCode`] about the session; from version 7 on.
    pub error_code: i16,
    /// [`NO_SESSION_ID`] or the session's; from version 7 on.
    pub session_id: i32,
    /// In a session, only what has changed.
    pub topics: Vec<FetchedTopic<R>>,
    /// Where the leaders are that partitions name; from version 16 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A topic's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic<R> {
    /// As in the request.
    pub topic: TopicRef,
    /// In the order served.
    pub partitions: Vec<FetchedPartition<R>>,
}

/// A partition's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition<R> {
    /// As in the request.
    pub partition: i32,
    /// An [`crate::error::ErrorCode`].
    pub error_code: i16,
    /// Records from here on are not yet committed; −1 if not known.
    pub high_watermark: i64,
    /// Records from here on may belong to an open transaction; −1 if not known.
    pub last_stable_offset: i64,
    /// First offset of the log, −1 if not known; from version 5 on.
    pub log_start_offset: i64,
    /// Set where the log parted from the fetcher's; from version 12 on.
    pub diverging_epoch: Option<EpochEnd>,
    /// Who leads instead; from version 12 on.
    pub current_leader: Option<CurrentLeader>,
    /// Transactions to skip, for [`IsolationLevel::ReadCommitted`] only.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// The replica to fetch from instead, −1 for this one; from version 11 on.
    pub preferred_read_replica: i32,
    /// Whole batches from the one with the wanted offset on; the last may be cut off.
    pub records: R,
}

impl<R> FetchedPartition<R> {
    /// The answer about `partition` that has `records` and nothing else of note.
    pub fn new(partition: i32, records: R) -> Self {
        Self {
            partition,
            error_code: 0,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted: None,
            preferred_read_replica: -1,
            records,
        }
    }
}

/// Where an epoch ends in a leader's log (KIP-595).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch not above the one asked for.
    pub epoch: i32,
    /// Its end, exclusive.
    pub end_offset: i64,
}

/// A transaction whose records are to be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose records to skip,
    pub producer_id: i64,
    /// from here to the abort marker.
    pub first_offset: i64,
}

/// A part of an encoded response, in the order in which they are to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Exactly `len` bytes of a partition's records, never zero.
    Records {
        /// Which partition: how many come before it in the response, over all topics.
        slot: usize,
        /// As the response said.
        len: usize,
    },
}

/// An encoded response with gaps for the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchFrame {
    /// The whole frame in bytes, its length and the records included.
    pub size: usize,
    /// What to send.
    pub pieces: Vec<Piece>,
}

/// A response under construction.
struct Encoder {
    layout: Layout,
    out: BytesMut,
    slots: usize,
    /// Slot, where it goes, and its bytes.
    gaps: Vec<(usize, usize, usize)>,
}

impl FetchResponse<usize> {
    /// Encodes the response around its records.
    ///
    /// # Panics
    /// If a topic is not named as the header's version names topics.
    pub fn encode(&self, header: &RequestHeader) -> Result<FetchFrame, TooLarge> {
        let layout = Layout::of(header.version);
        let Layout { version, flexible } = layout;
        let out = BytesMut::with_capacity(256);
        let mut encoder = Encoder {
            layout,
            out,
            slots: 0,
            gaps: Vec::new(),
        };
        start_frame(&mut encoder.out);
        header.encode_response_header(&mut encoder.out);
        encoder.out.put_i32(self.throttle_time_ms);
        if version >= FIRST_WITH_SESSIONS {
            encoder.out.put_i16(self.error_code);
            encoder.out.put_i32(self.session_id);
        }
        put_count(&mut encoder.out, flexible, self.topics.len());
        for topic in &self.topics {
            topic.topic.write(&mut encoder.out, version, flexible);
            put_count(&mut encoder.out, flexible, topic.partitions.len());
            topic
                .partitions
                .iter()
                .for_each(|partition| encoder.partition(partition));
            put_no_tags(&mut encoder.out, flexible);
        }
        if version >= FIRST_WITH_ENDPOINTS && !self.node_endpoints.is_empty() {
            let content = NodeEndpoint::tag_content(&self.node_endpoints);
            put_tags(&mut encoder.out, flexible, &[(TAG_NODE_ENDPOINTS, content)]);
        } else {
            put_no_tags(&mut encoder.out, flexible);
        }
        encoder.finish()
    }
}

impl Encoder {
    fn partition(&mut self, partition: &FetchedPartition<usize>) {
        let Layout { version, flexible } = self.layout;
        let out = &mut self.out;
        out.put_i32(partition.partition);
        out.put_i16(partition.error_code);
        out.put_i64(partition.high_watermark);
        out.put_i64(partition.last_stable_offset);
        if version >= FIRST_WITH_LOG_START {
            out.put_i64(partition.log_start_offset);
        }
        put_nullable_count(out, flexible, partition.aborted.as_ref().map(Vec::len));
        for aborted in partition.aborted.iter().flatten() {
            out.put_i64(aborted.producer_id);
            out.put_i64(aborted.first_offset);
            put_no_tags(out, flexible);
        }
        if version >= FIRST_WITH_RACKS {
            out.put_i32(partition.preferred_read_replica);
        }
        put_count(out, flexible, partition.records);
        if partition.records > 0 {
            self.gaps.push((self.slots, out.len(), partition.records));
        }
        self.slots += 1;
        let mut tags = Vec::new();
        if let Some(EpochEnd { epoch, end_offset }) = partition.diverging_epoch {
            let mut content = BytesMut::new();
            content.put_i32(epoch);
            content.put_i64(end_offset);
            put_no_tags(&mut content, true);
            tags.push((TAG_DIVERGING_EPOCH, content));
        }
        if let Some(leader) = partition.current_leader {
            tags.push((TAG_CURRENT_LEADER, leader.tag_content()));
        }
        put_tags(out, flexible, &tags);
    }

    fn finish(mut self) -> Result<FetchFrame, TooLarge> {
        let records = self.gaps.iter().map(|(_, _, len)| len).sum();
        let size = finish_frame(&mut self.out, records)?;
        let mut pieces = Vec::with_capacity(2 * self.gaps.len() + 1);
        let (own, mut done) = (self.out.freeze(), 0);
        for (slot, at, len) in self.gaps {
            pieces.push(Piece::Bytes(own.slice(done..at)));
            pieces.push(Piece::Records { slot, len });
            done = at;
        }
        if done < own.len() {
            pieces.push(Piece::Bytes(own.slice(done..)));
        }
        Ok(FetchFrame { size, pieces })
    }
}

impl FetchResponse<Bytes> {
    /// Decodes a response's frame, all of which it must fill; the records are slices of it. The
    /// correlation id is not looked at.
    pub fn decode(version: i16, frame: &Bytes) -> Result<Self, ReadError> {
        let layout = Layout::of(version);
        let flexible = layout.flexible;
        let body = &response_body(ApiKey::Fetch, version, frame)?;
        let reader = &mut Reader::of_response(body);
        let throttle_time_ms = reader.i32()?;
        let (error_code, session_id) = match version {
            FIRST_WITH_SESSIONS.. => (reader.i16()?, reader.i32()?),
            _ => (0, NO_SESSION_ID),
        };
        let count = reader.count(flexible, MIN_TOPIC_LEN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            topics.push(FetchedTopic::decode(layout, body, reader)?);
        }
        let mut node_endpoints = Vec::new();
        reader.tagged_fields(flexible, |tag, content| {
            let known = tag == TAG_NODE_ENDPOINTS && version >= FIRST_WITH_ENDPOINTS;
            if known {
                node_endpoints = NodeEndpoint::read_all(content, body)?;
            }
            Ok(known)
        })?;
        reader.finish()?;
        Ok(Self {
            throttle_time_ms,
            error_code,
            session_id,
            topics,
            node_endpoints,
        })
    }
}

impl FetchedTopic<Bytes> {
    fn decode(layout: Layout, body: &Bytes, reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let topic = TopicRef::read(reader, layout.version, layout.flexible, body)?;
        let count = reader.count(layout.flexible, MIN_PARTITION_LEN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(FetchedPartition::decode(layout, body, reader)?);
        }
        reader.tagged_fields(layout.flexible, |_, _| Ok(false))?;
        Ok(Self { topic, partitions })
    }
}

impl FetchedPartition<Bytes> {
    fn decode(layout: Layout, body: &Bytes, reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let Layout { version, flexible } = layout;
        let mut fetched = Self::new(reader.i32()?, Bytes::new());
        fetched.error_code = reader.i16()?;
        fetched.high_watermark = reader.i64()?;
        fetched.last_stable_offset = reader.i64()?;
        if version >= FIRST_WITH_LOG_START {
            fetched.log_start_offset = reader.i64()?;
        }
        if let Some(count) = reader.nullable_count(flexible, MIN_ABORTED_LEN)? {
            let mut aborted = Vec::with_capacity(count);
            for _ in 0..count {
                let (producer_id, first_offset) = (reader.i64()?, reader.i64()?);
                reader.tagged_fields(flexible, |_, _| Ok(false))?;
                aborted.push(AbortedTransaction {
                    producer_id,
                    first_offset,
                });
            }
            fetched.aborted = Some(aborted);
        }
        if version >= FIRST_WITH_RACKS {
            fetched.preferred_read_replica = reader.i32()?;
        }
        let records = reader.nullable_bytes(flexible)?.unwrap_or_default();
        fetched.records = body.slice_ref(records);
        reader.tagged_fields(flexible, |tag, content| {
            match tag {
                TAG_DIVERGING_EPOCH => {
                    let (epoch, end_offset) = (content.i32()?, content.i64()?);
                    content.tagged_fields(true, |_, _| Ok(false))?;
                    fetched.diverging_epoch = Some(EpochEnd { epoch, end_offset });
                }
                TAG_CURRENT_LEADER => {
                    fetched.current_leader = Some(CurrentLeader::read(content)?);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(fetched)
    }
}
