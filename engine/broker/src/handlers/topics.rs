//! CreateTopics, DeleteTopics and CreatePartitions, and the topics that come into being by
//! themselves. What is asked is checked against the metadata as it is; the commands that follow are
//! made durable and applied before the response is sent.

use std::collections::BTreeMap;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ringmill_wire::kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;
use ringmill_wire::kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use ringmill_wire::kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use ringmill_wire::kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use ringmill_wire::{StrBytes, Uuid};

use super::configs;
use super::context::Context;
use super::refusal::Refusal;
use crate::cluster::command::Command;
use crate::cluster::image::{Image, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, Topic};
use crate::cluster::topics::{self, NewTopic, Room, TopicError};
use crate::limits::MAX_TOPICS_PER_REQUEST;

/// First version of CreateTopics that shows what the new topics are like (KIP-525).
const CREATE_SHOWS_CONFIGS: i16 = 5;
/// First version of DeleteTopics that has topics by id (KIP-516).
const DELETE_BY_ID: i16 = 6;
/// First version of DeleteTopics whose clients know TOPIC_DELETION_DISABLED.
const DELETION_DISABLED_KNOWN: i16 = 3;

/// Topics of one request by name or id, and how often each is named; each is answered once.
struct Tally<K>(BTreeMap<K, usize>);

impl<K: Ord> Tally<K> {
    fn of(keys: impl Iterator<Item = K>) -> Self {
        let mut counts = BTreeMap::new();
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
        Self(counts)
    }

    /// How often the request names it, or none if that was asked before.
    fn take(&mut self, key: &K) -> Option<usize> {
        self.0.remove(key)
    }
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= MAX_TOPICS_PER_REQUEST {
        return Ok(());
    }
    Err(Refusal::request(format!(
        "A request may name at most {MAX_TOPICS_PER_REQUEST} topics, not {count}"
    )))
}

/// Answers CreateTopics. `new_id` gives a fresh random id at every call.
pub fn create_topics(
    image: &Image,
    ctx: Context<'_>,
    request: &CreateTopicsRequest,
    version: i16,
    new_id: &mut dyn FnMut() -> Uuid,
) -> (CreateTopicsResponse, Vec<Command>) {
    let mut tally = Tally::of(request.topics.iter().map(|topic| topic.name.as_str()));
    let many = check_count(request.topics.len());
    let mut room = Room::of(image);
    let (mut results, mut commands) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let Some(named) = tally.take(&topic.name.as_str()) else {
            continue;
        };
        let created = match (&many, named) {
            (Err(refusal), _) => Err(refusal.clone()),
            (_, 1) => create(image, &mut room, topic, new_id),
            _ => Err(Refusal::request("Duplicate topic name.")),
        };
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        results.push(match created {
            Ok(command) => {
                let result = created_result(image, ctx, &command, request, version, result);
                commands.push(command);
                result
            }
            Err(refusal) => result
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.message()),
        });
    }
    if request.validate_only {
        commands.clear();
    }
    let response = CreateTopicsResponse::default().with_topics(results);
    (response, commands)
}

fn create(
    image: &Image,
    room: &mut Room,
    topic: &CreatableTopic,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Result<Command, Refusal> {
    let assignments = topic.assignments.iter().map(|assignment| {
        let nodes = assignment.broker_ids.iter().map(|id| id.0);
        (assignment.partition_index, nodes.collect())
    });
    let configs = topic.configs.iter().map(|config| {
        let value = config.value.as_ref().map(ToString::to_string);
        (config.name.to_string(), value)
    });
    let new = NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication: topic.replication_factor,
        assignments: assignments.collect(),
        configs: configs.collect(),
    };
    Ok(topics::create(image, room, new_id(), &new)?)
}

/// What a client is told of the topic that `command` creates.
fn created_result(
    image: &Image,
    ctx: Context<'_>,
    command: &Command,
    request: &CreateTopicsRequest,
    version: i16,
    result: CreatableTopicResult,
) -> CreatableTopicResult {
    let Command::CreateTopic {
        id,
        partitions,
        overrides,
        ..
    } = command
    else {
        unreachable!("creating a topic takes one command");
    };
    let result = result.with_error_message(None);
    if version < CREATE_SHOWS_CONFIGS {
        return result;
    }
    let id = match request.validate_only {
        // The topic that may come later will have another.
        true => Uuid::nil(),
        false => *id,
    };
    result
        .with_topic_id(id)
        .with_num_partitions(partitions.len() as i32)
        .with_replication_factor(partitions.first().map_or(-1, |p| p.replicas.len() as i16))
        .with_configs(Some(configs::of_new_topic(image, ctx, overrides)))
}

