//! Which commands a client's request about topics makes, or why it makes none. Pure: the rules are
//! Kafka's (`ReplicationControlManager`).

use std::collections::BTreeMap;

use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_replication::placement::{Candidate, place};
use ringmill_wire::Uuid;
use ringmill_wire::topic::{TopicNameError, check_topic_name};
use thiserror::Error;

use super::command::Command;
use super::image::{Image, Topic, is_internal};
use crate::config::topic;
use crate::config::{ConfigError, Overrides};

/// Copies of a topic that leaves that to the cluster.
const AUTO_COPIES: usize = 3;

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
    #[error("Topic name is invalid: {0}")]
    Name(#[from] TopicNameError),
    /// The topic is the broker's own.
    #[error("Topic '{0}' is internal.")]
    Internal(String),
    /// The names differ in dots and underscores alone.
    #[error("Topic '{0}' collides with existing topics: {1}")]
    Collision(String, String),
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
    /// The number of replicas is none, or more than there are nodes.
    #[error("{0}")]
    Replication(String),
    /// The placement by the client is not possible.
    #[error("{0}")]
    Assignment(String),
    /// The request contradicts itself.
    #[error("{0}")]
    Request(String),
    /// Settings without a value.
    #[error("Null value not supported for topic configs: {0}")]
    NullConfigs(String),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker is set not to delete topics.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
}

/// How many more partitions the cluster takes; what one request adds is counted together.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    partitions: usize,
    limit: usize,
}

impl Room {
    /// The room that `image` leaves.
    pub fn of(image: &Image) -> Self {
        Self {
            partitions: image.partition_count(),
            limit: image.live.max_partitions,
        }
    }

    /// How many partitions there are, and what was taken.
    fn taken(&self) -> usize {
        self.partitions
    }

    /// Takes room for a topic that grows from `from` partitions to `to`.
    fn take(&mut self, from: i32, to: i32) -> Result<(), TopicError> {
        let added = match usize::try_from(i64::from(to) - i64::from(from)) {
            Ok(added) if to >= 1 => added,
            _ => {
                return Err(TopicError::Partitions(
                    "Number of partitions was set to an invalid non-positive value.".to_owned(),
                ));
            }
        };
        let (all, limit) = (self.partitions + added, self.limit);
        if all > limit {
            return Err(TopicError::Partitions(format!(
                "All topics would have {all} partitions together, and partitions.max is {limit}."
            )));
        }
        self.partitions = all;
        Ok(())
    }
}

/// The command that creates a topic.
pub fn create(
    image: &Image,
    room: &mut Room,
    id: Uuid,
    new: &NewTopic,
) -> Result<Command, TopicError> {
    check_topic_name(&new.name)?;
    if is_internal(&new.name) {
        return Err(TopicError::Internal(new.name.clone()));
    }
    if let Some(other) = collision(image, &new.name) {
        return Err(TopicError::Collision(new.name.clone(), other));
    }
    create_any(image, room, id, new)
}

/// Another topic whose name has a dot where this has an underscore, or the other way round: their
/// metrics would have one name.
fn collision(image: &Image, name: &str) -> Option<String> {
    let ambiguous = |byte: u8| matches!(byte, b'.' | b'_');
    if !name.bytes().any(ambiguous) {
        return None;
    }
    let same = |(a, b): (u8, u8)| a == b || (ambiguous(a) && ambiguous(b));
    let others = image.topics().filter(|other| {
        other.name.len() == name.len()
            && *other.name != *name
            && other.name.bytes().zip(name.bytes()).all(same)
    });
    others.map(|other| other.name.to_string()).next()
}

