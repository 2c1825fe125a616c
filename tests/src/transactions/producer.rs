//! A transactional producer without mercy or cleverness, of the old protocol or the new (KIP-890).

use ringmill_wire::StrBytes;
use ringmill_wire::batch::ProducerStamp;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, OffsetFetchRequest, TopicName, TxnOffsetCommitRequest,
};
use ringmill_wire::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use ringmill_wire::topic::TopicRef;

use super::{GROUP, Made, PARTITIONS, SINK, SOURCE, TIMEOUT_MS, batch};
use crate::plain::{PlainClient, PlainError};

/// Errors after which the same request is sent again: the coordinator is busy, or still loading.
const AGAIN: [i16; 5] = [
    14, // COORDINATOR_LOAD_IN_PROGRESS
    15, // COORDINATOR_NOT_AVAILABLE
    19, // NOT_ENOUGH_REPLICAS, a produce while the coordinator is busy
    51, // CONCURRENT_TRANSACTIONS
    88, // UNSTABLE_OFFSET_COMMIT
];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Makes the topics that the coordinators keep their state in.
pub(super) fn find_coordinators(client: &mut PlainClient) -> Result<(), PlainError> {
    for key_type in [0, 1] {
        let request = FindCoordinatorRequest::default()
            .with_key_type(key_type)
            .with_coordinator_keys(vec![text(GROUP)]);
        client.call(4, &request)?;
    }
    Ok(())
}

/// A request that was refused, or whose answer did not come.
#[derive(Debug)]
pub(super) enum Failed {
    /// The broker says no, with this code.
    Refused(i16),
    /// Nobody knows.
    Lost(PlainError),
}

impl From<PlainError> for Failed {
    fn from(error: PlainError) -> Self {
        Self::Lost(error)
    }
}

pub(super) type Done<T> = Result<T, Failed>;

/// Sends a request again for as long as it is told to.
fn until_served(mut ask: impl FnMut() -> Result<i16, PlainError>) -> Done<()> {
    loop {
        match ask()? {
            0 => return Ok(()),
            code if AGAIN.contains(&code) => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            code => return Err(Failed::Refused(code)),
        }
    }
}

/// One incarnation of a worker's producer.
pub(super) struct Producer {
    pub(super) client: PlainClient,
    id: StrBytes,
    source: i32,
    is_new: bool,
    producer_id: i64,
    epoch: i16,
    sequences: [i32; PARTITIONS as usize],
}

impl Producer {
    /// Takes over from the incarnation before.
    pub(super) fn init(client: PlainClient, source: i32, is_new: bool) -> Done<Self> {
        let mut producer = Self {
            client,
            id: text(&format!("worker-{source}")),
            source,
            is_new,
            producer_id: -1,
            epoch: -1,
            sequences: [0; PARTITIONS as usize],
        };
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(producer.id.clone().into()))
            .with_transaction_timeout_ms(TIMEOUT_MS)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let mut granted = (-1, -1);
        until_served(|| {
            let response = producer.client.call(4, &request)?;
            granted = (*response.producer_id, response.producer_epoch);
            Ok(response.error_code)
        })?;
        (producer.producer_id, producer.epoch) = granted;
        Ok(producer)
    }

    /// Where the incarnations before have got to, once that is decided.
    pub(super) fn committed(&mut self) -> Done<i64> {
        committed_offset(&mut self.client, self.source)
    }

    /// Writes records to partitions of the sink in the present transaction, in one request.
    pub(super) fn produce(&mut self, parts: Vec<(i32, Vec<Made>)>) -> Done<()> {
        if !self.is_new {
            self.add(parts.iter().map(|(partition, _)| *partition).collect())?;
        }
        let partitions = parts.into_iter().map(|(index, made)| {
            let values: Vec<Vec<u8>> = made.into_iter().map(Made::encode).collect();
            let sequence = &mut self.sequences[index as usize];
            let stamp = ProducerStamp {
                producer_id: self.producer_id,
                producer_epoch: self.epoch,
                base_sequence: *sequence,
                transactional: true,
            };
            *sequence += values.len() as i32;
            let records = batch(&values, stamp);
            ProducePartition { index, records }
        });
        let partitions: Vec<ProducePartition> = partitions.collect();
        // Batches that were taken are not sent again in the same request: each goes by itself.
        for partition in partitions {
            let request = ProduceRequest {
                transactional_id: Some(self.id.clone()),
                acks: -1,
                timeout_ms: 20_000,
                topics: vec![ProduceTopic {
                    topic: TopicRef::Name(text(SINK)),
                    partitions: vec![partition],
                }],
            };
            let version = if self.is_new { 12 } else { 11 };
            until_served(|| {
                let response = self.client.send_produce(version, &request)?;
                Ok(response.topics[0].partitions[0].error_code)
            })?;
        }
        Ok(())
    }

    fn add(&mut self, partitions: Vec<i32>) -> Done<()> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(SINK)))
            .with_partitions(partitions);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id.clone().into())
            .with_v3_and_below_producer_id(self.producer_id.into())
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        until_served(|| {
            let response = self.client.call(3, &request)?;
            let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
            let mut codes = results.iter().map(|result| result.partition_error_code);
            Ok(codes.find(|code| *code != 0).unwrap_or(0))
        })
    }

    /// Commits the offset of the source in the present transaction.
    pub(super) fn commit_offset(&mut self, offset: i64) -> Done<()> {
        if !self.is_new {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(self.id.clone().into())
                .with_producer_id(self.producer_id.into())
                .with_producer_epoch(self.epoch)
                .with_group_id(text(GROUP).into());
            until_served(|| Ok(self.client.call(3, &request)?.error_code))?;
        }
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(self.source)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(TopicName(text(SOURCE)))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.id.clone().into())
            .with_group_id(text(GROUP).into())
            .with_producer_id(self.producer_id.into())
            .with_producer_epoch(self.epoch)
            .with_generation_id(-1)
            .with_group_instance_id(None)
            .with_topics(vec![topic]);
        let version = if self.is_new { 5 } else { 3 };
        until_served(|| {
            let response = self.client.call(version, &request)?;
            Ok(response.topics[0].partitions[0].error_code)
        })
    }

    /// Ends the present transaction.
    pub(super) fn end(&mut self, committed: bool) -> Done<()> {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone().into())
            .with_producer_id(self.producer_id.into())
            .with_producer_epoch(self.epoch)
            .with_committed(committed);
        let version = if self.is_new { 5 } else { 3 };
        let mut granted = (self.producer_id, self.epoch);
        until_served(|| {
            let response = self.client.call(version, &request)?;
            if version >= 5 {
                granted = (*response.producer_id, response.producer_epoch);
            }
            Ok(response.error_code)
        })?;
        if granted != (self.producer_id, self.epoch) {
            self.sequences = [0; PARTITIONS as usize];
        }
        (self.producer_id, self.epoch) = granted;
        Ok(())
    }
}

/// A partition's committed offset, once no transaction may change it.
pub(super) fn committed_offset(client: &mut PlainClient, partition: i32) -> Done<i64> {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(TopicName(text(SOURCE)))
        .with_partition_indexes(vec![partition]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(text(GROUP).into())
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![group])
        .with_require_stable(true);
    let mut offset = 0;
    until_served(|| {
        let response = client.call(8, &request)?;
        let group = &response.groups[0];
        if group.error_code != 0 {
            return Ok(group.error_code);
        }
        let part = &group.topics[0].partitions[0];
        offset = part.committed_offset.max(0);
        Ok(part.error_code)
    })?;
    Ok(offset)
}
