//! Messages between two ranks: the calls of chapter 3 of the standard.

use std::ffi::c_int;

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::engine::{self, Destination, Mode, Started};
use ringmill_mpi::matching::Pattern;

use crate::communicator::finish;
use crate::constants::{ANY_SOURCE, ANY_TAG, PROC_NULL, TAG_MAX};
use crate::datatype::Count;
use crate::error::{Code, Outcome};
use crate::export::export;
use crate::handle::{Comm, Datatype, Handle, Message, Request};
use crate::memory::{Memory, Out, Place};
use crate::progress::{bytes_of, look_around, wait_for};
use crate::request::{Entry, Persistent, Record};
use crate::state::{State, with};
use crate::status::{Status, tell};

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Standard,
    Buffered,
    Synchronous,
}

/// What a message is: where it is, and whose.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub memory: Memory,
    /// None: nobody.
    pub to: Option<Destination>,
}

impl State {
    #[inline]
    pub(crate) fn memory<C: Count>(
        &self,
        place: Place,
        count: C,
        datatype: Datatype,
    ) -> Outcome<Memory> {
        let count = count.get()?;
        let datatype = self.types.get(datatype)?;
        if let Some(size) = datatype.flat {
            return Ok(Memory::flat(place, count * size));
        }
        Ok(Memory::elements(place, count, &datatype.layout))
    }

    #[inline]
    pub(crate) fn destination(
        &self,
        comm: Comm,
        rank: c_int,
        tag: c_int,
    ) -> Outcome<Option<Destination>> {
        let data = self.comms.get(comm)?;
        if rank == PROC_NULL {
            return Ok(None);
        }
        if !(0..=TAG_MAX).contains(&tag) {
            return Err(Code::TAG);
        }
        let peer = usize::try_from(rank)
            .ok()
            .and_then(|rank| data.peers.get(rank));
        Ok(Some(Destination {
            peer: *peer.ok_or(Code::RANK)?,
            context: data.context,
            rank: data.rank,
            tag,
        }))
    }

    /// None: from nobody.
    #[inline]
    pub(crate) fn pattern(&self, comm: Comm, rank: c_int, tag: c_int) -> Outcome<Option<Pattern>> {
        let data = self.comms.get(comm)?;
        let source = match rank {
            PROC_NULL => return Ok(None),
            ANY_SOURCE => None,
            rank => {
                let known = u32::try_from(rank)
                    .ok()
                    .filter(|rank| (*rank as usize) < data.peers.len());
                Some(known.ok_or(Code::RANK)?)
            }
        };
        let tag = match tag {
            ANY_TAG => None,
            0..=TAG_MAX => Some(tag),
            _ => return Err(Code::TAG),
        };
        Ok(Some(Pattern {
            context: data.context,
            source,
            tag,
        }))
    }

    #[inline]
    pub(crate) fn begin_send(
        &mut self,
        comm: Comm,
        manner: Manner,
        shape: &Shape,
    ) -> Outcome<Started> {
        let Some(to) = &shape.to else {
            return Ok(Started::Done(engine::Status::sent()));
        };
        let mode = match manner {
            Manner::Standard => Mode::Standard,
            Manner::Synchronous => Mode::Synchronous,
            Manner::Buffered => return self.send_buffered(comm, &shape.memory, to),
        };
        let endpoint = self.endpoint()?;
        Ok(endpoint
            .engine
            .send(&mut endpoint.ways, to, mode, &shape.memory))
    }

    pub(crate) fn begin_receive(&mut self, pattern: Pattern, memory: Memory) -> Outcome<Started> {
        Ok(self.endpoint()?.engine.receive(pattern, memory))
    }

    pub(crate) fn keep(&mut self, comm: Comm, started: Started) -> Request {
        let entry = match started {
            Started::Done(status) => Entry::Over(Status::of(&status)),
            Started::Pending(id) => Entry::Message(id),
        };
        self.requests.insert(Record { entry, comm })
    }

