//! Mailboxes between cores: a bounded mesh in shared memory, one lane for each pair.
//!
//! A message is pushed to a lock-free lane; the receiving core is woken only if its task waits,
//! and its ring only if it sleeps. A full lane makes the sender wait: back-pressure, never
//! growth.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use futures_util::task::AtomicWaker;

/// Messages from one core to another.
struct Lane<M> {
    queue: ArrayQueue<M>,
    /// A sender found the lane full.
    blocked: CachePadded<AtomicBool>,
    /// The sending core's task that waits for room.
    room: AtomicWaker,
}

/// One core's end of a mesh: sends to all cores, receives from all. Moved to its core once and
/// used only there.
pub struct Port<M> {
    core: usize,
    outgoing: Vec<Arc<Lane<M>>>,
    incoming: Vec<Arc<Lane<M>>>,
    /// By receiving core: who waits for messages there.
    receivers: Arc<[CachePadded<AtomicWaker>]>,
    /// By receiving core: our tasks that wait for room in its lane.
    waiting: Vec<RefCell<Vec<Waker>>>,
    /// The lane to look at first, so that no sender starves.
    next: Cell<usize>,
}

/// A mesh between `count` cores whose lanes hold `depth` messages each.
pub(crate) fn mesh<M: Send>(count: usize, depth: usize) -> Vec<Port<M>> {
    assert!(count > 0 && depth > 0);
    let lane = || {
        Arc::new(Lane {
            queue: ArrayQueue::new(depth),
            blocked: CachePadded::new(AtomicBool::new(false)),
            room: AtomicWaker::new(),
        })
    };
    let lanes: Vec<Vec<Arc<Lane<M>>>> = (0..count)
        .map(|_| (0..count).map(|_| lane()).collect())
        .collect();
    let receivers: Arc<[CachePadded<AtomicWaker>]> = (0..count)
        .map(|_| CachePadded::new(AtomicWaker::new()))
        .collect();
    (0..count)
        .map(|core| Port {
            core,
            outgoing: lanes[core].clone(),
            incoming: lanes.iter().map(|from| from[core].clone()).collect(),
            receivers: receivers.clone(),
            waiting: (0..count).map(|_| RefCell::default()).collect(),
            next: Cell::new(0),
        })
        .collect()
}

impl<M: Send> Port<M> {
    /// The core this port belongs to.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Cores in the mesh, this one included.
    pub fn cores(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends without waiting; a full lane gives the message back.
    pub fn try_send(&self, to: usize, message: M) -> Result<(), M> {
        self.outgoing[to].queue.push(message)?;
        self.receivers[to].wake();
        Ok(())
    }

    /// Sends, waiting while the lane is full.
    pub fn send(&self, to: usize, message: M) -> Sending<'_, M> {
        Sending {
            port: self,
            to,
            message: Some(message),
            waits: false,
        }
    }

    /// A message that is there, with its sender.
    pub fn try_recv(&self) -> Option<(usize, M)> {
        let count = self.incoming.len();
        for step in 0..count {
            let from = (self.next.get() + step) % count;
            let lane = &self.incoming[from];
            if let Some(message) = lane.queue.pop() {
                self.next.set((from + 1) % count);
                fence(Ordering::SeqCst);
                if lane.blocked.load(Ordering::Relaxed)
                    && lane.blocked.swap(false, Ordering::AcqRel)
                {
                    lane.room.wake();
                }
                return Some((from, message));
            }
        }
        None
    }

    /// The next message, with its sender. One task at a time.
    pub async fn recv(&self) -> (usize, M) {
        std::future::poll_fn(|cx| {
            if let Some(message) = self.try_recv() {
                return Poll::Ready(message);
            }
            self.receivers[self.core].register(cx.waker());
            // A message that came between the look and the registration.
            self.try_recv().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn wake_waiting(&self, to: usize) {
        for waker in self.waiting[to].take() {
            waker.wake();
        }
    }
}

/// A send that waits for room.
#[must_use = "a message is sent only when this is awaited"]
pub struct Sending<'a, M: Send> {
    port: &'a Port<M>,
    to: usize,
    message: Option<M>,
    waits: bool,
}

impl<M: Send> Unpin for Sending<'_, M> {}

impl<M: Send> Future for Sending<'_, M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (port, to) = (self.port, self.to);
        let lane = &port.outgoing[to];
        let message = self.message.take().expect("polled after its end");
        let Err(message) = port.try_send(to, message) else {
            self.waits = false;
            // One waker stands for all who wait: pass it on.
            port.wake_waiting(to);
            return Poll::Ready(());
        };
        lane.room.register(cx.waker());
        lane.blocked.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        match port.try_send(to, message) {
            Ok(()) => {
                self.waits = false;
                port.wake_waiting(to);
                Poll::Ready(())
            }
            Err(message) => {
                port.waiting[to].borrow_mut().push(cx.waker().clone());
                self.message = Some(message);
                self.waits = true;
                Poll::Pending
            }
        }
    }
}

impl<M: Send> Drop for Sending<'_, M> {
    fn drop(&mut self) {
        // The registered waker may have been ours: let the others register theirs.
        if self.waits {
            self.port.wake_waiting(self.to);
        }
    }
}
