//! A client of the Kafka protocol: producer, consumer and admin.
//!
//! The contract: whatever has a rule (batching, partitioning, idempotence, fetch positions, group
//! membership) is a state machine without I/O, clock or await; thin shells drive it on the ring.
//! Everything belongs to the core that made it. Everything is bounded by a setting of [`config`],
//! and each operation fails with its own small error, in words that say what to do.

#![forbid(unsafe_code)]

mod admin;
mod assignor;
mod backoff;
mod cluster;
pub mod config;
mod connection;
mod consumer;
mod group_offsets;
mod metadata;
mod offsets;
mod partitioner;
mod pipeline;
mod pool;
mod producer;
mod transport;
mod versions;

pub use admin::{
    Admin, AdminError, ClusterDescription, ConfigChange, ConfigEntry, ConfigSource,
    GroupDescription, GroupListing, GroupMember, NewTopic,
};
pub use assignor::protocol::GroupProtocolError;
pub use assignor::{Assignor, TopicPartition};
pub use cluster::{Client, LookupError};
pub use config::{Acks, ClientConfig, ConfigError, ConsumerConfig, OffsetReset, ProducerConfig};
pub use connection::{CallError, ConnectError};
pub use consumer::{
    CommitError, Consumer, Event, FetchError, Fetched, FetchedBatch, GroupError, PollError,
    RecordsError, StartAt, SubscribeError,
};
pub use group_offsets::{Committed, CommittedOffsets};
pub use metadata::{Broker, Image, Partition, Topic};
pub use offsets::{FoundOffset, FoundOffsets, OffsetError, OffsetSpec};
pub use partitioner::{murmur2, partition_of_key};
pub use pipeline::ProtocolError;
pub use producer::{
    Delivered, Delivery, DeliveryError, FlushError, Producer, ProducerError, ProducerStats,
    ProducerTopic, Record, SendError,
};
pub use versions::VersionError;

/// How batches are compressed.
pub use ringmill_wire::batch::Compression;
/// The brokers' error codes.
pub use ringmill_wire::error::ErrorCode;
/// A record's header, for producing and as consumed.
pub use ringmill_wire::record::{Header, Record as FetchedRecord};
