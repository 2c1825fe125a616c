//! The broker's settings of its life among other nodes, by Kafka's names where Kafka has them
//! (`KRaftConfigs.java`, `ServerConfigs.java`).

use std::time::Duration;

use ringmill_replication::quorum::Address;

use super::broker::host_and_port;
use super::broker_keys::{INT_MAX, fixed};
use super::{ConfigError, Key, Kind, Reader, list_items};

/// Kafka's names of who selects the replica that a consumer reads from.
const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
/// As above.
const RACK_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// The keys, for the broker's table.
pub(super) const KEYS: &[Key] = &[
    fixed(
        "auto.leader.rebalance.enable",
        Kind::Bool,
        "true",
        "Whether leaders go back to the first replica of their partition, when it is in sync, every leader.imbalance.check.interval.seconds.",
    ),
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
        "leader.imbalance.check.interval.seconds",
        Kind::Long(1, i64::MAX),
        "300",
        "How often it is looked for partitions that their first replica could lead and does not, in seconds.",
    ),
    fixed(
        "leader.imbalance.per.broker.percentage",
        Kind::Int(0, INT_MAX),
        "10",
        "How many of a node's partitions another may lead before leaders go back, in per cent.",
    )
    .changes_nothing("As in Kafka since version 4, all of them go back."),
    fixed(
        "quorum.voters.max",
        Kind::Int(1, 15),
        "5",
        "How many nodes decide about the metadata, at most: of this number and the nodes that there are, the largest odd number. The others follow.",
    ),
    fixed(
        "replica.selector.class",
        Kind::Choice(&["", LEADER_SELECTOR, RACK_SELECTOR]),
        "",
        "Where consumers read that say in which rack they are: from the leader, or, by the RackAwareReplicaSelector, from a replica in sync in the same rack (KIP-392).",
    ),
    fixed(
        "unclean.leader.election.interval.ms",
        Kind::Long(1, i64::MAX),
        "300000",
        "How often it is looked for partitions that nobody leads and somebody may by unclean.leader.election.enable, in milliseconds; beside when that is set, or a node comes or goes.",
    ),
];

/// A node's life among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesConfig {
    /// `leader.imbalance.check.interval.seconds`, if `auto.leader.rebalance.enable`.
    pub rebalance: Option<Duration>,
    /// `unclean.leader.election.interval.ms`.
    pub unclean_election: Duration,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat: Duration,
    /// `broker.session.timeout.ms`.
    pub session: Duration,
    /// Whether consumers are sent to a replica in their rack, by `replica.selector.class`.
    pub selects_by_rack: bool,
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
        let rebalance = Duration::from_secs(read.u64("leader.imbalance.check.interval.seconds"));
        Ok(Self {
            rebalance: read
                .bool("auto.leader.rebalance.enable")
                .then_some(rebalance),
            unclean_election: Duration::from_millis(
                read.u64("unclean.leader.election.interval.ms"),
            ),
            heartbeat: Duration::from_millis(read.u64("broker.heartbeat.interval.ms")),
            session: Duration::from_millis(read.u64("broker.session.timeout.ms")),
            selects_by_rack: read.text("replica.selector.class").trim() == RACK_SELECTOR,
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
