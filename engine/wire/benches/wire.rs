//! What the bytes of one request cost: `cargo bench -p ringmill-wire`. What codecs, and records of
//! whole batches, cost is shown by `examples/hot_path.rs`.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{Compression, ProducerStamp, produced_batch};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition, FetchedTopic,
    IsolationLevel,
};
use ringmill_wire::frame::{Frame, LENGTH_LEN, split_frame};
use ringmill_wire::header::RequestHeader;
use ringmill_wire::produce::{
    ACKS_ALL, ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition,
    ProducedTopic,
};
use ringmill_wire::topic::TopicRef;

const MAX_FRAME: usize = 100 << 20;
const PARTITIONS: [i32; 2] = [1, 10];

/// Records with values of 100 bytes.
fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for _ in 0..records {
        let record = NewRecord {
            value: Some(&[b'v'; 100]),
            ..NewRecord::default()
        };
        builder.append(&record).expect("the batch has room");
    }
    builder.seal(Compression::None, ProducerStamp::NONE)
}

fn header(key: ApiKey, version: i16) -> RequestHeader {
    RequestHeader {
        key,
        version,
        correlation_id: 7,
        client_id: Some(StrBytes::from_static_str("bench")),
    }
}

fn topic() -> TopicRef {
    TopicRef::Name(StrBytes::from_static_str("flights"))
}

/// A frame without its length, as the connection hands it on.
fn produce_frame(partitions: i32) -> Bytes {
    let partitions = (0..partitions).map(|index| ProducePartition {
        index,
        records: batch(1),
    });
    let request = ProduceRequest {
        transactional_id: None,
        acks: ACKS_ALL,
        timeout_ms: 30_000,
        topics: vec![ProduceTopic {
            topic: topic(),
            partitions: partitions.collect(),
        }],
    };
    let frame = request.encode(&header(ApiKey::Produce, 9));
    Bytes::from(frame.expect("it is small").concat()).slice(LENGTH_LEN..)
}

fn fetch_frame(partitions: i32) -> Bytes {
    let partitions = (0..partitions).map(|partition| FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset: 4_711,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        safe_end: -1,
    });
    let request = FetchRequest {
        replica_id: -1,
        replica_epoch: -1,
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic(),
            partitions: partitions.collect(),
        }],
        forgotten: Vec::new(),
        rack_id: StrBytes::new(),
    };
    let frame = request.encode(&header(ApiKey::Fetch, 11));
    frame.expect("it is small").slice(LENGTH_LEN..)
}

fn checks(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch check");
    for records in [1, 1000] {
        let batch = batch(records);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        let name = BenchmarkId::from_parameter(format!("{records} records"));
        group.bench_function(name, |b| {
            b.iter(|| produced_batch(black_box(&batch), 1 << 20).expect("our own batch"));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("crc-32c");
    for len in [64, 1 << 10, 16 << 10, 1 << 20] {
        let bytes = vec![7_u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{len} B")), |b| {
            b.iter(|| crc32c::crc32c(black_box(&bytes)));
        });
    }
    group.finish();
}

/// A buffer of so many frames as it was received, cut into them.
fn frames(c: &mut Criterion) {
    const FRAMES: usize = 64;
    let request = produce_frame(1);
    let mut once = BytesMut::new();
    for _ in 0..FRAMES {
        once.extend_from_slice(&(request.len() as i32).to_be_bytes());
        once.extend_from_slice(&request);
    }
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(format!("{FRAMES} split"), |b| {
        let cut = |mut received: BytesMut| {
            while let Ok(Frame::Complete(frame)) = split_frame(&mut received, MAX_FRAME) {
                black_box(frame);
            }
            received
        };
        b.iter_batched(|| once.clone(), cut, BatchSize::SmallInput);
    });
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for partitions in PARTITIONS {
        let frame = produce_frame(partitions);
        group.bench_function(BenchmarkId::new("produce", partitions), |b| {
            b.iter(|| {
                let (header, body) = RequestHeader::decode(black_box(&frame)).expect("our own");
                ProduceRequest::decode(header.version, &body).expect("our own")
            });
        });
        let frame = fetch_frame(partitions);
        group.bench_function(BenchmarkId::new("fetch", partitions), |b| {
            b.iter(|| {
                let (header, body) = RequestHeader::decode(black_box(&frame)).expect("our own");
                FetchRequest::decode(header.version, &body).expect("our own")
            });
        });
    }
    group.finish();
}

fn responses(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for count in PARTITIONS {
        let partitions = (0..count).map(|index| ProducedPartition::appended(index, 4_711, 0));
        let response = ProduceResponse {
            topics: vec![ProducedTopic {
                topic: topic(),
                partitions: partitions.collect(),
            }],
            ..ProduceResponse::default()
        };
        let told = header(ApiKey::Produce, 9);
        group.bench_function(BenchmarkId::new("produce", count), |b| {
            b.iter(|| black_box(&response).encode(&told).expect("it is small"));
        });
        let partitions = (0..count).map(|index| FetchedPartition::new(index, 65_536));
        let response = FetchResponse {
            throttle_time_ms: 0,
            error_code: 0,
            session_id: 0,
            topics: vec![FetchedTopic {
                topic: topic(),
                partitions: partitions.collect(),
            }],
            node_endpoints: Vec::new(),
        };
        let told = header(ApiKey::Fetch, 11);
        group.bench_function(BenchmarkId::new("fetch", count), |b| {
            b.iter(|| black_box(&response).encode(&told).expect("it is small"));
        });
    }
    group.finish();
}

criterion_group!(benches, checks, frames, requests, responses);
criterion_main!(benches);
