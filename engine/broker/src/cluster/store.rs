//! The metadata on disk: a journal of commands, flushed before any of them counts. Owned by core 0;
//! one change at a time.
//!
//! A write or flush that failed leaves the file in an unknown state, and is not tried again on it:
//! the next change rewrites the whole journal as a new file from memory, which is all that was ever
//! acknowledged.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::lock::Mutex;
use ringmill_replication::frame_file::{FrameFile, OpenError};
use ringmill_ring::{File, OpenOptions, fs, now, sleep};
use ringmill_wire::Uuid;
use thiserror::Error;

use super::identity::{self, Identity, IdentityError};
use super::image::{Command, Image, ImageError};
use super::journal::{self, JournalError};
use crate::config::BrokerConfig;

/// How long a start waits for a process that was just killed to let go of what it had.
pub(crate) const PREDECESSOR_TIME: Duration = Duration::from_secs(5);
/// How often it looks.
pub(crate) const PREDECESSOR_PAUSE: Duration = Duration::from_millis(10);
const JOURNAL_NAME: &str = "metadata.journal";
const LOCK_NAME: &str = ".lock";

/// Why the metadata cannot be read or changed.
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
    /// The journal is damaged.
    #[error("{path}: {error}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: JournalError,
    },
    /// The journal's commands do not follow from each other.
    #[error("{path}: {error}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ImageError,
    },
}

impl StoreError {
    fn of(path: &Path, error: OpenError) -> Self {
        let path = path.to_owned();
        match error {
            OpenError::Io(error) => Self::Io { path, error },
            OpenError::Damaged(error) => Self::Journal {
                path,
                error: error.into(),
            },
        }
    }
}

/// The metadata of a single node.
pub struct Store {
    config: Arc<BrokerConfig>,
    path: PathBuf,
    identity: Identity,
    image: RefCell<Arc<Image>>,
    journal: Mutex<FrameFile>,
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl Store {
    /// Opens the data folder of `config`, making it if need be, and reads what it says.
    ///
    /// # Errors
    /// The folder is in use, another node's or damaged, or the disk refuses.
    pub async fn open(config: Arc<BrokerConfig>) -> Result<Self, StoreError> {
        let folder = config.data_dir.clone();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Io { path, error }
        };
        fs::create_dir_all(&folder).await.map_err(failed(&folder))?;
        let lock = lock(&folder).await?;
        let identity = identity_of(&config, &folder).await?;
        let path = folder.join(JOURNAL_NAME);
        let opened = FrameFile::open(&path).await;
        let (mut file, changes) = opened.map_err(|error| StoreError::of(&path, error))?;
        let commands = journal::decode(changes).map_err(|error| StoreError::Journal {
            path: path.clone(),
            error,
        })?;
        let mut image = Image::new(&config);
        for command in &commands {
            let applied = image.apply(&config, command);
            applied.map_err(|error| StoreError::Image {
                path: path.clone(),
                error,
            })?;
        }
        file.set_compact(journal::encode(&image.commands()).len());
        Ok(Self {
            config,
            path,
            identity,
            image: RefCell::new(Arc::new(image)),
            journal: Mutex::new(file),
            _lock: lock,
        })
    }

    /// The metadata as it is.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// Whose metadata it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Decides on a change by the current metadata and makes it durable, and hands the new
    /// metadata to `publish` before the next change begins.
    ///
    /// # Errors
    /// The disk refuses; then nothing has changed.
    ///
    /// # Panics
    /// If the commands do not follow from the metadata they were decided by.
    pub async fn change<T>(
        &self,
        decide: impl FnOnce(&Image) -> (T, Vec<Command>),
        publish: impl AsyncFnOnce(Arc<Image>),
    ) -> Result<T, StoreError> {
        let mut journal = self.journal.lock().await;
        let before = self.image();
        let (result, commands) = decide(&before);
        if commands.is_empty() {
            return Ok(result);
        }
        let mut after = Image::clone(&before);
        for command in &commands {
            let applied = after.apply(&self.config, command);
            applied.expect("commands follow from the image they were decided by");
        }
        let written = self.write(&mut journal, &commands, &after).await;
        if let Err(error) = written {
            let path = self.path.clone();
            return Err(StoreError::Io { path, error });
        }
        let after = Arc::new(after);
        self.image.replace(Arc::clone(&after));
        publish(after).await;
        Ok(result)
    }

    async fn write(
        &self,
        journal: &mut FrameFile,
        commands: &[Command],
        after: &Image,
    ) -> io::Result<()> {
        match journal.is_due() {
            true => journal.rewrite(&journal::encode(&after.commands())).await,
            false => journal.append(&journal::encode(commands)).await,
        }
    }
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
