//! A few rounds of SIGKILL under load; `cargo xtask crash --rounds 200` runs more.

use std::path::PathBuf;

use ringmill_tests::crash::{Plan, run};

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let folder = std::env::temp_dir().join(format!("ringmill-kill-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let plan = Plan {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_ringmill")),
        folder: folder.clone(),
        rounds: 6,
        seed: 42,
        life_ms_max: 500,
        args: Vec::new(),
    };
    let summary = run(&plan, |_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        summary.acknowledged > 0 && summary.records > 0,
        "{summary:?}"
    );
    let _ = std::fs::remove_dir_all(&folder);
}
