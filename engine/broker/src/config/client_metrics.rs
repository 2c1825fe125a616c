//! The settings of one subscription of clients' metrics (KIP-714): which metrics of which clients
//! are wanted, and how often.

use super::{ConfigError, Key, Kind, Overrides, Reader, Table, list_items};
use crate::telemetry::subscriptions::Rule;

/// The push interval where nothing else is set, in milliseconds (Kafka's `INTERVAL_MS_DEFAULT`).
pub const INTERVAL_MS_DEFAULT: i32 = 300_000;
/// The shortest.
const INTERVAL_MS_MIN: i64 = 100;
/// The longest.
const INTERVAL_MS_MAX: i64 = 3_600_000;

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        synonym: None,
        dynamic: true,
        doc,
        without_effect: None,
    }
}

/// All settings of a subscription.
pub static TABLE: Table = Table {
    scope: "client metrics",
    keys: &[
        key(
            "interval.ms",
            Kind::Int(INTERVAL_MS_MIN, INTERVAL_MS_MAX),
            "300000",
            "How often a client pushes its metrics, in milliseconds.",
        ),
        key(
            "match",
            Kind::List(&[]),
            "",
            "The clients, as name=pattern pairs that must all hold, in RE2's syntax; names are client_instance_id, client_id, client_software_name, client_software_version, client_source_address and client_source_port. Empty for all clients.",
        ),
        key(
            "metrics",
            Kind::List(&[]),
            "",
            "Prefixes of the names of the wanted metrics; * for all.",
        ),
    ],
};

/// Checks what the table does not: the pairs of `match`, and that no word is there twice.
pub fn check(set: &Overrides) -> Result<(), ConfigError> {
    for (name, value) in set.iter().filter(|(name, _)| *name != "interval.ms") {
        let mut words: Vec<&str> = list_items(value).collect();
        words.sort_unstable();
        if words.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Invalid {
                name: name.clone(),
                value: value.clone(),
                reason: "Values must not be duplicated".to_owned(),
            });
        }
    }
    let pairs = set.get("match").map_or("", String::as_str);
    list_items(pairs).try_for_each(|pair| Rule::parse(pair).map(drop))
}

/// The wanted metrics, as they were set.
pub fn metrics(set: &Overrides) -> impl Iterator<Item = &str> {
    list_items(set.get("metrics").map_or("", String::as_str))
}

/// The push interval in milliseconds.
pub fn interval_ms(set: &Overrides) -> i32 {
    Reader::new(&TABLE, set, &|_| None).i32("interval.ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Overrides {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_the_table_cannot_see_is_checked_here() {
        for right in [
            "",
            "client_id=a.*",
            "client_id=a,client_source_port=9[0-9]+",
        ] {
            assert_eq!(check(&set(&[("match", right)])), Ok(()), "{right}");
        }
        for wrong in [
            "client_id",
            "client_id=(",
            "color=red",
            "client_id=a,client_id=a",
        ] {
            assert!(check(&set(&[("match", wrong)])).is_err(), "{wrong}");
        }
        assert!(check(&set(&[("metrics", "a,b,a")])).is_err());
        assert!(check(&set(&[("metrics", "a,b"), ("interval.ms", "1,1")])).is_ok());
    }

    #[test]
    fn the_interval_and_the_metrics_are_as_set_or_as_the_table_says() {
        assert_eq!(interval_ms(&Overrides::new()), INTERVAL_MS_DEFAULT);
        let some = set(&[("interval.ms", "100"), ("metrics", "a., b.")]);
        assert_eq!(interval_ms(&some), 100);
        assert_eq!(metrics(&some).collect::<Vec<_>>(), ["a.", "b."]);
        assert_eq!(metrics(&Overrides::new()).count(), 0);
    }
}
