//! The same producer, consumer and admin for plain threads: each call waits until it is done.
//!
//! The work is done by the client's I/O thread, as for the asynchronous handles. Not to be called
//! within an asynchronous runtime, whose thread it would stop.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ringmill_client::ProducerRecord;
//! use ringmill_client::blocking::Producer;
//!
//! let builder = ringmill_client::Producer::builder().set("bootstrap.servers", "127.0.0.1:9092");
//! let producer = Producer::connect(builder)?;
//! let delivered = producer.send(ProducerRecord::to("flights").value("boarding"))?.wait()?;
//! println!("at offset {:?}", delivered.offset);
//! producer.close()?;
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::wait::wait;
use super::{AdminBuilder, ConsumerBuilder, ConsumerRecord, Delivery, ProducerBuilder};
use super::{ProducerRecord, StartError};
use crate::admin::{
    AdminError, ClusterDescription, ConfigChange, ConfigEntry, ConfigKind, ConfigResource, Feature,
    FeatureUpdate, GroupDescription, GroupFilter, GroupListing, LogDir, NewTopic,
    PartitionReplicas, ProducerState, QuotaChange, QuotaEntity, QuotaFilter, Quotas,
    TransactionDescription, TransactionFilter, TransactionListing,
};
use crate::assignor::TopicPartition;
use crate::cluster::LookupError;
use crate::consumer::{CommitError, GroupMetadata, PollError, StartAt, SubscribeError};
use crate::group_offsets::CommittedOffsets;
use crate::metadata::Topic;
use crate::offsets::{FoundOffsets, OffsetError, OffsetSpec};
use crate::producer::{FlushError, ProducerStats, SendError, TransactionError};

/// Methods that wait for those of the same name.
macro_rules! twins {
    ($of:literal: $(fn $name:ident($($arg:ident: $kind:ty),*) -> $output:ty;)*) => {$(
        #[doc = concat!("Waits for [`", $of, "::", stringify!($name), "`](crate::", $of, "::", stringify!($name), ").")]
        ///
        /// # Errors
        /// As it.
        pub fn $name(&self, $($arg: $kind),*) -> $output {
            wait(self.0.$name($($arg),*))
        }
    )*};
}

/// [`crate::Producer`] for plain threads; clones share it.
///
/// # Examples
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::ProducerRecord;
/// use ringmill_client::blocking::Producer;
///
/// let producer = Producer::connect(ringmill_client::Producer::builder())?;
/// let threads = ["north", "south"].map(|gate| {
///     let producer = producer.clone();
///     std::thread::spawn(move || producer.send(ProducerRecord::to("flights").value(gate)))
/// });
/// for thread in threads {
///     thread.join().expect("it does not panic")?.wait()?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer(crate::Producer);

impl Producer {
    /// Starts the producer, as [`ProducerBuilder::connect`] does.
    ///
    /// # Errors
    /// As it.
    pub fn connect(builder: ProducerBuilder) -> Result<Self, StartError> {
        wait(builder.connect()).map(Self)
    }

    /// Takes a record if there is room now.
    ///
    /// # Errors
    /// As [`crate::Producer::try_send`].
    pub fn try_send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        self.0.try_send(record)
    }

    twins! { "Producer":
        fn send(record: ProducerRecord) -> Result<Delivery, SendError>;
        fn flush() -> Result<(), FlushError>;
        fn partitions(topic: &str) -> Result<usize, LookupError>;
        fn stats() -> ProducerStats;
        fn init_transactions() -> Result<(), TransactionError>;
        fn begin_transaction() -> Result<(), TransactionError>;
        fn send_offsets_to_transaction(
            offsets: &CommittedOffsets,
            group: &GroupMetadata
        ) -> Result<(), TransactionError>;
        fn commit_transaction() -> Result<(), TransactionError>;
        fn abort_transaction() -> Result<(), TransactionError>;
    }

    /// Flushes, then closes.
    ///
    /// # Errors
    /// As [`crate::Producer::close`].
    pub fn close(self) -> Result<(), FlushError> {
        wait(self.0.close())
    }
}

