//! A consumer's membership in its group, by the consumer protocol (KIP-848): the coordinator
//! assigns, heartbeats carry everything, and only partitions that move are given up.
//!
//! Pure, as [`super::membership`]. [`ConsumerMembership::beat`] gives the next heartbeat when it is
//! due; its answer may hold an assignment, towards which the member goes by itself: first what is
//! not in it is given up ([`Step::Revoke`], after which a heartbeat says so at once), then what is
//! new is taken ([`Step::Take`]). Heartbeats go on meanwhile, so that a slow member disturbs nobody;
//! the coordinator fences one that takes longer than the rebalance time-out it named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringmill_wire::Uuid;
use ringmill_wire::error::ErrorCode;

use super::membership::{GroupError, MemberId, Step};
use crate::assignor::TopicPartition;
use crate::backoff::Backoff;
use crate::config::{ClientConfig, ConsumerConfig};
use crate::transport::Instant;

/// Partitions as the protocol names them.
pub(crate) type Ids = BTreeSet<(Uuid, i32)>;

/// The epoch with which a member joins.
const JOIN_EPOCH: i32 = 0;
/// The epoch with which a member leaves for good.
const LEAVE_EPOCH: i32 = -1;
/// The epoch with which a static member leaves for a while: its partitions are kept for it.
const STATIC_LEAVE_EPOCH: i32 = -2;
/// Until the coordinator says (`group.consumer.heartbeat.interval.ms`).
const FIRST_INTERVAL: Duration = Duration::from_secs(5);

/// What a member wants to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// An RE2 pattern of further topics, which the coordinator applies.
    pub(crate) pattern: Option<Arc<str>>,
}

impl Wants {
    fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.pattern.is_none()
    }
}

/// A heartbeat to be sent. What is none has not changed since the last one that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) member: MemberId,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<BTreeSet<Arc<str>>>,
    /// Empty for no pattern any more.
    pub(crate) pattern: Option<Arc<str>>,
    pub(crate) assignor: Option<Arc<str>>,
    pub(crate) owned: Option<Ids>,
    /// Which stay in the group it belongs to: answers to an earlier one are dropped.
    stay: u64,
    /// All that it says, or said before.
    said: Said,
}

/// A heartbeat's answer without an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Beaten {
    /// Empty if not told.
    pub(crate) member_id: String,
    pub(crate) epoch: i32,
    pub(crate) interval: Duration,
    /// None if it has not changed.
    pub(crate) assignment: Option<Ids>,
}

/// Why a heartbeat was refused, with the coordinator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
}

/// What the coordinator was told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    wants: Wants,
    owned: Ids,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not a member: not subscribed, or refused for good.
    Outside,
    /// To join, with epoch 0.
    Joining,
    /// A member that has what it was assigned, or takes what is new as soon as it is named.
    Member,
    /// A member that gives these up.
    Revoking(Ids),
    /// Fenced, or gone: what it had is another's. Joins again afterwards.
    Losing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ConsumerMembership {
    group: Arc<str>,
    id: MemberId,
    rack: Option<Arc<str>>,
    assignor: Option<Arc<str>>,
    max_poll_interval: Duration,
    wants: Wants,
    coordinator: Option<i32>,
    state: State,
    /// What the application has.
    owned: Ids,
    /// What the coordinator assigned last.
    target: Ids,
    /// Names of the topics in those two.
    names: BTreeMap<Uuid, Arc<str>>,
    said: Option<Said>,
    /// The assignment is another than the one that was answered last: when it is reached, what is
    /// owned is said, also if that did not change, since the coordinator waits for it.
    is_unconfirmed: bool,
    /// The coordinator knows a pattern of this member, which is to be taken back expressly.
    pattern_was_said: bool,
    /// A heartbeat went out since this member was last out of the group.
    may_be_known: bool,
    stay: u64,
    in_flight: bool,
    interval: Duration,
    next_beat: Instant,
    last_poll: Instant,
    /// It has left because nobody polled: it does not join before somebody does.
    waits_for_poll: bool,
    backoff: Backoff,
    not_before: Instant,
    naming_backoff: Backoff,
    name_not_before: Instant,
}

