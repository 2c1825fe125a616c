//! Changes of the metadata: decided by the pure handlers on core 0, journaled, and made known to
//! every core before anybody is answered.
//!
//! A change runs as a task of its own, so that a client that goes away in the middle of it takes
//! nothing along.

use std::rc::Rc;

use bytes::Bytes;
use ringmill_ring::spawn;
use ringmill_wire::StrBytes;
use ringmill_wire::control::{Answer as Encoded, EncodeError, Request, encode_response};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ringmill_wire::kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use ringmill_wire::kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ringmill_wire::kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
};

use crate::cluster::command::Command;
use crate::cluster::image::Image;
use crate::cluster::store::{ChangeError, random_id};
use crate::handlers::{Context, alter_configs, producer_ids, quotas, topics};
use crate::router::{Answer, Call, Result};
use crate::shard::Shard;

/// What clients are told when the metadata could not be written: they may try again.
const NOT_WRITTEN: ErrorCode = ErrorCode::KafkaStorageError;

impl Shard {
    /// Serves a request that changes the metadata; on core 0.
    pub(crate) async fn administer(
        self: &Rc<Self>,
        header: RequestHeader,
        request: Request,
    ) -> std::result::Result<Bytes, EncodeError> {
        let version = header.version;
        match request {
            Request::CreateTopics(request) => {
                let failed = create_topics_failed(&request);
                let decide = move |image: &Image, ctx: Context<'_>| {
                    topics::create_topics(image, ctx, &request, version, &mut random_id)
                };
                self.change_or(&header, decide, failed).await
            }
            Request::DeleteTopics(request) => {
                let failed = delete_topics_failed(&request);
                let decide = move |image: &Image, _: Context<'_>| {
                    topics::delete_topics(image, &request, version)
                };
                self.change_or(&header, decide, failed).await
            }
            Request::CreatePartitions(request) => {
                let failed = create_partitions_failed(&request);
                let decide =
                    move |image: &Image, _: Context<'_>| topics::create_partitions(image, &request);
                self.change_or(&header, decide, failed).await
            }
            Request::IncrementalAlterConfigs(request) => {
                let failed = alter_configs_failed(&request);
                let decide = move |image: &Image, ctx: Context<'_>| {
                    alter_configs::incremental_alter_configs(image, ctx, &request)
                };
                self.change_or(&header, decide, failed).await
            }
            Request::AlterConfigs(request) => {
                let failed = alter_all_configs_failed(&request);
                let decide = move |image: &Image, ctx: Context<'_>| {
                    alter_configs::alter_configs(image, ctx, &request)
                };
                self.change_or(&header, decide, failed).await
            }
            Request::AlterClientQuotas(request) => {
                let failed = quotas::alter_client_quotas_failed(&request, NOT_WRITTEN);
                let decide = move |image: &Image, _: Context<'_>| {
                    quotas::alter_client_quotas(image, &request)
                };
                self.change_or(&header, decide, failed).await
            }
            other => unreachable!("{:?} changes no metadata", other.key()),
        }
    }

    /// Changes the metadata and gives the response, or `failed` if it could not be written.
    async fn change_or<R: Encoded + 'static>(
        self: &Rc<Self>,
        header: &RequestHeader,
        decide: impl FnMut(&Image, Context<'_>) -> (R, Vec<Command>) + 'static,
        failed: R,
    ) -> std::result::Result<Bytes, EncodeError> {
        let response = self.change(decide).await.unwrap_or(failed);
        encode_response(header, &response)
    }

    /// Changes the metadata: when this returns, every core goes by it.
    pub(crate) async fn change<T: 'static>(
        self: &Rc<Self>,
        mut decide: impl FnMut(&Image, Context<'_>) -> (T, Vec<Command>) + 'static,
    ) -> std::result::Result<T, ChangeError> {
        let shard = Rc::clone(self);
        let task = spawn(async move {
            let store = Rc::clone(shard.store.get().expect("core 0 keeps the metadata"));
            let decide = |image: &Image| shard.with_context(None, |ctx| decide(image, ctx));
            let (result, version) = store.change(decide).await?;
            shard.published.reached(version).await;
            Ok(result)
        });
        // A task that does not end belongs to a core that does.
        let changed = task.await.unwrap_or(Err(ChangeError::Ended));
        if let Err(error) = &changed {
            tracing::error!(%error, "the metadata could not be changed");
        }
        changed
    }

    /// Creates topics that clients asked for without creating them; on core 0.
    pub(crate) async fn auto_create(self: &Rc<Self>, names: Vec<String>) -> Result<()> {
        let names: Vec<StrBytes> = names.into_iter().map(StrBytes::from_string).collect();
        let decide = move |image: &Image, ctx: Context<'_>| {
            ((), topics::auto_create(image, ctx, &names, &mut random_id))
        };
        self.change(decide).await.map_err(|_| NOT_WRITTEN)
    }

    /// Creates one of the broker's own topics unless it exists; on core 0.
    pub(crate) async fn create_own_topic(self: &Rc<Self>, name: &'static str) -> Result<()> {
        let decide = move |image: &Image, ctx: Context<'_>| match topics::own_topic(
            image,
            ctx,
            name,
            &mut random_id,
        ) {
            Ok(command) => (Ok(()), command.into_iter().collect()),
            Err(error) => {
                tracing::error!(topic = name, %error, "cannot create a topic of the broker's own");
                (Err(ErrorCode::CoordinatorNotAvailable), Vec::new())
            }
        };
        self.change(decide).await.map_err(|_| NOT_WRITTEN)?
    }

    /// A block of producer ids that nobody else gets; on core 0.
    pub(crate) async fn reserve_producer_ids(self: &Rc<Self>) -> Result<std::ops::Range<i64>> {
        let decide = |image: &Image, _: Context<'_>| match producer_ids::reserve(image) {
            Some((ids, command)) => (Some(ids), vec![command]),
            None => (None, Vec::new()),
        };
        let ids = self.change(decide).await.map_err(|_| NOT_WRITTEN)?;
        ids.ok_or(ErrorCode::UnknownServerError)
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

fn create_topics_failed(request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let topics = request.topics.iter().map(|topic| {
        CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(NOT_WRITTEN.code())
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn delete_topics_failed(request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.iter().map(|name| {
        DeletableTopicResult::default()
            .with_name(Some(name.clone()))
            .with_error_code(NOT_WRITTEN.code())
    });
    let by_either = request.topics.iter().map(|topic| {
        DeletableTopicResult::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_error_code(NOT_WRITTEN.code())
    });
    DeleteTopicsResponse::default().with_responses(by_name.chain(by_either).collect())
}

fn create_partitions_failed(request: &CreatePartitionsRequest) -> CreatePartitionsResponse {
    let results = request.topics.iter().map(|topic| {
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(NOT_WRITTEN.code())
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn alter_configs_failed(
    request: &IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(NOT_WRITTEN.code())
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn alter_all_configs_failed(request: &AlterConfigsRequest) -> AlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(NOT_WRITTEN.code())
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}
