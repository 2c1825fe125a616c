//! Which nodes have copies of partitions, and who of them leads.

use std::collections::BTreeMap;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ringmill_wire::kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use ringmill_wire::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, TopicName,
};

use super::{Admin, AdminError, check, text};
use crate::assignor::TopicPartition;
use crate::metadata::error_code;

/// The election types on the wire (KIP-460).
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// A partition whose copies are on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// Who has or gets a copy: first those who are to, in order.
    pub replicas: Vec<i32>,
    /// Of them, who gets one.
    pub adding: Vec<i32>,
    /// Of them, who gives one up when the others have theirs.
    pub removing: Vec<i32>,
}

impl Admin {
    /// Has copies go to these nodes, the preferred leader first (KIP-455); those of now stay until the
    /// new ones are complete. None takes a move back.
    ///
    /// # Errors
    /// The first partition that is refused; others may be on their way.
    pub async fn reassign(
        &self,
        targets: &BTreeMap<TopicPartition, Option<Vec<i32>>>,
    ) -> Result<(), AdminError> {
        let topics = by_topic(targets.iter().map(|(partition, nodes)| {
            let nodes = nodes.as_ref();
            let nodes = nodes.map(|nodes| nodes.iter().copied().map(BrokerId).collect());
            let wanted = ReassignablePartition::default()
                .with_partition_index(partition.partition)
                .with_replicas(nodes);
            (&*partition.topic, wanted)
        }));
        let topics = topics.into_iter().map(|(name, partitions)| {
            ReassignableTopic::default()
                .with_name(name)
                .with_partitions(partitions)
        });
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(self.timeout_ms());
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("the copies", response.error_code, response.error_message)?;
                for topic in response.responses {
                    for part in topic.partitions {
                        let what = format!("{}-{}", &*topic.name, part.partition_index);
                        check(&what, part.error_code, part.error_message)?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// All partitions whose copies are on their way.
    pub async fn reassignments(&self) -> Result<Vec<Reassignment>, AdminError> {
        let request = ListPartitionReassignmentsRequest::default()
            .with_topics(None)
            .with_timeout_ms(self.timeout_ms());
        let nodes = |nodes: Vec<BrokerId>| nodes.into_iter().map(|node| node.0).collect();
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("the copies", response.error_code, response.error_message)?;
                let mut found = Vec::new();
                for topic in response.topics {
                    for part in topic.partitions {
                        let name = topic.name.to_string();
                        found.push(Reassignment {
                            partition: TopicPartition::new(name, part.partition_index),
                            replicas: nodes(part.replicas),
                            adding: nodes(part.adding_replicas),
                            removing: nodes(part.removing_replicas),
                        });
                    }
                }
                Ok(found)
            })
            .await
    }

    /// Has the preferred leaders lead, of these partitions or of all; or, with a loss if need be, anybody
    /// who is there, where nobody leads (KIP-460). Gives those that have another leader now.
    ///
    /// # Errors
    /// The first partition whose election fails; others may have succeeded.
    pub async fn elect_leaders(
        &self,
        partitions: Option<&[TopicPartition]>,
        unclean: bool,
    ) -> Result<Vec<TopicPartition>, AdminError> {
        let asked = partitions.map(|partitions| {
            let topics = by_topic(partitions.iter().map(|p| (&*p.topic, p.partition)));
            let topics = topics.into_iter().map(|(name, partitions)| {
                TopicPartitions::default()
                    .with_topic(name)
                    .with_partitions(partitions)
            });
            topics.collect()
        });
        let request = ElectLeadersRequest::default()
            .with_election_type(if unclean { UNCLEAN } else { PREFERRED })
            .with_topic_partitions(asked)
            .with_timeout_ms(self.timeout_ms());
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("the leaders", response.error_code, None)?;
                let mut elected = Vec::new();
                for topic in response.replica_election_results {
                    for part in topic.partition_result {
                        if error_code(part.error_code) == ErrorCode::ElectionNotNeeded {
                            continue;
                        }
                        let what = format!("{}-{}", &*topic.topic, part.partition_id);
                        check(&what, part.error_code, part.error_message)?;
                        let name = topic.topic.to_string();
                        elected.push(TopicPartition::new(name, part.partition_id));
                    }
                }
                Ok(elected)
            })
            .await
    }
}

fn by_topic<'a, T>(parts: impl Iterator<Item = (&'a str, T)>) -> Vec<(TopicName, Vec<T>)> {
    let mut topics: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (topic, part) in parts {
        topics.entry(topic).or_default().push(part);
    }
    let topics = topics.into_iter();
    topics
        .map(|(name, parts)| (text(name).into(), parts))
        .collect()
}
