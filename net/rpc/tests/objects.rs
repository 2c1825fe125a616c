//! Remote objects in the simulated world: what is held and let go, limits, leases, and peers that
//! break off, stall or lie.

#[path = "objects/lab.rs"]
mod lab;

#[path = "objects/calls.rs"]
mod calls;

#[path = "objects/references.rs"]
mod references;

#[path = "objects/names.rs"]
mod names;

#[path = "objects/limits.rs"]
mod limits;

#[path = "objects/ends.rs"]
mod ends;

#[path = "objects/raw.rs"]
mod raw;

#[path = "objects/hostile.rs"]
mod hostile;

#[path = "objects/tail_calls.rs"]
mod tail_calls;

#[path = "objects/mutated.rs"]
mod mutated;
