//! The producer for applications.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;

use super::error::StartError;
use super::feeder::{Feeder, Interceptors};
use super::intake::{Intake, Submission};
use super::interceptor::ProducerInterceptor;
use super::record::ProducerRecord;
use super::thread::{IoThread, Transport};
use crate::LookupError;
use crate::config::{ClientConfig, ProducerConfig, PropertyError};
use crate::partitioner::{CustomPartitioner, Partitioner, Partitioning};
use crate::producer::{Delivered, DeliveryError, FlushError, ProducerStats, SendError};

/// Sends records to topics; clones share one I/O thread and one buffer.
///
/// Sending is asynchronous twice over: [`Producer::send`] waits for room in the buffer, the
/// [`Delivery`] that comes back waits for the broker. Dropping the last clone gives up what was not
/// delivered: [`Producer::flush`] or [`Producer::close`] first.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{Producer, ProducerRecord};
///
/// let producer = Producer::builder()
///     .set("bootstrap.servers", "127.0.0.1:9092")
///     .set("compression.type", "lz4")
///     .connect()
///     .await?;
/// let delivery = producer
///     .send(ProducerRecord::to("flights").key("LH-400").value("boarding"))
///     .await?;
/// println!("at offset {:?}", delivery.await?.offset);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    pub(super) thread: IoThread<Rc<Feeder>>,
    pub(super) intake: Arc<Intake>,
    interceptors: Interceptors,
    max_request_bytes: usize,
}

/// Settings of a [`Producer`] to be.
///
/// ```
/// use ringmill_client::Producer;
///
/// let builder = Producer::builder()
///     .set("bootstrap.servers", "a:9092,b:9092")
///     .set("linger.ms", 20)
///     .set("acks", "all");
/// assert!(builder.check().is_ok());
/// let mistaken = Producer::builder().set("lingr.ms", 20);
/// assert!(mistaken.check().unwrap_err().to_string().contains("linger.ms"));
/// ```
#[derive(Default)]
pub struct ProducerBuilder {
    client: ClientConfig,
    config: ProducerConfig,
    transport: Transport,
    interceptors: Vec<Arc<dyn ProducerInterceptor>>,
    /// The first setting that was not taken.
    error: Option<PropertyError>,
}

