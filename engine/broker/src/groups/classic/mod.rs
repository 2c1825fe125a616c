//! The classic consumer group: members join, a leader among them assigns, all learn their part,
//! and heartbeats hold the group together until somebody comes or goes.
//!
//! ```text
//!            join                all joined, or time is up         leader syncs
//!   Empty ────────► Preparing ─────────────────────────► Completing ────────► Stable
//!     ▲             Rebalance ◄───────────────────────── Rebalance              │
//!     │                │  ▲         join, leave, expiry                         │
//!     └────────────────┘  └─────────────────────────────────────────────────────┘
//!        nobody is left                    join, leave, expiry
//! ```
//!
//! The rules are Kafka's `GroupCoordinator` (KIP-62, KIP-134, KIP-345, KIP-394, KIP-814); the state
//! changes at once, and answers that promise something durable wait for the group's record
//! ([`Effects::after_store`]), as in Kafka 4's coordinator. A group lives on one core. Kafka's fifth
//! state, Dead, is a group that is gone: here it is no longer in the coordinator's map.

mod join;
mod member;
mod migrate;
mod rebalance;

#[cfg(test)]
mod join_test;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod rebalance_test;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use member::Member;
use member::Members;
pub use migrate::new_member_id;

use super::records::{GroupRecord, MemberRecord};
use super::{Claim, Effects, GroupError, Leaver, Reply, Results, records};
use crate::clock::Now;

/// A new member that waits in JoinGroup for so long is dropped; its client may be gone, and no
/// heartbeat would tell (Kafka's `NewMemberJoinTimeoutMs`).
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// How many protocols one member may offer.
pub const MAX_PROTOCOLS_PER_MEMBER: usize = 256;
/// The protocol type of consumers (`ConsumerProtocol.PROTOCOL_TYPE`).
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No members; only offsets may remain.
    Empty,
    /// Members are asked to rejoin.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Everybody has an assignment, or can fetch it.
    Stable,
}

impl State {
    /// Kafka's name of the state, as DescribeGroups and ListGroups give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a rebalance that prepares ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinPhase {
    /// The first members of an empty group: wait in steps of `delay_ms` for more of them, while
    /// some come and `remaining_ms` lasts.
    Initial {
        deadline: u64,
        delay_ms: u64,
        remaining_ms: u64,
        came: bool,
    },
    /// Wait for all known members, at most until `deadline`.
    Delayed { deadline: u64 },
}

impl JoinPhase {
    fn deadline(self) -> u64 {
        match self {
            Self::Initial { deadline, .. } | Self::Delayed { deadline } => deadline,
        }
    }
}

