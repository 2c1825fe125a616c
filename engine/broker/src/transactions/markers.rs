//! Telling partitions how a transaction has ended. The decision is durable before this begins; it
//! is written to every partition until all have it, however long that takes, and then the
//! transaction is complete. A partition that was deleted needs no decision.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join, join_all};
use ringmill_log::EndTxnMarker;
use ringmill_replication::partition::NodeId;
use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;

use super::{Markers, TopicPartition};
use crate::cluster::image::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::partition::{Hosted, Ordered};
use crate::peers::Destination;
use crate::router::{Answer, Call, PartitionId, Result};
use crate::shard::Shard;

/// The pause before a marker is tried again: it doubles from the first to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// As above.
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// A marker on its way to the disk.
enum Marking {
    Refused(ErrorCode),
    /// Of an ordinary partition.
    Ordered(Rc<Hosted>, Ordered),
    /// Of a partition of `__consumer_offsets`, whose groups take part.
    Group(LocalBoxFuture<'static, Result<()>>),
}

impl Shard {
    /// Writes a transaction's markers and then that it is complete.
    pub(super) async fn finish_transaction(self: Rc<Self>, markers: Markers) {
        let marker = EndTxnMarker {
            producer_id: markers.producer.id,
            producer_epoch: markers.producer.epoch,
            coordinator_epoch: self.coordinator_epoch(&markers.id),
            committed: markers.committed,
        };
        let mut pause = RETRY_FIRST;
        let mut left = self.write_markers(marker, markers.partitions).await;
        while !left.is_empty() {
            sleep(pause).await;
            pause = RETRY_LONGEST.min(2 * pause);
            left = self.write_markers(marker, left).await;
        }
        loop {
            let complete = {
                let mut coordinator = self.transactions.coordinator.borrow_mut();
                coordinator.marked(self.now(), &markers.id)
            };
            let Some(write) = complete else { return };
            if let Ok(true) = self.store_transaction(write).await {
                return;
            }
            sleep(pause).await;
            pause = RETRY_LONGEST.min(2 * pause);
        }
    }

    /// The epoch of a transactional id's coordinator: its partition's leader epoch.
    fn coordinator_epoch(&self, id: &str) -> i32 {
        let epoch = || {
            let (_, index) = self.home_of_transaction(id).ok()?;
            let image = self.image();
            let partition = image.topic(TRANSACTIONS_TOPIC)?.partition(index)?;
            Some(partition.leader_epoch)
        };
        epoch().unwrap_or(0)
    }

    /// Writes a marker to partitions; gives those that are to be tried again.
    async fn write_markers(
        self: &Rc<Self>,
        marker: EndTxnMarker,
        partitions: Vec<TopicPartition>,
    ) -> Vec<TopicPartition> {
        let (mut asked, mut calls) = (Vec::new(), Vec::new());
        let mut elsewhere: BTreeMap<NodeId, (Destination, Vec<TopicPartition>)> = BTreeMap::new();
        for part in partitions {
            // What is deleted needs no decision.
            let Ok(id) = self.partition_id(&part.topic, part.partition) else {
                continue;
            };
            match self.led_elsewhere(&part.topic, part.partition) {
                Some(to) => {
                    let (_, parts) = elsewhere.entry(to.node).or_insert((to, Vec::new()));
                    parts.push(part);
                }
                None => {
                    asked.push(part);
                    calls.push((self.router.owner(id), (id, marker)));
                }
            }
        }
        let sent = elsewhere
            .values()
            .map(|(to, parts)| self.write_markers_at(to, marker, parts));
        let sent = join_all(sent);
        let written = async { self.scatter(calls, Call::Markers, take_marked).await.await };
        let (written, sent) = join(written, sent).await;
        let parts = elsewhere.into_values().flat_map(|(_, parts)| parts);
        let results = asked.into_iter().chain(parts);
        let results = results.zip(written.into_iter().chain(sent.into_iter().flatten()));
        let failed = results.filter(|(part, result)| match result {
            Ok(()) => false,
            Err(ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced) => {
                let TopicPartition { topic, partition } = part;
                let producer = marker.producer_id;
                tracing::error!(
                    topic,
                    partition,
                    producer,
                    "the log refuses a marker for good"
                );
                false
            }
            Err(error) => {
                let TopicPartition { topic, partition } = part;
                tracing::debug!(topic, partition, ?error, "a marker has to wait");
                true
            }
        });
        failed.map(|(part, _)| part).collect()
    }

    /// Appends markers to partitions of this core, in their order; answered when all are flushed.
    pub(crate) fn begin_markers(
        self: &Rc<Self>,
        markers: Vec<(PartitionId, EndTxnMarker)>,
    ) -> LocalBoxFuture<'static, Answer> {
        // At the start this core's metadata may not count yet when another one's does.
        let begin = |(id, marker): (PartitionId, EndTxnMarker)| match self.hosted(id) {
            Err(error) => Marking::Refused(error),
            Ok(hosted) if &*hosted.topic == OFFSETS_TOPIC => {
                Marking::Group(self.end_group_transactions(id.index, hosted, marker))
            }
            Ok(hosted) => {
                let ordered = hosted.append_marker(marker);
                Marking::Ordered(hosted, ordered)
            }
        };
        let begun: Vec<Marking> = markers.into_iter().map(begin).collect();
        Box::pin(async move {
            let mut marked = Vec::with_capacity(begun.len());
            for marking in begun {
                marked.push(match marking {
                    Marking::Refused(error) => Err(error),
                    Marking::Ordered(hosted, mut ordered) => {
                        hosted.flushed(&mut ordered).await.map(drop)
                    }
                    Marking::Group(stored) => stored.await,
                });
            }
            Answer::Marked(marked)
        })
    }
}

pub(crate) fn take_marked(answer: Answer) -> Vec<Result<()>> {
    match answer {
        Answer::Marked(marked) => marked,
        _ => unreachable!("markers were written"),
    }
}
