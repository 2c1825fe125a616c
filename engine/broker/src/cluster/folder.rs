//! The data folder: whose it is, and that one process has it. Core 0 holds it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringmill_ring::{File, OpenOptions, fs, now, sleep};

use super::identity::{self, Identity};
use super::store::StoreError;
use crate::config::BrokerConfig;

/// How long a start waits for a process that was just killed to let go of what it had.
pub(crate) const PREDECESSOR_TIME: Duration = Duration::from_secs(5);
/// How often it looks.
pub(crate) const PREDECESSOR_PAUSE: Duration = Duration::from_millis(10);
const LOCK_NAME: &str = ".lock";
/// Kafka's file that says whose partition a folder is.
pub(crate) const OWNER_FILE: &str = "partition.metadata";
/// The metadata of versions before there were several nodes.
const OLD_JOURNAL: &str = "metadata.journal";

/// A data folder that nobody else has.
pub struct Folder {
    path: PathBuf,
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl Folder {
    /// Takes the folder of `config`, making it if need be, and reads whose it is; none if it is new.
    ///
    /// # Errors
    /// It is in use, another node's or damaged, or the disk refuses.
    pub async fn open(config: &BrokerConfig) -> Result<(Self, Option<Identity>), StoreError> {
        let path = config.data_dir.clone();
        let failed = |error| StoreError::Io {
            path: path.clone(),
            error,
        };
        fs::create_dir_all(&path).await.map_err(failed)?;
        let lock = lock(&path).await?;
        if fs::metadata(path.join(OLD_JOURNAL)).await.is_ok() {
            return Err(StoreError::Old(path));
        }
        let identity = identity_of(&path, config.node_id).await?;
        Ok((Self { path, _lock: lock }, identity))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether partitions were kept in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn has_partitions(&self) -> Result<bool, StoreError> {
        let failed = |error| StoreError::Io {
            path: self.path.clone(),
            error,
        };
        for entry in fs::read_dir(&self.path).await.map_err(failed)? {
            let owner = self.path.join(&entry.name).join(OWNER_FILE);
            if entry.is_dir && fs::metadata(owner).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes down whose it is.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn claim(&self, identity: &Identity) -> Result<(), StoreError> {
        let path = self.path.join(identity::FILE_NAME);
        let content = vec![identity.to_properties()];
        let written = fs::write_atomic(&path, content).await;
        written.map_err(|error| StoreError::Io { path, error })
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

/// Reads who the folder belongs to.
async fn identity_of(folder: &Path, node: i32) -> Result<Option<Identity>, StoreError> {
    let path = folder.join(identity::FILE_NAME);
    match fs::read(&path).await {
        Ok(content) => Identity::from_properties(&content, node)
            .map(Some)
            .map_err(|error| StoreError::Identity { path, error }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::Io { path, error }),
    }
}
