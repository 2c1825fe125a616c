//! What became of a record: one shared outcome per batch, and a future per record for those who
//! ask.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringmill_wire::error::ErrorCode;
use thiserror::Error;

use crate::cluster::LookupError;

/// Why a record was not delivered, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeliveryError {
    /// The time was over (`delivery.timeout.ms`).
    #[error("not delivered within {after:?}{}: {last}", if *.may_be_written { ", though perhaps written" } else { "" })]
    TimedOut {
        /// The limit.
        after: Duration,
        /// What the last attempt met with.
        last: String,
        /// Whether an attempt ended without an answer, so that the record may be in the log.
        may_be_written: bool,
    },
    /// The broker refused the batch for good; nothing of it was written.
    #[error("{topic}-{partition}: {code}{}", detail(.message.as_deref()))]
    Rejected {
        /// The record's topic.
        topic: Arc<str>,
        /// The record's partition.
        partition: i32,
        /// The broker's code.
        code: ErrorCode,
        /// The broker's words.
        message: Option<String>,
    },
    /// The request could not be made or its answer not be read, and another attempt would not help.
    #[error("{0}")]
    Failed(String),
    /// The topic, or its partitions, are not known.
    #[error(transparent)]
    Topic(#[from] LookupError),
    /// Its transaction was aborted, or failed, before the record left.
    #[error("the record's transaction was aborted before the record was sent")]
    Aborted,
    /// The producer was closed or dropped before.
    #[error("the producer was closed before the record was delivered: flush it first")]
    Closed,
}

fn detail(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(" ({message})"))
}

/// Where a record ended up.
///
/// # Examples
/// ```no_run
/// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::ProducerRecord;
///
/// let delivery = producer.send(ProducerRecord::to("flights").value("boarding")).await?;
/// let delivered = delivery.await?;
/// println!("{} at {:?}", delivered.partition, delivered.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: i32,
    /// Its offset there; unknown with acks=0, or if a repeated send found it written before.
    pub offset: Option<i64>,
    /// The broker's time of the append in milliseconds, if the topic is stamped with that.
    pub append_time_ms: Option<i64>,
}

/// A batch's outcome.
pub(crate) type BatchResult = Result<Delivered, DeliveryError>;

/// Shared by the batch and those who wait for it.
#[derive(Default)]
pub(crate) struct Outcome {
    result: RefCell<Option<BatchResult>>,
    waiting: RefCell<Vec<Waker>>,
    /// Who is to be told, with the record's place in its batch.
    listeners: RefCell<Vec<(i32, Listener)>>,
    done: Cell<bool>,
}

/// Somebody who is told of a record's delivery without a task of their own.
pub(crate) type Listener = Box<dyn FnOnce(Result<Delivered, DeliveryError>)>;

/// Says nothing of what it holds.
impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outcome({:?})", self.result.borrow())
    }
}

/// A batch's result as one of its records sees it.
fn of_record(result: &BatchResult, index: i32) -> Result<Delivered, DeliveryError> {
    let batch = result.clone()?;
    Ok(Delivered {
        offset: batch.offset.map(|base| base + i64::from(index)),
        ..batch
    })
}

impl Outcome {
    /// The batch is settled; the first word counts.
    pub(crate) fn settle(&self, result: BatchResult) {
        if self.done.replace(true) {
            return;
        }
        for (index, listener) in self.listeners.take() {
            listener(of_record(&result, index));
        }
        *self.result.borrow_mut() = Some(result);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        debug_assert!(self.waiting.get_mut().is_empty(), "nobody waits any more");
    }
}

/// Waits for the delivery of one record; may be dropped without harm.
#[derive(Debug)]
pub struct Delivery {
    outcome: Rc<Outcome>,
    /// The record's place in its batch.
    index: i32,
}

impl Delivery {
    pub(crate) fn new(outcome: Rc<Outcome>, index: i32) -> Self {
        Self { outcome, index }
    }

    /// The result, if it is known.
    pub fn now(&self) -> Option<Result<Delivered, DeliveryError>> {
        let result = self.outcome.result.borrow();
        Some(of_record(result.as_ref()?, self.index))
    }

    /// Tells `listener` in place of whoever would await this.
    #[cfg(feature = "tokio")]
    pub(crate) fn tell(self, listener: Listener) {
        match self.now() {
            Some(result) => listener(result),
            None => self
                .outcome
                .listeners
                .borrow_mut()
                .push((self.index, listener)),
        }
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, DeliveryError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.now() {
            return Poll::Ready(result);
        }
        let mut waiting = self.outcome.waiting.borrow_mut();
        // one task often waits for many records of a batch, one after the other
        if !waiting
            .last()
            .is_some_and(|last| last.will_wake(cx.waker()))
        {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn written(offset: i64) -> BatchResult {
        Ok(Delivered {
            partition: 3,
            offset: Some(offset),
            append_time_ms: None,
        })
    }

    #[test]
    fn each_record_of_a_batch_has_its_own_offset() {
        let outcome = Rc::new(Outcome::default());
        let (first, second) = (
            Delivery::new(outcome.clone(), 0),
            Delivery::new(outcome.clone(), 7),
        );
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = pin!(first);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        outcome.settle(written(100));
        let Poll::Ready(Ok(delivered)) = waiting.poll(&mut context) else {
            panic!("settled")
        };
        assert_eq!((delivered.partition, delivered.offset), (3, Some(100)));
        assert_eq!(second.now().unwrap().unwrap().offset, Some(107));
    }

    #[test]
    fn what_was_said_first_counts() {
        let outcome = Rc::new(Outcome::default());
        let delivery = Delivery::new(outcome.clone(), 0);
        outcome.settle(Err(DeliveryError::Closed));
        outcome.settle(written(5));
        assert_eq!(delivery.now(), Some(Err(DeliveryError::Closed)));
    }

    #[test]
    fn errors_say_whether_the_record_may_be_there() {
        let error = |may_be_written| DeliveryError::TimedOut {
            after: Duration::from_secs(2),
            last: "no answer".into(),
            may_be_written,
        };
        assert_eq!(
            error(false).to_string(),
            "not delivered within 2s: no answer"
        );
        assert_eq!(
            error(true).to_string(),
            "not delivered within 2s, though perhaps written: no answer"
        );
    }
}
