//! CreateTopics, DeleteTopics and CreatePartitions as clients of every version see them. Expected
//! codes and words are those of Kafka's `ReplicationControlManagerTest` and `ControllerApisTest`.

use proptest::prelude::*;
use ringmill_wire::api::ApiKey;
use ringmill_wire::kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::delete_topics_request::DeleteTopicState;

use super::super::lab::{Lab, code, named, seen, text, versions};
use super::*;
use crate::config::topic;

fn new(name: &str, partitions: i32, replication: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(named(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(value.map(text))
    });
    new(name, 1, 1).with_configs(configs.collect())
}

fn placed(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(index, nodes)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(nodes.iter().map(|node| (*node).into()).collect())
    });
    new(name, -1, -1).with_assignments(assignments.collect())
}

fn create_request(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics)
}

/// Sends a request and makes its commands count.
fn create(lab: &mut Lab, request: &CreateTopicsRequest, version: i16) -> CreateTopicsResponse {
    let (image, ctx, mut new_id) = lab.parts();
    let (response, commands) = create_topics(image, ctx, request, version, &mut new_id);
    drop(new_id);
    lab.apply(&commands);
    seen::<CreateTopicsRequest>(version, &response)
}

/// What happens to one topic.
fn create_one(lab: &mut Lab, topic: CreatableTopic) -> (ErrorCode, String) {
    let response = create(lab, &create_request(vec![topic]), 7);
    let [result] = &response.topics[..] else {
        panic!("{:?}", response.topics)
    };
    let message = result.error_message.as_deref().unwrap_or_default();
    (code(result.error_code), message.to_owned())
}

#[test]
fn a_topic_is_created_in_every_version_and_shown_from_version_5() {
    for version in versions(ApiKey::CreateTopics) {
        let mut lab = Lab::new(&[]);
        let topic = configured("t", &[("retention.ms", Some("5000"))]).with_num_partitions(3);
        let response = create(&mut lab, &create_request(vec![topic]), version);
        let created = lab.image.topic("t").unwrap();
        assert_eq!((created.count(), created.overrides.len()), (3, 1));
        assert_eq!(created.overrides["retention.ms"], "5000");
        let result = &response.topics[0];
        assert_eq!((result.error_code, &result.error_message), (0, &None));
        if version < 5 {
            continue;
        }
        assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
        assert_eq!(result.topic_config_error_code, 0);
        let id = if version >= 7 {
            created.id
        } else {
            Uuid::nil()
        };
        assert_eq!(result.topic_id, id);
        let configs = result.configs.as_ref().unwrap();
        let names: Vec<&str> = configs.iter().map(|config| &*config.name).collect();
        let all: Vec<&str> = topic::TABLE.keys.iter().map(|key| key.name).collect();
        assert_eq!(names, all, "all settings, in order");
        for config in configs {
            let (value, source) = match &*config.name {
                "retention.ms" => ("5000", 1),
                name => (topic::TABLE.find(name).unwrap().default, 5),
            };
            assert_eq!(config.value.as_deref(), Some(value), "{}", config.name);
            assert_eq!(config.config_source, source, "{}", config.name);
            assert!(!config.read_only && !config.is_sensitive);
        }
    }
}

#[test]
fn what_a_topic_does_not_say_comes_from_the_broker() {
    let mut lab = Lab::new(&[("num.partitions", "4"), ("log.retention.ms", "9")]);
    let response = create(&mut lab, &create_request(vec![new("t", -1, -1)]), 7);
    let result = &response.topics[0];
    assert_eq!((result.num_partitions, result.replication_factor), (4, 1));
    let configs = result.configs.as_ref().unwrap();
    let retention = configs.iter().find(|c| &*c.name == "retention.ms").unwrap();
    let expected = (Some("9"), 4);
    let seen = (retention.value.as_deref(), retention.config_source);
    assert_eq!(seen, expected, "set in the config file");
}

#[test]
fn validating_changes_nothing_and_promises_no_id() {
    let mut lab = Lab::new(&[]);
    let topics = vec![new("good", 2, 1), new("bad", 0, 1)];
    let request = create_request(topics).with_validate_only(true);
    let response = create(&mut lab, &request, 7);
    assert_eq!(lab.image.topics().len(), 0);
    let [good, bad] = &response.topics[..] else {
        panic!("{:?}", response.topics)
    };
    assert_eq!((good.error_code, good.num_partitions), (0, 2));
    assert_eq!(good.topic_id, Uuid::nil());
    assert_eq!(code(bad.error_code), ErrorCode::InvalidPartitions);
}

