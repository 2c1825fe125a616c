//! What this node is to a partition: its leader, a follower of another node, or nothing yet. The
//! rules are [`ringmill_replication::partition`]'s; here they meet the log.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{Either, select};
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::follower::Follower;
use ringmill_replication::partition::leader::{FetchRefused, Leader, Proposal};
use ringmill_replication::partition::state::PartitionState;
use ringmill_ring::{Notify, now, planted, spawn};
use ringmill_wire::error::ErrorCode;

use crate::partition::Hosted;
use crate::repair::Repair;
use crate::router::Result;
use crate::shard::Shard;
use crate::witness;

/// After so many milliseconds without a fetch of anybody in sync, a leader is cut off. Followers ask
/// ten times a second, and one that is fenced is out of sync sooner.
const CUT_OFF_MS: u64 = 1_500;

/// This node's part in a partition.
#[derive(Debug)]
enum Role {
    /// Nobody is known to lead, or this node has no copy.
    None,
    /// It leads, and nobody else has a copy.
    Alone,
    Leads(Box<Leader>),
    Follows(Follower),
}

/// What the metadata says of a partition while its log is being cut, if anything, and how many are to
/// be in sync.
type Later = Option<(Arc<PartitionState>, usize)>;

/// What the metadata says of a partition, and what follows from it here.
#[derive(Debug)]
pub(crate) struct Replica {
    state: RefCell<Arc<PartitionState>>,
    role: RefCell<Role>,
    /// The log is being cut: what the metadata says meanwhile, and how many are to be in sync,
    /// counts when that is done.
    cutting: RefCell<Option<Later>>,
    /// Of a follower: what its leader says is safe; none before it has said it.
    told_safe: Cell<Option<i64>>,
    /// It leads, but nobody else seems to know.
    is_cut_off: Cell<bool>,
    pub(crate) repair: Repair,
    /// Rings when the role is another, or when the leader is cut off.
    pub(crate) changed: Notify,
}

/// How a log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// So that it ends at this offset.
    End(i64),
    /// It is emptied, and begins at this offset.
    Anew(i64),
    /// As far as it is damaged.
    Damage,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            state: RefCell::default(),
            role: RefCell::new(Role::None),
            cutting: RefCell::new(None),
            is_cut_off: Cell::new(false),
            told_safe: Cell::new(None),
            repair: Repair::new(),
            changed: Notify::new(),
        }
    }

    /// The leader epoch, as far as is known here.
    pub(crate) fn epoch(&self) -> i32 {
        self.state.borrow().leader_epoch
    }

    /// The log is being cut.
    pub(crate) fn is_being_cut(&self) -> bool {
        self.cutting.borrow().is_some()
    }

    /// What the metadata says.
    pub(crate) fn state(&self) -> Arc<PartitionState> {
        Arc::clone(&self.state.borrow())
    }

    /// Whether this node leads.
    pub(crate) fn leads(&self) -> bool {
        matches!(*self.role.borrow(), Role::Alone | Role::Leads(_))
    }

    /// Whom this node follows, if it does.
    pub(crate) fn follower(&self) -> Option<Follower> {
        match *self.role.borrow() {
            Role::Follows(follower) => Some(follower),
            _ => None,
        }
    }

    /// Whether so many are in sync that something can be acknowledged by all.
    pub(crate) fn has_min_isr(&self) -> bool {
        match &*self.role.borrow() {
            Role::Leads(leader) => leader.has_min_isr(),
            _ => true,
        }
    }

    /// Whether the end of what is visible can be told: a new leader's may be behind what consumers
    /// have seen of the one before, until its followers have come as far (KIP-207).
    pub(crate) fn check_high_watermark(&self) -> Result<()> {
        match &*self.role.borrow() {
            Role::Leads(leader) if leader.may_be_behind() && !planted("latest-goes-back") => {
                Err(ErrorCode::OffsetNotAvailable)
            }
            _ => Ok(()),
        }
    }

    /// Whether this node follows, and its leader has said that everything before `end` is safe.
    pub(crate) fn is_told_safe(&self, end: i64) -> bool {
        self.follower().is_some() && self.told_safe.get().is_some_and(|safe| end <= safe)
    }

    /// Who of those in sync that are near has everything up to an offset, if this node leads.
    pub(crate) fn nearest(&self, offset: i64, is_near: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        self.leader(|leader| leader.nearest(offset, is_near))
            .flatten()
    }

    /// Whether this node leads, and seems to be cut off from those that follow.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.get()
    }

    fn leader<T>(&self, work: impl FnOnce(&mut Leader) -> T) -> Option<T> {
        match &mut *self.role.borrow_mut() {
            Role::Leads(leader) => Some(work(leader)),
            _ => None,
        }
    }

    /// Whether a client's idea of the leader epoch is right; -1 is none (KIP-320).
    pub(crate) fn check_epoch(&self, claimed: i32) -> Result<()> {
        match claimed {
            _ if planted("epochs-unchecked") => Ok(()),
            i32::MIN..=-1 => Ok(()),
            _ if claimed < self.epoch() => Err(ErrorCode::FencedLeaderEpoch),
            _ if claimed > self.epoch() => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }
}