/// The commands that create topics that Metadata found missing, with the broker's defaults. Names
/// that cannot be topics', or that the cluster has no room for, are left out: asked again, Metadata
/// says what is wrong with them.
pub fn auto_create(
    image: &Image,
    ctx: Context<'_>,
    names: &[StrBytes],
    new_id: &mut dyn FnMut() -> Uuid,
) -> Vec<Command> {
    let mut room = Room::of(image);
    let mut commands = Vec::new();
    for name in names {
        let new = NewTopic {
            name: name.to_string(),
            partitions: -1,
            replication: -1,
            ..NewTopic::default()
        };
        let id = new_id();
        let created = match &**name {
            own @ (OFFSETS_TOPIC | TRANSACTIONS_TOPIC) => {
                topics::create_any(image, &mut room, id, &own_settings(image, ctx, own))
            }
            _ => topics::create(image, &mut room, id, &new),
        };
        commands.extend(created.ok());
    }
    commands
}

/// The command that creates one of the broker's own topics; none if it exists.
///
/// # Errors
/// The cluster has no room for its partitions.
pub fn own_topic(
    image: &Image,
    ctx: Context<'_>,
    name: &str,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Result<Option<Command>, TopicError> {
    if image.topic(name).is_some() {
        return Ok(None);
    }
    let new = own_settings(image, ctx, name);
    topics::create_any(image, &mut Room::of(image), new_id(), &new).map(Some)
}

/// As Kafka's `GroupCoordinator.groupMetadataTopicConfigs` and
/// `TransactionStateManager.transactionTopicConfigs`.
fn own_settings(image: &Image, ctx: Context<'_>, name: &str) -> NewTopic {
    let config = ctx.config;
    let transactions = &config.transactions;
    let (partitions, segment_bytes, copies) = match name {
        TRANSACTIONS_TOPIC => (
            transactions.log_partitions,
            transactions.log_segment_bytes,
            transactions.log_replication,
        ),
        _ => (
            config.offsets_partitions,
            config.offsets_segment_bytes,
            config.offsets_replication,
        ),
    };
    let segment_bytes = segment_bytes.to_string();
    let min_isr = transactions.log_min_isr.to_string();
    let mut configs = vec![
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", segment_bytes.as_str()),
    ];
    if name == TRANSACTIONS_TOPIC {
        // A decision is told when it is durable, whatever other topics promise.
        configs.push(("durability", "flushed"));
        configs.push(("min.insync.replicas", min_isr.as_str()));
    }
    let configs = configs.into_iter();
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication: topics::default_copies(image, copies) as i16,
        configs: configs
            .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
            .collect(),
        ..NewTopic::default()
    }
}

/// Answers DeleteTopics: topics by name, from version 6 also by id.
pub fn delete_topics(
    image: &Image,
    request: &DeleteTopicsRequest,
    version: i16,
) -> (DeleteTopicsResponse, Vec<Command>) {
    let named: Vec<(Option<&TopicName>, Uuid)> = if version >= DELETE_BY_ID {
        let topics = request.topics.iter();
        topics
            .map(|topic| (topic.name.as_ref(), topic.topic_id))
            .collect()
    } else {
        let names = request.topic_names.iter();
        names.map(|name| (Some(name), Uuid::nil())).collect()
    };
    let mut deletion = Deletion::new(image, version, &named);
    for (name, id) in &named {
        deletion.topic(*name, *id);
    }
    let response = DeleteTopicsResponse::default().with_responses(deletion.results);
    (response, deletion.commands)
}

/// A DeleteTopics request in work.
struct Deletion<'a> {
    image: &'a Image,
    version: i16,
    many: Result<(), Refusal>,
    names: Tally<&'a str>,
    ids: Tally<Uuid>,
    /// How often the request means a topic, by name or id.
    topics: BTreeMap<Uuid, usize>,
    results: Vec<DeletableTopicResult>,
    commands: Vec<Command>,
}

