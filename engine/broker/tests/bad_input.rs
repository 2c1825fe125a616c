//! What clients may send, or fail to do, that a broker must survive: an error or a closed
//! connection, and nobody else notices.

mod wire_client;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_ring::{now, random_u64, sleep, spawn, timeout};
use ringmill_wire::StrBytes;
use ringmill_wire::api::{APIS, ApiKey};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::control::encode_request;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FindCoordinatorRequest, MetadataRequest,
};
use ringmill_wire::produce::ProduceResponse;

use wire_client::{Client, Scene, batch, batch_with, fetch_request, produce_request};

/// Sends bytes and tells whether the broker closed the connection without an answer.
async fn is_closed_by(bytes: Vec<u8>) -> bool {
    let mut client = Client::connect().await;
    client.send(vec![Bytes::from(bytes)]).await;
    let answered = timeout(Duration::from_secs(120), client.frame()).await;
    matches!(answered, Ok(None))
}

/// Another client finds everything as it should be.
async fn is_well() {
    let mut client = Client::connect().await;
    let response = client.call(3, &versions()).await;
    assert_eq!(response.error_code, 0);
}

fn versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i32(body.len() as i32);
    frame.put_slice(body);
    frame.to_vec()
}

fn header(key: i16, version: i16) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(-1);
    out
}

#[test]
fn what_is_not_kafka_is_closed() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let cases: [(&str, Vec<u8>); 8] = [
            ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1]),
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            ("negative length", (-1_i32).to_be_bytes().to_vec()),
            ("no length", 0_i32.to_be_bytes().to_vec()),
            ("over the limit", i32::MAX.to_be_bytes().to_vec()),
            ("unknown API", framed(&header(500, 0))),
            ("unknown version", framed(&header(3, 99))),
            ("cut-off header", framed(&[0, 3])),
        ];
        for (what, bytes) in cases {
            assert!(is_closed_by(bytes).await, "{what}");
            is_well().await;
        }
    });
    scene.stop(running);
}

#[test]
fn a_newer_client_is_told_what_it_may_ask() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client
            .send(vec![Bytes::from(framed(&header(18, 99)))])
            .await;
        let frame = client.frame().await.unwrap();
        assert_eq!(&frame[..6], [0, 0, 0, 7, 0, 35]);
        // one row, that of ApiVersions itself (KIP-511)
        assert_eq!(frame[6..12], [0, 0, 0, 1, 0, 18]);
        assert_eq!(frame.len(), 10 + 6);
        is_well().await;
    });
    scene.stop(running);
}

#[test]
fn a_request_that_dribbles_in_is_given_up() {
    let mut scene = Scene::new(1);
    scene.set("request.read.timeout.ms", "5000");
    let running = scene.start();
    scene.client(async {
        let slow = Client::connect().await;
        let began = now();
        let dribble = spawn(async move {
            let mut slow = slow;
            for byte in framed(&[0; 1000]) {
                if slow
                    .stream
                    .send(vec![Bytes::from(vec![byte])])
                    .await
                    .is_err()
                {
                    break;
                }
                let closed = timeout(Duration::from_secs(1), slow.frame()).await;
                if closed == Ok(None) {
                    break;
                }
            }
            now()
        });
        is_well().await;
        let ended = dribble.await.unwrap() - began;
        assert!(ended >= Duration::from_secs(4), "{ended:?}");
        assert!(ended < Duration::from_secs(8), "{ended:?}");
    });
    scene.stop(running);
}

#[test]
fn who_asks_nothing_for_long_is_let_go() {
    let mut scene = Scene::new(1);
    scene.set("connections.max.idle.ms", "3000");
    let running = scene.start();
    scene.client(async {
        let mut idle = Client::connect().await;
        idle.call(3, &versions()).await;
        let mut waiting = Client::connect().await;
        waiting.create_topic("t", 1).await;
        let fetching = spawn(async move {
            // Its request is in work: it is not idle.
            waiting.fetch(10_000, 1, "t", &[(0, 0)]).await;
            waiting
        });
        let began = now();
        assert!(idle.frame().await.is_none());
        let ended = now() - began;
        assert!(
            ended >= Duration::from_secs(2) && ended < Duration::from_secs(5),
            "{ended:?}"
        );
        let mut waiting = fetching.await.unwrap();
        waiting.call(3, &versions()).await;
    });
    scene.stop(running);
}

#[test]
fn a_client_that_was_just_answered_is_not_idle() {
    let mut scene = Scene::new(1);
    scene.set("connections.max.idle.ms", "3000");
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        client.fetch(2_900, 1, "t", &[(0, 0)]).await;
        sleep(Duration::from_millis(2_000)).await;
        client.call(3, &versions()).await;
        let began = now();
        assert!(client.frame().await.is_none());
        let ended = now() - began;
        assert!(ended > Duration::from_millis(2_900), "{ended:?}");
        assert!(ended < Duration::from_millis(3_500), "{ended:?}");
    });
    scene.stop(running);
}

