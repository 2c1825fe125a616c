//! Kafka's bytes and nothing else: record batches (magic 2), the hot Produce and Fetch codecs, the
//! table of APIs and versions, control messages, frames and error codes. No I/O, no clock, no
//! threads; whatever comes from outside is checked, and a malformed input gives an error that names
//! what is wrong and where, never a panic and never an allocation that the input only *claims* to
//! need.

#![forbid(unsafe_code)]

pub mod batch;
pub mod builder;
pub mod compression;
pub mod primitive;
pub mod record;

pub use kafka_protocol;
