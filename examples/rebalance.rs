//! Hear of partitions that come and go, and commit before they go. Start it twice to see.
//!
//! `cargo run -p ringmill-client --example rebalance -- 127.0.0.1:9092 flights`

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ringmill_client::{Consumer, ListenerFuture, RebalanceListener, TopicPartition};

struct Teller;

impl RebalanceListener for Teller {
    fn on_assigned<'a>(
        &'a self,
        _consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        Box::pin(async move { println!("now mine: {partitions:?}") })
    }

    fn on_revoked<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        Box::pin(async move {
            println!("another's soon: {partitions:?}");
            if let Err(error) = consumer.commit().await {
                println!("not committed: {error}");
            }
        })
    }

    fn on_lost<'a>(
        &'a self,
        _consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        Box::pin(async move { println!("another's already: {partitions:?}") })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "flights".into());
    let seconds: u64 = args.next().map_or(Ok(30), |seconds| seconds.parse())?;

    let consumer = Consumer::builder()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "rebalance")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", false)
        .listener(Teller)
        .connect()
        .await?;
    consumer.subscribe([topic]).await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        let records = consumer.poll(Duration::from_millis(500)).await?;
        if !records.is_empty() {
            println!("{} records", records.len());
        }
    }
    consumer.close().await?;
    Ok(())
}
