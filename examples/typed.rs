//! Keys and values of the application's own types, by serializers and deserializers.
//!
//! `cargo run -p ringmill-client --example typed -- 127.0.0.1:9092 temperatures`

use bytes::Bytes;
use ringmill_client::{
    Consumer, Deserializer, Producer, RecordHeaders, SerdeError, Serializer, UnexpectedNull, Utf8,
};

#[derive(Debug, PartialEq)]
struct Celsius(f64);

/// Eight bytes, big-endian.
struct CelsiusBytes;

impl Serializer<Celsius> for CelsiusBytes {
    fn serialize(
        &self,
        _topic: &str,
        value: &Celsius,
        headers: &mut RecordHeaders,
    ) -> Result<Option<Bytes>, SerdeError> {
        headers.push(("unit".into(), Some("°C".into())));
        Ok(Some(Bytes::copy_from_slice(&value.0.to_be_bytes())))
    }
}

impl Deserializer<Celsius> for CelsiusBytes {
    fn deserialize(
        &self,
        _topic: &str,
        bytes: Option<&Bytes>,
        _headers: &RecordHeaders,
    ) -> Result<Celsius, SerdeError> {
        let bytes: &[u8] = bytes.ok_or(UnexpectedNull)?;
        Ok(Celsius(f64::from_be_bytes(bytes.try_into()?)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "temperatures".into());

    let producer = Producer::builder()
        .set("bootstrap.servers", &bootstrap)
        .connect()
        .await?;
    let producer = producer.typed::<str, Celsius>(Utf8, CelsiusBytes);
    for (room, degrees) in [("kitchen", 21.5), ("cellar", 11.0)] {
        let sent = producer
            .send(&topic, Some(room), Some(&Celsius(degrees)))
            .await?;
        sent.await?;
    }

    let consumer = Consumer::builder()
        .set("bootstrap.servers", &bootstrap)
        .set("group.id", "typed")
        .set("auto.offset.reset", "earliest")
        .connect()
        .await?;
    consumer.subscribe([&topic]).await?;
    let consumer = consumer.typed::<String, Celsius>(Utf8, CelsiusBytes);
    for _ in 0..2 {
        let record = consumer.recv().await?;
        println!("{}: {:?}", record.key, record.value);
    }
    consumer.into_consumer().close().await?;
    Ok(())
}