impl ProducerBuilder {
    /// Sets what Kafka calls `name`, as in `bootstrap.servers`, `acks` or `linger.ms`. A mistake is
    /// told by [`ProducerBuilder::connect`].
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Producer;
    ///
    /// let builder = Producer::builder()
    ///     .set("bootstrap.servers", "a:9092,b:9092")
    ///     .set("linger.ms", 20);
    /// assert!(builder.check().is_ok());
    /// ```
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        let set = self.config.set(&mut self.client, name, &value.to_string());
        self.error = self.error.or(set.err());
        self
    }

    /// Sets many, as read from a file of properties.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Producer;
    ///
    /// let text = "bootstrap.servers=a:9092\nclient.id=gate-7";
    /// let settings = text.lines().filter_map(|line| line.split_once('='));
    /// assert!(Producer::builder().set_all(settings).check().is_ok());
    /// ```
    pub fn set_all<N: AsRef<str>, V: ToString>(
        self,
        settings: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let settings = settings.into_iter();
        settings.fold(self, |builder, (name, value)| {
            builder.set(name.as_ref(), value)
        })
    }

    /// Replaces the typed settings that [`ProducerBuilder::set`] writes to by name.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ClientConfig, Producer, ProducerConfig};
    ///
    /// let client = ClientConfig::new(["a:9092", "b:9092"]);
    /// let config = ProducerConfig::default();
    /// assert!(Producer::builder().config(client, config).check().is_ok());
    /// ```
    pub fn config(self, client: ClientConfig, config: ProducerConfig) -> Self {
        Self {
            client,
            config,
            ..self
        }
    }

    /// Lets the application choose partitions.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{Choice, Partitioner, Producer};
    ///
    /// struct FirstByte;
    ///
    /// impl Partitioner for FirstByte {
    ///     fn partition(&self, choice: &Choice<'_>) -> i32 {
    ///         let first = choice.key.and_then(|key| key.first()).copied().unwrap_or(0);
    ///         (usize::from(first) % choice.partitions) as i32
    ///     }
    /// }
    ///
    /// let builder = Producer::builder().partitioner(FirstByte);
    /// # let _ = builder;
    /// ```
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        let custom = CustomPartitioner::new(partitioner);
        self.config.partitioning = Partitioning::Custom(custom);
        self
    }

    /// Adds an interceptor, called after those added before.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{Producer, ProducerInterceptor, ProducerRecord};
    ///
    /// struct Origin;
    ///
    /// impl ProducerInterceptor for Origin {
    ///     fn on_send(&self, record: ProducerRecord) -> ProducerRecord {
    ///         record.header("origin", "gate 7")
    ///     }
    /// }
    ///
    /// let builder = Producer::builder().interceptor(Origin);
    /// # let _ = builder;
    /// ```
    pub fn interceptor(mut self, interceptor: impl ProducerInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Which sockets to use.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{Producer, Transport};
    ///
    /// // fail rather than do without io_uring
    /// let builder = Producer::builder().transport(Transport::IoUring);
    /// # let _ = builder;
    /// ```
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Whether the settings can be kept, without connecting.
    ///
    /// # Errors
    /// The first setting that is not taken, or contradicts others.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Producer;
    ///
    /// let contradictory = Producer::builder().set("acks", 1);
    /// let why = contradictory.check().unwrap_err().to_string();
    /// assert!(why.contains("idempotence"), "{why}");
    /// ```
    pub fn check(&self) -> Result<(), StartError> {
        match &self.error {
            Some(error) => Err(error.clone().into()),
            None => Ok(self.config.check(&self.client)?),
        }
    }

    /// Starts the producer: connects to the first broker of `bootstrap.servers` that answers, once,
    /// so that a wrong address is an error now and not a time-out later. From then on, brokers may
    /// come and go.
    ///
    /// # Errors
    /// As [`ProducerBuilder::check`], and if no broker answers or gives the producer an identity.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::Producer;
    ///
    /// let producer = Producer::builder()
    ///     .set("bootstrap.servers", "127.0.0.1:9092")
    ///     .set("compression.type", "zstd")
    ///     .connect()
    ///     .await?;
    /// println!("flights has {} partitions", producer.partitions("flights").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Producer, StartError> {
        self.check()?;
        let intake = Arc::new(Intake::new(self.config.buffer_bytes));
        let interceptors: Interceptors = self.interceptors.into();
        let max_request_bytes = self.config.max_request_bytes;
        let make = {
            let (intake, interceptors) = (intake.clone(), interceptors.clone());
            let (client, config) = (self.client, self.config);
            move || Feeder::start(client, config, intake, interceptors)
        };
        let thread = IoThread::start("ringmill-producer", self.transport, make).await?;
        Ok(Producer {
            thread,
            intake,
            interceptors,
            max_request_bytes,
        })
    }
}

