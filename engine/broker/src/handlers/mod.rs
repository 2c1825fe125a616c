//! What answers each request. Those that need the metadata alone are pure functions: the image, who
//! answers and the request go in, the response and the commands that must count before it is sent
//! come out.

pub mod alter_configs;
pub mod cluster;
mod commits;
pub mod config_resources;
pub mod configs;
pub(crate) mod consumer_groups;
mod context;
pub mod elections;
pub mod features;
pub(crate) mod fetch;
pub(crate) mod group_offsets;
pub(crate) mod groups;
pub(crate) mod inspect;
#[cfg(test)]
mod lab;
mod leaders;
pub mod metadata;
pub(crate) mod offsets;
pub(crate) mod produce;
pub mod producer_ids;
mod questions;
pub mod quotas;
pub mod reassignments;
mod record_faults;
mod refusal;
mod replicas;
pub(crate) mod telemetry;
pub mod topic_partitions;
pub mod topics;
pub(crate) mod transactions;
pub(crate) mod transactions_admin;

pub use context::Context;
