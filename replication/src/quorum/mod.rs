//! The quorum that keeps the cluster's metadata: a Raft log by [`openraft`], on this core's ring.
//!
//! The library decides; ours are its runtime ([`runtime`], [`channel`]), its journal (`journal`,
//! `stored`, `log`), the machine that its commands drive ([`Machine`]), and what travels between
//! nodes (`messages`, `network`, [`Links`]). All time and chance are the core's, so one seed of a
//! simulated world decides a whole cluster's life.
//!
//! Why this library: it is alive, and its runtime is a trait whose every wait is biased in the order
//! of the arguments, so that nothing in it is left to chance but what we give it. `raft`'s RawNode
//! would need no runtime, but was last released in 2023, draws its election time-outs from the
//! thread's own generator, and brings protobuf along.

#[cfg(test)]
mod bytes_test;
pub mod channel;
mod journal;
#[cfg(test)]
mod journal_test;
mod log;
mod machine;
mod messages;
mod network;
pub mod runtime;
mod stored;
mod types;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{ChangeMembers, Config, Raft, SnapshotPolicy};
use openraft_rt::WatchReceiver;
use ringmill_ring::planted;
use thiserror::Error;

pub use self::journal::{JOURNAL_NAME, JournalError};
pub use self::machine::Machine;
pub use self::network::Links;
pub use self::stored::NotStored;
pub use self::types::{Address, Command, Types};

use self::journal::Journal;
use self::log::Log;
use self::machine::Applied;
use self::messages::{
    Message, encode_appended, encode_installed, encode_transferred, encode_voted,
};
use self::network::Ways;
use self::stored::Snapshot;

/// A follower believes in its leader for the longer time after it has heard it; a time in this range
/// later it asks for votes. In milliseconds: a leader that dies is replaced after 450 to 600, and one
/// that is heard so often that four messages may be lost in a row is not deposed.
const ELECTION_MS: (u64, u64) = (150, 300);
/// The leader is heard from so often, in milliseconds.
const HEARTBEAT_MS: u64 = 50;
/// When a leader is replaced that has not handed over, it was silent for so long, at least, in
/// milliseconds.
pub const SILENT_MS: u64 = ELECTION_MS.0 + ELECTION_MS.1;
/// A snapshot is sent in one piece; it may take so long, in milliseconds.
const SNAPSHOT_MS: u64 = 30_000;
/// No node is so many terms behind: each takes an election,
const TERMS_AHEAD_MAX: u64 = 1 << 32;
/// and there are never so many.
const TERM_MAX: u64 = 1 << 62;
/// Entries in one message.
const MESSAGE_ENTRIES: u64 = 256;

/// Why the quorum does not start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The snapshot cannot be understood.
    #[error("the quorum's snapshot: {0}")]
    Machine(io::Error),
    /// The library refuses.
    #[error("the quorum does not start: {0}")]
    Raft(Fatal<Types>),
}

/// Why a command did not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Another node leads, or nobody: nothing has changed.
    #[error("this node does not lead the quorum")]
    NotLeader(Option<i32>),
    /// The leader changed meanwhile: it may count or not.
    #[error("the quorum's leader has changed, and the command may count or not")]
    Unknown,
    /// Nodes cannot be added or removed so now: nothing has changed.
    #[error("{0}")]
    Members(String),
    /// This node takes no part any more.
    #[error("this node's quorum has ended")]
    Ended,
}

/// When a snapshot takes the place of the log's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEntries {
    /// One is made after so many entries,
    pub every: u64,
    /// and so many stay behind it, for nodes that are a little late.
    pub kept: u64,
}

impl Default for SnapshotEntries {
    fn default() -> Self {
        Self {
            every: 2_000,
            kept: 500,
        }
    }
}

/// The quorum as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The term.
    pub term: u64,
    /// Who leads, if anybody is known to.
    pub leader: Option<i32>,
    /// The index of the last entry that the machine has taken.
    pub applied: Option<u64>,
    /// The index of the last entry of the log.
    pub last: Option<u64>,
    /// Who votes.
    pub voters: BTreeSet<i32>,
    /// The sets of voters of each of which most have to agree: two while who votes changes, that of
    /// before and that of after.
    pub majorities: Vec<BTreeSet<i32>>,
    /// All nodes, those that only listen included, and where they are.
    pub nodes: BTreeMap<i32, Address>,
    /// Of each node, how far its log is known to be whole; on the leader alone.
    pub progress: BTreeMap<i32, Option<u64>>,
    /// The disk refuses the journal at the moment.
    pub is_stuck: bool,
}

impl View {
    /// Who is to vote alone once the change of voters that goes on has ended; none if none does. Whoever
    /// began it may not be there any more to end it.
    pub fn unfinished_change(&self) -> Option<&BTreeSet<i32>> {
        match &self.majorities[..] {
            [_, .., after] => Some(after),
            _ => None,
        }
    }

