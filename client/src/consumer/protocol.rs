//! A consumer's membership by whichever protocol its group speaks (`group.protocol`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::consumer_protocol::{ConsumerMembership, Wants};
use super::membership::{MemberId, Membership, Step};
use crate::config::{ClientConfig, ConsumerConfig, GroupProtocol};
use crate::transport::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) enum AnyMembership {
    /// The members assign (see [`super::membership`]).
    Classic(Membership),
    /// The coordinator assigns (see [`super::consumer_protocol`]).
    Consumer(ConsumerMembership),
}

/// Calls the method of either membership.
macro_rules! each {
    ($any:expr, $member:ident => $call:expr) => {
        match $any {
            AnyMembership::Classic($member) => $call,
            AnyMembership::Consumer($member) => $call,
        }
    };
}

impl AnyMembership {
    /// `member_id` is for the protocol whose clients make up their own.
    pub(crate) fn new(
        group: &str,
        member_id: &str,
        config: &ConsumerConfig,
        client: &ClientConfig,
    ) -> Self {
        match config.group_protocol {
            GroupProtocol::Classic => Self::Classic(Membership::new(group, config, client)),
            GroupProtocol::Consumer => {
                Self::Consumer(ConsumerMembership::new(group, member_id, config, client))
            }
        }
    }

    /// The membership by the classic protocol, if it is one.
    pub(crate) fn classic(&mut self) -> Option<&mut Membership> {
        match self {
            Self::Classic(member) => Some(member),
            Self::Consumer(_) => None,
        }
    }

    /// The membership by the consumer protocol, if it is one.
    pub(crate) fn consumer(&mut self) -> Option<&mut ConsumerMembership> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(member) => Some(member),
        }
    }

    /// The topics wanted from now on; false if the protocol has no patterns.
    pub(crate) fn subscribe(&mut self, now: Instant, wants: Wants) -> bool {
        match self {
            Self::Classic(_) if wants.pattern.is_some() => return false,
            Self::Classic(member) => member.subscribe(now, wants.topics),
            Self::Consumer(member) => member.subscribe(now, wants),
        }
        true
    }

    /// The member as OffsetFetch wants to know it: by the consumer protocol alone (KIP-848).
    pub(crate) fn reader(&self) -> Option<MemberId> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(member) => member.is_member().then(|| member.id()),
        }
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        each!(self, member => member.group())
    }

    pub(crate) fn id(&self) -> MemberId {
        each!(self, member => member.id())
    }

    pub(crate) fn coordinator(&self) -> Option<i32> {
        each!(self, member => member.coordinator())
    }

    pub(crate) fn is_member(&self) -> bool {
        each!(self, member => member.is_member())
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        each!(self, member => member.is_subscribed())
    }

    pub(crate) fn topics(&self) -> BTreeSet<Arc<str>> {
        each!(self, member => member.topics())
    }

    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        each!(self, member => member.is_overdue(now))
    }

    pub(crate) fn step(&self, now: Instant) -> Step {
        each!(self, member => member.step(now))
    }

    pub(crate) fn on_poll(&mut self, now: Instant) {
        each!(self, member => member.on_poll(now));
    }

    pub(crate) fn on_coordinator(&mut self, node: i32) {
        each!(self, member => member.on_coordinator(node));
    }

    pub(crate) fn on_failed(&mut self, now: Instant, random: u64) {
        each!(self, member => member.on_failed(now, random));
    }

    pub(crate) fn on_revoked(&mut self) {
        each!(self, member => member.on_revoked());
    }

    pub(crate) fn on_taken(&mut self) {
        each!(self, member => member.on_taken());
    }

    pub(crate) fn leave(&mut self) {
        each!(self, member => member.leave());
    }

    pub(crate) fn unsubscribe(&mut self) {
        each!(self, member => member.unsubscribe());
    }
}
