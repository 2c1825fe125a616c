//! Settings of topics and brokers.

use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ringmill_wire::kafka_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};

use super::{Admin, AdminError, check, text, unanswered};

/// A resource's kind on the wire (Kafka's `ConfigResource.Type`).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Kinds of change (Kafka's `AlterConfigOp.OpType`).
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Where a setting's value comes from (Kafka's `DescribeConfigsResponse.ConfigSource`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// The topic's own.
    Topic,
    /// Set on the broker, or for all brokers, while they run.
    Dynamic,
    /// The broker's configuration file.
    Static,
    /// Nobody set it.
    Default,
    /// Something newer than this client.
    Other(i8),
}

impl ConfigSource {
    fn of(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 | 3 => Self::Dynamic,
            4 => Self::Static,
            5 => Self::Default,
            other => Self::Other(other),
        }
    }
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name of it.
    pub name: String,
    /// Null if it is secret, or not set.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// It cannot be changed while the broker runs.
    pub read_only: bool,
}

/// A change of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// To a value.
    Set(String, String),
    /// Back to the default.
    Delete(String),
    /// Adds a value to a setting that is a list.
    Append(String, String),
    /// Takes a value out of a setting that is a list.
    Subtract(String, String),
}

impl Admin {
    /// All settings of a topic.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, AdminError> {
        self.configs(TOPIC, name, format!("topic {name:?}")).await
    }

    /// All settings of a broker.
    pub async fn broker_configs(&self, id: i32) -> Result<Vec<ConfigEntry>, AdminError> {
        self.configs(BROKER, &id.to_string(), format!("broker {id}"))
            .await
    }

    async fn configs(
        &self,
        kind: i8,
        name: &str,
        what: String,
    ) -> Result<Vec<ConfigEntry>, AdminError> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        self.0
            .retried(async || {
                // a broker's settings are its own to tell
                let connection = match kind {
                    BROKER => self.0.node(name.parse().unwrap_or(-1)).await?,
                    _ => self.0.any().await?,
                };
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.results.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)?;
                let entries = answer.configs.into_iter().map(|entry| ConfigEntry {
                    name: entry.name.to_string(),
                    value: entry.value.map(|value| value.to_string()),
                    source: ConfigSource::of(entry.config_source),
                    read_only: entry.read_only,
                });
                Ok(entries.collect())
            })
            .await
    }

    /// Changes settings of a topic; the others stay as they are.
    pub async fn alter_topic(
        &self,
        name: &str,
        changes: &[ConfigChange],
    ) -> Result<(), AdminError> {
        self.alter(TOPIC, name, format!("topic {name:?}"), changes)
            .await
    }

    /// Changes settings of a broker while it runs; the others stay as they are.
    pub async fn alter_broker(&self, id: i32, changes: &[ConfigChange]) -> Result<(), AdminError> {
        self.alter(BROKER, &id.to_string(), format!("broker {id}"), changes)
            .await
    }

    async fn alter(
        &self,
        kind: i8,
        name: &str,
        what: String,
        changes: &[ConfigChange],
    ) -> Result<(), AdminError> {
        let changes = changes.iter().map(|change| {
            let (name, operation, value) = match change {
                ConfigChange::Set(name, value) => (name, SET, Some(text(value))),
                ConfigChange::Delete(name) => (name, DELETE, None),
                ConfigChange::Append(name, value) => (name, APPEND, Some(text(value))),
                ConfigChange::Subtract(name, value) => (name, SUBTRACT, Some(text(value))),
            };
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value)
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(changes.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.0
            .retried(async || {
                let connection = match kind {
                    BROKER => self.0.node(name.parse().unwrap_or(-1)).await?,
                    _ => self.0.controller().await?,
                };
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.responses.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)
            })
            .await
    }
}
