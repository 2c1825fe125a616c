//! DescribeCluster and FindCoordinator. Also the operations that clients are told they may do: all, since nothing is guarded yet.

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ringmill_wire::kafka_protocol::messages::find_coordinator_response::Coordinator;
use ringmill_wire::kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse,
};

use super::context::Context;
use super::refusal::Refusal;
use super::replicas::{Broker, all_brokers, broker};
use crate::cluster::image::{Image, OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::groups::coordinator::partition_of;

/// No operations were asked for, as the schemas have it.
pub const OPERATIONS_OMITTED: i32 = i32::MIN;
/// What may be done with a topic: one bit for each `AclOperation` code, READ 3, WRITE 4, CREATE 5,
/// DELETE 6, ALTER 7, DESCRIBE 8, DESCRIBE_CONFIGS 10 and ALTER_CONFIGS 11 (KIP-430).
pub const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// What may be done with the cluster: CREATE 5, ALTER 7, DESCRIBE 8, CLUSTER_ACTION 9,
/// DESCRIBE_CONFIGS 10, ALTER_CONFIGS 11 and IDEMPOTENT_WRITE 12.
pub const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// What may be done with a consumer group: READ 3, DELETE 6, DESCRIBE 8, DESCRIBE_CONFIGS 10 and
/// ALTER_CONFIGS 11.
pub const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8, 10, 11]);

/// The endpoint type that clients connect to (KIP-919).
const BROKERS: i8 = 1;
/// The endpoint type of Kafka's controllers, which are no clients' business here.
const CONTROLLERS: i8 = 2;

const fn bits(operations: &[u8]) -> i32 {
    let mut bits = 0;
    let mut at = 0;
    while at < operations.len() {
        bits |= 1 << operations[at];
        at += 1;
    }
    bits
}

/// Answers DescribeCluster (KIP-700).
pub fn describe_cluster(
    image: &Image,
    ctx: Context<'_>,
    request: &DescribeClusterRequest,
    version: i16,
) -> DescribeClusterResponse {
    if let Err(refusal) = check_endpoint(request.endpoint_type, version) {
        return DescribeClusterResponse::default()
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.message());
    }
    let brokers = all_brokers(image, ctx)
        .filter(|(_, is_fenced)| !is_fenced || request.include_fenced_brokers)
        .map(|(broker, is_fenced)| {
            DescribeClusterBroker::default()
                .with_broker_id(broker.id)
                .with_host(broker.host)
                .with_port(broker.port.into())
                .with_rack(broker.rack)
                .with_is_fenced(is_fenced)
        });
    let operations = match request.include_cluster_authorized_operations {
        true => CLUSTER_OPERATIONS,
        false => OPERATIONS_OMITTED,
    };
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_endpoint_type(BROKERS)
        .with_cluster_id(ctx.cluster_id.clone())
        .with_controller_id(ctx.controller.into())
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}

fn check_endpoint(endpoint: i8, version: i16) -> Result<(), Refusal> {
    let refuse = |code, message: String| {
        // Version 0 has no such field, nor clients that know its errors.
        let code = match version {
            0 => ErrorCode::InvalidRequest,
            _ => code,
        };
        Err(Refusal::new(code, message))
    };
    match endpoint {
        BROKERS => Ok(()),
        CONTROLLERS => refuse(
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".to_owned(),
        ),
        unknown => refuse(
            ErrorCode::UnsupportedEndpointType,
            format!("Unsupported endpoint type {unknown}"),
        ),
    }
}

/// What a coordinator is asked for, by its code in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyType {
    Group,
    Transaction,
}

impl KeyType {
    fn from_code(code: i8) -> Result<Self, Refusal> {
        match code {
            0 => Ok(Self::Group),
            1 => Ok(Self::Transaction),
            // There are no share groups (2) here.
            _ => Err(Refusal::request(format!(
                "Unsupported coordinator key type {code}"
            ))),
        }
    }
}

impl KeyType {
    fn topic(self) -> &'static str {
        match self {
            Self::Group => OFFSETS_TOPIC,
            Self::Transaction => TRANSACTIONS_TOPIC,
        }
    }
}

/// The broker's own topic that must exist before a FindCoordinator request is answered: what the
/// coordinator that is asked for keeps its state in.
pub fn topic_of_coordinator(request: &FindCoordinatorRequest) -> Option<&'static str> {
    let key_type = KeyType::from_code(request.key_type).ok()?;
    Some(key_type.topic())
}

/// Answers FindCoordinator: one key up to version 3, several from version 4 (KIP-699).
pub fn find_coordinator(
    image: &Image,
    ctx: Context<'_>,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let key_type = KeyType::from_code(request.key_type);
    if version >= 4 {
        let keys = request.coordinator_keys.iter();
        let found = keys.map(|key| coordinator(image, ctx, key.clone(), &key_type));
        return FindCoordinatorResponse::default().with_coordinators(found.collect());
    }
    let found = coordinator(image, ctx, request.key.clone(), &key_type);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn coordinator(
    image: &Image,
    ctx: Context<'_>,
    key: StrBytes,
    key_type: &Result<KeyType, Refusal>,
) -> Coordinator {
    let found = key_type
        .as_ref()
        .map_err(Refusal::clone)
        .and_then(|key_type| {
            leader_of(image, ctx, &key, *key_type).ok_or_else(|| {
                let reason = "The coordinator is not available.";
                Refusal::new(ErrorCode::CoordinatorNotAvailable, reason)
            })
        });
    let answer = Coordinator::default().with_key(key);
    match found {
        Ok(broker) => answer
            .with_error_message(None)
            .with_node_id(broker.id)
            .with_host(broker.host)
            .with_port(broker.port.into()),
        Err(refusal) => answer
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.message())
            .with_node_id((-1).into())
            .with_port(-1),
    }
}

/// The node that leads the partition which the coordinator of a key keeps its state in.
fn leader_of(image: &Image, ctx: Context<'_>, key: &str, key_type: KeyType) -> Option<Broker> {
    let topic = image.topic(key_type.topic())?;
    let partition = topic.partition(partition_of(key, topic.count()))?;
    broker(image, ctx, partition.leader?)
}

#[cfg(test)]
#[path = "cluster_test.rs"]
mod tests;
