//! Tests of the Produce codec: it agrees with the protocol crate in every version, both ways, and
//! refuses what lies.

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response as theirs;
use kafka_protocol::messages::{
    BrokerId, ProduceRequest as TheirRequest, ProduceResponse as TheirResponse, TopicName,
    TransactionalId,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::codec_test::*;

const KEY: ApiKey = ApiKey::Produce;

fn any_request(version: i16) -> impl Strategy<Value = ProduceRequest> {
    let partition = (any::<i32>(), any_bytes())
        .prop_map(|(index, records)| ProducePartition { index, records });
    let topic = (any_topic(version), vec(partition, 0..4))
        .prop_map(|(topic, partitions)| ProduceTopic { topic, partitions });
    let transactional_id = proptest::option::of(any_str());
    (
        transactional_id,
        any::<i16>(),
        any::<i32>(),
        vec(topic, 0..4),
    )
        .prop_map(
            |(transactional_id, acks, timeout_ms, topics)| ProduceRequest {
                transactional_id,
                acks,
                timeout_ms,
                topics,
            },
        )
}

fn their_request(ours: &ProduceRequest) -> TheirRequest {
    let topics = ours.topics.iter().map(|topic| {
        let (name, id) = name_and_id(&topic.topic);
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionProduceData::default()
                .with_index(partition.index)
                .with_records(Some(partition.records.clone()))
        });
        TopicProduceData::default()
            .with_name(TopicName(name))
            .with_topic_id(id)
            .with_partition_data(partitions.collect())
    });
    TheirRequest::default()
        .with_transactional_id(ours.transactional_id.clone().map(TransactionalId))
        .with_acks(ours.acks)
        .with_timeout_ms(ours.timeout_ms)
        .with_topic_data(topics.collect())
}

fn any_partition(version: i16) -> impl Strategy<Value = ProducedPartition> {
    let error =
        (any::<i32>(), proptest::option::of(any_str())).prop_map(|(batch_index, message)| {
            RecordError {
                batch_index,
                message,
            }
        });
    let offsets = (any::<i64>(), any::<i64>(), any::<i64>());
    let leader = proptest::option::of(any_leader());
    let message = proptest::option::of(any_str());
    (
        any::<i32>(),
        any::<i16>(),
        offsets,
        vec(error, 0..3),
        message,
        leader,
    )
        .prop_map(
            move |(index, error_code, offsets, record_errors, error_message, current_leader)| {
                let mut partition = ProducedPartition::failed(index, error_code);
                partition.base_offset = offsets.0;
                partition.log_append_time_ms = offsets.1;
                if version >= 5 {
                    partition.log_start_offset = offsets.2;
                }
                if version >= 8 {
                    (partition.record_errors, partition.error_message) =
                        (record_errors, error_message);
                }
                if version >= 10 {
                    partition.current_leader = current_leader;
                }
                partition
            },
        )
}

fn any_response(version: i16) -> impl Strategy<Value = ProduceResponse> {
    let topic = (any_topic(version), vec(any_partition(version), 0..4))
        .prop_map(|(topic, partitions)| ProducedTopic { topic, partitions });
    let endpoints = vec(any_endpoint(), if version >= 10 { 0..3 } else { 0..1 });
    (vec(topic, 0..4), any::<i32>(), endpoints).prop_map(
        |(topics, throttle_time_ms, node_endpoints)| ProduceResponse {
            topics,
            throttle_time_ms,
            node_endpoints,
        },
    )
}

fn their_partition(ours: &ProducedPartition) -> theirs::PartitionProduceResponse {
    let errors = ours.record_errors.iter().map(|error| {
        theirs::BatchIndexAndErrorMessage::default()
            .with_batch_index(error.batch_index)
            .with_batch_index_error_message(error.message.clone())
    });
    let mut partition = theirs::PartitionProduceResponse::default()
        .with_index(ours.index)
        .with_error_code(ours.error_code)
        .with_base_offset(ours.base_offset)
        .with_log_append_time_ms(ours.log_append_time_ms)
        .with_log_start_offset(ours.log_start_offset)
        .with_record_errors(errors.collect())
        .with_error_message(ours.error_message.clone());
    if let Some(leader) = ours.current_leader {
        partition.current_leader = theirs::LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.leader_id))
            .with_leader_epoch(leader.leader_epoch);
    }
    partition
}

