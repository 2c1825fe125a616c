//! Transactions through the whole broker, by the old protocol and the new: what is committed is
//! read, what is not is not, and no restart or power cut changes that.

#[path = "transactions/producer.rs"]
mod producer;
mod wire_client;

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::Batches;
use ringmill_wire::fetch::{FetchedPartition, IsolationLevel};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    DescribeTransactionsRequest, FindCoordinatorRequest, ListTransactionsRequest,
    OffsetFetchRequest, WriteTxnMarkersRequest,
};
use ringmill_wire::marker::EndTxnMarker;
use ringmill_wire::record::Records;

use producer::{PROTOCOLS, Producer, Protocol};
use wire_client::{Client, Scene, fetch_request, produce_request, topic_name};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const UNSTABLE_OFFSET_COMMIT: i16 = 88;
const PRODUCER_FENCED: i16 = 90;
const NOT_FOUND: i16 = 105;
const ABORTABLE: i16 = 120;
const INVALID_REGULAR_EXPRESSION: i16 = 128;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The values of a partition as a reader of committed records sees them.
async fn committed(client: &mut Client, partition: i32) -> Vec<String> {
    let mut request = fetch_request(0, 1, "t", &[(partition, 0)]);
    request.isolation_level = IsolationLevel::ReadCommitted;
    let fetched = client.fetch_with(11, request).await;
    let part = &fetched.0.topics[0].partitions[0];
    assert_eq!(part.error_code, 0);
    without_aborted(part)
}

/// What a client does with the list of aborted transactions.
fn without_aborted(part: &FetchedPartition<Bytes>) -> Vec<String> {
    let aborted = part.aborted.clone().unwrap_or_default();
    let (mut open, mut values) = (Vec::new(), Vec::new());
    for view in Batches::new(&part.records) {
        let Ok((_, view)) = view else { break };
        let header = *view.header();
        let last = header.next_offset();
        for txn in &aborted {
            if (header.base_offset..last).contains(&txn.first_offset) {
                open.push(txn.producer_id);
            }
        }
        if EndTxnMarker::parse(&header, view.records_bytes()).is_some() {
            open.retain(|id| *id != header.producer_id);
            continue;
        }
        if header.is_transactional() && open.contains(&header.producer_id) {
            continue;
        }
        for record in Records::new(&header, view.records_bytes()) {
            let value = record.unwrap().value.unwrap();
            values.push(String::from_utf8(value.to_vec()).unwrap());
        }
    }
    values
}

/// The committed offset of partition 0 of topic `t` of group `g`: error and offset.
async fn offset(client: &mut Client, require_stable: bool) -> (i16, i64) {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(text("g").into())
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![group])
        .with_require_stable(require_stable);
    let response = client.call(8, &request).await;
    let part = &response.groups[0].topics[0].partitions[0];
    (part.error_code, part.committed_offset)
}

async fn state(client: &mut Client, id: &'static str) -> String {
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![text(id).into()]);
    let response = client.call(0, &request).await;
    let state = &response.transaction_states[0];
    assert_eq!(state.error_code, 0);
    state.transaction_state.to_string()
}

async fn until_complete(client: &mut Client, id: &'static str) {
    while !state(client, id).await.starts_with("Complete") {
        sleep(Duration::from_millis(5)).await;
    }
}

fn on_all_cores(story: impl AsyncFn(Protocol) + Clone + 'static) {
    for cores in [1, 3] {
        for protocol in PROTOCOLS {
            let mut scene = Scene::with_cores(1, cores);
            scene.set(
                "transaction.abort.timed.out.transaction.cleanup.interval.ms",
                "100",
            );
            let running = scene.start();
            let story = story.clone();
            scene.client(async move { story(protocol).await });
            scene.stop(running);
        }
    }
}

