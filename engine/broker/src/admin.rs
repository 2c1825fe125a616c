//! Changes of the metadata: decided by the pure handlers on core 0 of the quorum's leader, agreed on by
//! the quorum, and made known to every core of the node that was asked before it answers.
//!
//! A change runs as a task of its own, so that a client that goes away in the middle of it takes
//! nothing along.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{now, sleep, spawn};
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{Answer as Encoded, EncodeError, Request, encode_response};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;
use ringmill_wire::kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use ringmill_wire::kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ringmill_wire::kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DescribeQuorumResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, ListPartitionReassignmentsResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, alter_configs_response,
};

use crate::cluster::command::Command;
use crate::cluster::image::Image;
use crate::cluster::store::{ChangeError, random_id};
use crate::handlers::{
    Context, alter_configs, elections, features, producer_ids, quotas, reassignments, topics,
};
use crate::peers::{self, Destination, Leader, Outcome};
use crate::router::{Answer, Call, Result};
use crate::shard::Shard;

/// What clients are told when the metadata could not be written: they may try again.
const NOT_WRITTEN: ErrorCode = ErrorCode::KafkaStorageError;
/// How long producer ids are waited for.
const PRODUCER_IDS_TIME: Duration = Duration::from_secs(3);
/// Between two attempts.
const PRODUCER_IDS_PAUSE: Duration = Duration::from_millis(20);

/// An answer's frame, and the version of the metadata that it is about.
type Decided = std::result::Result<(std::result::Result<Bytes, EncodeError>, u64), ChangeError>;

impl Shard {
    /// Serves a request that changes the metadata, by the quorum's leader; on core 0.
    pub(crate) async fn administer(
        self: &Rc<Self>,
        header: RequestHeader,
        request: Request,
    ) -> std::result::Result<Bytes, EncodeError> {
        match self.at_leader(&header, &request, false).await? {
            Some(frame) => Ok(frame),
            // as Kafka, whose brokers ask for a controller as long
            None => refuse(&header, &request, ErrorCode::RequestTimedOut),
        }
    }

