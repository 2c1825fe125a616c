//! A `ringmill serve` for the length of a chore: started on a free port with
//! an empty data folder, watched until it accepts clients, stopped by SIGTERM.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Failure, cargo, run, shown, target_dir};

/// How long a start on an empty folder may take.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a clean stop may take.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// How the broker is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Build {
    /// As it ships.
    Release,
    /// Sooner built, slower, with every check of its arithmetic.
    Debug,
}

/// Builds the binary; gives its path.
fn built(build: Build) -> Result<PathBuf, Failure> {
    let mut cargo = cargo();
    cargo.args(["build", "-p", "ringmill"]);
    let program = match build {
        Build::Release => {
            cargo.arg("--release");
            "release/ringmill"
        }
        Build::Debug => "debug/ringmill",
    };
    run(&mut cargo)?;
    Ok(target_dir().join(program))
}

/// A running broker; killed if dropped without [`Broker::stop`].
pub(crate) struct Broker {
    child: Child,
    /// What it runs.
    pub(crate) program: PathBuf,
    /// Where its clients connect, as its `ready:` line said.
    pub(crate) bootstrap: String,
    /// What it wrote to stderr.
    pub(crate) log: PathBuf,
    /// Its data folder.
    pub(crate) data: PathBuf,
}

impl Broker {
    /// Builds the binary and starts it below `scratch`, whose data folder is emptied, with further
    /// arguments.
    pub(crate) fn start(scratch: &Path, build: Build, more: &[&str]) -> Result<Broker, Failure> {
        let program = built(build)?;
        Broker::launch(Command::new(program), scratch, more)
    }

    /// Builds the binary and starts several nodes of one cluster, each below a folder of its own.
    pub(crate) fn nodes(
        scratch: &Path,
        build: Build,
        count: usize,
        more: &[&str],
    ) -> Result<Vec<Broker>, Failure> {
        let program = built(build)?;
        let mut nodes: Vec<Broker> = Vec::new();
        for id in 1..=count {
            let id = id.to_string();
            let mut more = more.to_vec();
            more.extend(["--node-id", &id]);
            if let Some(first) = nodes.first() {
                more.extend(["--join", &first.bootstrap]);
            }
            let folder = scratch.join(format!("node-{id}"));
            let node = Broker::launch(Command::new(&program), &folder, &more)?;
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    fn launch(mut command: Command, scratch: &Path, more: &[&str]) -> Result<Broker, Failure> {
        let data = scratch.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        std::fs::create_dir_all(&data)?;
        let log = scratch.join("broker.log");
        command
            .arg("serve")
            .arg("--data")
            .arg(&data)
            .args(["--listen", &format!("127.0.0.1:{}", free_port()?)])
            // compaction is to be seen within a chore
            .args(["--log-cleaner-backoff-ms", "500"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        println!("$ {} 2>{}", shown(&command), log.display());
        let mut child = command
            .spawn()
            .map_err(|error| Failure(format!("cannot start ringmill: {error}")))?;
        let ready = follow(child.stdout.take().expect("stdout is piped"));
        let mut broker = Broker {
            child,
            program: command.get_program().into(),
            bootstrap: String::new(),
            log,
            data,
        };
        match ready.recv_timeout(READY_WITHIN) {
            Ok(address) => broker.bootstrap = address,
            Err(_) => {
                return Err(Failure(format!(
                    "ringmill serve did not print `ready: kafka on …`; {}",
                    broker.last_words()
                )));
            }
        }
        Ok(broker)
    }

    /// Whether the process still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log, for a failure's message.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(20)..];
        format!("{} ends with:\n{}", self.log.display(), tail.join("\n"))
    }

    /// Stops it by SIGTERM; a clean stop exits 0 in time, and its data is removed.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            let words = self.last_words();
            return Err(Failure(format!("the broker had ended: {status}; {words}")));
        }
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let asked = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => break,
                Some(status) => {
                    let words = self.last_words();
                    return Err(Failure(format!("SIGTERM ended it with {status}; {words}")));
                }
                None if asked.elapsed() > STOPPED_WITHIN => {
                    let words = self.last_words();
                    return Err(Failure(format!(
                        "the broker still ran {STOPPED_WITHIN:?} after SIGTERM; {words}"
                    )));
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
        println!("(stopped in {} ms)", asked.elapsed().as_millis());
        std::fs::remove_dir_all(&self.data)?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already ended after `stop`; both calls then fail, which is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the broker's stdout to its end, so that it never blocks on a full pipe, and hands on the
/// address of the `ready:` line.
fn follow(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("  ringmill: {line}");
            if let Some(address) = ready_address(&line) {
                // The receiver is gone once the broker is ready or given up.
                let _ = sender.send(address.to_owned());
            }
        }
    });
    receiver
}

/// The address in `ready: kafka on ADDR:PORT`.
fn ready_address(line: &str) -> Option<&str> {
    line.strip_prefix("ready: kafka on ").map(str::trim)
}

/// A port nobody listens on now.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_promised_line_counts_as_ready() {
        assert_eq!(
            ready_address("ready: kafka on 127.0.0.1:9092"),
            Some("127.0.0.1:9092")
        );
        assert_eq!(ready_address("kafka on 127.0.0.1:9092"), None);
    }

    /// A shell script in the binary's place, below a scratch folder of its own.
    fn launch(name: &str, script: &str) -> Result<Broker, Failure> {
        let scratch = target_dir().join("xtask-test").join(name);
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        Broker::launch(shell, &scratch, &[])
    }

    const READY: &str = "echo 'ready: kafka on 127.0.0.1:1'";

    #[test]
    fn a_broker_that_keeps_its_promises_starts_and_stops() {
        let script = format!("trap 'exit 0' TERM; {READY}; while :; do sleep 0.05; done");
        let mut broker = launch("good", &script).unwrap();
        assert_eq!(broker.bootstrap, "127.0.0.1:1");
        assert!(broker.alive());
        broker.stop().unwrap();
    }

    #[test]
    fn a_broker_that_ends_before_it_is_ready_fails_with_its_last_words() {
        let failure = launch("unready", "echo 'no ring here' >&2; exit 1").err();
        let message = failure.expect("not started").0;
        assert!(message.contains("no ring here"), "{message}");
    }

    #[test]
    fn a_broker_that_dies_or_stops_uncleanly_fails_the_run() {
        let mut died = launch("died", READY).unwrap();
        while died.alive() {
            thread::yield_now();
        }
        assert!(died.stop().is_err());
        let script = format!("trap 'exit 3' TERM; {READY}; while :; do sleep 0.05; done");
        let failure = launch("unclean", &script).unwrap().stop().unwrap_err();
        assert!(failure.0.contains("exit status: 3"), "{failure}");
    }
}
