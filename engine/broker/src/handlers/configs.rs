//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs (KIP-226, KIP-339, KIP-569) for topics,
//! groups, subscriptions of clients' metrics, this broker and all brokers (the empty name). A setting's value comes from layers, the strongest
//! first: the topic, this broker while it ran, all brokers, the config file, the table's default.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ringmill_wire::kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
};
use ringmill_wire::topic::check_topic_name;

use super::context::Context;
use super::refusal::Refusal;
use crate::cluster::image::{Command, Image, Topic};
use crate::cluster::topics::TopicError;
use crate::config::alter::{self, Change, Op};
use crate::config::{ConfigError, Key, Overrides, Source, broker, client_metrics, group, topic};
use crate::groups::coordinator::MAX_NAME_BYTES;
use crate::telemetry::subscriptions::SUBSCRIPTIONS_MAX;

/// The most settings and synonyms that one DescribeConfigs response holds: some ten thousand
/// topics' own. Resources past it are refused, for each takes a few bytes in the request.
const DESCRIBED_MAX: usize = 1 << 18;
/// How many groups may have settings of their own: they are part of the metadata, which is held by
/// every core.
const MAX_CONFIGURED_GROUPS: usize = 10_000;
/// What a group or subscription has that sets nothing.
static NONE: Overrides = Overrides::new();
/// The source of a value that was set on all brokers, which [`Source`] has no word for.
const DYNAMIC_DEFAULT_BROKER: i8 = 3;

/// The codes of `ConfigResource.Type`.
pub(super) mod kind {
    pub(in crate::handlers) const TOPIC: i8 = 2;
    pub(in crate::handlers) const BROKER: i8 = 4;
    pub(in crate::handlers) const BROKER_LOGGER: i8 = 8;
    pub(in crate::handlers) const CLIENT_METRICS: i8 = 16;
    pub(in crate::handlers) const GROUP: i8 = 32;
}

/// What a request names.
enum Resource<'a> {
    Topic(&'a Topic),
    /// This broker.
    Broker,
    /// All brokers that have no setting of their own.
    Brokers,
    /// A group, whether it exists or not.
    Group(&'a str),
    /// A subscription of clients' metrics, whether it exists or not.
    ClientMetrics(&'a str),
}

impl<'a> Resource<'a> {
    fn find(image: &'a Image, ctx: Context<'_>, kind: i8, name: &'a str) -> Result<Self, Refusal> {
        match kind {
            kind::TOPIC => {
                check_topic_name(name).map_err(TopicError::from)?;
                find_topic(image, name).map(Self::Topic)
            }
            kind::BROKER if name.is_empty() => Ok(Self::Brokers),
            kind::BROKER if name == ctx.node_id().to_string() => Ok(Self::Broker),
            kind::BROKER => Err(Refusal::request(format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                ctx.node_id()
            ))),
            kind::GROUP if name.is_empty() => {
                Err(Refusal::request("Default group resources are not allowed."))
            }
            kind::GROUP => Ok(Self::Group(name)),
            kind::CLIENT_METRICS if name.is_empty() => {
                Err(Refusal::request("Subscription name can't be empty"))
            }
            kind::CLIENT_METRICS => Ok(Self::ClientMetrics(name)),
            kind::BROKER_LOGGER => Err(Refusal::request(
                "Unsupported resource type BROKER_LOGGER: what is logged is set at the start",
            )),
            other => Err(Refusal::request(format!(
                "Unsupported resource type {other}"
            ))),
        }
    }
}

fn find_topic<'a>(image: &'a Image, name: &str) -> Result<&'a Topic, Refusal> {
    let missing = || {
        let reason = format!("The topic '{name}' does not exist.");
        Refusal::new(ErrorCode::UnknownTopicOrPartition, reason)
    };
    image.topic(name).map(|topic| &**topic).ok_or_else(missing)
}

/// One value that a setting has or would have.
struct Layer {
    name: &'static str,
    value: StrBytes,
    source: i8,
}

fn layer(name: &'static str, value: &str, source: i8) -> Layer {
    let value = StrBytes::from_string(value.to_owned());
    Layer {
        name,
        value,
        source,
    }
}

