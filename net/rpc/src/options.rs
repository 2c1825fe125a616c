//! What may be set of servers and channels, and all limits by name.

use std::time::Duration;

/// Pings that find out whether the other side is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// After so long without anything received, a ping is sent.
    pub interval: Duration,
    /// A ping that is not answered within this time ends the connection and its calls.
    pub timeout: Duration,
}

/// A server's settings. What one connection can make a core hold is bounded by
/// `connection_window_bytes` of unread requests, `stream_send_bytes_max` of unsent responses for
/// each of `streams_max` calls, and the size of messages, which tonic's generated services bound
/// (`max_decoding_message_size`, 4 MiB if not set).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// Calls at once on one connection (`SETTINGS_MAX_CONCURRENT_STREAMS`); clients let further ones
    /// wait.
    pub streams_max: u32,
    /// Bytes of a request's headers (`SETTINGS_MAX_HEADER_LIST_SIZE`); beyond them HTTP status 431.
    pub header_list_bytes_max: u32,
    /// Bytes of one call's request that may be unread.
    pub stream_window_bytes: u32,
    /// Bytes of all requests of a connection that may be unread.
    pub connection_window_bytes: u32,
    /// Bytes of one call's response that may wait for a slow reader.
    pub stream_send_bytes_max: usize,
    /// Whether and how clients are watched.
    pub keep_alive: Option<KeepAlive>,
    /// A connection without calls for so long is closed: one that has never said a word, too.
    pub idle_max: Option<Duration>,
    /// The longest that any call may take, whatever its client says.
    pub call_time_max: Option<Duration>,
    /// How long a connection that was told to end may take for the calls it has.
    pub drain_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            connections_max: 1024,
            streams_max: 256,
            header_list_bytes_max: 16 << 10,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 2 << 20,
            stream_send_bytes_max: 256 << 10,
            keep_alive: Some(KeepAlive {
                interval: Duration::from_secs(60),
                timeout: Duration::from_secs(20),
            }),
            idle_max: Some(Duration::from_secs(3600)),
            call_time_max: None,
            drain_max: Duration::from_secs(30),
        }
    }
}

/// A channel's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelOptions {
    /// How long an attempt to connect may take.
    pub connect_max: Duration,
    /// Pauses between attempts to connect.
    pub backoff: Backoff,
    /// Calls wait for a connection, until their deadline, rather than fail while there is none.
    pub wait_for_ready: bool,
    /// The time of calls that do not say one (`tonic::Request::set_timeout`).
    pub call_time: Option<Duration>,
    /// Calls that wait for the head of their answer; further ones are refused with
    /// `RESOURCE_EXHAUSTED`.
    pub calls_max: usize,
    /// Whether and how the server is watched while there are calls.
    pub keep_alive: Option<KeepAlive>,
    /// Bytes of a response's headers.
    pub header_list_bytes_max: u32,
    /// Bytes of one call's response that may be unread.
    pub stream_window_bytes: u32,
    /// Bytes of all responses that may be unread.
    pub connection_window_bytes: u32,
    /// Bytes of one call's request that may wait for a slow server.
    pub stream_send_bytes_max: usize,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        ChannelOptions {
            connect_max: Duration::from_secs(20),
            backoff: Backoff::default(),
            wait_for_ready: false,
            call_time: None,
            calls_max: 10_000,
            keep_alive: Some(KeepAlive {
                interval: Duration::from_secs(60),
                timeout: Duration::from_secs(20),
            }),
            header_list_bytes_max: 16 << 10,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 2 << 20,
            stream_send_bytes_max: 256 << 10,
        }
    }
}

/// Pauses that grow: gRPC's connection back-off.
///
/// Source: gRPC "Connection Backoff Protocol".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first pause.
    pub initial: Duration,
    /// By how much each further one is longer.
    pub multiplier: f64,
    /// The longest.
    pub max: Duration,
    /// Each is longer or shorter by up to this part of it, at random.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            initial: Duration::from_secs(1),
            multiplier: 1.6,
            max: Duration::from_secs(120),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// The pause after the n-th failure in a row (the first is 1); `random` is any number.
    pub fn pause(&self, failures: u32, random: u64) -> Duration {
        let exponent = f64::from(failures.saturating_sub(1).min(64));
        let plain = self.initial.as_secs_f64() * self.multiplier.powf(exponent);
        let plain = plain.min(self.max.as_secs_f64());
        // From -1 to 1.
        let spread = (random >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        let pause = plain * (1.0 + self.jitter * spread);
        Duration::try_from_secs_f64(pause).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_spread_around_it() {
        let backoff = Backoff::default();
        let middle = 1 << 63;
        assert_eq!(backoff.pause(1, middle), Duration::from_secs(1));
        assert_eq!(backoff.pause(2, middle), Duration::from_millis(1600));
        assert_eq!(backoff.pause(u32::MAX, middle), Duration::from_secs(120));
        assert_eq!(backoff.pause(1, 0), Duration::from_millis(800));
        let longest = backoff.pause(1, u64::MAX);
        assert!(longest > Duration::from_millis(1199) && longest <= Duration::from_millis(1200));
    }
}
