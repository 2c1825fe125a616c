//! Requests: what goes on while a program does something else, and how it hears of the end.

mod list;

use std::ffi::c_int;

use ringmill_mpi::collective::Run;
use ringmill_mpi::engine::{RequestId, Started};
use ringmill_mpi::matching::Pattern;

use crate::callback::{Extra, Function, query};
use crate::communicator::finish;
use crate::constants::UNDEFINED;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Comm, Datatype, Handle, Op, Request};
use crate::memory::{List, Memory, Out};
use crate::message::{Manner, Shape};
use crate::progress::{look_around, wait_for};
use crate::state::{Running, State, with};
use crate::status::{Status, tell};
use list::Requests;

/// A request and the communicator whose error handler it concerns.
pub(crate) struct Record {
    pub entry: Entry,
    pub comm: Comm,
}

/// What goes on.
pub(crate) enum Entry {
    /// Nothing any more.
    Over(Status),
    /// A message.
    Message(RequestId),
    /// A collective operation.
    Run(usize),
    /// A send and a receive.
    Pair(Request, Request),
    /// What can be begun again and again; what goes on of it.
    Persistent(Persistent, Option<Box<Entry>>),
    /// What the application does by itself.
    General(General),
}

/// What can be begun again.
pub(crate) enum Persistent {
    Send {
        manner: Manner,
        shape: Shape,
    },
    Receive {
        pattern: Option<Pattern>,
        memory: Memory,
    },
    Collective {
        run: Box<Run<Memory>>,
        tag: i32,
        external: Option<(Op, Datatype)>,
    },
}

/// A generalized request.
#[derive(Clone, Copy)]
pub(crate) struct General {
    query: Function,
    free: Function,
    cancel: Function,
    extra: Extra,
    over: bool,
}

impl General {
    /// The status that the application gives.
    fn ask(&self) -> Status {
        let Some(f) = self.query.query() else {
            return Status::empty();
        };
        let (result, status) = query(f, self.extra, Status::empty());
        if result == 0 {
            status
        } else {
            status.with_error(result)
        }
    }

    fn let_go(&self) -> Outcome<()> {
        match self.free.free().map_or(0, |free| free(self.extra.0)) {
            0 => Ok(()),
            error => Err(Code(error)),
        }
    }
}

/// How a request ended.
enum Ended {
    Known(Status),
    /// The application knows.
    General(General),
}

impl State {
    fn entry_is_over(&self, entry: &Entry) -> Outcome<bool> {
        Ok(match entry {
            Entry::Over(_) | Entry::Persistent(_, None) => true,
            Entry::Message(id) => match &self.endpoint {
                Some(endpoint) => endpoint.engine.is_done(*id),
                None => true,
            },
            Entry::Run(number) => self.runs[*number].over.is_some(),
            Entry::Pair(one, other) => self.is_over(*one)? && self.is_over(*other)?,
            Entry::Persistent(_, Some(entry)) => self.entry_is_over(entry)?,
            Entry::General(general) => general.over,
        })
    }

    fn is_over(&self, request: Request) -> Outcome<bool> {
        if request == Request::NULL {
            return Ok(true);
        }
        self.entry_is_over(&self.requests.get(request)?.entry)
    }

    /// Whether nobody waits for it: it is null, or was not begun.
    fn is_idle(&self, request: Request) -> Outcome<bool> {
        if request == Request::NULL {
            return Ok(true);
        }
        Ok(matches!(
            self.requests.get(request)?.entry,
            Entry::Persistent(_, None)
        ))
    }

    /// The outcome of an entry that is over, which is gone then.
    fn end_entry(&mut self, entry: Entry) -> Outcome<Ended> {
        Ok(Ended::Known(match entry {
            Entry::Over(status) => status,
            Entry::Message(id) => {
                let status = self.endpoint()?.engine.take(id);
                status.map_or(Status::empty(), |status| Status::of(&status))
            }
            Entry::Run(number) => {
                let over = self.runs.remove(number).over;
                Status::empty().with_error(code(over.unwrap_or(Ok(()))))
            }
            Entry::Pair(one, other) => {
                let sent = self.end_quietly(one)?;
                let received = self.end_quietly(other)?;
                match received.error() {
                    Ok(()) if sent.error().is_err() => sent,
                    _ => received,
                }
            }
            Entry::Persistent(..) => Status::empty(),
            Entry::General(general) => return Ok(Ended::General(general)),
        }))
    }

