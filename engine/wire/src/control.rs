//! Control messages: every API of the table but Produce and Fetch, decoded and encoded by the
//! `kafka-protocol` crate, which is generated from Kafka's schemas.
//!
//! This is the only door to that decoder: each body is first walked against its shape, so that
//! no count or length is trusted. A request's body is copied once, so that whatever a handler keeps
//! of it holds on to that one request and never to a connection's receive buffer.

mod requests;
mod responses;
pub(crate) mod shape;
mod throttle;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use thiserror::Error;

use crate::api::{APIS, ApiKey};
use crate::error::ErrorCode;
use crate::features::{self, Levels, Supported};
use crate::header::{RequestHeader, TooLarge, finish_frame, response_body, start_frame};
use crate::primitive::{ReadError, Reader};
pub use shape::ShapeError;
use shape::{Encoding, Shape};
pub use throttle::tell_throttle;

/// Why a control message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The header is at fault.
    #[error("{api} version {version}, header: {error}")]
    Header {
        /// The API's name.
        api: &'static str,
        /// The message's version.
        version: i16,
        /// What is wrong.
        error: ReadError,
    },
    /// The body is not of the API's shape.
    #[error("{api} version {version}, {error}")]
    Shape {
        /// The API's name.
        api: &'static str,
        /// The message's version.
        version: i16,
        /// What is wrong, and with which field.
        error: ShapeError,
    },
    /// A value is not allowed: null where one is required, or text that is not UTF-8.
    #[error("{api} version {version}: {cause}")]
    Value {
        /// The API's name.
        api: &'static str,
        /// The message's version.
        version: i16,
        /// The decoder's words.
        cause: String,
    },
    /// Produce, Fetch and the quorum's messages have codecs of their own.
    #[error("{api} is not a control message")]
    NotControl {
        /// The API's name.
        api: &'static str,
    },
}

/// Why a control message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A value does not exist in this version, or is too long for it.
    #[error("{api} version {version}: {cause}")]
    Value {
        /// The API's name.
        api: &'static str,
        /// The message's version.
        version: i16,
        /// The encoder's words.
        cause: String,
    },
    /// The message is larger than a frame can be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

