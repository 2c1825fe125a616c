//! Checks a partition's folder from outside: every file of it, without changing any
//! (`ringmill log verify`). Names each kind of damage by file and position.
//!
//! The partition should be closed; of one that is in use, the very end may look torn while it
//! is being written.

use std::fmt;
use std::path::{Path, PathBuf};

use ringmill_ring::{File, OpenOptions, fs};
use ringmill_wire::batch::BatchHeader;

use crate::checkpoint::Checkpoint;
use crate::cleaner::read_checkpoint;
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::epochs::Epochs;
use crate::error::IoFailure;
use crate::index::{CELL_LEN, HEADER_LEN, IndexBuilder, IndexHeader, OffsetsDigest, Seal};
use crate::mend::time_of;
use crate::names::{self, Kind};
use crate::scan::{ScanEnd, Scanned};
use crate::snapshot;
use crate::sweep::{Range, sweep};
use crate::time_index::{self, MaxTimestamp, TimeEntry};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The next start deals with it, and nothing is lost: a torn end, an index to be built.
    Note,
    /// Records that were flushed cannot be read.
    Damage,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which file.
    pub file: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Damage => "damage",
        };
        let Finding {
            file,
            position,
            what,
            ..
        } = self;
        write!(f, "{severity}: {}:{position}: {what}", file.display())
    }
}

/// What was gone through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments.
    pub segments: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them, as their headers count.
    pub records: u64,
    /// Bytes of log.
    pub bytes: u64,
    /// Findings of [`Severity::Damage`].
    pub damages: u64,
    /// Findings of [`Severity::Note`].
    pub notes: u64,
}

/// Checks the partition in `dir` and calls `tell` with each finding as it comes.
pub async fn verify(dir: &Path, tell: impl FnMut(Finding)) -> Result<Verified, IoFailure> {
    let mut verifier = Verifier {
        dir,
        tell,
        done: Verified::default(),
        epochs: Epochs::new(),
        checkpoint: None,
        cleaner: read_checkpoint(dir).await?,
        expected: None,
    };
    verifier.run().await?;
    Ok(verifier.done)
}

struct Verifier<'a, F> {
    dir: &'a Path,
    tell: F,
    done: Verified,
    /// As the batches say.
    epochs: Epochs,
    checkpoint: Option<Checkpoint>,
    cleaner: CleanerCheckpoint,
    /// The offset at which the next segment should begin.
    expected: Option<i64>,
}

/// What a sweep over one segment gathers.
struct Gathered {
    index: IndexBuilder,
    max: MaxTimestamp,
    epochs: Epochs,
    /// Time entries that are still to be met, and the first that was not as it should be.
    entries: std::vec::IntoIter<TimeEntry>,
    next_entry: Option<TimeEntry>,
    wrong_entry: Option<TimeEntry>,
    batches: u64,
    records: u64,
    compacted: bool,
    digest: OffsetsDigest,
}

impl Gathered {
    fn on_batch(&mut self, position: u64, header: &BatchHeader) {
        let last = header.last_offset();
        if self.compacted {
            self.index.on_gap(header.base_offset);
            self.digest.on_batch(header.base_offset);
        }
        self.index.on_batch(last, position as u32);
        self.max = self.max.with(time_of(header), last);
        self.epochs
            .on_batch(header.partition_leader_epoch, header.base_offset);
        while let Some(entry) = self.next_entry.filter(|entry| entry.offset <= last) {
            let right = entry.offset == last
                && (self.max.timestamp, self.max.offset) == (entry.timestamp, entry.offset);
            if !right {
                self.wrong_entry.get_or_insert(entry);
            }
            self.next_entry = self.entries.next();
        }
        self.batches += 1;
        self.records += header.records_count.max(0) as u64;
    }
}

