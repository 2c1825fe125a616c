//! Network namespaces: a hub with a bridge, and one namespace for each node behind it, so that one
//! node's wires can be cut, both ways or one way, while the others go on.
//!
//! One way is cut by neighbour entries that name a hardware address that nobody has: what is sent
//! goes into the void, and the sender notices nothing. It needs no packet filter.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Nobody has it.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The hub and its nodes.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    nodes: u8,
    /// It was made here, and is removed when dropped.
    is_owned: bool,
}

fn ip(words: &str) -> io::Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {words}: {}", told.trim())))
}

/// The address of a node, which are numbered from 1; 0 is the hub's.
pub fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + node)
}

impl Network {
    /// A hub and nodes 1 to `nodes`, in namespaces whose names begin with `prefix`.
    ///
    /// # Errors
    /// The machine does not allow it: it takes the rights of root.
    pub fn new(prefix: &str, nodes: u8) -> io::Result<Self> {
        let mut network = Self::of(prefix, nodes);
        network.is_owned = true;
        let hub = network.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        ip(&format!("-n {hub} addr add {}/24 dev br0", address(0)))?;
        for node in 1..=nodes {
            let own = network.node(node);
            ip(&format!("netns add {own}"))?;
            ip(&format!("-n {own} link set lo up"))?;
            ip(&format!(
                "-n {hub} link add v{node} type veth peer name eth0 netns {own}"
            ))?;
            ip(&format!("-n {hub} link set v{node} master br0 up"))?;
            ip(&format!("-n {own} addr add {}/24 dev eth0", address(node)))?;
            ip(&format!("-n {own} link set eth0 up"))?;
        }
        Ok(network)
    }

    /// One that is there already.
    pub fn of(prefix: &str, nodes: u8) -> Self {
        Self {
            prefix: prefix.to_owned(),
            nodes,
            is_owned: false,
        }
    }

    /// The namespace where clients are.
    pub fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// The namespace of a node.
    pub fn node(&self, node: u8) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// A node loses its network, or has it again.
    pub fn set_link(&self, node: u8, up: bool) -> io::Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&format!("-n {} link set v{node} {state}", self.hub()))
    }

    /// What `from` sends to `to` does not arrive any more, or does again.
    pub fn set_way(&self, from: u8, to: u8, open: bool) -> io::Result<()> {
        let (own, to) = (self.node(from), address(to));
        match open {
            false => ip(&format!(
                "-n {own} neigh replace {to} lladdr {NOBODY} dev eth0 nud permanent"
            )),
            true => ip(&format!("-n {own} neigh del {to} dev eth0")),
        }
    }

    /// All other nodes.
    pub fn others(&self, node: u8) -> impl Iterator<Item = u8> + use<> {
        (1..=self.nodes).filter(move |other| *other != node)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        let nodes = (1..=self.nodes).map(|node| self.node(node));
        for name in nodes.chain([self.hub()]) {
            let mut remove = Command::new("ip");
            remove
                .args(["netns", "del", &name])
                .stderr(Stdio::null())
                .stdout(Stdio::null());
            let _ = remove.status();
        }
    }
}

/// The nodes from one on, once around.
pub fn nodes_after(first: u8, count: u8) -> impl Iterator<Item = u8> {
    (0..count).map(move |step| (first - 1 + step) % count + 1)
}

/// A command that runs in a network namespace, under the process id of the command that is spawned.
/// It sees the file systems of whoever starts it, those that are mounted later too: a file system
/// that a node has of its own must not live on in the eyes of others.
pub fn within(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command.arg(program);
    command
}

/// The same with mounts of its own, which go when it ends.
pub fn within_apart(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "nsenter"]);
    command.arg(format!("--net=/run/netns/{namespace}"));
    command.arg(program);
    command
}
