//! Configuration by Kafka's names: one table per scope ([`topic::TABLE`], [`broker::TABLE`]) gives
//! each name its type, range, default and documentation. CreateTopics, DescribeConfigs,
//! IncrementalAlterConfigs, the command line and the config file all read the same table, so that a
//! name is known everywhere or nowhere. Pure: text in, checked values out.

pub mod alter;
pub mod broker;
mod broker_keys;
pub mod client_metrics;
pub mod group;
pub mod nodes;
pub mod throttled;
pub mod topic;
pub mod transactions;

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

pub use broker::BrokerConfig;
pub use topic::TopicConfig;

/// The most bytes of a value; the longest that make sense are paths.
pub const VALUE_BYTES_MAX: usize = 4096;

/// Values by name as somebody set them, before any default; each one has passed its key's check.
pub type Overrides = BTreeMap<String, String>;

/// What a value may be; the integer ranges are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A 32-bit integer within a range.
    Int(i64, i64),
    /// A 64-bit integer within a range.
    Long(i64, i64),
    /// A decimal number within a range.
    Double(f64, f64),
    /// One word of a list.
    Choice(&'static [&'static str]),
    /// Comma-separated words, each out of a list; an empty list of words admits any.
    List(&'static [&'static str]),
    /// Replicas of a topic's partitions ([`throttled::ThrottledReplicas`]).
    Replicas,
    /// Any text.
    Text,
}

impl Kind {
    /// The type's code in DescribeConfigs v3+ (KIP-569).
    pub const fn code(self) -> i8 {
        match self {
            Self::Bool => 1,
            Self::Choice(_) | Self::Text => 2,
            Self::Int(..) => 3,
            Self::Long(..) => 5,
            Self::Double(..) => 6,
            Self::List(_) | Self::Replicas => 7,
        }
    }

    /// Checks a value; the error is the reason, without the name.
    fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Bool => parse_bool(value).map(drop),
            Self::Int(min, max) | Self::Long(min, max) => parse_integer(value, min, max).map(drop),
            Self::Double(min, max) => parse_double(value, min, max).map(drop),
            Self::Choice(words) => one_of(value, words),
            Self::List(words) => list_items(value).try_for_each(|word| one_of(word, words)),
            Self::Replicas => match throttled::ThrottledReplicas::parse(value) {
                Some(_) => Ok(()),
                None => Err(REPLICAS_WANTED.to_owned()),
            },
            Self::Text => Ok(()),
        }
    }
}

/// Kafka's words.
const REPLICAS_WANTED: &str = "Must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...";

fn parse_bool(value: &str) -> Result<bool, String> {
    match value.trim() {
        v if v.eq_ignore_ascii_case("true") => Ok(true),
        v if v.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("Expected value to be either true or false".to_owned()),
    }
}

fn parse_integer(value: &str, min: i64, max: i64) -> Result<i64, String> {
    let number: i64 = value
        .trim()
        .parse()
        .map_err(|_| "Not a number of the expected type".to_owned())?;
    if number < min {
        Err(format!("Value must be at least {min}"))
    } else if number > max {
        Err(format!("Value must be at most {max}"))
    } else {
        Ok(number)
    }
}

fn parse_double(value: &str, min: f64, max: f64) -> Result<f64, String> {
    match value.trim().parse::<f64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(_) => Err(format!("Value must be between {min} and {max}")),
        Err(_) => Err("Not a number of the expected type".to_owned()),
    }
}

fn one_of(value: &str, words: &[&str]) -> Result<(), String> {
    if words.is_empty() || words.contains(&value.trim()) {
        Ok(())
    } else {
        Err(format!("String must be one of: {}", words.join(", ")))
    }
}

