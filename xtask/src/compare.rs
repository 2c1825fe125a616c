//! Ringmill beside Apache Kafka, of one or three nodes on this machine: starts both, and has
//! `ringmill-bench compare` measure them in turn.

use std::path::PathBuf;
use std::process::Command;

use crate::broker::{Broker, Build};
use crate::clients::harness_python;
use crate::nats::{self, RunningNats};
use crate::peer::{KAFKA_VERSION, RunningKafka, kafka_tools};
use crate::process::{Failure, apt_install, cargo, root, run, succeeds, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes of each system; topics have as many copies, three at most
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Do all the works of docs/PERFORMANCE.md and write it, with its charts
    #[arg(long)]
    page: bool,
    /// Arguments of `ringmill-bench compare`, such as --rounds 3 --record-size 1000
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    more: Vec<String>,
}

/// What an acknowledgement promises, and the topic's setting by which each system promises it: that
/// the disks have the record, or that the operating systems have.
const SETTINGS: [&str; 4] = [
    "ringmill:flushed:durability=flushed",
    "kafka:flushed:flush.messages=1",
    "ringmill:replicated:durability=replicated",
    "kafka:replicated:flush.messages=9223372036854775807",
];

/// The works of the page on a single node. Where no promise is named, each system keeps its own: ours
/// that the disk has the record, Kafka's that the operating system has it.
const WORKS: [&str; 17] = [
    "produce",
    "produce,promise=flushed",
    "produce,promise=replicated",
    "produce,size=1000",
    "produce,size=1000,promise=flushed",
    "produce,producers=50,partitions=50",
    "consume",
    "consume,size=1000",
    "consume,size=1000,consumers=20,records=50000",
    "end-to-end",
    "end-to-end,promise=replicated",
    "end-to-end,consumers=20,rate=2000",
    "single,promise=flushed",
    "single,promise=flushed,producers=4",
    "single,promise=flushed,producers=16",
    "single,promise=flushed,producers=64",
    "catch-up,size=1000",
];

/// Works whose load other programs bring, on a single node.
const PROGRAM_WORKS: [&str; 6] = [
    "program,by=librdkafka,records=3000000",
    "program,by=kafka-producer-perf-test,records=3000000",
    "program,by=kafka-producer-perf-test,size=1000,records=500000",
    "program,by=own,records=1000000",
    "program,by=own,size=1000,records=300000",
    // with a flush for each message, one takes seconds for these
    "program,by=own-flushed,records=20000",
];

/// Those of several nodes.
const CLUSTER_WORKS: [&str; 4] = [
    "produce,promise=flushed",
    "produce,promise=replicated",
    "produce,size=1000,promise=flushed",
    "produce,size=1000,promise=replicated",
];

pub(crate) fn compare(args: &Args) -> Result<(), Failure> {
    run(cargo().args(["build", "--release", "-p", "ringmill-bench"]))?;
    let kafka = RunningKafka::nodes("compare", &[], args.nodes)?;
    let scratch = target_dir().join("compare");
    let ours = Broker::nodes(&scratch, Build::Release, args.nodes, &["--cores=1"])?;
    let first = ours
        .first()
        .ok_or_else(|| Failure("at least one node".to_owned()))?;
    let processes: Vec<u32> = ours.iter().map(Broker::process).collect();
    let system = |name: &str, address: &str, processes: &[u32]| {
        let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
        format!("{name}={address},{}", processes.join(","))
    };
    let mut bench = Command::new(target_dir().join("release/ringmill-bench"));
    // they live as long as the measure
    let mut others = Vec::new();
    bench
        .arg("compare")
        .args([
            "--system",
            &system("ringmill", &first.bootstrap, &processes),
        ])
        .args([
            "--system",
            &system("kafka", &kafka.bootstrap, &kafka.processes()),
        ])
        .args(["--replication", &args.nodes.min(3).to_string()]);
    match args.page {
        true => {
            page(&mut bench, args.nodes);
            if args.nodes == 1 {
                others = programs(&mut bench)?;
            }
        }
        false => {
            bench.args(["--promise", "flushed", "--promise", "replicated"]);
        }
    }
    for setting in SETTINGS {
        bench.args(["--topic-setting", setting]);
    }
    let json = scratch.join("compare.json");
    let svg = scratch.join("compare.svg");
    bench.arg("--json").arg(&json).arg("--svg").arg(&svg);
    run(bench.args(&args.more))?;
    println!("{} and {}", json.display(), svg.display());
    drop(others);
    for node in ours.into_iter().rev() {
        node.stop()?;
    }
    Ok(())
}

