//! Who leads what, as the nodes themselves say: one leader for each term of the quorum and for each
//! epoch of a partition, and one metadata for each version.

use std::collections::BTreeMap;

use super::{Broken, Findings};

/// What the nodes of a cluster have said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leaders {
    /// A node began to lead a partition (topic id and number) in an epoch.
    pub partitions: Vec<(String, i32, i32)>,
    /// A node began to lead the quorum in a term.
    pub terms: Vec<(i32, u64)>,
    /// A node took metadata of a version, with the hash of what it says.
    pub images: Vec<(i32, u64, u64)>,
}

/// Checks that no two nodes say what excludes each other.
pub fn check(leaders: &Leaders) -> Vec<Broken> {
    let mut findings = Findings::of("leadership");
    let mut epochs: BTreeMap<(&str, i32), i32> = BTreeMap::new();
    for (partition, epoch, node) in &leaders.partitions {
        let first = *epochs.entry((partition, *epoch)).or_insert(*node);
        if first != *node {
            findings.add(format!(
                "nodes {first} and {node} both lead {partition} in epoch {epoch}"
            ));
        }
    }
    let mut terms: BTreeMap<u64, i32> = BTreeMap::new();
    for (node, term) in &leaders.terms {
        let first = *terms.entry(*term).or_insert(*node);
        if first != *node {
            findings.add(format!(
                "nodes {first} and {node} both lead the quorum in term {term}"
            ));
        }
    }
    let mut images: BTreeMap<u64, (i32, u64)> = BTreeMap::new();
    for (node, version, hash) in &leaders.images {
        let first = *images.entry(*version).or_insert((*node, *hash));
        if first.1 != *hash {
            findings.add(format!(
                "nodes {} and {node} have different metadata of version {version}",
                first.0
            ));
        }
    }
    findings.broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_epoch_are_found() {
        let say = |partitions: &[(&str, i32, i32)]| Leaders {
            partitions: partitions
                .iter()
                .map(|(partition, epoch, node)| ((*partition).to_owned(), *epoch, *node))
                .collect(),
            ..Leaders::default()
        };
        assert_eq!(check(&say(&[("a", 1, 1), ("a", 1, 1), ("a", 2, 2)])), []);
        assert_eq!(check(&say(&[("a", 1, 1), ("a", 1, 2)])).len(), 1);
    }

    #[test]
    fn two_leaders_of_one_term_and_two_metadata_of_one_version_are_found() {
        let terms = |terms: &[(i32, u64)]| Leaders {
            terms: terms.to_vec(),
            ..Leaders::default()
        };
        assert_eq!(check(&terms(&[(1, 1), (2, 2), (1, 3)])), []);
        assert_eq!(check(&terms(&[(1, 1), (2, 1)])).len(), 1);
        let images = |images: &[(i32, u64, u64)]| Leaders {
            images: images.to_vec(),
            ..Leaders::default()
        };
        assert_eq!(check(&images(&[(1, 5, 9), (2, 5, 9), (2, 6, 8)])), []);
        assert_eq!(check(&images(&[(1, 5, 9), (2, 5, 8)])).len(), 1);
    }
}
