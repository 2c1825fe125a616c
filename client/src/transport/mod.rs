//! What the shells of this crate stand on: streams, time, chance and tasks, by concrete types.
//!
//! Three runtimes are behind it: our own ring (feature `ring`), and within tokio applications
//! tokio-uring or plain tokio (feature `tokio`). A thread runs one of them; which one is looked up
//! here at run time, so that nothing above has a type parameter for it. What a system other than
//! Linux lacks is in this folder alone.

mod address;
mod clock;
#[cfg(feature = "ring")]
mod dns;
mod notify;
#[cfg(feature = "ring")]
mod resolve;
#[cfg(feature = "ring")]
mod ring;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(all(feature = "tokio", target_os = "linux"))]
mod tokio_uring;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

#[cfg(all(feature = "tokio", target_os = "linux"))]
pub(crate) use self::tokio_uring::is_allowed as io_uring_is_allowed;
pub(crate) use address::split_host_port;
pub(crate) use clock::Instant;
pub(crate) use notify::Notify;

#[cfg(not(any(feature = "ring", feature = "tokio")))]
compile_error!("the client needs a runtime: enable the feature `tokio` or `ring`");

/// What this thread's tasks run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Our own ring.
    #[cfg(feature = "ring")]
    Ring,
    /// tokio with sockets by io_uring.
    #[cfg(all(feature = "tokio", target_os = "linux"))]
    TokioUring,
    /// tokio with its own sockets.
    #[cfg(feature = "tokio")]
    Tokio,
}

/// Where nobody said otherwise.
#[cfg(feature = "ring")]
const DEFAULT: Runtime = Runtime::Ring;
#[cfg(not(feature = "ring"))]
const DEFAULT: Runtime = Runtime::Tokio;

thread_local! {
    static RUNTIME: Cell<Runtime> = const { Cell::new(DEFAULT) };
}

#[cfg(feature = "tokio")]
pub(crate) use self::tokio::run_on_thread;

/// This thread runs on `runtime` from now on.
#[cfg(feature = "tokio")]
fn enter(runtime: Runtime) {
    RUNTIME.set(runtime);
}

/// A task that was spawned; dropping this lets it run on by itself.
pub(crate) enum JoinHandle {
    #[cfg(feature = "ring")]
    Ring(ring::JoinHandle<()>),
    #[cfg(feature = "tokio")]
    Tokio(self::tokio::JoinHandle<()>),
}

impl JoinHandle {
    /// Drops the task's future, at once or on the next turn. A task that aborts itself goes on to
    /// its next await.
    pub(crate) fn abort(&self) {
        match self {
            #[cfg(feature = "ring")]
            Self::Ring(task) => task.abort(),
            #[cfg(feature = "tokio")]
            Self::Tokio(task) => task.abort(),
        }
    }
}

/// Starts a task on this thread.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) -> JoinHandle {
    match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => JoinHandle::Ring(ring::spawn(future)),
        #[cfg(all(feature = "tokio", target_os = "linux"))]
        Runtime::TokioUring => JoinHandle::Tokio(self::tokio::spawn(future)),
        #[cfg(feature = "tokio")]
        Runtime::Tokio => JoinHandle::Tokio(self::tokio::spawn(future)),
    }
}

/// Lets the other tasks that are ready have their turn.
pub(crate) async fn yield_now() {
    match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => ring::yield_now().await,
        #[cfg(feature = "tokio")]
        _ => self::tokio::yield_now().await,
    }
}

/// The present moment.
#[inline]
pub(crate) fn now() -> Instant {
    match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => ring::now(),
        #[cfg(feature = "tokio")]
        _ => self::tokio::now(),
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_clock_ms() -> i64 {
    match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => ring::wall_clock_ms(),
        #[cfg(feature = "tokio")]
        _ => self::tokio::wall_clock_ms(),
    }
}

/// Chance; in the simulator, the seed's.
pub(crate) fn random_u64() -> u64 {
    match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => ring::random_u64(),
        #[cfg(feature = "tokio")]
        _ => self::tokio::random_u64(),
    }
}

/// Waits until a moment has come.
pub(crate) async fn sleep_until(deadline: Instant) {
    match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => ring::sleep_until(deadline).await,
        #[cfg(feature = "tokio")]
        _ => self::tokio::sleep_until(deadline).await,
    }
}

/// Waits for a while.
pub(crate) async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// The time was over before the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Runs `future` for at most `duration`; then drops it, which cancels what it waits for.
pub(crate) async fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> Result<F::Output, Elapsed> {
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

/// Room for what comes when the receiver has made none, in bytes.
const RECEIVE_MIN: usize = 16 << 10;

/// A connected TCP stream.
pub(crate) enum Stream {
    #[cfg(feature = "ring")]
    Ring(ring::Stream),
    #[cfg(all(feature = "tokio", target_os = "linux"))]
    TokioUring(self::tokio_uring::Stream),
    #[cfg(feature = "tokio")]
    Tokio(self::tokio::Stream),
}

/// Connects to the first of a host's addresses that answers.
///
/// # Errors
/// The last address's failure.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Stream> {
    Ok(match RUNTIME.get() {
        #[cfg(feature = "ring")]
        Runtime::Ring => Stream::Ring(ring::connect(host, port).await?),
        #[cfg(all(feature = "tokio", target_os = "linux"))]
        Runtime::TokioUring => {
            Stream::TokioUring(self::tokio_uring::Stream::connect(host, port).await?)
        }
        #[cfg(feature = "tokio")]
        Runtime::Tokio => Stream::Tokio(self::tokio::Stream::connect(host, port).await?),
    })
}

impl Stream {
    /// Sends all parts, one behind the other.
    pub(crate) async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        match self {
            #[cfg(feature = "ring")]
            Self::Ring(stream) => stream.send(parts).await,
            #[cfg(all(feature = "tokio", target_os = "linux"))]
            Self::TokioUring(stream) => stream.send(parts).await,
            #[cfg(feature = "tokio")]
            Self::Tokio(stream) => stream.send(parts).await,
        }
    }

    /// Appends some of what has come to `into`; 0 at the stream's end.
    pub(crate) async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        if into.len() == into.capacity() {
            into.reserve(RECEIVE_MIN);
        }
        match self {
            #[cfg(feature = "ring")]
            Self::Ring(stream) => stream.recv(into).await,
            #[cfg(all(feature = "tokio", target_os = "linux"))]
            Self::TokioUring(stream) => stream.recv(into).await,
            #[cfg(feature = "tokio")]
            Self::Tokio(stream) => stream.recv(into).await,
        }
    }
}
