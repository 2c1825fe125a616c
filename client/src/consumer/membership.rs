//! A consumer's membership in its group, by the classic protocol: join, sync, heartbeat, leave.
//!
//! Pure. [`Membership::step`] says what is to be done now; whoever does it reports back, and asks
//! again. Before partitions are given up, the application is told and has until its next poll to
//! commit ([`Step::Revoke`]). With an eager strategy all are given up before each rebalance, with a
//! cooperative one only those that move (KIP-429).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::Uuid;
use ringmill_wire::error::ErrorCode;
use thiserror::Error;

use crate::admin::said;
use crate::assignor::protocol::{
    GroupProtocolError, Subscription, decode_assignment, encode_assignment,
};
use crate::assignor::{
    Assignor, Member, PartitionCounts, Rebalance, TopicPartition, common_rebalance,
};
use crate::backoff::Backoff;
use crate::config::{ClientConfig, ConsumerConfig};
use crate::transport::Instant;

/// Why a consumer cannot be a member of its group.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GroupError {
    /// The coordinator refuses for good.
    #[error("group {group:?}: {}", said(*.code, .message.as_deref()))]
    Refused {
        /// The group.
        group: Arc<str>,
        /// The coordinator's code.
        code: ErrorCode,
        /// The coordinator's words, where it has any.
        message: Option<String>,
    },
    /// The broker does not speak the group's protocol, or not the version that the subscription
    /// needs.
    #[error("group {group:?}: {cause}; group.protocol=classic works with every broker")]
    Unserved {
        /// The group.
        group: Arc<str>,
        /// What it lacks.
        cause: String,
    },
    /// Another member, or the group's leader, speaks another language.
    #[error("group {group:?}: {error}")]
    Protocol {
        /// The group.
        group: Arc<str>,
        /// What is wrong.
        error: GroupProtocolError,
    },
    /// The group settled on a strategy that this member did not offer.
    #[error("group {group:?} uses the strategy {strategy:?}, which this consumer does not have")]
    Strategy {
        /// The group.
        group: Arc<str>,
        /// Its name.
        strategy: String,
    },
}

/// Who this consumer is to its group at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberId {
    pub(crate) member_id: Arc<str>,
    pub(crate) generation: i32,
    pub(crate) instance_id: Option<Arc<str>>,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: not subscribed, or stable.
    Rest,
    /// Nothing before this time.
    Wait(Instant),
    /// Ask who coordinates the group; [`Membership::on_coordinator`].
    FindCoordinator,
    /// Tell the application, at its next poll, that it loses these; at the poll after that,
    /// [`Membership::on_revoked`]. If `lost`, they are another's already and cannot be committed.
    Revoke {
        partitions: BTreeSet<TopicPartition>,
        lost: bool,
    },
    /// Send a JoinGroup; [`Membership::on_joined`]. Per strategy its name and this member's wants.
    Join { protocols: Vec<(Assignor, Bytes)> },
    /// Learn how many partitions these topics have; [`Membership::on_counts`].
    Count { topics: BTreeSet<Arc<str>> },
    /// Send a SyncGroup; [`Membership::on_synced`]. Per member its assignment, from the leader.
    Sync { assignments: Vec<(Arc<str>, Bytes)> },
    /// Give the application these partitions in addition; [`Membership::on_taken`].
    Take {
        partitions: BTreeSet<TopicPartition>,
    },
    /// Learn the names of these topics, which an assignment of the consumer protocol names by id;
    /// [`super::consumer_protocol::ConsumerMembership::on_names`].
    Name { topics: BTreeSet<Uuid> },
}

/// A JoinGroup answer without an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Joined {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    /// The leader need not assign anew (KIP-814).
    pub(crate) skip_assignment: bool,
    /// For the leader: id, instance id and wants of each.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not a member; will be, if subscribed.
    Outside,
    /// Gives up what a rebalance demands, then joins.
    Revoking {
        lost: bool,
    },
    Joining,
    /// The leader, before it knows the topics.
    Counting {
        members: Vec<Member>,
        topics: BTreeSet<Arc<str>>,
    },
    Syncing {
        assignments: Vec<(Arc<str>, Bytes)>,
    },
    /// Has its assignment, gives up what is no longer in it.
    Trimming {
        assigned: BTreeSet<TopicPartition>,
    },
    /// Takes what is new in it.
    Taking {
        assigned: BTreeSet<TopicPartition>,
        again: bool,
    },
    Stable,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Membership {
    group: Arc<str>,
    instance_id: Option<Arc<str>>,
    assignors: Vec<Assignor>,
    heartbeat_interval: Duration,
    max_poll_interval: Duration,
    topics: BTreeSet<Arc<str>>,
    /// What the last JoinGroup named.
    joined_topics: BTreeSet<Arc<str>>,
    coordinator: Option<i32>,
    state: State,
    member_id: Arc<str>,
    generation: i32,
    chosen: Option<Assignor>,
    owned: BTreeSet<TopicPartition>,
    /// As leader: what was assigned, to see when it has changed.
    counted: Option<PartitionCounts>,
    last_heartbeat: Instant,
    last_poll: Instant,
    backoff: Backoff,
    not_before: Instant,
}

