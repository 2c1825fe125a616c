//! Which commands a client's request about topics makes, or why it makes none. Pure: the rules are
//! Kafka's (`ReplicationControlManager`), for a cluster of one node.

use ringmill_wire::Uuid;
use ringmill_wire::topic::{TopicNameError, check_topic_name};
use thiserror::Error;

use super::image::{Command, Image, Topic, is_internal};
use crate::config::topic;
use crate::config::{ConfigError, Overrides};

/// What a client asks of a new topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for the default, or as many as are assigned.
    pub partitions: i32,
    /// How many replicas; -1 for the default.
    pub replication: i16,
    /// Nodes by partition, if the client places them itself.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// What is set on it; each name with its value, which may not be null.
    pub configs: Vec<(String, Option<String>)>,
}

/// Why a request about topics is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicError {
    /// The name breaks Kafka's rule.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// The topic is the broker's own.
    #[error("Topic '{0}' is internal.")]
    Internal(String),
    /// The topic exists.
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    /// No such topic.
    #[error("This server does not host this topic-partition.")]
    Missing,
    /// No such topic id.
    #[error("This server does not host this topic ID.")]
    MissingId,
    /// The number of partitions is out of range.
    #[error("{0}")]
    Partitions(String),
    /// The number of replicas is more than there are nodes.
    #[error("Unable to replicate the partition {0} time(s): only 1 broker(s) are registered.")]
    Replication(i16),
    /// The placement by the client is not possible.
    #[error("{0}")]
    Assignment(String),
    /// The request contradicts itself.
    #[error("{0}")]
    Request(String),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker is set not to delete topics.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
}

/// The node's id, and the id that a new topic is to get.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// This node.
    pub node: i32,
    /// Fresh for the topic.
    pub topic: Uuid,
}

/// The command that creates a topic.
pub fn create(image: &Image, ids: Ids, new: &NewTopic) -> Result<Command, TopicError> {
    check_topic_name(&new.name)?;
    if is_internal(&new.name) {
        return Err(TopicError::Internal(new.name.clone()));
    }
    create_any(image, ids, new)
}

/// As [`create`], for the broker's own topics too.
pub fn create_any(image: &Image, ids: Ids, new: &NewTopic) -> Result<Command, TopicError> {
    if image.topic(&new.name).is_some() {
        return Err(TopicError::Exists(new.name.clone()));
    }
    let partitions = match new.assignments.as_slice() {
        [] => {
            check_replication(new.replication)?;
            match new.partitions {
                -1 => image.live.num_partitions,
                count => count,
            }
        }
        assignments => assigned_count(ids.node, new, assignments, 0)?,
    };
    check_room(image, 0, partitions)?;
    Ok(Command::CreateTopic {
        id: ids.topic,
        name: new.name.clone(),
        partitions,
        overrides: overrides_of(&new.configs)?,
    })
}

/// The overrides of a new topic.
fn overrides_of(configs: &[(String, Option<String>)]) -> Result<Overrides, TopicError> {
    let mut overrides = Overrides::new();
    for (name, value) in configs {
        let Some(value) = value else {
            return Err(ConfigError::NullValue(name.clone()).into());
        };
        overrides.insert(name.clone(), value.clone());
    }
    topic::check(&overrides)?;
    Ok(overrides)
}

/// The command that gives a topic `count` partitions in all.
pub fn grow(
    image: &Image,
    node: i32,
    name: &str,
    count: i32,
    assignments: Option<&[Vec<i32>]>,
) -> Result<Command, TopicError> {
    let topic = image.topic(name).ok_or(TopicError::Missing)?;
    if topic.is_internal() {
        return Err(TopicError::Internal(name.to_owned()));
    }
    if count == topic.partitions {
        return Err(TopicError::Partitions(format!(
            "Topic already has {count} partition(s)."
        )));
    }
    if count < topic.partitions {
        return Err(TopicError::Partitions(format!(
            "The topic {name} currently has {} partition(s); {count} would not be an increase.",
            topic.partitions
        )));
    }
    if let Some(assignments) = assignments {
        let added = (count - topic.partitions) as usize;
        if assignments.len() != added {
            return Err(TopicError::Assignment(format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            )));
        }
        assignments
            .iter()
            .try_for_each(|nodes| check_nodes(node, nodes))?;
    }
    check_room(image, topic.partitions, count)?;
    Ok(Command::GrowTopic {
        id: topic.id,
        partitions: count,
    })
}

