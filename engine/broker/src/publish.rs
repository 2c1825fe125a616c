//! Making the metadata known to every core of this node, as it grows; on core 0.
//!
//! Whoever changes the metadata waits until the change has come through here before it answers: a
//! client that has been told of a topic finds it on every core.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use ringmill_ring::Notify;

use crate::cluster::image::Image;
use crate::cluster::store::Store;
use crate::router::Call;
use crate::shard::Shard;

/// Which metadata all cores go by.
#[derive(Default)]
pub(crate) struct Published {
    version: Cell<u64>,
    moved: Notify,
}

impl Published {
    /// Waits until all cores go by metadata of this version, or a later one.
    pub(crate) async fn reached(&self, version: u64) {
        loop {
            let moved = self.moved.notified();
            if self.version.get() >= version {
                return;
            }
            moved.await;
        }
    }

    /// The version that all cores go by.
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    fn set(&self, version: u64) {
        self.version.set(version);
        self.moved.notify_all();
    }
}

impl Shard {
    /// Makes the first metadata known: partitions are opened, and what is left of topics that do not
    /// exist any more goes.
    pub(crate) async fn publish_first(self: &Rc<Self>, image: &Arc<Image>) {
        self.tidy_folders(image).await;
        self.ask_all(|| Call::Prepare(Arc::clone(image))).await;
        self.ask_all(|| Call::Adopt(Arc::clone(image))).await;
        self.ask_all(|| Call::ForgetMissing).await;
        self.published.set(image.version);
    }

    /// Makes everything known that comes after `before`, for ever.
    pub(crate) async fn keep_published(self: Rc<Self>, store: Rc<Store>, mut before: Arc<Image>) {
        loop {
            let image = store.changed(before.version).await;
            self.publish(&before, &image).await;
            self.published.set(image.version);
            before = image;
        }
    }

    async fn publish(self: &Rc<Self>, before: &Image, image: &Arc<Image>) {
        self.ask_all(|| Call::Prepare(Arc::clone(image))).await;
        self.ask_all(|| Call::Adopt(Arc::clone(image))).await;
        let gone: BTreeSet<String> = before
            .topics()
            .filter(|topic| image.topic_by_id(topic.id).is_none())
            .map(|topic| topic.name.to_string())
            .collect();
        if !gone.is_empty() {
            self.ask_all(|| Call::ForgetTopics(gone.clone())).await;
        }
    }
}
