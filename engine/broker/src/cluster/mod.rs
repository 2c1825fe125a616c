//! The cluster's metadata: which topics there are, with what settings, and which producer ids are
//! given out. [`image`] is the state and the commands that change it, [`journal`] their bytes on
//! disk, [`store`] the shell that keeps the two together; [`topics`] decides which commands a
//! client's request makes.
//!
//! A single node's metadata is owned by core 0. Every core holds the latest [`image::Image`] as a
//! shared, read-only snapshot.

pub mod identity;
pub mod image;
pub mod journal;
pub mod store;
pub mod topics;
