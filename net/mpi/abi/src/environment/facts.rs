//! Versions, clocks, names, memory, and the buffers of buffered sends.

use std::ffi::c_int;
use std::sync::OnceLock;
use std::time::Instant;

use crate::buffered::Attached;
use crate::communicator::finish;
use crate::constants::{MAX_LIBRARY_VERSION, MAX_PROCESSOR_NAME};
use crate::datatype::Count;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Comm, Handle, Info, Request, Session};
use crate::info::Pairs;
use crate::memory::{Out, Place, TextOut};
use crate::progress::wait_for;
use crate::request::{Entry, Record};
use crate::state::{State, with};
use crate::status::Status;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Whose buffer.
#[derive(Clone, Copy)]
enum Owner {
    Process,
    Comm(Comm),
    Session(Session),
}

impl Owner {
    fn slot(self, state: &mut State) -> Outcome<&mut Option<Attached>> {
        Ok(match self {
            Owner::Process => &mut state.attached,
            Owner::Comm(comm) => &mut state.comms.get_mut(comm)?.attached,
            Owner::Session(session) => &mut state.sessions.get_mut(session)?.attached,
        })
    }

    fn comm(self) -> Comm {
        match self {
            Owner::Comm(comm) => comm,
            _ => Comm::WORLD,
        }
    }
}

fn attach<C: Count>(owner: Owner, place: Place, size: C) -> c_int {
    let result = with(|state| {
        let slot = owner.slot(state)?;
        if slot.is_some() {
            return Err(Code::BUFFER);
        }
        *slot = Some(Attached::new(place, size.signed()));
        Ok(())
    });
    finish(owner.comm(), result)
}

/// Waits until the messages in the buffer have left.
fn drain(owner: Owner) -> Outcome<()> {
    wait_for(|state| {
        let Some(mut attached) = owner.slot(state)?.take() else {
            return Ok(Some(()));
        };
        if let Some(endpoint) = &mut state.endpoint {
            attached.sweep(&mut endpoint.engine);
        }
        let empty = attached.is_empty();
        *owner.slot(state)? = Some(attached);
        Ok(empty.then_some(()))
    })
}

fn detach<C: Count>(owner: Owner, place: Out<usize>, size: Out<C>) -> c_int {
    let result = drain(owner).and_then(|()| {
        let attached = with(|state| owner.slot(state).map(Option::take))?.ok_or(Code::BUFFER)?;
        place.set(attached.place.address());
        size.set(C::from_number(attached.bytes).ok_or(Code::VALUE_TOO_LARGE)?);
        Ok(())
    });
    finish(owner.comm(), result)
}

fn drain_later(owner: Owner, request: Out<Request>) -> c_int {
    let result = drain(owner).map(|()| {
        let record = Record {
            entry: Entry::Over(Status::empty()),
            comm: Comm::WORLD,
        };
        request.set(with(|state| state.requests.insert(record)));
    });
    finish(owner.comm(), result)
}

fn empty_info(info: Out<Info>) -> c_int {
    info.set(with(|state| state.infos.insert(Pairs::default())));
    0
}

