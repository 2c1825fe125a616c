//! What the handlers' tests share: a broker's metadata, kept by applying what the handlers ask for,
//! and the sight of a client, which reads responses from their bytes in its version.

use ringmill_replication::nodes::Registration;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::{Change, PartitionState};
use ringmill_replication::quorum::Address;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, Answer, Call};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::features::{Supported, supported};
use ringmill_wire::frame::LENGTH_LEN;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::TopicName;
use ringmill_wire::{StrBytes, Uuid};

use super::Context;
use crate::cluster::command::Command;
use crate::cluster::image::{Image, on_one_node};
use crate::cluster::members;
use crate::config::{BrokerConfig, Overrides};

/// A broker's metadata.
pub(super) struct Lab {
    pub(super) config: BrokerConfig,
    pub(super) image: Image,
    cluster_id: StrBytes,
    host: StrBytes,
    ids: u128,
}

impl Lab {
    /// Node 7 at `broker.test:9092`, with other settings as given.
    pub(super) fn new(settings: &[(&str, &str)]) -> Self {
        let pairs = settings.iter().copied().chain([("node.id", "7")]);
        let config = BrokerConfig::from_pairs(pairs).unwrap();
        Self {
            image: Image::alone(&config),
            config,
            cluster_id: StrBytes::from_static_str("AAAAAAAAAAAAAAAAAAAAAQ"),
            host: StrBytes::from_static_str("broker.test"),
            ids: 0,
        }
    }

    /// Nodes that are up, and a topic of which each partition is on the nodes given.
    pub(super) fn with_nodes(nodes: &[NodeId], topic: &str, partitions: &[&[NodeId]]) -> Self {
        let mut lab = Self::new(&[]);
        lab.image = Image::new(&lab.config);
        for node in nodes {
            let registration = Self::registration(*node, supported());
            lab.apply(&members::register(&lab.image, registration).unwrap());
            lab.apply(&members::unfence(&lab.image, *node));
        }
        let state = |nodes: &&[NodeId]| PartitionState::new(nodes.to_vec(), |_| true);
        lab.apply(&[Command::CreateTopic {
            id: Uuid::from_u128(1),
            name: topic.to_owned(),
            partitions: partitions.iter().map(state).collect(),
            overrides: Overrides::new(),
        }]);
        lab
    }

    /// A node that comes up, and supports this.
    pub(super) fn registration(node: NodeId, supported: Supported) -> Registration {
        Registration {
            node,
            folder: node as u128,
            address: Address {
                host: "h".to_owned(),
                port: node as u16,
            },
            rack: None,
            supported,
            lost_unflushed: false,
        }
    }

    /// A node falls silent.
    pub(super) fn fence(&mut self, node: NodeId) {
        self.apply(&members::fence(&self.image, node));
    }

    /// A partition of a topic that exists.
    pub(super) fn partition(&self, topic: &str, index: i32) -> PartitionState {
        let topic = self.image.topic(topic).unwrap();
        PartitionState::clone(topic.partition(index).unwrap())
    }

    /// Makes of a partition what `change` makes of it.
    pub(super) fn set_state(
        &mut self,
        topic: &str,
        index: i32,
        change: impl FnOnce(&mut PartitionState),
    ) {
        let mut state = self.partition(topic, index);
        change(&mut state);
        state.partition_epoch += 1;
        let topic = self.image.topic(topic).unwrap().id;
        let partitions = vec![(index, state)];
        self.apply(&[Command::SetPartitions { topic, partitions }]);
    }

    /// Its leader says that these are in sync.
    pub(super) fn set_isr(&mut self, topic: &str, index: i32, isr: &[NodeId]) {
        let before = self.partition(topic, index);
        let next = Change::of(&before, 1, &|_| true).isr(isr.to_vec()).build();
        self.set_state(topic, index, |state| {
            *state = next.unwrap();
            state.partition_epoch -= 1;
        });
    }

    /// Sets something on a topic.
    pub(super) fn configure(&mut self, topic: &str, name: &str, value: &str) {
        let id = self.image.topic(topic).unwrap().id;
        let overrides = Overrides::from([(name.to_owned(), value.to_owned())]);
        self.apply(&[Command::ConfigureTopic { id, overrides }]);
    }

    pub(super) fn ctx(&self) -> Context<'_> {
        Context {
            cluster_id: &self.cluster_id,
            host: &self.host,
            port: 9092,
            controller: self.config.node_id,
            config: &self.config,
        }
    }

    /// The metadata, who answers, and fresh ids: what most handlers take.
    pub(super) fn parts(&mut self) -> (&Image, Context<'_>, impl FnMut() -> Uuid) {
        let ctx = Context {
            cluster_id: &self.cluster_id,
            host: &self.host,
            port: 9092,
            controller: self.config.node_id,
            config: &self.config,
        };
        let ids = &mut self.ids;
        let new_id = move || {
            *ids += 1;
            Uuid::from_u128(*ids)
        };
        (&self.image, ctx, new_id)
    }

    /// Makes commands count, as the shell does once they are durable.
    ///
    /// # Panics
    /// If they do not follow from the metadata: handlers must never ask for such.
    pub(super) fn apply(&mut self, commands: &[Command]) {
        for command in commands {
            self.image.apply(&self.config, command).unwrap();
        }
    }

    /// A topic that is just there; returns its id.
    pub(super) fn topic(&mut self, name: &str, partitions: i32) -> Uuid {
        self.ids += 1;
        let id = Uuid::from_u128(self.ids);
        self.apply(&[Command::CreateTopic {
            id,
            name: name.to_owned(),
            partitions: on_one_node(self.config.node_id, partitions),
            overrides: Overrides::new(),
        }]);
        id
    }
}

/// What a client of `version` reads of a response to a `Q`.
pub(super) fn seen<Q>(version: i16, response: &Q::Response) -> Q::Response
where
    Q: Call,
    Q::Response: Answer,
{
    let header = RequestHeader {
        key: Q::KEY,
        version,
        correlation_id: 1,
        client_id: None,
    };
    let frame = control::encode_response(&header, response);
    let frame = frame.unwrap_or_else(|error| panic!("version {version}: {error}"));
    control::decode_response::<Q>(version, &frame.slice(LENGTH_LEN..)).unwrap()
}

/// The versions that are served of an API.
pub(super) fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    key.api().min..=key.api().max
}

pub(super) fn code(number: i16) -> ErrorCode {
    ErrorCode::from_code(number).unwrap()
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn named(name: &str) -> TopicName {
    TopicName(text(name))
}
