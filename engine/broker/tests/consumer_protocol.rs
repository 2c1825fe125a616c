//! The consumer protocol (KIP-848) through the whole broker in a simulated world: members share a
//! topic, a power cut takes nothing from them, and administrators see what is there.

mod wire_client;

use std::collections::BTreeSet;

use ringmill_wire::StrBytes;
use ringmill_wire::Uuid;
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use ringmill_wire::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, UpdateFeaturesRequest,
};

use wire_client::{Client, Scene, topic_name};

const UNKNOWN_MEMBER_ID: i16 = 25;
const UNSUPPORTED_VERSION: i16 = 35;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const FENCED_MEMBER_EPOCH: i16 = 110;
const STALE_MEMBER_EPOCH: i16 = 113;

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

/// A consumer: what it owns, and in which epoch.
#[derive(Debug, Clone)]
struct Member {
    id: &'static str,
    epoch: i32,
    owned: BTreeSet<i32>,
}

impl Member {
    fn new(id: &'static str) -> Self {
        Self {
            id,
            epoch: 0,
            owned: BTreeSet::new(),
        }
    }

    /// One heartbeat; the error's code if it is refused.
    async fn beat(&mut self, client: &mut Client, topic: Uuid) -> i16 {
        let owned = TopicPartitions::default()
            .with_topic_id(topic)
            .with_partitions(self.owned.iter().copied().collect());
        let owned = match self.owned.is_empty() {
            true => Vec::new(),
            false => vec![owned],
        };
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(text("g").into())
            .with_member_id(text(self.id))
            .with_member_epoch(self.epoch)
            .with_topic_partitions(Some(owned));
        if self.epoch == 0 {
            request = request
                .with_rebalance_timeout_ms(60_000)
                .with_subscribed_topic_names(Some(vec![topic_name("t")]));
        }
        let answer = client.call(1, &request).await;
        if answer.error_code == 0 {
            self.epoch = answer.member_epoch;
            if let Some(assignment) = answer.assignment {
                let topics = assignment.topic_partitions.iter();
                self.owned = topics.flat_map(|topic| topic.partitions.clone()).collect();
            }
        }
        answer.error_code
    }
}

async fn commit(client: &mut Client, member: &Member, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(text("g").into())
        .with_generation_id_or_member_epoch(member.epoch)
        .with_member_id(text(member.id))
        .with_topics(vec![topic]);
    client.call(9, &request).await.topics[0].partitions[0].error_code
}

