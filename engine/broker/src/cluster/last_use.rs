//! How a data folder's last use ended: what was acknowledged without waiting for the disk is in the
//! page cache, which survives a process that is killed, and not a machine that loses its power. The
//! kernel gives each boot of a machine an id, by which the two are told apart.
//!
//! Kafka takes any end that was not in order for a loss (KIP-966: the broker epoch of the last clean
//! shutdown).

use std::io;
use std::path::Path;

use bytes::Bytes;
use ringmill_ring::fs;

use super::store::StoreError;

/// The file in the data folder.
const FILE_NAME: &str = "last-use.properties";

/// Which boot of the machine a folder is or was used in, and whether that has ended in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// The boot's id, if it is known.
    pub boot: Option<String>,
    /// Everything was written and flushed at the end.
    pub is_closed: bool,
}

impl LastUse {
    /// Whether all that was written in this use is there in a boot of the machine.
    pub fn has_kept_all(&self, boot: Option<&str>) -> bool {
        self.is_closed || (boot.is_some() && self.boot.as_deref() == boot)
    }

    fn to_properties(&self) -> Bytes {
        let boot = self.boot.as_deref().unwrap_or_default();
        let closed = self.is_closed;
        Bytes::from(format!("version=1\nboot.id={boot}\nclosed={closed}\n"))
    }

    /// What cannot be understood is a use of which nothing is known.
    fn from_properties(content: &[u8]) -> Self {
        let text = std::str::from_utf8(content).unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            let found = pairs.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.trim())
        };
        let boot = value("boot.id").filter(|boot| !boot.is_empty());
        Self {
            boot: boot.map(str::to_owned),
            is_closed: value("closed") == Some("true"),
        }
    }
}

/// A folder is used from now on: before anything is acknowledged from it. Tells whether all that was
/// written in its last use is known to be there. On a disk that is full the file goes instead, and the
/// next start knows nothing.
///
/// # Errors
/// The disk refuses that, too.
pub async fn begin(folder: &Path, boot: Option<&str>) -> Result<bool, StoreError> {
    let path = folder.join(FILE_NAME);
    let has_kept_all = match fs::read(&path).await {
        Ok(content) => LastUse::from_properties(&content).has_kept_all(boot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(StoreError::Io { path, error }),
    };
    if let Err(error) = write(folder, boot, false).await {
        tracing::warn!(%error, "how the use of this folder ends will not be known");
        let gone = match fs::remove_file(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => fs::sync_dir(folder).await,
        };
        gone.map_err(|error| StoreError::Io { path, error })?;
    }
    Ok(has_kept_all)
}

/// A folder's use has ended in order.
///
/// # Errors
/// The disk refuses.
pub async fn end(folder: &Path, boot: Option<&str>) -> Result<(), StoreError> {
    write(folder, boot, true).await
}

async fn write(folder: &Path, boot: Option<&str>, is_closed: bool) -> Result<(), StoreError> {
    let path = folder.join(FILE_NAME);
    let boot = boot.map(str::to_owned);
    let content = LastUse { boot, is_closed }.to_properties();
    let written = fs::write_atomic(&path, vec![content]).await;
    written.map_err(|error| StoreError::Io { path, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_in_order_and_the_same_boot_keep_everything() {
        let last = |boot: Option<&str>, is_closed| LastUse {
            boot: boot.map(str::to_owned),
            is_closed,
        };
        assert!(last(Some("a"), false).has_kept_all(Some("a")), "killed");
        assert!(!last(Some("a"), false).has_kept_all(Some("b")), "power cut");
        assert!(last(Some("a"), true).has_kept_all(Some("b")));
        assert!(!last(None, false).has_kept_all(None), "nothing is known");
        assert!(!last(Some("a"), false).has_kept_all(None));
    }

    #[test]
    fn it_reads_what_it_writes_and_believes_nothing_else() {
        for boot in [None, Some("8f6b".to_owned())] {
            for is_closed in [false, true] {
                let boot = boot.clone();
                let last = LastUse { boot, is_closed };
                assert_eq!(LastUse::from_properties(&last.to_properties()), last);
            }
        }
        for damaged in [&b""[..], b"\xff\xfe", b"closed = true", b"boot.id"] {
            assert!(!LastUse::from_properties(damaged).has_kept_all(Some("a")));
        }
    }
}
