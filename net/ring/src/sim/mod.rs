//! A seeded world: machines, disks, a network and a clock, all in one thread.
//!
//! A [`World`] runs whole processes, written against this crate's ordinary interface, on
//! simulated machines: the clock moves only when nobody has anything to do, messages and disks
//! take their time, and what can go wrong goes wrong: messages are late, lost or cut in pieces,
//! connections break, machines stop at any moment, lose their power, and find on their disks
//! what was flushed and any part of what was not. All of it follows from one seed, and the
//! same seed tells the same story again, which [`World::trace_hash`] proves.
//!
//! ```
//! use std::time::Duration;
//! use ringmill_ring::{sim::World, now, sleep};
//!
//! let mut world = World::new(7);
//! let node = world.add_node("a", "10.0.0.1".parse().unwrap());
//! let slept = world.block_on(node, async {
//!     let begun = now();
//!     sleep(Duration::from_secs(3600)).await;
//!     now() - begun
//! });
//! assert!(slept >= Duration::from_secs(3600));
//! ```
//!
//! What can go wrong, and how often, are the knobs of [`DiskFaults`], [`NetworkFaults`] and
//! [`CpuFaults`]; [`World::swarm`] turns them at random. What survives a power cut is told at the
//! head of `disk/file.rs` and `disk/names.rs`. A process is its cores: they take turns in an
//! order that the seed chooses, one at a time, each turn at one instant. A panic prints the
//! seed; `RINGMILL_SIM_TRACE=1` in the environment prints all that happens.

mod clock;
mod disk;
mod driver;
mod events;
mod faults;
mod handles;
mod kernel;
mod network;
mod process;
mod random;
mod trace;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use self::driver::{SimDriver, SimFd};
pub use self::faults::{Chance, CpuFaults, DiskFaults, Latency, NetworkFaults};
pub use self::handles::{DiskHandle, NetworkHandle};
use self::kernel::{End, Kernel};
pub use self::process::Outputs;
use self::process::Process;
use self::random::Purpose;
pub use self::random::Random;
use crate::launch::{Cores, RingConfig};

/// Turns that cores may take at one instant. A program that does more waits for something by
/// asking again and again, and would burn a processor for ever.
const TURNS_AT_ONE_INSTANT_MAX: u64 = 20_000;

/// The simulated time that [`World::block_on`] waits at most: a program that takes longer hangs.
const BLOCK_ON_MAX: Duration = Duration::from_secs(24 * 3600);

/// A machine of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

/// The time was over before the condition was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeIsOver;

impl std::fmt::Display for TimeIsOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulated time was over before the condition was met")
    }
}

impl std::error::Error for TimeIsOver {}

/// A simulated world.
pub struct World {
    kernel: Rc<RefCell<Kernel>>,
    /// By node: the process that runs there.
    processes: BTreeMap<usize, Process>,
    processes_started: u32,
    cpu: CpuFaults,
    schedule: Random,
    workload: Random,
    turns_at_instant: u64,
    /// Room for a list that each turn makes anew.
    able: Vec<(usize, usize)>,
}

/// What a step of the world came to.
enum Step {
    /// Something was done, or the time moved on.
    Moved,
    /// Nothing is to be done before the limit.
    Quiet,
}

impl World {
    /// A world without machines.
    pub fn new(seed: u64) -> Self {
        World {
            kernel: Rc::new(RefCell::new(Kernel::new(seed))),
            processes: BTreeMap::new(),
            processes_started: 0,
            cpu: CpuFaults::default(),
            schedule: Random::new(seed, Purpose::Schedule, 0),
            workload: Random::new(seed, Purpose::Workload, 0),
            turns_at_instant: 0,
            able: Vec::new(),
        }
    }

    /// The seed from which all follows.
    pub fn seed(&self) -> u64 {
        self.kernel.borrow().seed
    }

    /// A new machine with an empty disk, switched on, without a process.
    ///
    /// # Panics
    /// If another machine has the address.
    pub fn add_node(&mut self, name: &str, ip: IpAddr) -> NodeId {
        NodeId(self.kernel.borrow_mut().add_node(name, ip))
    }

    /// Random numbers for the test's own choices.
    pub fn random(&mut self) -> &mut Random {
        &mut self.workload
    }

    /// Gives the network, all disks and all processors random faults, none of which breaks a promise: a
    /// program has to go on under all of them.
    pub fn swarm(&mut self) {
        self.cpu = CpuFaults::swarm(&mut self.workload);
        let mut kernel = self.kernel.borrow_mut();
        kernel.network.faults = NetworkFaults::swarm(&mut self.workload);
        for node in &mut kernel.nodes {
            node.disk.faults = DiskFaults::swarm(&mut self.workload);
        }
    }