#[test]
fn what_is_committed_is_read_and_what_is_aborted_is_not() {
    on_all_cores(async |protocol| {
        let mut reader = Client::connect().await;
        reader.create_topic("t", 4).await;
        let mut producer = Producer::new("p", protocol).await;
        for round in 0..4 {
            let committed = round % 2 == 0;
            let value = format!("{round}");
            producer
                .produce(&[(0, &value), (1, &value), (2, &value), (3, &value)])
                .await;
            producer.produce(&[(0, &value)]).await;
            producer.end(committed).await;
        }
        until_complete(&mut reader, "p").await;
        assert_eq!(committed(&mut reader, 0).await, ["0", "0", "2", "2"]);
        for partition in 1..4 {
            assert_eq!(committed(&mut reader, partition).await, ["0", "2"]);
        }
    });
}

#[test]
fn an_open_transaction_is_not_read() {
    on_all_cores(async |protocol| {
        let mut reader = Client::connect().await;
        reader.create_topic("t", 1).await;
        let mut first = Producer::new("p", protocol).await;
        let mut second = Producer::new("q", protocol).await;
        first.produce(&[(0, "open")]).await;
        second.produce(&[(0, "decided")]).await;
        second.end(true).await;
        until_complete(&mut reader, "q").await;
        assert!(committed(&mut reader, 0).await.is_empty());
        first.end(true).await;
        until_complete(&mut reader, "p").await;
        assert_eq!(committed(&mut reader, 0).await, ["open", "decided"]);
    });
}

#[test]
fn the_first_batches_of_a_transaction_keep_their_order() {
    on_all_cores(async |protocol| {
        let mut reader = Client::connect().await;
        reader.create_topic("t", 2).await;
        let mut producer = Producer::new("p", protocol).await;
        for round in 0..3 {
            if protocol == Protocol::Old {
                while producer.add("t", &[0, 1]).await == CONCURRENT_TRANSACTIONS {}
            }
            let mut asked = Vec::new();
            for n in 0..5 {
                let value = format!("{round}-{n}");
                let parts = [0, 1].map(|number| (number, producer.batch(number, &[&value])));
                asked.push(producer.ask_produce(parts.to_vec()).await);
            }
            for id in asked {
                let produced = producer.produced(id).await;
                assert!(
                    produced.iter().all(|(error, _)| *error == 0),
                    "{produced:?}"
                );
            }
            producer.end(true).await;
            until_complete(&mut reader, "p").await;
        }
        let expected: Vec<String> = (0..3)
            .flat_map(|round| (0..5).map(move |n| format!("{round}-{n}")))
            .collect();
        for partition in 0..2 {
            assert_eq!(committed(&mut reader, partition).await, expected);
        }
    });
}

