//! `fdatasync`: what the disk itself allows, by the same ring that the broker uses: a write and its
//! fdatasync, linked, over and over, each of several writers in a file of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions, fs, now, spawn};
use serde_json::json;

use crate::Failure;
use crate::measure::Gathered;
use crate::options::{Output, size, time};
use crate::progress;
use crate::report::{Report, grouped};

/// A file that is overwritten is written to this size before, so that no block of it is new.
const PREPARED: u64 = 64 << 20;
/// Bytes of one step of that.
const PREPARED_STEP: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
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

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let folder = args
        .dir
        .join(format!("ringmill-fdatasync-{}", std::process::id()));
    let wrong = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    fs::create_dir_all(&folder).await.map_err(wrong)?;
    let measured = measure(&args, &folder).await;
    fs::remove_dir_all(&folder).await.map_err(wrong)?;
    let gathered = measured.map_err(wrong)?;
    let title = format!(
        "fdatasync: {} writer(s), {} B each, {} in {}",
        args.concurrency,
        grouped(args.size as u64),
        match args.mode {
            Mode::Append => "appended",
            Mode::Overwrite => "overwritten",
        },
        args.dir.display(),
    );
    let mut report = Report::new("fdatasync", title);
    report.figure(
        "writers",
        "concurrency",
        json!(args.concurrency),
        args.concurrency.to_string(),
    );
    report.throughput(gathered.series());
    report.latency(gathered.latencies());
    report.finish(&args.output).await
}

async fn measure(args: &Args, folder: &Path) -> std::io::Result<Gathered> {
    let mut files = Vec::new();
    for nth in 0..args.concurrency.max(1) {
        files.push(prepare(&folder.join(nth.to_string()), args.mode).await?);
    }
    let gathered = Gathered::new();
    gathered.start();
    let line = progress::show(0, &gathered);
    let end = now() + args.duration;
    let tasks: Vec<_> = files
        .into_iter()
        .map(|file| {
            let content = Bytes::from(vec![0xa5; args.size]);
            let (gathered, mode) = (gathered.clone(), args.mode);
            spawn(async move {
                let size = content.len() as u64;
                let mut offset = 0;
                while now() < end {
                    let begun = now();
                    file.write_at_sync(offset, vec![content.clone()]).await?;
                    gathered.took(now() - begun);
                    gathered.done(1, size);
                    offset += size;
                    if mode == Mode::Overwrite && offset + size > PREPARED {
                        offset = 0;
                    }
                }
                std::io::Result::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(std::io::Error::other)??;
    }
    drop(line);
    Ok(gathered)
}

async fn prepare(path: &Path, mode: Mode) -> std::io::Result<File> {
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
