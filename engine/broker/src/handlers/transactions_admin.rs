//! DescribeTransactions, ListTransactions and WriteTxnMarkers: what administrators see of
//! transactions, and how they end one that hangs.

use std::rc::Rc;

use ringmill_log::EndTxnMarker;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as Described,
};
use ringmill_wire::kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use ringmill_wire::kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use ringmill_wire::kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use ringmill_wire::kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, TransactionalId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::groups::respond;
use super::questions::each_once;
use crate::limits::{ELEMENT_BYTES, MAX_ANSWER_BYTES};
use crate::pattern::Pattern;
use crate::router::{Answer, Call, Result};
use crate::shard::Shard;
use crate::stage::Stage;
use crate::transactions::TransactionError;
use crate::transactions::admin::{Filter, Listing};
use crate::transactions::markers::take_marked;
use crate::transactions::service::{TransactionAnswer, TransactionAsk, TransactionCall};
use crate::transactions::state::{Metadata, State};

/// No filter by duration.
const ANY_DURATION: i64 = -1;

// ---- DescribeTransactions ----

pub(crate) async fn describe(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: DescribeTransactionsRequest,
) -> Stage {
    let shard = Rc::clone(shard);
    Stage::waits(async move {
        let (mut states, mut left) = (Vec::new(), MAX_ANSWER_BYTES);
        for id in each_once(request.transactional_ids) {
            // A small request must not have a huge answer: what is past its end is refused.
            let described = match left {
                0 => Err(ErrorCode::InvalidRequest),
                _ => described(&shard, &id).await,
            };
            let size = described.as_ref().map_or(0, size) + id.len() + ELEMENT_BYTES;
            left = left.saturating_sub(size);
            states.push(match described {
                Ok(metadata) => shown(id, metadata),
                Err(error) => Described::default()
                    .with_transactional_id(id)
                    .with_error_code(error.code()),
            });
        }
        let response = DescribeTransactionsResponse::default().with_transaction_states(states);
        respond(&header, &response)
    })
}

async fn described(shard: &Rc<Shard>, id: &TransactionalId) -> Result<Metadata> {
    let ask = TransactionAsk::Describe(id.to_string());
    match shard.ask_transaction(id, ask).await {
        TransactionAnswer::Described(described) => described.map_err(ErrorCode::from),
        _ => unreachable!("a description was asked for"),
    }
}

fn size(metadata: &Metadata) -> usize {
    let topics = metadata.partitions.iter();
    let sizes = topics.map(|(name, numbers)| name.len() + ELEMENT_BYTES + 4 * numbers.len());
    sizes.sum()
}

fn shown(id: TransactionalId, metadata: Metadata) -> Described {
    let topics = metadata.partitions.into_iter().map(|(name, numbers)| {
        TopicData::default()
            .with_topic(StrBytes::from_string(name).into())
            .with_partitions(numbers.into_iter().collect())
    });
    Described::default()
        .with_transactional_id(id)
        .with_transaction_state(StrBytes::from_static_str(metadata.state.name()))
        .with_transaction_timeout_ms(metadata.timeout_ms)
        .with_transaction_start_time_ms(metadata.start_ms)
        .with_producer_id(metadata.producer_id.into())
        .with_producer_epoch(metadata.epoch)
        .with_topics(topics.collect())
}

// ---- ListTransactions ----

pub(crate) async fn list(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: ListTransactionsRequest,
) -> Stage {
    let (filter, unknown) = match filter_of(&request, header.version) {
        Ok(found) => found,
        Err(code) => {
            let refused = ListTransactionsResponse::default().with_error_code(code.code());
            return Stage::Done(respond(&header, &refused));
        }
    };
    let shard = Rc::clone(shard);
    Stage::waits(async move {
        let response = ListTransactionsResponse::default().with_unknown_state_filters(unknown);
        // States that are none leave nothing to be found.
        let nothing = !request.state_filters.is_empty() && filter.states.is_empty();
        let listings = match nothing {
            true => Ok(Vec::new()),
            false => listings(&shard, filter).await,
        };
        let response = match listings {
            Ok(listings) => {
                let states = listings.into_iter().map(|listing| {
                    Listed::default()
                        .with_transactional_id(StrBytes::from_string(listing.id).into())
                        .with_producer_id(listing.producer_id.into())
                        .with_transaction_state(StrBytes::from_static_str(listing.state.name()))
                });
                response.with_transaction_states(states.collect())
            }
            Err(error) => response.with_error_code(error.code()),
        };
        respond(&header, &response)
    })
}

