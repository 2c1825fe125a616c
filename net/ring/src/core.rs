//! One core: its driver, its slots, its tasks, its timers, and the turn that moves them all.
//!
//! A turn reads the clock once, fires timers, polls the tasks that are ready (a bounded
//! number), submits once, reaps completions into a list, and only then wakes whom they concern:
//! nothing is called from inside anything else. Everything here belongs to one thread; only
//! [`CoreShared`] is seen by others.
//!
//! A panic in a task takes its core down: it passes through the turn to whoever runs the core,
//! and on its way the core is stopped as at any other end.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::bell::Bell;
use crate::clock::Instant;
use crate::driver::{Driver, Wait};
use crate::op::{Chunk, Completion, Op, SlotKey};
use crate::slab::{After, Outcome, Slots};
use crate::task::{Task, TaskKey};
use crate::timer::Timers;
use crate::uring::Uring;
use crate::wake::Inbox;

/// Tasks polled in one turn before the ring gets its chance.
const POLLS_PER_TURN: usize = 256;

/// What other threads may touch of a core.
pub(crate) struct CoreShared {
    /// The core's number within its process.
    pub id: usize,
    /// Tasks that were woken from elsewhere.
    inbox: Inbox<TaskKey>,
    /// How the core is woken from its sleep.
    bell: Arc<Bell>,
    /// Simulated cores are run until idle by their world; nobody sleeps.
    pub(crate) simulated: AtomicBool,
}

impl CoreShared {
    pub(crate) fn new(id: usize) -> Arc<Self> {
        Arc::new(CoreShared {
            id,
            inbox: Inbox::new(),
            bell: Arc::new(Bell::new()),
            simulated: AtomicBool::new(false),
        })
    }

    /// Queues a task from outside of its core, and wakes the core if it sleeps.
    pub(crate) fn wake_task(&self, key: TaskKey) {
        if self.inbox.push(key) && !self.simulated.load(Ordering::Relaxed) {
            self.ring_bell();
        }
    }

    /// Tells how the core's driver is woken.
    pub(crate) fn hang_bell(&self, ring: &Uring) -> io::Result<()> {
        let messages = ring.features().msg_ring.then(|| ring.ring_fd());
        self.bell.hang(messages, ring.event_fd()?);
        Ok(())
    }

    fn ring_bell(&self) {
        if self.bell.ring().is_none() || try_with(|core| core.send_ring(&self.bell)) != Some(true) {
            self.bell.write_event();
        }
    }
}

/// How a core takes its turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreConfig {
    /// The longest spin before a sleep; zero sleeps at once.
    pub spin: Duration,
    /// Unread bytes that a connection may gather before it is paused.
    pub inbox_limit: usize,
}

/// One core. Lives on one thread.
pub(crate) struct Core {
    pub shared: Arc<CoreShared>,
    driver: RefCell<Driver>,
    slots: RefCell<Slots>,
    tasks: RefCell<Slab<Rc<Task>>>,
    serial: Cell<u64>,
    pub ready: RefCell<VecDeque<TaskKey>>,
    /// Tasks that wait for one turn of the ring.
    pub yielded: RefCell<Vec<Waker>>,
    pub timers: RefCell<Timers>,
    now: Cell<Instant>,
    completions: RefCell<Vec<Completion>>,
    config: CoreConfig,
    /// The present length of a spin: halved when it was in vain, doubled when it paid.
    spin: Cell<Duration>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The core that this thread is running.
///
/// # Panics
/// Outside of a core.
pub(crate) fn current() -> Rc<Core> {
    CURRENT
        .with(|c| c.borrow().clone())
        .expect("called outside of a ring's core")
}

/// Calls `f` with the present core, if there is one.
pub(crate) fn try_with<T>(f: impl FnOnce(&Core) -> T) -> Option<T> {
    CURRENT
        .try_with(|c| c.try_borrow().ok()?.as_deref().map(f))
        .ok()
        .flatten()
}

/// The number of the present core within its process.
///
/// # Panics
/// Outside of a core.
pub fn core_id() -> usize {
    current().shared.id
}

/// The time of the present turn.
///
/// # Panics
/// Outside of a core.
pub fn now() -> Instant {
    try_with(|core| core.now.get()).expect("called outside of a ring's core")
}

/// A fresh reading of the clock, in the middle of a turn: to measure what work costs, never for
/// deciding what is due.
///
/// # Panics
/// Outside of a core.
pub fn fresh_now() -> Instant {
    try_with(|core| Instant::from_nanos(core.driver.borrow().now_ns()))
        .expect("called outside of a ring's core")
}

/// Milliseconds since the Unix epoch by this node's wall clock: for time stamps of records,
/// never for deciding anything.
///
/// # Panics
/// Outside of a core.
pub fn wall_clock_ms() -> i64 {
    try_with(|core| core.driver.borrow().wall_clock_ms()).expect("called outside of a ring's core")
}

/// A random number, from the seed under the simulator.
///
/// # Panics
/// Outside of a core.
pub fn random_u64() -> u64 {
    try_with(|core| core.driver.borrow_mut().random_u64()).expect("called outside of a ring's core")
}

/// Makes a core the present one for as long as it lives.
pub(crate) struct Entered(Option<Rc<Core>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        let _ = CURRENT.try_with(|c| c.replace(before));
    }
}

