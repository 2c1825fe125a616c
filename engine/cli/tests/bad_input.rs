//! Everything a broker must refuse: an error or a closed connection, memory flat, and the others do
//! not notice. The node is real, the bytes are as bad as they come.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use ringmill_tests::node::Node;
use ringmill_tests::plain::{PlainClient, PlainError};
use ringmill_wire::StrBytes;
use ringmill_wire::api::APIS;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::error::ErrorCode;

/// What a refusal may cost the node for a moment.
const MEMORY_SLACK: u64 = 48 << 20;

struct Fixture {
    node: Node,
    folder: PathBuf,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmill-bad-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_ringmill"));
        let node = Node::start(binary, &folder.join("data"), &[]).unwrap();
        let fixture = Self { node, folder };
        assert_eq!(fixture.client().create_topic("good", 1, &[]).unwrap(), 0);
        fixture
    }

    fn client(&self) -> PlainClient {
        PlainClient::connect(self.node.addr()).unwrap()
    }

    fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect(self.node.addr()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// An honest client is served as if nothing had happened.
    fn serves(&self) {
        let mut client = self.client();
        let answer = client
            .produce("good", 0, -1, batch(b"honest"))
            .unwrap()
            .unwrap();
        assert_eq!(answer.error_code, 0);
        let fetched = client
            .fetch("good", 0, answer.base_offset, 1 << 20, 1000)
            .unwrap();
        assert!(!fetched.records.is_empty());
    }

    fn memory(&self) -> u64 {
        self.node.memory().unwrap().0
    }

    /// Sends bytes on a connection of their own; true if the node closed it (perhaps after an
    /// answer), false if it waits for more.
    fn closes(&self, bytes: &[u8]) -> bool {
        let mut stream = self.raw();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let _ = stream.write_all(bytes);
        is_closed(&mut stream)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_closed(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
    }
}

fn batch(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    builder
        .append(&NewRecord {
            timestamp: 1,
            value: Some(value),
            ..NewRecord::default()
        })
        .unwrap();
    builder.seal(Compression::None, ProducerStamp::NONE)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// A request header of version 1, or 2 for a flexible request.
fn header(key: i16, version: i16, flexible: bool) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(3);
    out.put_slice(b"bad");
    if flexible {
        out.put_u8(0);
    }
    out
}

#[test]
fn frames_that_lie_about_their_length_are_closed() {
    let node = Fixture::new("frames");
    for length in [-1_i32, i32::MIN, 0, i32::MAX, 1 << 30] {
        assert!(
            node.closes(&length.to_be_bytes()),
            "a frame of {length} bytes"
        );
    }
    // Shorter than a header.
    for length in 1..8_u32 {
        let mut frame = length.to_be_bytes().to_vec();
        frame.resize(4 + length as usize, 0xFF);
        assert!(node.closes(&frame), "a frame of {length} bytes");
    }
    node.serves();
}

#[test]
fn other_protocols_are_closed_at_once() {
    let node = Fixture::new("protocols");
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[7; 40]].concat();
    assert!(node.closes(&hello), "TLS");
    assert!(
        node.closes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "HTTP"
    );
    assert!(node.closes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "HTTP/2");
    assert!(node.closes(b"SSH-2.0-OpenSSH_9.2\r\n"), "SSH");
    node.serves();
}

#[test]
fn unknown_apis_and_versions_are_refused() {
    let node = Fixture::new("versions");
    for (key, version) in [
        (-1, 0),
        (999, 0),
        (i16::MAX, i16::MAX),
        (3, 99),
        (0, 99),
        (1, -1),
    ] {
        assert!(
            node.closes(&framed(&header(key, version, false))),
            "key {key} version {version}"
        );
    }
    // ApiVersions alone answers a version that is too new, in version 0, with the table (KIP-511).
    let mut stream = node.raw();
    stream.write_all(&framed(&header(18, 99, true))).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..8], 7_i32.to_be_bytes());
    assert_eq!(
        answer[8..10],
        ErrorCode::UnsupportedVersion.code().to_be_bytes()
    );
    node.serves();
}

