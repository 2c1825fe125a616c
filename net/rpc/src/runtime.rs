//! What hyper asks of a runtime, by the core: tasks and time.
//!
//! hyper counts time in `std::time::Instant`, which cannot be made but by reading the system's
//! clock. It is read once, for a beginning that means nothing; all that follows is the core's own
//! clock added to it, so that only the core's time decides anything, virtual time included.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as SystemInstant};

use hyper::rt::{Executor, Timer};
use ringmill_ring::Instant;

use crate::local::{OnCore, local};

/// Runs hyper's tasks as tasks of the present core.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingExecutor;

impl<F> Executor<F> for RingExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        // Boxed here: hyper's futures are large, and a task holds what it is given twice over.
        ringmill_ring::spawn(Box::pin(future));
    }
}

/// Gives hyper the core's clock.
#[derive(Clone, Copy, Debug)]
pub struct RingTimer {
    beginning: SystemInstant,
}

impl RingTimer {
    /// A timer; each has a beginning of its own.
    pub fn new() -> Self {
        RingTimer {
            beginning: SystemInstant::now(),
        }
    }
}

impl Default for RingTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer for RingTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::until(ringmill_ring::now() + duration))
    }

    fn sleep_until(&self, deadline: SystemInstant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let since_beginning = deadline.saturating_duration_since(self.beginning);
        Box::pin(Sleep::until(Instant::default() + since_beginning))
    }

    fn now(&self) -> SystemInstant {
        self.beginning + Duration::from_nanos(ringmill_ring::now().as_nanos())
    }
}

/// A sleep of the core's that may be named where `Send` is demanded.
#[derive(Debug)]
pub(crate) struct Sleep(OnCore<ringmill_ring::Sleep>);

impl Sleep {
    pub(crate) fn until(deadline: Instant) -> Self {
        Sleep(local(ringmill_ring::sleep_until(deadline)))
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}
