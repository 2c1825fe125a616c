//! `consume`: how many records per second come out of a topic, from its beginning on, each looked
//! at and its offset checked. A broker that is started for the occasion on a folder without the
//! topic is filled first, which is not measured.

use std::time::Duration;

use ringmill_client::local::{
    Admin, AdminError, Consumer, ConsumerConfig, Event, LookupError, OffsetSpec, StartAt,
    TopicPartition,
};
use ringmill_ring::spawn;
use serde_json::json;

use crate::Failure;
use crate::broker::Broker;
use crate::fill::fill;
use crate::measure::Gathered;
use crate::options::{Output, Target, count, size, time};
use crate::process::usage;
use crate::produce::make_topic;
use crate::progress;
use crate::report::{Report, grouped};

/// Records that a topic is filled with, if their number is not given.
const FILLED: u64 = 1_000_000;
/// Without a record for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// The topic, as `produce` filled it
    #[arg(long, default_value = "ringmill-bench")]
    topic: String,
    /// How many records in all; all that are there if not given. --with-broker on a folder without
    /// the topic fills it first with so many, 1m if not given
    #[arg(long, value_parser = count)]
    records: Option<u64>,
    /// Bytes of each record's value, of a topic that is filled first
    #[arg(long, default_value = "100", value_parser = size)]
    record_size: usize,
    /// Partitions of a topic that is filled first
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// How many consumers, each with some of the partitions
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// Most bytes of one answer (fetch.max.bytes)
    #[arg(long, default_value = "50m", value_parser = size)]
    fetch_max_bytes: usize,
    /// Most bytes of one partition in an answer (max.partition.fetch.bytes)
    #[arg(long, default_value = "1m", value_parser = size)]
    partition_fetch_bytes: usize,
    /// How long the broker waits for more (fetch.max.wait.ms)
    #[arg(long, default_value = "500ms", value_parser = time)]
    max_wait: Duration,
    /// Do not check the batches' CRC
    #[arg(long)]
    no_crc: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut broker = Broker::reach(&args.target).await?;
    let partitions = find(&args, &broker).await?;
    let there = records_there(&broker, &partitions).await?;
    let wanted = args.records.unwrap_or(there).min(there);
    if wanted == 0 {
        let remedy = remedy(&args);
        let text = format!("topic {:?} is empty: {remedy}", args.topic);
        return Err(Failure(text));
    }
    let gathered = Gathered::new();
    broker.mark()?;
    let before = usage(None)?;
    gathered.start();
    let line = progress::show(wanted, &gathered);
    let mut tasks = Vec::new();
    for nth in 0..args.consumers.clamp(1, partitions.len().max(1)) {
        let mine = partitions.iter().skip(nth).step_by(args.consumers.max(1));
        let consumer = Consumer::new(&broker.client, config(&args)).map_err(Failure::new)?;
        consumer.assign(mine.map(|p| (p.clone(), StartAt::Find(OffsetSpec::Earliest))));
        tasks.push(spawn(read(consumer, gathered.clone(), wanted)));
    }
    for task in tasks {
        task.await.map_err(Failure::new)??;
    }
    drop(line);
    let cpu = usage(None)?.cpu.saturating_sub(before.cpu);
    let title = format!(
        "consume: {} records from {} ({} partition(s)), {} consumer(s), on {}",
        grouped(wanted),
        args.topic,
        partitions.len(),
        args.consumers,
        broker.address(&args.target),
    );
    let mut report = Report::new("consume", title);
    report.figure(
        "consumers",
        "consumers",
        json!(args.consumers),
        args.consumers.to_string(),
    );
    report.throughput(gathered.series());
    report.used(broker.used()?, cpu, gathered.series().records());
    report.finish(&args.output).await
}

/// The topic's partitions. If this program's own broker lacks the topic, it is made and filled.
async fn find(args: &Args, broker: &Broker) -> Result<Vec<TopicPartition>, Failure> {
    let admin = Admin::new(&broker.client);
    match admin.partitions(&args.topic).await {
        Err(error) if is_missing(&error) && args.target.with_broker => {}
        Err(error) if is_missing(&error) => {
            let (topic, remedy) = (&args.topic, remedy(args));
            let at = broker.address(&args.target);
            let text = format!("{at} has no topic {topic:?}: {remedy}");
            return Err(Failure(text));
        }
        found => return found.map_err(Failure::new),
    }
    let (topic, records) = (&args.topic, args.records.unwrap_or(FILLED));
    eprintln!(
        "filling topic {topic:?} of the new broker with {} records first",
        grouped(records)
    );
    make_topic(broker, topic, args.partitions).await?;
    fill(&broker.client, topic, records, args.record_size).await?;
    admin.partitions(topic).await.map_err(Failure::new)
}

fn is_missing(error: &AdminError) -> bool {
    matches!(error, AdminError::Lookup(LookupError::NoTopic(_)))
}

fn remedy(args: &Args) -> String {
    let topic = &args.topic;
    format!(
        "fill it with `ringmill-bench produce --topic {topic}`, or measure a new broker with --with-broker"
    )
}

fn config(args: &Args) -> ConsumerConfig {
    ConsumerConfig {
        fetch_max_bytes: args.fetch_max_bytes,
        partition_fetch_bytes: args.partition_fetch_bytes,
        fetch_max_wait: args.max_wait,
        check_crc: !args.no_crc,
        ..ConsumerConfig::default()
    }
}

async fn records_there(broker: &Broker, partitions: &[TopicPartition]) -> Result<u64, Failure> {
    let mut total = 0;
    for (spec, sign) in [(OffsetSpec::Latest, 1), (OffsetSpec::Earliest, -1)] {
        let wanted = partitions.iter().map(|partition| (partition.clone(), spec));
        let found = broker.client.offsets(wanted).await.map_err(Failure::new)?;
        let offsets = found.values().flatten().map(|place| place.offset);
        total += sign * offsets.sum::<i64>();
    }
    Ok(u64::try_from(total).unwrap_or(0))
}

/// Reads until all consumers together have seen enough.
async fn read(consumer: Consumer, gathered: Gathered, wanted: u64) -> Result<(), Failure> {
    let mut next = std::collections::BTreeMap::new();
    while gathered.series().records() < wanted {
        let fetched = match consumer.poll(PATIENCE).await.map_err(Failure::new)? {
            Event::Records(fetched) => fetched,
            Event::Idle if gathered.series().records() >= wanted => break,
            Event::Idle => {
                let text = format!("no record came for {PATIENCE:?}");
                return Err(Failure(text));
            }
            _ => continue,
        };
        let mut due = next.get(&fetched.partition()).copied();
        let (mut bytes, mut gap) = (0, None);
        let visited = fetched.for_each(|record| {
            if due.is_some_and(|due| record.offset != due) {
                gap.get_or_insert((due, record.offset));
            }
            due = Some(record.offset + 1);
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        });
        let records = visited.map_err(Failure::new)?;
        if let Some((due, came)) = gap {
            let partition = fetched.partition();
            let text = format!("partition {partition}: offset {came} came after {due:?} was due");
            return Err(Failure(text));
        }
        next.insert(fetched.partition(), due.unwrap_or(0));
        gathered.done(records, bytes as u64);
    }
    Ok(())
}
