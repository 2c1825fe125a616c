//! A consumer's partitions: which it reads, where it stands in them, and where they begin and end.

use std::collections::{BTreeMap, BTreeSet};

use super::Consumer;
use crate::assignor::TopicPartition;
use crate::cluster::LookupError;
use crate::consumer::{PollError, StartAt};
use crate::metadata::Topic;
use crate::offsets::{FoundOffsets, OffsetError, OffsetSpec};

/// Partitions and places in them.
impl Consumer {
    /// Reads these partitions, and no others, without asking any group.
    ///
    /// # Errors
    /// If the consumer is closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{OffsetSpec, StartAt, TopicPartition};
    ///
    /// // the whole partition, without a group
    /// let start = StartAt::Find(OffsetSpec::Earliest);
    /// consumer.assign([(TopicPartition::new("flights", 0), start)]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn assign(
        &self,
        partitions: impl IntoIterator<Item = (TopicPartition, StartAt)>,
    ) -> Result<(), PollError> {
        let partitions: BTreeMap<TopicPartition, StartAt> = partitions.into_iter().collect();
        self.buffer().drop_if(|_| true);
        self.on_thread(PollError::Closed, async move |poller| {
            let mut gone = poller.consumer.assignment();
            gone.retain(|partition| !partitions.contains_key(partition));
            poller.consumer.unassign(&gone);
            poller.consumer.assign(partitions);
            Ok(())
        })
        .await
    }

    /// Moves the position in a partition that is assigned; nothing, if it is not.
    ///
    /// # Errors
    /// If the consumer is closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{OffsetSpec, StartAt};
    ///
    /// // everything again
    /// for partition in consumer.assignment().await {
    ///     consumer.seek(&partition, StartAt::Find(OffsetSpec::Earliest)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn seek(&self, partition: &TopicPartition, to: StartAt) -> Result<(), PollError> {
        self.buffer().drop_if(|held| held == partition);
        let partition = partition.clone();
        self.on_thread(PollError::Closed, async move |poller| {
            poller.consumer.seek(&partition, to);
            Ok(())
        })
        .await
    }

    /// Stops the records of partitions until [`Consumer::resume`]; they stay assigned.
    ///
    /// # Errors
    /// If the consumer is closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// // what is downstream has no room: stay in the group, take nothing
    /// consumer.pause(consumer.assignment().await).await?;
    /// assert!(consumer.poll(Duration::from_secs(1)).await?.is_empty());
    /// consumer.resume(consumer.assignment().await).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pause(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<(), PollError> {
        let partitions: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        self.rewind(|held| partitions.contains(held)).await;
        self.on_thread(PollError::Closed, async move |poller| {
            partitions.iter().for_each(|p| poller.consumer.pause(p));
            Ok(())
        })
        .await
    }

    /// Goes on with partitions.
    ///
    /// # Errors
    /// If the consumer is closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let paused = consumer.paused().await;
    /// consumer.resume(paused).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resume(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<(), PollError> {
        let partitions: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        self.on_thread(PollError::Closed, async move |poller| {
            partitions.iter().for_each(|p| poller.consumer.resume(p));
            Ok(())
        })
        .await
    }

    /// The partitions that are paused.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let paused = consumer.paused().await;
    /// println!("{} of {} partitions wait", paused.len(), consumer.assignment().await.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn paused(&self) -> BTreeSet<TopicPartition> {
        let paused = self.on_thread((), async move |poller| Ok(poller.consumer.paused()));
        paused.await.unwrap_or_default()
    }

    /// The partitions it reads; none once closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// for partition in consumer.assignment().await {
    ///     println!("reads {partition}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn assignment(&self) -> BTreeSet<TopicPartition> {
        let assignment = self
            .on_thread((), async move |poller| Ok(poller.consumer.assignment()))
            .await;
        assignment.unwrap_or_default()
    }

    /// The offset of the next record from a partition, for which it waits at most
    /// `default.api.timeout.ms`; `None` if the partition is not assigned.
    ///
    /// # Errors
    /// If it cannot be found in time.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::TopicPartition;
    ///
    /// match consumer.position(&TopicPartition::new("flights", 0)).await? {
    ///     Some(offset) => println!("the next record is {offset}, or the first one after it"),
    ///     None => println!("another member reads it"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn position(&self, partition: &TopicPartition) -> Result<Option<i64>, LookupError> {
        if let Some(offset) = self.buffer().held().get(partition) {
            return Ok(Some(*offset));
        }
        let partition = partition.clone();
        self.on_thread(LookupError::Closed, async move |poller| {
            poller.position(&partition).await
        })
        .await
    }

    /// How many records were there at the last fetch, from the next one to be handed over on; `None`
    /// before the first fetch, or if the partition is not assigned. Asks no broker.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut behind = 0;
    /// for partition in consumer.assignment().await {
    ///     behind += consumer.current_lag(&partition).await.unwrap_or(0);
    /// }
    /// println!("{behind} records behind");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn current_lag(&self, partition: &TopicPartition) -> Option<i64> {
        let held = self.buffer().held().get(partition).copied();
        let partition = partition.clone();
        let lag = self.on_thread((), async move |poller| {
            let lag = poller.consumer.current_lag(&partition);
            // what was fetched and not handed over is still to come
            let ahead = held.zip(poller.consumer.position(&partition));
            let ahead = ahead.map_or(0, |(held, position)| position - held);
            Ok(lag.map(|lag| lag + ahead))
        });
        lag.await.ok().flatten()
    }

    /// The first offset that each partition has.
    ///
    /// # Errors
    /// As [`Consumer::offsets_for_times`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let first = consumer.beginning_offsets(consumer.assignment().await).await?;
    /// println!("{first:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, OffsetError> {
        self.ends(partitions, OffsetSpec::Earliest).await
    }

    /// The offset that each partition's next record will have; to a consumer of committed records,
    /// the last stable offset.
    ///
    /// # Errors
    /// As [`Consumer::offsets_for_times`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let partitions = consumer.assignment().await;
    /// let (first, end) = (
    ///     consumer.beginning_offsets(partitions.clone()).await?,
    ///     consumer.end_offsets(partitions).await?,
    /// );
    /// let offsets: i64 = end.iter().map(|(partition, end)| end - first[partition]).sum();
    /// println!("at most {offsets} records");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, OffsetError> {
        self.ends(partitions, OffsetSpec::Latest).await
    }

    async fn ends(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        end: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>, OffsetError> {
        let partitions = partitions.into_iter();
        let wanted: Vec<_> = partitions.map(|partition| (partition, end)).collect();
        let found = self.offsets(wanted).await?.into_iter();
        let found = found.filter_map(|(partition, place)| Some((partition, place?.offset)));
        Ok(found.collect())
    }

    /// For each partition the first record of that time or later (milliseconds since the Unix
    /// epoch); `None` where there is none yet.
    ///
    /// # Errors
    /// The first partition's failure that remained after `default.api.timeout.ms`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::StartAt;
    ///
    /// let midnight_ms = 1_767_225_600_000;
    /// let partitions = consumer.assignment().await;
    /// let wanted = partitions.into_iter().map(|partition| (partition, midnight_ms));
    /// for (partition, found) in consumer.offsets_for_times(wanted).await? {
    ///     if let Some(place) = found {
    ///         consumer.seek(&partition, StartAt::Offset(place.offset)).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, i64)>,
    ) -> Result<FoundOffsets, OffsetError> {
        let times = times.into_iter();
        self.offsets(times.map(|(partition, ms)| (partition, OffsetSpec::Time(ms))))
            .await
    }

    /// Places in partitions by their meaning: the ends, or a time. To a consumer of committed
    /// records, the end is the last stable offset.
    ///
    /// # Errors
    /// As [`Consumer::offsets_for_times`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{OffsetSpec, TopicPartition};
    ///
    /// let partition = TopicPartition::new("flights", 0);
    /// let found = consumer.offsets([(partition.clone(), OffsetSpec::MaxTimestamp)]).await?;
    /// println!("the latest record is of {:?}", found[&partition].and_then(|place| place.timestamp));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn offsets(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
    ) -> Result<FoundOffsets, OffsetError> {
        let wanted: Vec<_> = wanted.into_iter().collect();
        self.on_thread(OffsetError::Closed, async move |poller| {
            let isolation = poller.consumer.isolation();
            poller.client.offsets_as(isolation, wanted).await
        })
        .await
    }

    /// A topic and its partitions.
    ///
    /// # Errors
    /// If there is no such topic, or no broker answers within `default.api.timeout.ms`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// let flights = consumer.topic("flights").await?;
    /// println!("{} partitions", flights.partitions.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn topic(&self, name: &str) -> Result<Topic, LookupError> {
        let name = name.to_owned();
        self.on_thread(LookupError::Closed, async move |poller| {
            poller.client.topic(&name, false).await
        })
        .await
    }
}
