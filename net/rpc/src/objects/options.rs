//! What may be set of connections between objects, and all limits by name.

use std::time::Duration;

use capnp::message::ReaderOptions;

use crate::objects::framing::FrameLimits;
use crate::options::KeepAlive;

/// Settings of a server of objects, and of a client's connection to one.
///
/// What one connection can make a core hold is bounded by `call_bytes_max` of the parameters of
/// calls, `outgoing_bytes_max` of what is to be sent, one message of `message_bytes_max` that is
/// being received, and the tables of `answers_max`, `cancelled_max`, `exports_max` and
/// `imports_max`, some hundred bytes for each of their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectOptions {
    /// A server's connections at once; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// Bytes of one message. A peer whose message claims more is cut off.
    pub message_bytes_max: usize,
    /// Segments of one message.
    pub segments_max: usize,
    /// Bytes that all reading of one received message may amount to, each part counted as often as
    /// it is looked at: what makes a small message appear large ends there.
    pub traversal_bytes_max: usize,
    /// References that one message may pass.
    pub references_max: usize,
    /// Calls of the peer that run at once on one connection; further ones are refused, with an
    /// exception of type `overloaded`, as beyond the following limits.
    pub calls_max: usize,
    /// Bytes of the parameters of all calls that run.
    pub call_bytes_max: usize,
    /// Answers that the peer has not let go of, those of running calls among them.
    pub answers_max: usize,
    /// Our objects that the peer holds references to.
    pub exports_max: usize,
    /// The peer's objects that we hold references to.
    pub imports_max: usize,
    /// Calls that the peer gave up while they ran. The protocol's library keeps an entry for each
    /// as long as the connection lives, so that beyond this many the connection is ended.
    pub cancelled_max: usize,
    /// A server reads no further message while so many bytes wait to be sent to its client.
    pub outgoing_pause_bytes: usize,
    /// Bytes that may wait to be sent; beyond them the connection is ended.
    pub outgoing_bytes_max: usize,
    /// How long a message may take from its first byte to its last.
    pub message_time_max: Duration,
    /// How long the peer may take none of what is sent to it.
    pub send_time_max: Duration,
    /// Whether and how it is watched that the peer is still there. It is what finds peers that went
    /// without a word, and releases what they held.
    pub keep_alive: Option<KeepAlive>,
    /// A server ends a connection over which nothing is referred to or called, and nothing came for
    /// so long: one that has never said a word, too.
    pub idle_max: Option<Duration>,
    /// How long a server that stops gives calls that run.
    pub drain_max: Duration,
    /// How long a client's attempt to connect may take.
    pub connect_max: Duration,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        ObjectOptions {
            connections_max: 1024,
            message_bytes_max: 4 << 20,
            segments_max: 512,
            traversal_bytes_max: 32 << 20,
            references_max: 1024,
            calls_max: 256,
            call_bytes_max: 16 << 20,
            answers_max: 4096,
            exports_max: 10_000,
            imports_max: 10_000,
            cancelled_max: 65_536,
            outgoing_pause_bytes: 1 << 20,
            outgoing_bytes_max: 64 << 20,
            message_time_max: Duration::from_secs(30),
            send_time_max: Duration::from_secs(30),
            keep_alive: Some(KeepAlive {
                interval: Duration::from_secs(60),
                timeout: Duration::from_secs(20),
            }),
            idle_max: Some(Duration::from_secs(60)),
            drain_max: Duration::from_secs(30),
            connect_max: Duration::from_secs(20),
        }
    }
}

/// How deep structs may lie in structs: they are read by recursion.
const NESTING_MAX: i32 = 64;
/// Bytes of a word, in which the library counts.
const WORD: usize = 8;

impl ObjectOptions {
    pub(super) fn frames(&self) -> FrameLimits {
        FrameLimits {
            segments_max: self.segments_max,
            bytes_max: self.message_bytes_max,
        }
    }

    pub(super) fn reading(&self) -> ReaderOptions {
        ReaderOptions {
            traversal_limit_in_words: Some(self.traversal_bytes_max / WORD),
            nesting_limit: NESTING_MAX,
        }
    }
}
