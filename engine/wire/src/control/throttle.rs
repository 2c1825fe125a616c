//! Where a finished response tells its client to pause (`throttle_time_ms`, KIP-124): so that a
//! pause which is known only when the work is done is written into the frame, and responses without
//! one are encoded once and never looked at again.

use bytes::Bytes;

use super::{encoding, responses, shapes};
use crate::api::ApiKey;
use crate::frame::LENGTH_LEN;
use crate::primitive::Reader;

/// The field's name in Kafka's schemas.
const FIELD: &str = "throttle_time_ms";
/// Its bytes.
const FIELD_LEN: usize = 4;

/// Makes a response's frame tell of a pause of at least so many milliseconds. A frame whose version
/// has no room for it comes back as it was. The front of a frame that travels in pieces will do for
/// Fetch.
pub fn tell_throttle(key: ApiKey, version: i16, frame: Bytes, pause_ms: i32) -> Bytes {
    let Some(at) = position(key, version, &frame) else {
        return frame;
    };
    let mut frame = match frame.try_into_mut() {
        Ok(frame) => frame,
        Err(shared) => shared.as_ref().into(),
    };
    let Some(field) = frame[at..].first_chunk_mut::<FIELD_LEN>() else {
        return frame.freeze();
    };
    let told = i32::from_be_bytes(*field).max(pause_ms);
    *field = told.to_be_bytes();
    frame.freeze()
}

/// Where the field stands in a frame.
fn position(key: ApiKey, version: i16, frame: &[u8]) -> Option<usize> {
    let mut reader = Reader::of_response(frame);
    // the length, and the correlation id
    reader.take(LENGTH_LEN).ok()?;
    reader.i32().ok()?;
    let flexible = key.api().has_flexible_response_header(version);
    reader.tagged_fields(flexible, |_, _| Ok(false)).ok()?;
    let shape = match key {
        ApiKey::Produce => &responses::PRODUCE,
        ApiKey::Fetch => &responses::FETCH_FRONT,
        _ => shapes(key)?.1,
    };
    shape.position(encoding(key, version), &mut reader, FIELD)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
    use kafka_protocol::messages::{
        ApiVersionsRequest, ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse,
        MetadataRequest, MetadataResponse, WriteTxnMarkersResponse,
    };

    use super::super::{Answer, decode_response, encode_response};
    use super::*;
    use crate::api::APIS;
    use crate::fetch::{FetchResponse, Piece};
    use crate::header::RequestHeader;
    use crate::produce::{ProduceResponse, ProducedPartition, ProducedTopic};
    use crate::topic::TopicRef;
    use crate::{StrBytes, Uuid};

    fn header(key: ApiKey, version: i16) -> RequestHeader {
        RequestHeader {
            key,
            version,
            correlation_id: -1,
            client_id: None,
        }
    }

    fn told<R: Answer>(version: i16, response: &R, pause_ms: i32) -> Bytes {
        let frame = encode_response(&header(R::KEY, version), response).unwrap();
        let frame = tell_throttle(R::KEY, version, frame, pause_ms);
        frame.slice(LENGTH_LEN..)
    }

    #[test]
    fn a_pause_is_told_wherever_the_field_stands_and_nothing_else_changes() {
        for version in 0..=4 {
            let response = HeartbeatResponse::default().with_error_code(27);
            let frame = told(version, &response, 77);
            let seen = decode_response::<HeartbeatRequest>(version, &frame).unwrap();
            let expected = if version == 0 { 0 } else { 77 };
            assert_eq!((seen.throttle_time_ms, seen.error_code), (expected, 27));
        }
        let brokers = vec![MetadataResponseBroker::default().with_port(7)];
        let metadata = MetadataResponse::default().with_brokers(brokers);
        for version in 3..=13 {
            let frame = told(version, &metadata, 77);
            let seen = decode_response::<MetadataRequest>(version, &frame).unwrap();
            assert_eq!(
                (seen.throttle_time_ms, seen.brokers[0].port.into()),
                (77, 7_i64)
            );
        }
        let rows = vec![ApiVersion::default().with_max_version(3); 5];
        let versions = ApiVersionsResponse::default().with_api_keys(rows);
        for version in 1..=4 {
            let frame = told(version, &versions, 77);
            let seen = decode_response::<ApiVersionsRequest>(version, &frame).unwrap();
            assert_eq!((seen.throttle_time_ms, seen.api_keys.len()), (77, 5));
        }
    }

    #[test]
    fn what_tells_of_a_longer_pause_already_or_cannot_tell_stays() {
        let longer = HeartbeatResponse::default().with_throttle_time_ms(90);
        let seen = decode_response::<HeartbeatRequest>(4, &told(4, &longer, 77)).unwrap();
        assert_eq!(seen.throttle_time_ms, 90);
        let mute = WriteTxnMarkersResponse::default();
        assert_eq!(told(1, &mute, 77), told(1, &mute, 0));
        let cut = Bytes::from_static(b"\0\0\0\x01\0");
        assert_eq!(tell_throttle(ApiKey::Heartbeat, 4, cut.clone(), 7), cut);
    }

    #[test]
    fn produce_and_fetch_tell_it_too() {
        for version in 3..=13 {
            let topic = match version {
                13 => TopicRef::Id(Uuid::from_u128(1)),
                _ => TopicRef::Name(StrBytes::from_static_str("t")),
            };
            let response = ProduceResponse {
                topics: vec![ProducedTopic {
                    topic,
                    partitions: vec![ProducedPartition::appended(3, 5, 0)],
                }],
                throttle_time_ms: 2,
                node_endpoints: Vec::new(),
            };
            let frame = response.encode(&header(ApiKey::Produce, version)).unwrap();
            let frame = tell_throttle(ApiKey::Produce, version, frame, 77).slice(LENGTH_LEN..);
            let seen = ProduceResponse::decode(version, &frame).unwrap();
            let offset = seen.topics[0].partitions[0].base_offset;
            assert_eq!((seen.throttle_time_ms, offset), (77, 5), "{version}");
        }
        for version in 4..=17 {
            let empty = FetchResponse::<usize> {
                throttle_time_ms: 0,
                error_code: 0,
                session_id: 0,
                topics: Vec::new(),
                node_endpoints: Vec::new(),
            };
            let frame = empty.encode(&header(ApiKey::Fetch, version)).unwrap();
            let Some(Piece::Bytes(front)) = frame.pieces.into_iter().next() else {
                panic!("the front is the encoder's own");
            };
            let front = tell_throttle(ApiKey::Fetch, version, front, 77).slice(LENGTH_LEN..);
            let seen = FetchResponse::<Bytes>::decode(version, &front).unwrap();
            assert_eq!(seen.throttle_time_ms, 77, "{version}");
        }
    }

    #[test]
    fn every_response_whose_schema_has_the_field_is_found_to_have_it() {
        for (api, (_, shape)) in APIS.iter().filter_map(|api| Some((api, shapes(api.key)?))) {
            let has = shape.0.iter().any(|field| field.name == FIELD);
            let lacks = [
                ApiKey::WriteTxnMarkers,
                ApiKey::Envelope,
                ApiKey::DescribeQuorum,
            ];
            let lacks = lacks.contains(&api.key);
            assert_eq!(has, !lacks, "{}", api.name);
        }
    }
}
