//! JoinGroup: who is admitted, who is sent back for an id, who triggers a rebalance and who just
//! learns the current generation again.

use super::member::Member;
use super::migrate::new_member_id;
use super::{ClassicGroup, JoinPhase, MAX_PROTOCOLS_PER_MEMBER, NEW_MEMBER_JOIN_TIMEOUT_MS, State};
use crate::clock::Now;
use crate::config::broker::GroupConfig;
use crate::groups::{Effects, GroupError, Join, Joined, JoinedMember, Reply, Token};

impl ClassicGroup {
    /// A member joins, for the first time or again. The answer comes now or by a later event, under
    /// `token`.
    pub fn on_join(&mut self, now: Now, config: &GroupConfig, token: Token, join: Join) -> Effects {
        let mut effects = Effects::default();
        if let Err(error) = self.admit(config, &join) {
            if error == GroupError::GroupFull {
                // Kafka lets such a member go, so that a group shrinks after its limit did.
                self.drop_member(now, &join.member_id, &mut effects);
                effects.refuse_join(token, "", error);
            } else {
                effects.refuse_join(token, &join.member_id, error);
            }
            return effects;
        }
        if join.member_id.is_empty() {
            self.join_unknown(now, config, token, &join, &mut effects);
        } else {
            self.join_known(now, config, token, &join, &mut effects);
        }
        self.try_complete_join(now, &mut effects);
        effects
    }

