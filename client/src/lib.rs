//! A client of the Kafka protocol: producer, consumer and admin.
//!
//! The contract: whatever has a rule (batching, partitioning, idempotence, fetch positions, group
//! membership) is a state machine without I/O, clock or await; thin shells drive it on the ring.
//! Everything belongs to the core that made it. Everything is bounded by a setting of [`config`],
//! and each operation fails with its own small error, in words that say what to do.

#![cfg_attr(
    feature = "tokio",
    doc = "
Applications begin with [`Producer`], [`Consumer`] or [`Admin`]:

```no_run
# async fn example() -> Result<(), Box<dyn std::error::Error>> {
use ringmill_client::{Producer, ProducerRecord};

let producer = Producer::builder().set(\"bootstrap.servers\", \"127.0.0.1:9092\").connect().await?;
let delivery = producer.send(ProducerRecord::to(\"flights\").value(\"boarding\")).await?;
println!(\"at offset {:?}\", delivery.await?.offset);
producer.close().await?;
# Ok(())
# }
```"
)]
#![forbid(unsafe_code)]

mod admin;
#[cfg(feature = "tokio")]
mod application;
mod assignor;
mod backoff;
mod cluster;
pub mod config;
mod connection;
mod consumer;
mod group_offsets;
#[cfg(feature = "messaging")]
pub mod messaging;
mod metadata;
mod offsets;
mod partitioner;
mod pipeline;
mod pool;
mod producer;
mod transport;
mod versions;

pub use admin::{
    AdminError, ClusterDescription, ConfigChange, ConfigEntry, ConfigKind, ConfigResource,
    ConfigSource, Feature, FeatureUpdate, GroupDescription, GroupFilter, GroupKind, GroupListing,
    GroupMember, LogDir, NewTopic, PartitionReplicas, ProducerState, QuotaChange, QuotaEntity,
    QuotaFilter, QuotaMatch, Quotas, TransactionDescription, TransactionFilter, TransactionListing,
};
#[cfg(feature = "tokio")]
pub use application::{
    Admin, AdminBuilder, Closed, Consumer, ConsumerBuilder, ConsumerInterceptor, ConsumerRecord,
    Delivery, Deserializer, Integer, ListenerFuture, Producer, ProducerBuilder,
    ProducerInterceptor, ProducerRecord, Raw, RebalanceListener, RecordHeaders, SerdeError,
    Serializer, StartError, ThreadError, Transport, TypedConsumer, TypedPollError, TypedProducer,
    TypedRecord, TypedSendError, UnexpectedNull, Utf8, blocking,
};
pub use assignor::protocol::GroupProtocolError;
pub use assignor::{Assignor, TopicPartition};
pub use cluster::LookupError;
pub use config::{
    Acks, ClientConfig, ConfigError, ConsumerConfig, GroupProtocol, OffsetReset, ProducerConfig,
    PropertyError,
};
pub use connection::{CallError, ConnectError};
pub use consumer::{
    CommitError, FetchError, GroupError, GroupMetadata, PollError, StartAt, SubscribeError,
};
pub use group_offsets::{Committed, CommittedOffsets};
pub use metadata::{Broker, Partition, Topic};
pub use offsets::{FoundOffset, FoundOffsets, OffsetError, OffsetSpec};
pub use partitioner::{
    Choice, CustomPartitioner, Partitioner, Partitioning, murmur2, partition_of_key,
};
pub use pipeline::ProtocolError;
pub use producer::{
    Delivered, DeliveryError, FlushError, ProducerError, ProducerStats, SendError, TransactionError,
};
pub use versions::VersionError;

/// How batches are compressed.
pub use ringmill_wire::batch::Compression;
/// The brokers' error codes.
pub use ringmill_wire::error::ErrorCode;
/// What a consumer sees of transactions.
pub use ringmill_wire::fetch::IsolationLevel;

/// The single-threaded shells: every value belongs to the thread that made it, which runs our ring
/// (feature `ring`) or, inside this crate, the I/O thread of an application's client.
///
/// The command line, the bench and the simulator use these; applications use the handles at the
/// root of the crate, which any thread may hold.
pub mod local {
    pub use crate::admin::{
        Admin, AdminError, ClusterDescription, ClusterFeatures, ClusterNode, ConfigChange,
        ConfigEntry, ConfigSource, GroupDescription, GroupListing, GroupMember, NewTopic,
        QuorumDescription, QuorumMember, Reassignment,
    };
    pub use crate::assignor::protocol::GroupProtocolError;
    pub use crate::assignor::{Assignor, TopicPartition};
    pub use crate::cluster::{Client, LookupError};
    pub use crate::config::{
        Acks, ClientConfig, ConfigError, ConsumerConfig, GroupProtocol, OffsetReset, ProducerConfig,
    };
    pub use crate::connection::{CallError, ConnectError};
    pub use crate::consumer::{
        CommitError, Consumer, Event, FetchError, Fetched, FetchedBatch, GroupError, PollError,
        RecordsError, StartAt, SubscribeError,
    };
    pub use crate::group_offsets::{Committed, CommittedOffsets};
    pub use crate::metadata::{Broker, Image, Partition, Topic};
    pub use crate::offsets::{FoundOffset, FoundOffsets, OffsetError, OffsetSpec};
    pub use crate::pipeline::ProtocolError;
    pub use crate::producer::{
        Delivered, Delivery, DeliveryError, FlushError, Producer, ProducerError, ProducerStats,
        ProducerTopic, Record, SendError,
    };
    pub use crate::versions::VersionError;
    pub use crate::{Compression, ErrorCode, murmur2, partition_of_key};
    /// A record's header, for producing and as consumed.
    pub use ringmill_wire::record::{Header, Record as FetchedRecord};
}
