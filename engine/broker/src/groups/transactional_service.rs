//! The shell of offsets that are committed in transactions: asks the transaction's coordinator first,
//! and brings markers to the groups in the order of their log.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use ringmill_log::EndTxnMarker;
use ringmill_wire::error::ErrorCode;

use super::Claim;
use super::admin::Commit;
use super::service::{Answering, GroupAnswer};
use crate::partition::Hosted;
use crate::router::Result;
use crate::shard::Shard;
use crate::transactions::Producer;
use crate::transactions::verification::{Terms, Verified};

/// A commit as part of a producer's transaction.
#[derive(Debug)]
pub(crate) struct TransactionalCommit {
    /// Which member of the group commits, if the client says.
    pub(crate) claim: Claim,
    pub(crate) commits: Vec<Commit>,
    pub(crate) producer: Producer,
    pub(crate) terms: Terms,
}

impl Shard {
    /// Commits offsets of a group of this core in a transaction.
    pub(super) fn commit_in_transaction(
        self: &Rc<Self>,
        group: String,
        home: i32,
        commit: TransactionalCommit,
    ) -> Answering {
        let TransactionalCommit {
            claim,
            commits,
            producer,
            terms,
        } = commit;
        let shard = Rc::clone(self);
        Box::pin(async move {
            let guard = match shard.verify_group(home, producer, &terms).await {
                Ok(guard) => guard,
                Err(error) => return GroupAnswer::Parts(Err(error)),
            };
            let committed = {
                let mut coordinator = shard.groups.coordinator.borrow_mut();
                let now = shard.now();
                coordinator.commit_in_transaction(now, &group, home, &claim, producer, commits)
            };
            shard.finish_parts(committed, guard).await
        })
    }

    /// Whether a producer may commit offsets of a partition's groups in its transaction.
    async fn verify_group(
        self: &Rc<Self>,
        home: i32,
        producer: Producer,
        terms: &Terms,
    ) -> Result<Verified> {
        let hosted = self.offsets_partition(home)?;
        let retry = ErrorCode::CoordinatorLoadInProgress;
        self.verify(&hosted, producer, terms, retry).await
    }

    /// Appends a marker to a partition of `__consumer_offsets`; its groups hear of it when it is
    /// durable.
    pub(crate) fn end_group_transactions(
        self: &Rc<Self>,
        home: i32,
        hosted: Rc<Hosted>,
        marker: EndTxnMarker,
    ) -> LocalBoxFuture<'static, Result<()>> {
        let append = hosted.append_marker(marker);
        let life = {
            let mut coordinator = self.groups.coordinator.borrow_mut();
            coordinator.transaction_ending(home, marker.producer_id, marker.committed)
        };
        self.settle((home, life), hosted, vec![append], true)
    }
}
