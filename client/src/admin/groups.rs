//! Groups: who is in them, where they stand, and moving or deleting that.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup as DescribedConsumers,
};
use ringmill_wire::kafka_protocol::messages::describe_groups_response::DescribedGroup;
use ringmill_wire::kafka_protocol::messages::leave_group_request::MemberIdentity;
use ringmill_wire::kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetDeleteRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::assignor::TopicPartition;
use crate::assignor::protocol::decode_assignment;
use crate::connection::{CallError, Connection};
use crate::group_offsets::{self, CommittedOffsets};

/// Which protocol a group speaks.
///
/// # Examples
/// ```
/// use ringmill_client::GroupKind;
///
/// assert_eq!(GroupKind::of("consumer"), GroupKind::Consumer);
/// assert_eq!(GroupKind::of("share"), GroupKind::Other);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKind {
    /// Its members assign.
    Classic,
    /// Its coordinator assigns (KIP-848).
    Consumer,
    /// Something newer than this client, or a broker too old to say.
    Other,
}

impl GroupKind {
    /// By Kafka's name of it.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::GroupKind;
    /// assert_eq!(GroupKind::of("classic"), GroupKind::Classic);
    /// ```
    pub fn of(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "classic" => Self::Classic,
            "consumer" => Self::Consumer,
            _ => Self::Other,
        }
    }
}

/// Which groups to list; all of them by default.
///
/// # Examples
/// ```
/// use ringmill_client::GroupFilter;
///
/// let idle = GroupFilter { states: vec!["Empty".into()], ..GroupFilter::default() };
/// # let _ = idle;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupFilter {
    /// In one of these states, such as `Stable` or `Empty`; in any, without.
    pub states: Vec<String>,
    /// Of one of these kinds, `classic` or `consumer`; of any, without.
    pub kinds: Vec<String>,
}

/// A group as a list shows it.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// for group in admin.groups().await? {
///     println!("{} ({:?}) is {}", group.group, group.kind, group.state);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// `consumer` for consumers; empty for a group that only keeps offsets.
    pub protocol_type: String,
    /// `Stable`, `Empty` and so on; empty if the broker is too old to say.
    pub state: String,
    /// Which protocol it speaks.
    pub kind: GroupKind,
}

/// A group and its members, by whichever protocol.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// let group = admin.describe_group("billing").await?;
/// for member in &group.members {
///     println!("{} at {} reads {:?}", member.client_id, member.host, member.assigned);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Which protocol it speaks.
    pub kind: GroupKind,
    /// `Stable`, `Empty`, and while it changes `PreparingRebalance` or `CompletingRebalance`, by the
    /// consumer protocol `Assigning` or `Reconciling`.
    pub state: String,
    /// The group's epoch, and the one that its assignment is made for; none of classic groups.
    pub epochs: Option<(i32, i32)>,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// The strategy in use.
    pub strategy: String,
    /// In the broker's order.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// let members = admin.describe_group("billing").await?.members;
/// let behind = members.iter().filter(|member| member.assigned != member.target);
/// println!("{} members are on their way to their assignment", behind.count());
/// # Ok(())
/// # }
/// ```
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
    /// What it is to read, once others have given it up; of classic groups the same.
    pub target: BTreeSet<TopicPartition>,
    /// Its epoch; none of classic groups.
    pub epoch: Option<i32>,
    /// Which protocol it speaks itself, while its group migrates.
    pub kind: GroupKind,
}

