//! From a frame to its handler: the header against the table of APIs, the body through its decoder,
//! the request to whoever answers it. What cannot be understood closes the connection, as Kafka
//! does, for nothing after it can be trusted.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{Request, decode_request, unsupported_api_versions};
use ringmill_wire::header::{HeaderError, RequestHeader};
use ringmill_wire::kafka_protocol::messages::{
    FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest,
};

use crate::connection::Closed;
use crate::handlers::groups::respond;
use crate::handlers::producer_ids::Asker;
use crate::handlers::{
    cluster, config_resources, configs, consumer_groups, fetch, group_offsets, groups, inspect,
    metadata, offsets, produce, producer_ids, quotas, telemetry, topic_partitions, transactions,
    transactions_admin,
};
use crate::peers::messages;
use crate::router::{Answer, Call};
use crate::shard::{Peer, Shard};
use crate::stage::{Response, Stage};

/// Runs a request's first stage.
pub(crate) async fn dispatch(
    shard: &Rc<Shard>,
    peer: &Peer,
    frame: Bytes,
) -> Result<Stage, Closed> {
    let decoded = RequestHeader::decode(&frame);
    drop(frame);
    let (header, body) = match decoded {
        Ok(decoded) => decoded,
        // A newer client learns what it may ask (KIP-511).
        Err(HeaderError::UnsupportedVersion {
            key: ApiKey::ApiVersions,
            correlation_id,
            ..
        }) => return Ok(Stage::frame(unsupported_api_versions(correlation_id))),
        Err(error) => return Err(error.into()),
    };
    if !shard.nodes.is_ready() && !is_answered_early(header.key) {
        let stopping = pin!(shard.stopping());
        if let Either::Right(_) = select(pin!(shard.nodes.ready()), stopping).await {
            return Err(Closed::Stopping);
        }
    }
    match header.key {
        ApiKey::QuorumMessage => messages::answer(shard, header, &body),
        ApiKey::Produce => produce::begin(shard, header, body).await,
        ApiKey::Fetch => fetch::begin(shard, peer, header, body).await,
        _ => {
            let request = decode_request(&header, &body)?;
            drop(body);
            Ok(control(shard, peer, header, request).await)
        }
    }
}

/// What is answered before a node serves clients: other nodes, and those who look for a cluster.
fn is_answered_early(key: ApiKey) -> bool {
    key.api().internal || matches!(key, ApiKey::ApiVersions | ApiKey::DescribeCluster)
}