/// As [`create`], for the broker's own topics too.
pub fn create_any(
    image: &Image,
    room: &mut Room,
    id: Uuid,
    new: &NewTopic,
) -> Result<Command, TopicError> {
    if image.topic(&new.name).is_some() {
        return Err(TopicError::Exists(new.name.clone()));
    }
    let overrides = overrides_of(&new.configs)?;
    let partitions = match new.assignments.as_slice() {
        [] => {
            let copies = copies(image, new.replication)?;
            let count = match new.partitions {
                -1 => image.live.num_partitions,
                count => count,
            };
            let first = room.taken();
            room.take(0, count)?;
            placed(image, count as usize, copies, first)?
        }
        assignments => {
            let placed = assigned(image, new, assignments)?;
            let count = i32::try_from(placed.len())
                .map_err(|_| TopicError::Partitions("too many partitions".to_owned()))?;
            room.take(0, count)?;
            placed
        }
    };
    Ok(Command::CreateTopic {
        id,
        name: new.name.clone(),
        partitions,
        overrides,
    })
}

/// The overrides of a new topic; of a name that comes twice, the last value counts.
fn overrides_of(configs: &[(String, Option<String>)]) -> Result<Overrides, TopicError> {
    let nulls = configs.iter().filter(|(_, value)| value.is_none());
    let nulls: Vec<&str> = nulls.map(|(name, _)| name.as_str()).collect();
    if !nulls.is_empty() {
        return Err(TopicError::NullConfigs(nulls.join(",")));
    }
    let pairs = configs.iter().cloned();
    let overrides = pairs
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    topic::check(&overrides)?;
    Ok(overrides)
}

