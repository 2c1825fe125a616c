//! MPI on Ringmill: messages and collective operations between the ranks of a job.
//!
//! What has a rule is pure: which receive gets which message ([`matching`]), the protocols of long
//! and short messages ([`engine`]), the schedules of collective operations ([`collective`]),
//! datatypes ([`datatype`]), reductions ([`op`]) and groups ([`group`]). Shells carry the frames:
//! [`shm`] between ranks of one host, [`tcp`] on the ring between hosts, both behind [`endpoint`].
//! Programs of ours use [`world`]; those of other languages the shared library of `net/mpi/abi`.
//! `ringmill-mpirun -n N PROGRAM` starts a job ([`launcher`]), and ends it when a rank fails.

pub mod buffer;
pub mod collective;
pub mod datatype;
pub mod endpoint;
pub mod engine;
pub mod group;
pub mod job;
pub mod launcher;
mod long_double;
pub mod matching;
pub mod op;
pub mod shm;
pub mod tcp;
pub mod wire;
pub mod world;
