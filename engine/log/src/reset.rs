//! A log begins anew at another offset: an intention that is written down, and then carried out by
//! whoever comes first, this process or the next start. The file `reset` holds it:
//!
//! ```text
//! 0
//! offset 4711
//! crc 1234abcd
//! ```

use std::path::Path;

use bytes::Bytes;
use ringmill_ring::fs;

use crate::append::FIRST_SHIFT;
use crate::candidate::new_active;
use crate::checkpoint::{Checkpoint, Mark, Replay, Replicated};
use crate::epochs::Epochs;
use crate::error::IoFailure;
use crate::meta;
use crate::names;

/// The first line.
const VERSION: &str = "0";

fn encode(offset: i64) -> Bytes {
    let text = format!("{VERSION}\noffset {offset}\n");
    let crc = crc32c::crc32c(text.as_bytes());
    Bytes::from(format!("{text}crc {crc:08x}\n"))
}

/// Nothing if it is not what was written.
fn parse(content: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(content).ok()?;
    let offset: i64 = text.lines().nth(1)?.strip_prefix("offset ")?.parse().ok()?;
    (offset >= 0 && encode(offset) == content).then_some(offset)
}

/// Decides that the log begins anew, durably.
pub(crate) async fn begin(dir: &Path, offset: i64) -> Result<(), IoFailure> {
    let path = dir.join(names::RESET);
    let written = fs::write_atomic(&path, vec![encode(offset)]).await;
    written.map_err(IoFailure::of("write", &path))
}

/// It could not be written down for sure: it is not to be.
pub(crate) async fn withdraw(dir: &Path) -> Result<(), IoFailure> {
    let path = dir.join(names::RESET);
    match fs::remove_file(&path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(IoFailure::of("remove", &path)(error))
        }
        _ => sync(dir).await,
    }
}

/// Carries out what a crash has interrupted.
pub(crate) async fn finish_interrupted(dir: &Path) -> Result<(), IoFailure> {
    let path = dir.join(names::RESET);
    let content = match fs::read(&path).await {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IoFailure::of("read", &path)(error)),
    };
    let Some(offset) = parse(&content) else {
        tracing::warn!(path = %path.display(), "it is not sound, and left alone");
        return Ok(());
    };
    tracing::info!(dir = %dir.display(), offset, "the log begins anew, as was decided before a crash");
    // the name that decided may be in the page cache alone
    sync(dir).await?;
    finish(dir, offset).await
}

async fn sync(dir: &Path) -> Result<(), IoFailure> {
    let synced = fs::sync_dir(dir).await;
    synced.map_err(IoFailure::of("flush", dir))
}

/// Removes what the folder holds of the log, and begins it at `offset`; may be interrupted anywhere
/// and done again. The intention goes last, durably, before anything can be appended.
pub(crate) async fn finish(dir: &Path, offset: i64) -> Result<(), IoFailure> {
    let entries = fs::read_dir(dir).await;
    for entry in entries.map_err(IoFailure::of("list", dir))? {
        let name = &entry.name;
        let of_log = names::parse(name).is_some()
            || names::parse_swap(name).is_some()
            || name.ends_with(names::CLEANED)
            || name == names::CLEANER;
        if of_log {
            let path = dir.join(name);
            let removed = fs::remove_file(&path).await;
            removed.map_err(IoFailure::of("remove", &path))?;
        }
    }
    sync(dir).await?;
    let path = dir.join(names::EPOCHS);
    let written = fs::write_atomic(&path, vec![Epochs::new().encode()]).await;
    written.map_err(IoFailure::of("write", &path))?;
    new_active(dir, offset, FIRST_SHIFT).await?;
    write_checkpoints(dir, offset).await?;
    let path = dir.join(names::RESET);
    let removed = fs::remove_file(&path).await;
    removed.map_err(IoFailure::of("remove", &path))?;
    sync(dir).await
}

/// Both slots: neither may tell of the log before.
async fn write_checkpoints(dir: &Path, offset: i64) -> Result<(), IoFailure> {
    let (file, content) = meta::open_checkpoint(dir).await?;
    let last = Checkpoint::parse(&content);
    let replicated = last.and_then(|last| last.replicated);
    let mut checkpoint = Checkpoint {
        sequence: last.map_or(0, |last| last.sequence),
        log_start_offset: offset,
        recovery_point: Mark::start_of(offset),
        replay: Replay {
            snapshot: None,
            position: 0,
            offset,
        },
        replicated: replicated.map(|_| Replicated {
            high_watermark: offset,
            first_undecided: None,
        }),
    };
    for _ in 0..2 {
        checkpoint.sequence += 1;
        let slot = vec![checkpoint.encode()];
        let written = file.write_at_sync(checkpoint.position(), slot).await;
        written.map_err(IoFailure::of("write", &dir.join(names::CHECKPOINT)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intention_is_read_as_it_was_written_and_else_not_at_all() {
        let content = encode(4_711);
        assert_eq!(parse(&content), Some(4_711));
        for end in 0..content.len() {
            assert_eq!(parse(&content[..end]), None);
            let mut changed = content.to_vec();
            changed[end] ^= 1;
            assert_eq!(parse(&changed), None, "byte {end}");
        }
    }
}
