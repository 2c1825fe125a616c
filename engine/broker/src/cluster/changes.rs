//! Changes of partitions that one request asks for, gathered into commands.

use std::collections::BTreeMap;

use ringmill_replication::partition::state::PartitionState;
use ringmill_wire::Uuid;

use super::command::Command;
use crate::limits::MAX_CHANGES_PER_REQUEST;

/// One request changes more partitions than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyChanges;

/// Partitions as they are to be. Each of them changes once: what becomes of it was decided by the
/// metadata before all of these.
#[derive(Debug, Default)]
pub struct Changes {
    by_topic: BTreeMap<Uuid, BTreeMap<i32, PartitionState>>,
    count: usize,
}

impl Changes {
    /// Whether a partition changes already.
    pub fn contains(&self, topic: Uuid, partition: i32) -> bool {
        let changed = self.by_topic.get(&topic);
        changed.is_some_and(|changed| changed.contains_key(&partition))
    }

    /// A partition is to be so.
    ///
    /// # Errors
    /// [`TooManyChanges`].
    ///
    /// # Panics
    /// If it changes already.
    pub fn add(
        &mut self,
        topic: Uuid,
        partition: i32,
        state: PartitionState,
    ) -> Result<(), TooManyChanges> {
        if self.count >= MAX_CHANGES_PER_REQUEST {
            return Err(TooManyChanges);
        }
        let changed = self.by_topic.entry(topic).or_default();
        let before = changed.insert(partition, state);
        assert!(before.is_none(), "a partition changes once");
        self.count += 1;
        Ok(())
    }

    /// The commands that make it so.
    pub fn commands(self) -> Vec<Command> {
        let topics = self.by_topic.into_iter();
        let set = topics.map(|(topic, changed)| Command::SetPartitions {
            topic,
            partitions: changed.into_iter().collect(),
        });
        set.collect()
    }
}
