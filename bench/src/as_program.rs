//! `as-program`: this program's own client as a load of `compare`, started like any other's: it writes so
//! many records as fast as it can, and tells in a line of JSON what that took.

use std::time::Duration;

use ringmill_client::local::{Acks, ProducerConfig};
use ringmill_ring::now;
use serde_json::json;

use crate::Failure;
use crate::broker::Broker;
use crate::measure::Gathered;
use crate::process::usage;
use crate::produce::{Enough, Load, Payload, connect};

/// As the other clients of the comparison have it.
const BATCH_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// HOST:PORT of a broker
    address: String,
    /// A topic that is there
    topic: String,
    /// How many records
    records: u64,
    /// Bytes of each record's value
    record_size: usize,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let broker = Broker::at(&args.address).await?;
    let config = ProducerConfig {
        acks: Acks::All,
        batch_bytes: BATCH_BYTES,
        linger: LINGER,
        ..ProducerConfig::default()
    };
    let (producer, topic) = connect(&broker, &config, &args.topic).await?;
    let load = Load {
        producer: producer.clone(),
        topic,
        enough: Enough::Records(args.records),
        payload: Payload::new(args.record_size, 1),
        burst: (BATCH_BYTES / args.record_size.max(1)).max(1) as u64,
        rate: None,
        gathered: Gathered::new(),
    };
    let begun = now();
    load.send().await?;
    let seconds = (now() - begun).as_secs_f64();
    let cpu_seconds = usage(None)?.cpu.as_secs_f64();
    let records = producer.stats().delivered;
    println!(
        "{}",
        json!({ "records": records, "seconds": seconds, "cpu_seconds": cpu_seconds })
    );
    Ok(())
}