/// The words of a list value, without empty ones.
pub fn list_items(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// One named setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Kafka's name, or ours where Kafka has none.
    pub name: &'static str,
    /// The type and range.
    pub kind: Kind,
    /// The default, as text.
    pub default: &'static str,
    /// For a topic's key, the broker's key that sets its default (Kafka's "synonym").
    pub synonym: Option<&'static str>,
    /// Whether a running broker takes a new value (IncrementalAlterConfigs).
    pub dynamic: bool,
    /// One or two sentences for people, with the unit.
    pub doc: &'static str,
    /// Why it is taken and changes nothing; none if it does what it says.
    pub without_effect: Option<&'static str>,
}

impl Key {
    /// The same key, which is taken for clients' sake and changes nothing.
    pub(crate) const fn changes_nothing(self, why: &'static str) -> Self {
        Self {
            without_effect: Some(why),
            ..self
        }
    }

    /// What people are told of it.
    pub fn documentation(&self) -> String {
        match self.without_effect {
            Some(why) => format!("{} Without effect: {why}", self.doc),
            None => self.doc.to_owned(),
        }
    }

    /// Checks a value for this key.
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        let invalid = |value: String, reason| ConfigError::Invalid {
            name: self.name.to_owned(),
            value,
            reason,
        };
        if value.len() > VALUE_BYTES_MAX {
            let start = &value[..value.floor_char_boundary(32)];
            let reason = format!("Value must have at most {VALUE_BYTES_MAX} bytes");
            return Err(invalid(format!("{start}..."), reason));
        }
        let checked = self.kind.check(value);
        checked.map_err(|reason| invalid(value.to_owned(), reason))
    }
}

/// The keys of one scope.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// What the keys configure, for messages: `topic` or `broker`.
    pub scope: &'static str,
    /// All keys, in alphabetical order.
    pub keys: &'static [Key],
}

impl Table {
    /// The key of a name.
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        let at = self.keys.binary_search_by(|key| key.name.cmp(name)).ok()?;
        Some(&self.keys[at])
    }

    /// The key of a name, or Kafka's error for a name that nobody knows.
    pub fn require(&self, name: &str) -> Result<&'static Key, ConfigError> {
        self.find(name).ok_or_else(|| ConfigError::Unknown {
            scope: self.scope,
            name: name.to_owned(),
        })
    }

    /// Checks one name and value.
    pub fn check(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        self.require(name)?.check(value)
    }
}

/// Why a name or value is refused; every case is Kafka's INVALID_CONFIG but the last two, which are
/// INVALID_REQUEST.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No key has this name.
    #[error("Unknown {scope} config name: {name}")]
    Unknown {
        /// The table's scope.
        scope: &'static str,
        /// The name as given.
        name: String,
    },
    /// The value does not fit the key.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        /// The key's name.
        name: String,
        /// The value as given.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// Two values are each right, but not together.
    #[error("{0}")]
    Contradiction(String),
    /// The key is read at start only.
    #[error("Cannot update {0} while the broker runs: set it in the config file and restart")]
    ReadOnly(String),
    /// APPEND or SUBTRACT on a value that is no list.
    #[error("Config value append or subtract is not allowed for config key: {0}")]
    NotAList(String),
    /// SET, APPEND or SUBTRACT without a value.
    #[error("Null value not supported for : {0}")]
    NullValue(String),
    /// One request names a key twice.
    #[error("Error due to duplicate config keys: {0}")]
    Duplicate(String),
}

impl ConfigError {
    /// Whether the request itself is malformed (INVALID_REQUEST), rather than a value
    /// (INVALID_CONFIG).
    pub fn is_invalid_request(&self) -> bool {
        matches!(self, Self::NullValue(_) | Self::Duplicate(_))
    }
}

