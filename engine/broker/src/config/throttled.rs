//! Which replicas are throttled (KIP-73): `*` for all of a topic, or PARTITION:NODE, separated by
//! commas.

use std::sync::Arc;

use ringmill_replication::partition::NodeId;

use super::list_items;

/// All replicas of a topic.
const ALL: &str = "*";

/// The throttled replicas of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// All of them.
    All,
    /// These: partition and node.
    Of(Arc<[(i32, NodeId)]>),
}

impl Default for ThrottledReplicas {
    fn default() -> Self {
        Self::Of(Arc::default())
    }
}

impl ThrottledReplicas {
    /// As somebody has written them; none if nobody would so (Kafka's
    /// `ThrottledReplicaListValidator`).
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == ALL {
            return Some(Self::All);
        }
        let replicas = list_items(text).map(|item| {
            let (partition, node) = item.split_once(':')?;
            let number = |text: &str| text.parse().ok().filter(|number: &i32| *number >= 0);
            Some((number(partition)?, number(node)?))
        });
        replicas
            .collect::<Option<Vec<_>>>()
            .map(|replicas| Self::Of(replicas.into()))
    }

    /// Whether a partition's replica on a node is among them.
    pub fn has(&self, partition: i32, node: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Of(replicas) => replicas.contains(&(partition, node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_none_or_some() {
        let parse = |text| ThrottledReplicas::parse(text);
        assert!(parse("*").unwrap().has(5, 9));
        assert_eq!(parse(""), Some(ThrottledReplicas::default()));
        let some = parse("0:1, 2:3").unwrap();
        assert!(some.has(0, 1) && some.has(2, 3) && !some.has(0, 3) && !some.has(2, 1));
        for bad in ["*,0:1", "0", "0:", ":1", "a:b", "-1:2", "0:1:2", "none"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
