//! A ring that its thread drives call by call: for programs that are no tasks, and whose calls
//! block (an MPI library is one).

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::core::{Core, CoreShared};
use crate::driver::Driver;
use crate::launch::{RingConfig, Stopping, block_on};
use crate::uring::Uring;

/// Turns of one call at most: enough for a task to wake, to submit, and to see it off. Whoever
/// calls looks after what has come before more of it does.
const TURNS_MAX: usize = 3;

/// A core without a loop of its own. Tasks that were spawned on it go on while it is driven, and
/// are dropped with it.
#[derive(Debug)]
pub struct Driven {
    core: Rc<Core>,
    _stopping: Stopping,
}

impl Driven {
    /// Makes the ring.
    ///
    /// # Errors
    /// If the ring cannot be made.
    pub fn new(config: RingConfig) -> io::Result<Driven> {
        let shared = CoreShared::new(0);
        let uring = Uring::new(config.uring())?;
        shared.hang_bell(&uring)?;
        let core = Core::new(shared, Driver::Uring(Box::new(uring)), config.core());
        let _stopping = Stopping(core.clone());
        Ok(Driven { core, _stopping })
    }

    /// Runs a future to its end, and tasks beside it.
    ///
    /// # Errors
    /// If the ring fails.
    pub fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output> {
        block_on(&self.core, future)
    }

    /// Calls `f` within the core: it may spawn, and poll what belongs to it.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let _entered = self.core.enter();
        f()
    }

    /// Takes a few turns, as long as there is work; true if there was. Makes no system call if there is none.
    ///
    /// # Errors
    /// If the ring fails.
    pub fn poll(&self) -> io::Result<bool> {
        let mut moved = false;
        let _entered = self.core.enter();
        for _ in 0..TURNS_MAX {
            if !self.core.has_queued() && !self.core.has_work() {
                break;
            }
            self.core.run_turn()?;
            moved = true;
        }
        Ok(moved)
    }

    /// Sleeps until there is work, at most for a while, and takes the turn that follows.
    ///
    /// # Errors
    /// If the ring fails.
    pub fn sleep(&self, longest: Duration) -> io::Result<()> {
        let _entered = self.core.enter();
        self.core.sleep_at_most(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ListenOptions, TcpListener, TcpStream, spawn};
    use bytes::{Bytes, BytesMut};
    use std::cell::RefCell;
    use std::task::{Context, Waker};

    #[test]
    fn a_task_that_always_has_work_does_not_keep_the_caller() {
        let driven = Driven::new(RingConfig::default()).unwrap();
        let task = driven.enter(|| {
            spawn(async {
                loop {
                    crate::yield_now().await;
                }
            })
        });
        for _ in 0..10 {
            assert!(driven.poll().unwrap());
        }
        driven.enter(|| task.abort());
    }

    #[test]
    fn tasks_go_on_between_blocking_calls() {
        let driven = Driven::new(RingConfig::default()).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let (one, other) = driven
            .block_on(async {
                let listener = TcpListener::bind(address, ListenOptions::default())
                    .await
                    .unwrap();
                let one = TcpStream::connect(listener.local_addr().unwrap())
                    .await
                    .unwrap();
                (one, listener.accept().await.unwrap().0)
            })
            .unwrap();
        driven.enter(|| {
            spawn(async move { one.send(vec![Bytes::from_static(b"hello")]).await.unwrap() });
        });
        let seen = RefCell::new(BytesMut::new());
        while seen.borrow().len() < 5 {
            driven.enter(|| {
                let mut cx = Context::from_waker(Waker::noop());
                let _ = other.poll_recv(&mut cx, &mut seen.borrow_mut());
            });
            if !driven.poll().unwrap() {
                driven.sleep(Duration::from_secs(1)).unwrap();
            }
        }
        assert_eq!(&seen.borrow()[..], b"hello");
        assert!(!driven.poll().unwrap(), "nothing is left to do");
    }
}
