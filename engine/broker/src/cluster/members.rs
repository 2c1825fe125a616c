//! What becomes of nodes, and of partitions with them: a node registers and begins a new life, is
//! let in, falls silent, stops, leaves. Pure: each function gives the commands that follow.
//!
//! A node's life begins fenced: it has no leadership, and is in no ISR that has others in it. A
//! leader epoch never spans two lives of a node where somebody else has a copy, for what a leader
//! had not flushed may be gone, and others may have fetched it.

use std::cell::Cell;

use ringmill_replication::nodes::{NodeState, NotRegistered, Registration, register as admit};
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::{Change, Election, PartitionState};
use ringmill_ring::planted;
use ringmill_wire::Uuid;

use super::command::Command;
use super::features;
use super::image::{Image, Topic};
use crate::config::topic::Durability;

/// A node begins a life (BrokerRegistration). Its epoch is the version of the metadata that it is
/// registered in, larger than any before. The first node of all decides which levels of features the
/// cluster begins at: the highest that it supports.
///
/// # Errors
/// It would be taken for another node, or does not support what the cluster is at.
pub fn register(image: &Image, registration: Registration) -> Result<Vec<Command>, NotRegistered> {
    let (node, lost_unflushed) = (registration.node, registration.lost_unflushed);
    let epoch = image.version as i64 + 1;
    let levels = match image.version {
        0 => features::levels_of_first(&registration.supported),
        _ => image.levels().clone(),
    };
    let mut registered = admit(image.nodes(), &levels, registration, epoch)?;
    if !features::are_recorded(&levels) {
        registered.state.supported.clear();
    }
    // Of a node that had left nobody knows with which folder it comes, and partitions may remember it.
    let has_lost_all = registered.has_lost_all || !image.nodes().contains_key(&node);
    let has_lost_all = has_lost_all && !planted("lost-disk-unnoticed");
    let set = Command::SetNode {
        node,
        state: registered.state,
    };
    let gone = [node];
    let lossy = |topic: &Topic, state: &PartitionState| -> &[NodeId] {
        let is_lossy = match has_lost_all {
            true => true,
            false => lost_unflushed && may_lack(topic, state, node),
        };
        if is_lossy { &gone } else { &[] }
    };
    let may_lead = |other: NodeId| other != node && image.is_usable(other);
    let mut commands = vec![set];
    commands.extend(features::commands_between(image.levels(), &levels));
    commands.extend(change_partitions(image, |topic, state| {
        let is_alone = state.replicas == gone && !has_lost_all;
        let is_alone = is_alone || planted("new-life-keeps-leaderships");
        if !state.replicas.contains(&node) || is_alone {
            return None;
        }
        let change = change_of(topic, state, &may_lead).leave(&gone);
        change.lossy(lossy(topic, state)).build()
    }));
    Ok(commands)
}

/// Whether a node that has lost what it had not flushed may lack acknowledged records of a partition
/// that others may have: acknowledgements of its topic do not wait for the disk, and another replica is
/// safe. Of what nobody else has kept, its copy is the best there is.
fn may_lack(topic: &Topic, state: &PartitionState, node: NodeId) -> bool {
    let mut safe = state.isr.iter().chain(&state.elr);
    topic.config.durability != Durability::Flushed && safe.any(|other| *other != node)
}

/// A node is up to date, and may take part (BrokerHeartbeat without a wish to be fenced).
pub fn unfence(image: &Image, node: NodeId) -> Vec<Command> {
    let may_lead = |other: NodeId| other == node || image.is_usable(other);
    set_usable(image, node, false, &may_lead)
}

/// A node is not heard from, or wants to be left out.
pub fn fence(image: &Image, node: NodeId) -> Vec<Command> {
    let may_lead = |other: NodeId| other != node && image.is_usable(other);
    set_usable(image, node, true, &may_lead)
}

fn set_usable(
    image: &Image,
    node: NodeId,
    is_fenced: bool,
    may_lead: &dyn Fn(NodeId) -> bool,
) -> Vec<Command> {
    let Some(before) = image.nodes().get(&node) else {
        return Vec::new();
    };
    let state = NodeState {
        is_fenced,
        ..before.clone()
    };
    let mut commands = Vec::new();
    if state != *before {
        commands.push(Command::SetNode { node, state });
    }
    let gone = [node];
    commands.extend(change_partitions(image, |topic, state| {
        if !state.replicas.contains(&node) {
            return None;
        }
        let change = change_of(topic, state, may_lead);
        let change = if is_fenced {
            change.leave(&gone)
        } else {
            change
        };
        change.build()
    }));
    commands
}