/// The filter of a request, and the names of states that are none.
fn filter_of(request: &ListTransactionsRequest, version: i16) -> Result<(Filter, Vec<StrBytes>)> {
    let state = |name: &StrBytes| State::ALL.into_iter().find(|state| state.name() == &**name);
    let names = request.state_filters.iter();
    let unknown = names.clone().filter(|name| state(name).is_none());
    let pattern = request.transactional_id_pattern.as_deref();
    let pattern = pattern.filter(|text| !text.is_empty()).map(Pattern::new);
    let filter = Filter {
        states: names.clone().filter_map(state).collect(),
        producer_ids: request.producer_id_filters.iter().map(|id| **id).collect(),
        longer_than_ms: match version {
            0 => ANY_DURATION,
            _ => request.duration_filter,
        },
        pattern: pattern
            .transpose()
            .map_err(|_| ErrorCode::InvalidRegularExpression)?,
    };
    Ok((filter, unknown.cloned().collect()))
}

/// The transactions of all cores.
async fn listings(shard: &Rc<Shard>, filter: Filter) -> Result<Vec<Listing>> {
    let call = || {
        let ask = TransactionAsk::List(filter.clone());
        Call::Transaction(TransactionCall { home: 0, ask })
    };
    let (mut all, mut bytes) = (Vec::new(), 0_usize);
    for answer in shard.ask_all(call).await {
        let Answer::Transaction(TransactionAnswer::Listed(listed)) = answer else {
            unreachable!("a list was asked for");
        };
        let listed: std::result::Result<_, TransactionError> = listed;
        let listed = listed?;
        let sizes = listed
            .iter()
            .map(|listing| listing.id.len() + ELEMENT_BYTES);
        bytes += sizes.sum::<usize>();
        if bytes > MAX_ANSWER_BYTES {
            // Filters make it less.
            return Err(ErrorCode::InvalidRequest);
        }
        all.extend(listed);
    }
    Ok(all)
}

// ---- WriteTxnMarkers ----

pub(crate) async fn write_markers(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: WriteTxnMarkersRequest,
) -> Stage {
    let shard = Rc::clone(shard);
    Stage::waits(async move {
        let mut results = Vec::with_capacity(request.markers.len());
        for marker in request.markers {
            results.push(write_marker(&shard, marker).await);
        }
        let response = WriteTxnMarkersResponse::default().with_markers(results);
        respond(&header, &response)
    })
}

async fn write_marker(shard: &Rc<Shard>, asked: WritableTxnMarker) -> WritableTxnMarkerResult {
    let marker = EndTxnMarker {
        producer_id: *asked.producer_id,
        producer_epoch: asked.producer_epoch,
        coordinator_epoch: asked.coordinator_epoch,
        committed: asked.transaction_result,
    };
    let is_valid = marker.producer_id >= 0 && marker.producer_epoch >= 0;
    let (mut known, mut calls) = (Vec::new(), Vec::new());
    for topic in &asked.topics {
        for number in &topic.partition_indexes {
            let id = shard.partition_id(&topic.name, *number);
            let id = id.and_then(|id| match is_valid {
                true => Ok(id),
                false => Err(ErrorCode::InvalidRequest),
            });
            known.push(id.map(drop));
            if let Ok(id) = id {
                calls.push((shard.router.owner(id), (id, marker)));
            }
        }
    }
    let marked = shard.scatter(calls, Call::Markers, take_marked).await.await;
    let (mut known, mut marked) = (known.into_iter(), marked.into_iter());
    let mut code = || {
        let result = known.next().unwrap_or(Ok(()));
        let result = result.and_then(|()| marked.next().unwrap_or(Ok(())));
        result.err().unwrap_or(ErrorCode::None)
    };
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter().map(|number| {
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(number)
                .with_error_code(code().code())
        });
        WritableTxnMarkerTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    WritableTxnMarkerResult::default()
        .with_producer_id(asked.producer_id)
        .with_topics(topics.collect())
}
