//! gRPC in the simulated world: the published cases, and what happens when things go wrong.

#[path = "sim/world.rs"]
mod world;

#[path = "sim/probe.rs"]
mod probe;

#[path = "sim/calls.rs"]
mod calls;

#[path = "sim/limits.rs"]
mod limits;

#[path = "sim/services.rs"]
mod services;

#[path = "sim/styles.rs"]
mod styles;

#[path = "sim/interop.rs"]
mod interop;