/// One classic group. Owned by the core that owns its partition of `__consumer_offsets`.
#[derive(Debug, Clone)]
pub struct ClassicGroup {
    state: State,
    generation: i32,
    /// The assignment is on its way to the log: nobody is told of it before it is there.
    is_storing: bool,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: Members,
    /// Ids that were given out and not yet joined with (KIP-394), with the time they lapse.
    pending: BTreeMap<String, u64>,
    phase: JoinPhase,
    /// Members of this generation that have not asked for their assignment, and until when they
    /// have to.
    pending_sync: BTreeSet<String>,
    sync_deadline: u64,
    state_since_ms: i64,
    /// The topics that the members subscribe to, if that can be told.
    subscribed: Option<BTreeSet<String>>,
    /// No deadline lies before this time; it may be earlier than the first one, as heartbeats
    /// only push deadlines out.
    wake_at: Option<u64>,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(now: Now) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            is_storing: false,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::default(),
            pending: BTreeMap::new(),
            phase: JoinPhase::Delayed { deadline: 0 },
            pending_sync: BTreeSet::new(),
            sync_deadline: 0,
            state_since_ms: now.wall_ms,
            subscribed: None,
            wake_at: None,
        }
    }

    /// The group that a stored record describes; its members have a whole session from now. Members
    /// without a leader are those of a rebalance, which goes on.
    pub fn restore(now: Now, record: GroupRecord) -> Self {
        let mut group = Self::new(now);
        group.generation = record.generation;
        group.protocol_type = Some(record.protocol_type).filter(|kind| !kind.is_empty());
        group.protocol = record.protocol;
        group.leader = record.leader;
        for stored in record.members {
            if group.members.contains(&stored.member_id) {
                continue;
            }
            let mut member = stored.into_member(group.protocol.as_deref());
            member.expires_at = now.after(member.session_timeout_ms);
            group.wake_by(member.expires_at);
            group.members.add(member);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.subscribed = group.subscriptions();
        if group.leader.is_none() {
            group.begin_rebalance(now);
        }
        group.state_since_ms = record.state_since_ms;
        group
    }

    /// What a stored record of the group as it is now would say. Of a rebalance under way it names
    /// no leader, for a group that was restored as stable would hand out no assignment, or an old
    /// one, to whoever asks for its own; and only members that were there before, who may still have
    /// what they were assigned.
    pub fn record(&self) -> GroupRecord {
        let rebalances = matches!(
            self.state,
            State::PreparingRebalance | State::CompletingRebalance
        );
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter();
        let members = members.filter(|member| !(rebalances && member.is_new));
        GroupRecord {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone().filter(|_| !rebalances),
            state_since_ms: self.state_since_ms,
            members: members
                .map(|member| MemberRecord::of(member, protocol))
                .collect(),
        }
    }

    /// The group's state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The group's generation, 0 before its first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The kind of group; none for offsets without members.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The protocol of this generation.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// When the group came into its state, by the wall clock.
    pub fn state_since_ms(&self) -> i64 {
        self.state_since_ms
    }

    /// All members, in the order in which they joined.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// How many members it has.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Bytes that its members take: metadata, assignments and names.
    pub fn metadata_bytes(&self) -> usize {
        self.members.all_bytes()
    }

    /// Bytes of a member's protocols; none if there is no such member.
    pub fn protocol_bytes(&self, member_id: &str) -> usize {
        let member = self.members.get(member_id);
        member.map_or(0, Member::protocol_bytes)
    }

    /// Whether nothing is left that only memory holds: neither members nor promised member ids.
    pub fn is_vacant(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// Whether a member subscribes to `topic`; yes if that cannot be told (KIP-496).
    pub fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type() == Some(CONSUMER_PROTOCOL_TYPE),
        }
    }

    /// The topics that members subscribe to, if that can be told.
    pub fn subscribed_topics(&self) -> Option<&BTreeSet<String>> {
        self.subscribed.as_ref()
    }

    /// When [`Self::on_timer`] wants to be called, in monotonic milliseconds; calling it earlier
    /// does no harm.
    pub fn deadline(&self) -> Option<u64> {
        self.wake_at
    }

    /// A heartbeat: keeps the member alive and tells it of a rebalance.
    pub fn on_heartbeat(&mut self, now: Now, claim: &Claim) -> Result<(), GroupError> {
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        self.check_generation(claim.generation)?;
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => {
                self.renew(now, &claim.member_id);
                Err(GroupError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.renew(now, &claim.member_id);
                Ok(())
            }
        }
    }

    /// Whether an offset commit is admitted; one by a member counts as its heartbeat.
    ///
    /// A commit without a generation (a consumer that assigns itself, or a tool) is taken while the
    /// group is empty, whatever it calls itself.
    pub fn on_commit(&mut self, now: Now, claim: &Claim) -> Result<(), GroupError> {
        if claim.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let by_member =
            claim.generation >= 0 || !claim.member_id.is_empty() || claim.instance_id.is_some();
        if by_member {
            self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
            self.check_generation(claim.generation)?;
        } else {
            return Err(GroupError::UnknownMember);
        }
        self.renew(now, &claim.member_id);
        match self.state {
            // The member knows of the generation by its JoinGroup; it has to sync first.
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Members leave; the results are in the order of `leavers`.
    pub fn on_leave(&mut self, now: Now, leavers: &[Leaver]) -> (Results, Effects) {
        let mut effects = Effects::default();
        let results = leavers
            .iter()
            .map(|leaver| self.leave_one(now, leaver, &mut effects))
            .collect();
        (results, effects)
    }

    fn leave_one(
        &mut self,
        now: Now,
        leaver: &Leaver,
        effects: &mut Effects,
    ) -> Result<(), GroupError> {
        if leaver.member_id.is_empty() {
            let instance = leaver
                .instance_id
                .as_deref()
                .ok_or(GroupError::UnknownMember)?;
            let id = self.members.static_id(instance).map(str::to_owned);
            self.drop_member(now, &id.ok_or(GroupError::UnknownMember)?, effects);
            return Ok(());
        }
        if self.pending.remove(&leaver.member_id).is_some() {
            self.try_complete_join(now, effects);
            return Ok(());
        }
        self.check_member(&leaver.member_id, leaver.instance_id.as_deref())?;
        self.drop_member(now, &leaver.member_id, effects);
        Ok(())
    }

    /// Time has passed: drops silent members and lapsed ids, ends what has waited long enough.
    pub fn on_timer(&mut self, now: Now) -> Effects {
        let mut effects = Effects::default();
        self.pending.retain(|_, lapses| *lapses > now.mono_ms);
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.can_expire() && member.expires_at <= now.mono_ms)
            .map(|member| member.id.clone())
            .collect();
        for id in silent {
            self.drop_member(now, &id, &mut effects);
        }
        self.expire_sync(now, &mut effects);
        if self.state == State::PreparingRebalance && self.phase.deadline() <= now.mono_ms {
            self.end_join_phase(now, &mut effects);
        }
        self.try_complete_join(now, &mut effects);
        self.wake_at = self.first_deadline();
        effects
    }

    /// The group's record of a generation is stored: whoever has asked for the assignment gets it, if the
    /// generation is this one still.
    pub fn on_stored(&mut self, now: Now, generation: i32) -> Effects {
        let mut effects = Effects::default();
        if generation == self.generation && std::mem::take(&mut self.is_storing) {
            for (id, token) in self.take_syncs() {
                self.renew(now, &id);
                effects.sync(token, Ok(self.synced(&id)));
            }
        }
        effects
    }

    /// The group's record could not be stored: the members start over. `refused` are the replies
    /// that waited for it; they come back as refusals.
    pub fn on_store_failed(&mut self, now: Now, refused: Vec<Reply>) -> Effects {
        let mut effects = Effects::default();
        let error = GroupError::CoordinatorNotAvailable;
        let refused = refused.into_iter().map(|reply| reply.refused(error));
        effects.replies.extend(refused);
        if std::mem::take(&mut self.is_storing) {
            self.refuse_syncs(now, error, &mut effects);
        }
        self.maybe_prepare_rebalance(now, &mut effects);
        effects
    }

    /// Whether the member exists and, if it is static, still is the one of its instance.
    fn check_member(&self, id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.members.static_id(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if current != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains(id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMember)
        }
    }

    fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// Starts a member's session anew.
    fn renew(&mut self, now: Now, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires_at = now.after(member.session_timeout_ms);
            let at = member.expires_at;
            self.wake_by(at);
        }
    }

    fn wake_by(&mut self, at: u64) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn first_deadline(&self) -> Option<u64> {
        let expiring = self.members.iter().filter(|member| member.can_expire());
        let phase = (self.state == State::PreparingRebalance).then(|| self.phase.deadline());
        let sync = (!self.pending_sync.is_empty()).then_some(self.sync_deadline);
        expiring
            .map(|member| member.expires_at)
            .chain(self.pending.values().copied())
            .chain(phase)
            .chain(sync)
            .min()
    }

    fn enter(&mut self, now: Now, state: State) {
        self.state = state;
        self.state_since_ms = now.wall_ms;
    }

    /// The topics that members subscribe to: known for consumers whose metadata can be read.
    fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type() != Some(CONSUMER_PROTOCOL_TYPE) {
            return None;
        }
        let mut topics = BTreeSet::new();
        let Some(protocol) = self.protocol() else {
            return self.members.is_empty().then_some(topics);
        };
        for member in self.members.iter() {
            topics.extend(records::subscription_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}
