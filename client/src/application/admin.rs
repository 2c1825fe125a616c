//! The admin for applications.

mod configs;
mod groups;
mod inspect;
mod quotas;
mod topics;
mod transactions;

use std::future::Future;
use std::rc::Rc;

use super::error::StartError;
use super::thread::{IoThread, Transport};
use crate::admin::{Admin as Shell, AdminError};
use crate::assignor::TopicPartition;
use crate::cluster::Client;
use crate::config::{ClientConfig, PropertyError};
use crate::offsets::{FoundOffsets, OffsetSpec};

/// Administers a cluster: topics, settings, groups, and what brokers hold. Clones share one I/O
/// thread.
///
/// Each operation is repeated while its failure may pass, for at most `default.api.timeout.ms`,
/// then fails with the last [`AdminError`]. Dropping a future gives the operation up; what was sent
/// may be done all the same.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{Admin, NewTopic};
///
/// let admin = Admin::builder()
///     .set("bootstrap.servers", "127.0.0.1:9092")
///     .connect()
///     .await?;
/// admin.create_topic(NewTopic::of("flights", 3)).await?;
/// for topic in admin.topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin(IoThread<Desk>);

/// The admin's half on the I/O thread.
struct Desk {
    client: Client,
    shell: Shell,
}

impl Desk {
    async fn offsets(
        &self,
        wanted: Vec<(TopicPartition, OffsetSpec)>,
    ) -> Result<FoundOffsets, AdminError> {
        Ok(self.client.offsets(wanted).await?)
    }
}

/// Settings of an [`Admin`] to be.
///
/// ```
/// use ringmill_client::Admin;
///
/// let builder = Admin::builder().set("request.timeout.ms", 5000);
/// assert!(builder.check().is_ok());
/// ```
#[derive(Default)]
pub struct AdminBuilder {
    client: ClientConfig,
    transport: Transport,
    /// The first setting that was not taken.
    error: Option<PropertyError>,
}

impl AdminBuilder {
    /// Sets what Kafka calls `name`, as in `bootstrap.servers`. A mistake is told by
    /// [`AdminBuilder::connect`].
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Admin;
    ///
    /// let builder = Admin::builder()
    ///     .set("bootstrap.servers", "a:9092,b:9092")
    ///     .set("default.api.timeout.ms", 20_000);
    /// assert!(builder.check().is_ok());
    /// ```
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        let set = self.client.set(name, &value.to_string());
        self.error = self.error.or(set.err());
        self
    }

    /// Replaces the typed settings that [`AdminBuilder::set`] writes to by name.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringmill_client::{Admin, ClientConfig};
    ///
    /// let mut client = ClientConfig::new(["a:9092", "b:9092"]);
    /// client.api_timeout = Duration::from_secs(20);
    /// assert!(Admin::builder().config(client).check().is_ok());
    /// ```
    pub fn config(self, client: ClientConfig) -> Self {
        Self { client, ..self }
    }

    /// Which sockets to use.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::{Admin, Transport};
    ///
    /// // as on a system without io_uring
    /// let builder = Admin::builder().transport(Transport::Sockets);
    /// # let _ = builder;
    /// ```
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Whether the settings can be kept, without connecting.
    ///
    /// # Errors
    /// The first setting that is not taken.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Admin;
    ///
    /// let mistaken = Admin::builder().set("request.timeout", 5000);
    /// println!("{}", mistaken.check().unwrap_err()); // did you mean "request.timeout.ms"?
    /// ```
    pub fn check(&self) -> Result<(), StartError> {
        self.error.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Connects to the first broker of `bootstrap.servers` that answers, once.
    ///
    /// # Errors
    /// As [`AdminBuilder::check`], and if no broker answers.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::Admin;
    ///
    /// let admin = Admin::builder().set("bootstrap.servers", "127.0.0.1:9092").connect().await?;
    /// println!("{:?}", admin.cluster().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Admin, StartError> {
        self.check()?;
        let make = async move || {
            let client = Client::connect(self.client).await?;
            let shell = Shell::new(&client);
            Ok::<_, StartError>(Desk { client, shell })
        };
        let thread = IoThread::start("ringmill-admin", self.transport, make).await?;
        Ok(Admin(thread))
    }
}

impl Admin {
    /// Settings to begin with.
    ///
    /// # Examples
    /// ```no_run
    /// use ringmill_client::Admin;
    ///
    /// let builder = Admin::builder().set("client.id", "nightly-cleanup");
    /// # let _ = builder;
    /// ```
    pub fn builder() -> AdminBuilder {
        AdminBuilder::default()
    }

    async fn run<T, F>(
        &self,
        job: impl FnOnce(Rc<Desk>) -> F + Send + 'static,
    ) -> Result<T, AdminError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, AdminError>> + 'static,
    {
        self.0.call(job).await.unwrap_or(Err(AdminError::Closed))
    }
}
