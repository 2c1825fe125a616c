//! The admin for applications.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;

use super::error::StartError;
use super::thread::{IoThread, Transport};
use crate::admin::{
    Admin as Shell, AdminError, ClusterDescription, ConfigChange, ConfigEntry, ConfigResource,
    GroupDescription, GroupListing, LogDir, NewTopic, ProducerState,
};
use crate::assignor::TopicPartition;
use crate::cluster::Client;
use crate::config::{ClientConfig, PropertyError};
use crate::group_offsets::CommittedOffsets;
use crate::metadata::Topic;
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
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        let set = self.client.set(name, &value.to_string());
        self.error = self.error.or(set.err());
        self
    }

    /// Replaces the typed settings that [`AdminBuilder::set`] writes to by name.
    pub fn config(self, client: ClientConfig) -> Self {
        Self { client, ..self }
    }

    /// Which sockets to use.
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Whether the settings can be kept, without connecting.
    ///
    /// # Errors
    /// The first setting that is not taken.
    pub fn check(&self) -> Result<(), StartError> {
        self.error.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Connects to the first broker of `bootstrap.servers` that answers, once.
    ///
    /// # Errors
    /// As [`AdminBuilder::check`], and if no broker answers.
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

    /// The cluster's name, controller and brokers.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn cluster(&self) -> Result<ClusterDescription, AdminError> {
        self.run(async move |desk| desk.shell.cluster().await).await
    }

    /// Creates a topic; returns once its partitions have leaders.
    ///
    /// # Errors
    /// If the topic exists, or a setting of it is refused.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<Topic, AdminError> {
        self.run(async move |desk| desk.shell.create_topic(&topic).await)
            .await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.delete_topic(&name).await)
            .await
    }

    /// All topics, internal ones among them, by name.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn topics(&self) -> Result<Vec<Topic>, AdminError> {
        self.run(async move |desk| desk.shell.topics().await).await
    }

    /// A topic as the cluster has it now.
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn describe_topic(&self, name: &str) -> Result<Topic, AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.describe_topic(&name).await)
            .await
    }

    /// Gives a topic more partitions: `count` in all.
    ///
    /// # Errors
    /// If the topic has as many already, or more.
    pub async fn create_partitions(&self, name: &str, count: i32) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.create_partitions(&name, count).await)
            .await
    }

    /// Deletes the records below an offset of each partition, −1 for all; returns the first offset that
    /// each has then.
    ///
    /// # Errors
    /// If an offset lies behind the end of its partition.
    pub async fn delete_records(
        &self,
        below: BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>, AdminError> {
        self.run(async move |desk| desk.shell.delete_records(&below).await)
            .await
    }

    /// Places in partitions by their meaning: the ends, or a time.
    ///
    /// # Errors
    /// The first partition's failure that remained.
    pub async fn offsets(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
    ) -> Result<FoundOffsets, AdminError> {
        let wanted: Vec<_> = wanted.into_iter().collect();
        self.run(async move |desk| Ok(desk.client.offsets(wanted).await?))
            .await
    }

    /// All settings of a topic.
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.topic_configs(&name).await)
            .await
    }

    /// All settings of a broker.
    ///
    /// # Errors
    /// If there is no such broker.
    pub async fn broker_configs(&self, id: i32) -> Result<Vec<ConfigEntry>, AdminError> {
        self.run(async move |desk| desk.shell.broker_configs(id).await)
            .await
    }

    /// Changes settings of a topic; the others stay as they are.
    ///
    /// # Errors
    /// If a setting is unknown or its value refused: then none is changed.
    pub async fn alter_topic(
        &self,
        name: &str,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.alter_topic(&name, &changes).await)
            .await
    }

    /// Changes settings of a broker while it runs; the others stay as they are.
    ///
    /// # Errors
    /// If a setting is unknown, read-only, or its value refused: then none is changed.
    pub async fn alter_broker(
        &self,
        id: i32,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AdminError> {
        self.run(async move |desk| desk.shell.alter_broker(id, &changes).await)
            .await
    }

    /// All that has settings (KIP-1142), by kind and name.
    ///
    /// # Errors
    /// If the broker is too old to say.
    pub async fn config_resources(&self) -> Result<Vec<ConfigResource>, AdminError> {
        self.run(async move |desk| desk.shell.config_resources().await)
            .await
    }

    /// All groups of all brokers, by name.
    ///
    /// # Errors
    /// If a broker does not answer in time.
    pub async fn groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        self.run(async move |desk| desk.shell.groups().await).await
    }

    /// A group and its members.
    ///
    /// # Errors
    /// If there is no such group.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.describe_group(&group).await)
            .await
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// # Errors
    /// If the group has members, or there is none.
    pub async fn delete_group(&self, group: &str) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.delete_group(&group).await)
            .await
    }

    /// Makes members leave their group: those with these lasting names (`group.instance.id`, KIP-345),
    /// or all if none is named.
    ///
    /// # Errors
    /// If there is no such member.
    pub async fn remove_members(
        &self,
        group: &str,
        instance_ids: Vec<String>,
    ) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.remove_members(&group, &instance_ids).await)
            .await
    }

    /// What a group has committed.
    ///
    /// # Errors
    /// If the coordinator refuses.
    pub async fn group_offsets(&self, group: &str) -> Result<CommittedOffsets, AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.group_offsets(&group).await)
            .await
    }

    /// Sets offsets of a group without members.
    ///
    /// # Errors
    /// If the group has members.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: CommittedOffsets,
    ) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.set_group_offsets(&group, &offsets).await)
            .await
    }

    /// Deletes a group's offsets for partitions of topics that none of its members reads.
    ///
    /// # Errors
    /// If a member reads one of the topics.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<(), AdminError> {
        let group = group.to_owned();
        self.run(async move |desk| desk.shell.delete_group_offsets(&group, &partitions).await)
            .await
    }

    /// The folders of a broker, with the partitions in each.
    ///
    /// # Errors
    /// If there is no such broker.
    pub async fn log_dirs(&self, broker: i32) -> Result<Vec<LogDir>, AdminError> {
        self.run(async move |desk| desk.shell.log_dirs(broker).await)
            .await
    }

    /// The producers that a partition's leader knows, by id.
    ///
    /// # Errors
    /// If there is no such partition.
    pub async fn producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerState>, AdminError> {
        let partition = partition.clone();
        self.run(async move |desk| desk.shell.producers(&partition).await)
            .await
    }
}
