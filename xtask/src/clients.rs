//! The unmodified clients of the conformance runs: installing what is missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::kafka_tools;
use crate::process::{Failure, apt_install, root, run, succeeds, target_dir};

/// A client that `cargo xtask conformance` can run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// On the command line and at the head of the column.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) title: &'static str,
    /// Below `tests/conformance`: puts the client through every feature.
    script: &'static str,
    /// Below `tests/conformance`: what the script's Python needs.
    requirements: &'static str,
    toolchain: Toolchain,
    /// The continuous check runs it.
    pub(crate) checked: bool,
}

/// What a client is written in; where it is missing, the client is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    Kcat,
    Python,
    Java,
    /// Programs of this folder below `tests/conformance`, on Kafka's jars.
    JavaProgram(&'static str),
    /// A program of this folder, and what it does beyond the rest.
    Go(&'static str, &'static str),
    /// A script of this folder.
    Node(&'static str),
}

/// The harness and confluent-kafka, which it makes topics with.
const PLAIN: &str = "requirements.txt";
/// The same, with the Python clients that have nothing of librdkafka.
const PURE: &str = "requirements-pure.txt";

/// Every client, in the order of the table.
pub(crate) const CLIENTS: [Client; 11] = [
    Client {
        name: "kcat",
        title: "Debian's kcat, on librdkafka (C)",
        script: "kcat_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Kcat,
        checked: true,
    },
    Client {
        name: "python",
        title: "PyPI's confluent-kafka, on librdkafka of its own (Python)",
        script: "python_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Python,
        checked: true,
    },
    Client {
        name: "churn",
        title: "Fifty consumers that come and go, on confluent-kafka (Python)",
        script: "churn.py",
        requirements: PLAIN,
        toolchain: Toolchain::Python,
        checked: false,
    },
    Client {
        name: "kafka-python",
        title: "PyPI's kafka-python (Python)",
        script: "kafka_python_client.py",
        requirements: PURE,
        toolchain: Toolchain::Python,
        checked: false,
    },
    Client {
        name: "aiokafka",
        title: "PyPI's aiokafka (Python, asyncio)",
        script: "aiokafka_client.py",
        requirements: PURE,
        toolchain: Toolchain::Python,
        checked: false,
    },
    Client {
        name: "kafka-tools",
        title: "Apache Kafka's own command-line tools (Java)",
        script: "kafka_tools.py",
        requirements: PLAIN,
        toolchain: Toolchain::Java,
        checked: false,
    },
    Client {
        name: "java",
        title: "Apache Kafka's kafka-clients (Java)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::JavaProgram("java"),
        checked: false,
    },
    Client {
        name: "kafka-streams",
        title: "Apache Kafka's Streams (Java)",
        script: "kafka_streams.py",
        requirements: PLAIN,
        toolchain: Toolchain::JavaProgram("java"),
        checked: false,
    },
    Client {
        name: "franz-go",
        title: "franz-go (Go)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Go("franz_go", "transactions,pipe"),
        checked: false,
    },
    Client {
        name: "sarama",
        title: "Sarama (Go)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Go("sarama", "transactions"),
        checked: false,
    },
    Client {
        name: "kafkajs",
        title: "KafkaJS (Node)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Node("kafkajs"),
        checked: false,
    },
];

/// What a client's script is run with.
pub(crate) struct Ready {
    pub(crate) python: PathBuf,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Client {
    /// Whether it is a load of its own, and not one of the clients that a run of all compares.
    pub(crate) fn is_load(&self) -> bool {
        self.name == "churn"
    }

    /// The script that puts the client through every feature.
    pub(crate) fn script(&self) -> PathBuf {
        conformance_dir().join(self.script)
    }

    /// What is missing on this machine to run it.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let programs: &[&'static str] = match self.toolchain {
            Toolchain::Kcat | Toolchain::Python => &[],
            Toolchain::Java => &["java", "mvn"],
            Toolchain::JavaProgram(_) => &["java", "javac", "mvn"],
            Toolchain::Go(..) => &["go"],
            Toolchain::Node(_) => &["node", "npm"],
        };
        let found = |program: &str| {
            let ask = if program == "go" {
                "version"
            } else {
                "--version"
            };
            succeeds(program, &[ask])
        };
        programs.iter().copied().find(|program| !found(program))
    }

    /// Installs the client if it is not there.
    pub(crate) fn install(&self) -> Result<Ready, Failure> {
        let environment = match self.toolchain {
            Toolchain::Python => Vec::new(),
            Toolchain::Kcat => {
                if !succeeds("kcat", &["-V"]) {
                    apt_install(&["kcat"])?;
                }
                Vec::new()
            }
            Toolchain::Java => {
                let (lib, log4j) = kafka_tools()?;
                vec![("KAFKA_LIB", lib.into()), ("KAFKA_LOG4J", log4j.into())]
            }
            Toolchain::JavaProgram(folder) => {
                let (lib, _) = kafka_tools()?;
                let classes = build_java(folder, &lib)?;
                let path = format!("{}:{}/*", classes.display(), lib.display());
                // standard output is for answers
                let silent = classes.join("silent.properties");
                std::fs::write(&silent, "rootLogger.level = OFF\n")?;
                let logging = format!("-Dlog4j2.configurationFile={}", silent.display());
                let java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"];
                let java = java.map(Path::new).into_iter();
                let java: Vec<_> = java
                    .chain([Path::new(&path), Path::new(&logging)])
                    .collect();
                let main = [java.clone(), vec![Path::new("Main")]].concat();
                vec![
                    ("FOREIGN", foreign(&main)),
                    (
                        "FOREIGN_FEATURES",
                        "transactions,pipe,consumer protocol".into(),
                    ),
                    ("JAVA", foreign(&java)),
                ]
            }
            Toolchain::Go(folder, features) => vec![
                ("FOREIGN", foreign(&[&build_go(folder)?])),
                ("FOREIGN_FEATURES", features.into()),
            ],
            Toolchain::Node(folder) => {
                let script = conformance_dir().join(folder).join("main.js");
                vec![
                    ("FOREIGN", foreign(&[Path::new("node"), &script])),
                    // the others are plug-ins that it does not come with
                    ("FOREIGN_CODECS", "none,gzip".into()),
                    ("FOREIGN_FEATURES", "transactions".into()),
                    ("NODE_PATH", install_node(folder)?.into()),
                ]
            }
        };
        Ok(Ready {
            python: python(self.requirements)?,
            environment,
        })
    }
}

