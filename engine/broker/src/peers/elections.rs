//! The elections that the quorum's leader holds by itself: preferred leaders take back what is theirs
//! (`auto.leader.rebalance.enable`), and where a topic's settings allow it, anybody who is there leads
//! what nobody leads (`unclean.leader.election.enable`). On core 0.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::spawn;

use crate::cluster::image::Image;
use crate::cluster::members::{self, Elected};
use crate::handlers::Context;
use crate::shard::Shard;

/// How many leaders change at a time; Kafka's `QuorumController.MAX_ELECTIONS_PER_IMBALANCE`.
const MAX_AT_A_TIME: usize = 1_000;

/// When elections were held last.
#[derive(Default)]
pub(super) struct Elections {
    preferred: Timer,
    unclean: Timer,
}

/// What happens every now and then, by the milliseconds of the core's clock.
#[derive(Default)]
struct Timer {
    last_ms: Cell<u64>,
}

impl Timer {
    fn is_due(&self, now_ms: u64, interval: Duration) -> bool {
        let passed = now_ms.saturating_sub(self.last_ms.get());
        let is_due = u128::from(passed) >= interval.as_millis();
        if is_due {
            self.last_ms.set(now_ms);
        }
        is_due
    }
}

impl Elections {
    /// This node begins to lead.
    pub(super) fn begin(&self, now_ms: u64) {
        self.preferred.last_ms.set(now_ms);
        self.unclean.last_ms.set(now_ms);
    }
}

impl Shard {
    /// Holds the elections that are due.
    pub(super) fn hold_elections(self: &Rc<Self>) {
        let (now_ms, nodes) = (self.now().mono_ms, &self.config.nodes);
        let elections = &self.nodes.leadership.elections;
        if let Some(interval) = nodes.rebalance
            && elections.preferred.is_due(now_ms, interval)
        {
            self.hold(members::balance, "preferred leaders lead again");
        }
        if elections.unclean.is_due(now_ms, nodes.unclean_election) {
            self.elect_uncleanly();
        }
    }

    /// Has anybody lead who is there, where nobody does and the topic's settings allow it.
    pub(crate) fn elect_uncleanly(self: &Rc<Self>) {
        self.hold(
            members::elect_uncleanly,
            "partitions are led by who may lack acknowledged records",
        );
    }

    fn hold(self: &Rc<Self>, elect: fn(&Image, usize) -> Elected, what: &'static str) {
        let shard = Rc::clone(self);
        spawn(async move {
            loop {
                let decide = move |image: &Image, _: Context<'_>| {
                    let elected = elect(image, MAX_AT_A_TIME);
                    (elected.count, elected.commands)
                };
                let count = match shard.change(decide).await {
                    Ok((count, _)) => count,
                    // Another leads, or this node does again in a while.
                    Err(error) => return tracing::debug!(%error, "no election is held"),
                };
                if count > 0 {
                    tracing::info!(count, "{what}");
                }
                if count < MAX_AT_A_TIME {
                    return;
                }
            }
        });
    }
}
