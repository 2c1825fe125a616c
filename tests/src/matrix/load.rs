//! A client under test: a process that produces to every partition at a steady rate and tells what
//! became of each record, a line each. Any client can be such a process.
//!
//! It is started with the bootstrap servers, the topic, the number of partitions, records per second
//! and partition, and the first record's number; it produces with `acks=all` until its standard input
//! ends, waits for what it has sent, and exits. A request that nobody answers is its own to give up:
//! after 1.5 seconds (`request.timeout.ms`), where most clients wait for 30. Its lines: `sent ID PARTITION`,
//! `acked ID PARTITION OFFSET`, and `failed ID PARTITION WHY`, of which nobody knows more.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::teller::{Teller, wait_until};
use crate::history::{Attempt, Outcome};

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is on its way.
    Sent,
    /// It stands at this offset.
    Acknowledged(i64),
    /// The client has given up.
    Failed,
}

/// What a client told of a record, and when.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Since the case began.
    pub at: Duration,
    /// The record's.
    pub partition: i32,
    /// Its number.
    pub id: u64,
    /// As far as it was known then.
    pub became: Became,
}

impl Told {
    fn parse(line: &str, at: Duration) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let id = words.next()?.parse().ok()?;
        let partition = words.next()?.parse().ok()?;
        let became = match kind {
            "acked" => Became::Acknowledged(words.next()?.parse().ok()?),
            "sent" => Became::Sent,
            "failed" => Became::Failed,
            _ => return None,
        };
        Some(Self {
            at,
            partition,
            id,
            became,
        })
    }

    /// It says that the record is there.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.became, Became::Acknowledged(_))
    }
}

/// A running client.
#[derive(Debug)]
pub struct Load(Teller<Told>);

impl Load {
    /// Starts a client; times are since `begun`.
    pub fn start(command: Command, begun: Instant) -> io::Result<Self> {
        Teller::start(command, move |line| Told::parse(line, begun.elapsed())).map(Self)
    }

    /// Waits until every partition has acknowledged something that is told after `since`.
    pub fn wait_for_all(
        &self,
        partitions: i32,
        since: Duration,
        patience: Duration,
    ) -> io::Result<()> {
        wait_until(patience, || {
            let waiting: Vec<i32> = self.0.look(|told| {
                let late = told.iter().rev().take_while(|told| told.at > since);
                let acked = late.filter(|told| told.is_acknowledged());
                let acked: Vec<i32> = acked.map(|told| told.partition).collect();
                (0..partitions).filter(|p| !acked.contains(p)).collect()
            });
            match waiting.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "partitions {waiting:?} acknowledge nothing for {patience:?}"
                )),
            }
        })
    }

    /// Has the client come to its end, and gives all that it has told.
    pub fn end(self, patience: Duration) -> io::Result<Vec<Told>> {
        self.0.end(patience)
    }
}

/// What became of each record of a partition, at last.
pub fn attempts_of(told: &[Told], partition: i32) -> Vec<Attempt> {
    let mut last = BTreeMap::new();
    for told in told.iter().filter(|told| told.partition == partition) {
        let attempt = last.entry(told.id).or_insert(Attempt {
            id: told.id,
            records: 1,
            outcome: Outcome::Unknown,
        });
        if let Became::Acknowledged(offset) = told.became {
            attempt.outcome = Outcome::Acknowledged(offset);
        }
    }
    last.into_values().collect()
}

/// The longest time within `from..to` in which nothing happened, if `times`, in their order, are when
/// something did.
pub fn longest_silence(
    times: impl Iterator<Item = Duration>,
    (from, to): (Duration, Duration),
) -> Duration {
    let mut before = from;
    let mut longest = Duration::ZERO;
    for at in times.filter(|at| (from..to).contains(at)) {
        longest = longest.max(at.saturating_sub(before));
        before = at;
    }
    longest.max(to.saturating_sub(before))
}

/// The time that 99 of 100 records took from `sent` to `acked` at the most, of those that were sent
/// within `from..to`.
pub fn p99(told: &[Told], (from, to): (Duration, Duration)) -> Duration {
    let mut sent = BTreeMap::new();
    let mut took = Vec::new();
    for told in told {
        match told.became {
            Became::Sent if (from..to).contains(&told.at) => {
                sent.insert(told.id, told.at);
            }
            Became::Acknowledged(_) => {
                took.extend(sent.remove(&told.id).map(|was| told.at.saturating_sub(was)));
            }
            _ => {}
        }
    }
    took.sort_unstable();
    let rank = (took.len() * 99).div_ceil(100);
    took.get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at_ms: u64, partition: i32, id: u64, offset: Option<i64>) -> Told {
        Told {
            at: Duration::from_millis(at_ms),
            partition,
            id,
            became: offset.map_or(Became::Sent, Became::Acknowledged),
        }
    }

    #[test]
    fn the_longest_silence_may_be_at_either_end() {
        let ms = Duration::from_millis;
        let silence = |times: &[u64]| {
            let times = times.iter().copied().map(ms);
            longest_silence(times, (ms(5), ms(100))).as_millis()
        };
        assert_eq!(silence(&[10, 90, 95]), 80);
        assert_eq!(silence(&[1, 20]), 80);
        assert_eq!(silence(&[70, 200]), 65);
        assert_eq!(silence(&[]), 95);
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
    fn the_slowest_of_a_hundred_is_left_out() {
        let window = (Duration::from_millis(50), Duration::from_millis(101));
        let p99_of = |slow: u64| {
            let pairs = (0..200).flat_map(|id| {
                let took = if id < slow { 900 } else { 5 };
                [told(100, 0, id, None), told(100 + took, 0, id, Some(0))]
            });
            p99(&pairs.collect::<Vec<_>>(), window).as_millis()
        };
        assert_eq!((p99_of(2), p99_of(3)), (5, 900));
        assert_eq!(p99(&[], window), Duration::ZERO);
    }

    #[test]
    fn lines_that_are_none_of_ours_are_passed_over() {
        let parse = |line: &str| Told::parse(line, Duration::ZERO);
        assert!(parse("acked 5 1 77").is_some_and(|told| told.is_acknowledged()));
        assert!(parse("failed 5 1 timed out").is_some());
        for line in ["", "acked 5", "acked 5 1", "% a warning", "sent x 1"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
