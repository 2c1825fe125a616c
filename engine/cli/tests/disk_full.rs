//! A disk that is full: clear errors, nothing acknowledged is lost, and the node goes on by itself
//! when there is room again. The disk is a small ext4 in a file, mounted by loop.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringmill_tests::crash::read_log;
use ringmill_tests::history::{self, Attempt, Outcome};
use ringmill_tests::node::Node;
use ringmill_tests::plain::PlainClient;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::BatchBuilder;
use ringmill_wire::error::ErrorCode;

struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// None where this user may not mount.
    fn new(megabytes: u64) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("ringmill-full-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("mnt")).ok()?;
        let disk = Self { folder };
        let image = disk.folder.join("image");
        std::fs::File::create(&image)
            .ok()?
            .set_len(megabytes << 20)
            .ok()?;
        let run = |program: &str, args: &[&str], last: &Path| {
            let status = Command::new(program).args(args).arg(last).output();
            status.is_ok_and(|output| output.status.success())
        };
        let image_path = image.to_str()?;
        let made = run("mkfs.ext4", &["-q", "-F"], &image)
            && run("mount", &["-o", "loop", image_path], &disk.path());
        made.then_some(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("mnt")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn send(client: &mut PlainClient, id: u64) -> (Attempt, i16) {
    let mut builder = BatchBuilder::new(1 << 20);
    history::fill(&mut builder, id, &[1000; 200], 1);
    let batch = builder.seal(Compression::None, ProducerStamp::NONE);
    let answer = client.produce("t", 0, -1, batch).unwrap().unwrap();
    let outcome = match answer.error_code {
        0 => Outcome::Acknowledged(answer.base_offset),
        _ => Outcome::Unknown,
    };
    (
        Attempt {
            id,
            records: 200,
            outcome,
        },
        answer.error_code,
    )
}

fn check(client: &mut PlainClient, attempts: &[Attempt]) {
    let (start, log) = read_log(client, "t", 0, 0).unwrap();
    let violations = history::check(attempts, start, &log);
    assert!(violations.is_empty(), "{}", violations[0]);
}

#[test]
fn a_full_disk_refuses_clearly_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new(64) else {
        eprintln!("not run: this user may not mount a loop device");
        return;
    };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 20 << 20]).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_ringmill"));
    let data = disk.path().join("data");
    let node = Node::start(binary, &data, &[]).unwrap();
    let mut client = PlainClient::connect(node.addr()).unwrap();
    assert_eq!(client.create_topic("t", 1, &[]).unwrap(), 0);
    let mut attempts = Vec::new();
    let refused = (0..1000).find_map(|id| {
        let (attempt, code) = send(&mut client, id);
        attempts.push(attempt);
        (code != 0).then_some(code)
    });
    let refused = refused.expect("44 MB of room took 200 MB");
    assert_eq!(
        refused,
        ErrorCode::KafkaStorageError.code(),
        "a client must know to try again"
    );
    assert!(
        attempts.len() > 50,
        "refused after {} batches",
        attempts.len()
    );
    // What was acknowledged is served while the disk is full.
    check(&mut client, &attempts);

    std::fs::remove_file(&ballast).unwrap();
    let resumed = (1000..1100).any(|id| {
        let (attempt, code) = send(&mut client, id);
        attempts.push(attempt);
        if code != 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        code == 0
    });
    assert!(resumed, "there is room, but the partition takes nothing");
    check(&mut client, &attempts);
    node.kill().unwrap();
    let node = Node::start(binary, &data, &[]).unwrap();
    let mut client = PlainClient::connect(node.addr()).unwrap();
    check(&mut client, &attempts);
    let (attempt, code) = send(&mut client, 2000);
    assert_eq!(code, 0);
    attempts.push(attempt);
    check(&mut client, &attempts);
    node.stop().unwrap();
}
