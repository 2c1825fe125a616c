//! Topics as requests name them: by name, whose rule stands here, or by id (KIP-516).

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use thiserror::Error;
use uuid::Uuid;

use crate::primitive::{ReadError, Reader, put_string};

/// Longest topic name in bytes: with a partition number it must still make a file name.
pub const MAX_TOPIC_NAME_LEN: usize = 249;

/// Why a name cannot be a topic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopicNameError {
    /// There is nothing.
    #[error("a topic name cannot be empty")]
    Empty,
    /// `.` and `..` are directories.
    #[error("a topic cannot be named '.' or '..'")]
    Dots,
    /// More than [`MAX_TOPIC_NAME_LEN`] bytes.
    #[error("a topic name has at most 249 characters, not {0}")]
    Long(usize),
    /// Something other than ASCII letters, digits, `.`, `_` and `-`.
    #[error("a topic name is made of ASCII letters, digits, '.', '_' and '-', not of {0:?}")]
    Character(char),
}

/// Checks a name by Kafka's rule, `[a-zA-Z0-9._-]{1,249}` but neither `.` nor `..`. What passes is
/// safe as a part of a file name.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name {
        "" => Err(TopicNameError::Empty),
        "." | ".." => Err(TopicNameError::Dots),
        _ if name.len() > MAX_TOPIC_NAME_LEN => Err(TopicNameError::Long(name.len())),
        _ => match name.chars().find(|&c| !legal(c)) {
            Some(character) => Err(TopicNameError::Character(character)),
            None => Ok(()),
        },
    }
}

/// A topic as a Produce or Fetch request names it: by name in older versions, by id in newer ones.
/// The name is as the client sent it, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// Produce up to version 12, Fetch up to version 12.
    Name(StrBytes),
    /// Produce from version 13, Fetch from version 13.
    Id(Uuid),
}

impl TopicRef {
    /// First versions of Produce and Fetch that name topics by id; the same for both.
    pub const FIRST_BY_ID: i16 = 13;
    /// Least bytes it takes on the wire.
    pub(crate) const MIN_LEN: usize = 1;

    pub(crate) fn read(
        reader: &mut Reader<'_>,
        version: i16,
        flexible: bool,
        frame: &Bytes,
    ) -> Result<Self, ReadError> {
        if version >= Self::FIRST_BY_ID {
            Ok(Self::Id(Uuid::from_bytes(reader.uuid()?)))
        } else {
            Ok(Self::Name(reader.str(flexible, frame)?))
        }
    }

    /// # Panics
    /// If the version names topics the other way: a response echoes its request.
    pub(crate) fn write(&self, out: &mut BytesMut, version: i16, flexible: bool) {
        match self {
            Self::Id(id) if version >= Self::FIRST_BY_ID => out.extend_from_slice(id.as_bytes()),
            Self::Name(name) if version < Self::FIRST_BY_ID => put_string(out, flexible, name),
            _ => panic!("version {version} does not name topics as {self:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_names_pass() {
        let longest = "x".repeat(MAX_TOPIC_NAME_LEN);
        for name in ["a", "A.b_c-9", "...", "__consumer_offsets", "-", &longest] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
        assert_eq!(check_topic_name("."), Err(TopicNameError::Dots));
        assert_eq!(check_topic_name(".."), Err(TopicNameError::Dots));
        assert_eq!(
            check_topic_name(&"x".repeat(250)),
            Err(TopicNameError::Long(250))
        );
        for bad in ['/', '\0', '\\', ' ', ':', '\n', 'ä', '+', '*'] {
            let name = format!("a{bad}b");
            assert_eq!(check_topic_name(&name), Err(TopicNameError::Character(bad)));
        }
    }
}
