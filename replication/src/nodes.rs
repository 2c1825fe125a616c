//! The nodes of a cluster: who may be one, and who is heard from. Pure.
//!
//! A node is known by its number and by its data folder: a folder has an id of its own, made when it
//! is first used, and a lock that lets one process in. So whoever comes with the same folder is the
//! same node in a new life, however soon; whoever comes with another folder is somebody else, or the
//! same node with a new disk, and what it had is gone.

use std::collections::BTreeMap;

use ringmill_wire::features::{LevelRange, Levels, Supported};
use thiserror::Error;

use crate::partition::NodeId;
use crate::quorum::Address;

/// A node as the metadata says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Which of its lives this is: larger with each registration in the cluster (Kafka's broker
    /// epoch).
    pub epoch: i64,
    /// The id of its data folder.
    pub folder: u128,
    /// Where it is reached.
    pub address: Address,
    /// Where it stands (`broker.rack`).
    pub rack: Option<String>,
    /// Which levels of which features it supports; nothing where the metadata does not say it.
    pub supported: Supported,
    /// It is not heard from, or has not come up yet: it leads nothing.
    pub is_fenced: bool,
    /// It is about to stop, and gives its leaderships away.
    pub is_stopping: bool,
}

impl NodeState {
    /// It can lead, and be in sync.
    pub fn is_usable(&self) -> bool {
        !self.is_fenced && !self.is_stopping
    }
}

/// A node that comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its number.
    pub node: NodeId,
    /// The id of its data folder.
    pub folder: u128,
    /// Where it is reached.
    pub address: Address,
    /// Where it stands.
    pub rack: Option<String>,
    /// Which levels of which features it supports.
    pub supported: Supported,
    /// What it had not flushed may be gone: its machine has lost its power, as far as is known.
    pub lost_unflushed: bool,
}

/// Why a node is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotRegistered {
    /// Another process has the number.
    #[error(
        "node {node} runs already, at {address} and on another data folder: give this one another node.id"
    )]
    Duplicate {
        /// The number.
        node: NodeId,
        /// Where the other one is.
        address: Address,
    },
    /// Another node is reached there.
    #[error("node {other} is reached at {address} already: give node {node} another address")]
    SameAddress {
        /// The one that comes.
        node: NodeId,
        /// The one that is there.
        other: NodeId,
        /// Where.
        address: Address,
    },
    /// The cluster is at a level of a feature that the node does not have.
    #[error(
        "node {node} supports {feature} {range}, and the cluster is at {level}: start it with a build that has that level"
    )]
    Level {
        /// The one that comes.
        node: NodeId,
        /// The feature's name.
        feature: String,
        /// What the node supports.
        range: LevelRange,
        /// Where the cluster is.
        level: i16,
    },
}

/// What a registration makes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The node from now on; fenced until it says that it is up to date.
    pub state: NodeState,
    /// Its copies are gone: it comes on another data folder than before.
    pub has_lost_all: bool,
}

/// Lets a node into a cluster whose features are at `levels`. `epoch` is larger than any before.
///
/// # Errors
/// Another node would be taken for it, or it does not support what the cluster is at.
pub fn register(
    nodes: &BTreeMap<NodeId, NodeState>,
    levels: &Levels,
    registration: Registration,
    epoch: i64,
) -> Result<Registered, NotRegistered> {
    let Registration {
        node,
        folder,
        address,
        rack,
        supported,
        lost_unflushed: _,
    } = registration;
    let before = nodes.get(&node);
    if let Some(before) = before
        && before.folder != folder
        && !before.is_fenced
    {
        return Err(NotRegistered::Duplicate {
            node,
            address: before.address.clone(),
        });
    }
    let there = |(id, other): &(&NodeId, &NodeState)| {
        **id != node && other.address == address && !other.is_fenced
    };
    if let Some((other, _)) = nodes.iter().find(there) {
        return Err(NotRegistered::SameAddress {
            node,
            other: *other,
            address,
        });
    }
    for (feature, level) in levels {
        let range = supported.get(feature).copied().unwrap_or_default();
        if !range.contains(*level) {
            return Err(NotRegistered::Level {
                node,
                feature: feature.clone(),
                range,
                level: *level,
            });
        }
    }
    Ok(Registered {
        has_lost_all: before.is_some_and(|before| before.folder != folder),
        state: NodeState {
            epoch,
            folder,
            address,
            rack,
            supported,
            is_fenced: true,
            is_stopping: false,
        },
    })
}

/// Who was heard from when, as the quorum's leader knows it. A new leader knows nothing, and gives
/// everybody a whole session's time.
#[derive(Debug)]
pub struct Heartbeats {
    session_ms: u64,
    heard: BTreeMap<NodeId, u64>,
}

impl Heartbeats {
    /// Of a leader that begins now. A node that is not heard from for `session_ms` is out
    /// (`broker.session.timeout.ms`).
    pub fn new(session_ms: u64, nodes: impl Iterator<Item = NodeId>, now_ms: u64) -> Self {
        let heard = nodes.map(|node| (node, now_ms)).collect();
        Self { session_ms, heard }
    }

