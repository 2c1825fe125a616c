//! The client for applications: handles that any thread may hold, on tokio.
//!
//! Each handle owns an I/O thread ([`thread`]) on which the single-threaded shell runs; what goes
//! over to it are jobs and records, what comes back are answers and deliveries.

// used by the handles to come
#[cfg_attr(not(test), expect(dead_code))]
mod thread;
#[cfg(test)]
mod wait;

pub use thread::{Closed, ThreadError, Transport};
