//! The command line against a real node: what is written can be read, groups remember, and each
//! mistake gets one line and the right exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ringmill_tests::node::Node;

struct Fixture {
    /// Until it is stopped.
    node: Option<Node>,
    folder: PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_ringmill");

impl Fixture {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmill-commands-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let settings = ["--group-initial-rebalance-delay-ms=0"];
        let node = Node::start(Path::new(BINARY), &folder.join("data"), &settings).unwrap();
        let node = Some(node);
        Self { node, folder }
    }

    fn output(&self, words: &str, input: &str) -> Output {
        let address = self.node.as_ref().unwrap().addr().to_string();
        let mut child = Command::new(BINARY)
            .args(words.split(' '))
            .args(["--bootstrap", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// What a command prints; it must succeed.
    fn run(&self, words: &str, input: &str) -> String {
        let output = self.output(words, input);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {shown}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &str, input: &str) -> serde_json::Value {
        let text = self.run(&format!("{words} --json"), input);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error}: {text}"))
    }

    /// The one line that a mistake is worth.
    fn mistake(&self, words: &str) -> String {
        let output = self.output(words, "");
        assert_eq!(output.status.code(), Some(1), "{words}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{words}: {text}");
        assert!(text.starts_with("ringmill: "), "{text}");
        text
    }
}

#[test]
fn a_topic_lives_from_its_creation_to_its_end() {
    let node = Fixture::new("topic");
    assert_eq!(
        node.run("topic create t --partitions 2 --config retention.ms=99", ""),
        "created t with 2 partition(s)\n"
    );
    assert_eq!(node.run("topic list", ""), "t\n");
    node.run(
        "topic alter t --partitions 3 --config retention.ms=100000",
        "",
    );
    let described = node.json("topic describe t", "");
    assert_eq!(described["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(described["configs"]["retention.ms"], "100000");
    node.run("topic alter t --delete-config retention.ms", "");
    let described = node.json("topic describe t", "");
    assert_eq!(described["configs"], serde_json::json!({}));
    node.run("topic delete t", "");
    assert_eq!(node.run("topic list", ""), "");
}

#[test]
fn lines_come_back_as_they_went_in_with_every_codec() {
    let node = Fixture::new("lines");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("lines-{codec}");
        node.run(&format!("topic create {topic} --partitions 1"), "");
        let lines: String = (0..5000).map(|n| format!("value {n}\n")).collect();
        let produced = node.json(&format!("produce {topic} --compression {codec}"), &lines);
        assert_eq!(produced["records"], 5000);
        let read = node.run(&format!("consume {topic} --from-beginning -e"), "");
        assert_eq!(read, lines, "{codec}");
    }
}

#[test]
fn keys_headers_and_null_bytes_are_shown_as_they_are() {
    let node = Fixture::new("formats");
    node.run("topic create t --partitions 1", "");
    node.run("produce t --key-separator : --header h=1", "k:a:b\n");
    node.run("produce t", "\u{0}\u{1}\n");
    let read = node.run("consume t --from-beginning --count 2 --format json", "");
    let rows: Vec<serde_json::Value> = read
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&rows[0]["key"], &rows[0]["value"]),
        (&"k".into(), &"a:b".into())
    );
    assert_eq!(rows[0]["headers"][0]["value"], "1");
    assert_eq!(
        (&rows[1]["key"], &rows[1]["offset"]),
        (&serde_json::Value::Null, &1.into())
    );
    let hex = node.run("consume t --offset -1 -e --format hex", "");
    assert!(hex.ends_with("null 0001\n"), "{hex}");
}

/// By the client on our own ring, in either protocol.
#[test]
fn a_group_goes_on_where_it_stopped_and_can_be_moved() {
    for protocol in ["classic", "consumer"] {
        let node = Fixture::new(&format!("group-{protocol}"));
        group_goes_on(&node, protocol);
    }
}

fn group_goes_on(node: &Fixture, protocol: &str) {
    node.run("topic create t --partitions 1", "");
    let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
    node.run("produce t", &lines);
    let consume = |more: &str| {
        let command = format!("consume t --group g --group-protocol {protocol} {more}");
        node.run(&command, "")
    };
    let first = consume("--from-beginning --count 30");
    let rest = consume("--from-beginning -e");
    assert_eq!(first + &rest, lines);
    let described = node.json("group describe g", "");
    assert_eq!(
        (&described["state"], &described["offsets"][0]["lag"]),
        (&"Empty".into(), &0.into())
    );
    node.run("group reset g --topic t --shift-by -10", "");
    assert_eq!(consume("-e").lines().count(), 10);
    let dry = node.json("group reset g --topic t --to-earliest --dry-run", "");
    assert_eq!(dry["offsets"][0]["offset"], 0);
    assert_eq!(
        node.json("group describe g", "")["offsets"][0]["committed"],
        100
    );
    assert!(node.run("group list", "").contains("g  "));
    node.run("group delete g", "");
    assert!(!node.run("group list", "").contains("g  "));
}

#[test]
fn a_stopped_nodes_files_are_shown_and_verified() {
    let mut node = Fixture::new("log");
    node.run("topic create t --partitions 2", "");
    node.run("produce t --partition 1", "one\ntwo\n");
    node.node.take().unwrap().stop().unwrap();
    let data = node.folder.join("data");
    let log = |words: &[&str]| {
        Command::new(BINARY)
            .arg("log")
            .args(words)
            .output()
            .unwrap()
    };
    let folder = data.join("t-1");
    let dumped = log(&["dump", "--records", folder.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&dumped.stdout);
    assert!(
        dumped.status.success() && text.contains("payload: two"),
        "{text}"
    );
    let sound = log(&["verify", data.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&sound.stdout);
    assert!(
        sound.status.success() && text.contains(" 2 records"),
        "{text}"
    );
    let nothing = log(&["verify", env!("CARGO_MANIFEST_DIR")]);
    assert_eq!(nothing.status.code(), Some(1));
    let text = String::from_utf8_lossy(&nothing.stderr);
    assert!(text.contains("holds no log"), "{text}");
}

#[test]
fn each_mistake_gets_one_line_and_its_exit_code() {
    let node = Fixture::new("mistakes");
    node.run("topic create t --partitions 1", "");
    assert!(
        node.mistake("consume nothing-there")
            .contains("nothing-there")
    );
    assert!(
        node.mistake("topic create t")
            .contains("TOPIC_ALREADY_EXISTS")
    );
    assert!(
        node.mistake("topic delete nothing-there")
            .contains("nothing-there")
    );
    assert!(node.mistake("topic alter t").contains("--partitions"));
    assert!(node.mistake("consume t --partition 7").contains("7"));
    let separated = node.output("produce t --key-separator :", "no separator\n");
    assert_eq!(separated.status.code(), Some(1));
    for misuse in [
        "topic",
        "consume t --format xml",
        "produce t --acks 2",
        "group reset g --topic t",
    ] {
        assert_eq!(node.output(misuse, "").status.code(), Some(2), "{misuse}");
    }
    let nowhere = Command::new(BINARY)
        .args(["topic", "list", "--bootstrap", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("127.0.0.1:1"));
}

#[test]
fn the_demo_finds_its_data_as_it_sent_it() {
    let output = Command::new(BINARY)
        .args(["demo", "--exit", "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{errors}");
    assert!(
        text.contains("336,776 flights") && text.contains("byte for byte"),
        "{text}"
    );
}
