//! Settings by Kafka's names and in Kafka's texts, as configuration files have them.
//!
//! Pure: three tables, from a name to what its text means. A name that is in none is an error that
//! suggests the nearest one, so that a typing mistake is never a default in disguise.

use std::time::Duration;

use ringmill_wire::batch::Compression;
use ringmill_wire::fetch::IsolationLevel;
use thiserror::Error;

use super::{
    Acks, ClientConfig, ConfigError, ConsumerConfig, GroupProtocol, OffsetReset, ProducerConfig,
};
use crate::assignor::Assignor;
use crate::partitioner::Partitioning;

/// Why a setting is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PropertyError {
    /// Neither Kafka nor this client has a setting of this name.
    #[error("there is no setting {name:?}{}", did_you_mean(*.suggestion))]
    Unknown {
        /// As given.
        name: String,
        /// The nearest name there is, if any is near.
        suggestion: Option<&'static str>,
    },
    /// Kafka's clients have it, this one does not, or not yet.
    #[error("{name} is not supported: {instead}")]
    Unsupported {
        /// Its name.
        name: String,
        /// What to do.
        instead: &'static str,
    },
    /// The text is not what the setting takes, or contradicts another setting.
    #[error(transparent)]
    Value(#[from] ConfigError),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(": did you mean {name:?}?"))
}

/// One row: a name, and what its text does to a config. An error says what the text must be.
pub(crate) struct Property<C> {
    name: &'static str,
    set: fn(&mut C, &str) -> Result<(), &'static str>,
}

const fn property<C>(
    name: &'static str,
    set: fn(&mut C, &str) -> Result<(), &'static str>,
) -> Property<C> {
    Property { name, set }
}

/// Sets one setting of a client and of what it is for.
pub(crate) fn set<C>(
    client: &mut ClientConfig,
    own: &mut C,
    table: &[Property<C>],
    name: &str,
    value: &str,
) -> Result<(), PropertyError> {
    let wrong = |name, remedy| ConfigError {
        name,
        value: format!("{value:?}"),
        remedy,
    };
    if let Some(row) = table.iter().find(|row| row.name == name) {
        return Ok((row.set)(own, value.trim()).map_err(|remedy| wrong(row.name, remedy))?);
    }
    if let Some(row) = CLIENT.iter().find(|row| row.name == name) {
        return Ok((row.set)(client, value.trim()).map_err(|remedy| wrong(row.name, remedy))?);
    }
    if let Some((_, instead)) = UNSUPPORTED.iter().find(|(known, _)| {
        known
            .strip_suffix('*')
            .map_or(*known == name, |stem| name.starts_with(stem))
    }) {
        return Err(PropertyError::Unsupported {
            name: name.to_owned(),
            instead,
        });
    }
    let names = table.iter().map(|row| row.name);
    let names = names.chain(CLIENT.iter().map(|row| row.name));
    Err(PropertyError::Unknown {
        name: name.to_owned(),
        suggestion: nearest(name, names),
    })
}

const MILLIS: &str = "it must be a whole number of milliseconds";
const BYTES: &str = "it must be a whole number of bytes";
const BOOLEAN: &str = "it must be true or false";
const COUNT: &str = "it must be a whole number";

fn millis(text: &str) -> Result<Duration, &'static str> {
    text.parse().map(Duration::from_millis).map_err(|_| MILLIS)
}

fn bytes(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| BYTES)
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| BOOLEAN)
}

