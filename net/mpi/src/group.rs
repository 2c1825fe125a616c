//! Ordered sets of processes. Pure.

use std::rc::Rc;

/// Processes by their ranks in the job; the position is the rank in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(Rc<[u32]>);

/// How two groups compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same processes in the same order.
    Identical,
    /// The same processes.
    Similar,
    /// Others.
    Unequal,
}

impl Group {
    /// A group of these, each at most once.
    pub fn new(members: impl Into<Rc<[u32]>>) -> Group {
        Group(members.into())
    }

    /// The members, by rank.
    pub fn members(&self) -> &[u32] {
        &self.0
    }

    /// How many they are.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The rank of a process.
    pub fn rank_of(&self, process: u32) -> Option<u32> {
        // In most groups, everybody stands where they stand in the job.
        if self.0.get(process as usize) == Some(&process) {
            return Some(process);
        }
        let at = self.0.iter().position(|member| *member == process)?;
        Some(at as u32)
    }

    /// How it compares to another.
    pub fn compare(&self, other: &Group) -> Comparison {
        if self == other {
            return Comparison::Identical;
        }
        let same = self.size() == other.size()
            && self.0.iter().all(|member| other.rank_of(*member).is_some());
        match same {
            true => Comparison::Similar,
            false => Comparison::Unequal,
        }
    }

    /// Those of the first, then those of the second that are not in it.
    pub fn union(&self, other: &Group) -> Group {
        let further = other
            .0
            .iter()
            .filter(|member| self.rank_of(**member).is_none());
        Group(self.0.iter().chain(further).copied().collect())
    }

    /// Those of the first that are in the second.
    pub fn intersection(&self, other: &Group) -> Group {
        let kept = self
            .0
            .iter()
            .filter(|member| other.rank_of(**member).is_some());
        Group(kept.copied().collect())
    }

    /// Those of the first that are not in the second.
    pub fn difference(&self, other: &Group) -> Group {
        let kept = self
            .0
            .iter()
            .filter(|member| other.rank_of(**member).is_none());
        Group(kept.copied().collect())
    }

    /// Those with these ranks, in this order; `None` if one does not exist or stands twice.
    pub fn include(&self, ranks: &[u32]) -> Option<Group> {
        let mut seen = vec![false; self.size()];
        let mut members = Vec::new();
        for rank in ranks {
            if std::mem::replace(seen.get_mut(*rank as usize)?, true) {
                return None;
            }
            members.push(self.0[*rank as usize]);
        }
        Some(Group(members.into()))
    }

    /// Those without these ranks.
    pub fn exclude(&self, ranks: &[u32]) -> Option<Group> {
        let left_out = self.include(ranks)?;
        Some(self.difference(&left_out))
    }

    /// The ranks that triplets of first, last and stride name; `None` if one does not exist.
    pub fn range(&self, ranges: &[[i32; 3]]) -> Option<Vec<u32>> {
        let mut ranks = Vec::new();
        for &[first, last, stride] in ranges {
            if stride == 0 || (last - first).signum() * stride.signum() < 0 {
                return None;
            }
            for step in 0..=(last - first) / stride {
                let rank = u32::try_from(first + step * stride).ok()?;
                if rank as usize >= self.size() {
                    return None;
                }
                ranks.push(rank);
            }
        }
        Some(ranks)
    }
}

/// The new communicators of a split: who gets into whose, by colour, key and old rank. `offers`
/// holds every old rank's colour (none: nowhere) and key; the result is the old ranks of those of
/// `rank`'s colour, in their new order.
pub fn split(offers: &[(Option<u32>, i32)], rank: usize) -> Option<Vec<u32>> {
    let colour = offers[rank].0?;
    let mut chosen: Vec<(i32, u32)> = Vec::new();
    for (at, (of, key)) in offers.iter().enumerate() {
        if *of == Some(colour) {
            chosen.push((*key, at as u32));
        }
    }
    chosen.sort_unstable();
    Some(chosen.into_iter().map(|(_, rank)| rank).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_keep_their_order() {
        let (a, b) = (Group::new([3, 1, 4]), Group::new([4, 5, 3]));
        assert_eq!(a.union(&b).members(), [3, 1, 4, 5]);
        assert_eq!(a.intersection(&b).members(), [3, 4]);
        assert_eq!(a.difference(&b).members(), [1]);
        assert_eq!(a.compare(&Group::new([1, 3, 4])), Comparison::Similar);
        assert_eq!(a.compare(&b), Comparison::Unequal);
    }

    #[test]
    fn ranks_are_checked() {
        let all = Group::new([0, 1, 2, 3, 4]);
        assert_eq!(all.include(&[4, 0]).unwrap().members(), [4, 0]);
        assert_eq!(all.include(&[4, 4]), None);
        assert_eq!(all.include(&[5]), None);
        assert_eq!(all.range(&[[4, 0, -2]]), Some(vec![4, 2, 0]));
        assert_eq!(all.range(&[[0, 4, -1]]), None);
        assert_eq!(all.range(&[[0, 9, 1]]), None);
    }

    #[test]
    fn a_split_is_ordered_by_key_then_rank() {
        let offers = [
            (Some(1), 5),
            (None, 0),
            (Some(1), 5),
            (Some(1), -2),
            (Some(2), 0),
        ];
        assert_eq!(split(&offers, 0), Some(vec![3, 0, 2]));
        assert_eq!(split(&offers, 1), None);
        assert_eq!(split(&offers, 4), Some(vec![4]));
    }
}
