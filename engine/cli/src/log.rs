//! `ringmill log`: looks into the files of a log, without changing any and without a broker.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ringmill_log::{Finding, Severity, Verified, dump, verify};
use ringmill_ring::fs;
use serde_json::json;

use crate::Failure;
use crate::remote::{print, print_json, run as on_ring};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Show what a file holds, or all files of a partition's folder
    Dump {
        path: PathBuf,
        /// The records of the batches too
        #[arg(long)]
        records: bool,
    },
    /// Check a partition's folder, or all partitions of a data folder; stop the broker first
    Verify {
        path: PathBuf,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    on_ring(async move {
        match args.task {
            Task::Dump { path, records } => show(&path, records).await,
            Task::Verify { path, json } => check(&path, json).await,
        }
    })
}

async fn show(path: &Path, records: bool) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout());
    let mut failure = None;
    for file in files(path).await? {
        dump(&file, records, |dumped| {
            if failure.is_none() {
                failure = writeln!(out, "{dumped}").err();
            }
        })
        .await
        .map_err(Failure::new)?;
    }
    match failure.or(out.flush().err()) {
        // a reader that has gone away (`| head`) is no failure
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(error)),
        _ => Ok(()),
    }
}

/// The broker's own file beside a log, with the topic's id as text.
const METADATA: &str = "partition.metadata";

/// A file, or those of a folder that are the log's.
async fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = |error: io::Error| Failure(format!("cannot read {}: {error}", path.display()));
    if !fs::metadata(path).await.map_err(cannot)?.is_dir {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).await.map_err(cannot)?;
    let ours = entries
        .iter()
        .filter(|entry| !entry.is_dir && entry.name != METADATA);
    Ok(ours.map(|entry| path.join(&entry.name)).collect())
}

async fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let folders = partitions(path).await?;
    let mut findings: Vec<Finding> = Vec::new();
    let mut all = Verified::default();
    for folder in &folders {
        let verified = verify(folder, |finding| findings.push(finding)).await;
        add(&mut all, verified.map_err(Failure::new)?);
    }
    if json {
        let rows = findings.iter().map(|finding| {
            json!({
                "damage": finding.severity == Severity::Damage,
                "file": finding.file.display().to_string(),
                "position": finding.position,
                "what": finding.what,
            })
        });
        print_json(&json!({
            "partitions": folders.len(),
            "segments": all.segments,
            "batches": all.batches,
            "records": all.records,
            "bytes": all.bytes,
            "damages": all.damages,
            "notes": all.notes,
            "findings": rows.collect::<serde_json::Value>(),
        }))?;
    } else {
        let lines: Vec<String> = findings
            .iter()
            .map(|finding| format!("{finding}\n"))
            .collect();
        print(&lines.concat())?;
        print(&format!(
            "{} partition(s), {} segment(s), {} batches, {} records, {} bytes: {} damage(s), {} note(s)\n",
            folders.len(),
            all.segments,
            all.batches,
            all.records,
            all.bytes,
            all.damages,
            all.notes,
        ))?;
    }
    match all.damages {
        0 => Ok(()),
        damages => Err(Failure(format!("{}: {damages} damage(s)", path.display()))),
    }
}

/// The partitions in a folder: itself, or the folders in it that are named `topic-N`.
async fn partitions(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(path).await;
    let entries =
        entries.map_err(|error| Failure(format!("cannot read {}: {error}", path.display())))?;
    if entries.iter().any(|entry| entry.name.ends_with(".log")) {
        return Ok(vec![path.to_owned()]);
    }
    let is_partition = |name: &str| {
        let number = name
            .rsplit_once('-')
            .map(|(_, number)| number.parse::<u32>());
        matches!(number, Some(Ok(_)))
    };
    let folders = entries
        .iter()
        .filter(|entry| entry.is_dir && is_partition(&entry.name));
    let folders: Vec<PathBuf> = folders.map(|entry| path.join(&entry.name)).collect();
    if folders.is_empty() {
        let text = format!(
            "{} holds no log: name a partition's folder (topic-N) or the broker's data folder",
            path.display()
        );
        return Err(Failure(text));
    }
    Ok(folders)
}

fn add(all: &mut Verified, one: Verified) {
    all.segments += one.segments;
    all.batches += one.batches;
    all.records += one.records;
    all.bytes += one.bytes;
    all.damages += one.damages;
    all.notes += one.notes;
}
