//! The same without any asynchronous runtime: produce and consume on plain threads.
//!
//! `cargo run -p ringmill-client --example blocking -- 127.0.0.1:9092 flights`

use std::time::Duration;

use ringmill_client::{ProducerRecord, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let topic = args.next().unwrap_or_else(|| "flights".into());

    let builder = ringmill_client::Producer::builder().set("bootstrap.servers", &bootstrap);
    let producer = blocking::Producer::connect(builder)?;
    let delivery = producer.send(ProducerRecord::to(&*topic).value("boarding"))?;
    println!("at offset {:?}", delivery.wait()?.offset);
    producer.close()?;

    let builder = ringmill_client::Consumer::builder()
        .set("bootstrap.servers", &bootstrap)
        .set("group.id", "blocking")
        .set("auto.offset.reset", "earliest");
    let consumer = blocking::Consumer::connect(builder)?;
    consumer.subscribe(&[&topic])?;
    for record in consumer.poll(Duration::from_secs(10))? {
        println!("{} {}: {:?}", record.partition, record.offset, record.value);
    }
    consumer.close()?;
    Ok(())
}
