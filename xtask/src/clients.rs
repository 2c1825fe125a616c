//! The unmodified clients of the conformance runs: installing what is missing.

use std::path::PathBuf;
use std::process::Command;

use crate::peer::kafka_tools;
use crate::process::{Failure, apt_install, root, run, succeeds, target_dir};

/// A client that `cargo xtask conformance` can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    /// Debian's kcat (librdkafka)
    Kcat,
    /// PyPI's confluent-kafka (librdkafka from its own wheel)
    Python,
    /// Apache Kafka's own command-line tools, from Maven Central; needs `java` (17) and `mvn`
    KafkaTools,
}

impl Client {
    /// Every client, in the order of the table.
    pub(crate) const ALL: [Client; 3] = [Client::Kcat, Client::Python, Client::KafkaTools];
    /// Those that the continuous check runs.
    pub(crate) const CHECKED: [Client; 2] = [Client::Kcat, Client::Python];

    /// The name on the command line and at the head of the column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Client::Kcat => "kcat",
            Client::Python => "python",
            Client::KafkaTools => "kafka-tools",
        }
    }

    /// The script under `tests/conformance` that puts the client through every feature.
    pub(crate) fn script(self) -> PathBuf {
        root().join(match self {
            Client::Kcat => "tests/conformance/kcat_client.py",
            Client::Python => "tests/conformance/python_client.py",
            Client::KafkaTools => "tests/conformance/kafka_tools.py",
        })
    }

    /// Installs the client if it is missing.
    pub(crate) fn install(self) -> Result<(), Failure> {
        match self {
            Client::Kcat if succeeds("kcat", &["-V"]) => Ok(()),
            Client::Kcat => apt_install(&["kcat"]),
            // In the virtual environment that runs the scripts.
            Client::Python => Ok(()),
            Client::KafkaTools => kafka_tools().map(drop),
        }
    }

    /// What the script is told through its environment.
    pub(crate) fn environment(self) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
        match self {
            Client::Kcat | Client::Python => Ok(Vec::new()),
            Client::KafkaTools => {
                let (lib, log4j) = kafka_tools()?;
                Ok(vec![("KAFKA_LIB", lib), ("KAFKA_LOG4J", log4j)])
            }
        }
    }
}

/// The Python that runs the scripts: a virtual environment under `target/` with the packages of
/// `tests/conformance/requirements.txt`, made or brought up to date as needed.
pub(crate) fn python() -> Result<PathBuf, Failure> {
    let venv = target_dir().join("conformance/venv");
    let python = venv.join("bin/python");
    let requirements = root().join("tests/conformance/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let stamp = venv.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted)
        && succeeds(&python, &["--version"])
    {
        return Ok(python);
    }
    let create = || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv))
    };
    if create().is_err() {
        // Debian keeps venv's installer in a package of its own.
        apt_install(&["python3", "python3-venv"])?;
        create()?;
    }
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .arg("--requirement")
        .arg(&requirements))?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}
