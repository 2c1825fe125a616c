//! Transactions between nodes: the coordinator tells the leaders of other nodes' partitions how a
//! transaction has ended (WriteTxnMarkers), and a partition's leader asks another node's coordinator
//! whether the partition takes part (AddPartitionsToTxn, KIP-890).

use std::time::Duration;

use ringmill_log::EndTxnMarker;
use ringmill_ring::planted;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ringmill_wire::kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddPartitionsToTxnRequest, TopicName, WriteTxnMarkersRequest,
};

use super::{Producer, TopicPartition, TransactionError};
use crate::cluster::image::TRANSACTIONS_TOPIC;
use crate::peers::{Destination, Lane};
use crate::router::Result;
use crate::shard::Shard;

/// How long another node may take: it has to have its followers flush a marker.
const ANSWER_TIME: Duration = Duration::from_secs(5);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Shard {
    /// The node that leads a partition, if it is another one.
    pub(super) fn led_elsewhere(&self, topic: &str, partition: i32) -> Option<Destination> {
        let image = self.image();
        let leader = image.topic(topic)?.partition(partition)?.leader?;
        let node = image.nodes().get(&leader)?;
        let is_other = leader != self.config.node_id && !planted("markers-not-sent");
        is_other.then(|| Destination {
            lane: Lane::Transactions,
            node: leader,
            address: node.address.clone(),
        })
    }

    /// The node that coordinates a transactional id, if it is another one.
    pub(super) fn coordinated_elsewhere(&self, id: &str) -> Option<Destination> {
        let (_, index) = self.home_of_transaction(id).ok()?;
        self.led_elsewhere(TRANSACTIONS_TOPIC, index)
    }

    /// Has another node write a marker to partitions that it leads.
    pub(super) async fn write_markers_at(
        &self,
        to: &Destination,
        marker: EndTxnMarker,
        partitions: &[TopicPartition],
    ) -> Vec<Result<()>> {
        let topics = partitions.iter().map(|part| {
            WritableTxnMarkerTopic::default()
                .with_name(TopicName(text(&part.topic)))
                .with_partition_indexes(vec![part.partition])
        });
        let wanted = WritableTxnMarker::default()
            .with_producer_id(marker.producer_id.into())
            .with_producer_epoch(marker.producer_epoch)
            .with_transaction_result(marker.committed)
            .with_topics(topics.collect())
            .with_coordinator_epoch(marker.coordinator_epoch);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![wanted]);
        let answer = self.peers.call(to, &request, ANSWER_TIME).await;
        let answered = answer.ok().and_then(|mut answer| answer.markers.pop());
        let codes = answered.iter().flat_map(|marker| &marker.topics);
        let codes = codes.flat_map(|topic| topic.partitions.iter().map(|part| part.error_code));
        let results = codes.map(|code| match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => Ok(()),
            error => Err(error.unwrap_or(ErrorCode::UnknownServerError)),
        });
        // What was not answered has to be asked again.
        let unanswered = std::iter::repeat(Err(ErrorCode::NotLeaderOrFollower));
        results.chain(unanswered).take(partitions.len()).collect()
    }

    /// Asks another node's coordinator whether a partition is part of a producer's transaction, or
    /// has it become one.
    pub(super) async fn ask_coordinator_at(
        &self,
        to: &Destination,
        (id, producer): (&str, Producer),
        part: &TopicPartition,
        verify_only: bool,
    ) -> std::result::Result<(), TransactionError> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(&part.topic)))
            .with_partitions(vec![part.partition]);
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(text(id).into())
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(vec![topic]);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let answer = self.peers.call(to, &request, ANSWER_TIME).await;
        let answer = answer.map_err(|error| {
            tracing::debug!(node = to.node, %error, "a coordinator does not answer");
            TransactionError::CoordinatorNotAvailable
        })?;
        let result = answer.results_by_transaction.first();
        let topic = result.and_then(|result| result.topic_results.first());
        let part = topic.and_then(|topic| topic.results_by_partition.first());
        refusal_of(part.map_or(-1, |part| part.partition_error_code)).map_or(Ok(()), Err)
    }
}

/// What a coordinator means by a code; none if it has no objection.
fn refusal_of(code: i16) -> Option<TransactionError> {
    Some(match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => return None,
        Some(ErrorCode::InvalidProducerIdMapping) => TransactionError::InvalidProducerIdMapping,
        Some(ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch) => {
            TransactionError::ProducerFenced
        }
        Some(ErrorCode::ConcurrentTransactions) => TransactionError::ConcurrentTransactions,
        Some(ErrorCode::TransactionAbortable) => TransactionError::NotInTransaction,
        Some(ErrorCode::InvalidTxnState) => TransactionError::InvalidState,
        Some(ErrorCode::InvalidRequest) => TransactionError::InvalidRequest,
        Some(ErrorCode::PolicyViolation) => TransactionError::LimitReached,
        Some(ErrorCode::CoordinatorLoadInProgress) => TransactionError::LoadInProgress,
        // It does not coordinate any more, or does not know of the partition yet.
        _ => TransactionError::CoordinatorNotAvailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one node's coordinator says, another's hears.
    #[test]
    fn a_refusal_comes_through() {
        let all = [
            TransactionError::InvalidRequest,
            TransactionError::CoordinatorNotAvailable,
            TransactionError::LoadInProgress,
            TransactionError::InvalidProducerIdMapping,
            TransactionError::ProducerFenced,
            TransactionError::ConcurrentTransactions,
            TransactionError::InvalidState,
            TransactionError::NotInTransaction,
            TransactionError::LimitReached,
        ];
        for error in all {
            assert_eq!(refusal_of(ErrorCode::from(error).code()), Some(error));
        }
        assert_eq!(refusal_of(ErrorCode::None.code()), None);
        let gone = refusal_of(ErrorCode::NotCoordinator.code());
        assert_eq!(gone, Some(TransactionError::CoordinatorNotAvailable));
    }
}