macro_rules! controls {
    ($($api:ident: $request:ident => $response:ident, $shape:ident;)*) => {
        /// A decoded control request.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "Kafka's own names")]
        pub enum Request {
            $($api($request),)*
        }

        impl Request {
            /// The API of the request.
            pub fn key(&self) -> ApiKey {
                match self {
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }
        }

        $(
            impl From<$request> for Request {
                fn from(request: $request) -> Self {
                    Self::$api(request)
                }
            }

            impl Call for $request {
                const KEY: ApiKey = ApiKey::$api;
                type Response = $response;
            }

            impl Answer for $response {
                const KEY: ApiKey = ApiKey::$api;
            }
        )*

        /// What a request and its response look like.
        pub(crate) fn shapes(key: ApiKey) -> Option<(&'static Shape, &'static Shape)> {
            match key {
                $(ApiKey::$api => Some((&requests::$shape, &responses::$shape)),)*
                ApiKey::Produce | ApiKey::Fetch | ApiKey::QuorumMessage => None,
            }
        }

        /// Encodes any request as the whole frame to send, as [`encode_request`].
        ///
        /// # Panics
        /// If the header is not of the request's API.
        pub fn encode_any_request(
            header: &RequestHeader,
            request: &Request,
        ) -> Result<Bytes, EncodeError> {
            match request {
                $(Request::$api(request) => encode_request(header, request),)*
            }
        }

        fn decode_body(key: ApiKey, version: i16, body: &mut Bytes) -> Option<Decoded> {
            Some(match key {
                $(ApiKey::$api => $request::decode(body, version).map(Request::from),)*
                ApiKey::Produce | ApiKey::Fetch | ApiKey::QuorumMessage => return None,
            }.map_err(|cause| cause.to_string()))
        }

        /// Passes a body through the protocol crate's types, request or response.
        #[cfg(test)]
        fn pass_through(
            key: ApiKey,
            version: i16,
            is_request: bool,
            body: &[u8],
        ) -> Result<Bytes, String> {
            match (key, is_request) {
                $(
                    (ApiKey::$api, true) => tests::pass_as::<$request>(version, body),
                    (ApiKey::$api, false) => tests::pass_as::<$response>(version, body),
                )*
                (ApiKey::Produce | ApiKey::Fetch | ApiKey::QuorumMessage, _) => unreachable!("not a control message"),
            }
        }
    };
}

type Decoded = Result<Request, String>;

/// A control request's type, on the client's side.
pub trait Call: Encodable {
    /// Its API.
    const KEY: ApiKey;
    /// What answers it.
    type Response: Decodable;
}

/// A control response's type, on the broker's side.
pub trait Answer: Encodable {
    /// Its API.
    const KEY: ApiKey;
}

controls! {
    ListOffsets: ListOffsetsRequest => ListOffsetsResponse, LIST_OFFSETS;
    Metadata: MetadataRequest => MetadataResponse, METADATA;
    OffsetCommit: OffsetCommitRequest => OffsetCommitResponse, OFFSET_COMMIT;
    OffsetFetch: OffsetFetchRequest => OffsetFetchResponse, OFFSET_FETCH;
    FindCoordinator: FindCoordinatorRequest => FindCoordinatorResponse, FIND_COORDINATOR;
    JoinGroup: JoinGroupRequest => JoinGroupResponse, JOIN_GROUP;
    Heartbeat: HeartbeatRequest => HeartbeatResponse, HEARTBEAT;
    LeaveGroup: LeaveGroupRequest => LeaveGroupResponse, LEAVE_GROUP;
    SyncGroup: SyncGroupRequest => SyncGroupResponse, SYNC_GROUP;
    DescribeGroups: DescribeGroupsRequest => DescribeGroupsResponse, DESCRIBE_GROUPS;
    ListGroups: ListGroupsRequest => ListGroupsResponse, LIST_GROUPS;
    ApiVersions: ApiVersionsRequest => ApiVersionsResponse, API_VERSIONS;
    CreateTopics: CreateTopicsRequest => CreateTopicsResponse, CREATE_TOPICS;
    DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse, DELETE_TOPICS;
    DeleteRecords: DeleteRecordsRequest => DeleteRecordsResponse, DELETE_RECORDS;
    InitProducerId: InitProducerIdRequest => InitProducerIdResponse, INIT_PRODUCER_ID;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse,
        OFFSET_FOR_LEADER_EPOCH;
    DescribeConfigs: DescribeConfigsRequest => DescribeConfigsResponse, DESCRIBE_CONFIGS;
    CreatePartitions: CreatePartitionsRequest => CreatePartitionsResponse, CREATE_PARTITIONS;
    DeleteGroups: DeleteGroupsRequest => DeleteGroupsResponse, DELETE_GROUPS;
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse,
        INCREMENTAL_ALTER_CONFIGS;
    ElectLeaders: ElectLeadersRequest => ElectLeadersResponse, ELECT_LEADERS;
    AlterPartitionReassignments: AlterPartitionReassignmentsRequest
        => AlterPartitionReassignmentsResponse, ALTER_PARTITION_REASSIGNMENTS;
    ListPartitionReassignments: ListPartitionReassignmentsRequest
        => ListPartitionReassignmentsResponse, LIST_PARTITION_REASSIGNMENTS;
    OffsetDelete: OffsetDeleteRequest => OffsetDeleteResponse, OFFSET_DELETE;
    DescribeClientQuotas: DescribeClientQuotasRequest => DescribeClientQuotasResponse,
        DESCRIBE_CLIENT_QUOTAS;
    AlterClientQuotas: AlterClientQuotasRequest => AlterClientQuotasResponse, ALTER_CLIENT_QUOTAS;
    DescribeCluster: DescribeClusterRequest => DescribeClusterResponse, DESCRIBE_CLUSTER;
    AlterConfigs: AlterConfigsRequest => AlterConfigsResponse, ALTER_CONFIGS;
    DescribeLogDirs: DescribeLogDirsRequest => DescribeLogDirsResponse, DESCRIBE_LOG_DIRS;
    DescribeProducers: DescribeProducersRequest => DescribeProducersResponse, DESCRIBE_PRODUCERS;
    ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse,
        CONSUMER_GROUP_HEARTBEAT;
    ConsumerGroupDescribe: ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse,
        CONSUMER_GROUP_DESCRIBE;
    GetTelemetrySubscriptions: GetTelemetrySubscriptionsRequest
        => GetTelemetrySubscriptionsResponse, GET_TELEMETRY_SUBSCRIPTIONS;
    PushTelemetry: PushTelemetryRequest => PushTelemetryResponse, PUSH_TELEMETRY;
    ListConfigResources: ListConfigResourcesRequest => ListConfigResourcesResponse,
        LIST_CONFIG_RESOURCES;
    DescribeTopicPartitions: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse,
        DESCRIBE_TOPIC_PARTITIONS;
    AddPartitionsToTxn: AddPartitionsToTxnRequest => AddPartitionsToTxnResponse,
        ADD_PARTITIONS_TO_TXN;
    AddOffsetsToTxn: AddOffsetsToTxnRequest => AddOffsetsToTxnResponse, ADD_OFFSETS_TO_TXN;
    EndTxn: EndTxnRequest => EndTxnResponse, END_TXN;
    WriteTxnMarkers: WriteTxnMarkersRequest => WriteTxnMarkersResponse, WRITE_TXN_MARKERS;
    TxnOffsetCommit: TxnOffsetCommitRequest => TxnOffsetCommitResponse, TXN_OFFSET_COMMIT;
    DescribeTransactions: DescribeTransactionsRequest => DescribeTransactionsResponse,
        DESCRIBE_TRANSACTIONS;
    ListTransactions: ListTransactionsRequest => ListTransactionsResponse, LIST_TRANSACTIONS;
    AlterPartition: AlterPartitionRequest => AlterPartitionResponse, ALTER_PARTITION;
    UpdateFeatures: UpdateFeaturesRequest => UpdateFeaturesResponse, UPDATE_FEATURES;
    Envelope: EnvelopeRequest => EnvelopeResponse, ENVELOPE;
    BrokerRegistration: BrokerRegistrationRequest => BrokerRegistrationResponse,
        BROKER_REGISTRATION;
    BrokerHeartbeat: BrokerHeartbeatRequest => BrokerHeartbeatResponse, BROKER_HEARTBEAT;
    DescribeQuorum: DescribeQuorumRequest => DescribeQuorumResponse, DESCRIBE_QUORUM;
    UnregisterBroker: UnregisterBrokerRequest => UnregisterBrokerResponse, UNREGISTER_BROKER;
    AllocateProducerIds: AllocateProducerIdsRequest => AllocateProducerIdsResponse,
        ALLOCATE_PRODUCER_IDS;
}

fn encoding(key: ApiKey, version: i16) -> Encoding {
    Encoding {
        version,
        flexible: key.api().is_flexible(version),
    }
}

/// Decodes the body of a control request whose header was taken by [`RequestHeader::decode`].
pub fn decode_request(header: &RequestHeader, body: &[u8]) -> Result<Request, DecodeError> {
    let (key, version, api) = (header.key, header.version, header.key.api().name);
    let (shape, _) = shapes(key).ok_or(DecodeError::NotControl { api })?;
    let (encoding, reader) = (encoding(key, version), &mut Reader::new(body));
    let checked = match key {
        // librdkafka's Metadata 13 for all topics ends in three bytes too many; Kafka, which looks
        // at no trailing bytes, answers it.
        ApiKey::Metadata => shape.check_prefix(encoding, reader),
        _ => shape.check(encoding, reader),
    };
    checked.map_err(|error| DecodeError::Shape {
        api,
        version,
        error,
    })?;
    let decoded = decode_body(key, version, &mut Bytes::copy_from_slice(body));
    decoded
        .ok_or(DecodeError::NotControl { api })?
        .map_err(|cause| DecodeError::Value {
            api,
            version,
            cause,
        })
}

/// Encodes a response as the whole frame to send.
///
/// # Panics
/// If the response is not of the request's API.
pub fn encode_response<R: Answer>(
    header: &RequestHeader,
    response: &R,
) -> Result<Bytes, EncodeError> {
    assert_eq!(header.key, R::KEY, "the response answers the request");
    let mut frame = BytesMut::new();
    start_frame(&mut frame);
    header.encode_response_header(&mut frame);
    encode_body(header, response, frame)
}

/// Encodes a request as the whole frame to send. The version must be one that the broker serves
/// too, and the header's API is that of the request's type.
///
/// # Panics
/// If the header is not of the request's API, or the client id is longer than `i16::MAX` bytes.
pub fn encode_request<R: Call>(header: &RequestHeader, request: &R) -> Result<Bytes, EncodeError> {
    assert_eq!(header.key, R::KEY, "the header is of the request's API");
    let mut frame = BytesMut::new();
    start_frame(&mut frame);
    header.encode(&mut frame);
    encode_body(header, request, frame)
}

fn encode_body<M: Encodable>(
    header: &RequestHeader,
    message: &M,
    mut frame: BytesMut,
) -> Result<Bytes, EncodeError> {
    let (api, version) = (header.key.api().name, header.version);
    let value = |cause: String| EncodeError::Value {
        api,
        version,
        cause,
    };
    let size = message
        .compute_size(version)
        .map_err(|cause| value(cause.to_string()))?;
    // Before memory is taken for what no frame can hold.
    if i32::try_from(size).is_err() {
        return Err(TooLarge(size).into());
    }
    frame.reserve(size);
    message
        .encode(&mut frame, version)
        .map_err(|cause| value(cause.to_string()))?;
    finish_frame(&mut frame, 0)?;
    Ok(frame.freeze())
}

/// Decodes the frame of a response to a request of type `R` and the given version. The correlation
/// id, which told that it is one, is not looked at.
pub fn decode_response<R: Call>(version: i16, frame: &Bytes) -> Result<R::Response, DecodeError> {
    let (key, api) = (R::KEY, R::KEY.api().name);
    let mut body = response_body(key, version, frame).map_err(|error| DecodeError::Header {
        api,
        version,
        error,
    })?;
    let (_, shape) = shapes(key).ok_or(DecodeError::NotControl { api })?;
    shape
        .check(encoding(key, version), &mut Reader::of_response(&body))
        .map_err(|error| DecodeError::Shape {
            api,
            version,
            error,
        })?;
    R::Response::decode(&mut body, version).map_err(|cause| DecodeError::Value {
        api,
        version,
        cause: cause.to_string(),
    })
}

/// What ApiVersions answers in a version: the table but for what nodes ask of each other, and from
/// version 3 the features: what this node supports, and what the cluster is at in the `epoch` of its
/// metadata.
pub fn api_versions(
    version: i16,
    supported: &Supported,
    levels: &Levels,
    epoch: i64,
) -> ApiVersionsResponse {
    let response = ApiVersionsResponse::default().with_api_keys(rows());
    match version {
        ..3 => response,
        _ => features::tell(response, version, supported, levels, epoch),
    }
}

fn rows() -> Vec<ApiVersion> {
    let named = APIS.iter().filter(|api| !api.internal);
    let row = |api: &crate::api::Api| {
        ApiVersion::default()
            .with_api_key(api.key.code())
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    };
    named.map(row).collect()
}

/// The frame that answers an ApiVersions request of a version that is not served: error
/// UNSUPPORTED_VERSION in version 0, with the row of ApiVersions alone, so that the client can ask
/// again (KIP-511).
pub fn unsupported_api_versions(correlation_id: i32) -> Bytes {
    let own = rows()
        .into_iter()
        .filter(|row| row.api_key == ApiKey::ApiVersions.code());
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(own.collect());
    let header = RequestHeader {
        key: ApiKey::ApiVersions,
        version: 0,
        correlation_id,
        client_id: None,
    };
    encode_response(&header, &response).expect("the table fits into a frame")
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