fn their_response(ours: &ProduceResponse) -> TheirResponse {
    let topics = ours.topics.iter().map(|topic| {
        let (name, id) = name_and_id(&topic.topic);
        theirs::TopicProduceResponse::default()
            .with_name(TopicName(name))
            .with_topic_id(id)
            .with_partition_responses(topic.partitions.iter().map(their_partition).collect())
    });
    let endpoints = ours.node_endpoints.iter().map(|endpoint| {
        theirs::NodeEndpoint::default()
            .with_node_id(BrokerId(endpoint.node_id))
            .with_host(endpoint.host.clone())
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.clone())
    });
    TheirResponse::default()
        .with_responses(topics.collect())
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_node_endpoints(endpoints.collect())
}

proptest! {
    #[test]
    fn requests_agree_with_the_protocol_crate(
        (version, request) in any_version(KEY).prop_flat_map(|v| (Just(v), any_request(v))),
    ) {
        let header = header(KEY, version);
        let frame = Bytes::from(request.encode(&header).unwrap().concat());
        let body = body_of_request(&frame, &header);
        let theirs = their_request(&request);
        prop_assert_eq!(&body, &encoded(&theirs, version));
        prop_assert_eq!(decoded::<TheirRequest>(&body, version), theirs);
        prop_assert_eq!(ProduceRequest::decode(version, &body).unwrap(), request);
    }

    #[test]
    fn responses_agree_with_the_protocol_crate(
        (version, response) in any_version(KEY).prop_flat_map(|v| (Just(v), any_response(v))),
    ) {
        let header = header(KEY, version);
        let frame = response.encode(&header).unwrap();
        let body = body_of_response(&frame, &header);
        let theirs = their_response(&response);
        prop_assert_eq!(&body, &encoded(&theirs, version));
        prop_assert_eq!(decoded::<TheirResponse>(&body, version), theirs);
        prop_assert_eq!(ProduceResponse::decode(version, &frame.slice(4..)).unwrap(), response);
    }

    #[test]
    fn cuts_and_extra_bytes_are_refused(
        (version, request) in any_version(KEY).prop_flat_map(|v| (Just(v), any_request(v))),
        at: prop::sample::Index,
    ) {
        let body = encoded(&their_request(&request), version);
        let cut = body.slice(..at.index(body.len()));
        prop_assert!(ProduceRequest::decode(version, &cut).is_err());
        let longer = Bytes::from([&body[..], &[0]].concat());
        let left = ReadError::Trailing { at: body.len(), left: 1 };
        prop_assert_eq!(ProduceRequest::decode(version, &longer), Err(left));
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        version in any_version(KEY),
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let bytes = Bytes::from(bytes);
        let _ = ProduceRequest::decode(version, &bytes);
        let _ = ProduceResponse::decode(version, &bytes);
    }
}

/// Version 7 as librdkafka 1.x sends it, put together by hand from the schema.
const GOLDEN_V7: &[u8] = &[
    0, 0, 0, 7, 0, 0, 0, 3, 0, 7, b'r', b'd', b'k', b'a', b'f', b'k',
    b'a', // header, version 1
    0xff, 0xff, // no transactional id
    0xff, 0xff, // acks all
    0, 0, 0x75, 0x30, // 30 s
    0, 0, 0, 1, 0, 1, b't', // one topic
    0, 0, 0, 1, 0, 0, 0, 2, // one partition, number 2
    0, 0, 0, 3, b'a', b'b', b'c', // records
];

