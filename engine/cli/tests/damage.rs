//! Damage on the disk: what is wrong is named by file and position, what is whole is served, and
//! nothing is silently dropped.

use std::path::{Path, PathBuf};

use ringmill_tests::crash::read_log;
use ringmill_tests::history::{self, Attempt, Outcome};
use ringmill_tests::node::Node;
use ringmill_tests::plain::PlainClient;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::BatchBuilder;
use ringmill_wire::error::ErrorCode;

struct Stopped {
    folder: PathBuf,
    attempts: Vec<Attempt>,
}

impl Stopped {
    /// A node that took some segments' worth of batches and was stopped, cleanly or not.
    fn new(name: &str, clean: bool) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmill-damage-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut this = Self {
            folder,
            attempts: Vec::new(),
        };
        let node = this.start();
        let mut client = PlainClient::connect(node.addr()).unwrap();
        assert_eq!(
            client
                .create_topic("t", 1, &[("segment.bytes", "65536")])
                .unwrap(),
            0
        );
        let mut builder = BatchBuilder::new(1 << 20);
        for id in 0..60 {
            history::fill(&mut builder, id, &[300; 20], 1);
            let batch = builder.seal(Compression::None, ProducerStamp::NONE);
            let answer = client.produce("t", 0, -1, batch).unwrap().unwrap();
            assert_eq!(answer.error_code, 0);
            let outcome = Outcome::Acknowledged(answer.base_offset);
            this.attempts.push(Attempt {
                id,
                records: 20,
                outcome,
            });
        }
        if clean {
            node.stop().unwrap()
        } else {
            node.kill().unwrap()
        }
        this
    }

    fn start(&self) -> Node {
        let binary = Path::new(env!("CARGO_BIN_EXE_ringmill"));
        Node::start(binary, &self.folder.join("data"), &[]).unwrap()
    }

    /// Files of the partition with an extension, in order of their offsets.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.join("data")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == extension)
                    && path.parent().is_some_and(|p| p.ends_with("t-0"))
                {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn check(&self, node: &Node) {
        let mut client = PlainClient::connect(node.addr()).unwrap();
        let (start, log) = read_log(&mut client, "t", 0, 0).unwrap();
        let violations = history::check(&self.attempts, start, &log);
        assert!(violations.is_empty(), "{}", violations[0]);
        assert_eq!(log.len(), 1200);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("data.log")).unwrap()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn missing_and_garbage_indexes_are_rebuilt() {
    for clean in [true, false] {
        let stopped = Stopped::new("indexes", clean);
        assert!(stopped.files("log").len() > 4);
        for (i, path) in stopped
            .files("index")
            .iter()
            .chain(&stopped.files("timeindex"))
            .enumerate()
        {
            match i % 3 {
                0 => std::fs::remove_file(path).unwrap(),
                1 => std::fs::write(path, [0xA5; 777]).unwrap(),
                _ => std::fs::write(path, b"").unwrap(),
            }
        }
        let node = stopped.start();
        stopped.check(&node);
        node.stop().unwrap();
    }
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_noticed_and_named() {
    let stopped = Stopped::new("sealed", true);
    let damaged = stopped.files("log")[1].clone();
    flip(&damaged, 10_000);
    let node = stopped.start();
    let mut client = PlainClient::connect(node.addr()).unwrap();
    // Reading to the end meets the damage: an error, or a batch that its CRC gives away.
    let mut next = 0;
    let mut error = None;
    while error.is_none() && next < 1200 {
        let fetched = client.fetch("t", 0, next, 1 << 20, 200).unwrap();
        if fetched.error_code != 0 {
            error = Some(fetched.error_code);
            break;
        }
        let before = next;
        for batch in ringmill_wire::batch::Batches::new(&fetched.records) {
            let Ok((_, view)) = batch else { break };
            if view.check_crc().is_err() {
                error = Some(ErrorCode::CorruptMessage.code());
            }
            next = view.header().next_offset();
        }
        assert!(next > before, "no progress and no error at {next}");
    }
    assert!(error.is_some(), "nobody noticed");
    node.stop().unwrap();
    let verify = std::process::Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args(["log", "verify"])
        .arg(damaged.parent().unwrap())
        .output()
        .unwrap();
    assert!(!verify.status.success());
    let told = [verify.stdout, verify.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    let name = damaged.file_stem().unwrap().to_str().unwrap();
    assert!(told.contains(name), "verify does not name the file: {told}");
}

#[test]
fn a_torn_tail_after_a_kill_is_cut_and_reported() {
    let stopped = Stopped::new("torn", false);
    let last = stopped.files("log").pop().unwrap();
    let whole = std::fs::read(&last).unwrap();
    let end = whole.iter().rposition(|b| *b != 0).unwrap() + 1;
    // Half a batch behind the last whole one, as a kill in the middle of a write leaves it.
    let torn = [&whole[..end], &whole[..whole.len().min(500)]].concat();
    std::fs::write(&last, torn).unwrap();
    let node = stopped.start();
    stopped.check(&node);
    let mut client = PlainClient::connect(node.addr()).unwrap();
    let mut builder = BatchBuilder::new(1 << 20);
    history::fill(&mut builder, 99, &[50], 1);
    let batch = builder.seal(Compression::None, ProducerStamp::NONE);
    let answer = client.produce("t", 0, -1, batch).unwrap().unwrap();
    assert_eq!((answer.error_code, answer.base_offset), (0, 1200));
    node.stop().unwrap();
    assert!(
        stopped
            .log()
            .contains(last.file_name().unwrap().to_str().unwrap()),
        "not reported"
    );
}
