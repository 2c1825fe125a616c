//! The metadata on disk and among the nodes: the quorum, and the data folder that it lives in.
//! Owned by core 0.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::lock::Mutex;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::{Address, Links, OpenError, ProposeError, Quorum, View};
use ringmill_ring::{File, OpenOptions, fs, now, sleep};
use ringmill_wire::Uuid;
use thiserror::Error;

use super::command::Command;
use super::identity::{self, Identity, IdentityError};
use super::image::Image;
use super::machine::{Metadata, Outcome, entry};
use crate::config::BrokerConfig;

/// How long a start waits for a process that was just killed to let go of what it had.
pub(crate) const PREDECESSOR_TIME: Duration = Duration::from_secs(5);
/// How often it looks.
pub(crate) const PREDECESSOR_PAUSE: Duration = Duration::from_millis(10);
const LOCK_NAME: &str = ".lock";
/// The metadata of versions before there were several nodes.
const OLD_JOURNAL: &str = "metadata.journal";
/// How long a change waits for a disk that refuses the journal.
const STUCK_PATIENCE: Duration = Duration::from_secs(1);

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
    #[error("{0} holds {OLD_JOURNAL}: a version wrote it that this one does not read")]
    Old(PathBuf),
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
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl Store {
    /// Opens the data folder of `config`, making it if need be, and takes part in its quorum; one
    /// that is new begins a quorum of this node alone. The metadata is what the last snapshot says,
    /// until the quorum has a leader.
    ///
    /// # Errors
    /// The folder is in use, another node's or damaged, or the disk refuses.
    pub async fn open(config: Arc<BrokerConfig>, links: Rc<dyn Links>) -> Result<Self, StoreError> {
        let folder = config.data_dir.clone();
        let failed = |error| StoreError::Io {
            path: folder.clone(),
            error,
        };
        fs::create_dir_all(&folder).await.map_err(failed)?;
        let lock = lock(&folder).await?;
        if fs::metadata(folder.join(OLD_JOURNAL)).await.is_ok() {
            return Err(StoreError::Old(folder));
        }
        let identity = identity_of(&config, &folder).await?;
        let metadata = Rc::new(Metadata::new(Arc::clone(&config)));
        let node = config.node_id;
        let quorum = Quorum::open(&folder, node, Rc::clone(&metadata), links).await?;
        if quorum.is_new() {
            let alone = BTreeMap::from([(node, address_of(&config))]);
            quorum.begin(alone).await?;
        }
        Ok(Self {
            identity,
            metadata,
            quorum,
            turn: Mutex::new(()),
            _lock: lock,
        })
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
        let _turn = self.turn.lock().await;
        loop {
            let before = self.image();
            let (result, commands) = decide(&before);
            if commands.is_empty() {
                return Ok((result, before.version));
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

    /// A disk that refuses the journal may do so for ever, and holds nobody up for ever.
    async fn propose(&self, entry: bytes::Bytes) -> Result<Outcome, ChangeError> {
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
            match self.quorum.changed(&view).await {
                Ok(next) => view = next,
                // Whoever waits ends with the core.
                Err(_) => return std::future::pending().await,
            }
        }
        view
    }

    /// Ends this node's part.
    pub async fn close(&self) {
        self.quorum.close().await;
    }
}

/// Where other nodes reach this one.
fn address_of(config: &BrokerConfig) -> Address {
    let (host, port) = match &config.advertised {
        Some((host, port)) => (host.clone(), *port),
        None => (config.listen.ip().to_string(), config.listen.port()),
    };
    Address { host, port }
}

/// Locks the folder. The kernel gives the files of a killed process free only after it has torn
/// down the process's ring, a moment after the process is gone.
async fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_NAME);
    let options = OpenOptions::new().read(true).write(true).create(true);
    let failed = |error| StoreError::Io {
        path: path.clone(),
        error,
    };
    let file = File::open(&path, options).await.map_err(failed)?;
    let end = now() + PREDECESSOR_TIME;
    while !file.try_lock_exclusive().map_err(failed)? {
        if now() >= end {
            return Err(StoreError::Locked(folder.to_owned()));
        }
        sleep(PREDECESSOR_PAUSE).await;
    }
    Ok(file)
}

/// Reads who the folder belongs to, or says so for a new one.
async fn identity_of(config: &BrokerConfig, folder: &Path) -> Result<Identity, StoreError> {
    let path = folder.join(identity::FILE_NAME);
    let failed = |error| StoreError::Io {
        path: path.clone(),
        error,
    };
    match fs::read(&path).await {
        Ok(content) => Identity::from_properties(&content, config.node_id)
            .map_err(|error| StoreError::Identity { path, error }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity {
                cluster: random_id(),
                node_id: config.node_id,
                folder: random_id(),
            };
            let content = vec![identity.to_properties()];
            fs::write_atomic(&path, content).await.map_err(failed)?;
            Ok(identity)
        }
        Err(error) => Err(failed(error)),
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
