//! Tests of the Fetch codec: it agrees with the protocol crate in every version, both ways, and
//! refuses what lies.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request as their_request;
use kafka_protocol::messages::fetch_response as their_response;
use kafka_protocol::messages::{
    BrokerId, FetchRequest as TheirRequest, FetchResponse as TheirResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::codec_test::*;
use crate::header::RequestHeader;
use crate::primitive::ReadError;

const KEY: ApiKey = ApiKey::Fetch;

fn any_partition(version: i16) -> impl Strategy<Value = FetchPartition> {
    (
        any::<i32>(),
        any::<i32>(),
        any::<i64>(),
        any::<i32>(),
        any::<i64>(),
        any::<i32>(),
    )
        .prop_map(
            move |(partition, leader_epoch, fetch_offset, fetched_epoch, log_start, max_bytes)| {
                FetchPartition {
                    partition,
                    current_leader_epoch: if version >= 9 { leader_epoch } else { -1 },
                    fetch_offset,
                    last_fetched_epoch: if version >= 12 { fetched_epoch } else { -1 },
                    log_start_offset: if version >= 5 { log_start } else { -1 },
                    max_bytes,
                    safe_end: if version >= 12 { log_start.max(-1) } else { -1 },
                }
            },
        )
}

fn any_request(version: i16) -> impl Strategy<Value = FetchRequest> {
    let topic = (any_topic(version), vec(any_partition(version), 0..4))
        .prop_map(|(topic, partitions)| FetchTopic { topic, partitions });
    let forgotten = (any_topic(version), vec(any::<i32>(), 0..4))
        .prop_map(|(topic, partitions)| ForgottenTopic { topic, partitions });
    let has_sessions = version >= 7;
    let forgotten = vec(forgotten, if has_sessions { 0..3 } else { 0..1 });
    let numbers = (any::<i32>(), any::<i32>(), any::<i32>(), any::<bool>());
    let session = (any::<i32>(), any::<i32>());
    let replica = (any::<i32>(), any::<i64>());
    (
        replica,
        numbers,
        session,
        vec(topic, 0..4),
        forgotten,
        any_str(),
    )
        .prop_map(
            move |(replica, numbers, session, topics, forgotten, rack_id)| FetchRequest {
                replica_id: replica.0,
                replica_epoch: if version >= 15 && replica.0 != -1 {
                    replica.1
                } else {
                    -1
                },
                max_wait_ms: numbers.0,
                min_bytes: numbers.1,
                max_bytes: numbers.2,
                isolation_level: if numbers.3 {
                    IsolationLevel::ReadCommitted
                } else {
                    IsolationLevel::ReadUncommitted
                },
                session_id: if has_sessions {
                    session.0
                } else {
                    NO_SESSION_ID
                },
                session_epoch: if has_sessions {
                    session.1
                } else {
                    FINAL_SESSION_EPOCH
                },
                topics,
                forgotten,
                rack_id: if version >= 11 {
                    rack_id
                } else {
                    StrBytes::new()
                },
            },
        )
}

fn their_topic(topic: &FetchTopic) -> their_request::FetchTopic {
    let (name, id) = name_and_id(&topic.topic);
    let partitions = topic.partitions.iter().map(|partition| {
        their_request::FetchPartition::default()
            .with_partition(partition.partition)
            .with_current_leader_epoch(partition.current_leader_epoch)
            .with_fetch_offset(partition.fetch_offset)
            .with_last_fetched_epoch(partition.last_fetched_epoch)
            .with_log_start_offset(partition.log_start_offset)
            .with_partition_max_bytes(partition.max_bytes)
            .with_unknown_tagged_fields(safe_end(partition))
    });
    their_request::FetchTopic::default()
        .with_topic(TopicName(name))
        .with_topic_id(id)
        .with_partitions(partitions.collect())
}

/// Our own field, as the protocol crate keeps what it does not know.
fn safe_end(partition: &FetchPartition) -> std::collections::BTreeMap<i32, Bytes> {
    let known = (partition.safe_end >= 0).then_some(partition.safe_end);
    let bytes = known.map(|end| Bytes::copy_from_slice(&end.to_be_bytes()));
    bytes.into_iter().map(|bytes| (21_000, bytes)).collect()
}

fn their_request(ours: &FetchRequest, version: i16) -> TheirRequest {
    let forgotten = ours.forgotten.iter().map(|topic| {
        let (name, id) = name_and_id(&topic.topic);
        their_request::ForgottenTopic::default()
            .with_topic(TopicName(name))
            .with_topic_id(id)
            .with_partitions(topic.partitions.clone())
    });
    let mut request = TheirRequest::default()
        .with_max_wait_ms(ours.max_wait_ms)
        .with_min_bytes(ours.min_bytes)
        .with_max_bytes(ours.max_bytes)
        .with_isolation_level(ours.isolation_level as i8)
        .with_session_id(ours.session_id)
        .with_session_epoch(ours.session_epoch)
        .with_topics(ours.topics.iter().map(their_topic).collect())
        .with_forgotten_topics_data(forgotten.collect())
        .with_rack_id(ours.rack_id.clone());
    if version >= 15 {
        request.replica_state = their_request::ReplicaState::default()
            .with_replica_id(BrokerId(ours.replica_id))
            .with_replica_epoch(ours.replica_epoch);
    } else {
        request.replica_id = BrokerId(ours.replica_id);
    }
    request
}

fn any_fetched(version: i16) -> impl Strategy<Value = FetchedPartition<Bytes>> {
    let aborted =
        (any::<i64>(), any::<i64>()).prop_map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id,
            first_offset,
        });
    let epoch =
        (any::<i32>(), 0..i64::MAX).prop_map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
    let tags = (
        proptest::option::of(epoch),
        proptest::option::of(any_leader()),
    );
    let aborted = proptest::option::of(vec(aborted, 0..3));
    let numbers = (any::<i32>(), any::<i16>(), any::<i32>());
    let offsets = (any::<i64>(), any::<i64>(), any::<i64>());
    (numbers, offsets, aborted, tags, any_bytes()).prop_map(
        move |(numbers, offsets, aborted, tags, records)| {
            let mut fetched = FetchedPartition::new(numbers.0, records);
            fetched.error_code = numbers.1;
            (fetched.high_watermark, fetched.last_stable_offset) = (offsets.0, offsets.1);
            fetched.aborted = aborted;
            if version >= 5 {
                fetched.log_start_offset = offsets.2;
            }
            if version >= 11 {
                fetched.preferred_read_replica = numbers.2;
            }
            if version >= 12 {
                (fetched.diverging_epoch, fetched.current_leader) = tags;
            }
            fetched
        },
    )
}

