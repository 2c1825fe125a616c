//! How often the broker allocates for a request, on this machine's ring. A program of its own: the
//! allocator counts what the whole process does.
//!
//! The client is a plain socket that sends bytes it has had all along and reads into a buffer that
//! it has too: what is counted between two looks is the broker's, core, ring and log included. How
//! a large request arrives, in how many pieces, is the kernel's to say: the figures of large
//! requests differ by a few from run to run. What must never show is that records are counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use ringmill_engine::{BrokerConfig, Stopper, serve};
use ringmill_ring::{RingConfig, run};
use ringmill_wire::api::ApiKey;
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use wire_client::{Client, batch, fetch_request, produce_request};

mod wire_client;

#[global_allocator]
static MEMORY: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Requests before the first that is counted.
const WARM_UP: usize = 50;
/// Requests that are counted.
const COUNTED: usize = 200;

/// A Produce request of one batch of one record allocates so often at most; its causes are listed in
/// docs/PIECES.md.
const PRODUCE_MAX: f64 = 60.0;
/// And it takes so many bytes: no buffer of its own to be received into.
const PRODUCE_BYTES_MAX: f64 = 10_000.0;
/// Each further batch of a request so often.
const BATCH_MAX: f64 = 24.0;
/// A Fetch request of one partition so often.
const FETCH_MAX: f64 = 40.0;
/// However many records there are, a request allocates so often more: for the pieces that it arrives
/// in, and because large batches are written from where they lie.
const LARGE_MAX: f64 = 40.0;

/// What one request takes.
#[derive(Debug, Clone, Copy)]
struct Taken {
    allocations: f64,
    bytes: f64,
}

struct Plain {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Plain {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("a socket's option");
        Self {
            stream,
            answer: vec![0; 1 << 20],
        }
    }

    /// Sends a request, and reads its answer to the end; its length.
    fn ask(&mut self, frame: &[u8]) -> usize {
        self.stream.write_all(frame).expect("the broker takes it");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("an answer");
        let length = u32::from_be_bytes(length) as usize;
        let answer = &mut self.answer[..length];
        self.stream.read_exact(answer).expect("all of it");
        length
    }

    /// What a request takes, on average of many; its answer has at least so many bytes.
    fn measure(&mut self, what: &str, frame: &[u8], least: usize) -> Taken {
        for _ in 0..WARM_UP {
            assert!(self.ask(frame) >= least, "{what}");
        }
        let before = MEMORY.stats();
        for _ in 0..COUNTED {
            self.ask(frame);
        }
        let taken = Taken::between(&before, &MEMORY.stats());
        println!("{what}: {taken:?}");
        taken
    }
}

impl Taken {
    fn between(before: &Stats, after: &Stats) -> Self {
        let each = |of: fn(&Stats) -> usize| (of(after) - of(before)) as f64 / COUNTED as f64;
        Self {
            allocations: each(|stats| stats.allocations) + each(|stats| stats.reallocations),
            bytes: each(|stats| stats.bytes_allocated),
        }
    }
}

/// A batch of so many records of 100 bytes.
fn records(count: usize) -> Bytes {
    let value = "v".repeat(100);
    run(RingConfig::default(), async {
        batch(&vec![value.as_str(); count])
    })
    .expect("a ring")
}

fn header(key: ApiKey, version: i16) -> ringmill_wire::header::RequestHeader {
    ringmill_wire::header::RequestHeader {
        key,
        version,
        correlation_id: 7,
        client_id: None,
    }
}

/// A request that writes the batch to so many partitions.
fn produce(topic: &str, partitions: i32, batch: &Bytes) -> Vec<u8> {
    let parts = (0..partitions).map(|index| (index, batch.clone()));
    let request = produce_request(-1, topic, parts.collect());
    let frame = request.encode(&header(ApiKey::Produce, 9));
    frame.expect("it is small").concat()
}

fn fetch(topic: &str) -> Vec<u8> {
    let mut request = fetch_request(0, 1, topic, &[(0, 0)]);
    // the first batch, however large it is
    request.topics[0].partitions[0].max_bytes = 1;
    let frame = request.encode(&header(ApiKey::Fetch, 11));
    frame.expect("it is small").to_vec()
}

/// A broker of one core, in a folder of its own, for as long as the story takes.
fn with_broker(story: impl FnOnce(SocketAddr)) {
    let folder = std::env::temp_dir().join(format!("ringmill-allocations-{}", std::process::id()));
    let settings = [
        ("listeners", "127.0.0.1:0"),
        ("log.dirs", folder.to_str().expect("a plain path")),
        ("cores", "1"),
    ];
    let config = BrokerConfig::from_pairs(settings).expect("good settings");
    let stopper = Stopper::new();
    let (ready, address) = mpsc::channel();
    let node = thread::spawn({
        let stopper = stopper.clone();
        move || {
            serve(config, RingConfig::default(), stopper, move |address| {
                ready.send(address).expect("the test waits");
            })
        }
    });
    story(address.recv().expect("it starts"));
    stopper.stop();
    node.join().expect("no panic").expect("a clean end");
    std::fs::remove_dir_all(&folder).expect("it was there");
}

#[test]
fn no_request_allocates_for_each_of_its_records() {
    with_broker(|address| {
        let topics = ["one", "thousand", "two-thousand", "ten"];
        run(RingConfig::default(), async {
            let mut client = Client::connect_to(address).await;
            for topic in topics {
                client.create_topic(topic, 10).await;
            }
        })
        .expect("a ring");
        let sizes = [1, 1_000, 2_000].map(records);
        let mut client = Plain::connect(address);
        let [one, thousand, two_thousand] = [0, 1, 2].map(|at| {
            let frame = produce(topics[at], 1, &sizes[at]);
            client.measure(&format!("produce, {}", topics[at]), &frame, 1)
        });
        assert!(one.allocations <= PRODUCE_MAX, "{one:?}");
        assert!(one.bytes <= PRODUCE_BYTES_MAX, "{one:?}");
        for large in [thousand, two_thousand] {
            let more = large.allocations - one.allocations;
            assert!(more <= LARGE_MAX, "{more} more than for one record");
        }
        assert!(one.bytes < thousand.bytes, "the bytes are counted");
        let frame = produce("ten", 10, &sizes[0]);
        let ten = client.measure("produce, ten batches", &frame, 1);
        let each = (ten.allocations - one.allocations) / 9.0;
        assert!(each <= BATCH_MAX, "{each} for each further batch");
        let [one, thousand, two_thousand] = [0, 1, 2].map(|at| {
            let what = format!("fetch, {}", topics[at]);
            client.measure(&what, &fetch(topics[at]), sizes[at].len())
        });
        assert!(one.allocations <= FETCH_MAX, "{one:?}");
        for large in [thousand, two_thousand] {
            let more = large.allocations - one.allocations;
            assert!(more <= LARGE_MAX, "{more} more than for one record");
        }
    });
}
