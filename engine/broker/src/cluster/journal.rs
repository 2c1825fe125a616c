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
use ringmill_replication::frames::Damaged;
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

/// A change's payload.
pub fn encode(commands: &[Command]) -> BytesMut {
    let mut payload = BytesMut::new();
    for command in commands {
        encode_command(command, &mut payload);
    }
    payload
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

/// The commands of a journal's changes, each of which comes with the byte at which it begins.
///
/// # Errors
/// A change holds anything else.
pub fn decode(changes: Vec<(usize, Bytes)>) -> Result<Vec<Command>, JournalError> {
    let mut commands = Vec::new();
    for (at, payload) in changes {
        let unknown = JournalError::Unknown { at };
        decode_payload(payload, &mut commands).ok_or(unknown)?;
    }
    Ok(commands)
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

    proptest! {
        #[test]
        fn commands_come_back(changes in proptest::collection::vec(commands(), 0..6)) {
            let payloads = changes.iter().map(|commands| (0, encode(commands).freeze())).collect();
            prop_assert_eq!(decode(payloads), Ok(changes.concat()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            match decode(vec![(7, Bytes::from(bytes))]) {
                Ok(_) => {}
                Err(error) => prop_assert_eq!(error, JournalError::Unknown { at: 7 }),
            }
        }
    }
}
