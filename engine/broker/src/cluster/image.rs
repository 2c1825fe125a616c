//! The metadata as a pure state: commands go in, in the order of their journal, and the state is
//! what they add up to. A snapshot is never changed; the next one shares the topics that stayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use ringmill_wire::topic::{MAX_TOPIC_NAME_LEN, TopicNameError, check_topic_name};
use ringmill_wire::{StrBytes, Uuid};
use thiserror::Error;

use crate::config::broker::{self, ConsumerLimits, GroupConfig, LiveConfig};
use crate::config::{
    BrokerConfig, ConfigError, Overrides, Table, TopicConfig, client_metrics, group, topic,
};
use crate::quotas::{Entity, Limit, Quotas};

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
    /// How many partitions it has, numbered from zero.
    pub partitions: i32,
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

    /// Whether it has a partition of this number.
    pub fn has(&self, partition: i32) -> bool {
        (0..self.partitions).contains(&partition)
    }
}

/// One change of the metadata, as it is journaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A topic begins.
    CreateTopic {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
        /// How many partitions it has.
        partitions: i32,
        /// What is set on it.
        overrides: Overrides,
    },
    /// A topic ends.
    DeleteTopic {
        /// Its id.
        id: Uuid,
    },
    /// A topic gets more partitions.
    GrowTopic {
        /// Its id.
        id: Uuid,
        /// How many it has from now on.
        partitions: i32,
    },
    /// A topic's overrides are replaced.
    ConfigureTopic {
        /// Its id.
        id: Uuid,
        /// All of them.
        overrides: Overrides,
    },
    /// This broker's overrides are replaced.
    ConfigureBroker {
        /// All of them.
        overrides: Overrides,
    },
    /// The overrides of every broker that has none of its own are replaced.
    ConfigureBrokers {
        /// All of them.
        overrides: Overrides,
    },
    /// The quotas of some clients are replaced.
    SetQuotas {
        /// Whose.
        entity: Entity,
        /// All of them by Kafka's names; without any, they end.
        limits: Overrides,
    },
    /// A group's overrides are replaced.
    ConfigureGroup {
        /// Its id.
        group: String,
        /// All of them; none takes the group out.
        overrides: Overrides,
    },
    /// The overrides of a subscription of clients' metrics are replaced.
    ConfigureClientMetrics {
        /// Its name.
        name: String,
        /// All of them; none ends the subscription.
        overrides: Overrides,
    },
    /// Producer ids below `next` may be in use.
    ReserveProducerIds {
        /// The first that is not.
        next: i64,
    },
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
    /// A topic loses partitions, or has none.
    #[error("topic {name} goes from {from} to {to} partitions")]
    Shrinks {
        /// Its name.
        name: String,
        /// How many it has.
        from: i32,
        /// How many it is to have.
        to: i32,
    },
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

