//! Records as applications hold them: owned, on any thread.

use std::sync::Arc;

use bytes::Bytes;

/// A record's headers in the application's order (KIP-82): names, and values that may be null.
pub type RecordHeaders = Vec<(String, Option<Bytes>)>;

/// Bytes that a record takes beside those of its parts, about.
const RECORD_OVERHEAD: usize = 64;

/// A record to produce.
///
/// ```
/// use ringmill_client::ProducerRecord;
///
/// let record = ProducerRecord::to("flights")
///     .key("LH-400")
///     .value("boarding")
///     .header("source", "gate 7");
/// assert_eq!(record.topic(), "flights");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Where to. An `Arc<str>` that is shared by many records costs nothing to give.
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: RecordHeaders,
    pub(crate) timestamp: Option<i64>,
}

impl ProducerRecord {
    /// An empty record for a topic; without a value it is a tombstone.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: RecordHeaders::new(),
            timestamp: None,
        }
    }

    /// The same for one partition, whatever the partitioner would say.
    pub fn partition(self, partition: i32) -> Self {
        Self {
            partition: Some(partition),
            ..self
        }
    }

    /// The same with a key.
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// The same with a value.
    pub fn value(self, value: impl Into<Bytes>) -> Self {
        Self {
            value: Some(value.into()),
            ..self
        }
    }

    /// The same with one more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// The same with a timestamp, in milliseconds since the Unix epoch; otherwise it is the time at
    /// which the producer takes the record.
    pub fn timestamp(self, ms: i64) -> Self {
        Self {
            timestamp: Some(ms),
            ..self
        }
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// About how many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        let len = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + len(value)).sum();
        RECORD_OVERHEAD + len(&self.key) + len(&self.value) + headers
    }
}

/// A record that was consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since the Unix epoch: the producer's, or the broker's at the append.
    pub timestamp: i64,
    /// May be null.
    pub key: Option<Bytes>,
    /// Null is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// In the producer's order. Names that are not UTF-8 have their bad bytes replaced.
    pub headers: RecordHeaders,
}
