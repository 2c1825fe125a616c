//! What was sent, what was promised, what was found: the rules that no crash may break.
//!
//! Every record's value names the attempt that sent it, so that a log read back tells for each
//! record who wrote it. The checker is pure: it takes a history and a log and says what is wrong.

use std::collections::BTreeMap;
use std::fmt;

use ringmill_wire::builder::{BatchBuilder, NewRecord};

/// What a producer knows of one batch that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: it stands at this base offset, for ever.
    Acknowledged(i64),
    /// Refused with an error that says that nothing was written: it never appears.
    Refused,
    /// No answer came: it may be there, whole, or not.
    Unknown,
}

/// One batch that was sent to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Unique in the history.
    pub id: u64,
    /// Records in the batch.
    pub records: u32,
    /// What came back.
    pub outcome: Outcome,
}

/// Who wrote a record, as its value tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Author {
    /// The attempt.
    pub attempt: u64,
    /// The record's place in its batch.
    pub index: u32,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are who, where and what was found instead"
)]
pub enum Violation {
    /// A record that is none of ours, or whose bytes changed.
    Foreign { offset: i64 },
    /// Offsets are not dense.
    Hole { after: i64, next: i64 },
    /// An acknowledged record is not at its offset.
    Lost {
        author: Author,
        offset: i64,
        found: Option<Author>,
    },
    /// A record of an attempt that was refused.
    Refused { author: Author, offset: i64 },
    /// A record stands twice.
    Twice { author: Author, offset: i64 },
    /// A batch is there in part, or its records are not in order.
    Torn { attempt: u64, offset: i64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { offset } => write!(f, "offset {offset} holds what nobody sent"),
            Self::Hole { after, next } => write!(f, "offset {after} is followed by {next}"),
            Self::Lost {
                author,
                offset,
                found,
            } => write!(
                f,
                "acknowledged record {author:?} is not at its offset {offset}, but {found:?}"
            ),
            Self::Refused { author, offset } => {
                write!(f, "offset {offset} holds {author:?}, which was refused")
            }
            Self::Twice { author, offset } => {
                write!(f, "offset {offset} holds {author:?} once more")
            }
            Self::Torn { attempt, offset } => {
                write!(f, "batch {attempt} is torn at offset {offset}")
            }
        }
    }
}

const HEAD: usize = 12;

