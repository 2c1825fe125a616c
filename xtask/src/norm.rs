//! NRL's libnorm against our multicast, both ways, with loss by a relay of our own between them.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{Failure, apt_install, cargo, root, run, shown, succeeds, target_dir};

/// Bytes of each stream.
const BYTES: &str = "4000000";

/// Of each datagram a thousand, so many are lost on the way, and as many on the way back.
const LOSSES: [u32; 4] = [0, 10, 50, 200];

/// Bytes per second; 0 is congestion control.
const RATES: [&str; 2] = ["2000000", "0"];

/// No run may take longer.
const LIMIT: Duration = Duration::from_secs(300);

/// A pairing: who sends, who receives.
const PAIRINGS: [(Node, Node); 3] = [
    (Node::Ours, Node::Theirs),
    (Node::Theirs, Node::Ours),
    (Node::Ours, Node::Ours),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Ours,
    Theirs,
}

/// The two programs.
struct Programs {
    ours: PathBuf,
    theirs: PathBuf,
    scratch: PathBuf,
}

/// A program that is stopped when it is not waited for any more.
struct Running(Child, String);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every pairing at every loss.
pub(crate) fn norm() -> Result<(), Failure> {
    let programs = build()?;
    let mut failed = Vec::new();
    for rate in RATES {
        for loss in LOSSES {
            for pairing in PAIRINGS {
                let name = format!("{pairing:?}, {loss} of 1000 lost, rate {rate}");
                let outcome = pair(&programs, pairing, loss, rate);
                match outcome {
                    Ok(line) => println!("norm: {name}: {line}"),
                    Err(failure) => {
                        println!("norm: {name}: FAILED: {failure}");
                        failed.push(name);
                    }
                }
            }
        }
    }
    match failed.len() {
        0 => Ok(()),
        count => Err(Failure(format!("{count} pairings failed"))),
    }
}

fn build() -> Result<Programs, Failure> {
    if !Path::new("/usr/include/normApi.h").exists() || !succeeds("g++", &["--version"]) {
        apt_install(&["g++", "libnorm-dev"])?;
    }
    let scratch = target_dir().join("conformance/norm");
    std::fs::create_dir_all(&scratch)?;
    let theirs = scratch.join("peer");
    let source = root().join("tests/conformance/norm/peer.cc");
    let mut compile = Command::new("g++");
    compile.args(["-Wall", "-Wextra", "-O2", "-o"]);
    run(compile.arg(&theirs).arg(source).arg("-lnorm"))?;
    let mut ours = cargo();
    let package = ["build", "-p", "ringmill-multicast", "--example", "norm"];
    run(ours.args(package))?;
    Ok(Programs {
        ours: target_dir().join("debug/examples/norm"),
        theirs,
        scratch,
    })
}

/// One stream from one node to another by the relay; what the receiver said.
fn pair(
    programs: &Programs,
    (from, to): (Node, Node),
    loss: u32,
    rate: &str,
) -> Result<String, Failure> {
    let ports = [free_port()?, free_port()?];
    let groups = [("239.255.78.1", ports[0]), ("239.255.78.2", ports[1])];
    let joined = |(group, port): (&str, u16)| format!("{group}:{port}");
    let mut relay = Command::new(&programs.ours);
    relay.arg("relay").args(groups.map(joined));
    let mut relay = start(
        programs,
        "relay",
        relay.args(["127.0.0.1", &loss.to_string()]),
    )?;
    wait_ready(programs, "relay", &mut relay)?;
    let mut receiver = start(
        programs,
        "receiver",
        &mut programs.node(to, "receive", groups[1], "0"),
    )?;
    wait_ready(programs, "receiver", &mut receiver)?;
    let mut sender = start(
        programs,
        "sender",
        &mut programs.node(from, "send", groups[0], rate),
    )?;
    let deadline = Instant::now() + LIMIT;
    let mut left = vec![("receiver", &mut receiver), ("sender", &mut sender)];
    while let Some((name, running)) = left.last_mut() {
        match running.0.try_wait()? {
            Some(status) if status.success() => drop(left.pop()),
            Some(status) => {
                let said = programs.said(name);
                return Err(Failure(format!("{name}: {status}: {said}")));
            }
            None if Instant::now() > deadline => {
                let said = programs.said(name);
                return Err(Failure(format!("the {name} still runs: {said}")));
            }
            None => sleep(Duration::from_millis(20)),
        }
    }
    let said = programs.said("receiver");
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

impl Programs {
    fn node(&self, node: Node, verb: &str, (group, port): (&str, u16), rate: &str) -> Command {
        let mut command = match node {
            Node::Ours => Command::new(&self.ours),
            Node::Theirs => Command::new(&self.theirs),
        };
        command.arg(verb);
        match node {
            Node::Ours => command.args([&format!("{group}:{port}"), "127.0.0.1"]),
            Node::Theirs => command.args([group, &port.to_string(), "lo"]),
        };
        command.args([BYTES, rate]);
        command
    }

    /// What a program printed.
    fn said(&self, name: &str) -> String {
        let path = self.scratch.join(format!("{name}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

fn start(programs: &Programs, name: &str, command: &mut Command) -> Result<Running, Failure> {
    let log = File::create(programs.scratch.join(format!("{name}.log")))?;
    let line = shown(command);
    let child = command
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .spawn()
        .map_err(|error| Failure(format!("cannot start `{line}`: {error}")))?;
    Ok(Running(child, line))
}

fn wait_ready(programs: &Programs, name: &str, running: &mut Running) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !programs.said(name).contains("ready") {
        if running.0.try_wait()?.is_some() || Instant::now() > deadline {
            let said = programs.said(name);
            return Err(Failure(format!("`{}` did not start: {said}", running.1)));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A port that no one has at present.
fn free_port() -> Result<u16, Failure> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