    // ---- processes ----

    /// Starts a process, as [`Cores::launch`] does: one root future for each core. A machine
    /// without power is switched on first. The process ends when all its roots have.
    ///
    /// # Panics
    /// If a process runs on the node.
    pub fn launch<T, M, F>(
        &mut self,
        node: NodeId,
        cores: Cores,
        config: RingConfig,
        make: M,
    ) -> Outputs<T>
    where
        T: 'static,
        M: Fn(usize) -> F + 'static,
        F: Future<Output = T> + 'static,
    {
        assert!(
            !self.processes.contains_key(&node.0),
            "a process runs on {node:?}"
        );
        self.power_on(node);
        self.processes_started += 1;
        let number = self.processes_started;
        let (process, outputs) =
            Process::start(&self.kernel, node.0, number, cores.shared, config, make);
        self.processes.insert(node.0, process);
        outputs
    }

    /// Starts a process with one core.
    ///
    /// # Panics
    /// If a process runs on the node.
    pub fn start<T, F>(&mut self, node: NodeId, root: F) -> Outputs<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let root = Cell::new(Some(root));
        self.launch(node, Cores::new(1), RingConfig::default(), move |_| {
            root.take().expect("one core, one root")
        })
    }

    /// Runs the world until a future on a process of its own has ended.
    ///
    /// # Panics
    /// If a process runs on the node, or if the future takes more than a simulated day.
    pub fn block_on<T, F>(&mut self, node: NodeId, root: F) -> T
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let outputs = self.start(node, root);
        let ended = self.run_until(BLOCK_ON_MAX, |world| !world.is_running(node));
        let hangs = if self.next_time().is_some() {
            "takes a day"
        } else {
            "waits for nothing"
        };
        assert!(ended.is_ok(), "a future that the world blocks on {hangs}");
        outputs.take().pop().expect("one core, one output")
    }

    /// True while a process runs on the node.
    pub fn is_running(&self, node: NodeId) -> bool {
        self.processes.contains_key(&node.0)
    }

    /// SIGKILL: the process is gone at once; what it wrote stays in the page cache. Its peers
    /// see their connections end or break. Nothing if none runs.
    pub fn kill(&mut self, node: NodeId) {
        if let Some(process) = self.processes.remove(&node.0) {
            self.kernel
                .borrow_mut()
                .end_process(process.number, End::Kill);
            drop(process);
        }
    }

    /// The machine loses its power: the process is gone, what was not flushed is at the mercy
    /// of the seed, and nothing is heard of the machine until it is switched on.
    pub fn power_off(&mut self, node: NodeId) {
        let process = self.processes.remove(&node.0);
        if let Some(process) = &process {
            self.kernel
                .borrow_mut()
                .end_process(process.number, End::PowerCut);
        }
        drop(process);
        self.kernel.borrow_mut().power_cut(node.0);
    }

    /// Switches a machine on: it answers what reaches it with resets until a process listens.
    /// Nothing if it is on. [`World::launch`] does this by itself.
    pub fn power_on(&mut self, node: NodeId) {
        self.kernel.borrow_mut().power_on(node.0);
    }

    /// SIGSTOP: the process takes no turns; its kernel goes on for it, so that connections are
    /// still made and bytes still received.
    pub fn pause(&mut self, node: NodeId) {
        if let Some(process) = self.processes.get_mut(&node.0) {
            process.paused = true;
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self, node: NodeId) {
        if let Some(process) = self.processes.get_mut(&node.0) {
            process.paused = false;
        }
    }

    /// Sets the wall clock of a machine forward or back.
    pub fn jump_wall_clock(&mut self, node: NodeId, by_ms: i64) {
        self.kernel.borrow_mut().nodes[node.0].clock.jump(by_ms);
    }

    /// The descriptors that a process on this machine may have open.
    pub fn limit_descriptors(&mut self, node: NodeId, limit: usize) {
        self.kernel.borrow_mut().nodes[node.0].descriptors_max = limit;
    }

    // ---- faults and findings ----

    /// One machine's disk.
    pub fn disk(&self, node: NodeId) -> DiskHandle<'_> {
        DiskHandle {
            kernel: &self.kernel,
            node: node.0,
        }
    }

    /// What goes wrong with processors, from now on.
    pub fn cpu(&mut self) -> &mut CpuFaults {
        &mut self.cpu
    }

    /// The network.
    pub fn network(&self) -> NetworkHandle<'_> {
        NetworkHandle {
            kernel: &self.kernel,
        }
    }

    /// True time since the world began.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.kernel.borrow().now)
    }

    /// A hash of all that has happened: the same for the same seed and program.
    pub fn trace_hash(&self) -> u64 {
        self.kernel.borrow().trace.hash()
    }

    /// How much has happened.
    pub fn events(&self) -> u64 {
        self.kernel.borrow().trace.events()
    }

    /// Descriptors that are open on a node: none when what it ran has let go of all.
    pub fn descriptors(&self, node: NodeId) -> usize {
        self.kernel.borrow_mut().descriptors(node.0)
    }

    /// Operations of a node that have not ended.
    pub fn operations(&self, node: NodeId) -> usize {
        self.kernel.borrow().operations(node.0)
    }

    // ---- time ----

    /// Runs the world for so long.
    pub fn run_for(&mut self, time: Duration) {
        let limit = self.limit(time);
        while let Step::Moved = self.step(limit) {}
        self.kernel.borrow_mut().advance(limit);
    }

    /// Runs the world until a condition is met, at most for so long.
    ///
    /// # Errors
    /// If the time is over before, or if nothing more would ever happen.
    pub fn run_until(
        &mut self,
        time: Duration,
        mut condition: impl FnMut(&World) -> bool,
    ) -> Result<(), TimeIsOver> {
        let limit = self.limit(time);
        while !condition(self) {
            if let Step::Quiet = self.step(limit) {
                return Err(TimeIsOver);
            }
        }
        Ok(())
    }

    /// Runs the world until nothing is to be done, no message is on its way and no timer is
    /// set, at most for so long.
    ///
    /// # Errors
    /// If the time is over before.
    pub fn run_until_idle(&mut self, time: Duration) -> Result<(), TimeIsOver> {
        let limit = self.limit(time);
        while let Step::Moved = self.step(limit) {}
        if self.next_time().is_some() {
            Err(TimeIsOver)
        } else {
            Ok(())
        }
    }

    fn limit(&self, time: Duration) -> u64 {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.kernel.borrow().now.saturating_add(time)
    }

    /// One turn of one core; or, if none has work, the next thing that happens.
    fn step(&mut self, limit: u64) -> Step {
        if self.turn() {
            self.turns_at_instant += 1;
            assert!(
                self.turns_at_instant < TURNS_AT_ONE_INSTANT_MAX,
                "a program spins: {} turns at one instant",
                self.turns_at_instant
            );
            return Step::Moved;
        }
        match self.next_time() {
            Some(time) if time <= limit => {
                let mut kernel = self.kernel.borrow_mut();
                if time > kernel.now {
                    self.turns_at_instant = 0;
                }
                kernel.advance(time);
                Step::Moved
            }
            _ => Step::Quiet,
        }
    }

    /// One turn of one of the cores that have work; false if none has.
    fn turn(&mut self) -> bool {
        let mut kernel = self.kernel.borrow_mut();
        kernel.close_dropped();
        let now = kernel.now;
        drop(kernel);
        self.able.clear();
        for (node, process) in &self.processes {
            process.add_able(now, |core| self.able.push((*node, core)));
        }
        if self.able.is_empty() {
            return false;
        }
        let (node, core) = self.schedule.pick(&self.able);
        let Some(process) = self.processes.get_mut(&node) else {
            return false;
        };
        if self.cpu.stall.strikes(&mut self.schedule) {
            process.stall(core, now + self.cpu.stall_time.draw(&mut self.schedule));
            return true;
        }
        if process.turn(core) {
            let number = process.number;
            let process = self.processes.remove(&node);
            self.kernel.borrow_mut().end_process(number, End::Exit);
            drop(process);
        }
        true
    }

    /// When the next event or timer is due.
    fn next_time(&self) -> Option<u64> {
        let kernel = self.kernel.borrow();
        let event = kernel.next_event_at();
        let processes = self.processes.iter().filter_map(|(node, process)| {
            let clock = &kernel.nodes[*node].clock;
            process.next_time(|due| clock.true_time(due.as_nanos()))
        });
        processes
            .chain(event)
            .map(|time| time.max(kernel.now))
            .min()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let kernel = self.kernel.borrow();
        if std::thread::panicking() {
            eprintln!(
                "simulated world: seed {} ({:#x}), at {:?}, after {} events; \
                 RINGMILL_SIM_TRACE=1 prints them",
                kernel.seed,
                kernel.seed,
                Duration::from_nanos(kernel.now),
                kernel.trace.events(),
            );
        }
        drop(kernel);
        while let Some((_, process)) = self.processes.pop_first() {
            self.kernel
                .borrow_mut()
                .end_process(process.number, End::Exit);
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed())
            .field("now", &self.now())
            .field("running", &self.processes.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