async fn control(shard: &Rc<Shard>, peer: &Peer, header: RequestHeader, request: Request) -> Stage {
    match request {
        Request::ApiVersions(request) => {
            Stage::Done(telemetry::versions(shard, peer, &header, &request))
        }
        Request::GetTelemetrySubscriptions(request) => {
            Stage::Done(telemetry::subscriptions(shard, peer, &header, &request).await)
        }
        Request::PushTelemetry(request) => {
            Stage::Done(telemetry::push(shard, peer, &header, request).await)
        }
        Request::Metadata(request) => Stage::Done(metadata(shard, peer, &header, &request).await),
        Request::FindCoordinator(request) => {
            Stage::Done(find_coordinator(shard, peer, &header, &request).await)
        }
        Request::DescribeCluster(_)
        | Request::DescribeConfigs(_)
        | Request::ListConfigResources(_)
        | Request::DescribeTopicPartitions(_)
        | Request::DescribeClientQuotas(_) => Stage::Done(describe(shard, peer, &header, request)),
        Request::DescribeLogDirs(request) => inspect::log_dirs(shard, header, request).await,
        Request::DescribeProducers(request) => inspect::producers(shard, header, request).await,
        Request::InitProducerId(request) => init_producer_id(shard, header, &request).await,
        Request::ListOffsets(request) => offsets::list(shard, header, request).await,
        Request::DeleteRecords(request) => offsets::delete_records(shard, header, request).await,
        Request::OffsetForLeaderEpoch(request) => {
            offsets::leader_epochs(shard, header, request).await
        }
        Request::CreateTopics(_)
        | Request::DeleteTopics(_)
        | Request::CreatePartitions(_)
        | Request::AlterConfigs(_)
        | Request::AlterClientQuotas(_)
        | Request::DescribeQuorum(_)
        | Request::ElectLeaders(_)
        | Request::AlterPartitionReassignments(_)
        | Request::ListPartitionReassignments(_)
        | Request::UnregisterBroker(_)
        | Request::UpdateFeatures(_)
        | Request::IncrementalAlterConfigs(_) => administer(shard, header, request).await,
        Request::JoinGroup(_)
        | Request::SyncGroup(_)
        | Request::Heartbeat(_)
        | Request::LeaveGroup(_)
        | Request::DescribeGroups(_)
        | Request::ListGroups(_)
        | Request::DeleteGroups(_)
        | Request::ConsumerGroupHeartbeat(_)
        | Request::ConsumerGroupDescribe(_)
        | Request::OffsetCommit(_)
        | Request::OffsetFetch(_)
        | Request::OffsetDelete(_) => of_groups(shard, peer, header, request).await,
        Request::AddPartitionsToTxn(_)
        | Request::AddOffsetsToTxn(_)
        | Request::EndTxn(_)
        | Request::WriteTxnMarkers(_)
        | Request::TxnOffsetCommit(_)
        | Request::DescribeTransactions(_)
        | Request::ListTransactions(_) => transaction(shard, header, request).await,
        Request::AlterPartition(_)
        | Request::Envelope(_)
        | Request::BrokerRegistration(_)
        | Request::BrokerHeartbeat(_)
        | Request::AllocateProducerIds(_) => of_nodes(shard, header, request),
    }
}

/// Requests that the metadata alone answers.
fn describe(shard: &Rc<Shard>, peer: &Peer, header: &RequestHeader, request: Request) -> Response {
    match request {
        Request::DescribeCluster(request) => {
            let version = header.version;
            let image = shard.image();
            let response = shard.with_context(Some(peer), |ctx| {
                cluster::describe_cluster(&image, ctx, &request, version)
            });
            respond(header, &response)
        }
        Request::DescribeConfigs(request) => {
            let image = shard.image();
            let response = shard.with_context(Some(peer), |ctx| {
                configs::describe_configs(&image, ctx, &request)
            });
            respond(header, &response)
        }
        Request::ListConfigResources(request) => {
            let (image, version) = (shard.image(), header.version);
            let response = shard.with_context(Some(peer), |ctx| {
                config_resources::list_config_resources(&image, ctx, &request, version)
            });
            respond(header, &response)
        }
        Request::DescribeTopicPartitions(request) => {
            let image = shard.image();
            let response = topic_partitions::describe_topic_partitions(&image, &request);
            respond(header, &response)
        }
        Request::DescribeClientQuotas(request) => {
            let response = quotas::describe_client_quotas(&shard.image(), &request);
            respond(header, &response)
        }
        other => unreachable!("{:?} asks for more than the metadata", other.key()),
    }
}

/// Requests about groups and their offsets.
async fn of_groups(
    shard: &Rc<Shard>,
    peer: &Peer,
    header: RequestHeader,
    request: Request,
) -> Stage {
    match request {
        Request::JoinGroup(request) => groups::join(shard, peer, header, request).await,
        Request::SyncGroup(request) => groups::sync(shard, header, request).await,
        Request::Heartbeat(request) => groups::heartbeat(shard, header, request).await,
        Request::LeaveGroup(request) => groups::leave(shard, header, request).await,
        Request::DescribeGroups(request) => groups::describe(shard, header, request).await,
        Request::ListGroups(request) => groups::list(shard, header, request).await,
        Request::DeleteGroups(request) => groups::delete(shard, header, request).await,
        Request::ConsumerGroupHeartbeat(request) => {
            consumer_groups::heartbeat(shard, peer, header, request).await
        }
        Request::ConsumerGroupDescribe(request) => {
            consumer_groups::describe(shard, header, request).await
        }
        Request::OffsetCommit(request) => group_offsets::commit(shard, header, request).await,
        Request::OffsetFetch(request) => group_offsets::fetch(shard, header, request).await,
        Request::OffsetDelete(request) => group_offsets::delete(shard, header, request).await,
        other => unreachable!("{:?} is about no group", other.key()),
    }
}