/// [`crate::Consumer`] for plain threads.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use ringmill_client::blocking::Consumer;
///
/// let builder = ringmill_client::Consumer::builder().set("group.id", "billing");
/// let consumer = Consumer::connect(builder)?;
/// consumer.subscribe(&["flights"])?;
/// for record in consumer.poll(Duration::from_secs(1))? {
///     println!("{record:?}");
/// }
/// consumer.close()?;
/// # Ok(())
/// # }
/// ```
pub struct Consumer(crate::Consumer);

impl Consumer {
    /// Starts the consumer, as [`ConsumerBuilder::connect`] does.
    ///
    /// # Errors
    /// As it.
    pub fn connect(builder: ConsumerBuilder) -> Result<Self, StartError> {
        wait(builder.connect()).map(Self)
    }

    twins! { "Consumer":
        fn subscribe(topics: &[&str]) -> Result<(), SubscribeError>;
        fn subscribe_pattern(pattern: &str) -> Result<(), SubscribeError>;
        fn unsubscribe() -> Result<(), CommitError>;
        fn assign(partitions: Vec<(TopicPartition, StartAt)>) -> Result<(), PollError>;
        fn recv() -> Result<ConsumerRecord, PollError>;
        fn poll(limit: Duration) -> Result<Vec<ConsumerRecord>, PollError>;
        fn seek(partition: &TopicPartition, to: StartAt) -> Result<(), PollError>;
        fn pause(partitions: Vec<TopicPartition>) -> Result<(), PollError>;
        fn resume(partitions: Vec<TopicPartition>) -> Result<(), PollError>;
        fn assignment() -> BTreeSet<TopicPartition>;
        fn position(partition: &TopicPartition) -> Result<Option<i64>, LookupError>;
        fn current_lag(partition: &TopicPartition) -> Option<i64>;
        fn paused() -> BTreeSet<TopicPartition>;
        fn subscription() -> BTreeSet<Arc<str>>;
        fn beginning_offsets(
            partitions: Vec<TopicPartition>
        ) -> Result<BTreeMap<TopicPartition, i64>, OffsetError>;
        fn end_offsets(
            partitions: Vec<TopicPartition>
        ) -> Result<BTreeMap<TopicPartition, i64>, OffsetError>;
        fn commit() -> Result<(), CommitError>;
        fn group_metadata() -> Option<GroupMetadata>;
        fn commit_offsets(offsets: &CommittedOffsets) -> Result<(), CommitError>;
        fn committed(partitions: Vec<TopicPartition>) -> Result<CommittedOffsets, LookupError>;
        fn offsets_for_times(times: Vec<(TopicPartition, i64)>) -> Result<FoundOffsets, OffsetError>;
        fn offsets(wanted: Vec<(TopicPartition, OffsetSpec)>) -> Result<FoundOffsets, OffsetError>;
        fn topic(name: &str) -> Result<Topic, LookupError>;
    }

    /// Ends a poll of another thread, as [`crate::Consumer::wakeup`] does.
    pub fn wakeup(&self) {
        wait(self.0.wakeup());
    }

    /// Makes the group rebalance, as [`crate::Consumer::enforce_rebalance`] does.
    pub fn enforce_rebalance(&self) {
        wait(self.0.enforce_rebalance());
    }

    /// Commits, if that is automatic, leaves the group and stops.
    ///
    /// # Errors
    /// As [`crate::Consumer::close`].
    pub fn close(self) -> Result<(), CommitError> {
        wait(self.0.close())
    }
}

/// [`crate::Admin`] for plain threads; clones share it.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::NewTopic;
/// use ringmill_client::blocking::Admin;
///
/// let admin = Admin::connect(ringmill_client::Admin::builder())?;
/// admin.create_topic(NewTopic::of("flights", 3))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin(crate::Admin);