    /// Whether a node votes, and goes on to.
    pub fn is_sure_voter(&self, node: i32) -> bool {
        let mut majorities = self.majorities.iter();
        self.voters.contains(&node) && majorities.all(|voters| voters.contains(&node))
    }
}

/// One node's part in the quorum. Belongs to the core that opened it; cheap to clone.
pub struct Quorum<M: Machine> {
    raft: Raft<Types, Applied<M>>,
    journal: Rc<Journal>,
    is_settled: Rc<Cell<bool>>,
}

impl<M: Machine> Clone for Quorum<M> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            journal: Rc::clone(&self.journal),
            is_settled: Rc::clone(&self.is_settled),
        }
    }
}

impl<M: Machine> Quorum<M> {
    /// Opens the journal in `folder`, brings `machine` to what its snapshot says, and takes part as
    /// `node`. One that is not settled listens alone, until [`Quorum::settle`]: its disk may have been
    /// lost, and then it reads again in the log that it votes, once even as the only one, and has
    /// forgotten what it has voted for and acknowledged.
    ///
    /// # Errors
    /// The journal or its snapshot cannot be used.
    pub async fn open(
        folder: &Path,
        node: i32,
        machine: Rc<M>,
        links: Rc<dyn Links>,
        is_settled: bool,
        snapshots: SnapshotEntries,
    ) -> Result<Self, OpenError> {
        let is_settled = is_settled || planted("joiner-votes-at-once");
        let journal = Journal::open(folder).await?;
        let applied = Applied::new(machine, Rc::clone(&journal)).map_err(OpenError::Machine)?;
        let config = Config {
            enable_elect: is_settled,
            ..config(snapshots)
        };
        let config = Arc::new(config.validate().expect("the constants fit each other"));
        let log = Log(Rc::clone(&journal));
        let raft = Raft::new(node, config, Ways(links), log, applied).await;
        let raft = raft.map_err(OpenError::Raft)?;
        let quorum = Self {
            raft,
            journal,
            is_settled: Rc::new(Cell::new(is_settled)),
        };
        if is_settled && quorum.view().voters.iter().eq([&node]) {
            // Nobody else is to be waited for. It fails only with the node.
            let _ = quorum.raft.trigger().elect(false).await;
        }
        Ok(quorum)
    }

    /// This node's log has come to where it was taken in with the disk that it has: it votes, and may
    /// lead.
    pub fn settle(&self) {
        self.is_settled.set(true);
        self.raft.runtime_config().elect(true);
    }

    /// Whether this node has ever been a part of a quorum.
    pub fn is_new(&self) -> bool {
        let stored = self.journal.stored.borrow();
        stored.vote.is_none() && stored.last().is_none() && stored.snapshot.is_none()
    }

