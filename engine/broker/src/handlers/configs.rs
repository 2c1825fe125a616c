//! DescribeConfigs (KIP-226, KIP-569) for topics, groups, subscriptions of clients' metrics, this broker
//! and all brokers (the empty name). A setting's value comes from layers, the strongest first: the
//! topic, this broker while it ran, all brokers, the config file, the table's default. How settings are
//! changed is [`super::alter_configs`]'s business.

use ringmill_replication::partition::NodeId;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ringmill_wire::kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use ringmill_wire::topic::check_topic_name;

use super::context::Context;
use super::refusal::Refusal;
use crate::cluster::image::{Image, Topic};
use crate::cluster::topics::TopicError;
use crate::config::{Key, Overrides, Source, broker, client_metrics, group, topic};

/// The most settings and synonyms that one DescribeConfigs response holds: some ten thousand
/// topics' own. Resources past it are refused, for each takes a few bytes in the request.
const DESCRIBED_MAX: usize = 1 << 18;
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
pub(super) enum Resource<'a> {
    Topic(&'a Topic),
    /// This broker.
    Broker(NodeId),
    /// All brokers that have no setting of their own.
    Brokers,
    /// A group, whether it exists or not.
    Group(&'a str),
    /// A subscription of clients' metrics, whether it exists or not.
    ClientMetrics(&'a str),
}

impl<'a> Resource<'a> {
    pub(super) fn find(
        image: &'a Image,
        ctx: Context<'_>,
        kind: i8,
        name: &'a str,
    ) -> Result<Self, Refusal> {
        match kind {
            kind::TOPIC => {
                check_topic_name(name).map_err(TopicError::from)?;
                find_topic(image, name).map(Self::Topic)
            }
            kind::BROKER if name.is_empty() => Ok(Self::Brokers),
            kind::BROKER => {
                let node = name.parse::<NodeId>().ok();
                let known = |node: &NodeId| {
                    let is_there = *node == ctx.node_id() || image.nodes().contains_key(node);
                    is_there && node.to_string() == name
                };
                let node = node.filter(known).map(Self::Broker);
                node.ok_or_else(|| unexpected_broker(ctx, name))
            }
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

/// A topic by its name.
pub(super) fn find_topic<'a>(image: &'a Image, name: &str) -> Result<&'a Topic, Refusal> {
    let missing = || {
        let reason = format!("The topic '{name}' does not exist.");
        Refusal::new(ErrorCode::UnknownTopicOrPartition, reason)
    };
    image.topic(name).map(|topic| &**topic).ok_or_else(missing)
}

fn unexpected_broker(ctx: Context<'_>, name: &str) -> Refusal {
    Refusal::request(format!(
        "Unexpected broker id, expected {} or empty string, but received {name}",
        ctx.node_id()
    ))
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
        (&image.own(), Source::DynamicBroker as i8),
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
        Resource::Broker(node) if node != ctx.node_id() => {
            return Err(unexpected_broker(ctx, name));
        }
        Resource::Broker(_) | Resource::Brokers => &*broker::TABLE,
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
            Resource::Broker(_) => broker_layers(image, ctx, key),
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

#[cfg(test)]
#[path = "configs_test.rs"]
pub(super) mod tests;
