//! Consumers that read all the time, as members of groups: what they saw is what is there for ever, no
//! group is led past a record, and how long each was shown nothing is told.
//!
//! A member is a process of our client: it is started with the bootstrap servers, the topic and its
//! group, and tells `read PARTITION OFFSET ID` of each record, `foreign PARTITION OFFSET` of one whose
//! bytes nobody sent.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::teller::{Teller, wait_until};
use crate::history::Author;

/// The groups, and how many members each has.
pub const GROUPS: [(&str, usize); 2] = [("alone", 1), ("shared", 2)];

/// A record that a member was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Since the case began.
    pub at: Duration,
    /// Where.
    pub partition: i32,
    /// Where.
    pub offset: i64,
    /// Who had sent it; nobody, if it is foreign.
    pub id: Option<u64>,
}

impl Read {
    fn parse(line: &str, at: Duration) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let (partition, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let id = match kind {
            "read" => Some(words.next()?.parse().ok()?),
            "foreign" => None,
            _ => return None,
        };
        Some(Self {
            at,
            partition,
            offset,
            id,
        })
    }
}

/// A promise to readers that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are where and what was found")]
pub enum Broken {
    /// What was read is not there any more, or something else is.
    Gone {
        offset: i64,
        read: Option<u64>,
        there: Option<u64>,
    },
    /// A group read on behind records that none of its members was given.
    Skipped { from: i64, to: i64 },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone {
                offset,
                read,
                there,
            } => write!(f, "offset {offset} was read as {read:?}, and is {there:?}"),
            Self::Skipped { from, to } => {
                write!(f, "offsets from {from} to below {to} were skipped")
            }
        }
    }
}

/// Holds what all members of one group read of a partition against its log at last. A group may read
/// something again, when its members change.
pub fn check(reads: &[Read], start: i64, log: &[(i64, Option<Author>)]) -> Vec<Broken> {
    let there: BTreeMap<i64, u64> = log
        .iter()
        .filter_map(|(offset, author)| Some((*offset, (*author)?.attempt)))
        .collect();
    let mut broken = Vec::new();
    let mut offsets: Vec<i64> = Vec::with_capacity(reads.len());
    for read in reads {
        let there = there.get(&read.offset).copied();
        if read.id.is_none() || read.id != there {
            broken.push(Broken::Gone {
                offset: read.offset,
                read: read.id,
                there,
            });
        }
        offsets.push(read.offset);
    }
    offsets.sort_unstable();
    let mut next = start;
    for offset in offsets {
        if offset > next {
            broken.push(Broken::Skipped {
                from: next,
                to: offset,
            });
        }
        next = next.max(offset + 1);
    }
    broken
}

/// What the members of a group were given, by partition, in the order of time.
pub type GroupReads = BTreeMap<i32, Vec<Read>>;

/// The running members of all groups.
#[derive(Debug)]
pub struct Readers(Vec<Vec<Teller<Read>>>);

impl Readers {
    /// Starts them all; `member` makes the command of a member of a group. Times are since `begun`.
    pub fn start(member: impl Fn(&str) -> io::Result<Command>, begun: Instant) -> io::Result<Self> {
        let groups = GROUPS.iter().map(|(group, members)| {
            let start = |_| {
                let parse = move |line: &str| Read::parse(line, begun.elapsed());
                Teller::start(member(group)?, parse)
            };
            (0..*members).map(start).collect()
        });
        Ok(Self(groups.collect::<io::Result<_>>()?))
    }

    /// Waits until every group has been given something of every partition after `since`.
    pub fn wait_for_all(
        &self,
        partitions: i32,
        since: Duration,
        patience: Duration,
    ) -> io::Result<()> {
        self.wait(
            "is given nothing of",
            partitions,
            patience,
            |partition, read| read.partition == partition && read.at > since,
        )
    }

    /// Waits until every group has read each partition up to its end.
    pub fn wait_for_ends(&self, ends: &BTreeMap<i32, i64>, patience: Duration) -> io::Result<()> {
        let count = ends.len() as i32;
        self.wait(
            "does not come to the end of",
            count,
            patience,
            |partition, read| {
                let end = ends.get(&partition).copied().unwrap_or_default();
                read.partition == partition && read.offset + 1 >= end
            },
        )
    }

    fn wait(
        &self,
        what: &str,
        partitions: i32,
        patience: Duration,
        is_it: impl Fn(i32, &Read) -> bool,
    ) -> io::Result<()> {
        wait_until(patience, || {
            for ((group, _), members) in GROUPS.iter().zip(&self.0) {
                for partition in 0..partitions {
                    let has = |told: &[Read]| told.iter().rev().any(|read| is_it(partition, read));
                    if !members.iter().any(|member| member.look(has)) {
                        return Err(format!("group {group} {what} partition {partition}"));
                    }
                }
            }
            Ok(())
        })
    }

    /// Has them come to their end; gives what each group was given.
    pub fn end(self, patience: Duration) -> io::Result<Vec<GroupReads>> {
        let groups = self.0.into_iter().map(|members| {
            let mut reads = GroupReads::new();
            for member in members {
                for read in member.end(patience)? {
                    reads.entry(read.partition).or_default().push(read);
                }
            }
            for of_partition in reads.values_mut() {
                of_partition.sort_by_key(|read| read.at);
            }
            Ok(reads)
        });
        groups.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(offset: i64, id: u64) -> Read {
        Read {
            at: Duration::from_millis(offset as u64),
            partition: 0,
            offset,
            id: Some(id),
        }
    }

    fn log(ids: &[u64]) -> Vec<(i64, Option<Author>)> {
        let author = |id: &u64| {
            Some(Author {
                attempt: *id,
                index: 0,
            })
        };
        (0..).zip(ids.iter().map(author)).collect()
    }

    #[test]
    fn reading_again_is_no_offence() {
        let reads = [read(0, 5), read(1, 6), read(0, 5), read(1, 6), read(2, 7)];
        assert_eq!(check(&reads, 0, &log(&[5, 6, 7, 8])), []);
        assert_eq!(check(&[], 0, &log(&[5])), []);
    }

    #[test]
    fn what_was_read_has_to_stay() {
        let broken = check(&[read(0, 5), read(1, 6)], 0, &log(&[5, 9]));
        let gone = |there| Broken::Gone {
            offset: 1,
            read: Some(6),
            there,
        };
        assert_eq!(broken, [gone(Some(9))]);
        assert_eq!(
            check(&[read(0, 5), read(1, 6)], 0, &log(&[5])),
            [gone(None)]
        );
        let foreign = Read {
            id: None,
            ..read(0, 5)
        };
        assert_eq!(check(&[foreign], 0, &log(&[5])).len(), 1);
    }

    #[test]
    fn what_a_group_was_led_past_is_found() {
        let reads = [read(0, 5), read(3, 8)];
        let broken = check(&reads, 0, &log(&[5, 6, 7, 8]));
        assert_eq!(broken, [Broken::Skipped { from: 1, to: 3 }]);
        assert_eq!(check(&[read(1, 6)], 0, &log(&[5, 6])).len(), 1);
    }

    #[test]
    fn lines_that_are_none_of_ours_are_passed_over() {
        let parse = |line: &str| Read::parse(line, Duration::ZERO);
        assert_eq!(parse("read 2 7 9").and_then(|read| read.id), Some(9));
        assert!(parse("foreign 2 7").is_some_and(|read| read.id.is_none()));
        for line in ["", "read 2", "read 2 x 1", "read 2 7"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