/// Tries to create topics beside a topic `t`, each of which is refused.
fn assert_refused(cases: Vec<(CreatableTopic, ErrorCode, &str)>) {
    for (topic, expected, words) in cases {
        let mut lab = Lab::new(&[]);
        lab.topic("t", 1);
        let (found, message) = create_one(&mut lab, topic.clone());
        assert_eq!(found, expected, "{topic:?}: {message}");
        assert!(message.contains(words), "{message:?} lacks {words:?}");
        assert_eq!(lab.image.topics().len(), 1);
    }
}

#[test]
fn names_that_are_not_free_are_refused_as_kafka_does() {
    use ErrorCode::{InvalidTopic, TopicAlreadyExists};
    let exists = "Topic 't' already exists.";
    assert_refused(vec![
        (new("", 1, 1), InvalidTopic, "Topic name is invalid"),
        (new("a b", 1, 1), InvalidTopic, "Topic name is invalid"),
        (new("t", 1, 1), TopicAlreadyExists, exists),
        (new("t", 0, 9), TopicAlreadyExists, exists),
        (new("__consumer_offsets", 1, 1), InvalidTopic, "internal"),
        (new("__cluster_metadata", 1, 1), InvalidTopic, "internal"),
    ]);
}

#[test]
fn impossible_numbers_are_refused_as_kafka_does() {
    use ErrorCode::{InvalidPartitions, InvalidReplicationFactor};
    let partitions = "Number of partitions was set to an invalid non-positive value.";
    let replicas = "Replication factor must be larger than 0, or -1 to use the default value.";
    let many = "Unable to replicate the partition 3 time(s): The target replication factor of 3 \
                cannot be reached because only 1 broker(s) are registered.";
    assert_refused(vec![
        (new("n", 0, 1), InvalidPartitions, partitions),
        (new("n", -2, 1), InvalidPartitions, partitions),
        (new("n", i32::MAX, 1), InvalidPartitions, "partitions.max"),
        (new("n", 1, 0), InvalidReplicationFactor, replicas),
        (new("n", 1, -2), InvalidReplicationFactor, replicas),
        (new("n", 1, 3), InvalidReplicationFactor, many),
    ]);
}

#[test]
fn wrong_settings_are_refused_as_kafka_does() {
    let nulls = [("a", None), ("retention.ms", Some("1")), ("b", None)];
    let cases: [(&[_], &str); 4] = [
        (&nulls, "Null value not supported for topic configs: a,b"),
        (
            &[("no.such", Some("1"))],
            "Unknown topic config name: no.such",
        ),
        (
            &[("retention.ms", Some("soon"))],
            "Invalid value soon for configuration retention.ms",
        ),
        (
            &[
                ("min.compaction.lag.ms", Some("2")),
                ("max.compaction.lag.ms", Some("1")),
            ],
            "conflict topic config setting",
        ),
    ];
    let cases = cases.map(|(configs, words)| {
        // Settings are looked at before numbers.
        let topic = configured("n", configs).with_num_partitions(0);
        (topic, ErrorCode::InvalidConfig, words)
    });
    assert_refused(cases.to_vec());
}

#[test]
fn impossible_placements_are_refused_as_kafka_does() {
    use ErrorCode::{InvalidReplicaAssignment, InvalidRequest};
    let both = "A manual partition assignment was specified, but";
    let cases = [
        (
            placed("n", &[(0, &[7]), (0, &[7])]),
            "Found multiple manual partition assignments for partition 0",
        ),
        (
            placed("n", &[(0, &[])]),
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            placed("n", &[(0, &[7, 7])]),
            "The manual partition assignment includes the broker 7 more than once.",
        ),
        (
            placed("n", &[(0, &[1])]),
            "The manual partition assignment includes broker 1, but no such broker is registered.",
        ),
        (
            placed("n", &[(1, &[7]), (2, &[7])]),
            "partitions should be a consecutive 0-based integer sequence",
        ),
    ];
    assert_refused(
        cases
            .map(|(topic, words)| (topic, InvalidReplicaAssignment, words))
            .to_vec(),
    );
    assert_refused(vec![
        (
            placed("n", &[(0, &[7])]).with_replication_factor(1),
            InvalidRequest,
            both,
        ),
        (
            placed("n", &[(0, &[7])]).with_num_partitions(1),
            InvalidRequest,
            both,
        ),
    ]);
}

