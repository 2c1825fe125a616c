//! What the cluster is, holds and can do.

use std::collections::BTreeMap;

use super::Admin;
use crate::admin::{AdminError, ClusterDescription, Feature, FeatureUpdate, LogDir, ProducerState};
use crate::assignor::TopicPartition;
use crate::offsets::{FoundOffsets, OffsetSpec};

/// What the cluster is, holds and can do.
impl Admin {
    /// The cluster's name, controller and brokers.
    ///
    /// # Errors
    /// If no broker answers in time.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let cluster = admin.cluster().await?;
    /// for broker in &cluster.brokers {
    ///     println!("{} at {} in {:?}", broker.id, broker.address(), broker.rack);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cluster(&self) -> Result<ClusterDescription, AdminError> {
        self.run(async move |desk| desk.shell.cluster().await).await
    }

    /// The features of the cluster, by name: what its brokers support, and what it has settled on
    /// (KIP-584).
    ///
    /// # Errors
    /// If no broker answers in time.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// for (name, feature) in admin.features().await? {
    ///     println!("{name}: {:?} of {} to {}", feature.finalized, feature.min, feature.max);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn features(&self) -> Result<BTreeMap<String, Feature>, AdminError> {
        self.run(async move |desk| desk.shell.features().await)
            .await
    }

    /// Has the cluster go to other levels of features: to all of them, or to none. A level goes up only
    /// if every broker supports it, those that are away included.
    ///
    /// # Errors
    /// A broker does not support one of them, or a level would go down that is only to go up.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::FeatureUpdate;
    ///
    /// let up = FeatureUpdate::upgrade("transaction.version", 2);
    /// admin.update_features([up]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_features(
        &self,
        updates: impl IntoIterator<Item = FeatureUpdate>,
    ) -> Result<(), AdminError> {
        let updates: Vec<_> = updates.into_iter().collect();
        self.run(async move |desk| desk.shell.update_features(&updates).await)
            .await
    }

    /// Whether the cluster could go to other levels of features; it stays where it is.
    ///
    /// # Errors
    /// See [`Admin::update_features`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::FeatureUpdate;
    ///
    /// let gone = FeatureUpdate::safe_downgrade("group.version", 0);
    /// if let Err(why) = admin.validate_features([gone]).await {
    ///     println!("the consumer protocol has to stay: {why}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate_features(
        &self,
        updates: impl IntoIterator<Item = FeatureUpdate>,
    ) -> Result<(), AdminError> {
        let updates: Vec<_> = updates.into_iter().collect();
        self.run(async move |desk| desk.shell.validate_features(&updates).await)
            .await
    }

    /// Places in partitions by their meaning: the ends, or a time.
    ///
    /// # Errors
    /// The first partition's failure that remained.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::{OffsetSpec, TopicPartition};
    ///
    /// let partition = TopicPartition::new("flights", 0);
    /// let found = admin.offsets([(partition.clone(), OffsetSpec::Latest)]).await?;
    /// println!("it ends at {:?}", found[&partition].map(|place| place.offset));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn offsets(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
    ) -> Result<FoundOffsets, AdminError> {
        let wanted: Vec<_> = wanted.into_iter().collect();
        self.run(async move |desk| desk.offsets(wanted).await).await
    }

    /// The folders of a broker, with the partitions in each.
    ///
    /// # Errors
    /// If there is no such broker.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// for dir in admin.log_dirs(1).await? {
    ///     println!("{}: {:?} of {:?} bytes free", dir.path, dir.usable_bytes, dir.total_bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn log_dirs(&self, broker: i32) -> Result<Vec<LogDir>, AdminError> {
        self.run(async move |desk| desk.shell.log_dirs(broker).await)
            .await
    }

    /// The producers that a partition's leader knows, by id.
    ///
    /// # Errors
    /// If there is no such partition.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::TopicPartition;
    ///
    /// for producer in admin.producers(&TopicPartition::new("flights", 0)).await? {
    ///     println!("{} wrote last at {}", producer.producer_id, producer.last_timestamp);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerState>, AdminError> {
        let partition = partition.clone();
        self.run(async move |desk| desk.shell.producers(&partition).await)
            .await
    }
}