    fn shape<C: Count>(
        &self,
        part: (Place, C, Datatype),
        rank: c_int,
        tag: c_int,
        comm: Comm,
    ) -> Outcome<Shape> {
        let to = self.destination(comm, rank, tag)?;
        Ok(Shape {
            memory: self.memory(part.0, part.1, part.2)?,
            to,
        })
    }
}

/// Waits for the end of a message.
#[inline]
pub(crate) fn await_started(started: Started) -> Outcome<engine::Status> {
    match started {
        Started::Done(status) => Ok(status),
        Started::Pending(id) => wait_for(|state| Ok(state.endpoint()?.engine.take(id))),
    }
}

fn error_of(status: &engine::Status) -> Outcome<()> {
    Status::of(status).error()
}

#[inline]
fn send<C: Count>(
    manner: Manner,
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
    comm: Comm,
) -> c_int {
    let result = with(|state| {
        let shape = state.shape(part, rank, tag, comm)?;
        state.begin_send(comm, manner, &shape)
    });
    finish(
        comm,
        result
            .and_then(await_started)
            .and_then(|status| error_of(&status)),
    )
}

fn begin_send<C: Count>(
    manner: Manner,
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
    comm: Comm,
    request: Out<Request>,
) -> c_int {
    let result = with(|state| {
        let shape = state.shape(part, rank, tag, comm)?;
        let started = state.begin_send(comm, manner, &shape)?;
        request.set(state.keep(comm, started));
        Ok(())
    });
    finish(comm, result)
}

fn prepare_send<C: Count>(
    manner: Manner,
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
    comm: Comm,
    request: Out<Request>,
) -> c_int {
    let result = with(|state| {
        let shape = state.shape(part, rank, tag, comm)?;
        let entry = Entry::Persistent(Persistent::Send { manner, shape }, None);
        request.set(state.requests.insert(Record { entry, comm }));
        Ok(())
    });
    finish(comm, result)
}

#[inline]
fn receive<C: Count>(
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
    comm: Comm,
    status: Out<Status>,
) -> c_int {
    let started = with(|state| {
        let Some(pattern) = state.pattern(comm, rank, tag)? else {
            return Ok(None);
        };
        let memory = state.memory(part.0, part.1, part.2)?;
        state.begin_receive(pattern, memory).map(Some)
    });
    let result = started.and_then(|started| {
        let told = match started {
            Some(started) => Status::of(&await_started(started)?),
            None => Status::of_nobody(),
        };
        tell(status, &told);
        told.error()
    });
    finish(comm, result)
}

fn begin_receive<C: Count>(
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
    comm: Comm,
    request: Out<Request>,
) -> c_int {
    let result = with(|state| {
        let memory = state.memory(part.0, part.1, part.2)?;
        let kept = match state.pattern(comm, rank, tag)? {
            Some(pattern) => {
                let started = state.begin_receive(pattern, memory)?;
                state.keep(comm, started)
            }
            None => state.requests.insert(Record {
                entry: Entry::Over(Status::of_nobody()),
                comm,
            }),
        };
        request.set(kept);
        Ok(())
    });
    finish(comm, result)
}

fn prepare_receive<C: Count>(
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
    comm: Comm,
    request: Out<Request>,
) -> c_int {
    let result = with(|state| {
        let memory = state.memory(part.0, part.1, part.2)?;
        let pattern = state.pattern(comm, rank, tag)?;
        let entry = Entry::Persistent(Persistent::Receive { pattern, memory }, None);
        request.set(state.requests.insert(Record { entry, comm }));
        Ok(())
    });
    finish(comm, result)
}

/// One side of an exchange.
struct Side<C> {
    part: (Place, C, Datatype),
    rank: c_int,
    tag: c_int,
}

