//! `ringmill-bench`: measures a broker that speaks the Kafka protocol, and the disk beneath it. This
//! file is the table of contents.
//!
//! One thread with one ring makes all the load. Client and broker share the machine unless the
//! broker is elsewhere: on two cores, `--with-broker` gives the broker one core's worth of threads
//! and leaves the other to the load.

#![deny(unsafe_code)]

mod as_program;
mod bare;
mod bars;
mod broker;
mod chart;
mod compact;
mod compare;
mod consume;
mod disk;
mod fill;
mod flush;
mod idle;
mod latency;
mod limits;
mod measure;
mod options;
mod process;
mod produce;
mod progress;
mod report;
mod restart;
mod sockets;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ringmill_ring::RingConfig;

#[derive(Debug, Parser)]
#[command(
    name = "ringmill-bench",
    version,
    about = "Measures a broker that speaks the Kafka protocol",
    arg_required_else_help = true
)]
struct Cli {
    /// How long the load's core looks for work before it sleeps, such as 200us; the broker's own
    /// is set by --broker-arg=--core-spin-us=200
    #[arg(long, global = true, default_value = "0us", value_parser = options::time)]
    spin: Duration,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// Records per second into a topic, and how long each takes to be acknowledged
    Produce(produce::Args),
    /// Records per second out of a topic
    Consume(consume::Args),
    /// The time of single-record requests, each acknowledged before the next
    Latency(latency::Args),
    /// What the disk itself allows: a write and its fdatasync, over and over
    Fdatasync(disk::Args),
    /// What this machine does at most: memory, loopback, page cache and disk
    Limits(limits::Args),
    /// Single-record durable requests beside the disk's own writes and fdatasyncs, in turn
    Flush(flush::Args),
    /// The same work against several systems that run already, in turn
    Compare(compare::Args),
    /// Write so many records, for `compare`
    #[command(hide = true)]
    AsProgram(as_program::Args),
    /// How long a broker with a large log takes to stop, and to start again
    Restart(restart::Args),
    /// What many partitions cost that nobody writes to: memory, files, and the time to start
    Idle(idle::Args),
    /// What compacting a log of many keys takes, and what its clients notice of it
    Compact(compact::Args),
    /// An echo over TCP by this ring, std::net, tokio and compio, in turn
    Sockets(sockets::Args),
    /// One of its servers
    #[command(hide = true)]
    SocketsServe(sockets::ServeArgs),
}

/// What went wrong, as the one line that the user reads.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl Failure {
    fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

/// Exits 0 on success, 1 on failure with one line on stderr, 2 on misuse (by clap).
fn main() -> ExitCode {
    let Cli { measure, spin } = Cli::parse();
    let measure = match beside_the_ring(measure) {
        Ok(measure) => measure,
        Err(done) => return told(done),
    };
    let config = RingConfig {
        // a fetch's answer is read in large steps
        recv_buffers: 128,
        spin,
        ..RingConfig::default()
    };
    let done = ringmill_ring::run(config, async {
        match measure {
            Measure::Produce(args) => produce::run(args).await,
            Measure::Consume(args) => consume::run(args).await,
            Measure::Latency(args) => latency::run(args).await,
            Measure::Fdatasync(args) => disk::run(args).await,
            Measure::Limits(args) => limits::run(args).await,
            Measure::Flush(args) => flush::run(args).await,
            Measure::Compare(args) => compare::run(args).await,
            Measure::AsProgram(args) => as_program::run(args).await,
            Measure::Restart(args) => restart::run(args).await,
            Measure::Idle(args) => idle::run(args).await,
            Measure::Compact(args) => compact::run(args).await,
            Measure::Sockets(_) | Measure::SocketsServe(_) => unreachable!("done before"),
        }
    });
    told(done.unwrap_or_else(|error| Err(Failure::new(error))))
}

/// Measures that begin without a ring of this process; the rest is handed back.
fn beside_the_ring(measure: Measure) -> Result<Measure, Result<(), Failure>> {
    match measure {
        Measure::Sockets(args) => Err(sockets::run(args)),
        Measure::SocketsServe(args) => Err(sockets::serve(&args).map_err(Failure::new)),
        other => Ok(other),
    }
}

fn told(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringmill-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