fn conformance_dir() -> PathBuf {
    root().join("tests/conformance")
}

/// A program and its arguments as foreign_client.py takes them.
fn foreign(words: &[&Path]) -> OsString {
    let quoted = words
        .iter()
        .map(|word| format!("{:?}", word.display().to_string()));
    format!("[{}]", quoted.collect::<Vec<_>>().join(", ")).into()
}

/// Compiles the Java programs of a folder. Returns the folder of their classes.
fn build_java(folder: &str, lib: &Path) -> Result<PathBuf, Failure> {
    let classes = target_dir().join("conformance").join(folder);
    let sources = std::fs::read_dir(conformance_dir().join(folder))?;
    let mut sources: Vec<_> = sources
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, Failure>>()?;
    sources.sort();
    run(Command::new("javac")
        .arg("-cp")
        .arg(lib.join("*"))
        .arg("-d")
        .arg(&classes)
        .args(sources))?;
    Ok(classes)
}

/// Builds a Go program, with the versions that its `go.sum` pins. Returns it.
fn build_go(folder: &str) -> Result<PathBuf, Failure> {
    let program = target_dir()
        .join("conformance")
        .join(folder)
        .join("program");
    run(Command::new("go")
        .arg("-C")
        .arg(conformance_dir().join(folder))
        .args(["build", "-o"])
        .arg(&program)
        .arg("."))?;
    Ok(program)
}

/// Installs what a Node script requires. Returns the folder of its packages.
fn install_node(folder: &str) -> Result<PathBuf, Failure> {
    let home = target_dir().join("conformance").join(folder);
    std::fs::create_dir_all(&home)?;
    let package = conformance_dir().join(folder).join("package.json");
    std::fs::copy(package, home.join("package.json"))?;
    run(Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&home))?;
    Ok(home.join("node_modules"))
}

/// The Python of the harness itself.
pub(crate) fn harness_python() -> Result<PathBuf, Failure> {
    python(PLAIN)
}

/// The Python that runs scripts: a virtual environment under `target/` with the packages of a
/// file of requirements, made or brought up to date as needed.
fn python(requirements: &str) -> Result<PathBuf, Failure> {
    let name = requirements
        .trim_end_matches(".txt")
        .replace("requirements", "venv");
    let venv = target_dir().join("conformance").join(name);
    let python = venv.join("bin/python");
    let requirements = conformance_dir().join(requirements);
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
