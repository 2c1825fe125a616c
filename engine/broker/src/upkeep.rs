//! What a core does by itself, in the background: retention and expiry of groups; and at the start,
//! which folders are whose. All of it yields to the core's other work, for
//! each step waits on the ring.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{fs, now, sleep};
use ringmill_wire::Uuid;

use crate::cluster::identity::{id_text, parse_id};
use crate::cluster::image::Image;
use crate::shard::Shard;

/// The longest sleep: so soon the core notices that the broker stops.
const LOOK: Duration = Duration::from_secs(10);
/// Kafka's file that says whose partition a folder is.
const OWNER_FILE: &str = "partition.metadata";
/// The end of the name of a partition's folder that is to be removed (Kafka's).
const REMOVED_SUFFIX: &str = "-delete";

impl Shard {
    /// Runs the core's background work, for ever.
    pub(crate) async fn keep_up(self: Rc<Self>) {
        let (retention, expiry) = (
            self.config.retention_check,
            self.config.offsets_retention_check,
        );
        let mut next_retention = now() + retention;
        let mut next_expiry = now() + expiry;
        loop {
            sleep(LOOK.min(retention).min(expiry)).await;
            if self.is_stopping() {
                return;
            }
            self.telemetry.expire(self.now().mono_ms);
            if now() >= next_retention {
                next_retention = now() + retention;
                self.apply_retention().await;
            }
            if now() >= next_expiry {
                next_expiry = now() + expiry;
                self.expire_groups().await;
            }
        }
    }

    async fn apply_retention(&self) {
        for hosted in self.all_hosted() {
            if hosted.log.failure().is_some() {
                continue;
            }
            if let Err(error) = hosted.log.apply_retention(self.now().wall_ms).await {
                let folder = hosted.log.dir().display().to_string();
                tracing::warn!(folder, %error, "old segments stay for now");
            }
        }
    }

    /// Removes the folders of partitions that are deleted: the broker was interrupted in the
    /// middle of it.
    pub(crate) async fn remove_strays(&self, image: &Image) {
        let folder = &self.config.data_dir;
        let entries = match fs::read_dir(folder).await {
            Ok(entries) => entries,
            Err(error) => return tracing::warn!(%error, "cannot look for deleted partitions"),
        };
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let path = folder.join(&entry.name);
            let is_stray = entry.name.ends_with(REMOVED_SUFFIX) || is_orphan(image, &path).await;
            if !is_stray {
                continue;
            }
            match fs::remove_dir_all(&path).await {
                Ok(()) => tracing::info!(folder = %path.display(), "removed a deleted partition"),
                Err(error) => {
                    tracing::warn!(folder = %path.display(), %error, "a deleted partition stays");
                }
            }
        }
    }
}

/// Whether a folder is that of a partition whose topic is gone, or whose copies are on other nodes. A
/// folder that does not say whose it is, is nobody's business here.
async fn is_orphan(image: &Image, folder: &Path) -> bool {
    let Ok(Some(owner)) = owner(folder).await else {
        return false;
    };
    let Some(topic) = image.topic_by_id(owner) else {
        return true;
    };
    let name = folder.file_name().and_then(|name| name.to_str());
    let index = name.and_then(|name| name.strip_prefix(&*topic.name)?.strip_prefix('-'));
    let index: Option<i32> = index.and_then(|index| index.parse().ok());
    let state = index.and_then(|index| topic.partition(index));
    state.is_some_and(|state| !state.replicas.contains(&image.node_id))
}

/// The topic that a partition's folder belongs to, if it says so.
async fn owner(folder: &Path) -> io::Result<Option<Uuid>> {
    let content = match fs::read(folder.join(OWNER_FILE)).await {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&content);
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let id = pairs.find(|(key, _)| key.trim() == "topic_id");
    Ok(id.and_then(|(_, id)| parse_id(id.trim())))
}

/// Makes a partition's folder its topic's own before anything is written there. What a topic of
/// the same name has left behind is moved out of the way.
pub(crate) async fn claim_folder(folder: &Path, topic: Uuid) -> io::Result<()> {
    match owner(folder).await? {
        Some(found) if found == topic => return Ok(()),
        Some(_) => {
            let mut aside = folder.as_os_str().to_owned();
            aside.push(format!(
                ".{:016x}{REMOVED_SUFFIX}",
                ringmill_ring::random_u64()
            ));
            tracing::warn!(folder = %folder.display(), "moved an older topic's partition aside");
            fs::rename(folder, &aside).await?;
        }
        None => {}
    }
    fs::create_dir_all(folder).await?;
    if let Some(parent) = folder.parent() {
        // The folder may be one that was made, and not yet durable, before a crash.
        fs::sync_dir(parent).await?;
    }
    let content = format!("version: 0\ntopic_id: {}\n", id_text(topic));
    fs::write_atomic(folder.join(OWNER_FILE), vec![Bytes::from(content)]).await
}