const NO_GENERATION: i32 = -1;

impl Membership {
    pub(crate) fn new(group: &str, config: &ConsumerConfig, client: &ClientConfig) -> Self {
        Self {
            group: group.into(),
            instance_id: config.group_instance_id.as_deref().map(Arc::from),
            assignors: config.assignors.clone(),
            heartbeat_interval: config.heartbeat_interval,
            max_poll_interval: config.max_poll_interval,
            topics: BTreeSet::new(),
            joined_topics: BTreeSet::new(),
            coordinator: None,
            state: State::Outside,
            member_id: "".into(),
            generation: NO_GENERATION,
            chosen: None,
            owned: BTreeSet::new(),
            counted: None,
            last_heartbeat: Instant::default(),
            last_poll: Instant::default(),
            backoff: Backoff::new(client.retry_backoff, client.retry_backoff_max),
            not_before: Instant::default(),
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

    /// Who this consumer is to its group now.
    pub(crate) fn id(&self) -> MemberId {
        MemberId {
            member_id: self.member_id.clone(),
            generation: self.generation,
            instance_id: self.instance_id.clone(),
        }
    }

    /// Whether it wants anything of the group.
    pub(crate) fn is_subscribed(&self) -> bool {
        !self.topics.is_empty()
    }

    /// The strategy that the group has settled on.
    pub(crate) fn strategy(&self) -> Option<Assignor> {
        self.chosen
    }

    /// The topics wanted, from now on; a change makes the group rebalance.
    pub(crate) fn subscribe(&mut self, now: Instant, topics: BTreeSet<Arc<str>>) {
        self.last_poll = now;
        if topics != self.topics {
            self.topics = topics;
            self.rejoin();
        }
    }

    /// The topics wanted.
    pub(crate) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.topics.clone()
    }

    /// The application wants the group to rebalance.
    pub(crate) fn enforce_rebalance(&mut self) {
        self.rejoin();
    }

    /// The application polls: it is alive.
    pub(crate) fn on_poll(&mut self, now: Instant) {
        self.last_poll = now;
    }

    /// Whether the application has not polled for too long; then the member is to leave.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.is_member() && now >= self.last_poll + self.max_poll_interval
    }

    /// What is to be done now.
    pub(crate) fn step(&self, now: Instant) -> Step {
        match &self.state {
            State::Revoking { lost } => {
                let partitions = self.owned.clone();
                let lost = *lost;
                Step::Revoke { partitions, lost }
            }
            State::Trimming { assigned } => Step::Revoke {
                partitions: self.owned.difference(assigned).cloned().collect(),
                lost: false,
            },
            State::Taking { assigned, .. } => Step::Take {
                partitions: assigned.difference(&self.owned).cloned().collect(),
            },
            State::Counting { topics, .. } => Step::Count {
                topics: topics.clone(),
            },
            State::Stable => Step::Rest,
            State::Outside if self.topics.is_empty() => Step::Rest,
            State::Outside if now >= self.last_poll + self.max_poll_interval => Step::Rest,
            State::Outside | State::Joining | State::Syncing { .. } => self.request(now),
        }
    }

    fn request(&self, now: Instant) -> Step {
        if now < self.not_before {
            return Step::Wait(self.not_before);
        }
        if self.coordinator.is_none() {
            return Step::FindCoordinator;
        }
        if let State::Syncing { assignments } = &self.state {
            let assignments = assignments.clone();
            return Step::Sync { assignments };
        }
        let wants = Subscription {
            topics: self.topics.clone(),
            owned: self.owned.clone(),
            generation: self.generation,
        }
        .encode();
        let protocols = self
            .assignors
            .iter()
            .map(|assignor| (*assignor, wants.clone()));
        Step::Join {
            protocols: protocols.collect(),
        }
    }

