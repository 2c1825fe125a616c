//! A client under test: a process that produces to every partition at a steady rate and tells what
//! became of each record, a line each. Any client can be such a process.
//!
//! It is started with the bootstrap servers, the topic, the number of partitions, records per second
//! and partition, and the first record's number; it produces with `acks=all` until its standard input
//! ends, waits for what it has sent, and exits. A request that nobody answers is its own to give up:
//! after 1.5 seconds (`request.timeout.ms`), where most clients wait for 30. Its lines: `sent ID PARTITION`,
//! `acked ID PARTITION OFFSET`, and `failed ID PARTITION WHY`, of which nobody knows more.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::history::{Attempt, Outcome};

/// What a client told of a record, and when.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Since the load began.
    pub at: Duration,
    /// The record's.
    pub partition: i32,
    /// As far as it is known now.
    pub attempt: Attempt,
}

/// A running client.
#[derive(Debug)]
pub struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    told: Arc<Mutex<Vec<Told>>>,
    begun: Instant,
    reader: Option<JoinHandle<()>>,
}

fn parse(line: &str) -> Option<(i32, Attempt)> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let id = words.next()?.parse().ok()?;
    let partition = words.next()?.parse().ok()?;
    let outcome = match kind {
        "acked" => Outcome::Acknowledged(words.next()?.parse().ok()?),
        "sent" | "failed" => Outcome::Unknown,
        _ => return None,
    };
    let attempt = Attempt {
        id,
        records: 1,
        outcome,
    };
    Some((partition, attempt))
}

impl Load {
    /// Starts a client.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (told, begun) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let here = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((partition, attempt)) = parse(&line) {
                    let at = begun.elapsed();
                    let told = Told {
                        at,
                        partition,
                        attempt,
                    };
                    here.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(told);
                }
            }
        });
        Ok(Self {
            child,
            stdin,
            told,
            begun,
            reader: Some(reader),
        })
    }

    /// The time of the load.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits until every partition has acknowledged something that is told after `since`.
    pub fn wait_for_all(
        &self,
        partitions: i32,
        since: Duration,
        patience: Duration,
    ) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let waiting: Vec<i32> = {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                let late = told.iter().rev().take_while(|told| told.at > since);
                let acked = late.filter(|t| matches!(t.attempt.outcome, Outcome::Acknowledged(_)));
                let acked: Vec<i32> = acked.map(|told| told.partition).collect();
                (0..partitions).filter(|p| !acked.contains(p)).collect()
            };
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let text = format!("partitions {waiting:?} acknowledge nothing for {patience:?}");
                return Err(io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has the client come to its end, and gives all that it has told.
    pub fn end(mut self, patience: Duration) -> io::Result<Vec<Told>> {
        drop(self.stdin.take());
        let deadline = Instant::now() + patience;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    return Err(io::Error::other("the client does not end"));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if let Some(reader) = self.reader.take() {
            reader
                .join()
                .map_err(|_| io::Error::other("the reader panicked"))?;
        }
        if !status.success() {
            return Err(io::Error::other(format!("the client ended with {status}")));
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(told.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of each record of a partition: the last that was told of it.
pub fn attempts_of(told: &[Told], partition: i32) -> Vec<Attempt> {
    let mut last = std::collections::BTreeMap::new();
    for told in told.iter().filter(|told| told.partition == partition) {
        let known = last.entry(told.attempt.id).or_insert(told.attempt);
        if matches!(told.attempt.outcome, Outcome::Acknowledged(_)) {
            *known = told.attempt;
        }
    }
    last.into_values().collect()
}

/// The longest time within `from..to` in which a partition acknowledged nothing.
pub fn longest_silence(
    told: &[Told],
    partition: i32,
    (from, to): (Duration, Duration),
) -> Duration {
    let acked = told.iter().filter(|told| {
        told.partition == partition && matches!(told.attempt.outcome, Outcome::Acknowledged(_))
    });
    let mut before = from;
    let mut longest = Duration::ZERO;
    for at in acked
        .map(|told| told.at)
        .filter(|at| (from..to).contains(at))
    {
        longest = longest.max(at - before);
        before = at;
    }
    longest.max(to.saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at_ms: u64, partition: i32, id: u64, offset: Option<i64>) -> Told {
        let outcome = offset.map_or(Outcome::Unknown, Outcome::Acknowledged);
        let attempt = Attempt {
            id,
            records: 1,
            outcome,
        };
        Told {
            at: Duration::from_millis(at_ms),
            partition,
            attempt,
        }
    }

    #[test]
    fn the_longest_silence_is_between_acknowledgements_of_one_partition() {
        let all = [
            told(10, 0, 1, Some(0)),
            told(20, 1, 2, Some(0)),
            told(25, 0, 3, None),
            told(90, 0, 3, Some(1)),
            told(95, 0, 4, Some(2)),
        ];
        let within = (Duration::from_millis(5), Duration::from_millis(100));
        assert_eq!(longest_silence(&all, 0, within), Duration::from_millis(80));
        assert_eq!(longest_silence(&all, 1, within), Duration::from_millis(80));
        assert_eq!(longest_silence(&all, 2, within), Duration::from_millis(95));
    }

    #[test]
    fn an_acknowledgement_is_the_last_word_on_a_record() {
        let all = [
            told(1, 0, 7, None),
            told(2, 0, 7, Some(3)),
            told(3, 0, 8, None),
        ];
        let found = attempts_of(&all, 0);
        let outcomes: Vec<Outcome> = found.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Outcome::Acknowledged(3), Outcome::Unknown]);
    }

    #[test]
    fn lines_that_are_none_of_ours_are_passed_over() {
        assert!(parse("acked 5 1 77").is_some_and(|(partition, _)| partition == 1));
        assert!(parse("acked 5 1").is_none());
        assert!(parse("WARN something").is_none());
    }
}