fn filler(author: Author, len: usize) -> impl Iterator<Item = u8> {
    let mut state =
        author.attempt.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(author.index) | 1;
    (0..len).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

/// A value of `len` bytes (at least 12) that names its author and can be checked byte by byte.
pub fn value(author: Author, len: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(len.max(HEAD));
    value.extend_from_slice(&author.attempt.to_be_bytes());
    value.extend_from_slice(&author.index.to_be_bytes());
    value.extend(filler(author, len.saturating_sub(HEAD)));
    value
}

/// The author of a value, if not a byte of it has changed.
pub fn author(value: &[u8]) -> Option<Author> {
    let attempt = u64::from_be_bytes(value.get(..8)?.try_into().ok()?);
    let index = u32::from_be_bytes(value.get(8..HEAD)?.try_into().ok()?);
    let author = Author { attempt, index };
    let rest = &value[HEAD..];
    filler(author, rest.len())
        .eq(rest.iter().copied())
        .then_some(author)
}

/// Fills a batch with an attempt's records, of `lens` bytes each.
pub fn fill(builder: &mut BatchBuilder, attempt: u64, lens: &[usize], timestamp: i64) {
    for (index, len) in (0..).zip(lens) {
        let value = value(Author { attempt, index }, *len);
        let record = NewRecord {
            timestamp,
            value: Some(&value),
            ..NewRecord::default()
        };
        builder
            .append(&record)
            .expect("the batch's limit is above what tests send");
    }
}

/// Checks a partition's whole log, from its start, against all attempts on it. What lies below
/// `log_start` may have been removed by retention.
pub fn check(
    attempts: &[Attempt],
    log_start: i64,
    log: &[(i64, Option<Author>)],
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let by_id: BTreeMap<u64, &Attempt> = attempts.iter().map(|a| (a.id, a)).collect();
    let mut seen: BTreeMap<Author, i64> = BTreeMap::new();
    let mut before: Option<(i64, Option<Author>)> = None;
    for &(offset, author) in log {
        let expected = before.map_or(log_start, |(offset, _)| offset + 1);
        if offset != expected {
            violations.push(Violation::Hole {
                after: expected - 1,
                next: offset,
            });
        }
        let known = author.and_then(|a| by_id.get(&a.attempt).map(|attempt| (a, *attempt)));
        match known {
            Some((a, attempt)) if a.index < attempt.records => {
                if attempt.outcome == Outcome::Refused {
                    violations.push(Violation::Refused { author: a, offset });
                }
                if seen.insert(a, offset).is_some() {
                    violations.push(Violation::Twice { author: a, offset });
                }
            }
            _ => violations.push(Violation::Foreign { offset }),
        }
        if is_torn(
            before.and_then(|(_, a)| a),
            author,
            before.is_none(),
            &by_id,
        ) {
            let attempt = author
                .or(before.and_then(|(_, a)| a))
                .map_or(0, |a| a.attempt);
            violations.push(Violation::Torn { attempt, offset });
        }
        before = Some((offset, author));
    }
    if let Some((offset, Some(last))) = before
        && by_id
            .get(&last.attempt)
            .is_some_and(|a| last.index + 1 != a.records)
    {
        violations.push(Violation::Torn {
            attempt: last.attempt,
            offset,
        });
    }
    violations.extend(
        attempts
            .iter()
            .filter_map(|a| lost(a, log_start, log, &seen)),
    );
    violations
}

/// The first record of an acknowledged batch that is not where it was promised.
fn lost(
    attempt: &Attempt,
    log_start: i64,
    log: &[(i64, Option<Author>)],
    seen: &BTreeMap<Author, i64>,
) -> Option<Violation> {
    let Outcome::Acknowledged(base) = attempt.outcome else {
        return None;
    };
    (0..attempt.records).find_map(|index| {
        let (author, offset) = (
            Author {
                attempt: attempt.id,
                index,
            },
            base + i64::from(index),
        );
        if offset < log_start || seen.get(&author) == Some(&offset) {
            return None;
        }
        let found = log.iter().find(|(at, _)| *at == offset);
        let found = found.and_then(|(_, a)| *a);
        Some(Violation::Lost {
            author,
            offset,
            found,
        })
    })
}

/// A batch's records stand together, in order, from the first to the last.
fn is_torn(
    before: Option<Author>,
    here: Option<Author>,
    first: bool,
    by_id: &BTreeMap<u64, &Attempt>,
) -> bool {
    let Some(here) = here else { return false };
    match before {
        // Retention may have cut the log's start within a batch.
        None if first => false,
        None => here.index != 0,
        Some(before) if before.attempt == here.attempt => before.index + 1 != here.index,
        Some(before) => {
            let whole = by_id
                .get(&before.attempt)
                .is_none_or(|a| before.index + 1 == a.records);
            here.index != 0 || !whole
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(id: u64, records: u32, outcome: Outcome) -> Attempt {
        Attempt {
            id,
            records,
            outcome,
        }
    }

    fn log(authors: &[(u64, u32)]) -> Vec<(i64, Option<Author>)> {
        let author = |&(attempt, index)| Some(Author { attempt, index });
        (0..).zip(authors.iter().map(author)).collect()
    }

    fn history() -> Vec<Attempt> {
        vec![
            attempt(1, 2, Outcome::Acknowledged(0)),
            attempt(2, 1, Outcome::Refused),
            attempt(3, 2, Outcome::Unknown),
            attempt(4, 1, Outcome::Acknowledged(4)),
        ]
    }

    #[test]
    fn a_log_that_keeps_its_promises_passes() {
        let whole = log(&[(1, 0), (1, 1), (3, 0), (3, 1), (4, 0)]);
        assert_eq!(check(&history(), 0, &whole), []);
        // Retention took the first batch and a half.
        assert_eq!(check(&history(), 3, &whole[3..]), []);
    }

    #[test]
    fn each_broken_promise_is_found() {
        let broken = |authors: &[(u64, u32)]| check(&history(), 0, &log(authors));
        let lost = broken(&[(1, 0), (1, 1), (3, 0), (3, 1)]);
        assert!(
            matches!(
                lost[..],
                [Violation::Lost {
                    offset: 4,
                    found: None,
                    ..
                }]
            ),
            "{lost:?}"
        );
        let swapped = broken(&[(1, 0), (1, 1), (4, 0), (3, 0), (3, 1)]);
        assert!(
            matches!(swapped[..], [Violation::Lost { offset: 4, .. }]),
            "{swapped:?}"
        );
        let refused = broken(&[(1, 0), (1, 1), (3, 0), (3, 1), (4, 0), (2, 0)]);
        assert!(
            matches!(refused[..], [Violation::Refused { offset: 5, .. }]),
            "{refused:?}"
        );
        let torn = broken(&[(1, 0), (1, 1), (3, 1), (3, 1), (4, 0)]);
        assert!(
            torn.iter()
                .any(|v| matches!(v, Violation::Torn { attempt: 3, .. })),
            "{torn:?}"
        );
        let half = broken(&[(1, 0), (1, 1), (3, 0), (4, 0)]);
        assert!(
            half.iter().any(|v| matches!(v, Violation::Torn { .. })),
            "{half:?}"
        );
        let twice = broken(&[(1, 0), (1, 1), (3, 0), (3, 1), (4, 0), (4, 0)]);
        assert!(
            twice.iter().any(|v| matches!(v, Violation::Twice { .. })),
            "{twice:?}"
        );
        let mut hole = log(&[(1, 0), (1, 1), (3, 0), (3, 1), (4, 0)]);
        hole.remove(2);
        let hole = check(&history(), 0, &hole);
        assert!(
            hole.contains(&Violation::Hole { after: 1, next: 3 }),
            "{hole:?}"
        );
        let foreign = check(&history(), 0, &[(0, None)]);
        assert!(
            foreign.contains(&Violation::Foreign { offset: 0 }),
            "{foreign:?}"
        );
        let end = check(&[attempt(3, 2, Outcome::Unknown)], 0, &log(&[(3, 0)]));
        assert_eq!(
            end,
            [Violation::Torn {
                attempt: 3,
                offset: 0
            }]
        );
    }

    #[test]
    fn a_value_names_its_author_and_shows_every_changed_bit() {
        let who = Author {
            attempt: 77,
            index: 3,
        };
        let bytes = value(who, 100);
        assert_eq!((bytes.len(), author(&bytes)), (100, Some(who)));
        for bit in 0..800 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(author(&changed), Some(who), "bit {bit}");
        }
    }
}