/// The layers of a broker's setting.
fn broker_layers(image: &Image, ctx: Context<'_>, key: &Key) -> Vec<Layer> {
    let dynamic = [
        (&image.broker, Source::DynamicBroker as i8),
        (&image.broker_defaults, DYNAMIC_DEFAULT_BROKER),
    ];
    let set = dynamic.into_iter().filter_map(|(overrides, source)| {
        let value = overrides.get(key.name)?;
        Some(layer(key.name, value, source))
    });
    let mut layers: Vec<Layer> = set.collect();
    let (value, source) = ctx.config.describe(key, &Overrides::new());
    if source == Source::StaticBroker {
        layers.push(layer(key.name, &value, source as i8));
    }
    layers.push(default_layer(key));
    layers
}

fn default_layer(key: &Key) -> Layer {
    Layer {
        name: key.name,
        value: StrBytes::from_static_str(key.default),
        source: Source::Default as i8,
    }
}

/// The layers of a topic's setting; those below the topic have the name of the broker's setting.
fn topic_layers(image: &Image, ctx: Context<'_>, set: &Overrides, key: &Key) -> Vec<Layer> {
    let own = set.get(key.name);
    let own = own.map(|value| layer(key.name, value, Source::Topic as i8));
    let synonym = key.synonym.and_then(|name| broker::TABLE.find(name));
    let below = match synonym {
        Some(synonym) => broker_layers(image, ctx, synonym),
        None => vec![default_layer(key)],
    };
    own.into_iter().chain(below).collect()
}

/// The layers of a group's setting; those below the group have the name of the broker's setting.
fn group_layers(image: &Image, ctx: Context<'_>, group: &str, key: &Key) -> Vec<Layer> {
    let own = image.groups().get(group).and_then(|set| set.get(key.name));
    let own = own.map(|value| layer(key.name, value, Source::Group as i8));
    let synonym = key.synonym.and_then(|name| broker::TABLE.find(name));
    let below = synonym.map_or_else(Vec::new, |synonym| broker_layers(image, ctx, synonym));
    own.into_iter().chain(below).collect()
}

/// The layers of a subscription's setting.
fn client_metrics_layers(image: &Image, subscription: &str, key: &Key) -> Vec<Layer> {
    let set = image.client_metrics().get(subscription);
    let own = set.and_then(|set| set.get(key.name));
    let own = own.map(|value| layer(key.name, value, Source::ClientMetrics as i8));
    own.into_iter().chain([default_layer(key)]).collect()
}

/// All settings of a topic with overrides `set`, as CreateTopics shows them (KIP-525).
pub(super) fn of_new_topic(
    image: &Image,
    ctx: Context<'_>,
    set: &Overrides,
) -> Vec<CreatableTopicConfigs> {
    let keys = topic::TABLE.keys.iter();
    let shown = keys.filter_map(|key| {
        let strongest = topic_layers(image, ctx, set, key).into_iter().next()?;
        Some(
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(Some(strongest.value))
                .with_config_source(strongest.source),
        )
    });
    shown.collect()
}

/// Answers DescribeConfigs, each resource on its own.
pub fn describe_configs(
    image: &Image,
    ctx: Context<'_>,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut left = DESCRIBED_MAX;
    let results = request.resources.iter().map(|resource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(image, ctx, request, resource, &mut left) {
            Ok(configs) => answer.with_error_message(None).with_configs(configs),
            Err(refusal) => answer
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.message()),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    image: &Image,
    ctx: Context<'_>,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
    left: &mut usize,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    let found = Resource::find(image, ctx, kind, name)?;
    let table = match found {
        Resource::Topic(_) => &topic::TABLE,
        Resource::Group(_) => &group::TABLE,
        Resource::ClientMetrics(_) => &client_metrics::TABLE,
        Resource::Broker | Resource::Brokers => &*broker::TABLE,
    };
    // An empty list of names asks for all, as null does.
    let wanted = resource.configuration_keys.as_deref().unwrap_or_default();
    let keys = table
        .keys
        .iter()
        .filter(|key| wanted.is_empty() || wanted.iter().any(|name| name.as_str() == key.name));
    let mut described = Vec::new();
    for key in keys {
        let layers = match found {
            Resource::Topic(topic) => topic_layers(image, ctx, &topic.overrides, key),
            Resource::Group(name) => group_layers(image, ctx, name, key),
            Resource::ClientMetrics(name) => client_metrics_layers(image, name, key),
            Resource::Broker => broker_layers(image, ctx, key),
            Resource::Brokers => {
                let all = broker_layers(image, ctx, key).into_iter();
                all.filter(|layer| layer.source == DYNAMIC_DEFAULT_BROKER)
                    .collect()
            }
        };
        // Of all brokers' settings only those that were set are shown.
        let Some(entry) = entry(request, key, layers) else {
            continue;
        };
        let size = 1 + entry.synonyms.len();
        *left = left.checked_sub(size).ok_or_else(|| {
            Refusal::request(format!(
                "A request may ask for at most {DESCRIBED_MAX} settings and synonyms: ask in parts"
            ))
        })?;
        described.push(entry);
    }
    Ok(described)
}

/// What is said of one setting; nothing if it has no layer.
fn entry(
    request: &DescribeConfigsRequest,
    key: &Key,
    layers: Vec<Layer>,
) -> Option<DescribeConfigsResourceResult> {
    let strongest = layers.first()?;
    let entry = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(key.name))
        .with_value(Some(strongest.value.clone()))
        .with_config_source(strongest.source)
        .with_read_only(!key.dynamic)
        .with_config_type(key.kind.code());
    let documentation = match request.include_documentation {
        true => Some(StrBytes::from_string(key.documentation())),
        false => None,
    };
    let synonyms = match request.include_synonyms {
        true => layers.into_iter().map(synonym).collect(),
        false => Vec::new(),
    };
    Some(
        entry
            .with_documentation(documentation)
            .with_synonyms(synonyms),
    )
}

