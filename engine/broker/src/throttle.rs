//! Throttled replication (KIP-73): how much a node gives to, or takes for, copies that are being made,
//! so that they leave room for what is live. [`Throttle`] is the pure part.
//!
//! Kafka measures a rate over the last eleven seconds and lets more through whenever it is below the
//! quota, a whole window's worth at a time. Here each byte takes its time, so that it flows evenly.

use std::sync::atomic::{AtomicU64, Ordering};

use ringmill_replication::partition::NodeId;
use ringmill_wire::error::ErrorCode;

use crate::cluster::image::{Image, Topic};
use crate::config::throttled::ThrottledReplicas;
use crate::partition::{Hosted, LocalFound, ReadWant};
use crate::router::PartitionId;
use crate::shard::Shard;

const MICROS: u128 = 1_000_000;

/// What all cores of a node have let through together.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// When what was let through has taken its time, in microseconds of the node's clock.
    free_at_us: AtomicU64,
}

impl Throttle {
    /// Whether more was let through than there was time for.
    pub(crate) fn is_exceeded(&self, now_us: u64) -> bool {
        // Nothing else hangs on it.
        self.free_at_us.load(Ordering::Relaxed) > now_us
    }

    /// So many bytes were let through, of so many a second.
    pub(crate) fn record(&self, now_us: u64, bytes: usize, per_second: u64) {
        let time = bytes as u128 * MICROS / u128::from(per_second.max(1));
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let add = |free_at: u64| Some(free_at.max(now_us).saturating_add(time));
        // The closure always gives something.
        let _ = self
            .free_at_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Shard {
    /// Reads a partition. A follower that is not in sync is held to the leader's rate, if the leader is
    /// throttled; what those in sync take of it counts as well, as in Kafka.
    pub(crate) async fn read_throttled(&self, hosted: &Hosted, want: &ReadWant) -> LocalFound {
        let Some(follower) = want.follower else {
            return self.read_for_consumer(hosted, want).await;
        };
        let Some(rate) = self.leader_rate(hosted.id) else {
            return hosted.read(want).await;
        };
        let throttle = &self.launched.leader_throttle;
        let is_in_sync = hosted.replica.state().isr.contains(&follower.node);
        if !is_in_sync && throttle.is_exceeded(self.now_us()) {
            let nothing = ReadWant {
                max_bytes: 0,
                ..want.clone()
            };
            return LocalFound {
                is_throttled: true,
                ..hosted.read(&nothing).await
            };
        }
        let found = hosted.read(want).await;
        throttle.record(self.now_us(), found.len, rate);
        found
    }

    /// As [`Hosted::read`], or where to read instead.
    async fn read_for_consumer(&self, hosted: &Hosted, want: &ReadWant) -> LocalFound {
        let Some(node) = self.nearer(hosted, want) else {
            return hosted.read(want).await;
        };
        let nothing = ReadWant {
            max_bytes: 0,
            ..want.clone()
        };
        let found = hosted.read(&nothing).await;
        let is_well = found.error == ErrorCode::None && found.diverging.is_none();
        LocalFound {
            preferred: is_well.then_some(node),
            ..found
        }
    }

    /// A replica in the consumer's rack, unless this node is in it.
    fn nearer(&self, hosted: &Hosted, want: &ReadWant) -> Option<NodeId> {
        let rack = want.rack.as_deref()?;
        let image = self.image();
        let is_near = |node: NodeId| {
            let state = image.nodes().get(&node);
            state.is_some_and(|state| state.rack.as_deref() == Some(rack))
        };
        match is_near(self.config.node_id) {
            true => None,
            false => hosted.replica.nearest(want.offset, is_near),
        }
    }

    /// Whether this node's copy of a partition, which is not in sync, has to wait before it fetches.
    pub(crate) fn must_wait_to_fetch(&self, id: PartitionId) -> bool {
        let is_throttled = self.follower_rate(id).is_some();
        is_throttled && self.launched.follower_throttle.is_exceeded(self.now_us())
    }

    /// So many bytes have come for this node's copy of a partition.
    pub(crate) fn has_fetched(&self, id: PartitionId, bytes: usize) {
        if let Some(rate) = self.follower_rate(id) {
            let throttle = &self.launched.follower_throttle;
            throttle.record(self.now_us(), bytes, rate);
        }
    }

    fn leader_rate(&self, id: PartitionId) -> Option<u64> {
        let image = self.image();
        let of = |topic: &Topic| topic.config.leader_throttled.clone();
        rate(
            &image,
            image.live.leader_throttle,
            id,
            self.config.node_id,
            of,
        )
    }

    fn follower_rate(&self, id: PartitionId) -> Option<u64> {
        let image = self.image();
        let of = |topic: &Topic| topic.config.follower_throttled.clone();
        rate(
            &image,
            image.live.follower_throttle,
            id,
            self.config.node_id,
            of,
        )
    }

    fn now_us(&self) -> u64 {
        self.now().mono_ms * 1000
    }
}

/// The rate that a node's replica of a partition is held to, if it is to any.
fn rate(
    image: &Image,
    rate: Option<u64>,
    id: PartitionId,
    node: NodeId,
    throttled: impl Fn(&Topic) -> ThrottledReplicas,
) -> Option<u64> {
    let rate = rate?;
    let topic = image.topic_by_id(id.topic)?;
    throttled(topic).has(id.index, node).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_idle_time_is_not_saved_up() {
        let throttle = Throttle::default();
        assert!(!throttle.is_exceeded(5));
        let mut now = 10_000_000;
        let mut sent = 0;
        while now < 20_000_000 {
            if !throttle.is_exceeded(now) {
                throttle.record(now, 100_000, 1_000_000);
                sent += 100_000;
            }
            now += 1_000;
        }
        assert!((9_900_000..=10_100_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_rate_of_nearly_nothing_is_none_and_no_overflow() {
        let throttle = Throttle::default();
        throttle.record(u64::MAX - 1, usize::MAX, 0);
        throttle.record(u64::MAX - 1, usize::MAX, 1);
        assert!(throttle.is_exceeded(u64::MAX - 1));
    }
}
