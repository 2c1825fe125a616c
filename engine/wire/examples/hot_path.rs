//! Measures what a produced record costs: `cargo run --release -p ringmill-wire --example hot_path`.
//!
//! One core, everything in cache as it would be on the way from a socket; prints the best of some
//! rounds, since the rest is noise of the machine.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{BatchView, Compression, ProducerStamp, produced_batch};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::fetch::{FetchResponse, FetchedPartition, FetchedTopic};
use ringmill_wire::frame::LENGTH_LEN;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use ringmill_wire::record::{Records, check_produced_records, decoded};
use ringmill_wire::topic::TopicRef;
use ringmill_wire::{StrBytes, Uuid};

const ROUNDS: usize = 50;
/// Records in a batch of 100-byte values: as much as Kafka's `batch.size` of 16 KiB times 4.
const RECORDS: usize = 600;

/// The shortest time of one call, in nanoseconds.
fn best(mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    best
}

/// The same for calls too short for the clock.
fn best_of_many(mut call: impl FnMut()) -> f64 {
    const CALLS: usize = 1000;
    best(|| (0..CALLS).for_each(|_| call())) / CALLS as f64
}

fn fill(builder: &mut BatchBuilder, value: &[u8]) {
    for index in 0..RECORDS {
        let timestamp = 1_700_000_000_000 + index as i64;
        let record = NewRecord {
            timestamp,
            value: Some(value),
            ..NewRecord::default()
        };
        builder
            .append(black_box(&record))
            .expect("the batch has room");
    }
}

fn build(codec: Compression) -> Bytes {
    let value: Vec<u8> = (0..100_u32).map(|i| (i * 7 % 64) as u8 + b' ').collect();
    let mut builder = BatchBuilder::new(1 << 20);
    let time = best(|| {
        for _ in 0..20 {
            fill(&mut builder, &value);
            black_box(builder.seal(codec, ProducerStamp::NONE));
        }
    }) / 20.0;
    fill(&mut builder, &value);
    let batch = builder.seal(codec, ProducerStamp::NONE);
    println!(
        "build {codec:6} {:6.2} M records/s, {:5.1} ns each, batch of {} bytes",
        RECORDS as f64 / time * 1e3,
        time / RECORDS as f64,
        batch.len(),
    );
    batch
}

fn read(codec: Compression, batch: &Bytes) {
    let view = BatchView::parse(batch).expect("our own batch");
    let time = best_of_many(|| view.check_crc().expect("our own batch"));
    println!("crc   {codec:6} {:6.2} GB/s", batch.len() as f64 / time);
    let time = best(|| {
        let records = decoded(&view, 1 << 20).expect("our own batch");
        for record in Records::new(view.header(), &records) {
            black_box(record.expect("our own record").value);
        }
    });
    println!(
        "read  {codec:6} {:6.2} M records/s",
        RECORDS as f64 / time * 1e3
    );
    let time = best(|| {
        check_produced_records(&view, 1 << 20, |_, _| {}).expect("our own batch");
    });
    println!(
        "check {codec:6} {:6.2} M records/s, each record's shape",
        RECORDS as f64 / time * 1e3
    );
}

fn produce(batch: &Bytes) {
    for (version, topic) in [
        (7, TopicRef::Name(StrBytes::from_static_str("flights"))),
        (13, TopicRef::Id(Uuid::nil())),
    ] {
        let header = RequestHeader {
            key: ApiKey::Produce,
            version,
            correlation_id: 1,
            client_id: None,
        };
        let partitions = vec![ProducePartition {
            index: 0,
            records: batch.clone(),
        }];
        let topics = vec![ProduceTopic { topic, partitions }];
        let request = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 1,
            topics,
        };
        let time = best_of_many(|| drop(black_box(request.encode(&header))));
        println!("produce request v{version}: encode {time:5.0} ns");
        let frame = Bytes::from(request.encode(&header).expect("small").concat());
        let frame = frame.slice(LENGTH_LEN..);
        let time = best_of_many(|| {
            let (header, body) = RequestHeader::decode(&frame).expect("our own header");
            black_box(ProduceRequest::decode(header.version, &body).expect("our own request"));
        });
        println!("produce request v{version}: header and body decode {time:5.0} ns");
        let time = best_of_many(|| {
            let (header, body) = RequestHeader::decode(&frame).expect("our own header");
            let request = ProduceRequest::decode(header.version, &body).expect("our own request");
            let records = &request.topics[0].partitions[0].records;
            black_box(produced_batch(records, 1 << 20).expect("our own batch"));
        });
        println!("produce request v{version}: decode and check its batch with CRC {time:5.0} ns");
    }
}

fn fetch() {
    let header = RequestHeader {
        key: ApiKey::Fetch,
        version: 17,
        correlation_id: 1,
        client_id: None,
    };
    let partitions = (0..10)
        .map(|index| FetchedPartition::new(index, 65_536))
        .collect();
    let topics = vec![FetchedTopic {
        topic: TopicRef::Id(Uuid::nil()),
        partitions,
    }];
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: 0,
        session_id: 0,
        topics,
        node_endpoints: Vec::new(),
    };
    let time = best_of_many(|| drop(black_box(response.encode(&header))));
    println!("fetch response v17 of 10 partitions: encode {time:5.0} ns");
}

fn main() {
    for codec in Compression::ALL {
        let batch = build(codec);
        read(codec, &batch);
    }
    let value = [b'v'; 100];
    let mut builder = BatchBuilder::new(1 << 20);
    fill(&mut builder, &value);
    produce(&builder.seal(Compression::None, ProducerStamp::NONE));
    fetch();
}
