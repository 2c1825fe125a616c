//! Transactions as administrators see them (KIP-664): which are open, and ending one that hangs.

use std::collections::BTreeSet;
use std::time::Duration;

use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    DescribeTransactionsRequest, InitProducerIdRequest, ListTransactionsRequest,
    WriteTxnMarkersRequest,
};

use super::{Admin, AdminError, ProducerState, check, text, unanswered};
use crate::assignor::TopicPartition;
use crate::cluster::Coordinated;
use crate::metadata::error_code;

/// A producer without an id or epoch of its own.
const NO_PRODUCER: i64 = -1;
/// The first version that filters by duration.
const FIRST_WITH_DURATION: i16 = 1;
/// Long enough for a producer that is fenced at once.
const FENCING_TIMEOUT_MS: i32 = 1;

/// Which transactions to list.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use ringmill_client::TransactionFilter;
///
/// let suspicious = TransactionFilter {
///     states: vec!["Ongoing".into()],
///     longer_than: Some(Duration::from_secs(600)),
///     ..TransactionFilter::default()
/// };
/// # let _ = suspicious;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionFilter {
    /// In one of these states; in any, without.
    pub states: Vec<String>,
    /// Of these producers; of any, without.
    pub producer_ids: Vec<i64>,
    /// Open for longer than this.
    pub longer_than: Option<Duration>,
}

/// A transaction as a list shows it.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// for open in admin.transactions(Default::default()).await? {
///     println!("{} of producer {}: {}", open.transactional_id, open.producer_id, open.state);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionListing {
    /// The producers' lasting name.
    pub transactional_id: String,
    /// The producer that has it now.
    pub producer_id: i64,
    /// `Empty`, `Ongoing`, `PrepareCommit`, `CompleteAbort` and so on.
    pub state: String,
}

/// One transactional id and its transaction.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// let billing = admin.describe_transaction("billing-1").await?;
/// if let Some(since) = billing.started_ms {
///     println!("open since {since}, on {} partitions", billing.partitions.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// `Empty`, `Ongoing`, `PrepareCommit`, `CompleteAbort` and so on.
    pub state: String,
    /// The producer that has it now.
    pub producer_id: i64,
    /// That producer's epoch.
    pub producer_epoch: i16,
    /// The coordinator aborts it after this long.
    pub timeout: Duration,
    /// When it began, in milliseconds since the Unix epoch; none while there is none.
    pub started_ms: Option<i64>,
    /// What it has written to.
    pub partitions: BTreeSet<TopicPartition>,
}

impl Admin {
    /// The transactional ids of all brokers, by name.
    pub async fn transactions(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>, AdminError> {
        let nodes: Vec<i32> = self.0.image().brokers.keys().copied().collect();
        let ids = filter.producer_ids.iter().map(|id| (*id).into());
        let states = filter.states.iter().map(|state| text(state));
        let request = ListTransactionsRequest::default()
            .with_state_filters(states.collect())
            .with_producer_id_filters(ids.collect());
        let mut all = BTreeSet::new();
        for node in nodes {
            let what = format!("broker {node}");
            let of_node = self
                .0
                .retried(async || {
                    let connection = self.0.node(node).await?;
                    let version = connection
                        .version(<ListTransactionsRequest as Call>::KEY, i16::MAX)
                        .map_err(crate::connection::CallError::from)?;
                    let request = match filter.longer_than {
                        Some(duration) if version >= FIRST_WITH_DURATION => {
                            request.clone().with_duration_filter(
                                i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
                            )
                        }
                        Some(_) => {
                            return check(&what, ErrorCode::UnsupportedVersion.code(), None)
                                .map(|()| Vec::new());
                        }
                        None => request.clone(),
                    };
                    let response = connection.call_at(version, &request, self.limit()).await?;
                    check(&what, response.error_code, None)?;
                    if let Some(unknown) = response.unknown_state_filters.first() {
                        let words = format!("there is no state {:?}", &**unknown);
                        check(&what, ErrorCode::InvalidRequest.code(), Some(text(&words)))?;
                    }
                    Ok::<_, AdminError>(response.transaction_states)
                })
                .await?;
            all.extend(of_node.into_iter().map(|listed| TransactionListing {
                transactional_id: listed.transactional_id.to_string(),
                producer_id: listed.producer_id.0,
                state: listed.transaction_state.to_string(),
            }));
        }
        Ok(all.into_iter().collect())
    }

    /// A transactional id and its transaction.
    pub async fn describe_transaction(
        &self,
        transactional_id: &str,
    ) -> Result<TransactionDescription, AdminError> {
        let what = format!("transactional id {transactional_id:?}");
        let ids = vec![text(transactional_id).into()];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        self.0
            .retried(async || {
                let kind = Coordinated::Transaction;
                let coordinator = self.0.coordinator_of(kind, transactional_id).await?;
                let connection = self.0.node(coordinator).await?;
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.transaction_states.pop();
                let answer = answer.ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, None)?;
                let partitions = answer.topics.iter().flat_map(|topic| {
                    let partitions = topic.partitions.iter();
                    partitions.map(|partition| TopicPartition::new(&*topic.topic.0, *partition))
                });
                let timeout = u64::try_from(answer.transaction_timeout_ms).unwrap_or(0);
                let started = answer.transaction_start_time_ms;
                Ok(TransactionDescription {
                    coordinator,
                    state: answer.transaction_state.to_string(),
                    producer_id: answer.producer_id.0,
                    producer_epoch: answer.producer_epoch,
                    timeout: Duration::from_millis(timeout),
                    started_ms: Some(started).filter(|ms| *ms >= 0),
                    partitions: partitions.collect(),
                })
            })
            .await
    }