/// Counts and lengths up to two billion in every request of the table: nothing is allocated for
/// what is only claimed (CVE-2022-34917).
#[test]
fn claimed_counts_cost_nothing() {
    let node = Fixture::new("counts");
    let before = node.memory();
    for api in APIS {
        for version in api.min..=api.max {
            let flexible = api.is_flexible(version);
            for claim in [
                &[0x7F, 0xFF, 0xFF, 0xFF][..],
                &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
            ] {
                for place in 0..12 {
                    let mut body = header(api.key.code(), version, flexible);
                    body.put_bytes(0, place);
                    body.put_slice(claim);
                    body.put_bytes(0x7F, 8);
                    let mut stream = node.raw();
                    stream.write_all(&framed(&body)).unwrap();
                    // Answered or closed; either way the node lives.
                    stream.shutdown(Shutdown::Write).unwrap();
                    let _ = is_closed(&mut stream);
                }
            }
        }
    }
    node.serves();
    let after = node.memory();
    assert!(
        after < before + MEMORY_SLACK,
        "memory went from {before} to {after}"
    );
}

#[test]
fn garbage_never_ends_the_node() {
    let seed = 20_260_101;
    let mut random = SmallRng::seed_from_u64(seed);
    let node = Fixture::new("garbage");
    let before = node.memory();
    for _ in 0..400 {
        let api = &APIS[random.random_range(0..APIS.len())];
        let version = random.random_range(api.min..=api.max);
        let mut body = header(api.key.code(), version, api.is_flexible(version));
        let len = random.random_range(0..200);
        let mut garbage = vec![0; len];
        random.fill_bytes(&mut garbage);
        body.put_slice(&garbage);
        let mut stream = node.raw();
        stream.write_all(&framed(&body)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let _ = is_closed(&mut stream);
    }
    node.serves();
    let after = node.memory();
    assert!(
        after < before + MEMORY_SLACK,
        "seed {seed}: memory went from {before} to {after}"
    );
}

fn patched(at: usize, bytes: &[u8]) -> Bytes {
    let mut bad = batch(b"a value").to_vec();
    bad[at..at + bytes.len()].copy_from_slice(bytes);
    bad.into()
}

fn with_crc(mut batch: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// Batches that no log may ever hold, each with the fields of KIP-98's format at fault.
#[test]
fn bad_batches_are_refused_by_name() {
    let node = Fixture::new("batches");
    let mut client = node.client();
    let resealed = |at: usize, bytes: &[u8]| with_crc(patched(at, bytes).to_vec());
    let whole = batch(b"a value");
    let cases: Vec<(&str, Bytes)> = vec![
        ("bad CRC", patched(20, &[whole[20] ^ 1])),
        ("magic 1", patched(16, &[1])),
        ("magic 3", patched(16, &[3])),
        ("batch length short", patched(8, &20_i32.to_be_bytes())),
        ("batch length long", patched(8, &100_000_i32.to_be_bytes())),
        ("batch length negative", patched(8, &(-5_i32).to_be_bytes())),
        ("unknown codec", resealed(21, &7_i16.to_be_bytes())),
        (
            "control bit from a client",
            resealed(21, &0x20_i16.to_be_bytes()),
        ),
        ("count above offsets", resealed(57, &2_i32.to_be_bytes())),
        ("count negative", resealed(57, &(-1_i32).to_be_bytes())),
        ("last offset delta", resealed(23, &9_i32.to_be_bytes())),
        ("cut short", whole.slice(..whole.len() - 1)),
        ("trailing bytes", [&whole[..], &[1, 2, 3]].concat().into()),
        ("header alone", whole.slice(..60)),
        ("nothing", Bytes::new()),
        ("no batch at all", Bytes::from_static(&[0xAB; 200])),
    ];
    for (name, records) in cases {
        match client.produce("good", 0, -1, records) {
            Ok(Some(answer)) => {
                assert_ne!(answer.error_code, 0, "{name} was taken");
                assert_eq!(answer.base_offset, -1, "{name}");
            }
            Ok(None) => unreachable!("acks -1 is answered"),
            // Bytes that break the request itself may close the connection.
            Err(PlainError::Connection(_)) => client = node.client(),
            Err(e) => panic!("{name}: {e}"),
        }
    }
    assert_eq!(
        node.client().offset_for("good", 0, -1).unwrap(),
        0,
        "something was appended"
    );
    node.serves();
}

#[test]
fn a_batch_above_the_limit_is_too_large() {
    let node = Fixture::new("large");
    let mut builder = BatchBuilder::new(8 << 20);
    let value = vec![7; 2 << 20];
    builder
        .append(&NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        })
        .unwrap();
    let records = builder.seal(Compression::None, ProducerStamp::NONE);
    let answer = node
        .client()
        .produce("good", 0, -1, records)
        .unwrap()
        .unwrap();
    assert_eq!(answer.error_code, ErrorCode::MessageTooLarge.code());
    node.serves();
}

#[test]
fn bad_topic_names_are_refused() {
    let node = Fixture::new("names");
    let mut client = node.client();
    let long = "x".repeat(250);
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "ä",
        "../../etc/passwd",
        "a\0b",
        &long,
    ] {
        let code = client.create_topic(name, 1, &[]).unwrap();
        assert_eq!(code, ErrorCode::InvalidTopic.code(), "{name:?}");
    }
    assert_ne!(client.create_topic("none", 0, &[]).unwrap(), 0);
    assert_ne!(client.create_topic("none", -7, &[]).unwrap(), 0);
    assert_ne!(
        client
            .create_topic("none", 1, &[("no.such.config", "1")])
            .unwrap(),
        0
    );
    assert_ne!(
        client
            .create_topic("none", 1, &[("segment.bytes", "-3")])
            .unwrap(),
        0
    );
    node.serves();
}