#[test]
fn connections_are_bounded_and_places_come_free_again() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(1, cores);
        scene.set("max.connections", "3");
        let running = scene.start();
        scene.client(async {
            let mut clients = Vec::new();
            for _ in 0..3 {
                let mut client = Client::connect().await;
                client.call(3, &versions()).await;
                clients.push(client);
            }
            let mut fourth = Client::connect().await;
            assert!(fourth.frame().await.is_none(), "one too many");
            for client in &mut clients {
                client.call(3, &versions()).await;
            }
            clients.pop();
            sleep(Duration::from_millis(100)).await;
            is_well().await;
        });
        scene.stop(running);
    }
}

#[test]
fn who_asks_faster_than_it_is_served_waits_and_loses_nothing() {
    let mut scene = Scene::new(1);
    scene.set("max.inflight.requests.per.connection", "2");
    scene.set("queued.max.request.bytes.per.connection", "65536");
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let value = "v".repeat(30_000);
        let mut ids = Vec::new();
        for _ in 0..50 {
            let parts = vec![(0, batch(&[&value]))];
            ids.push(client.ask_produce(-1, "t", parts).await);
        }
        for (offset, id) in ids.into_iter().enumerate() {
            assert_eq!(client.produced(id).await, [(0, offset as i64)]);
        }
    });
    scene.stop(running);
}

#[test]
fn who_does_not_read_its_answers_is_let_go_and_holds_nobody_up() {
    let mut scene = Scene::new(1);
    scene.set("response.write.timeout.ms", "5000");
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let value = "v".repeat(900_000);
        for _ in 0..20 {
            assert_eq!(client.produce("t", 0, batch(&[&value])).await.0, 0);
        }
        let mut deaf = Client::connect().await;
        for _ in 0..100 {
            let header = deaf.header(ApiKey::Fetch, 11);
            let request = fetch_request(0, 1, "t", &[(0, 0)]);
            deaf.send(vec![request.encode(&header).unwrap()]).await;
        }
        let began = now();
        while now() - began < Duration::from_secs(10) {
            is_well().await;
            sleep(Duration::from_secs(1)).await;
        }
        let mut answers = 0;
        while timeout(Duration::from_secs(60), deaf.frame())
            .await
            .expect("an end")
            .is_some()
        {
            answers += 1;
        }
        assert!(answers < 100, "the rest is not answered: {answers}");
    });
    scene.stop(running);
}

#[test]
fn claims_of_a_follower_and_writes_to_internal_topics_are_refused() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let mut follower = fetch_request(0, 1, "t", &[(0, 0)]);
        follower.replica_id = 2;
        let fetched = client.fetch_with(11, follower).await;
        assert_eq!(fetched.0.error_code, 31, "CLUSTER_AUTHORIZATION_FAILED");
        let request = FindCoordinatorRequest::default()
            .with_coordinator_keys(vec![StrBytes::from_static_str("g")]);
        client.call(4, &request).await;
        let refused = client.produce("__consumer_offsets", 0, batch(&["x"])).await;
        assert_eq!(refused, (17, -1), "INVALID_TOPIC_EXCEPTION");
    });
    scene.stop(running);
}

/// The code that a batch is refused with.
async fn refused(client: &mut Client, version: i16, acks: i16, topic: &str, batch: &Bytes) -> i16 {
    refused_because(client, version, acks, topic, batch).await.0
}

/// The same, with the sentence that says why.
async fn refused_because(
    client: &mut Client,
    version: i16,
    acks: i16,
    topic: &str,
    batch: &Bytes,
) -> (i16, String) {
    let header = client.header(ApiKey::Produce, version);
    let request = produce_request(acks, topic, vec![(0, batch.clone())]);
    client.send(request.encode(&header).unwrap()).await;
    let frame = client.frame().await.expect("an answer");
    let response = ProduceResponse::decode(version, &frame).unwrap();
    let partition = &response.topics[0].partitions[0];
    let message = partition.error_message.as_ref();
    (
        partition.error_code,
        message.map(|text| text.to_string()).unwrap_or_default(),
    )
}

#[test]
fn what_is_too_large_is_refused_with_errors_after_which_nobody_tries_again() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let zeros = |len: usize, codec| {
            let mut builder = BatchBuilder::new(64 << 20);
            let record = NewRecord {
                value: Some(&vec![0; len]),
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
            builder.seal(codec, ProducerStamp::NONE)
        };
        for codec in &Compression::ALL[3..] {
            let bomb = zeros(33 << 20, *codec);
            let (code, message) = refused_because(&mut client, 9, -1, "t", &bomb).await;
            assert_eq!(code, 10, "MESSAGE_TOO_LARGE: {message}");
            assert!(message.contains("33554432"), "{message}");
        }
        let configs = [
            ("segment.bytes", "1048576"),
            ("max.message.bytes", "4000000"),
        ];
        let configs = configs.map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(StrBytes::from_static_str("small").into())
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(configs.into());
        let create = CreateTopicsRequest::default().with_topics(vec![topic]);
        assert_eq!(client.call(7, &create).await.topics[0].error_code, 0);
        for (len, expected) in [(5_000_000, 10), (2_000_000, 18), (1_000_000, 0)] {
            let batch = zeros(len, Compression::None);
            let code = refused(&mut client, 9, -1, "small", &batch).await;
            assert_eq!(code, expected, "{len} bytes");
        }
    });
    scene.stop(running);
}

