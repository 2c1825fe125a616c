//! `transactions --binary PATH --rounds N --seed S`: a consume-transform-produce loop under SIGKILL
//! of its clients and of the node, checked after each.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ringmill_tests::transactions::{Plan, run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut binary, mut rounds, mut seed) = (PathBuf::from("target/release/ringmill"), 100, 1);
    while let Some(name) = args.next() {
        let value = args.next();
        let number = value.as_deref().and_then(|v| v.parse::<u64>().ok());
        match (name.as_str(), value, number) {
            ("--binary", Some(path), _) => binary = path.into(),
            ("--rounds", _, Some(n)) => rounds = n as usize,
            ("--seed", _, Some(n)) => seed = n,
            _ => {
                eprintln!(
                    "transactions: usage: transactions [--binary PATH] [--rounds N] [--seed S]"
                );
                return ExitCode::from(2);
            }
        }
    }
    let folder = std::env::temp_dir().join(format!("ringmill-txn-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be made");
    let plan = Plan {
        binary,
        folder: folder.clone(),
        rounds,
        seed,
        life_ms_max: 1_500,
    };
    let result = run(&plan, |round, _| {
        print!("\r{round} of {rounds} rounds");
        let _ = std::io::stdout().flush();
    });
    println!();
    match result {
        Ok(summary) if !summary.faults.any() => {
            println!("{rounds} rounds of SIGKILL, seed {seed}: exactly once. {summary:?}");
            let _ = std::fs::remove_dir_all(&folder);
            ExitCode::SUCCESS
        }
        Ok(summary) => {
            eprintln!(
                "transactions: {summary:?}\nthe data is kept in {}",
                folder.display()
            );
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!(
                "transactions: {e}\nthe data is kept in {}",
                folder.display()
            );
            ExitCode::FAILURE
        }
    }
}
