//! Read a topic from a time on, without a group: the last hour, by default.
//!
//! `cargo run -p ringmill-client --example seek_by_time -- 127.0.0.1:9092 flights 3600`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmill_client::{Consumer, OffsetSpec, StartAt, TopicPartition};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "flights".into());
    let seconds: u64 = args.next().map_or(Ok(3600), |seconds| seconds.parse())?;

    let consumer = Consumer::builder()
        .set("bootstrap.servers", bootstrap)
        .connect()
        .await?;
    let since = SystemTime::now() - Duration::from_secs(seconds);
    let since = since.duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let partitions = consumer.topic(&topic).await?.partitions;
    let partitions = partitions
        .iter()
        .map(|p| TopicPartition::new(&*topic, p.index));
    let times = partitions.map(|partition| (partition, since));
    let found = consumer.offsets_for_times(times).await?;
    let starts = found.into_iter().map(|(partition, found)| {
        let start = match found {
            Some(found) => StartAt::Offset(found.offset),
            // nothing is that late yet: what comes next is
            None => StartAt::Find(OffsetSpec::Latest),
        };
        (partition, start)
    });
    consumer.assign(starts).await?;
    loop {
        let records = consumer.poll(Duration::from_secs(2)).await?;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            println!(
                "{} {} {}",
                record.partition, record.offset, record.timestamp
            );
        }
    }
}
