//! Requests of a caller's list: whether all, any or some of them are over, and their ends.

use std::ffi::c_int;

use super::{comm_of, settle};
use crate::constants::UNDEFINED;
use crate::error::{Code, Outcome};
use crate::handle::{Comm, Handle, Request};
use crate::memory::Out;
use crate::state::{State, with};
use crate::status::{Status, tell};

/// Requests of a caller's list.
#[derive(Clone, Copy)]
pub(super) struct Requests {
    list: Out<Request>,
    pub(super) count: usize,
}

impl Requests {
    pub(super) fn new(count: c_int, list: Out<Request>) -> Outcome<Requests> {
        let count = usize::try_from(count).map_err(|_| Code::COUNT)?;
        if count > 0 && list.is_null() {
            return Err(Code::REQUEST);
        }
        Ok(Requests { list, count })
    }

    pub(super) fn at(&self, index: usize) -> Request {
        self.list.at(index)
    }

    pub(super) fn comm(&self) -> Comm {
        let first = (0..self.count)
            .map(|at| self.at(at))
            .find(|one| *one != Request::NULL);
        first.map_or(Comm::WORLD, comm_of)
    }

    pub(super) fn end(&self, index: usize) -> Outcome<Status> {
        let ended = with(|state| state.end(self.at(index), |null| self.list.put(index, null)))?;
        settle(ended)
    }

    /// Whether all are over; the first `known` are.
    pub(super) fn all_over(&self, state: &State, known: &mut usize) -> Outcome<bool> {
        while *known < self.count {
            if !state.is_over(self.at(*known))? {
                return Ok(false);
            }
            *known += 1;
        }
        Ok(true)
    }

    /// Ends all, with their statuses.
    pub(super) fn end_all(&self, statuses: Out<Status>) -> Outcome<()> {
        let mut failed = None;
        let mut told = Vec::with_capacity(if statuses.is_null() { 0 } else { self.count });
        for at in 0..self.count {
            let status = self.end(at)?;
            failed = failed.or(status.error().err());
            if !statuses.is_null() {
                told.push(status);
            }
        }
        for (at, status) in told.into_iter().enumerate() {
            statuses.put(at, status);
        }
        match failed {
            None => Ok(()),
            Some(failed) if self.count == 1 => Err(failed),
            Some(_) => Err(Code::IN_STATUS),
        }
    }

    /// One that is over and was begun; `Err` of nothing if none was begun.
    pub(super) fn any_over(&self, state: &State) -> Outcome<Result<Option<usize>, ()>> {
        let mut begun = false;
        for at in 0..self.count {
            if state.is_idle(self.at(at))? {
                continue;
            }
            begun = true;
            if state.is_over(self.at(at))? {
                return Ok(Ok(Some(at)));
            }
        }
        Ok(if begun { Ok(None) } else { Err(()) })
    }

    pub(super) fn some_over(&self, state: &State) -> Outcome<Result<Vec<usize>, ()>> {
        let mut begun = false;
        let mut over = Vec::new();
        for at in 0..self.count {
            if !state.is_idle(self.at(at))? {
                begun = true;
                if state.is_over(self.at(at))? {
                    over.push(at);
                }
            }
        }
        Ok(if begun { Ok(over) } else { Err(()) })
    }

    pub(super) fn tell_some(
        &self,
        over: Result<Vec<usize>, ()>,
        count: Out<c_int>,
        indices: Out<c_int>,
        statuses: Out<Status>,
    ) -> Outcome<()> {
        let Ok(over) = over else {
            count.set(UNDEFINED);
            return Ok(());
        };
        count.set(over.len() as c_int);
        let mut failed = false;
        for (place, at) in over.into_iter().enumerate() {
            let status = self.end(at)?;
            failed |= status.error().is_err();
            indices.put(place, at as c_int);
            statuses.put(place, status);
        }
        if failed { Err(Code::IN_STATUS) } else { Ok(()) }
    }

    pub(super) fn tell_any(
        &self,
        over: Result<Option<usize>, ()>,
        index: Out<c_int>,
        status: Out<Status>,
    ) -> Outcome<bool> {
        match over {
            Ok(None) => {
                index.set(UNDEFINED);
                Ok(false)
            }
            Ok(Some(at)) => {
                let told = self.end(at)?;
                index.set(at as c_int);
                tell(status, &told);
                told.error()?;
                Ok(true)
            }
            Err(()) => {
                index.set(UNDEFINED);
                tell(status, &Status::empty());
                Ok(true)
            }
        }
    }
}