/// A client that dribbles a frame, byte by byte, holds up nobody but itself.
#[test]
fn a_dribbled_frame_holds_up_nobody() {
    let node = Fixture::new("dribble");
    let mut slow = node.raw();
    slow.write_all(&1000_u32.to_be_bytes()).unwrap();
    for _ in 0..20 {
        slow.write_all(&[0]).unwrap();
        node.serves();
    }
}

/// Answers that nobody reads do not fill the node's memory: it stops reading requests.
#[test]
fn answers_that_are_never_read_are_bounded() {
    let node = Fixture::new("unread");
    let mut client = node.client();
    let mut builder = BatchBuilder::new(1 << 20);
    let value = vec![9; 900_000];
    for _ in 0..20 {
        builder
            .append(&NewRecord {
                value: Some(&value),
                ..NewRecord::default()
            })
            .unwrap();
        let records = builder.seal(Compression::None, ProducerStamp::NONE);
        assert_eq!(
            client
                .produce("good", 0, -1, records)
                .unwrap()
                .unwrap()
                .error_code,
            0
        );
    }
    let before = node.memory();
    let mut greedy: Vec<TcpStream> = (0..8).map(|_| node.raw()).collect();
    let fetch = fetch_request();
    for stream in &mut greedy {
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        // Thousands of requests for a megabyte each, as far as the node takes them.
        while sent < 4000 && stream.write_all(&fetch).is_ok() {
            sent += 1;
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    node.serves();
    let after = node.memory();
    assert!(
        after < before + 2 * MEMORY_SLACK,
        "memory went from {before} to {after}"
    );
}

fn fetch_request() -> Vec<u8> {
    use ringmill_wire::api::ApiKey;
    use ringmill_wire::fetch::{
        CONSUMER_REPLICA_ID, FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchTopic,
        IsolationLevel, NO_SESSION_ID,
    };
    use ringmill_wire::header::RequestHeader;
    use ringmill_wire::topic::TopicRef;
    let partition = FetchPartition {
        partition: 0,
        current_leader_epoch: -1,
        fetch_offset: 0,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        safe_end: -1,
    };
    let request = FetchRequest {
        replica_id: CONSUMER_REPLICA_ID,
        replica_epoch: -1,
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id: NO_SESSION_ID,
        session_epoch: FINAL_SESSION_EPOCH,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(StrBytes::from_static_str("good")),
            partitions: vec![partition],
        }],
        forgotten: Vec::new(),
        rack_id: StrBytes::default(),
    };
    let header = RequestHeader {
        key: ApiKey::Fetch,
        version: 12,
        correlation_id: 1,
        client_id: None,
    };
    request.encode(&header).unwrap().to_vec()
}

/// Connections come and go by the thousand; none is left behind.
#[test]
fn a_flood_of_connections_leaves_nothing_behind() {
    let node = Fixture::new("flood");
    let before = node.memory();
    for _ in 0..20 {
        let streams: Vec<TcpStream> = (0..100).map(|_| node.raw()).collect();
        drop(streams);
    }
    node.serves();
    let after = node.memory();
    assert!(
        after < before + MEMORY_SLACK,
        "memory went from {before} to {after}"
    );
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.node.id()))
        .unwrap()
        .count();
    assert!(open < 200, "{open} descriptors are open");
}