    /// These nodes are up. Whoever is not watched yet has a whole session from now on: a new leader may
    /// hear of some only when it has come to all that was agreed on before it led.
    pub fn watch(&mut self, nodes: impl Iterator<Item = NodeId>, now_ms: u64) {
        for node in nodes {
            self.heard.entry(node).or_insert(now_ms);
        }
    }

    /// A node is there.
    pub fn on_heartbeat(&mut self, node: NodeId, now_ms: u64) {
        self.heard.insert(node, now_ms);
    }

    /// A node is not watched any more: it is fenced, or gone.
    pub fn forget(&mut self, node: NodeId) {
        self.heard.remove(&node);
    }

    /// Nodes that are out by now.
    pub fn expired(&self, now_ms: u64) -> Vec<NodeId> {
        let is_out =
            |(_, heard): &(&NodeId, &u64)| now_ms.saturating_sub(**heard) > self.session_ms;
        let out = self.heard.iter().filter(is_out);
        out.map(|(node, _)| *node).collect()
    }

    /// When the next one is out, if nobody is heard from before.
    pub fn next_expiry(&self) -> Option<u64> {
        let first = self.heard.values().min()?;
        Some(first + self.session_ms + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address {
            host: "h".to_owned(),
            port,
        }
    }

    fn registration(node: NodeId, folder: u128, port: u16) -> Registration {
        Registration {
            node,
            folder,
            address: address(port),
            rack: None,
            supported: Supported::from([("f".to_owned(), LevelRange::new(1, 2))]),
            lost_unflushed: false,
        }
    }

    fn cluster() -> BTreeMap<NodeId, NodeState> {
        let mut nodes = BTreeMap::new();
        for node in [1, 2] {
            let new = registration(node, node as u128, node as u16);
            let registered = register(&nodes, &Levels::new(), new, 5).unwrap();
            assert!(!registered.has_lost_all && registered.state.is_fenced);
            let up = NodeState {
                is_fenced: false,
                ..registered.state
            };
            nodes.insert(node, up);
        }
        nodes
    }

    #[test]
    fn the_same_folder_is_the_same_node_in_a_new_life() {
        let again = register(&cluster(), &Levels::new(), registration(2, 2, 9), 6).unwrap();
        assert_eq!((again.state.epoch, again.has_lost_all), (6, false));
        assert_eq!(again.state.address, address(9));
        assert!(!again.state.is_usable(), "until it is up to date");
    }

    #[test]
    fn another_folder_is_somebody_else_while_the_node_runs() {
        let mut nodes = cluster();
        let error = register(&nodes, &Levels::new(), registration(2, 7, 9), 6).unwrap_err();
        assert!(
            error.to_string().contains("node 2 runs already, at h:2"),
            "{error}"
        );
        nodes.get_mut(&2).unwrap().is_fenced = true;
        let again = register(&nodes, &Levels::new(), registration(2, 7, 9), 6).unwrap();
        assert!(again.has_lost_all, "its disk was replaced");
    }

    #[test]
    fn two_nodes_are_not_reached_at_one_address() {
        let mut nodes = cluster();
        let error = register(&nodes, &Levels::new(), registration(3, 3, 2), 6).unwrap_err();
        assert!(
            error.to_string().contains("node 2 is reached at h:2"),
            "{error}"
        );
        nodes.get_mut(&2).unwrap().is_fenced = true;
        assert!(
            register(&nodes, &Levels::new(), registration(3, 3, 2), 6).is_ok(),
            "it may have moved"
        );
    }

    #[test]
    fn a_node_has_to_support_what_the_cluster_is_at() {
        let at = |feature: &str, level| {
            let levels = Levels::from([(feature.to_owned(), level)]);
            let registered = register(&cluster(), &levels, registration(3, 3, 3), 6);
            registered.map(|registered| registered.state.supported.len())
        };
        assert_eq!(at("f", 1), Ok(1));
        assert_eq!(at("f", 2), Ok(1));
        for (feature, level, range) in [("f", 3, "1-2"), ("unknown", 1, "0")] {
            let why = at(feature, level).unwrap_err().to_string();
            let expected =
                format!("node 3 supports {feature} {range}, and the cluster is at {level}: start");
            assert!(why.starts_with(&expected), "{why}");
        }
    }

    #[test]
    fn whoever_is_not_heard_from_is_out_after_a_session() {
        let mut beats = Heartbeats::new(100, [1, 2, 3].into_iter(), 1000);
        assert_eq!(beats.next_expiry(), Some(1101));
        beats.on_heartbeat(2, 1050);
        beats.forget(3);
        assert!(beats.expired(1100).is_empty());
        assert_eq!(beats.expired(1101), [1]);
        assert_eq!(beats.expired(1151), [1, 2]);
        beats.forget(1);
        assert_eq!(beats.next_expiry(), Some(1151));
        // Who is watched already has no new session, who is heard of only now has one.
        beats.watch([2, 4].into_iter(), 1140);
        assert_eq!(beats.expired(1151), [2]);
        assert_eq!(beats.expired(1241), [2, 4]);
    }
}
