//! The interop tests' cases as a client:
//! `cargo run -p ringmill-rpc --example interop_client -- --server_port 50051 [--test_case NAME]`.
//!
//! Runs one case, or all, against a server on 127.0.0.1; prints a line for each, and fails if one
//! does.

use ringmill_ring::{RingConfig, run};
use ringmill_rpc::interop::{CASES, run_case};
use ringmill_rpc::{Channel, ChannelOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut port, mut case) = (None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--server_port", Some(given)) => port = Some(given.parse::<u16>()?),
            ("--test_case", Some(given)) => case = Some(given),
            _ => return Err(format!("what is {word}?").into()),
        }
    }
    let port = port.ok_or("usage: interop_client --server_port PORT [--test_case NAME]")?;
    let wanted = |name: &&str| case.as_deref().is_none_or(|case| case == *name);
    let cases: Vec<&str> = CASES.into_iter().filter(wanted).collect();
    if cases.is_empty() {
        return Err(format!("there is no case {case:?}").into());
    }
    let failures = run(RingConfig::default(), async {
        let mut failures = 0;
        for name in cases {
            let channel = Channel::new(([127, 0, 0, 1], port).into(), ChannelOptions::default());
            match run_case(name, channel).await {
                Ok(()) => println!("{name}\tpass\t\t"),
                Err(failed) => {
                    println!("{name}\tfail\t\t{failed}");
                    failures += 1;
                }
            }
        }
        failures
    })?;
    match failures {
        0 => Ok(()),
        _ => Err(format!("{failures} cases failed").into()),
    }
}
