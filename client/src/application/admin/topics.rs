//! Topics and their records.

use std::collections::BTreeMap;

use super::Admin;
use crate::admin::{AdminError, NewTopic, PartitionReplicas};
use crate::assignor::TopicPartition;
use crate::metadata::Topic;

/// Topics and their records.
impl Admin {
    /// Creates a topic; returns once its partitions have leaders.
    ///
    /// # Errors
    /// If the topic exists, or a setting of it is refused.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::NewTopic;
    ///
    /// let flights = NewTopic::of("flights", 3).config("retention.ms", 3_600_000);
    /// let made = admin.create_topic(flights).await?;
    /// println!("{} has the id {}", made.name, made.id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_topic(&self, topic: NewTopic) -> Result<Topic, AdminError> {
        self.run(async move |desk| desk.shell.create_topic(&topic).await)
            .await
    }

    /// Whether such a topic would be created; none is.
    ///
    /// # Errors
    /// Why it would not.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::NewTopic;
    ///
    /// let wanted = NewTopic::of("flights", 3).config("cleanup.policy", "compact");
    /// if let Err(why_not) = admin.validate_topic(wanted).await {
    ///     println!("{why_not}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate_topic(&self, topic: NewTopic) -> Result<(), AdminError> {
        self.run(async move |desk| desk.shell.validate_topic(&topic).await)
            .await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// If there is no such topic.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// admin.delete_topic("flights").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_topic(&self, name: &str) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.delete_topic(&name).await)
            .await
    }

    /// All topics, internal ones among them, by name.
    ///
    /// # Errors
    /// If no broker answers in time.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let topics = admin.topics().await?;
    /// for topic in topics.iter().filter(|topic| !topic.is_internal) {
    ///     println!("{}: {} partitions", topic.name, topic.partitions.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn topics(&self) -> Result<Vec<Topic>, AdminError> {
        self.run(async move |desk| desk.shell.topics().await).await
    }

    /// A topic as the cluster has it now.
    ///
    /// # Errors
    /// If there is no such topic.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let flights = admin.describe_topic("flights").await?;
    /// for partition in &flights.partitions {
    ///     println!("{} is led by {:?}", partition.index, partition.leader);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_topic(&self, name: &str) -> Result<Topic, AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.describe_topic(&name).await)
            .await
    }

    /// The partitions of a topic with all that the cluster knows of their replicas (KIP-966),
    /// however many they are.
    ///
    /// # Errors
    /// If there is no such topic, or the brokers are too old to say.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// for replicas in admin.describe_partitions("flights").await? {
    ///     if !replicas.offline.is_empty() {
    ///         println!("{} lacks {:?}", replicas.partition.index, replicas.offline);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_partitions(
        &self,
        name: &str,
    ) -> Result<Vec<PartitionReplicas>, AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.describe_partitions(&name).await)
            .await
    }

    /// Gives a topic more partitions: `count` in all. Keys go to other partitions from then on.
    ///
    /// # Errors
    /// If the topic has as many already, or more.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// admin.create_partitions("flights", 12).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_partitions(&self, name: &str, count: i32) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.create_partitions(&name, count).await)
            .await
    }

    /// Deletes the records below an offset of each partition, −1 for all; returns the first offset
    /// that each has then.
    ///
    /// # Errors
    /// If an offset lies behind the end of its partition.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::TopicPartition;
    ///
    /// let partition = TopicPartition::new("flights", 0);
    /// let first = admin.delete_records([(partition.clone(), 1000)].into()).await?;
    /// assert!(first[&partition] >= 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_records(
        &self,
        below: BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>, AdminError> {
        self.run(async move |desk| desk.shell.delete_records(&below).await)
            .await
    }
}