impl ConsumerMembership {
    /// `member_id` is made up by the client and kept as long as it lives (KIP-1082).
    pub(crate) fn new(
        group: &str,
        member_id: &str,
        config: &ConsumerConfig,
        client: &ClientConfig,
    ) -> Self {
        let backoff = Backoff::new(client.retry_backoff, client.retry_backoff_max);
        Self {
            group: group.into(),
            id: MemberId {
                member_id: member_id.into(),
                generation: LEAVE_EPOCH,
                instance_id: config.group_instance_id.as_deref().map(Arc::from),
            },
            rack: config.rack.as_deref().map(Arc::from),
            assignor: config.remote_assignor.as_deref().map(Arc::from),
            max_poll_interval: config.max_poll_interval,
            wants: Wants::default(),
            coordinator: None,
            state: State::Outside,
            owned: Ids::new(),
            target: Ids::new(),
            names: BTreeMap::new(),
            said: None,
            is_unconfirmed: false,
            pattern_was_said: false,
            may_be_known: false,
            stay: 0,
            in_flight: false,
            interval: FIRST_INTERVAL,
            next_beat: Instant::default(),
            last_poll: Instant::default(),
            waits_for_poll: false,
            backoff,
            not_before: Instant::default(),
            naming_backoff: backoff,
            name_not_before: Instant::default(),
        }
    }

    /// The group's name.
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// The group's coordinator, as far as is known.
    pub(crate) fn coordinator(&self) -> Option<i32> {
        self.coordinator
    }

    /// Who this consumer is to its group now; its generation is the member epoch.
    pub(crate) fn id(&self) -> MemberId {
        self.id.clone()
    }

    /// Whether it wants anything of the group.
    pub(crate) fn is_subscribed(&self) -> bool {
        !self.wants.is_empty()
    }

    /// The topics wanted, from now on; a change is told to the coordinator at once.
    pub(crate) fn subscribe(&mut self, now: Instant, wants: Wants) {
        self.last_poll = now;
        self.waits_for_poll = false;
        if wants == self.wants {
            return;
        }
        self.wants = wants;
        match self.state {
            State::Outside if self.wants.is_empty() => {}
            State::Outside => self.join(),
            _ => self.beat_at_once(),
        }
    }

