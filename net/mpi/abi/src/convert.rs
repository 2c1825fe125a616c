//! Handles as numbers of Fortran's width: they are small enough to be themselves.

use std::ffi::c_int;

use crate::export::export;
use crate::handle::{
    Comm, Datatype, Errhandler, File, Group, Info, Message, Op, Request, Session, Win,
};

macro_rules! convert {
    ($($type:ident $from:ident $into:ident,)*) => {
        export! {$(
            fn $from(number: c_int) -> $type { $type(number as usize) }
            fn $into(handle: $type) -> c_int { handle.0 as c_int }
        )*}
    };
}

convert! {
    Comm MPI_Comm_fromint MPI_Comm_toint,
    Datatype MPI_Type_fromint MPI_Type_toint,
    Errhandler MPI_Errhandler_fromint MPI_Errhandler_toint,
    File MPI_File_fromint MPI_File_toint,
    Group MPI_Group_fromint MPI_Group_toint,
    Info MPI_Info_fromint MPI_Info_toint,
    Message MPI_Message_fromint MPI_Message_toint,
    Op MPI_Op_fromint MPI_Op_toint,
    Request MPI_Request_fromint MPI_Request_toint,
    Session MPI_Session_fromint MPI_Session_toint,
    Win MPI_Win_fromint MPI_Win_toint,
}
