//! Requests about partitions of several owners: which part of one is answered at once, and which is a
//! question to an owner.

use std::collections::BTreeSet;

use crate::router::{PartitionId, Result};
use crate::shard::Shard;

/// Where the answer to each part of a request comes from.
pub(super) enum Part<R> {
    /// Known without asking.
    Told(Result<R>),
    /// The next answer of the owners.
    Asked,
}

impl<R> Part<R> {
    /// The part's answer; the owners' come in the order of the questions.
    pub(super) fn resolve(self, answers: &mut impl Iterator<Item = Result<R>>) -> Result<R> {
        match self {
            Self::Told(result) => result,
            Self::Asked => answers.next().expect("one answer per question"),
        }
    }
}

/// Names in the order of their first places, each once: a few bytes of a request must not make the
/// same large answer a thousand times. Kafka's clients name nothing twice.
pub(super) fn each_once<T: Ord + Clone>(mut names: Vec<T>) -> Vec<T> {
    let mut known = BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    names
}

/// What is asked of which core.
pub(super) type Questions<Q> = Vec<(usize, (PartitionId, Q))>;

impl Shard {
    /// Splits the questions that can be put to an owner from those that are answered at once.
    pub(super) fn questions<Q, R>(
        &self,
        asked: impl Iterator<Item = std::result::Result<(PartitionId, Q), Result<R>>>,
    ) -> (Vec<Part<R>>, Questions<Q>) {
        let (mut parts, mut questions) = (Vec::new(), Vec::new());
        for one in asked {
            match one {
                Ok((id, query)) => {
                    questions.push((self.router.owner(id), (id, query)));
                    parts.push(Part::Asked);
                }
                Err(told) => parts.push(Part::Told(told)),
            }
        }
        (parts, questions)
    }
}
