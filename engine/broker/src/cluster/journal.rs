//! The bytes of the metadata journal: one frame per change, appended and flushed before any of its
//! commands counts, and once in a while rewritten as the few commands that lead to the same state.
//!
//! ```text
//! payload  one or more commands, all of which count or none
//! command  kind u8, then its fields; text: length u32, UTF-8; overrides: count u32, pairs of text
//!          1 create topic   id [16], name, partitions i32, overrides
//!          2 delete topic   id [16]
//!          3 grow topic     id [16], partitions i32
//!          4 configure topic    id [16], overrides
//!          5 configure broker   overrides
//!          6 reserve producer ids   next i64
//!          7 configure brokers  overrides
//!          8 set quotas       user, client id, overrides: limits by name
//!            each of the two is a u8: 0 none, 1 whoever has none, 2 and a name
//!         10 configure group    id text, overrides
//! ```
//!
//! Numbers are big-endian. What is around them is [`ringmill_replication::frames`]'.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmill_replication::frames::{self, Damaged};
use ringmill_wire::Uuid;
use thiserror::Error;

use super::image::Command;
use crate::config::Overrides;
use crate::quotas::{Entity, Part};

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JournalError {
    /// A change in the middle is lost.
    #[error("the metadata's journal: {0}")]
    Damaged(#[from] Damaged),
    /// A frame is whole, but holds no commands: a newer version wrote it.
    #[error("the metadata journal has an unknown command at byte {at}: a newer version wrote it")]
    Unknown {
        /// Where the frame begins.
        at: usize,
    },
}

/// A journal that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Its commands.
    pub commands: Vec<Command>,
    /// The number of the next change.
    pub next: u64,
    /// Where the next frame belongs; bytes from here on were torn off a write.
    pub end: usize,
    /// A copy of a change that counts is not whole: the journal is to be rewritten.
    pub is_worn: bool,
}

/// Appends a change.
///
/// # Panics
/// If there are no commands, or more than 4 GiB of them.
pub fn encode(number: u64, commands: &[Command], out: &mut BytesMut) {
    let mut payload = BytesMut::new();
    for command in commands {
        encode_command(command, &mut payload);
    }
    frames::encode(number, &payload, out);
}

fn encode_command(command: &Command, out: &mut BytesMut) {
    match command {
        Command::CreateTopic {
            id,
            name,
            partitions,
            overrides,
        } => {
            out.put_u8(1);
            out.put_slice(id.as_bytes());
            put_text(out, name);
            out.put_i32(*partitions);
            put_overrides(out, overrides);
        }
        Command::DeleteTopic { id } => {
            out.put_u8(2);
            out.put_slice(id.as_bytes());
        }
        Command::GrowTopic { id, partitions } => {
            out.put_u8(3);
            out.put_slice(id.as_bytes());
            out.put_i32(*partitions);
        }
        Command::ConfigureTopic { id, overrides } => {
            out.put_u8(4);
            out.put_slice(id.as_bytes());
            put_overrides(out, overrides);
        }
        Command::ConfigureBroker { overrides } => {
            out.put_u8(5);
            put_overrides(out, overrides);
        }
        Command::ReserveProducerIds { next } => {
            out.put_u8(6);
            out.put_i64(*next);
        }
        Command::ConfigureBrokers { overrides } => {
            out.put_u8(7);
            put_overrides(out, overrides);
        }
        Command::ConfigureGroup { group, overrides } => {
            out.put_u8(10);
            put_text(out, group);
            put_overrides(out, overrides);
        }
        Command::ConfigureClientMetrics { name, overrides } => {
            out.put_u8(11);
            put_text(out, name);
            put_overrides(out, overrides);
        }
        Command::SetQuotas { entity, limits } => {
            out.put_u8(8);
            put_part(out, entity.user.as_ref());
            put_part(out, entity.client_id.as_ref());
            put_overrides(out, limits);
        }
    }
}

