//! Interceptors: an application's own code around every record (KIP-42).

use super::record::{ConsumerRecord, ProducerRecord};
use crate::group_offsets::CommittedOffsets;
use crate::producer::{Delivered, DeliveryError};

/// Sees each record that a producer takes, and what became of it.
///
/// ```
/// use ringmill_client::{ProducerInterceptor, ProducerRecord};
///
/// /// Marks each record with where it came from.
/// struct Origin(String);
///
/// impl ProducerInterceptor for Origin {
///     fn on_send(&self, record: ProducerRecord) -> ProducerRecord {
///         record.header("origin", self.0.clone())
///     }
/// }
/// ```
pub trait ProducerInterceptor: Send + Sync + 'static {
    /// May change a record before it is taken. Called on the sender's thread.
    fn on_send(&self, record: ProducerRecord) -> ProducerRecord {
        record
    }

    /// The record of `topic` was delivered, or not. Called on the client's I/O thread: it must not
    /// wait.
    fn on_acknowledgement(&self, topic: &str, result: &Result<Delivered, DeliveryError>) {
        let _ = (topic, result);
    }
}

/// Sees each record before the application, and each commit.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use ringmill_client::{ConsumerInterceptor, ConsumerRecord};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl ConsumerInterceptor for Count {
///     fn on_consume(&self, record: ConsumerRecord) -> ConsumerRecord {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         record
///     }
/// }
/// ```
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// May change a record before the application has it. Called on the thread that polls.
    fn on_consume(&self, record: ConsumerRecord) -> ConsumerRecord {
        record
    }

    /// These offsets were committed by a call of the application.
    fn on_commit(&self, offsets: &CommittedOffsets) {
        let _ = offsets;
    }
}
