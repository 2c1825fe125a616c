//! How a call is made: the styles by name.
//!
//! | style | the caller | after a failure |
//! |---|---|---|
//! | synchronous | waits for the answer | is told; whether it was executed is unknown |
//! | deferred | goes on, and takes the answer later | is told then |
//! | one-way | goes on, and is never told | it is counted |
//! | at most once | waits | it is sent anew under the same id; executed once or not at all |
//! | at least once | waits | it is sent anew if it is marked as idempotent |
//!
//! Synchronous, deferred and one-way take any call of any generated client; the other two are ways
//! of sending, on which generated clients are made as on a channel.

pub mod at_least_once;
pub mod at_most_once;
mod whole;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringmill_ring::{JoinHandle, Notify, now, spawn};
use tonic::Status;

use crate::deadline;

/// Makes a call and waits for its answer, for at most `limit`.
///
/// ```
/// # use std::time::Duration;
/// # use ringmill_ring::{RingConfig, run};
/// use ringmill_rpc::styles::synchronous;
/// use tonic::{Code, Status};
///
/// run(RingConfig::default(), async {
///     // `client.say_hello(request)` as may be.
///     let answer = synchronous(Duration::from_secs(1), async { Ok::<_, Status>(7) }).await;
///     assert_eq!(answer.unwrap(), 7);
///     let hangs = std::future::pending::<Result<(), Status>>();
///     let late = synchronous(Duration::from_millis(1), hangs).await;
///     assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
/// }).unwrap();
/// ```
///
/// # Errors
/// The call's own, or `DEADLINE_EXCEEDED`.
pub async fn synchronous<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    deadline::within(Some(now() + limit), call).await
}

/// A call on its way, whose answer is taken by awaiting this. Dropped, it cancels the call.
#[must_use = "dropped, it cancels the call"]
pub struct Deferred<T>(JoinHandle<Result<T, Status>>);

/// Makes a call that goes on by itself.
///
/// ```
/// # use ringmill_ring::{RingConfig, run};
/// use ringmill_rpc::styles::deferred;
/// use tonic::Status;
///
/// run(RingConfig::default(), async {
///     let later = deferred(async { Ok::<_, Status>(7) });
///     // … something else …
///     assert_eq!(later.await.unwrap(), 7);
/// }).unwrap();
/// ```
pub fn deferred<T: 'static>(
    call: impl Future<Output = Result<T, Status>> + 'static,
) -> Deferred<T> {
    Deferred(spawn(call))
}

impl<T> Deferred<T> {
    /// The answer is there: awaiting it takes no time.
    pub fn is_answered(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Deferred<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|ended| {
            ended.unwrap_or_else(|_| Err(Status::cancelled("the core stopped before the answer")))
        })
    }
}

impl<T> Drop for Deferred<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Calls that nobody waits for. Clones share their number.
#[derive(Clone, Debug)]
pub struct OneWay(Rc<OneWayShared>);

#[derive(Debug)]
struct OneWayShared {
    in_flight_max: usize,
    in_flight: Cell<usize>,
    failed: Cell<u64>,
    last_failure: RefCell<Option<Status>>,
    idle: Notify,
}

impl OneWay {
    /// At most so many calls are on their way at once.
    pub fn new(in_flight_max: usize) -> Self {
        OneWay(Rc::new(OneWayShared {
            in_flight_max,
            in_flight: Cell::new(0),
            failed: Cell::new(0),
            last_failure: RefCell::new(None),
            idle: Notify::new(),
        }))
    }

    /// Sends a call off; what becomes of it is only counted.
    ///
    /// ```
    /// # use ringmill_ring::{RingConfig, run};
    /// use ringmill_rpc::styles::OneWay;
    /// use tonic::{Code, Status};
    ///
    /// run(RingConfig::default(), async {
    ///     let one_way = OneWay::new(1);
    ///     one_way.send(async { Err::<(), _>(Status::internal("who cares")) }).unwrap();
    ///     let too_many = one_way.send(async { Ok(()) });
    ///     assert_eq!(too_many.unwrap_err().code(), Code::ResourceExhausted);
    ///     one_way.flush().await;
    ///     assert_eq!(one_way.failed(), 1);
    /// }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if as many as may be are on their way; then it was not sent.
    pub fn send<T: 'static>(
        &self,
        call: impl Future<Output = Result<T, Status>> + 'static,
    ) -> Result<(), Status> {
        let count = self.0.in_flight.get();
        if count >= self.0.in_flight_max {
            let text = format!("{count} one-way calls are on their way");
            return Err(Status::resource_exhausted(text));
        }
        self.0.in_flight.set(count + 1);
        let sent = Sent(self.0.clone());
        spawn(async move {
            if let Err(status) = call.await {
                sent.0.failed.set(sent.0.failed.get() + 1);
                *sent.0.last_failure.borrow_mut() = Some(status);
            }
        });
        Ok(())
    }

    /// Waits until none is on its way.
    pub async fn flush(&self) {
        while self.0.in_flight.get() > 0 {
            self.0.idle.notified().await;
        }
    }

    /// How many have failed.
    pub fn failed(&self) -> u64 {
        self.0.failed.get()
    }

    /// Why the last that failed did.
    pub fn last_failure(&self) -> Option<Status> {
        self.0.last_failure.borrow().clone()
    }
}

/// A one-way call on its way.
struct Sent(Rc<OneWayShared>);

impl Drop for Sent {
    fn drop(&mut self) {
        let left = self.0.in_flight.get() - 1;
        self.0.in_flight.set(left);
        if left == 0 {
            self.0.idle.notify_all();
        }
    }
}
