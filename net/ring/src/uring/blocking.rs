//! What the ring has no operation for: done at once, on the core's own time.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::Uring;
use super::flight::raw;
use crate::op::{DirEntry, Op, Space};

impl Uring {
    /// Runs an operation that this ring cannot, or hands it back.
    pub(super) fn run_blocking(&self, op: Op) -> Result<(io::Result<usize>, Op), Op> {
        match op {
            // getdents has no opcode; folders are read when a partition opens, not on the way.
            Op::ReadDir { path, .. } => {
                let (result, out) = read_dir(&path);
                Ok((result, Op::ReadDir { path, out }))
            }
            Op::StatFs { path, .. } => {
                let (result, out) = match stat_fs(&path) {
                    Ok(space) => (Ok(0), Some(space)),
                    Err(error) => (Err(error), None),
                };
                Ok((result, Op::StatFs { path, out }))
            }
            Op::SetLen { fd, len } if !self.features.ftruncate => {
                let result = truncate(raw(&fd).0, len);
                Ok((result.map(|()| 0), Op::SetLen { fd, len }))
            }
            op => Err(op),
        }
    }
}

fn truncate(fd: i32, len: u64) -> io::Result<()> {
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes no memory, and the descriptor is open: the operation owns a share of it.
    if unsafe { libc::ftruncate(fd, len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn stat_fs(path: &std::path::Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeros are a value of this plain structure.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both point to what lives until the call ends; the path ends with a zero.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Space {
        total: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

fn read_dir(path: &std::path::Path) -> (io::Result<usize>, Vec<DirEntry>) {
    let list = || -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Removed while we read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let len = if meta.is_dir() { 0 } else { meta.len() };
            entries.push(DirEntry {
                name,
                is_dir: meta.is_dir(),
                len,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    };
    match list() {
        Ok(entries) => (Ok(entries.len()), entries),
        Err(e) => (Err(e), Vec::new()),
    }
}
