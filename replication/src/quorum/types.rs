//! What [`openraft`] is told about us: the types of ids, votes and entries, and their bytes, which
//! are the same on disk and between nodes.
//!
//! ```text
//! vote        term u64, node i32, committed u8
//! log id      term u64, index u64; where it may be missing, a u8 before it: 0 none, 1 follows
//! entry       log id, kind u8: 0 blank, 1 and a command: length u32, bytes; 2 and a membership
//! membership  configs: count u32, each a count u32 and the voters i32; nodes: count u32, each an
//!             id i32 and an address: text (length u32, UTF-8), port u16
//! ```
//!
//! The library is an alpha: its own types may change shape between versions, these bytes do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;

use super::runtime::RingRuntime;

openraft::declare_raft_types!(
    /// The metadata quorum's types: at most one leader per term, as in the Raft paper.
    pub Types:
        D = Command,
        R = Bytes,
        NodeId = i32,
        Node = Address,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, i32>,
        AsyncRuntime = RingRuntime,
);

/// A position in the log, with the term in which it was written.
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
/// Whom a node has voted for.
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
/// What the log holds at one index.
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
/// Who belongs to the quorum.
pub(crate) type Membership = openraft::Membership<i32, Address>;
/// The same, and where the log says so.
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
/// What a snapshot stands for.
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
/// An entry's content.
pub(crate) type Payload = openraft::EntryPayload<Command, i32, Address>;

/// Where a node is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What the quorum agrees on, in bytes that only the machine understands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub(crate) fn index_of(entry: &Entry) -> u64 {
    entry.log_id.index()
}

// ---- bytes ----

pub(crate) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64(vote.leader_id.term);
    out.put_i32(vote.leader_id.voted_for);
    out.put_u8(vote.committed.into());
}

pub(crate) fn get_vote(bytes: &mut Bytes) -> Option<Vote> {
    let term = bytes.try_get_u64().ok()?;
    let node = bytes.try_get_i32().ok()?;
    let leader_id = leader_id_std::LeaderId::new(term, node);
    let committed = get_flag(bytes)?;
    Some(Vote {
        leader_id,
        committed,
    })
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: &LogId) {
    out.put_u64(**id.committed_leader_id());
    out.put_u64(id.index());
}

pub(crate) fn get_log_id(bytes: &mut Bytes) -> Option<LogId> {
    let term = bytes.try_get_u64().ok()?;
    Some(log_id(term, bytes.try_get_u64().ok()?))
}

pub(crate) fn put_option<T>(
    out: &mut BytesMut,
    value: Option<&T>,
    put: impl FnOnce(&mut BytesMut, &T),
) {
    match value {
        None => out.put_u8(0),
        Some(value) => {
            out.put_u8(1);
            put(out, value);
        }
    }
}

pub(crate) fn get_option<T>(
    bytes: &mut Bytes,
    get: impl FnOnce(&mut Bytes) -> Option<T>,
) -> Option<Option<T>> {
    match get_flag(bytes)? {
        false => Some(None),
        true => get(bytes).map(Some),
    }
}

pub(crate) fn get_flag(bytes: &mut Bytes) -> Option<bool> {
    match bytes.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("commands and snapshots are smaller"));
    out.put_slice(bytes);
}

pub(crate) fn get_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32().ok()? as usize;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

pub(crate) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        Payload::Blank => out.put_u8(0),
        Payload::Normal(Command(command)) => {
            out.put_u8(1);
            put_bytes(out, command);
        }
        Payload::Membership(membership) => {
            out.put_u8(2);
            put_membership(out, membership);
        }
    }
}

pub(crate) fn get_entry(bytes: &mut Bytes) -> Option<Entry> {
    let id = get_log_id(bytes)?;
    let payload = match bytes.try_get_u8().ok()? {
        0 => Payload::Blank,
        1 => Payload::Normal(Command(get_bytes(bytes)?)),
        2 => Payload::Membership(get_membership(bytes)?),
        _ => return None,
    };
    Some(Entry::new(id, payload))
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u32(configs.len() as u32);
    for voters in configs {
        out.put_u32(voters.len() as u32);
        for voter in voters {
            out.put_i32(*voter);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u32(nodes.len() as u32);
    for (id, address) in nodes {
        out.put_i32(*id);
        put_address(out, address);
    }
}

/// Memory grows with the bytes that are there, not with the counts that they claim.
fn get_membership(bytes: &mut Bytes) -> Option<Membership> {
    let mut configs = Vec::new();
    for _ in 0..bytes.try_get_u32().ok()? {
        let mut voters = BTreeSet::new();
        for _ in 0..bytes.try_get_u32().ok()? {
            voters.insert(bytes.try_get_i32().ok()?);
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..bytes.try_get_u32().ok()? {
        nodes.insert(bytes.try_get_i32().ok()?, get_address(bytes)?);
    }
    Membership::new(configs, nodes).ok()
}

pub(crate) fn put_address(out: &mut BytesMut, address: &Address) {
    put_bytes(out, address.host.as_bytes());
    out.put_u16(address.port);
}

pub(crate) fn get_address(bytes: &mut Bytes) -> Option<Address> {
    let host = String::from_utf8(get_bytes(bytes)?.to_vec()).ok()?;
    let port = bytes.try_get_u16().ok()?;
    Some(Address { host, port })
}

pub(crate) fn put_snapshot_meta(out: &mut BytesMut, meta: &SnapshotMeta) {
    put_option(out, meta.last_log_id.as_ref(), put_log_id);
    put_option(out, meta.last_membership.log_id().as_ref(), put_log_id);
    put_membership(out, meta.last_membership.membership());
}

pub(crate) fn get_snapshot_meta(bytes: &mut Bytes) -> Option<SnapshotMeta> {
    let last_log_id = get_option(bytes, get_log_id)?;
    let said_at = get_option(bytes, get_log_id)?;
    let last_membership = StoredMembership::new(said_at, get_membership(bytes)?);
    Some(SnapshotMeta {
        last_log_id,
        last_membership,
    })
}
