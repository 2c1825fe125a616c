//! Kafka's bytes and nothing else: record batches (magic 2), the hot Produce and Fetch codecs, the
//! table of APIs and versions, control messages, frames and error codes. No I/O, no clock, no
//! threads; whatever comes from outside is checked, and a malformed input gives an error that names
//! what is wrong and where, never a panic and never an allocation that the input only *claims* to
//! need.

#![forbid(unsafe_code)]

pub mod api;
mod assign;
pub mod batch;
pub mod builder;
pub mod compression;
pub mod control;
pub mod error;
pub mod features;
pub mod fetch;
pub mod frame;
pub mod header;
pub mod leader;
pub mod marker;
pub mod primitive;
pub mod produce;
pub mod quorum;
pub mod record;
pub mod retained;
pub mod topic;

#[cfg(test)]
mod codec_test;

/// The crate whose generated types are this crate's control messages.
pub use kafka_protocol;
/// Its strings, slices of the frame they came in, which topic and client names are.
pub use kafka_protocol::protocol::StrBytes;
/// Topic ids.
pub use uuid::Uuid;
