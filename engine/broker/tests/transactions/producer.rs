//! A transactional producer on the wire, of either protocol.

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::sleep;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::header::response_correlation_id;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use ringmill_wire::kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, TxnOffsetCommitRequest,
};
use ringmill_wire::produce::ProduceResponse;

use crate::wire_client::{Client, batch_with, produce_request, topic_name};
use crate::{CONCURRENT_TRANSACTIONS, text};

/// Which protocol a producer speaks (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Old,
    New,
}

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Old, Protocol::New];

/// A transactional producer on a connection of its own.
pub(crate) struct Producer {
    pub(crate) client: Client,
    pub(crate) id: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The next sequence number of each partition.
    pub(crate) sequences: [i32; 8],
}

impl Producer {
    pub(crate) async fn new(id: &'static str, protocol: Protocol) -> Self {
        let mut producer = Self {
            client: Client::connect().await,
            id,
            protocol,
            producer_id: -1,
            epoch: -1,
            sequences: [0; 8],
        };
        let find = FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![text(id)]);
        let found = producer.client.call(6, &find).await;
        assert_eq!(found.coordinators[0].error_code, 0);
        while producer.init(30_000).await == CONCURRENT_TRANSACTIONS {
            sleep(Duration::from_millis(10)).await;
        }
        producer
    }

    pub(crate) async fn init(&mut self, timeout_ms: i32) -> i16 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(text(self.id).into()))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let response = self.client.call(5, &request).await;
        if response.error_code == 0 {
            self.producer_id = *response.producer_id;
            self.epoch = response.producer_epoch;
            self.sequences = [0; 8];
        }
        response.error_code
    }

    pub(crate) async fn add(&mut self, topic: &str, partitions: &[i32]) -> i16 {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(text(self.id).into())
            .with_v3_and_below_producer_id(self.producer_id.into())
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let response = self.client.call(3, &request).await;
        let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
        results[0].partition_error_code
    }

    pub(crate) fn batch(&mut self, partition: i32, values: &[&str]) -> Bytes {
        let next = &mut self.sequences[partition as usize];
        let stamp = ProducerStamp {
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            base_sequence: *next,
            transactional: true,
        };
        *next += values.len() as i32;
        batch_with(values, Compression::None, stamp)
    }

    pub(crate) fn version(&self) -> i16 {
        match self.protocol {
            Protocol::Old => 11,
            Protocol::New => 12,
        }
    }

    pub(crate) async fn ask_produce(&mut self, parts: Vec<(i32, Bytes)>) -> i32 {
        let header = self.client.header(ApiKey::Produce, self.version());
        let mut request = produce_request(-1, "t", parts);
        request.transactional_id = Some(text(self.id));
        self.client.send(request.encode(&header).unwrap()).await;
        header.correlation_id
    }

    pub(crate) async fn produced(&mut self, id: i32) -> Vec<(i16, i64)> {
        let frame = self.client.frame().await.expect("an answer");
        assert_eq!(response_correlation_id(&frame), Ok(id));
        let response = ProduceResponse::decode(self.version(), &frame).unwrap();
        let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
        parts
            .map(|part| (part.error_code, part.base_offset))
            .collect()
    }

    /// Produces to partitions, which an old client adds first.
    pub(crate) async fn produce(&mut self, parts: &[(i32, &str)]) {
        if self.protocol == Protocol::Old {
            let numbers: Vec<i32> = parts.iter().map(|(number, _)| *number).collect();
            while self.add("t", &numbers).await == CONCURRENT_TRANSACTIONS {}
        }
        let batches: Vec<_> = parts
            .iter()
            .map(|(number, value)| (*number, self.batch(*number, &[value])))
            .collect();
        loop {
            let id = self.ask_produce(batches.clone()).await;
            let produced = self.produced(id).await;
            if produced
                .iter()
                .all(|(error, _)| *error == CONCURRENT_TRANSACTIONS)
            {
                continue;
            }
            assert!(
                produced.iter().all(|(error, _)| *error == 0),
                "{produced:?}"
            );
            return;
        }
    }

    pub(crate) fn end_request(&self, committed: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(text(self.id).into())
            .with_producer_id(self.producer_id.into())
            .with_producer_epoch(self.epoch)
            .with_committed(committed)
    }

    pub(crate) async fn try_end(&mut self, committed: bool) -> i16 {
        let version = match self.protocol {
            Protocol::Old => 4,
            Protocol::New => 5,
        };
        let request = self.end_request(committed);
        let response = self.client.call(version, &request).await;
        if response.error_code == 0 && self.protocol == Protocol::New {
            assert_eq!(response.producer_epoch, self.epoch + 1);
            self.epoch = response.producer_epoch;
            self.sequences = [0; 8];
        }
        response.error_code
    }

    pub(crate) async fn end(&mut self, committed: bool) {
        let mut error = self.try_end(committed).await;
        while error == CONCURRENT_TRANSACTIONS {
            sleep(Duration::from_millis(5)).await;
            error = self.try_end(committed).await;
        }
        assert_eq!(error, 0);
    }

    /// Commits offset `offset` of partition 0 of topic `t` for group `g`.
    pub(crate) async fn commit_offset(&mut self, offset: i64) -> i16 {
        self.commit_offset_of("t", offset).await
    }

    pub(crate) async fn commit_offset_of(&mut self, topic: &str, offset: i64) -> i16 {
        if self.protocol == Protocol::Old {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(text(self.id).into())
                .with_producer_id(self.producer_id.into())
                .with_producer_epoch(self.epoch)
                .with_group_id(text("g").into());
            assert_eq!(self.client.call(4, &request).await.error_code, 0);
        }
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(text(self.id).into())
            .with_group_id(text("g").into())
            .with_producer_id(self.producer_id.into())
            .with_producer_epoch(self.epoch)
            .with_generation_id(-1)
            .with_group_instance_id(None)
            .with_topics(vec![topic]);
        let version = match self.protocol {
            Protocol::Old => 4,
            Protocol::New => 5,
        };
        let response = self.client.call(version, &request).await;
        response.topics[0].partitions[0].error_code
    }
}
