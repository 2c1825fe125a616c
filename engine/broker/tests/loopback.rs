//! The broker on this machine's rings and sockets: the same stories, on one core and on two.

mod wire_client;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringmill_engine::{BrokerConfig, ServeError, Stopper, serve};
use ringmill_ring::{RingConfig, run, spawn};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use wire_client::{Client, batch, batch_with};

/// A broker in a folder of its own.
struct Broker {
    address: SocketAddr,
    stopper: Stopper,
    thread: JoinHandle<Result<(), ServeError>>,
}

impl Broker {
    fn start(folder: &Path, cores: usize) -> Self {
        let cores = cores.to_string();
        let settings = [
            ("listeners", "127.0.0.1:0"),
            ("log.dirs", folder.to_str().expect("a plain path")),
            ("cores", &cores),
        ];
        let config = BrokerConfig::from_pairs(settings).unwrap();
        let stopper = Stopper::new();
        let (ready, address) = mpsc::channel();
        let thread = thread::spawn({
            let stopper = stopper.clone();
            let ring = RingConfig {
                pin: false,
                ..RingConfig::default()
            };
            move || {
                serve(config, ring, stopper, move |address| {
                    ready.send(address).expect("the test waits");
                })
            }
        });
        let Ok(address) = address.recv_timeout(Duration::from_secs(60)) else {
            panic!("it did not start: {:?}", thread.join());
        };
        Self {
            address,
            stopper,
            thread,
        }
    }

    fn stop(self) {
        self.stopper.stop();
        let ended = self.thread.join().expect("no panic");
        ended.expect("a clean end");
    }

    /// Runs a client's story on a ring of its own.
    fn client<T: Send>(&self, story: impl AsyncFnOnce(SocketAddr) -> T + Send) -> T {
        let address = self.address;
        thread::scope(|scope| {
            let told = scope.spawn(move || run(RingConfig::default(), story(address)).unwrap());
            told.join().expect("the story holds")
        })
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmill-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_produced_is_fetched_back_also_after_a_restart() {
    for cores in [1, 2] {
        let folder = Folder::new(&format!("restart-{cores}"));
        let broker = Broker::start(&folder.0, cores);
        let large = "v".repeat(900_000);
        broker.client(async |address| {
            let mut client = Client::connect_to(address).await;
            client.create_topic("t", 4).await;
            for index in 0..4 {
                for (n, codec) in Compression::ALL.into_iter().enumerate() {
                    let batch = batch_with(&["x", &large], codec, ProducerStamp::NONE);
                    let appended = client.produce("t", index, batch).await;
                    assert_eq!(appended, (0, 2 * n as i64), "{codec}");
                }
            }
        });
        broker.stop();
        let broker = Broker::start(&folder.0, cores);
        broker.client(async |address| {
            let mut client = Client::connect_to(address).await;
            for index in 0..4 {
                let mut offset = 0;
                while offset < 10 {
                    let fetched = client.fetch(0, 1, "t", &[(index, offset)]).await;
                    for (at, value) in fetched.records() {
                        assert_eq!(value.len(), if at % 2 == 0 { 1 } else { large.len() });
                        offset = offset.max(at + 1);
                    }
                }
            }
        });
        broker.stop();
    }
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    for cores in [1, 2] {
        let folder = Folder::new(&format!("many-{cores}"));
        let broker = Broker::start(&folder.0, cores);
        broker.client(async |address| {
            let mut first = Client::connect_to(address).await;
            first.create_topic("t", 8).await;
            let mut all = Vec::new();
            for n in 0..32_i32 {
                all.push(spawn(async move {
                    let mut client = Client::connect_to(address).await;
                    let name = n.to_string();
                    for _ in 0..20 {
                        let (error, offset) = client.produce("t", n % 8, batch(&[&name])).await;
                        assert_eq!(error, 0);
                        let fetched = client.fetch(0, 1, "t", &[(n % 8, offset)]).await;
                        assert_eq!(fetched.records()[0], (offset, name.clone()));
                    }
                }));
            }
            for one in all {
                one.await.expect("its story holds");
            }
            for index in 0..8 {
                let records = first.fetch(0, 1, "t", &[(index, 0)]).await.records();
                assert_eq!(records.len(), 80);
            }
        });
        broker.stop();
    }
}

#[test]
fn a_second_broker_on_the_same_folder_or_port_is_told_so() {
    let folder = Folder::new("second");
    let broker = Broker::start(&folder.0, 1);
    let start = |folder: &Path, listen: String| {
        let settings = [
            ("listeners", listen.as_str()),
            ("log.dirs", folder.to_str().unwrap()),
            ("cores", "2"),
        ];
        let config = BrokerConfig::from_pairs(settings).unwrap();
        let ended = serve(config, RingConfig::default(), Stopper::new(), |_| {
            panic!("it must not start")
        });
        ended.expect_err("it must not start").to_string()
    };
    let error = start(&folder.0, "127.0.0.1:0".to_owned());
    assert!(error.contains("in use by another broker"), "{error}");
    let other = Folder::new("second-port");
    let error = start(&other.0, broker.address.to_string());
    assert!(error.contains("cannot listen on"), "{error}");
    broker.stop();
}

#[test]
fn a_request_of_many_batches_that_take_long_to_check_does_not_hold_others_up() {
    const BATCHES: usize = 300;
    let folder = Folder::new("bombs");
    let broker = Broker::start(&folder.0, 1);
    broker.client(async |address| {
        let mut client = Client::connect_to(address).await;
        client.create_topic("t", 1).await;
        // A few kilobytes that decompress to nine megabytes.
        let zeros = "\0".repeat(9 << 20);
        let bomb = batch_with(&[&zeros], Compression::Zstd, ProducerStamp::NONE);
        let parts = vec![(0, bomb); BATCHES];
        let id = client.ask_produce(-1, "t", parts).await;
        let produced = spawn(async move {
            let produced = client.produced(id).await;
            assert!(produced.iter().all(|(error, _)| *error == 0));
            assert_eq!(produced.len(), BATCHES);
        });
        // Whoever is held up for as long as the request takes is answered once or twice meanwhile.
        let (mut answered, mut other) = (0, Client::connect_to(address).await);
        while !produced.is_finished() {
            other.fetch(0, 1, "t", &[(0, 0)]).await;
            answered += 1;
        }
        produced.await.expect("its story holds");
        assert!(answered > 8, "{answered} answers");
    });
    broker.stop();
}

#[test]
fn whoever_takes_too_much_of_the_cores_time_is_told_so_by_every_kind_of_response() {
    for cores in [1, 2] {
        let folder = Folder::new(&format!("effort-{cores}"));
        let broker = Broker::start(&folder.0, cores);
        broker.client(async |address| {
            let mut client = Client::connect_to(address).await;
            client.create_topic("t", 1).await;
            let all = MetadataRequest::default().with_topics(None);
            let before = client.call(12, &all).await;
            assert_eq!(before.throttle_time_ms, 0, "nobody has a quota");
            // in percent: whatever a request costs is far beyond it
            let quota = 0.000_001;
            client.set_quota("request_percentage", None, quota).await;
            let metadata = client.call(12, &all).await;
            assert!(metadata.throttle_time_ms > 0, "{metadata:?}");
            assert_eq!(metadata.topics.len(), 1, "it is answered all the same");
            let versions = client.call(4, &ApiVersionsRequest::default()).await;
            assert!(versions.throttle_time_ms > 0);
            let fetched = client.fetch(0, 1, "t", &[(0, 0)]).await;
            assert!(fetched.0.throttle_time_ms > 0);
        });
        broker.stop();
    }
}
