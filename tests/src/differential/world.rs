//! What a seed's requests are about: the same names on both brokers, and the dice.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_wire::StrBytes;
use ringmill_wire::api;
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, GroupId, RequestKind, ResponseKind, TopicName,
};

use super::side::{Ask, Body, Memory};

/// What is learned from an answer.
type Learn = Box<dyn Fn(&mut Memory, &ResponseKind)>;

/// A request to both brokers.
pub struct Step {
    /// On which of the connections.
    pub connection: u8,
    /// The request, by what its broker has named so far.
    pub ask: Box<dyn Fn(&Memory) -> Ask>,
    /// What is learned from an answer.
    pub learn: Option<Learn>,
    /// Sent, but not waited for until the next one is answered.
    pub together: bool,
}

impl Step {
    /// A request that is told nothing.
    pub fn fixed(ask: Ask) -> Self {
        Self::of(move |_| ask.clone())
    }

    /// A request that depends on what was learned.
    pub fn of(ask: impl Fn(&Memory) -> Ask + 'static) -> Self {
        Self {
            connection: 0,
            ask: Box::new(ask),
            learn: None,
            together: false,
        }
    }

    /// Learns from the answer.
    pub fn learning(mut self, learn: impl Fn(&mut Memory, &ResponseKind) + 'static) -> Self {
        self.learn = Some(Box::new(learn));
        self
    }

    /// On another connection.
    pub fn on(mut self, connection: u8) -> Self {
        self.connection = connection;
        self
    }

    /// Not waited for until the next one is answered.
    pub fn together(mut self) -> Self {
        self.together = true;
        self
    }
}

/// A message as a request.
pub fn ask(key: ApiKey, version: i16, message: RequestKind) -> Ask {
    Ask {
        key,
        version,
        body: Body::Message(Box::new(message)),
    }
}

/// Text that lives as long as anyone wants.
pub fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// The items, each key once: brokers merge parts that are of the same topic.
pub fn distinct<T, K: Ord>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.filter(|item| seen.insert(key(item))).collect()
}

/// A seed's names and dice.
pub struct World {
    /// What every name of the seed begins with.
    pub tag: String,
    /// When the run began, in milliseconds since the Unix epoch: no record is older or much newer.
    pub began_ms: i64,
    random: SmallRng,
}

impl World {
    /// The seed's world, in a run of that number that began then.
    pub fn new((run, began_ms): (u32, i64), seed: u64) -> Self {
        Self {
            began_ms,
            tag: format!("x{run:x}-{seed}-"),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Usually the first, else one of the others.
    pub fn usually<T: Clone>(&mut self, good: T, others: &[T]) -> T {
        match self.chance(75) {
            true => good,
            false => self.pick(others),
        }
    }

    /// One of the versions that we serve.
    pub fn version(&mut self, key: ApiKey) -> i16 {
        let api = api::Api::by_number(key as i16).expect("steps are of served APIs");
        self.random.random_range(api.min..=api.max)
    }

    /// A name of this seed.
    pub fn named(&self, name: &str) -> StrBytes {
        text(format!("{}{name}", self.tag))
    }

    /// A topic of this seed, there or not.
    pub fn topic(&mut self) -> StrBytes {
        let name = self.pick(&[
            "one",
            "one",
            "three",
            "three",
            "three",
            "new",
            "gone",
            "compacted",
        ]);
        self.named(name)
    }

    /// As [`World::topic`], by the type of topic names.
    pub fn topic_name(&mut self) -> TopicName {
        TopicName(self.topic())
    }

    /// A partition, there or not.
    pub fn partition(&mut self) -> i32 {
        self.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 7, -1, i32::MAX])
    }

    /// A classic group of this seed.
    pub fn group(&mut self) -> GroupId {
        let name = self.pick(&["group", "group", "group", "other"]);
        GroupId(self.named(name))
    }

    /// A transactional id of this seed.
    pub fn transactional_id(&mut self) -> StrBytes {
        let name = self.pick(&["txn", "txn", "txn", "txn-2"]);
        self.named(name)
    }
}