    /// Begins a new quorum of these nodes. Does nothing if there is one.
    ///
    /// # Errors
    /// This node has ended, or is not one of them.
    pub async fn begin(&self, nodes: BTreeMap<i32, Address>) -> Result<(), ProposeError> {
        match self.raft.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(ProposeError::Members(error.to_string()))
            }
            Err(RaftError::Fatal(_)) => Err(ProposeError::Ended),
        }
    }

    /// Puts a command into the log and gives the machine's answer, once it is on the disks of most
    /// voters and this node's machine has taken it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        let written = self.raft.client_write(Command(command)).await;
        written.map(|written| written.data).map_err(refused)
    }

    /// Waits until this node leads and its machine has taken all that was ever acknowledged.
    ///
    /// # Errors
    /// Another node leads.
    pub async fn confirm_leader(&self) -> Result<(), ProposeError> {
        let policy = openraft::raft::ReadPolicy::ReadIndex;
        let confirmed = self.raft.ensure_linearizable(policy).await;
        confirmed.map(drop).map_err(|error| match error {
            RaftError::Fatal(_) => ProposeError::Ended,
            RaftError::APIError(_) => ProposeError::NotLeader(self.view().leader),
        })
    }

    /// Lets a node listen, or changes its address.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn add_observer(&self, node: i32, address: Address) -> Result<(), ProposeError> {
        self.change(
            ChangeMembers::SetNodes(BTreeMap::from([(node, address)])),
            true,
        )
        .await
    }

    /// Lets exactly these nodes vote. They must be known.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn set_voters(&self, voters: BTreeSet<i32>) -> Result<(), ProposeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters), true)
            .await
    }

    /// Lets a node that does not vote go.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn remove(&self, node: i32) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false)
            .await
    }

    async fn change(
        &self,
        change: ChangeMembers<i32, Address>,
        retain: bool,
    ) -> Result<(), ProposeError> {
        let changed = self.raft.change_membership(change, retain).await;
        changed.map(drop).map_err(refused)
    }

    /// Answers another node's message.
    ///
    /// # Errors
    /// It is malformed, or this node has ended, or is not settled and cannot vote.
    pub async fn answer(&self, message: Bytes) -> io::Result<Bytes> {
        let message = Message::decode(message).ok_or(io::ErrorKind::InvalidData)?;
        let is_about_leaders = matches!(
            message,
            Message::Vote(_) | Message::PreVote(_) | Message::TransferLeader(_)
        );
        if is_about_leaders && !self.is_settled.get() {
            return Err(io::Error::other("this node has yet to learn who votes"));
        }
        self.check_sense(&message)?;
        let ended = |error: RaftError<Types>| io::Error::other(error.to_string());
        Ok(match message {
            Message::Append(request) => {
                let response = self.raft.append_entries(request).await;
                encode_appended(&response.map_err(ended)?)
            }
            Message::Vote(request) => encode_voted(&self.raft.vote(request).await.map_err(ended)?),
            Message::PreVote(request) => {
                encode_voted(&self.raft.pre_vote(request).await.map_err(ended)?)
            }
            Message::Snapshot(vote, Snapshot { meta, data }) => {
                let snapshot = openraft::Snapshot {
                    meta,
                    snapshot: data,
                };
                let installed = self.raft.install_full_snapshot(vote, snapshot).await;
                let failed = |error: Fatal<Types>| io::Error::other(error.to_string());
                encode_installed(&installed.map_err(failed)?)
            }
            Message::TransferLeader(request) => {
                let accepted = self.raft.handle_transfer_leader(request).await;
                encode_transferred(matches!(accepted, Ok(Ok(()))))
            }
        })
    }

    /// Whether a node of this quorum can have sent this: a message changes what is stored for good, and
    /// anybody who reaches the port can send one.
    fn check_sense(&self, message: &Message) -> io::Result<()> {
        let (votes_alone, known_term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters = metrics.membership_config.membership().voter_ids();
            (voters.eq([*self.raft.node_id()]), metrics.current_term)
        };
        // one that reads its log anew comes by times in which it was alone
        if self.is_settled.get() && votes_alone {
            // nobody can have been elected without its vote, nor have become a voter
            return Err(io::Error::other("this node alone votes"));
        }
        let term = message.term();
        if term > TERM_MAX || term.saturating_sub(known_term) > TERMS_AHEAD_MAX {
            return Err(io::Error::other(format!("there cannot be a term {term}")));
        }
        match message.is_in_order() {
            true => Ok(()),
            false => Err(io::Error::other(
                "its entries do not follow from each other",
            )),
        }
    }

    /// Waits until the disk refuses the journal.
    pub async fn stuck(&self) {
        self.journal.stuck().await;
    }

    /// Hands the leadership to a voter.
    ///
    /// # Errors
    /// This node has ended.
    pub async fn hand_over(&self, to: i32) -> Result<(), ProposeError> {
        let handed = self.raft.trigger().transfer_leader(to).await;
        handed.map_err(|_| ProposeError::Ended)
    }

    /// How the quorum looks from here.
    pub fn view(&self) -> View {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let nodes = membership.nodes();
        let progress = metrics.replication.iter().flatten();
        View {
            term: metrics.current_term,
            leader: metrics.current_leader,
            applied: metrics.last_applied.map(|id| id.index()),
            last: metrics.last_log_index,
            voters: membership.voter_ids().collect(),
            majorities: membership.get_joint_config().clone(),
            nodes: nodes.map(|(id, node)| (*id, node.clone())).collect(),
            progress: progress
                .map(|(id, matched)| (*id, matched.map(|id| id.index())))
                .collect(),
            is_stuck: self.journal.is_stuck(),
        }
    }

    /// Waits until the view is another.
    ///
    /// # Errors
    /// This node has ended.
    pub async fn changed(&self, seen: &View) -> Result<View, ProposeError> {
        let mut metrics = self.raft.metrics();
        loop {
            let view = self.view();
            if view != *seen {
                return Ok(view);
            }
            metrics.changed().await.map_err(|_| ProposeError::Ended)?;
        }
    }

    /// Ends this node's part. What it has acknowledged stays.
    pub async fn close(&self) {
        // The library may be waiting for a disk that refuses.
        self.journal.give_up();
        // Ended already, if by a panic of this very core.
        let _ = self.raft.shutdown().await;
        self.journal.close().await;
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
    match error {
        RaftError::Fatal(_) => ProposeError::Ended,
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            ProposeError::NotLeader(to.leader_id)
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Unknown,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ProposeError::Members(error.to_string())
        }
        RaftError::APIError(error) => ProposeError::Members(error.to_string()),
    }
}

fn config(snapshots: SnapshotEntries) -> Config {
    Config {
        cluster_name: "ringmill".to_owned(),
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        heartbeat_interval: HEARTBEAT_MS,
        install_snapshot_timeout: SNAPSHOT_MS,
        max_payload_entries: MESSAGE_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshots.every),
        max_in_snapshot_log_to_keep: snapshots.kept,
        // A node that was cut off must not depose a leader that the others hear.
        enable_pre_vote: Some(true),
        // The leader sends entries on while it still writes them. After a power cut others may have
        // what it has not, and in its old term it would write something else at the same indexes.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
