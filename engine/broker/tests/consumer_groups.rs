//! Consumer groups through the whole broker: membership, committed offsets, and what of both is
//! there after restarts and power cuts.

mod wire_client;

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::sim::Latency;
use ringmill_ring::{now, sleep, spawn};
use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::leave_group_request::MemberIdentity;
use ringmill_wire::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringmill_wire::kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};

use wire_client::{Client, Scene, topic_name};

const MEMBER_ID_REQUIRED: i16 = 79;
const REBALANCE_IN_PROGRESS: i16 = 27;
const ILLEGAL_GENERATION: i16 = 22;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn find_coordinator(client: &mut Client) {
    let request = FindCoordinatorRequest::default()
        .with_key_type(0)
        .with_coordinator_keys(vec![text("g")]);
    let response = client.call(4, &request).await;
    assert_eq!(response.coordinators[0].error_code, 0);
}

fn join_request(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\0\0\0\0"));
    JoinGroupRequest::default()
        .with_group_id(text(group).into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_group_instance_id(None)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
        .with_reason(None)
}

/// Joins as a client of today does: once for the id, once with it.
async fn join(client: &mut Client, group: &str) -> JoinGroupResponse {
    let first = client.call(9, &join_request(group, "")).await;
    assert_eq!(first.error_code, MEMBER_ID_REQUIRED);
    let joined = client.call(9, &join_request(group, &first.member_id)).await;
    assert_eq!(joined.error_code, 0);
    joined
}

async fn sync(client: &mut Client, group: &str, joined: &JoinGroupResponse) -> (i16, Bytes) {
    let leads = joined.leader == joined.member_id;
    let members = joined.members.iter().filter(|_| leads);
    let assignments = members.map(|member| {
        SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(Bytes::from(format!("for {}", member.member_id)))
    });
    let request = SyncGroupRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(None)
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(assignments.collect());
    let response = client.call(5, &request).await;
    (response.error_code, response.assignment)
}

async fn heartbeat(client: &mut Client, group: &str, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(None);
    client.call(4, &request).await.error_code
}

async fn commit(
    client: &mut Client,
    group: &str,
    member: Option<&JoinGroupResponse>,
    offset: i64,
) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(0)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(member.map_or(-1, |m| m.generation_id))
        .with_member_id(member.map_or(StrBytes::new(), |m| m.member_id.clone()))
        .with_group_instance_id(None)
        .with_topics(vec![topic]);
    client.call(8, &request).await.topics[0].partitions[0].error_code
}

async fn committed(client: &mut Client, groups: &[&str]) -> Vec<(i16, i64)> {
    let topics = OffsetFetchRequestTopics::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let groups = groups.iter().map(|group| {
        OffsetFetchRequestGroup::default()
            .with_group_id(text(group).into())
            .with_topics(Some(vec![topics.clone()]))
    });
    let request = OffsetFetchRequest::default().with_groups(groups.collect());
    let response = client.call(8, &request).await;
    let groups = response.groups.iter();
    groups
        .map(|group| match group.topics.first() {
            Some(topic) => (group.error_code, topic.partitions[0].committed_offset),
            None => (group.error_code, -2),
        })
        .collect()
}

/// Runs the same story with one core and with three.
fn on_all_cores(story: impl AsyncFn() + Clone + 'static) {
    for cores in [1, 3] {
        for seed in 0..5 {
            let mut scene = Scene::with_cores(seed, cores);
            let running = scene.start();
            let story = story.clone();
            scene.client(async move { story().await });
            scene.stop(running);
        }
    }
}

