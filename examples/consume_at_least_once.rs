//! Consume in polls, and commit only what is processed: after a crash some records come again, none
//! is lost.
//!
//! `cargo run -p ringmill-client --example consume_at_least_once -- 127.0.0.1:9092 flights`

use std::time::Duration;

use ringmill_client::{Committed, CommittedOffsets, Consumer, ConsumerRecord, TopicPartition};

fn process(record: &ConsumerRecord) {
    println!(
        "processing {}-{} {}",
        record.topic, record.partition, record.offset
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "flights".into());

    let consumer = Consumer::builder()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "at-least-once")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", false)
        .set("max.poll.records", 100)
        .connect()
        .await?;
    consumer.subscribe([topic]).await?;
    let mut idle = 0;
    while idle < 5 {
        let records = consumer.poll(Duration::from_secs(1)).await?;
        idle = if records.is_empty() { idle + 1 } else { 0 };
        let mut offsets = CommittedOffsets::new();
        for record in &records {
            process(record);
            let partition = TopicPartition::new(record.topic.clone(), record.partition);
            // what is committed is the next record to be read
            offsets.insert(partition, Committed::at(record.offset + 1));
        }
        consumer.commit_offsets(&offsets).await?;
    }
    consumer.close().await?;
    Ok(())
}
