//! The log cleaner of one core: of all compacted partitions that it owns, the filthiest comes next
//! (Kafka's `LogCleanerManager.grabFilthiestCompactedLog`), one at a time.
//!
//! Memory for the keys and the rate of input and output are the broker's settings, shared out among
//! the cores. What a run needs is in the log ([`ringmill_log::Partition::clean`]); here is when.

use std::rc::Rc;

use ringmill_log::{CleanError, Cleanable, Cleaned, Cleaner};
use ringmill_ring::sleep;

use crate::limits;
use crate::partition::Hosted;
use crate::shard::Shard;

impl Shard {
    /// Keeps the core's compacted partitions clean, for ever.
    pub(crate) async fn keep_clean(self: Rc<Self>) {
        let config = &self.config.cleaner;
        if !config.enabled {
            return;
        }
        let cores = self.launched.cores;
        let map_bytes = limits::share(config.map_bytes, cores) as usize;
        let cleaner = Cleaner::new(map_bytes, config.bytes_per_second / cores as f64);
        loop {
            sleep(config.backoff).await;
            while let Some((hosted, found)) = self.filthiest().await {
                if !self.clean(&cleaner, &hosted, found).await {
                    break;
                }
            }
            if self.is_stopping() {
                return;
            }
        }
    }

    /// The partition that compaction is due for most.
    async fn filthiest(&self) -> Option<(Rc<Hosted>, Cleanable)> {
        let mut filthiest: Option<(Rc<Hosted>, Cleanable)> = None;
        for hosted in self.all_hosted() {
            if self.is_stopping() {
                return None;
            }
            let Some(config) = hosted.log.config().compaction else {
                continue;
            };
            let found = hosted.log.cleanable(self.now().wall_ms).await;
            let Some(found) = found.filter(|found| found.is_due(&config)) else {
                continue;
            };
            let rank = |found: &Cleanable| (found.is_overdue, found.ratio());
            if filthiest
                .as_ref()
                .is_none_or(|(_, other)| rank(other) < rank(&found))
            {
                filthiest = Some((hosted, found));
            }
        }
        filthiest
    }

    /// Cleans a partition; returns whether to go on with the next one at once.
    async fn clean(&self, cleaner: &Cleaner, hosted: &Hosted, found: Cleanable) -> bool {
        let folder = hosted.log.dir().display().to_string();
        match hosted.log.clean(cleaner, self.now().wall_ms).await {
            Ok(Some(done)) => {
                self.metrics.logs_cleaned.one();
                self.metrics.cleaner_bytes_read.add(done.bytes_read);
                self.metrics.cleaner_bytes_written.add(done.bytes_written);
                self.metrics
                    .cleaner_bytes_freed
                    .add(done.bytes_before.saturating_sub(done.bytes_written));
                tell(&folder, found, &done);
                true
            }
            Ok(None) => false,
            Err(error @ CleanError::Uncleanable { .. } | error @ CleanError::Io(_)) => {
                self.metrics.logs_uncleanable.one();
                tracing::warn!(
                    folder, %error,
                    "the partition is not cleaned any more, and grows, until the broker starts again",
                );
                true
            }
            Err(CleanError::Closed) => true,
            Err(error) => {
                tracing::warn!(folder, %error, "not cleaned, later again");
                false
            }
        }
    }
}

fn tell(folder: &str, found: Cleanable, done: &Cleaned) {
    tracing::info!(
        folder,
        dirty_ratio = found.ratio(),
        segments = done.segments.0,
        into = done.segments.1,
        bytes_read = done.bytes_read,
        bytes_before = done.bytes_before,
        bytes_written = done.bytes_written,
        records = done.records.records,
        retained = done.records.retained,
        keyless = done.records.keyless,
        keys = done.keys,
        map_bytes = done.map_bytes,
        took_ms = done.took.as_millis() as u64,
        first_dirty = done.first_dirty,
        "compacted a partition",
    );
}
