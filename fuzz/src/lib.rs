//! Fuzz targets: each takes any bytes at all and panics only when something of ours is wrong.
//!
//! A target is a function and a folder of seeds, `corpus/NAME`. `cargo test -p ringmill-fuzz` runs
//! every seed and some thousand mutations of each target; `cargo xtask fuzz NAME --seconds N` lets
//! libFuzzer look for more, guided by coverage. To add one: write the function, name it in
//! [`TARGETS`], give it seeds in [`seeds`] or by hand, and write the former with
//! `FUZZ_SEEDS=write cargo test -p ringmill-fuzz`.

#![forbid(unsafe_code)]

pub mod mutate;
mod objects;
mod recovery;
pub mod seeds;
mod wire;

/// A target: what it is called, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("batch", wire::batch),
    ("compression", wire::compression),
    ("control", wire::control),
    ("fetch", wire::fetch),
    ("frame", wire::frame),
    ("objects", objects::objects),
    ("produce", wire::produce),
    ("recovery", recovery::recovery),
];

/// The target of a name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, run)| *run)
}
