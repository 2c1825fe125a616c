//! The consumer's half on the I/O thread: polls when the application waits, and only then, so that
//! an application that hangs is missed (`max.poll.interval.ms`).

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};

use super::error::StartError;
use crate::assignor::TopicPartition;
use crate::cluster::{Client, LookupError};
use crate::config::{ClientConfig, ConsumerConfig};
use crate::consumer::{Consumer, Event, PollError};
use crate::transport::{Notify, now, timeout};

/// How long one poll waits for changes before the next says again that the application is alive.
const SLICE: Duration = Duration::from_secs(1);

/// Where an event waits for the application, so that none is lost if a poll is dropped half-way.
pub(crate) type Stash = Arc<Mutex<Option<Result<Event, PollError>>>>;

/// Takes what is in a stash.
pub(crate) fn take(stash: &Stash) -> Option<Result<Event, PollError>> {
    // held for a move alone: whole even after a panic
    stash.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// See the module.
pub(crate) struct Poller {
    pub(crate) client: Client,
    pub(crate) consumer: Consumer,
    is_polling: Cell<bool>,
    /// The present poll, or the next one, is to end.
    pub(crate) woken: Notify,
    /// A poll is over.
    over: Notify,
}

/// Ends a poll, also one that is dropped.
struct Polling<'a>(&'a Poller);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.is_polling.set(false);
        self.0.over.notify_one();
    }
}

impl Poller {
    /// Connects.
    pub(crate) async fn start(
        client: ClientConfig,
        config: ConsumerConfig,
    ) -> Result<Rc<Self>, StartError> {
        let client = Client::connect(client).await?;
        let consumer = Consumer::new(&client, config)?;
        Ok(Rc::new(Self {
            client,
            consumer,
            is_polling: Cell::new(false),
            woken: Notify::new(),
            over: Notify::new(),
        }))
    }

    /// Puts the next event into the stash, unless one is there. [`Event::Idle`] after `limit`.
    pub(crate) async fn fill(&self, stash: &Stash, limit: Duration) {
        while self.is_polling.get() {
            self.over.notified().await;
        }
        self.is_polling.set(true);
        let _polling = Polling(self);
        if stash
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            return;
        }
        let deadline = now() + limit;
        let event = loop {
            let left = deadline - now();
            let poll = pin!(self.consumer.poll(left.min(SLICE)));
            match select(poll, pin!(self.woken.notified())).await {
                Either::Left((Ok(Event::Idle), _)) if left > SLICE => {}
                Either::Left((event, _)) => break event,
                Either::Right(_) => break Err(PollError::Woken),
            }
        };
        *stash.lock().unwrap_or_else(PoisonError::into_inner) = Some(event);
    }

    /// A partition's position, once it is known; `None` if it is not assigned.
    pub(crate) async fn position(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<i64>, LookupError> {
        let known = async {
            loop {
                let changed = self.consumer.changed();
                let assigned = self.consumer.assignment().contains(partition);
                match self.consumer.position(partition) {
                    Some(offset) => return Some(offset),
                    None if !assigned => return None,
                    None => changed.await,
                }
            }
        };
        let limit = self.client.config().api_timeout;
        timeout(limit, known)
            .await
            .map_err(|_| LookupError::Refused {
                what: format!("position in {partition}"),
                code: crate::ErrorCode::RequestTimedOut,
            })
    }
}