impl Admin {
    /// All groups of all brokers, by name.
    pub async fn groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        self.groups_where(&GroupFilter::default()).await
    }

    /// The groups of all brokers that a filter lets pass, by name.
    pub async fn groups_where(
        &self,
        filter: &GroupFilter,
    ) -> Result<Vec<GroupListing>, AdminError> {
        let names = |names: &[String]| names.iter().map(|name| text(name)).collect();
        let request = ListGroupsRequest::default()
            .with_states_filter(names(&filter.states))
            .with_types_filter(names(&filter.kinds));
        let nodes: Vec<i32> = self.0.image().brokers.keys().copied().collect();
        let mut all = BTreeSet::new();
        for node in nodes {
            let of_node = self
                .0
                .retried(async || {
                    let connection = self.0.node(node).await?;
                    let response = connection.call(&request, self.limit()).await?;
                    check(&format!("broker {node}"), response.error_code, None)?;
                    Ok::<_, AdminError>(response.groups)
                })
                .await?;
            all.extend(of_node.into_iter().map(|group| GroupListing {
                group: group.group_id.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
                kind: GroupKind::of(&group.group_type),
            }));
        }
        Ok(all.into_iter().collect())
    }

    /// Asks a group's coordinator, and again while its failure may pass.
    async fn at_coordinator<T>(
        &self,
        group: &str,
        ask: impl AsyncFn(Connection) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        self.0
            .retried(async || {
                let coordinator = self.0.coordinator(group).await?;
                ask(self.0.node(coordinator).await?).await
            })
            .await
    }

    /// A group and its members, by whichever protocol.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        match self.describe_consumer_group(group).await {
            Err(AdminError::Refused {
                code: ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion,
                ..
            })
            | Err(AdminError::Call(CallError::Version(_))) => {
                self.describe_classic_group(group).await
            }
            described => described,
        }
    }

    async fn describe_consumer_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let what = format!("group {group:?}");
        let request =
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![text(group).into()]);
        self.at_coordinator(group, async |connection| {
            let mut response = connection.call(&request, self.limit()).await?;
            let answer = response.groups.pop().ok_or_else(|| unanswered(&what))?;
            check(&what, answer.error_code, answer.error_message.clone())?;
            Ok(consumer_description(answer))
        })
        .await
    }

    async fn describe_classic_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let what = format!("group {group:?}");
        self.at_coordinator(group, async |connection| {
            let request = DescribeGroupsRequest::default().with_groups(vec![text(group).into()]);
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
        self.at_coordinator(group, async |connection| {
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
        self.at_coordinator(group, async |connection| {
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
        self.at_coordinator(group, async |connection| {
            let limit = self.limit();
            let refused = group_offsets::commit(&connection, group, None, offsets, limit).await?;
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
        self.at_coordinator(group, async |connection| {
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
    let members = answer.members.into_iter().map(|member| {
        let assigned = decode_assignment(&member.member_assignment).unwrap_or_default();
        GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            target: assigned.clone(),
            assigned,
            epoch: None,
            kind: GroupKind::Classic,
        }
    });
    GroupDescription {
        group: answer.group_id.to_string(),
        kind: GroupKind::Classic,
        epochs: None,
        state: answer.group_state.to_string(),
        protocol_type: answer.protocol_type.to_string(),
        strategy: answer.protocol_data.to_string(),
        members: members.collect(),
    }
}

/// A member that speaks the classic protocol, in ConsumerGroupDescribe.
const CLASSIC_MEMBER: i8 = 0;

fn consumer_description(answer: DescribedConsumers) -> GroupDescription {
    let members = answer.members.into_iter().map(|member| GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: member.instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: partitions(&member.assignment),
        target: partitions(&member.target_assignment),
        epoch: Some(member.member_epoch),
        kind: match member.member_type {
            CLASSIC_MEMBER => GroupKind::Classic,
            _ => GroupKind::Consumer,
        },
    });
    GroupDescription {
        group: answer.group_id.to_string(),
        kind: GroupKind::Consumer,
        state: answer.group_state.to_string(),
        epochs: Some((answer.group_epoch, answer.assignment_epoch)),
        protocol_type: "consumer".to_owned(),
        strategy: answer.assignor_name.to_string(),
        members: members.collect(),
    }
}

fn partitions(assignment: &Assignment) -> BTreeSet<TopicPartition> {
    let topics = assignment.topic_partitions.iter();
    let partitions = topics.flat_map(|topic| {
        let numbers = topic.partitions.iter();
        numbers.map(|number| TopicPartition::new(&*topic.topic_name.0, *number))
    });
    partitions.collect()
}
