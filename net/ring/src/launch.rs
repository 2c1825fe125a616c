//! Starting and stopping cores: one pinned thread with one ring each, or a single ring on the
//! calling thread.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::core::{Core, CoreConfig, CoreShared};
use crate::driver::Driver;
use crate::mailbox::{self, Port};
use crate::uring::{Features, Uring, UringConfig};

/// How a core's ring is made.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submission entries, a power of two.
    pub entries: u32,
    /// Provided receive buffers, a power of two; shared by all connections of the core.
    pub recv_buffers: u16,
    /// Bytes of each.
    pub recv_buffer_bytes: usize,
    /// Places for files and sockets that the kernel looks up once; further ones go without.
    pub registered_files: u32,
    /// Unread bytes that a connection may gather before its peer is slowed down.
    pub inbox_bytes_max: usize,
    /// The longest spin before a core sleeps; zero (the default) sleeps at once. A waking core
    /// costs some 50 to 150 µs of latency on a virtual machine, a spinning one its whole CPU.
    pub spin: Duration,
    /// Pin each core's thread to a processor.
    pub pin: bool,
    /// What of the kernel may be used where it is found: to go around a kernel's fault, and to
    /// try what older ones lack.
    pub features: Features,
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            entries: 1024,
            recv_buffers: 64,
            recv_buffer_bytes: 32 << 10,
            registered_files: 1024,
            inbox_bytes_max: 256 << 10,
            spin: Duration::ZERO,
            pin: true,
            features: Features::ALL,
        }
    }
}

impl RingConfig {
    pub(crate) fn core(&self) -> CoreConfig {
        CoreConfig {
            spin: self.spin,
            inbox_limit: self.inbox_bytes_max,
        }
    }

    pub(crate) fn uring(&self) -> UringConfig {
        UringConfig {
            entries: self.entries,
            recv_buffers: self.recv_buffers,
            recv_buffer_bytes: self.recv_buffer_bytes,
            registered_files: self.registered_files,
            features: self.features,
        }
    }
}

/// What this kernel offers, found by making a ring.
///
/// # Errors
/// If no ring can be made: a sentence that names the cause and the remedy.
pub fn probe() -> io::Result<Features> {
    Uring::new(RingConfig::default().uring()).map(|ring| ring.features())
}

/// Runs one future to its end on a ring of this thread's own. Tasks that it leaves behind are
/// dropped, their operations cancelled and drained; so they are when it panics, or when a task
/// does: a panic of any task ends the core and comes out here.
///
/// # Errors
/// If the ring cannot be made or fails.
///
/// # Panics
/// If the future or one of its tasks panics.
pub fn run<F: Future>(config: RingConfig, future: F) -> io::Result<F::Output> {
    run_core(CoreShared::new(0), config, future)
}

/// Stops a core however its future ended.
#[derive(Debug)]
pub(crate) struct Stopping(pub(crate) Rc<Core>);

impl Drop for Stopping {
    fn drop(&mut self) {
        let _entered = self.0.enter();
        self.0.stop();
    }
}

fn run_core<F: Future>(
    shared: Arc<CoreShared>,
    config: RingConfig,
    future: F,
) -> io::Result<F::Output> {
    let uring = Uring::new(config.uring())?;
    shared.hang_bell(&uring)?;
    let core = Core::new(shared, Driver::Uring(Box::new(uring)), config.core());
    let _stopping = Stopping(core.clone());
    block_on(&core, future)
}

pub(crate) fn block_on<F: Future>(core: &Rc<Core>, future: F) -> io::Result<F::Output> {
    // The future stays on this stack; a small task of the core's wakes it, so that it may
    // borrow from its caller.
    let _entered = core.enter();
    let mut future = std::pin::pin!(future);
    let rung = Rc::new(Cell::new(true));
    let root = root_waker(core, rung.clone());
    loop {
        if rung.replace(false) {
            let waker = root.borrow().clone();
            if let Some(waker) = waker {
                let mut cx = std::task::Context::from_waker(&waker);
                if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                    return Ok(output);
                }
            }
        }
        core.run_until(|| rung.get())?;
    }
}