/// Settings of every client.
const CLIENT: &[Property<ClientConfig>] = &[
    property("bootstrap.servers", |c, v| {
        let servers = v.split(',').map(|server| server.trim().to_owned());
        c.bootstrap = servers.filter(|server| !server.is_empty()).collect();
        match c.bootstrap.is_empty() {
            true => Err("it must name at least one HOST:PORT"),
            false => Ok(()),
        }
    }),
    property("client.id", |c, v| {
        c.client_id = v.to_owned();
        Ok(())
    }),
    property("socket.connection.setup.timeout.ms", |c, v| {
        millis(v).map(|v| c.connect_timeout = v)
    }),
    property("request.timeout.ms", |c, v| {
        millis(v).map(|v| c.request_timeout = v)
    }),
    property("retry.backoff.ms", |c, v| {
        millis(v).map(|v| c.retry_backoff = v)
    }),
    property("retry.backoff.max.ms", |c, v| {
        millis(v).map(|v| c.retry_backoff_max = v)
    }),
    property("reconnect.backoff.ms", |c, v| {
        millis(v).map(|v| c.reconnect_backoff = v)
    }),
    property("reconnect.backoff.max.ms", |c, v| {
        millis(v).map(|v| c.reconnect_backoff_max = v)
    }),
    property("metadata.max.age.ms", |c, v| {
        millis(v).map(|v| c.metadata_max_age = v)
    }),
    property("default.api.timeout.ms", |c, v| {
        millis(v).map(|v| c.api_timeout = v)
    }),
    property("receive.message.max.bytes", |c, v| {
        bytes(v).map(|v| c.max_response_bytes = v)
    }),
];

/// Settings of producers.
pub(crate) const PRODUCER: &[Property<ProducerConfig>] = &[
    property("acks", |c, v| {
        c.acks = Acks::from_text(v).ok_or("it must be 0, 1 or all")?;
        Ok(())
    }),
    property("enable.idempotence", |c, v| {
        boolean(v).map(|v| c.idempotence = v)
    }),
    property("compression.type", |c, v| {
        c.compression =
            Compression::from_name(v).ok_or("it must be none, gzip, snappy, lz4 or zstd")?;
        Ok(())
    }),
    property("batch.size", |c, v| bytes(v).map(|v| c.batch_bytes = v)),
    property("linger.ms", |c, v| millis(v).map(|v| c.linger = v)),
    property("buffer.memory", |c, v| bytes(v).map(|v| c.buffer_bytes = v)),
    property("max.request.size", |c, v| {
        bytes(v).map(|v| c.max_request_bytes = v)
    }),
    property("max.in.flight.requests.per.connection", |c, v| {
        c.max_in_flight = v.parse().map_err(|_| COUNT)?;
        Ok(())
    }),
    property("delivery.timeout.ms", |c, v| {
        millis(v).map(|v| c.delivery_timeout = v)
    }),
    property("max.block.ms", |c, v| millis(v).map(|v| c.max_block = v)),
    property("partitioner.ignore.keys", |c, v| {
        c.partitioning = match boolean(v)? {
            true => Partitioning::Sticky,
            false => Partitioning::KeyHash,
        };
        Ok(())
    }),
    property("partitioner.class", |c, v| {
        // Java's class, in whatever package, or a short name
        c.partitioning = match v.rsplit('.').next().unwrap_or(v) {
            "RoundRobinPartitioner" | "round_robin" => Partitioning::RoundRobin,
            "DefaultPartitioner" | "murmur2_random" => Partitioning::KeyHash,
            "UniformStickyPartitioner" | "sticky" => Partitioning::Sticky,
            _ => return Err("it must be murmur2_random, sticky or round_robin; others are traits"),
        };
        Ok(())
    }),
    property("transactional.id", |c, v| {
        c.transactional_id = (!v.is_empty()).then(|| v.to_owned());
        Ok(())
    }),
    property("transaction.timeout.ms", |c, v| {
        millis(v).map(|v| c.transaction_timeout = v)
    }),
];

