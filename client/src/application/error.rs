//! Why an application's client does not start.

use thiserror::Error;

use super::thread::{Closed, ThreadError};
use crate::config::{ConfigError, PropertyError};
use crate::connection::CallError;
use crate::producer::ProducerError;

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// A setting is not taken.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// Settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no I/O thread.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// No broker of `bootstrap.servers` can be reached, or none is one.
    #[error(transparent)]
    Connect(#[from] CallError),
    /// The brokers give the producer no identity.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The I/O thread has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}
