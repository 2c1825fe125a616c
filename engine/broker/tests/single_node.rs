//! A whole broker in a simulated world, spoken to byte by byte: what a client may rely on.

mod wire_client;

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{fs, now, sleep, spawn};
use ringmill_wire::StrBytes;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ringmill_wire::kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ringmill_wire::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteTopicsRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetForLeaderEpochRequest,
};

use wire_client::{Client, Scene, batch, batch_with, fetch_request, topic_name};

/// Runs the same story with one core and with three.
fn on_all_cores(story: impl AsyncFn() + Clone + 'static) {
    for cores in [1, 3] {
        for seed in 0..5 {
            let mut scene = Scene::with_cores(seed, cores);
            let running = scene.start();
            let story = story.clone();
            scene.client(async move { story().await });
            scene.stop(running);
            assert_eq!(scene.world.descriptors(scene.broker), 0, "all is closed");
        }
    }
}

#[test]
fn what_is_produced_is_fetched_back_in_order_and_survives_a_clean_restart() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(7, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", 4).await;
            for index in 0..4 {
                assert_eq!(client.produce("t", index, batch(&["a", "b"])).await, (0, 0));
                assert_eq!(client.produce("t", index, batch(&["c"])).await, (0, 2));
            }
        });
        scene.stop(running);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            let parts = [(0, 0), (1, 1), (2, 2), (3, 3)];
            let fetched = client.fetch(0, 1, "t", &parts).await;
            let all = [(0, "a"), (1, "b"), (2, "c")].map(|(o, v)| (o, v.to_owned()));
            let expected = [&all[..], &all[..], &all[2..], &[]];
            for (part, expected) in fetched.parts().into_iter().zip(expected) {
                assert_eq!(
                    (part.error, part.end, &part.records[..]),
                    (0, 3, expected),
                    "{}",
                    part.index
                );
            }
            assert_eq!(client.produce("t", 0, batch(&["d"])).await, (0, 3));
        });
        scene.stop(running);
    }
}

#[test]
fn responses_leave_in_the_order_of_their_requests() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 3).await;
        let mut ids = Vec::new();
        for n in 0..30 {
            let value = n.to_string();
            let parts = vec![(n % 3, batch(&[&value]))];
            ids.push(client.ask_produce(-1, "t", parts).await);
        }
        let versions = client.ask(3, &versions_request()).await;
        for (n, id) in ids.into_iter().enumerate() {
            assert_eq!(client.produced(id).await, [(0, n as i64 / 3)]);
        }
        client.answer::<ApiVersionsRequest>(3, versions).await;
    });
}

fn versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

#[test]
fn a_fetch_waits_for_data_no_longer_than_it_said() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 2).await;
        let began = now();
        let fetched = client.fetch(500, 1, "t", &[(0, 0), (1, 0)]).await;
        assert!(fetched.parts().iter().all(|part| part.records.is_empty()));
        let waited = now() - began;
        assert!(waited >= Duration::from_millis(500), "{waited:?}");
        assert!(waited < Duration::from_millis(700), "{waited:?}");
    });
}

#[test]
fn a_waiting_fetch_is_answered_when_data_comes() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 2).await;
        let began = now();
        let waiting = spawn(async {
            let mut other = Client::connect().await;
            other.fetch(20_000, 1, "t", &[(0, 0), (1, 0)]).await.parts()
        });
        sleep(Duration::from_millis(300)).await;
        client.produce("t", 1, batch(&["x"])).await;
        let parts = waiting.await.unwrap();
        assert_eq!(parts[1].records, [(0, "x".to_owned())]);
        assert!(now() - began < Duration::from_secs(2));
    });
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_asks_for() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let waiting = spawn(async {
            let mut other = Client::connect().await;
            let fetched = other.fetch(60_000, 5_000, "t", &[(0, 0)]).await;
            (now(), fetched.records().len())
        });
        let value = "v".repeat(1_000);
        for _ in 0..10 {
            sleep(Duration::from_millis(100)).await;
            client.produce("t", 0, batch(&[&value])).await;
        }
        let (answered, records) = waiting.await.unwrap();
        assert_eq!(records, 5, "five batches of a good thousand bytes");
        assert!(answered < now());
    });
}

