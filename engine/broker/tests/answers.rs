//! Small questions with large answers: whatever a request repeats, the broker makes and holds no
//! more than a bounded answer, and says so.

mod wire_client;

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, DescribeTransactionsRequest,
    FindCoordinatorRequest, JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
};

use wire_client::{Client, Scene, topic_name};

const INVALID_REQUEST: i16 = 42;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A client of a broker that has topic `t`, and offsets of it committed by group `g` with a note of
/// 4000 bytes.
async fn committed() -> Client {
    let mut client = Client::connect().await;
    client.create_topic("t", 1).await;
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    client.call(4, &find).await;
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text(&"m".repeat(4000))));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(text("g").into())
        .with_generation_id_or_member_epoch(-1)
        .with_group_instance_id(None)
        .with_topics(vec![topic]);
    let response = client.call(8, &request).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    client
}

fn fetch_group(group: &str, topic: &str, partitions: Vec<i32>) -> OffsetFetchRequestGroup {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(partitions);
    OffsetFetchRequestGroup::default()
        .with_group_id(text(group).into())
        .with_topics(Some(vec![topic]))
}

fn on_all_cores(story: impl AsyncFn() + Clone + 'static) {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(1, cores);
        let running = scene.start();
        let story = story.clone();
        scene.client(async move { story().await });
        scene.stop(running);
    }
}

#[test]
fn an_offset_that_is_asked_for_a_hundred_thousand_times_is_not_answered_as_often() {
    on_all_cores(async || {
        let mut client = committed().await;
        let again = fetch_group("g", "t", vec![0; 100_000]);
        let once = fetch_group("g", "t", vec![0]);
        let five = fetch_group("g", "t", vec![0; 5]);
        for groups in [vec![again, once.clone()], vec![five; 10_000]] {
            let asked = groups.len();
            let request = OffsetFetchRequest::default().with_groups(groups);
            let response = client.call(8, &request).await;
            assert_eq!(response.groups.len(), asked);
            let refused = response.groups.iter().filter(|g| g.error_code != 0);
            let codes: Vec<i16> = refused.map(|group| group.error_code).collect();
            assert!(!codes.is_empty() && codes.iter().all(|code| *code == INVALID_REQUEST));
        }
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![0; 100_000]);
        let request = OffsetFetchRequest::default()
            .with_group_id(text("g").into())
            .with_topics(Some(vec![topic]));
        let response = client.call(5, &request).await;
        assert_eq!(response.error_code, INVALID_REQUEST);
        let request = OffsetFetchRequest::default().with_groups(vec![once]);
        let response = client.call(8, &request).await;
        assert_eq!(
            response.groups[0].topics[0].partitions[0].committed_offset,
            7
        );
    });
}

#[test]
fn a_long_name_of_a_topic_is_not_copied_for_each_of_its_partitions() {
    on_all_cores(async || {
        let mut client = committed().await;
        let long = "x".repeat(32_000);
        let group = fetch_group("g", &long, (0..200_000).collect());
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let response = client.call(8, &request).await;
        let topics = &response.groups[0].topics;
        assert_eq!((topics.len(), topics[0].partitions.len()), (1, 200_000));
        assert_eq!(topics[0].partitions[0].committed_offset, -1);
    });
}

#[test]
fn who_names_something_again_and_again_has_it_described_once() {
    on_all_cores(async || {
        let mut client = committed().await;
        let metadata = Bytes::from(vec![0; 2 << 20]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("p"))
            .with_metadata(metadata);
        let request = JoinGroupRequest::default()
            .with_group_id(text("g").into())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_protocol_type(text("x"))
            .with_protocols(vec![protocol]);
        let joined = client.call(3, &request).await;
        assert_eq!(joined.error_code, 0);
        let request = SyncGroupRequest::default()
            .with_group_id(text("g").into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id);
        assert_eq!(client.call(3, &request).await.error_code, 0);
        let names = [vec!["g"; 1000], vec!["h", "g", "h"]].concat();
        let groups = || names.iter().map(|name| text(name).into()).collect();
        let request = DescribeGroupsRequest::default().with_groups(groups());
        let described = client.call(5, &request).await.groups;
        let ids: Vec<_> = described.iter().map(|g| g.group_id.as_str()).collect();
        assert_eq!(ids, ["g", "h"]);
        assert_eq!(
            (described[0].error_code, described[0].members.len()),
            (0, 1)
        );
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(groups());
        let described = client.call(1, &request).await.groups;
        let ids: Vec<_> = described.iter().map(|g| g.group_id.as_str()).collect();
        assert_eq!(ids, ["g", "h"]);
        let ids = names.iter().map(|name| text(name).into()).collect();
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        let described = client.call(0, &request).await.transaction_states;
        assert_eq!(described.len(), 2);
    });
}
