//! The metadata as a pure state: commands go in, in the order of their journal, and the state is
//! what they add up to. A snapshot is never changed; the next one shares the topics that stayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_wire::features::{Levels, RINGMILL_VERSION};
use ringmill_wire::topic::{MAX_TOPIC_NAME_LEN, TopicNameError, check_topic_name};
use ringmill_wire::{StrBytes, Uuid};
use thiserror::Error;

use super::command::Command;
use super::features::{self, RECORDED};
use crate::config::broker::{self, ConsumerLimits, GroupConfig, LiveConfig};
use crate::config::{
    BrokerConfig, ConfigError, Overrides, Table, TopicConfig, client_metrics, group, topic,
};
use crate::quotas::{Limit, Quotas};

/// The topic of groups' offsets and members.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The topic of transactions' states.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The broker's own topics, which come into being when they are needed.
pub const OWN_TOPICS: [&str; 2] = [OFFSETS_TOPIC, TRANSACTIONS_TOPIC];

/// Kafka's own topics that are not in use here yet; their names are kept free.
const RESERVED: [&str; 2] = ["__cluster_metadata", "__share_group_state"];

/// Whether a topic is the broker's own: clients neither create, write nor delete it.
pub fn is_internal(name: &str) -> bool {
    OWN_TOPICS.contains(&name) || RESERVED.contains(&name)
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// Its id, never used again.
    pub id: Uuid,
    /// Its name.
    pub name: StrBytes,
    /// Its partitions, numbered from zero; those that follow each other and are alike share one.
    pub partitions: Vec<Arc<PartitionState>>,
    /// What was set on it.
    pub overrides: Overrides,
    /// What that makes of the defaults.
    pub config: TopicConfig,
}

impl Topic {
    /// Whether it is the broker's own.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// How many partitions it has.
    pub fn count(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// Whether it has a partition of this number.
    pub fn has(&self, partition: i32) -> bool {
        (0..self.count()).contains(&partition)
    }

    /// The partition of this number.
    pub fn partition(&self, partition: i32) -> Option<&Arc<PartitionState>> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    fn add(&mut self, states: &[PartitionState]) {
        for state in states {
            let last = self.partitions.last();
            let same = last.filter(|last| ***last == *state).cloned();
            let state = same.unwrap_or_else(|| Arc::new(state.clone()));
            self.partitions.push(state);
        }
    }
}

/// A command that does not follow from what came before it: the journal is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The topic exists.
    #[error("topic {0} is created twice")]
    Exists(String),
    /// The topic does not exist.
    #[error("topic {0} is changed, but does not exist")]
    Missing(Uuid),
    /// A topic has no partitions, or too many.
    #[error("topic {0} has no partitions, or more than can be counted")]
    Partitions(String),
    /// A partition does not exist, or goes back.
    #[error("partition {partition} of topic {topic} does not exist, or goes back in time")]
    Partition {
        /// The topic.
        topic: String,
        /// Its number.
        partition: i32,
    },
    /// A node does not exist, or goes back.
    #[error("node {0} does not exist, or goes back in time")]
    Node(NodeId),
    /// Producer ids would be given out again.
    #[error("producer ids go back from {from} to {to}")]
    ProducerIds {
        /// The first free one.
        from: i64,
        /// The first that is to be free.
        to: i64,
    },
    /// A name that cannot be a topic's, nor its folder's.
    #[error("topic {name:?}: {error}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        error: TopicNameError,
    },
    /// A setting that this version does not take.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Partitions that are on one node alone; for tests.
#[cfg(test)]
pub(crate) fn on_one_node(node: NodeId, count: i32) -> Vec<PartitionState> {
    vec![PartitionState::new(vec![node], |_| true); count as usize]
}

