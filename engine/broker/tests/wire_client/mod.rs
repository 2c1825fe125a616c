//! A small client that speaks the wire's bytes over the ring, and a broker in a simulated world to
//! speak them to. It knows nothing of retries or metadata: tests say each request themselves.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_engine::{BrokerConfig, Launch, Stopper};
use ringmill_ring::sim::{NodeId, Outputs, World};
use ringmill_ring::{Cores, RingConfig, TcpStream, sleep};
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::control::{Call, decode_response, encode_request};
use ringmill_wire::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, IsolationLevel,
};
use ringmill_wire::frame::{Frame, split_frame};
use ringmill_wire::header::{RequestHeader, response_correlation_id};
use ringmill_wire::kafka_protocol::messages::alter_client_quotas_request::{
    EntityData, EntryData, OpData,
};
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;
use ringmill_wire::kafka_protocol::messages::{
    AlterClientQuotasRequest, CreateTopicsRequest, TopicName,
};
use ringmill_wire::produce::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use ringmill_wire::record::{Records, decoded};
use ringmill_wire::topic::TopicRef;
use ringmill_wire::{StrBytes, Uuid};

pub(crate) const BROKER: &str = "10.0.0.1:9092";
pub(crate) const MAX_FRAME: usize = 100 << 20;

/// A world with a machine for a broker and one for its clients.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) broker: NodeId,
    pub(crate) clients: NodeId,
    pub(crate) cores: usize,
    pub(crate) settings: Vec<(String, String)>,
}

