//! Configurations, described and altered.

use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::alter_configs_request as plain;
use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request as step_by_step;
use ringmill_wire::kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, RequestKind,
};

use super::world::{Step, World, ask, text};

/// Topic configs that both know.
const KEYS: [&str; 12] = [
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "segment.bytes",
    "max.message.bytes",
    "compression.type",
    "min.insync.replicas",
    "message.timestamp.type",
    "delete.retention.ms",
    "min.cleanable.dirty.ratio",
    "unclean.leader.election.enable",
    "no.such.config",
];

const VALUES: [Option<&str>; 11] = [
    Some("1"),
    Some("100000"),
    Some("-1"),
    Some("compact"),
    Some("delete"),
    Some("compact,delete"),
    Some("true"),
    Some("0.3"),
    Some("CreateTime"),
    Some(""),
    None,
];

const TOPIC: i8 = 2;

/// A request about configurations.
pub fn draw(world: &mut World) -> Vec<Step> {
    match world.below(8) {
        0..3 => vec![describe(world)],
        3..6 => vec![incremental(world), described(world)],
        6 => vec![replace(world), described(world)],
        _ => vec![list(world)],
    }
}

/// A kind of resource and a name of one.
fn resource(world: &mut World) -> (i8, StrBytes) {
    match world.below(12) {
        0 => (4, text("1")),
        1 => (4, text("99")),
        2 => (4, text("one")),
        3 => (TOPIC, text(world.pick(&["", "bad name", "."]))),
        5 => (32, world.group().0),
        _ => (TOPIC, world.topic()),
    }
}

fn describe(world: &mut World) -> Step {
    let version = world.version(ApiKey::DescribeConfigs);
    let count = world.pick(&[0, 1, 1, 2]);
    let resources = (0..count).map(|_| {
        let (kind, name) = resource(world);
        let keys = (0..3).map(|_| text(world.pick(&KEYS))).collect();
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configuration_keys(Some(keys))
    });
    let resources = resources.collect();
    let mut request = DescribeConfigsRequest::default()
        .with_resources(resources)
        .with_include_synonyms(world.chance(40));
    if version >= 3 {
        request.include_documentation = world.chance(30);
    }
    Step::fixed(ask(
        ApiKey::DescribeConfigs,
        version,
        RequestKind::DescribeConfigs(request),
    ))
}

/// What a topic's own settings are now.
fn described(world: &mut World) -> Step {
    let resources = ["one", "three", "compacted"].map(|name| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(world.named(name))
            .with_configuration_keys(Some(KEYS.map(text).to_vec()))
    });
    let request = DescribeConfigsRequest::default().with_resources(resources.to_vec());
    Step::fixed(ask(
        ApiKey::DescribeConfigs,
        4,
        RequestKind::DescribeConfigs(request),
    ))
}

fn change(world: &mut World) -> (StrBytes, Option<StrBytes>) {
    let key = world.pick(&KEYS);
    let fitting = match key {
        "cleanup.policy" => "compact",
        "compression.type" => "producer",
        "message.timestamp.type" => "LogAppendTime",
        "unclean.leader.election.enable" => "false",
        "min.cleanable.dirty.ratio" => "0.7",
        "min.insync.replicas" => "1",
        _ => "1048577",
    };
    let value = world.usually(Some(fitting), &VALUES);
    (text(key), value.map(text))
}

fn incremental(world: &mut World) -> Step {
    let version = world.version(ApiKey::IncrementalAlterConfigs);
    let count = world.pick(&[0, 1, 1, 1, 2]);
    let resources = (0..count).map(|_| {
        let (kind, name) = changeable(world);
        let changes = (0..world.pick(&[0, 1, 1, 2])).map(|_| {
            let (name, value) = change(world);
            step_by_step::AlterableConfig::default()
                .with_name(name)
                .with_value(value)
                .with_config_operation(world.pick(&[0, 0, 0, 1, 2, 3]))
        });
        step_by_step::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configs(changes.collect())
    });
    let resources = resources.collect();
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources)
        .with_validate_only(world.chance(25));
    let key = ApiKey::IncrementalAlterConfigs;
    Step::fixed(ask(
        key,
        version,
        RequestKind::IncrementalAlterConfigs(request),
    ))
}

/// Broker configs are left alone: they would hold for the seeds that follow.
fn changeable(world: &mut World) -> (i8, StrBytes) {
    match resource(world) {
        (4, name) if name.as_str() == "1" => (TOPIC, world.topic()),
        other => other,
    }
}

fn replace(world: &mut World) -> Step {
    let version = world.version(ApiKey::AlterConfigs);
    let count = world.pick(&[0, 1, 1, 2]);
    let resources = (0..count).map(|_| {
        let (kind, name) = changeable(world);
        let changes = (0..world.pick(&[0, 1, 1, 2])).map(|_| {
            let (name, value) = change(world);
            plain::AlterableConfig::default()
                .with_name(name)
                .with_value(value)
        });
        plain::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configs(changes.collect())
    });
    let resources = resources.collect();
    let request = AlterConfigsRequest::default()
        .with_resources(resources)
        .with_validate_only(world.chance(25));
    Step::fixed(ask(
        ApiKey::AlterConfigs,
        version,
        RequestKind::AlterConfigs(request),
    ))
}

fn list(world: &mut World) -> Step {
    let version = world.version(ApiKey::ListConfigResources);
    let mut request = ListConfigResourcesRequest::default();
    if version >= 1 {
        request.resource_types = world.pick(&[vec![], vec![2], vec![16], vec![32], vec![77]]);
    }
    let key = ApiKey::ListConfigResources;
    Step::fixed(ask(key, version, RequestKind::ListConfigResources(request)))
}
