//! The one state of a process, and who may touch it: an island of `unsafe`.
//!
//! MPI's functions have no argument for a library's state, so it is the process's. A program with
//! one thread in MPI at a time takes it without an atomic exchange; one that asked for
//! `MPI_THREAD_MULTIPLE` takes a lock. Functions of the application's are called without it.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use ringmill_mpi::collective::Run;
use ringmill_mpi::endpoint::Endpoint;
use ringmill_mpi::engine;
use ringmill_mpi::group;
use slab::Slab;

use crate::attribute::Keyval;
use crate::buffered::Attached;
use crate::communicator::Communicator;
use crate::constants::{LASTUSEDCODE, THREAD_SINGLE};
use crate::datatype::{self, Type};
use crate::error::{Code, LAST_CODE, Outcome};
use crate::handle::{
    Comm, Datatype, Errhandler, Group, Info, Message, Op, Request, Session, Table,
};
use crate::info::Pairs;
use crate::memory::Memory;
use crate::operation::{self, Operation};
use crate::request::Record;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    Running,
    After,
}

/// A collective operation that is under way.
pub(crate) struct Running {
    /// None while the application reduces for it.
    pub run: Option<Run<Memory>>,
    /// The application's reduction and the datatype, if it has one.
    pub external: Option<(Op, Datatype)>,
    pub over: Option<Outcome<()>>,
}

/// Everything.
pub(crate) struct State {
    pub phase: Phase,
    pub thread_level: c_int,
    /// The thread that began.
    pub main_thread: Option<std::thread::ThreadId>,
    /// Sessions that are open, and whether the world was opened.
    pub users: usize,
    pub rank: u32,
    pub size: u32,
    /// Ranks on this host.
    pub near: Vec<u32>,
    pub endpoint: Option<Endpoint<Memory>>,
    pub next_context: u32,
    pub comms: Table<Comm, Communicator>,
    pub groups: Table<Group, group::Group>,
    pub types: Table<Datatype, Type>,
    pub ops: Table<Op, Operation>,
    pub infos: Table<Info, Pairs>,
    pub handlers: Table<Errhandler, crate::environment::Handler>,
    pub requests: Table<Request, Record>,
    pub messages: Table<Message, (Comm, engine::Message)>,
    pub sessions: Table<Session, crate::session::Opened>,
    pub keyvals: BTreeMap<c_int, Keyval>,
    pub next_keyval: c_int,
    pub runs: Slab<Running>,
    pub active: Vec<usize>,
    pub attached: Option<Attached>,
    /// Codes of the application's: their classes and words.
    pub codes: BTreeMap<c_int, (c_int, String)>,
    pub last_code: c_int,
    /// What attributes of the standard's point to.
    pub attributes: BTreeMap<c_int, Box<c_int>>,
    /// Types of Fortran's that were asked for: how, and what they are.
    pub fortran: Vec<(c_int, Vec<i64>, Datatype)>,
    /// The error handler of files, none of which is open.
    pub file_handler: Errhandler,
}

impl State {
    fn new() -> State {
        let mut state = State {
            phase: Phase::Before,
            thread_level: THREAD_SINGLE,
            main_thread: None,
            users: 0,
            rank: 0,
            size: 1,
            near: vec![0],
            endpoint: None,
            next_context: 4,
            comms: Table::new(),
            groups: Table::new(),
            types: Table::new(),
            ops: Table::new(),
            infos: Table::new(),
            handlers: Table::new(),
            requests: Table::new(),
            messages: Table::new(),
            sessions: Table::new(),
            keyvals: BTreeMap::new(),
            next_keyval: 1000,
            runs: Slab::new(),
            active: Vec::new(),
            attached: None,
            codes: BTreeMap::new(),
            last_code: LAST_CODE,
            attributes: BTreeMap::new(),
            fortran: Vec::new(),
            file_handler: Errhandler::RETURN,
        };
        datatype::fix(&mut state.types);
        operation::fix(&mut state.ops);
        state.groups.fix(Group::EMPTY, group::Group::new([]));
        state.infos.fix(Info::ENV, Pairs::default());
        crate::environment::fix(&mut state.handlers);
        state
    }

    /// The rank's messages.
    #[inline]
    pub(crate) fn endpoint(&mut self) -> Outcome<&mut Endpoint<Memory>> {
        self.endpoint.as_mut().ok_or(Code::OTHER)
    }

    /// A new class or code of the application's.
    pub(crate) fn add_code(&mut self, class: Option<c_int>) -> c_int {
        self.last_code += 1;
        let code = self.last_code;
        self.codes
            .insert(code, (class.unwrap_or(code), String::new()));
        self.tell_last_code();
        code
    }

    pub(crate) fn tell_last_code(&mut self) {
        let last = self.codes.keys().next_back().copied().unwrap_or(LAST_CODE);
        self.last_code = last;
        **self.attributes.entry(LASTUSEDCODE).or_default() = last;
    }
}

/// The state of this process.
struct Global {
    taken: AtomicBool,
    /// Threads may come at once.
    threaded: AtomicBool,
    state: UnsafeCell<Option<Box<State>>>,
}

// SAFETY: `with` hands out the state to one caller at a time: by the lock where threads may come
// at once, otherwise by the program's promise, and a second caller is caught by the flag. What is
// within is used by whichever thread has it and by no other: its `Rc`s never leave it, and a ring
// is only there if the program has promised to stay on its thread.
unsafe impl Sync for Global {}

static GLOBAL: Global = Global {
    taken: AtomicBool::new(false),
    threaded: AtomicBool::new(false),
    state: UnsafeCell::new(None),
};

/// From now on, threads may come at once.
pub(crate) fn set_threaded() {
    GLOBAL.threaded.store(true, Ordering::SeqCst);
}

/// Whether threads may come at once.
#[inline]
pub(crate) fn is_threaded() -> bool {
    GLOBAL.threaded.load(Ordering::Relaxed)
}

struct Given;

impl Drop for Given {
    fn drop(&mut self) {
        GLOBAL.taken.store(false, Ordering::Release);
    }
}

/// Lends out the state.
#[inline]
pub(crate) fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    if is_threaded() {
        while GLOBAL.taken.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    } else {
        let taken = GLOBAL.taken.load(Ordering::Relaxed);
        assert!(
            !taken,
            "two threads are in MPI, but the program has not asked for that"
        );
        GLOBAL.taken.store(true, Ordering::Relaxed);
    }
    let _given = Given;
    // SAFETY: nobody else has it, as said at `Global`.
    let state = unsafe { &mut *GLOBAL.state.get() };
    f(state.get_or_insert_with(|| Box::new(State::new())))
}
