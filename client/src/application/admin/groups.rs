//! Groups and their offsets.

use std::collections::BTreeSet;

use super::Admin;
use crate::admin::{AdminError, GroupDescription, GroupFilter, GroupListing};
use crate::assignor::TopicPartition;
use crate::group_offsets::CommittedOffsets;

/// Groups and their offsets.
impl Admin {
    /// All groups of all brokers, by name.
    ///
    /// # Errors
    /// If a broker does not answer in time.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// for group in admin.groups().await? {
    ///     println!("{} is {}", group.group, group.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        self.run(async move |desk| desk.shell.groups().await).await
    }

    /// The groups of all brokers that a filter lets pass, by name.
    ///
    /// # Errors
    /// If a broker does not answer in time, or is too old for the filter.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::GroupFilter;
    ///
    /// let idle = GroupFilter { states: vec!["Empty".into()], ..GroupFilter::default() };
    /// for group in admin.groups_where(idle).await? {
    ///     admin.delete_group(&group.group).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn groups_where(&self, filter: GroupFilter) -> Result<Vec<GroupListing>, AdminError> {
        self.run(async move |desk| desk.shell.groups_where(&filter).await)
            .await
    }

    /// A group and its members, by whichever protocol it speaks.
    ///
    /// # Errors
    /// If there is no such group.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let billing = admin.describe_group("billing").await?;
    /// println!("{:?}, {}: {} members", billing.kind, billing.state, billing.members.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.describe_group(&group).await)
            .await
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// # Errors
    /// If the group has members, or there is none.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// admin.delete_group("billing").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_group(&self, group: &str) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.delete_group(&group).await)
            .await
    }

    /// Makes members leave their group: those with these lasting names (`group.instance.id`,
    /// KIP-345), or all if none is named.
    ///
    /// # Errors
    /// If there is no such member.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// // the machine is gone for good: do not wait for its session to end
    /// admin.remove_members("billing", vec!["billing-7".into()]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_members(
        &self,
        group: &str,
        instance_ids: Vec<String>,
    ) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.remove_members(&group, &instance_ids).await)
            .await
    }

    /// What a group has committed.
    ///
    /// # Errors
    /// If the coordinator refuses.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// for (partition, committed) in admin.group_offsets("billing").await? {
    ///     println!("{partition} at {}", committed.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn group_offsets(&self, group: &str) -> Result<CommittedOffsets, AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.group_offsets(&group).await)
            .await
    }

    /// Sets offsets of a group without members.
    ///
    /// # Errors
    /// If the group has members.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::{Committed, TopicPartition};
    ///
    /// // again from the beginning
    /// let start = [(TopicPartition::new("flights", 0), Committed::at(0))];
    /// admin.set_group_offsets("billing", start.into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: CommittedOffsets,
    ) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.set_group_offsets(&group, &offsets).await)
            .await
    }

    /// Deletes a group's offsets for partitions of topics that none of its members reads.
    ///
    /// # Errors
    /// If a member reads one of the topics.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::TopicPartition;
    ///
    /// let gone = [TopicPartition::new("flights", 0)];
    /// admin.delete_group_offsets("billing", gone.into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.delete_group_offsets(&group, &partitions).await)
            .await
    }
}