/// A snapshot of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Counts the commands; the same on all nodes. Caches compare it.
    pub version: u64,
    /// Whose sight this is: [`Image::dynamic`] and [`Image::live`] are this node's.
    pub node_id: NodeId,
    /// Which levels of features it is at.
    levels: Levels,
    /// The nodes of the cluster.
    nodes: Arc<BTreeMap<NodeId, NodeState>>,
    /// What was set on each broker while it ran; those that have nothing are not here.
    brokers: BTreeMap<NodeId, Overrides>,
    /// What was set on all brokers.
    pub broker_defaults: Overrides,
    /// The two together: what was set on this broker, else on all.
    pub dynamic: Overrides,
    /// What that makes of the broker's settings.
    pub live: LiveConfig,
    /// What clients may do in a second.
    pub quotas: Quotas,
    /// Producer ids from here on are free.
    pub next_producer_id: i64,
    /// What was set on groups; those that have nothing are not here.
    groups: BTreeMap<String, Overrides>,
    /// The subscriptions of clients' metrics.
    client_metrics: Arc<BTreeMap<String, Overrides>>,
    by_name: IndexMap<StrBytes, Arc<Topic>, FixedState>,
    by_id: IndexMap<Uuid, Arc<Topic>, FixedState>,
    partitions: usize,
}