    /// A JoinGroup goes out.
    pub(crate) fn on_join_sent(&mut self) {
        self.joined_topics = self.topics.clone();
        self.state = State::Joining;
    }

    /// The coordinator is known.
    pub(crate) fn on_coordinator(&mut self, node: i32) {
        self.coordinator = Some(node);
    }

    /// A request to the coordinator, or the search for it, failed, but may not the next time.
    pub(crate) fn on_failed(&mut self, now: Instant, random: u64) {
        self.coordinator = None;
        self.not_before = now + self.backoff.on_failure(random);
    }

    /// The answer to [`Step::Join`].
    pub(crate) fn on_joined(
        &mut self,
        now: Instant,
        answer: Result<Joined, ErrorCode>,
        given_id: &str,
        random: u64,
    ) -> Result<(), GroupError> {
        let joined = match answer {
            Ok(joined) => joined,
            // KIP-394: come again with the id that was given
            Err(ErrorCode::MemberIdRequired) => {
                self.member_id = given_id.into();
                return Ok(());
            }
            Err(code) => return self.on_refused(now, code, random),
        };
        self.backoff.on_success();
        self.member_id = joined.member_id.as_str().into();
        self.generation = joined.generation;
        self.last_heartbeat = now;
        let chosen = self.assignors.iter().find(|a| a.name() == joined.protocol);
        let Some(chosen) = chosen else {
            return Err(GroupError::Strategy {
                group: self.group.clone(),
                strategy: joined.protocol,
            });
        };
        self.chosen = Some(*chosen);
        self.counted = None;
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        self.state = match leads {
            true => self.counting(joined.members)?,
            false => State::Syncing {
                assignments: Vec::new(),
            },
        };
        Ok(())
    }

    fn counting(&self, members: Vec<(String, Option<String>, Bytes)>) -> Result<State, GroupError> {
        let mut topics = BTreeSet::new();
        let mut known = Vec::with_capacity(members.len());
        for (id, instance_id, wants) in members {
            let wants = Subscription::decode(&wants).map_err(|error| self.wrong(error))?;
            topics.extend(wants.topics.iter().cloned());
            known.push(Member {
                id: id.into(),
                instance_id: instance_id.map(Arc::from),
                topics: wants.topics,
                owned: wants.owned,
                generation: wants.generation,
            });
        }
        Ok(State::Counting {
            members: known,
            topics,
        })
    }

    fn wrong(&self, error: GroupProtocolError) -> GroupError {
        GroupError::Protocol {
            group: self.group.clone(),
            error,
        }
    }

    /// The answer to [`Step::Count`]: topics that do not exist are not in it.
    pub(crate) fn on_counts(&mut self, counts: PartitionCounts) {
        let State::Counting { members, .. } = &self.state else {
            return;
        };
        let assigned = self.chosen.map(|chosen| chosen.assign(members, &counts));
        let assignments = assigned.into_iter().flatten();
        self.counted = Some(counts);
        self.state = State::Syncing {
            assignments: assignments
                .map(|(member, partitions)| (member, encode_assignment(&partitions)))
                .collect(),
        };
    }

    /// As leader: topics have other numbers of partitions than those assigned; then the group is to
    /// rebalance.
    pub(crate) fn on_metadata(&mut self, count: impl Fn(&str) -> Option<usize>) {
        let Some(counted) = &self.counted else {
            return;
        };
        let mut wanted = counted.keys().chain(&self.topics);
        let changed = wanted.any(|topic| {
            // a topic that cannot be seen for the moment is no reason to stop everybody
            count(topic).is_some_and(|now| counted.get(topic) != Some(&now))
        });
        if changed && self.state == State::Stable {
            self.counted = None;
            self.rejoin();
        }
    }

    /// The answer to [`Step::Sync`].
    pub(crate) fn on_synced(
        &mut self,
        now: Instant,
        answer: Result<Bytes, ErrorCode>,
        random: u64,
    ) -> Result<(), GroupError> {
        let assignment = match answer {
            Ok(assignment) => assignment,
            Err(code) => return self.on_refused(now, code, random),
        };
        let assigned = decode_assignment(&assignment).map_err(|error| self.wrong(error))?;
        self.last_heartbeat = now;
        self.state = match self.owned.is_subset(&assigned) {
            true => State::Taking {
                assigned,
                again: false,
            },
            false => State::Trimming { assigned },
        };
        Ok(())
    }

