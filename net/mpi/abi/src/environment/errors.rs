//! Error codes, and handlers of errors.

use std::ffi::c_int;

use super::Handler;
use crate::callback::Function;
use crate::communicator::say;
use crate::constants::MAX_ERROR_STRING;
use crate::error::{Code, LAST_CODE, Outcome, code, words};
use crate::export::export;
use crate::handle::{Errhandler, File, Handle};
use crate::memory::{Out, Text, TextOut};
use crate::state::{State, with};

fn class_of(error: c_int) -> Outcome<c_int> {
    with(|state| match state.codes.get(&error) {
        Some((class, _)) => Ok(*class),
        None if words(error).is_some() || error == LAST_CODE => Ok(error),
        None => Err(Code::ARG),
    })
}

/// Removes a class or a code of the application's.
fn remove(state: &mut State, error: c_int, class: bool) -> Outcome<()> {
    match state.codes.get(&error) {
        // Not one that has words, nor a class that has codes.
        Some((of, words))
            if (*of == error) == class
                && words.is_empty()
                && !state
                    .codes
                    .iter()
                    .any(|(other, (of, _))| *of == error && *other != error) =>
        {
            state.codes.remove(&error);
            state.tell_last_code();
            Ok(())
        }
        _ => Err(Code::ARG),
    }
}

fn create(function: Function, handler: Out<Errhandler>) -> c_int {
    handler.set(with(|state| state.handlers.insert(Handler::User(function))));
    0
}

export! {
    fn MPI_Error_class(error: c_int, class: Out<c_int>) -> c_int {
        code(class_of(error).map(|found| class.set(found)))
    }
    fn MPI_Error_string(error: c_int, text: TextOut, length: Out<c_int>) -> c_int {
        code(class_of(error).map(|_| length.set(text.set(&say(Code(error)), MAX_ERROR_STRING))))
    }
    fn MPI_Add_error_class(class: Out<c_int>) -> c_int {
        class.set(with(|state| state.add_code(None)));
        0
    }
    fn MPI_Add_error_code(class: c_int, error: Out<c_int>) -> c_int {
        code(class_of(class).map(|class| error.set(with(|state| state.add_code(Some(class))))))
    }
    fn MPI_Add_error_string(error: c_int, text: Text) -> c_int {
        code(text.get().and_then(|text| with(|state| {
            state.codes.get_mut(&error).ok_or(Code::ARG)?.1 = text;
            Ok(())
        })))
    }
    fn MPI_Remove_error_class(class: c_int) -> c_int {
        code(with(|state| remove(state, class, true)))
    }
    fn MPI_Remove_error_code(error: c_int) -> c_int {
        code(with(|state| remove(state, error, false)))
    }
    fn MPI_Remove_error_string(error: c_int) -> c_int {
        code(with(|state| {
            state.codes.get_mut(&error).ok_or(Code::ARG)?.1.clear();
            Ok(())
        }))
    }
    fn MPI_Comm_create_errhandler(function: Function, handler: Out<Errhandler>) -> c_int {
        create(function, handler)
    }
    fn MPI_Session_create_errhandler(function: Function, handler: Out<Errhandler>) -> c_int {
        create(function, handler)
    }
    fn MPI_Win_create_errhandler(function: Function, handler: Out<Errhandler>) -> c_int {
        create(function, handler)
    }
    fn MPI_File_create_errhandler(function: Function, handler: Out<Errhandler>) -> c_int {
        create(function, handler)
    }
    fn MPI_File_set_errhandler(file: File, handler: Errhandler) -> c_int {
        code(with(|state| {
            state.handlers.get(handler)?;
            if file != File::NULL {
                return Err(Code::FILE);
            }
            state.file_handler = handler;
            Ok(())
        }))
    }
    fn MPI_File_get_errhandler(file: File, handler: Out<Errhandler>) -> c_int {
        if file != File::NULL {
            return Code::FILE.0;
        }
        handler.set(with(|state| state.file_handler));
        0
    }
    fn MPI_File_call_errhandler(file: File, error: c_int) -> c_int {
        if file != File::NULL {
            return Code::FILE.0;
        }
        crate::communicator::handle(with(|state| state.file_handler), file.number(), Code(error));
        0
    }
    fn MPI_Errhandler_free(handler: Out<Errhandler>) -> c_int {
        // What has it keeps it.
        code(handler.get().and_then(|handle| with(|state| state.handlers.get(handle).map(|_| ()))).map(|()| {
            handler.set(Errhandler::NULL);
        }))
    }
}