impl Image {
    /// The metadata of a cluster without topics.
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            version: 0,
            node_id: config.node_id,
            levels: features::levels_before(),
            nodes: Arc::default(),
            brokers: BTreeMap::new(),
            broker_defaults: Overrides::new(),
            dynamic: Overrides::new(),
            live: config.live.clone(),
            quotas: Quotas::default(),
            next_producer_id: 0,
            groups: BTreeMap::new(),
            client_metrics: Arc::default(),
            by_name: IndexMap::default(),
            by_id: IndexMap::default(),
            partitions: 0,
        }
    }

    /// The metadata of a cluster of one node, which is up; for tests.
    #[cfg(test)]
    pub(crate) fn alone(config: &BrokerConfig) -> Self {
        let mut image = Self::new(config);
        let address = ringmill_replication::quorum::Address {
            host: "127.0.0.1".to_owned(),
            port: 9092,
        };
        let state = NodeState {
            epoch: 1,
            folder: 1,
            address,
            rack: None,
            supported: ringmill_wire::features::Supported::new(),
            is_fenced: false,
            is_stopping: false,
        };
        let node = config.node_id;
        let set = Command::SetNode { node, state };
        image.apply(config, &set).expect("a first node");
        image
    }

    /// The nodes of the cluster.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeState> {
        &self.nodes
    }

    /// Which levels of features the cluster is at; those at 0 are not here.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Which level of a feature the cluster is at.
    pub fn level(&self, feature: &str) -> i16 {
        self.levels.get(feature).copied().unwrap_or(0)
    }

    /// Which level of [`RINGMILL_VERSION`] the cluster is at: what may be written into the metadata,
    /// and said to other nodes, so that all of them understand it.
    pub fn metadata_level(&self) -> i16 {
        self.level(RINGMILL_VERSION)
    }

    /// Whether a node can lead, and be in sync.
    pub fn is_usable(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(NodeState::is_usable)
    }

    /// What was set on a broker while it ran.
    pub fn broker(&self, node: NodeId) -> Option<&Overrides> {
        self.brokers.get(&node)
    }

    /// What was set on this broker while it ran.
    pub fn own(&self) -> Overrides {
        self.broker(self.node_id).cloned().unwrap_or_default()
    }

    /// All topics.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_id.values()
    }

    /// The topic of a name. One that is too long for a topic is not even hashed: a request may ask
    /// for each of many partitions by it.
    #[inline]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        if name.len() > MAX_TOPIC_NAME_LEN {
            return None;
        }
        self.by_name.get(name.as_bytes())
    }

    /// The topic of an id.
    #[inline]
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// The limits of a group of the consumer protocol: its own, else the broker's.
    pub fn consumer_limits(&self, group: &str, config: &GroupConfig) -> ConsumerLimits {
        match self.groups.get(group) {
            Some(set) => group::limits(set, config),
            None => config.consumer,
        }
    }

    /// What was set on groups.
    pub fn groups(&self) -> &BTreeMap<String, Overrides> {
        &self.groups
    }

    /// The subscriptions of clients' metrics, by name; the same allocation as long as they stay.
    pub fn client_metrics(&self) -> &Arc<BTreeMap<String, Overrides>> {
        &self.client_metrics
    }

    /// Applies the next command.
    pub fn apply(&mut self, config: &BrokerConfig, command: &Command) -> Result<(), ImageError> {
        match command {
            Command::CreateTopic {
                id,
                name,
                partitions,
                overrides,
            } => self.create(config, *id, name, partitions, overrides)?,
            Command::DeleteTopic { id } => {
                let topic = self.by_id.swap_remove(id).ok_or(ImageError::Missing(*id))?;
                self.by_name.swap_remove(topic.name.as_bytes());
                self.partitions -= topic.partitions.len();
            }
            Command::GrowTopic { id, added } => self.grow(*id, added)?,
            Command::SetPartitions { topic, partitions } => self.set(*topic, partitions)?,
            Command::SetNode { node, state } => self.set_node(*node, state)?,
            Command::RemoveNode { node } => {
                let gone = Arc::make_mut(&mut self.nodes).remove(node);
                gone.ok_or(ImageError::Node(*node))?;
            }
            Command::SetFeature { name, level } => self.set_level(name, *level),
            Command::ConfigureTopic { id, overrides } => {
                check(&topic::TABLE, overrides)?;
                let mut topic = self.take(*id)?;
                topic.config = config.topic_config(overrides, &self.dynamic);
                topic.overrides = overrides.clone();
                self.put(topic);
            }
            Command::ConfigureBroker { node, overrides } => {
                check(&broker::TABLE, overrides)?;
                match overrides.is_empty() {
                    true => self.brokers.remove(node),
                    false => self.brokers.insert(*node, overrides.clone()),
                };
                self.configure(config);
            }
            Command::ConfigureBrokers { overrides } => {
                check(&broker::TABLE, overrides)?;
                self.broker_defaults = overrides.clone();
                self.configure(config);
            }
            Command::SetQuotas { entity, limits } => self.quotas.set(entity, limits),
            Command::ConfigureGroup { group, overrides } => {
                check(&group::TABLE, overrides)?;
                match overrides.is_empty() {
                    true => self.groups.remove(group),
                    false => self.groups.insert(group.clone(), overrides.clone()),
                };
            }
            Command::ConfigureClientMetrics { name, overrides } => {
                check(&client_metrics::TABLE, overrides)?;
                let all = Arc::make_mut(&mut self.client_metrics);
                match overrides.is_empty() {
                    true => all.remove(name),
                    false => all.insert(name.clone(), overrides.clone()),
                };
            }
            Command::ReserveProducerIds { next } => {
                if *next < self.next_producer_id {
                    let from = self.next_producer_id;
                    return Err(ImageError::ProducerIds { from, to: *next });
                }
                self.next_producer_id = *next;
            }
        }
        self.version += 1;
        Ok(())
    }

    fn set_level(&mut self, name: &str, level: i16) {
        match level {
            0 => self.levels.remove(name),
            _ => self.levels.insert(name.to_owned(), level),
        };
    }

    fn set_node(&mut self, node: NodeId, state: &NodeState) -> Result<(), ImageError> {
        let before = self.nodes.get(&node);
        if before.is_some_and(|before| before.epoch > state.epoch) {
            return Err(ImageError::Node(node));
        }
        Arc::make_mut(&mut self.nodes).insert(node, state.clone());
        Ok(())
    }

    fn create(
        &mut self,
        config: &BrokerConfig,
        id: Uuid,
        name: &str,
        partitions: &[PartitionState],
        overrides: &Overrides,
    ) -> Result<(), ImageError> {
        check_topic_name(name).map_err(|error| {
            let name = name.to_owned();
            ImageError::Name { name, error }
        })?;
        check(&topic::TABLE, overrides)?;
        if self.topic(name).is_some() || self.by_id.contains_key(&id) {
            return Err(ImageError::Exists(name.to_owned()));
        }
        if partitions.is_empty() || i32::try_from(partitions.len()).is_err() {
            return Err(ImageError::Partitions(name.to_owned()));
        }
        self.partitions += partitions.len();
        let mut topic = Topic {
            id,
            name: StrBytes::from_string(name.to_owned()),
            partitions: Vec::with_capacity(partitions.len()),
            config: config.topic_config(overrides, &self.dynamic),
            overrides: overrides.clone(),
        };
        topic.add(partitions);
        self.put(topic);
        Ok(())
    }

    fn grow(&mut self, id: Uuid, added: &[PartitionState]) -> Result<(), ImageError> {
        let mut topic = self.take(id)?;
        if i32::try_from(topic.partitions.len() + added.len()).is_err() {
            return Err(ImageError::Partitions(topic.name.to_string()));
        }
        self.partitions += added.len();
        topic.add(added);
        self.put(topic);
        Ok(())
    }

    fn set(&mut self, id: Uuid, partitions: &[(i32, PartitionState)]) -> Result<(), ImageError> {
        let mut topic = self.take(id)?;
        for (number, state) in partitions {
            let place = usize::try_from(*number).ok();
            let place = place.and_then(|at| topic.partitions.get_mut(at));
            let follows = |old: &&mut Arc<PartitionState>| {
                let grows = state.partition_epoch > old.partition_epoch;
                grows && state.leader_epoch >= old.leader_epoch
            };
            let Some(place) = place.filter(follows) else {
                return Err(ImageError::Partition {
                    topic: topic.name.to_string(),
                    partition: *number,
                });
            };
            *place = Arc::new(state.clone());
        }
        self.put(topic);
        Ok(())
    }

    /// The running broker's settings are also the defaults of every topic.
    fn configure(&mut self, config: &BrokerConfig) {
        self.dynamic = self.broker_defaults.clone();
        self.dynamic.extend(self.own());
        self.live = config.live_with(&self.dynamic);
        let all: Vec<Arc<Topic>> = self.topics().cloned().collect();
        for topic in all {
            let resolved = config.topic_config(&topic.overrides, &self.dynamic);
            if resolved != topic.config {
                self.put(Topic {
                    config: resolved,
                    ..Topic::clone(&topic)
                });
            }
        }
    }

    fn take(&self, id: Uuid) -> Result<Topic, ImageError> {
        let topic = self.by_id.get(&id).ok_or(ImageError::Missing(id))?;
        Ok(Topic::clone(topic))
    }

    fn put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_name.insert(topic.name.clone(), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    /// The commands that lead from nothing to here.
    pub fn commands(&self) -> Vec<Command> {
        let state = |state: &Arc<PartitionState>| PartitionState::clone(state);
        let topics = self.topics().map(|topic| Command::CreateTopic {
            id: topic.id,
            name: topic.name.to_string(),
            partitions: topic.partitions.iter().map(state).collect(),
            overrides: topic.overrides.clone(),
        });
        let settings = [
            Command::ConfigureBrokers {
                overrides: self.broker_defaults.clone(),
            },
            Command::ReserveProducerIds {
                next: self.next_producer_id,
            },
        ];
        // Else the metadata has no room for them.
        let levels = match self.metadata_level() {
            ..RECORDED => Vec::new(),
            _ => features::commands_between(&features::levels_before(), &self.levels),
        };
        let nodes = self.nodes.iter().map(|(node, state)| Command::SetNode {
            node: *node,
            state: state.clone(),
        });
        let brokers = self.brokers.iter();
        let brokers = brokers.map(|(node, overrides)| Command::ConfigureBroker {
            node: *node,
            overrides: overrides.clone(),
        });
        let quotas = self.quotas.iter().map(|(entity, limits)| {
            let text =
                |(limit, value): (&Limit, &f64)| (limit.name().to_owned(), value.to_string());
            Command::SetQuotas {
                entity: entity.clone(),
                limits: limits.iter().map(text).collect(),
            }
        });
        let groups = self.groups.iter();
        let groups = groups.map(|(group, overrides)| Command::ConfigureGroup {
            group: group.clone(),
            overrides: overrides.clone(),
        });
        let subscriptions = self.client_metrics.iter();
        let subscriptions = subscriptions.map(|(name, set)| Command::ConfigureClientMetrics {
            name: name.clone(),
            overrides: set.clone(),
        });
        let settings = settings
            .into_iter()
            .chain(levels)
            .chain(nodes)
            .chain(brokers);
        let settings = settings.chain(quotas).chain(groups);
        settings.chain(subscriptions).chain(topics).collect()
    }
}

/// Checks values that may come from the disk. A name that no key has (any more) is harmless.
fn check(table: &Table, overrides: &Overrides) -> Result<(), ConfigError> {
    let known = overrides
        .iter()
        .filter_map(|(name, value)| Some((table.find(name)?, value)));
    known
        .into_iter()
        .try_for_each(|(key, value)| key.check(value))
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
