//! Transactions for applications (KIP-98, KIP-890).

use std::future::Future;
use std::rc::Rc;

use super::feeder::Feeder;
use super::producer::Producer;
use crate::consumer::GroupMetadata;
use crate::group_offsets::CommittedOffsets;
use crate::producer::TransactionError;

/// Transactions, for a producer with a `transactional.id`: records to any partitions, and offsets
/// of a consumer's group, that consumers of committed records see together or not at all.
impl Producer {
    async fn transact<T, F>(
        &self,
        job: impl FnOnce(Rc<Feeder>) -> F + Send + 'static,
    ) -> Result<T, TransactionError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, TransactionError>> + 'static,
    {
        let job = move |feeder: Rc<Rc<Feeder>>| job((*feeder).clone());
        let done = self.thread.call(job).await;
        done.unwrap_or(Err(TransactionError::Closed))
    }

    /// Makes this producer the only one of its `transactional.id`: what another began is completed
    /// or aborted, and it is refused from now on. To be called once, before the first transaction.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Producer, ProducerRecord};
    ///
    /// let producer = Producer::builder()
    ///     .set("transactional.id", "billing-1")
    ///     .connect()
    ///     .await?;
    /// producer.init_transactions().await?;
    /// producer.begin_transaction().await?;
    /// producer.send(ProducerRecord::to("debits").value("10")).await?;
    /// producer.send(ProducerRecord::to("credits").value("10")).await?;
    /// if let Err(error) = producer.commit_transaction().await {
    ///     eprintln!("aborting: {error}");
    ///     producer.abort_transaction().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the coordinator refuses or cannot be reached within `default.api.timeout.ms`.
    pub async fn init_transactions(&self) -> Result<(), TransactionError> {
        self.transact(async move |feeder| feeder.producer.init_transactions().await)
            .await
    }

    /// Begins a transaction: records sent from now on belong to it.
    ///
    /// # Errors
    /// If one is open, or the producer cannot have one.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::ProducerRecord;
    ///
    /// producer.begin_transaction().await?;
    /// for seat in 1..=200 {
    ///     drop(producer.send(ProducerRecord::to("boarded").value(seat.to_string())).await?);
    /// }
    /// // readers of committed records see all of them, or none
    /// producer.commit_transaction().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn begin_transaction(&self) -> Result<(), TransactionError> {
        self.transact(async move |feeder| feeder.producer.begin_transaction())
            .await
    }

    /// Makes offsets of a consumer's group part of the transaction: they are committed with it, or
    /// not at all. `group` comes from [`Consumer::group_metadata`](crate::Consumer::group_metadata).
    ///
    /// # Errors
    /// If no transaction is open, or the consumer is no member of its group any more; then abort.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{Committed, Consumer, Producer, ProducerRecord, TopicPartition};
    ///
    /// /// Doubles a record into another topic, exactly once.
    /// async fn double(consumer: Consumer, producer: Producer) -> Result<(), Box<dyn std::error::Error>> {
    ///     let record = consumer.recv().await?;
    ///     producer.begin_transaction().await?;
    ///     let value = record.value.clone().unwrap_or_default();
    ///     drop(producer.send(ProducerRecord::to("doubled").value(value)).await?);
    ///     let partition = TopicPartition::new(record.topic, record.partition);
    ///     let next = [(partition, Committed::at(record.offset + 1))].into();
    ///     let group = consumer.group_metadata().await.ok_or("a group is needed")?;
    ///     producer.send_offsets_to_transaction(&next, &group).await?;
    ///     Ok(producer.commit_transaction().await?)
    /// }
    /// ```
    pub async fn send_offsets_to_transaction(
        &self,
        offsets: &CommittedOffsets,
        group: &GroupMetadata,
    ) -> Result<(), TransactionError> {
        let (offsets, group) = (offsets.clone(), group.clone());
        self.transact(async move |feeder| {
            let producer = &feeder.producer;
            producer.send_offsets_to_transaction(&offsets, &group).await
        })
        .await
    }

    /// Delivers what was sent and commits it.
    ///
    /// # Errors
    /// If something of the transaction failed, so that it can only be aborted; or the coordinator
    /// does not answer, so that nobody knows whether it was committed: then abort too.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Err(error) = producer.commit_transaction().await {
    ///     eprintln!("not committed: {error}");
    ///     producer.abort_transaction().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn commit_transaction(&self) -> Result<(), TransactionError> {
        let _ = self.intake.mark().await;
        self.transact(async move |feeder| feeder.commit().await)
            .await
    }

    /// Gives up what was sent since the transaction began.
    ///
    /// # Errors
    /// If no transaction is open, or the coordinator refuses or cannot be reached.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::ProducerRecord;
    ///
    /// producer.begin_transaction().await?;
    /// drop(producer.send(ProducerRecord::to("debits").value("10")).await?);
    /// // second thoughts: no reader of committed records ever sees the debit
    /// producer.abort_transaction().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn abort_transaction(&self) -> Result<(), TransactionError> {
        let _ = self.intake.mark().await;
        self.transact(async move |feeder| feeder.abort().await)
            .await
    }
}
