//! A partition as the cluster's metadata says it: its replicas, which of them are in sync, who leads,
//! and how that may change. Pure.
//!
//! In-sync replicas (ISR) have every record that was acknowledged. Eligible leader replicas (ELR,
//! KIP-966) have left the ISR while it was too small for anything to be acknowledged
//! (`min.insync.replicas`), so they have every such record as well: any member of either may lead
//! without a loss. Nobody else may, unless somebody asks for an unclean election.
//!
//! Whether a node that comes back may have lost what it had acknowledged is the caller's to say
//! ([`Change::lossy`]): a disk that was replaced, or a process that ended without a clean stop where
//! acknowledgements do not wait for the disk.

use ringmill_ring::planted;
use thiserror::Error;

use super::NodeId;

/// A partition's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PartitionState {
    /// Who has or gets a copy; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Of them, who is new in a reassignment that goes on.
    pub adding: Vec<NodeId>,
    /// Of them, who leaves when it ends.
    pub removing: Vec<NodeId>,
    /// In-sync replicas.
    pub isr: Vec<NodeId>,
    /// Eligible leader replicas (KIP-966); none while the ISR is large enough.
    pub elr: Vec<NodeId>,
    /// Who leads, if anybody can.
    pub leader: Option<NodeId>,
    /// Who led last, while nobody is in sync any more.
    pub last_leader: Option<NodeId>,
    /// Grows with each new leader.
    pub leader_epoch: i32,
    /// Grows with each change.
    pub partition_epoch: i32,
    /// The leader was elected uncleanly and has not said yet that it is done with what follows.
    pub is_recovering: bool,
}

impl PartitionState {
    /// A partition that begins, on replicas of which `may_lead` tells those that can take part now. If
    /// none can, nobody ever may without an unclean election: choose others.
    pub fn new(replicas: Vec<NodeId>, may_lead: impl Fn(NodeId) -> bool) -> Self {
        let isr: Vec<NodeId> = replicas.iter().copied().filter(|r| may_lead(*r)).collect();
        Self {
            leader: isr.first().copied(),
            isr,
            replicas,
            ..Self::default()
        }
    }

    /// The replicas that stay when a reassignment has ended.
    pub fn target(&self) -> Vec<NodeId> {
        without(&self.replicas, &self.removing)
    }

    /// The replicas as they were before a reassignment.
    pub fn original(&self) -> Vec<NodeId> {
        without(&self.replicas, &self.adding)
    }

    /// Whether replicas come or go.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Whether the leader is the one that was meant to be.
    pub fn is_preferred_leader(&self) -> bool {
        self.leader.is_some() && self.leader == self.replicas.first().copied()
    }
}

fn without(all: &[NodeId], gone: &[NodeId]) -> Vec<NodeId> {
    let stay = all.iter().copied();
    stay.filter(|node| !gone.contains(node)).collect()
}

/// Who may be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The leader stays if it can; else anybody without a loss.
    Online,
    /// The first replica, if it can without a loss.
    Preferred,
    /// Anybody, with a loss if need be (`unclean.leader.election.enable`).
    Unclean,
}

/// The only nodes that have everything would have to give it up: the change has to wait until others
/// are in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the only replicas that have everything would lose their copies")]
pub struct OnlyCopies;

/// A change of a partition, as far as it is decided by whoever wants it; [`Change::build`] decides
/// the rest.
pub struct Change<'a> {
    before: &'a PartitionState,
    /// So many in-sync replicas are needed for an acknowledgement.
    min_isr: usize,
    may_lead: &'a dyn Fn(NodeId) -> bool,
    election: Election,
    lossy: &'a [NodeId],
    is_new_epoch: bool,
    begins_anew: bool,
    next: PartitionState,
}

impl<'a> Change<'a> {
    /// Nothing yet. `may_lead` tells which nodes can serve now. `min_isr` is what the topic demands;
    /// more than there are replicas cannot be.
    pub fn of(
        before: &'a PartitionState,
        min_isr: usize,
        may_lead: &'a dyn Fn(NodeId) -> bool,
    ) -> Self {
        Self {
            before,
            min_isr: min_isr.clamp(1, before.replicas.len().max(1)),
            may_lead,
            election: Election::Online,
            lossy: &[],
            is_new_epoch: false,
            begins_anew: false,
            next: before.clone(),
        }
    }

    /// Who may be elected.
    pub fn election(mut self, election: Election) -> Self {
        self.election = election;
        self
    }

    /// The leader says that these are in sync. It may say what is so already, to have what it said
    /// before passed over: that begins a new partition epoch, too.
    pub fn isr(mut self, isr: Vec<NodeId>) -> Self {
        self.next.isr = isr;
        self.is_new_epoch = true;
        self
    }

    /// These are not in sync any more: they are out of reach.
    pub fn leave(mut self, gone: &[NodeId]) -> Self {
        self.next.isr = without(&self.next.isr, gone);
        self
    }

    /// These may have lost what they had acknowledged: they are no more than a place for a copy.
    pub fn lossy(mut self, nodes: &'a [NodeId]) -> Self {
        self.lossy = nodes;
        self.next.isr = without(&self.next.isr, nodes);
        self
    }

    /// Whoever leads begins anew, in a leader epoch of its own: what followers have said before, and may
    /// still be on its way, counts no more.
    pub fn begin_anew(mut self) -> Self {
        self.begins_anew = true;
        self
    }

    /// The leader is done with what follows an unclean election.
    pub fn recovered(mut self) -> Self {
        self.next.is_recovering = false;
        self
    }

