//! Several nodes as one: the Raft quorum that keeps the metadata, and (to come) the replication of
//! partitions.

#![forbid(unsafe_code)]

pub mod frames;
pub mod quorum;
