//! InitProducerId with a transactional id, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn and
//! TxnOffsetCommit: between Kafka's messages and the coordinators.
//!
//! Each request's effect has its place in the order of the coordinator's work when the first stage
//! returns; the answer comes in the second.

use std::rc::Rc;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use ringmill_wire::kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};

use super::commits::{Offered, commits_of};
use super::groups::{optional, respond, text};
use super::producer_ids::initialized;
use crate::cluster::image::OFFSETS_TOPIC;
use crate::groups::Claim;
use crate::groups::service::{GroupAnswer, GroupAsk};
use crate::groups::transactional_service::TransactionalCommit;
use crate::shard::Shard;
use crate::stage::Stage;
use crate::transactions::requests::{Add, End, Init};
use crate::transactions::service::{TransactionAnswer, TransactionAsk};
use crate::transactions::verification::{Support, Terms};
use crate::transactions::{
    ClientVersion, NO_EPOCH, NO_PRODUCER_ID, Producer, Reply, TopicPartition, TransactionError,
};

/// From here on a fenced producer is told so; before, that its epoch is invalid (KIP-588).
const FIRST_FENCED: i16 = 2;
/// From here on AddPartitionsToTxn names several transactions; brokers send it (KIP-890).
const FIRST_BATCHED: i16 = 4;
/// From here on AddPartitionsToTxn knows that a transaction is to be aborted.
const FIRST_ABORTABLE: i16 = 5;
/// From here on EndTxn raises the epoch.
const FIRST_RAISING: i16 = 5;

/// The code for a client that asks in a version of AddPartitionsToTxn, AddOffsetsToTxn or EndTxn.
fn code_for(error: TransactionError, version: i16) -> ErrorCode {
    match error {
        TransactionError::ProducerFenced if version < FIRST_FENCED => {
            ErrorCode::InvalidProducerEpoch
        }
        error => error.into(),
    }
}

fn code_of(reply: Reply, version: i16) -> ErrorCode {
    reply.map_or_else(|error| code_for(error, version), |_| ErrorCode::None)
}

// ---- InitProducerId ----

pub(crate) async fn init(shard: &Rc<Shard>, header: RequestHeader, init: Init) -> Stage {
    let id = init.id.clone();
    let answer = shard
        .call_transaction(&id, TransactionAsk::Init(init))
        .await;
    Stage::waits(async move {
        let reply = answer.await.producer();
        respond(&header, &initialized(reply, header.version))
    })
}

// ---- AddPartitionsToTxn ----

/// A part of an AddPartitionsToTxn request about one transaction.
struct Asked {
    transaction: AddPartitionsToTxnTransaction,
    /// Which of its partitions exist, in their order.
    known: Vec<bool>,
}

impl Asked {
    fn new(shard: &Shard, transaction: AddPartitionsToTxnTransaction) -> Self {
        let parts = transaction.topics.iter().flat_map(|topic| {
            let numbers = topic.partitions.iter();
            numbers.map(move |number| shard.partition_id(&topic.name, *number).is_ok())
        });
        let known = parts.collect();
        Self { transaction, known }
    }

    /// What to ask the coordinator; nothing if a partition does not exist.
    fn ask(&self, client: ClientVersion) -> Option<TransactionAsk> {
        if self.known.contains(&false) {
            return None;
        }
        let transaction = &self.transaction;
        let id = transaction.transactional_id.to_string();
        let producer = Producer {
            id: *transaction.producer_id,
            epoch: transaction.producer_epoch,
        };
        let parts = transaction.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| TopicPartition {
                topic: topic.name.to_string(),
                partition: *partition,
            })
        });
        let partitions = parts.collect();
        Some(match transaction.verify_only {
            true => TransactionAsk::Verify(id, producer, partitions),
            false => TransactionAsk::Add(Add {
                id,
                producer,
                partitions,
                client,
            }),
        })
    }

    /// The results of its partitions, given the coordinator's answer.
    fn results(
        self,
        answer: Option<TransactionAnswer>,
        version: i16,
    ) -> Vec<AddPartitionsToTxnTopicResult> {
        let mut known = self.known.into_iter();
        let mut codes: Box<dyn FnMut() -> ErrorCode> = match answer {
            None => Box::new(move || match known.next() {
                Some(true) => ErrorCode::OperationNotAttempted,
                _ => ErrorCode::UnknownTopicOrPartition,
            }),
            Some(TransactionAnswer::Verified(Ok(found))) => {
                let mut found = found.into_iter();
                Box::new(move || match found.next() {
                    Some(true) => ErrorCode::None,
                    _ if version < FIRST_ABORTABLE => ErrorCode::InvalidTxnState,
                    _ => ErrorCode::TransactionAbortable,
                })
            }
            Some(TransactionAnswer::Verified(Err(error))) => {
                Box::new(move || code_for(error, version))
            }
            Some(answer) => {
                let code = code_of(answer.producer(), version);
                Box::new(move || code)
            }
        };
        let topics = self.transaction.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(partition)
                    .with_partition_error_code(codes().code())
            });
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name)
                .with_results_by_partition(partitions.collect())
        });
        topics.collect()
    }
}

