//! What brokers hold: folders and their sizes, producers, and which resources have settings.

use std::collections::BTreeMap;

use ringmill_wire::kafka_protocol::messages::describe_producers_request::TopicRequest;
use ringmill_wire::kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeProducersRequest, ListConfigResourcesRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::assignor::TopicPartition;
use crate::metadata::error_code;

/// A folder in which a broker keeps partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDir {
    /// Where it is on the broker.
    pub path: String,
    /// Bytes of its file system; not told by old brokers.
    pub total_bytes: Option<u64>,
    /// Bytes that are free there; not told by old brokers.
    pub usable_bytes: Option<u64>,
    /// Bytes of each partition in it.
    pub partitions: BTreeMap<TopicPartition, u64>,
}

/// A producer that a partition's leader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// The sequence number of its last record here.
    pub last_sequence: i32,
    /// When it wrote last, in milliseconds since the Unix epoch.
    pub last_timestamp: i64,
    /// Where its open transaction begins, if it has one.
    pub transaction_start: Option<i64>,
}

/// Something that has settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigResource {
    /// Its kind by Kafka's number: 2 a topic, 4 a broker, 8 a broker's loggers, 16 client metrics,
    /// 32 a group.
    pub kind: i8,
    /// Its name.
    pub name: String,
}

impl Admin {
    /// The folders of a broker, with the partitions in each.
    pub async fn log_dirs(&self, broker: i32) -> Result<Vec<LogDir>, AdminError> {
        let what = format!("broker {broker}");
        let request = DescribeLogDirsRequest::default().with_topics(None);
        self.0
            .retried(async || {
                let connection = self.0.node(broker).await?;
                let response = connection.call(&request, self.limit()).await?;
                check(&what, response.error_code, None)?;
                let mut dirs = Vec::with_capacity(response.results.len());
                for dir in response.results {
                    check(&format!("{what}, {}", dir.log_dir), dir.error_code, None)?;
                    let mut partitions = BTreeMap::new();
                    for topic in dir.topics {
                        for partition in topic.partitions {
                            let key =
                                TopicPartition::new(&*topic.name.0, partition.partition_index);
                            let bytes = u64::try_from(partition.partition_size).unwrap_or(0);
                            partitions.insert(key, bytes);
                        }
                    }
                    dirs.push(LogDir {
                        path: dir.log_dir.to_string(),
                        total_bytes: u64::try_from(dir.total_bytes).ok(),
                        usable_bytes: u64::try_from(dir.usable_bytes).ok(),
                        partitions,
                    });
                }
                Ok(dirs)
            })
            .await
    }

    /// The producers that a partition's leader knows, by id.
    pub async fn producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerState>, AdminError> {
        let what = partition.to_string();
        let topic = TopicRequest::default()
            .with_name(text(&partition.topic).into())
            .with_partition_indexes(vec![partition.partition]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        self.0
            .retried(async || {
                let leader = self.0.leader(partition).await?;
                let connection = self.0.node(leader).await?;
                let response = connection.call(&request, self.limit()).await?;
                let topics = response.topics.into_iter();
                let answer = topics.flat_map(|topic| topic.partitions).next();
                let answer = answer.ok_or_else(|| unanswered(&what))?;
                if error_code(answer.error_code).is_retriable() {
                    self.0.request_refresh();
                }
                check(&what, answer.error_code, answer.error_message)?;
                let producers = answer.active_producers.into_iter();
                let mut producers: Vec<ProducerState> = producers
                    .map(|producer| ProducerState {
                        producer_id: producer.producer_id.0,
                        producer_epoch: producer.producer_epoch,
                        last_sequence: producer.last_sequence,
                        last_timestamp: producer.last_timestamp,
                        transaction_start: Some(producer.current_txn_start_offset)
                            .filter(|offset| *offset >= 0),
                    })
                    .collect();
                producers.sort_by_key(|producer| producer.producer_id);
                Ok(producers)
            })
            .await
    }

    /// All that has settings (KIP-1142), by kind and name.
    pub async fn config_resources(&self) -> Result<Vec<ConfigResource>, AdminError> {
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let request = ListConfigResourcesRequest::default();
                let response = connection.call(&request, self.limit()).await?;
                check("resources", response.error_code, None)?;
                let resources = response.config_resources.into_iter();
                let mut resources: Vec<ConfigResource> = resources
                    .map(|resource| ConfigResource {
                        kind: resource.resource_type,
                        name: resource.resource_name.to_string(),
                    })
                    .collect();
                resources.sort();
                Ok(resources)
            })
            .await
    }
}
