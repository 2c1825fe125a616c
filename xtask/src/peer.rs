//! Other systems to compare with, installed from their own registry under `target/peers/` and
//! started on this machine.

use std::fmt::Write;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Subcommand;

use crate::process::{Failure, run, shown, succeeds, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    system: System,
}

#[derive(Subcommand)]
enum System {
    /// Apache Kafka, one node (KRaft), from Maven Central; needs `java` (17) and `mvn`
    Kafka(Kafka),
}

#[derive(clap::Args)]
struct Kafka {
    /// Port of the client listener on 127.0.0.1; the controller takes the next one
    #[arg(long, default_value_t = 19092)]
    port: u16,
    /// Where it keeps its data; emptied at start unless --keep
    #[arg(long)]
    data: Option<PathBuf>,
    /// Keep and reuse the data of the last run
    #[arg(long)]
    keep: bool,
    /// Release to run
    #[arg(long, default_value = KAFKA_VERSION)]
    version: String,
    /// A further `key=value` of server.properties; may be repeated
    #[arg(long = "set")]
    settings: Vec<String>,
    /// Heap of the Java machine
    #[arg(long, default_value = "1g")]
    heap: String,
    /// Install and format, but do not start
    #[arg(long)]
    install_only: bool,
}

/// Installs and starts what the arguments name; returns only on failure or after an install.
pub(crate) fn peer(args: &Args) -> Result<(), Failure> {
    match &args.system {
        System::Kafka(kafka) => start_kafka(kafka),
    }
}

/// How long a start may take.
const KAFKA_STARTS_WITHIN: Duration = Duration::from_secs(90);

/// The release whose broker and tools are compared with.
pub(crate) const KAFKA_VERSION: &str = "4.3.1";

/// Where a release is installed: jars in `lib`, the logging's configuration beside it.
fn kafka_home(version: &str) -> PathBuf {
    target_dir().join(format!("peers/kafka-{version}"))
}

/// Installs Kafka's clients and command-line tools. Returns the folder of their jars and the file of their
/// logging's configuration.
pub(crate) fn kafka_tools() -> Result<(PathBuf, PathBuf), Failure> {
    let home = kafka_home(KAFKA_VERSION);
    install_kafka(&home, KAFKA_VERSION)?;
    Ok((home.join("lib"), home.join("log4j2.properties")))
}

fn start_kafka(args: &Kafka) -> Result<(), Failure> {
    let mut server = kafka_server(args, &[args.port])?;
    if args.install_only {
        return Ok(());
    }
    println!("$ {}", shown(&server));
    println!("kafka {} on 127.0.0.1:{}", args.version, args.port);
    // Replaces this process, so that signals and Ctrl-C reach the server itself.
    Err(server.exec().into())
}

/// An Apache Kafka for the length of a chore; killed when dropped.
pub(crate) struct RunningKafka {
    nodes: Vec<Child>,
    /// Its first node.
    pub(crate) bootstrap: String,
}

impl RunningKafka {
    /// Starts one with an empty folder of the chore's name and further settings, and waits until it
    /// listens.
    pub(crate) fn start(chore: &str, settings: &[&str]) -> Result<Self, Failure> {
        Self::nodes(chore, settings, 1)
    }

