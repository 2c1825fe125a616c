//! A consumer's half of a rebalance: partitions that come and go, told to the application at its
//! polls, and the end of a membership.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::consumer_protocol::Beat;
use super::fetcher::Start;
use super::membership::{MemberId, Step};
use super::protocol::AnyMembership;
use super::{Event, PollError, Shared, beats, group};
use crate::assignor::TopicPartition;
use crate::transport::now;

impl Shared {
    /// Takes the membership's steps that concern the application.
    pub(super) async fn advance_group(self: &Rc<Self>) -> Result<Option<Event>, PollError> {
        let step = {
            let mut membership = self.membership.borrow_mut();
            let Some(membership) = membership.as_mut() else {
                return Ok(None);
            };
            membership.on_poll(now());
            // one that was away too long joins again with this poll
            if membership.is_subscribed() && !membership.is_member() {
                self.ring_group();
            }
            membership.step(now())
        };
        let Step::Revoke { partitions, lost } = step else {
            if let Step::Take { partitions } = step {
                return Ok(self.take_partitions(partitions));
            }
            if step != Step::Rest {
                self.group_bell.notify_one();
            }
            return Ok(None);
        };
        if self
            .told
            .borrow_mut()
            .take_if(|told| *told == partitions)
            .is_some()
        {
            self.fetcher.borrow_mut().remove(&partitions);
            self.with_membership(AnyMembership::on_revoked);
            return Ok(None);
        }
        if lost {
            *self.told.borrow_mut() = Some(partitions.clone());
            return Ok(Some(Event::Lost(partitions)));
        }
        if self.config.auto_commit.is_some() {
            // the group's next generation reads the offsets: a failure is told, not fatal
            if let Err(error) = self.commit_positions(&BTreeMap::new()).await {
                self.errors.borrow_mut().push(error.into());
            }
        }
        for partition in &partitions {
            self.fetcher.borrow_mut().set_paused(partition, true);
        }
        // only now: a poll that is dropped while it commits has told nobody
        *self.told.borrow_mut() = Some(partitions.clone());
        Ok(Some(Event::Revoked(partitions)))
    }

    fn take_partitions(self: &Rc<Self>, partitions: BTreeSet<TopicPartition>) -> Option<Event> {
        for partition in &partitions {
            let mut fetcher = self.fetcher.borrow_mut();
            fetcher.set(partition.clone(), Start::Committed);
        }
        self.with_membership(AnyMembership::on_taken);
        self.on_assignment();
        (!partitions.is_empty()).then_some(Event::Assigned(partitions))
    }

    pub(super) fn with_membership(&self, act: impl FnOnce(&mut AnyMembership)) {
        if let Some(membership) = self.membership.borrow_mut().as_mut() {
            act(membership);
        }
        self.ring_group();
    }

    /// The membership may have something to do, or to say.
    pub(super) fn ring_group(&self) {
        self.group_bell.notify_one();
        self.beat_bell.notify_one();
    }

    /// Leaves the group. A static member says nothing by the classic protocol, and by the other that
    /// it comes back: its membership is to outlive the process (KIP-345). `for_good`, it wants nothing
    /// any more, or a heartbeat that is due meanwhile would join again, behind its own farewell.
    pub(super) async fn leave(&self, for_good: bool) {
        let (goodbye, node) = {
            let mut membership = self.membership.borrow_mut();
            let Some(membership) = membership.as_mut() else {
                return;
            };
            let goodbye = Goodbye::of(membership);
            match for_good {
                true => membership.unsubscribe(),
                false => membership.leave(),
            }
            (goodbye, membership.coordinator())
        };
        let (Some(goodbye), Some(node)) = (goodbye, node) else {
            return;
        };
        let group = self.config.group_id.as_deref().unwrap_or_default();
        let limit = self.client.config().request_timeout;
        // a member that cannot say goodbye is missed after its session's time
        match goodbye {
            Goodbye::Leave(id) => {
                // not the group's own connection, where a join may be waiting for the others
                if let Ok(connection) = self.client.node(node).await {
                    let _ = group::leave(&connection, group, &id, limit).await;
                }
            }
            // the group's own connection, or it could overtake the heartbeat that joins
            Goodbye::Farewell(beat) => {
                if let Ok(connection) = self.coordination.get(&self.client, node).await {
                    let _ = beats::send(&connection, group, &beat, limit).await;
                }
            }
        }
    }
}

/// How a member takes its leave.
enum Goodbye {
    Leave(MemberId),
    Farewell(Box<Beat>),
}

impl Goodbye {
    /// None from one that the coordinator does not know, or is not to miss.
    fn of(membership: &AnyMembership) -> Option<Self> {
        match membership {
            AnyMembership::Classic(member) => {
                let leaves = member.is_member() && member.id().instance_id.is_none();
                leaves.then(|| Self::Leave(member.id()))
            }
            AnyMembership::Consumer(member) => {
                let beat = || Self::Farewell(Box::new(member.farewell()));
                member.may_be_known().then(beat)
            }
        }
    }
}