    /// Decides on a request as the quorum's leader; on core 0. What a node asks by itself creates
    /// the broker's own topics too, and passes over what cannot be created.
    pub(crate) async fn decide_as_leader(
        self: &Rc<Self>,
        header: &RequestHeader,
        request: Request,
        is_own: bool,
    ) -> std::result::Result<Outcome, EncodeError> {
        let whole = request.clone();
        let version = header.version;
        if let Request::BrokerRegistration(_)
        | Request::DescribeQuorum(_)
        | Request::ListPartitionReassignments(_) = request
        {
            return self.answer_as_leader(header, request).await;
        }
        let decided = match request {
            Request::CreateTopics(request) if is_own => {
                let names: Vec<StrBytes> = request.topics.into_iter().map(|t| t.name.0).collect();
                let decide = move |image: &Image, ctx: Context<'_>| {
                    let commands = topics::auto_create(image, ctx, &names, &mut random_id);
                    (CreateTopicsResponse::default(), commands)
                };
                self.change_and_encode(header, decide).await
            }
            Request::CreateTopics(request) => {
                let decide = move |image: &Image, ctx: Context<'_>| {
                    topics::create_topics(image, ctx, &request, version, &mut random_id)
                };
                self.change_and_encode(header, decide).await
            }
            Request::DeleteTopics(request) => {
                let decide = move |image: &Image, _: Context<'_>| {
                    topics::delete_topics(image, &request, version)
                };
                self.change_and_encode(header, decide).await
            }
            Request::CreatePartitions(request) => {
                let decide =
                    move |image: &Image, _: Context<'_>| topics::create_partitions(image, &request);
                self.change_and_encode(header, decide).await
            }
            Request::IncrementalAlterConfigs(_)
            | Request::AlterConfigs(_)
            | Request::AlterClientQuotas(_) => self.decide_on_settings(header, request).await,
            other => self.decide_on_nodes(header, other).await,
        };
        match decided {
            Ok((frame, version)) => Ok(Outcome::Done(frame?, version)),
            Err(ChangeError::NotLeader(_)) => Ok(Outcome::NotLed),
            Err(_) => Ok(Outcome::Done(refuse(header, &whole, NOT_WRITTEN)?, 0)),
        }
    }

    /// What sets something.
    async fn decide_on_settings(
        self: &Rc<Self>,
        header: &RequestHeader,
        request: Request,
    ) -> Decided {
        match request {
            Request::IncrementalAlterConfigs(request) => {
                let decide = move |image: &Image, ctx: Context<'_>| {
                    alter_configs::incremental_alter_configs(image, ctx, &request)
                };
                let changed = self.change_and_encode(header, decide).await;
                // They may allow what was forbidden.
                self.elect_uncleanly();
                changed
            }
            Request::AlterConfigs(request) => {
                let decide = move |image: &Image, ctx: Context<'_>| {
                    alter_configs::alter_configs(image, ctx, &request)
                };
                let changed = self.change_and_encode(header, decide).await;
                self.elect_uncleanly();
                changed
            }
            Request::AlterClientQuotas(request) => {
                let decide = move |image: &Image, _: Context<'_>| {
                    quotas::alter_client_quotas(image, &request)
                };
                self.change_and_encode(header, decide).await
            }
            other => unreachable!("{:?} sets nothing", other.key()),
        }
    }

    /// What concerns nodes, what they support, and which of them has copies and leads.
    async fn decide_on_nodes(self: &Rc<Self>, header: &RequestHeader, request: Request) -> Decided {
        match request {
            Request::UnregisterBroker(request) => {
                let decide = move |image: &Image, _: Context<'_>| unregister(image, &request);
                self.change_and_encode(header, decide).await
            }
            Request::AlterPartitionReassignments(request) => {
                let decide = move |image: &Image, _: Context<'_>| {
                    reassignments::alter_partition_reassignments(image, &request)
                };
                self.change_and_encode(header, decide).await
            }
            Request::UpdateFeatures(request) => {
                let (version, asked) = (header.version, self.ask_supported().await);
                let decide = move |image: &Image, ctx: Context<'_>| {
                    features::update_features(image, ctx, &request, version, &asked)
                };
                self.change_and_encode(header, decide).await
            }
            Request::ElectLeaders(request) => {
                let decide =
                    move |image: &Image, _: Context<'_>| elections::elect_leaders(image, &request);
                self.change_and_encode(header, decide).await
            }
            other => unreachable!("{:?} changes no metadata", other.key()),
        }
    }

    /// Answers what is no plain change of the metadata.
    async fn answer_as_leader(
        self: &Rc<Self>,
        header: &RequestHeader,
        request: Request,
    ) -> std::result::Result<Outcome, EncodeError> {
        let frame = match request {
            Request::BrokerRegistration(request) => {
                encode_response(header, &self.register_node(&request).await)
            }
            Request::DescribeQuorum(request) => {
                encode_response(header, &self.describe_quorum(&request, header.version))
            }
            Request::ListPartitionReassignments(request) => {
                let image = self.metadata_store().image();
                let response = reassignments::list_partition_reassignments(&image, &request);
                encode_response(header, &response)
            }
            other => unreachable!("{:?} changes the metadata", other.key()),
        };
        Ok(Outcome::Done(frame?, 0))
    }

    async fn change_and_encode<R: Encoded + 'static>(
        self: &Rc<Self>,
        header: &RequestHeader,
        decide: impl FnMut(&Image, Context<'_>) -> (R, Vec<Command>) + 'static,
    ) -> Decided {
        let (response, version) = self.change(decide).await?;
        Ok((encode_response(header, &response), version))
    }

    /// Changes the metadata, if this node leads the quorum, and gives the version that the change is
    /// in; on core 0.
    pub(crate) async fn change<T: 'static>(
        self: &Rc<Self>,
        mut decide: impl FnMut(&Image, Context<'_>) -> (T, Vec<Command>) + 'static,
    ) -> std::result::Result<(T, u64), ChangeError> {
        let shard = Rc::clone(self);
        let task = spawn(async move {
            let store = Rc::clone(shard.metadata_store());
            let decide = |image: &Image| shard.with_context(None, |ctx| decide(image, ctx));
            store.change(decide).await
        });
        // A task that does not end belongs to a core that does.
        let changed = task.await.unwrap_or(Err(ChangeError::Ended));
        match &changed {
            Ok(_) | Err(ChangeError::NotLeader(_)) => {}
            Err(error) => tracing::error!(%error, "the metadata could not be changed"),
        }
        changed
    }

    /// Creates topics that are needed, though no client has created them; on core 0.
    pub(crate) async fn auto_create(self: &Rc<Self>, names: Vec<String>) -> Result<()> {
        let topic = |name| {
            CreatableTopic::default()
                .with_name(StrBytes::from_string(name).into())
                .with_num_partitions(-1)
                .with_replication_factor(-1)
        };
        let topics = names.into_iter().map(topic).collect();
        let request = CreateTopicsRequest::default().with_topics(topics);
        let key = ApiKey::CreateTopics;
        let header = peers::header(key, key.api().max, 0);
        match self.at_leader(&header, &request.into(), true).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ErrorCode::RequestTimedOut),
            Err(error) => {
                tracing::error!(%error, "topics cannot be asked for");
                Err(ErrorCode::UnknownServerError)
            }
        }
    }

    /// Creates one of the broker's own topics unless it exists; on core 0.
    pub(crate) async fn create_own_topic(self: &Rc<Self>, name: &'static str) -> Result<()> {
        self.auto_create(vec![name.to_owned()]).await?;
        let image = self.metadata_store().image();
        let found = image.topic(name).map(drop);
        found.ok_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// Reserves a block of producer ids that nobody else gets, as the quorum's leader; on core 0.
    /// None if there are no more.
    pub(crate) async fn reserve_block(
        self: &Rc<Self>,
    ) -> std::result::Result<Option<Range<i64>>, ChangeError> {
        let decide = |image: &Image, _: Context<'_>| match producer_ids::reserve(image) {
            Some((ids, command)) => (Some(ids), vec![command]),
            None => (None, Vec::new()),
        };
        self.change(decide).await.map(|(ids, _)| ids)
    }

    /// A block of producer ids, from the quorum's leader; on core 0.
    pub(crate) async fn reserve_producer_ids(self: &Rc<Self>) -> Result<Range<i64>> {
        let end = now() + PRODUCER_IDS_TIME;
        loop {
            let reserved = match self.leader() {
                Leader::Here => match self.reserve_block().await {
                    Ok(ids) => return ids.ok_or(ErrorCode::UnknownServerError),
                    Err(ChangeError::NotLeader(_)) => None,
                    Err(_) => return Err(NOT_WRITTEN),
                },
                Leader::There(leader) => self.ask_for_producer_ids(&leader).await,
                Leader::Nobody => None,
            };
            match reserved {
                Some(ids) => return Ok(ids),
                // as Kafka says it: the client tries again
                None if now() >= end => return Err(ErrorCode::CoordinatorLoadInProgress),
                None => sleep(PRODUCER_IDS_PAUSE).await,
            }
        }
    }

    async fn ask_for_producer_ids(&self, leader: &Destination) -> Option<Range<i64>> {
        let image = self.metadata_store().image();
        let epoch = image.nodes().get(&self.config.node_id)?.epoch;
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(self.config.node_id.into())
            .with_broker_epoch(epoch);
        let answer = self.peers.call(leader, &request, PRODUCER_IDS_TIME).await;
        let answer = answer.ok().filter(|answer| answer.error_code == 0)?;
        let start = *answer.producer_id_start;
        Some(start..start.checked_add(answer.producer_id_len.into())?)
    }

    /// A producer id that nobody else gets.
    pub(crate) async fn next_producer_id(self: &Rc<Self>) -> Result<i64> {
        loop {
            if let Some(id) = self.producer_ids.borrow_mut().next() {
                return Ok(id);
            }
            match self.ask(0, Call::ProducerIds).await {
                // Two who ask at the same time get two blocks; what is left of one is skipped.
                Answer::ProducerIds(block) => *self.producer_ids.borrow_mut() = block?,
                _ => unreachable!("producer ids were asked for"),
            }
        }
    }
}

