//! Topics: made, enlarged, described, removed.

use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use ringmill_wire::kafka_protocol::messages::describe_topic_partitions_request::{
    Cursor, TopicRequest,
};
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeTopicPartitionsRequest, MetadataRequest, RequestKind, ResponseKind, TopicName,
};

use super::side::Memory;
use super::world::{Step, World, ask, text};

/// A topic's name, partitions and configs.
type Recipe = (&'static str, i32, &'static [(&'static str, &'static str)]);

/// The topics that a seed begins with.
const FIRST: [Recipe; 3] = [
    ("one", 1, &[]),
    ("three", 3, &[("max.message.bytes", "2000")]),
    ("compacted", 1, &[("cleanup.policy", "compact")]),
];

fn topic(name: StrBytes, partitions: i32, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(*name))
            .with_value(value.map(text))
    });
    CreatableTopic::default()
        .with_name(TopicName(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect())
}

/// Learns the ids of topics.
fn learn_created(memory: &mut Memory, response: &ResponseKind) {
    if let ResponseKind::CreateTopics(response) = response {
        for topic in response.topics.iter().filter(|topic| topic.error_code == 0) {
            memory.ids.insert(topic.name.0.clone(), topic.topic_id);
        }
    }
}

/// Makes what a seed begins with, and waits until it is there.
pub fn setup(world: &mut World) -> Vec<Step> {
    let topics = FIRST.map(|(name, partitions, configs)| {
        let configs: Vec<_> = configs
            .iter()
            .map(|(name, value)| (*name, Some(*value)))
            .collect();
        topic(world.named(name), partitions, &configs)
    });
    let request = CreateTopicsRequest::default()
        .with_topics(topics.to_vec())
        .with_timeout_ms(10_000);
    let create = ask(ApiKey::CreateTopics, 7, RequestKind::CreateTopics(request));
    let names = FIRST.map(|(name, ..)| world.named(name));
    vec![
        Step::fixed(create).learning(learn_created),
        metadata_of(names.to_vec(), 12),
    ]
}

fn metadata_of(names: Vec<StrBytes>, version: i16) -> Step {
    let topics = names
        .into_iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false);
    Step::fixed(ask(
        ApiKey::Metadata,
        version,
        RequestKind::Metadata(request),
    ))
}

/// Removes every topic that a seed may have made.
pub fn remove_all(world: &World) -> Step {
    let names = ["one", "three", "compacted", "new", "made"]
        .map(|name| DeleteTopicState::default().with_name(Some(TopicName(world.named(name)))));
    let request = DeleteTopicsRequest::default()
        .with_topics(names.to_vec())
        .with_timeout_ms(10_000);
    Step::fixed(ask(
        ApiKey::DeleteTopics,
        6,
        RequestKind::DeleteTopics(request),
    ))
}

/// Requests about topics.
pub fn draw(world: &mut World) -> Vec<Step> {
    match world.below(8) {
        0..3 => create(world),
        3 => delete(world),
        4 => enlarge(world),
        5 => pages(world),
        _ => vec![metadata(world)],
    }
}

fn name_of_a_new_one(world: &mut World) -> StrBytes {
    let odd = [
        "",
        ".",
        "..",
        "a b",
        "sla/sh",
        "ümlaut",
        "__consumer_offsets",
        "__transaction_state",
    ];
    match world.below(10) {
        0 => text(world.pick(&odd)),
        1 => text("n".repeat(world.pick(&[249, 250, 300]))),
        2 => world.named("one"),
        // differs from another by a dot where that has an underscore
        3 => world.named("with.dot_and"),
        4 => world.named("with_dot.and"),
        5..8 => world.named("new"),
        _ => world.named("made"),
    }
}

fn config(world: &mut World) -> (&'static str, Option<&'static str>) {
    world.pick(&[
        ("cleanup.policy", Some("compact")),
        ("cleanup.policy", Some("compact,delete")),
        ("cleanup.policy", Some("shred")),
        ("cleanup.policy", None),
        ("retention.ms", Some("-1")),
        ("retention.ms", Some("-2")),
        ("retention.ms", Some("soon")),
        ("retention.bytes", Some("1000000")),
        ("segment.bytes", Some("1048576")),
        ("segment.bytes", Some("13")),
        ("segment.ms", Some("0")),
        ("max.message.bytes", Some("-1")),
        ("max.message.bytes", Some("10000")),
        ("compression.type", Some("brotli")),
        ("message.timestamp.type", Some("LogAppendTime")),
        ("message.timestamp.type", Some("yesterday")),
        ("min.insync.replicas", Some("1")),
        ("min.insync.replicas", Some("0")),
        ("min.cleanable.dirty.ratio", Some("0.5")),
        ("min.cleanable.dirty.ratio", Some("1.5")),
        ("unclean.leader.election.enable", Some("true")),
        ("unclean.leader.election.enable", Some("perhaps")),
        ("no.such.config", Some("1")),
        ("delete.retention.ms", Some("")),
    ])
}

fn create(world: &mut World) -> Vec<Step> {
    let count = world.pick(&[0, 1, 1, 1, 2]);
    let topics: Vec<_> = (0..count).map(|_| creatable(world)).collect();
    let version = world.version(ApiKey::CreateTopics);
    let validate = world.chance(25);
    let names: Vec<_> = topics.iter().map(|topic| topic.name.0.clone()).collect();
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(10_000)
        .with_validate_only(validate);
    let create = ask(
        ApiKey::CreateTopics,
        version,
        RequestKind::CreateTopics(request),
    );
    vec![
        Step::fixed(create).learning(learn_created),
        metadata_of(names, 12).learning(|memory, response| {
            if let ResponseKind::Metadata(response) = response {
                for topic in &response.topics {
                    if let Some(name) = &topic.name {
                        memory.ids.insert(name.0.clone(), topic.topic_id);
                    }
                }
            }
        }),
    ]
}