fn any_response(version: i16) -> impl Strategy<Value = FetchResponse<Bytes>> {
    let topic = (any_topic(version), vec(any_fetched(version), 0..4))
        .prop_map(|(topic, partitions)| FetchedTopic { topic, partitions });
    let endpoints = vec(any_endpoint(), if version >= 16 { 0..3 } else { 0..1 });
    (
        any::<i32>(),
        any::<i16>(),
        any::<i32>(),
        vec(topic, 0..4),
        endpoints,
    )
        .prop_map(
            move |(throttle_time_ms, error_code, session_id, topics, node_endpoints)| {
                FetchResponse {
                    throttle_time_ms,
                    error_code: if version >= 7 { error_code } else { 0 },
                    session_id: if version >= 7 { session_id } else { 0 },
                    topics,
                    node_endpoints,
                }
            },
        )
}

fn their_partition(ours: &FetchedPartition<Bytes>) -> their_response::PartitionData {
    let aborted = ours.aborted.as_ref().map(|aborted| {
        let theirs = aborted.iter().map(|aborted| {
            their_response::AbortedTransaction::default()
                .with_producer_id(ProducerId(aborted.producer_id))
                .with_first_offset(aborted.first_offset)
        });
        theirs.collect()
    });
    let mut partition = their_response::PartitionData::default()
        .with_partition_index(ours.partition)
        .with_error_code(ours.error_code)
        .with_high_watermark(ours.high_watermark)
        .with_last_stable_offset(ours.last_stable_offset)
        .with_log_start_offset(ours.log_start_offset)
        .with_aborted_transactions(aborted)
        .with_preferred_read_replica(BrokerId(ours.preferred_read_replica))
        .with_records(Some(ours.records.clone()));
    if let Some(EpochEnd { epoch, end_offset }) = ours.diverging_epoch {
        partition.diverging_epoch = their_response::EpochEndOffset::default()
            .with_epoch(epoch)
            .with_end_offset(end_offset);
    }
    if let Some(leader) = ours.current_leader {
        partition.current_leader = their_response::LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.leader_id))
            .with_leader_epoch(leader.leader_epoch);
    }
    partition
}