fn begin_exchange<C: Count>(
    send: &Side<C>,
    receive: &Side<C>,
    copied: bool,
    comm: Comm,
) -> Outcome<[Option<Started>; 2]> {
    with(|state| {
        let mut shape = state.shape(send.part, send.rank, send.tag, comm)?;
        if copied {
            shape.memory = Memory::owned(bytes_of(&shape.memory));
        }
        let memory = state.memory(receive.part.0, receive.part.1, receive.part.2)?;
        let pattern = state.pattern(comm, receive.rank, receive.tag)?;
        let received = match pattern {
            Some(pattern) => Some(state.begin_receive(pattern, memory)?),
            None => None,
        };
        Ok([
            Some(state.begin_send(comm, Manner::Standard, &shape)?),
            received,
        ])
    })
}

fn exchange<C: Count>(
    send: Side<C>,
    receive: Side<C>,
    copied: bool,
    comm: Comm,
    status: Out<Status>,
) -> c_int {
    let result = begin_exchange(&send, &receive, copied, comm).and_then(|[sent, received]| {
        let sent = sent.map(await_started).transpose()?;
        let told = match received {
            Some(received) => Status::of(&await_started(received)?),
            None => Status::of_nobody(),
        };
        tell(status, &told);
        told.error()?;
        sent.map_or(Ok(()), |sent| error_of(&sent))
    });
    finish(comm, result)
}

fn exchange_later<C: Count>(
    send: Side<C>,
    receive: Side<C>,
    copied: bool,
    comm: Comm,
    request: Out<Request>,
) -> c_int {
    let result = begin_exchange(&send, &receive, copied, comm).map(|[sent, received]| {
        with(|state| {
            let sent = sent
                .map(|sent| state.keep(comm, sent))
                .unwrap_or(Request::NULL);
            let received = match received {
                Some(received) => state.keep(comm, received),
                None => state.requests.insert(Record {
                    entry: Entry::Over(Status::of_nobody()),
                    comm,
                }),
            };
            let entry = Entry::Pair(sent, received);
            request.set(state.requests.insert(Record { entry, comm }));
        });
    });
    finish(comm, result)
}

fn look(comm: Comm, rank: c_int, tag: c_int) -> Outcome<Option<Status>> {
    look_around();
    with(|state| {
        let Some(pattern) = state.pattern(comm, rank, tag)? else {
            return Ok(Some(Status::of_nobody()));
        };
        let found = state.endpoint()?.engine.probe(&pattern);
        if found.is_none() {
            state.check_peers()?;
        }
        Ok(found.map(|status| Status::of(&status)))
    })
}

fn probe(comm: Comm, rank: c_int, tag: c_int) -> Outcome<Status> {
    let pattern = with(|state| state.pattern(comm, rank, tag))?;
    let Some(pattern) = pattern else {
        return Ok(Status::of_nobody());
    };
    wait_for(|state| {
        let found = state.endpoint()?.engine.probe(&pattern);
        if found.is_none() {
            state.check_peers()?;
        }
        Ok(found.map(|status| Status::of(&status)))
    })
}

fn extract(comm: Comm, rank: c_int, tag: c_int, waits: bool) -> Outcome<Option<(Message, Status)>> {
    let pattern = with(|state| state.pattern(comm, rank, tag))?;
    let Some(pattern) = pattern else {
        return Ok(Some((Message::NO_PROC, Status::of_nobody())));
    };
    let take = |state: &mut State| {
        let found = state.endpoint()?.engine.extract(&pattern);
        if found.is_none() {
            state.check_peers()?;
        }
        Ok(found.map(|message| {
            let status = Status::of(&message.status());
            (state.messages.insert((comm, message)), status)
        }))
    };
    if waits {
        return wait_for(take).map(Some);
    }
    look_around();
    with(|state| take(state))
}

/// The communicator of a matched message, and how its receive began.
fn receive_matched<C: Count>(
    part: (Place, C, Datatype),
    message: Out<Message>,
) -> Outcome<(Comm, Option<Started>)> {
    let handle = message.get()?;
    if handle == Message::NO_PROC {
        message.set(Message::NULL);
        return Ok((Comm::WORLD, None));
    }
    with(|state| {
        let memory = state.memory(part.0, part.1, part.2)?;
        let (comm, taken) = state.messages.remove(handle)?;
        message.set(Message::NULL);
        let started = state.endpoint()?.engine.receive_message(taken, memory);
        Ok((comm, Some(started)))
    })
}

