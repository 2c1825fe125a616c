//! Fuzzing with libFuzzer on the stable toolchain.
//!
//! Each target has a folder of seeds, `fuzz/corpus/NAME`; the one binary `libfuzzer` of
//! `ringmill-fuzz` takes the target's name from `FUZZ_TARGET`. What a run finds worth keeping goes
//! to `target/fuzz/NAME`, an input that crashes to `target/fuzz/NAME-crash-*`; both survive until
//! `cargo clean`.

use std::time::Duration;

use crate::process::{Failure, apt_install, cargo, root, run_within, succeeds, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder of fuzz/corpus, or `all`
    name: String,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// What cargo-fuzz passes to rustc: edge counters, compares and program counters for libFuzzer,
/// overflow checks and debug assertions on.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Zsanitizer=address -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";

/// No single allocation may be larger than this, in MiB: claimed sizes must not be believed.
const ALLOCATION_MAX_MIB: u32 = 256;

/// Nor may all of a run's memory, in MiB, beside what the sanitizer holds back to catch late use.
const MEMORY_MAX_MIB: u32 = 1024;

/// No input may take longer than this, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;

/// Time a cold instrumented build may take on top of the run.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// Runs what the arguments name.
pub(crate) fn fuzz(args: &Args) -> Result<(), Failure> {
    if args.name == "all" {
        fuzz_all(args.seconds)
    } else {
        fuzz_one(&args.name, args.seconds)
    }
}

/// Runs every target for so many seconds.
pub(crate) fn fuzz_all(seconds: u64) -> Result<(), Failure> {
    let names = targets()?;
    if names.is_empty() {
        return Err(Failure("fuzz/corpus holds no target".into()));
    }
    for name in names {
        fuzz_one(&name, seconds)?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>, Failure> {
    let corpus = root().join("fuzz/corpus");
    let entries = std::fs::read_dir(&corpus)
        .map_err(|error| Failure(format!("cannot list {}: {error}", corpus.display())))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn fuzz_one(name: &str, seconds: u64) -> Result<(), Failure> {
    let known = targets()?;
    if !known.iter().any(|target| target == name) {
        return Err(Failure(format!(
            "no target `{name}`; there are: {}",
            known.join(", ")
        )));
    }
    // libFuzzer itself is built from its C++ source.
    if !succeeds("c++", &["--version"]) {
        apt_install(&["g++"])?;
    }
    let found = target_dir().join("fuzz").join(name);
    std::fs::create_dir_all(&found)?;
    let mut command = cargo();
    command
        // Sanitizers and coverage passes are unstable flags of the stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("FUZZ_TARGET", name)
        .env("ASAN_OPTIONS", "quarantine_size_mb=64")
        .args(["run", "--release", "-p", "ringmill-fuzz"])
        .args(["--features", "libfuzzer", "--bin", "libfuzzer"])
        // With a named target, build scripts and macros stay uninstrumented.
        .args(["--target", &host_triple()])
        .arg("--target-dir")
        .arg(target_dir().join("fuzz-build"))
        .arg("--")
        .arg(&found)
        .arg(root().join("fuzz/corpus").join(name))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION_MAX_MIB}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-artifact_prefix={}-", found.display()))
        .args(["-verbosity=0", "-print_final_stats=1"]);
    run_within(Duration::from_secs(seconds * 2) + BUILD_LIMIT, &mut command)
}

fn host_triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