fn creatable(world: &mut World) -> CreatableTopic {
    let name = name_of_a_new_one(world);
    let partitions = world.usually(2, &[-1, 0, -2, 1, 3]);
    let count = world.pick(&[0, 0, 1, 2]);
    let configs: Vec<_> = (0..count).map(|_| config(world)).collect();
    let topic = topic(name, partitions, &configs);
    let factor = world.usually(1, &[-1, 0, -2, 2]);
    if world.chance(85) {
        return topic.with_replication_factor(factor);
    }
    // the broker's own number is 1 on both
    let places: Vec<Vec<i32>> = world.pick(&[
        vec![vec![1]],
        vec![vec![1], vec![1]],
        vec![vec![2]],
        vec![vec![1, 1]],
        vec![vec![]],
        vec![vec![1], vec![]],
    ]);
    let first = world.usually(0, &[1, -1]);
    let assignments = places.into_iter().zip(first..).map(|(brokers, index)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(brokers.into_iter().map(BrokerId).collect())
    });
    let (partitions, factor) = (world.usually(-1, &[1]), world.usually(-1, &[1]));
    topic
        .with_assignments(assignments.collect())
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
}

fn delete(world: &mut World) -> Vec<Step> {
    let version = world.version(ApiKey::DeleteTopics);
    let count = world.pick(&[0, 1, 1, 2]);
    let names: Vec<_> = (0..count)
        .map(|_| {
            let name = world.pick(&["new", "made", "gone", "new", ".bad name"]);
            world.named(name)
        })
        .collect();
    let by_id = world.chance(40);
    let both = world.chance(5);
    let settle = metadata_of(names.clone(), 12);
    let delete = Step::of(move |memory| {
        let mut request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        let states = names.iter().map(|name| {
            let state = DeleteTopicState::default();
            let named = (!by_id || both).then(|| TopicName(name.clone()));
            match by_id {
                true => state.with_name(named).with_topic_id(memory.id(name)),
                false => state.with_name(named),
            }
        });
        match version >= 6 {
            true => request.topics = states.collect(),
            false => request.topic_names = names.iter().cloned().map(TopicName).collect(),
        }
        ask(
            ApiKey::DeleteTopics,
            version,
            RequestKind::DeleteTopics(request),
        )
    });
    vec![delete, settle]
}

fn enlarge(world: &mut World) -> Vec<Step> {
    let version = world.version(ApiKey::CreatePartitions);
    let other = world.pick(&["new", "made"]);
    let names = [world.topic(), world.named(other)];
    let names: Vec<_> = names.into_iter().take(world.pick(&[1, 1, 2])).collect();
    let topics: Vec<_> = names
        .iter()
        .map(|name| {
            let assignments =
                world.pick(&[None, None, None, Some(vec![1]), Some(vec![7]), Some(vec![])]);
            let assignments = assignments.map(|brokers: Vec<i32>| {
                let brokers = brokers.into_iter().map(BrokerId).collect();
                vec![CreatePartitionsAssignment::default().with_broker_ids(brokers)]
            });
            CreatePartitionsTopic::default()
                .with_name(TopicName(name.clone()))
                .with_count(world.pick(&[1, 2, 3, 4, 4, 5, 0, -1]))
                .with_assignments(assignments)
        })
        .collect();
    let request = CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(10_000)
        .with_validate_only(world.chance(20));
    let enlarge = ask(
        ApiKey::CreatePartitions,
        version,
        RequestKind::CreatePartitions(request),
    );
    vec![Step::fixed(enlarge), metadata_of(names, 9)]
}

fn metadata(world: &mut World) -> Step {
    let version = world.version(ApiKey::Metadata);
    let count = world.pick(&[0, 1, 1, 2, 3]);
    let names: Vec<_> = (0..count).map(|_| world.topic()).collect();
    let all = world.chance(20);
    let by_id = version >= 10 && world.chance(40);
    let (cluster, topic) = (world.chance(20), world.chance(20));
    Step::of(move |memory| {
        let topics = names.iter().map(|name| {
            let topic = MetadataRequestTopic::default();
            match by_id {
                true => topic.with_topic_id(memory.id(name)).with_name(None),
                false => topic.with_name(Some(TopicName(name.clone()))),
            }
        });
        // version 0 has no null, and takes an empty list for all
        let topics: Vec<_> = topics.collect();
        let topics = if all && version > 0 {
            None
        } else {
            Some(topics)
        };
        let request = MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(version < 4)
            .with_include_cluster_authorized_operations(cluster && (8..=10).contains(&version))
            .with_include_topic_authorized_operations(topic && version >= 8);
        ask(ApiKey::Metadata, version, RequestKind::Metadata(request))
    })
}

fn pages(world: &mut World) -> Vec<Step> {
    let count = world.pick(&[1, 2, 3]);
    let names: Vec<_> = (0..count)
        .map(|_| TopicRequest::default().with_name(world.topic_name()))
        .collect();
    let cursor = world.chance(40).then(|| {
        Cursor::default()
            .with_topic_name(world.topic_name())
            .with_partition_index(world.pick(&[0, 1, 2, 5, -1]))
    });
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(names)
        .with_response_partition_limit(world.pick(&[1, 2, 3, 2_000, 0, -1]))
        .with_cursor(cursor);
    let key = ApiKey::DescribeTopicPartitions;
    vec![Step::fixed(ask(
        key,
        0,
        RequestKind::DescribeTopicPartitions(request),
    ))]
}
