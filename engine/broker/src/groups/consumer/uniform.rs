//! The `uniform` assignor. Where all members subscribe to the same topics, each gets as many
//! partitions as any other, give or take one, and nobody loses one that it need not. Where
//! subscriptions differ, no partition could move to make two members more even.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmill_wire::Uuid;

use super::assign::{Subscriber, Topics};
use super::partitions::Partitions;

/// How often all members are looked at for a better balance; each time has fewer moves, and what
/// is left after so many is hardly uneven.
const MAX_PASSES: usize = 64;

pub(super) fn assign(members: &[Subscriber<'_>], topics: &Topics) -> Vec<Partitions> {
    let Some(first) = members.first() else {
        return Vec::new();
    };
    let (owned, free) = keep(members, topics);
    if members.iter().all(|member| member.topics == first.topics) {
        even_out(owned, free)
    } else {
        let mut spread = Spread::new(members, owned);
        spread.hand_out(free);
        spread.balance();
        spread.owned
    }
}

/// What each member had and may keep, and what nobody has.
fn keep(members: &[Subscriber<'_>], topics: &Topics) -> (Vec<Partitions>, Partitions) {
    let mut free = Partitions::default();
    let mut subscribed = BTreeSet::new();
    for member in members {
        subscribed.extend(member.topics.iter().copied());
    }
    for (topic, count) in topics.iter().filter(|(id, _)| subscribed.contains(id)) {
        free.extend((0..*count).map(|partition| (*topic, partition)));
    }
    let kept = members.iter().map(|member| {
        let previous = member.previous.iter();
        previous
            .filter(|(topic, partition)| {
                member.topics.contains(topic) && free.remove(*topic, *partition)
            })
            .collect()
    });
    let kept = kept.collect();
    (kept, free)
}

/// For members with the same subscription: those above their share give, those below it get.
fn even_out(mut owned: Vec<Partitions>, mut free: Partitions) -> Vec<Partitions> {
    let count = owned.len();
    let total = free.len() + owned.iter().map(Partitions::len).sum::<usize>();
    let (share, mut extra) = (total / count, total % count);
    for kept in &mut owned {
        let mut most = share;
        if kept.len() > share && extra > 0 {
            (most, extra) = (share + 1, extra - 1);
        }
        let surplus: Vec<(Uuid, i32)> = kept.iter().skip(most).collect();
        for (topic, partition) in surplus {
            kept.remove(topic, partition);
            free.insert(topic, partition);
        }
    }
    let mut lacking: VecDeque<(usize, usize)> = VecDeque::new();
    for (at, kept) in owned.iter().enumerate() {
        let mut lacks = share.saturating_sub(kept.len());
        if kept.len() <= share && extra > 0 {
            (lacks, extra) = (lacks + 1, extra - 1);
        }
        if lacks > 0 {
            lacking.push_back((at, lacks));
        }
    }
    // In turns, so that a topic's partitions come to several members.
    for (topic, partition) in free.iter() {
        let (at, lacks) = lacking.pop_front().expect("shares add up to the whole");
        owned[at].insert(topic, partition);
        if lacks > 1 {
            lacking.push_back((at, lacks - 1));
        }
    }
    owned
}

/// Members with different subscriptions. Those with the same one are a class, ordered by load.
struct Spread {
    owned: Vec<Partitions>,
    class_of: Vec<usize>,
    /// Load and place of each member of a class.
    classes: Vec<BTreeSet<(usize, usize)>>,
    /// The classes that subscribe to a topic.
    of_topic: BTreeMap<Uuid, Vec<usize>>,
}

impl Spread {
    fn new(members: &[Subscriber<'_>], owned: Vec<Partitions>) -> Self {
        let mut spread = Self {
            owned,
            class_of: Vec::with_capacity(members.len()),
            classes: Vec::new(),
            of_topic: BTreeMap::new(),
        };
        let mut known: BTreeMap<&BTreeSet<Uuid>, usize> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            let class = *known.entry(&member.topics).or_insert_with(|| {
                let class = spread.classes.len();
                spread.classes.push(BTreeSet::new());
                for topic in member.topics.iter() {
                    spread.of_topic.entry(*topic).or_default().push(class);
                }
                class
            });
            spread.class_of.push(class);
            spread.classes[class].insert((spread.owned[at].len(), at));
        }
        spread
    }

    /// The subscriber of a topic that has least, and how much that is.
    fn least(&self, topic: Uuid) -> Option<(usize, usize)> {
        let classes = self.of_topic.get(&topic)?.iter();
        classes
            .filter_map(|class| self.classes[*class].first().copied())
            .min()
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Partitions) -> bool) {
        let class = &mut self.classes[self.class_of[at]];
        class.remove(&(self.owned[at].len(), at));
        let changed = change(&mut self.owned[at]);
        debug_assert!(changed, "a partition has one owner");
        class.insert((self.owned[at].len(), at));
    }

    /// Topics with few subscribers first, for they have least choice.
    fn hand_out(&mut self, free: Partitions) {
        let mut topics: Vec<(usize, Uuid)> = free
            .topics()
            .map(|(topic, _)| {
                let classes = self.of_topic.get(&topic).into_iter().flatten();
                let subscribers = classes.map(|class| self.classes[*class].len()).sum();
                (subscribers, topic)
            })
            .collect();
        topics.sort_unstable();
        let parts: BTreeMap<Uuid, &BTreeSet<i32>> = free.topics().collect();
        for (_, topic) in topics {
            for partition in parts[&topic] {
                if let Some((_, at)) = self.least(topic) {
                    self.change(at, |owned| owned.insert(topic, *partition));
                }
            }
        }
    }

    /// Those who have most give to those who have least, while that makes the two more even.
    fn balance(&mut self) {
        for _ in 0..MAX_PASSES {
            let mut order: Vec<usize> = (0..self.owned.len()).collect();
            order.sort_by_key(|at| std::cmp::Reverse(self.owned[*at].len()));
            let moves: usize = order.into_iter().map(|at| self.relieve(at)).sum();
            if moves == 0 {
                return;
            }
        }
    }

    fn relieve(&mut self, at: usize) -> usize {
        let mut moves = 0;
        loop {
            let load = self.owned[at].len();
            let places = self.owned[at].topics().filter_map(|(topic, numbers)| {
                let (least, to) = self.least(topic)?;
                Some((least, to, topic, *numbers.last()?))
            });
            match places.min() {
                Some((least, to, topic, partition)) if least + 1 < load => {
                    self.change(at, |owned| owned.remove(topic, partition));
                    self.change(to, |owned| owned.insert(topic, partition));
                    moves += 1;
                }
                _ => return moves,
            }
        }
    }
}