impl<F: FnMut(Finding)> Verifier<'_, F> {
    fn find(&mut self, severity: Severity, file: &Path, position: u64, what: impl fmt::Display) {
        match severity {
            Severity::Note => self.done.notes += 1,
            Severity::Damage => self.done.damages += 1,
        }
        (self.tell)(Finding {
            severity,
            file: file.to_owned(),
            position,
            what: what.to_string(),
        });
    }

    async fn run(&mut self) -> Result<(), IoFailure> {
        let entries = fs::read_dir(self.dir)
            .await
            .map_err(IoFailure::of("list", self.dir))?;
        let named = |kind| {
            let mut offsets: Vec<(i64, u64)> = entries
                .iter()
                .filter_map(|entry| Some((names::parse(&entry.name)?, entry.len)))
                .filter_map(|((offset, found), len)| (found == kind).then_some((offset, len)))
                .collect();
            offsets.sort_unstable();
            offsets
        };
        self.check_checkpoint().await?;
        for entry in &entries {
            if names::parse_swap(&entry.name).is_some() {
                let what = "a compacted segment that is still to take its place";
                self.find(Severity::Note, &self.dir.join(&entry.name), 0, what);
            }
        }
        let logs = named(Kind::Log);
        for (n, (base, len)) in logs.iter().enumerate() {
            let next = logs.get(n + 1).map(|(base, _)| *base);
            self.check_segment(*base, *len, next).await?;
        }
        self.check_end();
        for (offset, _) in named(Kind::Snapshot) {
            self.check_snapshot(offset).await?;
        }
        self.check_epochs().await
    }

    async fn check_checkpoint(&mut self) -> Result<(), IoFailure> {
        let path = self.dir.join(names::CHECKPOINT);
        let content = read_if_there(&path).await?;
        self.checkpoint = content.as_deref().and_then(Checkpoint::parse);
        if self.checkpoint.is_none() {
            self.find(
                Severity::Note,
                &path,
                0,
                "no sound checkpoint: the next start reads the whole log",
            );
        }
        Ok(())
    }

    async fn check_segment(
        &mut self,
        base: i64,
        len: u64,
        next: Option<i64>,
    ) -> Result<(), IoFailure> {
        let path = names::path_of(self.dir, base, Kind::Log);
        self.check_start(&path, base);
        let options = OpenOptions::new().read(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("open", &path))?;
        let index_path = names::path_of(self.dir, base, Kind::Index);
        let index = read_if_there(&index_path).await?;
        let header = index
            .as_deref()
            .and_then(|bytes| IndexHeader::parse(bytes, base));
        let seal = header
            .and_then(|header| header.seal)
            .filter(|_| next.is_some());
        let compacted = match header {
            Some(IndexHeader {
                seal: Some(seal), ..
            }) => seal.compacted.is_some(),
            _ => base < self.cleaner.cleaned_end,
        };
        let times_path = names::path_of(self.dir, base, Kind::TimeIndex);
        let times = read_if_there(&times_path).await?.unwrap_or_default();
        let mut entries = time_index::parse(&times, base, i64::MAX).into_iter();
        let mut gathered = Gathered {
            index: IndexBuilder::new(base, header.map_or(0, |header| header.shift), 0),
            max: MaxTimestamp::NONE,
            epochs: std::mem::take(&mut self.epochs),
            next_entry: entries.next(),
            entries,
            wrong_entry: None,
            batches: 0,
            records: 0,
            compacted,
            digest: OffsetsDigest::default(),
        };
        let range = Range {
            position: 0,
            offset: base,
            end: seal.map_or(len, |seal| seal.log_len.min(len)),
            lenient: true,
            compacted,
        };
        let mut damaged = Vec::new();
        let swept = sweep(&file, range, |position, batch| match batch {
            Scanned::Whole(header, _) => gathered.on_batch(position, header),
            Scanned::Damaged(header, error) => {
                damaged.push((position, header.base_offset, header.last_offset(), error));
                gathered.on_batch(position, header);
            }
        });
        let end = swept.await.map_err(IoFailure::of("read", &path))?;
        for (position, first, last, error) in damaged {
            let what = format!("offsets {first} to {last}: {error}");
            self.find(Severity::Damage, &path, position, what);
        }
        if let Some(seal) = seal.filter(|_| compacted) {
            gathered.index.on_end(seal.end_offset);
            if seal.compacted != Some(gathered.digest.get()) && end.error.is_none() {
                let what = "the offsets of its batches are not those that compaction left";
                self.find(Severity::Damage, &path, 0, what);
            }
        }
        self.epochs = std::mem::take(&mut gathered.epochs);
        self.done.segments += 1;
        self.done.batches += gathered.batches;
        self.done.records += gathered.records;
        self.done.bytes += len;
        self.check_log_end(&path, len, &end, seal, next);
        if let Some(entry) = gathered.wrong_entry {
            let what = format!(
                "timestamp {} at offset {} is not what the log says",
                entry.timestamp, entry.offset
            );
            self.find(Severity::Note, &times_path, 0, what);
        }
        self.check_index(
            &index_path,
            index.as_deref(),
            header,
            &gathered,
            next.is_some(),
        );
        let sealed_end = seal.map(|seal| seal.end_offset);
        // what is missing at its end was cleaned away
        let sealed_end = sealed_end.or(next.filter(|_| compacted));
        self.expected = Some(end.next_offset.max(sealed_end.unwrap_or(0)));
        Ok(())
    }

    fn check_start(&mut self, path: &Path, base: i64) {
        let start = self
            .checkpoint
            .map(|checkpoint| checkpoint.log_start_offset);
        let Some(expected) = self.expected.or(start) else {
            return;
        };
        if base > expected {
            let what = format!("offsets {expected} to {} are missing before it", base - 1);
            self.find(Severity::Damage, path, 0, what);
        } else if self.expected.is_some() && base < expected {
            let what =
                format!("it begins before the end of the segment before it, offset {expected}");
            self.find(Severity::Damage, path, 0, what);
        }
    }

    fn check_log_end(
        &mut self,
        path: &Path,
        len: u64,
        end: &ScanEnd,
        seal: Option<Seal>,
        next: Option<i64>,
    ) {
        let sealed_len = seal.map_or(0, |seal| seal.log_len);
        if len < sealed_len {
            let what = format!("the file ends here, it had {sealed_len} bytes when it was sealed");
            self.find(Severity::Damage, path, len, what);
        } else if seal.is_some() && len > sealed_len {
            self.find(
                Severity::Note,
                path,
                sealed_len,
                "bytes behind the end of the sealed log",
            );
        }
        if let Some(seal) = seal
            && end.next_offset < seal.end_offset
            && seal.compacted.is_none()
            && end.error.is_none()
        {
            let (first, last) = (end.next_offset, seal.end_offset - 1);
            let what = format!("offsets {first} to {last} are missing");
            self.find(Severity::Damage, path, end.position, what);
        }
        let point = self.checkpoint.map(|checkpoint| checkpoint.recovery_point);
        let point =
            point.filter(|point| names::path_of(self.dir, point.segment, Kind::Log) == path);
        let flushed = end.position < point.map_or(0, |point| point.position);
        let severity = if next.is_some() || flushed {
            Severity::Damage
        } else {
            Severity::Note
        };
        match end.error {
            Some(error) if severity == Severity::Note => {
                self.find(
                    severity,
                    path,
                    end.position,
                    format!("the end is torn: {error}"),
                );
            }
            Some(error) => self.find(severity, path, end.position, error),
            None if flushed => {
                let what = "the log ends here, more was flushed";
                self.find(severity, path, end.position, what);
            }
            None => {}
        }
    }

    fn check_index(
        &mut self,
        path: &Path,
        file: Option<&[u8]>,
        header: Option<IndexHeader>,
        gathered: &Gathered,
        sealed: bool,
    ) {
        let Some((file, header)) = file.zip(header) else {
            // a young segment has none yet
            if sealed || file.is_some() {
                self.find(
                    Severity::Note,
                    path,
                    0,
                    "the index is missing or has no sound header",
                );
            }
            return;
        };
        if sealed && header.seal.is_none() {
            self.find(Severity::Note, path, 0, "the segment is not sealed");
        }
        let (_, expected) = gathered.index.encode_pending();
        let found = &file[HEADER_LEN.min(file.len())..];
        let compared = if sealed {
            expected.len()
        } else {
            expected.len().min(found.len())
        };
        let cells = expected[..compared]
            .chunks(CELL_LEN)
            .zip(found.chunks(CELL_LEN));
        let wrong = cells
            .clone()
            .position(|(expected, found)| expected != found);
        let short = (found.len() < compared).then_some(found.len() / CELL_LEN);
        if let Some(cell) = wrong.or(short) {
            let position = (HEADER_LEN + cell * CELL_LEN) as u64;
            self.find(
                Severity::Note,
                path,
                position,
                format!("cell {cell} is not what the log says"),
            );
        }
    }

    /// The end of the log, against the checkpoint.
    fn check_end(&mut self) {
        let Some(point) = self.checkpoint.map(|checkpoint| checkpoint.recovery_point) else {
            return;
        };
        if self.expected.is_none_or(|end| end < point.segment) {
            let path = names::path_of(self.dir, point.segment, Kind::Log);
            let what = format!(
                "the file is missing; the log had records up to offset {}",
                point.offset - 1
            );
            self.find(Severity::Damage, &path, 0, what);
        }
    }

    async fn check_snapshot(&mut self, offset: i64) -> Result<(), IoFailure> {
        let path = names::path_of(self.dir, offset, Kind::Snapshot);
        let content = read_if_there(&path).await?.unwrap_or_default();
        if let Err(error) = snapshot::parse(&content, 0) {
            self.find(Severity::Note, &path, 0, error);
        }
        Ok(())
    }

    async fn check_epochs(&mut self) -> Result<(), IoFailure> {
        let path = self.dir.join(names::EPOCHS);
        match read_if_there(&path)
            .await?
            .map(|content| Epochs::parse(&content))
        {
            None => self.find(Severity::Note, &path, 0, "the file is missing"),
            Some(Err(error)) => self.find(Severity::Note, &path, 0, error),
            Some(Ok(epochs)) => {
                // what is behind the last checkpoint may be missing, and nothing else
                let told = |entry| {
                    self.epochs
                        .entries()
                        .iter()
                        .skip(1)
                        .any(|known| known == entry)
                };
                let wrong = epochs
                    .entries()
                    .iter()
                    .skip(1)
                    // the batch that began an epoch may have been compacted away
                    .filter(|entry| entry.start_offset >= self.cleaner.cleaned_end)
                    .find(|entry| !told(*entry))
                    .copied();
                if let Some(entry) = wrong {
                    let what = format!(
                        "no batch begins epoch {} at offset {}",
                        entry.epoch, entry.start_offset
                    );
                    self.find(Severity::Note, &path, 0, what);
                }
            }
        }
        Ok(())
    }
}

async fn read_if_there(path: &Path) -> Result<Option<bytes::Bytes>, IoFailure> {
    match fs::read(path).await {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoFailure::of("read", path)(error)),
    }
}