/// Settings of consumers.
pub(crate) const CONSUMER: &[Property<ConsumerConfig>] = &[
    property("group.id", |c, v| {
        c.group_id = (!v.is_empty()).then(|| v.to_owned());
        Ok(())
    }),
    property("group.instance.id", |c, v| {
        c.group_instance_id = (!v.is_empty()).then(|| v.to_owned());
        Ok(())
    }),
    property("group.protocol", |c, v| {
        // Java takes either case
        c.group_protocol = match v.to_ascii_lowercase().as_str() {
            "classic" => GroupProtocol::Classic,
            "consumer" => GroupProtocol::Consumer,
            _ => return Err("it must be classic or consumer"),
        };
        Ok(())
    }),
    property("group.remote.assignor", |c, v| {
        c.remote_assignor = (!v.is_empty()).then(|| v.to_owned());
        Ok(())
    }),
    property("client.rack", |c, v| {
        c.rack = (!v.is_empty()).then(|| v.to_owned());
        Ok(())
    }),
    property("partition.assignment.strategy", |c, v| {
        c.assignors = v.split(',').map(strategy).collect::<Result<_, _>>()?;
        Ok(())
    }),
    property("auto.offset.reset", |c, v| {
        c.offset_reset = match v {
            "earliest" => OffsetReset::Earliest,
            "latest" => OffsetReset::Latest,
            "none" => OffsetReset::Fail,
            _ => return Err("it must be earliest, latest or none"),
        };
        Ok(())
    }),
    property("enable.auto.commit", |c, v| {
        c.auto_commit = match boolean(v)? {
            true => c.auto_commit.or(ConsumerConfig::default().auto_commit),
            false => None,
        };
        Ok(())
    }),
    property("auto.commit.interval.ms", |c, v| {
        let interval = millis(v)?;
        c.auto_commit = c.auto_commit.map(|_| interval);
        Ok(())
    }),
    property("session.timeout.ms", |c, v| {
        millis(v).map(|v| c.session_timeout = v)
    }),
    property("heartbeat.interval.ms", |c, v| {
        millis(v).map(|v| c.heartbeat_interval = v)
    }),
    property("max.poll.interval.ms", |c, v| {
        millis(v).map(|v| c.max_poll_interval = v)
    }),
    property("max.poll.records", |c, v| {
        c.max_poll_records = v.parse().map_err(|_| COUNT)?;
        Ok(())
    }),
    property("fetch.min.bytes", |c, v| {
        bytes(v).map(|v| c.fetch_min_bytes = v)
    }),
    property("fetch.max.wait.ms", |c, v| {
        millis(v).map(|v| c.fetch_max_wait = v)
    }),
    property("fetch.max.bytes", |c, v| {
        bytes(v).map(|v| c.fetch_max_bytes = v)
    }),
    property("max.partition.fetch.bytes", |c, v| {
        bytes(v).map(|v| c.partition_fetch_bytes = v)
    }),
    property("queued.max.messages.kbytes", |c, v| {
        bytes(v).map(|v| c.prefetch_bytes = v.saturating_mul(1 << 10))
    }),
    property("check.crcs", |c, v| boolean(v).map(|v| c.check_crc = v)),
    property("isolation.level", |c, v| {
        c.isolation = match v {
            "read_uncommitted" => IsolationLevel::ReadUncommitted,
            "read_committed" => IsolationLevel::ReadCommitted,
            _ => return Err("it must be read_uncommitted or read_committed"),
        };
        Ok(())
    }),
];

fn strategy(name: &str) -> Result<Assignor, &'static str> {
    let name = name.trim();
    let class = name.rsplit('.').next().unwrap_or(name);
    Ok(match class {
        "range" | "RangeAssignor" => Assignor::Range,
        "roundrobin" | "RoundRobinAssignor" => Assignor::RoundRobin,
        "cooperative-sticky" | "CooperativeStickyAssignor" => Assignor::CooperativeSticky,
        _ => return Err("it must name range, roundrobin or cooperative-sticky"),
    })
}

/// What Kafka's clients have and this one does not: a name, or the beginning of names, and what to
/// do.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("security.protocol", "connections are plain TCP for now"),
    ("sasl.*", "connections are plain TCP for now"),
    ("ssl.*", "connections are plain TCP for now"),
    ("retries", "delivery.timeout.ms bounds the attempts"),
    ("key.serializer", "serializers are given to Producer::typed"),
    (
        "value.serializer",
        "serializers are given to Producer::typed",
    ),
    (
        "key.deserializer",
        "deserializers are given to ConsumerRecord::decode",
    ),
    (
        "value.deserializer",
        "deserializers are given to ConsumerRecord::decode",
    ),
    ("connections.max.idle.ms", "connections are kept"),
    ("send.buffer.bytes", "the system sizes its buffers"),
    ("receive.buffer.bytes", "the system sizes its buffers"),
    ("allow.auto.create.topics", "consumers create no topics"),
    (
        "enable.metrics.push",
        "numbers are asked for: Producer::stats",
    ),
    ("metric*", "numbers are asked for: Producer::stats"),
    (
        "interceptor.classes",
        "interceptors are given to the builder",
    ),
    ("client.rack", "it is a setting of consumers"),
];

