//! Sessions: MPI without a world.

use std::ffi::c_int;

use ringmill_mpi::group::Group as Members;

use crate::buffered::Attached;
use crate::communicator::{create_among, create_from_groups, finish};
use crate::constants::TAG_MAX;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Comm, Errhandler, Group, Handle, Info, Session};
use crate::info::Pairs;
use crate::memory::{Out, Text, TextOut};
use crate::state::with;

/// Sets of processes by name.
const SETS: [&str; 2] = ["mpi://WORLD", "mpi://SELF"];
/// The context of messages by which processes without a communicator find together.
const OPEN_CONTEXT: u32 = u32::MAX;

/// A session that is open.
#[derive(Debug)]
pub(crate) struct Opened {
    handler: Errhandler,
    info: Pairs,
    pub attached: Option<Attached>,
}

fn open(info: Info, handler: Errhandler, session: Out<Session>) -> Outcome<()> {
    with(|state| {
        let pairs = if info == Info::NULL {
            Pairs::default()
        } else {
            state.infos.get(info)?.clone()
        };
        state.join()?;
        state.give_level(crate::constants::THREAD_MULTIPLE);
        session.set(state.sessions.insert(Opened {
            handler,
            info: pairs,
            attached: None,
        }));
        Ok(())
    })
}

fn set_of(name: Text) -> Outcome<Members> {
    let name = name.get()?;
    with(
        |state| match SETS.iter().position(|set| set.eq_ignore_ascii_case(&name)) {
            Some(0) => Ok(Members::new((0..state.size).collect::<Vec<u32>>())),
            Some(_) => Ok(Members::new([state.rank])),
            None => Err(Code::ARG),
        },
    )
}

/// A tag for a name: processes that find together by it use the same.
fn tag_of(name: &str) -> c_int {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash as c_int) & TAG_MAX
}

fn from_group(group: Group, name: Text, handler: Errhandler) -> Outcome<Comm> {
    let tag = tag_of(&name.get()?);
    let members = with(|state| state.groups.get(group).cloned())?;
    create_among(members, OPEN_CONTEXT, tag, handler)
}

fn on_session<T>(session: Session, f: impl FnOnce(&mut Opened) -> T) -> Outcome<T> {
    with(|state| state.sessions.get_mut(session).map(f))
}

export! {
    fn MPI_Session_init(info: Info, handler: Errhandler, session: Out<Session>) -> c_int {
        code(open(info, handler, session))
    }
    fn MPI_Session_finalize(session: Out<Session>) -> c_int {
        code(session.get().and_then(|handle| {
            with(|state| {
                state.sessions.remove(handle)?;
                state.leave()
            })?;
            session.set(Session::NULL);
            Ok(())
        }))
    }
    fn MPI_Session_get_info(session: Session, info: Out<Info>) -> c_int {
        code(on_session(session, |opened| opened.info.clone()).map(|pairs| {
            info.set(with(|state| state.infos.insert(pairs)));
        }))
    }
    fn MPI_Session_get_num_psets(session: Session, _info: Info, count: Out<c_int>) -> c_int {
        code(on_session(session, |_| count.set(SETS.len() as c_int)))
    }
    fn MPI_Session_get_nth_pset(session: Session, _info: Info, number: c_int, room: Out<c_int>, name: TextOut) -> c_int {
        code(on_session(session, |_| ()).and_then(|()| {
            let at = usize::try_from(number).map_err(|_| Code::ARG)?;
            let set = SETS.get(at).ok_or(Code::ARG)?;
            let given = usize::try_from(room.get()?).map_err(|_| Code::ARG)?;
            if given > 0 && !name.is_null() {
                name.set(set, given);
            }
            room.set(set.len() as c_int + 1);
            Ok(())
        }))
    }
    fn MPI_Session_get_pset_info(session: Session, name: Text, info: Out<Info>) -> c_int {
        code(on_session(session, |_| ()).and_then(|()| {
            let mut pairs = Pairs::default();
            pairs.set("mpi_size", &set_of(name)?.size().to_string());
            info.set(with(|state| state.infos.insert(pairs)));
            Ok(())
        }))
    }
    fn MPI_Group_from_session_pset(session: Session, name: Text, group: Out<Group>) -> c_int {
        code(on_session(session, |_| ()).and_then(|()| {
            let members = set_of(name)?;
            group.set(with(|state| state.groups.insert(members)));
            Ok(())
        }))
    }
    fn MPI_Comm_create_from_group(group: Group, name: Text, _info: Info, handler: Errhandler, comm: Out<Comm>) -> c_int {
        finish(Comm::WORLD, from_group(group, name, handler).map(|made| comm.set(made)))
    }
    fn MPI_Intercomm_create_from_groups(local: Group, local_leader: c_int, remote: Group, remote_leader: c_int, name: Text, _info: Info, handler: Errhandler, comm: Out<Comm>) -> c_int {
        let made = name.get().and_then(|name| {
            let (ours, theirs) = with(|state| {
                Ok((state.groups.get(local)?.clone(), state.groups.get(remote)?.clone()))
            })?;
            let way = (OPEN_CONTEXT, tag_of(&name));
            create_from_groups((ours, local_leader), (theirs, remote_leader), way, handler)
        });
        finish(Comm::WORLD, made.map(|made| comm.set(made)))
    }
    fn MPI_Session_set_errhandler(session: Session, handler: Errhandler) -> c_int {
        let known = with(|state| state.handlers.get(handler).map(|_| ()));
        code(known.and_then(|()| on_session(session, |opened| opened.handler = handler)))
    }
    fn MPI_Session_get_errhandler(session: Session, handler: Out<Errhandler>) -> c_int {
        code(on_session(session, |opened| handler.set(opened.handler)))
    }
    fn MPI_Session_call_errhandler(session: Session, error: c_int) -> c_int {
        let found = on_session(session, |opened| opened.handler);
        match found {
            Ok(handler) => {
                crate::communicator::handle(handler, session.number(), Code(error));
                0
            }
            Err(wrong) => wrong.0,
        }
    }
}