fn receive_message<C: Count>(
    part: (Place, C, Datatype),
    message: Out<Message>,
    status: Out<Status>,
) -> c_int {
    match receive_matched(part, message) {
        Err(error) => finish(Comm::WORLD, Err(error)),
        Ok((comm, started)) => {
            let told = match started.map(await_started) {
                Some(Ok(status)) => Status::of(&status),
                Some(Err(error)) => return finish(comm, Err(error)),
                None => Status::of_nobody(),
            };
            tell(status, &told);
            finish(comm, told.error())
        }
    }
}

fn receive_message_later<C: Count>(
    part: (Place, C, Datatype),
    message: Out<Message>,
    request: Out<Request>,
) -> c_int {
    let result = receive_matched(part, message).map(|(comm, started)| {
        with(|state| {
            request.set(match started {
                Some(started) => state.keep(comm, started),
                None => state.requests.insert(Record {
                    entry: Entry::Over(Status::of_nobody()),
                    comm,
                }),
            });
        });
    });
    finish(Comm::WORLD, result)
}

macro_rules! sends {
    ($($manner:ident $count:ty: $now:ident $later:ident $kept:ident,)*) => {$(
        export! {
            fn $now(buf: Place, count: $count, datatype: Datatype, dest: c_int, tag: c_int, comm: Comm) -> c_int {
                send(Manner::$manner, (buf, count, datatype), dest, tag, comm)
            }
            fn $later(buf: Place, count: $count, datatype: Datatype, dest: c_int, tag: c_int, comm: Comm, request: Out<Request>) -> c_int {
                begin_send(Manner::$manner, (buf, count, datatype), dest, tag, comm, request)
            }
            fn $kept(buf: Place, count: $count, datatype: Datatype, dest: c_int, tag: c_int, comm: Comm, request: Out<Request>) -> c_int {
                prepare_send(Manner::$manner, (buf, count, datatype), dest, tag, comm, request)
            }
        }
    )*};
}

// A send that may count on its receive being posted is sent as any other.
sends! {
    Standard c_int: MPI_Send MPI_Isend MPI_Send_init,
    Standard i64: MPI_Send_c MPI_Isend_c MPI_Send_init_c,
    Standard c_int: MPI_Rsend MPI_Irsend MPI_Rsend_init,
    Standard i64: MPI_Rsend_c MPI_Irsend_c MPI_Rsend_init_c,
    Synchronous c_int: MPI_Ssend MPI_Issend MPI_Ssend_init,
    Synchronous i64: MPI_Ssend_c MPI_Issend_c MPI_Ssend_init_c,
    Buffered c_int: MPI_Bsend MPI_Ibsend MPI_Bsend_init,
    Buffered i64: MPI_Bsend_c MPI_Ibsend_c MPI_Bsend_init_c,
}

