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

use crate::cluster::image::Image;
use crate::cluster::members::{self, Altered};
use crate::cluster::store::ChangeError;
use crate::replica::Wish;
use crate::router::{Answer, Call, Result};
use crate::shard::Shard;

/// How often leaders look for followers that are out of sync, and ask again for what was not
/// answered.
const TICK: Duration = Duration::from_millis(200);

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
        let wanted = wishes.iter().map(altered).collect();
        let Answer::Altered(results) = self.ask(0, Call::Alter(wanted)).await else {
            unreachable!("a change was asked for");
        };
        for (wish, result) in wishes.iter().zip(results) {
            match result {
                Ok(()) => {}
                Err(ErrorCode::IneligibleReplica) => self.wish(wish.hosted.on_ineligible()),
                // The news of what is so are on their way, or the next tick asks again.
                Err(error) => {
                    let folder = wish.hosted.log.dir().display();
                    tracing::debug!(%folder, ?error, "the replicas in sync stay as they are");
                }
            }
        }
    }

    /// Changes partitions as their leaders on this node want; on core 0.
    pub(crate) async fn alter_partitions(self: &Rc<Self>, all: Vec<Altered>) -> Vec<Result<()>> {
        let count = all.len();
        let Some(leader) = self.life_in_cluster() else {
            return vec![Err(ErrorCode::StaleBrokerEpoch); count];
        };
        match self.alter(leader, all).await {
            Ok(results) => results,
            Err(_) => vec![Err(ErrorCode::NotController); count],
        }
    }

    /// Changes partitions as their leader wants; on the node that leads the quorum.
    pub(crate) async fn alter(
        self: &Rc<Self>,
        leader: (NodeId, i64),
        all: Vec<Altered>,
    ) -> std::result::Result<Vec<Result<()>>, ChangeError> {
        let decide = move |image: &Image, _: crate::handlers::Context<'_>| {
            let (mut results, mut commands) = (Vec::new(), Vec::new());
            for wanted in &all {
                results.push(match members::alter(image, leader, wanted) {
                    Ok(command) => {
                        commands.extend(command);
                        Ok(())
                    }
                    Err(error) => Err(error),
                });
            }
            (results, commands)
        };
        self.change(decide).await
    }

    /// This node's number and its life, once it is registered.
    pub(crate) fn life_in_cluster(&self) -> Option<(NodeId, i64)> {
        let node = self.config.node_id;
        let image = self.image();
        image.nodes().get(&node).map(|state| (node, state.epoch))
    }
}

fn altered(wish: &Wish) -> Altered {
    let (id, proposal) = (wish.hosted.id, &wish.proposal);
    let epoch = |node: NodeId| match proposal.joining {
        Some((joining, epoch)) if joining == node => epoch,
        _ => -1,
    };
    Altered {
        topic: id.topic,
        partition: id.index,
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        isr: proposal
            .isr
            .iter()
            .map(|node| (*node, epoch(*node)))
            .collect(),
    }
}
