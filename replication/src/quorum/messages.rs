//! What nodes of a quorum send each other, as bytes. How they travel is [`super::Links`]' affair.
//!
//! ```text
//! request   kind u8, then
//!           1 append entries   vote, previous log id or none, committed log id or none, count u32,
//!                              entries
//!           2 vote             vote, last log id or none, leadership transfer u8
//!           3 pre-vote         the same
//!           4 snapshot         vote, meta, length u32, bytes
//!           5 transfer leader  vote, to node i32, last log id or none
//! response  to append entries  u8: 0 success; 1 and a log id or none: a part; 2 conflict; 3 and
//!                              a vote: that is higher
//!           to (pre-)votes     vote, granted u8, last log id or none
//!           to a snapshot      vote
//!           to a transfer      u8: 1 accepted, 0 not
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::stored::Snapshot;
use super::types::{
    Types, Vote, get_bytes, get_entry, get_flag, get_log_id, get_option, get_snapshot_meta,
    get_vote, put_bytes, put_entry, put_log_id, put_option, put_snapshot_meta, put_vote,
};

/// One node asks another.
#[derive(Debug)]
pub(crate) enum Message {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(Vote, Snapshot),
    TransferLeader(TransferLeaderRequest<Types>),
}

impl Message {
    /// The term that it is of.
    pub(crate) fn term(&self) -> u64 {
        let vote = match self {
            Self::Append(request) => &request.vote,
            Self::Vote(request) | Self::PreVote(request) => &request.vote,
            Self::Snapshot(vote, _) => vote,
            Self::TransferLeader(request) => request.from_leader(),
        };
        vote.leader_id.term
    }

    /// Whether entries that it brings are one behind the other, of no term after its own.
    pub(crate) fn is_in_order(&self) -> bool {
        let Self::Append(request) = self else {
            return true;
        };
        let mut last = request.prev_log_id;
        request.entries.iter().all(|entry| {
            let id = entry.log_id;
            let term = **id.committed_leader_id();
            let follows = match last {
                None => id.index() == 0,
                Some(last) => {
                    last.index().checked_add(1) == Some(id.index())
                        && **last.committed_leader_id() <= term
                }
            };
            last = Some(id);
            follows && term <= self.term()
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Append(request) => {
                out.put_u8(1);
                put_vote(&mut out, &request.vote);
                put_option(&mut out, request.prev_log_id.as_ref(), put_log_id);
                put_option(&mut out, request.leader_commit.as_ref(), put_log_id);
                out.put_u32(request.entries.len() as u32);
                for entry in &request.entries {
                    put_entry(&mut out, entry);
                }
            }
            Self::Vote(request) => {
                out.put_u8(2);
                put_vote_request(&mut out, request);
            }
            Self::PreVote(request) => {
                out.put_u8(3);
                put_vote_request(&mut out, request);
            }
            Self::Snapshot(vote, snapshot) => {
                out.put_u8(4);
                put_vote(&mut out, vote);
                put_snapshot_meta(&mut out, &snapshot.meta);
                put_bytes(&mut out, &snapshot.data);
            }
            Self::TransferLeader(request) => {
                out.put_u8(5);
                put_vote(&mut out, request.from_leader());
                out.put_i32(*request.to_node_id());
                put_option(&mut out, request.last_log_id(), put_log_id);
            }
        }
        out.freeze()
    }

    /// None if it is anything else than one message.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let bytes = &mut bytes;
        let message = match bytes.try_get_u8().ok()? {
            1 => Self::Append(get_append(bytes)?),
            2 => Self::Vote(get_vote_request(bytes)?),
            3 => Self::PreVote(get_vote_request(bytes)?),
            4 => {
                let vote = get_vote(bytes)?;
                let meta = get_snapshot_meta(bytes)?;
                let data = get_bytes(bytes)?;
                Self::Snapshot(vote, Snapshot { meta, data })
            }
            5 => {
                let vote = get_vote(bytes)?;
                let to = bytes.try_get_i32().ok()?;
                let last = get_option(bytes, get_log_id)?;
                Self::TransferLeader(TransferLeaderRequest::new(vote, to, last))
            }
            _ => return None,
        };
        bytes.is_empty().then_some(message)
    }
}

fn get_append(bytes: &mut Bytes) -> Option<AppendEntriesRequest<Types>> {
    let vote = get_vote(bytes)?;
    let prev_log_id = get_option(bytes, get_log_id)?;
    let leader_commit = get_option(bytes, get_log_id)?;
    let mut entries = Vec::new();
    for _ in 0..bytes.try_get_u32().ok()? {
        entries.push(get_entry(bytes)?);
    }
    Some(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn put_vote_request(out: &mut BytesMut, request: &VoteRequest<Types>) {
    put_vote(out, &request.vote);
    put_option(out, request.last_log_id.as_ref(), put_log_id);
    out.put_u8(request.leadership_transfer.into());
}

fn get_vote_request(bytes: &mut Bytes) -> Option<VoteRequest<Types>> {
    let vote = get_vote(bytes)?;
    let last_log_id = get_option(bytes, get_log_id)?;
    let mut request = VoteRequest::new(vote, last_log_id);
    request.leadership_transfer = get_flag(bytes)?;
    Some(request)
}

pub(crate) fn encode_appended(response: &AppendEntriesResponse<Types>) -> Bytes {
    let mut out = BytesMut::new();
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(id) => {
            out.put_u8(1);
            put_option(&mut out, id.as_ref(), put_log_id);
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(crate) fn decode_appended(mut bytes: Bytes) -> Option<AppendEntriesResponse<Types>> {
    let bytes = &mut bytes;
    Some(match bytes.try_get_u8().ok()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(get_option(bytes, get_log_id)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(get_vote(bytes)?),
        _ => return None,
    })
}

pub(crate) fn encode_voted(response: &VoteResponse<Types>) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, &response.vote);
    out.put_u8(response.vote_granted.into());
    put_option(&mut out, response.last_log_id.as_ref(), put_log_id);
    out.freeze()
}

pub(crate) fn decode_voted(mut bytes: Bytes) -> Option<VoteResponse<Types>> {
    let bytes = &mut bytes;
    let vote = get_vote(bytes)?;
    let granted = get_flag(bytes)?;
    let last = get_option(bytes, get_log_id)?;
    Some(VoteResponse::new(vote, last, granted))
}

pub(crate) fn encode_installed(response: &SnapshotResponse<Types>) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, &response.vote);
    out.freeze()
}

pub(crate) fn decode_installed(mut bytes: Bytes) -> Option<SnapshotResponse<Types>> {
    get_vote(&mut bytes).map(SnapshotResponse::new)
}

pub(crate) fn encode_transferred(is_accepted: bool) -> Bytes {
    Bytes::copy_from_slice(&[is_accepted.into()])
}

pub(crate) fn decode_transferred(mut bytes: Bytes) -> Option<bool> {
    get_flag(&mut bytes)
}
