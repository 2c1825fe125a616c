//! Unary calls of `net/rpc` beside tonic on tokio: in turn, in one run, by medians.
//!
//! Each program is server and client at once, over one connection on this machine. Calls per second
//! per core are calls by the processor time that they took on both sides, which another load of the
//! machine changes little; the times of calls are by the clock, which it changes much.

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::process::{Failure, cargo, root, run, shown, target_dir};
use crate::report::table;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs of each program at each number of calls
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each run measures
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Calls at once
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    calls: Vec<usize>,
}

/// A program under measure.
struct Program {
    name: &'static str,
    path: PathBuf,
    first_words: &'static [&'static str],
}

/// What one run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    calls_per_second: f64,
    calls_per_cpu_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Builds both sides, runs them in turn, prints the medians.
pub(crate) fn rpc_bench(args: &Args) -> Result<(), Failure> {
    let programs = build()?;
    let mut rows = vec![vec![
        "calls at once".to_owned(),
        "program".into(),
        "calls/s".into(),
        "calls/s per core".into(),
        "p50 µs".into(),
        "p99 µs".into(),
    ]];
    for &calls in &args.calls {
        let mut figures: Vec<Vec<Figures>> = programs.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds.max(1) {
            for (program, figures) in programs.iter().zip(&mut figures) {
                figures.push(measure(program, calls, args.seconds)?);
            }
        }
        for (program, figures) in programs.iter().zip(&figures) {
            let of = |field: fn(&Figures) -> f64| format!("{:.0}", median(figures, field));
            rows.push(vec![
                calls.to_string(),
                program.name.into(),
                of(|figures| figures.calls_per_second),
                of(|figures| figures.calls_per_cpu_second),
                of(|figures| figures.p50_us),
                of(|figures| figures.p99_us),
            ]);
        }
    }
    println!("\n{}", table(&rows));
    Ok(())
}

fn build() -> Result<[Program; 5], Failure> {
    run(cargo().args([
        "build",
        "--release",
        "-p",
        "ringmill-rpc",
        "--features",
        "interop",
        "--example",
        "unary_load",
    ]))?;
    let peer = target_dir().join("conformance/tonic_tokio");
    run(cargo()
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(root().join("tests/conformance/tonic_tokio/Cargo.toml"))
        .arg("--target-dir")
        .arg(&peer))?;
    let peer = peer.join("release/tonic-tokio-peer");
    let ours = target_dir().join("release/examples/unary_load");
    let program = |name, path: &PathBuf, first_words| Program {
        name,
        path: path.clone(),
        first_words,
    };
    Ok([
        program("ringmill-rpc, one core", &ours, &["1"]),
        program("tonic, one thread", &peer, &["one"]),
        program("ringmill-rpc, a core each", &ours, &["2"]),
        program("tonic, a thread each", &peer, &["current"]),
        program("tonic, two workers", &peer, &["multi"]),
    ])
}

/// A program that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(program: &Program, calls: usize, seconds: u64) -> Result<Figures, Failure> {
    let mut command = Command::new(&program.path);
    command
        .args(program.first_words)
        .args([calls.to_string(), seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    println!("$ {}", shown(&command));
    let mut child = command.spawn()?;
    let out = child.stdout.take();
    let running = Running(child);
    let mut lines = BufReader::new(out.ok_or_else(|| Failure("no output".into()))?).lines();
    expect(&mut lines, "begun")?;
    let before = cpu_seconds(running.0.id())?;
    let done = expect(&mut lines, "done")?;
    let cpu = cpu_seconds(running.0.id())? - before;
    let numbers: Vec<f64> = done.iter().filter_map(|word| word.parse().ok()).collect();
    let [count, p50_us, p99_us] = numbers[..] else {
        return Err(Failure(format!("not figures: {done:?}")));
    };
    let figures = Figures {
        calls_per_second: count / seconds as f64,
        calls_per_cpu_second: count / cpu.max(1e-9),
        p50_us,
        p99_us,
    };
    println!("  {figures:?}");
    Ok(figures)
}

/// The words after the first of a line that begins with it.
fn expect(lines: &mut Lines<BufReader<ChildStdout>>, first: &str) -> Result<Vec<String>, Failure> {
    let line = lines.next().transpose()?.unwrap_or_default();
    let mut words = line.split_whitespace().map(str::to_owned);
    if words.next().as_deref() != Some(first) {
        return Err(Failure(format!("`{line}` where `{first}` was expected")));
    }
    Ok(words.collect())
}

/// Processor time that a process has used, of all its threads (/proc/PID/task/TID/schedstat).
fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let mut seconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        seconds +=
            parse_schedstat(&stat).ok_or_else(|| Failure(format!("not a schedstat: {stat}")))?;
    }
    Ok(seconds)
}

/// The first number is nanoseconds on a processor.
fn parse_schedstat(stat: &str) -> Option<f64> {
    let ns: f64 = stat.split_whitespace().next()?.parse().ok()?;
    Some(ns / 1e9)
}

fn median(figures: &[Figures], field: fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(field).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_the_first_of_a_threads_numbers() {
        assert_eq!(parse_schedstat("2500000000 17 3\n"), Some(2.5));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let figures = [3.0, 1.0, 2.0].map(|p99_us| Figures {
            calls_per_second: 0.0,
            calls_per_cpu_second: 0.0,
            p50_us: 0.0,
            p99_us,
        });
        assert_eq!(median(&figures, |figures| figures.p99_us), 2.0);
    }
}