export! {
    fn MPI_Wtime() -> f64 { start().elapsed().as_secs_f64() }
    fn MPI_Wtick() -> f64 { 1e-9 }
    fn MPI_Get_version(version: Out<c_int>, subversion: Out<c_int>) -> c_int {
        version.set(5);
        subversion.set(0);
        0
    }
    fn MPI_Get_library_version(text: TextOut, length: Out<c_int>) -> c_int {
        let words = concat!("Ringmill MPI ", env!("CARGO_PKG_VERSION"));
        length.set(text.set(words, MAX_LIBRARY_VERSION));
        0
    }
    fn MPI_Get_processor_name(name: TextOut, length: Out<c_int>) -> c_int {
        length.set(name.set(&host_name(), MAX_PROCESSOR_NAME));
        0
    }
    fn MPI_Get_hw_resource_info(info: Out<Info>) -> c_int { empty_info(info) }
    fn MPI_Abi_get_version(major: Out<c_int>, minor: Out<c_int>) -> c_int {
        major.set(1);
        minor.set(0);
        0
    }
    fn MPI_Abi_get_info(info: Out<Info>) -> c_int {
        let mut pairs = Pairs::default();
        for name in ["aint", "count", "offset"] {
            pairs.set(&format!("mpi_{name}_size"), "8");
        }
        info.set(with(|state| state.infos.insert(pairs)));
        0
    }
    // Nobody has told of a Fortran compiler.
    fn MPI_Abi_get_fortran_info(info: Out<Info>) -> c_int {
        info.set(Info::NULL);
        0
    }
    fn MPI_Pcontrol(_level: c_int) -> c_int { 0 }
    fn MPI_Alloc_mem(size: isize, _info: Info, place: Out<usize>) -> c_int {
        code(usize::try_from(size).map_err(|_| Code::ARG).and_then(|size| {
            let memory = Place::allocate(size);
            if memory.is_null() {
                return Err(Code::NO_MEM);
            }
            place.set(memory.exposed());
            Ok(())
        }))
    }
    fn MPI_Free_mem(place: Place) -> c_int {
        place.release();
        0
    }
    fn MPI_Buffer_attach(place: Place, size: c_int) -> c_int { attach(Owner::Process, place, size) }
    fn MPI_Buffer_attach_c(place: Place, size: i64) -> c_int { attach(Owner::Process, place, size) }
    fn MPI_Buffer_detach(place: Out<usize>, size: Out<c_int>) -> c_int { detach(Owner::Process, place, size) }
    fn MPI_Buffer_detach_c(place: Out<usize>, size: Out<i64>) -> c_int { detach(Owner::Process, place, size) }
    fn MPI_Buffer_flush() -> c_int { finish(Comm::WORLD, drain(Owner::Process)) }
    fn MPI_Buffer_iflush(request: Out<Request>) -> c_int { drain_later(Owner::Process, request) }
    fn MPI_Comm_attach_buffer(comm: Comm, place: Place, size: c_int) -> c_int { attach(Owner::Comm(comm), place, size) }
    fn MPI_Comm_attach_buffer_c(comm: Comm, place: Place, size: i64) -> c_int { attach(Owner::Comm(comm), place, size) }
    fn MPI_Comm_detach_buffer(comm: Comm, place: Out<usize>, size: Out<c_int>) -> c_int { detach(Owner::Comm(comm), place, size) }
    fn MPI_Comm_detach_buffer_c(comm: Comm, place: Out<usize>, size: Out<i64>) -> c_int { detach(Owner::Comm(comm), place, size) }
    fn MPI_Comm_flush_buffer(comm: Comm) -> c_int { finish(comm, drain(Owner::Comm(comm))) }
    fn MPI_Comm_iflush_buffer(comm: Comm, request: Out<Request>) -> c_int { drain_later(Owner::Comm(comm), request) }
    fn MPI_Session_attach_buffer(session: Session, place: Place, size: c_int) -> c_int { attach(Owner::Session(session), place, size) }
    fn MPI_Session_attach_buffer_c(session: Session, place: Place, size: i64) -> c_int { attach(Owner::Session(session), place, size) }
    fn MPI_Session_detach_buffer(session: Session, place: Out<usize>, size: Out<c_int>) -> c_int { detach(Owner::Session(session), place, size) }
    fn MPI_Session_detach_buffer_c(session: Session, place: Out<usize>, size: Out<i64>) -> c_int { detach(Owner::Session(session), place, size) }
    fn MPI_Session_flush_buffer(session: Session) -> c_int { finish(Comm::WORLD, drain(Owner::Session(session))) }
    fn MPI_Session_iflush_buffer(session: Session, request: Out<Request>) -> c_int { drain_later(Owner::Session(session), request) }
}
