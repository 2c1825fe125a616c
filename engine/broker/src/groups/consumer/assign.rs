//! The assignors of the broker: which partitions each member is to have. `range` gives each member a
//! contiguous range of every topic, the same one of topics with as many partitions; `uniform`
//! balances the numbers and moves as little as it can. Both have Kafka's semantics.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringmill_wire::Uuid;

use super::partitions::Partitions;
use super::uniform;

/// How partitions are spread over members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Even numbers, few moves.
    Uniform,
    /// Ranges, for joins of topics.
    Range,
}

/// The names of all assignors, the default first.
pub const ASSIGNORS: [&str; 2] = ["uniform", "range"];

impl Assignor {
    /// The assignor of its name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// What each of `members` is to have, in their order.
    pub fn assign(self, members: &[Subscriber<'_>], topics: &Topics) -> Vec<Partitions> {
        match self {
            Self::Uniform => uniform::assign(members, topics),
            Self::Range => range(members, topics),
        }
    }
}

/// The topics that exist and are subscribed to, with their numbers of partitions.
pub type Topics = BTreeMap<Uuid, i32>;

/// A member as an assignor sees it.
#[derive(Debug, Clone)]
pub struct Subscriber<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its instance id, if static.
    pub instance_id: Option<&'a str>,
    /// What it subscribes to, as far as it exists.
    pub topics: Rc<BTreeSet<Uuid>>,
    /// What it was to have so far.
    pub previous: &'a Partitions,
}

/// The next range of a topic.
struct Ranges {
    partitions: i32,
    members: i32,
    /// Members that got theirs.
    served: i32,
    next: i32,
}

impl Ranges {
    fn take(&mut self) -> std::ops::Range<i32> {
        // The first ones get one more where it does not come out even.
        let one_more = i32::from(self.served < self.partitions % self.members);
        let start = self.next;
        self.next = start + self.partitions / self.members + one_more;
        self.served += 1;
        start..self.next
    }
}

/// Members in order of instance ids, then of member ids, take their range of each topic, so that a
/// static member finds its own again.
fn range(members: &[Subscriber<'_>], topics: &Topics) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|at| {
        let member = &members[*at];
        (member.instance_id.is_none(), member.instance_id, member.id)
    });
    let mut ranges: BTreeMap<Uuid, Ranges> = BTreeMap::new();
    for topic in members.iter().flat_map(|member| member.topics.iter()) {
        let Some(partitions) = topics.get(topic) else {
            continue;
        };
        let fresh = Ranges {
            partitions: *partitions,
            members: 0,
            served: 0,
            next: 0,
        };
        ranges.entry(*topic).or_insert(fresh).members += 1;
    }
    let mut assigned = vec![Partitions::default(); members.len()];
    for at in order {
        for topic in members[at].topics.iter() {
            if let Some(ranges) = ranges.get_mut(topic) {
                assigned[at].extend(ranges.take().map(|partition| (*topic, partition)));
            }
        }
    }
    assigned
}