fn synonym(layer: Layer) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_static_str(layer.name))
        .with_value(Some(layer.value))
        .with_source(layer.source)
}

/// A resource whose settings a request changes.
struct Altered<'a> {
    kind: i8,
    name: &'a StrBytes,
    changes: Result<Wanted, Refusal>,
}

/// How settings are to be.
enum Wanted {
    /// As they are but for these changes.
    Changed(Vec<Change>),
    /// These, and no others (AlterConfigs).
    Just(Vec<Change>),
}

/// Groups and subscriptions that a request gives their first settings, of which there may be only so
/// many.
#[derive(Default)]
struct Made {
    groups: usize,
    subscriptions: usize,
}

/// Decides on each resource by itself: all its changes are made or none. Nothing is to be made if the
/// request is a trial.
fn alter_all(
    image: &Image,
    ctx: Context<'_>,
    is_trial: bool,
    resources: Vec<Altered<'_>>,
) -> (Vec<Decided>, Vec<Command>) {
    let mut named: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for resource in &resources {
        *named.entry((resource.kind, resource.name)).or_default() += 1;
    }
    let (mut commands, mut made) = (Vec::new(), Made::default());
    let mut decide = |resource: &Altered<'_>| {
        if named[&(resource.kind, resource.name.as_str())] > 1 {
            let reason = "Each resource must appear at most once.";
            return Err(Refusal::request(reason));
        }
        let command = alter(image, ctx, resource, &mut made)?;
        commands.extend(command);
        Ok(())
    };
    let decided = resources.iter().map(|resource| {
        let (code, message) = match decide(resource) {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal.code, refusal.message()),
        };
        Decided {
            kind: resource.kind,
            name: resource.name.clone(),
            code: code.code(),
            message,
        }
    });
    let decided = decided.collect();
    if is_trial {
        commands.clear();
    }
    (decided, commands)
}

/// What is answered of one resource.
struct Decided {
    kind: i8,
    name: StrBytes,
    code: i16,
    message: Option<StrBytes>,
}

/// Answers IncrementalAlterConfigs.
pub fn incremental_alter_configs(
    image: &Image,
    ctx: Context<'_>,
    request: &IncrementalAlterConfigsRequest,
) -> (IncrementalAlterConfigsResponse, Vec<Command>) {
    let resources = request.resources.iter().map(|resource| Altered {
        kind: resource.resource_type,
        name: &resource.resource_name,
        changes: changes(resource).map(Wanted::Changed),
    });
    let (decided, commands) = alter_all(image, ctx, request.validate_only, resources.collect());
    let responses = decided.into_iter().map(|decided| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(decided.kind)
            .with_resource_name(decided.name)
            .with_error_code(decided.code)
            .with_error_message(decided.message)
    });
    let responses = responses.collect();
    let response = IncrementalAlterConfigsResponse::default().with_responses(responses);
    (response, commands)
}

