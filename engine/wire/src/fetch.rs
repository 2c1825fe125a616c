//! Fetch, versions 4 to 17, by hand: records leave as they are stored.
//!
//! A response is encoded around gaps: everything but the records as bytes in memory, and in between
//! where which partition's records go ([`Piece`]), so that a broker sends those from memory or from
//! a file. The total size is known before the first byte leaves. On the client's side, records come
//! out as slices of the frame. Kafka's schema is `FetchRequest.json` and `FetchResponse.json`. What
//! differs by version: 5 the log's start offset, 7 fetch sessions (KIP-227), 9 leader epochs
//! (KIP-320), 11 racks (KIP-392), 12 the flexible encoding and diverging epochs (KIP-595), 13 topic
//! ids (KIP-516), 15 the replica's state (KIP-903), 16 leader discovery (KIP-951).

mod request;
mod response;

pub use request::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, IsolationLevel};
pub use response::{
    AbortedTransaction, EpochEnd, FetchFrame, FetchResponse, FetchedPartition, FetchedTopic, Piece,
};

use crate::api::ApiKey;
use crate::topic::TopicRef;

/// Session id of a fetch without a session (KIP-227).
pub const NO_SESSION_ID: i32 = 0;
/// Session epoch that asks for a new session.
pub const INITIAL_SESSION_EPOCH: i32 = 0;
/// Session epoch of a fetch without a session, or of the last one in a session.
pub const FINAL_SESSION_EPOCH: i32 = -1;
/// Replica id of a consumer.
pub const CONSUMER_REPLICA_ID: i32 = -1;

/// First version whose batches may be compressed with zstd (KIP-110): below it, the answer is
/// UNSUPPORTED_COMPRESSION_TYPE.
pub const FIRST_WITH_ZSTD: i16 = 10;

/// Least bytes of a topic: its name or id and a count.
const MIN_TOPIC_LEN: usize = TopicRef::MIN_LEN + 1;

const FIRST_WITH_LOG_START: i16 = 5;
const FIRST_WITH_SESSIONS: i16 = 7;
const FIRST_WITH_LEADER_EPOCH: i16 = 9;
const FIRST_WITH_RACKS: i16 = 11;
const FIRST_WITH_FETCHED_EPOCH: i16 = 12;
const FIRST_WITH_REPLICA_STATE: i16 = 15;
const FIRST_WITH_ENDPOINTS: i16 = 16;

/// Which of the two encodings, and which version of a message.
#[derive(Clone, Copy)]
struct Layout {
    version: i16,
    flexible: bool,
}

impl Layout {
    fn of(version: i16) -> Self {
        Self {
            version,
            flexible: ApiKey::Fetch.api().is_flexible(version),
        }
    }
}

#[cfg(test)]
#[path = "fetch_test.rs"]
mod tests;
