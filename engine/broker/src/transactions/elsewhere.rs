//! What transactions ask of other nodes: a partition's leader asks the coordinator whether a producer
//! may write (AddPartitionsToTxn, KIP-890), and the coordinator tells leaders how a transaction has
//! ended (WriteTxnMarkers).

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ringmill_log::EndTxnMarker;
use ringmill_replication::partition::NodeId;
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
use crate::peers::{Destination, Lane};
use crate::router::Result;
use crate::shard::Shard;

/// How long another node may take to answer; whoever waits asks again.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A partition and what became of its marker.
pub(super) type Marked = (TopicPartition, Result<()>);

impl Shard {
    /// The node that leads a partition, if it is another than this one.
    pub(super) fn led_elsewhere(&self, topic: &str, partition: i32) -> Option<Destination> {
        let image = self.image();
        let leader = image.topic(topic)?.partition(partition)?.leader?;
        let state = image.nodes().get(&leader)?;
        let is_other = leader != self.config.node_id && !planted("markers-not-sent");
        is_other.then(|| Destination {
            lane: Lane::Transactions,
            node: leader,
            address: state.address.clone(),
        })
    }

    /// Has the coordinator on another node say that a partition is part of a transaction, or make it
    /// so.
    pub(super) async fn ask_coordinator_at(
        &self,
        to: &Destination,
        (id, producer): (&str, Producer),
        part: TopicPartition,
        verify_only: bool,
    ) -> std::result::Result<(), TransactionError> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name(&part.topic))
            .with_partitions(vec![part.partition]);
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(StrBytes::from_string(id.to_owned()).into())
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(vec![topic]);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let answer = self.peers.call(to, &request, ANSWER_TIME).await;
        let answer = answer.map_err(|error| {
            tracing::debug!(node = to.node, %error, "a transaction's coordinator does not answer");
            TransactionError::CoordinatorNotAvailable
        })?;
        let results = answer.results_by_transaction.into_iter();
        let mut parts = results
            .flat_map(|transaction| transaction.topic_results)
            .flat_map(|topic| topic.results_by_partition);
        let code = parts.next().map(|part| part.partition_error_code);
        told(code.and_then(ErrorCode::from_code))
    }

    /// Writes a marker to partitions that other nodes lead.
    pub(super) async fn write_markers_elsewhere(
        &self,
        marker: EndTxnMarker,
        parts: Vec<(Destination, TopicPartition)>,
    ) -> Vec<Marked> {
        let mut by_node: BTreeMap<NodeId, (Destination, Vec<TopicPartition>)> = BTreeMap::new();
        for (to, part) in parts {
            let (_, parts) = by_node.entry(to.node).or_insert((to, Vec::new()));
            parts.push(part);
        }
        let told = by_node
            .into_values()
            .map(|(to, parts)| self.write_markers_at(marker, to, parts));
        join_all(told).await.into_iter().flatten().collect()
    }

    async fn write_markers_at(
        &self,
        marker: EndTxnMarker,
        to: Destination,
        parts: Vec<TopicPartition>,
    ) -> Vec<Marked> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for part in &parts {
            topics.entry(&part.topic).or_default().push(part.partition);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            WritableTxnMarkerTopic::default()
                .with_name(name(topic))
                .with_partition_indexes(partitions)
        });
        let wanted = WritableTxnMarker::default()
            .with_producer_id(marker.producer_id.into())
            .with_producer_epoch(marker.producer_epoch)
            .with_coordinator_epoch(marker.coordinator_epoch)
            .with_transaction_result(marker.committed)
            .with_topics(topics.collect());
        let request = WriteTxnMarkersRequest::default().with_markers(vec![wanted]);
        let mut codes: BTreeMap<(String, i32), i16> = BTreeMap::new();
        match self.peers.call(&to, &request, ANSWER_TIME).await {
            Ok(answer) => {
                let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
                for topic in topics {
                    for part in topic.partitions {
                        let key = (topic.name.to_string(), part.partition_index);
                        codes.insert(key, part.error_code);
                    }
                }
            }
            Err(error) => tracing::debug!(node = to.node, %error, "markers are not answered"),
        }
        let result = |part: &TopicPartition| {
            let code = codes.get(&(part.topic.clone(), part.partition)).copied();
            match code.map(ErrorCode::from_code) {
                Some(Some(ErrorCode::None)) => Ok(()),
                Some(Some(code)) => Err(code),
                Some(None) | None => Err(ErrorCode::RequestTimedOut),
            }
        };
        let marked = parts.into_iter().map(|part| {
            let result = result(&part);
            (part, result)
        });
        marked.collect()
    }
}

fn name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

/// What a coordinator's code means.
fn told(code: Option<ErrorCode>) -> std::result::Result<(), TransactionError> {
    Err(match code {
        Some(ErrorCode::None) => return Ok(()),
        Some(ErrorCode::InvalidProducerIdMapping) => TransactionError::InvalidProducerIdMapping,
        Some(ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch) => {
            TransactionError::ProducerFenced
        }
        Some(ErrorCode::ConcurrentTransactions) => TransactionError::ConcurrentTransactions,
        Some(ErrorCode::InvalidTxnState) => TransactionError::InvalidState,
        Some(ErrorCode::TransactionAbortable) => TransactionError::NotInTransaction,
        Some(ErrorCode::CoordinatorLoadInProgress) => TransactionError::LoadInProgress,
        Some(ErrorCode::NotCoordinator) => TransactionError::NotCoordinator,
        // Its metadata may lag, or it is out of reach: the producer tries again.
        _ => TransactionError::CoordinatorNotAvailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_coordinator_says_comes_back_as_it_was_meant() {
        for error in [
            TransactionError::InvalidProducerIdMapping,
            TransactionError::ProducerFenced,
            TransactionError::ConcurrentTransactions,
            TransactionError::InvalidState,
            TransactionError::NotInTransaction,
            TransactionError::LoadInProgress,
            TransactionError::NotCoordinator,
            TransactionError::CoordinatorNotAvailable,
        ] {
            assert_eq!(told(Some(ErrorCode::from(error))), Err(error));
        }
        assert_eq!(told(Some(ErrorCode::None)), Ok(()));
        let not_available = Err(TransactionError::CoordinatorNotAvailable);
        assert_eq!(
            told(Some(ErrorCode::UnknownTopicOrPartition)),
            not_available
        );
        assert_eq!(told(None), not_available);
    }
}
