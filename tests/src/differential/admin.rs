//! What administrators ask: coordinators, the cluster, folders, producers, quotas, versions.

use ringmill_wire::kafka_protocol::messages::alter_client_quotas_request::{
    EntityData, EntryData, OpData,
};
use ringmill_wire::kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use ringmill_wire::kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use ringmill_wire::kafka_protocol::messages::describe_producers_request::TopicRequest;
use ringmill_wire::kafka_protocol::messages::{
    AlterClientQuotasRequest, ApiKey, ApiVersionsRequest, DeleteGroupsRequest,
    DescribeClientQuotasRequest, DescribeClusterRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, FindCoordinatorRequest, InitProducerIdRequest, ProducerId,
    RequestKind, TransactionalId,
};

use super::world::{Step, World, ask, distinct, text};

/// One of their requests.
pub fn draw(world: &mut World) -> Vec<Step> {
    let step = match world.below(8) {
        0..2 => coordinator(world),
        2 => cluster(world),
        3 => log_dirs(world),
        4 => producers(world),
        5 => alter_quotas(world),
        6 => describe_quotas(world),
        _ => versions(world),
    };
    vec![step]
}

/// Requests that are answered without an error once coordinators serve.
pub fn warm_up(world: &World) -> Vec<Step> {
    let find = [0, 1].map(|kind| {
        let request = FindCoordinatorRequest::default()
            .with_key_type(kind)
            .with_coordinator_keys(vec![world.named("warm-up")]);
        ask(
            ApiKey::FindCoordinator,
            4,
            RequestKind::FindCoordinator(request),
        )
    });
    let id = TransactionalId(world.named("warm-up"));
    let mut init = InitProducerIdRequest::default()
        .with_transactional_id(Some(id))
        .with_transaction_timeout_ms(10_000);
    init.producer_id = ProducerId(-1);
    init.producer_epoch = -1;
    let init = ask(ApiKey::InitProducerId, 4, RequestKind::InitProducerId(init));
    let group = DeleteGroupsRequest::default();
    let group = ask(ApiKey::DeleteGroups, 2, RequestKind::DeleteGroups(group));
    find.into_iter()
        .chain([init, group])
        .map(Step::fixed)
        .collect()
}

fn coordinator(world: &mut World) -> Step {
    let version = world.version(ApiKey::FindCoordinator);
    let mut request = FindCoordinatorRequest::default();
    if version >= 1 {
        request.key_type = world.pick(&[0, 0, 1, 1, 3, -1]);
    }
    let name = world.pick(&["group", "txn"]);
    let keys = [world.named(name), text(""), world.named("third")];
    if version >= 4 {
        request.coordinator_keys = keys.into_iter().take(world.pick(&[0, 1, 1, 3])).collect();
    } else {
        let [name, empty, _] = keys;
        request.key = world.usually(name, &[empty]);
    }
    Step::fixed(ask(
        ApiKey::FindCoordinator,
        version,
        RequestKind::FindCoordinator(request),
    ))
}

fn cluster(world: &mut World) -> Step {
    let version = world.version(ApiKey::DescribeCluster);
    let mut request = DescribeClusterRequest::default()
        .with_include_cluster_authorized_operations(world.chance(30));
    if version >= 1 {
        request.endpoint_type = world.usually(1, &[0, 2, 3]);
    }
    if version >= 2 {
        request.include_fenced_brokers = world.chance(30);
    }
    Step::fixed(ask(
        ApiKey::DescribeCluster,
        version,
        RequestKind::DescribeCluster(request),
    ))
}

fn log_dirs(world: &mut World) -> Step {
    let version = world.version(ApiKey::DescribeLogDirs);
    let topics = (0..world.pick(&[0, 1, 2])).map(|_| {
        DescribableLogDirTopic::default()
            .with_topic(world.topic_name())
            .with_partitions(vec![world.partition()])
    });
    let topics = distinct(topics, |topic| topic.topic.clone());
    let request = DescribeLogDirsRequest::default().with_topics(Some(topics));
    Step::fixed(ask(
        ApiKey::DescribeLogDirs,
        version,
        RequestKind::DescribeLogDirs(request),
    ))
}

fn producers(world: &mut World) -> Step {
    let count = world.pick(&[0, 1, 1, 2]);
    let topics = (0..count).map(|_| {
        TopicRequest::default()
            .with_name(world.topic_name())
            .with_partition_indexes(vec![world.partition()])
    });
    let topics = distinct(topics, |topic| topic.name.clone());
    let request = DescribeProducersRequest::default().with_topics(topics);
    Step::fixed(ask(
        ApiKey::DescribeProducers,
        0,
        RequestKind::DescribeProducers(request),
    ))
}

fn entity(world: &mut World) -> Vec<EntityData> {
    let kinds = world.pick(&[
        vec!["user"],
        vec!["client-id"],
        vec!["user", "client-id"],
        vec!["ip"],
        vec!["tenant"],
    ]);
    let of = |kind: &str, name| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name)
    };
    // the default of all would slow the seeds that follow
    let kinds = kinds.into_iter();
    kinds
        .map(|kind| of(kind, Some(world.named("who"))))
        .collect()
}

fn alter_quotas(world: &mut World) -> Step {
    let version = world.version(ApiKey::AlterClientQuotas);
    let keys = [
        "producer_byte_rate",
        "consumer_byte_rate",
        "request_percentage",
        "controller_mutation_rate",
        "connection_creation_rate",
        "no_such_rate",
    ];
    // one at most: those of one entity are merged, and all are told in any order
    let count = world.pick(&[0, 1, 1]);
    let entries = (0..count).map(|_| {
        let ops = (0..world.pick(&[0, 1, 1, 2])).map(|_| {
            OpData::default()
                .with_key(text(world.pick(&keys)))
                .with_value(world.pick(&[1_000.0, 1_000.0, 0.5, 0.0, -1.0]))
                .with_remove(world.chance(30))
        });
        let ops = ops.collect();
        EntryData::default()
            .with_entity(entity(world))
            .with_ops(ops)
    });
    let entries = entries.collect();
    let request = AlterClientQuotasRequest::default()
        .with_entries(entries)
        .with_validate_only(world.chance(30));
    let key = ApiKey::AlterClientQuotas;
    Step::fixed(ask(key, version, RequestKind::AlterClientQuotas(request)))
}

fn describe_quotas(world: &mut World) -> Step {
    let version = world.version(ApiKey::DescribeClientQuotas);
    let count = world.pick(&[0, 1, 1, 2]);
    let kinds = ["user", "client-id", "ip", "tenant"];
    let components = (0..count).map(|_| {
        let component = ComponentData::default().with_entity_type(text(world.pick(&kinds)));
        match world.pick(&[0i8, 0, 1, 2, 3]) {
            0 => component
                .with_match_type(0)
                .with_match(Some(world.named("who"))),
            kind => component.with_match_type(kind).with_match(None),
        }
    });
    let components = components.collect();
    let request = DescribeClientQuotasRequest::default()
        .with_components(components)
        .with_strict(world.chance(40));
    let key = ApiKey::DescribeClientQuotas;
    Step::fixed(ask(
        key,
        version,
        RequestKind::DescribeClientQuotas(request),
    ))
}

fn versions(world: &mut World) -> Step {
    let version = world.version(ApiKey::ApiVersions);
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = text(world.pick(&["differential", "", "a b", "-x"]));
        request.client_software_version = text(world.pick(&["1.0", "", "?"]));
    }
    Step::fixed(ask(
        ApiKey::ApiVersions,
        version,
        RequestKind::ApiVersions(request),
    ))
}
