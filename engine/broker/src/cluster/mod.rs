//! The cluster's metadata: which nodes and topics there are, who has copies and who leads, with what
//! settings, and which producer ids are given out. [`image`] is the state and [`command`] what
//! changes it, [`codec`] the commands' bytes; [`machine`] keeps it at the end of the quorum's log, in
//! [`store`]. Which commands are made is decided by [`topics`] for clients' requests and by
//! [`members`] for what becomes of nodes, and by [`damage`] for what becomes of damaged copies.
//!
//! Core 0 keeps the metadata. Every core holds the latest [`image::Image`] as a shared, read-only
//! snapshot.

pub mod changes;
pub mod codec;
pub mod command;
pub mod damage;
pub mod features;
pub mod folder;
pub mod identity;
pub mod image;
pub mod isr;
pub mod last_use;
pub mod machine;
pub mod members;
pub mod store;
pub mod topics;