/// Takes a node out for good. Unlike Kafka, which takes out one that runs, too, and lets it come back
/// at once, it must have stopped.
fn unregister(
    image: &Image,
    request: &UnregisterBrokerRequest,
) -> (UnregisterBrokerResponse, Vec<Command>) {
    let node = *request.broker_id;
    let (code, message) = match image.nodes().get(&node) {
        Some(state) if state.is_fenced => {
            let response = UnregisterBrokerResponse::default().with_error_message(None);
            return (response, vec![Command::RemoveNode { node }]);
        }
        Some(state) => {
            let address = &state.address;
            let message = format!("node {node} is up, at {address}: stop it before it leaves");
            (ErrorCode::InvalidRequest, message)
        }
        None => {
            let message = format!("Broker ID {node} is not currently registered");
            (ErrorCode::BrokerIdNotRegistered, message)
        }
    };
    let response = UnregisterBrokerResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(message)));
    (response, Vec::new())
}

/// The answer to a request of which nothing counts, for this reason.
fn refuse(
    header: &RequestHeader,
    request: &Request,
    code: ErrorCode,
) -> std::result::Result<Bytes, EncodeError> {
    match request {
        Request::CreateTopics(request) => {
            encode_response(header, &create_topics_failed(request, code))
        }
        Request::DeleteTopics(request) => {
            encode_response(header, &delete_topics_failed(request, code))
        }
        Request::CreatePartitions(request) => {
            encode_response(header, &create_partitions_failed(request, code))
        }
        Request::IncrementalAlterConfigs(request) => {
            encode_response(header, &alter_configs_failed(request, code))
        }
        Request::AlterConfigs(request) => {
            encode_response(header, &alter_all_configs_failed(request, code))
        }
        Request::AlterClientQuotas(request) => {
            encode_response(header, &quotas::alter_client_quotas_failed(request, code))
        }
        Request::AlterPartitionReassignments(request) => {
            let failed = reassignments::alter_partition_reassignments_failed(request, code);
            encode_response(header, &failed)
        }
        Request::ListPartitionReassignments(_) => {
            let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
            encode_response(header, &response.with_error_code(code.code()))
        }
        Request::ElectLeaders(request) => encode_response(
            header,
            &elections::elect_leaders_failed(request, code, None),
        ),
        Request::UpdateFeatures(_) => {
            encode_response(header, &features::update_features_failed(code))
        }
        Request::UnregisterBroker(_) => {
            let response = UnregisterBrokerResponse::default().with_error_message(None);
            encode_response(header, &response.with_error_code(code.code()))
        }
        Request::DescribeQuorum(_) => {
            let response = DescribeQuorumResponse::default().with_error_message(None);
            encode_response(header, &response.with_error_code(code.code()))
        }
        other => unreachable!("{:?} changes no metadata", other.key()),
    }
}

fn create_topics_failed(request: &CreateTopicsRequest, code: ErrorCode) -> CreateTopicsResponse {
    let topics = request.topics.iter().map(|topic| {
        CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code.code())
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn delete_topics_failed(request: &DeleteTopicsRequest, code: ErrorCode) -> DeleteTopicsResponse {
    let by_name = request.topic_names.iter().map(|name| {
        DeletableTopicResult::default()
            .with_name(Some(name.clone()))
            .with_error_code(code.code())
    });
    let by_either = request.topics.iter().map(|topic| {
        DeletableTopicResult::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_error_code(code.code())
    });
    DeleteTopicsResponse::default().with_responses(by_name.chain(by_either).collect())
}

fn create_partitions_failed(
    request: &CreatePartitionsRequest,
    code: ErrorCode,
) -> CreatePartitionsResponse {
    let results = request.topics.iter().map(|topic| {
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code.code())
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn alter_configs_failed(
    request: &IncrementalAlterConfigsRequest,
    code: ErrorCode,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(code.code())
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn alter_all_configs_failed(
    request: &AlterConfigsRequest,
    code: ErrorCode,
) -> AlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(code.code())
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}