/// A broker that runs.
pub(crate) struct Running {
    pub(crate) stopper: Stopper,
    pub(crate) ends: Outputs<Result<(), ringmill_engine::ServeError>>,
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let broker = world.add_node("broker", "10.0.0.1".parse().unwrap());
        let clients = world.add_node("clients", "10.0.0.2".parse().unwrap());
        let settings = [
            ("listeners", BROKER),
            ("log.dirs", "/data"),
            ("group.initial.rebalance.delay.ms", "0"),
        ];
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Self {
            world,
            broker,
            clients,
            cores: 1,
            settings: settings.iter().map(own).collect(),
        }
    }

    pub(crate) fn with_cores(seed: u64, cores: usize) -> Self {
        Self {
            cores,
            ..Self::new(seed)
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn start(&mut self) -> Running {
        let config = BrokerConfig::from_pairs(self.settings.clone()).unwrap();
        let cores = Cores::new(self.cores);
        let stopper = Stopper::new();
        let launch = Launch::new(config, &cores, stopper.clone(), |_| ());
        let ends = self
            .world
            .launch(self.broker, cores, RingConfig::default(), move |core| {
                let launch = launch.clone();
                async move { launch.run(core).await }
            });
        Running { stopper, ends }
    }

    /// Stops the broker cleanly.
    pub(crate) fn stop(&mut self, running: Running) {
        running.stopper.stop();
        let node = self.broker;
        let ended = self
            .world
            .run_until(Duration::from_secs(60), |world| !world.is_running(node));
        ended.expect("the broker stops");
        for end in running.ends.take() {
            end.expect("a clean end");
        }
    }

    /// Runs a client's story to its end.
    pub(crate) fn client<T: 'static>(&mut self, story: impl Future<Output = T> + 'static) -> T {
        let clients = self.clients;
        self.world.block_on(clients, story)
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: BytesMut,
    next_id: i32,
}

impl Client {
    /// Connects to the scene's broker, waiting for it to listen.
    pub(crate) async fn connect() -> Self {
        Self::connect_to(BROKER.parse().unwrap()).await
    }

    /// Connects to a broker, waiting for it to listen.
    pub(crate) async fn connect_to(address: SocketAddr) -> Self {
        for _ in 0..1000 {
            if let Ok(stream) = TcpStream::connect(address).await {
                return Self {
                    stream,
                    received: BytesMut::new(),
                    next_id: 1,
                };
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody listens");
    }

    /// Connects to a broker that may not be there.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        Some(Self {
            stream,
            received: BytesMut::new(),
            next_id: 1,
        })
    }

    /// Asks a broker that may go.
    pub(crate) async fn try_call<R: Call>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Option<R::Response> {
        let header = self.header(R::KEY, version);
        let frame = encode_request(&header, request).unwrap();
        self.stream.send(vec![frame]).await.ok()?;
        let frame = self.frame().await?;
        Some(decode_response::<R>(version, &frame).unwrap())
    }

    pub(crate) fn header(&mut self, key: ApiKey, version: i16) -> RequestHeader {
        self.next_id += 1;
        RequestHeader {
            key,
            version,
            correlation_id: self.next_id,
            client_id: Some(StrBytes::from_static_str("test")),
        }
    }

    /// The next response's frame; none when the broker has closed the connection.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        loop {
            match split_frame(&mut self.received, MAX_FRAME).unwrap() {
                Frame::Complete(frame) => return Some(frame),
                Frame::Partial { .. } => match self.stream.recv(&mut self.received).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                },
            }
        }
    }

    pub(crate) async fn send(&self, frame: Vec<Bytes>) {
        self.stream.send(frame).await.expect("the broker takes it");
    }

    /// Sends a control request without waiting for the answer.
    pub(crate) async fn ask<R: Call>(&mut self, version: i16, request: &R) -> i32 {
        let header = self.header(R::KEY, version);
        let frame = encode_request(&header, request).unwrap();
        self.send(vec![frame]).await;
        header.correlation_id
    }

    /// The answer to a control request.
    pub(crate) async fn answer<R: Call>(&mut self, version: i16, id: i32) -> R::Response {
        let frame = self.frame().await.expect("an answer");
        assert_eq!(
            response_correlation_id(&frame),
            Ok(id),
            "answers come in order"
        );
        decode_response::<R>(version, &frame).unwrap()
    }

    /// Sends a control request and waits for its answer.
    pub(crate) async fn call<R: Call>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.ask(version, request).await;
        self.answer::<R>(version, id).await
    }

    /// Creates a topic and tells its id.
    pub(crate) async fn create_topic(&mut self, name: &str, partitions: i32) -> Uuid {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(1000);
        let response = self.call(7, &request).await;
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
        response.topics[0].topic_id
    }

    /// Sets a quota of a client id, or of all that have none of their own.
    pub(crate) async fn set_quota(
        &mut self,
        key: &'static str,
        client_id: Option<&'static str>,
        quota: f64,
    ) {
        let entity = EntityData::default()
            .with_entity_type(StrBytes::from_static_str("client-id"))
            .with_entity_name(client_id.map(StrBytes::from_static_str));
        let op = OpData::default()
            .with_key(StrBytes::from_static_str(key))
            .with_value(quota);
        let entry = EntryData::default()
            .with_entity(vec![entity])
            .with_ops(vec![op]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let response = self.call(1, &request).await;
        assert_eq!(response.entries[0].error_code, 0);
    }

    /// Sends batches, one for each partition, without waiting.
    pub(crate) async fn ask_produce(
        &mut self,
        acks: i16,
        topic: &str,
        parts: Vec<(i32, Bytes)>,
    ) -> i32 {
        let header = self.header(ApiKey::Produce, 9);
        let request = produce_request(acks, topic, parts);
        self.send(request.encode(&header).unwrap()).await;
        header.correlation_id
    }

    /// As [`Self::ask_produce`], of a broker that may be gone.
    pub(crate) async fn try_ask_produce(
        &mut self,
        acks: i16,
        topic: &str,
        parts: Vec<(i32, Bytes)>,
    ) -> Option<i32> {
        let header = self.header(ApiKey::Produce, 9);
        let request = produce_request(acks, topic, parts);
        let sent = self.stream.send(request.encode(&header).unwrap()).await;
        sent.is_ok().then_some(header.correlation_id)
    }

    /// The first partition's result, of a broker that may be gone.
    pub(crate) async fn try_produced(&mut self, id: i32) -> Option<(i16, i64)> {
        let frame = self.frame().await?;
        assert_eq!(
            response_correlation_id(&frame),
            Ok(id),
            "answers come in order"
        );
        let response = ProduceResponse::decode(9, &frame).unwrap();
        let part = &response.topics[0].partitions[0];
        Some((part.error_code, part.base_offset))
    }

    pub(crate) async fn produced(&mut self, id: i32) -> Vec<(i16, i64)> {
        let frame = self.frame().await.expect("an answer");
        assert_eq!(
            response_correlation_id(&frame),
            Ok(id),
            "answers come in order"
        );
        let response = ProduceResponse::decode(9, &frame).unwrap();
        let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
        parts
            .map(|part| (part.error_code, part.base_offset))
            .collect()
    }

    /// Produces one batch to one partition: error code and base offset.
    pub(crate) async fn produce(&mut self, topic: &str, index: i32, batch: Bytes) -> (i16, i64) {
        let id = self.ask_produce(-1, topic, vec![(index, batch)]).await;
        self.produced(id).await[0]
    }

    /// Fetches without a session.
    pub(crate) async fn fetch(
        &mut self,
        wait_ms: i32,
        min: i32,
        topic: &str,
        parts: &[(i32, i64)],
    ) -> Fetched {
        let request = fetch_request(wait_ms, min, topic, parts);
        self.fetch_with(11, request).await
    }

    pub(crate) async fn fetch_with(&mut self, version: i16, request: FetchRequest) -> Fetched {
        let header = self.header(ApiKey::Fetch, version);
        self.send(vec![request.encode(&header).unwrap()]).await;
        let frame = self.frame().await.expect("an answer");
        assert_eq!(response_correlation_id(&frame), Ok(header.correlation_id));
        Fetched(FetchResponse::decode(version, &frame).unwrap())
    }
}

