//! What the pieces work on: batches of records of 100 bytes, requests and responses around them.

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::fetch::{FetchPartition, FetchRequest, FetchTopic, IsolationLevel};
use ringmill_wire::header::RequestHeader;
use ringmill_wire::produce::{ACKS_ALL, ProducePartition, ProduceRequest, ProduceTopic};
use ringmill_wire::topic::TopicRef;

/// Bytes of a record's value.
pub(crate) const VALUE_LEN: usize = 100;
/// The topic that requests name.
pub(crate) const TOPIC: &str = "flights";
/// Versions that clients of today ask in.
pub(crate) const PRODUCE_VERSION: i16 = 9;
pub(crate) const FETCH_VERSION: i16 = 11;

/// A record with a value that a decoder finds nothing special in.
fn value() -> Vec<u8> {
    (0..VALUE_LEN)
        .map(|at| b' ' + (at * 7 % 64) as u8)
        .collect()
}

/// Adds so many records to a batch.
pub(crate) fn fill(builder: &mut BatchBuilder, records: usize) {
    let value = value();
    for index in 0..records {
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + index as i64,
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).expect("the batch has room");
    }
}

/// A batch of so many records.
pub(crate) fn batch(records: usize) -> Bytes {
    batch_of(records, ProducerStamp::NONE)
}

/// The same, of a producer with sequence numbers.
pub(crate) fn batch_of(records: usize, producer: ProducerStamp) -> Bytes {
    let mut builder = BatchBuilder::new(16 << 20);
    fill(&mut builder, records);
    builder.seal(Compression::None, producer)
}

pub(crate) fn header(key: ApiKey, version: i16) -> RequestHeader {
    RequestHeader {
        key,
        version,
        correlation_id: 7,
        client_id: Some(StrBytes::from_static_str("pieces")),
    }
}

fn topic() -> TopicRef {
    TopicRef::Name(StrBytes::from_static_str(TOPIC))
}

/// A request's frame that writes a batch to each of the partitions.
pub(crate) fn produce_frame(partitions: i32, batch: &Bytes) -> Bytes {
    let partitions = (0..partitions).map(|index| ProducePartition {
        index,
        records: batch.clone(),
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
    let header = header(ApiKey::Produce, PRODUCE_VERSION);
    Bytes::from(request.encode(&header).expect("it is small").concat())
}

/// A request's frame that reads from an offset of each of the partitions, whose answer waits for
/// nothing.
pub(crate) fn fetch_frame(partitions: i32, offset: i64) -> Bytes {
    let partitions = (0..partitions).map(|partition| FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        safe_end: -1,
    });
    let request = FetchRequest {
        replica_id: -1,
        replica_epoch: -1,
        max_wait_ms: 0,
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
    let header = header(ApiKey::Fetch, FETCH_VERSION);
    request.encode(&header).expect("it is small")
}
