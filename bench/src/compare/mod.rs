//! `compare`: the same works against several systems that run already, by the same client, in turn:
//! round after round, each round in another order. What is told are medians over the rounds, how each
//! system stands to the first, and how far all of them are from what the machine does at most.

mod open_messaging;
mod page;
mod plan;
mod program;
mod readers;
mod results;
mod system;
mod work;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::Failure;
use crate::limits::{self, Limits};
use crate::options::{Output, size, time};
use crate::process::settle;
use crate::report::Report;
use plan::{Kind, Work};
use program::{Program, program};
use results::Measured;
pub(crate) use results::number as shown;
use system::{System, TopicSetting, system, topic_setting};
use work::Way;

/// How long each of the machine's limits is measured.
const LIMIT_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// A system: NAME=HOST:PORT, or NAME=HOST:PORT,PID,PID,… with the processes of its nodes, to
    /// measure what they use; the first is what the others are compared with
    #[arg(long = "system", required = true, value_name = "NAME=ADDRESS", value_parser = system)]
    systems: Vec<System>,
    /// What to do: KIND or KIND,KEY=VALUE,… with a kind of produce, consume, end-to-end, single and
    /// catch-up, and what the options below say of all works, for this one: promise, size, partitions,
    /// replication, producers, batch, linger, and consumers, records and rate; may be repeated; produce
    /// if nothing is named
    #[arg(long = "work", value_name = "WORK")]
    works: Vec<String>,
    /// Do what a workload file of the OpenMessaging benchmark says, after that; may be repeated
    #[arg(long = "workload", value_name = "FILE")]
    workloads: Vec<PathBuf>,
    /// What is promised of an acknowledged record; each does all works
    #[arg(long = "promise", value_name = "WORD", default_value = "default")]
    promises: Vec<String>,
    /// A program that writes to a system, for works of `program,by=NAME`: it is started with HOST:PORT
    /// TOPIC RECORDS SIZE, and its last line is JSON with records, seconds and cpu_seconds; may be
    /// repeated
    #[arg(long = "program", value_name = "NAME@SYSTEM=WORD,…", value_parser = program)]
    programs: Vec<Program>,
    /// A system that does not speak the Kafka protocol, so that only programs of its own can write to it
    #[arg(long = "foreign", value_name = "SYSTEM")]
    foreign: Vec<String>,
    /// A topic's setting by which a system makes a promise, such as
    /// kafka:flushed:flush.messages=1; may be repeated
    #[arg(long = "topic-setting", value_name = "SYSTEM:PROMISE:KEY=VALUE", value_parser = topic_setting)]
    settings: Vec<TopicSetting>,
    /// Bytes of each record's value; may be repeated
    #[arg(long = "record-size", default_value = "100", value_parser = size)]
    record_sizes: Vec<usize>,
    /// Partitions of each topic
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Copies of each partition
    #[arg(long, default_value_t = 1)]
    replication: i16,
    /// Producers, each with connections of its own
    #[arg(long, default_value_t = 1)]
    producers: u64,
    /// Bytes at which a batch is full (batch.size)
    #[arg(long, default_value = "256k", value_parser = size)]
    batch_size: usize,
    /// How long a batch waits to be full (linger.ms)
    #[arg(long, default_value = "5ms", value_parser = time)]
    linger: Duration,
    /// Records per second whose latency is measured after a race, in an open loop; half of what the
    /// slowest system takes if not given
    #[arg(long, value_parser = crate::options::rate)]
    rate: Option<u64>,
    /// How long each measure takes
    #[arg(long, default_value = "5s", value_parser = time)]
    duration: Duration,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure what the machine does at most as well, on the disk of this folder
    #[arg(long, value_name = "DIR")]
    limits: Option<PathBuf>,
    /// Write a page with tables and charts
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// What the page tells of how it was measured, such as a system's version; may be repeated
    #[arg(long = "fact", value_name = "NAME=TEXT")]
    facts: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let works = works(&args).await?;
    let limits = match &args.limits {
        Some(folder) => Some(limits::measure(folder, LIMIT_TIME).await?),
        None => None,
    };
    let mut all = Vec::new();
    for work in &works {
        all.extend(side_by_side(&args, work).await?);
    }
    if let Some(page) = &args.page {
        page::write(&args, &all, limits.as_ref(), page).await?;
    }
    report(&args, &all, limits.as_ref())?
        .finish(&args.output)
        .await
}

/// All of them, in their order.
async fn works(args: &Args) -> Result<Vec<Work>, Failure> {
    let mut works = Vec::new();
    let mut add = |work: Result<Work, String>| {
        let work = work.map_err(Failure)?;
        if !works.contains(&work) {
            works.push(work);
        }
        Ok::<(), Failure>(())
    };
    // a workload alone does not bring the default work along
    let texts = match args.works.is_empty() && args.workloads.is_empty() {
        true => vec!["produce".to_owned()],
        false => args.works.clone(),
    };
    for promise in &args.promises {
        for text in &texts {
            for record_size in &args.record_sizes {
                add(Work::parse(text, &base(args, promise, *record_size)))?;
            }
        }
        for path in &args.workloads {
            let told = |error: &dyn Display| format!("{}: {error}", path.display());
            let bytes = ringmill_ring::fs::read(path).await;
            let bytes = bytes.map_err(|error| Failure(told(&error)))?;
            let text = String::from_utf8_lossy(&bytes);
            let work = open_messaging::parse(&text, &base(args, promise, 0));
            add(work.map_err(|error| told(&error)))?;
        }
    }
    Ok(works)
}