#[test]
fn a_topic_placed_by_hand_on_this_node_is_created() {
    let mut lab = Lab::new(&[]);
    let topic = placed("p", &[(1, &[7]), (0, &[7]), (2, &[7])]);
    assert_eq!(create_one(&mut lab, topic).0, ErrorCode::None);
    assert_eq!(lab.image.topic("p").unwrap().count(), 3);
}

#[test]
fn a_topic_named_twice_is_refused_once_and_the_others_are_created() {
    let mut lab = Lab::new(&[]);
    let topics = ["twice", "once", "twice"].map(|name| new(name, 1, 1));
    let response = create(&mut lab, &create_request(topics.to_vec()), 7);
    let [twice, once] = &response.topics[..] else {
        panic!("{:?}", response.topics)
    };
    assert_eq!(code(twice.error_code), ErrorCode::InvalidRequest);
    let message = twice.error_message.as_deref();
    assert_eq!(message, Some("Duplicate topic name."));
    assert_eq!(once.error_code, 0);
    assert!(lab.image.topic("twice").is_none() && lab.image.topic("once").is_some());
}

#[test]
fn one_request_cannot_pass_the_limits() {
    let mut lab = Lab::new(&[("partitions.max", "10")]);
    let topics = [("a", 6), ("b", 6), ("c", 4)].map(|(name, count)| new(name, count, 1));
    let response = create(&mut lab, &create_request(topics.to_vec()), 7);
    let codes: Vec<ErrorCode> = response.topics.iter().map(|t| code(t.error_code)).collect();
    let (none, many) = (ErrorCode::None, ErrorCode::InvalidPartitions);
    assert_eq!(codes, [none, many, none]);
    assert_eq!(lab.image.partition_count(), 10);

    let many = (0..=MAX_TOPICS_PER_REQUEST).map(|n| new(&format!("t{n}"), 1, 1));
    let response = create(&mut lab, &create_request(many.collect()), 7);
    let refused = |code_: i16| code(code_) == ErrorCode::InvalidRequest;
    assert!(
        response
            .topics
            .iter()
            .all(|topic| refused(topic.error_code))
    );
}

#[test]
fn an_error_does_not_send_a_huge_request_back() {
    let mut lab = Lab::new(&[]);
    let value = "9".repeat(1 << 20);
    let (found, message) = create_one(&mut lab, configured("t", &[("retention.ms", Some(&value))]));
    assert_eq!(found, ErrorCode::InvalidConfig);
    assert!(message.len() < 2000);
}

#[test]
fn the_brokers_own_topics_are_made_once_with_their_own_settings() {
    let mut lab = Lab::new(&[
        ("offsets.topic.num.partitions", "5"),
        ("transaction.state.log.num.partitions", "7"),
    ]);
    for (name, partitions) in [("__consumer_offsets", 5), ("__transaction_state", 7)] {
        let (image, ctx, mut new_id) = lab.parts();
        let command = own_topic(image, ctx, name, &mut new_id).unwrap().unwrap();
        drop(new_id);
        lab.apply(&[command]);
        let topic = lab.image.topic(name).unwrap();
        assert_eq!(topic.count(), partitions);
        assert!(topic.config.compact && !topic.config.delete);
        assert_eq!(topic.config.segment_bytes, 16 << 20);
        let (image, ctx, mut new_id) = lab.parts();
        assert_eq!(own_topic(image, ctx, name, &mut new_id), Ok(None));
    }
}

/// Sends a DeleteTopics request and makes its commands count; name, id and error of each answer.
fn delete(
    lab: &mut Lab,
    request: &DeleteTopicsRequest,
    version: i16,
) -> Vec<(Option<String>, Uuid, ErrorCode)> {
    let (response, commands) = delete_topics(&lab.image, request, version);
    lab.apply(&commands);
    let response = seen::<DeleteTopicsRequest>(version, &response);
    let answers = response.responses.iter().map(|answer| {
        let name = answer.name.as_ref().map(|name| name.to_string());
        (name, answer.topic_id, code(answer.error_code))
    });
    answers.collect()
}

fn by_name(names: &[&str], version: i16) -> DeleteTopicsRequest {
    let request = DeleteTopicsRequest::default();
    if version < DELETE_BY_ID {
        return request.with_topic_names(names.iter().map(|name| named(name)).collect());
    }
    let topics = names
        .iter()
        .map(|name| DeleteTopicState::default().with_name(Some(named(name))));
    request.with_topics(topics.collect())
}

fn state(name: Option<&str>, id: Uuid) -> DeleteTopicState {
    DeleteTopicState::default()
        .with_name(name.map(named))
        .with_topic_id(id)
}

