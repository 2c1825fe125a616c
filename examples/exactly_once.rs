//! Consume, transform and produce in transactions: each record has its effect exactly once, whatever
//! crashes.
//!
//! `cargo run -p ringmill-client --example exactly_once -- 127.0.0.1:9092 flights announcements`

use std::time::Duration;

use ringmill_client::{
    Committed, CommittedOffsets, Consumer, ConsumerRecord, Producer, ProducerRecord, StartAt,
    TopicPartition, TransactionError,
};

/// One transaction: what becomes of the records, and how far the group has come.
async fn process(
    records: &[ConsumerRecord],
    consumer: &Consumer,
    producer: &Producer,
    output: &str,
) -> Result<(), TransactionError> {
    producer.begin_transaction().await?;
    let mut offsets = CommittedOffsets::new();
    for record in records {
        let value = record
            .value
            .as_deref()
            .unwrap_or_default()
            .to_ascii_uppercase();
        // a failed delivery fails the commit
        let _ = producer.send(ProducerRecord::to(output).value(value)).await;
        let partition = TopicPartition::new(record.topic.clone(), record.partition);
        offsets.insert(partition, Committed::at(record.offset + 1));
    }
    if let Some(group) = consumer.group_metadata().await {
        producer
            .send_offsets_to_transaction(&offsets, &group)
            .await?;
    }
    producer.commit_transaction().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let input = args.next().unwrap_or_else(|| "flights".into());
    let output = args.next().unwrap_or_else(|| "announcements".into());

    let producer = Producer::builder()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", "announcer-1")
        .connect()
        .await?;
    producer.init_transactions().await?;
    let consumer = Consumer::builder()
        .set("bootstrap.servers", &bootstrap)
        .set("group.id", "announcer")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", false)
        .connect()
        .await?;
    consumer.subscribe([input]).await?;
    let mut idle = 0;
    while idle < 5 {
        let records = consumer.poll(Duration::from_secs(1)).await?;
        idle = if records.is_empty() { idle + 1 } else { 0 };
        let Some(first) = records.first() else {
            continue;
        };
        if let Err(error) = process(&records, &consumer, &producer, &output).await {
            eprintln!("aborting: {error}");
            producer.abort_transaction().await?;
            // the same records once more
            let partition = TopicPartition::new(first.topic.clone(), first.partition);
            consumer
                .seek(&partition, StartAt::Offset(first.offset))
                .await?;
        } else {
            println!("{} records from offset {}", records.len(), first.offset);
        }
    }
    consumer.close().await?;
    producer.close().await?;
    Ok(())
}