/// Answers AlterConfigs, the older request: what it does not name loses its setting.
pub fn alter_configs(
    image: &Image,
    ctx: Context<'_>,
    request: &AlterConfigsRequest,
) -> (AlterConfigsResponse, Vec<Command>) {
    let resources = request.resources.iter().map(|resource| {
        let set = resource.configs.iter().map(|config| Change {
            name: config.name.to_string(),
            op: Op::Set,
            value: config.value.as_ref().map(ToString::to_string),
        });
        Altered {
            kind: resource.resource_type,
            name: &resource.resource_name,
            changes: Ok(Wanted::Just(set.collect())),
        }
    });
    let (decided, commands) = alter_all(image, ctx, request.validate_only, resources.collect());
    let responses = decided.into_iter().map(|decided| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(decided.kind)
            .with_resource_name(decided.name)
            .with_error_code(decided.code)
            .with_error_message(decided.message)
    });
    let responses = responses.collect();
    let response = AlterConfigsResponse::default().with_responses(responses);
    (response, commands)
}

/// The command that makes a resource's changes; none if they change nothing.
fn alter(
    image: &Image,
    ctx: Context<'_>,
    resource: &Altered<'_>,
    made: &mut Made,
) -> Result<Option<Command>, Refusal> {
    let (kind, name) = (resource.kind, resource.name.as_str());
    let wanted = resource.changes.as_ref().map_err(Refusal::clone)?;
    // Of two errors Kafka tells the one that its broker finds before its controller looks at the
    // resource, and of a topic that is not there last.
    match kind {
        kind::TOPIC => alter::check(&topic::TABLE, wanted.changes())?,
        kind::GROUP => alter::check(&group::TABLE, wanted.changes())?,
        kind::CLIENT_METRICS => alter::check(&client_metrics::TABLE, wanted.changes())?,
        _ => {}
    }
    if kind == kind::TOPIC {
        return alter_topic(image, ctx, name, wanted);
    }
    match Resource::find(image, ctx, kind, name)? {
        Resource::Topic(_) => unreachable!("topics are altered above"),
        Resource::Group(name) => {
            let set = image.groups().get(name).unwrap_or(&NONE);
            alter_group(image, (name, set), &wanted.of(set), made)
        }
        Resource::ClientMetrics(name) => {
            let set = image.client_metrics().get(name).unwrap_or(&NONE);
            alter_client_metrics(image, (name, set), &wanted.of(set), made)
        }
        Resource::Broker => {
            let next = alter_broker(image, ctx, &image.broker, &wanted.of(&image.broker))?;
            check_topic_defaults(ctx, &image.broker_defaults, &next)?;
            let command = Command::ConfigureBroker {
                overrides: next.clone(),
            };
            Ok((next != image.broker).then_some(command))
        }
        Resource::Brokers => {
            let set = &image.broker_defaults;
            let next = alter_broker(image, ctx, set, &wanted.of(set))?;
            check_topic_defaults(ctx, &next, &image.broker)?;
            let command = Command::ConfigureBrokers {
                overrides: next.clone(),
            };
            Ok((next != *set).then_some(command))
        }
    }
}

impl Wanted {
    /// What the request says.
    fn changes(&self) -> &[Change] {
        match self {
            Self::Changed(changes) | Self::Just(changes) => changes,
        }
    }

    /// The changes that make `set` as it is wanted.
    fn of(&self, set: &Overrides) -> Vec<Change> {
        let (changes, others) = match self {
            Self::Changed(changes) => (changes, None),
            Self::Just(changes) => (changes, Some(set)),
        };
        let named: BTreeSet<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        let others = others.into_iter().flat_map(Overrides::keys);
        let gone = others.filter(|name| !named.contains(name.as_str()));
        let gone = gone.map(|name| Change {
            name: name.clone(),
            op: Op::Delete,
            value: None,
        });
        changes.iter().cloned().chain(gone).collect()
    }
}

fn changes(resource: &AlterConfigsResource) -> Result<Vec<Change>, Refusal> {
    let configs = resource.configs.iter();
    let changes = configs.map(|config| {
        let op = Op::from_code(config.config_operation).ok_or_else(|| {
            Refusal::request(format!(
                "Unknown operations type {}",
                config.config_operation
            ))
        })?;
        Ok(Change {
            name: config.name.to_string(),
            op,
            value: config.value.as_ref().map(ToString::to_string),
        })
    });
    changes.collect()
}

fn alter_topic(
    image: &Image,
    ctx: Context<'_>,
    name: &str,
    wanted: &Wanted,
) -> Result<Option<Command>, Refusal> {
    if name.is_empty() {
        return Err(Refusal::request("Default topic resources are not allowed."));
    }
    check_topic_name(name).map_err(TopicError::from)?;
    let set = image.topic(name).map_or(&NONE, |topic| &topic.overrides);
    let current = |name: &str| match topic::TABLE.find(name) {
        Some(key) => ctx.config.describe_topic(key, set, &image.dynamic).0,
        None => String::new(),
    };
    let next = alter::apply(&topic::TABLE, set, &wanted.of(set), &current)?;
    topic::check(&next)?;
    let topic = find_topic(image, name)?;
    let command = Command::ConfigureTopic {
        id: topic.id,
        overrides: next.clone(),
    };
    Ok((next != topic.overrides).then_some(command))
}

