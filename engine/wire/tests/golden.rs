//! What other clients have really written is read as they meant it.
//!
//! `golden/librdkafka-produce-VERSION-CODEC` are Produce requests of librdkafka 2.16, taken off a
//! socket; `golden/kafka-python-batch-CODEC` are batches of kafka-python 3.0. All hold the same 40
//! records. librdkafka writes raw snappy blocks, kafka-python xerial's framing.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use ringmill_wire::batch::{BatchHeader, BatchView, Compression, produced_batch};
use ringmill_wire::header::RequestHeader;
use ringmill_wire::produce::{ACKS_ALL, ProduceRequest};
use ringmill_wire::record::{Records, check_produced_records, decoded};

const LIMIT: usize = 1 << 20;

fn golden(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .into()
}

fn check_batch(batch: &Bytes, codec: Compression) -> BatchHeader {
    let header = produced_batch(batch, LIMIT).unwrap();
    assert_eq!(header.compression(), Ok(codec));
    assert_eq!(header.records_count, 40);
    let view = BatchView::parse(batch).unwrap();
    check_produced_records(&view, LIMIT, |_, _| {}).unwrap();
    let bytes = decoded(&view, LIMIT).unwrap();
    for (index, record) in (0..40_i64).zip(Records::new(&header, &bytes)) {
        let record = record.unwrap();
        assert_eq!(
            (record.offset, record.timestamp),
            (index, 1_700_000_000_000 + index)
        );
        let key = (index % 3 == 0).then(|| format!("k{index}"));
        assert_eq!(record.key, key.as_deref().map(str::as_bytes));
        let value = format!("value number {index} of a compressible kind");
        assert_eq!(record.value, Some(value.as_bytes()));
        let headers: Vec<_> = record.headers.iter().map(|h| (h.key, h.value)).collect();
        let expected = [(&b"h"[..], Some(&b"1"[..])), (&b"n"[..], None)];
        assert_eq!(headers, expected[..if index == 1 { 2 } else { 0 }]);
    }
    header
}

#[test]
fn librdkafkas_requests_are_read() {
    for version in [7, 10] {
        for codec in Compression::ALL {
            let frame = golden(&format!("librdkafka-produce-{version}-{codec}"));
            let (header, body) = RequestHeader::decode(&frame).unwrap();
            assert_eq!(header.version, version);
            assert_eq!(header.client_id.as_deref(), Some("rdkafka"));
            let request = ProduceRequest::decode(version, &body).unwrap();
            assert_eq!((request.acks, request.timeout_ms), (ACKS_ALL, 30_000));
            assert_eq!(
                (request.topics.len(), request.topics[0].partitions.len()),
                (1, 1)
            );
            let batch = check_batch(&request.topics[0].partitions[0].records, codec);
            let is_idempotent = version == 10 && codec == Compression::None;
            assert_eq!(batch.has_producer_id(), is_idempotent);
            if is_idempotent {
                let producer = (batch.producer_id, batch.producer_epoch, batch.base_sequence);
                assert_eq!(producer, (4242, 0, 0));
            }
            // and written again as it came
            assert_eq!(request.encode(&header).unwrap().concat()[4..], frame);
        }
    }
}

#[test]
fn kafka_pythons_batches_are_read() {
    for codec in Compression::ALL {
        check_batch(&golden(&format!("kafka-python-batch-{codec}")), codec);
    }
}
