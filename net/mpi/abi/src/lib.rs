//! MPI's standard ABI (MPI 5.0): every symbol that it names, so that programs compiled against it
//! run unchanged. What is not built answers `MPI_ERR_UNSUPPORTED_OPERATION`.
//!
//! `unsafe` stands in four files: `export.rs` gives symbols their names, `memory.rs` is what
//! pointers of C may do, `callback.rs` calls the application's functions, `state.rs` holds the one
//! state of the process.

mod attribute;
mod buffered;
mod callback;
mod collective;
mod communicator;
mod constants;
mod convert;
mod datatype;
mod environment;
mod error;
mod export;
mod group;
mod handle;
mod info;
mod memory;
mod message;
mod operation;
mod pack;
mod plan;
mod progress;
mod request;
mod session;
mod state;
mod status;
mod topology;
mod unbuilt;