fn their_response(ours: &FetchResponse<Bytes>) -> TheirResponse {
    let topics = ours.topics.iter().map(|topic| {
        let (name, id) = name_and_id(&topic.topic);
        their_response::FetchableTopicResponse::default()
            .with_topic(TopicName(name))
            .with_topic_id(id)
            .with_partitions(topic.partitions.iter().map(their_partition).collect())
    });
    let endpoints = ours.node_endpoints.iter().map(|endpoint| {
        their_response::NodeEndpoint::default()
            .with_node_id(BrokerId(endpoint.node_id))
            .with_host(endpoint.host.clone())
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.clone())
    });
    TheirResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_error_code(ours.error_code)
        .with_session_id(ours.session_id)
        .with_responses(topics.collect())
        .with_node_endpoints(endpoints.collect())
}

/// The response with lengths for records, and the records by slot.
fn with_gaps(response: &FetchResponse<Bytes>) -> (FetchResponse<usize>, Vec<Bytes>) {
    let mut slots = Vec::new();
    let topics = response.topics.iter().map(|topic| FetchedTopic {
        topic: topic.topic.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|fetched| {
                slots.push(fetched.records.clone());
                FetchedPartition {
                    partition: fetched.partition,
                    error_code: fetched.error_code,
                    high_watermark: fetched.high_watermark,
                    last_stable_offset: fetched.last_stable_offset,
                    log_start_offset: fetched.log_start_offset,
                    diverging_epoch: fetched.diverging_epoch,
                    current_leader: fetched.current_leader,
                    aborted: fetched.aborted.clone(),
                    preferred_read_replica: fetched.preferred_read_replica,
                    records: fetched.records.len(),
                }
            })
            .collect(),
    });
    let gapped = FetchResponse {
        throttle_time_ms: response.throttle_time_ms,
        error_code: response.error_code,
        session_id: response.session_id,
        topics: topics.collect(),
        node_endpoints: response.node_endpoints.clone(),
    };
    (gapped, slots)
}

/// Sends a frame's pieces into memory.
fn fill(frame: &FetchFrame, slots: &[Bytes]) -> Bytes {
    let mut out = Vec::new();
    for piece in &frame.pieces {
        match piece {
            Piece::Bytes(bytes) => out.extend_from_slice(bytes),
            Piece::Records { slot, len } => {
                assert_eq!((*len, *len > 0), (slots[*slot].len(), true));
                out.extend_from_slice(&slots[*slot]);
            }
        }
    }
    assert_eq!(out.len(), frame.size);
    Bytes::from(out)
}

proptest! {
    #[test]
    fn requests_agree_with_the_protocol_crate(
        (version, request) in any_version(KEY).prop_flat_map(|v| (Just(v), any_request(v))),
    ) {
        let header = header(KEY, version);
        let frame = request.encode(&header).unwrap();
        let body = body_of_request(&frame, &header);
        let theirs = their_request(&request, version);
        prop_assert_eq!(&body, &encoded(&theirs, version));
        prop_assert_eq!(decoded::<TheirRequest>(&body, version), theirs);
        prop_assert_eq!(FetchRequest::decode(version, &body).unwrap(), request);
    }

    #[test]
    fn responses_agree_with_the_protocol_crate(
        (version, response) in any_version(KEY).prop_flat_map(|v| (Just(v), any_response(v))),
    ) {
        let header = header(KEY, version);
        let (gapped, slots) = with_gaps(&response);
        let frame = fill(&gapped.encode(&header).unwrap(), &slots);
        let body = body_of_response(&frame, &header);
        let theirs = their_response(&response);
        prop_assert_eq!(&body, &encoded(&theirs, version));
        prop_assert_eq!(decoded::<TheirResponse>(&body, version), theirs);
        prop_assert_eq!(FetchResponse::decode(version, &frame.slice(4..)).unwrap(), response);
    }

    #[test]
    fn cuts_and_extra_bytes_are_refused(
        (version, request) in any_version(KEY).prop_flat_map(|v| (Just(v), any_request(v))),
        at: prop::sample::Index,
    ) {
        let body = encoded(&their_request(&request, version), version);
        let cut = body.slice(..at.index(body.len()));
        prop_assert!(FetchRequest::decode(version, &cut).is_err());
        let longer = Bytes::from([&body[..], &[0]].concat());
        let left = ReadError::Trailing { at: body.len(), left: 1 };
        prop_assert_eq!(FetchRequest::decode(version, &longer), Err(left));
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        version in any_version(KEY),
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let bytes = Bytes::from(bytes);
        let _ = FetchRequest::decode(version, &bytes);
        let _ = FetchResponse::decode(version, &bytes);
    }
}

