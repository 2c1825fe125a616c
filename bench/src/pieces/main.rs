//! The pieces of the engine one by one, without clock, kernel or chance: what valgrind counts.
//!
//! `pieces` names them, `pieces NAME [UNITS]` does one so many times. What is to be counted runs
//! within [`collect_here`], whose name `cargo xtask counts` gives to callgrind; everything around
//! it is preparation. The same arguments do the same work, instruction by instruction: a piece
//! that needs a disk, a network or a clock has the simulated ones.
#![forbid(unsafe_code)]

mod client;
mod log;
mod material;
mod node;
mod ring;
mod stage;
mod wire;

use std::process::ExitCode;

/// Something that is done many times over.
pub(crate) struct Piece {
    /// As in `bench/counts.toml`.
    pub(crate) name: &'static str,
    /// What one of its units is.
    pub(crate) unit: &'static str,
    /// How many units are enough.
    pub(crate) units: u64,
    /// In words.
    pub(crate) what: &'static str,
    /// Prepares, and does so many units within [`collect_here`].
    pub(crate) work: fn(u64),
}

impl Piece {
    pub(crate) fn new(
        name: &'static str,
        unit: &'static str,
        units: u64,
        what: &'static str,
        work: fn(u64),
    ) -> Self {
        Self {
            name,
            unit,
            units,
            what,
            work,
        }
    }
}

/// Runs what is to be counted. Callgrind collects between its entry and its return: it stays a
/// function of its own, and no other has its name in theirs.
#[inline(never)]
pub(crate) fn collect_here(work: &mut dyn FnMut()) {
    work();
}

fn all() -> Vec<Piece> {
    let parts = [
        wire::pieces(),
        log::pieces(),
        ring::pieces(),
        node::pieces(),
        client::pieces(),
    ];
    parts.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        for piece in all() {
            let Piece {
                name,
                unit,
                units,
                what,
                ..
            } = piece;
            println!("{name}\t{unit}\t{units}\t{what}");
        }
        return ExitCode::SUCCESS;
    };
    let Some(piece) = all().into_iter().find(|piece| piece.name == name) else {
        eprintln!("no piece {name}; without arguments they are named");
        return ExitCode::FAILURE;
    };
    let units = match args.next().map(|units| units.parse()) {
        None => piece.units,
        Some(Ok(units)) => units,
        Some(Err(error)) => {
            eprintln!("units: {error}");
            return ExitCode::FAILURE;
        }
    };
    (piece.work)(units);
    ExitCode::SUCCESS
}