impl<'a> Deletion<'a> {
    fn new(image: &'a Image, version: i16, named: &[(Option<&'a TopicName>, Uuid)]) -> Self {
        let names = named.iter().filter_map(|(name, id)| match id.is_nil() {
            true => name.map(|name| name.as_str()),
            false => None,
        });
        let ids = named.iter().filter_map(|(name, id)| match name {
            None if !id.is_nil() => Some(*id),
            _ => None,
        });
        let (names, ids) = (Tally::of(names), Tally::of(ids));
        let mut topics: BTreeMap<Uuid, usize> = BTreeMap::new();
        let by_name = names.0.keys().filter_map(|name| image.topic(name));
        let by_id = ids.0.keys().filter_map(|id| image.topic_by_id(*id));
        for topic in by_name.chain(by_id) {
            *topics.entry(topic.id).or_default() += 1;
        }
        Self {
            image,
            version,
            many: check_count(named.len()),
            names,
            ids,
            topics,
            results: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// The next of the request's topics.
    fn topic(&mut self, name: Option<&'a TopicName>, id: Uuid) {
        let (topic, count) = match (name, id.is_nil()) {
            (Some(name), true) => match self.names.take(&name.as_str()) {
                Some(count) => (self.image.topic(name), count),
                None => return,
            },
            (None, false) => match self.ids.take(&id) {
                Some(count) => (self.image.topic_by_id(id), count),
                None => return,
            },
            (Some(_), false) => {
                let reason = "You may not specify both topic name and topic id.";
                return self.answer(name.cloned(), id, Err(Refusal::request(reason)));
            }
            (None, true) => {
                let reason = "Neither topic name nor id were specified.";
                return self.answer(None, id, Err(Refusal::request(reason)));
            }
        };
        let topic = topic.map(|topic| &**topic);
        let deleted = self.check(topic, name.is_none(), count);
        match (topic, &deleted) {
            // Who knows a topic by its name is told its id too, and the other way round.
            (Some(topic), Ok(_)) => {
                self.answer(Some(topic.name.clone().into()), topic.id, deleted);
            }
            _ => self.answer(name.cloned(), id, deleted),
        }
    }

    fn check(&self, topic: Option<&Topic>, by_id: bool, count: usize) -> Result<Command, Refusal> {
        self.many.clone()?;
        if count > 1 {
            let what = if by_id { "id" } else { "name" };
            return Err(Refusal::request(format!("Duplicate topic {what}.")));
        }
        let twice = topic.is_some_and(|topic| self.topics.get(&topic.id) > Some(&1));
        if twice {
            return Err(Refusal::request(
                "The provided topic name maps to an ID that was already supplied.",
            ));
        }
        let deleted = topics::delete(self.image, topic, by_id);
        deleted.map_err(|error| match error {
            TopicError::DeletionDisabled if self.version < DELETION_DISABLED_KNOWN => {
                Refusal::request(error.to_string())
            }
            other => other.into(),
        })
    }

    fn answer(&mut self, name: Option<TopicName>, id: Uuid, deleted: Result<Command, Refusal>) {
        let result = DeletableTopicResult::default()
            .with_name(name)
            .with_topic_id(id)
            .with_error_message(None);
        self.results.push(match deleted {
            Ok(command) => {
                self.commands.push(command);
                result
            }
            Err(refusal) => result
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.message()),
        });
    }
}

/// Answers CreatePartitions.
pub fn create_partitions(
    image: &Image,
    request: &CreatePartitionsRequest,
) -> (CreatePartitionsResponse, Vec<Command>) {
    let mut tally = Tally::of(request.topics.iter().map(|topic| topic.name.as_str()));
    let many = check_count(request.topics.len());
    let mut room = Room::of(image);
    let (mut results, mut commands) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let Some(named) = tally.take(&topic.name.as_str()) else {
            continue;
        };
        let grown = match (&many, named) {
            (Err(refusal), _) => Err(refusal.clone()),
            (_, 1) => grow(image, &mut room, topic),
            _ => Err(Refusal::request("Duplicate topic name.")),
        };
        let (code, message) = match grown {
            Ok(command) => {
                commands.push(command);
                (ErrorCode::None, None)
            }
            Err(refusal) => (refusal.code, refusal.message()),
        };
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code.code())
                .with_error_message(message),
        );
    }
    if request.validate_only {
        commands.clear();
    }
    let response = CreatePartitionsResponse::default().with_results(results);
    (response, commands)
}

fn grow(image: &Image, room: &mut Room, topic: &CreatePartitionsTopic) -> Result<Command, Refusal> {
    let assignments: Option<Vec<Vec<i32>>> = topic.assignments.as_ref().map(|assignments| {
        let nodes = |ids: &[_]| ids.iter().map(|id: &BrokerId| id.0).collect();
        assignments
            .iter()
            .map(|assignment| nodes(&assignment.broker_ids))
            .collect()
    });
    let (name, count, nodes) = (&topic.name, topic.count, assignments.as_deref());
    Ok(topics::grow(image, room, name, count, nodes)?)
}

#[cfg(test)]
#[path = "topics_test.rs"]
mod tests;
