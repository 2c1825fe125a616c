//! Mailboxes between cores: a bounded mesh in shared memory, one lane for each pair.
//!
//! A message is pushed to a lock-free lane; the receiving core is woken only if its task waits,
//! and its ring only if it sleeps. A full lane makes the sender wait: back-pressure, never
//! growth. Who waits for room is served in the order of asking.
//!
//! A port that is dropped closes its lanes: what lies in them, and what is still sent to them,
//! is dropped, and nobody waits for room in them any more. A reply that a message would have
//! brought is then missed by its own means, such as a channel that closes.
//!
//! `model_test.rs` runs this very file under `loom`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;

use super::sync::{Arc, ArrayQueue, AtomicBool, AtomicWaker, Ordering, fence};

/// Messages from one core to another.
struct Lane<M> {
    queue: ArrayQueue<M>,
    /// A sender found the lane full.
    blocked: CachePadded<AtomicBool>,
    /// The sending core's task that waits for room.
    room: AtomicWaker,
    /// The receiving port was dropped.
    closed: AtomicBool,
}

/// The sending end of a lane.
struct Outgoing<M> {
    lane: Arc<Lane<M>>,
    /// Our tasks that wait for room, by ticket. The first of them waits for the lane, the
    /// others for the first.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    tickets: Cell<u64>,
}

/// One core's end of a mesh: sends to all cores, receives from all. Moved to its core once and
/// used only there.
pub struct Port<M> {
    core: usize,
    outgoing: Vec<Outgoing<M>>,
    incoming: Vec<Arc<Lane<M>>>,
    /// By receiving core: who waits for messages there.
    receivers: Arc<Vec<CachePadded<AtomicWaker>>>,
    /// A task waits for messages here.
    receiving: Cell<bool>,
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
            closed: AtomicBool::new(false),
        })
    };
    let lanes: Vec<Vec<Arc<Lane<M>>>> = (0..count)
        .map(|_| (0..count).map(|_| lane()).collect())
        .collect();
    let receivers = (0..count).map(|_| CachePadded::new(AtomicWaker::new()));
    let receivers = Arc::new(receivers.collect::<Vec<_>>());
    let outgoing = |lane: &Arc<Lane<M>>| Outgoing {
        lane: lane.clone(),
        waiting: RefCell::default(),
        tickets: Cell::new(0),
    };
    (0..count)
        .map(|core| Port {
            core,
            outgoing: lanes[core].iter().map(outgoing).collect(),
            incoming: lanes.iter().map(|from| from[core].clone()).collect(),
            receivers: receivers.clone(),
            receiving: Cell::new(false),
            next: Cell::new(0),
        })
        .collect()
}

impl<M> Lane<M> {
    /// Pushes a message; a full lane gives it back, a closed one drops it.
    fn push(&self, message: M) -> Result<(), M> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.queue.push(message)?;
        // Pairs with the fence in `close`: either it sees the message, or we see it closed.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.drain();
        }
        Ok(())
    }

    fn pop(&self) -> Option<M> {
        let message = self.queue.pop()?;
        // Pairs with the fence in `Sending::poll`: either it finds the room, or we see it wait.
        fence(Ordering::SeqCst);
        if self.blocked.load(Ordering::Relaxed) && self.blocked.swap(false, Ordering::AcqRel) {
            self.room.wake();
        }
        Some(message)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.drain();
        self.room.wake();
    }

    fn drain(&self) {
        while self.queue.pop().is_some() {}
    }
}

impl<M> Outgoing<M> {
    /// The next of our tasks that wait has its try.
    fn wake_first(&self) {
        let first = self.waiting.borrow().values().next().cloned();
        if let Some(waker) = first {
            waker.wake();
        }
    }
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

    /// Sends without waiting; a full lane gives the message back. To a port that was dropped,
    /// the message is dropped too.
    pub fn try_send(&self, to: usize, message: M) -> Result<(), M> {
        self.outgoing[to].lane.push(message)?;
        self.receivers[to].wake();
        Ok(())
    }

    /// Sends, waiting while the lane is full. To a port that was dropped, or is while we wait,
    /// the message is dropped too.
    pub fn send(&self, to: usize, message: M) -> Sending<'_, M> {
        Sending {
            port: self,
            to,
            message: Some(message),
            ticket: None,
        }
    }

    /// A message that is there, with its sender.
    pub fn try_recv(&self) -> Option<(usize, M)> {
        let count = self.incoming.len();
        for step in 0..count {
            let from = (self.next.get() + step) % count;
            if let Some(message) = self.incoming[from].pop() {
                self.next.set((from + 1) % count);
                return Some((from, message));
            }
        }
        None
    }

    /// The next message, with its sender; for ever if nobody sends any more.
    ///
    /// # Panics
    /// If another task receives from this port.
    pub async fn recv(&self) -> (usize, M) {
        assert!(
            !self.receiving.replace(true),
            "two tasks receive from one port"
        );
        let _receiving = Receiving(&self.receiving);
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
}

impl<M> Drop for Port<M> {
    fn drop(&mut self) {
        for lane in &self.incoming {
            lane.close();
        }
    }
}

/// Marks a receive as over, however it ends.
struct Receiving<'a>(&'a Cell<bool>);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A send that waits for room.
#[must_use = "a message is sent only when this is awaited"]
pub struct Sending<'a, M: Send> {
    port: &'a Port<M>,
    to: usize,
    message: Option<M>,
    /// Our place among those who wait.
    ticket: Option<u64>,
}

impl<M: Send> Unpin for Sending<'_, M> {}

impl<M: Send> Sending<'_, M> {
    /// Tries to send; on success the next who waits has its turn.
    fn try_send(&mut self) -> Poll<()> {
        let message = self.message.take().expect("polled after its end");
        match self.port.try_send(self.to, message) {
            Ok(()) => {
                self.leave();
                Poll::Ready(())
            }
            Err(message) => {
                self.message = Some(message);
                Poll::Pending
            }
        }
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let outgoing = &self.port.outgoing[self.to];
            let gone = outgoing.waiting.borrow_mut().remove(&ticket);
            drop(gone);
            outgoing.wake_first();
        }
    }
}

impl<M: Send> Future for Sending<'_, M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outgoing = &self.port.outgoing[self.to];
        let first = match outgoing.waiting.borrow().first_key_value() {
            Some((ticket, _)) => self.ticket == Some(*ticket),
            None => true,
        };
        if first && self.try_send().is_ready() {
            return Poll::Ready(());
        }
        let ticket = self.ticket.unwrap_or_else(|| {
            outgoing.tickets.set(outgoing.tickets.get() + 1);
            outgoing.tickets.get()
        });
        self.ticket = Some(ticket);
        let waker = cx.waker().clone();
        let old = outgoing.waiting.borrow_mut().insert(ticket, waker);
        drop(old);
        if !first {
            return Poll::Pending;
        }
        outgoing.lane.room.register(cx.waker());
        outgoing.lane.blocked.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.try_send()
    }
}

impl<M: Send> Drop for Sending<'_, M> {
    fn drop(&mut self) {
        // If it was our waker that waited for room, the next must register its own.
        self.leave();
    }
}