type RootWaker = Rc<std::cell::RefCell<Option<std::task::Waker>>>;

/// A task that sets `rung` whenever its waker is called.
fn root_waker(core: &Rc<Core>, rung: Rc<Cell<bool>>) -> RootWaker {
    let root = RootWaker::default();
    let kept = root.clone();
    core.spawn(Box::pin(std::future::poll_fn(move |cx| {
        *kept.borrow_mut() = Some(cx.waker().clone());
        rung.set(true);
        std::task::Poll::Pending
    })));
    root
}

/// The cores of one process, before they run.
pub struct Cores {
    pub(crate) shared: Vec<Arc<CoreShared>>,
}

impl Cores {
    /// `count` cores.
    ///
    /// # Panics
    /// If `count` is zero.
    pub fn new(count: usize) -> Cores {
        assert!(count > 0, "a process has at least one core");
        Cores {
            shared: (0..count).map(CoreShared::new).collect(),
        }
    }

    /// As many cores as this process may run on.
    pub fn available() -> usize {
        thread::available_parallelism().map_or(1, Into::into)
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.shared.len()
    }

    /// Mailboxes between all cores: one port each, lanes of `depth` messages.
    pub fn mesh<M: Send>(&self, depth: usize) -> Vec<Port<M>> {
        mailbox::mesh(self.count(), depth)
    }

    /// Starts one thread for each core; `make` is called on each with the core's number.
    ///
    /// # Errors
    /// If a thread cannot be started. A ring that cannot be made is reported by [`Running::join`].
    pub fn launch<T, M, F>(self, config: RingConfig, make: M) -> io::Result<Running<T>>
    where
        T: Send + 'static,
        M: Fn(usize) -> F + Send + Sync + 'static,
        F: Future<Output = T>,
    {
        let make = Arc::new(make);
        let processors = core_affinity::get_core_ids().unwrap_or_default();
        let (tell, endings) = mpsc::channel();
        let mut threads = Vec::new();
        for shared in self.shared {
            let (make, tell) = (make.clone(), tell.clone());
            let id = shared.id;
            let processor = processors.get(id % processors.len().max(1)).copied();
            let body = move || {
                if let Some(processor) = processor.filter(|_| config.pin) {
                    core_affinity::set_for_current(processor);
                }
                // Nothing of the core is looked at after a panic.
                let ending = catch_unwind(AssertUnwindSafe(|| {
                    run_core(shared, config, async { make(id).await })
                }));
                // Nobody listens any more if another core failed before.
                let _ = tell.send((id, ending));
            };
            threads.push(
                thread::Builder::new()
                    .name(format!("core-{id}"))
                    .spawn(body)?,
            );
        }
        Ok(Running { endings, threads })
    }
}

/// How a core ended: its output, its ring's failure, or its panic.
type Ending<T> = thread::Result<io::Result<T>>;

/// Cores that run.
pub struct Running<T> {
    endings: mpsc::Receiver<(usize, Ending<T>)>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl<T> Running<T> {
    /// Waits for all cores to end; their outputs in the order of the cores.
    ///
    /// # Errors
    /// The first core's failure, at once: the others may still run then, and wait for what the
    /// failed one will never send. The process should end.
    ///
    /// # Panics
    /// If a core panicked, at once and with its panic; as for errors.
    pub fn join(self) -> io::Result<Vec<T>> {
        let mut outputs: Vec<_> = self.threads.iter().map(|_| None).collect();
        for _ in 0..outputs.len() {
            let (id, ending) = self.endings.recv().expect("each core tells its end");
            outputs[id] = Some(ending.unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        for thread in self.threads {
            // It has told its end and does nothing after that.
            let _ = thread.join();
        }
        Ok(outputs.into_iter().flatten().collect())
    }
}
