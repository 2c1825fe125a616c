//! The consumer for applications.

mod group;
mod places;

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
use crate::consumer::{CommitError, Event, PollError, StartAt};

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
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::Consumer;
    ///
    /// let builder = Consumer::builder().set("group.id", "billing");
    /// # let _ = builder;
    /// ```
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

    /// Waits for the next record. Dropped before it is done, it loses none.
    ///
    /// # Errors
    /// What one partition or the group suffers from; the next call goes on with the others.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::PollError;
    ///
    /// loop {
    ///     match consumer.recv().await {
    ///         Ok(record) => println!("{}: {:?}", record.offset, record.value),
    ///         Err(PollError::Closed) => break,
    ///         // one partition's, or the group's: the others go on
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let records = consumer.poll(Duration::from_millis(500)).await?;
    /// // one write for many records, and then they count as processed
    /// println!("{} records of one partition", records.len());
    /// consumer.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::pin::pin;
    ///
    /// use futures_util::{StreamExt, TryStreamExt};
    ///
    /// let mut hundred = pin!(consumer.stream().take(100));
    /// while let Some(record) = hundred.try_next().await? {
    ///     println!("{:?}", record.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
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

    /// Lets the listener commit before the partitions go, since the application lets go of them.
    async fn tell_of_the_end(&self) {
        let Some(listener) = self.listener.as_deref() else {
            return;
        };
        let owned = self
            .on_thread((), async move |poller| {
                Ok(poller.consumer.group_assignment())
            })
            .await;
        let owned = owned.unwrap_or_default();
        if !owned.is_empty() {
            listener.on_revoked(self, &owned).await;
        }
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

    /// Makes the poll that waits now, or else the next one, end with [`PollError::Woken`]: to stop a
    /// thread that waits for records. Asynchronous code may as well drop its future.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    ///
    /// use ringmill_client::PollError;
    /// use ringmill_client::blocking::Consumer;
    ///
    /// let builder = ringmill_client::Consumer::builder().set("group.id", "billing");
    /// let consumer = Arc::new(Consumer::connect(builder)?);
    /// let reader = {
    ///     let consumer = consumer.clone();
    ///     std::thread::spawn(move || {
    ///         loop {
    ///             match consumer.recv() {
    ///                 Ok(record) => println!("{record:?}"),
    ///                 Err(PollError::Woken) => return,
    ///                 Err(error) => eprintln!("{error}"),
    ///             }
    ///         }
    ///     })
    /// };
    /// // at the end of the program
    /// consumer.wakeup();
    /// reader.join().expect("it does not panic");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wakeup(&self) {
        let woken = self.on_thread((), async move |poller| {
            poller.woken.notify_one();
            Ok(())
        });
        // once closed, nobody waits
        let _ = woken.await;
    }

    /// Tells the listener that its partitions go, commits, if that is automatic, leaves the group and
    /// stops.
    ///
    /// # Errors
    /// If the commit failed; the group is left all the same.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// // others get its partitions at once, not after the session's time
    /// consumer.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(self) -> Result<(), CommitError> {
        self.tell_of_the_end().await;
        let held = self.buffer().held();
        self.on_thread(CommitError::Closed, async move |poller| {
            poller.consumer.close_but(&held).await
        })
        .await
    }
}
