//! How an application hears of partitions that come and go.

use std::collections::BTreeSet;
use std::future::{Future, ready};
use std::pin::Pin;

use super::consumer::Consumer;
use crate::assignor::TopicPartition;

/// A future that a listener returns.
pub type ListenerFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Hears of partitions within [`Consumer::poll`] and [`Consumer::recv`], which wait for it
/// (Java's `ConsumerRebalanceListener`).
///
/// ```
/// use std::collections::BTreeSet;
///
/// use ringmill_client::{Consumer, ListenerFuture, RebalanceListener, TopicPartition};
///
/// struct CommitFirst;
///
/// impl RebalanceListener for CommitFirst {
///     fn on_revoked<'a>(
///         &'a self,
///         consumer: &'a Consumer,
///         _partitions: &'a BTreeSet<TopicPartition>,
///     ) -> ListenerFuture<'a> {
///         Box::pin(async move {
///             if let Err(error) = consumer.commit().await {
///                 eprintln!("not committed: {error}");
///             }
///         })
///     }
/// }
/// ```
pub trait RebalanceListener: Send + Sync + 'static {
    /// These partitions are now this consumer's, in addition to those it has.
    fn on_assigned<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        let _ = (consumer, partitions);
        Box::pin(ready(()))
    }

    /// These partitions will be another's, or the consumer unsubscribes or closes: commit what was
    /// processed of them. Nothing more of them comes.
    fn on_revoked<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        let _ = (consumer, partitions);
        Box::pin(ready(()))
    }

    /// These partitions are another's already, since this consumer was away too long: nothing can
    /// be committed for them.
    fn on_lost<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        let _ = (consumer, partitions);
        Box::pin(ready(()))
    }
}
