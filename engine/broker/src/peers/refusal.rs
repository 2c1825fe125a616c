//! Why a node is not let into a cluster, in one line for whoever started it.

use ringmill_replication::nodes::NotRegistered;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::Address;
use thiserror::Error;

/// Why a node does not become a part of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Another node would be taken for it.
    #[error(transparent)]
    Node(#[from] NotRegistered),
    /// The same, as another node says it.
    #[error(
        "node {node} runs already, at {at} and on another data folder: give this one another node.id"
    )]
    Duplicate {
        /// The number.
        node: NodeId,
        /// Where the other one is.
        at: String,
    },
    /// Another node is reached at its address, as another node says it.
    #[error(
        "another node of the cluster is reached at {own} already: give node {node} another address by listeners or advertised.listeners"
    )]
    SameAddress {
        /// The one that comes.
        node: NodeId,
        /// Its address.
        own: String,
    },
    /// The folder's cluster is not that of its seeds.
    #[error(
        "the data folder belongs to cluster {own}, and {at} to cluster {theirs}: join with an empty folder, or name a node of its own cluster"
    )]
    OtherCluster {
        /// The folder's.
        own: String,
        /// The seed's.
        theirs: String,
        /// The seed.
        at: Address,
    },
    /// A node that should be of the same cluster is of another.
    #[error("{0} belongs to another cluster than this node's data folder")]
    NotOurs(Address),
    /// The cluster is full.
    #[error("the cluster has as many nodes as it may have: take one out that is gone")]
    TooMany,
    /// There is nobody to join.
    #[error("cluster.seeds names this node alone: name another, or none to begin a cluster")]
    OnlyItself,
    /// Others cannot be told where this node is.
    #[error(
        "the node listens on all addresses of its machine: say by advertised.listeners where others reach it"
    )]
    Anywhere,
}