    /// Ends a transaction that hangs on one partition, as its records' abort: for one that its
    /// coordinator does not know any more. `producer` is as [`Admin::producers`] tells it.
    pub async fn abort_transaction(
        &self,
        partition: &TopicPartition,
        producer: &ProducerState,
    ) -> Result<(), AdminError> {
        let topic = WritableTxnMarkerTopic::default()
            .with_name(text(&partition.topic).into())
            .with_partition_indexes(vec![partition.partition]);
        let epoch = i16::try_from(producer.producer_epoch).unwrap_or(i16::MAX);
        let marker = WritableTxnMarker::default()
            .with_producer_id(producer.producer_id.into())
            .with_producer_epoch(epoch)
            // −1 of a producer that has ended no transaction: 0 is as old as any
            .with_coordinator_epoch(producer.coordinator_epoch.max(0))
            .with_transaction_result(false)
            .with_topics(vec![topic]);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let what = format!("producer {} in {partition}", producer.producer_id);
        self.0
            .retried(async || {
                let leader = self.0.leader(partition).await?;
                let connection = self.0.node(leader).await?;
                let response = connection.call(&request, self.limit()).await?;
                let topics = response
                    .markers
                    .into_iter()
                    .flat_map(|marker| marker.topics);
                let answer = topics.flat_map(|topic| topic.partitions).next();
                let answer = answer.ok_or_else(|| unanswered(&what))?;
                if error_code(answer.error_code).is_retriable() {
                    self.0.request_refresh();
                }
                check(&what, answer.error_code, None)
            })
            .await
    }

    /// Makes whoever has this transactional id its owner no more: its transaction is aborted, and it
    /// is refused from now on. Returns the producer id and epoch that it has now.
    pub async fn fence_producer(&self, transactional_id: &str) -> Result<(i64, i16), AdminError> {
        let what = format!("transactional id {transactional_id:?}");
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(text(transactional_id).into()))
            .with_transaction_timeout_ms(FENCING_TIMEOUT_MS)
            .with_producer_id(NO_PRODUCER.into())
            .with_producer_epoch(NO_PRODUCER as i16);
        self.0
            .retried(async || {
                let kind = Coordinated::Transaction;
                let coordinator = self.0.coordinator_of(kind, transactional_id).await?;
                let connection = self.0.node(coordinator).await?;
                let response = connection.call(&request, self.limit()).await?;
                // the transaction that was open is being aborted
                let code = match error_code(response.error_code) {
                    ErrorCode::ConcurrentTransactions => ErrorCode::CoordinatorNotAvailable.code(),
                    _ => response.error_code,
                };
                check(&what, code, None)?;
                Ok((response.producer_id.0, response.producer_epoch))
            })
            .await
    }
}
