//! Disks of their own for nodes: ext4 in a file, mounted by a loop device. They can be full, and they can
//! stop as a power cut stops them.
//!
//! What such a file system has handed to its device is there after a cut, flushed by the device or not:
//! the device is a file of this machine. So a cut shows whether a node asks for a flush before it promises
//! something, not whether the flush goes through to a device that forgets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::teller::wait_until;

const CUT: &str = include_str!("../../matrix/power_cut.py");
/// What takes up all room, on the disk itself.
const FILLER: &str = ".filler";
/// The filler is made of pieces, ever smaller ones.
const PIECES: [u64; 4] = [64 << 20, 1 << 20, 64 << 10, 4 << 10];
/// The kernel lets go of a killed process's files soon, not at once.
const UNMOUNTED_WITHIN: Duration = Duration::from_secs(20);

/// One of them.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

fn done(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let told = told.lines().last().unwrap_or_default();
    Err(io::Error::other(format!("{command:?}: {told}")))
}

impl Disk {
    /// Makes one of `bytes` and mounts it at `at`; it lies in a file beside.
    pub fn make(at: &Path, bytes: u64) -> io::Result<Self> {
        let disk = Self {
            image: at.with_extension("disk"),
            at: at.to_owned(),
        };
        std::fs::create_dir_all(at)?;
        std::fs::File::create(&disk.image)?.set_len(bytes)?;
        let mut format = Command::new("mkfs.ext4");
        done(format.args(["-q", "-F", "-m", "0"]).arg(&disk.image))?;
        disk.mount()?;
        std::fs::remove_dir(at.join("lost+found"))?;
        Ok(disk)
    }

    /// Mounts it; its journal is read if it did not end well.
    pub fn mount(&self) -> io::Result<()> {
        let mut mount = Command::new("mount");
        done(mount.args(["-o", "loop"]).arg(&self.image).arg(&self.at))
    }

    /// Unmounts it, when nobody uses it any more.
    pub fn unmount(&self) -> io::Result<()> {
        wait_until(UNMOUNTED_WITHIN, || {
            done(Command::new("umount").arg(&self.at)).map_err(|error| error.to_string())
        })
    }

    /// It stops, and forgets what was not flushed.
    pub fn cut_power(&self) -> io::Result<()> {
        done(Command::new("python3").args(["-c", CUT]).arg(&self.at))
    }

    /// Leaves no room on it.
    pub fn fill(&self) -> io::Result<()> {
        let filler = self.at.join(FILLER);
        let mut filled = 0;
        for piece in PIECES {
            let take = |from: u64| {
                let words = ["--offset".to_owned(), from.to_string()];
                let words = words.into_iter();
                let words = words.chain(["--length".to_owned(), piece.to_string()]);
                done(Command::new("fallocate").args(words).arg(&filler))
            };
            while take(filled).is_ok() {
                filled += piece;
            }
        }
        match filled {
            0 => Err(io::Error::other("there was no room to fill")),
            _ => Ok(()),
        }
    }

    /// Gives the room back.
    pub fn free(&self) -> io::Result<()> {
        std::fs::remove_file(self.at.join(FILLER))
    }
}