    fn end_quietly(&mut self, request: Request) -> Outcome<Status> {
        if request == Request::NULL {
            return Ok(Status::empty());
        }
        let record = self.requests.remove(request)?;
        match self.end_entry(record.entry)? {
            Ended::Known(status) => Ok(status),
            Ended::General(_) => Ok(Status::empty()),
        }
    }

    /// Ends a request that is over; its place is null then, unless it can begin again.
    fn end(&mut self, request: Request, place: impl FnOnce(Request)) -> Outcome<Ended> {
        if request == Request::NULL {
            return Ok(Ended::Known(Status::empty()));
        }
        if let Entry::Persistent(_, active) = &mut self.requests.get_mut(request)?.entry {
            return match active.take() {
                Some(entry) => self.end_entry(*entry),
                None => Ok(Ended::Known(Status::empty())),
            };
        }
        place(Request::NULL);
        let record = self.requests.remove(request)?;
        self.end_entry(record.entry)
    }

    /// The outcome of an entry that is over, and stays.
    fn peek(&mut self, entry: &Entry) -> Outcome<Ended> {
        Ok(Ended::Known(match entry {
            Entry::Over(status) => *status,
            Entry::Message(id) => {
                let status = self.endpoint()?.engine.look(*id);
                status.map_or(Status::empty(), |status| Status::of(&status))
            }
            Entry::Persistent(_, Some(entry)) => return self.peek(entry),
            Entry::General(general) => return Ok(Ended::General(*general)),
            _ => Status::empty(),
        }))
    }

    fn begin_again(&mut self, request: Request) -> Outcome<()> {
        let record = self.requests.get_mut(request)?;
        let comm = record.comm;
        let Entry::Persistent(what, None) = &record.entry else {
            return Err(Code::REQUEST);
        };
        enum Begin {
            Send(Manner, Shape),
            Receive(Option<Pattern>, Memory),
            Collective(Running),
        }
        let begin = match what {
            Persistent::Send { manner, shape } => Begin::Send(*manner, shape.clone()),
            Persistent::Receive { pattern, memory } => Begin::Receive(*pattern, memory.clone()),
            Persistent::Collective { run, tag, external } => {
                let external = *external;
                Begin::Collective(Running {
                    run: Some(run.again(*tag)),
                    external,
                    over: None,
                })
            }
        };
        let started = match begin {
            Begin::Send(manner, shape) => self.begin_send(comm, manner, &shape)?.into(),
            Begin::Receive(Some(pattern), memory) => self.begin_receive(pattern, memory)?.into(),
            Begin::Receive(None, _) => Entry::Over(Status::of_nobody()),
            Begin::Collective(running) => {
                let number = self.runs.insert(running);
                self.active.push(number);
                Entry::Run(number)
            }
        };
        if let Entry::Persistent(_, active) = &mut self.requests.get_mut(request)?.entry {
            *active = Some(Box::new(started));
        }
        Ok(())
    }

    fn let_go(&mut self, request: Request) -> Outcome<Option<General>> {
        let record = self.requests.remove(request)?;
        let entry = match record.entry {
            Entry::Persistent(_, Some(entry)) => *entry,
            entry => entry,
        };
        match entry {
            Entry::Message(id) => self.endpoint()?.engine.forget(id),
            Entry::Pair(one, other) => {
                for request in [one, other].into_iter().filter(|one| *one != Request::NULL) {
                    self.let_go(request)?;
                }
            }
            Entry::General(general) => return Ok(Some(general)),
            _ => {}
        }
        Ok(None)
    }

    fn cancel(&mut self, request: Request) -> Outcome<Option<General>> {
        let entry = match &self.requests.get(request)?.entry {
            Entry::Persistent(_, Some(entry)) => entry,
            entry => entry,
        };
        match entry {
            Entry::Message(id) => {
                let id = *id;
                self.endpoint()?.engine.cancel(id);
                Ok(None)
            }
            Entry::General(general) => Ok(Some(*general)),
            _ => Ok(None),
        }
    }
}

impl From<Started> for Entry {
    fn from(started: Started) -> Entry {
        match started {
            Started::Done(status) => Entry::Over(Status::of(&status)),
            Started::Pending(id) => Entry::Message(id),
        }
    }
}

/// Asks the application for what only it knows.
fn settle(ended: Ended) -> Outcome<Status> {
    match ended {
        Ended::Known(status) => Ok(status),
        Ended::General(general) => {
            let status = general.ask();
            general.let_go()?;
            Ok(status)
        }
    }
}

fn comm_of(request: Request) -> Comm {
    with(|state| {
        state
            .requests
            .get(request)
            .map_or(Comm::WORLD, |record| record.comm)
    })
}

