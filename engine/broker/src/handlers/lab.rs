//! What the handlers' tests share: a broker's metadata, kept by applying what the handlers ask for,
//! and the sight of a client, which reads responses from their bytes in its version.

use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, Answer, Call};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::frame::LENGTH_LEN;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::TopicName;
use ringmill_wire::{StrBytes, Uuid};

use super::Context;
use crate::cluster::command::Command;
use crate::cluster::image::{Image, on_one_node};
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
