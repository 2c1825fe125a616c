//! IncrementalAlterConfigs (KIP-339) and AlterConfigs, its forerunner: all changes of a resource are
//! made or none, each resource by itself. Of two mistakes the one is told that Kafka finds first.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ringmill_wire::kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response,
};
use ringmill_wire::topic::check_topic_name;

use super::configs::{Resource, find_topic, kind};
use super::context::Context;
use super::refusal::Refusal;
use crate::cluster::command::Command;
use crate::cluster::image::Image;
use crate::cluster::topics::TopicError;
use crate::config::alter::{self, Change, Op};
use crate::config::{ConfigError, Overrides, broker, client_metrics, group, topic};
use crate::groups::coordinator::MAX_NAME_BYTES;
use crate::telemetry::subscriptions::SUBSCRIPTIONS_MAX;

/// How many groups may have settings of their own: they are part of the metadata, which is held by
/// every core.
const MAX_CONFIGURED_GROUPS: usize = 10_000;
/// What a group or subscription has that sets nothing.
static NONE: Overrides = Overrides::new();

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
        Resource::Broker(node) => {
            let set = image.broker(node).unwrap_or(&NONE);
            let next = alter_broker(image, ctx, set, &wanted.of(set))?;
            check_topic_defaults(ctx, &image.broker_defaults, &next)?;
            let command = Command::ConfigureBroker {
                node,
                overrides: next.clone(),
            };
            Ok((next != *set).then_some(command))
        }
        Resource::Brokers => {
            let set = &image.broker_defaults;
            let next = alter_broker(image, ctx, set, &wanted.of(set))?;
            check_topic_defaults(ctx, &next, &image.own())?;
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
#[path = "alter_configs_test.rs"]
pub(super) mod tests;