/// A node is about to stop: it gives its leaderships away, and is in no ISR that has others in it.
pub fn stop(image: &Image, node: NodeId) -> Vec<Command> {
    let Some(before) = image.nodes().get(&node) else {
        return Vec::new();
    };
    let state = NodeState {
        is_stopping: true,
        ..before.clone()
    };
    let mut commands = Vec::new();
    if state != *before {
        commands.push(Command::SetNode { node, state });
    }
    let gone = [node];
    commands.extend(change_partitions(image, |topic, state| {
        let others = |other: NodeId| other != node && image.is_usable(other);
        let has_other = state.isr.iter().any(|replica| others(*replica));
        // Without anybody to take over it leads to the end.
        if !state.replicas.contains(&node) || !has_other {
            return None;
        }
        change_of(topic, state, &others).leave(&gone).build()
    }));
    commands
}

/// Whether a node that stops still leads a partition that another could take over.
pub fn may_stop(image: &Image, node: NodeId) -> bool {
    stop(image, node).is_empty()
}

/// What elections lead to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Elected {
    /// How many partitions change.
    pub count: usize,
    /// What makes it so.
    pub commands: Vec<Command>,
}

/// Partitions that are not led by their first replica, though they could be; so many at the most.
pub fn balance(image: &Image, max: usize) -> Elected {
    let may_lead = |node: NodeId| image.is_usable(node);
    elect(image, max, |topic, state| {
        if state.is_preferred_leader() {
            return None;
        }
        let change = change_of(topic, state, &may_lead);
        change.election(Election::Preferred).build()
    })
}

/// Partitions that nobody leads, though somebody may by the topic's settings, who may lack
/// acknowledged records; so many at the most.
pub fn elect_uncleanly(image: &Image, max: usize) -> Elected {
    let may_lead = |node: NodeId| image.is_usable(node);
    elect(image, max, |topic, state| {
        let may_lose = topic.config.unclean_leader_election;
        if state.leader.is_some() || !may_lose {
            return None;
        }
        change_of(topic, state, &may_lead).build()
    })
}

fn elect(
    image: &Image,
    max: usize,
    change: impl Fn(&Topic, &PartitionState) -> Option<PartitionState>,
) -> Elected {
    let count = Cell::new(0);
    let commands = change_partitions(image, |topic, state| {
        if count.get() == max {
            return None;
        }
        let changed = change(topic, state);
        count.set(count.get() + usize::from(changed.is_some()));
        changed
    });
    Elected {
        count: count.get(),
        commands,
    }
}

/// A change of a partition of `topic`, by the topic's settings.
pub fn change_of<'a>(
    topic: &Topic,
    state: &'a PartitionState,
    may_lead: &'a dyn Fn(NodeId) -> bool,
) -> Change<'a> {
    let min_isr = topic.config.min_insync_replicas as usize;
    let change = Change::of(state, min_isr, may_lead);
    match topic.config.unclean_leader_election {
        true => change.election(Election::Unclean),
        false => change,
    }
}

/// The commands that make of each partition what `change` makes of it.
fn change_partitions(
    image: &Image,
    change: impl Fn(&Topic, &PartitionState) -> Option<PartitionState>,
) -> Vec<Command> {
    let mut topics: Vec<_> = image.topics().collect();
    topics.sort_unstable_by_key(|topic| topic.id);
    let changed = topics.into_iter().filter_map(|topic| {
        let states = topic.partitions.iter().enumerate();
        let states = states.filter_map(|(at, state)| Some((at as i32, change(topic, state)?)));
        set(topic.id, states.collect())
    });
    changed.collect()
}

fn set(topic: Uuid, partitions: Vec<(i32, PartitionState)>) -> Option<Command> {
    (!partitions.is_empty()).then_some(Command::SetPartitions { topic, partitions })
}

#[cfg(test)]
#[path = "members_test.rs"]
mod tests;
