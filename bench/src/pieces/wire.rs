//! Bytes alone: checks, frames, requests and responses.

use std::hint::black_box;

use bytes::BytesMut;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{BatchView, Compression, ProducerStamp, produced_batch};
use ringmill_wire::builder::BatchBuilder;
use ringmill_wire::fetch::{FetchRequest, FetchResponse, FetchedPartition, FetchedTopic};
use ringmill_wire::frame::{Frame, LENGTH_LEN, split_frame};
use ringmill_wire::header::RequestHeader;
use ringmill_wire::produce::{ProduceRequest, ProduceResponse, ProducedPartition, ProducedTopic};
use ringmill_wire::record::check_produced_records;
use ringmill_wire::topic::TopicRef;

use crate::material::{
    FETCH_VERSION, PRODUCE_VERSION, TOPIC, batch, fetch_frame, fill, header, produce_frame,
};
use crate::{Piece, collect_here};

const MAX_FRAME: usize = 100 << 20;
/// Records of a large batch.
const MANY: usize = 1000;

pub(crate) fn pieces() -> Vec<Piece> {
    let mut pieces = of_batches();
    pieces.extend(of_messages());
    pieces
}

fn of_batches() -> Vec<Piece> {
    let piece = Piece::new;
    vec![
        piece(
            "crc-16-kib",
            "call",
            200,
            "CRC-32C of 16 KiB",
            crc_of_16_kib,
        ),
        piece(
            "batch-check-1",
            "batch",
            2_000,
            "a produced batch's header and CRC, one record of 100 B",
            |units| check_batch(1, units),
        ),
        piece(
            "batch-check-1000",
            "batch",
            100,
            "the same, 1,000 records",
            |units| check_batch(MANY, units),
        ),
        piece(
            "records-check",
            "record",
            20_000,
            "the shape of each record of a batch of 1,000",
            check_records,
        ),
        piece(
            "batch-build",
            "record",
            20_000,
            "a record appended to a batch of 1,000, and its share of sealing it",
            build,
        ),
    ]
}

fn of_messages() -> Vec<Piece> {
    let piece = Piece::new;
    vec![
        piece(
            "frame-split",
            "frame",
            2_000,
            "a whole frame cut from what was received",
            split,
        ),
        piece(
            "produce-decode",
            "request",
            2_000,
            "a Produce request of one batch: header and body",
            decode_produce,
        ),
        piece(
            "produce-response",
            "response",
            2_000,
            "a Produce response of one partition",
            encode_produced,
        ),
        piece(
            "fetch-decode",
            "request",
            2_000,
            "a Fetch request of ten partitions: header and body",
            decode_fetch,
        ),
        piece(
            "fetch-response",
            "response",
            2_000,
            "a Fetch response of ten partitions, all but their records",
            encode_fetched,
        ),
    ]
}

fn crc_of_16_kib(units: u64) {
    let bytes = vec![7; 16 << 10];
    collect_here(&mut || {
        for _ in 0..units {
            black_box(crc32c::crc32c(black_box(&bytes)));
        }
    });
}

fn check_batch(records: usize, units: u64) {
    let batch = batch(records);
    collect_here(&mut || {
        for _ in 0..units {
            let header = produced_batch(black_box(&batch), 1 << 20);
            black_box(header.expect("our own batch"));
        }
    });
}

fn check_records(units: u64) {
    let batch = batch(MANY);
    let view = BatchView::parse(&batch).expect("our own batch");
    collect_here(&mut || {
        for _ in 0..units / MANY as u64 {
            let looked_at = check_produced_records(black_box(&view), 1 << 20, |_, _| {});
            black_box(looked_at.expect("our own records"));
        }
    });
}

fn build(units: u64) {
    let mut builder = BatchBuilder::new(1 << 20);
    collect_here(&mut || {
        for _ in 0..units / MANY as u64 {
            fill(&mut builder, MANY);
            black_box(builder.seal(Compression::None, ProducerStamp::NONE));
        }
    });
}

fn split(units: u64) {
    let frame = produce_frame(1, &batch(1));
    let mut received = BytesMut::with_capacity(frame.len() * units as usize);
    for _ in 0..units {
        received.extend_from_slice(&frame);
    }
    collect_here(&mut || {
        for _ in 0..units {
            let frame = split_frame(black_box(&mut received), MAX_FRAME);
            assert!(matches!(frame, Ok(Frame::Complete(_))), "it is whole");
        }
    });
}

fn decode_produce(units: u64) {
    let frame = produce_frame(1, &batch(1)).slice(LENGTH_LEN..);
    collect_here(&mut || {
        for _ in 0..units {
            let (header, body) = RequestHeader::decode(black_box(&frame)).expect("our own");
            black_box(ProduceRequest::decode(header.version, &body).expect("our own"));
        }
    });
}

fn encode_produced(units: u64) {
    let header = header(ApiKey::Produce, PRODUCE_VERSION);
    let response = ProduceResponse {
        topics: vec![ProducedTopic {
            topic: TopicRef::Name(StrBytes::from_static_str(TOPIC)),
            partitions: vec![ProducedPartition::appended(0, 4_711, 0)],
        }],
        ..ProduceResponse::default()
    };
    collect_here(&mut || {
        for _ in 0..units {
            black_box(black_box(&response).encode(&header).expect("it is small"));
        }
    });
}

fn decode_fetch(units: u64) {
    let frame = fetch_frame(10, 4_711).slice(LENGTH_LEN..);
    collect_here(&mut || {
        for _ in 0..units {
            let (header, body) = RequestHeader::decode(black_box(&frame)).expect("our own");
            black_box(FetchRequest::decode(header.version, &body).expect("our own"));
        }
    });
}

fn encode_fetched(units: u64) {
    let header = header(ApiKey::Fetch, FETCH_VERSION);
    let partitions = (0..10).map(|index| FetchedPartition::new(index, 65_536));
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: 0,
        session_id: 0,
        topics: vec![FetchedTopic {
            topic: TopicRef::Name(StrBytes::from_static_str(TOPIC)),
            partitions: partitions.collect(),
        }],
        node_endpoints: Vec::new(),
    };
    collect_here(&mut || {
        for _ in 0..units {
            black_box(black_box(&response).encode(&header).expect("it is small"));
        }
    });
}