    /// The topics wanted by name.
    pub(crate) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.wants.topics.clone()
    }

    /// The application polls: it is alive.
    pub(crate) fn on_poll(&mut self, now: Instant) {
        self.last_poll = now;
        self.waits_for_poll = false;
    }

    /// Whether the application has not polled for too long; then the member is to leave.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.is_member() && now >= self.last_poll + self.max_poll_interval
    }

    /// What is to be done now, beside heartbeats.
    pub(crate) fn step(&self, now: Instant) -> Step {
        match &self.state {
            State::Losing => Step::Revoke {
                partitions: self.named(&self.owned),
                lost: true,
            },
            State::Revoking(partitions) => Step::Revoke {
                partitions: self.named(partitions),
                lost: false,
            },
            State::Member => self.approach(now),
            State::Outside | State::Joining => Step::Rest,
        }
    }

    /// A member's next step towards its assignment, from which nothing is left to give up.
    fn approach(&self, now: Instant) -> Step {
        let partitions = self.takeable();
        if !partitions.is_empty() {
            return Step::Take { partitions };
        }
        // topics made a moment ago, or deleted: they are asked for until the assignment changes
        let new = self.target.difference(&self.owned);
        let nameless: BTreeSet<Uuid> = new.map(|(topic, _)| *topic).collect();
        match nameless.is_empty() {
            true => Step::Rest,
            false if now < self.name_not_before => Step::Wait(self.name_not_before),
            false => Step::Name { topics: nameless },
        }
    }

    /// By the topics' names; those without one are left out.
    fn named(&self, ids: &Ids) -> BTreeSet<TopicPartition> {
        ids.iter()
            .filter_map(|(topic, partition)| {
                let name = self.names.get(topic)?;
                Some(TopicPartition::new(name.clone(), *partition))
            })
            .collect()
    }

    /// Names of topics that [`Step::Name`] asked for; those that are not found yet are asked for
    /// again later.
    pub(crate) fn on_names(
        &mut self,
        now: Instant,
        names: impl IntoIterator<Item = (Uuid, Arc<str>)>,
        random: u64,
    ) {
        let wanted = |topic: &Uuid| self.target.iter().any(|(of_target, _)| of_target == topic);
        let found: Vec<_> = names.into_iter().filter(|(id, _)| wanted(id)).collect();
        self.names.extend(found);
        let is_nameless = |(topic, _): &(Uuid, i32)| !self.names.contains_key(topic);
        match self.target.iter().any(is_nameless) {
            true => self.name_not_before = now + self.naming_backoff.on_failure(random),
            false => self.naming_backoff.on_success(),
        }
    }

    /// The coordinator is known.
    pub(crate) fn on_coordinator(&mut self, node: i32) {
        self.coordinator = Some(node);
    }

    /// A request to the coordinator, or the search for it, failed, but may not the next time. What
    /// it said may have been heard or not: the next heartbeat says everything.
    pub(crate) fn on_failed(&mut self, now: Instant, random: u64) {
        self.coordinator = None;
        self.retry(now, random);
    }

    fn retry(&mut self, now: Instant, random: u64) {
        self.in_flight = false;
        self.said = None;
        self.not_before = now + self.backoff.on_failure(random);
        self.beat_at_once();
    }

    /// Whether the coordinator is to be looked for now.
    pub(crate) fn wants_coordinator(&self, now: Instant) -> bool {
        self.coordinator.is_none() && self.is_due(now)
    }

    /// When to look for a heartbeat again; none if only an event can make one due.
    pub(crate) fn next_heartbeat(&self) -> Option<Instant> {
        match self.state {
            State::Outside | State::Losing => None,
            _ if self.in_flight => None,
            State::Joining => Some(self.not_before),
            State::Member | State::Revoking(_) => Some(self.next_beat.max(self.not_before)),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_time = self.next_heartbeat().is_some_and(|at| at <= now);
        // who does not poll does not join
        let is_alive = !self.waits_for_poll && now < self.last_poll + self.max_poll_interval;
        is_time && (is_alive || self.state != State::Joining)
    }

    /// The heartbeat to be sent now, if one is due; [`ConsumerMembership::on_beaten`] or
    /// [`ConsumerMembership::on_failed`].
    pub(crate) fn beat(&mut self, now: Instant) -> Option<Beat> {
        if self.coordinator.is_none() || !self.is_due(now) {
            return None;
        }
        self.in_flight = true;
        self.may_be_known = true;
        self.next_beat = now + self.interval;
        Some(self.saying())
    }

    /// What the coordinator has not heard yet; to join, everything.
    fn saying(&self) -> Beat {
        let said = self.said.as_ref().filter(|_| self.state != State::Joining);
        let wants = &self.wants;
        let is_full = said.is_none();
        let pattern_changed = said.is_none_or(|said| said.wants.pattern != wants.pattern);
        let pattern = wants.pattern.clone();
        let pattern = pattern.or_else(|| self.pattern_was_said.then(|| "".into()));
        let owned_changed = said.is_none_or(|said| said.owned != self.owned);
        let confirms = self.is_unconfirmed && self.state == State::Member;
        let says_owned = owned_changed || confirms;
        let topics_changed = said.is_none_or(|said| said.wants.topics != wants.topics);
        Beat {
            member: self.id(),
            rack: self.rack.clone().filter(|_| is_full),
            rebalance_timeout: is_full.then_some(self.max_poll_interval),
            topics: topics_changed.then(|| wants.topics.clone()),
            pattern: pattern.filter(|_| pattern_changed),
            assignor: self.assignor.clone().filter(|_| is_full),
            owned: says_owned.then(|| self.owned.clone()),
            stay: self.stay,
            said: Said {
                wants: wants.clone(),
                owned: self.owned.clone(),
            },
        }
    }

    /// A heartbeat's answer.
    pub(crate) fn on_beaten(
        &mut self,
        now: Instant,
        beat: &Beat,
        answer: Result<Beaten, Refused>,
        random: u64,
    ) -> Result<(), GroupError> {
        if beat.stay != self.stay {
            return Ok(());
        }
        self.in_flight = false;
        let beaten = match answer {
            Ok(beaten) => beaten,
            Err(refused) => return self.on_refused(now, refused, random),
        };
        self.backoff.on_success();
        if !beaten.member_id.is_empty() {
            self.id.member_id = beaten.member_id.as_str().into();
        }
        self.id.generation = beaten.epoch;
        self.pattern_was_said |= beat.pattern.is_some();
        let changed_since = beat.said.wants != self.wants || beat.said.owned != self.owned;
        self.said = Some(beat.said.clone());
        if beaten.interval != self.interval && !beaten.interval.is_zero() {
            self.interval = beaten.interval;
            self.next_beat = now + self.interval;
        }
        if changed_since {
            self.beat_at_once();
        }
        if self.state == State::Joining {
            self.state = State::Member;
        }
        if beat.owned.is_some() {
            self.is_unconfirmed = false;
        }
        if let Some(assignment) = beaten.assignment.filter(|new| *new != self.target) {
            self.target = assignment;
            self.is_unconfirmed = true;
            self.forget_names();
            self.naming_backoff.on_success();
            self.name_not_before = now;
        }
        self.give_up();
        if self.is_unconfirmed && self.state == State::Member && self.takeable().is_empty() {
            self.beat_at_once();
        }
        Ok(())
    }

    /// What is assigned and not taken yet, as far as it has names.
    fn takeable(&self) -> BTreeSet<TopicPartition> {
        let new = self.target.difference(&self.owned).copied().collect();
        self.named(&new)
    }

    /// Begins to give up what is not assigned any more, unless that is under way.
    fn give_up(&mut self) {
        let gone: Ids = self.owned.difference(&self.target).copied().collect();
        if self.state == State::Member && !gone.is_empty() {
            self.state = State::Revoking(gone);
        }
    }

    fn on_refused(
        &mut self,
        now: Instant,
        refused: Refused,
        random: u64,
    ) -> Result<(), GroupError> {
        let Refused { code, message } = refused;
        match code {
            // abandon everything and join again at once, by the same id
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => self.lose(),
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.on_failed(now, random);
            }
            code if code.is_retriable() => self.retry(now, random),
            code => {
                self.unsubscribe();
                return Err(GroupError::Refused {
                    group: self.group.clone(),
                    code,
                    message,
                });
            }
        }
        Ok(())
    }

    /// The broker cannot be asked: this member will not be one.
    pub(crate) fn on_unserved(&mut self, cause: String) -> GroupError {
        self.unsubscribe();
        GroupError::Unserved {
            group: self.group.clone(),
            cause,
        }
    }

    /// The application has let go of what [`Step::Revoke`] named.
    pub(crate) fn on_revoked(&mut self) {
        match std::mem::replace(&mut self.state, State::Member) {
            State::Losing => {
                self.owned.clear();
                match self.wants.is_empty() {
                    true => self.state = State::Outside,
                    false => self.join(),
                }
            }
            State::Revoking(gone) => {
                self.owned.retain(|partition| !gone.contains(partition));
                self.forget_names();
                // others wait for them
                self.beat_at_once();
                self.give_up();
            }
            other => self.state = other,
        }
    }

    /// The application has what [`Step::Take`] named.
    pub(crate) fn on_taken(&mut self) {
        if self.state != State::Member {
            return;
        }
        let new = self.target.difference(&self.owned).copied();
        let named: Ids = new
            .filter(|(topic, _)| self.names.contains_key(topic))
            .collect();
        self.owned.extend(named);
        self.forget_names();
        self.beat_at_once();
    }

    fn forget_names(&mut self) {
        let used = self.owned.iter().chain(&self.target);
        let used: BTreeSet<Uuid> = used.map(|(topic, _)| *topic).collect();
        self.names.retain(|topic, _| used.contains(topic));
    }

    fn beat_at_once(&mut self) {
        self.next_beat = Instant::default();
    }

    fn join(&mut self) {
        self.state = State::Joining;
        self.id.generation = JOIN_EPOCH;
        self.said = None;
        self.is_unconfirmed = false;
        self.target.clear();
        self.beat_at_once();
    }

    /// The heartbeat with which this member leaves: a static one for a while, since its membership
    /// is to outlive the process (KIP-345).
    pub(crate) fn farewell(&self) -> Beat {
        let epoch = match self.id.instance_id {
            Some(_) => STATIC_LEAVE_EPOCH,
            None => LEAVE_EPOCH,
        };
        Beat {
            member: MemberId {
                generation: epoch,
                ..self.id()
            },
            rack: None,
            rebalance_timeout: None,
            topics: None,
            pattern: None,
            assignor: None,
            owned: None,
            stay: self.stay,
            said: Said {
                wants: Wants::default(),
                owned: Ids::new(),
            },
        }
    }

    /// The member leaves, or is out: what it has is lost, and nobody joins until the next poll.
    pub(crate) fn leave(&mut self) {
        self.waits_for_poll = true;
        self.lose();
    }

    /// Ends the subscription.
    pub(crate) fn unsubscribe(&mut self) {
        self.wants = Wants::default();
        self.lose();
    }

    /// Whether the coordinator knows this member.
    pub(crate) fn is_member(&self) -> bool {
        self.id.generation > JOIN_EPOCH
    }

    /// Whether it may, since it was asked to: then this member says goodbye when it goes.
    pub(crate) fn may_be_known(&self) -> bool {
        self.may_be_known
    }

    fn lose(&mut self) {
        self.stay += 1;
        self.in_flight = false;
        self.may_be_known = false;
        self.said = None;
        self.id.generation = LEAVE_EPOCH;
        match (self.owned.is_empty(), self.wants.is_empty()) {
            (false, _) => self.state = State::Losing,
            (true, true) => self.state = State::Outside,
            (true, false) => self.join(),
        }
    }
}

#[cfg(test)]
#[path = "consumer_protocol_test.rs"]
mod tests;
