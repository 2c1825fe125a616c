//! The settings of one group (KIP-848), each of which takes the place of the broker's for all.

use super::broker::{ConsumerLimits, GroupConfig};
use super::{ConfigError, Key, Kind, Overrides, Reader, Table};

const INT_MAX: i64 = i32::MAX as i64;

const fn key(
    name: &'static str,
    default: &'static str,
    synonym: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Int(1, INT_MAX),
        default,
        synonym: Some(synonym),
        dynamic: true,
        doc,
        without_effect: None,
    }
}

/// All settings of a group.
pub static TABLE: Table = Table {
    scope: "group",
    keys: &[
        key(
            "consumer.heartbeat.interval.ms",
            "5000",
            "group.consumer.heartbeat.interval.ms",
            "How often members of the consumer protocol send heartbeats, in milliseconds; within group.consumer.min.heartbeat.interval.ms and group.consumer.max.heartbeat.interval.ms.",
        ),
        key(
            "consumer.session.timeout.ms",
            "45000",
            "group.consumer.session.timeout.ms",
            "How long a member of the consumer protocol may stay silent, in milliseconds; within group.consumer.min.session.timeout.ms and group.consumer.max.session.timeout.ms.",
        ),
    ],
};

/// Checks what is set on a group against the broker's bounds.
pub fn check(set: &Overrides, config: &GroupConfig) -> Result<(), ConfigError> {
    let sessions = &config.consumer_sessions_ms;
    let heartbeats = &config.consumer_heartbeats_ms;
    let bounds = [
        (
            "consumer.heartbeat.interval.ms",
            i64::from(*heartbeats.start()),
            i64::from(*heartbeats.end()),
        ),
        (
            "consumer.session.timeout.ms",
            sessions.start().cast_signed(),
            sessions.end().cast_signed(),
        ),
    ];
    let read = Reader::new(&TABLE, set, &|_| None);
    for (name, least, most) in bounds
        .into_iter()
        .filter(|(name, ..)| set.contains_key(*name))
    {
        let value = read.long(name);
        if value < least || value > most {
            return Err(ConfigError::Invalid {
                name: name.to_owned(),
                value: value.to_string(),
                reason: format!("Value must be between {least} and {most}"),
            });
        }
    }
    Ok(())
}

/// What a group goes by. Bounds that were moved since count too.
pub fn limits(set: &Overrides, config: &GroupConfig) -> ConsumerLimits {
    let mut limits = config.consumer;
    let read = Reader::new(&TABLE, set, &|_| None);
    if set.contains_key("consumer.session.timeout.ms") {
        let (least, most) = config.consumer_sessions_ms.clone().into_inner();
        let own = read.u64("consumer.session.timeout.ms");
        limits.session_timeout_ms = own.max(least).min(most);
    }
    if set.contains_key("consumer.heartbeat.interval.ms") {
        let (least, most) = config.consumer_heartbeats_ms.clone().into_inner();
        let own = read.i32("consumer.heartbeat.interval.ms");
        limits.heartbeat_interval_ms = own.max(least).min(most);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_own_settings_lie_within_the_brokers_bounds() {
        let config = GroupConfig::default();
        let set = |ms: &str| Overrides::from([("consumer.session.timeout.ms".into(), ms.into())]);
        assert_eq!(limits(&Overrides::new(), &config), config.consumer);
        assert_eq!(limits(&set("50000"), &config).session_timeout_ms, 50_000);
        assert_eq!(limits(&set("10"), &config).session_timeout_ms, 45_000);
        assert_eq!(check(&set("50000"), &config), Ok(()));
        assert!(check(&set("44999"), &config).is_err() && check(&set("60001"), &config).is_err());
    }
}
