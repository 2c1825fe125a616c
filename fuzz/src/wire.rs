//! Targets of `ringmill-wire`: whatever decodes must also hold what its types promise.

use bytes::{Bytes, BytesMut};
use ringmill_wire::api::{Api, ApiKey};
use ringmill_wire::batch::{
    Assignment, BatchView, Batches, HEADER_LEN, assigned_header, is_zeros, produced_batch,
    set_append_time, set_base_offset, set_leader_epoch,
};
use ringmill_wire::compression::{Compression, compress, decompress};
use ringmill_wire::control::{decode_request, unsupported_api_versions};
use ringmill_wire::fetch::{FetchRequest, FetchResponse};
use ringmill_wire::frame::{Frame, LENGTH_LEN, split_frame};
use ringmill_wire::header::{HeaderError, RequestHeader};
use ringmill_wire::produce::{ProduceRequest, ProduceResponse};
use ringmill_wire::record::{Records, check_produced_records, decoded};

/// What a batch may decompress to: small, so that a run is quick.
const DECOMPRESSED_MAX: usize = 1 << 20;
/// Largest frame in the frame target.
const FRAME_MAX: usize = 1 << 16;

/// A run of batches: the walk covers it without gaps, checks agree with each other, records stay
/// within their batch, and patches keep a good batch good.
pub(crate) fn batch(data: &[u8]) {
    let mut end = 0;
    let mut walk = Batches::new(data);
    for item in walk.by_ref() {
        let Ok((position, view)) = item else { break };
        assert_eq!(position, end, "batches stand one after the other");
        end += view.size();
        check_batch(&view);
    }
    assert_eq!(walk.position(), end);
    if walk.ended_in_zeros() {
        assert!(is_zeros(&data[end..data.len().min(end + HEADER_LEN)]));
    }
    if let Ok(header) = produced_batch(&Bytes::copy_from_slice(data), data.len()) {
        assert_eq!(header.size(), data.len());
        assert_eq!(header.next_offset(), i64::from(header.records_count));
    }
}

fn check_batch(view: &BatchView<'_>) {
    let is_intact = view.check_crc().is_ok();
    if view.check_produced(usize::MAX).is_ok() {
        assert!(is_intact && view.header().compression().is_ok());
    }
    let count = view.header().records_count;
    if let Ok(records) = decoded(view, DECOMPRESSED_MAX) {
        assert!(records.len() <= DECOMPRESSED_MAX.max(view.size()));
        let walked: Result<Vec<_>, _> = Records::new(view.header(), &records).collect();
        if let Ok(walked) = walked {
            assert_eq!(walked.len(), count.max(0) as usize);
            for record in walked {
                assert_eq!(record.headers.iter().count(), record.headers.len());
            }
        } else {
            assert!(check_produced_records(view, DECOMPRESSED_MAX, |_, _| {}).is_err());
        }
    }
    let assignment = Assignment {
        base_offset: 1 << 40,
        leader_epoch: 9,
        append_time: None,
    };
    let mut patched = view.bytes().to_vec();
    set_base_offset(&mut patched, assignment.base_offset);
    set_leader_epoch(&mut patched, assignment.leader_epoch);
    assert_eq!(assigned_header(view, assignment), patched[..HEADER_LEN]);
    let again = BatchView::parse(&patched).expect("a patched batch is a batch");
    assert_eq!(again.check_crc().is_ok(), is_intact);
    set_append_time(&mut patched, 5);
    let again = BatchView::parse(&patched).expect("a patched batch is a batch");
    again
        .check_crc()
        .expect("the append time comes with its CRC");
}

/// One byte that names a codec, then data: what decompresses stays under the limit, and what is
/// compressed comes back.
pub(crate) fn compression(data: &[u8]) {
    let Some((codec, data)) = data.split_first() else {
        return;
    };
    let Some(codec) = Compression::from_id(i16::from(codec % 5)) else {
        return;
    };
    if let Ok(out) = decompress(codec, data, DECOMPRESSED_MAX) {
        assert!(out.len() <= DECOMPRESSED_MAX);
    }
    let mut packed = BytesMut::new();
    compress(codec, data, &mut packed);
    let back = decompress(codec, &packed, data.len());
    assert_eq!(back.expect("our own data decompresses"), data);
}

