//! The requests of a transactional producer without mercy or cleverness, of the old protocol or the
//! new (KIP-890).

use std::collections::BTreeMap;
use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use ringmill_wire::kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    TopicName, TxnOffsetCommitRequest,
};

use super::super::client::RingClient;
use super::scene::{GROUP, Scene, text};
use crate::checkers::{Incarnation, Place, Transaction, TxnEnd};
use crate::plain::PlainError;

/// A transaction whose producer is silent is aborted after so long.
pub(in crate::simulation) const TIMEOUT: Duration = Duration::from_secs(8);
/// How often the coordinator looks for those.
pub(in crate::simulation) const ABORT_CHECK: Duration = Duration::from_secs(2);
/// A request is sent again so often, at most.
const TRIES_MAX: usize = 400;

/// A request that was refused, or whose answer did not come.
#[derive(Debug)]
pub(in crate::simulation) enum Failed {
    /// The broker says no to this request, with this code.
    Refused(&'static str, i16),
    /// As [`Failed::Refused`], to a request that may have been taken before.
    RefusedAgain(&'static str, i16),
    /// Nobody knows.
    Lost(PlainError),
    /// It was to be sent again and again.
    GaveUp,
}

impl From<PlainError> for Failed {
    fn from(error: PlainError) -> Self {
        Self::Lost(error)
    }
}

impl Failed {
    /// The request has certainly done nothing.
    pub(in crate::simulation) fn was_never_taken(&self) -> bool {
        matches!(self, Self::Refused(..))
    }

    /// What no broker may answer is a scandal.
    pub(in crate::simulation) fn tell(&self, scene: &Scene) {
        match self {
            Self::Lost(error) => scene.lost("a transaction", error),
            Self::Refused(what, code) | Self::RefusedAgain(what, code) => {
                let error = ErrorCode::from_code(*code);
                if !error.is_some_and(ends_an_incarnation) {
                    scene.scandal(|| format!("{what} is answered with {error:?} ({code})"));
                }
            }
            Self::GaveUp => {}
        }
    }
}

/// Another incarnation has taken over, the transaction took too long, or the disk fails.
fn ends_an_incarnation(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidTxnState
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::ProducerFenced
            | ErrorCode::TransactionAbortable
    )
}

pub(in crate::simulation) type Done<T> = Result<T, Failed>;

/// Sends a request again for as long as it is told to.
pub(in crate::simulation) async fn until_served(
    what: &'static str,
    mut ask: impl AsyncFnMut() -> Result<i16, PlainError>,
) -> Done<()> {
    let mut refused: fn(&'static str, i16) -> Failed = Failed::Refused;
    for _ in 0..TRIES_MAX {
        let code = ask().await?;
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => return Ok(()),
            // another node coordinates by now
            Some(ErrorCode::NotCoordinator) => {
                let error = std::io::Error::from(std::io::ErrorKind::NotConnected);
                return Err(Failed::Lost(error.into()));
            }
            Some(ErrorCode::ConcurrentTransactions) => sleep(Duration::from_millis(25)).await,
            Some(error) if error.is_retriable() => {
                refused = Failed::RefusedAgain;
                sleep(Duration::from_millis(25)).await;
            }
            _ => return Err(refused(what, code)),
        }
    }
    Err(Failed::GaveUp)
}

/// One incarnation.
pub(in crate::simulation) struct Producer {
    pub(in crate::simulation) client: RingClient,
    pub(in crate::simulation) name: String,
    pub(in crate::simulation) number: u32,
    pub(in crate::simulation) is_new: bool,
    pub(in crate::simulation) producer_id: i64,
    pub(in crate::simulation) producer_epoch: i16,
    pub(in crate::simulation) sequences: BTreeMap<Place, i32>,
    /// Its number as a writer.
    pub(in crate::simulation) writer: u32,
    incarnation: usize,
    /// The present transaction, or the one before.
    pub(in crate::simulation) transaction: Option<usize>,
}

impl Producer {
    /// Takes over from the incarnation before.
    pub(in crate::simulation) async fn init(
        scene: &Scene,
        mut client: RingClient,
        name: String,
        number: u32,
        is_new: bool,
    ) -> Done<Self> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(text(&name).into()))
            .with_transaction_timeout_ms(TIMEOUT.as_millis() as i32)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let mut granted = (-1, -1);
        let mut init = scene.ask();
        until_served("InitProducerId", async || {
            let response = client.call(4, &request).await?;
            granted = (*response.producer_id, response.producer_epoch);
            Ok(response.error_code)
        })
        .await?;
        scene.done(&mut init);
        let mut book = scene.book.borrow_mut();
        book.incarnations.push(Incarnation {
            transactional_id: number,
            init,
        });
        Ok(Self {
            client,
            name,
            number,
            is_new,
            producer_id: granted.0,
            producer_epoch: granted.1,
            sequences: BTreeMap::new(),
            writer: scene.number(),
            incarnation: book.incarnations.len() - 1,
            transaction: None,
        })
    }

    /// The next transaction makes something of these records.
    pub(in crate::simulation) fn begin(
        &mut self,
        scene: &Scene,
        source: (Place, i64, i64),
    ) -> usize {
        let mut book = scene.book.borrow_mut();
        book.transactions.push(Transaction {
            incarnation: self.incarnation,
            source,
            commit: None,
            end: TxnEnd::Dropped,
        });
        let number = book.transactions.len() - 1;
        self.transaction = Some(number);
        number
    }

    /// Tells the coordinator of a partition, as the old protocol does.
    pub(in crate::simulation) async fn add(&mut self, topic: &str, partition: i32) -> Done<()> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(text(&self.name).into())
            .with_v3_and_below_producer_id(self.producer_id.into())
            .with_v3_and_below_producer_epoch(self.producer_epoch)
            .with_v3_and_below_topics(vec![topic]);
        until_served("AddPartitionsToTxn", async || {
            let response = self.client.call(3, &request).await?;
            let topic = response.results_by_topic_v3_and_below.first();
            let partition = topic.and_then(|topic| topic.results_by_partition.first());
            Ok(partition.map_or(-1, |p| p.partition_error_code))
        })
        .await
    }

    /// Commits an offset within the transaction.
    pub(in crate::simulation) async fn commit_offset(
        &mut self,
        scene: &Scene,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
        number: usize,
    ) -> Done<()> {
        if !self.is_new {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(text(&self.name).into())
                .with_producer_id(self.producer_id.into())
                .with_producer_epoch(self.producer_epoch)
                .with_group_id(text(group).into());
            until_served("AddOffsetsToTxn", async || {
                Ok(self.client.call(3, &request).await?.error_code)
            })
            .await?;
        }
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text(&number.to_string())));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(text(&self.name).into())
            .with_group_id(text(group).into())
            .with_producer_id(self.producer_id.into())
            .with_producer_epoch(self.producer_epoch)
            .with_generation_id(-1)
            .with_group_instance_id(None)
            .with_topics(vec![topic]);
        let version = if self.is_new { 5 } else { 3 };
        until_served("TxnOffsetCommit", async || {
            let client = &mut self.client;
            let mut coordinator = scene.way_to_coordinator(client, GROUP, group).await?;
            let response = coordinator.call(version, &request).await?;
            let partition = response.topics.first().and_then(|t| t.partitions.first());
            Ok(partition.map_or(-1, |p| p.error_code))
        })
        .await
    }

    /// Ends the transaction.
    pub(in crate::simulation) async fn end(&mut self, committed: bool) -> Done<()> {
        let request = EndTxnRequest::default()
            .with_transactional_id(text(&self.name).into())
            .with_producer_id(self.producer_id.into())
            .with_producer_epoch(self.producer_epoch)
            .with_committed(committed);
        let version = if self.is_new { 5 } else { 3 };
        let mut granted = (self.producer_id, self.producer_epoch);
        until_served("EndTxn", async || {
            let response = self.client.call(version, &request).await?;
            if version >= 5 {
                granted = (*response.producer_id, response.producer_epoch);
            }
            Ok(response.error_code)
        })
        .await?;
        if granted != (self.producer_id, self.producer_epoch) {
            self.sequences.clear();
        }
        (self.producer_id, self.producer_epoch) = granted;
        Ok(())
    }
}
