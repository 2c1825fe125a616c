//! Attributes: values that programs hang on communicators and datatypes.

use std::collections::BTreeMap;
use std::ffi::c_int;

use crate::callback::{self, Extra, Function, tell_pointer};
use crate::communicator::finish;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Comm, Datatype, Handle};
use crate::memory::Out;
use crate::state::{State, with};

/// By key.
pub(crate) type Attributes = BTreeMap<c_int, usize>;

/// What attributes hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Comm,
    Datatype,
    Win,
}

/// A key of the application's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyval {
    kind: Kind,
    copy: Function,
    delete: Function,
    extra: Extra,
    /// Attributes that are there keep it alive.
    freed: bool,
}

/// Objects with attributes.
pub(crate) trait Attributed: Handle {
    const KIND: Kind;
    fn attributes(self, state: &mut State) -> Outcome<&mut Attributes>;
}

impl Attributed for Comm {
    const KIND: Kind = Kind::Comm;
    fn attributes(self, state: &mut State) -> Outcome<&mut Attributes> {
        Ok(&mut state.comms.get_mut(self)?.attributes)
    }
}

impl Attributed for Datatype {
    const KIND: Kind = Kind::Datatype;
    fn attributes(self, state: &mut State) -> Outcome<&mut Attributes> {
        Ok(&mut state.types.get_mut(self)?.attributes)
    }
}

fn create(kind: Kind, copy: Function, delete: Function, keyval: Out<c_int>, extra: Extra) -> c_int {
    with(|state| {
        state.next_keyval += 1;
        state.keyvals.insert(
            state.next_keyval,
            Keyval {
                kind,
                copy,
                delete,
                extra,
                freed: false,
            },
        );
        keyval.set(state.next_keyval);
    });
    0
}

fn free(kind: Kind, keyval: Out<c_int>) -> Outcome<()> {
    let key = keyval.get()?;
    with(|state| match state.keyvals.get_mut(&key) {
        Some(found) if found.kind == kind && !found.freed => {
            found.freed = true;
            keyval.set(0);
            Ok(())
        }
        _ => Err(Code::KEYVAL),
    })
}

fn key_of<H: Attributed>(state: &State, keyval: c_int) -> Outcome<Keyval> {
    let found = state
        .keyvals
        .get(&keyval)
        .filter(|found| found.kind == H::KIND);
    found.copied().ok_or(Code::KEYVAL)
}

fn set<H: Attributed>(object: H, keyval: c_int, value: Extra) -> Outcome<()> {
    let before = with(|state| {
        let key = key_of::<H>(state, keyval)?;
        let before = object.attributes(state)?.get(&keyval).copied();
        Ok(before.map(|before| (before, key)))
    })?;
    if let Some((before, key)) = before {
        delete_one(object, keyval, before, &key)?;
    }
    with(|state| {
        object.attributes(state)?.insert(keyval, value.number());
        Ok(())
    })
}

fn get<H: Attributed>(
    object: H,
    keyval: c_int,
    value: Out<usize>,
    flag: Out<c_int>,
) -> Outcome<()> {
    with(|state| {
        object.attributes(state)?;
        if H::KIND == Kind::Comm
            && let Some(fixed) = state.attributes.get(&keyval)
        {
            tell_pointer(
                value,
                Extra(std::ptr::from_ref::<c_int>(fixed).cast_mut().cast()).number(),
            );
            flag.set(1);
            return Ok(());
        }
        key_of::<H>(state, keyval)?;
        let found = object.attributes(state)?.get(&keyval).copied();
        flag.set(c_int::from(found.is_some()));
        if let Some(found) = found {
            tell_pointer(value, found);
        }
        Ok(())
    })
}

fn delete_one<H: Attributed>(object: H, keyval: c_int, value: usize, key: &Keyval) -> Outcome<()> {
    match key.delete.delete().map_or(0, |f| {
        callback::delete(f, object.number(), keyval, value, key.extra)
    }) {
        0 => Ok(()),
        error => Err(Code(error)),
    }
}

fn delete<H: Attributed>(object: H, keyval: c_int) -> Outcome<()> {
    let (key, value) = with(|state| {
        let key = key_of::<H>(state, keyval)?;
        Ok((
            key,
            object
                .attributes(state)?
                .get(&keyval)
                .copied()
                .ok_or(Code::KEYVAL)?,
        ))
    })?;
    delete_one(object, keyval, value, &key)?;
    with(|state| {
        object.attributes(state)?.remove(&keyval);
        Ok(())
    })
}

