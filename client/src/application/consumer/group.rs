//! A consumer as a member of its group: what it subscribes to, and what it commits.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Consumer;
use crate::assignor::TopicPartition;
use crate::cluster::LookupError;
use crate::consumer::{CommitError, GroupMetadata, SubscribeError};
use crate::group_offsets::CommittedOffsets;

/// Membership of a group, and its offsets.
impl Consumer {
    /// Reads these topics as a member of the group, in place of whatever it read before. No topics at
    /// all: as [`Self::unsubscribe`], as in Kafka's own client.
    ///
    /// # Errors
    /// Without a `group.id`; or if a subscription ended and its commit failed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// consumer.subscribe(["flights", "gates"]).await?;
    /// while let Ok(record) = consumer.recv().await {
    ///     println!("{}-{}: {:?}", record.topic, record.partition, record.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe<T: AsRef<str>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), SubscribeError> {
        let topics: Vec<String> = topics.into_iter().map(|t| t.as_ref().to_owned()).collect();
        let subscribed = self.on_thread(SubscribeError::Closed, async move |poller| {
            poller.consumer.subscribe(topics.iter().map(String::as_str))
        });
        match subscribed.await {
            Err(SubscribeError::NoTopics) => Ok(self.unsubscribe().await?),
            other => other,
        }
    }

    /// Reads the topics whose names match an RE2 pattern, as a whole, as a member of the group, in
    /// place of whatever it read before: those too that are made later. The coordinator finds them
    /// (KIP-848), and a pattern that it does not take is told by the next poll.
    ///
    /// # Errors
    /// Without a `group.id`, or without `group.protocol=consumer`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::Consumer;
    ///
    /// let consumer = Consumer::builder()
    ///     .set("group.id", "billing")
    ///     .set("group.protocol", "consumer")
    ///     .connect()
    ///     .await?;
    /// consumer.subscribe_pattern("flights-[a-z]+").await?;
    /// let record = consumer.recv().await?;
    /// println!("{} has {:?}", record.topic, record.value);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_pattern(&self, pattern: &str) -> Result<(), SubscribeError> {
        let pattern = pattern.to_owned();
        self.on_thread(SubscribeError::Closed, async move |poller| {
            poller.consumer.subscribe_pattern(&pattern)
        })
        .await
    }

    /// Tells the listener that its partitions go, commits, if that is automatic, leaves the group and
    /// reads nothing any more.
    ///
    /// # Errors
    /// If the commit failed; the group is left all the same.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// consumer.unsubscribe().await?;
    /// assert!(consumer.assignment().await.is_empty());
    /// consumer.subscribe(["gates"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn unsubscribe(&self) -> Result<(), CommitError> {
        self.tell_of_the_end().await;
        self.rewind(|_| true).await;
        self.on_thread(CommitError::Closed, async move |poller| {
            poller.consumer.unsubscribe().await
        })
        .await
    }

    /// The topics that it subscribes to by name.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// consumer.subscribe(["flights"]).await?;
    /// assert!(consumer.subscription().await.contains("flights"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscription(&self) -> BTreeSet<Arc<str>> {
        let topics = self.on_thread((), async move |poller| Ok(poller.consumer.subscription()));
        topics.await.unwrap_or_default()
    }

    /// Makes the group rebalance at the next polls, by the classic protocol; by the consumer protocol
    /// the coordinator knows best, and nothing is done.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// // its own view of the load has changed, which its assignor looks at
    /// consumer.enforce_rebalance().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn enforce_rebalance(&self) {
        let enforced = self.on_thread((), async move |poller| {
            poller.consumer.enforce_rebalance();
            Ok(())
        });
        // once closed, there is no group to rebalance
        let _ = enforced.await;
    }

    /// Who this consumer is to its group, for offsets within a producer's transaction; `None`
    /// without a group, or once closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(member) = consumer.group_metadata().await {
    ///     println!("{} in generation {}", member.member_id, member.generation);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn group_metadata(&self) -> Option<GroupMetadata> {
        self.on_thread((), async move |poller| Ok(poller.consumer.group_metadata()))
            .await
            .ok()
            .flatten()
    }

    /// Commits the positions of all partitions: the records handed over so far are processed.
    ///
    /// # Errors
    /// If there is no group, or its coordinator refuses or cannot be reached within
    /// `default.api.timeout.ms`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let record = consumer.recv().await?;
    /// println!("{:?} is processed", record.value);
    /// consumer.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn commit(&self) -> Result<(), CommitError> {
        let held = self.buffer().held();
        let committed = self
            .on_thread(CommitError::Closed, async move |poller| {
                poller.consumer.commit_but(&held).await
            })
            .await?;
        self.committed_now(&committed);
        Ok(())
    }

    /// Commits offsets of the application's choice: of each partition the offset after the last
    /// record processed.
    ///
    /// # Errors
    /// As [`Consumer::commit`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Committed, TopicPartition};
    ///
    /// let record = consumer.recv().await?;
    /// let partition = TopicPartition::new(record.topic.clone(), record.partition);
    /// // the offset after the last record processed, with a note for people
    /// let place = Committed { metadata: "by hand".into(), ..Committed::at(record.offset + 1) };
    /// consumer.commit_offsets(&[(partition, place)].into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn commit_offsets(&self, offsets: &CommittedOffsets) -> Result<(), CommitError> {
        let wanted = offsets.clone();
        self.on_thread(CommitError::Closed, async move |poller| {
            poller.consumer.commit_offsets(&wanted).await
        })
        .await?;
        self.committed_now(offsets);
        Ok(())
    }

    fn committed_now(&self, offsets: &CommittedOffsets) {
        for interceptor in &self.interceptors {
            interceptor.on_commit(offsets);
        }
    }

    /// What the group has committed for partitions; those without an offset are left out.
    ///
    /// # Errors
    /// If the coordinator refuses or cannot be reached within `default.api.timeout.ms`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let partitions = consumer.assignment().await;
    /// for (partition, committed) in consumer.committed(partitions).await? {
    ///     println!("{partition} at {}", committed.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn committed(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<CommittedOffsets, LookupError> {
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        self.on_thread(LookupError::Closed, async move |poller| {
            poller.consumer.committed(&partitions).await
        })
        .await
    }
}
