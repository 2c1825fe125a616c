//! What brokers hold: folders and their sizes, producers, replicas; and what they can do.

use std::collections::BTreeMap;

use ringmill_wire::kafka_protocol::messages::describe_producers_request::TopicRequest;
use ringmill_wire::kafka_protocol::messages::describe_topic_partitions_request::{
    Cursor, TopicRequest as PageTopic,
};
use ringmill_wire::kafka_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition;
use ringmill_wire::kafka_protocol::messages::{
    BrokerId, DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::assignor::TopicPartition;
use crate::metadata::{Partition, error_code};

/// Partitions that are asked for at once.
const PAGE: i32 = 2000;

/// A folder in which a broker keeps partitions.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// for dir in admin.log_dirs(1).await? {
///     let held: u64 = dir.partitions.values().sum();
///     println!("{}: {held} bytes of {:?}", dir.path, dir.total_bytes);
/// }
/// # Ok(())
/// # }
/// ```
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
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// use ringmill_client::TopicPartition;
///
/// let partition = TopicPartition::new("flights", 0);
/// let producers = admin.producers(&partition).await?;
/// let holding_readers_up = producers.iter().filter_map(|p| p.transaction_start).min();
/// println!("the oldest open transaction begins at {holding_readers_up:?}");
/// # Ok(())
/// # }
/// ```
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
    /// Epoch of the coordinator that ended its last transaction; −1 if none did.
    pub coordinator_epoch: i32,
}

/// A partition with all that the cluster knows of its replicas (KIP-966).
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// for replicas in admin.describe_partitions("flights").await? {
///     let partition = replicas.partition;
///     if partition.in_sync.len() < partition.replicas.len() {
///         println!("{} lacks replicas; offline: {:?}", partition.index, replicas.offline);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReplicas {
    /// The partition, with its leader, its replicas and those in sync.
    pub partition: Partition,
    /// Replicas out of sync that could lead without loss.
    pub eligible: Vec<i32>,
    /// Those that were last known to.
    pub last_known_eligible: Vec<i32>,
    /// Replicas that are not there.
    pub offline: Vec<i32>,
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
                        coordinator_epoch: producer.coordinator_epoch,
                        transaction_start: Some(producer.current_txn_start_offset)
                            .filter(|offset| *offset >= 0),
                    })
                    .collect();
                producers.sort_by_key(|producer| producer.producer_id);
                Ok(producers)
            })
            .await
    }

    /// The partitions of a topic with all that the cluster knows of their replicas, however many:
    /// they come in pages.
    pub async fn describe_partitions(
        &self,
        name: &str,
    ) -> Result<Vec<PartitionReplicas>, AdminError> {
        let what = format!("topic {name:?}");
        let topic = PageTopic::default().with_name(text(name).into());
        let mut request = DescribeTopicPartitionsRequest::default()
            .with_topics(vec![topic])
            .with_response_partition_limit(PAGE);
        let mut partitions = Vec::new();
        loop {
            let response = self
                .0
                .retried(async || {
                    let connection = self.0.any().await?;
                    let response = connection.call(&request, self.limit()).await?;
                    for topic in &response.topics {
                        check(&what, topic.error_code, None)?;
                    }
                    Ok::<_, AdminError>(response)
                })
                .await?;
            let topics = response.topics.into_iter();
            partitions.extend(topics.flat_map(|topic| topic.partitions).map(replicas));
            let Some(next) = response.next_cursor else {
                return Ok(partitions);
            };
            let cursor = Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index);
            // a broker that does not move on would be asked for ever
            if request.cursor.as_ref() == Some(&cursor) {
                return Err(unanswered(&what));
            }
            request.cursor = Some(cursor);
        }
    }
}

fn replicas(answer: DescribeTopicPartitionsResponsePartition) -> PartitionReplicas {
    let ids = |nodes: Vec<BrokerId>| nodes.into_iter().map(|node| node.0).collect();
    PartitionReplicas {
        partition: Partition {
            index: answer.partition_index,
            leader: Some(answer.leader_id.0).filter(|id| *id >= 0),
            leader_epoch: answer.leader_epoch,
            replicas: ids(answer.replica_nodes),
            in_sync: ids(answer.isr_nodes),
            error: error_code(answer.error_code),
        },
        eligible: ids(answer.eligible_leader_replicas.unwrap_or_default()),
        last_known_eligible: ids(answer.last_known_elr.unwrap_or_default()),
        offline: ids(answer.offline_replicas),
    }
}
