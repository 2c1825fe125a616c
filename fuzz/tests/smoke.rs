//! Every seed of the corpus and some thousand mutations of each target, the same on every run.
//!
//! A failure prints `FUZZ_SMOKE=TARGET:SEED`; set it in the environment to run that one input
//! alone.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ringmill_fuzz::TARGETS;
use ringmill_fuzz::mutate::Mutator;
use ringmill_fuzz::seeds::seeds;

/// Mutations per target.
const MUTATIONS: u64 = 10_000;
/// Of the target that lives whole lives of a partition.
const LIVES: u64 = 300;
/// Of the target that has whole conversations.
const CONVERSATIONS: u64 = 1_000;
/// Largest seed in the repository, in bytes.
const SEED_MAX: usize = 4096;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = folder(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The one input that `FUZZ_SMOKE` asks for, if it is this target's.
fn wanted(target: &str) -> Option<Option<u64>> {
    let Ok(wanted) = std::env::var("FUZZ_SMOKE") else {
        return Some(None);
    };
    let (name, seed) = wanted.split_once(':').expect("FUZZ_SMOKE=TARGET:SEED");
    (name == target).then(|| Some(seed.parse().expect("a number after the colon")))
}

fn smoke(target: &str) {
    let run = ringmill_fuzz::target(target).expect("a known target");
    let Some(wanted) = wanted(target) else { return };
    let seeds = corpus(target);
    if wanted.is_none() {
        seeds.iter().for_each(|seed| run(seed));
    }
    let count = match target {
        "recovery" => LIVES,
        "objects" => CONVERSATIONS,
        _ => MUTATIONS,
    };
    let range = wanted.map_or(0..count, |seed| seed..seed + 1);
    for seed in range {
        let input = Mutator::new(seed).input(&seeds);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&input))) {
            eprintln!("replay: FUZZ_SMOKE={target}:{seed} cargo test -p ringmill-fuzz");
            eprintln!("input: {input:02x?}");
            std::panic::resume_unwind(panic);
        }
    }
}

macro_rules! smokes {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            smoke(stringify!($target));
        })*

        const SMOKED: &[&str] = &[$(stringify!($target)),*];
    };
}

smokes! { batch compression control fetch frame objects produce recovery }

#[test]
fn every_target_is_smoked_and_has_small_seeds() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, SMOKED);
    for target in targets {
        let seeds = corpus(target);
        assert!(!seeds.is_empty(), "{target}");
        assert!(seeds.iter().all(|seed| seed.len() <= SEED_MAX), "{target}");
    }
}

/// A codec that changes its bytes would otherwise leave fuzzing to start from stale ones. Seeds
/// under other names, found or made by hand, are left alone.
#[test]
fn the_corpus_holds_the_seeds_of_the_code() {
    let write = std::env::var("FUZZ_SEEDS").is_ok_and(|value| value == "write");
    for (target, _) in TARGETS {
        for (name, seed) in seeds(target) {
            let path = folder(target).join(name);
            if write {
                fs::create_dir_all(folder(target)).unwrap();
                fs::write(&path, &seed).unwrap();
            }
            let held = fs::read(&path).unwrap_or_default();
            let remedy = "FUZZ_SEEDS=write cargo test -p ringmill-fuzz";
            assert!(held == seed, "{} is stale: {remedy}", path.display());
        }
    }
}
