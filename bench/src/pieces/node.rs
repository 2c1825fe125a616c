//! A whole node in a simulated world, and what it does for requests: each from the first byte
//! that it receives to the last that it sends, acknowledged as its topic demands.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_engine::{BrokerConfig, Launch, Stopper};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{Cores, RingConfig, TcpStream, sleep};
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{decode_response, encode_request};
use ringmill_wire::fetch::FetchResponse;
use ringmill_wire::frame::{Frame, split_frame};
use ringmill_wire::kafka_protocol::messages::CreateTopicsRequest;
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;
use ringmill_wire::produce::ProduceResponse;

use crate::Piece;
use crate::material::{
    FETCH_VERSION, PRODUCE_VERSION, TOPIC, batch, fetch_frame, header, produce_frame,
};
use crate::stage::{Curtain, act, address, tame};

/// Where the node listens.
pub(crate) const LISTENS: &str = "10.0.0.1:9092";
const MAX_FRAME: usize = 100 << 20;
/// Requests before the first that is counted: buffers have their size, files are open.
const WARM_UP: u64 = 50;

pub(crate) fn pieces() -> Vec<Piece> {
    let piece = Piece::new;
    vec![
        piece(
            "node-produce-1",
            "request",
            500,
            "a Produce request of one batch of one record, flushed and answered",
            |units| produce(1, 1, 1, units),
        ),
        piece(
            "node-produce-1000",
            "request",
            100,
            "the same, 1,000 records",
            |units| produce(1, 1, 1000, units),
        ),
        piece(
            "node-produce-10x1",
            "request",
            200,
            "a Produce request of ten batches of one record, one for each partition",
            |units| produce(1, 10, 1, units),
        ),
        piece(
            "node-produce-2-cores",
            "request",
            300,
            "a Produce request of two batches of one record; another core owns one of the partitions",
            |units| produce(2, 2, 1, units),
        ),
        piece(
            "node-fetch",
            "request",
            500,
            "a Fetch request that is answered with a batch of 1,000 records out of memory",
            |units| fetch(1, 1000, units),
        ),
        piece(
            "node-fetch-empty",
            "request",
            500,
            "a Fetch request at the log's end, answered at once with nothing",
            |units| fetch(1, 0, units),
        ),
        piece(
            "node-fetch-empty-100",
            "request",
            100,
            "the same of a hundred partitions of one topic",
            |units| fetch(100, 0, units),
        ),
    ]
}

/// A world with a node that runs, and a machine for its clients.
pub(crate) fn scene(cores: usize) -> (World, NodeId) {
    let mut world = World::new(1);
    let broker = world.add_node("broker", address(1));
    let clients = world.add_node("clients", address(2));
    tame(&world, &[broker, clients]);
    let settings = [("listeners", LISTENS), ("log.dirs", "/data")];
    let config = BrokerConfig::from_pairs(settings).expect("these settings are good");
    let cores = Cores::new(cores);
    let launch = Launch::new(config, &cores, Stopper::new(), |_| ());
    let ends = world.launch(broker, cores, RingConfig::default(), move |core| {
        let launch = launch.clone();
        async move { launch.run(core).await }
    });
    // it runs until the program ends
    drop(ends);
    (world, clients)
}

/// A connection that sends what is ready, and looks no further into answers than it must: what it does
/// is counted too.
struct Client {
    stream: TcpStream,
    received: BytesMut,
}

impl Client {
    async fn connect() -> Self {
        let listens = LISTENS.parse().expect("an address");
        for _ in 0..1000 {
            if let Ok(stream) = TcpStream::connect(listens).await {
                let received = BytesMut::new();
                return Self { stream, received };
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody listens");
    }

    async fn ask(&mut self, frame: &Bytes) -> Bytes {
        let sent = self.stream.send(vec![frame.clone()]).await;
        sent.expect("the node takes it");
        loop {
            let frame = split_frame(&mut self.received, MAX_FRAME);
            if let Frame::Complete(frame) = frame.expect("a frame") {
                return frame;
            }
            let count = self.stream.recv(&mut self.received).await;
            assert!(count.expect("the node is there") > 0, "the node is there");
        }
    }

    /// The same so many times, for answers that are all of one length.
    async fn ask_again(&mut self, frame: &Bytes, times: u64, length: usize) {
        for _ in 0..times {
            assert_eq!(
                self.ask(frame).await.len(),
                length,
                "an answer like the first"
            );
        }
    }

    /// The length of the answer, which says that the batches were taken.
    async fn produce(&mut self, frame: &Bytes) -> usize {
        let answer = self.ask(frame).await;
        let told = ProduceResponse::decode(PRODUCE_VERSION, &answer).expect("an answer");
        let mut parts = told.topics.iter().flat_map(|topic| &topic.partitions);
        assert!(parts.all(|part| part.error_code == 0), "it is taken");
        answer.len()
    }

    /// The length of the answer, which brings so many bytes of the first partition.
    async fn fetch(&mut self, frame: &Bytes, bytes: usize) -> usize {
        let answer = self.ask(frame).await;
        let told = FetchResponse::decode(FETCH_VERSION, &answer).expect("an answer");
        let found = told.topics[0].partitions[0].records.len();
        assert_eq!(found, bytes, "all of it");
        answer.len()
    }
}

/// Makes the topic; its partitions are there when this returns.
pub(crate) async fn create_topic(partitions: i32) {
    let mut client = Client::connect().await;
    let topic = CreatableTopic::default()
        .with_name(StrBytes::from_static_str(TOPIC).into())
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    let header = header(ApiKey::CreateTopics, 7);
    let frame = encode_request(&header, &request).expect("it is small");
    let answer = client.ask(&frame).await;
    let answer = decode_response::<CreateTopicsRequest>(7, &answer).expect("an answer");
    assert_eq!(answer.topics[0].error_code, 0, "it is made");
}

fn produce(cores: usize, partitions: i32, records: usize, units: u64) {
    let (mut world, clients) = scene(cores);
    act(&mut world, clients, move |curtain: Curtain| async move {
        create_topic(partitions).await;
        let frame = produce_frame(partitions, &batch(records));
        let mut client = Client::connect().await;
        let length = client.produce(&frame).await;
        client.ask_again(&frame, WARM_UP, length).await;
        curtain.rises().await;
        client.ask_again(&frame, units, length).await;
        curtain.falls().await;
    });
}

/// Fetches a batch of so many records of the first of some partitions, or at the end of all.
fn fetch(partitions: i32, records: usize, units: u64) {
    let (mut world, clients) = scene(1);
    act(&mut world, clients, move |curtain: Curtain| async move {
        create_topic(partitions).await;
        let batch = batch(records.max(1));
        let mut client = Client::connect().await;
        client.produce(&produce_frame(partitions, &batch)).await;
        let (offset, expected) = match records {
            0 => (1, 0),
            _ => (0, batch.len()),
        };
        let frame = fetch_frame(partitions, offset);
        let length = client.fetch(&frame, expected).await;
        client.ask_again(&frame, WARM_UP, length).await;
        curtain.rises().await;
        client.ask_again(&frame, units, length).await;
        curtain.falls().await;
    });
}
