//! One simulated process: its cores, and how they come and go.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::SimDriver;
use super::kernel::Kernel;
use crate::clock::Instant;
use crate::core::{Core, CoreShared};
use crate::driver::Driver;
use crate::launch::RingConfig;

/// What the roots of a process brought, once they ended.
#[derive(Debug)]
pub struct Outputs<T>(Rc<RefCell<Vec<Option<T>>>>);

impl<T> Outputs<T> {
    /// The outputs of the cores whose root has ended, in the order of the cores.
    pub fn take(&self) -> Vec<T> {
        self.0
            .borrow_mut()
            .iter_mut()
            .filter_map(Option::take)
            .collect()
    }
}

struct ProcessCore {
    core: Rc<Core>,
    /// The root future has ended.
    over: Rc<Cell<bool>>,
    /// And what it left behind was dropped.
    cleared: bool,
    /// It gets no processor before this time.
    stalled_until: u64,
}

impl ProcessCore {
    fn clear(&mut self) {
        if !self.cleared {
            self.cleared = true;
            let _entered = self.core.enter();
            self.core.clear();
        }
    }
}

/// A running process.
pub(super) struct Process {
    pub number: u32,
    pub paused: bool,
    cores: Vec<ProcessCore>,
}

impl Process {
    pub(super) fn start<T, M, F>(
        kernel: &Rc<RefCell<Kernel>>,
        node: usize,
        number: u32,
        shared: Vec<Arc<CoreShared>>,
        config: RingConfig,
        make: M,
    ) -> (Self, Outputs<T>)
    where
        T: 'static,
        M: Fn(usize) -> F + 'static,
        F: Future<Output = T> + 'static,
    {
        let make = Rc::new(make);
        let outputs = Rc::new(RefCell::new(Vec::new()));
        let mut cores = Vec::new();
        for shared in shared {
            shared.simulated.store(true, Ordering::Relaxed);
            let id = shared.id;
            let driver = SimDriver::new(kernel.clone(), kernel.borrow_mut().add_core(node, number));
            let core = Core::new(shared, Driver::Sim(driver), config.core());
            let over = Rc::new(Cell::new(false));
            outputs.borrow_mut().push(None);
            let (make, ended, kept) = (make.clone(), over.clone(), outputs.clone());
            core.spawn(Box::pin(async move {
                let output = make(id).await;
                kept.borrow_mut()[id] = Some(output);
                ended.set(true);
            }));
            cores.push(ProcessCore {
                core,
                over,
                cleared: false,
                stalled_until: 0,
            });
        }
        (
            Process {
                number,
                paused: false,
                cores,
            },
            Outputs(outputs),
        )
    }

    /// Names the cores that have something to do, and may.
    pub(super) fn add_able(&self, now: u64, mut add: impl FnMut(usize)) {
        if self.paused {
            return;
        }
        for (index, core) in self.cores.iter().enumerate() {
            if !core.cleared && core.stalled_until <= now && core.core.has_work() {
                add(index);
            }
        }
    }

    /// One core gets no processor for a while.
    pub(super) fn stall(&mut self, index: usize, until: u64) {
        self.cores[index].stalled_until = until;
    }

    /// One turn of one core; true if the process is over.
    pub(super) fn turn(&mut self, index: usize) -> bool {
        let core = &mut self.cores[index];
        let entered = core.core.enter();
        // A simulated driver's turn does not fail.
        core.core.run_turn().expect("a simulated turn");
        drop(entered);
        if core.over.get() {
            core.clear();
        }
        self.cores.iter().all(|core| core.cleared)
    }

    /// The earliest time at which one of its cores has something to do that none has now.
    /// `true_time` translates a deadline of the node's clock.
    pub(super) fn next_time(&self, true_time: impl Fn(Instant) -> u64) -> Option<u64> {
        if self.paused {
            return None;
        }
        let cores = self.cores.iter().filter(|core| !core.cleared);
        let times = cores.filter_map(|core| {
            if core.core.has_work() {
                return Some(core.stalled_until);
            }
            let due = true_time(core.core.next_timer()?);
            Some(due.max(core.stalled_until))
        });
        times.min()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for core in &mut self.cores {
            core.clear();
        }
    }
}
