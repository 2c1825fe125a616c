//! Tasks: the futures of one core, and the wakers that lead back to it.
//!
//! A waker may be called from anywhere. On its own core it pushes to the core's ready list; from
//! elsewhere it goes through the core's shared inbox, and wakes the core's ring if it sleeps.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::core::{self, Core, CoreShared};
use crate::wake::Queued;

/// A task's place in its core's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey {
    pub index: usize,
    /// Tells two users of one place apart.
    pub serial: u64,
}

pub(crate) struct TaskWaker {
    key: TaskKey,
    core: Arc<CoreShared>,
    queued: Queued,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.raise() {
            return;
        }
        let here = core::try_with(|core| {
            let mine = Arc::ptr_eq(&core.shared, &self.core);
            if mine {
                core.ready.borrow_mut().push_back(self.key);
            }
            mine
        });
        if here != Some(true) {
            self.core.wake_task(self.key);
        }
    }
}

type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Task {
    pub key: TaskKey,
    future: RefCell<Option<BoxedFuture>>,
    /// Aborted while it ran: it ends at its next await.
    aborted: Cell<bool>,
    queue: Arc<TaskWaker>,
    waker: Waker,
}

impl Task {
    pub(crate) fn new(key: TaskKey, core: Arc<CoreShared>, future: BoxedFuture) -> Rc<Self> {
        // Born queued: its maker puts it on the ready list.
        let queue = Arc::new(TaskWaker {
            key,
            core,
            queued: Queued::new(true),
        });
        Rc::new(Task {
            key,
            future: RefCell::new(Some(future)),
            aborted: Cell::new(false),
            waker: Waker::from(queue.clone()),
            queue,
        })
    }

    /// Runs the task once; true when it is over.
    pub(crate) fn poll(&self) -> bool {
        // Before the poll, so that a wake during the poll queues the task again.
        self.queue.queued.lower();
        let Ok(mut future) = self.future.try_borrow_mut() else {
            panic!("a task polled itself");
        };
        let Some(running) = future.as_mut() else {
            return true;
        };
        let done = running
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker))
            .is_ready();
        if !done && !self.aborted.get() {
            return false;
        }
        let over = future.take();
        drop(future);
        // Last, and with nothing borrowed: a future's drop may do anything.
        drop(over);
        true
    }

    /// Takes the future out, to be dropped by the caller; while it is running, marks it to end
    /// at its next await.
    pub(crate) fn abort(&self) -> Option<BoxedFuture> {
        match self.future.try_borrow_mut() {
            Ok(mut future) => future.take(),
            Err(_) => {
                self.aborted.set(true);
                None
            }
        }
    }
}

/// The task was aborted, or its core stopped, before it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the task was aborted")
    }
}

impl std::error::Error for Aborted {}

struct Shared<T> {
    output: RefCell<Option<T>>,
    over: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

/// Marks the task over however it ends: by its output, by an abort, or by its core's stop.
struct Ending<T>(Rc<Shared<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.over.set(true);
        let waiting = self.0.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Waits for a task of the same core. Dropping it lets the task run on by itself.
pub struct JoinHandle<T> {
    shared: Rc<Shared<T>>,
    core: std::rc::Weak<Core>,
    key: TaskKey,
}

impl<T> JoinHandle<T> {
    /// Drops the task's future at once; an operation that it waits for is cancelled. A task
    /// that aborts itself, and so is running right now, goes on to its next await and ends there.
    pub fn abort(&self) {
        if let Some(core) = self.core.upgrade() {
            core.abort(self.key);
        }
    }

    /// The task is over.
    pub fn is_finished(&self) -> bool {
        self.shared.over.get()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Aborted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(output) = self.shared.output.borrow_mut().take() {
            return Poll::Ready(Ok(output));
        }
        if self.shared.over.get() {
            return Poll::Ready(Err(Aborted));
        }
        *self.shared.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Starts a task on this core. A panic in it takes the core down (see [`crate::run`]).
///
/// # Panics
/// Outside of a core.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let shared = Rc::new(Shared {
        output: RefCell::new(None),
        over: Cell::new(false),
        waiting: RefCell::new(None),
    });
    let ending = Ending(shared.clone());
    let core = core::current();
    let key = core.spawn(Box::pin(async move {
        let ending = ending;
        let output = future.await;
        *ending.0.output.borrow_mut() = Some(output);
    }));
    JoinHandle {
        shared,
        core: Rc::downgrade(&core),
        key,
    }
}

/// Lets the other tasks that are ready, and the ring, have their turn.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        core::current().yielded.borrow_mut().push(waker);
        Poll::Pending
    })
    .await;
}
