//! From an application's types to a record's bytes and back, by traits.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::consumer::Consumer;
use super::producer::{Delivery, Producer};
use super::record::{ConsumerRecord, ProducerRecord, RecordHeaders};
use crate::consumer::PollError;
use crate::producer::SendError;

/// What a serializer or deserializer fails with.
pub type SerdeError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a key's or value's bytes.
///
/// ```
/// use bytes::Bytes;
/// use ringmill_client::{RecordHeaders, SerdeError, Serializer};
///
/// struct Celsius;
///
/// impl Serializer<f64> for Celsius {
///     fn serialize(
///         &self,
///         _topic: &str,
///         degrees: &f64,
///         headers: &mut RecordHeaders,
///     ) -> Result<Option<Bytes>, SerdeError> {
///         headers.push(("unit".into(), Some("°C".into())));
///         Ok(Some(Bytes::copy_from_slice(&degrees.to_be_bytes())))
///     }
/// }
/// ```
pub trait Serializer<T: ?Sized>: Send + Sync + 'static {
    /// The bytes of `value`, for a record of `topic`; `None` is null. May add headers.
    ///
    /// # Errors
    /// If the value has no bytes; then nothing is sent.
    fn serialize(
        &self,
        topic: &str,
        value: &T,
        headers: &mut RecordHeaders,
    ) -> Result<Option<Bytes>, SerdeError>;
}

/// Makes a value of a key's or value's bytes.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use ringmill_client::{Deserializer, RecordHeaders, SerdeError, UnexpectedNull};
///
/// struct Celsius;
///
/// impl Deserializer<f64> for Celsius {
///     fn deserialize(
///         &self,
///         _topic: &str,
///         bytes: Option<&Bytes>,
///         _headers: &RecordHeaders,
///     ) -> Result<f64, SerdeError> {
///         let bytes = bytes.ok_or(UnexpectedNull)?;
///         Ok(f64::from_be_bytes(bytes[..].try_into()?))
///     }
/// }
///
/// let degrees = Bytes::copy_from_slice(&21.5_f64.to_be_bytes());
/// let read = Celsius.deserialize("weather", Some(&degrees), &Vec::new());
/// assert_eq!(read.unwrap(), 21.5);
/// ```
pub trait Deserializer<T>: Send + Sync + 'static {
    /// The value of `bytes`, of a record of `topic`; `None` is null.
    ///
    /// # Errors
    /// If the bytes are not those of such a value.
    fn deserialize(
        &self,
        topic: &str,
        bytes: Option<&Bytes>,
        headers: &RecordHeaders,
    ) -> Result<T, SerdeError>;
}

/// Null where a value was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("null, where a value was expected")]
pub struct UnexpectedNull;

/// Bytes as they are.
///
/// ```
/// use bytes::Bytes;
/// use ringmill_client::{Deserializer, Raw};
///
/// let bytes = Bytes::from_static(b"abc");
/// let same: Bytes = Raw.deserialize("t", Some(&bytes), &Vec::new()).unwrap();
/// assert_eq!(same, bytes);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

/// Text as UTF-8.
///
/// ```
/// use ringmill_client::{Deserializer, Serializer, Utf8};
///
/// let bytes = Utf8.serialize("t", "ä", &mut Vec::new()).unwrap();
/// let text: String = Utf8.deserialize("t", bytes.as_ref(), &Vec::new()).unwrap();
/// assert_eq!(text, "ä");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Utf8;

/// Whole numbers as Java's serializers write them: big-endian, of the type's width.
///
/// ```
/// use ringmill_client::{Integer, Serializer};
///
/// let bytes = Integer.serialize("t", &7_i32, &mut Vec::new()).unwrap();
/// assert_eq!(bytes.unwrap(), [0, 0, 0, 7].as_slice());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Integer;

impl Serializer<Bytes> for Raw {
    fn serialize(
        &self,
        _: &str,
        value: &Bytes,
        _: &mut RecordHeaders,
    ) -> Result<Option<Bytes>, SerdeError> {
        Ok(Some(value.clone()))
    }
}

impl Serializer<[u8]> for Raw {
    fn serialize(
        &self,
        _: &str,
        value: &[u8],
        _: &mut RecordHeaders,
    ) -> Result<Option<Bytes>, SerdeError> {
        Ok(Some(Bytes::copy_from_slice(value)))
    }
}

impl Deserializer<Bytes> for Raw {
    fn deserialize(
        &self,
        _: &str,
        bytes: Option<&Bytes>,
        _: &RecordHeaders,
    ) -> Result<Bytes, SerdeError> {
        Ok(bytes.ok_or(UnexpectedNull)?.clone())
    }
}

impl Serializer<str> for Utf8 {
    fn serialize(
        &self,
        _: &str,
        value: &str,
        _: &mut RecordHeaders,
    ) -> Result<Option<Bytes>, SerdeError> {
        Ok(Some(Bytes::copy_from_slice(value.as_bytes())))
    }
}

