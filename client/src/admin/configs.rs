//! Settings of topics, brokers, groups and whatever else has some.

use ringmill_wire::control::Call;
use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ringmill_wire::kafka_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::connection::CallError;

/// The first version whose answers can explain each setting.
const FIRST_WITH_DOCUMENTATION: i16 = 3;

/// Kinds of change (Kafka's `AlterConfigOp.OpType`).
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What kind of thing has settings (Kafka's `ConfigResource.Type`).
///
/// # Examples
/// ```
/// use ringmill_client::ConfigKind;
///
/// assert_eq!(ConfigKind::Group.to_string(), "group");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKind {
    /// A topic, by its name.
    Topic,
    /// A broker by its id, or all brokers by an empty name.
    Broker,
    /// A broker's loggers, by its id.
    BrokerLogger,
    /// A subscription to clients' metrics, by its name (KIP-714).
    ClientMetrics,
    /// A group, by its name (KIP-848).
    Group,
    /// Something newer than this client.
    Other(i8),
}

impl ConfigKind {
    fn of(code: i8) -> Self {
        match code {
            2 => Self::Topic,
            4 => Self::Broker,
            8 => Self::BrokerLogger,
            16 => Self::ClientMetrics,
            32 => Self::Group,
            other => Self::Other(other),
        }
    }

    fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
            Self::Other(code) => code,
        }
    }
}

impl std::fmt::Display for ConfigKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic => f.write_str("topic"),
            Self::Broker => f.write_str("broker"),
            Self::BrokerLogger => f.write_str("loggers of broker"),
            Self::ClientMetrics => f.write_str("client metrics"),
            Self::Group => f.write_str("group"),
            Self::Other(code) => write!(f, "resource of type {code}"),
        }
    }
}

/// Something that has settings.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// use ringmill_client::{ConfigChange, ConfigKind, ConfigResource};
///
/// // of the members of one group, those that are silent for longer are out
/// let group = ConfigResource::new(ConfigKind::Group, "billing");
/// let change = ConfigChange::Set("consumer.session.timeout.ms".into(), "60000".into());
/// admin.alter_configs(&group, vec![change]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigResource {
    /// What it is.
    pub kind: ConfigKind,
    /// Its name.
    pub name: String,
}

impl ConfigResource {
    /// A resource by kind and name.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ConfigKind, ConfigResource};
    ///
    /// let all_brokers = ConfigResource::new(ConfigKind::Broker, "");
    /// assert_eq!(all_brokers.to_string(), "broker \"\"");
    /// ```
    pub fn new(kind: ConfigKind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }

    /// The broker whose own the settings are, if they are one's.
    fn owner(&self) -> Option<i32> {
        match self.kind {
            ConfigKind::Broker | ConfigKind::BrokerLogger => self.name.parse().ok(),
            _ => None,
        }
    }
}

impl std::fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// Where a setting's value comes from (Kafka's `DescribeConfigsResponse.ConfigSource`); see
/// [`ConfigEntry`] for its use.
///
/// # Examples
/// ```
/// use ringmill_client::ConfigSource;
///
/// let is_set = |source| !matches!(source, ConfigSource::Default);
/// assert!(is_set(ConfigSource::Static));
/// ```
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
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// use ringmill_client::ConfigSource;
///
/// for setting in admin.topic_configs("flights").await? {
///     if setting.source == ConfigSource::Topic {
///         println!("{} = {:?}", setting.name, setting.value);
///     }
/// }
/// # Ok(())
/// # }
/// ```
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
    /// It is secret.
    pub is_sensitive: bool,
    /// What it means, in the broker's words; none from old brokers.
    pub documentation: Option<String>,
}

