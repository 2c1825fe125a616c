//! `ringmill serve`: the engine in the foreground, until a signal.

use std::io::{IsTerminal, Write};

use ringmill_engine::{Stopper, serve};
use ringmill_ring::RingConfig;
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::settings::ServeArgs;
use crate::{Failure, signals};

pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut config = args.config()?;
    config.boot_id = boot_id();
    log_to_stderr();
    raise_open_files();
    let stopper = Stopper::new();
    let stop = stopper.clone();
    signals::on_stop(move || stop.stop()).map_err(Failure::new)?;
    let ring = RingConfig {
        spin: config.core_spin,
        ..RingConfig::default()
    };
    serve(config, ring, stopper, |addr| {
        println!("ready: kafka on {addr}");
        // A pipe that nobody reads any more is no reason to stop.
        let _ = std::io::stdout().flush();
    })
    .map_err(Failure::new)
}

/// What is logged unless `RUST_LOG` says otherwise: of the quorum's library, what goes wrong.
const LOGGED: &str = "info,openraft=warn";

/// Which boot of this machine it is (random(4)); none if the kernel does not say.
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Logs go to stderr, as `RUST_LOG` says, `info` if it says nothing.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let colours = std::io::stderr().is_terminal();
    // A second call, in a test, keeps the first one's.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
}

/// As many open files as this user may have: every connection and every segment is one.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
