//! What was proposed, acknowledged and applied, by all nodes of a story.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Everything that is known; shared by all nodes, which are in one thread.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ids of commands that were acknowledged.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Ids of commands that certainly count for nothing.
    pub(crate) refused: BTreeSet<u64>,
    /// By index: the command that some node has applied there.
    applied: BTreeMap<u64, u64>,
    /// Who has led in each term.
    leaders: BTreeMap<u64, i32>,
    /// Snapshots that were restored.
    pub(crate) snapshots: usize,
    next_id: u64,
    /// The first promise that was broken.
    scandal: Option<String>,
}

pub(crate) type Shared = Rc<RefCell<History>>;

impl History {
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn broken(&mut self, what: String) {
        self.scandal.get_or_insert(what);
    }

    /// State machine safety: all nodes apply the same command at an index.
    pub(crate) fn on_applied(&mut self, node: i32, index: u64, id: u64) {
        let first = *self.applied.entry(index).or_insert(id);
        if first != id {
            self.broken(format!(
                "node {node} applied command {id} at index {index}, where another applied {first}"
            ));
        }
        if self.refused.contains(&id) {
            self.broken(format!(
                "command {id} was refused, and node {node} applied it"
            ));
        }
    }

    /// Election safety: one leader per term.
    pub(crate) fn on_leader(&mut self, term: u64, leader: i32) {
        let first = *self.leaders.entry(term).or_insert(leader);
        if first != leader {
            self.broken(format!("term {term} had the leaders {first} and {leader}"));
        }
    }

    pub(crate) fn on_refused(&mut self, id: u64) {
        if self.applied.values().any(|applied| *applied == id) {
            self.broken(format!("command {id} was refused after it was applied"));
        }
        self.refused.insert(id);
    }

    /// The largest index that some node has applied.
    pub(crate) fn last_applied(&self) -> u64 {
        self.applied.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// The first promise that was broken, if any.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.scandal.clone().map_or(Ok(()), Err)
    }

    /// A node's whole state holds all of `acknowledged`, each once.
    pub(crate) fn check_state(
        &self,
        node: i32,
        state: &[(u64, u64)],
        acknowledged: &BTreeSet<u64>,
    ) -> Result<(), String> {
        let ids: BTreeSet<u64> = state.iter().map(|(_, id)| *id).collect();
        if ids.len() != state.len() {
            return Err(format!("node {node} holds a command twice"));
        }
        if let Some(lost) = acknowledged.difference(&ids).next() {
            return Err(format!(
                "command {lost} was acknowledged, and node {node} lacks it"
            ));
        }
        Ok(())
    }
}
