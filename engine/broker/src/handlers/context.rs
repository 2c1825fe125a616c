//! What handlers know beside the metadata: which node answers, and how clients reach it.

use ringmill_wire::StrBytes;

use crate::config::BrokerConfig;

/// The node that answers; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The cluster's id, as clients see it.
    pub cluster_id: &'a StrBytes,
    /// The host that clients are told to connect to.
    pub host: &'a StrBytes,
    /// The port that clients are told to connect to.
    pub port: u16,
    /// Who leads the metadata's quorum, as far as is known; else this node, which passes on what is
    /// for it.
    pub controller: i32,
    /// The settings the node was started with.
    pub config: &'a BrokerConfig,
}

impl Context<'_> {
    /// The node's number.
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }
}
