//! Sleeping and time-outs on the core's clock.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::Instant;
use crate::core::{self, Core};
use crate::timer::TimerKey;

/// Completes when its deadline is reached.
pub struct Sleep {
    core: Rc<Core>,
    deadline: Instant,
    key: Option<TimerKey>,
}

/// Completes after `duration`.
///
/// # Panics
/// Outside of a core, as all of this module.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(core::now() + duration)
}

/// Completes at `deadline`, at once if that is past.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        core: core::current(),
        deadline,
        key: None,
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if core::now() >= self.deadline {
            return Poll::Ready(());
        }
        let core = self.core.clone();
        let mut timers = core.timers.borrow_mut();
        let live = self.key.is_some_and(|key| timers.update(key, cx.waker()));
        if !live {
            self.key = Some(timers.set(self.deadline, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.core.timers.borrow_mut().clear(key);
        }
    }
}

/// The time was over before the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(_: Elapsed) -> Self {
        std::io::ErrorKind::TimedOut.into()
    }
}

/// Runs `future` for at most `duration`; then drops it, which cancels what it waits for.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut limit = pin!(sleep(duration));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        limit.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// As [`timeout`], for what may fail by itself: the time's end is one more error, `TimedOut`.
///
/// What was under way is cancelled. A receive or an accept that is given up loses nothing; a send
/// leaves its stream without a known end, and the stream takes no more.
///
/// # Errors
/// `TimedOut`, or the future's own.
pub async fn with_timeout<T>(
    limit: Duration,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(limit, future).await?
}
