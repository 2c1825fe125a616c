//! Three real processes by three commands: they become one cluster, outlive one of them, and let nobody
//! in who does not belong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ringmill_tests::node::Node;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_ringmill");
/// How long the machine may take over anything here.
const PATIENCE: Duration = Duration::from_secs(60);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("ringmill-cluster-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Starts a node; it joins those that are given.
    fn start(&self, id: usize, others: &[&Node]) -> Node {
        let seeds: Vec<String> = others.iter().map(|node| node.addr().to_string()).collect();
        let args = [
            format!("--node-id={id}"),
            format!("--join={}", seeds.join(",")),
            "--cores=1".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let data = self.0.join(format!("node{id}"));
        Node::start(Path::new(BINARY), &data, &args).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(node: &Node, words: &str) -> Result<String, String> {
    let output = Command::new(BINARY)
        .args(words.split(' '))
        .args(["--bootstrap", &node.addr().to_string()])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// Each node as a node shows it: number, whether it is up, role.
fn status(node: &Node) -> Vec<(u64, bool, String)> {
    let Ok(text) = run(node, "cluster status --json") else {
        return Vec::new();
    };
    let status: Value = serde_json::from_str(&text).unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    let shown = nodes.map(|node| {
        let (id, up) = (
            node["node"].as_u64().unwrap(),
            node["up"].as_bool().unwrap(),
        );
        (id, up, node["role"].as_str().unwrap().to_owned())
    });
    shown.collect()
}

/// Waits until a node shows the cluster so.
fn wait_until(node: &Node, what: &str, is_so: impl Fn(&[(u64, bool, String)]) -> bool) {
    let begun = Instant::now();
    loop {
        let shown = status(node);
        if is_so(&shown) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not {what}: {shown:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn up(shown: &[(u64, bool, String)]) -> Vec<u64> {
    let up = shown.iter().filter(|(_, up, _)| *up);
    up.map(|(id, ..)| *id).collect()
}

fn voters(shown: &[(u64, bool, String)]) -> usize {
    let voters = shown
        .iter()
        .filter(|(.., role)| role == "leader" || role == "voter");
    voters.count()
}

#[test]
fn three_commands_make_a_cluster_that_outlives_any_of_them() {
    let folder = Folder::new("three");
    let one = folder.start(1, &[]);
    let two = folder.start(2, &[&one]);
    let three = folder.start(3, &[&one, &two]);
    for node in [&one, &two, &three] {
        wait_until(node, "one cluster of three voters", |shown| {
            up(shown) == [1, 2, 3] && voters(shown) == 3
        });
    }
    let shown = run(&two, "cluster features").unwrap();
    assert!(
        shown.contains("transaction.version  0 to 2     2\n"),
        "{shown}"
    );
    let same = run(&three, "cluster upgrade").unwrap();
    assert_eq!(
        same,
        "every feature is at the highest level that all nodes support\n"
    );
    let why = run(
        &three,
        "cluster upgrade --dry-run --feature group.version=2",
    )
    .unwrap_err();
    assert!(why.contains("only supports versions 0-1"), "{why}");
    run(&three, "topic create by-three --partitions 2").unwrap();
    let listed = run(&three, "topic list").unwrap();
    assert!(listed.contains("by-three"), "{listed}");
    // the first is the leader of a young cluster
    one.kill().unwrap();
    wait_until(&two, "without the first", |shown| up(shown) == [2, 3]);
    run(&two, "topic create after").unwrap();
    let one = folder.start(1, &[&two]);
    wait_until(&one, "three again", |shown| up(shown) == [1, 2, 3]);
    let listed = run(&one, "topic list").unwrap();
    assert!(
        listed.contains("by-three") && listed.contains("after"),
        "{listed}"
    );
    one.stop().unwrap();
    wait_until(&two, "the first is down", |shown| up(shown) == [2, 3]);
    let why = run(&two, "cluster leave 3").unwrap_err();
    assert!(why.contains("node 3"), "it is up: {why}");
    let left = run(&two, "cluster leave 1").unwrap();
    assert_eq!(left, "node 1 has left\n");
    wait_until(&two, "a cluster of two", |shown| shown.len() == 2);
}

#[test]
fn who_does_not_belong_is_refused_in_one_line() {
    let folder = Folder::new("refused");
    let one = folder.start(1, &[]);
    let refused = |id: &str, data: &str| {
        let output = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--cores", "1"])
            .args(["--node-id", id, "--join", &one.addr().to_string()])
            .arg("--data")
            .arg(folder.0.join(data))
            .env("RUST_LOG", "off")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let why = refused("1", "other");
    assert!(why.contains("node 1 runs already, at 127.0.0.1:"), "{why}");
    folder.start(2, &[]).stop().unwrap();
    let why = refused("2", "node2");
    assert!(why.contains("belongs to cluster"), "{why}");
    let why = refused("3", "node2");
    assert!(why.contains("belongs to node 2"), "{why}");
}

/// Each partition's replicas and leader, as a node shows them, once all copies are in sync.
fn copies(node: &Node, topic: &str) -> Option<Vec<(Vec<u64>, u64)>> {
    let text = run(node, &format!("topic describe {topic} --json")).ok()?;
    let described: Value = serde_json::from_str(&text).unwrap();
    let partitions = described["partitions"].as_array()?.iter();
    let numbers = |value: &Value| -> Option<Vec<u64>> {
        value.as_array()?.iter().map(Value::as_u64).collect()
    };
    let copies = partitions.map(|partition| {
        let replicas = numbers(&partition["replicas"])?;
        let is_whole = numbers(&partition["in_sync"])?.len() == replicas.len();
        is_whole.then_some((replicas, partition["leader"].as_u64()?))
    });
    copies.collect()
}

#[test]
fn copies_move_by_command() {
    let folder = Folder::new("moves");
    let one = folder.start(1, &[]);
    let two = folder.start(2, &[&one]);
    let three = folder.start(3, &[&one, &two]);
    wait_until(&two, "one cluster", |shown| up(shown) == [1, 2, 3]);
    let wait = |what: &[Vec<u64>]| {
        let begun = Instant::now();
        loop {
            let copies = copies(&two, "t");
            let replicas = copies.iter().flatten().map(|(replicas, _)| replicas);
            if replicas.eq(what) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not {what:?}: {copies:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    run(&one, "topic create t --partitions 2 --replication 1").unwrap();
    let asked = run(&three, "topic reassign t --nodes 2,3").unwrap();
    assert!(asked.contains("2 partition(s)"), "{asked}");
    wait(&[vec![2, 3], vec![3, 2]]);
    run(&one, "cluster move --from 3 --to 1 --topic t").unwrap();
    wait(&[vec![2, 1], vec![1, 2]]);
    let moves = run(&three, "cluster moves").unwrap();
    assert_eq!(moves, "all copies are where they are to be\n");
    let why = run(&one, "topic reassign t --cancel").unwrap_err();
    assert!(why.contains("nothing to move"), "{why}");
    let why = run(&one, "topic reassign t --nodes 9").unwrap_err();
    assert!(why.contains("broker 9, but no such broker"), "{why}");
    run(&one, "cluster elect --topic t").unwrap();
    let leaders = copies(&two, "t").map(|copies| copies.into_iter().map(|(_, leader)| leader));
    assert_eq!(leaders.map(Iterator::collect), Some(vec![2, 1]));
}