#[test]
fn members_join_share_and_rebalance_when_one_dies() {
    on_all_cores(async || {
        let mut one = Client::connect().await;
        find_coordinator(&mut one).await;
        let first = join(&mut one, "g").await;
        let (error, part) = sync(&mut one, "g", &first).await;
        assert_eq!(
            (error, &part[..]),
            (0, format!("for {}", first.member_id).as_bytes())
        );

        let mut two = Client::connect().await;
        let joining = spawn(async move {
            let joined = join(&mut two, "g").await;
            (two, joined)
        });
        while heartbeat(&mut one, "g", &first).await != REBALANCE_IN_PROGRESS {
            sleep(Duration::from_millis(100)).await;
        }
        let again = one.call(9, &join_request("g", &first.member_id)).await;
        let (mut two, second) = joining.await.unwrap();
        assert_eq!(again.generation_id, second.generation_id);
        assert_eq!(
            again.members.len() + second.members.len(),
            2,
            "the leader sees both"
        );
        let following = spawn(async move { (sync(&mut two, "g", &second).await, second, two) });
        let mine = sync(&mut one, "g", &again).await;
        let (theirs, second, two) = following.await.unwrap();
        assert_eq!((mine.0, theirs.0), (0, 0));
        assert_ne!(mine.1, theirs.1);

        // The second one falls silent.
        drop((two, second));
        let began = now();
        while heartbeat(&mut one, "g", &again).await == 0 {
            sleep(Duration::from_millis(500)).await;
            assert!(now() - began < Duration::from_secs(20));
        }
        let alone = one.call(9, &join_request("g", &again.member_id)).await;
        assert_eq!(alone.members.len(), 1);
        assert_eq!(heartbeat(&mut one, "g", &again).await, ILLEGAL_GENERATION);
    });
}

#[test]
fn a_client_may_ask_for_other_things_while_it_waits_to_join() {
    on_all_cores(async || {
        let mut one = Client::connect().await;
        find_coordinator(&mut one).await;
        let first = join(&mut one, "g").await;
        sync(&mut one, "g", &first).await;
        let mut two = Client::connect().await;
        let id = two.call(9, &join_request("g", "")).await.member_id;
        let joining = two.ask(9, &join_request("g", &id)).await;
        let listing = two.ask(4, &ListGroupsRequest::default()).await;
        sleep(Duration::from_millis(200)).await;
        one.call(9, &join_request("g", &first.member_id)).await;
        let joined = two.answer::<JoinGroupRequest>(9, joining).await;
        assert_eq!(
            joined.error_code, 0,
            "answers come in the order of the requests"
        );
        let listed = two.answer::<ListGroupsRequest>(4, listing).await;
        assert_eq!(listed.groups.len(), 1);
    });
}

#[test]
fn committed_offsets_outlive_power_cuts_and_uncommitted_ones_do_not_appear() {
    for cores in [1, 3] {
        for seed in 0..10 {
            let mut scene = Scene::with_cores(seed, cores);
            scene.start();
            scene.client(async {
                let mut client = Client::connect().await;
                client.create_topic("t", 1).await;
                find_coordinator(&mut client).await;
                for group in ["a", "b", "c"] {
                    for offset in 0..10 {
                        assert_eq!(commit(&mut client, group, None, offset).await, 0);
                    }
                }
                assert_eq!(committed(&mut client, &["a", "b"]).await, [(0, 9), (0, 9)]);
            });
            scene.world.power_off(scene.broker);
            let running = scene.start();
            scene.client(async {
                let mut client = Client::connect().await;
                let offsets = committed(&mut client, &["a", "b", "c", "none"]).await;
                assert_eq!(offsets, [(0, 9), (0, 9), (0, 9), (0, -1)]);
            });
            scene.stop(running);
        }
    }
}

#[test]
fn a_stable_group_goes_on_after_a_restart() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(1, cores);
        let running = scene.start();
        let joined = scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", 1).await;
            find_coordinator(&mut client).await;
            let joined = join(&mut client, "g").await;
            sync(&mut client, "g", &joined).await;
            assert_eq!(commit(&mut client, "g", Some(&joined), 5).await, 0);
            joined
        });
        scene.stop(running);
        let running = scene.start();
        scene.client(async move {
            let mut client = Client::connect().await;
            assert_eq!(heartbeat(&mut client, "g", &joined).await, 0);
            assert_eq!(commit(&mut client, "g", Some(&joined), 6).await, 0);
            assert_eq!(committed(&mut client, &["g"]).await, [(0, 6)]);
        });
        scene.stop(running);
    }
}

