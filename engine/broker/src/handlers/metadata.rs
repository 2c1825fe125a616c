//! Metadata: which brokers there are, and topics with their partitions' leaders, all or some, by
//! name or (from version 12) by id.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ringmill_wire::kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use ringmill_wire::topic::check_topic_name;
use ringmill_wire::{StrBytes, Uuid};

use super::cluster::{CLUSTER_OPERATIONS, OPERATIONS_OMITTED, TOPIC_OPERATIONS};
use super::context::Context;
use super::replicas::{brokers, ids, leader_error, leader_id, offline};
use crate::cluster::image::{Image, OWN_TOPICS, Topic, is_internal};
use crate::limits::MAX_TOPICS_PER_REQUEST;

/// First version whose topics may be named by id alone: 10 and 11 have the field, but their
/// responses cannot say that an id is unknown (KIP-516, KAFKA-13045).
const BY_ID: i16 = 12;
/// Versions that ask what may be done with the cluster; before and after, DescribeCluster does.
const CLUSTER_OPERATIONS_ASKED: std::ops::RangeInclusive<i16> = 8..=10;

/// A response, and what is to be done before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The response as things stand.
    pub response: MetadataResponse,
    /// Topics that the client wants and the broker is set to create (`topics::auto_create`). When
    /// they exist, the request is answered anew.
    pub missing: Vec<StrBytes>,
}

/// Answers Metadata.
pub fn metadata(
    image: &Image,
    ctx: Context<'_>,
    request: &MetadataRequest,
    version: i16,
) -> Answer {
    let mut asked = Asked::new(image, request);
    match &request.topics {
        None => asked.all(),
        // Version 0 has no null.
        Some(topics) if topics.is_empty() && version == 0 => asked.all(),
        Some(topics) => match are_nameable(topics, version) {
            true => topics.iter().for_each(|topic| asked.topic(topic)),
            false => asked.refuse(topics),
        },
    }
    let include_cluster = request.include_cluster_authorized_operations;
    let operations = match include_cluster && CLUSTER_OPERATIONS_ASKED.contains(&version) {
        true => CLUSTER_OPERATIONS,
        false => OPERATIONS_OMITTED,
    };
    let brokers = brokers(image, ctx).into_iter().map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.id)
            .with_host(broker.host)
            .with_port(broker.port.into())
            .with_rack(broker.rack)
    });
    let response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(ctx.cluster_id.clone()))
        .with_controller_id(ctx.controller.into())
        .with_topics(asked.topics)
        .with_cluster_authorized_operations(operations);
    Answer {
        response,
        missing: asked.missing,
    }
}

/// Whether the version can name topics as the request does.
fn are_nameable(topics: &[MetadataRequestTopic], version: i16) -> bool {
    let plain = |topic: &MetadataRequestTopic| topic.name.is_some() && topic.topic_id.is_nil();
    version >= BY_ID || topics.iter().all(plain)
}

/// A Metadata request in work.
struct Asked<'a> {
    image: &'a Image,
    create: bool,
    operations: i32,
    /// What was answered already: clients repeat themselves.
    names: BTreeSet<StrBytes>,
    ids: BTreeSet<Uuid>,
    topics: Vec<MetadataResponseTopic>,
    missing: Vec<StrBytes>,
}

impl<'a> Asked<'a> {
    fn new(image: &'a Image, request: &MetadataRequest) -> Self {
        Self {
            image,
            create: image.live.auto_create_topics && request.allow_auto_topic_creation,
            operations: match request.include_topic_authorized_operations {
                true => TOPIC_OPERATIONS,
                false => OPERATIONS_OMITTED,
            },
            names: BTreeSet::new(),
            ids: BTreeSet::new(),
            topics: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// All topics, by name.
    fn all(&mut self) {
        let mut all: Vec<&Arc<Topic>> = self.image.topics().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.topics = all.into_iter().map(|topic| self.found(topic)).collect();
    }

    /// One topic of the request.
    fn topic(&mut self, asked: &MetadataRequestTopic) {
        if !asked.topic_id.is_nil() {
            self.by_id(asked.topic_id);
        } else if let Some(name) = &asked.name {
            self.by_name(name);
        } else {
            self.topics.push(refused(ErrorCode::InvalidRequest, asked));
        }
    }

    fn by_id(&mut self, id: Uuid) {
        if !self.ids.insert(id) {
            return;
        }
        let answer = match self.image.topic_by_id(id) {
            Some(topic) => self.found(topic),
            None => MetadataResponseTopic::default()
                .with_error_code(ErrorCode::UnknownTopicId.code())
                .with_name(None)
                .with_topic_id(id),
        };
        self.topics.push(answer);
    }

    fn by_name(&mut self, name: &TopicName) {
        if let Some(topic) = self.image.topic(name) {
            if self.ids.insert(topic.id) {
                self.topics.push(self.found(topic));
            }
            return;
        }
        if !self.names.insert(name.0.clone()) {
            return;
        }
        let error = match check_topic_name(name) {
            Ok(()) => ErrorCode::UnknownTopicOrPartition,
            Err(_) => ErrorCode::InvalidTopic,
        };
        let free = !is_internal(name) || OWN_TOPICS.contains(&name.as_str());
        let creatable = self.create && free && error == ErrorCode::UnknownTopicOrPartition;
        if creatable && self.missing.len() < MAX_TOPICS_PER_REQUEST {
            self.missing.push(name.0.clone());
        }
        let answer = MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(Some(name.clone()))
            .with_is_internal(is_internal(name))
            .with_topic_authorized_operations(self.operations);
        self.topics.push(answer);
    }

    /// Refuses the whole request, topic by topic: no version before 13 can do it in one word.
    fn refuse(&mut self, topics: &[MetadataRequestTopic]) {
        let refused = topics.iter().map(|topic| {
            let name = topic.name.clone().unwrap_or_default();
            refused(ErrorCode::InvalidRequest, topic).with_name(Some(name))
        });
        self.topics = refused.collect();
    }

    fn found(&self, topic: &Topic) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter().zip(0..).map(|(state, index)| {
            MetadataResponsePartition::default()
                .with_error_code(leader_error(state).code())
                .with_partition_index(index)
                .with_leader_id(leader_id(state))
                .with_leader_epoch(state.leader_epoch)
                .with_replica_nodes(ids(&state.replicas))
                .with_isr_nodes(ids(&state.isr))
                .with_offline_replicas(offline(self.image, state))
        });
        MetadataResponseTopic::default()
            .with_name(Some(topic.name.clone().into()))
            .with_topic_id(topic.id)
            .with_is_internal(topic.is_internal())
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(self.operations)
    }
}

fn refused(code: ErrorCode, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(asked.name.clone())
        .with_topic_id(asked.topic_id)
}

#[cfg(test)]
#[path = "metadata_test.rs"]
mod tests;
