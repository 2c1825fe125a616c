//! Metadata as clients of every version see it.

use proptest::prelude::*;
use ringmill_wire::api::ApiKey;

use super::super::lab::{Lab, code, named, seen, versions};
use super::super::topics;
use super::*;

fn all() -> MetadataRequest {
    MetadataRequest::default().with_topics(None)
}

fn by_names(names: &[&str]) -> MetadataRequest {
    let topics = names
        .iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(named(name))));
    MetadataRequest::default().with_topics(Some(topics.collect()))
}

fn by_ids(ids: &[Uuid]) -> MetadataRequest {
    let topics = ids.iter().map(|id| {
        MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(*id)
    });
    MetadataRequest::default().with_topics(Some(topics.collect()))
}

fn ask(lab: &Lab, request: &MetadataRequest, version: i16) -> (MetadataResponse, Vec<StrBytes>) {
    let answer = metadata(&lab.image, lab.ctx(), request, version);
    let response = seen::<MetadataRequest>(version, &answer.response);
    (response, answer.missing)
}

/// Name, error and number of partitions of each topic.
fn topics_of(response: &MetadataResponse) -> Vec<(String, ErrorCode, usize)> {
    let topics = response.topics.iter().map(|topic| {
        let name = topic.name.as_ref().map_or("-", |name| name.as_str());
        (
            name.to_owned(),
            code(topic.error_code),
            topic.partitions.len(),
        )
    });
    topics.collect()
}

fn topic(name: &str, error: ErrorCode, partitions: usize) -> (String, ErrorCode, usize) {
    (name.to_owned(), error, partitions)
}

fn lab() -> Lab {
    let mut lab = Lab::new(&[]);
    lab.topic("b", 2);
    lab.topic("a", 1);
    lab
}

#[test]
fn every_version_shows_the_broker_the_cluster_and_all_topics_by_name() {
    let lab = lab();
    for version in versions(ApiKey::Metadata) {
        let request = match version {
            0 => by_names(&[]),
            _ => all(),
        };
        let (response, missing) = ask(&lab, &request, version);
        assert!(missing.is_empty());
        let broker = &response.brokers[0];
        assert_eq!(response.brokers.len(), 1);
        assert_eq!((broker.node_id.0, broker.port), (7, 9092));
        assert_eq!((&*broker.host, &broker.rack), ("broker.test", &None));
        if version >= 1 {
            assert_eq!(response.controller_id.0, 7);
        }
        if version >= 2 {
            let id = response.cluster_id.as_deref();
            assert_eq!(id, Some("AAAAAAAAAAAAAAAAAAAAAQ"));
        }
        let none = ErrorCode::None;
        assert_eq!(
            topics_of(&response),
            [topic("a", none, 1), topic("b", none, 2)]
        );
        let b = &response.topics[1];
        for (index, partition) in b.partitions.iter().enumerate() {
            assert_eq!(partition.partition_index, index as i32);
            assert_eq!((partition.leader_id.0, partition.error_code), (7, 0));
            assert_eq!(partition.replica_nodes, [7]);
            assert_eq!(partition.isr_nodes, [7]);
            assert!(partition.offline_replicas.is_empty());
            let epoch = if version >= 7 { 0 } else { -1 };
            assert_eq!(partition.leader_epoch, epoch);
        }
        let id = if version >= 10 { 1 } else { 0 };
        assert_eq!(b.topic_id, Uuid::from_u128(id));
        assert!(!b.is_internal);
        assert_eq!(response.error_code, 0);
    }
}

#[test]
fn no_topics_is_an_empty_list_from_version_1_and_all_topics_before() {
    let lab = lab();
    for version in versions(ApiKey::Metadata) {
        let (response, _) = ask(&lab, &by_names(&[]), version);
        let count = if version == 0 { 2 } else { 0 };
        assert_eq!(response.topics.len(), count, "version {version}");
    }
}

#[test]
fn topics_are_answered_once_in_the_order_they_are_asked() {
    let lab = lab();
    let request =
        by_names(&["b", "x", "a/b", "b", "", "x", "a"]).with_allow_auto_topic_creation(false);
    for version in versions(ApiKey::Metadata).skip(4) {
        let (response, missing) = ask(&lab, &request, version);
        let expected = [
            topic("b", ErrorCode::None, 2),
            topic("x", ErrorCode::UnknownTopicOrPartition, 0),
            topic("a/b", ErrorCode::InvalidTopic, 0),
            topic("", ErrorCode::InvalidTopic, 0),
            topic("a", ErrorCode::None, 1),
        ];
        assert_eq!(topics_of(&response), expected);
        assert!(missing.is_empty(), "the client does not want it");
    }
}

