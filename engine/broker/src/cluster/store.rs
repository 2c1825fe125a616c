//! The metadata on disk and among the nodes: the quorum, and the data folder that it lives in.
//! Owned by core 0.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::lock::Mutex;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::{
    Address, JOURNAL_NAME, Links, OpenError, ProposeError, Quorum, View,
};
use ringmill_ring::{sleep, timeout};
use ringmill_wire::Uuid;
use thiserror::Error;

use super::command::Command;
use super::folder::Folder;
use super::identity::{Identity, IdentityError};
use super::image::Image;
use super::machine::{Metadata, Outcome, entry};
use crate::config::BrokerConfig;

/// How long a change waits for a disk that refuses the journal.
const STUCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a leader waits for the others to say that it leads still.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);
/// How long a change waits for those before it.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Why the metadata cannot be read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("{path}: {error}")]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process has the data folder.
    #[error("{0} is in use by another broker")]
    Locked(PathBuf),
    /// The data folder is another node's.
    #[error("{path}: {error}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: IdentityError,
    },
    /// The data folder is of a version that this one does not read.
    #[error("{0} holds metadata.journal: a version wrote it that this one does not read")]
    Old(PathBuf),
    /// The metadata is gone, and the partitions are not.
    #[error(
        "{0} is missing or holds nothing, and the folder was in use: the metadata of its partitions is lost; restore the file from a copy (if other nodes have the metadata, start with an empty folder and join them)"
    )]
    Lost(PathBuf),
    /// The quorum's journal cannot be used.
    #[error(transparent)]
    Quorum(#[from] OpenError),
    /// This node cannot take part.
    #[error("the metadata's quorum: {0}")]
    Begin(#[from] ProposeError),
}

/// Why a change of the metadata was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// Another node decides, or nobody knows who.
    #[error("this node does not lead the metadata's quorum")]
    NotLeader(Option<NodeId>),
    /// Nobody knows what becomes of it.
    #[error("the metadata's quorum does not answer: the change may count or not")]
    Unknown,
    /// This node has ended.
    #[error("this node has ended")]
    Ended,
}

/// The metadata of a node.
pub struct Store {
    identity: Identity,
    metadata: Rc<Metadata>,
    quorum: Quorum<Metadata>,
    /// One change at a time: each is decided by what the one before has made.
    turn: Mutex<()>,
    /// Held for as long as it is in use.
    folder: Folder,
}

impl Store {
    /// Takes part in the quorum of a folder that belongs to this node, reached at `address`. A folder
    /// whose node has never taken part in one begins it alone, unless the node has joined others. The
    /// metadata is what the last snapshot says, until the quorum has a leader.
    ///
    /// # Errors
    /// What the folder holds cannot be used, or the disk refuses.
    pub async fn open(
        config: Arc<BrokerConfig>,
        folder: Folder,
        identity: Identity,
        address: Address,
        links: Rc<dyn Links>,
    ) -> Result<Self, StoreError> {
        let metadata = Rc::new(Metadata::new(Arc::clone(&config)));
        let node = config.node_id;
        let is_settled = !identity.is_joining;
        let machine = Rc::clone(&metadata);
        let snapshots = config.metadata_snapshots;
        let quorum =
            Quorum::open(folder.path(), node, machine, links, is_settled, snapshots).await?;
        if quorum.is_new() && is_settled && (identity.has_joined || folder.has_partitions().await?)
        {
            // It has voted and decided, and does not know any more what.
            return Err(StoreError::Lost(folder.path().join(JOURNAL_NAME)));
        }
        if quorum.is_new() && !identity.has_joined {
            let alone = BTreeMap::from([(node, address)]);
            quorum.begin(alone).await?;
        }
        Ok(Self {
            identity,
            metadata,
            quorum,
            turn: Mutex::new(()),
            folder,
        })
    }

