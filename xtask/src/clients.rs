//! The unmodified clients of the conformance runs: installing what is missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::{KAFKA_VERSION, kafka_tools};
use crate::process::{Failure, apt_install, cargo, root, run, succeeds, target_dir};

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
    /// A script of this folder, whose package has a part in C++ that is compiled here.
    NodeAddon(&'static str),
    /// A program of this folder, which is a workspace of its own and compiles librdkafka.
    Cargo(&'static str),
    /// A script of this folder, with the extension rdkafka.
    Php(&'static str),
    /// kcat on the librdkafka that confluent-kafka brings along.
    KcatOnTheirs,
}

/// The harness and confluent-kafka, which it makes topics with.
const PLAIN: &str = "requirements.txt";
/// The same, with the Python clients that have nothing of librdkafka.
const PURE: &str = "requirements-pure.txt";

/// Every client, in the order of the table.
pub(crate) const CLIENTS: [Client; 15] = [
    Client {
        name: "kcat",
        title: "Debian's kcat, on librdkafka (C)",
        script: "kcat_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Kcat,
        checked: true,
    },
    Client {
        name: "librdkafka",
        title: "Debian's kcat, on the librdkafka of PyPI's confluent-kafka (C)",
        script: "kcat_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::KcatOnTheirs,
        checked: false,
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
        toolchain: Toolchain::Go(
            "franz_go",
            "transactions,pipe,consumer protocol,static member",
        ),
        checked: false,
    },
    Client {
        name: "sarama",
        title: "Sarama (Go)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Go("sarama", "transactions,static member"),
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
    Client {
        name: "kafka-javascript",
        title: "Confluent's kafka-javascript, on librdkafka of its own (Node)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::NodeAddon("kafka_javascript"),
        checked: false,
    },
    Client {
        name: "php-rdkafka",
        title: "php-rdkafka, on Debian's librdkafka (PHP)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Php("php_rdkafka"),
        checked: false,
    },
    Client {
        name: "rdkafka",
        title: "The crate rdkafka, on librdkafka of its own (Rust)",
        script: "foreign_client.py",
        requirements: PLAIN,
        toolchain: Toolchain::Cargo("rdkafka"),
        checked: false,
    },
];

/// What a client's script is run with.
pub(crate) struct Ready {
    pub(crate) python: PathBuf,
    /// What was installed, as its own files tell.
    pub(crate) version: String,
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
            Toolchain::Kcat | Toolchain::KcatOnTheirs | Toolchain::Python => &[],
            Toolchain::Java => &["java", "mvn"],
            Toolchain::JavaProgram(_) => &["java", "javac", "mvn"],
            Toolchain::Go(..) => &["go"],
            Toolchain::Node(_) => &["node", "npm"],
            Toolchain::NodeAddon(_) => &["node", "npm", "g++", "make"],
            Toolchain::Cargo(_) => &["cc", "make"],
            Toolchain::Php(_) => &["php"],
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
        let python = python(self.requirements)?;
        let environment = match self.toolchain {
            Toolchain::Python => Vec::new(),
            Toolchain::Kcat => kcat()?,
            Toolchain::KcatOnTheirs => {
                kcat()?;
                vec![("LD_LIBRARY_PATH", their_librdkafka(&python)?.into())]
            }
            Toolchain::Java => {
                let (lib, log4j) = kafka_tools()?;
                vec![("KAFKA_LIB", lib.into()), ("KAFKA_LOG4J", log4j.into())]
            }
            Toolchain::JavaProgram(folder) => java_program(folder)?,
            Toolchain::Go(folder, features) => vec![
                ("FOREIGN", foreign(&[&build_go(folder)?])),
                ("FOREIGN_FEATURES", features.into()),
            ],
            Toolchain::Node(folder) => {
                let mut environment = node_script(folder, install_node(folder, &[])?);
                // the others are plug-ins that it does not come with
                environment.push(("FOREIGN_CODECS", "none,gzip".into()));
                environment.push(("FOREIGN_FEATURES", "transactions".into()));
                environment
            }
            Toolchain::NodeAddon(folder) => {
                // Without it the addon is built without zstd.
                if !Path::new("/usr/include/zstd.h").exists() {
                    apt_install(&["libzstd-dev"])?;
                }
                let mut environment = node_script(folder, install_node(folder, &ADDON)?);
                let features = "transactions,consumer protocol,static member";
                environment.push(("FOREIGN_FEATURES", features.into()));
                environment.push(("FOREIGN_EMPTY", "null".into()));
                environment
            }
            Toolchain::Cargo(folder) => vec![
                ("FOREIGN", foreign(&[&build_cargo(folder)?])),
                (
                    "FOREIGN_FEATURES",
                    "transactions,pipe,consumer protocol,static member".into(),
                ),
            ],
            Toolchain::Php(folder) => php_script(folder)?,
        };
        Ok(Ready {
            version: self.version(&python, &environment),
            python,
            environment,
        })
    }

    /// Which versions these are; what cannot be found out is left out.
    fn version(&self, python: &Path, environment: &[(&'static str, OsString)]) -> String {
        let file = |folder: &str, name: &str| {
            std::fs::read_to_string(conformance_dir().join(folder).join(name)).unwrap_or_default()
        };
        let mut ask = match self.toolchain {
            Toolchain::Java | Toolchain::JavaProgram(_) => return KAFKA_VERSION.to_owned(),
            Toolchain::Go(folder, _) => return pinned(&file(folder, "go.mod"), GO_MODULES),
            Toolchain::Node(folder) => return pinned(&file(folder, "package.json"), NODE_PACKAGES),
            Toolchain::NodeAddon(folder) => {
                let mut node = Command::new("node");
                let package = pinned(&file(folder, "package.json"), NODE_PACKAGES);
                let library = "require('@confluentinc/kafka-javascript').librdkafkaVersion";
                let words = format!("console.log('{package}, librdkafka', {library})");
                node.args(["-e", &words]);
                node
            }
            Toolchain::Cargo(folder) => {
                let lock = file(folder, "Cargo.lock");
                return pinned(&lock.replace("\"\nversion = ", " "), RUST_CRATES);
            }
            Toolchain::Kcat | Toolchain::KcatOnTheirs => {
                let mut kcat = Command::new("sh");
                let words = "kcat -V | sed -n 's/.*Version \\([0-9.]*\\).*librdkafka \\([0-9.]*\\).*/kcat \\1, librdkafka \\2/p'";
                kcat.args(["-c", words]);
                kcat
            }
            Toolchain::Python => {
                let mut asked = Command::new(python);
                asked.args(["-c", PYTHON_VERSIONS, self.name]);
                asked
            }
            Toolchain::Php(_) => {
                let mut php = Command::new("php");
                let enabled = succeeds("php", &["-r", PHP_HAS_IT]);
                php.args((!enabled).then_some("-dextension=rdkafka.so"));
                let words = "printf('rdkafka %s, librdkafka %s', phpversion('rdkafka'), vsprintf('%d.%d.%d', sscanf(sprintf('%08x', RD_KAFKA_VERSION), '%2x%2x%2x')));";
                php.args(["-r", words]);
                php
            }
        };
        ask.envs(environment.iter().map(|(name, value)| (name, value)));
        let told = ask.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&told).trim().to_owned()
    }
}

/// Names of packages, as files that pin versions have them.
const GO_MODULES: &[&str] = &["franz-go", "sarama"];
const NODE_PACKAGES: &[&str] = &["kafkajs\"", "kafka-javascript\""];
const RUST_CRATES: &[&str] = &["\"rdkafka", "\"rdkafka-sys"];

/// Prints a distribution's version, and that of the librdkafka in it.
const PYTHON_VERSIONS: &str = "
import importlib.metadata as m, sys
name = {'python': 'confluent-kafka', 'churn': 'confluent-kafka'}.get(sys.argv[1], sys.argv[1])
print(name, m.version(name), end='')
if name == 'confluent-kafka':
    import confluent_kafka
    print(', librdkafka', confluent_kafka.libversion()[0])
";

/// The versions that a file pins: of each line with one of these names, the word after the name.
fn pinned(text: &str, names: &[&str]) -> String {
    let clean = |word: &str| word.trim_matches(['"', ',', ':', '}', ' ', 'v']).to_owned();
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let named = |word: &str| {
            let word = word.trim_end_matches(':');
            names.iter().any(|name| word.ends_with(name))
        };
        for pair in words.windows(2).filter(|pair| named(pair[0])) {
            let version = clean(pair[1]);
            if version.starts_with(|c: char| c.is_ascii_digit()) {
                let name = clean(pair[0]);
                let name = name.rsplit('/').next().unwrap_or_default();
                found.push(format!("{name} {version}"));
            }
        }
    }
    found.join(", ")
}

/// Makes kcat be there. It needs nothing of its environment.
fn kcat() -> Result<Vec<(&'static str, OsString)>, Failure> {
    if !succeeds("kcat", &["-V"]) {
        apt_install(&["kcat"])?;
    }
    Ok(Vec::new())
}

/// A folder where the linker finds confluent-kafka's librdkafka under the name that kcat asks for.
fn their_librdkafka(python: &Path) -> Result<PathBuf, Failure> {
    let home = target_dir().join("conformance/librdkafka");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let venv = python
        .parent()
        .and_then(Path::parent)
        .map(|venv| venv.join("lib"));
    let venv = venv.ok_or_else(|| Failure("no virtual environment".into()))?;
    for version in std::fs::read_dir(venv)? {
        let libraries = version?.path().join("site-packages/confluent_kafka.libs");
        for library in std::fs::read_dir(&libraries)? {
            let library = std::path::absolute(library?.path())?;
            let name = library
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            std::os::unix::fs::symlink(&library, home.join(&name))?;
            if name.starts_with("librdkafka-") {
                std::os::unix::fs::symlink(&library, home.join("librdkafka.so.1"))?;
            }
        }
    }
    Ok(std::path::absolute(home)?)
}

/// Compiles the Java programs of a folder, to be run on Kafka's jars.
fn java_program(folder: &str) -> Result<Vec<(&'static str, OsString)>, Failure> {
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
    let features = "transactions,pipe,consumer protocol,static member,configs";
    Ok(vec![
        ("FOREIGN", foreign(&main)),
        ("FOREIGN_FEATURES", features.into()),
        ("JAVA", foreign(&java)),
    ])
}

/// Compile what would be downloaded, against this machine's Node and libraries.
const ADDON: [(&str, &str); 3] = [
    ("npm_config_build_from_source", "true"),
    ("npm_config_nodedir", "/usr"),
    ("CKJS_LINKING", "dynamic"),
];

fn node_script(folder: &str, packages: PathBuf) -> Vec<(&'static str, OsString)> {
    let script = conformance_dir().join(folder).join("main.js");
    vec![
        ("FOREIGN", foreign(&[Path::new("node"), &script])),
        ("NODE_PATH", packages.into()),
    ]
}

/// Builds a Rust program with the versions that its `Cargo.lock` pins. Returns it.
fn build_cargo(folder: &str) -> Result<PathBuf, Failure> {
    let target = target_dir().join("conformance").join(folder);
    let manifest = conformance_dir().join(folder).join("Cargo.toml");
    run(cargo()
        .args(["build", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target))?;
    Ok(target.join("debug").join(format!("{folder}-conformance")))
}

/// Exits 0 if the extension is enabled.
const PHP_HAS_IT: &str = "exit(extension_loaded('rdkafka') ? 0 : 1);";

/// A PHP script, with the extension that this PHP has, or that its own registry gives.
fn php_script(folder: &str) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let loaded = || succeeds("php", &["-r", PHP_HAS_IT]);
    let there = ["-dextension=rdkafka.so", "-r", PHP_HAS_IT];
    if !loaded() && !succeeds("php", &there) {
        run(Command::new("pecl").args(["install", "rdkafka"]))
            .map_err(|failure| Failure(format!("the extension rdkafka is not there: {failure}")))?;
    }
    let script = conformance_dir().join(folder).join("main.php");
    let (enabled, php) = (loaded(), Path::new("php"));
    let words: &[&Path] = match enabled {
        true => &[php, &script],
        false => &[php, Path::new("-dextension=rdkafka.so"), &script],
    };
    Ok(vec![
        ("FOREIGN", foreign(words)),
        (
            "FOREIGN_FEATURES",
            "transactions,no admin,static member".into(),
        ),
    ])
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
fn install_node(folder: &str, settings: &[(&str, &str)]) -> Result<PathBuf, Failure> {
    let home = target_dir().join("conformance").join(folder);
    std::fs::create_dir_all(&home)?;
    let package = conformance_dir().join(folder).join("package.json");
    std::fs::copy(package, home.join("package.json"))?;
    run(Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&home)
        .envs(settings.iter().copied()))?;
    Ok(home.join("node_modules"))
}

/// Where Java finds the programs of `tests/conformance/java`.
pub(crate) fn java_programs() -> Result<String, Failure> {
    let (lib, _) = kafka_tools()?;
    let classes = build_java("java", &lib)?;
    Ok(format!("{}/*:{}", lib.display(), classes.display()))
}

/// The Python of the harness itself.
pub(crate) fn harness_python() -> Result<PathBuf, Failure> {
    python(PLAIN)
}

/// The Python that runs scripts: a virtual environment under `target/` with the packages of a
/// file of requirements, made or brought up to date as needed.
pub(crate) fn python(requirements: &str) -> Result<PathBuf, Failure> {
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
