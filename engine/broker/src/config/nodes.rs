//! The broker's settings of its life among other nodes, by Kafka's names where Kafka has them
//! (`KRaftConfigs.java`, `ServerConfigs.java`).

use std::time::Duration;

use ringmill_replication::quorum::Address;

use super::broker::host_and_port;
use super::broker_keys::{INT_MAX, fixed};
use super::{ConfigError, Key, Kind, Reader, list_items};

/// The keys, for the broker's table.
pub(super) const KEYS: &[Key] = &[
    fixed(
        "broker.heartbeat.interval.ms",
        Kind::Int(1, INT_MAX),
        "100",
        "How often a node says that it is there, in milliseconds. Kafka has 2000.",
    ),
    fixed(
        "broker.rack",
        Kind::Text,
        "",
        "Where this node stands: copies of a partition go to different racks, and consumers of the same rack may read from this node.",
    ),
    fixed(
        "broker.session.timeout.ms",
        Kind::Int(1, INT_MAX),
        "500",
        "A node that is not heard from for so long leads nothing any more, in milliseconds. Kafka has 9000; five lost heartbeats tell as much, and what a dead node has led has a new leader in less than a second.",
    ),
    fixed(
        "cluster.seeds",
        Kind::Text,
        "",
        "HOST:PORT of nodes of the cluster that this node is to join, separated by commas; any that is up will do. Empty for a node that begins a cluster. A node that has joined finds its cluster without them.",
    ),
    fixed(
        "quorum.voters.max",
        Kind::Int(1, 15),
        "5",
        "How many nodes decide about the metadata, at most: of this number and the nodes that there are, the largest odd number. The others follow.",
    ),
];

/// A node's life among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesConfig {
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat: Duration,
    /// `broker.session.timeout.ms`.
    pub session: Duration,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `cluster.seeds`.
    pub seeds: Vec<Address>,
    /// `quorum.voters.max`.
    pub voters_max: usize,
}

impl NodesConfig {
    pub(super) fn resolve(read: &Reader<'_>) -> Result<Self, ConfigError> {
        let rack = read.text("broker.rack");
        let seeds = read.text("cluster.seeds");
        let seeds = list_items(&seeds).map(|item| {
            let (host, port) = host_and_port("cluster.seeds", item)?;
            Ok(Address { host, port })
        });
        Ok(Self {
            heartbeat: Duration::from_millis(read.u64("broker.heartbeat.interval.ms")),
            session: Duration::from_millis(read.u64("broker.session.timeout.ms")),
            rack: (!rack.is_empty()).then_some(rack),
            seeds: seeds.collect::<Result<_, _>>()?,
            voters_max: read.usize("quorum.voters.max"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;

    #[test]
    fn seeds_are_addresses() {
        let config = |seeds| BrokerConfig::from_pairs([("cluster.seeds", seeds)]);
        let seeds = config("10.0.0.1:9092, PLAINTEXT://b:1")
            .unwrap()
            .nodes
            .seeds;
        let shown: Vec<String> = seeds.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:9092", "b:1"]);
        assert_eq!(config("").unwrap().nodes.seeds, []);
        let error = config("nowhere").unwrap_err().to_string();
        assert!(
            error.contains("cluster.seeds") && error.contains("HOST:PORT"),
            "{error}"
        );
    }
}
