//! The story of a run: a running hash of all that happened, and the words on request.
//!
//! Two runs of one seed must tell the same story; if their hashes differ, something in the
//! program depends on what the seed does not decide (the order of a hash map, an address, a
//! real clock). With `RINGMILL_SIM_TRACE=1` in the environment every event is printed.

use std::fmt;
use std::hash::BuildHasher;
use std::path::Path;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::random::mix;
use crate::op::Op;

/// The environment variable that turns printing on.
const PRINT: &str = "RINGMILL_SIM_TRACE";

/// A running hash of events.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    print: bool,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        let print = std::env::var_os(PRINT).is_some_and(|value| value != "0");
        Trace {
            hash: mix(seed),
            events: 0,
            print,
        }
    }

    /// Something happened at time `now`.
    pub(super) fn note(&mut self, now: u64, facts: &[u64], words: fmt::Arguments<'_>) {
        self.events += 1;
        let mut hash = self.hash ^ now;
        for fact in facts {
            hash = (hash.rotate_left(23) ^ fact).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        self.hash = mix(hash);
        if self.print {
            eprintln!("{:>14.6} ms  {words}", now as f64 / 1e6);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }
}

/// A name for an operation, and a hash of what it asks for.
pub(super) fn describe(op: &Op) -> (&'static str, u64) {
    let path = |path: &Path| FixedState::default().hash_one(path.as_os_str().as_encoded_bytes());
    match op {
        Op::Accept { .. } => ("accept", 1),
        Op::Connect { .. } => ("connect", 2),
        Op::Recv { .. } => ("recv", 3),
        Op::RecvOnce { buf, .. } => ("recv once", buf.len() as u64),
        Op::Send { bufs, .. } => ("send", hash_bytes(bufs)),
        Op::SendTo { bufs, .. } => ("send to", hash_bytes(bufs)),
        Op::RecvFrom { buf, .. } => ("recv from", buf.len() as u64),
        Op::SendFile { offset, len, .. } => ("send file", mix(*offset) ^ len),
        Op::Shutdown { how, .. } => ("shutdown", *how as u64),
        Op::Open { path: at, .. } => ("open", path(at)),
        Op::Read { offset, len, .. } => ("read", mix(*offset) ^ *len as u64),
        Op::Write { offset, bufs, .. } => ("write", mix(*offset) ^ hash_bytes(bufs)),
        Op::Sync { .. } => ("sync", 4),
        Op::Allocate { offset, len, .. } => ("allocate", mix(*offset) ^ len),
        Op::SetLen { len, .. } => ("set len", *len),
        Op::Fstat { .. } => ("fstat", 5),
        Op::Stat { path: at, .. } => ("stat", path(at)),
        Op::ReadDir { path: at, .. } => ("read dir", path(at)),
        Op::StatFs { path: at, .. } => ("stat fs", path(at)),
        Op::Mkdir { path: at } => ("mkdir", path(at)),
        Op::Unlink { path: at, .. } => ("unlink", path(at)),
        Op::Rename { from, to } => ("rename", mix(path(from)) ^ path(to)),
        Op::SyncDir { path: at } => ("sync dir", path(at)),
    }
}

/// The hash of a list of buffers' content.
pub(super) fn hash_bytes(bufs: &[Bytes]) -> u64 {
    let state = FixedState::default();
    bufs.iter()
        .fold(0, |hash, buf| mix(hash ^ state.hash_one(&buf[..])))
}
