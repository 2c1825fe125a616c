//! `ringmill`: the engine and its tools in one binary. This file is the table of contents.

#![forbid(unsafe_code)]

mod cluster;
mod consume;
mod copies;
mod demo;
mod doctor;
mod embedded;
mod features;
mod flights;
mod group;
mod log;
mod produce;
mod remote;
mod serve;
mod settings;
mod signals;
mod stdin;
mod topic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "ringmill", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the engine
    Serve(settings::ServeArgs),
    /// Show it all: a node, a real data set through it and back, checked
    Demo(demo::Args),
    /// Create, list, describe, alter and delete topics
    Topic(topic::Args),
    /// Produce a record a line from standard input
    Produce(produce::Args),
    /// Print a topic's records
    Consume(consume::Args),
    /// List, describe, reset and delete consumer groups
    Group(group::Args),
    /// Show the cluster's nodes, take one out
    Cluster(cluster::Args),
    /// Dump or verify the files of a log
    Log(log::Args),
    /// Say what this machine offers, and what it costs to lack what is missing
    Doctor(doctor::Args),
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
    let result = match Cli::parse().task {
        Task::Serve(args) => serve::run(args),
        Task::Demo(args) => demo::run(&args),
        Task::Topic(args) => topic::run(args),
        Task::Produce(args) => produce::run(args),
        Task::Consume(args) => consume::run(args),
        Task::Group(args) => group::run(args),
        Task::Cluster(args) => cluster::run(args),
        Task::Log(args) => log::run(args),
        Task::Doctor(args) => doctor::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringmill: {failure}");
            ExitCode::FAILURE
        }
    }
}