    /// The copies go to these nodes, in this order; those of now stay until all of these are in
    /// sync (KIP-455). So do those that a reassignment was adding which is given up for this one, for
    /// they may be the only ones in sync; taken back, this one takes them back, too.
    pub fn reassign(mut self, target: &[NodeId]) -> Self {
        let before = self.before;
        let given_up = without(&before.adding, target);
        self.next.adding = without(target, &before.original());
        self.next.adding.extend_from_slice(&given_up);
        self.next.removing = without(&before.replicas, target);
        self.next.adding.sort_unstable();
        self.next.removing.sort_unstable();
        self.next.replicas = target.to_vec();
        self.next.replicas.extend_from_slice(&self.next.removing);
        self
    }

    /// A reassignment that goes on is taken back.
    ///
    /// # Errors
    /// [`OnlyCopies`], unless the election may be an unclean one.
    pub fn cancel_reassignment(mut self) -> Result<Self, OnlyCopies> {
        let before = self.before;
        self.next.replicas = before.original();
        self.next.adding = Vec::new();
        self.next.removing = Vec::new();
        let safe = match before.isr.is_empty() {
            true => &before.elr,
            false => &before.isr,
        };
        let stays = safe.iter().any(|node| self.next.replicas.contains(node));
        if !safe.is_empty() && !stays && self.election != Election::Unclean {
            return Err(OnlyCopies);
        }
        let replicas = &self.next.replicas;
        self.next.isr.retain(|node| replicas.contains(node));
        Ok(self)
    }

    /// The partition after the change; none if nothing changes.
    pub fn build(mut self) -> Option<PartitionState> {
        self.end_reassignment();
        self.keep_eligible();
        self.elect();
        let (before, next) = (self.before, &mut self.next);
        let lost_one = before.replicas.iter().any(|r| !next.replicas.contains(r));
        // A replica that was taken out must not be believed by a leader that does not know yet.
        if next.leader != before.leader || lost_one || self.begins_anew {
            next.leader_epoch += 1;
        }
        if next == before && !self.is_new_epoch {
            return None;
        }
        next.partition_epoch += 1;
        Some(self.next)
    }

    /// All that are to have a copy have one: those who are to go may.
    fn end_reassignment(&mut self) {
        let next = &mut self.next;
        if !next.is_reassigning() {
            return;
        }
        let target = next.target();
        let is_done = !target.is_empty() && target.iter().all(|node| next.isr.contains(node));
        if is_done {
            next.isr = without(&next.isr, &next.removing);
            next.replicas = target;
            next.adding = Vec::new();
            next.removing = Vec::new();
        }
    }

    /// Who leaves an ISR that is too small to acknowledge anything keeps all that was acknowledged.
    fn keep_eligible(&mut self) {
        let (before, next) = (self.before, &mut self.next);
        if next.isr.len() >= self.min_isr {
            next.elr = Vec::new();
            return;
        }
        // Who left before the ISR was too small, if `min.insync.replicas` has changed since, may lack
        // what was acknowledged without it.
        let is_old = before.isr.len() >= self.min_isr;
        let mut elr = if is_old {
            Vec::new()
        } else {
            before.elr.clone()
        };
        elr.extend(before.isr.iter().filter(|node| !before.elr.contains(node)));
        elr.retain(|node| {
            let is_other = !next.isr.contains(node) && !self.lossy.contains(node);
            is_other && next.replicas.contains(node)
        });
        next.elr = elr;
    }

    fn elect(&mut self) {
        let leader = self.clean_leader().map(|leader| (leader, true));
        let leader = leader.or_else(|| self.unclean_leader().map(|leader| (leader, false)));
        let next = &mut self.next;
        match leader {
            Some((leader, true)) => {
                if next.isr.is_empty() {
                    next.isr = vec![leader];
                    next.elr.retain(|node| *node != leader);
                }
                if next.isr.len() >= self.min_isr {
                    next.elr = Vec::new();
                }
                next.leader = Some(leader);
                next.last_leader = None;
            }
            Some((leader, false)) => {
                next.isr = vec![leader];
                next.elr = Vec::new();
                next.leader = Some(leader);
                next.last_leader = None;
                next.is_recovering = true;
            }
            None => {
                next.last_leader = self.before.leader.or(self.before.last_leader);
                next.leader = None;
            }
        }
    }

    /// Whether a replica has all that was acknowledged, and can serve.
    fn is_safe(&self, node: NodeId) -> bool {
        let next = &self.next;
        let has_all = next.isr.contains(&node) || next.isr.is_empty() && next.elr.contains(&node);
        has_all && (self.may_lead)(node)
    }

    fn clean_leader(&self) -> Option<NodeId> {
        let first = self.next.replicas.first().copied();
        let preferred = first.filter(|_| self.election == Election::Preferred);
        let replicas = self.next.replicas.iter().copied();
        let mut candidates = preferred
            .into_iter()
            .chain(self.before.leader)
            .chain(replicas);
        candidates.find(|node| self.next.replicas.contains(node) && self.is_safe(*node))
    }

    fn unclean_leader(&self) -> Option<NodeId> {
        if self.election != Election::Unclean && !planted("unclean-election") {
            return None;
        }
        // Whoever led last has most.
        let last = self.before.last_leader.or(self.before.leader);
        let replicas = self.next.replicas.iter().copied();
        let mut candidates = last.into_iter().chain(replicas);
        candidates.find(|node| self.next.replicas.contains(node) && (self.may_lead)(*node))
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
