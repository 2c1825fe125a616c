//! Memory that the ranks of one host share: a ring of records for each ordered pair of them, and a
//! slot for each rank where it says how it is and where it sleeps. Lock-free: a ring has one
//! writer and one reader.
//!
//! The memory is a file without a name (memfd) that the launcher holds open; ranks find it in the
//! launcher's `/proc`. Nothing is left behind, however a job ends.

mod region;
mod ring;

pub use region::{Life, Region, bind_to, end_process, end_with_parent, let_others_run, processors};
pub use ring::{Reader, Writer};

/// Bytes of all rings of a region together, about.
const RINGS_BYTES: usize = 64 << 20;
/// Bytes of one ring, at most and at least.
const RING_MAX: usize = 256 << 10;
const RING_MIN: usize = 16 << 10;

/// Bytes of each ring among so many ranks.
pub fn ring_bytes(ranks: usize) -> usize {
    let share = (RINGS_BYTES / (ranks * ranks).max(1)).clamp(RING_MIN, RING_MAX);
    1 << share.ilog2()
}
