//! Keys and values.

use std::ffi::c_int;

use crate::constants::{MAX_INFO_KEY, MAX_INFO_VAL};
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Handle, Info};
use crate::memory::{Out, Text, TextOut};
use crate::state::{State, with};

/// In the order in which the keys came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => value.clone_into(known),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn on_info<T>(info: Info, call: impl FnOnce(&mut Pairs) -> Outcome<T>) -> Outcome<T> {
    with(|state: &mut State| call(state.infos.get_mut(info)?))
}

fn key_of(key: Text) -> Outcome<String> {
    let key = key.get().map_err(|_| Code::INFO_KEY)?;
    match key.trim().is_empty() || key.len() >= MAX_INFO_KEY {
        true => Err(Code::INFO_KEY),
        false => Ok(key.trim().to_owned()),
    }
}

export! {
    fn MPI_Info_create(info: Out<Info>) -> c_int {
        info.set(with(|state| state.infos.insert(Pairs::default())));
        0
    }
    fn MPI_Info_create_env(_argc: c_int, _argv: usize, info: Out<Info>) -> c_int {
        info.set(with(|state| state.infos.insert(Pairs::default())));
        0
    }
    fn MPI_Info_dup(info: Info, new: Out<Info>) -> c_int {
        code(with(|state| {
            let copy = state.infos.get(info)?.clone();
            new.set(state.infos.insert(copy));
            Ok(())
        }))
    }
    fn MPI_Info_free(info: Out<Info>) -> c_int {
        code(info.get().and_then(|handle| with(|state| state.infos.remove(handle))).map(|_| {
            info.set(Info::NULL);
        }))
    }
    fn MPI_Info_set(info: Info, key: Text, value: Text) -> c_int {
        code(key_of(key).and_then(|key| {
            let value = value.get().map_err(|_| Code::INFO_VALUE)?;
            if value.len() >= MAX_INFO_VAL {
                return Err(Code::INFO_VALUE);
            }
            on_info(info, |pairs| {
                pairs.set(&key, value.trim());
                Ok(())
            })
        }))
    }
    fn MPI_Info_delete(info: Info, key: Text) -> c_int {
        code(key_of(key).and_then(|key| on_info(info, |pairs| {
            let before = pairs.0.len();
            pairs.0.retain(|(known, _)| *known != key);
            if pairs.0.len() == before { Err(Code::INFO_NOKEY) } else { Ok(()) }
        })))
    }
    fn MPI_Info_get(info: Info, key: Text, room: c_int, value: TextOut, flag: Out<c_int>) -> c_int {
        code(key_of(key).and_then(|key| on_info(info, |pairs| {
            let found = pairs.get(&key);
            flag.set(c_int::from(found.is_some()));
            if let Some(found) = found {
                value.set(found, usize::try_from(room).map_err(|_| Code::ARG)? + 1);
            }
            Ok(())
        })))
    }
    fn MPI_Info_get_string(info: Info, key: Text, room: Out<c_int>, value: TextOut, flag: Out<c_int>) -> c_int {
        code(key_of(key).and_then(|key| on_info(info, |pairs| {
            let found = pairs.get(&key);
            flag.set(c_int::from(found.is_some()));
            if let Some(found) = found {
                let given = usize::try_from(room.get()?).map_err(|_| Code::ARG)?;
                if given > 0 {
                    value.set(found, given);
                }
                room.set(found.len() as c_int + 1);
            }
            Ok(())
        })))
    }
    fn MPI_Info_get_valuelen(info: Info, key: Text, length: Out<c_int>, flag: Out<c_int>) -> c_int {
        code(key_of(key).and_then(|key| on_info(info, |pairs| {
            let found = pairs.get(&key);
            flag.set(c_int::from(found.is_some()));
            if let Some(found) = found {
                length.set(found.len() as c_int);
            }
            Ok(())
        })))
    }
    fn MPI_Info_get_nkeys(info: Info, count: Out<c_int>) -> c_int {
        code(on_info(info, |pairs| {
            count.set(pairs.0.len() as c_int);
            Ok(())
        }))
    }
    fn MPI_Info_get_nthkey(info: Info, number: c_int, key: TextOut) -> c_int {
        code(on_info(info, |pairs| {
            let at = usize::try_from(number).map_err(|_| Code::ARG)?;
            let (name, _) = pairs.0.get(at).ok_or(Code::ARG)?;
            key.set(name, MAX_INFO_KEY);
            Ok(())
        }))
    }
}