/// What the options say of all works.
fn base(args: &Args, promise: &str, record_size: usize) -> Work {
    Work {
        kind: Kind::Produce,
        promise: promise.to_owned(),
        record_size,
        partitions: args.partitions,
        replication: args.replication,
        producers: args.producers.max(1),
        consumers: 1,
        records: 0,
        rate: None,
        batch_size: args.batch_size,
        linger: args.linger,
        by: String::new(),
    }
}

/// One work on all systems.
async fn side_by_side(args: &Args, work: &Work) -> Result<Vec<Measured>, Failure> {
    let systems = systems_for(args, work);
    for system in &systems {
        work::prepare(work, system, &args.settings).await?;
    }
    let mut all = rounds(args, work, None).await?;
    if work.kind == Kind::Produce {
        let slowest = all.iter().map(Measured::records_per_second);
        let slowest = slowest.fold(f64::MAX, f64::min);
        let asked = work.rate.or(args.rate);
        let rate = asked.unwrap_or((slowest / 2.0) as u64).max(1);
        // how long a batch waits to be full is the client's choice, and would hide the rest
        let calm = Work {
            linger: Duration::ZERO,
            ..work.clone()
        };
        all.extend(rounds(args, &calm, Some(rate)).await?);
    }
    for system in &systems {
        work::tidy(work, system).await?;
    }
    Ok(all)
}

/// The systems that can do a work.
fn systems_for<'a>(args: &'a Args, work: &Work) -> Vec<&'a System> {
    let does = |system: &&System| match work.kind {
        Kind::Program => program_for(args, work, system).is_some(),
        _ => !args.foreign.contains(&system.name),
    };
    args.systems.iter().filter(does).collect()
}

fn program_for<'a>(args: &'a Args, work: &Work, system: &System) -> Option<&'a Program> {
    let mut programs = args.programs.iter();
    programs.find(|program| program.name == work.by && program.system == system.name)
}

async fn rounds(args: &Args, work: &Work, rate: Option<u64>) -> Result<Vec<Measured>, Failure> {
    let systems = systems_for(args, work);
    let of = |system: &&System| Measured::new(&system.name, work, rate);
    let mut measured: Vec<Measured> = systems.iter().map(of).collect();
    for round in 0..args.rounds {
        for turn in 0..systems.len() {
            // whoever is first in one round is last in the next
            let at = match round % 2 {
                0 => turn,
                _ => systems.len() - 1 - turn,
            };
            // what was written and deleted before is not to be waited for now
            settle();
            let way = Way {
                rate,
                duration: args.duration,
                round,
            };
            let one = match program_for(args, work, systems[at]) {
                Some(program) => work::by_program(work, systems[at], args, program, way).await?,
                None => work::run(work, systems[at], &args.settings, way).await?,
            };
            let (system, title) = (&measured[at].system, measured[at].title());
            let told = format!("{title}, {system}: {}", one.line());
            eprintln!("round {} of {}: {told}", round + 1, args.rounds);
            measured[at].rounds.push(one);
        }
    }
    Ok(measured)
}

/// What was done, for titles.
fn title(args: &Args) -> String {
    let names: Vec<&str> = args.systems.iter().map(|s| s.name.as_str()).collect();
    format!(
        "compare: {}; acks=all, batches of {} B, linger {} ms (0 where latency is told), medians of {} rounds of {} s",
        names.join(" and "),
        args.batch_size,
        args.linger.as_millis(),
        args.rounds,
        args.duration.as_secs_f64(),
    )
}

fn named(measured: &Measured) -> String {
    format!("{}: {}", measured.system, measured.title())
}

/// The works with what was measured of them, system by system.
fn by_work(all: &[Measured]) -> impl Iterator<Item = &[Measured]> {
    all.chunk_by(|a, b| a.title() == b.title())
}

/// The table, the JSON and the chart of latencies.
fn report(args: &Args, all: &[Measured], limits: Option<&Limits>) -> Result<Report, Failure> {
    let mut report = Report::new("compare", title(args));
    for works in by_work(all) {
        for figure in works.first().map(Measured::figures).unwrap_or_default() {
            let shown = page::cells(works, figure).join("   ");
            report.row(&format!("{}: {}", works[0].title(), figure.name), shown);
        }
        if let Some(bound) = limits.and_then(|limits| page::distance(works, limits)) {
            report.row(
                &format!("{}: {}", works[0].title(), bound.0),
                bound.1.join("   "),
            );
        }
    }
    if let Some(limits) = limits {
        limits.tell(&mut report);
    }
    let json: Vec<_> = all.iter().map(Measured::as_json).collect();
    report.data("measured", json!(json));
    report.curves("one record in so many", "ms", page::curves(all, named)?);
    Ok(report)
}
