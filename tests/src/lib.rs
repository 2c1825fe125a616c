//! What the tests of the whole engine share: a plain client that trusts nothing, real nodes that
//! are started and killed, and the checker of what a crash must not lose.

#![forbid(unsafe_code)]

pub mod ask;
pub mod checkers;
pub mod crash;
pub mod differential;
pub mod history;
pub mod matrix;
pub mod node;
pub mod plain;
pub mod simulation;
pub mod transactions;
