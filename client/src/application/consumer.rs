//! The consumer for applications.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::Stream;

use super::buffer::Buffer;
use super::consumer_builder::ConsumerBuilder;
use super::interceptor::ConsumerInterceptor;
use super::poller::{Poller, Stash, take};
use super::rebalance::RebalanceListener;
use super::record::ConsumerRecord;
use super::thread::IoThread;
use crate::assignor::TopicPartition;
use crate::cluster::LookupError;
use crate::consumer::{CommitError, Event, GroupMetadata, PollError, StartAt, SubscribeError};
use crate::group_offsets::CommittedOffsets;
use crate::metadata::Topic;
use crate::offsets::{FoundOffsets, OffsetError, OffsetSpec};

/// How long [`Consumer::recv`] waits at once; it goes on after that.
const RECV_SLICE: Duration = Duration::from_secs(3600);

/// Reads records of topics, alone or as a member of a group.
///
/// One task polls; the other methods may be called from any thread meanwhile. Fetching goes on in
/// the background, up to `queued.max.messages.kbytes`. When it is dropped, it just stops, and its
/// group misses it after `session.timeout.ms`: [`Consumer::close`] commits and leaves first.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::Consumer;
///
/// let consumer = Consumer::builder()
///     .set("bootstrap.servers", "127.0.0.1:9092")
///     .set("group.id", "billing")
///     .connect()
///     .await?;
/// consumer.subscribe(["flights"]).await?;
/// loop {
///     let record = consumer.recv().await?;
///     println!("{} {}: {:?}", record.partition, record.offset, record.value);
/// }
/// # }
/// ```
pub struct Consumer {
    thread: IoThread<Rc<Poller>>,
    stash: Stash,
    buffer: Mutex<Buffer>,
    max_poll_records: usize,
    listener: Option<Arc<dyn RebalanceListener>>,
    interceptors: Vec<Arc<dyn ConsumerInterceptor>>,
}