/// A change of one setting.
///
/// # Examples
/// ```
/// use ringmill_client::ConfigChange;
///
/// let changes = vec![
///     ConfigChange::Set("retention.ms".into(), "3600000".into()),
///     ConfigChange::Append("cleanup.policy".into(), "compact".into()),
///     ConfigChange::Delete("max.message.bytes".into()),
/// ];
/// # let _ = changes;
/// ```
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
    /// All that has settings (KIP-1142), of some kinds or of all, by kind and name.
    pub async fn config_resources(
        &self,
        kinds: &[ConfigKind],
    ) -> Result<Vec<ConfigResource>, AdminError> {
        let kinds = kinds.iter().map(|kind| kind.code());
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.collect());
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("resources", response.error_code, None)?;
                let resources = response.config_resources.into_iter();
                let mut resources: Vec<ConfigResource> = resources
                    .map(|resource| ConfigResource {
                        kind: ConfigKind::of(resource.resource_type),
                        name: resource.resource_name.to_string(),
                    })
                    .collect();
                resources.sort();
                Ok(resources)
            })
            .await
    }

    /// All settings of a topic.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, AdminError> {
        let topic = ConfigResource::new(ConfigKind::Topic, name);
        self.configs(&topic).await
    }

    /// All settings of a broker.
    pub async fn broker_configs(&self, id: i32) -> Result<Vec<ConfigEntry>, AdminError> {
        let broker = ConfigResource::new(ConfigKind::Broker, id.to_string());
        self.configs(&broker).await
    }

    /// All settings of a resource.
    pub async fn configs(&self, of: &ConfigResource) -> Result<Vec<ConfigEntry>, AdminError> {
        let what = of.to_string();
        let resource = DescribeConfigsResource::default()
            .with_resource_type(of.kind.code())
            .with_resource_name(text(&of.name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_documentation(true);
        self.0
            .retried(async || {
                // a broker's settings are its own to tell
                let connection = match of.owner() {
                    Some(broker) => self.0.node(broker).await?,
                    None => self.0.any().await?,
                };
                let version = connection
                    .version(<DescribeConfigsRequest as Call>::KEY, i16::MAX)
                    .map_err(CallError::from)?;
                let documented = version >= FIRST_WITH_DOCUMENTATION;
                let request = request.clone().with_include_documentation(documented);
                let mut response = connection.call_at(version, &request, self.limit()).await?;
                let answer = response.results.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)?;
                let entries = answer.configs.into_iter().map(|entry| ConfigEntry {
                    name: entry.name.to_string(),
                    value: entry.value.map(|value| value.to_string()),
                    source: ConfigSource::of(entry.config_source),
                    read_only: entry.read_only,
                    is_sensitive: entry.is_sensitive,
                    documentation: entry.documentation.map(|words| words.to_string()),
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
        let topic = ConfigResource::new(ConfigKind::Topic, name);
        self.alter_configs(&topic, changes).await
    }

    /// Changes settings of a broker while it runs; the others stay as they are.
    pub async fn alter_broker(&self, id: i32, changes: &[ConfigChange]) -> Result<(), AdminError> {
        let broker = ConfigResource::new(ConfigKind::Broker, id.to_string());
        self.alter_configs(&broker, changes).await
    }

    /// Changes settings of a resource; the others stay as they are.
    pub async fn alter_configs(
        &self,
        of: &ConfigResource,
        changes: &[ConfigChange],
    ) -> Result<(), AdminError> {
        self.alter(of, changes, false).await
    }

    /// Whether such changes would be taken; none is made.
    pub async fn validate_configs(
        &self,
        of: &ConfigResource,
        changes: &[ConfigChange],
    ) -> Result<(), AdminError> {
        self.alter(of, changes, true).await
    }

    async fn alter(
        &self,
        of: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), AdminError> {
        let what = of.to_string();
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
            .with_resource_type(of.kind.code())
            .with_resource_name(text(&of.name))
            .with_configs(changes.collect());
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![resource])
            .with_validate_only(validate_only);
        self.0
            .retried(async || {
                let connection = match of.owner() {
                    Some(broker) => self.0.node(broker).await?,
                    None => self.0.controller().await?,
                };
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.responses.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)
            })
            .await
    }
}
