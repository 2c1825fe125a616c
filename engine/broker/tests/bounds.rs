//! What clients may make the broker hold, and whether others get through meanwhile: slow disks, long
//! waits, answers that nobody reads.

mod wire_client;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::sim::Latency;
use ringmill_ring::{now, sleep, spawn, timeout};
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, FindCoordinatorRequest, JoinGroupRequest,
};

use wire_client::{Client, Scene, batch, fetch_request};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// How long another client waits for a small answer.
async fn ping() -> Duration {
    let began = now();
    let mut client = Client::connect().await;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1"));
    assert_eq!(client.call(3, &request).await.error_code, 0);
    now() - began
}

/// A broker that holds a mebibyte of requests, with topic `t`, whose disk flushes once a minute.
fn slow_disk(seed: u64) -> Scene {
    let mut scene = Scene::new(seed);
    scene.set("queued.max.request.bytes", "1048576");
    scene.start();
    scene.client(async {
        Client::connect().await.create_topic("t", 1).await;
    });
    let slow = Duration::from_secs(60);
    scene.world.disk(scene.broker).faults().sync_latency = Latency::between(slow, slow);
    scene
}

#[test]
fn who_wants_no_acknowledgement_does_not_fill_the_memory_of_a_broker_with_a_slow_disk() {
    let mut scene = slow_disk(1);
    scene.client(async {
        let mut client = Client::connect().await;
        let value = "v".repeat(500_000);
        let sent = Rc::new(Cell::new(0));
        let counter = Rc::clone(&sent);
        spawn(async move {
            loop {
                let parts = vec![(0, batch(&[&value]))];
                client.ask_produce(0, "t", parts).await;
                counter.set(counter.get() + 1);
            }
        });
        sleep(Duration::from_secs(30)).await;
        assert!(sent.get() < 10, "{} of half a megabyte", sent.get());
    });
}

#[test]
fn who_leaves_or_gives_up_before_its_records_are_written_has_not_made_room() {
    for gives_up in [false, true] {
        let mut scene = slow_disk(1);
        scene.client(async move {
            let value = "v".repeat(500_000);
            let taken = Rc::new(Cell::new(0));
            for _ in 0..20 {
                let (taken, value) = (Rc::clone(&taken), value.clone());
                spawn(async move {
                    let mut client = Client::connect().await;
                    let header = client.header(ApiKey::Produce, 9);
                    let parts = vec![(0, batch(&[&value]))];
                    let mut request = wire_client::produce_request(-1, "t", parts);
                    request.timeout_ms = if gives_up { 100 } else { 60_000 };
                    client.send(request.encode(&header).unwrap()).await;
                    if gives_up {
                        client.frame().await.expect("an answer");
                        taken.set(taken.get() + 1);
                    } else {
                        // It is taken, or not even read: then the client's bytes are its own.
                        sleep(Duration::from_secs(1)).await;
                    }
                });
                sleep(Duration::from_millis(50)).await;
            }
            sleep(Duration::from_secs(2)).await;
            assert!(taken.get() < 10, "{} of half a megabyte", taken.get());
            // The room that is taken is known.
            let other = timeout(Duration::from_secs(10), async {
                let mut client = Client::connect().await;
                let parts = vec![(0, batch(&[&value]))];
                let id = client.ask_produce(-1, "t", parts).await;
                client.produced(id).await
            });
            assert!(other.await.is_err(), "it waits for the disk, as it should");
        });
    }
}

#[test]
fn fetches_that_wait_make_room_for_others() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(2, cores);
        scene.set("queued.max.request.bytes", "1048576");
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", 1).await;
            for _ in 0..6 {
                let mut client = Client::connect().await;
                let header = client.header(ApiKey::Fetch, 11);
                let parts = vec![(0, 0); 30_000];
                let request = fetch_request(200_000, 1, "t", &parts);
                client.send(vec![request.encode(&header).unwrap()]).await;
                spawn(async move { while client.frame().await.is_some() {} });
            }
            sleep(Duration::from_secs(1)).await;
            for _ in 0..10 {
                let took = ping().await;
                assert!(took < Duration::from_secs(1), "{took:?}");
            }
        });
        scene.stop(running);
    }
}

#[test]
fn members_that_wait_for_others_leave_them_room() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(2, cores);
        scene.set("queued.max.request.bytes", "1048576");
        scene.set("group.initial.rebalance.delay.ms", "60000");
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
            client.call(4, &find).await;
            for _ in 0..6 {
                let mut client = Client::connect().await;
                let protocol = JoinGroupRequestProtocol::default()
                    .with_name(text("p"))
                    .with_metadata(Bytes::from(vec![0; 700_000]));
                let request = JoinGroupRequest::default()
                    .with_group_id(text("g").into())
                    .with_session_timeout_ms(10_000)
                    .with_rebalance_timeout_ms(120_000)
                    .with_protocol_type(text("x"))
                    .with_protocols(vec![protocol]);
                client.ask(3, &request).await;
                spawn(async move { while client.frame().await.is_some() {} });
            }
            sleep(Duration::from_secs(1)).await;
            for _ in 0..10 {
                let took = ping().await;
                assert!(took < Duration::from_secs(1), "{took:?}");
            }
        });
        scene.stop(running);
    }
}

#[test]
fn who_does_not_read_large_answers_is_not_asked_for_more_questions() {
    let mut scene = Scene::new(2);
    scene.set("node.id", "0");
    let running = scene.start();
    scene.client(async {
        // A question of ten kilobytes has an answer of about ten megabytes.
        let resource = DescribeConfigsResource::default()
            .with_resource_type(4)
            .with_resource_name(text("0"))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource; 1500])
            .with_include_documentation(true)
            .with_include_synonyms(true);
        let mut client = Client::connect().await;
        assert_eq!(client.call(4, &request).await.results[0].error_code, 0);
        let sent = Rc::new(Cell::new(0));
        let counter = Rc::clone(&sent);
        spawn(async move {
            for _ in 0..400 {
                client.ask(4, &request).await;
                counter.set(counter.get() + 1);
            }
            std::future::pending::<()>().await;
        });
        sleep(Duration::from_secs(20)).await;
        // Most of these are still on their way.
        assert!(sent.get() < 100, "{} answers are made", sent.get());
        assert!(ping().await < Duration::from_secs(1));
    });
    scene.stop(running);
}

#[test]
fn large_requests_that_never_end_are_received_one_after_the_other() {
    let mut scene = Scene::new(2);
    scene.set("queued.max.request.bytes", "1048576");
    let running = scene.start();
    scene.client(async {
        Client::connect().await.create_topic("t", 1).await;
        let sent = Rc::new(Cell::new(0));
        for _ in 0..20 {
            let sent = Rc::clone(&sent);
            spawn(async move {
                let client = Client::connect().await;
                let claim = Bytes::copy_from_slice(&5_000_000_i32.to_be_bytes());
                let most = Bytes::from(vec![0; 4_900_000]);
                // It may be let go before it has sent all.
                if client.stream.send(vec![claim, most]).await.is_ok() {
                    sent.set(sent.get() + 1);
                }
                std::future::pending::<()>().await;
            });
        }
        sleep(Duration::from_secs(10)).await;
        assert!(sent.get() < 3, "{} of five megabytes", sent.get());
        for _ in 0..3 {
            assert!(ping().await < Duration::from_secs(1));
            let mut client = Client::connect().await;
            let value = "v".repeat(100_000);
            assert_eq!(client.produce("t", 0, batch(&[&value])).await.0, 0);
        }
    });
    scene.stop(running);
}