#[test]
fn a_batch_that_is_in_no_transaction_is_not_taken() {
    on_all_cores(async |_| {
        let mut client = Client::connect().await;
        client.create_topic("t", 2).await;
        let mut producer = Producer::new("p", Protocol::Old).await;
        assert_eq!(producer.add("t", &[0]).await, 0);
        let batch = producer.batch(1, &["x"]);
        let id = producer.ask_produce(vec![(1, batch.clone())]).await;
        assert_eq!(producer.produced(id).await[0].0, ABORTABLE);
        // An older version has no such code.
        let header = producer.client.header(ApiKey::Produce, 9);
        let mut request = produce_request(-1, "t", vec![(1, batch.clone())]);
        request.transactional_id = Some(text("p"));
        producer.client.send(request.encode(&header).unwrap()).await;
        let answer = producer.client.produced(header.correlation_id).await;
        assert_eq!(answer[0].0, INVALID_TXN_STATE);
        // Nobody's transaction at all.
        let (error, _) = client.produce("t", 1, batch).await;
        assert_eq!(error, 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED");
        producer.end(false).await;
        until_complete(&mut client, "p").await;
        let late = producer.batch(0, &["late"]);
        let id = producer.ask_produce(vec![(0, late)]).await;
        assert_eq!(
            producer.produced(id).await[0].0,
            ABORTABLE,
            "the marker has come"
        );
    });
}

#[test]
fn a_second_instance_fences_the_first() {
    on_all_cores(async |protocol| {
        let mut reader = Client::connect().await;
        reader.create_topic("t", 1).await;
        let mut old = Producer::new("p", protocol).await;
        old.produce(&[(0, "old")]).await;
        let mut new = Producer::new("p", protocol).await;
        assert!(new.epoch > old.epoch);
        let batch = old.batch(0, &["late"]);
        let id = old.ask_produce(vec![(0, batch)]).await;
        assert_eq!(old.produced(id).await[0].0, INVALID_PRODUCER_EPOCH);
        assert_eq!(old.try_end(true).await, PRODUCER_FENCED);
        new.produce(&[(0, "new")]).await;
        new.end(true).await;
        until_complete(&mut reader, "p").await;
        assert_eq!(committed(&mut reader, 0).await, ["new"]);
    });
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    on_all_cores(async |protocol| {
        let mut reader = Client::connect().await;
        reader.create_topic("t", 1).await;
        let mut producer = Producer::new("p", protocol).await;
        assert_eq!(producer.init(500).await, 0);
        producer.produce(&[(0, "slow")]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(state(&mut reader, "p").await, "CompleteAbort");
        assert_ne!(producer.try_end(true).await, 0);
        let mut again = Producer::new("p", protocol).await;
        again.produce(&[(0, "quick")]).await;
        again.end(true).await;
        until_complete(&mut reader, "p").await;
        assert_eq!(committed(&mut reader, 0).await, ["quick"]);
    });
}

#[test]
fn offsets_of_a_transaction_count_when_it_is_committed() {
    on_all_cores(async |protocol| {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
        client.call(4, &find).await;
        let mut producer = Producer::new("p", protocol).await;
        assert_eq!(producer.commit_offset(5).await, 0);
        assert_eq!(offset(&mut client, false).await, (0, -1));
        assert_eq!(
            offset(&mut client, true).await,
            (UNSTABLE_OFFSET_COMMIT, -1)
        );
        producer.end(true).await;
        until_complete(&mut client, "p").await;
        assert_eq!(offset(&mut client, true).await, (0, 5));
        assert_eq!(producer.commit_offset(9).await, 0);
        assert_eq!(producer.commit_offset(10).await, 0);
        assert_eq!(offset(&mut client, false).await, (0, 5));
        producer.end(false).await;
        until_complete(&mut client, "p").await;
        assert_eq!(offset(&mut client, true).await, (0, 5));
        assert_eq!(producer.commit_offset(11).await, 0);
        assert_eq!(producer.commit_offset(12).await, 0);
        producer.end(true).await;
        until_complete(&mut client, "p").await;
        assert_eq!(offset(&mut client, true).await, (0, 12));
    });
}

#[test]
fn offsets_of_a_topic_that_is_not_there_begin_no_transaction() {
    on_all_cores(async |protocol| {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
        client.call(4, &find).await;
        let mut producer = Producer::new("p", protocol).await;
        let refused = producer.commit_offset_of("gone", 5).await;
        assert_eq!(refused, UNKNOWN_TOPIC_OR_PARTITION);
        let expected = match protocol {
            // it has said before that offsets come
            Protocol::Old => "Ongoing",
            Protocol::New => "Empty",
        };
        assert_eq!(state(&mut client, "p").await, expected);
    });
}

#[test]
fn administrators_see_transactions_and_end_what_hangs() {
    on_all_cores(async |protocol| {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let mut producer = Producer::new("p", protocol).await;
        Producer::new("q", protocol).await;
        producer.produce(&[(0, "x")]).await;
        let request = DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![text("p").into(), text("none").into()]);
        let response = client.call(0, &request).await;
        let [known, unknown] = &response.transaction_states[..] else {
            panic!("{response:?}");
        };
        assert_eq!(unknown.error_code, NOT_FOUND);
        assert_eq!(&*known.transaction_state, "Ongoing");
        assert_eq!(*known.producer_id, producer.producer_id);
        assert_eq!(known.topics[0].partitions, [0]);
        let all = ListTransactionsRequest::default().with_duration_filter(-1);
        let by = |pattern| {
            let pattern = Some(text(pattern));
            all.clone().with_transactional_id_pattern(pattern)
        };
        let refused = client.call(2, &by("(")).await;
        assert_eq!(refused.error_code, INVALID_REGULAR_EXPRESSION);
        let mut list = async |request: ListTransactionsRequest| {
            let response = client.call(2, &request).await;
            assert_eq!(response.error_code, 0);
            let states = response.transaction_states.iter();
            let mut ids: Vec<String> = states.map(|s| s.transactional_id.to_string()).collect();
            ids.sort();
            (ids.join(" "), response.unknown_state_filters)
        };
        assert_eq!(list(all.clone()).await.0, "p q");
        let open = all
            .clone()
            .with_state_filters(vec![text("Ongoing"), text("x")]);
        assert_eq!(list(open).await, ("p".to_owned(), vec![text("x")]));
        let none = all.clone().with_state_filters(vec![text("x")]);
        assert_eq!(list(none).await.0, "");
        for (pattern, found) in [("", "p q"), ("p|x", "p"), (".", "p q"), ("..", "")] {
            assert_eq!(list(by(pattern)).await.0, found, "{pattern}");
        }
        let one = all
            .clone()
            .with_producer_id_filters(vec![producer.producer_id.into()]);
        assert_eq!(list(one).await.0, "p");

        let topic = WritableTxnMarkerTopic::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![0, 7]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(producer.producer_id.into())
            .with_producer_epoch(producer.epoch)
            .with_transaction_result(false)
            .with_topics(vec![topic]);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let response = client.call(1, &request).await;
        let parts = &response.markers[0].topics[0].partitions;
        assert_eq!((parts[0].error_code, parts[1].error_code), (0, 3));
    });
}

/// Whenever the power goes after a commit was answered, it is one; and nothing hangs.
#[test]
fn an_answered_commit_survives_a_power_cut() {
    for seed in 0..48 {
        let protocol = PROTOCOLS[seed as usize / 2 % 2];
        // Or the power goes when the answer has come, before most markers are written.
        let leaves_one_open = seed % 2 == 0;
        let mut scene = Scene::with_cores(seed, 1 + seed as usize % 3);
        scene.set(
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "100",
        );
        scene.start();
        scene.client(async move {
            let mut client = Client::connect().await;
            client.create_topic("t", 4).await;
            let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
            client.call(4, &find).await;
            let mut producer = Producer::new("p", protocol).await;
            for round in 0..2 {
                let value = format!("{round}");
                producer
                    .produce(&[(0, &value), (1, &value), (2, &value), (3, &value)])
                    .await;
                assert_eq!(producer.commit_offset(round).await, 0);
                producer.end(true).await;
            }
            if leaves_one_open {
                let mut open = Producer::new("open", protocol).await;
                assert_eq!(open.init(300).await, 0);
                open.produce(&[(0, "open")]).await;
            }
            sleep(Duration::from_micros(seed * 7)).await;
        });
        let broker = scene.broker;
        scene.world.power_off(broker);
        let running = scene.start();
        scene.client(async move {
            let mut client = Client::connect().await;
            until_complete(&mut client, "p").await;
            assert_eq!(state(&mut client, "p").await, "CompleteCommit");
            assert_eq!(offset(&mut client, true).await, (0, 1));
            sleep(Duration::from_secs(1)).await;
            if leaves_one_open {
                assert_eq!(state(&mut client, "open").await, "CompleteAbort");
            }
            for partition in 0..4 {
                let found = committed(&mut client, partition).await;
                assert_eq!(found, ["0", "1"], "seed {seed}");
            }
        });
        scene.stop(running);
    }
}
