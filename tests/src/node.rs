//! A real node: `ringmill serve` as a child process, killed when dropped.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a node may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    addr: SocketAddr,
}

impl Node {
    /// Starts `binary serve --data DATA --listen 127.0.0.1:0` with further arguments and waits for
    /// the line that says it is ready. What it logs goes to `log` beside the data.
    pub fn start(binary: &Path, data: &Path, args: &[&str]) -> io::Result<Self> {
        Self::start_at(binary, data, "127.0.0.1:0", args)
    }

    /// As [`Node::start`], at a given address.
    pub fn start_at(binary: &Path, data: &Path, listen: &str, args: &[&str]) -> io::Result<Self> {
        Self::start_by(Command::new(binary), data, listen, args)
    }

    /// As [`Node::start_at`], by a command that runs the binary, and runs it as the process that is
    /// spawned.
    pub fn start_by(
        mut command: Command,
        data: &Path,
        listen: &str,
        args: &[&str],
    ) -> io::Result<Self> {
        let mut log_path: PathBuf = data.to_owned();
        log_path.set_extension("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log_path)?;
        let mut child = command
            .args(["serve", "--listen", listen, "--data"])
            .arg(data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = child.stdout.take().expect("piped");
        let (tell, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(addr) = line.strip_prefix("ready: kafka on ") {
                    let _ = tell.send(addr.trim().parse::<SocketAddr>());
                }
            }
        });
        match ready.recv_timeout(READY_WITHIN) {
            Ok(Ok(addr)) => Ok(Self { child, addr }),
            Ok(Err(e)) => {
                let _ = child.kill();
                Err(io::Error::new(io::ErrorKind::InvalidData, e))
            }
            Err(_) => {
                let _ = child.kill();
                let status = child.wait()?;
                let told = std::fs::read_to_string(&log_path).unwrap_or_default();
                let last = told.lines().last().unwrap_or("and logged nothing");
                Err(io::Error::other(format!(
                    "the node was not ready: {status}, {last}"
                )))
            }
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and the wait for the end.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGTERM, and the wait for a clean end: an error if the exit code is not 0.
    pub fn stop(mut self) -> io::Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status()?;
        let status = self.child.wait()?;
        if sent.success() && status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("the node ended with {status}")))
    }

    /// The node's end, if it came by itself.
    pub fn exited(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Resident memory in bytes: now, and at its peak (`/proc/PID/status`).
    pub fn memory(&self) -> io::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
        };
        field("VmRSS:")
            .zip(field("VmHWM:"))
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