#[test]
fn a_missing_topic_is_created_if_client_and_broker_agree() {
    let mut lab = Lab::new(&[("num.partitions", "3")]);
    let request = by_names(&["new", "bad name", "new", "__consumer_offsets"]);
    for version in versions(ApiKey::Metadata) {
        let (_, missing) = ask(&lab, &request, version);
        assert_eq!(
            missing,
            ["new", "__consumer_offsets"].map(StrBytes::from_static_str)
        );
    }
    let (_, missing) = ask(&lab, &all(), 9);
    assert!(missing.is_empty());

    let (_, missing) = ask(&lab, &request, 9);
    let (image, ctx, mut new_id) = lab.parts();
    let commands = topics::auto_create(image, ctx, &missing, &mut new_id);
    drop(new_id);
    lab.apply(&commands);
    let (response, missing) = ask(&lab, &request, 9);
    assert!(missing.is_empty());
    let expected = [
        topic("new", ErrorCode::None, 3),
        topic("bad name", ErrorCode::InvalidTopic, 0),
        topic("__consumer_offsets", ErrorCode::None, 16),
    ];
    assert_eq!(topics_of(&response), expected);
    assert!(response.topics[2].is_internal && !response.topics[0].is_internal);

    let lab = Lab::new(&[("auto.create.topics.enable", "false")]);
    assert!(ask(&lab, &request, 9).1.is_empty());
}

#[test]
fn names_that_are_kept_free_are_internal_and_never_created() {
    let mut lab = Lab::new(&[]);
    let request = by_names(&["__share_group_state"]);
    let (response, missing) = ask(&lab, &request, 9);
    assert!(response.topics[0].is_internal && missing.is_empty());
    let names = [StrBytes::from_static_str("__share_group_state")];
    let (image, ctx, mut new_id) = lab.parts();
    assert!(topics::auto_create(image, ctx, &names, &mut new_id).is_empty());
}

#[test]
fn topics_are_named_by_id_from_version_12() {
    let lab = lab();
    let unknown = Uuid::from_u128(99);
    let request = by_ids(&[Uuid::from_u128(2), unknown, Uuid::from_u128(2)]);
    for version in 12..=13 {
        let (response, missing) = ask(&lab, &request, version);
        let expected = [
            topic("a", ErrorCode::None, 1),
            topic("-", ErrorCode::UnknownTopicId, 0),
        ];
        assert_eq!(topics_of(&response), expected);
        assert_eq!(response.topics[1].topic_id, unknown);
        assert!(missing.is_empty());
    }
    for version in 10..=11 {
        let (response, _) = ask(&lab, &request, version);
        for topic in &response.topics {
            assert_eq!(code(topic.error_code), ErrorCode::InvalidRequest);
            assert!(topic.partitions.is_empty());
        }
    }
}

#[test]
fn a_topic_without_name_and_id_is_refused() {
    let lab = lab();
    let (response, _) = ask(&lab, &by_ids(&[Uuid::nil()]), 12);
    assert_eq!(
        topics_of(&response),
        [topic("-", ErrorCode::InvalidRequest, 0)]
    );
}

#[test]
fn operations_are_told_to_who_asks_in_the_versions_that_have_them() {
    let lab = lab();
    let curious = all()
        .with_include_topic_authorized_operations(true)
        .with_include_cluster_authorized_operations(true);
    for version in versions(ApiKey::Metadata) {
        for (request, asks) in [(all(), false), (curious.clone(), version >= 8)] {
            // A client below version 8 has no way to ask.
            let request = if version < 8 { all() } else { request };
            let (response, _) = ask(&lab, &request, version);
            // Kafka's bits without an authorizer: all that a topic, and the cluster, know of.
            let told = |there: bool, bits| if there { bits } else { i32::MIN };
            let topic = response.topics[0].topic_authorized_operations;
            assert_eq!(topic, told(asks, 3576), "{version}");
            let cluster = response.cluster_authorized_operations;
            assert_eq!(cluster, told(asks && version <= 10, 8096), "{version}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_is_answered_in_every_version(
        names in proptest::collection::vec(proptest::option::of("[ab./]{0,2}"), 0..6),
        ids in proptest::collection::vec(0..4_u128, 0..6),
        version in 0..=13_i16,
    ) {
        let lab = lab();
        let topics = (0..names.len().max(ids.len())).map(|at| {
            let name = names.get(at).cloned().flatten();
            let id = ids.get(at).copied().unwrap_or_default();
            MetadataRequestTopic::default()
                .with_name(name.map(|name| named(&name)))
                .with_topic_id(Uuid::from_u128(id))
        });
        let request = MetadataRequest::default().with_topics(Some(topics.collect()));
        let (response, _) = ask(&lab, &request, version);
        let found = response.topics.iter().filter(|topic| topic.error_code == 0);
        let mut found: Vec<_> = found.map(|topic| topic.name.clone()).collect();
        let before = found.len();
        found.dedup();
        prop_assert_eq!(found.len(), before, "a topic twice");
        for topic in &response.topics {
            prop_assert_eq!(topic.partitions.is_empty(), topic.error_code != 0);
        }
    }
}
