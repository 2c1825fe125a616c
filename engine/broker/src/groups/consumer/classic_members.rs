//! Members of the classic protocol in a consumer group, during a migration (KIP-848): they join, sync
//! and heartbeat as ever, but the broker assigns, and they are asked to rejoin when they have
//! something to give up or to get. And the ways from one kind of group to the other.

use bytes::Bytes;

use super::embedded::{self, Subscription};
use super::member::ClassicOffer;
use super::*;
use crate::clock::Now;
use crate::groups::classic::{self, ClassicGroup, MAX_PROTOCOLS_PER_MEMBER, new_member_id};
use crate::groups::{Claim, Join, JoinRefused, Joined, Sync, Synced};

impl ConsumerGroup {
    /// The consumer group that a classic group becomes: every member keeps what it was assigned, and
    /// is asked to rejoin at its next heartbeat. None if its members are no consumers, or say what
    /// cannot be read.
    pub fn upgraded(now: Now, id: &str, classic: &ClassicGroup, image: &Image) -> Option<Self> {
        let mut group = Self::new(id);
        if classic.member_count() == 0 {
            return Some(group);
        }
        if classic.protocol_type() != Some(PROTOCOL_TYPE) {
            return None;
        }
        let generation = classic.generation();
        (group.epoch, group.target_epoch) = (generation, generation);
        let mut members = Vec::new();
        for old in classic.members() {
            // All protocols of a member say the same.
            let said = embedded::subscription(&old.protocols.first()?.1, image)?;
            let assigned = embedded::assignment(&old.assignment, image)?;
            members.push((
                upgraded_member(now, generation, old, &said),
                assigned,
                said.owned,
            ));
        }
        let mut taken: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        for (member, assigned, _) in &mut members {
            let free = assigned.iter().filter(|place| taken.insert(*place));
            member.assigned = free.collect();
        }
        for (mut member, _, owned) in members {
            // What it had when it joined, and nobody got since, it may not yet have given up.
            member
                .assigned
                .extend(owned.iter().filter(|place| taken.insert(*place)));
            member.target = member.assigned.clone();
            group.put(member);
        }
        Some(group)
    }