/// Requests about transactions.
async fn transaction(shard: &Rc<Shard>, header: RequestHeader, request: Request) -> Stage {
    match request {
        Request::AddPartitionsToTxn(request) => {
            transactions::add_partitions(shard, header, request).await
        }
        Request::AddOffsetsToTxn(request) => {
            transactions::add_offsets(shard, header, request).await
        }
        Request::EndTxn(request) => transactions::end(shard, header, request).await,
        Request::TxnOffsetCommit(request) => {
            transactions::commit_offsets(shard, header, request).await
        }
        Request::WriteTxnMarkers(request) => {
            transactions_admin::write_markers(shard, header, request).await
        }
        Request::DescribeTransactions(request) => {
            transactions_admin::describe(shard, header, request).await
        }
        Request::ListTransactions(request) => {
            transactions_admin::list(shard, header, request).await
        }
        other => unreachable!("{:?} is about no transaction", other.key()),
    }
}

/// What nodes ask of each other goes to core 0, and nothing behind it waits to begin.
fn of_nodes(shard: &Rc<Shard>, header: RequestHeader, request: Request) -> Stage {
    let shard = Rc::clone(shard);
    Stage::waits(async move {
        let call = Call::Node(Box::new((header, request)));
        match shard.ask(0, call).await {
            Answer::Frame(Ok(frame)) => Response::Frame(frame),
            Answer::Frame(Err(error)) => Response::Close(error.into()),
            _ => unreachable!("a frame was asked for"),
        }
    })
}

/// Requests to whoever leads the metadata's quorum go to core 0, and are done before the connection's next one.
async fn administer(shard: &Rc<Shard>, header: RequestHeader, request: Request) -> Stage {
    let call = Call::Admin(Box::new((header, request)));
    match shard.ask(0, call).await {
        Answer::Frame(Ok(frame)) => Stage::frame(frame),
        Answer::Frame(Err(error)) => Stage::Done(Response::Close(error.into())),
        _ => unreachable!("a frame was asked for"),
    }
}

async fn metadata(
    shard: &Rc<Shard>,
    peer: &Peer,
    header: &RequestHeader,
    request: &MetadataRequest,
) -> Response {
    let answer = || {
        let image = shard.image();
        shard.with_context(Some(peer), |ctx| {
            metadata::metadata(&image, ctx, request, header.version)
        })
    };
    let first = answer();
    if first.missing.is_empty() {
        return respond(header, &first.response);
    }
    let names = first.missing.iter().map(ToString::to_string).collect();
    shard.ask(0, Call::AutoCreate(names)).await;
    respond(header, &answer().response)
}

async fn find_coordinator(
    shard: &Rc<Shard>,
    peer: &Peer,
    header: &RequestHeader,
    request: &FindCoordinatorRequest,
) -> Response {
    if let Some(topic) = cluster::topic_of_coordinator(request)
        && shard.image().topic(topic).is_none()
    {
        // If it cannot be created, the coordinator says so to whoever comes.
        shard.ask(0, Call::OwnTopic(topic)).await;
    }
    let image = shard.image();
    let response = shard.with_context(Some(peer), |ctx| {
        cluster::find_coordinator(&image, ctx, request, header.version)
    });
    respond(header, &response)
}

async fn init_producer_id(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: &InitProducerIdRequest,
) -> Stage {
    let response = match producer_ids::check(request) {
        Ok(Asker::Idempotent) => match shard.next_producer_id().await {
            Ok(id) => producer_ids::granted(id),
            Err(code) => producer_ids::refused(code),
        },
        Ok(Asker::Transactional(init)) => return transactions::init(shard, header, init).await,
        Err(refused) => refused,
    };
    Stage::Done(respond(&header, &response))
}