/// A snapshot of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Counts the changes since the start of the process; caches compare it.
    pub version: u64,
    /// What was set on this broker while it ran.
    pub broker: Overrides,
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
            broker: Overrides::new(),
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
            } => self.create(config, *id, name, *partitions, overrides)?,
            Command::DeleteTopic { id } => {
                let topic = self.by_id.swap_remove(id).ok_or(ImageError::Missing(*id))?;
                self.by_name.swap_remove(topic.name.as_bytes());
                self.partitions -= topic.partitions as usize;
            }
            Command::GrowTopic { id, partitions } => self.grow(*id, *partitions)?,
            Command::ConfigureTopic { id, overrides } => {
                check(&topic::TABLE, overrides)?;
                let mut topic = self.take(*id)?;
                topic.config = config.topic_config(overrides, &self.dynamic);
                topic.overrides = overrides.clone();
                self.put(topic);
            }
            Command::ConfigureBroker { overrides } => {
                check(&broker::TABLE, overrides)?;
                self.broker = overrides.clone();
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
                if overrides.is_empty() {
                    self.groups.remove(group);
                } else {
                    self.groups.insert(group.clone(), overrides.clone());
                }
            }
            Command::ConfigureClientMetrics { name, overrides } => {
                check(&client_metrics::TABLE, overrides)?;
                let all = Arc::make_mut(&mut self.client_metrics);
                if overrides.is_empty() {
                    all.remove(name);
                } else {
                    all.insert(name.clone(), overrides.clone());
                }
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

    fn create(
        &mut self,
        config: &BrokerConfig,
        id: Uuid,
        name: &str,
        partitions: i32,
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
        if partitions < 1 {
            return Err(ImageError::Shrinks {
                name: name.to_owned(),
                from: 0,
                to: partitions,
            });
        }
        self.partitions += partitions as usize;
        self.put(Topic {
            id,
            name: StrBytes::from_string(name.to_owned()),
            partitions,
            config: config.topic_config(overrides, &self.dynamic),
            overrides: overrides.clone(),
        });
        Ok(())
    }

    fn grow(&mut self, id: Uuid, partitions: i32) -> Result<(), ImageError> {
        let mut topic = self.take(id)?;
        if partitions < topic.partitions {
            return Err(ImageError::Shrinks {
                name: topic.name.to_string(),
                from: topic.partitions,
                to: partitions,
            });
        }
        self.partitions += (partitions - topic.partitions) as usize;
        topic.partitions = partitions;
        self.put(topic);
        Ok(())
    }

    /// The running broker's settings are also the defaults of every topic.
    fn configure(&mut self, config: &BrokerConfig) {
        self.dynamic = self.broker_defaults.clone();
        self.dynamic.extend(self.broker.clone());
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
        let topics = self.topics().map(|topic| Command::CreateTopic {
            id: topic.id,
            name: topic.name.to_string(),
            partitions: topic.partitions,
            overrides: topic.overrides.clone(),
        });
        let settings = [
            Command::ConfigureBrokers {
                overrides: self.broker_defaults.clone(),
            },
            Command::ConfigureBroker {
                overrides: self.broker.clone(),
            },
            Command::ReserveProducerIds {
                next: self.next_producer_id,
            },
        ];
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
        let settings = settings.into_iter().chain(quotas).chain(groups);
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
mod tests {
    use super::*;

    fn create(name: &str, id: u128) -> Command {
        Command::CreateTopic {
            id: Uuid::from_u128(id),
            name: name.to_owned(),
            partitions: 3,
            overrides: Overrides::new(),
        }
    }

    fn image(commands: &[Command]) -> Image {
        let config = BrokerConfig::default();
        let mut image = Image::new(&config);
        for command in commands {
            image.apply(&config, command).unwrap();
        }
        image
    }

    #[test]
    fn topics_are_found_by_name_and_id_until_they_end() {
        let id = Uuid::from_u128(1);
        let mut image = image(&[create("a", 1), create("b", 2)]);
        assert_eq!(image.topic("a").unwrap().id, id);
        assert_eq!(&*image.topic_by_id(id).unwrap().name, "a");
        assert_eq!(image.partition_count(), 6);
        let config = BrokerConfig::default();
        image.apply(&config, &Command::DeleteTopic { id }).unwrap();
        assert!(image.topic("a").is_none() && image.topic_by_id(id).is_none());
        assert_eq!(image.partition_count(), 3);
        assert_eq!(image.topics().len(), 1);
    }

    #[test]
    fn commands_that_cannot_follow_are_refused_and_change_nothing() {
        let config = BrokerConfig::default();
        let before = image(&[create("a", 1), Command::ReserveProducerIds { next: 5 }]);
        let shrink = Command::GrowTopic {
            id: Uuid::from_u128(1),
            partitions: 2,
        };
        let missing = Command::DeleteTopic {
            id: Uuid::from_u128(9),
        };
        let back = Command::ReserveProducerIds { next: 4 };
        for command in [create("a", 7), create("z", 1), shrink, missing, back] {
            let mut image = before.clone();
            assert!(image.apply(&config, &command).is_err(), "{command:?}");
            assert_eq!(image, before);
        }
    }

    #[test]
    fn names_and_settings_from_the_disk_are_not_believed() {
        let config = BrokerConfig::default();
        let before = image(&[create("a", 1)]);
        let set = |name: &str| Overrides::from([(name.to_owned(), "soon".to_owned())]);
        let wrong = [
            create("..", 7),
            create("a/b", 7),
            Command::CreateTopic {
                id: Uuid::from_u128(7),
                name: "b".to_owned(),
                partitions: 1,
                overrides: set("retention.ms"),
            },
            Command::ConfigureTopic {
                id: Uuid::from_u128(1),
                overrides: set("retention.ms"),
            },
            Command::ConfigureBroker {
                overrides: set("num.partitions"),
            },
            Command::ConfigureBrokers {
                overrides: set("num.partitions"),
            },
        ];
        for command in wrong {
            let mut image = before.clone();
            assert!(image.apply(&config, &command).is_err(), "{command:?}");
            assert_eq!(image, before);
        }
        let mut image = before;
        let overrides = set("a.key.of.another.version");
        let command = Command::ConfigureBroker { overrides };
        image.apply(&config, &command).unwrap();
    }

    #[test]
    fn a_new_default_reaches_topics_that_set_nothing() {
        let config = BrokerConfig::default();
        let own = Overrides::from([("retention.ms".to_owned(), "1".to_owned())]);
        let configure = Command::ConfigureTopic {
            id: Uuid::from_u128(1),
            overrides: own,
        };
        let mut image = image(&[create("own", 1), create("other", 2), configure]);
        let retention = |image: &Image, name| {
            let config = &image.topic(name).unwrap().config;
            config.retention.unwrap().as_millis()
        };
        let set =
            |value: &str| Overrides::from([("log.retention.ms".to_owned(), value.to_owned())]);
        let overrides = set("2");
        let command = Command::ConfigureBroker { overrides };
        image.apply(&config, &command).unwrap();
        assert_eq!(retention(&image, "own"), 1);
        assert_eq!(retention(&image, "other"), 2);
        assert_eq!(image.live.topic_defaults.retention.unwrap().as_millis(), 2);

        let overrides = set("3");
        let command = Command::ConfigureBrokers { overrides };
        image.apply(&config, &command).unwrap();
        assert_eq!(retention(&image, "other"), 2, "its own setting is nearer");
        let overrides = Overrides::new();
        let command = Command::ConfigureBroker { overrides };
        image.apply(&config, &command).unwrap();
        assert_eq!(retention(&image, "other"), 3);
    }

    #[test]
    fn its_own_commands_lead_to_the_same_image() {
        let first = image(&[
            create("a", 1),
            create("b", 2),
            Command::DeleteTopic {
                id: Uuid::from_u128(1),
            },
            Command::GrowTopic {
                id: Uuid::from_u128(2),
                partitions: 8,
            },
            Command::ReserveProducerIds { next: 1000 },
        ]);
        let again = Image {
            version: first.version,
            ..image(&first.commands())
        };
        assert_eq!(again, first);
    }
}
