//! A node's wall clock, set by libfaketime: what the program asks of the system's library, as all of a
//! node does. A time namespace of the kernel's has no wall clock of its own. The clock that never goes
//! back is left alone: it is the kernel's, and rings wait by it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's `libfaketime` has it, below the folder of an architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// One of them.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// One that is right; the file says how far it is off.
    pub fn new(offset: &Path) -> io::Result<Self> {
        let mut folders = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok);
        let library = folders.find_map(|folder| {
            let library = folder.path().join(LIBRARY);
            library.exists().then_some(library)
        });
        let missing =
            || io::Error::other("libfaketime is missing: install the package of this name");
        let clock = Self {
            library: library.ok_or_else(missing)?,
            offset: offset.to_owned(),
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// Has a program go by it.
    pub fn wear(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }

    /// It jumps: so many seconds ahead, or back, of the machine's.
    pub fn set(&self, seconds: i64) -> io::Result<()> {
        let new = self.offset.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}"))?;
        std::fs::rename(new, &self.offset)
    }
}
