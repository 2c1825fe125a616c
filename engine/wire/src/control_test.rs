//! Tests of the door to the protocol crate: the shapes agree with its decoder for every API and
//! version, and what it would trust blindly is refused.

use bytes::BufMut;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;

use super::shape::{Field, Kind};
use super::*;
use crate::features::TRANSACTION_VERSION;
use crate::primitive::put_uvarint;

/// All that is in `body`, read as a `T` and written again.
pub(super) fn pass_as<T: Decodable + Encodable>(
    version: i16,
    body: &[u8],
) -> Result<Bytes, String> {
    let mut bytes = Bytes::copy_from_slice(body);
    let message = T::decode(&mut bytes, version).map_err(|cause| cause.to_string())?;
    assert!(bytes.is_empty(), "the decoder left {} bytes", bytes.len());
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .map_err(|cause| cause.to_string())?;
    assert_eq!(message.compute_size(version).unwrap(), out.len());
    Ok(out.freeze())
}

/// Writes random messages of a shape.
struct Writer {
    encoding: Encoding,
    random: u64,
    out: BytesMut,
    /// Whether something was written that the decoder need not give back byte for byte.
    lossy: bool,
}

impl Writer {
    fn message(shape: &Shape, encoding: Encoding, seed: u64) -> Self {
        let mut writer = Self {
            encoding,
            random: seed,
            out: BytesMut::new(),
            lossy: false,
        };
        writer.fields(shape.0);
        writer
    }

    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn fields(&mut self, fields: &[Field]) {
        let version = self.encoding.version;
        for field in fields
            .iter()
            .filter(|f| f.tag.is_none() && f.exists_in(version))
        {
            self.value(&field.kind);
        }
        if !self.encoding.flexible {
            return;
        }
        let mut tags: Vec<(u32, BytesMut)> = Vec::new();
        for field in fields
            .iter()
            .filter(|f| f.tag.is_some() && f.exists_in(version))
        {
            let outer = std::mem::take(&mut self.out);
            self.value(&field.kind);
            self.lossy = true;
            tags.push((field.tag.unwrap(), std::mem::replace(&mut self.out, outer)));
        }
        if self.below(4) == 0 {
            tags.push((100, BytesMut::from(&b"unknown"[..])));
            tags.push((1 << 20, BytesMut::new()));
        }
        crate::primitive::put_tags(&mut self.out, true, &tags);
    }

    fn count(&mut self, count: usize, narrow: bool) {
        if self.encoding.flexible {
            put_uvarint(&mut self.out, count as u64 + 1);
        } else if narrow {
            self.out.put_i16(count as i16);
        } else {
            self.out.put_i32(count as i32);
        }
    }

    fn value(&mut self, kind: &Kind) {
        match kind {
            Kind::Fixed(1) => {
                let byte = self.below(2) as u8; // a boolean, perhaps
                self.out.put_u8(byte);
            }
            Kind::Fixed(size) => {
                for _ in 0..*size {
                    let byte = self.below(256) as u8;
                    self.out.put_u8(byte);
                }
            }
            Kind::String | Kind::Bytes => {
                let length = self.below(5) as usize;
                self.count(length, matches!(kind, Kind::String));
                self.out.extend_from_slice(&b"text"[..length]);
            }
            Kind::Array(element) => {
                let count = self.below(4) as usize;
                self.count(count, false);
                (0..count).for_each(|_| self.value(element));
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(content) => {
                let is_there = self.below(2) == 0;
                self.out.put_i8(if is_there { 1 } else { -1 });
                if is_there {
                    self.value(content);
                }
            }
        }
    }
}

fn controls() -> impl Iterator<Item = (ApiKey, i16)> {
    let rows = APIS.iter().filter(|api| shapes(api.key).is_some());
    rows.flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)))
}

fn shape_of(key: ApiKey, is_request: bool) -> &'static Shape {
    let (request, response) = shapes(key).unwrap();
    if is_request { request } else { response }
}

fn check(key: ApiKey, version: i16, is_request: bool, body: &[u8]) -> Result<(), ShapeError> {
    let shape = shape_of(key, is_request);
    shape.check(encoding(key, version), &mut Reader::new(body))
}

fn header(key: ApiKey, version: i16) -> RequestHeader {
    let client_id = Some(StrBytes::from_static_str("test"));
    RequestHeader {
        key,
        version,
        correlation_id: 7,
        client_id,
    }
}

