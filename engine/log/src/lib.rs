//! One partition's truth on disk: segments of Kafka's own bytes, indexes that are derived from
//! them, group commit, recovery.
//!
//! The contract: appended is not written, written is not flushed, flushed is not visible; the
//! names here keep the four apart. The order of appends is the order of offsets, fixed when
//! `append` is called. Nothing is claimed durable before the completion that makes it so. Bytes
//! leave as they came, save base offset and leader epoch. What is on the disk is checked, never
//! believed; damage is named by file and position, and what is whole beside it is still served.
//! After a failed write or flush the partition accepts nothing more.
//!
//! Each partition belongs to one core. The rules are pure state machines (`trie`, `index`,
//! `producers`, `epochs`, `flush`, `scan` …); `partition` and its neighbours run them on the
//! ring. FORMAT.md draws the files byte by byte.

#![forbid(unsafe_code)]

pub mod aborted;
mod append;
mod caches;
mod candidate;
pub mod checkpoint;
mod clean_plan;
mod clean_segment;
pub mod clean_txns;
mod cleaner;
mod cleaner_checkpoint;
mod cold;
mod committed;
pub mod config;
mod dump;
pub mod epochs;
mod error;
pub mod filter;
pub mod flush;
mod follow;
pub mod index;
mod lanes;
mod mend;
mod meta;
mod names;
pub mod offset_map;
mod on_disk;
mod open;
mod partition;
mod place;
pub mod prewrite;
pub mod producers;
mod queue;
mod read;
mod recover;
mod renew;
mod repair;
mod replica;
mod reset;
mod retain;
mod roll;
pub mod scan;
mod segment;
pub mod snapshot;
mod swap;
mod sweep;
mod tail;
pub mod throttle;
pub mod time_index;
mod times;
mod transactions;
pub mod trie;
mod truncate;
mod upkeep;
mod verify;
mod waits;
mod walk;
mod writer;

pub use crate::aborted::AbortedTxn;
pub use crate::append::{Appended, Receipt};
pub use crate::caches::{CacheLimits, CoreCaches};
pub use crate::clean_plan::Cleanable;
pub use crate::cleaner::{CLEANER_BUFFER_BYTES, CleanError, Cleaned, Cleaner};
pub use crate::cleaner_checkpoint::CleanerCheckpoint;
pub use crate::config::{CompactionConfig, Durability, LogConfig, TimestampType};
pub use crate::dump::{Dumped, dump};
pub use crate::epochs::EpochEntry;
pub use crate::error::{
    AppendError, ChangeError, Damage, DamageReason, IoFailure, OpenError, ReadError,
};
pub use crate::open::RecoveryReport;
pub use crate::partition::Partition;
pub use crate::producers::{ActiveProducer, ProducerError};
pub use crate::read::{FetchData, FetchSlice};
pub use crate::recover::Cut;
pub use crate::times::TimestampOffset;
pub use crate::transactions::{EndedTxn, VerificationGuard};
pub use crate::verify::{Finding, Severity, Verified, verify};
pub use ringmill_wire::marker::EndTxnMarker;