/// A control request's frame, header and body.
pub(crate) fn control(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    match RequestHeader::decode(&frame) {
        Ok((header, body)) => {
            assert!(header.key.api().serves(header.version));
            if let Ok(request) = decode_request(&header, &body) {
                assert_eq!(request.key(), header.key);
            }
        }
        Err(HeaderError::UnsupportedVersion {
            key,
            version,
            correlation_id,
        }) => {
            assert!(!key.api().serves(version));
            if key == ApiKey::ApiVersions {
                assert!(!unsupported_api_versions(correlation_id).is_empty());
            }
        }
        Err(HeaderError::UnknownApi { key, .. }) => assert!(Api::by_number(key).is_none()),
        Err(HeaderError::Malformed(_)) => {}
    }
}

/// A header for a version that the first byte chooses, and the bytes after it.
fn versioned(key: ApiKey, data: &[u8]) -> Option<(RequestHeader, Bytes)> {
    let (version, body) = data.split_first()?;
    let api = key.api();
    let version = api.min + i16::from(*version) % (api.max - api.min + 1);
    let header = RequestHeader {
        key,
        version,
        correlation_id: 1,
        client_id: None,
    };
    Some((header, Bytes::copy_from_slice(body)))
}

/// The body out of a request's frame that we have encoded.
fn body_of(frame: &Bytes, header: &RequestHeader) -> Bytes {
    let (read, body) = RequestHeader::decode(&frame.slice(LENGTH_LEN..)).expect("our own header");
    assert_eq!(&read, header);
    body
}

/// A Produce request's body, and a response's frame: what decodes is encoded to what decodes to it.
pub(crate) fn produce(data: &[u8]) {
    let Some((header, body)) = versioned(ApiKey::Produce, data) else {
        return;
    };
    if let Ok(request) = ProduceRequest::decode(header.version, &body) {
        let pieces = request.encode(&header).expect("it came in one frame");
        let again = body_of(&Bytes::from(pieces.concat()), &header);
        assert_eq!(ProduceRequest::decode(header.version, &again), Ok(request));
    }
    if let Ok(response) = ProduceResponse::decode(header.version, &body) {
        let frame = response.encode(&header).expect("it came in one frame");
        let again = ProduceResponse::decode(header.version, &frame.slice(LENGTH_LEN..));
        assert_eq!(again, Ok(response));
    }
}

/// A Fetch request's body, and a response's frame: what decodes is encoded to what decodes to it.
pub(crate) fn fetch(data: &[u8]) {
    let Some((header, body)) = versioned(ApiKey::Fetch, data) else {
        return;
    };
    if let Ok(request) = FetchRequest::decode(header.version, &body) {
        let frame = request.encode(&header).expect("it came in one frame");
        let again = FetchRequest::decode(header.version, &body_of(&frame, &header));
        // a replica's state is not sent for a consumer
        let epochs_agree = |a: &FetchRequest| a.replica_epoch == request.replica_epoch;
        let again = again.expect("our own request decodes");
        assert!(epochs_agree(&again) || request.replica_id == -1);
        assert_eq!(
            FetchRequest {
                replica_epoch: request.replica_epoch,
                ..again
            },
            request
        );
    }
    if let Ok(response) = FetchResponse::decode(header.version, &body) {
        let records = response.topics.iter().flat_map(|topic| &topic.partitions);
        let taken: usize = records.map(|partition| partition.records.len()).sum();
        assert!(taken <= body.len(), "records are slices of the frame");
    }
}

/// What a peer sends, in pieces whose size the first byte chooses: the same frames come out however
/// it is cut, and no more is asked for than one frame.
pub(crate) fn frame(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else {
        return;
    };
    let mut whole = BytesMut::from(stream);
    let mut cut = BytesMut::new();
    let mut pieces = stream.chunks(usize::from(*piece).max(1));
    loop {
        let expected = split_frame(&mut whole, FRAME_MAX);
        let got = loop {
            match split_frame(&mut cut, FRAME_MAX) {
                Ok(Frame::Partial { missing }) => {
                    assert!((1..=FRAME_MAX).contains(&missing));
                    match pieces.next() {
                        Some(piece) => cut.extend_from_slice(piece),
                        None => break Ok(Frame::Partial { missing }),
                    }
                }
                other => break other,
            }
        };
        assert_eq!(got, expected);
        let Ok(Frame::Complete(frame)) = got else {
            break;
        };
        assert!((1..=FRAME_MAX).contains(&frame.len()));
    }
}