impl Consumer {
    /// Settings to begin with.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::default()
    }

    pub(crate) fn over(
        thread: IoThread<Rc<Poller>>,
        max_poll_records: usize,
        listener: Option<Arc<dyn RebalanceListener>>,
        interceptors: Vec<Arc<dyn ConsumerInterceptor>>,
    ) -> Self {
        Self {
            thread,
            stash: Stash::default(),
            buffer: Mutex::default(),
            max_poll_records,
            listener,
            interceptors,
        }
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // no code of others runs within: the state is whole even after a panic
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something done on the I/O thread; `closed` if there is none any more.
    async fn on_thread<T, E, F>(
        &self,
        closed: E,
        job: impl FnOnce(Rc<Poller>) -> F + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + 'static,
    {
        let job = move |poller: Rc<Rc<Poller>>| job((*poller).clone());
        self.thread.call(job).await.unwrap_or(Err(closed))
    }

    /// Reads these topics as a member of the group, in place of whatever it read before.
    ///
    /// # Errors
    /// Without a `group.id`.
    pub async fn subscribe<T: AsRef<str>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), SubscribeError> {
        let topics: Vec<String> = topics.into_iter().map(|t| t.as_ref().to_owned()).collect();
        self.on_thread(SubscribeError::Closed, async move |poller| {
            poller.consumer.subscribe(topics.iter().map(String::as_str))
        })
        .await
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

    /// Leaves the group, after a commit if that is automatic, and reads nothing any more.
    ///
    /// # Errors
    /// If the commit failed; the group is left all the same.
    pub async fn unsubscribe(&self) -> Result<(), CommitError> {
        self.rewind(|_| true).await;
        self.on_thread(CommitError::Closed, async move |poller| {
            poller.consumer.unsubscribe().await
        })
        .await
    }

    /// Reads these partitions, and no others, without asking any group.
    ///
    /// # Errors
    /// If the consumer is closed.
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

    /// Waits for the next record. Dropped before it is done, it loses none.
    ///
    /// # Errors
    /// What one partition or the group suffers from; the next call goes on with the others.
    pub async fn recv(&self) -> Result<ConsumerRecord, PollError> {
        loop {
            let next = self.buffer().next();
            match next {
                Some(record) => return record.map(|record| self.intercepted(record)),
                None => drop(self.poll_event(RECV_SLICE).await?),
            }
        }
    }

    /// Waits for records for at most `limit`, and gives some of one partition, at most
    /// `max.poll.records`; none when the time is over. To be called again before
    /// `max.poll.interval.ms` is over. What earlier polls gave counts as processed.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn poll(&self, limit: Duration) -> Result<Vec<ConsumerRecord>, PollError> {
        loop {
            let mut records = Vec::new();
            while records.len() < self.max_poll_records {
                let next = self.buffer().next();
                match next {
                    Some(Ok(record)) => records.push(self.intercepted(record)),
                    Some(Err(error)) if records.is_empty() => return Err(error),
                    // told by the next poll
                    Some(Err(error)) => {
                        self.buffer().put_back(error);
                        break;
                    }
                    None => break,
                }
            }
            if !records.is_empty() || !self.poll_event(limit).await? {
                return Ok(records);
            }
        }
    }

    /// The records as a stream that never ends by itself.
    pub fn stream(&self) -> impl Stream<Item = Result<ConsumerRecord, PollError>> + '_ {
        futures_util::stream::unfold(self, |consumer| async move {
            Some((consumer.recv().await, consumer))
        })
    }

    fn intercepted(&self, record: ConsumerRecord) -> ConsumerRecord {
        let interceptors = self.interceptors.iter();
        interceptors.fold(record, |record, i| i.on_consume(record))
    }

    /// Waits for one event and acts upon it. False if the time is over.
    async fn poll_event(&self, limit: Duration) -> Result<bool, PollError> {
        let stash = self.stash.clone();
        self.on_thread(PollError::Closed, async move |poller| {
            poller.fill(&stash, limit).await;
            Ok(())
        })
        .await?;
        // nothing is awaited between here and the buffer
        let Some(event) = take(&self.stash) else {
            return Ok(true);
        };
        let listener = self.listener.as_deref();
        match event? {
            Event::Idle => return Ok(false),
            Event::Records(fetched) => self.buffer().fill(&fetched),
            Event::Assigned(partitions) => {
                if let Some(listener) = listener {
                    listener.on_assigned(self, &partitions).await;
                }
            }
            Event::Revoked(partitions) => {
                if let Some(listener) = listener {
                    listener.on_revoked(self, &partitions).await;
                }
            }
            Event::Lost(partitions) => {
                if let Some(listener) = listener {
                    listener.on_lost(self, &partitions).await;
                }
            }
        }
        Ok(true)
    }

    /// Puts records that were not handed over back into the log, as it were: the position of their
    /// partition, if it is one of those, goes back to the first of them.
    async fn rewind(&self, is_one: impl FnOnce(&TopicPartition) -> bool) {
        let held = self.buffer().drop_if(is_one);
        if let Some((partition, offset)) = held {
            let _ = self
                .on_thread(PollError::Closed, async move |poller| {
                    poller.consumer.seek(&partition, StartAt::Offset(offset));
                    Ok(())
                })
                .await;
        }
    }

    /// Moves the position in a partition that is assigned; nothing, if it is not.
    ///
    /// # Errors
    /// If the consumer is closed.
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

    /// The partitions it reads; none once closed.
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

    /// Commits the positions of all partitions: the records handed over so far are processed.
    ///
    /// # Errors
    /// If there is no group, or its coordinator refuses or cannot be reached within
    /// `default.api.timeout.ms`.
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

    /// Who this consumer is to its group, for offsets within a producer's transaction; `None`
    /// without a group, or once closed.
    pub async fn group_metadata(&self) -> Option<GroupMetadata> {
        self.on_thread((), async move |poller| Ok(poller.consumer.group_metadata()))
            .await
            .ok()
            .flatten()
    }

    /// What the group has committed for partitions; those without an offset are left out.
    ///
    /// # Errors
    /// If the coordinator refuses or cannot be reached within `default.api.timeout.ms`.
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

    /// For each partition the first record of that time or later (milliseconds since the Unix
    /// epoch); `None` where there is none yet.
    ///
    /// # Errors
    /// The first partition's failure that remained after `default.api.timeout.ms`.
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
    pub async fn topic(&self, name: &str) -> Result<Topic, LookupError> {
        let name = name.to_owned();
        self.on_thread(LookupError::Closed, async move |poller| {
            poller.client.topic(&name, false).await
        })
        .await
    }

    /// Commits, if that is automatic, leaves the group and stops.
    ///
    /// # Errors
    /// If the commit failed; the group is left all the same.
    pub async fn close(self) -> Result<(), CommitError> {
        let held = self.buffer().held();
        self.on_thread(CommitError::Closed, async move |poller| {
            poller.consumer.close_but(&held).await
        })
        .await
    }
}
