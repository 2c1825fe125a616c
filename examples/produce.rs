//! Produce a few records and learn where they ended up.
//!
//! `cargo run -p ringmill-client --example produce -- 127.0.0.1:9092 flights`

use ringmill_client::{Producer, ProducerRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "flights".into());

    let producer = Producer::builder()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "example")
        .connect()
        .await?;
    for (flight, news) in [
        ("LH-400", "boarding"),
        ("BA-12", "delayed"),
        ("LH-400", "departed"),
    ] {
        let record = ProducerRecord::to(&*topic)
            .key(flight)
            .value(news)
            .header("source", "gate 7");
        // waits for room in the buffer; the delivery waits for the broker
        let delivered = producer.send(record).await?.await?;
        println!(
            "{flight} {news}: partition {}, offset {:?}",
            delivered.partition, delivered.offset
        );
    }
    producer.close().await?;
    Ok(())
}
