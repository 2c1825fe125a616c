//! Several nodes as one: the Raft quorum that keeps the metadata, and the rules by which a partition's
//! replicas follow their leader.

#![forbid(unsafe_code)]

pub mod frame_file;
pub mod frames;
#[cfg(test)]
mod frames_test;
pub mod nodes;
pub mod partition;
pub mod placement;
pub mod quorum;
