//! A set of partitions, by topic id and number: what a member owns, gives up or is to have.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::Uuid;

/// What a partition counts against the bound on a core's groups, about.
const PARTITION_BYTES: usize = 16;

/// Partitions of any topics, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partitions {
    topics: BTreeMap<Uuid, BTreeSet<i32>>,
    len: usize,
}

impl Partitions {
    /// How many partitions there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.len * PARTITION_BYTES
    }

    /// Adds a partition; whether it was not there.
    pub fn insert(&mut self, topic: Uuid, partition: i32) -> bool {
        let is_new = self.topics.entry(topic).or_default().insert(partition);
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes a partition out; whether it was there.
    pub fn remove(&mut self, topic: Uuid, partition: i32) -> bool {
        let Some(numbers) = self.topics.get_mut(&topic) else {
            return false;
        };
        let was_there = numbers.remove(&partition);
        if numbers.is_empty() {
            self.topics.remove(&topic);
        }
        self.len -= usize::from(was_there);
        was_there
    }

    /// Whether a partition is there.
    pub fn contains(&self, topic: Uuid, partition: i32) -> bool {
        let numbers = self.topics.get(&topic);
        numbers.is_some_and(|numbers| numbers.contains(&partition))
    }

    /// All partitions.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, i32)> {
        let topics = self.topics.iter();
        topics.flat_map(|(topic, numbers)| numbers.iter().map(|number| (*topic, *number)))
    }

    /// The topics, each with its partitions.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = (Uuid, &BTreeSet<i32>)> {
        self.topics.iter().map(|(topic, numbers)| (*topic, numbers))
    }

    /// Those that are in both.
    pub fn common(&self, other: &Self) -> Self {
        let both = self.iter().filter(|(t, p)| other.contains(*t, *p));
        both.collect()
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let left = self.iter().filter(|(t, p)| !other.contains(*t, *p));
        left.collect()
    }

    /// Whether one of them is in `other`.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|(t, p)| other.contains(t, p))
    }

    /// Whether all of them are in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|(t, p)| other.contains(t, p))
    }
}

impl FromIterator<(Uuid, i32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (Uuid, i32)>>(all: I) -> Self {
        let mut set = Self::default();
        set.extend(all);
        set
    }
}

impl Extend<(Uuid, i32)> for Partitions {
    fn extend<I: IntoIterator<Item = (Uuid, i32)>>(&mut self, all: I) {
        for (topic, partition) in all {
            self.insert(topic, partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(all: &[(u128, i32)]) -> Partitions {
        let all = all.iter().map(|(t, p)| (Uuid::from_u128(*t), *p));
        all.collect()
    }

    #[test]
    fn sets_count_what_they_have() {
        let mut a = set(&[(1, 0), (1, 1), (2, 0), (1, 0)]);
        let b = set(&[(1, 1), (3, 0)]);
        assert_eq!(a.len(), 3);
        assert_eq!(a.common(&b), set(&[(1, 1)]));
        assert_eq!(a.without(&b), set(&[(1, 0), (2, 0)]));
        assert!(a.overlaps(&b) && !a.is_within(&b) && a.common(&b).is_within(&b));
        assert!(a.remove(Uuid::from_u128(2), 0) && !a.remove(Uuid::from_u128(2), 0));
        assert_eq!((a.len(), a.topics().len()), (2, 1));
    }
}