#[test]
fn nothing_is_seen_before_it_is_flushed() {
    let mut scene = Scene::new(3);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
    });
    {
        let disk = scene.world.disk(scene.broker);
        let slow = Duration::from_secs(5);
        disk.faults().sync_latency = ringmill_ring::sim::Latency::between(slow, slow);
    }
    scene.client(async {
        let mut client = Client::connect().await;
        let began = now();
        let id = client.ask_produce(1, "t", vec![(0, batch(&["x"]))]).await;
        let mut other = Client::connect().await;
        let fetched = other.fetch(1_000, 1, "t", &[(0, 0)]).await;
        assert!(fetched.records().is_empty(), "written, not flushed");
        assert_eq!(client.produced(id).await, [(0, 0)]);
        assert!(
            now() - began >= Duration::from_secs(5),
            "acks=1 waits as well"
        );
        assert_eq!(other.fetch(0, 1, "t", &[(0, 0)]).await.records().len(), 1);
    });
    scene.stop(running);
}

#[test]
fn a_producer_that_sends_again_gets_its_first_offset() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(1000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let first = client.call(4, &request).await;
        let second = client.call(4, &request).await;
        assert_eq!((first.error_code, second.error_code), (0, 0));
        assert_ne!(first.producer_id, second.producer_id);
        let send = |sequence| {
            let stamp = ProducerStamp {
                producer_id: first.producer_id.0,
                producer_epoch: first.producer_epoch,
                base_sequence: sequence,
                transactional: false,
            };
            batch_with(&["x", "y"], Compression::None, stamp)
        };
        assert_eq!(client.produce("t", 0, send(0)).await, (0, 0));
        assert_eq!(client.produce("t", 0, send(2)).await, (0, 2));
        assert_eq!(client.produce("t", 0, send(2)).await, (0, 2), "a duplicate");
        assert_eq!(client.produce("t", 0, send(6)).await.0, 45, "a gap");
        assert_eq!(client.produce("t", 0, send(4)).await, (0, 4));
    });
}

#[test]
fn offsets_are_found_by_time() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let mut times = Vec::new();
        for value in ["a", "b", "c"] {
            times.push(ringmill_ring::wall_clock_ms());
            client.produce("t", 0, batch(&[value])).await;
            sleep(Duration::from_millis(50)).await;
        }
        let expected = [
            (-1, 3),
            (-2, 0),
            (-3, 2),
            (-4, 0),
            (times[1], 1),
            (times[1] + 1, 2),
            (times[2] + 1000, -1),
        ];
        for (timestamp, offset) in expected {
            let found = list_offset(&mut client, timestamp).await;
            assert_eq!(found, (0, offset), "{timestamp}");
        }
        // who claims an epoch that is yet to come is told so, whatever he asks for; nothing is tiered
        assert_eq!(list_offset(&mut client, -5).await, (0, -1));
        let unknown = ErrorCode::UnknownLeaderEpoch.code();
        for timestamp in [-5, -1, -2] {
            let found = list_offset_of(&mut client, timestamp, 1000).await;
            assert_eq!(found, (unknown, -1), "{timestamp}");
        }
    });
}

#[test]
fn asking_for_a_topic_creates_it_and_deleting_it_wakes_its_readers() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name("new")));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        let metadata = client.call(9, &request).await;
        assert_eq!(metadata.topics[0].error_code, 0, "{metadata:?}");
        assert_eq!(metadata.topics[0].partitions.len(), 1);
        assert_eq!(metadata.brokers.len(), 1);
        assert_eq!(&*metadata.brokers[0].host, "10.0.0.1");
        assert_eq!(client.produce("new", 0, batch(&["x"])).await, (0, 0));
        let waiting = spawn(async {
            let mut other = Client::connect().await;
            other.fetch(60_000, 1, "new", &[(0, 1)]).await.parts()
        });
        sleep(Duration::from_millis(100)).await;
        let began = now();
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name("new")])
            .with_timeout_ms(1000);
        let response = client.call(5, &request).await;
        assert_eq!(response.responses[0].error_code, 0);
        let parts = waiting.await.unwrap();
        assert_eq!(parts[0].error, 3, "UNKNOWN_TOPIC_OR_PARTITION");
        assert!(now() - began < Duration::from_secs(5));
        assert_eq!(client.produce("new", 0, batch(&["x"])).await.0, 3);
    });
}

