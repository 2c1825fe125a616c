//! Clients that know of a leadership before this node does. The leader before may send them here
//! (KIP-951) while the metadata that says so is still on its way; refused, they would pause
//! (`retry.backoff.ms`) before they try again. So what comes to somebody who may be the next leader
//! waits a moment for the metadata, and so does what comes for a topic that another node has just told of.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use ringmill_ring::{Instant, Notify, now, timeout};
use ringmill_wire::topic::TopicRef;

use crate::cluster::image::{Image, Topic};
use crate::router::{PartitionId, Result};
use crate::shard::Shard;

/// The metadata of an election is everywhere within this time, or something is wrong. Who is refused pauses
/// for as long (`retry.backoff.ms`), and has waited no longer here.
const KNOWN_WITHIN: Duration = Duration::from_millis(100);
/// So many topics are remembered that were waited for in vain.
const MISSED_MAX: usize = 1_000;

/// What a core knows of leaderships to come.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Partitions that this node is in sync with, and will hardly lead next: it led them before, and
    /// whoever still comes is late, or somebody has waited in vain.
    unlikely: RefCell<HashSet<PartitionId, FixedState>>,
    /// Topics that do not come: somebody has waited in vain.
    missed: RefCell<HashSet<TopicRef, FixedState>>,
    changed: Notify,
}

impl Ahead {
    /// The next metadata counts.
    pub(crate) fn on_image(&self, before: &Image, after: &Image) {
        let mut unlikely = self.unlikely.borrow_mut();
        unlikely.retain(|id| after.topic_by_id(id.topic).is_some());
        for topic in after.topics() {
            let known = before.topic_by_id(topic.id);
            let Some(known) = known.filter(|known| !Arc::ptr_eq(known, topic)) else {
                continue;
            };
            for ((was, is), index) in known.partitions.iter().zip(&topic.partitions).zip(0..) {
                if was.leader_epoch == is.leader_epoch {
                    continue;
                }
                let id = PartitionId {
                    topic: topic.id,
                    index,
                };
                match was.leader == Some(after.node_id) {
                    true => unlikely.insert(id),
                    false => unlikely.remove(&id),
                };
            }
        }
        drop(unlikely);
        let is_missing = |topic: &TopicRef| match topic {
            TopicRef::Name(name) => after.topic(name).is_none(),
            TopicRef::Id(id) => after.topic_by_id(*id).is_none(),
        };
        self.missed.borrow_mut().retain(is_missing);
        self.changed.notify_all();
    }

    fn miss(&self, topic: &TopicRef) {
        let mut missed = self.missed.borrow_mut();
        if missed.len() >= MISSED_MAX {
            missed.clear();
        }
        missed.insert(topic.clone());
    }

    fn may_lead(&self, image: &Image, topic: &Topic, index: i32) -> bool {
        let Some(state) = topic.partition(index) else {
            return false;
        };
        let node = image.node_id;
        let id = PartitionId {
            topic: topic.id,
            index,
        };
        state.leader != Some(node)
            && state.isr.contains(&node)
            && !self.unlikely.borrow().contains(&id)
    }
}

/// How long one request waits at most for what its client seems to know.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<Instant>);

impl Patience {
    fn left(&mut self) -> Duration {
        let until = *self.0.get_or_insert_with(|| now() + KNOWN_WITHIN);
        until.saturating_duration_since(now())
    }
}

impl Shard {
    /// Whether a client that takes this node for the leader may be right in a moment.
    #[inline]
    pub(crate) fn may_lead_soon(&self, topic: &Topic, index: i32) -> bool {
        let led = |leader| leader == Some(self.config.node_id);
        let state = topic.partition(index);
        state.is_some_and(|state| !led(state.leader))
            && self.ahead.may_lead(&self.image(), topic, index)
    }

    /// Waits until this node leads the partition, or surely will not.
    pub(crate) async fn await_leadership(&self, id: PartitionId, patience: &mut Patience) {
        loop {
            let changed = self.ahead.changed.notified();
            let image = self.image();
            let topic = image.topic_by_id(id.topic);
            if !topic.is_some_and(|topic| self.may_lead_soon(topic, id.index)) {
                return;
            }
            if timeout(patience.left(), changed).await.is_err() {
                self.ahead.unlikely.borrow_mut().insert(id);
                return;
            }
        }
    }

    /// The topic that a request names, also if this node is about to learn of it.
    pub(crate) async fn await_topic(
        &self,
        topic: &TopicRef,
        patience: &mut Patience,
    ) -> Result<Arc<Topic>> {
        loop {
            let found = self.topic(topic);
            let is_alone = || self.image().nodes().len() <= 1;
            if found.is_ok() || is_alone() || self.ahead.missed.borrow().contains(topic) {
                return found;
            }
            let changed = self.ahead.changed.notified();
            if timeout(patience.left(), changed).await.is_err() {
                self.ahead.miss(topic);
                return found;
            }
        }
    }

    /// Waits for the next metadata; tells whether it has come in time.
    pub(crate) async fn await_metadata(&self, patience: &mut Patience) -> bool {
        let changed = self.ahead.changed.notified();
        timeout(patience.left(), changed).await.is_ok()
    }
}