    /// Whether members are there, and all of them speak the classic protocol.
    pub fn is_all_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|m| m.classic.is_some())
    }

    /// The classic group that a group without members of the consumer protocol becomes; it is about
    /// to rebalance. Every member is assigned what it still holds, and not its target as in Kafka:
    /// should the group be upgraded again before all have rejoined, others would get what it has not
    /// given up.
    pub fn downgraded(&self, now: Now, image: &Image) -> ClassicGroup {
        let members = self.members.values().filter_map(|member| {
            let offer = member.classic.clone()?;
            let version = offer
                .protocols
                .first()
                .map_or(0, |(_, data)| version_of(data));
            let millis = |ms: i32| u64::try_from(ms).unwrap_or(0);
            Some(classic::Member::resumed(
                member.id.clone(),
                &Join {
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout_ms: millis(member.rebalance_timeout_ms),
                    session_timeout_ms: millis(offer.session_timeout_ms),
                    protocols: offer.protocols,
                    ..Join::default()
                },
                embedded::encode_assignment(version, &member.holds().collect(), image),
            ))
        });
        ClassicGroup::resume(now, PROTOCOL_TYPE, self.target_epoch, members.collect())
    }

    // ---- requests of the classic protocol ----

    /// A member of the classic protocol joins, or rejoins.
    pub fn on_join(
        &mut self,
        now: Now,
        settings: Settings<'_>,
        image: &Image,
        join: &Join,
        log: &mut Entries,
    ) -> Result<Joined, JoinRefused> {
        let (id, said) = self.admit_join(settings, image, join)?;
        let refuse = |error| JoinRefused {
            error,
            member_id: join.member_id.clone(),
        };
        let (before, replaces) = self.classic_seat(&id, join).map_err(refuse)?;
        let is_new = before.is_none();
        let old = before.unwrap_or_else(|| Member::new(id.clone()));
        let member = rejoining(&old, join, &said);
        self.check_room(settings.config, &old, &member)
            .map_err(|_| refuse(GroupError::GroupFull))?;
        // From here on nothing is refused.
        if let Some(replaced) = &replaces {
            self.replace(replaced, &member, log);
        }
        if is_new || !member.says_as(&old) {
            log.member(&member);
        }
        let subscribes = !member.subscribes_as(&old);
        let member = Member {
            expires_at: now.after(join.session_timeout_ms),
            ..member
        };
        self.put(member);
        self.drop_pattern(old.regex.as_deref(), log);
        self.follow_topics(now, image, subscribes, log);
        self.retarget(settings.config, image, log);
        self.reconcile(now, &id, Some(&said.owned), log);
        // It has to ask for its assignment.
        self.change(&id, |member| {
            member.revoke_by = Some(now.after(join.rebalance_timeout_ms));
        });
        let protocol = join.protocols.first().map(|(name, _)| name.clone());
        Ok(Joined {
            generation: self.members[&id].epoch,
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol,
            leader: String::new(),
            member_id: id,
            skip_assignment: false,
            members: Vec::new(),
        })
    }

    /// The checks that come before the member matters; the id it is to have, and what it says.
    fn admit_join(
        &self,
        settings: Settings<'_>,
        image: &Image,
        join: &Join,
    ) -> Result<(String, Subscription), JoinRefused> {
        let refuse = |error, member_id: &str| JoinRefused {
            error,
            member_id: member_id.to_owned(),
        };
        let is_known = self.members.contains_key(&join.member_id);
        if !is_known && self.members.len() >= settings.limits.max_size {
            return Err(refuse(GroupError::GroupFull, ""));
        }
        let said = match join.protocols.first() {
            Some((_, data)) if self.supports(join) => embedded::subscription(data, image),
            _ => None,
        };
        let said = said.ok_or_else(|| refuse(GroupError::InconsistentProtocol, &join.member_id))?;
        if !join.member_id.is_empty() {
            return Ok((join.member_id.clone(), said));
        }
        let id = new_member_id(join);
        if join.instance_id.is_none() && join.require_known_member_id {
            return Err(refuse(GroupError::MemberIdRequired, &id));
        }
        Ok((id, said))
    }

    /// Whether the join is of a consumer and names a protocol that all classic members have.
    fn supports(&self, join: &Join) -> bool {
        let has = |offer: &ClassicOffer, name: &str| offer.protocols.iter().any(|(p, _)| p == name);
        let offers = || self.members.values().filter_map(|m| m.classic.as_ref());
        let mut names = join.protocols.iter();
        join.protocol_type == PROTOCOL_TYPE
            && join.protocols.len() <= MAX_PROTOCOLS_PER_MEMBER
            && names.any(|(name, _)| offers().all(|offer| has(offer, name)))
    }

    /// The member as it was, under the id it is to have; and the one whose place it takes.
    fn classic_seat(
        &self,
        id: &str,
        join: &Join,
    ) -> Result<(Option<Member>, Option<String>), GroupError> {
        let Some(instance) = &join.instance_id else {
            return Ok((self.members.get(id).cloned(), None));
        };
        match self.static_id(instance) {
            Some(holder) if holder == id => Ok((self.members.get(id).cloned(), None)),
            Some(_) if !join.member_id.is_empty() => Err(GroupError::FencedInstanceId),
            Some(holder) => {
                let holder = &self.members[holder];
                let moved = super::heartbeat::rejoined(holder, id, false);
                Ok((Some(moved), Some(holder.id.clone())))
            }
            None if !join.member_id.is_empty() => Err(GroupError::UnknownMember),
            None => Ok((None, None)),
        }
    }

    /// A member of the classic protocol asks for its assignment.
    pub fn on_sync(&mut self, now: Now, image: &Image, sync: &Sync) -> Result<Synced, GroupError> {
        let member = self.classic_member(&sync.claim)?;
        let offer = member
            .classic
            .as_ref()
            .and_then(|offer| offer.protocols.first());
        let (name, data) = offer.ok_or(GroupError::UnknownMember)?;
        let differs = |said: &Option<String>, is: &str| said.as_deref().is_some_and(|s| s != is);
        if differs(&sync.protocol_type, PROTOCOL_TYPE) || differs(&sync.protocol, name) {
            return Err(GroupError::InconsistentProtocol);
        }
        if self.epoch > member.epoch && member.state != MemberState::Unrevoked {
            return Err(GroupError::RebalanceInProgress);
        }
        let synced = Synced {
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol: Some(name.clone()),
            assignment: embedded::encode_assignment(version_of(data), &member.assigned, image),
        };
        self.renew_classic(now, &sync.claim.member_id, None);
        Ok(synced)
    }

    /// A heartbeat of a member of the classic protocol; it is asked to rejoin when it has something
    /// to give up, or to get, or the group has moved on.
    pub fn on_classic_heartbeat(&mut self, now: Now, claim: &Claim) -> Result<(), GroupError> {
        let member = self.classic_member(claim)?;
        let is_missing = |(topic, partition)| {
            !member.assigned.contains(topic, partition) && self.is_held(topic, partition)
        };
        let may_get = || !member.target.iter().any(is_missing);
        let is_to_rejoin = member.epoch < self.epoch
            || match member.state {
                MemberState::Stable => false,
                MemberState::Unrevoked => true,
                MemberState::Unreleased => may_get(),
            };
        let timeout = u64::try_from(member.rebalance_timeout_ms).unwrap_or(0);
        let until = member.revoke_by.unwrap_or(now.after(timeout));
        self.renew_classic(now, &claim.member_id, is_to_rejoin.then_some(until));
        match is_to_rejoin {
            true => Err(GroupError::RebalanceInProgress),
            false => Ok(()),
        }
    }

    fn classic_member(&self, claim: &Claim) -> Result<&Member, GroupError> {
        if let Some(instance) = &claim.instance_id {
            let holder = self.static_id(instance).ok_or(GroupError::UnknownMember)?;
            if holder != claim.member_id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        let member = self.members.get(&claim.member_id);
        let member = member.filter(|member| member.classic.is_some());
        let member = member.ok_or(GroupError::UnknownMember)?;
        match member.epoch == claim.generation {
            true => Ok(member),
            false => Err(GroupError::IllegalGeneration),
        }
    }

    /// Starts a member's session anew; `act_by` is until when it has to rejoin.
    fn renew_classic(&mut self, now: Now, id: &str, act_by: Option<u64>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let session = member
            .classic
            .as_ref()
            .map_or(0, |offer| offer.session_timeout_ms);
        member.expires_at = now.after(u64::try_from(session).unwrap_or(0));
        member.revoke_by = act_by;
        let at = member.expires_at.min(act_by.unwrap_or(u64::MAX));
        self.wake_by(at);
    }
}

