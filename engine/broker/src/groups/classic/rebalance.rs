//! The rebalance itself: when it starts, when everybody has joined, how the leader's assignment
//! reaches the members, and what a member's end sets off.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, JoinPhase, State};
use crate::clock::Now;
use crate::config::broker::GroupConfig;
use crate::groups::{Effects, GroupError, Sync, Synced, Token};

/// The least time between two looks at static members that do not rejoin; a client may claim a
/// rebalance timeout of zero.
const MIN_JOIN_WAIT_MS: u64 = 1000;

impl ClassicGroup {
    /// A member asks for its assignment, the leader brings it.
    pub fn on_sync(&mut self, now: Now, config: &GroupConfig, token: Token, sync: Sync) -> Effects {
        let mut effects = Effects::default();
        if let Err(error) = self.check_sync(&sync) {
            effects.sync(token, Err(error));
            return effects;
        }
        let id = sync.claim.member_id.as_str();
        self.pending_sync.remove(id);
        if self.state == State::Stable && !self.is_storing {
            self.renew(now, id);
            effects.sync(token, Ok(self.synced(id)));
            return effects;
        }
        let member = self.members.get_mut(id).expect("just checked");
        if let Some(old) = member.awaiting_sync.replace(token) {
            effects.sync(old, Err(GroupError::RebalanceInProgress));
        }
        if self.state == State::CompletingRebalance && self.is_leader(id) {
            self.take_assignment(now, config, sync.assignments, &mut effects);
        }
        effects
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        let claim = &sync.claim;
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        self.check_generation(claim.generation)?;
        let differs = |said: &Option<String>, is: &Option<String>| matches!((said, is), (Some(said), Some(is)) if said != is);
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// The leader's assignment: the group is stable, and whoever waits gets its part once the
    /// group's record is stored.
    fn take_assignment(
        &mut self,
        now: Now,
        config: &GroupConfig,
        assignments: Vec<(String, Bytes)>,
        effects: &mut Effects,
    ) {
        let bytes: usize = assignments
            .iter()
            .map(|(_, assignment)| assignment.len())
            .sum();
        self.clear_assignments();
        if self.members.stored_bytes().saturating_add(bytes) > config.max_metadata_bytes {
            self.refuse_syncs(now, GroupError::AssignmentTooLarge, effects);
            return self.maybe_prepare_rebalance(now, effects);
        }
        for (id, assignment) in assignments {
            self.members.assign(&id, assignment);
        }
        self.enter(now, State::Stable);
        // Who asks for it goes on waiting, and is told of another rebalance if that begins before the
        // record is stored.
        self.is_storing = true;
        effects.store = true;
    }

    pub(super) fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    /// The first member of an empty group came: waits a while for others (KIP-134).
    pub(super) fn begin_first_rebalance(&mut self, now: Now, delay_ms: u64) {
        let rebalance_ms = self.rebalance_timeout_ms();
        self.phase = if delay_ms == 0 {
            JoinPhase::Delayed {
                deadline: now.after(rebalance_ms),
            }
        } else {
            JoinPhase::Initial {
                deadline: now.after(delay_ms),
                delay_ms,
                remaining_ms: rebalance_ms.saturating_sub(delay_ms),
                came: false,
            }
        };
        self.enter(now, State::PreparingRebalance);
        self.wake_by(self.phase.deadline());
    }

    /// Starts a rebalance, unless one is being prepared already or nobody is there.
    pub(super) fn maybe_prepare_rebalance(&mut self, now: Now, effects: &mut Effects) {
        match self.state {
            State::Empty | State::PreparingRebalance => return,
            State::CompletingRebalance => {
                self.clear_assignments();
                self.refuse_syncs(now, GroupError::RebalanceInProgress, effects);
            }
            State::Stable => {
                self.is_storing = false;
                self.refuse_syncs(now, GroupError::RebalanceInProgress, effects);
            }
        }
        self.pending_sync.clear();
        self.phase = JoinPhase::Delayed {
            deadline: now.after(self.rebalance_timeout_ms()),
        };
        self.enter(now, State::PreparingRebalance);
        self.wake_by(self.phase.deadline());
    }

    /// Starts a rebalance of a group that has just come here, if it has members.
    pub(super) fn begin_rebalance(&mut self, now: Now) {
        let mut effects = Effects::default();
        self.maybe_prepare_rebalance(now, &mut effects);
        debug_assert!(effects.replies.is_empty(), "nobody waits yet");
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self
            .members
            .iter()
            .map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0)
    }

