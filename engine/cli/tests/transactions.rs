//! A few rounds of SIGKILL in the middle of transactions; `cargo xtask transactions --rounds 100`
//! runs more.

use std::path::PathBuf;

use ringmill_tests::transactions::{Plan, run};

#[test]
fn every_record_comes_out_exactly_once_whoever_is_killed() {
    let folder = std::env::temp_dir().join(format!("ringmill-txn-kill-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let plan = Plan {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_ringmill")),
        folder: folder.clone(),
        rounds: 4,
        seed: 42,
        life_ms_max: 800,
    };
    let summary = run(&plan, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    assert!(!summary.faults.any(), "{summary:?}");
    assert!(summary.committed > 0 && summary.records > 0, "{summary:?}");
    let _ = std::fs::remove_dir_all(&folder);
}
