//! The broker under measure: one that runs already, or one started for the occasion.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmill_client::{Client, ClientConfig};

use crate::Failure;
use crate::options::Target;
use crate::process::{Usage, remove_folder, temporary_folder, usage};

/// What the broker says when it accepts clients.
const READY: &str = "ready: kafka on ";

/// See the module. A broker that was started ends with this.
pub(crate) struct Broker {
    pub(crate) client: Client,
    pid: Option<u32>,
    before: Option<Usage>,
    started: Option<Started>,
}

struct Started {
    child: Child,
    address: String,
    /// To be removed at the end.
    data: Option<PathBuf>,
}

impl Drop for Started {
    fn drop(&mut self) {
        // the data is thrown away or was flushed: there is nothing to stop cleanly for
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            remove_folder(data);
        }
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
        let started = match target.with_broker {
            true => Some(start(target)?),
            false => None,
        };
        let address = started
            .as_ref()
            .map_or(&target.bootstrap, |started| &started.address);
        let config = ClientConfig {
            client_id: "ringmill-bench".to_owned(),
            ..ClientConfig::new([address.clone()])
        };
        let client = Client::connect(config).await.map_err(Failure::new)?;
        Ok(Self {
            client,
            pid: target
                .pid
                .or(started.as_ref().map(|started| started.child.id())),
            before: None,
            started,
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

fn start(target: &Target) -> Result<Started, Failure> {
    let program = match &target.broker_bin {
        Some(program) => program.clone(),
        None => beside_this_one()?,
    };
    let fresh = temporary_folder();
    let data = target.broker_data.as_ref().unwrap_or(&fresh);
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
        data: target.broker_data.is_none().then(|| fresh.clone()),
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
