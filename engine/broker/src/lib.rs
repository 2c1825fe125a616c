//! The broker: every core owns its connections, partitions and groups, and answers Kafka's protocol
//! for them. What has a rule is a pure state machine (`groups`, `transactions`,
//! `fetch_sessions`, `limits`, `config`), driven by thin shells on the ring.

#![forbid(unsafe_code)]

mod admin;
mod ahead;
mod arrivals;
pub mod cleaner;
mod clock;
pub mod cluster;
pub mod config;
mod connection;
mod delayed;
mod dispatch;
pub mod error;
pub mod fetch_sessions;
mod fetcher;
pub mod groups;
pub mod handlers;
mod in_sync;
pub mod limits;
pub mod metrics;
mod partition;
pub mod pattern;
mod peers;
mod publish;
pub mod quotas;
mod repair;
mod replica;
mod router;
mod serve;
mod shard;
mod stage;
pub mod telemetry;
mod throttle;
pub mod transactions;
mod upkeep;
mod witness;

pub use config::{BrokerConfig, ConfigError};
pub use peers::Refused;
pub use ringmill_replication::quorum::SnapshotEntries;
pub use serve::{Launch, ServeError, Stopper, serve};