#[test]
fn topics_are_deleted_by_name_in_every_version() {
    for version in versions(ApiKey::DeleteTopics) {
        let mut lab = Lab::new(&[]);
        let a = lab.topic("a", 1);
        lab.topic("b", 1);
        let request = by_name(&["a", "x"], version);
        let answers = delete(&mut lab, &request, version);
        let id = if version >= DELETE_BY_ID {
            a
        } else {
            Uuid::nil()
        };
        let expected = [
            (Some("a".to_owned()), id, ErrorCode::None),
            (
                Some("x".to_owned()),
                Uuid::nil(),
                ErrorCode::UnknownTopicOrPartition,
            ),
        ];
        assert_eq!(answers, expected);
        assert!(lab.image.topic("a").is_none() && lab.image.topic("b").is_some());
    }
}

#[test]
fn topics_are_deleted_by_id_and_mistakes_are_told_apart() {
    let mut lab = Lab::new(&[]);
    let ids = ["a", "b", "c", "d"].map(|name| lab.topic(name, 1));
    let [a, b, c, d] = ids;
    let unknown = Uuid::from_u128(99);
    let request = DeleteTopicsRequest::default().with_topics(vec![
        state(None, a),
        state(None, unknown),
        state(Some("b"), b),
        state(None, Uuid::nil()),
        state(Some("c"), Uuid::nil()),
        state(None, c),
        state(None, d),
        state(None, d),
    ]);
    let answers = delete(&mut lab, &request, 6);
    use ErrorCode::{InvalidRequest, None as Done, UnknownTopicId};
    let name = |name: &str| Some(name.to_owned());
    let expected = [
        (name("a"), a, Done),
        (None, unknown, UnknownTopicId),
        (name("b"), b, InvalidRequest),
        (None, Uuid::nil(), InvalidRequest),
        (name("c"), Uuid::nil(), InvalidRequest),
        (None, c, InvalidRequest),
        (None, d, InvalidRequest),
    ];
    assert_eq!(answers, expected);
    assert_eq!(lab.image.topics().len(), 3, "a alone is gone");
}

#[test]
fn a_topic_named_twice_is_not_deleted() {
    for version in versions(ApiKey::DeleteTopics) {
        let mut lab = Lab::new(&[]);
        lab.topic("a", 1);
        let answers = delete(&mut lab, &by_name(&["a", "a"], version), version);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].2, ErrorCode::InvalidRequest);
        assert!(lab.image.topic("a").is_some());
    }
}

#[test]
fn deletion_is_refused_for_internal_topics_and_where_it_is_switched_off() {
    for version in versions(ApiKey::DeleteTopics) {
        let mut lab = Lab::new(&[]);
        lab.topic("__consumer_offsets", 1);
        let answers = delete(
            &mut lab,
            &by_name(&["__consumer_offsets"], version),
            version,
        );
        assert_eq!(answers[0].2, ErrorCode::InvalidTopic);

        let mut lab = Lab::new(&[("delete.topic.enable", "false")]);
        lab.topic("a", 1);
        let answers = delete(&mut lab, &by_name(&["a"], version), version);
        let expected = match version {
            ..3 => ErrorCode::InvalidRequest,
            _ => ErrorCode::TopicDeletionDisabled,
        };
        assert_eq!(answers[0].2, expected);
        assert_eq!(lab.image.topics().len(), 1);
    }
}

fn grown(name: &str, count: i32, nodes: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assignments = nodes.map(|nodes| {
        let assignment = |ids: &&[i32]| {
            CreatePartitionsAssignment::default()
                .with_broker_ids(ids.iter().map(|id| (*id).into()).collect())
        };
        nodes.iter().map(assignment).collect()
    });
    CreatePartitionsTopic::default()
        .with_name(named(name))
        .with_count(count)
        .with_assignments(assignments)
}

/// Sends a CreatePartitions request in every version to a topic `t` of 3 partitions; errors and
/// words, which are the same in all, and how many partitions the topic has then.
fn grow(topics: Vec<CreatePartitionsTopic>, validate: bool) -> (Vec<(ErrorCode, String)>, i32) {
    let request = CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_validate_only(validate);
    let outcomes = versions(ApiKey::CreatePartitions).map(|version| {
        let mut lab = Lab::new(&[("partitions.max", "20")]);
        lab.topic("t", 3);
        lab.topic("__consumer_offsets", 2);
        let (response, commands) = create_partitions(&lab.image, &request);
        lab.apply(&commands);
        let response = seen::<CreatePartitionsRequest>(version, &response);
        let results = response.results.iter().map(|result| {
            let message = result.error_message.as_deref().unwrap_or_default();
            (code(result.error_code), message.to_owned())
        });
        (results.collect(), lab.image.topic("t").unwrap().count())
    });
    let mut outcomes: Vec<_> = outcomes.collect();
    outcomes.dedup();
    assert_eq!(outcomes.len(), 1, "all versions answer alike");
    outcomes.remove(0)
}

