//! `ringmill doctor`: what this machine offers the engine, and what it costs to lack the rest.

use ringmill_ring::{Cores, probe};
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::Failure;

/// Open files that a busy node needs at least: connections and segments.
const OPEN_FILES_WANTED: u64 = 65_536;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

fn proc(path: &str) -> String {
    std::fs::read_to_string(path)
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn limit(value: Option<u64>) -> String {
    value.map_or_else(|| "unlimited".to_owned(), |n| n.to_string())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let kernel = proc("/proc/sys/kernel/osrelease");
    let disabled = proc("/proc/sys/kernel/io_uring_disabled");
    let (files, locked) = (getrlimit(Resource::Nofile), getrlimit(Resource::Memlock));
    let found = probe();
    if args.json {
        let features = found.as_ref().ok().map(|features| {
            let rows = features.rows();
            let rows = rows.iter().map(|(name, here, cost)| {
                json!({"feature": name, "found": here, "cost_of_lacking": cost})
            });
            rows.collect::<Vec<_>>()
        });
        let report = json!({
            "kernel": kernel,
            "io_uring_disabled": disabled,
            "cores": Cores::available(),
            "open_files": {"current": files.current, "maximum": files.maximum},
            "locked_memory_bytes": {"current": locked.current, "maximum": locked.maximum},
            "features": features,
            "error": found.as_ref().err().map(ToString::to_string),
        });
        println!("{report:#}");
        return found.map(drop).map_err(Failure::new);
    }
    println!("kernel                 {kernel} (6.1 or newer is needed)");
    println!("io_uring_disabled      {disabled}");
    println!("cores                  {}", Cores::available());
    println!(
        "open files             {} (may be raised to {})",
        limit(files.current),
        limit(files.maximum)
    );
    println!(
        "locked memory, bytes   {} (may be raised to {})",
        limit(locked.current),
        limit(locked.maximum)
    );
    let features = found.map_err(Failure::new)?;
    println!("\nio_uring");
    for (name, here, cost) in features.rows() {
        match here {
            true => println!("  yes  {name}"),
            false => println!("  NO   {name}: {cost}"),
        }
    }
    if files
        .maximum
        .is_some_and(|maximum| maximum < OPEN_FILES_WANTED)
    {
        println!(
            "\nfew open files: raise `ulimit -n` to {OPEN_FILES_WANTED} (systemd: LimitNOFILE=), \
             or connections and topics will be refused"
        );
    }
    Ok(())
}
