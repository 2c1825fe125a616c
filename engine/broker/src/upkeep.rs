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

use crate::cluster::folder::OWNER_FILE;
use crate::cluster::identity::{id_text, parse_id};
use crate::cluster::image::Image;
use crate::shard::Shard;

/// The longest sleep: so soon the core notices that the broker stops.
const LOOK: Duration = Duration::from_secs(10);
/// The end of the name of a partition's folder that is to be removed (Kafka's).
const REMOVED_SUFFIX: &str = "-delete";
/// The end of the name of one that nobody knows (Kafka's).
const STRAY_SUFFIX: &str = "-stray";

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

    /// Removes the folders of partitions that are deleted, if the broker was interrupted in the middle
    /// of it, and of those that have moved to other nodes. Those of topics that the metadata does not
    /// know are moved aside, as Kafka does: most likely the topics were deleted while this node was
    /// away; but it may be the metadata that has lost something.
    pub(crate) async fn tidy_folders(&self, image: &Image) {
        let folder = &self.config.data_dir;
        let entries = match fs::read_dir(folder).await {
            Ok(entries) => entries,
            Err(error) => return tracing::warn!(%error, "cannot look for deleted partitions"),
        };
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let path = folder.join(&entry.name);
            let standing = match &entry.name {
                name if name.ends_with(REMOVED_SUFFIX) => Standing::Elsewhere,
                name if name.ends_with(STRAY_SUFFIX) => continue,
                _ => Standing::of(image, &path).await,
            };
            let done = match standing {
                Standing::Ours => continue,
                Standing::Elsewhere => fs::remove_dir_all(&path).await,
                Standing::Unknown => move_aside(&path, STRAY_SUFFIX).await,
            };
            let folder = path.display();
            match (done, standing) {
                (Err(error), _) => {
                    tracing::warn!(%folder, %error, "a partition that is not this node's stays");
                }
                (Ok(()), Standing::Unknown) => tracing::warn!(
                    %folder,
                    "the metadata does not know this partition: it is moved aside (-stray), to be removed by you"
                ),
                (Ok(()), _) => {
                    tracing::info!(%folder, "removed a partition that is not here any more")
                }
            }
        }
    }
}

/// What a folder is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A partition that it has a copy of; or it does not say whose it is, and is nobody's business.
    Ours,
    /// It was deleted, or its copies are on other nodes.
    Elsewhere,
    /// There is no such topic.
    Unknown,
}

impl Standing {
    async fn of(image: &Image, folder: &Path) -> Self {
        let Ok(Some(owner)) = owner(folder).await else {
            return Self::Ours;
        };
        let Some(topic) = image.topic_by_id(owner) else {
            return Self::Unknown;
        };
        let name = folder.file_name().and_then(|name| name.to_str());
        let index = name.and_then(|name| name.strip_prefix(&*topic.name)?.strip_prefix('-'));
        let index: Option<i32> = index.and_then(|index| index.parse().ok());
        match index.and_then(|index| topic.partition(index)) {
            Some(state) if !state.replicas.contains(&image.node_id) => Self::Elsewhere,
            _ => Self::Ours,
        }
    }
}

/// Renames a folder out of the way.
async fn move_aside(folder: &Path, suffix: &str) -> io::Result<()> {
    let mut aside = folder.as_os_str().to_owned();
    aside.push(format!(".{:016x}{suffix}", ringmill_ring::random_u64()));
    fs::rename(folder, aside).await
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
        // not at the start, when what is unknown was moved aside: it was deleted just now
        Some(_) => {
            tracing::warn!(folder = %folder.display(), "moved an older topic's partition aside");
            move_aside(folder, REMOVED_SUFFIX).await?;
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