/// Version 11 of a consumer without a session, put together by hand from the schema.
const GOLDEN_V11: &[u8] = &[
    0, 1, 0, 11, 0, 0, 0, 9, 0, 1, b'c', // header, version 1
    0xff, 0xff, 0xff, 0xff, // replica id of a consumer
    0, 0, 1, 0xf4, 0, 0, 0, 1, 0, 0x10, 0, 0, // 500 ms, 1 byte, 1 MiB
    1, // read committed
    0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, // no session
    0, 0, 0, 1, 0, 1, b't', // one topic
    0, 0, 0, 1, 0, 0, 0, 2, // one partition, number 2
    0, 0, 0, 5, // leader epoch 5
    0, 0, 0, 0, 0, 0, 0, 42, // from offset 42
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // no log start
    0, 1, 0, 0, // 64 KiB
    0, 0, 0, 0, // nothing forgotten
    0, 0, // no rack
];

fn golden_with(at: usize, bytes: &[u8]) -> Result<FetchRequest, ReadError> {
    let mut frame = GOLDEN_V11.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    let (header, body) = RequestHeader::decode(&Bytes::from(frame)).unwrap();
    FetchRequest::decode(header.version, &body)
}

#[test]
fn a_hand_made_request_is_read() {
    let request = golden_with(0, &[]).unwrap();
    assert_eq!(request.replica_id, CONSUMER_REPLICA_ID);
    assert_eq!(
        (request.max_wait_ms, request.min_bytes, request.max_bytes),
        (500, 1, 1 << 20)
    );
    assert_eq!(request.isolation_level, IsolationLevel::ReadCommitted);
    assert_eq!(
        (request.session_id, request.session_epoch),
        (NO_SESSION_ID, FINAL_SESSION_EPOCH)
    );
    let partition = FetchPartition {
        partition: 2,
        current_leader_epoch: 5,
        fetch_offset: 42,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 64 << 10,
        safe_end: -1,
    };
    assert_eq!(request.topics[0].partitions, [partition]);
    assert!(request.forgotten.is_empty() && request.rack_id.is_empty());
}

#[test]
fn claimed_counts_are_refused_without_allocation() {
    let huge = i32::MAX.to_be_bytes();
    let (isolation, topics, partitions) = (27, 36, 43);
    assert!(matches!(
        golden_with(topics, &huge),
        Err(ReadError::Count { .. })
    ));
    assert!(matches!(
        golden_with(partitions, &huge),
        Err(ReadError::Count { .. })
    ));
    assert!(matches!(
        golden_with(topics, &[0xff; 4]),
        Err(ReadError::Length { .. })
    ));
    let undefined = Err(ReadError::Value { at: 16, value: 2 });
    assert_eq!(golden_with(isolation, &[2]), undefined);
}

#[test]
fn an_empty_partition_leaves_no_gap_and_slots_count_all_partitions() {
    let partitions = vec![
        FetchedPartition::new(0, 0),
        FetchedPartition::new(1, 10),
        FetchedPartition::new(2, 0),
        FetchedPartition::new(3, 20),
    ];
    let topic = TopicRef::Name(StrBytes::from_static_str("t"));
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: 0,
        session_id: 0,
        topics: vec![FetchedTopic { topic, partitions }],
        node_endpoints: Vec::new(),
    };
    let frame = response.encode(&header(KEY, 4)).unwrap();
    let gaps: Vec<_> = frame
        .pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Records { slot, len } => Some((*slot, *len)),
            Piece::Bytes(_) => None,
        })
        .collect();
    assert_eq!(gaps, [(1, 10), (3, 20)]);
    // in version 4 nothing follows the last records
    assert_eq!(
        frame.pieces.last(),
        Some(&Piece::Records { slot: 3, len: 20 })
    );
}

#[test]
fn a_response_beyond_what_a_frame_can_hold_is_an_error() {
    let partitions = vec![
        FetchedPartition::new(0, 1 << 30),
        FetchedPartition::new(1, 1 << 30),
    ];
    let topic = TopicRef::Name(StrBytes::from_static_str("t"));
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: 0,
        session_id: 0,
        topics: vec![FetchedTopic { topic, partitions }],
        node_endpoints: Vec::new(),
    };
    assert!(response.encode(&header(KEY, 12)).is_err());
}
