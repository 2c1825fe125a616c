//! A consumer group under test: its metadata, its time and the log that its records go to.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmill_wire::Uuid;

use super::partitions::Partitions;
use super::records::{decode_key, decode_value};
use super::{Beat, BeatError, Beaten, ConsumerGroup, Entries, Settings, Stored};
use crate::clock::Now;
use crate::cluster::command::Command;
use crate::cluster::image::{Image, on_one_node};
use crate::config::broker::GroupConfig;
use crate::config::{BrokerConfig, Overrides};

pub(super) struct Lab {
    pub(super) now: Now,
    pub(super) image: Image,
    pub(super) config: GroupConfig,
    pub(super) group: ConsumerGroup,
    /// The last record of each key.
    pub(super) log: BTreeMap<Bytes, Bytes>,
    broker: BrokerConfig,
    next_topic: u128,
}

impl Lab {
    /// A group without members, and topics of so many partitions each.
    pub(super) fn new(topics: &[(&str, i32)]) -> Self {
        let broker = BrokerConfig::default();
        let mut lab = Self {
            now: Now {
                mono_ms: 1000,
                wall_ms: 5000,
            },
            image: Image::new(&broker),
            config: GroupConfig::default(),
            group: ConsumerGroup::new("g"),
            log: BTreeMap::new(),
            broker,
            next_topic: 1,
        };
        for (name, partitions) in topics {
            lab.create(name, *partitions);
        }
        lab
    }

    pub(super) fn create(&mut self, name: &str, partitions: i32) {
        let id = Uuid::from_u128(self.next_topic);
        self.next_topic += 1;
        self.apply(Command::CreateTopic {
            id,
            name: name.to_owned(),
            partitions: on_one_node(1, partitions),
            overrides: Overrides::new(),
        });
    }

    pub(super) fn grow(&mut self, name: &str, partitions: i32) {
        let id = self.topic(name);
        let more = partitions - self.image.topic(name).unwrap().count();
        let added = on_one_node(1, more);
        self.apply(Command::GrowTopic { id, added });
    }

    pub(super) fn delete(&mut self, name: &str) {
        let id = self.topic(name);
        self.apply(Command::DeleteTopic { id });
    }

    fn apply(&mut self, command: Command) {
        self.image.apply(&self.broker, &command).unwrap();
    }

    pub(super) fn topic(&self, name: &str) -> Uuid {
        self.image.topic(name).unwrap().id
    }

    pub(super) fn partitions(&self, all: &[(&str, i32)]) -> Partitions {
        let all = all.iter();
        all.map(|(name, number)| (self.topic(name), *number))
            .collect()
    }

    pub(super) fn beat(&mut self, beat: &Beat) -> Result<Beaten, BeatError> {
        beat.check()?;
        let settings = Settings {
            config: &self.config,
            limits: self.config.consumer,
        };
        let mut log = Entries::new("g");
        let beaten = self
            .group
            .on_heartbeat(self.now, settings, &self.image, beat, &mut log);
        assert!(
            beaten.is_ok() || log.is_empty(),
            "a refusal changes nothing"
        );
        self.append(log);
        beaten
    }

    /// Time passes.
    pub(super) fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms.cast_signed();
        if self
            .group
            .deadline()
            .is_some_and(|at| at <= self.now.mono_ms)
        {
            let mut log = Entries::new("g");
            self.group.on_timer(self.now, &self.image, &mut log);
            self.append(log);
        }
    }

    fn append(&mut self, log: Entries) {
        for (key, value) in log.into_records() {
            match value {
                Some(value) => drop(self.log.insert(key, value)),
                None => drop(self.log.remove(&key)),
            }
        }
    }

    /// The group that the log describes.
    pub(super) fn restored(&self) -> ConsumerGroup {
        let mut stored = Stored::default();
        for (key, value) in &self.log {
            let (group, subject) = decode_key(key).unwrap().unwrap();
            assert_eq!(group, "g");
            let value = decode_value(&subject, value).unwrap();
            stored.apply(subject, Some(value));
        }
        let settings = Settings {
            config: &self.config,
            limits: self.config.consumer,
        };
        ConsumerGroup::restore(self.now, settings, "g", stored)
    }
}

/// A member's first heartbeat.
pub(super) fn join(id: &str, names: &[&str]) -> Beat {
    Beat {
        member_id: id.to_owned(),
        rebalance_timeout_ms: Some(60_000),
        names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        owned: Some(Partitions::default()),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        brings_id: true,
        ..Beat::default()
    }
}

/// A heartbeat in which nothing has changed.
pub(super) fn same(id: &str, epoch: i32) -> Beat {
    Beat {
        member_id: id.to_owned(),
        epoch,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        brings_id: true,
        ..Beat::default()
    }
}

/// A heartbeat that says what the member owns.
pub(super) fn owning(id: &str, epoch: i32, owned: &Partitions) -> Beat {
    Beat {
        owned: Some(owned.clone()),
        ..same(id, epoch)
    }
}
