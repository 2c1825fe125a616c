//! Channels between tasks of one core: many senders to one receiver, and the latest value to
//! whoever looks. Nothing here is locked; both are the shapes that [`openraft`] asks of a runtime.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use openraft_rt::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, RecvError, SendError, TryRecvError, Watch,
    WatchReceiver, WatchSender, watch,
};
use ringmill_ring::Notify;

/// Bounded, in order, with backpressure.
#[derive(Debug)]
pub struct Queue;

impl Mpsc for Queue {
    type Sender<T> = Sender<T>;
    type Receiver<T> = Receiver<T>;
    type WeakSender<T> = WeakSender<T>;

    fn channel<T>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        let shared = Rc::new(Shared {
            items: RefCell::default(),
            capacity: buffer.max(1),
            senders: Cell::new(1),
            is_received: Cell::new(true),
            receiver: Cell::new(None),
            room: Notify::new(),
        });
        (Sender(Rc::clone(&shared)), Receiver(shared))
    }
}

struct Shared<T> {
    items: RefCell<VecDeque<T>>,
    capacity: usize,
    senders: Cell<usize>,
    is_received: Cell<bool>,
    receiver: Cell<Option<Waker>>,
    /// Rings when an item was taken, and when nobody takes any more.
    room: Notify,
}

impl<T> Shared<T> {
    fn wake_receiver(&self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn take(&self) -> Option<T> {
        let item = self.items.borrow_mut().pop_front();
        if item.is_some() {
            self.room.notify_one();
        }
        item
    }
}

/// Puts items in.
pub struct Sender<T>(Rc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.0.senders.get() - 1;
        self.0.senders.set(left);
        if left == 0 {
            self.0.wake_receiver();
        }
    }
}

impl<T> MpscSender<Queue, T> for Sender<T> {
    async fn send(&self, item: T) -> Result<(), SendError<T>> {
        loop {
            // The place in the queue is taken before the look, so that no room is missed.
            let room = self.0.room.notified();
            if !self.0.is_received.get() {
                return Err(SendError(item));
            }
            if self.0.items.borrow().len() < self.0.capacity {
                self.0.items.borrow_mut().push_back(item);
                self.0.wake_receiver();
                return Ok(());
            }
            room.await;
        }
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Rc::clone(&self.0))
    }
}

/// Does not keep the channel open.
pub struct WeakSender<T>(Rc<Shared<T>>);

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> MpscWeakSender<Queue, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        let senders = self.0.senders.get();
        if senders == 0 {
            return None;
        }
        self.0.senders.set(senders + 1);
        Some(Sender(Rc::clone(&self.0)))
    }
}

/// Takes items out.
pub struct Receiver<T>(Rc<Shared<T>>);

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.is_received.set(false);
        let unread = self.0.items.take();
        self.0.room.notify_all();
        drop(unread);
    }
}

impl<T> MpscReceiver<T> for Receiver<T> {
    async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| match self.try_recv() {
            Ok(item) => Poll::Ready(Some(item)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                self.0.receiver.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.0.take() {
            Some(item) => Ok(item),
            None if self.0.senders.get() == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }
}

/// The latest value, and a bell when it changes.
#[derive(Debug)]
pub struct Latest;

impl Watch for Latest {
    type Sender<T> = Teller<T>;
    type Receiver<T> = Watcher<T>;
    type Ref<'a, T: 'a> = Ref<'a, T>;

    fn channel<T>(init: T) -> (Teller<T>, Watcher<T>) {
        let told = Rc::new(Told {
            value: RefCell::new(init),
            version: Cell::new(0),
            tellers: Cell::new(1),
            watchers: Cell::new(1),
            changed: Notify::new(),
        });
        (Teller(Rc::clone(&told)), Watcher { told, seen: 0 })
    }
}

struct Told<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    tellers: Cell<usize>,
    watchers: Cell<usize>,
    changed: Notify,
}

impl<T> Told<T> {
    fn ring(&self) {
        self.version.set(self.version.get() + 1);
        self.changed.notify_all();
    }

    fn watcher(self: &Rc<Self>, seen: u64) -> Watcher<T> {
        self.watchers.set(self.watchers.get() + 1);
        let told = Rc::clone(self);
        Watcher { told, seen }
    }
}

/// Tells the latest value.
pub struct Teller<T>(Rc<Told<T>>);

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Self {
        self.0.tellers.set(self.0.tellers.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        let left = self.0.tellers.get() - 1;
        self.0.tellers.set(left);
        if left == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl<T> WatchSender<Latest, T> for Teller<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        if self.0.watchers.get() == 0 {
            return Err(watch::SendError(value));
        }
        let before = self.0.value.replace(value);
        self.0.ring();
        drop(before);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let is_modified = modify(&mut self.0.value.borrow_mut());
        if is_modified {
            self.0.ring();
        }
        is_modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.0.value.borrow()
    }

    fn subscribe(&self) -> Watcher<T> {
        self.0.watcher(self.0.version.get())
    }
}

/// Looks at the latest value.
pub struct Watcher<T> {
    told: Rc<Told<T>>,
    /// The version that was seen last.
    seen: u64,
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        self.told.watcher(self.seen)
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.told.watchers.set(self.told.watchers.get() - 1);
    }
}

impl<T> WatchReceiver<Latest, T> for Watcher<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let changed = self.told.changed.notified();
            let version = self.told.version.get();
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.told.tellers.get() == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.told.value.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.seen = self.told.version.get();
        self.told.value.borrow()
    }
}
