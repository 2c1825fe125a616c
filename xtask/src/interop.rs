//! Calls between ours and foreign clients and servers, both ways: the published interop cases of
//! gRPC with Python's grpcio and Go's grpc-go, and remote objects.

mod objects;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::python;
use crate::process::{Failure, cargo, root, run, shown, target_dir};

/// How long a server may take to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long all cases of a client may take.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// The cases of Go's client that are published and need no credentials; the names are those of
/// `ringmill_rpc::interop::CASES`.
const GO_CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "custom_metadata",
];

/// A server for the length of a chore; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How each direction went.
#[derive(Default)]
struct Tally {
    failures: usize,
}

impl Tally {
    fn add(&mut self, what: &str, done: Result<(), Failure>) {
        match done {
            Ok(()) => println!("== {what}: all cases passed"),
            Err(failure) => {
                println!("== {what}: {failure}");
                self.failures += 1;
            }
        }
    }

    fn result(self) -> Result<(), Failure> {
        match self.failures {
            0 => Ok(()),
            count => Err(Failure(format!("{count} directions failed"))),
        }
    }
}

/// Runs all cases: all foreign clients against our servers, ours against all foreign servers.
pub(crate) fn interop() -> Result<(), Failure> {
    let ours = our_programs()?;
    let mut tally = Tally::default();
    grpc(&ours, Some(&go_programs()?), &mut tally)?;
    objects::interop(&ours, true, &mut tally)?;
    tally.result()
}

/// The same with Python's grpcio and pycapnp alone, which need no toolchain that a bare machine
/// lacks.
pub(crate) fn interop_in_ci() -> Result<(), Failure> {
    let ours = our_programs()?;
    let mut tally = Tally::default();
    grpc(&ours, None, &mut tally)?;
    objects::interop(&ours, false, &mut tally)?;
    tally.result()
}

fn grpc(ours: &Path, go: Option<&Path>, tally: &mut Tally) -> Result<(), Failure> {
    let python = python("requirements-grpc.txt")?;
    let port = free_port()?;
    let server = start(
        Command::new(ours.join("interop_server")).args(["--port", &port.to_string()]),
        port,
    )?;
    tally.add(
        "grpcio calls ringmill",
        run_within_limit(&mut script(&python, "call", port)),
    );
    if let Some(go) = go {
        tally.add("grpc-go calls ringmill", go_client(go, port));
    }
    drop(server);

    let port = free_port()?;
    let server = start(&mut script(&python, "serve", port), port)?;
    tally.add("ringmill calls grpcio", our_client(ours, port));
    drop(server);

    if let Some(go) = go {
        let port = free_port()?;
        let server = start(
            Command::new(go.join("server")).arg(format!("--port={port}")),
            port,
        )?;
        tally.add("ringmill calls grpc-go", our_client(ours, port));
        drop(server);
    }
    Ok(())
}

fn run_within_limit(command: &mut Command) -> Result<(), Failure> {
    crate::process::run_within(CLIENT_LIMIT, command)
}

/// Builds our server and client. Returns their folder.
fn our_programs() -> Result<PathBuf, Failure> {
    run(cargo().args(["build", "-p", "ringmill-rpc", "--examples"]))?;
    Ok(target_dir().join("debug/examples"))
}

/// Builds grpc-go's own interop programs, with the versions that `go.sum` pins. Returns their
/// folder.
fn go_programs() -> Result<PathBuf, Failure> {
    let out = target_dir().join("conformance/grpc_go");
    std::fs::create_dir_all(&out)?;
    for program in ["client", "server"] {
        run(Command::new("go")
            .arg("-C")
            .arg(root().join("tests/conformance/grpc_go"))
            .args(["build", "-o"])
            .arg(out.join(program))
            .arg(format!("google.golang.org/grpc/interop/{program}")))?;
    }
    Ok(out)
}

fn script(python: &Path, mode: &str, port: u16) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-B", "-u"])
        .arg(root().join("tests/conformance/grpc_interop.py"))
        .args([mode, "--port", &port.to_string(), "--proto"])
        .arg(root().join("net/rpc/proto"));
    command
}

fn our_client(ours: &Path, port: u16) -> Result<(), Failure> {
    let mut client = Command::new(ours.join("interop_client"));
    run_within_limit(client.args(["--server_port", &port.to_string()]))
}

/// Go's client runs one case at a time.
fn go_client(go: &Path, port: u16) -> Result<(), Failure> {
    for case in GO_CASES {
        run_within_limit(Command::new(go.join("client")).args([
            "--server_host=127.0.0.1",
            &format!("--server_port={port}"),
            &format!("--test_case={case}"),
        ]))?;
    }
    Ok(())
}

/// Starts a server and waits until somebody listens on its port.
fn start(command: &mut Command, port: u16) -> Result<Running, Failure> {
    println!("$ {} &", shown(command));
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut running = Running(child);
    // What it prints must not fill its pipe.
    if let Some(out) = running.0.stdout.take() {
        std::thread::spawn(move || BufReader::new(out).lines().for_each(drop));
    }
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = running.0.try_wait()? {
            return Err(Failure(format!("the server ended: {status}")));
        }
        if began.elapsed() > STARTS_WITHIN {
            return Err(Failure(format!("nobody listens on port {port}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(running)
}

fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}