fn upgraded_member(
    now: Now,
    generation: i32,
    old: &classic::Member,
    said: &Subscription,
) -> Member {
    let millis = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
    Member {
        instance_id: old.instance_id.clone(),
        rack_id: said.rack.clone(),
        client_id: old.client_id.clone(),
        client_host: old.client_host.clone(),
        rebalance_timeout_ms: millis(old.rebalance_timeout_ms),
        names: said.topics.clone(),
        classic: Some(ClassicOffer {
            session_timeout_ms: millis(old.session_timeout_ms),
            protocols: old.protocols.clone(),
        }),
        epoch: generation,
        previous_epoch: generation,
        expires_at: now.after(old.session_timeout_ms),
        ..Member::new(old.id.clone())
    }
}

/// A member as its JoinGroup describes it; what it has stays.
fn rejoining(old: &Member, join: &Join, said: &Subscription) -> Member {
    let millis = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
    Member {
        instance_id: join.instance_id.clone(),
        rack_id: said.rack.clone(),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        rebalance_timeout_ms: millis(join.rebalance_timeout_ms),
        names: said.topics.clone(),
        regex: None,
        assignor: None,
        classic: Some(ClassicOffer {
            session_timeout_ms: millis(join.session_timeout_ms),
            protocols: join.protocols.clone(),
        }),
        ..old.clone()
    }
}

/// The version in which a member says its subscription, and is told its assignment.
fn version_of(data: &Bytes) -> i16 {
    match data.first_chunk() {
        Some(version) => i16::from_be_bytes(*version),
        None => 0,
    }
}
