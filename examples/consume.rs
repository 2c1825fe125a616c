//! Consume a topic as a member of a group, with automatic commits.
//!
//! `cargo run -p ringmill-client --example consume -- 127.0.0.1:9092 flights billing 10`

use ringmill_client::Consumer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "flights".into());
    let group = args.next().unwrap_or_else(|| "billing".into());
    let count: u64 = args.next().map_or(Ok(u64::MAX), |count| count.parse())?;

    let consumer = Consumer::builder()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .connect()
        .await?;
    consumer.subscribe([topic]).await?;
    for _ in 0..count {
        let record = consumer.recv().await?;
        let text = |part: &Option<bytes::Bytes>| {
            part.as_deref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        println!(
            "{}-{} {}: {:?} {:?}",
            record.topic,
            record.partition,
            record.offset,
            text(&record.key),
            text(&record.value)
        );
    }
    // commits what was handed over, and leaves the group at once
    consumer.close().await?;
    Ok(())
}
