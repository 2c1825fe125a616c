//! What a partition's leader knows of its followers: how far each has come, up to where the log is
//! safe (the high watermark), and who is in sync. Pure.
//!
//! A follower's *durable end* is what counts: up to there its log survives whatever the topic's
//! durability promises. The high watermark is the smallest durable end of all who are, or may be, in
//! sync: a follower that was proposed for the ISR counts from the proposal on, one that was proposed
//! to leave counts until the cluster has agreed ([KIP-497], the "maximal ISR"). While fewer are in
//! sync than `min.insync.replicas` demands, it stands still, which is what makes the eligible leader
//! replicas of [KIP-966] eligible.
//!
//! [KIP-497]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-497
//! [KIP-966]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-966

use ringmill_ring::planted;

use super::NodeId;
use super::follower::{Answer, Fetch};
use super::state::PartitionState;

/// A follower, as its fetches tell.
#[derive(Debug, Clone)]
struct Follower {
    node: NodeId,
    /// The cluster lets it take part: it is not fenced, and is not about to stop.
    is_eligible: bool,
    /// Of its last fetch: which of the node's lives it was in.
    node_epoch: i64,
    /// None before its first fetch in this leader epoch.
    durable_end: Option<i64>,
    /// When it last had all that there was, as far as is known. Whoever begins in sync is believed to
    /// have it then.
    caught_up_ms: Option<u64>,
    /// The last fetch, and where the leader's log ended then.
    last_fetch: Option<(u64, i64)>,
}

impl Follower {
    fn lags_at_most(&self, max_ms: u64, now_ms: u64) -> bool {
        self.caught_up_ms
            .is_some_and(|at| now_ms.saturating_sub(at) <= max_ms)
    }
}

/// An ISR that the leader asks the cluster for (AlterPartition).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// What it is a change of.
    pub partition_epoch: i32,
    /// Who is to be in sync.
    pub isr: Vec<NodeId>,
    /// Of them, who is new, and in which life (KIP-903): the cluster refuses one that has ended, for
    /// in the next one the copy may be gone.
    pub joining: Option<(NodeId, i64)>,
}

/// Why a follower's fetch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchRefused {
    /// The node has no copy.
    NotAReplica,
    /// It is from an earlier life of the node.
    StaleNode,
}

/// One leadership: from an election to the next.
#[derive(Debug)]
pub struct Leader {
    node: NodeId,
    epoch: i32,
    partition_epoch: i32,
    replicas: usize,
    min_isr: usize,
    isr: Vec<NodeId>,
    proposed: Option<Proposal>,
    /// The proposal is not wanted any more.
    is_withdrawn: bool,
    followers: Vec<Follower>,
    /// Where the log ended when the leadership began: no follower is in sync before it.
    epoch_start: i64,
    end: i64,
    durable_end: i64,
    high_watermark: i64,
    max_lag_ms: u64,
    begun_ms: u64,
}

impl Leader {
    /// `node` was elected. Its log ends at `end`, is durable up to `durable_end`, and was last known
    /// to be safe up to `high_watermark`.
    ///
    /// # Panics
    /// If `state` says that somebody else leads.
    pub fn new(
        node: NodeId,
        state: &PartitionState,
        min_isr: usize,
        (end, durable_end, high_watermark): (i64, i64, i64),
        max_lag_ms: u64,
        now_ms: u64,
    ) -> Self {
        assert_eq!(state.leader, Some(node), "somebody else leads");
        let mut leader = Self {
            node,
            epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            replicas: 0,
            min_isr,
            isr: Vec::new(),
            proposed: None,
            is_withdrawn: false,
            followers: Vec::new(),
            epoch_start: end,
            end,
            durable_end,
            high_watermark: high_watermark.min(end),
            max_lag_ms,
            begun_ms: now_ms,
        };
        leader.take(state, now_ms);
        leader
    }

    /// The leader's epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Everything before it is safe.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Whether the high watermark may still be behind what an earlier leader's was: everything that
    /// was visible was here when this leadership began, but not all of it is known to be safe yet
    /// (KIP-207).
    pub fn may_be_behind(&self) -> bool {
        self.high_watermark < self.epoch_start
    }

    /// Who is in sync, as the cluster has agreed.
    pub fn isr(&self) -> &[NodeId] {
        &self.isr
    }

    /// Whether so many are in sync that something can be acknowledged with `acks=all`.
    pub fn has_min_isr(&self) -> bool {
        let min_isr = self.min_isr.clamp(1, self.replicas.max(1));
        self.isr.len() >= min_isr || planted("any-isr-will-do")
    }

    /// Whether nobody else who is in sync has fetched for so long, though there is somebody: most
    /// likely this node is cut off from the cluster, which has elected another meanwhile. Whether they
    /// are all dead instead, the cluster would have told.
    pub fn is_cut_off(&self, limit_ms: u64, now_ms: u64) -> bool {
        let others = self.followers.iter().filter(|f| self.isr.contains(&f.node));
        let heard = others.map(|f| f.last_fetch.map_or(self.begun_ms, |(at, _)| at));
        let last = heard.max();
        last.is_some_and(|last| now_ms.saturating_sub(last.max(self.begun_ms)) > limit_ms)
    }

