//! What the tests of the two hand-written codecs share: random values, and headers around bodies.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use crate::api::ApiKey;
use crate::header::RequestHeader;
use crate::leader::{CurrentLeader, NodeEndpoint};
use crate::topic::TopicRef;

pub(crate) fn any_str() -> impl Strategy<Value = StrBytes> {
    "[a-zà-ÿ]{0,12}".prop_map(StrBytes::from_string)
}

pub(crate) fn any_topic(version: i16) -> BoxedStrategy<TopicRef> {
    if version >= TopicRef::FIRST_BY_ID {
        any::<u128>()
            .prop_map(|id| TopicRef::Id(Uuid::from_u128(id)))
            .boxed()
    } else {
        any_str().prop_map(TopicRef::Name).boxed()
    }
}

/// Name and id as the protocol crate's types hold them.
pub(crate) fn name_and_id(topic: &TopicRef) -> (StrBytes, Uuid) {
    match topic {
        TopicRef::Name(name) => (name.clone(), Uuid::nil()),
        TopicRef::Id(id) => (StrBytes::new(), *id),
    }
}

pub(crate) fn any_bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Bytes::from)
}

pub(crate) fn any_leader() -> impl Strategy<Value = CurrentLeader> {
    // the protocol crate leaves out a leader whose fields are the defaults
    (0..i32::MAX, any::<i32>()).prop_map(|(leader_id, leader_epoch)| CurrentLeader {
        leader_id,
        leader_epoch,
    })
}

pub(crate) fn any_endpoint() -> impl Strategy<Value = NodeEndpoint> {
    (
        any::<i32>(),
        any_str(),
        any::<i32>(),
        proptest::option::of(any_str()),
    )
        .prop_map(|(node_id, host, port, rack)| NodeEndpoint {
            node_id,
            host,
            port,
            rack,
        })
}

/// A version of the API's.
pub(crate) fn any_version(key: ApiKey) -> impl Strategy<Value = i16> {
    key.api().min..=key.api().max
}

pub(crate) fn header(key: ApiKey, version: i16) -> RequestHeader {
    let client_id = Some(StrBytes::from_static_str("test"));
    RequestHeader {
        key,
        version,
        correlation_id: 7,
        client_id,
    }
}

/// The protocol crate's bytes of a message.
pub(crate) fn encoded<M: Encodable>(message: &M, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .expect("the message suits the version");
    out.freeze()
}

/// What the protocol crate reads from all of `body`.
pub(crate) fn decoded<M: Decodable>(body: &Bytes, version: i16) -> M {
    let mut body = body.clone();
    let message = M::decode(&mut body, version).expect("the bytes suit the version");
    assert!(body.is_empty());
    message
}

/// A request's body out of its frame.
pub(crate) fn body_of_request(frame: &Bytes, header: &RequestHeader) -> Bytes {
    let length = i32::from_be_bytes(*frame.first_chunk().unwrap());
    assert_eq!(length as usize, frame.len() - 4);
    let (read, body) = RequestHeader::decode(&frame.slice(4..)).unwrap();
    assert_eq!(&read, header);
    body
}

/// A response's body out of its frame, which has a length and must have the right header.
pub(crate) fn body_of_response(frame: &Bytes, header: &RequestHeader) -> Bytes {
    let length = i32::from_be_bytes(*frame.first_chunk().unwrap());
    assert_eq!(length as usize, frame.len() - 4);
    let frame = frame.slice(4..);
    assert_eq!(
        crate::header::response_correlation_id(&frame),
        Ok(header.correlation_id)
    );
    crate::header::response_body(header.key, header.version, &frame).unwrap()
}
