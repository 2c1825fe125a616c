//! CPU time and memory of processes, from `/proc` (proc(5)), and how one is asked to stop.

use std::time::Duration;

use crate::Failure;

/// Clock ticks per second in `/proc/PID/stat`: 100 on every Linux architecture that matters here.
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// In user and system mode together.
    pub(crate) cpu: Duration,
    /// The most memory it ever had, in bytes.
    pub(crate) peak_memory: u64,
}

/// Of a process, or of this one.
pub(crate) fn usage(pid: Option<u32>) -> Result<Usage, Failure> {
    let name = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let read = |file: &str| {
        let path = format!("/proc/{name}/{file}");
        std::fs::read_to_string(&path).map_err(|error| Failure::new(format!("{path}: {error}")))
    };
    let parsed = parse(&read("stat")?, &read("status")?);
    parsed.ok_or_else(|| Failure::new(format!("/proc/{name}: not as proc(5) says")))
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // the second field is the program's name in parentheses, which may hold anything
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS),
        peak_memory: kilobytes * 1024,
    })
}

/// The memory that a process has now, in bytes, without pages of files.
pub(crate) fn resident(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let status =
        std::fs::read_to_string(&path).map_err(|error| Failure::new(format!("{path}: {error}")))?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    let kilobytes: u64 =
        kilobytes.ok_or_else(|| Failure::new(format!("{path}: not as proc(5) says")))?;
    Ok(kilobytes * 1024)
}

/// Bytes that a process has caused to be written to disks (`write_bytes` of proc_pid_io(5)).
pub(crate) fn written(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/io");
    let text =
        std::fs::read_to_string(&path).map_err(|error| Failure::new(format!("{path}: {error}")))?;
    let mut lines = text.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok());
    bytes.ok_or_else(|| Failure::new(format!("{path}: not as proc_pid_io(5) says")))
}

/// The processor time of all threads of a process that live, those of the kernel that work for it
/// among them, to the nanosecond (`schedstat`, proc(5)).
pub(crate) fn thread_time(pid: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{pid}/task");
    let failed = |error: std::io::Error| Failure::new(format!("{path}: {error}"));
    let mut nanos = 0;
    for task in std::fs::read_dir(&path).map_err(failed)? {
        let file = task.map_err(failed)?.path().join("schedstat");
        // One that has ended meanwhile does not count.
        let Ok(text) = std::fs::read_to_string(file) else {
            continue;
        };
        let first = text.split_whitespace().next();
        nanos += first
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Lets a process's most memory begin anew at what it has now (proc_pid_clear_refs(5)); where that is
/// not allowed, it goes on to be the most so far.
pub(crate) fn reset_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Lets the system write all that is to be written (sync(2)).
pub(crate) fn settle() {
    rustix::fs::sync();
}

/// Lets the system forget what it has read from disks (proc_sys_vm(5)), if that is allowed.
pub(crate) fn drop_caches() {
    settle();
    if std::fs::write("/proc/sys/vm/drop_caches", "1").is_err() {
        eprintln!("ringmill-bench: the page cache stays: only root may empty it");
    }
}

/// How many files a process has open.
pub(crate) fn open_files(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/fd");
    let files =
        std::fs::read_dir(&path).map_err(|error| Failure::new(format!("{path}: {error}")))?;
    Ok(files.count() as u64)
}

/// Bytes of all files below a folder. One that vanishes meanwhile does not count.
pub(crate) fn folder_size(path: &std::path::Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).map_err(Failure::new)? {
        let entry = entry.map_err(Failure::new)?;
        match entry.metadata() {
            Ok(found) if found.is_dir() => bytes += folder_size(&entry.path())?,
            Ok(found) => bytes += found.len(),
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// Asks a process to stop (SIGTERM).
pub(crate) fn terminate(child: &std::process::Child) -> Result<(), Failure> {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(Failure::new)
}

/// A folder of this process's own, not made yet.
pub(crate) fn temporary_folder() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("ringmill-bench-{}", std::process::id()))
}

/// Removes what a measure has left behind.
pub(crate) fn remove_folder(path: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        eprintln!("ringmill-bench: cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_strange_name_is_read() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1";
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n";
        let usage = parse(stat, status).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(2));
        assert_eq!(usage.peak_memory, 2 << 20);
        assert_eq!(parse("42 (x", status), None);
        assert_eq!(parse(stat, "VmHWM: 5"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(usage(None).unwrap().peak_memory > 0);
        assert!(thread_time(std::process::id()).unwrap() > Duration::ZERO);
        assert!(
            usage(Some(u32::MAX))
                .unwrap_err()
                .to_string()
                .contains("/proc/")
        );
    }
}
