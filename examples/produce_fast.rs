//! Produce as fast as the brokers take it: large batches, compression, no waiting per record.
//!
//! `cargo run -p ringmill-client --example produce_fast -- 127.0.0.1:9092 flights 1000000`

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ringmill_client::{Producer, ProducerRecord, SendError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic: Arc<str> = args.next().unwrap_or_else(|| "flights".into()).into();
    let count: u64 = args.next().map_or(Ok(1_000_000), |count| count.parse())?;

    let producer = Producer::builder()
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", 10)
        .set("batch.size", 256 << 10)
        .set("max.request.size", 4 << 20)
        .set("compression.type", "lz4")
        .connect()
        .await?;
    let value = Bytes::from(vec![b'x'; 100]);
    let started = Instant::now();
    for _ in 0..count {
        // names and values are shared, not copied
        let record = ProducerRecord::to(topic.clone()).value(value.clone());
        match producer.try_send(record.clone()) {
            Ok(_delivery) => {}
            // the buffer is full: wait for room
            Err(SendError::Full) => drop(producer.send(record).await?),
            Err(error) => return Err(error.into()),
        }
    }
    // deliveries that failed are told here
    producer.flush().await?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{count} records in {seconds:.2} s: {:.0} per second",
        count as f64 / seconds
    );
    println!("{:?}", producer.stats().await);
    producer.close().await?;
    Ok(())
}
