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
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::ProducerRecord;
    ///
    /// // a key without a value takes the key out of a compacted topic
    /// let tombstone = ProducerRecord::to("latest").key("LH-400");
    /// assert_eq!(tombstone.topic(), "latest");
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::ProducerRecord;
    /// let record = ProducerRecord::to("flights").partition(3).value("boarding");
    /// # let _ = record;
    /// ```
    pub fn partition(self, partition: i32) -> Self {
        Self {
            partition: Some(partition),
            ..self
        }
    }

    /// The same with a key.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::ProducerRecord;
    /// // records of one key stay in their order
    /// let record = ProducerRecord::to("flights").key("LH-400").value("boarding");
    /// # let _ = record;
    /// ```
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// The same with a value.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::ProducerRecord;
    /// let text = ProducerRecord::to("flights").value("boarding");
    /// let bytes = ProducerRecord::to("flights").value(vec![1, 2, 3]);
    /// assert_ne!(text, bytes);
    /// ```
    pub fn value(self, value: impl Into<Bytes>) -> Self {
        Self {
            value: Some(value.into()),
            ..self
        }
    }

    /// The same with one more header.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::ProducerRecord;
    /// let record = ProducerRecord::to("flights")
    ///     .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    ///     .value("boarding");
    /// # let _ = record;
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// The same with a timestamp, in milliseconds since the Unix epoch; otherwise it is the time at
    /// which the producer takes the record.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::ProducerRecord;
    /// // when it happened, not when it is sent
    /// let record = ProducerRecord::to("flights").timestamp(1_767_225_600_000).value("landed");
    /// # let _ = record;
    /// ```
    pub fn timestamp(self, ms: i64) -> Self {
        Self {
            timestamp: Some(ms),
            ..self
        }
    }

    /// Its topic.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::ProducerRecord;
    /// assert_eq!(ProducerRecord::to("flights").topic(), "flights");
    /// ```
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
///
/// # Examples
/// ```no_run
/// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// let record = consumer.recv().await?;
/// let source = record.headers.iter().find(|(name, _)| name == "source");
/// println!("{}-{} {}: from {source:?}", record.topic, record.partition, record.offset);
/// # Ok(())
/// # }
/// ```
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
