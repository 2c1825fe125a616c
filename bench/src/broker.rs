//! The broker under measure: one that runs already, or one started for the occasion.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmill_client::local::{Client, ClientConfig};

use crate::Failure;
use crate::options::Target;
use crate::process::{Usage, remove_folder, temporary_folder, terminate, usage};

/// What the broker says when it accepts clients.
const READY: &str = "ready: kafka on ";

/// See the module. A broker that was started ends with this.
pub(crate) struct Broker {
    pub(crate) client: Client,
    pid: Option<u32>,
    before: Option<Usage>,
    started: Option<Started>,
}

/// A `ringmill serve` of this program's own; killed with this, unless it was stopped.
pub(crate) struct Started {
    child: Child,
    address: String,
    /// To be removed at the end.
    data: Option<PathBuf>,
}

impl Drop for Started {
    fn drop(&mut self) {
        // the data is thrown away or was flushed: there is nothing to stop cleanly for
        self.kill();
        if let Some(data) = &self.data {
            remove_folder(data);
        }
    }
}

impl Started {
    /// Starts one on a folder, and waits until it accepts clients.
    pub(crate) fn on(target: &Target, data: &Path) -> Result<Self, Failure> {
        start(target, data)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        terminate(&self.child)?;
        let status = self.child.wait().map_err(Failure::new)?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!("the broker stopped with {status}")))
        }
    }

    /// Kills it, if it still runs.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the broker used while it was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    pub(crate) peak_memory: u64,
}

impl Broker {
    /// Connects, after starting one if asked to.
    pub(crate) async fn reach(target: &Target) -> Result<Self, Failure> {
        let started = match (target.with_broker, &target.broker_data) {
            (false, _) => None,
            (true, Some(data)) => Some(start(target, data)?),
            (true, None) => {
                let fresh = temporary_folder();
                let mut started = start(target, &fresh)?;
                started.data = Some(fresh);
                Some(started)
            }
        };
        let address = started
            .as_ref()
            .map_or(&*target.bootstrap, |started| &started.address);
        let mut broker = Self::at(address).await?;
        let child = started.as_ref().map(|started| started.child.id());
        broker.pid = target.pid.or(child);
        broker.started = started;
        Ok(broker)
    }

    /// Connects to one that runs.
    pub(crate) async fn at(address: &str) -> Result<Self, Failure> {
        let config = ClientConfig {
            client_id: "ringmill-bench".to_owned(),
            ..ClientConfig::new([address.to_owned()])
        };
        let client = Client::connect(config).await.map_err(Failure::new)?;
        Ok(Self {
            client,
            pid: None,
            before: None,
            started: None,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self, target: &Target) -> String {
        let started = self.started.as_ref().map(|started| started.address.clone());
        started.unwrap_or_else(|| target.bootstrap.clone())
    }

    /// The measure begins.
    pub(crate) fn mark(&mut self) -> Result<(), Failure> {
        if self.pid.is_some() {
            self.before = Some(usage(self.pid)?);
        }
        Ok(())
    }

    /// What it has used since the mark, if its process is known.
    pub(crate) fn used(&self) -> Result<Option<Used>, Failure> {
        let Some(before) = self.before else {
            return Ok(None);
        };
        let after = usage(self.pid)?;
        Ok(Some(Used {
            cpu: after.cpu.saturating_sub(before.cpu),
            peak_memory: after.peak_memory,
        }))
    }
}

/// Measures on the folder that was named, or on one that is removed at the end.
pub(crate) async fn on_folder<T>(
    target: &Target,
    measure: impl AsyncFnOnce(&Path) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match &target.broker_data {
        Some(data) => measure(data).await,
        None => {
            let fresh = temporary_folder();
            let measured = measure(&fresh).await;
            remove_folder(&fresh);
            measured
        }
    }
}

fn start(target: &Target, data: &Path) -> Result<Started, Failure> {
    let program = match &target.broker_bin {
        Some(program) => program.clone(),
        None => beside_this_one()?,
    };
    let mut command = Command::new(&program);
    command.arg("serve").arg("--data").arg(data);
    command.args(["--listen", "127.0.0.1:0"]);
    if !target
        .broker_args
        .iter()
        .any(|arg| arg.starts_with("--cores"))
    {
        command.arg("--cores=1");
    }
    command.args(&target.broker_args);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let shown = program.display();
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {shown}: {error}")))?;
    let mut first = String::new();
    if let Some(stdout) = child.stdout.take() {
        // an end without a line is told below
        let _ = BufReader::new(stdout).read_line(&mut first);
    }
    let mut started = Started {
        child,
        address: String::new(),
        data: None,
    };
    match first.trim().strip_prefix(READY) {
        Some(address) => address.clone_into(&mut started.address),
        None => {
            return Err(Failure::new(format!(
                "{shown} serve did not come up: run it by itself to see why"
            )));
        }
    }
    Ok(started)
}

fn beside_this_one() -> Result<PathBuf, Failure> {
    let this = std::env::current_exe().map_err(Failure::new)?;
    let program = this.parent().unwrap_or(Path::new(".")).join("ringmill");
    if program.is_file() {
        return Ok(program);
    }
    let shown = program.display();
    Err(Failure::new(format!(
        "there is no {shown}: `cargo build --release -p ringmill`, or name one by --broker-bin"
    )))
}
