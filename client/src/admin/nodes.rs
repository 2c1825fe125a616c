//! The nodes of the cluster, and the quorum that keeps its metadata.

use ringmill_wire::kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use ringmill_wire::kafka_protocol::messages::describe_quorum_response::ReplicaState;
use ringmill_wire::kafka_protocol::messages::{
    DescribeClusterRequest, DescribeQuorumRequest, UnregisterBrokerRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::metadata::Broker;

/// The topic of which DescribeQuorum asks, as Kafka has it.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// The endpoint type that clients connect to (KIP-919).
const BROKERS: i8 = 1;

/// A node of the cluster, up or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its number, and where it is reached.
    pub broker: Broker,
    /// It is not heard from, or not up to date: it leads nothing.
    pub is_fenced: bool,
}

/// The quorum as its leader sees it (KIP-595).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumDescription {
    /// Who leads; none if nobody does.
    pub leader: Option<i32>,
    /// The leader's term.
    pub epoch: i32,
    /// What most voters have, as an offset into the quorum's log.
    pub high_watermark: i64,
    /// Who decides.
    pub voters: Vec<QuorumMember>,
    /// Who follows.
    pub observers: Vec<QuorumMember>,
}

/// A node's place in the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its number.
    pub id: i32,
    /// How far it has the log; none if that is not known.
    pub log_end_offset: Option<i64>,
}

impl Admin {
    /// All nodes of the cluster, those that are not up included.
    pub async fn nodes(&self) -> Result<Vec<ClusterNode>, AdminError> {
        let request = DescribeClusterRequest::default()
            .with_endpoint_type(BROKERS)
            .with_include_fenced_brokers(true);
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("cluster", response.error_code, response.error_message)?;
                let nodes = response.brokers.into_iter().map(|broker| ClusterNode {
                    is_fenced: broker.is_fenced,
                    broker: Broker {
                        id: broker.broker_id.0,
                        host: broker.host.to_string(),
                        port: broker.port,
                        rack: broker.rack.map(|rack| rack.to_string()),
                    },
                });
                Ok(nodes.collect())
            })
            .await
    }

    /// The quorum that keeps the metadata.
    pub async fn quorum(&self) -> Result<QuorumDescription, AdminError> {
        let what = "the metadata's quorum";
        let topic = TopicData::default()
            .with_topic_name(text(METADATA_TOPIC).into())
            .with_partitions(vec![PartitionData::default()]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let mut response = connection.call(&request, self.limit()).await?;
                check(what, response.error_code, response.error_message)?;
                let topic = response.topics.pop();
                let partition = topic.and_then(|mut topic| topic.partitions.pop());
                let partition = partition.ok_or_else(|| unanswered(what))?;
                check(what, partition.error_code, partition.error_message)?;
                Ok(QuorumDescription {
                    leader: Some(partition.leader_id.0).filter(|id| *id >= 0),
                    epoch: partition.leader_epoch,
                    high_watermark: partition.high_watermark,
                    voters: partition.current_voters.iter().map(member).collect(),
                    observers: partition.observers.iter().map(member).collect(),
                })
            })
            .await
    }

    /// Takes a node that is not up out of the cluster, for good.
    pub async fn unregister_broker(&self, node: i32) -> Result<(), AdminError> {
        let request = UnregisterBrokerRequest::default().with_broker_id(node.into());
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let response = connection.call(&request, self.limit()).await?;
                check(
                    &format!("node {node}"),
                    response.error_code,
                    response.error_message,
                )
            })
            .await
    }
}

fn member(state: &ReplicaState) -> QuorumMember {
    QuorumMember {
        id: state.replica_id.0,
        log_end_offset: Some(state.log_end_offset).filter(|end| *end >= 0),
    }
}
