//! The I/O thread of an application's client, and how other threads have work done on it.
//!
//! Producer, consumer and admin are single-threaded shells ([`crate::local`]). An application's
//! handle owns a thread that runs one of them, on tokio-uring where io_uring is allowed, else on
//! plain tokio. A job is a closure that goes there with what it needs and whose future runs there;
//! its output comes back. So handles are `Send + Sync`, work from any runtime and from none, and
//! no lock is held while anything waits. The thread ends with the last handle.

use std::future::Future;
use std::rc::Rc;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use thiserror::Error;

use crate::transport::{self, Runtime, spawn};

/// Jobs that may wait for the I/O thread; further callers wait for a place.
const MAX_WAITING_JOBS: usize = 256;

/// Which sockets a client uses.
///
/// # Examples
/// ```no_run
/// use ringmill_client::{Consumer, Transport};
///
/// // in a container that forbids io_uring, Auto finds plain sockets by itself
/// let builder = Consumer::builder().transport(Transport::Auto);
/// # let _ = builder;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// io_uring where the system allows it, else plain sockets.
    #[default]
    Auto,
    /// io_uring (tokio-uring); an error where the system forbids or lacks it.
    IoUring,
    /// Plain sockets (tokio), on any system.
    Sockets,
}

/// Why a client has no I/O thread.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ThreadError {
    /// io_uring was asked for.
    #[error(
        "io_uring is not available: the kernel is older than 5.11, a container's seccomp profile \
         forbids it, or kernel.io_uring_disabled is set; Transport::Sockets works everywhere"
    )]
    NoIoUring,
    /// The system gave no thread or no event queue.
    #[error("the client's I/O thread did not start: {0}")]
    System(String),
}

/// The I/O thread has ended: the client was closed, or one of its tasks panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the client is closed")]
pub struct Closed;

type Job<S> = Box<dyn FnOnce(Rc<S>) -> LocalBoxFuture<'static, ()> + Send>;

/// A handle to an I/O thread whose state is an `S`.
pub(crate) struct IoThread<S>(mpsc::Sender<Job<S>>);

impl<S> Clone for IoThread<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: 'static> IoThread<S> {
    /// Starts a thread named `name` and makes its state there.
    ///
    /// # Errors
    /// What `make` says, or that there is no thread.
    pub(crate) async fn start<E, F>(
        name: &str,
        transport: Transport,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self, E>
    where
        E: From<ThreadError> + Send + 'static,
        F: Future<Output = Result<S, E>>,
    {
        let runtime = choose(transport)?;
        let (jobs, incoming) = mpsc::channel(MAX_WAITING_JOBS);
        let (made, ready) = oneshot::channel();
        let main = async move || match make().await {
            Ok(state) => {
                let _ = made.send(Ok(()));
                serve(Rc::new(state), incoming).await;
            }
            Err(error) => drop(made.send(Err(error))),
        };
        transport::run_on_thread(name, runtime, main)
            .map_err(|error| ThreadError::System(error.to_string()))?;
        match ready.await {
            Ok(Ok(())) => Ok(Self(jobs)),
            Ok(Err(error)) => Err(error),
            Err(oneshot::Canceled) => {
                let text = "it ended before it began".to_owned();
                Err(ThreadError::System(text).into())
            }
        }
    }

    /// Has `job` done on the thread. Dropping this future drops the job's.
    ///
    /// # Errors
    /// If the thread has ended.
    pub(crate) async fn call<T, F>(
        &self,
        job: impl FnOnce(Rc<S>) -> F + Send + 'static,
    ) -> Result<T, Closed>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (mut answer, output) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            Box::pin(async move {
                let done = {
                    let work = std::pin::pin!(job(state));
                    match select(work, answer.cancellation()).await {
                        Either::Left((done, _)) => done,
                        Either::Right(_) => return,
                    }
                };
                let _ = answer.send(done);
            })
        });
        let mut jobs = self.0.clone();
        let sent = std::future::poll_fn(|cx| jobs.poll_ready(cx)).await;
        sent.and_then(|()| jobs.start_send(job))
            .map_err(|_| Closed)?;
        drop(jobs);
        output.await.map_err(|oneshot::Canceled| Closed)
    }
}

/// Starts each job as it comes, until the last handle is gone or a task has panicked.
async fn serve<S: 'static>(state: Rc<S>, mut jobs: mpsc::Receiver<Job<S>>) {
    while let Some(job) = jobs.next().await {
        spawn(job(state.clone()));
    }
}

fn choose(transport: Transport) -> Result<Runtime, ThreadError> {
    #[cfg(target_os = "linux")]
    let io_uring = transport::io_uring_is_allowed().then_some(Runtime::TokioUring);
    #[cfg(not(target_os = "linux"))]
    let io_uring = None;
    match (transport, io_uring) {
        (Transport::Sockets, _) | (Transport::Auto, None) => Ok(Runtime::Tokio),
        (Transport::Auto | Transport::IoUring, Some(runtime)) => Ok(runtime),
        (Transport::IoUring, None) => Err(ThreadError::NoIoUring),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::super::wait::wait;
    use super::*;

    fn start(transport: Transport) -> Result<IoThread<Cell<u64>>, ThreadError> {
        let make = || async { Ok(Cell::new(1)) };
        wait(IoThread::start("test", transport, make))
    }

    #[test]
    fn jobs_run_on_one_thread_whatever_the_transport() {
        for transport in [Transport::Auto, Transport::Sockets] {
            let thread = start(transport).unwrap();
            for expected in 2..5 {
                let next = wait(thread.call(|state: Rc<Cell<u64>>| async move {
                    transport::sleep(Duration::from_millis(1)).await;
                    state.set(state.get() + 1);
                    state.get()
                }));
                assert_eq!(next, Ok(expected));
            }
        }
    }

    /// Whose runtime lets no other runtime come and go on its threads.
    #[test]
    fn a_tokio_application_may_start_and_drop_clients() {
        let mut application = tokio::runtime::Builder::new_current_thread();
        let application = application.enable_all().build().unwrap();
        application.block_on(async {
            for transport in [Transport::Auto, Transport::Sockets] {
                let make = || async { Ok::<_, ThreadError>(Cell::new(7_u64)) };
                let thread = IoThread::start("test", transport, make).await.unwrap();
                let state = thread.call(|state: Rc<Cell<u64>>| async move { state.get() });
                assert_eq!(state.await, Ok(7));
            }
        });
    }

    #[test]
    fn a_failed_start_says_why() {
        let failed = wait(IoThread::<()>::start(
            "test",
            Transport::Sockets,
            || async { Err(ThreadError::System("no".into())) },
        ));
        assert_eq!(failed.err(), Some(ThreadError::System("no".into())));
    }

    #[test]
    fn a_dropped_call_drops_its_work() {
        struct OnDrop(std::sync::mpsc::Sender<()>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let thread = start(Transport::Sockets).unwrap();
        let (dropped, was_dropped) = std::sync::mpsc::channel();
        let guard = OnDrop(dropped);
        let mut call = Box::pin(thread.call(move |_| async move {
            let _guard = guard;
            std::future::pending::<()>().await
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
        drop(call);
        was_dropped.recv_timeout(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn a_panic_on_the_thread_closes_the_client() {
        let thread = start(Transport::Sockets).unwrap();
        let broken = wait(thread.call(|_| async { panic!("as the test wants it") }));
        assert_eq!(broken, Err::<(), _>(Closed));
        let after = wait(thread.call(|state: Rc<Cell<u64>>| async move { state.get() }));
        assert_eq!(after, Err(Closed));
    }
}