impl Producer {
    /// Settings to begin with.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::Producer;
    ///
    /// let builder = Producer::builder().set("acks", "all");
    /// # let _ = builder;
    /// ```
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    /// Takes a record as soon as there is room in the buffer (`buffer.memory`), for which it waits
    /// at most `max.block.ms`. The [`Delivery`] need not be awaited.
    ///
    /// # Errors
    /// If there was no room in time, the record is larger than a request may be, or the producer is
    /// closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::ProducerRecord;
    ///
    /// // many on their way at once, each with its own result
    /// let mut deliveries = Vec::new();
    /// for seat in 1..=200 {
    ///     let record = ProducerRecord::to("boarded").key("LH-400").value(seat.to_string());
    ///     deliveries.push(producer.send(record).await?);
    /// }
    /// for delivery in deliveries {
    ///     println!("at {:?}", delivery.await?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        let (mut submission, delivery) = self.prepare(record)?;
        loop {
            match self.intake.offer(submission) {
                Ok(()) => return Ok(delivery),
                Err((SendError::Full, refused)) => submission = refused,
                Err((error, _)) => return Err(error),
            }
            let bytes = submission.record.size();
            let waited = self
                .thread
                .call(move |feeder| async move { feeder.wait_for_room(bytes).await })
                .await;
            match waited {
                Ok(true) => {}
                Ok(false) => return Err(SendError::Full),
                Err(_) => return Err(SendError::Closed),
            }
        }
    }

    /// Takes a record if there is room now: never waits, for code that must not.
    ///
    /// # Errors
    /// As [`Producer::send`]; [`SendError::Full`] at once.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{ProducerRecord, SendError};
    ///
    /// match producer.try_send(ProducerRecord::to("positions").value("47.4 8.5")) {
    ///     Ok(_delivery) => {}
    ///     // the next position is as good
    ///     Err(SendError::Full) => println!("one left out"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        let (submission, delivery) = self.prepare(record)?;
        match self.intake.offer(submission) {
            Ok(()) => Ok(delivery),
            Err((error, _)) => Err(error),
        }
    }

    fn prepare(&self, record: ProducerRecord) -> Result<(Submission, Delivery), SendError> {
        let interceptors = self.interceptors.iter();
        let record = interceptors.fold(record, |record, i| i.on_send(record));
        let bytes = record.size();
        if bytes > self.max_request_bytes {
            return Err(SendError::TooLarge {
                bytes,
                limit: self.max_request_bytes,
            });
        }
        let (delivered, result) = oneshot::channel();
        Ok((Submission { record, delivered }, Delivery(result)))
    }

    /// Sends everything taken so far without further waiting for full batches, and waits until each
    /// record is delivered or has failed; at most `delivery.timeout.ms`.
    ///
    /// # Errors
    /// If deliveries failed since the last flush.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::ProducerRecord;
    ///
    /// for gate in ["A1", "A2"] {
    ///     drop(producer.send(ProducerRecord::to("gates").value(gate)).await?);
    /// }
    /// // the error, if any, of those whose delivery nobody awaited
    /// producer.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<(), FlushError> {
        let closed = || FlushError {
            records: 0,
            first: DeliveryError::Closed,
        };
        let told = self.intake.flush().ok_or_else(closed)?;
        told.await.unwrap_or_else(|oneshot::Canceled| Err(closed()))
    }

    /// Flushes, then closes: nothing more is taken, by no clone.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// producer.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(self) -> Result<(), FlushError> {
        let flushed = self.flush().await;
        self.intake.close();
        let _ = self
            .thread
            .call(|feeder| async move { feeder.producer.clone().close().await })
            .await;
        flushed
    }

    /// How many partitions a topic has; looks the topic up, which may create it, if the cluster is
    /// configured so.
    ///
    /// # Errors
    /// If there is no such topic, or it cannot be asked for within `default.api.timeout.ms`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// let count = producer.partitions("flights").await?;
    /// println!("LH-400 goes to {}", ringmill_client::partition_of_key(b"LH-400", count));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn partitions(&self, topic: &str) -> Result<usize, LookupError> {
        let topic = topic.to_owned();
        let found = self
            .thread
            .call(move |feeder| async move { feeder.partitions(&topic).await })
            .await;
        found.unwrap_or(Err(LookupError::Closed))
    }

    /// Bytes of records that wait for their delivery.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("{} bytes are on their way", producer.buffered_bytes());
    /// # Ok(())
    /// # }
    /// ```
    pub fn buffered_bytes(&self) -> usize {
        self.intake.held()
    }

    /// What was done so far, in numbers; all zero once closed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// let stats = producer.stats().await;
    /// println!("{} of {} records delivered, {} retries", stats.delivered, stats.records, stats.retries);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stats(&self) -> ProducerStats {
        let stats = self
            .thread
            .call(|feeder| async move { feeder.producer.stats() })
            .await;
        stats.unwrap_or_default()
    }
}

/// Waits for the delivery of one record; may be dropped without harm.
///
/// # Examples
/// ```no_run
/// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::ProducerRecord;
///
/// let delivery = producer.send(ProducerRecord::to("flights").value("boarding")).await?;
/// let delivered = delivery.await?;
/// println!("{}: {:?}", delivered.partition, delivered.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Delivered, DeliveryError>>);

impl Delivery {
    /// The result, if it is known.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::ProducerRecord;
    ///
    /// let mut delivery = producer.send(ProducerRecord::to("flights").value("boarding")).await?;
    /// match delivery.now() {
    ///     Some(result) => println!("{result:?}"),
    ///     None => println!("still on its way"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn now(&mut self) -> Option<Result<Delivered, DeliveryError>> {
        match self.0.try_recv() {
            Ok(result) => result,
            Err(oneshot::Canceled) => Some(Err(DeliveryError::Closed)),
        }
    }

    /// Waits on a plain thread: for the blocking twin.
    ///
    /// # Errors
    /// Why the record was not delivered.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::ProducerRecord;
    /// use ringmill_client::blocking::Producer;
    ///
    /// let producer = Producer::connect(ringmill_client::Producer::builder())?;
    /// let delivery = producer.send(ProducerRecord::to("flights").value("boarding"))?;
    /// println!("{:?}", delivery.wait()?.offset);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(self) -> Result<Delivered, DeliveryError> {
        super::wait::wait(self)
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.0).poll(cx);
        result.map(|result| result.unwrap_or(Err(DeliveryError::Closed)))
    }
}
