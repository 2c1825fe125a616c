//! Who is in sync: what the leaders of this core want of the metadata, and how it is told to whoever
//! leads the quorum (AlterPartition). The answer that counts is the metadata itself.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;
use ringmill_replication::partition::NodeId;
use ringmill_ring::{Notify, sleep};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_request::{
    BrokerState, PartitionData, TopicData,
};
use ringmill_wire::kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use crate::peers::Leader;
use crate::replica::Wish;
use crate::router::{Answer, Call};
use crate::shard::Shard;

/// How often leaders look for followers that are out of sync, and ask again for what was not
/// answered.
const TICK: Duration = Duration::from_millis(200);
/// How long the quorum's leader may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What a core's leaders want.
#[derive(Default)]
pub(crate) struct Wishes {
    waiting: RefCell<Vec<Wish>>,
    bell: Notify,
}

impl Shard {
    /// A leader wants something of the metadata.
    pub(crate) fn wish(&self, wish: Option<Wish>) {
        if let Some(wish) = wish {
            self.wishes.waiting.borrow_mut().push(wish);
            self.wishes.bell.notify_one();
        }
    }

    /// Looks whether this core's leaders are cut off, and whether its copies are whole, for ever: whoever
    /// tells the metadata may wait for an answer then.
    pub(crate) async fn look_after_copies(self: Rc<Self>) {
        let mut damaged = Vec::new();
        loop {
            sleep(TICK).await;
            let now_ms = self.now().mono_ms;
            let all = self.all_hosted();
            for hosted in &all {
                hosted.look_for_followers(now_ms);
            }
            self.look_for_damage(&all, &mut damaged);
        }
    }

    /// Tells the metadata what this core's leaders want, for ever.
    pub(crate) async fn keep_in_sync(self: Rc<Self>) {
        loop {
            {
                let rung = pin!(self.wishes.bell.notified());
                select(rung, pin!(sleep(TICK))).await;
            }
            let mut wishes = std::mem::take(&mut *self.wishes.waiting.borrow_mut());
            if wishes.is_empty() {
                let now_ms = self.now().mono_ms;
                let all = self.all_hosted();
                wishes = all
                    .iter()
                    .filter_map(|h| h.on_replica_tick(now_ms))
                    .collect();
            }
            if !wishes.is_empty() {
                self.tell(wishes).await;
            }
        }
    }

    async fn tell(self: &Rc<Self>, wishes: Vec<Wish>) {
        let Some((node, epoch)) = self.life_in_cluster() else {
            return;
        };
        let topics = wishes.iter().map(|wish| {
            TopicData::default()
                .with_topic_id(wish.hosted.id.topic)
                .with_partitions(vec![wanted(wish)])
        });
        let request = AlterPartitionRequest::default()
            .with_broker_id(node.into())
            .with_broker_epoch(epoch)
            .with_topics(topics.collect());
        let Answer::Altered(response) = self.ask(0, Call::Alter(Box::new(request))).await else {
            unreachable!("a change was asked for");
        };
        for (wish, topic) in wishes.iter().zip(&response.topics) {
            let code = topic.partitions.first().map(|part| part.error_code);
            // What is told of another is the news of what is so: they are on their way, or the next
            // tick asks again.
            if code == Some(ErrorCode::IneligibleReplica.code()) {
                let withdrawal = wish.hosted.on_ineligible();
                // One that is refused itself waits for its time: it would be again, at once.
                self.wish(withdrawal.filter(|_| wish.proposal.joining.is_some()));
            }
        }
    }

    /// Has whoever leads the quorum change partitions as their leaders here want; on core 0.
    pub(crate) async fn alter(
        self: &Rc<Self>,
        request: AlterPartitionRequest,
    ) -> AlterPartitionResponse {
        let answer = match self.leader() {
            Leader::Here => return self.alter_partitions(request).await,
            Leader::There(leader) => self.peers.call(&leader, &request, ANSWER_TIME).await.ok(),
            Leader::Nobody => None,
        };
        answer.unwrap_or_else(|| {
            AlterPartitionResponse::default().with_error_code(ErrorCode::NotController.code())
        })
    }

    /// This node's number and its life, once it is registered.
    pub(crate) fn life_in_cluster(&self) -> Option<(NodeId, i64)> {
        let node = self.config.node_id;
        let image = self.image();
        image.nodes().get(&node).map(|state| (node, state.epoch))
    }
}

fn wanted(wish: &Wish) -> PartitionData {
    let proposal = &wish.proposal;
    let isr = proposal.isr.iter().map(|node| {
        let epoch = match proposal.joining {
            Some((joining, epoch)) if joining == *node => epoch,
            _ => -1,
        };
        BrokerState::default()
            .with_broker_id((*node).into())
            .with_broker_epoch(epoch)
    });
    PartitionData::default()
        .with_partition_index(wish.hosted.id.index)
        .with_leader_epoch(proposal.leader_epoch)
        .with_partition_epoch(proposal.partition_epoch)
        .with_new_isr_with_epochs(isr.collect())
}