#[test]
fn all_but_produce_and_fetch_are_control_messages() {
    let missing: Vec<ApiKey> = APIS
        .iter()
        .map(|api| api.key)
        .filter(|key| shapes(*key).is_none())
        .collect();
    assert_eq!(missing, [ApiKey::Produce, ApiKey::Fetch]);
    let error = decode_request(&header(ApiKey::Produce, 9), &[]).unwrap_err();
    assert_eq!(error, DecodeError::NotControl { api: "Produce" });
}

#[test]
fn shapes_agree_with_the_decoder_in_every_version() {
    for (key, version) in controls() {
        for is_request in [true, false] {
            for seed in 0..50 {
                let written =
                    Writer::message(shape_of(key, is_request), encoding(key, version), seed);
                let what = format!("{key:?} version {version} request {is_request} seed {seed}");
                check(key, version, is_request, &written.out)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let passed = pass_through(key, version, is_request, &written.out)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                if !written.lossy {
                    assert_eq!(passed, written.out, "{what}");
                }
                check(key, version, is_request, &passed)
                    .unwrap_or_else(|error| panic!("{what}, passed: {error}"));
            }
        }
    }
}

#[test]
fn every_cut_and_every_extra_byte_is_refused() {
    for (key, version) in controls() {
        for is_request in [true, false] {
            let written = Writer::message(shape_of(key, is_request), encoding(key, version), 5).out;
            for end in 0..written.len() {
                let error = check(key, version, is_request, &written[..end]);
                assert!(error.is_err(), "{key:?} version {version} cut at {end}");
            }
            let longer = [&written[..], &[0]].concat();
            let error = check(key, version, is_request, &longer).unwrap_err();
            assert!(
                matches!(error.error, ReadError::Trailing { left: 1, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn librdkafkas_metadata_request_for_all_topics_is_answered_in_spite_of_its_extra_bytes() {
    let with_extra = |key: ApiKey, version: i16, body: &[u8]| {
        let body = [body, &[0, 0, 0]].concat();
        decode_request(&header(key, version), &body)
    };
    assert!(with_extra(ApiKey::Metadata, 13, &[0, 1, 0, 0]).is_ok());
    assert!(with_extra(ApiKey::DescribeCluster, 0, &[0, 0]).is_err());
}

#[test]
fn two_billion_claimed_topics_are_refused_without_allocation() {
    let error = decode_request(&header(ApiKey::Metadata, 1), &i32::MAX.to_be_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Metadata version 1, topics: array of 2147483647 elements at byte 0, but only 0 bytes remain"
    );
    let mut compact = BytesMut::new();
    put_uvarint(&mut compact, u32::MAX.into());
    compact.extend_from_slice(&[0; 100]);
    assert!(decode_request(&header(ApiKey::Metadata, 12), &compact).is_err());
}

#[test]
fn more_elements_than_a_request_may_have_are_refused() {
    let many = crate::primitive::MAX_REQUEST_ELEMENTS + 1;
    let mut body = BytesMut::new();
    body.put_i32(many as i32);
    body.put_bytes(0, many * 2); // as many empty names
    let error = decode_request(&header(ApiKey::Metadata, 1), &body).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

#[test]
fn null_and_text_that_is_not_utf8_are_refused_where_a_name_must_be() {
    let body = [0, 0, 0, 1, 0xff, 0xff];
    let error = decode_request(&header(ApiKey::DescribeGroups, 0), &body).unwrap_err();
    assert!(matches!(error, DecodeError::Value { .. }), "{error}");
    let body = [0, 0, 0, 1, 0, 1, 0xff];
    let error = decode_request(&header(ApiKey::DescribeGroups, 0), &body).unwrap_err();
    assert!(matches!(error, DecodeError::Value { .. }), "{error}");
}

#[test]
fn a_request_and_its_response_come_through() {
    for version in 0..=13 {
        let header = header(ApiKey::Metadata, version);
        let topic = MetadataRequestTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("flights"))));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let frame = encode_request(&header, &request).unwrap();
        let length = i32::from_be_bytes(*frame.first_chunk().unwrap());
        assert_eq!(length as usize, frame.len() - 4);
        let (read, body) = RequestHeader::decode(&frame.slice(4..)).unwrap();
        assert_eq!(read, header);
        let read = decode_request(&read, &body).unwrap();
        assert_eq!(
            (read.key(), &read),
            (ApiKey::Metadata, &Request::Metadata(request))
        );

        let response = MetadataResponse::default().with_cluster_id(None);
        let frame = encode_response(&header, &response).unwrap().slice(4..);
        assert_eq!(crate::header::response_correlation_id(&frame), Ok(7));
        let read = decode_response::<MetadataRequest>(version, &frame).unwrap();
        assert_eq!(read, response);
    }
}

#[test]
fn a_kept_name_does_not_hold_on_to_the_receive_buffer() {
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![GroupId(StrBytes::from_static_str("group"))]);
    let header = header(ApiKey::DescribeGroups, 5);
    let frame = encode_request(&header, &request).unwrap().slice(4..);
    let (header, body) = RequestHeader::decode(&frame).unwrap();
    let Ok(Request::DescribeGroups(read)) = decode_request(&header, &body) else {
        panic!("a DescribeGroups request");
    };
    let kept = read.groups[0].0.clone().into_bytes();
    assert!(!frame.as_ptr_range().contains(&kept.as_ptr()));
}

#[test]
fn a_newer_api_versions_gets_an_answer_in_version_0() {
    let request = [0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0];
    let error = RequestHeader::decode(&Bytes::copy_from_slice(&request)).unwrap_err();
    let crate::header::HeaderError::UnsupportedVersion {
        key,
        version,
        correlation_id,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((key, version, correlation_id), (ApiKey::ApiVersions, 99, 5));
    let frame = unsupported_api_versions(correlation_id);
    // length, correlation id, error 35, count of rows, then six bytes a row: ApiVersions' alone
    assert_eq!(frame[4..10], [0, 0, 0, 5, 0, 35]);
    assert_eq!(frame.len(), 4 + 4 + 2 + 4 + 6);
    let read = decode_response::<ApiVersionsRequest>(0, &frame.slice(4..)).unwrap();
    let [row] = &read.api_keys[..] else {
        panic!("one row: {:?}", read.api_keys);
    };
    assert_eq!(
        (row.api_key, row.max_version),
        (18, ApiKey::ApiVersions.api().max)
    );
}

fn told(version: i16) -> ApiVersionsResponse {
    let levels = Levels::from([(TRANSACTION_VERSION.to_owned(), 2)]);
    api_versions(version, &features::supported(), &levels, 77)
}

#[test]
fn api_versions_response_has_a_header_without_tags() {
    let header = header(ApiKey::ApiVersions, 3);
    let frame = encode_response(&header, &told(header.version)).unwrap();
    let rows = APIS.iter().filter(|api| !api.internal).count() as u8 + 1;
    assert_eq!(frame[4..11], [0, 0, 0, 7, 0, 0, rows]);
}

#[test]
fn features_are_told_to_clients_that_can_read_them() {
    for (version, lowest) in [(0, None), (3, None), (4, Some(0))] {
        let header = header(ApiKey::ApiVersions, version);
        let frame = encode_response(&header, &told(version)).unwrap();
        let read = decode_response::<ApiVersionsRequest>(version, &frame.slice(4..)).unwrap();
        let mut found = read.supported_features.iter();
        let found = found.find(|feature| &*feature.name == "transaction.version");
        let range = found.map(|feature| (feature.min_version, feature.max_version));
        assert_eq!(range, lowest.map(|lowest| (lowest, 2)));
        let finalized = read.finalized_features.iter();
        let level = finalized.map(|feature| feature.max_version_level).max();
        assert_eq!(level, (version >= 3).then_some(2));
        let epoch = if version >= 3 { 77 } else { -1 };
        assert_eq!(read.finalized_features_epoch, epoch);
    }
}

#[test]
fn produce_is_advertised_from_0_for_old_librdkafka() {
    let rows = told(0).api_keys;
    let produce = rows.iter().find(|row| row.api_key == 0).unwrap();
    assert_eq!(produce.min_version, 0);
    let metadata = rows.iter().find(|row| row.api_key == 3).unwrap();
    assert_eq!((metadata.min_version, metadata.max_version), (0, 13));
}

proptest! {
    #[test]
    fn what_the_walk_passes_the_decoder_takes_without_panic(
        seed: u64,
        api in 0..APIS.len(),
        version: prop::sample::Index,
        is_request: bool,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let api = &APIS[api];
        prop_assume!(shapes(api.key).is_some());
        let version = api.min + version.index((api.max - api.min + 1) as usize) as i16;
        let shape = shape_of(api.key, is_request);
        let mut written = Writer::message(shape, encoding(api.key, version), seed).out;
        prop_assume!(!written.is_empty());
        let at = at.index(written.len());
        written[at] = byte;
        if check(api.key, version, is_request, &written).is_ok() {
            let _ = pass_through(api.key, version, is_request, &written);
        }
    }
}
