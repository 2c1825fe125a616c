//! Small, well-formed inputs of each target, from which fuzzing starts.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use capnp::capability::FromClientHook;
use ringmill_log::{CacheLimits, Cleaner, CompactionConfig, CoreCaches, LogConfig, Partition};
use ringmill_ring::sim::World;
use ringmill_ring::{ListenOptions, TcpListener};
use ringmill_rpc::objects::names_capnp::name_service;
use ringmill_rpc::objects::{ObjectClient, ObjectOptions, within};
use ringmill_wire::api::{APIS, ApiKey, OWN_APIS};
use ringmill_wire::batch::{ProducerStamp, set_base_offset};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::compression::{Compression, compress};
use ringmill_wire::fetch::{
    AbortedTransaction, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition,
    FetchedTopic, ForgottenTopic, IsolationLevel, Piece,
};
use ringmill_wire::frame::LENGTH_LEN;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::leader::{CurrentLeader, NodeEndpoint};
use ringmill_wire::produce::{
    ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition,
    ProducedTopic, RecordError,
};
use ringmill_wire::record::Header;
use ringmill_wire::topic::TopicRef;
use ringmill_wire::{StrBytes, Uuid};

use crate::{objects, recovery};

/// The seeds of a target, each with the name of its file; none for an unknown one.
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "batch" => batches(),
        "compression" => compressed(),
        "control" => controls(),
        "fetch" => fetches(),
        "frame" => frames(),
        "objects" => conversations(),
        "produce" => produces(),
        "recovery" => folders(),
        _ => Vec::new(),
    }
}

fn batch(codec: Compression, records: usize) -> Bytes {
    stamped(codec, records, ProducerStamp::NONE)
}

fn stamped(codec: Compression, records: usize, stamp: ProducerStamp) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 16);
    let headers = [
        Header {
            key: b"h",
            value: Some(b"1"),
        },
        Header {
            key: b"n",
            value: None,
        },
    ];
    for index in 0..records {
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + index as i64,
            key: (index % 2 == 0).then_some(&b"key"[..]),
            value: (index % 3 != 2).then_some(&b"value value value"[..]),
            headers: &headers[..index % 3],
        };
        builder.append(&record).expect("a small batch");
    }
    builder.seal(codec, stamp)
}

fn batches() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> = Compression::ALL
        .map(|codec| (codec.name().to_owned(), batch(codec, 5).to_vec()))
        .into();
    let mut second = batch(Compression::None, 2).to_vec();
    set_base_offset(&mut second, 5);
    let run = [&seeds[0].1[..], &second].concat();
    seeds.push(("run-with-zeros".into(), [&run[..], &[0; 100]].concat()));
    seeds.push(("run-torn".into(), run[..run.len() - 7].to_vec()));
    seeds
}

fn compressed() -> Vec<(String, Vec<u8>)> {
    let text = b"what is said three times is true, is true, is true".repeat(3);
    Compression::ALL
        .map(|codec| {
            let mut seed = BytesMut::from(&[codec.id() as u8][..]);
            compress(codec, &text, &mut seed);
            (codec.name().to_owned(), seed.to_vec())
        })
        .into()
}

fn request_header(key: ApiKey, version: i16) -> RequestHeader {
    let client_id = Some(StrBytes::from_static_str("fuzz"));
    RequestHeader {
        key,
        version,
        correlation_id: 1,
        client_id,
    }
}

/// A header of every API in its first and last version, with a few counts and texts behind it.
fn controls() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for api in APIS.iter().chain(OWN_APIS) {
        for version in [api.min, api.max] {
            let mut seed = BytesMut::new();
            request_header(api.key, version).encode(&mut seed);
            if api.is_flexible(version) {
                seed.extend_from_slice(b"\x02t\0\0\0\x01\x02\x02t\x02\0\0\0\0\x02t\0\0\0\0");
            } else {
                seed.extend_from_slice(b"\0\x01t\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\0\0\x01t");
            }
            seeds.push((format!("{}-{version}", api.name), seed.to_vec()));
        }
    }
    seeds
}

fn topic(version: i16) -> TopicRef {
    if version >= TopicRef::FIRST_BY_ID {
        TopicRef::Id(Uuid::from_u128(7))
    } else {
        TopicRef::Name(StrBytes::from_static_str("topic"))
    }
}

/// The byte by which targets choose a version, and a message without length and header.
fn versioned(key: ApiKey, version: i16, message: &[u8]) -> Vec<u8> {
    [&[(version - key.api().min) as u8], message].concat()
}

/// A request's body out of its frame.
fn body_of(frame: &Bytes) -> Bytes {
    let decoded = RequestHeader::decode(&frame.slice(LENGTH_LEN..));
    decoded.expect("our own header").1
}