    /// Who is in sync, or may be as far as this leader knows.
    fn is_in_maximal_isr(&self, node: NodeId) -> bool {
        let proposed = self.proposed.as_ref();
        let proposed = proposed.filter(|_| !planted("joiners-do-not-count"));
        self.isr.contains(&node) || proposed.is_some_and(|proposed| proposed.isr.contains(&node))
    }

    /// The topic demands another number of in-sync replicas.
    pub fn set_min_isr(&mut self, min_isr: usize) -> Option<i64> {
        self.min_isr = min_isr;
        self.advance(None)
    }

    /// The cluster says this of the partition, in this leader epoch. What is older than what is
    /// known is passed over. Gives the high watermark if it has moved.
    ///
    /// # Panics
    /// If it is of another leader epoch.
    pub fn on_state(&mut self, state: &PartitionState, now_ms: u64) -> Option<i64> {
        assert_eq!(state.leader_epoch, self.epoch, "another leadership");
        if state.partition_epoch <= self.partition_epoch {
            return None;
        }
        self.take(state, now_ms);
        self.advance(Some(now_ms))
    }

    fn take(&mut self, state: &PartitionState, now_ms: u64) {
        self.partition_epoch = state.partition_epoch;
        self.proposed = None;
        self.is_withdrawn = false;
        let was_in = std::mem::replace(&mut self.isr, state.isr.clone());
        self.replicas = state.replicas.len();
        let before = std::mem::take(&mut self.followers);
        let others = state.replicas.iter().filter(|node| **node != self.node);
        self.followers = others
            .map(|node| {
                let known = before.iter().find(|follower| follower.node == *node);
                let mut follower = known.cloned().unwrap_or(Follower {
                    node: *node,
                    is_eligible: true,
                    node_epoch: i64::MIN,
                    durable_end: None,
                    caught_up_ms: None,
                    last_fetch: None,
                });
                match (state.isr.contains(node), was_in.contains(node)) {
                    (true, _) => _ = follower.caught_up_ms.get_or_insert(now_ms),
                    // It is not about to come into sync before it has caught up again.
                    (false, true) => (follower.caught_up_ms, follower.last_fetch) = (None, None),
                    (false, false) => {}
                }
                follower
            })
            .collect();
    }

    /// The cluster lets a node take part, or does not.
    pub fn set_eligible(&mut self, node: NodeId, is_eligible: bool, now_ms: u64) -> Option<i64> {
        let follower = self.followers.iter_mut().find(|f| f.node == node)?;
        follower.is_eligible = is_eligible;
        self.advance(Some(now_ms))
    }

    /// The leader's own log ends here now. Gives the high watermark if it has moved.
    pub fn on_own_end(&mut self, end: i64, durable_end: i64, now_ms: u64) -> Option<i64> {
        self.end = end;
        self.durable_end = durable_end;
        self.advance(Some(now_ms))
    }

    /// A follower, in the life that `node_epoch` tells, fetches from `offset` on and has everything
    /// before `durable_end` safe. Gives the high watermark if it has moved, and a proposal if the
    /// follower has caught up.
    ///
    /// # Errors
    /// It is not to be believed.
    pub fn on_fetch(
        &mut self,
        (node, node_epoch): (NodeId, i64),
        offset: i64,
        durable_end: i64,
        now_ms: u64,
    ) -> Result<(Option<i64>, Option<Proposal>), FetchRefused> {
        let end = self.end;
        let follower = self.followers.iter_mut().find(|f| f.node == node);
        let follower = follower.ok_or(FetchRefused::NotAReplica)?;
        if node_epoch < follower.node_epoch {
            return Err(FetchRefused::StaleNode);
        }
        if node_epoch > follower.node_epoch {
            follower.node_epoch = node_epoch;
            follower.last_fetch = None;
        }
        // Whoever has what there was at its last fetch was up to date then.
        match follower.last_fetch {
            _ if offset >= end => follower.caught_up_ms = Some(now_ms),
            Some((at, then)) if offset >= then => {
                follower.caught_up_ms = follower.caught_up_ms.max(Some(at));
            }
            _ => {}
        }
        follower.last_fetch = Some((now_ms, end));
        follower.durable_end = Some(durable_end.min(offset));
        let moved = self.advance(Some(now_ms));
        Ok((moved, self.expand(node)))
    }

    /// Proposes a follower that has everything that is safe.
    fn expand(&mut self, node: NodeId) -> Option<Proposal> {
        if self.proposed.is_some() || self.isr.contains(&node) {
            return None;
        }
        let follower = self.followers.iter().find(|f| f.node == node)?;
        let durable_end = follower.durable_end?;
        let has_all = durable_end >= self.high_watermark && durable_end >= self.epoch_start;
        let has_all = has_all || planted("expand-behind");
        let joining = Some((node, follower.node_epoch));
        let isr = (has_all && follower.is_eligible).then(|| [&self.isr[..], &[node]].concat())?;
        Some(self.propose(isr, joining))
    }