    /// The checks that come before the group's state matters.
    fn admit(&self, config: &GroupConfig, join: &Join) -> Result<(), GroupError> {
        if !self.has_room(config, join) {
            return Err(GroupError::GroupFull);
        }
        if !self.supports(join) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    fn has_room(&self, config: &GroupConfig, join: &Join) -> bool {
        let known = self.members.get(&join.member_id);
        let bytes: usize = join
            .protocols
            .iter()
            .map(|(name, m)| name.len() + m.len())
            .sum();
        let replaced = known.map_or(0, Member::protocol_bytes);
        if (self.members.stored_bytes() - replaced).saturating_add(bytes)
            > config.max_metadata_bytes
        {
            return false;
        }
        if join.member_id.is_empty() && self.pending.len() >= config.max_size {
            return false;
        }
        match self.state {
            State::Empty => true,
            // Those who have rejoined count, so that the last to rejoin are the ones let go.
            State::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some())
                    || self.members.joining() < config.max_size
            }
            State::CompletingRebalance | State::Stable => {
                known.is_some() || self.members.len() < config.max_size
            }
        }
    }

    /// Whether the join names a protocol that all members have.
    fn supports(&self, join: &Join) -> bool {
        if join.protocols.len() > MAX_PROTOCOLS_PER_MEMBER {
            return false;
        }
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        self.protocol_type() == Some(join.protocol_type.as_str())
            && self.members.supports_any(&join.protocols)
    }

    fn join_unknown(
        &mut self,
        now: Now,
        config: &GroupConfig,
        token: Token,
        join: &Join,
        effects: &mut Effects,
    ) {
        let id = new_member_id(join);
        if let Some(instance) = &join.instance_id {
            match self.members.static_id(instance).map(str::to_owned) {
                Some(old) => self.replace_static(now, token, &old, &id, join, effects),
                None => self.add_member(now, config, token, id, join, effects),
            }
        } else if join.require_known_member_id {
            let lapses = now.after(join.session_timeout_ms);
            self.pending.insert(id.clone(), lapses);
            self.wake_by(lapses);
            effects.refuse_join(token, &id, GroupError::MemberIdRequired);
        } else {
            self.add_member(now, config, token, id, join, effects);
        }
    }

    fn join_known(
        &mut self,
        now: Now,
        config: &GroupConfig,
        token: Token,
        join: &Join,
        effects: &mut Effects,
    ) {
        let id = join.member_id.as_str();
        if join.instance_id.is_none() && self.pending.contains_key(id) {
            return self.add_member(now, config, token, id.to_owned(), join, effects);
        }
        if let Err(error) = self.check_member(id, join.instance_id.as_deref()) {
            return effects.refuse_join(token, id, error);
        }
        let member = self.members.get(id).expect("just checked");
        let same = member.protocols == join.protocols;
        let rebalance = match self.state {
            State::Empty => return effects.refuse_join(token, id, GroupError::UnknownMember),
            State::PreparingRebalance => true,
            // It may have missed the answer to its first request.
            State::CompletingRebalance => !same,
            // The leader may rejoin because of something that only its assignor knows.
            State::Stable => self.is_leader(id) || !same,
        };
        if rebalance {
            self.rejoin(now, token, join, effects);
        } else {
            self.renew(now, id);
            effects.join(token, self.joined(id, false));
        }
    }

    fn add_member(
        &mut self,
        now: Now,
        config: &GroupConfig,
        token: Token,
        id: String,
        join: &Join,
        effects: &mut Effects,
    ) {
        if let (State::PreparingRebalance, 0, JoinPhase::Initial { came, .. }) =
            (self.state, self.generation, &mut self.phase)
        {
            *came = true;
        }
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        let mut member = Member::new(id.clone(), join);
        member.expires_at = now.after(NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.wake_by(member.expires_at);
        self.members.add(member);
        self.members.park_join(&id, token);
        if self.state == State::Empty {
            self.begin_first_rebalance(now, config.initial_rebalance_delay_ms);
        } else {
            self.maybe_prepare_rebalance(now, effects);
        }
    }

    fn rejoin(&mut self, now: Now, token: Token, join: &Join, effects: &mut Effects) {
        self.members.update(&join.member_id, join);
        self.park(token, &join.member_id, effects);
        self.maybe_prepare_rebalance(now, effects);
    }

    /// Parks a JoinGroup. A client that asks twice has given up on its first request.
    fn park(&mut self, token: Token, id: &str, effects: &mut Effects) {
        if let Some(old) = self.members.park_join(id, token) {
            effects.refuse_join(old, id, GroupError::RebalanceInProgress);
        }
    }

    /// A static member came back without its id: the new id takes over, the old one is fenced, and
    /// a stable group goes on as it is unless its protocol changes (KIP-345).
    fn replace_static(
        &mut self,
        now: Now,
        token: Token,
        old: &str,
        new: &str,
        join: &Join,
        effects: &mut Effects,
    ) {
        let leader_before = self.leader.clone();
        let (joining, syncing) = self.members.rename(old, new);
        if let Some(parked) = joining {
            effects.refuse_join(parked, old, GroupError::FencedInstanceId);
        }
        if let Some(parked) = syncing {
            effects.sync(parked, Err(GroupError::FencedInstanceId));
        }
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.to_owned());
        }
        self.members.update(new, join);
        self.renew(now, new);
        match self.state {
            State::Stable if self.members.elect_protocol() == self.protocol => {
                let mut joined = self.joined(new, join.supports_skip_assignment);
                if !join.supports_skip_assignment {
                    // An old client must not take itself for the leader: a stable group would
                    // ignore its assignment.
                    joined.leader = leader_before.unwrap_or_default();
                    joined.members.clear();
                }
                effects.store = true;
                effects.after_store.push(Reply::Join(token, Ok(joined)));
            }
            _ => {
                self.park(token, new, effects);
                self.maybe_prepare_rebalance(now, effects);
            }
        }
    }

    /// The current generation as a member learns it; `skip` tells a leader to keep the assignment.
    pub(super) fn joined(&self, id: &str, skip: bool) -> Joined {
        let leads = self.is_leader(id);
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().filter(|_| leads);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            skip_assignment: skip && leads,
            members: members
                .map(|member| JoinedMember {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    metadata: member.metadata(protocol),
                })
                .collect(),
        }
    }
}
