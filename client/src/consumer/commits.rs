//! A consumer's commits: of its positions, by itself or when it is told to.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringmill_wire::error::ErrorCode;

use super::membership::MemberId;
use super::protocol::AnyMembership;
use super::{CommitError, Shared};
use crate::assignor::TopicPartition;
use crate::cluster::LookupError;
use crate::group_offsets::{self, Committed, CommittedOffsets};
use crate::transport::{now, spawn};

impl Shared {
    /// Commits what earlier polls gave, if it is time to, behind the application's back: polls do not
    /// wait for a coordinator that takes its time.
    pub(super) fn auto_commit_if_due(self: &Rc<Self>) {
        let Some(interval) = self.config.auto_commit else {
            return;
        };
        if self.config.group_id.is_none() || now() < self.next_commit.get() {
            return;
        }
        // One at a time, and from now on: what is committed later is to come later.
        let Some(turn) = self.commits.try_lock_owned() else {
            return;
        };
        self.next_commit.set(now() + interval);
        let offsets = self.positions_but(&BTreeMap::new());
        let (shared, member) = (Rc::clone(self), self.member_id());
        let task = spawn(async move {
            let committed = shared.commit_as(&offsets, Some(&member)).await;
            drop(turn);
            match committed {
                // the group rebalances: what was processed is committed when partitions are given up
                Err(CommitError::Refused {
                    code: ErrorCode::RebalanceInProgress,
                    ..
                })
                | Ok(()) => {}
                Err(error) => shared.fail(error.into()),
            }
        });
        *self.committing.borrow_mut() = Some(task);
    }

    pub(super) async fn commit_if_automatic(
        &self,
        held: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), CommitError> {
        match self.config.auto_commit {
            Some(_) if self.config.group_id.is_some() => {
                self.commit_positions(held).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Commits positions, for partitions that are in `held` those that it says.
    pub(super) async fn commit_positions(
        &self,
        held: &BTreeMap<TopicPartition, i64>,
    ) -> Result<CommittedOffsets, CommitError> {
        let _turn = self.commits.lock().await;
        let offsets = self.positions_but(held);
        self.commit_as(&offsets, None).await?;
        Ok(offsets)
    }

    /// The positions of all partitions, of those in `held` what it says.
    fn positions_but(&self, held: &BTreeMap<TopicPartition, i64>) -> CommittedOffsets {
        let positions = self.fetcher.borrow().positions();
        positions
            .into_iter()
            .map(|(partition, (offset, leader_epoch))| {
                let committed = Committed {
                    leader_epoch,
                    ..Committed::at(held.get(&partition).copied().unwrap_or(offset))
                };
                (partition, committed)
            })
            .collect()
    }

    /// Commits what it is told.
    pub(super) async fn commit(&self, offsets: &CommittedOffsets) -> Result<(), CommitError> {
        let _turn = self.commits.lock().await;
        self.commit_as(offsets, None).await
    }

    fn member_id(&self) -> Option<MemberId> {
        let membership = self.membership.borrow();
        let member = membership.as_ref()?;
        member.is_member().then(|| member.id())
    }

    /// Commits, again and again if need be; but not as anybody else than `only_as`, if that is given:
    /// what a member has read in one generation may be another's in the next.
    async fn commit_as(
        &self,
        offsets: &CommittedOffsets,
        only_as: Option<&Option<MemberId>>,
    ) -> Result<(), CommitError> {
        let Some(group) = self.config.group_id.as_deref() else {
            return Err(CommitError::NoGroup);
        };
        if offsets.is_empty() {
            return Ok(());
        }
        self.client
            .retried(async || match only_as {
                Some(member) if *member != self.member_id() => Ok(()),
                _ => self.commit_once(group, offsets).await,
            })
            .await
    }

    async fn commit_once(
        &self,
        group: &str,
        offsets: &CommittedOffsets,
    ) -> Result<(), CommitError> {
        let (member, known) = {
            let membership = self.membership.borrow();
            let membership = membership.as_ref();
            let member = membership.filter(|member| member.is_member());
            // without a generation, an empty group would take it for an administrator's
            if member.is_none() && membership.is_some_and(AnyMembership::is_subscribed) {
                return Err(CommitError::NotMember(group.into()));
            }
            (
                member.map(AnyMembership::id),
                member.and_then(AnyMembership::coordinator),
            )
        };
        let node = match known {
            Some(node) => node,
            None => self.client.coordinator(group).await?,
        };
        // not the group's own connection, where a join may be waiting for the other members
        let connection = self.client.node(node).await?;
        let limit = self.client.config().request_timeout;
        let refused =
            group_offsets::commit(&connection, group, member.as_ref(), offsets, limit).await?;
        match refused.into_values().next() {
            None => Ok(()),
            Some(code) => Err(CommitError::Refused {
                group: group.into(),
                code,
            }),
        }
    }

    /// What the group has committed for partitions; those without an offset are left out.
    pub(super) async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<CommittedOffsets, LookupError> {
        let reader = || {
            let membership = self.membership.borrow();
            membership.as_ref().and_then(AnyMembership::reader)
        };
        let client = &self.client;
        client.committed_as(group, Some(partitions), reader).await
    }
}