#[test]
fn of_two_mistakes_of_a_batch_the_one_is_told_that_kafka_finds_first() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let damaged = |batch: Bytes| {
            let mut bytes = batch.to_vec();
            *bytes.last_mut().expect("a batch has bytes") ^= 1;
            Bytes::from(bytes)
        };
        let stamp = ProducerStamp {
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
        };
        let foreign = damaged(batch_with(&["v"], Compression::None, stamp));
        let modern = damaged(batch_with(&["v"], Compression::Zstd, ProducerStamp::NONE));
        let (plain, short) = (damaged(batch(&["v"])), batch(&["v"]).slice(..40));
        let mut hollow = batch(&["v"]).to_vec();
        hollow[8..12].fill(0);
        let hollow = Bytes::from(hollow);
        for (what, version, acks, topic, batch, expected) in [
            ("of a transaction, to nowhere", 9, -1, "gone", &foreign, 53),
            ("of a transaction, acks", 9, 2, "t", &foreign, 53),
            ("of a transaction, damaged", 9, -1, "t", &foreign, 53),
            ("a codec to come, damaged", 6, -1, "t", &modern, 76),
            ("a codec to come, acks", 6, 2, "t", &modern, 76),
            ("acks, damaged", 9, 2, "t", &plain, 21),
            ("damaged", 9, -1, "t", &plain, 2),
            ("to nowhere, without a length", 9, -1, "gone", &hollow, 2),
            ("to nowhere, cut off", 9, -1, "gone", &short, 3),
            ("to nowhere, damaged", 9, -1, "gone", &plain, 3),
        ] {
            let code = refused(&mut client, version, acks, topic, batch).await;
            assert_eq!(code, expected, "{what}");
        }
    });
    scene.stop(running);
}

#[test]
fn a_refused_batch_without_acknowledgement_ends_the_connection() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        client.ask_produce(0, "t", vec![(0, batch(&["x"]))]).await;
        let metadata = client
            .call(9, &MetadataRequest::default().with_topics(None))
            .await;
        assert_eq!(metadata.topics.len(), 1, "no answer stands before this one");
        client.ask_produce(0, "t", vec![(9, batch(&["x"]))]).await;
        assert!(client.frame().await.is_none());
        is_well().await;
    });
    scene.stop(running);
}

/// Bodies that a fuzzer would send: random bytes, and good requests with flipped bytes.
async fn throw(rounds: usize) {
    let between = |low: u64, high: u64| low + random_u64() % (high - low + 1);
    for _ in 0..rounds {
        let api = APIS[between(0, APIS.len() as u64 - 1) as usize];
        let version = between(api.min as u64, api.max as u64) as i16;
        let mut body = header(api.key.code(), version);
        if api.is_flexible(version) {
            body.put_u8(0);
        }
        let len = between(0, 60);
        for _ in 0..len {
            let small = between(0, 3) > 0;
            body.put_u8(between(0, if small { 4 } else { 255 }) as u8);
        }
        let mut client = Client::connect().await;
        client.send(vec![Bytes::from(framed(&body))]).await;
        let answered = timeout(Duration::from_secs(2), client.frame()).await;
        drop(answered);
    }
}

#[test]
fn random_requests_of_every_api_leave_the_broker_well() {
    for seed in 0..20 {
        let mut scene = Scene::with_cores(seed, 1 + seed as usize % 2);
        let running = scene.start();
        scene.client(async {
            throw(150).await;
            is_well().await;
        });
        scene.stop(running);
    }
}

#[test]
fn good_requests_with_flipped_bytes_leave_the_broker_well() {
    let mut scene = Scene::new(9);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 2).await;
        for round in 0..400 {
            let mut client = Client::connect().await;
            let produce = client.header(ApiKey::Produce, 9);
            let fetch = client.header(ApiKey::Fetch, 11);
            let plain = RequestHeader {
                key: ApiKey::Metadata,
                version: 9,
                correlation_id: 1,
                client_id: None,
            };
            let mut frame = match round % 3 {
                0 => encode_request(&plain, &MetadataRequest::default())
                    .unwrap()
                    .to_vec(),
                1 => fetch_request(0, 1, "t", &[(0, 0), (1, 0)])
                    .encode(&fetch)
                    .unwrap()
                    .to_vec(),
                _ => {
                    let id = produce.correlation_id;
                    assert_ne!(id, 0);
                    let request = wire_client::produce_request(-1, "t", vec![(0, batch(&["x"]))]);
                    request.encode(&produce).unwrap().concat()
                }
            };
            for _ in 0..1 + random_u64() % 3 {
                let at = 4 + random_u64() as usize % (frame.len() - 4);
                frame[at] ^= 1 << (random_u64() % 8);
            }
            client.send(vec![Bytes::from(frame)]).await;
            let answered = timeout(Duration::from_secs(2), client.frame()).await;
            drop(answered);
        }
        is_well().await;
    });
    scene.stop(running);
}
