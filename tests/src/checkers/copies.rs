//! The copies of a partition: when everybody is in sync, all hold the same, byte for byte.

use super::{Broken, Chronicle, Findings, Inspection};

/// A batch as a disk has it: its first and last offset, the epoch of its leader, and the sum that
/// covers all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedBatch {
    /// The first offset.
    pub base: i64,
    /// The last offset.
    pub last: i64,
    /// In which it was written.
    pub epoch: i32,
    /// CRC-32C of what its producer has written.
    pub crc: u32,
}

/// One node's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The node.
    pub node: i32,
    /// From the beginning.
    pub batches: Vec<CopiedBatch>,
}

/// Checks that nobody's copy differs from another's, and that all go as far as the leader's log.
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("copies");
    for (place, copies) in &inspection.copies {
        let Some(first) = copies.first() else {
            continue;
        };
        let end = inspection.logs.get(place).map_or(0, |log| log.end);
        let name = chronicle.name(*place);
        for copy in copies {
            let at = (0..first.batches.len().max(copy.batches.len()))
                .find(|at| first.batches.get(*at) != copy.batches.get(*at));
            if let Some(at) = at {
                findings.add(format!(
                    "{name}: node {} has {:?} where node {} has {:?}",
                    copy.node,
                    copy.batches.get(at),
                    first.node,
                    first.batches.get(at)
                ));
            }
            let own = copy.batches.last().map_or(0, |batch| batch.last + 1);
            if own != end {
                let node = copy.node;
                findings.add(format!("{name}: node {node} has {own} of {end}"));
            }
        }
    }
    findings.broken
}

#[cfg(test)]
mod tests {
    use super::super::lab::{chronicle, inspect, record};
    use super::*;

    fn copy(node: i32, crcs: &[u32]) -> Copied {
        let batch = |(at, crc): (i64, &u32)| CopiedBatch {
            base: at,
            last: at,
            epoch: 1,
            crc: *crc,
        };
        Copied {
            node,
            batches: (0..).zip(crcs).map(batch).collect(),
        }
    }

    #[test]
    fn copies_that_differ_or_lack_something_are_found() {
        let found = |copies: Vec<Copied>| {
            let log = inspect((0, 0), 0, vec![record(0, 0, 0), record(1, 1, 0)]);
            let inspection = Inspection {
                copies: [((0, 0), copies)].into(),
                ..log
            };
            check(&chronicle(), &inspection).len()
        };
        assert_eq!(found(vec![copy(1, &[7, 8]), copy(2, &[7, 8])]), 0);
        assert_eq!(found(vec![copy(1, &[7, 8]), copy(2, &[7, 9])]), 1);
        assert_eq!(found(vec![copy(1, &[7, 8]), copy(2, &[7])]), 2);
        assert_eq!(found(vec![copy(1, &[7]), copy(2, &[7])]), 2);
    }
}