    /// The application has let go of what [`Step::Revoke`] named.
    pub(crate) fn on_revoked(&mut self) {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Revoking { .. } => {
                self.owned.clear();
                self.state = self.joining();
            }
            State::Trimming { assigned } => {
                self.owned.retain(|partition| assigned.contains(partition));
                // what was given up can now go to another: join again (KIP-429)
                self.state = State::Taking {
                    assigned,
                    again: true,
                };
            }
            other => self.state = other,
        }
    }

    /// The application has what [`Step::Take`] named.
    pub(crate) fn on_taken(&mut self) {
        let State::Taking { assigned, again } = std::mem::replace(&mut self.state, State::Stable)
        else {
            return;
        };
        self.owned = assigned;
        if again || self.joined_topics != self.topics {
            self.rejoin();
        }
    }

    /// Who is to send a heartbeat now, if it is time.
    pub(crate) fn heartbeat(&self, now: Instant) -> Option<MemberId> {
        let due = now >= self.last_heartbeat + self.heartbeat_interval;
        (due && self.is_settled() && self.coordinator.is_some()).then(|| self.id())
    }

    /// Whether the coordinator is to be looked for now, so that heartbeats can go on.
    pub(crate) fn wants_coordinator(&self, now: Instant) -> bool {
        self.coordinator.is_none() && self.is_settled() && now >= self.not_before
    }

    /// When to ask for a heartbeat again.
    pub(crate) fn next_heartbeat(&self) -> Instant {
        self.last_heartbeat + self.heartbeat_interval
    }

    /// A heartbeat goes out.
    pub(crate) fn on_heartbeat_sent(&mut self, now: Instant) {
        self.last_heartbeat = now;
    }

    /// A heartbeat's answer, for the member that sent it.
    pub(crate) fn on_heartbeat(
        &mut self,
        now: Instant,
        sender: &MemberId,
        code: ErrorCode,
        random: u64,
    ) -> Result<(), GroupError> {
        if *sender != self.id() || !self.is_settled() {
            return Ok(());
        }
        match code {
            ErrorCode::None => Ok(()),
            ErrorCode::RebalanceInProgress => {
                self.rejoin();
                Ok(())
            }
            code => self.on_refused(now, code, random),
        }
    }

    /// The coordinator refused: as a member unknown, as one too late, or for good.
    fn on_refused(&mut self, now: Instant, code: ErrorCode, random: u64) -> Result<(), GroupError> {
        match code {
            ErrorCode::UnknownMemberId => {
                self.member_id = "".into();
                self.lose();
            }
            ErrorCode::IllegalGeneration => self.lose(),
            ErrorCode::RebalanceInProgress => self.state = self.joining(),
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.on_failed(now, random);
            }
            code if code.is_retriable() => {
                self.not_before = now + self.backoff.on_failure(random);
            }
            code => {
                self.unsubscribe();
                return Err(GroupError::Refused {
                    group: self.group.clone(),
                    code,
                    message: None,
                });
            }
        }
        Ok(())
    }

    /// The member leaves, or was told to: what it has is lost, and nobody joins until the next poll.
    pub(crate) fn leave(&mut self) {
        self.lose();
        self.member_id = "".into();
    }

    /// Ends the subscription.
    pub(crate) fn unsubscribe(&mut self) {
        self.leave();
        self.topics.clear();
    }

    /// Whether the coordinator knows this member.
    pub(crate) fn is_member(&self) -> bool {
        self.generation != NO_GENERATION
    }

    /// Whether it has a place in the present generation, so that heartbeats are due.
    fn is_settled(&self) -> bool {
        let settled = matches!(
            self.state,
            State::Stable
                | State::Revoking { lost: false }
                | State::Trimming { .. }
                | State::Taking { .. }
        );
        settled && self.is_member()
    }

    fn lose(&mut self) {
        self.generation = NO_GENERATION;
        self.counted = None;
        self.state = match self.owned.is_empty() {
            true => State::Outside,
            false => State::Revoking { lost: true },
        };
    }

    fn rejoin(&mut self) {
        if !self.is_member() {
            return;
        }
        let eager = common_rebalance(&self.assignors) == Rebalance::Eager;
        let gives_up = eager && !self.owned.is_empty();
        self.state = match &self.state {
            State::Revoking { .. } => return,
            // under way: what has changed since is seen at its end
            State::Joining | State::Counting { .. } | State::Syncing { .. } => return,
            _ if gives_up => State::Revoking { lost: false },
            _ => State::Joining,
        };
    }

    fn joining(&self) -> State {
        match self.is_member() {
            true => State::Joining,
            false => State::Outside,
        }
    }
}

#[cfg(test)]
#[path = "membership_test.rs"]
mod tests;
