//! Fetches that do not go by the book: what a client may mix up, repeat or exaggerate, and what
//! that may cost the broker.

mod wire_client;

use std::time::Duration;

use ringmill_ring::now;
use ringmill_ring::sim::Latency;
use ringmill_wire::topic::TopicRef;

use wire_client::{Client, Scene, batch, fetch_request};

#[test]
fn a_session_by_topic_id_is_not_continued_in_a_version_that_has_names() {
    const MIXED: i16 = 106;
    for cores in [1, 3] {
        for (first, next) in [(13, 12), (12, 13)] {
            let mut scene = Scene::with_cores(1, cores);
            let running = scene.start();
            scene.client(async move {
                let mut client = Client::connect().await;
                let id = client.create_topic("t", 1).await;
                let mut full = fetch_request(0, 1, "t", &[(0, 0)]);
                (full.session_id, full.session_epoch) = (0, 0);
                if first >= TopicRef::FIRST_BY_ID {
                    full.topics[0].topic = TopicRef::Id(id);
                }
                let session = client.fetch_with(first, full).await.0.session_id;
                assert_ne!(session, 0);
                client.produce("t", 0, batch(&["x"])).await;
                let mut more = fetch_request(0, 1, "t", &[]);
                more.topics.clear();
                (more.session_id, more.session_epoch) = (session, 1);
                let mixed = client.fetch_with(next, more.clone()).await;
                assert_eq!(mixed.0.error_code, MIXED, "FETCH_SESSION_TOPIC_ID_ERROR");
                // The session itself is as it was.
                let fetched = client.fetch_with(first, more).await;
                assert_eq!(fetched.records(), [(0, "x".to_owned())]);
            });
            scene.stop(running);
        }
    }
}

/// Partitions of other cores are read into memory: what one fetch may have there does not grow with
/// what it names. Told by the time, for each read takes a while.
#[test]
fn a_fetch_that_names_a_partition_again_and_again_does_not_read_it_as_often() {
    let mut scene = Scene::with_cores(3, 3);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 3).await;
        let value = "v".repeat(900_000);
        for n in 0..9 {
            assert_eq!(client.produce("t", n % 3, batch(&[&value])).await.0, 0);
        }
    });
    // The next one has nothing in memory.
    scene.stop(running);
    // A cold read is several: its place is looked up, and its CRCs are checked piece by piece.
    let slow = Duration::from_millis(1);
    scene.world.disk(scene.broker).faults().read_latency = Latency::between(slow, slow);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        let mut times = Vec::new();
        for index in 0..3 {
            let began = now();
            let fetched = client.fetch(0, 1, "t", &[(index, 0); 300]).await;
            times.push(now() - began);
            let parts = fetched.parts();
            assert!(parts.iter().all(|part| part.error == 0 && part.end == 3));
            let has_records = parts.iter().any(|part| !part.records.is_empty());
            assert!(has_records, "{index} has records");
        }
        // One of the three may be the connection's own core's, which reads what it sends.
        times.sort_unstable();
        assert!(times[1] < Duration::from_millis(200), "{times:?}");
    });
    scene.stop(running);
}

#[test]
fn without_any_room_a_fetch_still_brings_one_batch() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(9, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", 3).await;
            for index in 0..3 {
                client.produce("t", index, batch(&["x"])).await;
                client.produce("t", index, batch(&["y"])).await;
            }
            let mut request = fetch_request(0, 1, "t", &[(0, 2), (1, 0), (2, 0)]);
            request.max_bytes = 0;
            for part in &mut request.topics[0].partitions {
                part.max_bytes = 0;
            }
            let fetched = client.fetch_with(11, request).await;
            let counts: Vec<usize> = fetched
                .parts()
                .iter()
                .map(|part| part.records.len())
                .collect();
            assert_eq!(counts, [0, 1, 0]);
        });
        scene.stop(running);
    }
}

/// As Kafka: who has seen an epoch of which nothing is known asks for what is out of range, and so does
/// who asks for what is deleted, whatever it has seen.
#[test]
fn an_epoch_that_is_not_known_is_out_of_range() {
    const OUT_OF_RANGE: i16 = 1;
    let mut scene = Scene::new(4);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 2).await;
        client.produce("t", 0, batch(&["x"])).await;
        // the second partition is empty, and its leader's epoch is known all the same
        let cases = [
            (0, 0, 0, 0),
            (0, 1, 0, OUT_OF_RANGE),
            (1, 0, 0, 0),
            (1, 1, 0, OUT_OF_RANGE),
            (0, 0, -3, OUT_OF_RANGE),
        ];
        for (partition, last_epoch, offset, error) in cases {
            let mut request = fetch_request(0, 0, "t", &[(partition, offset)]);
            request.topics[0].partitions[0].last_fetched_epoch = last_epoch;
            let fetched = client.fetch_with(12, request).await;
            let part = fetched.0.topics[0].partitions[0].clone();
            let told = (part.error_code, part.diverging_epoch);
            assert_eq!(told, (error, None), "{partition} {last_epoch} {offset}");
        }
        let mut request = fetch_request(0, 0, "t", &[(0, 5)]);
        request.topics[0].partitions[0].last_fetched_epoch = 0;
        let fetched = client.fetch_with(12, request).await;
        let diverging = fetched.0.topics[0].partitions[0].diverging_epoch.unwrap();
        assert_eq!((diverging.epoch, diverging.end_offset), (0, 1));
    });
    scene.stop(running);
}

#[test]
fn each_partition_is_looked_for_in_its_own_topic_in_whatever_order_they_are_named() {
    const UNKNOWN: i16 = 3;
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(6, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            for topic in ["a", "b"] {
                client.create_topic(topic, 2).await;
                for index in 0..2 {
                    let value = format!("{topic}{index}");
                    assert_eq!(client.produce(topic, index, batch(&[&value])).await.0, 0);
                }
            }
            let asked = [("a", 0), ("a", 2), ("b", 1), ("c", 0), ("a", 1), ("b", 0)];
            let mut request = fetch_request(0, 1, "a", &[]);
            request.topics = asked
                .iter()
                .flat_map(|(topic, index)| fetch_request(0, 1, topic, &[(*index, 0)]).topics)
                .collect();
            let parts = client.fetch_with(11, request).await.parts();
            let told: Vec<_> = parts
                .iter()
                .map(|part| {
                    let value = part.records.first().map(|(_, value)| value.as_str());
                    (part.index, part.error, value)
                })
                .collect();
            let expected = [
                (0, 0, Some("a0")),
                (2, UNKNOWN, None),
                (1, 0, Some("b1")),
                (0, UNKNOWN, None),
                (1, 0, Some("a1")),
                (0, 0, Some("b0")),
            ];
            assert_eq!(told, expected);
        });
        scene.stop(running);
    }
}