fn produces() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for version in [3, 8, 9, 12, 13] {
        let header = request_header(ApiKey::Produce, version);
        let records = batch(Compression::None, 2);
        let partitions = vec![ProducePartition { index: 1, records }];
        let request = ProduceRequest {
            transactional_id: (version == 12).then(|| StrBytes::from_static_str("txn")),
            acks: -1,
            timeout_ms: 30_000,
            topics: vec![ProduceTopic {
                topic: topic(version),
                partitions,
            }],
        };
        let frame = Bytes::from(request.encode(&header).expect("a small request").concat());
        let seed = versioned(ApiKey::Produce, version, &body_of(&frame));
        seeds.push((format!("request-{version}"), seed));
        let frame = produce_response(version)
            .encode(&header)
            .expect("a small response");
        let seed = versioned(ApiKey::Produce, version, &frame[LENGTH_LEN..]);
        seeds.push((format!("response-{version}"), seed));
    }
    seeds
}

fn leader() -> CurrentLeader {
    CurrentLeader {
        leader_id: 2,
        leader_epoch: 3,
    }
}

fn endpoint() -> NodeEndpoint {
    let host = StrBytes::from_static_str("host");
    NodeEndpoint {
        node_id: 2,
        host,
        port: 9092,
        rack: None,
    }
}

fn produce_response(version: i16) -> ProduceResponse {
    let mut failed = ProducedPartition::failed(1, 6);
    let message = Some(StrBytes::from_static_str("no"));
    failed.record_errors = vec![RecordError {
        batch_index: 0,
        message: message.clone(),
    }];
    failed.error_message = message;
    failed.current_leader = Some(leader());
    let partitions = vec![ProducedPartition::appended(0, 42, 0), failed];
    ProduceResponse {
        topics: vec![ProducedTopic {
            topic: topic(version),
            partitions,
        }],
        throttle_time_ms: 0,
        node_endpoints: vec![endpoint()],
    }
}

fn fetches() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for version in [4, 7, 11, 12, 15, 17] {
        let header = request_header(ApiKey::Fetch, version);
        let frame = fetch_request(version)
            .encode(&header)
            .expect("a small request");
        let seed = versioned(ApiKey::Fetch, version, &body_of(&frame));
        seeds.push((format!("request-{version}"), seed));
        let seed = versioned(ApiKey::Fetch, version, &fetch_response(version, &header));
        seeds.push((format!("response-{version}"), seed));
    }
    seeds
}

fn fetch_request(version: i16) -> FetchRequest {
    let partition = FetchPartition {
        partition: 1,
        current_leader_epoch: 3,
        fetch_offset: 42,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        safe_end: -1,
    };
    FetchRequest {
        replica_id: if version == 17 { 5 } else { -1 },
        replica_epoch: 6,
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation_level: IsolationLevel::ReadCommitted,
        session_id: 0,
        session_epoch: 0,
        topics: vec![FetchTopic {
            topic: topic(version),
            partitions: vec![partition],
        }],
        forgotten: vec![ForgottenTopic {
            topic: topic(version),
            partitions: vec![2, 3],
        }],
        rack_id: StrBytes::from_static_str("rack"),
    }
}

/// A response without its frame's length, records filled in.
fn fetch_response(version: i16, header: &RequestHeader) -> Vec<u8> {
    let records = batch(Compression::None, 2);
    let mut full = FetchedPartition::new(0, records.len());
    full.aborted = Some(vec![AbortedTransaction {
        producer_id: 8,
        first_offset: 9,
    }]);
    let mut failed = FetchedPartition::new(1, 0);
    (failed.error_code, failed.current_leader) = (6, Some(leader()));
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: 0,
        session_id: 4,
        topics: vec![FetchedTopic {
            topic: topic(version),
            partitions: vec![full, failed],
        }],
        node_endpoints: vec![endpoint()],
    };
    let frame = response.encode(header).expect("a small response");
    let pieces = frame.pieces.iter().map(|piece| match piece {
        Piece::Bytes(bytes) => bytes,
        Piece::Records { .. } => &records,
    });
    pieces.flatten().copied().skip(LENGTH_LEN).collect()
}

