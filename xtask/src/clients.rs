//! The unmodified clients of the conformance runs: installing what is missing.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Failure, apt_install, root, run, succeeds, target_dir};

/// A client that `cargo xtask conformance` can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    /// Debian's kcat (librdkafka)
    Kcat,
    /// PyPI's confluent-kafka (librdkafka from its own wheel)
    Python,
}

impl Client {
    /// Every client, in the order of the table.
    pub(crate) const ALL: [Client; 2] = [Client::Kcat, Client::Python];

    /// The name on the command line and at the head of the column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Client::Kcat => "kcat",
            Client::Python => "python",
        }
    }

    /// The script under `tests/conformance` that puts the client through every feature.
    pub(crate) fn script(self) -> PathBuf {
        root().join(match self {
            Client::Kcat => "tests/conformance/kcat_client.py",
            Client::Python => "tests/conformance/python_client.py",
        })
    }

    /// Installs the client if it is missing.
    pub(crate) fn install(self) -> Result<(), Failure> {
        match self {
            Client::Kcat if succeeds("kcat", &["-V"]) => Ok(()),
            Client::Kcat => apt_install(&["kcat"]),
            // In the virtual environment that runs the scripts.
            Client::Python => Ok(()),
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
