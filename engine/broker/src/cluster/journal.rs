//! The bytes of the metadata journal: one frame per command, appended and flushed before the
//! command counts, and once in a while rewritten as the few commands that lead to the same state.
//!
//! ```text
//! frame    "RMJ1", payload length u32, CRC-32C of the payload u32, payload
//! payload  kind u8, then its fields; text: length u32, UTF-8; overrides: count u32, pairs of text
//!          1 create topic   id [16], name, partitions i32, overrides
//!          2 delete topic   id [16]
//!          3 grow topic     id [16], partitions i32
//!          4 configure topic    id [16], overrides
//!          5 configure broker   overrides
//!          6 reserve producer ids   next i64
//!          7 configure brokers  overrides
//! ```
//!
//! Numbers are big-endian. What a crash tore off the last write is cut; damage before the last
//! frame is an error that names the place, for the commands behind it were acknowledged.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmill_wire::Uuid;
use thiserror::Error;

use super::image::Command;
use crate::config::Overrides;

const MAGIC: &[u8; 4] = b"RMJ1";
const HEADER_LEN: usize = 12;

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JournalError {
    /// A frame in the middle is damaged.
    #[error("the metadata journal is damaged at byte {at}: {reason}; restore it from a copy")]
    Damaged {
        /// Where the frame begins.
        at: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A frame is whole, but holds no command: a newer version wrote it.
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
    /// Where the next frame belongs; bytes from here on were torn off a write that nobody was
    /// told of.
    pub end: usize,
}

/// Appends a command's frame.
pub fn encode(command: &Command, out: &mut BytesMut) {
    let start = out.len();
    out.put_slice(MAGIC);
    out.put_u64(0);
    encode_payload(command, out);
    let payload = start + HEADER_LEN;
    let len = (out.len() - payload) as u32;
    let crc = crc32c::crc32c(&out[payload..]);
    out[start + 4..start + 8].copy_from_slice(&len.to_be_bytes());
    out[start + 8..payload].copy_from_slice(&crc.to_be_bytes());
}

fn encode_payload(command: &Command, out: &mut BytesMut) {
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
    let mut commands = Vec::new();
    let mut at = 0;
    while at < journal.len() {
        match frame(&journal[at..]) {
            Ok(payload) => {
                let end = at + HEADER_LEN + payload.len();
                let command = decode_payload(journal.slice(at + HEADER_LEN..end));
                commands.push(command.ok_or(JournalError::Unknown { at })?);
                at = end;
            }
            Err(reason) if has_frame(&journal[at + 1..]) => {
                return Err(JournalError::Damaged { at, reason });
            }
            // Nothing whole follows: the tail of an interrupted write.
            Err(_) => break,
        }
    }
    Ok(Scan { commands, end: at })
}

/// The payload of the frame that `bytes` begin with.
fn frame(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err("the frame's header is cut off");
    };
    if &header[..4] != MAGIC {
        return Err("a frame does not begin here");
    }
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four"));
    let payload = rest
        .get(..number(4) as usize)
        .ok_or("the frame is cut off")?;
    if crc32c::crc32c(payload) != number(8) {
        return Err("the frame's checksum does not match");
    }
    Ok(payload)
}

/// Whether a whole frame begins anywhere in `bytes`.
fn has_frame(bytes: &[u8]) -> bool {
    let starts = bytes.windows(MAGIC.len()).enumerate();
    starts
        .filter(|(_, window)| window == MAGIC)
        .any(|(at, _)| frame(&bytes[at..]).is_ok())
}

fn decode_payload(mut bytes: Bytes) -> Option<Command> {
    let command = match bytes.try_get_u8().ok()? {
        1 => Command::CreateTopic {
            id: get_id(&mut bytes)?,
            name: get_text(&mut bytes)?,
            partitions: bytes.try_get_i32().ok()?,
            overrides: get_overrides(&mut bytes)?,
        },
        2 => Command::DeleteTopic {
            id: get_id(&mut bytes)?,
        },
        3 => Command::GrowTopic {
            id: get_id(&mut bytes)?,
            partitions: bytes.try_get_i32().ok()?,
        },
        4 => Command::ConfigureTopic {
            id: get_id(&mut bytes)?,
            overrides: get_overrides(&mut bytes)?,
        },
        5 => Command::ConfigureBroker {
            overrides: get_overrides(&mut bytes)?,
        },
        6 => Command::ReserveProducerIds {
            next: bytes.try_get_i64().ok()?,
        },
        7 => Command::ConfigureBrokers {
            overrides: get_overrides(&mut bytes)?,
        },
        _ => return None,
    };
    bytes.is_empty().then_some(command)
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
            overrides.prop_map(|overrides| Command::ConfigureBrokers { overrides }),
            any::<i64>().prop_map(|next| Command::ReserveProducerIds { next }),
        ];
        proptest::collection::vec(command, 0..8)
    }

    fn journal(commands: &[Command]) -> (BytesMut, Vec<usize>) {
        let (mut out, mut ends) = (BytesMut::new(), vec![0]);
        for command in commands {
            encode(command, &mut out);
            ends.push(out.len());
        }
        (out, ends)
    }

    proptest! {
        #[test]
        fn commands_come_back(commands in commands()) {
            let (bytes, _) = journal(&commands);
            let end = bytes.len();
            prop_assert_eq!(scan(&bytes.freeze()), Ok(Scan { commands, end }));
        }

        #[test]
        fn a_torn_tail_is_cut_at_every_byte(commands in commands(), cut: prop::sample::Index) {
            let (bytes, ends) = journal(&commands);
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let found = scan(&bytes.freeze().slice(..cut)).unwrap();
            prop_assert_eq!(found.end, ends[whole]);
            prop_assert_eq!(&found.commands[..], &commands[..whole]);
        }

        #[test]
        fn damage_before_the_last_frame_is_never_taken_for_a_torn_tail(
            commands in commands(),
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            prop_assume!(commands.len() > 1);
            let (mut bytes, ends) = journal(&commands);
            let last = ends[ends.len() - 2];
            bytes[at.index(last)] ^= 1 << bit;
            prop_assert!(scan(&bytes.freeze()).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = scan(&Bytes::from(bytes.clone()));
            let _ = decode_payload(Bytes::from(bytes));
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_torn_tail() {
        let (mut bytes, ends) = journal(&[Command::ReserveProducerIds { next: 1 }]);
        bytes.put_bytes(0, 4096);
        assert_eq!(scan(&bytes.freeze()).unwrap().end, ends[1]);
    }
}