fn all_of<H: Attributed>(object: H) -> Outcome<Vec<(c_int, usize, Keyval)>> {
    with(|state| {
        let values: Vec<(c_int, usize)> = object
            .attributes(state)?
            .iter()
            .map(|(key, value)| (*key, *value))
            .collect();
        values
            .into_iter()
            .map(|(keyval, value)| Ok((keyval, value, key_of::<H>(state, keyval)?)))
            .collect()
    })
}

/// Deletes all, the newest key first.
pub(crate) fn delete_all<H: Attributed>(object: H) -> Outcome<()> {
    for (keyval, value, key) in all_of(object)?.into_iter().rev() {
        delete_one(object, keyval, value, &key)?;
        with(|state| {
            object.attributes(state)?.remove(&keyval);
            Ok(())
        })?;
    }
    Ok(())
}

/// Copies to a duplicate what wants to be copied.
pub(crate) fn copy_all<H: Attributed>(from: H, into: H) -> Outcome<()> {
    for (keyval, value, key) in all_of(from)? {
        let copied = if key.copy.is_duplicate() {
            Some(value)
        } else {
            match key.copy.copy() {
                Some(f) => {
                    callback::copy(f, from.number(), keyval, key.extra, value).map_err(Code)?
                }
                None => None,
            }
        };
        if let Some(copied) = copied {
            with(|state| {
                into.attributes(state)?.insert(keyval, copied);
                Ok(())
            })?;
        }
    }
    Ok(())
}

export! {
    fn MPI_Comm_create_keyval(copy: Function, delete: Function, keyval: Out<c_int>, extra: Extra) -> c_int {
        create(Kind::Comm, copy, delete, keyval, extra)
    }
    fn MPI_Comm_free_keyval(keyval: Out<c_int>) -> c_int { code(free(Kind::Comm, keyval)) }
    fn MPI_Comm_set_attr(comm: Comm, keyval: c_int, value: Extra) -> c_int {
        finish(comm, set(comm, keyval, value))
    }
    fn MPI_Comm_get_attr(comm: Comm, keyval: c_int, value: Out<usize>, flag: Out<c_int>) -> c_int {
        finish(comm, get(comm, keyval, value, flag))
    }
    fn MPI_Comm_delete_attr(comm: Comm, keyval: c_int) -> c_int { finish(comm, delete(comm, keyval)) }
    fn MPI_Keyval_create(copy: Function, delete: Function, keyval: Out<c_int>, extra: Extra) -> c_int {
        create(Kind::Comm, copy, delete, keyval, extra)
    }
    fn MPI_Keyval_free(keyval: Out<c_int>) -> c_int { code(free(Kind::Comm, keyval)) }
    fn MPI_Attr_put(comm: Comm, keyval: c_int, value: Extra) -> c_int {
        finish(comm, set(comm, keyval, value))
    }
    fn MPI_Attr_get(comm: Comm, keyval: c_int, value: Out<usize>, flag: Out<c_int>) -> c_int {
        finish(comm, get(comm, keyval, value, flag))
    }
    fn MPI_Attr_delete(comm: Comm, keyval: c_int) -> c_int { finish(comm, delete(comm, keyval)) }
    fn MPI_Type_create_keyval(copy: Function, delete: Function, keyval: Out<c_int>, extra: Extra) -> c_int {
        create(Kind::Datatype, copy, delete, keyval, extra)
    }
    fn MPI_Type_free_keyval(keyval: Out<c_int>) -> c_int { code(free(Kind::Datatype, keyval)) }
    fn MPI_Type_set_attr(datatype: Datatype, keyval: c_int, value: Extra) -> c_int {
        code(set(datatype, keyval, value))
    }
    fn MPI_Type_get_attr(datatype: Datatype, keyval: c_int, value: Out<usize>, flag: Out<c_int>) -> c_int {
        code(get(datatype, keyval, value, flag))
    }
    fn MPI_Type_delete_attr(datatype: Datatype, keyval: c_int) -> c_int { code(delete(datatype, keyval)) }
    fn MPI_Win_create_keyval(copy: Function, delete: Function, keyval: Out<c_int>, extra: Extra) -> c_int {
        create(Kind::Win, copy, delete, keyval, extra)
    }
    fn MPI_Win_free_keyval(keyval: Out<c_int>) -> c_int { code(free(Kind::Win, keyval)) }
}
