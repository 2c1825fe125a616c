//! `fdatasync`: what the disk itself allows, by the same ring that the broker uses: a write and its
//! fdatasync, linked, over and over, each of several writers in a file of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{File, Instant, OpenOptions, fs, now, spawn};
use serde_json::json;

use crate::Failure;
use crate::measure::Gathered;
use crate::options::{Output, size, time};
use crate::progress;
use crate::report::{Report, grouped};

/// A file that is overwritten is written to this size before, so that no block of it is new.
const PREPARED: u64 = 8 << 20;
/// Bytes of one step of that.
const PREPARED_STEP: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Each write makes the file longer: its metadata is flushed too
    Append,
    /// Each write goes over blocks that were written before
    Overwrite,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// A folder on the disk to measure
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How many writers at once, each with a file of its own
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Bytes of each write
    #[arg(long, default_value = "4k", value_parser = size)]
    size: usize,
    /// For how long
    #[arg(long, default_value = "5s", value_parser = time)]
    duration: Duration,
    /// Where the writes go
    #[arg(long, value_enum, default_value = "append")]
    mode: Mode,
}

/// What the disk is put to.
pub(crate) struct Load {
    pub(crate) dir: PathBuf,
    pub(crate) writers: usize,
    /// Bytes of each write.
    pub(crate) size: usize,
    pub(crate) duration: Duration,
    pub(crate) mode: Mode,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let load = Load {
        dir: args.dir,
        writers: args.concurrency,
        size: args.size,
        duration: args.duration,
        mode: args.mode,
    };
    let gathered = measure(&load).await?;
    let title = format!(
        "fdatasync: {} writer(s), {} B each, {} in {}",
        load.writers,
        grouped(load.size as u64),
        match load.mode {
            Mode::Append => "appended",
            Mode::Overwrite => "overwritten",
        },
        load.dir.display(),
    );
    let mut report = Report::new("fdatasync", title);
    report.figure(
        "writers",
        "concurrency",
        json!(load.writers),
        load.writers.to_string(),
    );
    report.throughput(gathered.series());
    report.latency(gathered.latencies());
    report.finish(&args.output).await
}

/// A fresh folder for the files of a measure.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// In a folder on the disk to measure.
    pub(crate) async fn make(within: &Path) -> Result<Self, Failure> {
        let folder = Self(within.join(format!("ringmill-fdatasync-{}", std::process::id())));
        let made = fs::create_dir_all(&folder.0).await;
        made.map_err(|error| folder.wrong(&error))?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) async fn remove(self) -> Result<(), Failure> {
        let removed = fs::remove_dir_all(&self.0).await;
        removed.map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("{}: {error}", self.0.display()))
    }
}

/// Writes and flushes in a fresh folder of its own.
pub(crate) async fn measure(load: &Load) -> Result<Gathered, Failure> {
    let folder = Folder::make(&load.dir).await?;
    let measured = measure_in(load, folder.path()).await;
    let measured = measured.map_err(|error| folder.wrong(&error));
    folder.remove().await?;
    measured
}

async fn measure_in(load: &Load, folder: &Path) -> std::io::Result<Gathered> {
    let mut files = Vec::new();
    for nth in 0..load.writers.max(1) {
        files.push(prepare(&folder.join(nth.to_string()), load.mode).await?);
    }
    let gathered = Gathered::new();
    gathered.start();
    let line = progress::show(0, &gathered);
    let end = now() + load.duration;
    let tasks: Vec<_> = files
        .into_iter()
        .map(|file| {
            let content = Bytes::from(vec![0xa5; load.size]);
            spawn(write(file, content, load.mode, end, gathered.clone()))
        })
        .collect();
    for task in tasks {
        task.await.map_err(std::io::Error::other)??;
    }
    drop(line);
    Ok(gathered)
}

/// One writer.
async fn write(
    file: File,
    content: Bytes,
    mode: Mode,
    end: Instant,
    gathered: Gathered,
) -> std::io::Result<()> {
    let size = content.len() as u64;
    let mut offset = 0;
    while now() < end {
        let begun = now();
        file.write_at_sync(offset, vec![content.clone()]).await?;
        gathered.took(now() - begun);
        gathered.done(1, size);
        offset = next_offset(offset, size, mode);
    }
    Ok(())
}

/// Where the write after the one at `offset` goes.
pub(crate) fn next_offset(offset: u64, size: u64, mode: Mode) -> u64 {
    let next = offset + size;
    let over = mode == Mode::Overwrite && next + size > PREPARED;
    if over { 0 } else { next }
}

/// Makes a file for a writer.
pub(crate) async fn prepare(path: &Path, mode: Mode) -> std::io::Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = File::open(path, options).await?;
    if mode == Mode::Overwrite {
        let zeros = Bytes::from(vec![0; PREPARED_STEP]);
        for step in 0..PREPARED / PREPARED_STEP as u64 {
            let offset = step * PREPARED_STEP as u64;
            file.write_at(offset, vec![zeros.clone()]).await?;
        }
    }
    file.sync_all().await?;
    Ok(file)
}
