//! `load BOOTSTRAP TOPIC PARTITIONS RATE FIRST`: our client as one of those under test by the matrix
//! of faults, in the lines of `ringmill_tests::matrix::load`.

#![forbid(unsafe_code)]

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmill_client::{Producer, ProducerRecord};
use ringmill_tests::history::{Author, value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, partitions, rate, first] = &args[..] else {
        return Err("usage: load BOOTSTRAP TOPIC PARTITIONS RATE FIRST".into());
    };
    let (partitions, rate): (i32, u32) = (partitions.parse()?, rate.parse()?);
    let mut id: u64 = first.parse()?;
    let producer = Producer::builder()
        .set("bootstrap.servers", &**bootstrap)
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("request.timeout.ms", "1500")
        .connect()
        .await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Release);
    });
    let mut turns = tokio::time::interval(Duration::from_secs(1) / rate);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut deliveries = tokio::task::JoinSet::new();
    while !is_over.load(Ordering::Acquire) {
        turns.tick().await;
        for partition in 0..partitions {
            let author = Author {
                attempt: id,
                index: 0,
            };
            let record = ProducerRecord::to(&**topic)
                .partition(partition)
                .value(value(author, 100));
            println!("sent {id} {partition}");
            let delivery = producer.send(record).await?;
            deliveries.spawn(async move {
                match delivery.await.map(|delivered| delivered.offset) {
                    Ok(Some(offset)) => println!("acked {id} {partition} {offset}"),
                    other => println!("failed {id} {partition} {other:?}"),
                }
            });
            id += 1;
        }
        while deliveries.try_join_next().is_some() {}
    }
    producer.flush().await?;
    while deliveries.join_next().await.is_some() {}
    Ok(())
}