    /// Proposes to go on without followers that have been behind for too long.
    pub fn on_tick(&mut self, now_ms: u64) -> Option<Proposal> {
        if self.proposed.is_some() {
            return None;
        }
        let stays = |node: &NodeId| {
            let follower = self
                .followers
                .iter()
                .find(|follower| follower.node == *node);
            follower.is_none_or(|follower| {
                let has_all = follower.durable_end.is_some_and(|end| end >= self.end);
                has_all || follower.lags_at_most(self.max_lag_ms, now_ms)
            })
        };
        let isr: Vec<NodeId> = self.isr.iter().copied().filter(stays).collect();
        if planted("shrink-alone") {
            self.isr.clone_from(&isr);
        }
        (isr.len() < self.isr.len()).then(|| self.propose(isr, None))
    }

    fn propose(&mut self, isr: Vec<NodeId>, joining: Option<(NodeId, i64)>) -> Proposal {
        let proposal = Proposal {
            leader_epoch: self.epoch,
            partition_epoch: self.partition_epoch,
            isr,
            joining,
        };
        self.proposed = Some(proposal.clone());
        proposal
    }

    /// What waits for the cluster's answer: to be sent again while none comes. That a proposal is
    /// out of date is no answer: an earlier copy of it may be what has made it so. The news of it
    /// are on their way.
    pub fn proposed(&self) -> Option<Proposal> {
        let proposed = self.proposed.clone()?;
        match self.is_withdrawn {
            false => Some(proposed),
            true => Some(Proposal {
                isr: self.isr.clone(),
                joining: None,
                ..proposed
            }),
        }
    }

    /// The cluster does not let the follower in that was proposed. An earlier copy of the proposal
    /// may still come to the cluster, when it would: so the follower counts until the cluster has
    /// agreed to the ISR as it is, and with that passes over what came before. Gives the proposal of
    /// that.
    pub fn on_ineligible(&mut self) -> Option<Proposal> {
        self.is_withdrawn = self.proposed.is_some();
        self.proposed()
    }

    /// Who of those in sync that are near, and have everything up to `offset`, has most of the log: a
    /// consumer may as well read there (KIP-392).
    pub fn nearest(&self, offset: i64, is_near: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let serves = |follower: &&Follower| {
            let is_in_sync = self.isr.contains(&follower.node) && follower.is_eligible;
            is_in_sync && is_near(follower.node)
        };
        let ends = self.followers.iter().filter(serves);
        let ends = ends.filter_map(|follower| Some((follower.durable_end?, follower.node)));
        let best = ends.filter(|(end, _)| *end >= offset).max();
        best.map(|(_, node)| node)
    }

    /// Moves the high watermark as far as it can go.
    fn advance(&mut self, now_ms: Option<u64>) -> Option<i64> {
        if !self.has_min_isr() {
            return None;
        }
        let mut safe = self.durable_end;
        for follower in &self.followers {
            // Whoever is about to come into sync is waited for, else it might never be: what it has
            // would always be a little behind what is safe without it.
            let is_close = now_ms.is_some_and(|now| follower.lags_at_most(self.max_lag_ms, now));
            let joins = follower.is_eligible && is_close && follower.last_fetch.is_some();
            let joins = joins && !planted("joiners-do-not-count");
            if self.is_in_maximal_isr(follower.node) {
                safe = safe.min(follower.durable_end?);
            } else if joins {
                safe = safe.min(follower.durable_end.unwrap_or(0));
            }
        }
        let moved = safe > self.high_watermark;
        self.high_watermark = match planted("high-watermark-goes-back") {
            true => safe,
            false => self.high_watermark.max(safe),
        };
        moved.then_some(self.high_watermark)
    }
}

/// Why a follower gets no records: its log has parted from the leader's, which holds the offsets
/// `start..end`, or it asks for what is not there. `end_of_epoch` is what OffsetForLeaderEpoch says of
/// the follower's last epoch: the largest one here that is not above it, and its end; of one that is
/// older than all, where the oldest begins; nothing if there is none at all. None if the logs agree as
/// far as both go.
pub fn parting(
    fetch: &Fetch,
    (start, end): (i64, i64),
    end_of_epoch: Option<(i32, i64)>,
) -> Option<Answer> {
    if fetch.offset < start {
        return Some(Answer::OutOfRange { start, end });
    }
    if fetch.last_epoch >= 0 && !planted("partings-unseen") {
        // All records here are of later epochs.
        let (epoch, end_offset) = end_of_epoch.unwrap_or((-1, start));
        if epoch < fetch.last_epoch || end_offset < fetch.offset {
            return Some(Answer::Diverging { epoch, end_offset });
        }
    }
    (fetch.offset > end).then_some(Answer::OutOfRange { start, end })
}

#[cfg(test)]
#[path = "leader_test.rs"]
mod tests;