async fn committed(client: &mut Client, member: &Member) -> (i16, Option<i64>) {
    let topics = OffsetFetchRequestTopics::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(text("g").into())
        .with_member_id(Some(text(member.id)))
        .with_member_epoch(member.epoch)
        .with_topics(Some(vec![topics]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let answer = client.call(9, &request).await;
    let group = &answer.groups[0];
    let offset = group
        .topics
        .first()
        .map(|t| t.partitions[0].committed_offset);
    (group.error_code, offset)
}

/// Two members share six partitions.
async fn settled(client: &mut Client, topic: Uuid) -> [Member; 2] {
    let mut members = [Member::new("a"), Member::new("b")];
    for _ in 0..4 {
        for member in &mut members {
            assert_eq!(member.beat(client, topic).await, 0);
        }
    }
    assert_eq!(members.each_ref().map(|member| member.owned.len()), [3, 3]);
    assert!(members[0].owned.is_disjoint(&members[1].owned));
    members
}

#[test]
fn members_go_on_after_a_power_cut_as_if_there_had_been_none() {
    for cores in [1, 3] {
        for seed in 0..5 {
            let mut scene = Scene::with_cores(seed, cores);
            scene.start();
            let (topic, members) = scene.client(async {
                let mut client = Client::connect().await;
                let topic = client.create_topic("t", 6).await;
                find_coordinator(&mut client).await;
                let members = settled(&mut client, topic).await;
                assert_eq!(commit(&mut client, &members[0], 5).await, 0);
                (topic, members)
            });
            scene.world.power_off(scene.broker);
            let running = scene.start();
            scene.client(async move {
                let mut client = Client::connect().await;
                for before in members {
                    let mut member = before.clone();
                    assert_eq!(member.beat(&mut client, topic).await, 0);
                    assert_eq!((member.epoch, &member.owned), (before.epoch, &before.owned));
                    assert_eq!(committed(&mut client, &member).await, (0, Some(5)));
                    member.epoch += 1;
                    assert_eq!(commit(&mut client, &member, 6).await, STALE_MEMBER_EPOCH);
                    let (code, _) = committed(&mut client, &member).await;
                    assert_eq!(code, STALE_MEMBER_EPOCH);
                    let fenced = member.beat(&mut client, topic).await;
                    assert_eq!(fenced, FENCED_MEMBER_EPOCH);
                }
                let mut stranger = Member::new("c");
                stranger.epoch = 3;
                let unknown = stranger.beat(&mut client, topic).await;
                assert_eq!(unknown, UNKNOWN_MEMBER_ID);
            });
            scene.stop(running);
        }
    }
}

#[test]
fn groups_are_described_listed_and_deleted() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(7, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            let topic = client.create_topic("t", 6).await;
            find_coordinator(&mut client).await;
            let mut members = settled(&mut client, topic).await;
            let describe = ConsumerGroupDescribeRequest::default()
                .with_group_ids(vec![text("g").into(), text("nobody").into()]);
            let described = client.call(1, &describe).await.groups;
            assert_eq!(&*described[0].group_state, "Stable");
            assert_eq!(&*described[0].assignor_name, "uniform");
            assert_eq!(described[0].members.len(), 2);
            let assignment = &described[0].members[0].assignment.topic_partitions;
            assert_eq!(&**assignment[0].topic_name, "t");
            assert_eq!(described[1].error_code, GROUP_ID_NOT_FOUND);
            let old = DescribeGroupsRequest::default().with_groups(vec![text("g").into()]);
            let found = &client.call(6, &old).await.groups[0];
            assert_eq!(found.error_code, GROUP_ID_NOT_FOUND);
            let found = &client.call(5, &old).await.groups[0];
            assert_eq!((found.error_code, &*found.group_state), (0, "Dead"));
            for (kind, count) in [("consumer", 1), ("classic", 0)] {
                let list = ListGroupsRequest::default().with_types_filter(vec![text(kind)]);
                assert_eq!(client.call(5, &list).await.groups.len(), count, "{kind}");
            }
            let delete = DeleteGroupsRequest::default().with_groups_names(vec![text("g").into()]);
            let deleted = client.call(2, &delete).await.results[0].error_code;
            assert_eq!(deleted, NON_EMPTY_GROUP);
            for member in &mut members {
                member.epoch = -1;
                assert_eq!(member.beat(&mut client, topic).await, 0);
            }
            assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
            let list = ListGroupsRequest::default();
            assert!(client.call(5, &list).await.groups.is_empty());
        });
        scene.stop(running);
    }
}

#[test]
fn without_its_feature_the_protocol_is_refused() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        let topic = client.create_topic("t", 1).await;
        find_coordinator(&mut client).await;
        let describe =
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![text("g").into()]);
        let mut member = Member::new("m");
        assert_eq!(member.beat(&mut client, topic).await, 0);
        for (level, upgrade_type, code) in [(0, 2, UNSUPPORTED_VERSION), (1, 1, 0)] {
            let update = FeatureUpdateKey::default()
                .with_feature(text("group.version"))
                .with_max_version_level(level)
                .with_upgrade_type(upgrade_type);
            let update = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
            assert_eq!(client.call(2, &update).await.error_code, 0);
            assert_eq!(member.beat(&mut client, topic).await, code);
            let described = client.call(1, &describe).await;
            assert_eq!(described.groups[0].error_code, code);
        }
    });
    scene.stop(running);
}

#[test]
fn tools_are_told_that_the_protocol_is_in_force() {
    let mut scene = Scene::new(1);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("tool"))
            .with_client_software_version(text("1"));
        let answer = client.call(4, &request).await;
        let finalized = answer.finalized_features.iter();
        let level = finalized
            .filter(|feature| &*feature.name == "group.version")
            .map(|feature| feature.max_version_level);
        assert_eq!(level.collect::<Vec<_>>(), [1]);
        // Clients of version 3 do not take 0 for a lowest level.
        let older = client.call(3, &request).await;
        assert!(
            older
                .supported_features
                .iter()
                .all(|feature| feature.min_version > 0)
        );
        assert!(
            client
                .call(2, &ApiVersionsRequest::default())
                .await
                .finalized_features
                .is_empty()
        );
    });
    scene.stop(running);
}
