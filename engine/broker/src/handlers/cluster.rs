//! DescribeCluster and FindCoordinator for a cluster of one node: whoever is asked for, it is this
//! node. Also the operations that clients are told they may do: all, since nothing is guarded yet.

use ringmill_wire::StrBytes;
use ringmill_wire::control::api_versions;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ringmill_wire::kafka_protocol::messages::find_coordinator_response::Coordinator;
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse,
    FindCoordinatorRequest, FindCoordinatorResponse,
};

use super::context::Context;
use super::refusal::Refusal;
use crate::cluster::image::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};

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

/// Answers ApiVersions. A client that names itself in characters that a metric's name cannot have
/// is refused (KIP-511).
pub fn versions(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let (name, its_version) = (
        &request.client_software_name,
        &request.client_software_version,
    );
    if version < 3 || (is_software(name) && is_software(its_version)) {
        return api_versions(version);
    }
    ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code())
}

/// Letters and digits, with hyphens and dots between them.
fn is_software(name: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
}

/// Answers DescribeCluster (KIP-700).
pub fn describe_cluster(
    ctx: Context<'_>,
    request: &DescribeClusterRequest,
    version: i16,
) -> DescribeClusterResponse {
    if let Err(refusal) = check_endpoint(request.endpoint_type, version) {
        return DescribeClusterResponse::default()
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.message());
    }
    let this = DescribeClusterBroker::default()
        .with_broker_id(ctx.node_id().into())
        .with_host(ctx.host.clone())
        .with_port(ctx.port.into())
        .with_rack(None);
    let operations = match request.include_cluster_authorized_operations {
        true => CLUSTER_OPERATIONS,
        false => OPERATIONS_OMITTED,
    };
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_endpoint_type(BROKERS)
        .with_cluster_id(ctx.cluster_id.clone())
        .with_controller_id(ctx.node_id().into())
        .with_brokers(vec![this])
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

/// The broker's own topic that must exist before a FindCoordinator request is answered: what the
/// coordinator that is asked for keeps its state in.
pub fn topic_of_coordinator(request: &FindCoordinatorRequest) -> Option<&'static str> {
    match KeyType::from_code(request.key_type) {
        Ok(KeyType::Group) => Some(OFFSETS_TOPIC),
        Ok(KeyType::Transaction) => Some(TRANSACTIONS_TOPIC),
        Err(_) => None,
    }
}

/// Answers FindCoordinator: one key up to version 3, several from version 4 (KIP-699).
pub fn find_coordinator(
    ctx: Context<'_>,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let key_type = KeyType::from_code(request.key_type);
    if version >= 4 {
        let keys = request.coordinator_keys.iter();
        let found = keys.map(|key| coordinator(ctx, key.clone(), &key_type));
        return FindCoordinatorResponse::default().with_coordinators(found.collect());
    }
    let found = coordinator(ctx, request.key.clone(), &key_type);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn coordinator(
    ctx: Context<'_>,
    key: StrBytes,
    key_type: &Result<KeyType, Refusal>,
) -> Coordinator {
    let answer = Coordinator::default().with_key(key);
    match key_type {
        Ok(_) => answer
            .with_error_message(None)
            .with_node_id(ctx.node_id().into())
            .with_host(ctx.host.clone())
            .with_port(ctx.port.into()),
        Err(refusal) => answer
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.message())
            .with_node_id((-1).into())
            .with_port(-1),
    }
}

#[cfg(test)]
#[path = "cluster_test.rs"]
mod tests;