impl Serializer<String> for Utf8 {
    fn serialize(
        &self,
        _: &str,
        value: &String,
        _: &mut RecordHeaders,
    ) -> Result<Option<Bytes>, SerdeError> {
        Ok(Some(Bytes::copy_from_slice(value.as_bytes())))
    }
}

impl Deserializer<String> for Utf8 {
    fn deserialize(
        &self,
        _: &str,
        bytes: Option<&Bytes>,
        _: &RecordHeaders,
    ) -> Result<String, SerdeError> {
        Ok(std::str::from_utf8(bytes.ok_or(UnexpectedNull)?)?.to_owned())
    }
}

macro_rules! integers {
    ($($number:ty),*) => {$(
        impl Serializer<$number> for Integer {
            fn serialize(
                &self,
                _: &str,
                value: &$number,
                _: &mut RecordHeaders,
            ) -> Result<Option<Bytes>, SerdeError> {
                Ok(Some(Bytes::copy_from_slice(&value.to_be_bytes())))
            }
        }

        impl Deserializer<$number> for Integer {
            fn deserialize(
                &self,
                _: &str,
                bytes: Option<&Bytes>,
                _: &RecordHeaders,
            ) -> Result<$number, SerdeError> {
                let bytes: &[u8] = bytes.ok_or(UnexpectedNull)?;
                Ok(<$number>::from_be_bytes(bytes.try_into()?))
            }
        }
    )*};
}

integers!(i16, i32, i64, u16, u32, u64);

/// Why a typed record was not taken.
#[derive(Debug, Error)]
pub enum TypedSendError {
    /// Its key or value has no bytes.
    #[error("{part} of a record of {topic:?}: {error}")]
    Serialize {
        /// `key` or `value`.
        part: &'static str,
        /// The record's topic.
        topic: String,
        /// The serializer's error.
        error: SerdeError,
    },
    /// The producer does not take it.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Why there is no typed record.
#[derive(Debug, Error)]
pub enum TypedPollError {
    /// A record's key or value cannot be read; the next call goes on behind it.
    #[error("{part} of {}-{} at offset {}: {error}", .record.topic, .record.partition, .record.offset)]
    Deserialize {
        /// `key` or `value`.
        part: &'static str,
        /// As it came.
        record: Box<ConsumerRecord>,
        /// The deserializer's error.
        error: SerdeError,
    },
    /// The consumer has none.
    #[error(transparent)]
    Poll(#[from] PollError),
}

/// A producer of an application's types; see [`Producer::typed`].
///
/// # Examples
/// ```no_run
/// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{Integer, TypedProducer, Utf8};
///
/// let counts: TypedProducer<str, i64> = producer.typed(Utf8, Integer);
/// counts.send("counts", Some("LH-400"), Some(&212)).await?.await?;
/// # Ok(())
/// # }
/// ```
pub struct TypedProducer<K: ?Sized + 'static, V: ?Sized + 'static> {
    producer: Producer,
    key: Arc<dyn Serializer<K>>,
    value: Arc<dyn Serializer<V>>,
}

impl Producer {
    /// The same producer for an application's types.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// let producer = producer.typed::<str, i64>(Utf8, Integer);
    /// producer.send("counts", Some("LH-400"), Some(&212)).await?.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<K: ?Sized + 'static, V: ?Sized + 'static>(
        &self,
        key: impl Serializer<K>,
        value: impl Serializer<V>,
    ) -> TypedProducer<K, V> {
        TypedProducer {
            producer: self.clone(),
            key: Arc::new(key),
            value: Arc::new(value),
        }
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> TypedProducer<K, V> {
    /// Sends a record as [`Producer::send`] does; without a value it is a tombstone.
    ///
    /// # Errors
    /// If key or value have no bytes, and as [`Producer::send`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// let counts = producer.typed::<str, i64>(Utf8, Integer);
    /// let delivery = counts.send("counts", Some("LH-400"), Some(&212)).await?;
    /// println!("{:?}", delivery.await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(
        &self,
        topic: &str,
        key: Option<&K>,
        value: Option<&V>,
    ) -> Result<Delivery, TypedSendError> {
        let mut record = ProducerRecord::to(topic);
        let wrong = |part| {
            let topic = topic.to_owned();
            move |error| TypedSendError::Serialize { part, topic, error }
        };
        if let Some(key) = key {
            let bytes = self.key.serialize(topic, key, &mut record.headers);
            record.key = bytes.map_err(wrong("key"))?;
        }
        if let Some(value) = value {
            let bytes = self.value.serialize(topic, value, &mut record.headers);
            record.value = bytes.map_err(wrong("value"))?;
        }
        Ok(self.producer.send(record).await?)
    }

    /// The producer below, to flush and close it.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// let counts = producer.typed::<str, i64>(Utf8, Integer);
    /// counts.send("counts", Some("LH-400"), None).await?;
    /// counts.producer().flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self) -> &Producer {
        &self.producer
    }
}

/// A record of an application's types.
///
/// # Examples
/// ```no_run
/// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{Integer, Utf8};
///
/// let counts = consumer.typed::<String, i64>(Utf8, Integer);
/// let count = counts.recv().await?;
/// println!("{}: {} at {}", count.key, count.value, count.record.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedRecord<K, V> {
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// The record as it came.
    pub record: ConsumerRecord,
}

