//! NATS JetStream to compare with, built from its own modules under `target/peers/`, and its command line
//! program, which brings its load.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Failure, run, shown, succeeds, target_dir};

pub(crate) const SERVER_VERSION: &str = "v2.15.2";
pub(crate) const PROGRAM_VERSION: &str = "v0.5.0";

/// How long a start may take.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// Where both are installed.
fn home() -> PathBuf {
    target_dir().join(format!("peers/nats-{SERVER_VERSION}"))
}

/// Builds server and program, unless they are there; gives the program.
pub(crate) fn install() -> Result<PathBuf, Failure> {
    if !succeeds("go", &["version"]) {
        return Err(Failure("`go` is missing: apt-get install golang".into()));
    }
    let bin = home().join("bin");
    for (name, module) in [
        (
            "nats-server",
            format!("github.com/nats-io/nats-server/v2@{SERVER_VERSION}"),
        ),
        (
            "nats",
            format!("github.com/nats-io/natscli/nats@{PROGRAM_VERSION}"),
        ),
    ] {
        if !bin.join(name).exists() {
            run(Command::new("go")
                .env("GOBIN", &bin)
                .args(["install", &module]))?;
        }
    }
    Ok(bin.join("nats"))
}

/// A server for the length of a chore; killed when dropped.
pub(crate) struct RunningNats {
    child: Child,
    pub(crate) address: String,
}

impl RunningNats {
    /// Starts one on an empty folder. `sync` is its `sync_interval`: how long what it has acknowledged may
    /// wait for the disk, "always" for not at all; its own default (two minutes) if not given.
    pub(crate) fn start(name: &str, sync: Option<&str>) -> Result<Self, Failure> {
        install()?;
        let home = home();
        let data = home.join(name);
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let config = home.join(format!("{name}.conf"));
        std::fs::write(&config, settings(address.port(), &data, sync))?;
        let log = home.join(format!("{name}.log"));
        let mut command = Command::new(home.join("bin/nats-server"));
        command.arg("-c").arg(&config);
        println!("$ {} 2>{}", shown(&command), log.display());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let running = Self {
            child,
            address: address.to_string(),
        };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > STARTS_WITHIN {
                return Err(Failure(format!("nats-server does not listen on {address}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for RunningNats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(port: u16, data: &Path, sync: Option<&str>) -> String {
    let sync = sync.map_or_else(String::new, |sync| format!("  sync_interval: {sync}\n"));
    format!(
        "host: 127.0.0.1\nport: {port}\njetstream {{\n  store_dir: \"{}\"\n{sync}}}\n",
        data.display()
    )
}