    /// This node has come to the metadata in which it was taken in with its folder: from now on it
    /// votes in the quorum, after every start.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub async fn settle(&self) -> Result<(), StoreError> {
        if self.identity.is_joining {
            let settled = Identity {
                is_joining: false,
                ..self.identity.clone()
            };
            self.folder.claim(&settled).await?;
            self.quorum.settle();
        }
        Ok(())
    }

    /// The metadata as this node knows it.
    pub fn image(&self) -> Arc<Image> {
        self.metadata.image()
    }

    /// Whose metadata it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The quorum as this node sees it.
    pub fn view(&self) -> View {
        self.quorum.view()
    }

    /// Waits until the metadata is of another version than `seen`.
    pub async fn changed(&self, seen: u64) -> Arc<Image> {
        loop {
            let changed = self.metadata.changed.notified();
            let image = self.image();
            if image.version != seen {
                return image;
            }
            changed.await;
        }
    }

    /// Decides on a change by the current metadata and makes it count. Gives the version of the
    /// metadata that it is in. `decide` is asked again if the metadata has changed meanwhile.
    ///
    /// # Errors
    /// See [`ChangeError`].
    ///
    /// # Panics
    /// If the commands do not follow from the metadata they were decided by.
    pub async fn change<T>(
        &self,
        mut decide: impl FnMut(&Image) -> (T, Vec<Command>),
    ) -> Result<(T, u64), ChangeError> {
        // A leader that is cut off has one change under way for ever; others do not queue behind it.
        let turn = timeout(TURN_PATIENCE, self.turn.lock()).await;
        let _turn = turn.map_err(|_| ChangeError::NotLeader(None))?;
        loop {
            let before = self.image();
            let (result, commands) = decide(&before);
            if commands.is_empty() {
                // What changes something counts for nothing if it was decided by older metadata; what
                // changes nothing, a refusal maybe, is as final for whoever asked.
                self.confirm_leader().await?;
                if self.image().version == before.version {
                    return Ok((result, before.version));
                }
                continue;
            }
            let after = self.metadata.next(&before, &commands);
            let after = after.expect("commands follow from the image they were decided by");
            match self.propose(entry(before.version, &commands)).await? {
                Outcome::Applied => return Ok((result, after.version)),
                Outcome::Stale => {}
                // Another version decides otherwise than this one.
                Outcome::Refused(_) => return Err(ChangeError::Unknown),
            }
        }
    }

    /// Waits until this node has come to all that was agreed on before now, by itself or by leaders
    /// before it: one that has just been elected may have no more than its last snapshot, and one that
    /// is cut off does not know who has come after it.
    async fn confirm_leader(&self) -> Result<(), ChangeError> {
        match timeout(CONFIRM_PATIENCE, self.quorum.confirm_leader()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ProposeError::Ended)) => Err(ChangeError::Ended),
            Ok(Err(ProposeError::NotLeader(leader))) => Err(ChangeError::NotLeader(leader)),
            Ok(Err(_)) | Err(_) => Err(ChangeError::NotLeader(None)),
        }
    }

    /// A disk that refuses the journal may do so for ever, and holds nobody up for ever.
    async fn propose(&self, entry: Bytes) -> Result<Outcome, ChangeError> {
        if self.quorum.view().is_stuck {
            return Err(ChangeError::Unknown);
        }
        let proposing = std::pin::pin!(self.quorum.propose(entry));
        let stuck = std::pin::pin!(async {
            self.quorum.stuck().await;
            sleep(STUCK_PATIENCE).await;
        });
        match select(proposing, stuck).await {
            Either::Left((Ok(answer), _)) => Ok(Outcome::decode(&answer)),
            Either::Left((Err(error), _)) => Err(match error {
                ProposeError::NotLeader(leader) => ChangeError::NotLeader(leader),
                ProposeError::Ended => ChangeError::Ended,
                ProposeError::Unknown | ProposeError::Members(_) => ChangeError::Unknown,
            }),
            Either::Right(_) => Err(ChangeError::Unknown),
        }
    }

    /// Waits until this node or another leads the quorum.
    pub async fn led(&self) -> View {
        let mut view = self.quorum.view();
        while view.leader.is_none() {
            view = self.looks_new(&view).await;
        }
        view
    }

    /// Another node's message to the quorum.
    ///
    /// # Errors
    /// It is malformed, or this node has ended.
    pub async fn answer(&self, message: Bytes) -> io::Result<Bytes> {
        self.quorum.answer(message).await
    }

    /// The quorum itself, for who belongs to it.
    pub(crate) fn quorum(&self) -> &Quorum<Metadata> {
        &self.quorum
    }

    /// Waits until the quorum looks another way than `seen`.
    pub async fn looks_new(&self, seen: &View) -> View {
        match self.quorum.changed(seen).await {
            Ok(view) => view,
            // Whoever waits ends with the core.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends this node's part.
    pub async fn close(&self) {
        self.quorum.close().await;
    }
}

/// A fresh id for a cluster or a topic (a version 4 UUID, as Kafka's).
pub fn random_id() -> Uuid {
    let high = u128::from(ringmill_ring::random_u64());
    let bits = (high << 64) | u128::from(ringmill_ring::random_u64());
    // RFC 9562 §5.4: four bits tell the version, two the variant.
    let version = bits & !(0xf << 76) | (4 << 76);
    Uuid::from_u128(version & !(0b11 << 62) | (0b10 << 62))
}

#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