macro_rules! receives {
    ($($count:ty: $now:ident $later:ident $kept:ident $both:ident $both_later:ident
        $replace:ident $replace_later:ident $matched:ident $matched_later:ident,)*) => {$(
        export! {
            fn $now(buf: Place, count: $count, datatype: Datatype, source: c_int, tag: c_int, comm: Comm, status: Out<Status>) -> c_int {
                receive((buf, count, datatype), source, tag, comm, status)
            }
            fn $later(buf: Place, count: $count, datatype: Datatype, source: c_int, tag: c_int, comm: Comm, request: Out<Request>) -> c_int {
                begin_receive((buf, count, datatype), source, tag, comm, request)
            }
            fn $kept(buf: Place, count: $count, datatype: Datatype, source: c_int, tag: c_int, comm: Comm, request: Out<Request>) -> c_int {
                prepare_receive((buf, count, datatype), source, tag, comm, request)
            }
            fn $both(sendbuf: Place, sendcount: $count, sendtype: Datatype, dest: c_int, sendtag: c_int,
                recvbuf: Place, recvcount: $count, recvtype: Datatype, source: c_int, recvtag: c_int,
                comm: Comm, status: Out<Status>) -> c_int {
                let sent = Side { part: (sendbuf, sendcount, sendtype), rank: dest, tag: sendtag };
                let received = Side { part: (recvbuf, recvcount, recvtype), rank: source, tag: recvtag };
                exchange(sent, received, false, comm, status)
            }
            fn $both_later(sendbuf: Place, sendcount: $count, sendtype: Datatype, dest: c_int, sendtag: c_int,
                recvbuf: Place, recvcount: $count, recvtype: Datatype, source: c_int, recvtag: c_int,
                comm: Comm, request: Out<Request>) -> c_int {
                let sent = Side { part: (sendbuf, sendcount, sendtype), rank: dest, tag: sendtag };
                let received = Side { part: (recvbuf, recvcount, recvtype), rank: source, tag: recvtag };
                exchange_later(sent, received, false, comm, request)
            }
            fn $replace(buf: Place, count: $count, datatype: Datatype, dest: c_int, sendtag: c_int,
                source: c_int, recvtag: c_int, comm: Comm, status: Out<Status>) -> c_int {
                let side = |rank, tag| Side { part: (buf, count, datatype), rank, tag };
                exchange(side(dest, sendtag), side(source, recvtag), true, comm, status)
            }
            fn $replace_later(buf: Place, count: $count, datatype: Datatype, dest: c_int, sendtag: c_int,
                source: c_int, recvtag: c_int, comm: Comm, request: Out<Request>) -> c_int {
                let side = |rank, tag| Side { part: (buf, count, datatype), rank, tag };
                exchange_later(side(dest, sendtag), side(source, recvtag), true, comm, request)
            }
            fn $matched(buf: Place, count: $count, datatype: Datatype, message: Out<Message>, status: Out<Status>) -> c_int {
                receive_message((buf, count, datatype), message, status)
            }
            fn $matched_later(buf: Place, count: $count, datatype: Datatype, message: Out<Message>, request: Out<Request>) -> c_int {
                receive_message_later((buf, count, datatype), message, request)
            }
        }
    )*};
}

receives! {
    c_int: MPI_Recv MPI_Irecv MPI_Recv_init MPI_Sendrecv MPI_Isendrecv
        MPI_Sendrecv_replace MPI_Isendrecv_replace MPI_Mrecv MPI_Imrecv,
    i64: MPI_Recv_c MPI_Irecv_c MPI_Recv_init_c MPI_Sendrecv_c MPI_Isendrecv_c
        MPI_Sendrecv_replace_c MPI_Isendrecv_replace_c MPI_Mrecv_c MPI_Imrecv_c,
}

export! {
    fn MPI_Probe(source: c_int, tag: c_int, comm: Comm, status: Out<Status>) -> c_int {
        finish(comm, probe(comm, source, tag).map(|told| tell(status, &told)))
    }
    fn MPI_Iprobe(source: c_int, tag: c_int, comm: Comm, flag: Out<c_int>, status: Out<Status>) -> c_int {
        let result = look(comm, source, tag).map(|found| {
            flag.set(c_int::from(found.is_some()));
            if let Some(told) = found {
                tell(status, &told);
            }
        });
        finish(comm, result)
    }
    fn MPI_Mprobe(source: c_int, tag: c_int, comm: Comm, message: Out<Message>, status: Out<Status>) -> c_int {
        let result = extract(comm, source, tag, true).map(|found| {
            if let Some((taken, told)) = found {
                message.set(taken);
                tell(status, &told);
            }
        });
        finish(comm, result)
    }
    fn MPI_Improbe(source: c_int, tag: c_int, comm: Comm, flag: Out<c_int>, message: Out<Message>, status: Out<Status>) -> c_int {
        let result = extract(comm, source, tag, false).map(|found| {
            flag.set(c_int::from(found.is_some()));
            message.set(found.map_or(Message::NULL, |(taken, _)| taken));
            if let Some((_, told)) = found {
                tell(status, &told);
            }
        });
        finish(comm, result)
    }
}