/// Version 9, flexible.
const GOLDEN_V9: &[u8] = &[
    0, 0, 0, 9, 0, 0, 0, 3, 0, 1, b'j', 0, // header, version 2
    0, // no transactional id
    0, 1, // acks of the leader
    0, 0, 0x75, 0x30, // 30 s
    2, 2, b't', // one topic
    2, 0, 0, 0, 2, // one partition, number 2
    4, b'a', b'b', b'c', 0, // records
    0, 0, // tags of topic and request
];

#[test]
fn hand_made_requests_are_read_without_a_copy() {
    for (golden, acks) in [(GOLDEN_V7, ACKS_ALL), (GOLDEN_V9, ACKS_LEADER)] {
        let frame = Bytes::from_static(golden);
        let (header, body) = RequestHeader::decode(&frame).unwrap();
        let request = ProduceRequest::decode(header.version, &body).unwrap();
        assert_eq!((request.acks, request.timeout_ms), (acks, 30_000));
        let topic = &request.topics[0];
        assert_eq!(topic.topic, TopicRef::Name(StrBytes::from_static_str("t")));
        assert_eq!(topic.partitions[0].index, 2);
        assert_eq!(topic.partitions[0].records, &b"abc"[..]);
        assert!(
            golden
                .as_ptr_range()
                .contains(&topic.partitions[0].records.as_ptr())
        );
        let again = request.encode(&header).unwrap().concat();
        assert_eq!(again[4..], *golden);
    }
}

#[test]
fn claimed_counts_and_lengths_are_refused_without_allocation() {
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = GOLDEN_V7.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        let (header, body) = RequestHeader::decode(&Bytes::from(frame)).unwrap();
        ProduceRequest::decode(header.version, &body).unwrap_err()
    };
    let huge = i32::MAX.to_be_bytes();
    let (topics, partitions, records) = (25, 32, 40);
    assert!(matches!(with(topics, &huge), ReadError::Count { .. }));
    assert!(matches!(with(partitions, &huge), ReadError::Count { .. }));
    assert!(matches!(with(records, &huge), ReadError::Short { .. }));
    assert!(matches!(
        with(topics, &[0xff; 4]),
        ReadError::Length { length: -1, .. }
    ));
    assert!(matches!(
        with(partitions, &[0x80, 0, 0, 0]),
        ReadError::Length { .. }
    ));
    assert!(matches!(
        with(records, &[0xff, 0xff, 0xff, 0xfe]),
        ReadError::Length { .. }
    ));
    // the topic's name: null, and not UTF-8
    assert!(matches!(
        with(29, &[0xff, 0xff]),
        ReadError::Length { length: -1, .. }
    ));
    assert!(matches!(with(31, &[0xff]), ReadError::Utf8 { .. }));
}

#[test]
fn null_records_come_as_empty() {
    let mut frame = GOLDEN_V9.to_vec();
    let records = GOLDEN_V9.len() - 7;
    frame.splice(records..records + 4, [0]);
    let (header, body) = RequestHeader::decode(&Bytes::from(frame)).unwrap();
    let request = ProduceRequest::decode(header.version, &body).unwrap();
    assert!(request.topics[0].partitions[0].records.is_empty());
}

#[test]
fn large_records_are_not_copied_into_the_request() {
    let records = Bytes::from(vec![1; COPIED_LEN + 1]);
    let partitions = vec![ProducePartition {
        index: 0,
        records: records.clone(),
    }];
    let topics = vec![ProduceTopic {
        topic: TopicRef::Name(StrBytes::from_static_str("t")),
        partitions,
    }];
    let request = ProduceRequest {
        transactional_id: None,
        acks: 1,
        timeout_ms: 1,
        topics,
    };
    let pieces = request.encode(&header(KEY, 9)).unwrap();
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[1].as_ptr(), records.as_ptr());
}

#[test]
#[should_panic(expected = "does not name topics")]
fn a_response_must_echo_the_requests_topic() {
    let topic = TopicRef::Name(StrBytes::from_static_str("t"));
    let topics = vec![ProducedTopic {
        topic,
        partitions: Vec::new(),
    }];
    let response = ProduceResponse {
        topics,
        ..ProduceResponse::default()
    };
    let _ = response.encode(&header(KEY, 13));
}
