//! Faults × clients on real nodes in network namespaces: builds what it takes, and runs `matrix`.

use std::path::Path;

use crate::clients::{harness_python, java_programs};
use crate::process::{Failure, cargo, root, run, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each fault meets each client
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Faults, instead of all: kill, shutdown, pause, isolation, mute, deaf, split, roll
    #[arg(long)]
    fault: Vec<String>,
    /// Clients, instead of all
    #[arg(long, value_enum)]
    client: Vec<Client>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Client {
    /// Ours
    Ringmill,
    /// confluent-kafka
    Librdkafka,
    /// Kafka's own
    Java,
}

impl Client {
    const ALL: [Self; 3] = [Self::Ringmill, Self::Librdkafka, Self::Java];

    /// Its name and the words of its command.
    fn command(self, release: &Path) -> Result<String, Failure> {
        Ok(match self {
            Self::Ringmill => format!("ringmill={}", release.join("load").display()),
            Self::Librdkafka => {
                let (python, script) = (harness_python()?, root().join("tests/matrix/load.py"));
                format!("librdkafka={},{}", python.display(), script.display())
            }
            Self::Java => format!("java=java,-cp,{},Load", java_programs()?),
        })
    }
}

/// Runs the cases that the arguments name.
pub(crate) fn matrix(args: &Args) -> Result<(), Failure> {
    for package in ["ringmill", "ringmill-tests"] {
        run(cargo().args(["build", "--release", "--bins", "-p", package]))?;
    }
    let release = target_dir().join("release");
    let mut command = std::process::Command::new(release.join("matrix"));
    command
        .arg("--binary")
        .arg(release.join("ringmill"))
        .args(["--rounds", &args.rounds.to_string()]);
    for fault in &args.fault {
        command.args(["--fault", fault]);
    }
    let clients = match args.client.is_empty() {
        true => Client::ALL.to_vec(),
        false => args.client.clone(),
    };
    for client in clients {
        command.arg("--client").arg(client.command(&release)?);
    }
    run(&mut command)
}
