//! Settings of a consumer to be.

use std::sync::Arc;

use super::consumer::Consumer;
use super::error::StartError;
use super::interceptor::ConsumerInterceptor;
use super::poller::Poller;
use super::rebalance::RebalanceListener;
use super::thread::{IoThread, Transport};
use crate::config::{ClientConfig, ConsumerConfig, GroupProtocol, PropertyError};

/// Settings of a [`Consumer`] to be.
///
/// ```
/// use ringmill_client::Consumer;
///
/// let builder = Consumer::builder()
///     .set("group.id", "billing")
///     .set("auto.offset.reset", "earliest")
///     .set("enable.auto.commit", false);
/// assert!(builder.check().is_ok());
/// ```
#[derive(Default)]
pub struct ConsumerBuilder {
    client: ClientConfig,
    config: ConsumerConfig,
    transport: Transport,
    listener: Option<Arc<dyn RebalanceListener>>,
    interceptors: Vec<Arc<dyn ConsumerInterceptor>>,
    /// The first setting that was not taken.
    error: Option<PropertyError>,
}

impl ConsumerBuilder {
    /// Sets what Kafka calls `name`, as in `bootstrap.servers`, `group.id` or `isolation.level`. A
    /// mistake is told by [`ConsumerBuilder::connect`].
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Consumer;
    ///
    /// let builder = Consumer::builder()
    ///     .set("bootstrap.servers", "a:9092,b:9092")
    ///     .set("group.id", "billing");
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
    /// use ringmill_client::Consumer;
    ///
    /// let text = "bootstrap.servers=a:9092\nclient.id=gate-7";
    /// let settings = text.lines().filter_map(|line| line.split_once('='));
    /// assert!(Consumer::builder().set_all(settings).check().is_ok());
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

    /// Replaces the typed settings that [`ConsumerBuilder::set`] writes to by name.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ClientConfig, Consumer, ConsumerConfig};
    ///
    /// let client = ClientConfig::new(["a:9092", "b:9092"]);
    /// let config = ConsumerConfig::default();
    /// assert!(Consumer::builder().config(client, config).check().is_ok());
    /// ```
    pub fn config(self, client: ClientConfig, config: ConsumerConfig) -> Self {
        Self {
            client,
            config,
            ..self
        }
    }

    /// Which protocol the group speaks (`group.protocol`).
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{Consumer, GroupProtocol};
    ///
    /// let builder = Consumer::builder()
    ///     .set("group.id", "billing")
    ///     .group_protocol(GroupProtocol::Consumer)
    ///     .set("group.remote.assignor", "uniform");
    /// assert!(builder.check().is_ok());
    /// ```
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.config.group_protocol = protocol;
        self
    }

    /// Who hears of partitions that come and go.
    ///
    /// # Examples
    /// ```no_run
    /// use std::collections::BTreeSet;
    ///
    /// use ringmill_client::{Consumer, ListenerFuture, RebalanceListener, TopicPartition};
    ///
    /// struct Say;
    ///
    /// impl RebalanceListener for Say {
    ///     fn on_assigned<'a>(
    ///         &'a self,
    ///         _consumer: &'a Consumer,
    ///         partitions: &'a BTreeSet<TopicPartition>,
    ///     ) -> ListenerFuture<'a> {
    ///         Box::pin(async move { println!("{} more", partitions.len()) })
    ///     }
    /// }
    ///
    /// let builder = Consumer::builder().set("group.id", "billing").listener(Say);
    /// # let _ = builder;
    /// ```
    pub fn listener(self, listener: impl RebalanceListener) -> Self {
        Self {
            listener: Some(Arc::new(listener)),
            ..self
        }
    }

    /// Adds an interceptor, called after those added before.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{CommittedOffsets, Consumer, ConsumerInterceptor};
    ///
    /// struct Audit;
    ///
    /// impl ConsumerInterceptor for Audit {
    ///     fn on_commit(&self, offsets: &CommittedOffsets) {
    ///         println!("committed {offsets:?}");
    ///     }
    /// }
    ///
    /// let builder = Consumer::builder().interceptor(Audit);
    /// # let _ = builder;
    /// ```
    pub fn interceptor(mut self, interceptor: impl ConsumerInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Which sockets to use.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{Consumer, Transport};
    ///
    /// // fail rather than do without io_uring
    /// let builder = Consumer::builder().transport(Transport::IoUring);
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
    /// use ringmill_client::Consumer;
    ///
    /// let contradictory = Consumer::builder().set("heartbeat.interval.ms", 40_000);
    /// let why = contradictory.check().unwrap_err().to_string();
    /// assert!(why.contains("session.timeout.ms"), "{why}");
    /// ```
    pub fn check(&self) -> Result<(), StartError> {
        match &self.error {
            Some(error) => Err(error.clone().into()),
            None => Ok(self.config.check(&self.client)?),
        }
    }

    /// Starts the consumer, with nothing to read yet: connects to the first broker of
    /// `bootstrap.servers` that answers, once.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::check`], and if no broker answers.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::Consumer;
    ///
    /// let consumer = Consumer::builder()
    ///     .set("bootstrap.servers", "127.0.0.1:9092")
    ///     .set("group.id", "billing")
    ///     .set("isolation.level", "read_committed")
    ///     .connect()
    ///     .await?;
    /// consumer.subscribe(["flights"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Consumer, StartError> {
        self.check()?;
        let max_poll_records = self.config.max_poll_records;
        let (client, config) = (self.client, self.config);
        let make = move || Poller::start(client, config);
        let thread = IoThread::start("ringmill-consumer", self.transport, make).await?;
        Ok(Consumer::over(
            thread,
            max_poll_records,
            self.listener,
            self.interceptors,
        ))
    }
}