/// Most edits at which a name still counts as a typing mistake of another.
const MAX_EDITS: usize = 4;

fn nearest(name: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let normal = |name: &str| name.to_ascii_lowercase().replace(['_', '-'], ".");
    let wanted = normal(name);
    let edits = names.map(|known| (edits(&wanted, known), known));
    let (edits, nearest) = edits.min()?;
    (edits <= MAX_EDITS.min(nearest.len() / 2)).then_some(nearest)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, of_a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, of_b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(of_a != *of_b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(name: &str, value: &str) -> Result<(ClientConfig, ProducerConfig), PropertyError> {
        let (mut client, mut own) = (ClientConfig::default(), ProducerConfig::default());
        set(&mut client, &mut own, PRODUCER, name, value)?;
        Ok((client, own))
    }

    fn consumer(pairs: &[(&str, &str)]) -> ConsumerConfig {
        let (mut client, mut own) = (ClientConfig::default(), ConsumerConfig::default());
        for (name, value) in pairs {
            set(&mut client, &mut own, CONSUMER, name, value).unwrap();
        }
        own
    }

    #[test]
    fn names_and_texts_are_kafkas() {
        let (_, own) = producer("linger.ms", "20").unwrap();
        assert_eq!(own.linger, Duration::from_millis(20));
        let (client, _) = producer("bootstrap.servers", "a:1, b:2,").unwrap();
        assert_eq!(client.bootstrap, ["a:1", "b:2"]);
        let (_, own) = producer("acks", "-1").unwrap();
        assert_eq!(own.acks, Acks::All);
        let class = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
        let (_, own) = producer("partitioner.class", class).unwrap();
        assert_eq!(own.partitioning, Partitioning::RoundRobin);
        let own = consumer(&[
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("group.protocol", "CONSUMER"),
            ("group.remote.assignor", "range"),
            (
                "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.RoundRobinAssignor,range",
            ),
        ]);
        assert_eq!(own.offset_reset, OffsetReset::Earliest);
        assert_eq!(own.isolation, IsolationLevel::ReadCommitted);
        assert_eq!(own.group_protocol, GroupProtocol::Consumer);
        assert_eq!(own.remote_assignor.as_deref(), Some("range"));
        assert_eq!(own.assignors, [Assignor::RoundRobin, Assignor::Range]);
    }

    #[test]
    fn automatic_commit_is_two_names_in_any_order() {
        let interval = ("auto.commit.interval.ms", "100");
        let off = ("enable.auto.commit", "false");
        let on = ("enable.auto.commit", "true");
        let expected = Some(Duration::from_millis(100));
        assert_eq!(consumer(&[interval]).auto_commit, expected);
        assert_eq!(consumer(&[on, interval]).auto_commit, expected);
        assert_eq!(consumer(&[interval, on]).auto_commit, expected);
        assert_eq!(consumer(&[off, interval]).auto_commit, None);
        assert_eq!(consumer(&[interval, off]).auto_commit, None);
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let text = |name| producer(name, "1").unwrap_err().to_string();
        assert_eq!(
            text("lingr.ms"),
            "there is no setting \"lingr.ms\": did you mean \"linger.ms\"?"
        );
        assert_eq!(
            text("Batch_Size"),
            "there is no setting \"Batch_Size\": did you mean \"batch.size\"?"
        );
        assert_eq!(text("colour"), "there is no setting \"colour\"");
        assert!(text("sasl.mechanism").contains("not supported"));
        assert!(text("retries").contains("delivery.timeout.ms"));
    }

    #[test]
    fn a_bad_text_says_what_it_must_be() {
        let text = |name, value| producer(name, value).unwrap_err().to_string();
        assert_eq!(
            text("linger.ms", "5s"),
            "linger.ms is \"5s\", it must be a whole number of milliseconds"
        );
        assert!(text("acks", "2").contains("0, 1 or all"));
        assert!(text("bootstrap.servers", ",").contains("HOST:PORT"));
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<&str> = CLIENT.iter().map(|row| row.name).collect();
        names.extend(PRODUCER.iter().map(|row| row.name));
        names.extend(CONSUMER.iter().map(|row| row.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
