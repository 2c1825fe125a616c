//! Runs the target that the environment variable `FUZZ_TARGET` names under libFuzzer; started by
//! `cargo xtask fuzz`.

#![forbid(unsafe_code)]
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    ringmill_fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