/// Further systems, and programs that bring their own load, for works of their own.
fn programs(bench: &mut Command) -> Result<Vec<RunningNats>, Failure> {
    let python = harness_python()?;
    let script = |name: &str| root().join("bench/generators").join(name);
    let (jars, _) = kafka_tools()?;
    let nats = nats::install()?;
    let mut running = Vec::new();
    for (name, sync, by) in [
        ("nats", None, "own"),
        ("nats-flushed", Some("always"), "own-flushed"),
    ] {
        let server = RunningNats::start(name, sync)?;
        let system = format!("{name}={},{}", server.address, server.process());
        bench.args(["--system", &system, "--foreign", name]);
        let words = [python.clone(), script("nats.py"), nats.clone()];
        bench.arg("--program").arg(words_of(by, name, &words));
        running.push(server);
    }
    let kafka = [python, script("kafka_perf.py"), jars];
    let ours = [
        target_dir().join("release/ringmill-bench"),
        PathBuf::from("as-program"),
    ];
    let librdkafka = [librdkafka()?];
    for system in ["ringmill", "kafka"] {
        let name = "kafka-producer-perf-test";
        bench.arg("--program").arg(words_of(name, system, &kafka));
        bench
            .arg("--program")
            .arg(words_of("librdkafka", system, &librdkafka));
    }
    for by in ["own", "own-flushed"] {
        bench.arg("--program").arg(words_of(by, "ringmill", &ours));
    }
    bench.arg("--program").arg(words_of("own", "kafka", &kafka));
    for work in PROGRAM_WORKS {
        bench.args(["--work", work]);
    }
    let text = format!(
        "nats-server {} with JetStream in files, by default and with sync_interval always; its load is \
         `nats bench` {} with 500 messages in flight",
        nats::SERVER_VERSION,
        nats::PROGRAM_VERSION
    );
    bench.arg("--fact").arg(format!("nats={text}"));
    Ok(running)
}

fn words_of(name: &str, system: &str, words: &[PathBuf]) -> String {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.display().to_string())
        .collect();
    format!("{name}@{system}={}", words.join(","))
}

/// Builds the load of librdkafka.
fn librdkafka() -> Result<PathBuf, Failure> {
    if !succeeds("dpkg", &["-s", "librdkafka-dev"]) {
        apt_install(&["gcc", "librdkafka-dev"])?;
    }
    let program = target_dir().join("compare/librdkafka");
    std::fs::create_dir_all(target_dir().join("compare"))?;
    run(Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(root().join("bench/generators/librdkafka.c"))
        .arg("-lrdkafka"))?;
    Ok(program)
}

/// The works of a page, where it goes, and what it tells of the machine and the systems.
fn page(bench: &mut Command, nodes: usize) {
    let (works, file, command) = match nodes {
        1 => (
            &WORKS[..],
            "docs/PERFORMANCE.md",
            "cargo xtask compare --page".to_owned(),
        ),
        _ => (
            &CLUSTER_WORKS[..],
            "docs/PERFORMANCE-CLUSTER.md",
            format!("cargo xtask compare --nodes {nodes} --page"),
        ),
    };
    for work in works {
        bench.args(["--work", work]);
    }
    bench.arg("--page").arg(root().join(file));
    bench.arg("--limits").arg(target_dir());
    let ours = format!(
        "{}, {nodes} node(s) of one core each; by default an acknowledged record is on the disk",
        said(
            "git",
            &[
                "-C",
                &root().display().to_string(),
                "describe",
                "--always",
                "--dirty"
            ]
        ),
    );
    let kafka = format!(
        "Apache Kafka {KAFKA_VERSION}, {nodes} node(s), KRaft, {}, a heap of 1 GB, default settings; \
         `flushed` is flush.messages=1",
        said("java", &["--version"])
            .lines()
            .next()
            .unwrap_or_default(),
    );
    for (name, text) in [
        ("date", said("date", &["-u", "+%F"])),
        ("machine", machine()),
        ("kernel", said("uname", &["-sr"])),
        ("ringmill", ours),
        ("kafka", kafka),
        ("repeat it", format!("`{command}`")),
    ] {
        bench.arg("--fact").arg(format!("{name}={text}"));
    }
}

/// What a program says, without the last line's end; nothing if it cannot.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kilobytes: u64 = value(&memory, "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0);
    let model = value(&cpus, "model name");
    let is_virtual = cpus.contains(" hypervisor");
    let kind = if is_virtual {
        ", a virtual machine"
    } else {
        ""
    };
    format!(
        "{cores} cores of {model}, {} GiB of memory{kind}",
        kilobytes >> 20
    )
}