#[test]
fn a_fetch_session_names_its_partitions_once() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 3).await;
        let mut full = fetch_request(0, 1, "t", &[(0, 0), (1, 0), (2, 0)]);
        (full.session_id, full.session_epoch) = (0, 0);
        let first = client.fetch_with(11, full).await;
        let session = first.0.session_id;
        assert_ne!(session, 0);
        assert_eq!(first.parts().len(), 3);
        client.produce("t", 1, batch(&["x"])).await;
        let mut next = fetch_request(0, 1, "t", &[]);
        next.topics.clear();
        (next.session_id, next.session_epoch) = (session, 1);
        let second = client.fetch_with(11, next.clone()).await;
        let parts = second.parts();
        assert_eq!(parts.len(), 1, "only what is new");
        assert_eq!(
            (parts[0].index, &parts[0].records[..]),
            (1, &[(0, "x".to_owned())][..])
        );
        let replayed = client.fetch_with(11, next).await;
        assert_eq!(replayed.0.error_code, 71, "INVALID_FETCH_SESSION_EPOCH");
    });
}

#[test]
fn bad_batches_are_refused_one_by_one() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let good = batch(&["good"]);
        let broken = |at: usize, flip: u8| {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            Bytes::from(bytes)
        };
        let two = Bytes::from([&good[..], &good[..]].concat());
        let cases = [
            ("crc", broken(70, 1), 2),
            ("magic of old", broken(16, 3), 87),
            ("magic to come", broken(16, 1), 2),
            ("cut off", good.slice(..good.len() - 1), 87),
            ("two batches", two, 87),
            ("nothing", Bytes::new(), 87),
        ];
        for (what, bytes, code) in cases {
            assert_eq!(client.produce("t", 0, bytes).await, (code, -1), "{what}");
        }
        assert_eq!(
            client.produce("t", 9, good.clone()).await.0,
            3,
            "no such partition"
        );
        assert_eq!(
            client.produce("x", 0, good.clone()).await.0,
            3,
            "no such topic"
        );
        let id = client.ask_produce(2, "t", vec![(0, good.clone())]).await;
        assert_eq!(client.produced(id).await[0].0, 21, "acks=2");
        assert_eq!(client.produce("t", 0, good.clone()).await, (0, 0));
    });
}

#[test]
fn compressed_batches_are_kept_as_they_come() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        for (n, codec) in Compression::ALL.into_iter().enumerate() {
            let batch = batch_with(&["same", "same"], codec, ProducerStamp::NONE);
            assert_eq!(
                client.produce("t", 0, batch).await,
                (0, 2 * n as i64),
                "{codec}"
            );
        }
        let records = client.fetch(0, 1, "t", &[(0, 0)]).await.records();
        assert_eq!(records.len(), 10);
        assert!(records.iter().all(|(_, value)| value == "same"));
    });
}

async fn list_offset(client: &mut Client, timestamp: i64) -> (i16, i64) {
    list_offset_of(client, timestamp, -1).await
}

async fn list_offset_of(client: &mut Client, timestamp: i64, epoch: i32) -> (i16, i64) {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(timestamp)
        .with_current_leader_epoch(epoch);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic]);
    let response = client.call(9, &request).await;
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset)
}

#[test]
fn deleted_records_are_gone_and_reading_them_is_out_of_range() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        for value in ["a", "b", "c"] {
            client.produce("t", 0, batch(&[value])).await;
        }
        let delete = |offset| {
            let partition = DeleteRecordsPartition::default().with_offset(offset);
            let topic = DeleteRecordsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            DeleteRecordsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(1000)
        };
        let answer = |response: DeleteRecordsResponse| {
            let part = &response.topics[0].partitions[0];
            (part.error_code, part.low_watermark)
        };
        assert_eq!(answer(client.call(2, &delete(2)).await), (0, 2));
        assert_eq!(list_offset(&mut client, -2).await, (0, 2));
        assert_eq!(client.fetch(0, 1, "t", &[(0, 1)]).await.parts()[0].error, 1);
        let left = client.fetch(0, 1, "t", &[(0, 2)]).await.records();
        assert_eq!(left, [(2, "c".to_owned())]);
        assert_eq!(
            answer(client.call(2, &delete(9)).await).0,
            1,
            "beyond the end"
        );
        assert_eq!(
            answer(client.call(2, &delete(-1)).await),
            (0, 3),
            "all of it"
        );
    });
}

