//! What [`openraft`] asks of a runtime, on the ring's executor: tasks of one core, its clock and its
//! chance, so that a simulated world decides about all of them.

use std::convert::Infallible;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::lock;
use openraft_rt::{AsyncRuntime, Instant, Mutex, Oneshot, OneshotSender};
use ringmill_ring::{Aborted, Elapsed, JoinHandle, RingConfig, Sleep};

use super::channel::{Latest, Queue};

/// The core that runs us.
#[derive(Debug)]
pub struct RingRuntime;

/// A moment of the core's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(ringmill_ring::Instant);

impl Instant for Moment {
    fn now() -> Self {
        Self(ringmill_ring::now())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Saturates at the clock's start.
    fn sub(self, time: Duration) -> Self {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let left = self.0.as_nanos().saturating_sub(time);
        Self(ringmill_ring::Instant::from_nanos(left))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, time: Duration) {
        *self = *self - time;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

/// The driver's chance.
#[derive(Debug)]
pub struct Chance;

impl rand::TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(ringmill_ring::random_u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(ringmill_ring::random_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let random = ringmill_ring::random_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}

/// A future with a deadline.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    end: Pin<Box<Sleep>>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.end.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

/// One value from one task to another.
#[derive(Debug)]
pub struct Once;

/// Sends it.
pub struct OnceSender<T>(oneshot::Sender<T>);

impl Oneshot for Once {
    type Sender<T> = OnceSender<T>;
    type Receiver<T> = oneshot::Receiver<T>;
    type ReceiverError = oneshot::Canceled;

    fn channel<T>() -> (OnceSender<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (OnceSender(sender), receiver)
    }
}

impl<T> OneshotSender<T> for OnceSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// A lock that tasks wait for.
pub struct Lock<T>(lock::Mutex<T>);

impl<T: 'static> Mutex<T> for Lock<T> {
    type Guard<'a> = lock::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(lock::Mutex::new(value))
    }

    async fn lock(&self) -> lock::MutexGuard<'_, T> {
        self.0.lock().await
    }
}

impl AsyncRuntime for RingRuntime {
    type JoinError = Aborted;
    type JoinHandle<T: 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R>> = Timeout<T>;
    type ThreadLocalRng = Chance;
    type Mpsc = Queue;
    type Watch = Latest;
    type Oneshot = Once;
    type Mutex<T: 'static> = Lock<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + 'static,
        T::Output: 'static,
    {
        ringmill_ring::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        ringmill_ring::sleep(duration)
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        ringmill_ring::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R>>(duration: Duration, future: F) -> Timeout<F> {
        Self::timeout_at(Moment::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R>>(deadline: Moment, future: F) -> Timeout<F> {
        Timeout {
            future: Box::pin(future),
            end: Box::pin(Self::sleep_until(deadline)),
        }
    }

    /// A panic takes the core down; nobody lives to see it.
    fn is_panic(_: &Aborted) -> bool {
        false
    }

    fn thread_rng() -> Chance {
        Chance
    }

    fn new(_: usize) -> Self {
        Self
    }

    /// # Panics
    /// If no ring can be made.
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        ringmill_ring::run(RingConfig::default(), future).expect("this machine has io_uring")
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::*;

    /// The library's own tests of a runtime.
    #[test]
    fn it_is_what_the_library_asks_of_a_runtime() {
        Suite::<RingRuntime>::test_all();
    }
}
