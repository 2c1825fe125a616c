//! Transactions over partitions that different nodes lead.

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::IsolationLevel;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use ringmill_wire::kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
};
use ringmill_wire::produce::ProduceResponse;

use crate::coordinators::{TRANSACTION, coordinator};
use crate::records::create_on;
use crate::wire_client::{Client, batch_with, fetch_request, produce_request, topic_name};
use crate::world::{Cluster, SOON, address};

const ID: &str = "x";

/// A transactional producer of the old protocol, whose partitions are added before they are written to,
/// or of the new one.
struct Producer {
    coordinator: Client,
    is_new: bool,
    id: i64,
    epoch: i16,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn connect(node: usize) -> Client {
    Client::connect_to(address(node).parse().unwrap()).await
}

/// Waits a little, if what was asked for may be asked for again.
async fn pause(code: i16) {
    let code = ErrorCode::from_code(code).unwrap();
    let may_pass = code.is_retriable() || code == ErrorCode::ConcurrentTransactions;
    assert!(may_pass, "{code:?}");
    sleep(Duration::from_millis(10)).await;
}

impl Producer {
    async fn new(is_new: bool) -> Self {
        let node = coordinator(1, TRANSACTION, ID).await;
        let mut coordinator = connect(node).await;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(text(ID).into()))
            .with_transaction_timeout_ms(30_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        loop {
            let answer = coordinator.call(4, &request).await;
            if answer.error_code == 0 {
                return Self {
                    coordinator,
                    is_new,
                    id: *answer.producer_id,
                    epoch: answer.producer_epoch,
                };
            }
            pause(answer.error_code).await;
        }
    }

    /// Adds all three partitions, as producers of the old protocol do.
    async fn add(&mut self) {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![0, 1, 2]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(text(ID).into())
            .with_v3_and_below_producer_id(self.id.into())
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        loop {
            let answer = self.coordinator.call(3, &request).await;
            let results = &answer.results_by_topic_v3_and_below[0].results_by_partition;
            let failed = results.iter().map(|part| part.partition_error_code);
            match failed.into_iter().find(|code| *code != 0) {
                None => return,
                Some(code) => pause(code).await,
            }
        }
    }

    fn batch(&self, sequence: i32, value: &str) -> Bytes {
        let stamp = ProducerStamp {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: sequence,
            transactional: true,
        };
        batch_with(&[value], Compression::None, stamp)
    }

    /// Writes to a partition by its leader.
    async fn write(&self, partition: i32, sequence: i32, value: &str) {
        let mut client = connect(partition as usize + 1).await;
        let version = if self.is_new { 12 } else { 11 };
        let batch = self.batch(sequence, value);
        loop {
            let header = client.header(ApiKey::Produce, version);
            let mut request = produce_request(-1, "t", vec![(partition, batch.clone())]);
            request.transactional_id = Some(text(ID));
            client.send(request.encode(&header).unwrap()).await;
            let frame = client.frame().await.expect("an answer");
            let answer = ProduceResponse::decode(version, &frame).unwrap();
            match answer.topics[0].partitions[0].error_code {
                0 => return,
                code => pause(code).await,
            }
        }
    }

    async fn end(&mut self, commits: bool) {
        let version = if self.is_new { 5 } else { 3 };
        let request = EndTxnRequest::default()
            .with_transactional_id(text(ID).into())
            .with_producer_id(self.id.into())
            .with_producer_epoch(self.epoch)
            .with_committed(commits);
        loop {
            let answer = self.coordinator.call(version, &request).await;
            if answer.error_code == 0 {
                if self.is_new {
                    (self.id, self.epoch) = (*answer.producer_id, answer.producer_epoch);
                }
                return;
            }
            pause(answer.error_code).await;
        }
    }
}

/// Waits until no transaction of a partition is open, and gives what was committed.
async fn committed(partition: i32) -> Vec<String> {
    let mut client = connect(partition as usize + 1).await;
    loop {
        let mut request = fetch_request(100, 1, "t", &[(partition, 0)]);
        request.isolation_level = IsolationLevel::ReadCommitted;
        let fetched = client.fetch_with(11, request).await;
        let part = &fetched.0.topics[0].partitions[0];
        if part.last_stable_offset == part.high_watermark {
            let aborted: Vec<i64> = part
                .aborted
                .iter()
                .flatten()
                .map(|a| a.first_offset)
                .collect();
            let records = fetched.records().into_iter();
            // The ends of transactions are records, too.
            let committed = records
                .filter(|(offset, value)| !aborted.contains(offset) && !value.starts_with('\0'));
            return committed.map(|(_, value)| value).collect();
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_transaction_spans_partitions_that_different_nodes_lead() {
    for seed in 0..4 {
        for is_new in [false, true] {
            let mut cluster = Cluster::new(seed, 3);
            cluster.start_all();
            cluster.formed(&[1, 2, 3], SOON);
            let found = cluster.client(Duration::from_secs(30), async move {
                create_on(1, "t", &[&[1], &[2], &[3]], &[]).await;
                let mut producer = Producer::new(is_new).await;
                let mut sequences = 0;
                for (value, commits) in [("first", true), ("never", false), ("second", true)] {
                    let epoch = producer.epoch;
                    if !is_new {
                        producer.add().await;
                    }
                    for partition in 0..3 {
                        producer.write(partition, sequences, value).await;
                    }
                    producer.end(commits).await;
                    // A new epoch counts from the beginning.
                    sequences = if producer.epoch == epoch {
                        sequences + 1
                    } else {
                        0
                    };
                }
                let mut found = Vec::new();
                for partition in 0..3 {
                    found.push(committed(partition).await);
                }
                found
            });
            let expected = ["first", "second"].map(str::to_owned).to_vec();
            assert_eq!(found, vec![expected; 3], "seed {seed}, new: {is_new}");
        }
    }
}