/// The command that deletes a topic, which the client names or knows by id.
pub fn delete(image: &Image, topic: Option<&Topic>, by_id: bool) -> Result<Command, TopicError> {
    if !image.live.delete_topics {
        return Err(TopicError::DeletionDisabled);
    }
    let missing = if by_id {
        TopicError::MissingId
    } else {
        TopicError::Missing
    };
    let topic = topic.ok_or(missing)?;
    if topic.is_internal() {
        return Err(TopicError::Internal(topic.name.to_string()));
    }
    Ok(Command::DeleteTopic { id: topic.id })
}

fn check_replication(replication: i16) -> Result<(), TopicError> {
    match replication {
        -1 | 1 => Ok(()),
        0 | i16::MIN..-1 => Err(TopicError::Request(
            "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
        )),
        many => Err(TopicError::Replication(many)),
    }
}

/// How many partitions a client has placed, if it placed them rightly.
fn assigned_count(
    node: i32,
    new: &NewTopic,
    assignments: &[(i32, Vec<i32>)],
    first: i32,
) -> Result<i32, TopicError> {
    if new.replication != -1 {
        return Err(TopicError::Request(
            "A manual partition assignment was specified, but replication factor was not set to -1."
                .to_owned(),
        ));
    }
    if new.partitions != -1 {
        return Err(TopicError::Request(
            "A manual partition assignment was specified, but numPartitions was not set to -1."
                .to_owned(),
        ));
    }
    let mut numbers: Vec<i32> = assignments.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    if !numbers.iter().copied().eq((first..).take(numbers.len())) {
        return Err(TopicError::Assignment(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    assignments
        .iter()
        .try_for_each(|(_, nodes)| check_nodes(node, nodes))?;
    i32::try_from(assignments.len())
        .map_err(|_| TopicError::Partitions("too many partitions".to_owned()))
}

fn check_nodes(node: i32, nodes: &[i32]) -> Result<(), TopicError> {
    if nodes == [node] {
        return Ok(());
    }
    Err(TopicError::Assignment(format!(
        "The manual partition assignment {nodes:?} names other brokers than this single node, {node}."
    )))
}

fn check_room(image: &Image, from: i32, to: i32) -> Result<(), TopicError> {
    if to < 1 {
        return Err(TopicError::Partitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        ));
    }
    let limit = image.live.max_partitions;
    let all = image.partition_count() + (to - from) as usize;
    if all > limit {
        return Err(TopicError::Partitions(format!(
            "All topics would have {all} partitions together, and partitions.max is {limit}."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::image::OFFSETS_TOPIC;
    use super::*;
    use crate::config::BrokerConfig;

    const IDS: Ids = Ids {
        node: 1,
        topic: Uuid::from_u128(7),
    };

    fn image() -> Image {
        let config = BrokerConfig::from_pairs([("num.partitions", "5"), ("partitions.max", "20")]);
        let config = config.unwrap();
        let mut image = Image::new(&config);
        let offsets = NewTopic {
            partitions: 2,
            ..new(OFFSETS_TOPIC)
        };
        for (id, topic) in [(1, new("t")), (2, offsets)] {
            let ids = Ids {
                topic: Uuid::from_u128(id),
                ..IDS
            };
            let command = create_any(&image, ids, &topic).unwrap();
            image.apply(&config, &command).unwrap();
        }
        image
    }

    fn new(name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partitions: -1,
            replication: -1,
            ..NewTopic::default()
        }
    }

    fn partitions(result: Result<Command, TopicError>) -> Result<i32, String> {
        match result {
            Ok(Command::CreateTopic { partitions, .. } | Command::GrowTopic { partitions, .. }) => {
                Ok(partitions)
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_topic_that_says_nothing_gets_the_defaults() {
        assert_eq!(partitions(create(&image(), IDS, &new("x"))), Ok(5));
    }

    #[test]
    fn a_topic_may_be_placed_by_hand_on_this_node_alone() {
        let placed = |assignments: &[(i32, &[i32])]| NewTopic {
            assignments: assignments.iter().map(|(n, b)| (*n, b.to_vec())).collect(),
            ..new("x")
        };
        let good = placed(&[(1, &[1]), (0, &[1])]);
        assert_eq!(partitions(create(&image(), IDS, &good)), Ok(2));
        for bad in [
            placed(&[(0, &[2])]),
            placed(&[(0, &[1, 2])]),
            placed(&[(1, &[1])]),
            placed(&[(0, &[1]), (0, &[1])]),
        ] {
            let error = create(&image(), IDS, &bad).unwrap_err();
            assert!(matches!(error, TopicError::Assignment(_)), "{error}");
        }
        let both = NewTopic {
            partitions: 2,
            ..good
        };
        let error = create(&image(), IDS, &both).unwrap_err();
        assert!(matches!(error, TopicError::Request(_)), "{error}");
    }

    #[test]
    fn what_cannot_be_created_is_refused_with_the_reason() {
        let config = |name: &str, value: Option<&str>| NewTopic {
            configs: vec![(name.to_owned(), value.map(str::to_owned))],
            ..new("x")
        };
        let count = |partitions, replication| NewTopic {
            partitions,
            replication,
            ..new("x")
        };
        let cases = [
            (new(""), "empty"),
            (new("a/b"), "made of"),
            (new(".."), ".."),
            (new("t"), "already exists"),
            (new(OFFSETS_TOPIC), "internal"),
            (count(0, -1), "non-positive"),
            (count(-2, -1), "non-positive"),
            (count(1, 3), "replicate"),
            (count(1, 0), "larger than 0"),
            (count(100, 1), "partitions.max"),
            (config("retention.ms", Some("x")), "Invalid value"),
            (config("no.such", Some("x")), "Unknown topic config"),
            (config("retention.ms", None), "Null value"),
        ];
        for (topic, word) in cases {
            let error = create(&image(), IDS, &topic).unwrap_err().to_string();
            assert!(error.contains(word), "{error} lacks {word}");
        }
    }

    #[test]
    fn topics_grow_and_never_shrink() {
        let image = image();
        assert_eq!(partitions(grow(&image, 1, "t", 6, None)), Ok(6));
        let nodes = [vec![1]];
        assert_eq!(partitions(grow(&image, 1, "t", 6, Some(&nodes))), Ok(6));
        assert_eq!(grow(&image, 1, "x", 6, None), Err(TopicError::Missing));
        for (count, nodes) in [
            (5, None),
            (4, None),
            (100, None),
            (7, Some(&nodes[..])),
            (6, Some(&[vec![2]][..])),
        ] {
            assert!(grow(&image, 1, "t", count, nodes).is_err(), "{count}");
        }
        assert!(grow(&image, 1, OFFSETS_TOPIC, 6, None).is_err());
    }

    #[test]
    fn internal_topics_and_unknown_ones_are_not_deleted() {
        let image = image();
        let topic = |name| image.topic(name).map(|topic| &**topic);
        assert!(delete(&image, topic("t"), false).is_ok());
        let refused = |name, by_id| delete(&image, topic(name), by_id).unwrap_err();
        assert_eq!(refused("x", false), TopicError::Missing);
        assert_eq!(refused("x", true), TopicError::MissingId);
        assert!(matches!(
            refused(OFFSETS_TOPIC, false),
            TopicError::Internal(_)
        ));
    }
}
