//! Has the leaders of a cluster's partitions move while something else runs: every so often each
//! topic's copies come in another order, and the first of each is elected.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::process::Failure;

/// A thread that moves leaders until it is stopped or dropped.
pub(crate) struct Mover {
    /// Hung up to stop it.
    running: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Mover {
    /// Begins to move the leaders of all topics of a cluster of `nodes` nodes, numbered from 1,
    /// every `period`.
    pub(crate) fn start(ringmill: &Path, bootstrap: &str, nodes: usize, period: Duration) -> Mover {
        let (running, stopped) = mpsc::channel::<()>();
        let admin = Admin {
            ringmill: ringmill.to_owned(),
            bootstrap: bootstrap.to_owned(),
        };
        let thread = thread::spawn(move || {
            let (mut moved, mut turn) = (0, 0);
            while stopped.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout) {
                turn += 1;
                moved += admin.turn(&order(nodes, turn));
            }
            moved
        });
        Mover {
            running: Some(running),
            thread: Some(thread),
        }
    }

    /// Stops it, and tells how many leaders moved. A cluster whose leaders stay has not been tried:
    /// that is a failure.
    pub(crate) fn stop(mut self) -> Result<u64, Failure> {
        self.running = None;
        let thread = self.thread.take().map(JoinHandle::join);
        match thread {
            Some(Ok(0)) => Err(Failure("no leader moved".to_owned())),
            Some(Ok(moved)) => Ok(moved),
            _ => Err(Failure("whoever moves the leaders broke".to_owned())),
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // What it says is of no interest to whoever has failed before.
            let _ = thread.join();
        }
    }
}

/// The nodes from 1 to `nodes` in the order of a turn: each turn another one is the first.
fn order(nodes: usize, turn: usize) -> String {
    let mut ids: Vec<String> = (1..=nodes).map(|id| id.to_string()).collect();
    ids.rotate_left(turn % nodes);
    ids.join(",")
}

struct Admin {
    ringmill: PathBuf,
    bootstrap: String,
}

impl Admin {
    /// Gives the copies of every topic an order, and elects the first ones; tells how many
    /// partitions are led by another node now. A topic that is deleted meanwhile stays where it is.
    fn turn(&self, order: &str) -> u64 {
        let topics = self.ask(&["topic", "list", "--internal"]);
        for topic in topics.lines() {
            self.ask(&["topic", "reassign", topic, "--nodes", order]);
        }
        let elected = self.ask(&["cluster", "elect"]);
        let count = elected.split_whitespace().next();
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// What a command prints; nothing if it fails.
    fn ask(&self, words: &[&str]) -> String {
        let asked = Command::new(&self.ringmill)
            .args(words)
            .args(["--bootstrap", &self.bootstrap])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        match asked {
            Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).into_owned(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_the_first_in_its_turn() {
        let orders: Vec<String> = (0..4).map(|turn| order(3, turn)).collect();
        assert_eq!(orders, ["1,2,3", "2,3,1", "3,1,2", "1,2,3"]);
    }

    #[test]
    fn whoever_moves_nothing_fails() {
        let nobody = Path::new("/nonexistent/ringmill");
        let mover = Mover::start(nobody, "127.0.0.1:1", 3, Duration::from_millis(1));
        thread::sleep(Duration::from_millis(20));
        assert!(mover.stop().is_err());
    }
}
