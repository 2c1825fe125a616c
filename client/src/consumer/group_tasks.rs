//! What a member of a group does between polls: find its coordinator, join, keep its membership.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::membership::{GroupError, MemberId, Membership, Step};
use super::protocol::AnyMembership;
use super::{Shared, beats, group};
use crate::assignor::PartitionCounts;
use crate::connection::Connection;
use crate::transport::{now, random_u64, sleep_until};

/// Takes the steps of the membership that do not need the application.
pub(super) async fn keep_membership(shared: Rc<Shared>) {
    loop {
        let rung = shared.group_bell.notified();
        let Some(step) = shared.membership.borrow().as_ref().map(|m| m.step(now())) else {
            return;
        };
        match step {
            Step::Rest => rung.await,
            Step::Wait(until) => _ = select(pin!(rung), pin!(sleep_until(until))).await,
            Step::Revoke { .. } | Step::Take { .. } => {
                shared.changed.notify_all();
                rung.await;
            }
            step => request(&shared, step).await,
        }

        async fn request(shared: &Shared, step: Step) {
            if let Err(error) = take(shared, step).await {
                shared.fail(error.into());
            }
        }
    }
}

async fn take(shared: &Shared, step: Step) -> Result<(), GroupError> {
    let failed = |membership: &mut Membership| membership.on_failed(now(), random_u64());
    match step {
        Step::FindCoordinator => find_coordinator(shared).await,
        Step::Name { topics } => beats::name(shared, topics).await,
        Step::Count { topics } => {
            let mut counts = PartitionCounts::new();
            for topic in topics {
                if let Ok(known) = shared.client.topic(&topic, false).await {
                    counts.insert(topic, known.partitions.len());
                }
            }
            with(shared, |membership| membership.on_counts(counts));
        }
        Step::Join { protocols } => {
            let Some((connection, group, id)) = coordinator(shared).await else {
                with(shared, failed);
                return Ok(());
            };
            with(shared, Membership::on_join_sent);
            match group::join(&connection, &group, &id, &shared.config, protocols).await {
                Ok(joined) => {
                    return try_with(shared, |membership| {
                        let id = &joined.member_id;
                        membership.on_joined(now(), joined.answer, id, random_u64())
                    });
                }
                Err(_) => with(shared, failed),
            }
        }
        Step::Sync { assignments } => {
            let mut strategy = None;
            with(shared, |membership| strategy = membership.strategy());
            let (Some((connection, group, id)), Some(strategy)) =
                (coordinator(shared).await, strategy)
            else {
                with(shared, failed);
                return Ok(());
            };
            let limit = shared.config.max_poll_interval;
            match group::sync(&connection, &group, &id, strategy, assignments, limit).await {
                Ok(answer) => {
                    return try_with(shared, |membership| {
                        membership.on_synced(now(), answer, random_u64())
                    });
                }
                Err(_) => with(shared, failed),
            }
        }
        Step::Rest | Step::Wait(_) | Step::Revoke { .. } | Step::Take { .. } => {}
    }
    Ok(())
}

/// Asks who coordinates the group.
pub(super) async fn find_coordinator(shared: &Shared) {
    let group = shared.config.group_id.as_deref().unwrap_or_default();
    let found = shared.client.coordinator(group).await;
    if let Some(membership) = shared.membership.borrow_mut().as_mut() {
        match found {
            Ok(node) => membership.on_coordinator(node),
            Err(_) => membership.on_failed(now(), random_u64()),
        }
    }
}

fn with(shared: &Shared, act: impl FnOnce(&mut Membership)) {
    let mut membership = shared.membership.borrow_mut();
    if let Some(membership) = membership.as_mut().and_then(AnyMembership::classic) {
        act(membership);
    }
}

fn try_with(
    shared: &Shared,
    act: impl FnOnce(&mut Membership) -> Result<(), GroupError>,
) -> Result<(), GroupError> {
    let mut membership = shared.membership.borrow_mut();
    let membership = membership.as_mut().and_then(AnyMembership::classic);
    membership.map_or(Ok(()), act)
}

/// The group's own connection to its coordinator, if that is known and in reach.
pub(super) async fn coordinator(shared: &Shared) -> Option<(Connection, Arc<str>, MemberId)> {
    let (node, group, id) = {
        let membership = shared.membership.borrow();
        let membership = membership.as_ref()?;
        (
            membership.coordinator()?,
            membership.group().clone(),
            membership.id(),
        )
    };
    let connection = shared.coordination.get(&shared.client, node).await.ok()?;
    Some((connection, group, id))
}

/// Leaves for an application that does not poll.
pub(super) async fn leave_if_overdue(shared: &Shared) {
    let overdue = {
        let membership = shared.membership.borrow();
        membership.as_ref().is_some_and(|m| m.is_overdue(now()))
    };
    if overdue {
        shared.leave(false).await;
        shared.changed.notify_all();
    }
}

/// Sends the classic protocol's heartbeats when they are due, and leaves for an application that
/// does not poll.
pub(super) async fn heartbeat(shared: Rc<Shared>) {
    loop {
        let mut next = now() + HEARTBEAT_PAUSE;
        with(&shared, |membership| {
            next = next.max(membership.next_heartbeat());
        });
        sleep_until(next).await;
        leave_if_overdue(&shared).await;
        let (mut due, mut wants_coordinator) = (None, false);
        with(&shared, |membership| {
            due = membership.heartbeat(now());
            wants_coordinator = membership.wants_coordinator(now());
        });
        if wants_coordinator {
            find_coordinator(&shared).await;
            continue;
        }
        let Some(id) = due else {
            continue;
        };
        if let Err(error) = beat(&shared, &id).await {
            shared.fail(error.into());
        }
        shared.group_bell.notify_one();
    }
}

async fn beat(shared: &Shared, id: &MemberId) -> Result<(), GroupError> {
    with(shared, |membership| membership.on_heartbeat_sent(now()));
    let answer = match coordinator(shared).await {
        Some((connection, group, _)) => {
            let limit = shared.config.session_timeout;
            group::heartbeat(&connection, &group, id, limit).await.ok()
        }
        None => None,
    };
    try_with(shared, |membership| match answer {
        Some(code) => membership.on_heartbeat(now(), id, code, random_u64()),
        None => {
            membership.on_failed(now(), random_u64());
            Ok(())
        }
    })
}

/// How often the heartbeat's task looks whether one is due, at the least.
const HEARTBEAT_PAUSE: Duration = Duration::from_millis(100);