/// Reads values of one table: an override if there is one, else the key's default.
///
/// Asking for a name that the table lacks, or by another type than its kind, is a programmer's
/// error and panics; the overrides were checked when they were set.
pub(crate) struct Reader<'a> {
    table: &'static Table,
    overrides: &'a Overrides,
    /// Consulted before the table's own default (a topic's defaults come from the broker).
    fallback: &'a dyn Fn(&Key) -> Option<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        table: &'static Table,
        overrides: &'a Overrides,
        fallback: &'a dyn Fn(&Key) -> Option<String>,
    ) -> Self {
        Self {
            table,
            overrides,
            fallback,
        }
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let key = self.table.find(name).expect("a name of the table");
        match self.overrides.get(name) {
            Some(value) => value.clone(),
            None => (self.fallback)(key).unwrap_or_else(|| key.default.to_owned()),
        }
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        parse_bool(&self.text(name)).expect("checked when set")
    }

    pub(crate) fn double(&self, name: &str) -> f64 {
        let text = self.text(name);
        text.trim().parse().expect("checked when set")
    }

    pub(crate) fn long(&self, name: &str) -> i64 {
        parse_integer(&self.text(name), i64::MIN, i64::MAX).expect("checked when set")
    }

    pub(crate) fn u32(&self, name: &str) -> u32 {
        u32::try_from(self.long(name)).expect("the table's range lies within u32")
    }

    pub(crate) fn i32(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).expect("the table's range lies within i32")
    }

    pub(crate) fn u64(&self, name: &str) -> u64 {
        u64::try_from(self.long(name)).expect("the table's range has no negative")
    }

    pub(crate) fn usize(&self, name: &str) -> usize {
        usize::try_from(self.long(name)).expect("the table's range lies within usize")
    }

    /// A number where a negative one means "no limit".
    pub(crate) fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.long(name)).ok()
    }
}

/// Where a value comes from, by its code in DescribeConfigs (KIP-226).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set on the running broker.
    DynamicBroker = 2,
    /// From the broker's config file, flags or environment.
    StaticBroker = 4,
    /// The table's default.
    Default = 5,
    /// Set on the subscription of clients' metrics.
    ClientMetrics = 7,
    /// Set on the group.
    Group = 8,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "topic",
            Self::DynamicBroker => "dynamic broker",
            Self::StaticBroker => "static broker",
            Self::Default => "default",
            Self::ClientMetrics => "client metrics",
            Self::Group => "group",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [&'static Table; 4] {
        [
            &topic::TABLE,
            &broker::TABLE,
            &group::TABLE,
            &client_metrics::TABLE,
        ]
    }

    #[test]
    fn tables_are_sorted_so_that_every_name_is_found() {
        for table in tables() {
            for pair in table.keys.windows(2) {
                assert!(pair[0].name < pair[1].name, "{} comes after", pair[0].name);
            }
            for key in table.keys {
                assert_eq!(table.find(key.name).map(|k| k.name), Some(key.name));
            }
        }
    }

    #[test]
    fn every_default_passes_its_own_check_and_is_documented() {
        for table in tables() {
            for key in table.keys {
                assert_eq!(key.check(key.default), Ok(()), "{}", key.name);
                assert!(key.doc.len() > 20, "{} lacks a sentence", key.name);
            }
        }
    }

    #[test]
    fn a_topic_default_and_its_broker_synonym_agree_in_type_and_value() {
        for key in topic::TABLE.keys {
            let Some(name) = key.synonym else { continue };
            let synonym = broker::TABLE.find(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(synonym.kind, key.kind, "{name}");
            assert_eq!(synonym.default, key.default, "{name}");
        }
    }

    #[test]
    fn values_out_of_type_or_range_are_refused_with_the_reason() {
        let refused = [
            ("retention.ms", "soon"),
            ("retention.ms", "-2"),
            ("cleanup.policy", "delete,shred"),
            ("min.insync.replicas", "0"),
            ("preallocate", "yes"),
            ("durability", "hopeful"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("segment.bytes", "99999999999"),
            // Spaces around a number are no harm, a request full of them is.
            ("segment.bytes", &format!("{:>5000}", 65_536)),
        ];
        for (name, value) in refused {
            let error = topic::TABLE.check(name, value).expect_err(name);
            assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(
            topic::TABLE
                .check("retention.hours", "1")
                .map_err(|e| e.to_string()),
            Err("Unknown topic config name: retention.hours".to_owned())
        );
    }
}