pub(crate) fn fetch_request(
    wait_ms: i32,
    min: i32,
    topic: &str,
    parts: &[(i32, i64)],
) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        replica_epoch: -1,
        max_wait_ms: wait_ms,
        min_bytes: min,
        max_bytes: 50 << 20,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(StrBytes::from_string(topic.to_owned())),
            partitions: parts
                .iter()
                .map(|(partition, offset)| FetchPartition {
                    partition: *partition,
                    current_leader_epoch: -1,
                    fetch_offset: *offset,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    max_bytes: 10 << 20,
                    safe_end: -1,
                })
                .collect(),
        }],
        forgotten: Vec::new(),
        rack_id: StrBytes::new(),
    }
}

pub(crate) fn produce_request(acks: i16, topic: &str, parts: Vec<(i32, Bytes)>) -> ProduceRequest {
    let partitions = parts.into_iter();
    ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 30_000,
        topics: vec![ProduceTopic {
            topic: TopicRef::Name(StrBytes::from_string(topic.to_owned())),
            partitions: partitions
                .map(|(index, records)| ProducePartition { index, records })
                .collect(),
        }],
    }
}

/// A fetch's response.
pub(crate) struct Fetched(pub(crate) FetchResponse<Bytes>);

/// What a fetch found of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) index: i32,
    pub(crate) error: i16,
    /// The high watermark.
    pub(crate) end: i64,
    /// Offsets and values.
    pub(crate) records: Vec<(i64, String)>,
}

impl Fetched {
    /// Each partition.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let parts = self.0.topics.iter().flat_map(|topic| &topic.partitions);
        parts
            .map(|part| Part {
                index: part.partition,
                error: part.error_code,
                end: part.high_watermark,
                records: values(&part.records),
            })
            .collect()
    }

    /// The records of the only partition.
    pub(crate) fn records(&self) -> Vec<(i64, String)> {
        let mut parts = self.parts();
        assert_eq!(parts.len(), 1, "one partition");
        let part = parts.remove(0);
        assert_eq!(part.error, 0);
        part.records
    }
}

/// Offsets and values of the records of whole batches.
pub(crate) fn values(bytes: &Bytes) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for view in ringmill_wire::batch::Batches::new(bytes) {
        let Ok((_, view)) = view else { break };
        view.check_crc().expect("intact");
        let records = decoded(&view, 64 << 20).unwrap();
        for record in Records::new(view.header(), &records) {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            found.push((record.offset, value));
        }
    }
    found
}

/// A batch of records with these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_with(values, Compression::None, ProducerStamp::NONE)
}

pub(crate) fn batch_with(values: &[&str], codec: Compression, producer: ProducerStamp) -> Bytes {
    let mut builder = BatchBuilder::new(10 << 20);
    for value in values {
        let record = NewRecord {
            timestamp: ringmill_ring::wall_clock_ms(),
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.append(&record).unwrap();
    }
    builder.seal(codec, producer)
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    StrBytes::from_string(name.to_owned()).into()
}
