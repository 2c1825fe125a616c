//! Why a node is not let into a cluster, in one line for whoever started it.

use bytes::Bytes;
use ringmill_replication::nodes::NotRegistered;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::Address;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::BrokerRegistrationResponse;
use thiserror::Error;

/// The tag of the words in a registration's response, which has no field for them; others pass over it.
const TAG_WORDS: i32 = 20_002;

/// A node is not registered, for the cluster is at levels that it does not have.
pub(super) fn unsupported(why: &NotRegistered) -> BrokerRegistrationResponse {
    let mut response = BrokerRegistrationResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_broker_epoch(-1);
    let words = Bytes::from(why.to_string());
    response.unknown_tagged_fields.insert(TAG_WORDS, words);
    response
}

/// The words of [`unsupported`].
pub(super) fn words_of(response: &BrokerRegistrationResponse) -> String {
    let words = response.unknown_tagged_fields.get(&TAG_WORDS);
    let words = words.map_or(&[][..], |words| &words[..]);
    String::from_utf8_lossy(words).into_owned()
}

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
    /// The cluster is at a level of a feature that the node does not have, as another node says it.
    #[error("{0}")]
    Level(String),
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
