//! Which levels of features the cluster is at (KIP-584), and how the metadata says so. Pure.
//!
//! Levels, and what nodes support, are in the metadata from level [`RECORDED`] of
//! [`RINGMILL_VERSION`] on. A build that knew none of this can be a member until then: nothing is
//! written that it does not read.

use std::collections::BTreeMap;

use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_wire::features::{
    GROUP_VERSION, LevelRange, Levels, RINGMILL_VERSION, Supported, TRANSACTION_VERSION,
};

use super::command::Command;
use super::image::Image;

/// The level of [`RINGMILL_VERSION`] from which on levels are in the metadata.
pub const RECORDED: i16 = 1;
/// The level of [`RINGMILL_VERSION`] from which on damaged copies are told of, and repaired.
pub const REPAIRS: i16 = 2;

/// Whether a cluster at these levels has them in its metadata.
pub fn are_recorded(levels: &Levels) -> bool {
    levels.get(RINGMILL_VERSION) >= Some(&RECORDED)
}

/// What a cluster is at whose metadata does not say it.
pub fn levels_before() -> Levels {
    Levels::from([
        (GROUP_VERSION.to_owned(), 1),
        (TRANSACTION_VERSION.to_owned(), 2),
    ])
}

/// What a node supports that does not say it.
pub fn supported_before() -> Supported {
    Supported::from([
        (GROUP_VERSION.to_owned(), LevelRange::new(0, 1)),
        (TRANSACTION_VERSION.to_owned(), LevelRange::new(0, 2)),
    ])
}

/// What a cluster begins at whose first node supports this.
pub fn levels_of_first(supported: &Supported) -> Levels {
    let highest = supported
        .iter()
        .map(|(name, range)| (name.clone(), range.max));
    let highest: Levels = highest.filter(|(_, level)| *level != 0).collect();
    match are_recorded(&highest) {
        true => highest,
        false => levels_before(),
    }
}

/// The commands that lead from levels to others.
pub fn commands_between(before: &Levels, after: &Levels) -> Vec<Command> {
    let level = |levels: &Levels, name: &String| levels.get(name).copied().unwrap_or(0);
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let changed = gone.chain(after.keys()).filter_map(|name| {
        let next = level(after, name);
        (next != level(before, name)).then(|| Command::SetFeature {
            name: name.clone(),
            level: next,
        })
    });
    changed.collect()
}

/// What nodes have said when they were asked, where the metadata does not say it yet: each with its
/// epoch, for the next of its lives may be another build's.
pub type Asked = BTreeMap<NodeId, (i64, Supported)>;

/// What a node supports.
pub fn supported_by(image: &Image, node: NodeId, state: &NodeState, asked: &Asked) -> Supported {
    if image.metadata_level() >= RECORDED {
        return state.supported.clone();
    }
    match asked.get(&node) {
        Some((epoch, supported)) if *epoch == state.epoch => supported.clone(),
        _ => supported_before(),
    }
}

/// The commands that lead to other levels. When these come into the metadata, what nodes support
/// comes with them.
pub fn set_levels(image: &Image, levels: &Levels, asked: &Asked) -> Vec<Command> {
    let mut commands = commands_between(image.levels(), levels);
    if are_recorded(levels) && image.metadata_level() < RECORDED {
        let nodes = image.nodes().iter();
        commands.extend(nodes.map(|(node, state)| Command::SetNode {
            node: *node,
            state: NodeState {
                supported: supported_by(image, *node, state, asked),
                ..state.clone()
            },
        }));
    }
    commands
}