fn wait(request: Out<Request>, status: Out<Status>) -> Outcome<()> {
    let handle = request.get()?;
    let ended = wait_for(|state| {
        if !state.is_over(handle)? {
            return Ok(None);
        }
        state.end(handle, |null| request.set(null)).map(Some)
    })?;
    let told = settle(ended)?;
    tell(status, &told);
    told.error()
}

fn test(request: Out<Request>, flag: Out<c_int>, status: Out<Status>) -> Outcome<()> {
    let handle = request.get()?;
    flag.set(0);
    look_around();
    let ended = with(|state| match state.is_over(handle)? {
        true => state.end(handle, |null| request.set(null)).map(Some),
        false => Ok(None),
    })?;
    let Some(ended) = ended else { return Ok(()) };
    flag.set(1);
    let told = settle(ended)?;
    tell(status, &told);
    told.error()
}

/// The status of a request that is over, and stays.
fn look(request: Request) -> Outcome<Option<Status>> {
    let ended = with(|state| {
        if !state.is_over(request)? {
            return Ok(None);
        }
        if request == Request::NULL {
            return Ok(Some(Ended::Known(Status::empty())));
        }
        let record = state.requests.remove(request)?;
        let peeked = state.peek(&record.entry);
        // The place that was just freed is the next to be given.
        state.requests.insert(record);
        peeked.map(Some)
    })?;
    Ok(ended.map(|ended| match ended {
        Ended::Known(status) => status,
        Ended::General(general) => general.ask(),
    }))
}

/// Calls with a list: the error goes to the first request's communicator.
fn on_list(count: c_int, list: Out<Request>, call: impl FnOnce(Requests) -> Outcome<()>) -> c_int {
    match Requests::new(count, list) {
        Ok(requests) => {
            let comm = requests.comm();
            finish(comm, call(requests))
        }
        Err(error) => finish(Comm::WORLD, Err(error)),
    }
}