/// The command that gives a topic `count` partitions in all.
pub fn grow(
    image: &Image,
    room: &mut Room,
    name: &str,
    count: i32,
    assignments: Option<&[Vec<NodeId>]>,
) -> Result<Command, TopicError> {
    let topic = image.topic(name).ok_or(TopicError::Missing)?;
    if topic.is_internal() {
        return Err(TopicError::Internal(name.to_owned()));
    }
    let before = topic.count();
    if count == before {
        return Err(TopicError::Partitions(format!(
            "Topic already has {count} partition(s)."
        )));
    }
    if count < before {
        return Err(TopicError::Partitions(format!(
            "The topic {name} currently has {before} partition(s); {count} would not be an increase."
        )));
    }
    let copies = topic.partitions[0].replicas.len();
    let added = (count - before) as usize;
    let first = room.taken();
    if let Some(assignments) = assignments {
        if assignments.len() != added {
            return Err(TopicError::Assignment(format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            )));
        }
        let numbers = (before..).zip(assignments);
        let states = numbers.map(|(number, nodes)| assigned_one(image, number, nodes, copies));
        let added = states.collect::<Result<_, _>>()?;
        room.take(before, count)?;
        return Ok(Command::GrowTopic {
            id: topic.id,
            added,
        });
    }
    room.take(before, count)?;
    Ok(Command::GrowTopic {
        id: topic.id,
        added: placed(image, added, copies, first)?,
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

/// How many copies a new topic gets: as it says, or as the default is.
fn copies(image: &Image, replication: i16) -> Result<usize, TopicError> {
    match replication {
        -1 => Ok(default_copies(image, image.live.default_replication)),
        1.. => Ok(replication as usize),
        _ => Err(TopicError::Replication(
            "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
        )),
    }
}

/// A default number of copies; -1 is three, or as many as there are nodes for.
pub fn default_copies(image: &Image, default: i32) -> usize {
    match usize::try_from(default) {
        Ok(copies) => copies,
        Err(_) => candidates(image).len().clamp(1, AUTO_COPIES),
    }
}

fn candidates(image: &Image) -> Vec<Candidate> {
    let usable = image.nodes().iter().filter(|(_, state)| state.is_usable());
    let candidate = |(node, state): (&NodeId, &NodeState)| Candidate {
        node: *node,
        rack: state.rack.clone(),
    };
    usable.map(candidate).collect()
}

/// Partitions on nodes that the cluster chooses.
fn placed(
    image: &Image,
    partitions: usize,
    copies: usize,
    first: usize,
) -> Result<Vec<PartitionState>, TopicError> {
    let candidates = candidates(image);
    let placed = place(&candidates, partitions, copies, first as u64).map_err(|_| {
        TopicError::Replication(format!(
            "Unable to replicate the partition {copies} time(s): The target replication factor of \
             {copies} cannot be reached because only {} broker(s) are registered.",
            candidates.len()
        ))
    })?;
    let state = |replicas| PartitionState::new(replicas, |node| image.is_usable(node));
    Ok(placed.into_iter().map(state).collect())
}

/// Partitions where a client has placed them, if it has done so rightly.
fn assigned(
    image: &Image,
    new: &NewTopic,
    assignments: &[(i32, Vec<NodeId>)],
) -> Result<Vec<PartitionState>, TopicError> {
    for (set, what) in [
        (new.replication != -1, "replication factor"),
        (new.partitions != -1, "numPartitions"),
    ] {
        if set {
            return Err(TopicError::Request(format!(
                "A manual partition assignment was specified, but {what} was not set to -1."
            )));
        }
    }
    let copies = assignments[0].1.len();
    let mut partitions = BTreeMap::new();
    for (number, nodes) in assignments {
        let state = assigned_one(image, *number, nodes, copies)?;
        if partitions.insert(*number, state).is_some() {
            return Err(TopicError::Assignment(format!(
                "Found multiple manual partition assignments for partition {number}"
            )));
        }
    }
    if !partitions.keys().copied().eq((0..).take(assignments.len())) {
        return Err(TopicError::Assignment(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    Ok(partitions.into_values().collect())
}

/// One partition where a client has placed it; all of a topic have as many copies.
fn assigned_one(
    image: &Image,
    number: i32,
    nodes: &[NodeId],
    copies: usize,
) -> Result<PartitionState, TopicError> {
    check_assignment(image, nodes)?;
    if nodes.len() != copies {
        return Err(TopicError::Assignment(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is \
             not consistent with previous partitions, which have {copies} replica(s).",
            nodes.len()
        )));
    }
    let state = PartitionState::new(nodes.to_vec(), |node| image.is_usable(node));
    if state.leader.is_some() {
        return Ok(state);
    }
    Err(TopicError::Assignment(format!(
        "All brokers specified in the manual partition assignment for partition {number} are \
         fenced or in controlled shutdown."
    )))
}

/// Checks where a client places the copies of a partition.
///
/// # Errors
/// On no node, on one that does not exist, or on one twice.
pub fn check_assignment(image: &Image, nodes: &[NodeId]) -> Result<(), TopicError> {
    let mut sorted = nodes.to_vec();
    sorted.sort_unstable();
    let unknown = sorted.iter().find(|node| !image.nodes().contains_key(node));
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
    let reason = match (unknown, twice) {
        _ if nodes.is_empty() => "an empty replica list.".to_owned(),
        (Some(other), _) => format!("broker {other}, but no such broker is registered."),
        (None, Some(pair)) => format!("the broker {} more than once.", pair[0]),
        (None, None) => return Ok(()),
    };
    Err(TopicError::Assignment(format!(
        "The manual partition assignment includes {reason}"
    )))
}

#[cfg(test)]
mod tests {
    use super::super::image::OFFSETS_TOPIC;
    use super::*;
    use crate::config::BrokerConfig;

    const ID: Uuid = Uuid::from_u128(7);

    fn image() -> Image {
        let config = BrokerConfig::from_pairs([("num.partitions", "5"), ("partitions.max", "20")]);
        let config = config.unwrap();
        let mut image = Image::alone(&config);
        let offsets = NewTopic {
            partitions: 2,
            ..new(OFFSETS_TOPIC)
        };
        for (id, topic) in [(1, new("t")), (2, offsets)] {
            let room = &mut Room::of(&image);
            let command = create_any(&image, room, Uuid::from_u128(id), &topic).unwrap();
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

    fn create(image: &Image, new: &NewTopic) -> Result<Command, TopicError> {
        super::create(image, &mut Room::of(image), ID, new)
    }

    fn grow(
        image: &Image,
        name: &str,
        count: i32,
        nodes: Option<&[Vec<i32>]>,
    ) -> Result<Command, TopicError> {
        super::grow(image, &mut Room::of(image), name, count, nodes)
    }

    fn partitions(result: Result<Command, TopicError>) -> Result<usize, String> {
        match result {
            Ok(Command::CreateTopic { partitions, .. }) => Ok(partitions.len()),
            Ok(Command::GrowTopic { added, .. }) => Ok(added.len()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_topic_that_says_nothing_gets_the_defaults() {
        assert_eq!(partitions(create(&image(), &new("x"))), Ok(5));
    }

    #[test]
    fn a_topic_may_be_placed_by_hand_on_this_node_alone() {
        let placed = |assignments: &[(i32, &[i32])]| NewTopic {
            assignments: assignments.iter().map(|(n, b)| (*n, b.to_vec())).collect(),
            ..new("x")
        };
        let good = placed(&[(1, &[1]), (0, &[1])]);
        assert_eq!(partitions(create(&image(), &good)), Ok(2));
        let bad = [
            (placed(&[(0, &[2])]), "broker 2, but no such broker"),
            (placed(&[(0, &[1, 2])]), "broker 2, but no such broker"),
            (placed(&[(0, &[1, 1])]), "broker 1 more than once"),
            (placed(&[(0, &[])]), "an empty replica list"),
            (placed(&[(1, &[1])]), "consecutive 0-based"),
            (placed(&[(0, &[1]), (0, &[1])]), "multiple manual"),
        ];
        for (new, words) in bad {
            let error = create(&image(), &new).unwrap_err();
            assert!(matches!(error, TopicError::Assignment(_)), "{error}");
            assert!(error.to_string().contains(words), "{error} lacks {words}");
        }
        let both = NewTopic {
            partitions: 2,
            ..good
        };
        let error = create(&image(), &both).unwrap_err();
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
            (new(""), "Topic name is invalid"),
            (new("a/b"), "made of"),
            (new(".."), ".."),
            (new("t"), "already exists"),
            (new(OFFSETS_TOPIC), "internal"),
            (count(0, -1), "non-positive"),
            (count(-2, -1), "non-positive"),
            (count(1, 3), "only 1 broker(s)"),
            (count(1, -2), "larger than 0"),
            (count(i32::MAX, 1), "partitions.max"),
            (count(1, 0), "larger than 0"),
            (count(100, 1), "partitions.max"),
            (config("retention.ms", Some("x")), "Invalid value"),
            (config("no.such", Some("x")), "Unknown topic config"),
            (config("retention.ms", None), "Null value"),
        ];
        for (topic, word) in cases {
            let error = create(&image(), &topic).unwrap_err().to_string();
            assert!(error.contains(word), "{error} lacks {word}");
        }
    }

    #[test]
    fn topics_grow_and_never_shrink() {
        let image = image();
        assert_eq!(partitions(grow(&image, "t", 6, None)), Ok(1));
        let nodes = [vec![1]];
        assert_eq!(partitions(grow(&image, "t", 6, Some(&nodes))), Ok(1));
        assert_eq!(grow(&image, "x", 6, None), Err(TopicError::Missing));
        for (count, nodes) in [
            (5, None),
            (4, None),
            (100, None),
            (7, Some(&nodes[..])),
            (6, Some(&[vec![2]][..])),
        ] {
            assert!(grow(&image, "t", count, nodes).is_err(), "{count}");
        }
        assert!(grow(&image, OFFSETS_TOPIC, 6, None).is_err());
    }

    #[test]
    fn topics_of_one_request_share_the_room_that_is_left() {
        let image = image();
        let room = &mut Room::of(&image);
        let mut take = |name: &str, partitions| {
            let new = NewTopic {
                partitions,
                ..new(name)
            };
            super::create(&image, room, ID, &new).is_ok()
        };
        assert!(take("a", 6));
        assert!(!take("b", 8), "7 + 6 + 8 > 20");
        assert!(take("c", 7), "what was refused takes no room");
        assert!(!take("d", 1));
        assert!(super::grow(&image, room, "t", 6, None).is_err());
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