fn put_part(out: &mut BytesMut, part: Option<&Part>) {
    match part {
        None => out.put_u8(0),
        Some(Part::Default) => out.put_u8(1),
        Some(Part::Named(name)) => {
            out.put_u8(2);
            put_text(out, name);
        }
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn put_overrides(out: &mut BytesMut, overrides: &Overrides) {
    out.put_u32(overrides.len() as u32);
    for (name, value) in overrides {
        put_text(out, name);
        put_text(out, value);
    }
}

/// Reads a whole journal.
pub fn scan(journal: &Bytes) -> Result<Scan, JournalError> {
    let read = frames::scan(journal)?;
    let next = read.next();
    let mut commands = Vec::new();
    for (at, payload) in read.changes {
        let unknown = JournalError::Unknown { at };
        decode_payload(payload, &mut commands).ok_or(unknown)?;
    }
    Ok(Scan {
        commands,
        next,
        end: read.end,
        is_worn: read.is_worn,
    })
}

/// Adds a payload's commands; none if it holds anything else.
fn decode_payload(mut bytes: Bytes, commands: &mut Vec<Command>) -> Option<()> {
    while !bytes.is_empty() {
        commands.push(decode_command(&mut bytes)?);
    }
    Some(())
}

fn decode_command(bytes: &mut Bytes) -> Option<Command> {
    Some(match bytes.try_get_u8().ok()? {
        1 => Command::CreateTopic {
            id: get_id(bytes)?,
            name: get_text(bytes)?,
            partitions: bytes.try_get_i32().ok()?,
            overrides: get_overrides(bytes)?,
        },
        2 => Command::DeleteTopic { id: get_id(bytes)? },
        3 => Command::GrowTopic {
            id: get_id(bytes)?,
            partitions: bytes.try_get_i32().ok()?,
        },
        4 => Command::ConfigureTopic {
            id: get_id(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        5 => Command::ConfigureBroker {
            overrides: get_overrides(bytes)?,
        },
        6 => Command::ReserveProducerIds {
            next: bytes.try_get_i64().ok()?,
        },
        7 => Command::ConfigureBrokers {
            overrides: get_overrides(bytes)?,
        },
        8 => Command::SetQuotas {
            entity: Entity {
                user: get_part(bytes)?,
                client_id: get_part(bytes)?,
            },
            limits: get_overrides(bytes)?,
        },
        10 => Command::ConfigureGroup {
            group: get_text(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        11 => Command::ConfigureClientMetrics {
            name: get_text(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        _ => return None,
    })
}

fn get_part(bytes: &mut Bytes) -> Option<Option<Part>> {
    Some(match bytes.try_get_u8().ok()? {
        0 => None,
        1 => Some(Part::Default),
        2 => Some(Part::Named(get_text(bytes)?)),
        _ => return None,
    })
}

fn get_id(bytes: &mut Bytes) -> Option<Uuid> {
    let mut id = [0; 16];
    bytes.try_copy_to_slice(&mut id).ok()?;
    Some(Uuid::from_bytes(id))
}

fn get_text(bytes: &mut Bytes) -> Option<String> {
    let len = bytes.try_get_u32().ok()? as usize;
    if len > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(len).to_vec()).ok()
}

fn get_overrides(bytes: &mut Bytes) -> Option<Overrides> {
    let count = bytes.try_get_u32().ok()?;
    let mut overrides = Overrides::new();
    for _ in 0..count {
        overrides.insert(get_text(bytes)?, get_text(bytes)?);
    }
    Some(overrides)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Option<Part>> {
        let part = prop_oneof![Just(Part::Default), ".{0,9}".prop_map(Part::Named)];
        proptest::option::of(part)
    }

    fn commands() -> impl Strategy<Value = Vec<Command>> {
        let id = any::<u128>().prop_map(Uuid::from_u128);
        let overrides = proptest::collection::btree_map("[a-z.]{1,9}", ".{0,9}", 0..4);
        let command = prop_oneof![
            (id.clone(), "[a-z]{1,9}", any::<i32>(), overrides.clone()).prop_map(
                |(id, name, partitions, overrides)| Command::CreateTopic {
                    id,
                    name,
                    partitions,
                    overrides
                }
            ),
            id.clone().prop_map(|id| Command::DeleteTopic { id }),
            (id.clone(), any::<i32>())
                .prop_map(|(id, partitions)| Command::GrowTopic { id, partitions }),
            (id, overrides.clone())
                .prop_map(|(id, overrides)| Command::ConfigureTopic { id, overrides }),
            overrides
                .clone()
                .prop_map(|overrides| Command::ConfigureBroker { overrides }),
            overrides
                .clone()
                .prop_map(|overrides| Command::ConfigureBrokers { overrides }),
            ("[a-z]{1,9}", overrides.clone())
                .prop_map(|(group, overrides)| Command::ConfigureGroup { group, overrides }),
            (".{1,9}", overrides)
                .prop_map(|(name, overrides)| Command::ConfigureClientMetrics { name, overrides }),
            any::<i64>().prop_map(|next| Command::ReserveProducerIds { next }),
            (
                part(),
                part(),
                proptest::collection::btree_map("[a-z_]{1,9}", ".{0,9}", 0..3)
            )
                .prop_map(|(user, client_id, limits)| Command::SetQuotas {
                    entity: Entity { user, client_id },
                    limits,
                }),
        ];
        proptest::collection::vec(command, 1..5)
    }

    /// Changes, not empty, and the journal of them with the place where each ends.
    fn changes() -> impl Strategy<Value = Vec<Vec<Command>>> {
        proptest::collection::vec(commands(), 0..6)
    }

    fn journal(changes: &[Vec<Command>]) -> (BytesMut, Vec<usize>) {
        let (mut out, mut ends) = (BytesMut::new(), vec![0]);
        for (number, commands) in changes.iter().enumerate() {
            encode(number as u64, commands, &mut out);
            ends.push(out.len());
        }
        (out, ends)
    }

    /// What a journal of `changes` reads as when all is well.
    fn read(changes: &[Vec<Command>], end: usize) -> Scan {
        Scan {
            commands: changes.concat(),
            next: changes.len() as u64,
            end,
            is_worn: false,
        }
    }

    proptest! {
        #[test]
        fn commands_come_back(changes in changes()) {
            let (bytes, _) = journal(&changes);
            let end = bytes.len();
            prop_assert_eq!(scan(&bytes.freeze()), Ok(read(&changes, end)));
        }

        #[test]
        fn a_torn_tail_is_cut_at_every_byte_and_no_change_is_halved(changes in changes()) {
            let (bytes, ends) = journal(&changes);
            let bytes = bytes.freeze();
            for cut in 0..=bytes.len() {
                let found = scan(&bytes.slice(..cut)).unwrap();
                // A change counts from the end of its first copy on.
                let copies = ends.windows(2).map(|pair| (pair[0] + pair[1]) / 2);
                let whole = copies.filter(|end| *end <= cut).count();
                prop_assert_eq!(&found.commands, &changes[..whole].concat());
                prop_assert!(found.end <= cut);
                let again = scan(&bytes.slice(..found.end)).unwrap();
                prop_assert_eq!(again.commands, found.commands, "what is kept stands alone");
            }
        }

        #[test]
        fn a_flipped_bit_loses_nothing_wherever_it_is(
            changes in changes(),
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            prop_assume!(!changes.is_empty());
            let (mut bytes, ends) = journal(&changes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let found = scan(&bytes.clone().freeze()).unwrap();
            prop_assert_eq!(found.commands, changes.concat());
            let last_copy = (ends[ends.len() - 2] + bytes.len()) / 2;
            if at < last_copy {
                prop_assert!(found.is_worn && found.end == bytes.len());
            } else {
                prop_assert_eq!(found.end, last_copy, "as if its write had been torn");
            }
        }

        #[test]
        fn a_change_without_a_whole_copy_is_refused_unless_it_is_the_last(
            changes in changes(),
            victim: prop::sample::Index,
            first: prop::sample::Index,
            second: prop::sample::Index,
        ) {
            prop_assume!(!changes.is_empty());
            let (mut bytes, ends) = journal(&changes);
            let victim = victim.index(changes.len());
            let len = (ends[victim + 1] - ends[victim]) / 2;
            let first = ends[victim] + first.index(len);
            bytes[first] ^= 0x55;
            bytes[ends[victim] + len + second.index(len)] ^= 0xaa;
            let found = scan(&bytes.freeze());
            if victim + 1 < changes.len() {
                let refused = matches!(found, Err(JournalError::Damaged(Damaged { at, .. })) if at == ends[victim]);
                prop_assert!(refused, "{:?}", found);
            } else {
                prop_assert_eq!(found, Ok(read(&changes[..victim], ends[victim])));
            }
        }

        #[test]
        fn sectors_that_a_crash_lost_of_the_last_write_are_no_damage(
            changes in changes(),
            large in proptest::collection::vec("[a-z]{200}", 1..20),
            lost in proptest::collection::vec(any::<bool>(), 32),
        ) {
            let (mut bytes, _) = journal(&changes);
            let start = bytes.len();
            let overrides = large.iter().map(|text| (text.clone(), text.clone())).collect();
            let last = vec![Command::ConfigureBroker { overrides }];
            encode(changes.len() as u64, &last, &mut bytes);
            for (sector, lost) in lost.into_iter().enumerate() {
                let from = (sector * 512).clamp(start, bytes.len());
                let to = (sector * 512 + 512).clamp(start, bytes.len());
                if lost {
                    bytes[from..to].fill(0);
                }
            }
            let found = scan(&bytes.freeze()).unwrap();
            let without = changes.concat();
            let with = [without.clone(), last].concat();
            prop_assert!(found.commands == without || found.commands == with);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = scan(&Bytes::from(bytes.clone()));
            let _ = decode_payload(Bytes::from(bytes), &mut Vec::new());
        }

        #[test]
        fn arbitrary_commands_of_a_whole_frame_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 1..60),
        ) {
            let mut bytes = BytesMut::new();
            frames::encode(0, &payload, &mut bytes);
            match scan(&bytes.freeze()) {
                Ok(scan) => prop_assert_eq!(scan.next, 1),
                Err(error) => prop_assert_eq!(error, JournalError::Unknown { at: 0 }),
            }
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_torn_tail() {
        let (mut bytes, ends) = journal(&[vec![Command::ReserveProducerIds { next: 1 }]]);
        bytes.put_bytes(0, 4096);
        assert_eq!(scan(&bytes.freeze()).unwrap().end, ends[1]);
    }

    #[test]
    fn a_change_that_is_missing_altogether_is_noticed() {
        let reserve = |next| vec![Command::ReserveProducerIds { next }];
        let (bytes, ends) = journal(&[reserve(1), reserve(2), reserve(3)]);
        let mut holed = BytesMut::from(&bytes[..ends[1]]);
        holed.extend_from_slice(&bytes[ends[2]..]);
        let damaged = JournalError::Damaged(Damaged {
            at: ends[1],
            reason: "a change is missing",
        });
        assert_eq!(scan(&holed.freeze()), Err(damaged));
    }

    #[test]
    fn a_frame_inside_of_a_text_is_not_taken_for_one() {
        let name = "RMJ".repeat(80);
        let overrides = Overrides::from([(name, "RMJ1".repeat(50))]);
        let (mut bytes, ends) = journal(&[vec![Command::ConfigureBroker { overrides }]]);
        bytes[3] ^= 1;
        bytes.truncate(ends[1] / 2);
        assert_eq!(scan(&bytes.freeze()).unwrap().end, 0);
    }
}
