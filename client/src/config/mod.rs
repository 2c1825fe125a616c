//! What an application may set, with Kafka's names and defaults where Kafka has them.
//!
//! Each config is a plain struct to fill; [`ProducerConfig::check`] and [`ConsumerConfig::check`],
//! called when a client is made, refuse settings that contradict each other.

mod consumer;
mod producer;
pub(crate) mod properties;

use std::time::Duration;

use thiserror::Error;

pub use consumer::{ConsumerConfig, GroupProtocol, OffsetReset};
pub use producer::{Acks, MAX_IN_FLIGHT_IDEMPOTENT, ProducerConfig};
pub use properties::PropertyError;

/// Settings that contradict each other or are out of range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name} is {value}, {remedy}")]
pub struct ConfigError {
    /// Kafka's name of the setting.
    pub name: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it must be.
    pub remedy: &'static str,
}

/// The most bytes of a batch or of a fetch's answer.
const MAX_BATCH_BYTES: usize = 1 << 30;

fn require(
    holds: bool,
    name: &'static str,
    value: impl std::fmt::Debug,
    remedy: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError {
        name,
        value: format!("{value:?}"),
        remedy,
    })
}

/// How a client reaches its cluster.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use ringmill_client::ClientConfig;
///
/// let client = ClientConfig {
///     client_id: "gate-7".into(),
///     request_timeout: Duration::from_secs(10),
///     ..ClientConfig::new(["a:9092", "b:9092"])
/// };
/// # let _ = client;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `HOST:PORT` of a few brokers, from which the others are learnt (`bootstrap.servers`).
    pub bootstrap: Vec<String>,
    /// The name in the brokers' logs and metrics (`client.id`); at most 32,767 bytes.
    pub client_id: String,
    /// The longest wait for a TCP connection and its handshake
    /// (`socket.connection.setup.timeout.ms`).
    pub connect_timeout: Duration,
    /// The longest wait for a response (`request.timeout.ms`); after it the connection is given up,
    /// since answers come in order.
    pub request_timeout: Duration,
    /// First wait between attempts of one request (`retry.backoff.ms`).
    pub retry_backoff: Duration,
    /// Longest such wait (`retry.backoff.max.ms`).
    pub retry_backoff_max: Duration,
    /// First wait between connection attempts (`reconnect.backoff.ms`).
    pub reconnect_backoff: Duration,
    /// Longest such wait (`reconnect.backoff.max.ms`).
    pub reconnect_backoff_max: Duration,
    /// Metadata is refreshed at this age even if nothing failed (`metadata.max.age.ms`).
    pub metadata_max_age: Duration,
    /// How long administrative and look-up calls keep trying (`default.api.timeout.ms`).
    pub api_timeout: Duration,
    /// The largest response taken, in bytes (librdkafka's `receive.message.max.bytes`).
    pub max_response_bytes: usize,
}

impl ClientConfig {
    /// Sets what Kafka calls `name`, where there is neither producer nor consumer.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::ClientConfig;
    ///
    /// let mut client = ClientConfig::default();
    /// client.set("retry.backoff.ms", "50").unwrap();
    /// assert_eq!(client.retry_backoff.as_millis(), 50);
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), PropertyError> {
        properties::set(self, &mut (), &[], name, value)
    }

    /// The defaults, with brokers to start from.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::ClientConfig;
    ///
    /// assert_eq!(ClientConfig::new(["a:9092"]).bootstrap, ["a:9092"]);
    /// ```
    pub fn new<S: Into<String>>(bootstrap: impl IntoIterator<Item = S>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:9092".into()],
            client_id: "ringmill".into(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            api_timeout: Duration::from_secs(60),
            max_response_bytes: 100 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        let client = ClientConfig::default();
        assert_eq!(ProducerConfig::default().check(&client), Ok(()));
        assert_eq!(ConsumerConfig::default().check(&client), Ok(()));
    }

    #[test]
    fn contradictions_are_named() {
        let client = ClientConfig::default();
        let refused = |change: fn(&mut ProducerConfig)| {
            let mut config = ProducerConfig::default();
            change(&mut config);
            config.check(&client).unwrap_err().name
        };
        assert_eq!(refused(|c| c.acks = Acks::Leader), "acks");
        assert_eq!(
            refused(|c| c.max_in_flight = 6),
            "max.in.flight.requests.per.connection"
        );
        assert_eq!(refused(|c| c.batch_bytes = 2 << 20), "batch.size");
        assert_eq!(refused(|c| c.buffer_bytes = 1000), "buffer.memory");
        assert_eq!(
            refused(|c| c.delivery_timeout = Duration::from_secs(30)),
            "delivery.timeout.ms"
        );
        let mut consumer = ConsumerConfig {
            heartbeat_interval: Duration::from_secs(30),
            ..ConsumerConfig::default()
        };
        let error = consumer.check(&client).unwrap_err();
        assert_eq!(error.name, "heartbeat.interval.ms");
        consumer = ConsumerConfig {
            remote_assignor: Some("range".into()),
            ..ConsumerConfig::default()
        };
        let error = consumer.check(&client).unwrap_err();
        assert_eq!(error.name, "group.remote.assignor");
        consumer.group_protocol = GroupProtocol::Consumer;
        assert_eq!(consumer.check(&client), Ok(()));
        consumer.session_timeout = Duration::from_secs(10);
        let error = consumer.check(&client).unwrap_err();
        assert_eq!(error.name, "session.timeout.ms");
        consumer = ConsumerConfig {
            fetch_max_wait: Duration::from_secs(40),
            ..ConsumerConfig::default()
        };
        let error = consumer.check(&client).unwrap_err().to_string();
        assert_eq!(
            error,
            "fetch.max.wait.ms is 40s, it must be less than request.timeout.ms"
        );
    }
}
