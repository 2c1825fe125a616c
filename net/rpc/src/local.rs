//! Values that stay on the core that made them, behind handles that may be named anywhere.
//!
//! What tonic generates demands `Send` of handlers, of their futures and of their streams, because
//! tokio may move them between threads. Nothing moves here, and what the ring gives (sockets,
//! files, sleeps) is not `Send` at all. A [`Local`] is the way between the two: the value lies in a
//! table of its thread, the handle is only its place in there, and whoever uses it elsewhere is
//! stopped. No `unsafe`, no lock, and no message: a use costs one look into the table.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use slab::Slab;

/// Tells threads apart: a place in one thread's table means nothing in another's.
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD: Cell<u64> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    static VALUES: RefCell<Slab<Rc<dyn Any>>> = const { RefCell::new(Slab::new()) };
}

/// A value of the thread that made it. The handle is `Send` and `Sync`, the value need not be.
///
/// Dropped on its own thread, the handle drops the value; dropped elsewhere, it leaves the value to
/// the end of that thread.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use ringmill_rpc::Local;
///
/// let calls = Local::new(Rc::new(Cell::new(0)));
/// calls.with(|calls| calls.set(calls.get() + 1));
/// assert_eq!(calls.with(|calls| calls.get()), 1);
/// std::thread::spawn(move || assert!(calls.try_with(|_| ()).is_none())).join().unwrap();
/// ```
pub struct Local<T> {
    thread: u64,
    place: usize,
    value: PhantomData<fn() -> T>,
}

impl<T: 'static> Local<T> {
    /// Keeps a value on this thread.
    pub fn new(value: T) -> Self {
        Local {
            thread: THREAD.get(),
            place: VALUES.with_borrow_mut(|values| values.insert(Rc::new(value))),
            value: PhantomData,
        }
    }

    /// Uses the value, if this is its thread.
    pub fn try_with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        if THREAD.get() != self.thread {
            return None;
        }
        // Held by a count of its own, so that `f` may make and drop others.
        let value = VALUES.with_borrow(|values| values[self.place].clone());
        value.downcast_ref().map(f)
    }

    /// Uses the value.
    ///
    /// # Panics
    /// On another thread than the one that made it.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        self.try_with(f)
            .expect("a value of one core is used on another")
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if THREAD.try_with(Cell::get) != Ok(self.thread) {
            return;
        }
        // The value is dropped with nothing borrowed: its drop may do anything. While the thread
        // ends, its table may be gone already.
        let value = VALUES.try_with(|values| values.borrow_mut().try_remove(self.place));
        drop(value);
    }
}

impl<T> fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// A future, or stream, of this core, named where `Send` is demanded. Made by [`local`] and
/// [`local_stream`].
#[must_use = "nothing happens until it is polled"]
pub struct OnCore<F>(Local<RefCell<Pin<Box<F>>>>);

/// Runs a future that is not `Send` where one is demanded: a handler of a tonic service wraps its
/// work into this. Dropping it drops the future.
///
/// ```
/// use std::time::Duration;
/// use ringmill_ring::{RingConfig, run, sleep};
/// use ringmill_rpc::local;
///
/// fn demands_send<F: Future + Send>(future: F) -> F { future }
/// run(RingConfig::default(), async {
///     demands_send(local(sleep(Duration::from_millis(1)))).await;
/// }).unwrap();
/// ```
///
/// # Panics
/// If it is polled on another thread than this one.
pub fn local<F: Future + 'static>(future: F) -> OnCore<F> {
    OnCore(Local::new(RefCell::new(Box::pin(future))))
}

/// As [`local`], for a stream: what a handler answers with, or a client sends.
///
/// # Panics
/// If it is polled on another thread than this one.
pub fn local_stream<S: Stream + 'static>(stream: S) -> OnCore<S> {
    OnCore(Local::new(RefCell::new(Box::pin(stream))))
}

impl<F: Future + 'static> Future for OnCore<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.with(|future| future.borrow_mut().as_mut().poll(cx))
    }
}

impl<S: Stream + 'static> Stream for OnCore<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0
            .with(|stream| stream.borrow_mut().as_mut().poll_next(cx))
    }
}

impl<F> fmt::Debug for OnCore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnCore").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send_and_sync<T: Send + Sync>(_: &T) {}

    #[test]
    fn a_value_goes_with_its_handle_even_if_its_drop_makes_another() {
        struct Nested(
            Rc<Cell<u32>>,
            #[expect(dead_code, reason = "dropped with it")] Local<u8>,
        );
        impl Drop for Nested {
            fn drop(&mut self) {
                let another = Local::new(7_u8);
                assert_eq!(another.with(|seven| *seven), 7);
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Rc::new(Cell::new(0));
        let one = Local::new(Nested(dropped.clone(), Local::new(1)));
        is_send_and_sync(&one);
        assert_eq!(dropped.get(), 0);
        drop(one);
        assert_eq!(dropped.get(), 1);
        assert!(VALUES.with_borrow(|values| values.is_empty()));
    }

    #[test]
    #[should_panic(expected = "a value of one core")]
    fn another_thread_is_stopped() {
        let value = Local::new(Rc::new(1));
        let elsewhere = std::thread::spawn(move || value.with(|one| **one));
        if let Err(panic) = elsewhere.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