#[test]
fn leader_epochs_end_where_the_log_does() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        client.produce("t", 0, batch(&["a", "b"])).await;
        let ask = |current, epoch| {
            let partition = OffsetForLeaderPartition::default()
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(topic_name("t"))
                .with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default()
                .with_replica_id((-1).into())
                .with_topics(vec![topic])
        };
        let response = client.call(4, &ask(0, 0)).await;
        let part = &response.topics[0].partitions[0];
        assert_eq!(
            (part.error_code, part.leader_epoch, part.end_offset),
            (0, 0, 2)
        );
        let response = client.call(4, &ask(7, 0)).await;
        assert_eq!(
            response.topics[0].partitions[0].error_code, 75,
            "UNKNOWN_LEADER_EPOCH"
        );
    });
}

#[test]
fn a_topic_takes_new_settings_and_partitions_while_it_is_used() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let long = "v".repeat(2000);
        assert_eq!(client.produce("t", 0, batch(&[&long])).await, (0, 0));
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str("max.message.bytes"))
            .with_config_operation(0)
            .with_value(Some(StrBytes::from_static_str("1000")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str("t"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let response = client.call(1, &request).await;
        assert_eq!(response.responses[0].error_code, 0, "{response:?}");
        assert_eq!(
            client.produce("t", 0, batch(&[&long])).await.0,
            10,
            "MESSAGE_TOO_LARGE"
        );
        assert_eq!(client.produce("t", 0, batch(&["short"])).await, (0, 1));

        let grow = CreatePartitionsTopic::default()
            .with_name(topic_name("t"))
            .with_count(4)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![grow])
            .with_timeout_ms(1000);
        let response = client.call(3, &request).await;
        assert_eq!(response.results[0].error_code, 0, "{response:?}");
        for index in 1..4 {
            assert_eq!(client.produce("t", index, batch(&["x"])).await, (0, 0));
        }
    });
}

#[test]
fn old_segments_go_in_their_time() {
    let mut scene = Scene::new(11);
    scene.set("log.retention.check.interval.ms", "1000");
    scene.set("log.retention.ms", "60000");
    scene.set("log.segment.bytes", "65536");
    scene.set("log.segment.delete.delay.ms", "0");
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let value = "v".repeat(30_000);
        for _ in 0..20 {
            client.produce("t", 0, batch(&[&value])).await;
        }
        assert_eq!(list_offset(&mut client, -2).await, (0, 0));
        sleep(Duration::from_secs(120)).await;
        client.produce("t", 0, batch(&["new"])).await;
        sleep(Duration::from_secs(5)).await;
        let (error, start) = list_offset(&mut client, -2).await;
        assert_eq!(error, 0);
        assert!(start >= 18, "what is older is gone: {start}");
        assert_eq!(list_offset(&mut client, -1).await, (0, 21));
    });
    assert!(scene.world.disk(scene.broker).used() < 200_000);
    scene.stop(running);
}

fn metadata_of_all() -> MetadataRequest {
    MetadataRequest::default().with_topics(None)
}

const JOURNAL: &str = "/data/quorum.journal";

/// A metadata that is older than the partitions is no reason to throw them away.
#[test]
fn what_the_metadata_does_not_know_is_moved_aside_and_stays() {
    let mut scene = Scene::new(3);
    let running = scene.start();
    scene.client(async { drop(Client::connect().await.call(9, &metadata_of_all()).await) });
    scene.stop(running);
    let node = scene.broker;
    let old = scene
        .world
        .block_on(node, async { fs::read(JOURNAL).await.unwrap() });
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        assert_eq!(client.produce("t", 0, batch(&["a"])).await, (0, 0));
    });
    scene.stop(running);
    scene.world.block_on(node, async move {
        fs::write_atomic(JOURNAL, vec![old]).await.unwrap();
    });
    for _ in 0..2 {
        let running = scene.start();
        scene.client(async { drop(Client::connect().await.call(9, &metadata_of_all()).await) });
        scene.stop(running);
        let kept = scene.world.block_on(node, async {
            let names = fs::read_dir("/data").await.unwrap();
            let stray = |name: &str| name.starts_with("t-0.") && name.ends_with("-stray");
            let mut strays = names.into_iter().filter(|entry| stray(&entry.name));
            let folder = strays.next().expect("it is moved aside").name;
            assert!(strays.next().is_none());
            let log = format!("/data/{folder}/00000000000000000000.log");
            fs::metadata(log).await.unwrap().len
        });
        assert!(kept > 60, "{kept} bytes");
    }
}