export! {
    fn MPI_Wait(request: Out<Request>, status: Out<Status>) -> c_int {
        let comm = request.get().map_or(Comm::WORLD, comm_of);
        finish(comm, wait(request, status))
    }
    fn MPI_Test(request: Out<Request>, flag: Out<c_int>, status: Out<Status>) -> c_int {
        let comm = request.get().map_or(Comm::WORLD, comm_of);
        finish(comm, test(request, flag, status))
    }
    fn MPI_Waitall(count: c_int, list: Out<Request>, statuses: Out<Status>) -> c_int {
        on_list(count, list, |requests| {
            let mut known = 0;
            wait_for(|state| Ok(requests.all_over(state, &mut known)?.then_some(())))?;
            requests.end_all(statuses)
        })
    }
    fn MPI_Testall(count: c_int, list: Out<Request>, flag: Out<c_int>, statuses: Out<Status>) -> c_int {
        on_list(count, list, |requests| {
            look_around();
            let over = with(|state| requests.all_over(state, &mut 0))?;
            flag.set(c_int::from(over));
            if over { requests.end_all(statuses) } else { Ok(()) }
        })
    }
    fn MPI_Waitany(count: c_int, list: Out<Request>, index: Out<c_int>, status: Out<Status>) -> c_int {
        on_list(count, list, |requests| {
            let over = wait_for(|state| Ok(match requests.any_over(state)? {
                Ok(None) => None,
                over => Some(over),
            }))?;
            requests.tell_any(over, index, status).map(drop)
        })
    }
    fn MPI_Testany(count: c_int, list: Out<Request>, index: Out<c_int>, flag: Out<c_int>, status: Out<Status>) -> c_int {
        on_list(count, list, |requests| {
            look_around();
            let over = with(|state| requests.any_over(state))?;
            flag.set(c_int::from(!matches!(over, Ok(None))));
            requests.tell_any(over, index, status).map(drop)
        })
    }
    fn MPI_Waitsome(count: c_int, list: Out<Request>, outcount: Out<c_int>, indices: Out<c_int>, statuses: Out<Status>) -> c_int {
        on_list(count, list, |requests| {
            let over = wait_for(|state| Ok(match requests.some_over(state)? {
                Ok(over) if over.is_empty() => None,
                over => Some(over),
            }))?;
            requests.tell_some(over, outcount, indices, statuses)
        })
    }
    fn MPI_Testsome(count: c_int, list: Out<Request>, outcount: Out<c_int>, indices: Out<c_int>, statuses: Out<Status>) -> c_int {
        on_list(count, list, |requests| {
            look_around();
            let over = with(|state| requests.some_over(state))?;
            requests.tell_some(over, outcount, indices, statuses)
        })
    }
    fn MPI_Request_get_status(request: Request, flag: Out<c_int>, status: Out<Status>) -> c_int {
        look_around();
        finish(Comm::WORLD, look(request).map(|found| {
            flag.set(c_int::from(found.is_some()));
            if let Some(told) = found {
                tell(status, &told);
            }
        }))
    }
    fn MPI_Request_get_status_all(count: c_int, list: List<Request>, flag: Out<c_int>, statuses: Out<Status>) -> c_int {
        look_around();
        let result = usize::try_from(count).map_err(|_| Code::COUNT).and_then(|count| {
            let list = list.take(count)?;
            let found: Outcome<Vec<Option<Status>>> = list.into_iter().map(look).collect();
            let found: Option<Vec<Status>> = found?.into_iter().collect();
            flag.set(c_int::from(found.is_some()));
            for (at, status) in found.into_iter().flatten().enumerate() {
                statuses.put(at, status);
            }
            Ok(())
        });
        finish(Comm::WORLD, result)
    }
    fn MPI_Request_get_status_any(count: c_int, list: List<Request>, index: Out<c_int>, flag: Out<c_int>, status: Out<Status>) -> c_int {
        look_around();
        let result = usize::try_from(count).map_err(|_| Code::COUNT).and_then(|count| {
            let list = list.take(count)?;
            let mut begun = false;
            index.set(UNDEFINED);
            for (at, request) in list.into_iter().enumerate() {
                if with(|state| state.is_idle(request))? {
                    continue;
                }
                begun = true;
                if let Some(told) = look(request)? {
                    index.set(at as c_int);
                    flag.set(1);
                    status.set(told);
                    return Ok(());
                }
            }
            flag.set(c_int::from(!begun));
            if !begun {
                status.set(Status::empty());
            }
            Ok(())
        });
        finish(Comm::WORLD, result)
    }
    fn MPI_Request_get_status_some(count: c_int, list: List<Request>, outcount: Out<c_int>, indices: Out<c_int>, statuses: Out<Status>) -> c_int {
        look_around();
        let result = usize::try_from(count).map_err(|_| Code::COUNT).and_then(|count| {
            let list = list.take(count)?;
            let (mut begun, mut place) = (false, 0);
            for (at, request) in list.into_iter().enumerate() {
                if with(|state| state.is_idle(request))? {
                    continue;
                }
                begun = true;
                if let Some(told) = look(request)? {
                    indices.put(place, at as c_int);
                    statuses.put(place, told);
                    place += 1;
                }
            }
            outcount.set(if begun { place as c_int } else { UNDEFINED });
            Ok(())
        });
        finish(Comm::WORLD, result)
    }
    fn MPI_Start(request: Out<Request>) -> c_int {
        let result = request.get().and_then(|request| with(|state| state.begin_again(request)));
        look_around();
        finish(Comm::WORLD, result)
    }
    fn MPI_Startall(count: c_int, list: Out<Request>) -> c_int {
        on_list(count, list, |requests| {
            (0..requests.count).try_for_each(|at| with(|state| state.begin_again(requests.at(at))))
        })
    }
    fn MPI_Request_free(request: Out<Request>) -> c_int {
        let result = request.get().and_then(|handle| {
            let general = with(|state| state.let_go(handle))?;
            request.set(Request::NULL);
            general.map_or(Ok(()), |general| if general.over { general.let_go() } else { Ok(()) })
        });
        finish(Comm::WORLD, result)
    }
    fn MPI_Cancel(request: Out<Request>) -> c_int {
        let result = request.get().and_then(|handle| {
            let general = with(|state| state.cancel(handle))?;
            let cancel = general.and_then(|general| Some((general, general.cancel.cancel()?)));
            match cancel.map_or(0, |(general, f)| f(general.extra.0, c_int::from(general.over))) {
                0 => Ok(()),
                error => Err(Code(error)),
            }
        });
        finish(Comm::WORLD, result)
    }
    fn MPI_Grequest_start(query_fn: Function, free_fn: Function, cancel_fn: Function, extra: Extra, request: Out<Request>) -> c_int {
        let general = General { query: query_fn, free: free_fn, cancel: cancel_fn, extra, over: false };
        let record = Record { entry: Entry::General(general), comm: Comm::WORLD };
        request.set(with(|state| state.requests.insert(record)));
        0
    }
    fn MPI_Grequest_complete(request: Request) -> c_int {
        let result = with(|state| match &mut state.requests.get_mut(request)?.entry {
            Entry::General(general) => {
                general.over = true;
                Ok(())
            }
            _ => Err(Code::REQUEST),
        });
        finish(Comm::WORLD, result)
    }
}