    /// Completes the join phase if all known members have joined; the initial phase only ends by
    /// time.
    pub(super) fn try_complete_join(&mut self, now: Now, effects: &mut Effects) {
        let waits_for_all = matches!(self.phase, JoinPhase::Delayed { .. });
        if self.state == State::PreparingRebalance
            && waits_for_all
            && self.members.joining() == self.members.len()
            && self.pending.is_empty()
        {
            self.complete_join(now, effects);
        }
    }

    /// The join phase's time is up.
    pub(super) fn end_join_phase(&mut self, now: Now, effects: &mut Effects) {
        if let JoinPhase::Initial {
            delay_ms,
            remaining_ms,
            came: true,
            ..
        } = self.phase
            && remaining_ms > 0
        {
            let step = delay_ms.min(remaining_ms);
            self.phase = JoinPhase::Initial {
                deadline: now.after(step),
                delay_ms,
                remaining_ms: remaining_ms - step,
                came: false,
            };
            return;
        }
        self.complete_join(now, effects);
    }

    /// Begins the next generation with those who joined. A static member may be late; it stays
    /// until its session ends.
    fn complete_join(&mut self, now: Now, effects: &mut Effects) {
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in late {
            self.forget_member(&id);
        }
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members are left and none has rejoined: wait on, until sessions end.
            self.phase = JoinPhase::Delayed {
                deadline: now.after(self.rebalance_timeout_ms().max(MIN_JOIN_WAIT_MS)),
            };
            self.wake_by(self.phase.deadline());
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.subscribed = self.subscriptions();
            self.enter(now, State::Empty);
            effects.store = true;
        } else {
            self.protocol = self.members.elect_protocol();
            self.subscribed = self.subscriptions();
            self.enter(now, State::CompletingRebalance);
            self.answer_joins(now, effects);
        }
    }

    /// Keeps the leader if it has rejoined, else takes the first that has.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &str| {
            let member = self.members.get(id);
            member.is_some_and(|member| member.awaiting_join.is_some())
        };
        if self.leader.as_deref().is_some_and(joined) {
            return true;
        }
        let first = self
            .members
            .iter()
            .find(|member| member.awaiting_join.is_some());
        let Some(id) = first.map(|member| member.id.clone()) else {
            return false;
        };
        self.leader = Some(id);
        true
    }

    fn answer_joins(&mut self, now: Now, effects: &mut Effects) {
        let ids: Vec<String> = self
            .members
            .iter()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            if let Some(token) = self.members.take_join(&id) {
                effects.join(token, self.joined(&id, false));
            }
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.renew(now, &id);
            self.pending_sync.insert(id);
        }
        self.sync_deadline = now.after(self.rebalance_timeout_ms());
        self.wake_by(self.sync_deadline);
    }

    /// Members that never asked for their assignment are dropped after the rebalance timeout.
    pub(super) fn expire_sync(&mut self, now: Now, effects: &mut Effects) {
        if self.pending_sync.is_empty() || self.sync_deadline > now.mono_ms {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.forget_member(&id);
        }
        self.maybe_prepare_rebalance(now, effects);
    }

    /// A member leaves or has been silent for too long.
    pub(super) fn drop_member(&mut self, now: Now, id: &str, effects: &mut Effects) {
        let Some((joining, syncing)) = self.forget_member(id) else {
            return;
        };
        if let Some(token) = joining {
            effects.refuse_join(token, "", GroupError::UnknownMember);
        }
        if let Some(token) = syncing {
            effects.sync(token, Err(GroupError::UnknownMember));
        }
        self.maybe_prepare_rebalance(now, effects);
        self.try_complete_join(now, effects);
    }

    /// Takes a member out, with its parked requests; the next one leads if it led.
    fn forget_member(&mut self, id: &str) -> Option<(Option<Token>, Option<Token>)> {
        let member = self.members.remove(id)?;
        self.pending_sync.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.iter().next().map(|member| member.id.clone());
        }
        Some((member.awaiting_join, member.awaiting_sync))
    }

    fn clear_assignments(&mut self) {
        let ids: Vec<String> = self
            .members
            .iter()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            self.members.assign(&id, Bytes::new());
        }
    }

    pub(super) fn take_syncs(&mut self) -> BTreeMap<String, Token> {
        let waiting = self.members.iter_mut();
        waiting
            .filter_map(|member| Some((member.id.clone(), member.awaiting_sync.take()?)))
            .collect()
    }

    /// Refuses whoever waits for an assignment; their sessions begin anew, for waiting was not
    /// silence.
    pub(super) fn refuse_syncs(&mut self, now: Now, error: GroupError, effects: &mut Effects) {
        for (id, token) in self.take_syncs() {
            self.renew(now, &id);
            effects.sync(token, Err(error));
        }
    }
}
