//! The atomics that threads meet at; a model checker puts its own in their place.
//!
//! `wake.rs` and `mailbox.rs` name them as `super::sync`, so that `model_test.rs` can compile
//! the same source a second time over `loom`'s.

pub(crate) use crossbeam_queue::ArrayQueue;
pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};
pub(crate) use std::sync::{Arc, Mutex, PoisonError};