/// A consumer of an application's types; see [`Consumer::typed`].
///
/// # Examples
/// ```no_run
/// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{Integer, TypedConsumer, Utf8};
///
/// let counts: TypedConsumer<String, i64> = consumer.typed(Utf8, Integer);
/// println!("{}", counts.recv().await?.value);
/// # Ok(())
/// # }
/// ```
pub struct TypedConsumer<K: 'static, V: 'static> {
    consumer: Consumer,
    key: Arc<dyn Deserializer<K>>,
    value: Arc<dyn Deserializer<V>>,
}

impl Consumer {
    /// The same consumer for an application's types.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// let consumer = consumer.typed::<String, i64>(Utf8, Integer);
    /// let record = consumer.recv().await?;
    /// println!("{}: {}", record.key, record.value);
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<K: 'static, V: 'static>(
        self,
        key: impl Deserializer<K>,
        value: impl Deserializer<V>,
    ) -> TypedConsumer<K, V> {
        TypedConsumer {
            consumer: self,
            key: Arc::new(key),
            value: Arc::new(value),
        }
    }
}

impl<K: 'static, V: 'static> TypedConsumer<K, V> {
    /// Waits for the next record, as [`Consumer::recv`] does.
    ///
    /// # Errors
    /// If its key or value cannot be read, and as [`Consumer::recv`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, TypedPollError, Utf8};
    ///
    /// let counts = consumer.typed::<String, i64>(Utf8, Integer);
    /// match counts.recv().await {
    ///     Ok(count) => println!("{}", count.value),
    ///     // the next call goes on behind it
    ///     Err(TypedPollError::Deserialize { record, error, .. }) => {
    ///         eprintln!("{} is no count: {error}", record.offset);
    ///     }
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv(&self) -> Result<TypedRecord<K, V>, TypedPollError> {
        let record = self.consumer.recv().await?;
        let (key, value) = (&*self.key, &*self.value);
        match (record.decode_key(key), record.decode_value(value)) {
            (Ok(key), Ok(value)) => Ok(TypedRecord { key, value, record }),
            (Err(error), _) => Err(wrong("key", record, error)),
            (_, Err(error)) => Err(wrong("value", record, error)),
        }
    }

    /// The consumer below, for everything else.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// let counts = consumer.typed::<String, i64>(Utf8, Integer);
    /// println!("{}", counts.recv().await?.value);
    /// counts.consumer().commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The consumer below, to close it.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// let counts = consumer.typed::<String, i64>(Utf8, Integer);
    /// counts.into_consumer().close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_consumer(self) -> Consumer {
        self.consumer
    }
}

fn wrong(part: &'static str, record: ConsumerRecord, error: SerdeError) -> TypedPollError {
    TypedPollError::Deserialize {
        part,
        record: Box::new(record),
        error,
    }
}

impl ConsumerRecord {
    /// The key as a deserializer reads it.
    ///
    /// # Errors
    /// The deserializer's.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), ringmill_client::SerdeError> {
    /// use ringmill_client::Utf8;
    ///
    /// let record = consumer.recv().await?;
    /// let flight: String = record.decode_key(&Utf8)?;
    /// println!("{flight}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn decode_key<T>(&self, by: &(impl Deserializer<T> + ?Sized)) -> Result<T, SerdeError> {
        by.deserialize(&self.topic, self.key.as_ref(), &self.headers)
    }

    /// The value as a deserializer reads it.
    ///
    /// # Errors
    /// The deserializer's.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), ringmill_client::SerdeError> {
    /// use ringmill_client::{Integer, Utf8};
    ///
    /// // the topic says what is in it
    /// let record = consumer.recv().await?;
    /// match &*record.topic {
    ///     "counts" => println!("{}", record.decode_value::<i64>(&Integer)?),
    ///     _ => println!("{}", record.decode_value::<String>(&Utf8)?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn decode_value<T>(&self, by: &(impl Deserializer<T> + ?Sized)) -> Result<T, SerdeError> {
        by.deserialize(&self.topic, self.value.as_ref(), &self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_value_is_an_error() {
        let short = Bytes::from_static(&[0, 1]);
        let none = RecordHeaders::new();
        let read = |bytes| -> Result<i32, SerdeError> { Integer.deserialize("t", bytes, &none) };
        assert!(read(Some(&short)).is_err());
        assert!(read(None).unwrap_err().is::<UnexpectedNull>());
        let bad = Bytes::from_static(&[0xff]);
        let text: Result<String, _> = Utf8.deserialize("t", Some(&bad), &none);
        assert!(text.is_err());
    }
}
