//! Latencies and bandwidths of both libraries, in turn: medians.

use std::collections::BTreeMap;
use std::process::Command;

use super::Places;
use crate::process::Failure;
use crate::report::table;

/// Works of `measure.c`: the longest message, the rounds within, and whether more is better.
const WORKS: &[(&str, &str, &str, bool)] = &[
    ("latency", "4194304", "10000", false),
    ("bw", "4194304", "10000", true),
    ("bibw", "4194304", "10000", true),
    ("bcast", "1048576", "1000", false),
    ("allreduce", "1048576", "1000", false),
    ("barrier", "0", "5000", false),
    ("alltoall", "262144", "1000", false),
];

/// The same by TCP, where a round takes longer.
const BY_TCP: &[(&str, &str, &str, bool)] = &[
    ("latency", "4194304", "2000", false),
    ("bw", "4194304", "2000", true),
    ("allreduce", "262144", "500", false),
];

/// Results by work and bytes.
type Results = BTreeMap<(usize, u64), Vec<f64>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Memory,
    Tcp,
}

pub(super) fn compare(places: &Places, rounds: usize, ranks: usize) -> Result<(), Failure> {
    for (way, works, name) in [
        (Way::Memory, WORKS, "shared memory"),
        (Way::Tcp, BY_TCP, "TCP"),
    ] {
        let (mut ours, mut theirs) = (Results::new(), Results::new());
        for round in 0..rounds {
            for (number, work) in works.iter().enumerate() {
                println!("{name}: {} {}/{rounds}", work.0, round + 1);
                // In turn, so that what else the machine does falls on both.
                take(
                    our_command(places, way, ranks),
                    places,
                    number,
                    work,
                    &mut ours,
                )?;
                take(
                    their_command(places, way, ranks),
                    places,
                    number,
                    work,
                    &mut theirs,
                )?;
            }
        }
        show(name, works, &ours, &theirs, ranks, rounds);
    }
    Ok(())
}

fn our_command(places: &Places, way: Way, ranks: usize) -> Command {
    let mut command = Command::new(&places.launcher);
    command
        .env("LD_LIBRARY_PATH", &places.library)
        .arg("-n")
        .arg(ranks.to_string());
    if way == Way::Tcp {
        command.arg("--only-tcp");
    }
    command
}

fn their_command(places: &Places, way: Way, ranks: usize) -> Command {
    let mut command = Command::new(places.venv.join("bin/mpirun"));
    command
        .env("LD_LIBRARY_PATH", places.venv.join("lib"))
        .arg("-n")
        .arg(ranks.to_string());
    if way == Way::Tcp {
        let settings = [
            ("MPIR_CVAR_NOLOCAL", "1"),
            ("MPIR_CVAR_CH4_NETMOD", "ofi"),
            ("FI_PROVIDER", "tcp"),
            ("UCX_TLS", "tcp,self"),
        ];
        command.envs(settings);
    }
    command
}

fn take(
    mut command: Command,
    places: &Places,
    number: usize,
    (work, longest, rounds, _): &(&str, &str, &str, bool),
    results: &mut Results,
) -> Result<(), Failure> {
    let output = command
        .arg(&places.measure)
        .args([work, longest, rounds])
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure(format!("{work} failed: {text}")));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [name, bytes, value] = words[..]
            && name == *work
            && let (Ok(bytes), Ok(value)) = (bytes.parse(), value.parse())
        {
            results.entry((number, bytes)).or_default().push(value);
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn show(
    name: &str,
    works: &[(&str, &str, &str, bool)],
    ours: &Results,
    theirs: &Results,
    ranks: usize,
    rounds: usize,
) {
    println!(
        "\n{ranks} ranks by {name}, medians of {rounds}, in turn; ratio above 1: ours is ahead\n"
    );
    let mut rows = vec![
        ["work", "bytes", "Ringmill", "MPICH", "ratio"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for ((number, bytes), values) in ours {
        let (work, .., more) = works[*number];
        let (own, other) = (
            median(values),
            theirs
                .get(&(*number, *bytes))
                .map_or(f64::NAN, |v| median(v)),
        );
        let unit = if more { "MB/s" } else { "µs" };
        let ratio = if more { own / other } else { other / own };
        rows.push(vec![
            work.to_owned(),
            bytes.to_string(),
            format!("{own:.2} {unit}"),
            format!("{other:.2} {unit}"),
            format!("{ratio:.2}"),
        ]);
    }
    println!("{}", table(&rows));
}
