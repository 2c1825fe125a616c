//! Fills a topic for measures that need one; nothing of it is measured.

use ringmill_client::local::{Acks, Client, Producer, ProducerConfig, Record};

use crate::Failure;
use crate::measure::Gathered;
use crate::produce::Payload;
use crate::progress;

/// Records between two looks at what was delivered.
const BURST: u64 = 1000;

/// Produces so many records of so many bytes, and waits until all are acknowledged.
pub(crate) async fn fill(
    client: &Client,
    topic: &str,
    records: u64,
    record_size: usize,
) -> Result<(), Failure> {
    let config = ProducerConfig {
        acks: Acks::All,
        idempotence: true,
        batch_bytes: 256 << 10,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config).await.map_err(Failure::new)?;
    let topic = producer.topic(topic).await.map_err(Failure::new)?;
    let mut payload = Payload::new(record_size, 1);
    let gathered = Gathered::new();
    gathered.start();
    let line = progress::show(records, &gathered);
    let mut sent = 0;
    while sent < records {
        let burst = BURST.min(records - sent);
        for _ in 0..burst {
            let sent = producer.send(&topic, &Record::of(payload.next())).await;
            drop(sent.map_err(Failure::new)?);
        }
        sent += burst;
        let delivered = producer.stats().delivered - gathered.series().records();
        gathered.done(delivered, delivered * record_size as u64);
    }
    producer.flush().await.map_err(Failure::new)?;
    drop(line);
    Ok(())
}