impl Admin {
    /// Connects, as [`AdminBuilder::connect`] does.
    ///
    /// # Errors
    /// As it.
    pub fn connect(builder: AdminBuilder) -> Result<Self, StartError> {
        wait(builder.connect()).map(Self)
    }

    twins! { "Admin":
        fn create_topic(topic: NewTopic) -> Result<Topic, AdminError>;
        fn validate_topic(topic: NewTopic) -> Result<(), AdminError>;
        fn delete_topic(name: &str) -> Result<(), AdminError>;
        fn topics() -> Result<Vec<Topic>, AdminError>;
        fn describe_topic(name: &str) -> Result<Topic, AdminError>;
        fn describe_partitions(name: &str) -> Result<Vec<PartitionReplicas>, AdminError>;
        fn create_partitions(name: &str, count: i32) -> Result<(), AdminError>;
        fn delete_records(below: BTreeMap<TopicPartition, i64>) -> Result<BTreeMap<TopicPartition, i64>, AdminError>;
        fn topic_configs(name: &str) -> Result<Vec<ConfigEntry>, AdminError>;
        fn broker_configs(id: i32) -> Result<Vec<ConfigEntry>, AdminError>;
        fn configs(of: &ConfigResource) -> Result<Vec<ConfigEntry>, AdminError>;
        fn alter_topic(name: &str, changes: Vec<ConfigChange>) -> Result<(), AdminError>;
        fn alter_broker(id: i32, changes: Vec<ConfigChange>) -> Result<(), AdminError>;
        fn alter_configs(of: &ConfigResource, changes: Vec<ConfigChange>) -> Result<(), AdminError>;
        fn validate_configs(of: &ConfigResource, changes: Vec<ConfigChange>) -> Result<(), AdminError>;
        fn config_resources(kinds: Vec<ConfigKind>) -> Result<Vec<ConfigResource>, AdminError>;
        fn groups() -> Result<Vec<GroupListing>, AdminError>;
        fn groups_where(filter: GroupFilter) -> Result<Vec<GroupListing>, AdminError>;
        fn describe_group(group: &str) -> Result<GroupDescription, AdminError>;
        fn delete_group(group: &str) -> Result<(), AdminError>;
        fn remove_members(group: &str, instance_ids: Vec<String>) -> Result<(), AdminError>;
        fn group_offsets(group: &str) -> Result<CommittedOffsets, AdminError>;
        fn set_group_offsets(group: &str, offsets: CommittedOffsets) -> Result<(), AdminError>;
        fn delete_group_offsets(group: &str, partitions: BTreeSet<TopicPartition>) -> Result<(), AdminError>;
        fn cluster() -> Result<ClusterDescription, AdminError>;
        fn features() -> Result<BTreeMap<String, Feature>, AdminError>;
        fn update_features(updates: Vec<FeatureUpdate>) -> Result<(), AdminError>;
        fn validate_features(updates: Vec<FeatureUpdate>) -> Result<(), AdminError>;
        fn offsets(wanted: Vec<(TopicPartition, OffsetSpec)>) -> Result<FoundOffsets, AdminError>;
        fn log_dirs(broker: i32) -> Result<Vec<LogDir>, AdminError>;
        fn producers(partition: &TopicPartition) -> Result<Vec<ProducerState>, AdminError>;
        fn quotas(filter: QuotaFilter) -> Result<Quotas, AdminError>;
        fn alter_quotas(entity: &QuotaEntity, changes: Vec<QuotaChange>) -> Result<(), AdminError>;
        fn transactions(filter: TransactionFilter) -> Result<Vec<TransactionListing>, AdminError>;
        fn describe_transaction(transactional_id: &str) -> Result<TransactionDescription, AdminError>;
        fn abort_transaction(partition: &TopicPartition, producer: &ProducerState) -> Result<(), AdminError>;
        fn fence_producer(transactional_id: &str) -> Result<(i64, i16), AdminError>;
    }
}