/// What a leader wants of the metadata.
pub(crate) struct Wish {
    pub(crate) hosted: Rc<Hosted>,
    pub(crate) proposal: Proposal,
}

impl Hosted {
    /// Only the leader answers.
    pub(crate) fn check_leads(&self) -> Result<()> {
        match self.replica.leads() || planted("anybody-leads") {
            true => Ok(()),
            false => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Only the leader takes records, as long as others follow it: a client that waits for one that
    /// is cut off is better told to look for another.
    pub(crate) fn check_takes(&self) -> Result<()> {
        self.check_leads()?;
        match self.replica.is_cut_off() {
            true => Err(ErrorCode::NotLeaderOrFollower),
            false => Ok(()),
        }
    }

    /// Takes what the metadata says of the partition now. Tells whether this node has begun to
    /// lead it, or has ceased to.
    pub(crate) fn set_state(
        self: &Rc<Self>,
        shard: &Shard,
        state: &Arc<PartitionState>,
        min_isr: usize,
    ) -> Option<Leadership> {
        if let Some(later) = &mut *self.replica.cutting.borrow_mut() {
            *later = Some((Arc::clone(state), min_isr));
            return None;
        }
        let node = shard.config.node_id;
        let now = shard.now().mono_ms;
        let led = self.replica.leads();
        let before = self.replica.state.replace(Arc::clone(state));
        let is_same_epoch = before.leader_epoch == state.leader_epoch;
        let is_new = before.replicas.is_empty();
        if led && is_same_epoch && !is_new && state.leader == Some(node) {
            self.go_on_leading(shard, state, min_isr);
            return None;
        }
        if !is_new && is_same_epoch && before.leader == state.leader {
            return None;
        }
        let known = self.log.high_watermark();
        let known = known.unwrap_or_else(|| self.safe_without_watermark(state, node, led));
        let role = match state.leader {
            Some(leader) if leader == node => self.begin_to_lead(state, min_isr, known, shard),
            _ => match Follower::new(node, state) {
                Some(follower) => Role::Follows(follower),
                None => Role::None,
            },
        };
        if !matches!(role, Role::Alone) {
            // How far the others are is the leader's to say.
            self.log.set_high_watermark(Some(known));
        }
        let watches = matches!(role, Role::Leads(_));
        self.replica.role.replace(role);
        self.replica.told_safe.set(None);
        self.replica.changed.notify_all();
        if watches {
            self.set_eligible(shard, now);
            spawn(Rc::clone(self).watch_own_end(state.leader_epoch));
        }
        match (led, self.replica.leads()) {
            (_, true) => Some(Leadership::Begun),
            (true, false) => Some(Leadership::Ended),
            (false, false) => None,
        }
    }

    /// Up to where the log is safe, if it has no high watermark: because nobody else had a copy, or
    /// because the process ended before the first one was written down.
    fn safe_without_watermark(&self, state: &PartitionState, node: NodeId, led: bool) -> i64 {
        let nobody_else = state.isr == [node] && state.elr.is_empty();
        match led || nobody_else {
            true => self.log.safe_end(),
            false => self.log.log_start_offset(),
        }
    }

    /// `known` is the high watermark as far as it is known.
    fn begin_to_lead(
        &self,
        state: &PartitionState,
        min_isr: usize,
        known: i64,
        shard: &Shard,
    ) -> Role {
        let log = &self.log;
        witness::leads(shard.config.node_id, self.id, state.leader_epoch);
        log.begin_leadership(state.leader_epoch);
        if state.replicas.len() == 1 {
            log.set_high_watermark(None);
            return Role::Alone;
        }
        let ends = (log.log_end_offset(), log.safe_end(), known);
        let (node, lag) = (shard.config.node_id, shard.config.replica_lag_ms);
        let now = shard.now().mono_ms;
        Role::Leads(Box::new(Leader::new(node, state, min_isr, ends, lag, now)))
    }

    /// The same leadership goes on with other replicas, or others in sync.
    fn go_on_leading(self: &Rc<Self>, shard: &Shard, state: &PartitionState, min_isr: usize) {
        let now = shard.now().mono_ms;
        let alone = state.replicas.len() == 1;
        let is_leader = matches!(*self.replica.role.borrow(), Role::Leads(_));
        match (alone, is_leader) {
            (true, false) => {}
            (true, true) => {
                self.replica.role.replace(Role::Alone);
                self.log.set_high_watermark(None);
            }
            (false, true) => {
                self.replica.leader(|leader| {
                    leader.on_state(state, now);
                    leader.set_min_isr(min_isr);
                });
                self.set_eligible(shard, now);
            }
            (false, false) => {
                let known = self.log.safe_end();
                let role = self.begin_to_lead(state, min_isr, known, shard);
                self.replica.role.replace(role);
                self.log.set_high_watermark(Some(known));
                self.set_eligible(shard, now);
                spawn(Rc::clone(self).watch_own_end(state.leader_epoch));
            }
        }
    }

    /// Tells the leader which of the replicas' nodes can take part.
    pub(crate) fn set_eligible(&self, shard: &Shard, now_ms: u64) {
        let image = shard.image();
        let state = self.replica.state();
        self.replica.leader(|leader| {
            for node in &state.replicas {
                leader.set_eligible(*node, image.is_usable(*node), now_ms);
            }
        });
        self.move_high_watermark();
    }

    /// The leader's own log counts as far as it is safe.
    async fn watch_own_end(self: Rc<Self>, epoch: i32) {
        loop {
            let safe = self.log.safe_end();
            let leads = self.replica.leads() && self.replica.epoch() == epoch;
            if !leads {
                return;
            }
            let (end, now_ms) = (self.log.written_end(), now().as_nanos() / 1_000_000);
            self.replica
                .leader(|leader| leader.on_own_end(end, safe, now_ms));
            self.move_high_watermark();
            let changed = self.replica.changed.notified();
            let more = pin!(async {
                self.log.written_beyond(safe).await?;
                self.log.safe_beyond(safe).await
            });
            match select(more, pin!(changed)).await {
                Either::Left((Ok(_), _)) => {}
                // The partition has failed or closed.
                Either::Left((Err(_), _)) => return,
                Either::Right(_) => {}
            }
        }
    }

    /// A follower asks for what comes from `offset` on. Gives what the leader wants of the
    /// metadata now.
    ///
    /// # Errors
    /// It is not to be believed, or this node does not lead.
    pub(crate) fn on_replica_fetch(
        self: &Rc<Self>,
        follower: (NodeId, i64),
        offset: i64,
        safe_end: i64,
        now_ms: u64,
    ) -> Result<Option<Wish>> {
        self.check_leads()?;
        let end = self.log.written_end();
        let own = self.log.safe_end();
        let told = self.replica.leader(|leader| {
            leader.on_own_end(end, own, now_ms);
            leader.on_fetch(follower, offset, safe_end, now_ms)
        });
        let told = told.ok_or(ErrorCode::NotLeaderOrFollower)?;
        let (_, proposal) = told.map_err(|refused| match refused {
            FetchRefused::NotAReplica => ErrorCode::NotLeaderOrFollower,
            FetchRefused::StaleNode => ErrorCode::StaleBrokerEpoch,
        })?;
        self.move_high_watermark();
        Ok(proposal.map(|proposal| Wish {
            hosted: Rc::clone(self),
            proposal,
        }))
    }

    /// Looks whether anybody who is in sync still asks.
    pub(crate) fn look_for_followers(&self, now_ms: u64) {
        let leader = self
            .replica
            .leader(|leader| leader.is_cut_off(CUT_OFF_MS, now_ms));
        let is_cut_off = leader.unwrap_or(false);
        if self.replica.is_cut_off.replace(is_cut_off) != is_cut_off {
            self.replica.changed.notify_all();
        }
    }

    /// Looks whether a follower is out of sync, and what the metadata has not answered yet.
    pub(crate) fn on_replica_tick(self: &Rc<Self>, now_ms: u64) -> Option<Wish> {
        let wanted = self.replica.leader(|leader| {
            let waiting = leader.proposed();
            waiting.or_else(|| leader.on_tick(now_ms))
        });
        wanted.flatten().map(|proposal| Wish {
            hosted: Rc::clone(self),
            proposal,
        })
    }

    /// The metadata does not let a follower in.
    pub(crate) fn on_ineligible(self: &Rc<Self>) -> Option<Wish> {
        let wanted = self.replica.leader(Leader::on_ineligible);
        wanted.flatten().map(|proposal| Wish {
            hosted: Rc::clone(self),
            proposal,
        })
    }

    /// What the leader knows to be safe becomes visible.
    fn move_high_watermark(&self) {
        if let Some(safe) = self.replica.leader(|leader| leader.high_watermark()) {
            self.log.set_high_watermark(Some(safe));
        }
    }

    /// Cuts the log. Nobody leads by this copy meanwhile; what the metadata has said counts then, and may
    /// have made a leader of it.
    pub(crate) async fn cut(
        self: &Rc<Self>,
        shard: &Shard,
        cut: Cut,
    ) -> std::result::Result<Option<Leadership>, String> {
        self.replica.cutting.replace(Some(None));
        let done = match cut {
            Cut::End(offset) => self.log.truncate_to(offset).await,
            Cut::Anew(offset) => self.log.reset_to(offset).await,
            Cut::Damage => self.log.throw_away_damage().await,
        };
        let later = self.replica.cutting.take().flatten();
        let moved = later.and_then(|(state, min_isr)| self.set_state(shard, &state, min_isr));
        done.map(|_| moved).map_err(|error| error.to_string())
    }

    /// The leader says that everything before `high_watermark` is safe.
    pub(crate) fn on_leaders_high_watermark(&self, high_watermark: i64) {
        self.log.set_high_watermark(Some(high_watermark));
        self.replica.told_safe.set(Some(high_watermark));
    }
}

/// Whether a node has begun or ceased to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leadership {
    Begun,
    Ended,
}