pub(crate) async fn add_partitions(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: AddPartitionsToTxnRequest,
) -> Stage {
    let version = header.version;
    if version >= FIRST_BATCHED {
        return add_batched(shard, header, request);
    }
    let topics = request.v3_and_below_topics.into_iter().map(|topic| {
        AddPartitionsToTxnTopic::default()
            .with_name(topic.name)
            .with_partitions(topic.partitions)
    });
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(request.v3_and_below_transactional_id)
        .with_producer_id(request.v3_and_below_producer_id)
        .with_producer_epoch(request.v3_and_below_producer_epoch)
        .with_topics(topics.collect());
    let asked = Asked::new(shard, transaction);
    let answer = match asked.ask(ClientVersion::V0) {
        Some(ask) => {
            let id = asked.transaction.transactional_id.clone();
            Some(shard.call_transaction(&id, ask).await)
        }
        None => None,
    };
    Stage::waits(async move {
        let answer = match answer {
            Some(answer) => Some(answer.await),
            None => None,
        };
        let results = asked.results(answer, version);
        let response =
            AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
        respond(&header, &response)
    })
}

fn add_batched(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: AddPartitionsToTxnRequest,
) -> Stage {
    let (shard, version) = (Rc::clone(shard), header.version);
    Stage::waits(async move {
        let mut results = Vec::new();
        for transaction in request.transactions {
            let id = transaction.transactional_id.clone();
            let asked = Asked::new(&shard, transaction);
            let answer = match asked.ask(ClientVersion::V2) {
                Some(ask) => Some(shard.ask_transaction(&id, ask).await),
                None => None,
            };
            let result = AddPartitionsToTxnResult::default()
                .with_transactional_id(id)
                .with_topic_results(asked.results(answer, version));
            results.push(result);
        }
        let response = AddPartitionsToTxnResponse::default().with_results_by_transaction(results);
        respond(&header, &response)
    })
}

// ---- AddOffsetsToTxn ----

pub(crate) async fn add_offsets(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: AddOffsetsToTxnRequest,
) -> Stage {
    let version = header.version;
    let respond = move |code: ErrorCode| {
        let response = AddOffsetsToTxnResponse::default().with_error_code(code.code());
        respond(&header, &response)
    };
    let partition = match shard.home_of(&request.group_id) {
        Ok((_, partition)) => partition,
        Err(error) => return Stage::Done(respond(error)),
    };
    let ask = TransactionAsk::Add(Add {
        id: request.transactional_id.to_string(),
        producer: Producer {
            id: *request.producer_id,
            epoch: request.producer_epoch,
        },
        partitions: vec![TopicPartition {
            topic: OFFSETS_TOPIC.to_owned(),
            partition,
        }],
        client: ClientVersion::V0,
    });
    let answer = shard.call_transaction(&request.transactional_id, ask).await;
    Stage::waits(async move { respond(code_of(answer.await.producer(), version)) })
}

// ---- EndTxn ----

pub(crate) async fn end(shard: &Rc<Shard>, header: RequestHeader, request: EndTxnRequest) -> Stage {
    let version = header.version;
    let ask = TransactionAsk::End(End {
        id: request.transactional_id.to_string(),
        producer: Producer {
            id: *request.producer_id,
            epoch: request.producer_epoch,
        },
        committed: request.committed,
        client: match version >= FIRST_RAISING {
            true => ClientVersion::V2,
            false => ClientVersion::V0,
        },
    });
    let answer = shard.call_transaction(&request.transactional_id, ask).await;
    Stage::waits(async move {
        let reply = answer.await.producer();
        let producer = reply.ok().filter(|_| version >= FIRST_RAISING);
        let producer = producer.unwrap_or(Producer {
            id: NO_PRODUCER_ID,
            epoch: NO_EPOCH,
        });
        let response = EndTxnResponse::default()
            .with_error_code(code_of(reply, version).code())
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch);
        respond(&header, &response)
    })
}

// ---- TxnOffsetCommit ----

pub(crate) async fn commit_offsets(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: TxnOffsetCommitRequest,
) -> Stage {
    let claim = Claim {
        member_id: text(&request.member_id),
        instance_id: optional(request.group_instance_id.as_ref()),
        generation: request.generation_id,
    };
    let producer = Producer {
        id: *request.producer_id,
        epoch: request.producer_epoch,
    };
    let terms = Terms {
        id: request.transactional_id.as_str().into(),
        support: Support::of_offset_commit(header.version),
    };
    let (commits, known) = commits_of(shard, offered(&request), None);
    let group = request.group_id.clone();
    let finish = move |answer| respond(&header, &committed_response(&request, known.codes(answer)));
    // As Kafka: nobody is asked about partitions that are not there, and no transaction begins.
    if commits.is_empty() {
        return Stage::Done(finish(Ok(GroupAnswer::Parts(Ok(Vec::new())))));
    }
    let ask = GroupAsk::CommitInTransaction(TransactionalCommit {
        claim,
        commits,
        producer,
        terms,
    });
    shard.ask_group(&group, ask, finish).await
}

/// The offsets of a request.
fn offered(request: &TxnOffsetCommitRequest) -> impl Iterator<Item = Offered<'_>> {
    request.topics.iter().flat_map(|topic| {
        let parts = topic.partitions.iter();
        parts.map(|part| Offered {
            topic: topic.name.as_str(),
            partition: part.partition_index,
            offset: part.committed_offset,
            leader_epoch: part.committed_leader_epoch,
            metadata: part.committed_metadata.as_ref(),
        })
    })
}

fn committed_response(
    request: &TxnOffsetCommitRequest,
    mut codes: impl Iterator<Item = ErrorCode>,
) -> TxnOffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|part| {
            let code = codes.next().expect("one code per offset");
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(part.partition_index)
                .with_error_code(code.code())
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}
