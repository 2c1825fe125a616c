//! One partition's replication, as three state machines without I/O: what the cluster says of it
//! ([`state`]), what its leader knows of the followers ([`leader`]), and what a follower does next
//! ([`follower`]).

pub mod follower;
pub mod leader;
pub mod state;

/// A node's number (Kafka's `node.id`).
pub type NodeId = i32;
