//! How a group's leader spreads partitions over the members, by Kafka's strategies.
//!
//! Pure and deterministic: the same members and partitions give the same assignment, in whatever
//! order they come. [`protocol`] holds the bytes in which members and leader talk to each other.

mod even;
pub(crate) mod protocol;
mod sticky;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A partition of a topic.
///
/// # Examples
/// ```
/// use ringmill_client::TopicPartition;
///
/// assert_eq!(TopicPartition::new("flights", 3).to_string(), "flights-3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition by names.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    ///
    /// use ringmill_client::TopicPartition;
    ///
    /// // many partitions of one topic share its name
    /// let topic: Arc<str> = "flights".into();
    /// let all: Vec<_> = (0..12).map(|number| TopicPartition::new(topic.clone(), number)).collect();
    /// assert_eq!(all[11].partition, 11);
    /// ```
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    /// `flights-3`, as the broker's folders are named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Partitions by topic count: what there is to be spread.
pub(crate) type PartitionCounts = BTreeMap<Arc<str>, usize>;

/// What each member gets, by member id.
pub(crate) type Assignment = BTreeMap<Arc<str>, BTreeSet<TopicPartition>>;

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// Survives the member's restart, where it has one (KIP-345).
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// What it has kept from before, for the sticky strategy.
    pub(crate) owned: BTreeSet<TopicPartition>,
    /// The generation in which it got that; −1 for never.
    pub(crate) generation: i32,
}

impl Member {
    /// Static members sort by their lasting name, so that a restart moves nothing.
    fn order(&self) -> (&str, &str) {
        let lasting = self.instance_id.as_deref();
        (lasting.unwrap_or(&self.id), &self.id)
    }
}

/// Whether members give up all partitions before a rebalance, or only those that move (KIP-429).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebalance {
    Eager,
    Cooperative,
}

/// A strategy (`partition.assignment.strategy`).
///
/// # Examples
/// ```
/// use ringmill_client::{Assignor, ConsumerConfig};
///
/// let config = ConsumerConfig {
///     assignors: vec![Assignor::CooperativeSticky],
///     ..ConsumerConfig::default()
/// };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Topic by topic, each member a run of neighbours: the same numbers of different topics go to
    /// the same member.
    Range,
    /// One after the other over all topics.
    RoundRobin,
    /// As even as can be with as few moves as can be, and only the moved partitions pause
    /// (KIP-341, KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// All strategies.
    pub const ALL: [Self; 3] = [Self::Range, Self::RoundRobin, Self::CooperativeSticky];

    /// Its name in the group protocol, the same in all languages.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Assignor;
    ///
    /// assert_eq!(Assignor::CooperativeSticky.name(), "cooperative-sticky");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The strategy of a name.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Assignor;
    ///
    /// assert_eq!(Assignor::from_name("range"), Some(Assignor::Range));
    /// assert_eq!(Assignor::from_name("nearest"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    pub(crate) const fn rebalance(self) -> Rebalance {
        match self {
            Self::Range | Self::RoundRobin => Rebalance::Eager,
            Self::CooperativeSticky => Rebalance::Cooperative,
        }
    }

    /// Spreads the partitions of the topics that members want, among those that exist. Each member
    /// has an entry.
    pub(crate) fn assign(self, members: &[Member], partitions: &PartitionCounts) -> Assignment {
        let mut sorted: Vec<&Member> = members.iter().collect();
        sorted.sort_by_key(|member| member.order());
        match self {
            Self::Range => even::range(&sorted, partitions),
            Self::RoundRobin => even::round_robin(&sorted, partitions),
            Self::CooperativeSticky => sticky::cooperative(&sorted, partitions),
        }
    }
}

/// How all of several strategies rebalance: cooperatively only if none demands otherwise, so that
/// members can move from one kind to the other by rolling restarts (KIP-429).
pub(crate) fn common_rebalance(assignors: &[Assignor]) -> Rebalance {
    let mut all = assignors.iter().map(|assignor| assignor.rebalance());
    if all.all(|rebalance| rebalance == Rebalance::Cooperative) {
        Rebalance::Cooperative
    } else {
        Rebalance::Eager
    }
}

/// An entry without partitions for each member.
fn nothing_yet(members: &[&Member]) -> Assignment {
    let empty = |member: &&Member| (member.id.clone(), BTreeSet::new());
    members.iter().map(empty).collect()
}

#[cfg(test)]
#[path = "assignor_test.rs"]
mod tests;