#[test]
fn topics_get_more_partitions_unless_it_is_a_trial() {
    let ok = (ErrorCode::None, String::new());
    let five = || vec![grown("t", 5, None)];
    assert_eq!(grow(five(), false), (vec![ok.clone()], 5));
    assert_eq!(grow(five(), true), (vec![ok.clone()], 3));
    let here: &[&[i32]] = &[&[7], &[7]];
    let placed = vec![grown("t", 5, Some(here))];
    assert_eq!(grow(placed, false), (vec![ok], 5));
}

#[test]
fn partitions_that_cannot_be_added_are_refused_as_kafka_does() {
    use ErrorCode::{InvalidPartitions, InvalidReplicaAssignment, InvalidTopic};
    let shrinks = "The topic t currently has 3 partition(s); 2 would not be an increase.";
    let few =
        "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.";
    let cases = [
        (grown("x", 5, None), ErrorCode::UnknownTopicOrPartition, ""),
        (
            grown("t", 3, None),
            InvalidPartitions,
            "Topic already has 3 partition(s).",
        ),
        (grown("t", 2, None), InvalidPartitions, shrinks),
        (
            grown("t", i32::MIN, None),
            InvalidPartitions,
            "would not be an increase",
        ),
        (grown("t", 19, None), InvalidPartitions, "partitions.max"),
        (
            grown("t", i32::MAX, None),
            InvalidPartitions,
            "partitions.max",
        ),
        (grown("t", 5, Some(&[&[7]])), InvalidReplicaAssignment, few),
        (
            grown("t", 4, Some(&[&[1]])),
            InvalidReplicaAssignment,
            "no such broker is registered.",
        ),
        (
            grown("t", 4, Some(&[&[]])),
            InvalidReplicaAssignment,
            "an empty replica list",
        ),
        (
            grown("__consumer_offsets", 5, None),
            InvalidTopic,
            "internal",
        ),
    ];
    for (topic, expected, words) in cases {
        let (results, partitions) = grow(vec![topic.clone()], false);
        assert_eq!(results[0].0, expected, "{topic:?}");
        assert!(
            results[0].1.contains(words),
            "{} lacks {words}",
            results[0].1
        );
        assert_eq!(partitions, 3);
    }
    let twice = vec![grown("t", 4, None), grown("t", 5, None)];
    let (results, partitions) = grow(twice, false);
    let duplicate = (
        ErrorCode::InvalidRequest,
        "Duplicate topic name.".to_owned(),
    );
    assert_eq!((results, partitions), (vec![duplicate], 3));
}

proptest! {
    /// Handlers never ask for a command that does not follow from the metadata (`Lab::apply`
    /// panics), whatever clients send; and a response can be written in every version.
    #[test]
    fn commands_always_follow(
        steps in proptest::collection::vec(
            (0..3_u8, proptest::collection::vec(("[ab]{1,2}", -2..6_i32, any::<bool>()), 0..5), 0..8_i16),
            0..12,
        ),
    ) {
        let mut lab = Lab::new(&[("partitions.max", "12")]);
        for (step, topics, version) in steps {
            match step {
                0 => {
                    let topics = topics.iter().map(|(name, count, _)| new(name, *count, -1));
                    create(&mut lab, &create_request(topics.collect()), version.clamp(2, 7));
                }
                1 => {
                    let ids = topics.iter().map(|(name, _, by_id)| {
                        let id = lab.image.topic(name).map(|topic| topic.id);
                        match id.filter(|_| *by_id) {
                            Some(id) => state(None, id),
                            None => state(Some(name), Uuid::nil()),
                        }
                    });
                    let request = DeleteTopicsRequest::default().with_topics(ids.collect());
                    delete(&mut lab, &request, 6);
                }
                _ => {
                    let topics = topics.iter().map(|(name, count, _)| grown(name, *count, None));
                    let request = CreatePartitionsRequest::default().with_topics(topics.collect());
                    let (_, commands) = create_partitions(&lab.image, &request);
                    lab.apply(&commands);
                }
            }
            prop_assert!(lab.image.partition_count() <= 12);
        }
    }
}