fn frames() -> Vec<(String, Vec<u8>)> {
    let framed = |piece: u8, contents: &[&[u8]]| {
        let mut seed = vec![piece];
        for content in contents {
            seed.put_i32(content.len() as i32);
            seed.extend_from_slice(content);
        }
        seed
    };
    vec![
        ("three".into(), framed(3, &[b"first", b"second", b"third"])),
        ("empty".into(), framed(1, &[b"one", b""])),
        (
            "partial".into(),
            framed(7, &[b"whole", b"cut off"])[..16].to_vec(),
        ),
        ("http".into(), b"\x04GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("tls".into(), b"\x04\x16\x03\x01\x02\x00\x01\x00".to_vec()),
    ]
}

/// Folders that a partition left behind, killed or closed, each file an entry of the archive.
fn folders() -> Vec<(String, Vec<u8>)> {
    [
        ("killed", false, false),
        ("closed", true, false),
        ("compacted", true, true),
    ]
    .map(|(name, closed, compacted)| (name.to_owned(), folder(closed, compacted)))
    .into()
}

fn folder(closed: bool, compacted: bool) -> Vec<u8> {
    let mut world = World::new(1);
    let node = world.add_node("a", [10, 0, 0, 1].into());
    world.block_on(node, async move {
        let config = LogConfig {
            segment_bytes: 700,
            compaction: compacted.then(CompactionConfig::default),
            ..LogConfig::default()
        };
        let caches = CoreCaches::new(CacheLimits::default());
        let p = Partition::open(recovery::DIR, config, &caches).await;
        let p = p.expect("an empty folder opens");
        p.set_leader_epoch(3);
        for sequence in 0..5 {
            let stamp = ProducerStamp {
                producer_id: 4,
                producer_epoch: 0,
                base_sequence: 5 * sequence,
                transactional: false,
            };
            let appended = p.append(stamped(Compression::None, 5, stamp));
            let appended = appended.expect("the batch is taken");
            let kept = p.acknowledged(&appended.receipt).await;
            kept.expect("a disk without faults");
        }
        let cleaned = p.clean(&Cleaner::new(0, f64::INFINITY), 0).await;
        assert_eq!(cleaned.expect("nothing is wrong").is_some(), compacted);
        if closed {
            p.close().await.expect("a disk without faults");
        }
    });
    let disk = world.disk(node);
    let mut seed = vec![u8::from(!closed)];
    for (path, _) in disk.list() {
        let Some(name) = path.strip_prefix(recovery::DIR).map(|n| &n[1..]) else {
            continue;
        };
        let Some(content) = disk.read(&path) else {
            continue;
        };
        let (offset, kind) = name.split_once('.').unwrap_or(("0", name));
        let Some(kind) = recovery::FILES.iter().position(|known| *known == kind) else {
            continue;
        };
        let mut put = |kind: usize, content: &[u8]| {
            seed.push(kind as u8 | recovery::MENDED);
            seed.push(offset.parse().expect("a small offset"));
            seed.put_u16(content.len() as u16);
            seed.extend_from_slice(content);
        };
        if kind == recovery::SLOT {
            let (first, second) = content.split_at(recovery::SLOT_STRIDE);
            put(kind, &first[..recovery::SLOT_LEN]);
            put(kind + 1, &second[..recovery::SLOT_LEN]);
        } else {
            put(kind, &content);
        }
    }
    seed
}

/// What a client of remote objects says that waits for no answer: all that it says first, and each
/// call by itself.
fn conversations() -> Vec<(String, Vec<u8>)> {
    let whole = conversation(0);
    vec![
        ("pieces".into(), [&[7], &whole[..]].concat()),
        ("whole".into(), [&[0], &whole[..]].concat()),
        ("registered".into(), [&[0], &conversation(1)[..]].concat()),
        ("named".into(), [&[0], &conversation(2)[..]].concat()),
        ("garbage".into(), b"\0GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

/// The bytes of the first calls, from the n-th on.
fn conversation(skipped: usize) -> Vec<u8> {
    let mut world = World::new(1);
    let (server, client) = objects::machines(&mut world);
    let heard = world.start(server, async {
        let listener = TcpListener::bind(objects::address(), ListenOptions::default());
        let listener = listener.await.expect("a free address");
        let (stream, _) = listener.accept().await.expect("a client comes");
        let mut heard = BytesMut::new();
        while stream.recv(&mut heard).await.is_ok_and(|count| count > 0) {}
        heard.to_vec()
    });
    world.block_on(client, async move {
        let client = ObjectClient::connect(objects::address(), ObjectOptions::default()).await;
        let client = client.expect("it listens");
        let service: name_service::Client = client.first();
        let mut calls = Vec::new();
        if skipped < 1 {
            let mut register = service.register_request();
            register.get().set_name("name");
            register.get().set_lease_ms(1000);
            let mut object = register.get().init_object();
            object.set_as_capability(service.clone().into_client_hook());
            let registered = register.send();
            let lease = registered.pipeline.get_lease();
            calls.push(
                within(MOMENT, lease.renew_request().send().promise)
                    .await
                    .is_ok(),
            );
        }
        if skipped < 2 {
            let mut resolve = service.resolve_request();
            resolve.get().set_name("name");
            let found = resolve.send().pipeline.get_object().as_cap();
            let found: name_service::Client = FromClientHook::new(found);
            calls.push(
                within(MOMENT, found.list_request().send().promise)
                    .await
                    .is_ok(),
            );
        }
        let mut unregister = service.unregister_request();
        unregister.get().set_name("name");
        calls.push(within(MOMENT, unregister.send().promise).await.is_ok());
        assert!(!calls.contains(&true), "nobody answers");
    });
    world.run_for(Duration::from_secs(1));
    heard.take().concat()
}

/// How long a call is waited for that nobody answers.
const MOMENT: Duration = Duration::from_millis(10);
