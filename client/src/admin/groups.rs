//! Groups: who is in them, where they stand, and moving or deleting that.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_groups_response::DescribedGroup;
use ringmill_wire::kafka_protocol::messages::leave_group_request::MemberIdentity;
use ringmill_wire::kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, LeaveGroupRequest, ListGroupsRequest,
    OffsetDeleteRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::assignor::TopicPartition;
use crate::assignor::protocol::decode_assignment;
use crate::group_offsets::{self, CommittedOffsets};

/// A group as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// `consumer` for consumers; empty for a group that only keeps offsets.
    pub protocol_type: String,
    /// `Stable`, `Empty` and so on; empty if the broker is too old to say.
    pub state: String,
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
    pub state: String,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// The strategy in use.
    pub strategy: String,
    /// In the broker's order.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// As the coordinator calls it.
    pub member_id: String,
    /// The name it keeps over restarts, if any.
    pub instance_id: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads; empty if its bytes are not those of a consumer.
    pub assigned: BTreeSet<TopicPartition>,
}

impl Admin {
    /// All groups of all brokers, by name.
    pub async fn groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        let nodes: Vec<i32> = self.0.image().brokers.keys().copied().collect();
        let mut all = BTreeSet::new();
        for node in nodes {
            let of_node = self
                .0
                .retried(async || {
                    let connection = self.0.node(node).await?;
                    let request = ListGroupsRequest::default();
                    let response = connection.call(&request, self.limit()).await?;
                    check(&format!("broker {node}"), response.error_code, None)?;
                    Ok::<_, AdminError>(response.groups)
                })
                .await?;
            all.extend(of_node.into_iter().map(|group| GroupListing {
                group: group.group_id.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
            }));
        }
        Ok(all.into_iter().collect())
    }

    /// A group and its members.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let what = format!("group {group:?}");
        self.0
            .retried(async || {
                let coordinator = self.0.coordinator(group).await?;
                let connection = self.0.node(coordinator).await?;
                let request =
                    DescribeGroupsRequest::default().with_groups(vec![text(group).into()]);
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.groups.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message.clone())?;
                // what brokers say of a group they do not know, before version 6
                if &*answer.group_state == "Dead" {
                    check(&what, ErrorCode::GroupIdNotFound.code(), None)?;
                }
                Ok(description(answer))
            })
            .await
    }

    /// Deletes a group without members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<(), AdminError> {
        let what = format!("group {group:?}");
        self.0
            .retried(async || {
                let coordinator = self.0.coordinator(group).await?;
                let connection = self.0.node(coordinator).await?;
                let names = vec![text(group).into()];
                let request = DeleteGroupsRequest::default().with_groups_names(names);
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.results.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, None)
            })
            .await
    }

    /// Makes members leave their group: those with these lasting names (`group.instance.id`,
    /// KIP-345), or all if none is named.
    pub async fn remove_members(
        &self,
        group: &str,
        instance_ids: &[String],
    ) -> Result<(), AdminError> {
        let members = match instance_ids.is_empty() {
            false => instance_ids
                .iter()
                .map(|id| (String::new(), Some(id.clone())))
                .collect(),
            true => {
                let described = self.describe_group(group).await?;
                let members = described.members.into_iter();
                let ids = members.map(|member| (member.member_id, member.instance_id));
                ids.collect::<Vec<_>>()
            }
        };
        let members = members.iter().map(|(member, instance)| {
            MemberIdentity::default()
                .with_member_id(text(member))
                .with_group_instance_id(instance.as_deref().map(text))
        });
        let request = LeaveGroupRequest::default()
            .with_group_id(text(group).into())
            .with_members(members.collect());
        self.0
            .retried(async || {
                let coordinator = self.0.coordinator(group).await?;
                let connection = self.0.node(coordinator).await?;
                let response = connection.call(&request, self.limit()).await?;
                check(&format!("group {group:?}"), response.error_code, None)?;
                for member in response.members {
                    let name = member.group_instance_id.unwrap_or(member.member_id);
                    let what = format!("group {group:?}, member {:?}", &*name);
                    check(&what, member.error_code, None)?;
                }
                Ok(())
            })
            .await
    }

    /// What a group has committed.
    pub async fn group_offsets(&self, group: &str) -> Result<CommittedOffsets, AdminError> {
        Ok(self.0.committed(group, None).await?)
    }

    /// Sets offsets of a group without members.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: &CommittedOffsets,
    ) -> Result<(), AdminError> {
        self.0
            .retried(async || {
                let coordinator = self.0.coordinator(group).await?;
                let connection = self.0.node(coordinator).await?;
                let limit = self.limit();
                let refused =
                    group_offsets::commit(&connection, group, None, offsets, limit).await?;
                match refused.into_iter().next() {
                    None => Ok(()),
                    Some((partition, code)) => {
                        check(&format!("group {group:?}, {partition}"), code.code(), None)
                    }
                }
            })
            .await
    }

    /// Deletes a group's offsets for partitions of topics that none of its members reads.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<(), AdminError> {
        let mut by_topic: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for partition in partitions {
            let number =
                OffsetDeleteRequestPartition::default().with_partition_index(partition.partition);
            by_topic.entry(&partition.topic).or_default().push(number);
        }
        let topics = by_topic.into_iter().map(|(topic, partitions)| {
            OffsetDeleteRequestTopic::default()
                .with_name(text(topic).into())
                .with_partitions(partitions)
        });
        let request = OffsetDeleteRequest::default()
            .with_group_id(text(group).into())
            .with_topics(topics.collect());
        self.0
            .retried(async || {
                let coordinator = self.0.coordinator(group).await?;
                let connection = self.0.node(coordinator).await?;
                let response = connection.call(&request, self.limit()).await?;
                check(&format!("group {group:?}"), response.error_code, None)?;
                for topic in response.topics {
                    for partition in topic.partitions {
                        let number = partition.partition_index;
                        let what = format!("group {group:?}, {}-{number}", &*topic.name.0);
                        check(&what, partition.error_code, None)?;
                    }
                }
                Ok(())
            })
            .await
    }
}

fn description(answer: DescribedGroup) -> GroupDescription {
    let members = answer.members.into_iter().map(|member| GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: decode_assignment(&member.member_assignment).unwrap_or_default(),
    });
    GroupDescription {
        group: answer.group_id.to_string(),
        state: answer.group_state.to_string(),
        protocol_type: answer.protocol_type.to_string(),
        strategy: answer.protocol_data.to_string(),
        members: members.collect(),
    }
}
