//! Requests and answers of the plain clients, as bytes: no sockets, no waiting.

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::fetch::{
    CONSUMER_REPLICA_ID, FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchResponse,
    FetchTopic, FetchedPartition, IsolationLevel, NO_SESSION_ID,
};
use ringmill_wire::header::{RequestHeader, TooLarge};
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};
use ringmill_wire::produce::{
    ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition,
};
use ringmill_wire::topic::TopicRef;

use crate::plain::PlainError;

/// Versions before topic ids, so that topics go by name.
pub const PRODUCE_VERSION: i16 = 9;
/// As [`PRODUCE_VERSION`].
pub const FETCH_VERSION: i16 = 12;
/// The version of CreateTopics that is used.
pub const CREATE_TOPICS_VERSION: i16 = 5;
/// The version of ListOffsets that is used.
pub const LIST_OFFSETS_VERSION: i16 = 5;

/// A request's header.
pub fn header(key: ApiKey, version: i16, correlation_id: i32) -> RequestHeader {
    let client_id = Some(StrBytes::from_static_str("plain"));
    RequestHeader {
        key,
        version,
        correlation_id,
        client_id,
    }
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

/// Asks for a topic with one replica.
pub fn create_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    let configs = configs.iter().map(|(key, value)| {
        CreatableTopicConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000)
}

/// The one topic's error code.
pub fn created(response: &CreateTopicsResponse) -> Result<i16, PlainError> {
    match &response.topics[..] {
        [topic] => Ok(topic.error_code),
        other => Err(PlainError::Unexpected(format!("{} topics", other.len()))),
    }
}

/// Asks for the offset of a timestamp: -2 the log's start, -1 its end.
pub fn list_offsets(topic: &str, partition: i32, timestamp: i64) -> ListOffsetsRequest {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(vec![wanted]);
    ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic])
}

/// The one partition's offset.
pub fn listed(response: &ListOffsetsResponse) -> Result<i64, PlainError> {
    match response
        .topics
        .first()
        .and_then(|topic| topic.partitions.first())
    {
        Some(partition) if partition.error_code == 0 => Ok(partition.offset),
        Some(partition) => Err(PlainError::Refused(partition.error_code)),
        None => Err(PlainError::Unexpected("no partition".into())),
    }
}

/// The buffers of a produce request for one partition.
pub fn produce(
    header: &RequestHeader,
    topic: &str,
    partition: i32,
    acks: i16,
    records: Bytes,
) -> Result<Vec<Bytes>, TooLarge> {
    let partitions = vec![ProducePartition {
        index: partition,
        records,
    }];
    let topics = vec![ProduceTopic {
        topic: TopicRef::Name(text(topic)),
        partitions,
    }];
    let request = ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 20_000,
        topics,
    };
    request.encode(header)
}

/// The one partition's answer.
pub fn produced(frame: &Bytes) -> Result<ProducedPartition, PlainError> {
    let mut response = ProduceResponse::decode(PRODUCE_VERSION, frame)?;
    let answered = response
        .topics
        .pop()
        .and_then(|mut topic| topic.partitions.pop());
    answered.ok_or_else(|| PlainError::Unexpected("no partition".into()))
}

/// Fetches from one partition, waiting at most `wait_ms` for a first byte.
pub fn fetch(
    header: &RequestHeader,
    topic: &str,
    partition: i32,
    offset: i64,
    max_bytes: i32,
    wait_ms: i32,
) -> Result<Bytes, TooLarge> {
    fetch_request(topic, partition, offset, max_bytes, wait_ms).encode(header)
}

/// Fetches committed records from one partition, without waiting.
pub fn fetch_committed(
    header: &RequestHeader,
    topic: &str,
    partition: i32,
    offset: i64,
    max_bytes: i32,
) -> Result<Bytes, TooLarge> {
    let mut request = fetch_request(topic, partition, offset, max_bytes, 0);
    request.isolation_level = IsolationLevel::ReadCommitted;
    request.encode(header)
}

fn fetch_request(
    topic: &str,
    partition: i32,
    offset: i64,
    max_bytes: i32,
    wait_ms: i32,
) -> FetchRequest {
    let partition = FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes,
        safe_end: -1,
    };
    FetchRequest {
        replica_id: CONSUMER_REPLICA_ID,
        replica_epoch: -1,
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id: NO_SESSION_ID,
        session_epoch: FINAL_SESSION_EPOCH,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(text(topic)),
            partitions: vec![partition],
        }],
        forgotten: Vec::new(),
        rack_id: StrBytes::default(),
    }
}

/// The one partition's answer.
pub fn fetched(frame: &Bytes) -> Result<FetchedPartition<Bytes>, PlainError> {
    let mut response = FetchResponse::<Bytes>::decode(FETCH_VERSION, frame)?;
    if response.error_code != 0 {
        return Err(PlainError::Unexpected(format!(
            "fetch error {}",
            response.error_code
        )));
    }
    let fetched = response
        .topics
        .pop()
        .and_then(|mut topic| topic.partitions.pop());
    fetched.ok_or_else(|| PlainError::Unexpected("no partition".into()))
}