fn alter_group(
    image: &Image,
    (name, set): (&str, &Overrides),
    changes: &[Change],
    made: &mut Made,
) -> Result<Option<Command>, Refusal> {
    let next = alter::apply(&group::TABLE, set, changes, &|_| String::new())?;
    group::check(&next, &image.live.groups)?;
    let is_new = set.is_empty() && !next.is_empty();
    let is_full = image.groups().len() + made.groups >= MAX_CONFIGURED_GROUPS;
    if is_new && (is_full || name.len() > MAX_NAME_BYTES) {
        return Err(Refusal::request(format!(
            "At most {MAX_CONFIGURED_GROUPS} groups may have settings, with names of up to {MAX_NAME_BYTES} bytes"
        )));
    }
    made.groups += usize::from(is_new);
    let command = Command::ConfigureGroup {
        group: name.to_owned(),
        overrides: next.clone(),
    };
    Ok((next != *set).then_some(command))
}

fn alter_client_metrics(
    image: &Image,
    (name, set): (&str, &Overrides),
    changes: &[Change],
    made: &mut Made,
) -> Result<Option<Command>, Refusal> {
    let next = alter::apply(&client_metrics::TABLE, set, changes, &|_| String::new());
    let next = next.map_err(of_client_metrics)?;
    client_metrics::check(&next)?;
    let is_new = set.is_empty() && !next.is_empty();
    let is_full = image.client_metrics().len() + made.subscriptions >= SUBSCRIPTIONS_MAX;
    if is_new && (is_full || name.len() > MAX_NAME_BYTES) {
        return Err(Refusal::request(format!(
            "At most {SUBSCRIPTIONS_MAX} subscriptions of clients' metrics may exist, with names of up to {MAX_NAME_BYTES} bytes"
        )));
    }
    made.subscriptions += usize::from(is_new);
    let command = Command::ConfigureClientMetrics {
        name: name.to_owned(),
        overrides: next.clone(),
    };
    Ok((next != *set).then_some(command))
}

/// Kafka refuses a name that nobody knows, and an interval out of its range, as a wrong request
/// (`ClientMetricsConfigs`).
fn of_client_metrics(error: ConfigError) -> Refusal {
    match error {
        ConfigError::Unknown { name, .. } => {
            Refusal::request(format!("Unknown client metrics configuration: {name}"))
        }
        ConfigError::Invalid { name, value, .. }
            if name == "interval.ms" && value.trim().parse::<i32>().is_ok() =>
        {
            Refusal::request(format!(
                "Invalid value {value} for {name}, interval must be between 100 and 3600000 (1 hour)"
            ))
        }
        other => other.into(),
    }
}

/// The overrides `set` of one broker, or of all, after `changes`.
fn alter_broker(
    image: &Image,
    ctx: Context<'_>,
    set: &Overrides,
    changes: &[Change],
) -> Result<Overrides, Refusal> {
    let current = |name: &str| match broker::TABLE.find(name) {
        Some(key) => ctx.config.describe(key, &image.dynamic).0,
        None => String::new(),
    };
    alter::apply(&broker::TABLE, set, changes, &current).map_err(of_broker)
}

/// A broker's settings are the defaults of topics, which must be right together too.
fn check_topic_defaults(
    ctx: Context<'_>,
    defaults: &Overrides,
    own: &Overrides,
) -> Result<(), Refusal> {
    let mut dynamic = defaults.clone();
    dynamic.extend(own.clone());
    let none = Overrides::new();
    let keys = topic::TABLE.keys.iter();
    let resolved = keys.map(|key| {
        let (value, _) = ctx.config.describe_topic(key, &none, &dynamic);
        (key.name.to_owned(), value)
    });
    topic::check(&resolved.collect()).map_err(of_broker)
}

/// Kafka refuses a broker's wrong setting as a wrong request (KAFKA-13609).
fn of_broker(error: ConfigError) -> Refusal {
    match error {
        ConfigError::NotAList(_) => error.into(),
        other => Refusal::request(other.to_string()),
    }
}

#[cfg(test)]
#[path = "configs_test.rs"]
mod tests;