#[test]
fn groups_are_described_listed_left_and_deleted() {
    on_all_cores(async || {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        find_coordinator(&mut client).await;
        let joined = join(&mut client, "g").await;
        sync(&mut client, "g", &joined).await;
        assert_eq!(commit(&mut client, "g", Some(&joined), 1).await, 0);
        assert_eq!(commit(&mut client, "h", None, 1).await, 0);
        let describe = DescribeGroupsRequest::default()
            .with_groups(vec![text("g").into(), text("nobody").into()]);
        let described = client.call(5, &describe).await;
        assert_eq!(&*described.groups[0].group_state, "Stable");
        assert_eq!(described.groups[0].members.len(), 1);
        assert_eq!(&*described.groups[0].members[0].client_host, "/10.0.0.2");
        assert_eq!(&*described.groups[1].group_state, "Dead");
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![
            text("g").into(),
            text("h").into(),
            text("i").into(),
        ]);
        let deleted = client.call(2, &delete).await;
        let codes: Vec<i16> = deleted.results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [68, 0, 69]);
        let member = MemberIdentity::default()
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id(None)
            .with_reason(None);
        let leave = LeaveGroupRequest::default()
            .with_group_id(text("g").into())
            .with_members(vec![member]);
        assert_eq!(client.call(5, &leave).await.members[0].error_code, 0);
        let listed = client.call(4, &ListGroupsRequest::default()).await;
        let groups: Vec<_> = listed
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
            .collect();
        assert_eq!(groups, [("g".to_owned(), "Empty".to_owned())]);
        assert_eq!(committed(&mut client, &["g", "h"]).await, [(0, 1), (0, -1)]);
    });
}

#[test]
fn the_groups_log_stays_short_however_often_they_commit() {
    let mut scene = Scene::new(5);
    scene.set("offsets.topic.num.partitions", "1");
    scene.set("offsets.topic.segment.bytes", "65536");
    scene.set("log.segment.delete.delay.ms", "0");
    scene.set("log.cleaner.backoff.ms", "1000");
    scene.set("log.cleaner.delete.retention.ms", "1000");
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        find_coordinator(&mut client).await;
        for group in ["rare", "gone"] {
            assert_eq!(commit(&mut client, group, None, 7).await, 0);
        }
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![text("gone").into()]);
        assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
        for offset in 0..12_000 {
            assert_eq!(commit(&mut client, "g", None, offset).await, 0);
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(committed(&mut client, &["g"]).await, [(0, 11_999)]);
    });
    let log: u64 = {
        let disk = scene.world.disk(scene.broker);
        let files = disk.list().into_iter();
        let of_groups = files.filter(|(path, _)| path.contains("__consumer_offsets"));
        of_groups.map(|(_, len)| len).sum()
    };
    // the active segment, one that was compacted, and not enough to be compacted again
    assert!(log < 400_000, "{log} bytes");
    scene.world.power_off(scene.broker);
    drop(running);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        let groups = ["g", "rare", "gone"];
        let expected = [(0, 11_999), (0, 7), (0, -1)];
        assert_eq!(committed(&mut client, &groups).await, expected);
    });
    scene.stop(running);
}

#[test]
fn a_topic_of_many_groups_is_deleted_in_a_few_flushes() {
    let mut scene = Scene::new(5);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        find_coordinator(&mut client).await;
        for n in 0..300 {
            assert_eq!(commit(&mut client, &n.to_string(), None, 1).await, 0);
        }
    });
    let slow = Duration::from_millis(20);
    scene.world.disk(scene.broker).faults().sync_latency = Latency::between(slow, slow);
    scene.client(async {
        let mut client = Client::connect().await;
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name("t")])
            .with_timeout_ms(1000);
        let began = now();
        let response = client.call(5, &request).await;
        assert_eq!(response.responses[0].error_code, 0);
        let took = now() - began;
        assert!(took < Duration::from_secs(2), "{took:?}");
        client.create_topic("t", 1).await;
        assert_eq!(committed(&mut client, &["7"]).await, [(0, -1)]);
    });
    scene.stop(running);
}