    /// The same of several nodes.
    pub(crate) fn nodes(chore: &str, settings: &[&str], count: usize) -> Result<Self, Failure> {
        let ports: Result<Vec<u16>, Failure> = (0..count).map(|_| two_free_ports()).collect();
        let ports = ports?;
        let mut running = RunningKafka {
            nodes: Vec::new(),
            bootstrap: format!("127.0.0.1:{}", ports[0]),
        };
        for (at, port) in ports.iter().enumerate() {
            let name = match count {
                1 => chore.to_owned(),
                _ => format!("{chore}-{}", at + 1),
            };
            let args = Kafka {
                port: *port,
                data: Some(kafka_home(KAFKA_VERSION).join(&name)),
                keep: false,
                version: KAFKA_VERSION.to_owned(),
                settings: settings
                    .iter()
                    .map(|setting| (*setting).to_owned())
                    .collect(),
                heap: "1g".to_owned(),
                install_only: false,
            };
            let mut server = kafka_server(&args, &ports)?;
            let log = kafka_home(&args.version).join(format!("{name}.log"));
            println!("$ {} >{}", shown(&server), log.display());
            let child = server
                .stdin(Stdio::null())
                .stdout(File::create(&log)?)
                .stderr(Stdio::null())
                .spawn()?;
            running.nodes.push(child);
        }
        let began = Instant::now();
        for port in ports {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                if began.elapsed() > KAFKA_STARTS_WITHIN {
                    return Err(Failure(format!("kafka does not listen on {port}")));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(running)
    }

    /// The processes of its nodes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(Child::id).collect()
    }
}

impl Drop for RunningKafka {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// The first of two ports, one after the other, that nobody listens on now.
fn two_free_ports() -> Result<u16, Failure> {
    for _ in 0..100 {
        let first = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let second = first.checked_add(1);
        if second.is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(first);
        }
    }
    Err(Failure("no two free ports".into()))
}

/// Installs a server and prepares its folder; returns what starts it. `ports` are those of all nodes.
fn kafka_server(args: &Kafka, ports: &[u16]) -> Result<Command, Failure> {
    let home = kafka_home(&args.version);
    install_kafka(&home, &args.version)?;
    // Before its data is emptied: another one may be running on it.
    for port in [args.port, args.port + 1] {
        TcpListener::bind(("127.0.0.1", port))
            .map_err(|error| Failure(format!("port {port} is taken: {error}")))?;
    }
    let data = match &args.data {
        Some(data) => std::path::absolute(data)?,
        None => home.join("data"),
    };
    if !args.keep && data.join("meta.properties").exists() {
        println!("$ rm -r {}", data.display());
        std::fs::remove_dir_all(&data)?;
    }
    // beside the data, whose name tells one server from another
    let properties = data.with_extension("properties");
    std::fs::write(&properties, kafka_properties(args, &data, ports))?;
    println!("(wrote {})", properties.display());
    if !data.join("meta.properties").exists() {
        run(java(&home)
            .args(["kafka.tools.StorageTool", "format", "-t"])
            .arg(KAFKA_CLUSTER_ID)
            .arg("-c")
            .arg(&properties))?;
    }
    let mut server = java(&home);
    server
        .arg(format!("-Xmx{}", args.heap))
        .arg("kafka.Kafka")
        .arg(&properties);
    Ok(server)
}

/// Any 16 bytes in base64 will do; a fixed one makes data folders reusable.
const KAFKA_CLUSTER_ID: &str = "cmluZ21pbGwtcGVlci0xMA";

fn install_kafka(home: &Path, version: &str) -> Result<(), Failure> {
    let lib = home.join("lib");
    if lib.join(format!("kafka-streams-{version}.jar")).exists() {
        return Ok(());
    }
    for (program, package) in [("java", "openjdk-17-jre-headless"), ("mvn", "maven")] {
        if !succeeds(program, &["-version"]) {
            return Err(Failure(format!(
                "`{program}` is missing: apt-get install {package}"
            )));
        }
    }
    std::fs::create_dir_all(home)?;
    let pom = home.join("pom.xml");
    std::fs::write(&pom, kafka_pom(version))?;
    std::fs::write(home.join("log4j2.properties"), LOG4J)?;
    // A half-finished download leaves no folder that looks complete: moved into place at the end.
    let partial = home.join("lib.partial");
    run(Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", partial.display())))?;
    if lib.exists() {
        std::fs::remove_dir_all(&lib)?;
    }
    std::fs::rename(&partial, &lib)?;
    Ok(())
}

fn kafka_pom(version: &str) -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringmill.peers</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-streams</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"
    )
}

/// The binding for slf4j 1.7, which the released jars use; Kafka's own archive adds it too.
const LOG4J_VERSION: &str = "2.25.4";

const LOG4J: &str = "rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
";

/// A node that is broker and controller, with internal topics of as many replicas as there are nodes
/// (three at most), and groups that form at once.
fn kafka_properties(args: &Kafka, data: &Path, ports: &[u16]) -> String {
    let Kafka { port, .. } = args;
    let controller = port + 1;
    let id = 1 + ports.iter().position(|other| other == port).unwrap_or(0);
    let voters: Vec<String> = (1..)
        .zip(ports)
        .map(|(id, port)| format!("{id}@127.0.0.1:{}", port + 1))
        .collect();
    let voters = voters.join(",");
    let replicas = ports.len().min(3);
    let min_isr = replicas.div_ceil(2);
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={min_isr}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={min_isr}
group.initial.rebalance.delay.ms=0
",
        data.display()
    );
    if min_isr > 1 {
        let _ = writeln!(text, "min.insync.replicas={min_isr}");
    }
    for setting in &args.settings {
        text.push_str(setting);
        text.push('\n');
    }
    text
}

fn java(home: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(home.join("lib/*")).arg(format!(
        "-Dlog4j2.configurationFile={}",
        home.join("log4j2.properties").display()
    ));
    command
}
