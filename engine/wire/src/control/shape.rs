//! What messages look like, as data, and a walk over bytes that checks them against it.
//!
//! The protocol crate's decoder allocates what an array's count claims, ignores a tagged field's
//! stated size and leaves trailing bytes alone. So a message is walked first: when the walk has
//! passed, every count and length is backed by bytes, there are no more elements than a [`Reader`]
//! takes, tagged fields are in order and fill their sizes, and nothing follows. The walk does not
//! look at values: null where a value is required, and text that is not UTF-8, are left to the
//! decoder.

use thiserror::Error;

use crate::primitive::{ReadError, Reader};

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// First version that has the field.
    pub(crate) since: i16,
    /// Last version that has it.
    pub(crate) until: i16,
    /// Set for a tagged field, of flexible versions.
    pub(crate) tag: Option<u32>,
}

/// A field's type.
#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string or null.
    String,
    /// Bytes or null.
    Bytes,
    /// An array or null.
    Array(&'static Kind),
    /// Fields in order, then the tagged ones.
    Struct(&'static [Field]),
    /// A byte that tells whether it is there (1, or -1 for null), and then it.
    Optional(&'static Kind),
}

/// A whole message.
#[derive(Debug)]
pub(crate) struct Shape(pub(crate) &'static [Field]);

/// A message is not of its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field}: {error}")]
pub struct ShapeError {
    /// The innermost field at fault, by its name in Kafka's schemas.
    pub field: &'static str,
    /// What is wrong with it, positions counted from the start of the body.
    pub error: ReadError,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        since: 0,
        until: i16::MAX,
        tag: None,
    }
}

macro_rules! kinds {
    ($($function:ident: $kind:expr;)*) => {
        $(pub(crate) const fn $function(name: &'static str) -> Field {
            field(name, $kind)
        })*
    };
}

kinds! {
    boolean: Kind::Fixed(1);
    int8: Kind::Fixed(1);
    int16: Kind::Fixed(2);
    int32: Kind::Fixed(4);
    int64: Kind::Fixed(8);
    float64: Kind::Fixed(8);
    uuid: Kind::Fixed(16);
    string: Kind::String;
    bytes: Kind::Bytes;
    strings: Kind::Array(&Kind::String);
    int8s: Kind::Array(&Kind::Fixed(1));
    int32s: Kind::Array(&Kind::Fixed(4));
    int64s: Kind::Array(&Kind::Fixed(8));
    uuids: Kind::Array(&Kind::Fixed(16));
}

/// An array of structures: `array!("topics" => [string("name"), …])`.
macro_rules! array {
    ($name:literal => [$($field:expr),* $(,)?]) => {
        $crate::control::shape::array_of(
            $name,
            const { &$crate::control::shape::Kind::Struct(const { &[$($field),*] }) },
        )
    };
}
pub(crate) use array;

/// A structure or null: `optional!("cursor" => [string("name"), …])`.
macro_rules! optional {
    ($name:literal => [$($field:expr),* $(,)?]) => {
        $crate::control::shape::optional_of(
            $name,
            const { &$crate::control::shape::Kind::Struct(const { &[$($field),*] }) },
        )
    };
}
pub(crate) use optional;

/// A structure: `structure!("assignment" => [string("name"), …])`.
macro_rules! structure {
    ($name:literal => [$($field:expr),* $(,)?]) => {
        $crate::control::shape::structure_of($name, const { &[$($field),*] })
    };
}
pub(crate) use structure;

pub(crate) const fn structure_of(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Kind::Struct(fields))
}

pub(crate) const fn optional_of(name: &'static str, content: &'static Kind) -> Field {
    field(name, Kind::Optional(content))
}

pub(crate) const fn array_of(name: &'static str, element: &'static Kind) -> Field {
    field(name, Kind::Array(element))
}

impl Field {
    pub(crate) const fn since(self, since: i16) -> Self {
        Self { since, ..self }
    }

    pub(crate) const fn until(self, until: i16) -> Self {
        Self { until, ..self }
    }

    pub(crate) const fn tagged(self, tag: u32) -> Self {
        Self {
            tag: Some(tag),
            ..self
        }
    }

    pub(crate) fn exists_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

/// Which of the two encodings, and which version of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) version: i16,
    pub(crate) flexible: bool,
}

impl Shape {
    /// Walks all of a message's body.
    pub(crate) fn check(
        &self,
        encoding: Encoding,
        reader: &mut Reader<'_>,
    ) -> Result<(), ShapeError> {
        self.check_front(encoding, reader, |reader| reader.finish())
    }

    /// As [`Shape::check`], but what follows the message is nobody's concern.
    pub(crate) fn check_prefix(
        &self,
        encoding: Encoding,
        reader: &mut Reader<'_>,
    ) -> Result<(), ShapeError> {
        self.check_front(encoding, reader, |_| Ok(()))
    }

    /// Where a field of the message itself begins, and none if this version does not have it or
    /// the bytes in front of it are of another shape.
    pub(crate) fn position(
        &self,
        encoding: Encoding,
        reader: &mut Reader<'_>,
        name: &str,
    ) -> Option<usize> {
        let mut walk = Walk {
            encoding,
            field: "message",
        };
        let fields = self.0.iter();
        let untagged = fields.filter(|f| f.tag.is_none() && f.exists_in(encoding.version));
        for field in untagged {
            if field.name == name {
                return Some(reader.position());
            }
            walk.value(&field.kind, reader).ok()?;
        }
        None
    }

    fn check_front(
        &self,
        encoding: Encoding,
        reader: &mut Reader<'_>,
        end: impl FnOnce(&Reader<'_>) -> Result<(), ReadError>,
    ) -> Result<(), ShapeError> {
        let mut walk = Walk {
            encoding,
            field: "message",
        };
        let walked = walk.fields(self.0, reader).and_then(|()| end(reader));
        walked.map_err(|error| ShapeError {
            field: walk.field,
            error,
        })
    }
}

/// The walk, and the field it is at.
struct Walk {
    encoding: Encoding,
    field: &'static str,
}

impl Walk {
    fn fields(&mut self, fields: &[Field], reader: &mut Reader<'_>) -> Result<(), ReadError> {
        let Encoding { version, flexible } = self.encoding;
        let outer = self.field;
        for field in fields
            .iter()
            .filter(|f| f.tag.is_none() && f.exists_in(version))
        {
            self.field = field.name;
            self.value(&field.kind, reader)?;
        }
        self.field = outer;
        reader.tagged_fields(flexible, |tag, content| {
            match fields
                .iter()
                .find(|f| f.tag == Some(tag) && f.exists_in(version))
            {
                Some(field) => {
                    self.field = field.name;
                    self.value(&field.kind, content)?;
                    Ok(true)
                }
                None => Ok(false),
            }
        })?;
        self.field = outer;
        Ok(())
    }

    fn value(&mut self, kind: &Kind, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        let flexible = self.encoding.flexible;
        match kind {
            Kind::Fixed(size) => drop(reader.take(*size)?),
            Kind::String => drop(reader.nullable_string(flexible)?),
            Kind::Bytes => drop(reader.nullable_bytes(flexible)?),
            Kind::Array(element) => {
                for _ in 0..reader.nullable_count(flexible, 1)?.unwrap_or(0) {
                    self.value(element, reader)?;
                }
            }
            Kind::Struct(fields) => self.fields(fields, reader)?,
            Kind::Optional(content) => {
                let at = reader.position();
                match reader.i8()? {
                    1 => self.value(content, reader)?,
                    -1 => {}
                    other => {
                        let value = other.into();
                        return Err(ReadError::Value { at, value });
                    }
                }
            }
        }
        Ok(())
    }
}
