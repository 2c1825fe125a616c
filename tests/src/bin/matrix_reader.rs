//! `matrix_reader BOOTSTRAP TOPIC GROUP`: our client as a member of a group that reads all the time, for
//! the matrix of faults, in the lines of `ringmill_tests::matrix::readers`.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmill_client::{Consumer, PollError};
use ringmill_tests::history::author;

/// How long a poll waits at the most.
const POLL: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, group] = &args[..] else {
        return Err("usage: matrix_reader BOOTSTRAP TOPIC GROUP".into());
    };
    let consumer = Consumer::builder()
        .set("bootstrap.servers", &**bootstrap)
        .set("group.id", &**group)
        .set("auto.offset.reset", "earliest")
        .set("auto.commit.interval.ms", "500")
        .set("request.timeout.ms", "1500")
        .connect()
        .await?;
    consumer.subscribe([&**topic]).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Release);
    });
    let begun = Instant::now();
    let mut out = std::io::stdout().lock();
    while !is_over.load(Ordering::Acquire) {
        let records = match consumer.poll(POLL).await {
            Ok(records) => records,
            Err(PollError::Closed) => return Err("the consumer is closed".into()),
            // one partition's trouble, or the group's: it goes on
            Err(error) => {
                eprintln!("{:?} {group}: {error}", begun.elapsed());
                continue;
            }
        };
        for record in records {
            let (partition, offset) = (record.partition, record.offset);
            match record.value.as_deref().and_then(author) {
                Some(author) => writeln!(out, "read {partition} {offset} {}", author.attempt)?,
                None => writeln!(out, "foreign {partition} {offset}")?,
            }
        }
        out.flush()?;
    }
    // whoever leaves in the middle of trouble leaves all the same
    let _ = consumer.close().await;
    Ok(())
}