impl Core {
    pub(crate) fn new(shared: Arc<CoreShared>, driver: Driver, config: CoreConfig) -> Rc<Self> {
        let now = Instant::from_nanos(driver.now_ns());
        Rc::new(Core {
            shared,
            driver: RefCell::new(driver),
            slots: RefCell::new(Slots::new(config.inbox_limit)),
            tasks: RefCell::default(),
            serial: Cell::new(0),
            ready: RefCell::default(),
            yielded: RefCell::default(),
            timers: RefCell::default(),
            now: Cell::new(now),
            completions: RefCell::default(),
            spin: Cell::new(config.spin),
            config,
        })
    }

    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        Entered(CURRENT.with(|c| c.replace(Some(self.clone()))))
    }

    /// Sockets live on the core that made them: another would wait for what never comes to it.
    ///
    /// # Panics
    /// If this core is not the one that this thread is running.
    pub(crate) fn assert_current(&self) {
        let here = try_with(|core| std::ptr::eq(core, self));
        assert!(here == Some(true), "a socket is used outside of its core");
    }

    pub(crate) fn driver(&self) -> std::cell::RefMut<'_, Driver> {
        self.driver.borrow_mut()
    }

    /// Rings another core's bell by a message of this core's ring, with the next turn.
    fn send_ring(&self, bell: &Arc<Bell>) -> bool {
        match self.driver.try_borrow_mut() {
            Ok(mut driver) => driver.send_ring(bell),
            Err(_) => false,
        }
    }

    // ---- tasks ----

    pub(crate) fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) -> TaskKey {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        self.serial.set(self.serial.get() + 1);
        let key = TaskKey {
            index: entry.key(),
            serial: self.serial.get(),
        };
        entry.insert(Task::new(key, self.shared.clone(), future));
        self.ready.borrow_mut().push_back(key);
        key
    }

    fn task(&self, key: TaskKey) -> Option<Rc<Task>> {
        self.tasks
            .borrow()
            .get(key.index)
            .filter(|task| task.key == key)
            .cloned()
    }

    pub(crate) fn abort(&self, key: TaskKey) {
        let Some(task) = self.task(key) else { return };
        let Some(future) = task.abort() else { return };
        self.tasks.borrow_mut().remove(key.index);
        // Last, and with nothing borrowed: a future's drop may do anything.
        drop(future);
    }

    fn run_tasks(&self) -> bool {
        let mut progress = false;
        for _ in 0..POLLS_PER_TURN {
            let Some(key) = self.ready.borrow_mut().pop_front() else {
                break;
            };
            progress = true;
            let Some(task) = self.task(key) else { continue };
            if task.poll() {
                let over = self.tasks.borrow_mut().try_remove(key.index);
                drop(over);
            }
        }
        progress
    }

    /// Drops all tasks: the end of the core. Operations in flight are left to the driver.
    ///
    /// # Panics
    /// If a task's drop does, when all others are dropped.
    pub(crate) fn clear(&self) {
        if let Some(panic) = self.drop_tasks() {
            resume_unwind(panic);
        }
    }

    /// Drops all tasks, whatever their drops do; returns the first panic.
    fn drop_tasks(&self) -> Option<Box<dyn Any + Send>> {
        let mut panicked = None;
        loop {
            // A drop may spawn. All at once: to look for the next among the places of those that
            // are gone takes longer with each.
            let tasks = self.tasks.take();
            if tasks.is_empty() {
                break;
            }
            for (_, task) in tasks {
                // Nothing of the task is looked at afterwards.
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(task.abort())));
                panicked = panicked.or(dropped.err());
            }
        }
        self.ready.borrow_mut().clear();
        self.yielded.take();
        panicked
    }

    /// The end of the core: its tasks are dropped, then the driver waits until the kernel has
    /// given back what it had of them.
    ///
    /// # Panics
    /// As [`Core::clear`], after all that.
    pub(crate) fn stop(&self) {
        let panicked = self.drop_tasks();
        self.shared.bell.take_down();
        let mut completions = Vec::new();
        self.driver.borrow_mut().close(&mut completions);
        for completion in completions {
            self.on_completion(completion);
        }
        if let Some(panic) = panicked.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }

    // ---- operations ----

    pub(crate) fn submit(&self, op: Op) -> SlotKey {
        let key = self.slots.borrow_mut().insert_once();
        self.driver.borrow_mut().submit(key, op);
        key
    }

    pub(crate) fn submit_stream(&self, op: Op) -> SlotKey {
        let key = self.slots.borrow_mut().insert_stream();
        self.driver.borrow_mut().submit(key, op);
        key
    }

    pub(crate) fn poll_slot(&self, key: SlotKey, waker: &Waker) -> Option<Outcome> {
        self.slots.borrow_mut().poll_once(key, waker)
    }

    pub(crate) fn slots(&self) -> std::cell::RefMut<'_, Slots> {
        self.slots.borrow_mut()
    }

    /// Nobody waits for the operation any more.
    pub(crate) fn forget(&self, key: SlotKey, cancel: bool) {
        let (in_flight, forgotten) = self.slots.borrow_mut().forget(key);
        if in_flight && cancel {
            self.driver.borrow_mut().cancel(key);
        }
        drop(forgotten);
    }

    // ---- turns ----

    /// One turn without sleeping; true if anything moved.
    pub(crate) fn run_turn(&self) -> io::Result<bool> {
        self.turn(Wait::Poll)
    }

    fn turn(&self, wait: Wait) -> io::Result<bool> {
        let mut completions = self.completions.take();
        let result = self.driver.borrow_mut().turn(wait, &mut completions);
        if wait != Wait::Poll {
            self.shared.inbox.wake_up();
        }
        let now = Instant::from_nanos(self.driver.borrow().now_ns());
        self.now.set(now);
        let mut progress = !completions.is_empty();
        for completion in completions.drain(..) {
            self.on_completion(completion);
        }
        *self.completions.borrow_mut() = completions;
        result?;
        self.shared.inbox.take(&mut *self.ready.borrow_mut());
        loop {
            let fired = self.timers.borrow_mut().fire(now);
            let Some(waker) = fired else { break };
            waker.wake();
        }
        for waker in self.yielded.take() {
            waker.wake();
        }
        progress |= self.run_tasks();
        Ok(progress)
    }

    fn on_completion(&self, completion: Completion) {
        let key = completion.slot;
        let (waker, after, unwanted) = self
            .slots
            .borrow_mut()
            .complete(completion, |chunk: Chunk, into| {
                self.driver.borrow_mut().take_chunk(chunk, into)
            });
        if after == After::Pause {
            self.driver.borrow_mut().cancel(key);
        }
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A task waits for its poll.
    fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty() || !self.yielded.borrow().is_empty()
    }

    /// A turn would find work.
    pub(crate) fn has_work(&self) -> bool {
        self.has_ready()
            || self.shared.inbox.has_some()
            || self.driver.borrow_mut().is_ready()
            || self
                .next_timer()
                .is_some_and(|at| at.as_nanos() <= self.driver.borrow().now_ns())
    }

    /// There are operations that have not reached the kernel yet.
    pub(crate) fn has_queued(&self) -> bool {
        self.driver.borrow_mut().has_queued()
    }

    /// The next deadline of a timer.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.borrow().next()
    }

    /// Waits for something to do: spins for a while, then sleeps in the ring, and takes the
    /// turn that follows.
    fn sleep(&self) -> io::Result<()> {
        // A core that spins must first see its own submissions off; one that sleeps hands them
        // over with the same call that waits.
        let spins = !self.spin.get().is_zero();
        if spins && (self.driver.borrow_mut().has_queued() || self.spin()) {
            return self.turn(Wait::Poll).map(drop);
        }
        self.fall_asleep(None)
    }

    /// Sleeps in the ring until there is something to do or a time is over, and takes the turn
    /// that follows.
    pub(crate) fn sleep_at_most(&self, longest: Duration) -> io::Result<()> {
        match self.has_ready() {
            true => self.turn(Wait::Poll).map(drop),
            false => self.fall_asleep(Some(longest)),
        }
    }

    fn fall_asleep(&self, longest: Option<Duration>) -> io::Result<()> {
        let wait = if self.shared.inbox.fall_asleep() {
            let now = Instant::from_nanos(self.driver.borrow().now_ns());
            let timer = self
                .next_timer()
                .map(|at| at.saturating_duration_since(now));
            Wait::Until(timer.into_iter().chain(longest).min())
        } else {
            self.shared.inbox.wake_up();
            Wait::Poll
        };
        self.turn(wait).map(drop)
    }

    /// Spins for at most the present spin time; true if there is work.
    fn spin(&self) -> bool {
        let limit = self.spin.get();
        let start = self.driver.borrow().now_ns();
        let timer = self.next_timer().map_or(u64::MAX, Instant::as_nanos);
        let end = start.saturating_add(limit.as_nanos() as u64);
        loop {
            if self.shared.inbox.has_some() || self.driver.borrow_mut().is_ready() {
                self.spin.set((limit * 2).min(self.config.spin));
                return true;
            }
            let now = self.driver.borrow().now_ns();
            if now >= timer {
                return true;
            }
            if now >= end {
                // Half as long next time, but never so short that it can't recover.
                self.spin.set((limit / 2).max(self.config.spin / 64));
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Runs until `done` says so.
    pub(crate) fn run_until(self: &Rc<Self>, done: impl Fn() -> bool) -> io::Result<()> {
        let _entered = self.enter();
        while !done() {
            if self.has_ready() {
                self.turn(Wait::Poll)?;
            } else {
                self.sleep()?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}
