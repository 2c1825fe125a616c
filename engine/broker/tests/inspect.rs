//! What administrators look at in partitions: their size, the room there is, and who writes.

mod wire_client;

use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use ringmill_wire::kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use ringmill_wire::kafka_protocol::messages::describe_producers_request::TopicRequest;
use ringmill_wire::kafka_protocol::messages::{DescribeLogDirsRequest, DescribeProducersRequest};

use wire_client::{Client, Scene, batch, batch_with, topic_name};

/// Partitions of a folder by topic: number and size.
fn sizes(found: &DescribeLogDirsResult) -> Vec<(String, Vec<(i32, i64)>)> {
    let topics = found.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|p| (p.partition_index, p.partition_size));
        (topic.name.to_string(), partitions.collect())
    });
    topics.collect()
}

async fn log_dirs(client: &mut Client, request: &DescribeLogDirsRequest) -> DescribeLogDirsResult {
    for version in 1..4 {
        let older = client.call(version, request).await;
        assert_eq!(older.results[0].total_bytes, -1, "version 4 is the first");
    }
    let mut response = client.call(4, request).await;
    assert_eq!((response.error_code, response.results.len()), (0, 1));
    response.results.remove(0)
}

#[test]
fn log_dirs_show_each_partition_with_its_size_and_the_room_that_is_left() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(3, cores);
        scene.world.disk(scene.broker).faults().capacity = 1 << 30;
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("a", 3).await;
            client.create_topic("b", 1).await;
            let sent = batch(&["x", "y"]);
            let bytes = sent.len() as i64;
            client.produce("a", 1, sent).await;
            let all = DescribeLogDirsRequest::default().with_topics(None);
            let found = log_dirs(&mut client, &all).await;
            assert_eq!((found.error_code, found.log_dir.as_str()), (0, "/data"));
            let a = vec![(0, 0), (1, bytes), (2, 0)];
            let expected = [("a".to_owned(), a), ("b".to_owned(), vec![(0, 0)])];
            assert_eq!(sizes(&found), expected);
            assert_eq!(found.total_bytes, 1 << 30);
            assert!((bytes..1 << 30).contains(&found.usable_bytes));
            let some = |name, partitions| {
                DescribableLogDirTopic::default()
                    .with_topic(topic_name(name))
                    .with_partitions(partitions)
            };
            let topics = vec![
                some("a", vec![2, 1, 1, 7, -1]),
                some("gone", vec![0]),
                some("a", vec![1]),
            ];
            let some = DescribeLogDirsRequest::default().with_topics(Some(topics));
            let found = log_dirs(&mut client, &some).await;
            let expected = [("a".to_owned(), vec![(1, bytes), (2, 0)])];
            assert_eq!(sizes(&found), expected, "once each, and what is there");
        });
        scene.stop(running);
    }
}

#[test]
fn producers_are_shown_with_what_they_wrote_last() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(4, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", 2).await;
            for (producer_id, base_sequence) in [(9, 0), (5, 0), (9, 2)] {
                let stamp = ProducerStamp {
                    producer_id,
                    producer_epoch: 3,
                    base_sequence,
                    transactional: false,
                };
                let sent = batch_with(&["x", "y"], Compression::None, stamp);
                assert_eq!(client.produce("t", 1, sent).await.0, 0);
            }
            let topic = |name, partitions| {
                TopicRequest::default()
                    .with_name(topic_name(name))
                    .with_partition_indexes(partitions)
            };
            let topics = vec![topic("t", vec![1, 0, 2, 1]), topic("no/name", vec![0])];
            let request = DescribeProducersRequest::default().with_topics(topics);
            let response = client.call(0, &request).await;
            let mut shown = Vec::new();
            for topic in &response.topics {
                for part in &topic.partitions {
                    let states = part.active_producers.iter();
                    let states = states.map(|p| {
                        assert!(p.last_timestamp >= 0);
                        assert_eq!((p.coordinator_epoch, p.current_txn_start_offset), (-1, -1));
                        (p.producer_id.0, p.producer_epoch, p.last_sequence)
                    });
                    let place = (topic.name.as_str(), part.partition_index);
                    shown.push((place, part.error_code, states.collect::<Vec<_>>()));
                }
            }
            let expected = [
                (("no/name", 0), 17, vec![]),
                (("t", 0), 0, vec![]),
                (("t", 1), 0, vec![(5, 3, 1), (9, 3, 3)]),
                (("t", 2), 3, vec![]),
            ];
            assert_eq!(shown, expected);
        });
        scene.stop(running);
    }
}
