//! Transactions as administrators see them (KIP-664).

use super::Admin;
use crate::admin::{
    AdminError, ProducerState, TransactionDescription, TransactionFilter, TransactionListing,
};
use crate::assignor::TopicPartition;

/// Transactions as administrators see them (KIP-664).
impl Admin {
    /// The transactional ids of all brokers, by name.
    ///
    /// # Errors
    /// If a broker does not answer in time, or is too old for the filter.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use std::time::Duration;
    ///
    /// use ringmill_client::TransactionFilter;
    ///
    /// let long = TransactionFilter {
    ///     longer_than: Some(Duration::from_secs(600)),
    ///     ..TransactionFilter::default()
    /// };
    /// for open in admin.transactions(long).await? {
    ///     println!("{}: {}", open.transactional_id, open.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transactions(
        &self,
        filter: TransactionFilter,
    ) -> Result<Vec<TransactionListing>, AdminError> {
        self.run(async move |desk| desk.shell.transactions(&filter).await)
            .await
    }

    /// A transactional id and its transaction.
    ///
    /// # Errors
    /// If there is no such id.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let billing = admin.describe_transaction("billing-1").await?;
    /// println!("{} on {:?}", billing.state, billing.partitions);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_transaction(
        &self,
        transactional_id: &str,
    ) -> Result<TransactionDescription, AdminError> {
        let transactional_id = transactional_id.to_owned();
        self.run(async move |desk| desk.shell.describe_transaction(&transactional_id).await)
            .await
    }

    /// Ends a transaction that hangs in one partition, as its abort: for one that its coordinator
    /// does not know any more, and that holds the readers of committed records up. The producer is
    /// as [`Admin::producers`] tells it.
    ///
    /// # Errors
    /// If the producer has another epoch by now, or the coordinator has ended a later transaction.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::TopicPartition;
    ///
    /// let partition = TopicPartition::new("flights", 0);
    /// let known = admin.transactions(Default::default()).await?;
    /// for producer in admin.producers(&partition).await? {
    ///     let is_known = known.iter().any(|open| open.producer_id == producer.producer_id);
    ///     if producer.transaction_start.is_some() && !is_known {
    ///         admin.abort_transaction(&partition, &producer).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn abort_transaction(
        &self,
        partition: &TopicPartition,
        producer: &ProducerState,
    ) -> Result<(), AdminError> {
        let partition = partition.clone();
        let producer = producer.clone();
        self.run(async move |desk| desk.shell.abort_transaction(&partition, &producer).await)
            .await
    }

    /// Makes whoever has this transactional id its owner no more: its transaction is aborted, and
    /// it is refused from now on. Returns the producer id and epoch that the id has now.
    ///
    /// # Errors
    /// If the coordinator refuses or cannot be reached in time.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let (producer, epoch) = admin.fence_producer("billing-1").await?;
    /// println!("producer {producer} is in epoch {epoch}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fence_producer(&self, transactional_id: &str) -> Result<(i64, i16), AdminError> {
        let transactional_id = transactional_id.to_owned();
        self.run(async move |desk| desk.shell.fence_producer(&transactional_id).await)
            .await
    }
}
