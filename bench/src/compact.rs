//! `compact`: a log of many keys is compacted while its clients go on. How much memory that takes,
//! beside what the same broker takes for the same clients without a cleaner (the bound itself is
//! engine/log/tests/cleaner_memory.rs's business); whether reads in the middle of the log and durable
//! writes notice; and that of every key the last record is left, and nothing else.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringmill_client::local::{
    Acks, Admin, Client, Consumer, ConsumerConfig, Event, NewTopic, OffsetSpec, Producer,
    ProducerConfig, Record, StartAt, TopicPartition,
};
use ringmill_ring::{now, sleep, spawn};
use serde_json::json;

use crate::Failure;
use crate::broker::{Broker, Started, on_folder};
use crate::chart::Curve;
use crate::options::{Output, Target, count, size};
use crate::process::{folder_size, resident};
use crate::produce::Payload;
use crate::report::{Report, grouped};

const TOPIC: &str = "ringmill-bench-compact";
/// Where writes are timed, so that the compacted log stays as it is.
const OTHER: &str = "ringmill-bench-compact-writes";
/// Primes: what is no multiple of one has none in common with it.
const STRIDES: [u64; 2] = [7_919, 7_907];
/// Records between two looks at the rest of the program.
const BURST: u64 = 1000;
/// How often memory and the log's size are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long requests are timed without the cleaner.
const QUIET: Duration = Duration::from_secs(20);
/// The longest request that is told apart from longer ones, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// `segment.bytes` of the log.
const SEGMENT_BYTES: usize = 8 << 20;
/// The active segment is never compacted: records of this size behind the log make it begin in
/// them.
const CLOSING_BYTES: usize = 768 << 10;
const CLOSING: usize = SEGMENT_BYTES / CLOSING_BYTES + 2;
/// A log that has kept its size for so long is compacted.
const SETTLED: Duration = Duration::from_secs(6);
/// The cleaner has at most so long.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bytes of a key, and of the version that a value begins with.
const NUMBER: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// How many different keys
    #[arg(long, default_value = "2m", value_parser = count)]
    keys: u64,
    /// How often each is written
    #[arg(long, default_value_t = 4)]
    versions: u64,
    /// Bytes of each record's value
    #[arg(long, default_value = "200", value_parser = size)]
    record_size: usize,
    /// `log.cleaner.dedupe.buffer.size`: the bound of the cleaner's memory
    #[arg(long, default_value = "16m", value_parser = size)]
    buffer: usize,
}

/// What a broker did for a while.
struct Watched {
    memory: Curve,
    size: Curve,
    memory_first: u64,
    memory_most: u64,
    size_first: u64,
    size_last: u64,
    /// Until the log had its last size.
    took: Duration,
    /// Microseconds.
    reads: Histogram<u64>,
    writes: Histogram<u64>,
}

/// What is left of the log.
struct Left {
    /// Of the keys.
    records: u64,
    /// That close the log.
    closing: u64,
    keys: u64,
    /// Keys whose last record is not of the last version.
    old: u64,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let measured = on_folder(&args.target, async |data| measure(&args, data).await).await;
    let (quiet, loud, left) = measured?;
    if (left.keys, left.records, left.old) != (args.keys, args.keys, 0) {
        return Err(Failure::new(format!(
            "{} of {} keys are left in {} records, {} with an old value",
            left.keys, args.keys, left.records, left.old
        )));
    }
    let title = format!(
        "compact: {} keys, {} times each, {} B for the cleaner",
        grouped(args.keys),
        args.versions,
        grouped(args.buffer as u64)
    );
    let mut report = Report::new("compact", title);
    let more = loud.memory_most.saturating_sub(quiet.memory_most);
    for (name, key, bytes) in [
        ("log before", "log_bytes_before", loud.size_first),
        ("log after", "log_bytes_after", loud.size_last),
        ("memory at rest", "memory_bytes_before", loud.memory_first),
        (
            "most memory without the cleaner",
            "memory_bytes_most_without",
            quiet.memory_most,
        ),
        ("most memory with it", "memory_bytes_most", loud.memory_most),
        ("more with it", "memory_bytes_more", more),
        ("its buffer", "buffer_bytes", args.buffer as u64),
    ] {
        report.figure(name, key, json!(bytes), format!("{} B", grouped(bytes)));
    }
    let took = loud.took.as_secs_f64();
    report.figure("time", "seconds", json!(took), format!("{took:.1} s"));
    let records = format!(
        "{} of {} keys, and {} of {CLOSING} that close the log",
        grouped(left.records),
        grouped(left.keys),
        left.closing
    );
    report.figure("records left", "records_left", json!(left.records), records);
    for (name, key, quiet, loud) in [
        ("reads in the middle", "read", &quiet.reads, &loud.reads),
        ("durable writes", "write", &quiet.writes, &loud.writes),
    ] {
        disturbance(&mut report, name, key, quiet, loud);
    }
    report.curves("seconds", "MiB", vec![loud.memory, loud.size]);
    report.finish(&args.output).await
}

/// How much slower requests are with the cleaner.
fn disturbance(
    report: &mut Report,
    name: &str,
    key: &str,
    quiet: &Histogram<u64>,
    loud: &Histogram<u64>,
) {
    for (percent, quantile) in [("50", 0.5), ("99", 0.99)] {
        let [quiet, loud] = [quiet, loud].map(|times| times.value_at_quantile(quantile));
        let ratio = loud as f64 / quiet.max(1) as f64;
        report.figure(
            &format!("{name}, p{percent}, without and with the cleaner"),
            &format!("{key}_p{percent}_us"),
            json!([quiet, loud]),
            format!("{} us, {} us: {ratio:.2}", grouped(quiet), grouped(loud)),
        );
    }
}

/// Fills the log without a cleaner and times its clients; then with one, until the log is compacted.
async fn measure(args: &Args, data: &Path) -> Result<(Watched, Watched, Left), Failure> {
    let mut target = args.target.clone();
    let given = target.broker_args.clone();
    target
        .broker_args
        .push("--log-cleaner-enable=false".to_owned());
    let mut started = Started::on(&target, data)?;
    let broker = Broker::at(started.address()).await?;
    make_topics(&broker.client).await?;
    fill(args, &broker.client).await?;
    drop(broker);
    started.stop()?;
    // whoever has written it all has more in memory
    let mut started = Started::on(&target, data)?;
    let quiet = watch(args, &started, data, false).await?;
    started.stop()?;
    target.broker_args = given;
    target
        .broker_args
        .push(format!("--log-cleaner-dedupe-buffer-size={}", args.buffer));
    target
        .broker_args
        .push("--log-cleaner-backoff-ms=100".to_owned());
    let started = Started::on(&target, data)?;
    let loud = watch(args, &started, data, true).await?;
    let broker = Broker::at(started.address()).await?;
    let left = count_left(args, &broker.client).await?;
    Ok((quiet, loud, left))
}

async fn make_topics(client: &Client) -> Result<(), Failure> {
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", &SEGMENT_BYTES.to_string()),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("file.delete.delay.ms", "0"),
    ];
    let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let compacted = NewTopic {
        configs: configs.into(),
        ..NewTopic::of(TOPIC, 1)
    };
    for topic in [compacted, NewTopic::of(OTHER, 1)] {
        let made = Admin::new(client).create_topic(&topic).await;
        made.map_err(Failure::new)?;
    }
    Ok(())
}

/// Every key in every version, and what closes the log.
async fn fill(args: &Args, client: &Client) -> Result<(), Failure> {
    let config = ProducerConfig {
        acks: Acks::All,
        idempotence: true,
        batch_bytes: 64 << 10,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config).await.map_err(Failure::new)?;
    let topic = producer.topic(TOPIC).await.map_err(Failure::new)?;
    let mut payload = Payload::new(args.record_size, 1);
    let mut value = Vec::new();
    // neighbours in the log are no neighbours in the order of keys, of which each has its turn
    let mut strides = STRIDES.into_iter();
    let stride = strides.find(|stride| !args.keys.is_multiple_of(*stride));
    let stride = stride.unwrap_or(1);
    for version in 0..args.versions {
        for number in 0..args.keys {
            let key = (number.wrapping_mul(stride) % args.keys).to_be_bytes();
            value.clear();
            value.extend_from_slice(&version.to_be_bytes());
            value.extend_from_slice(&payload.next()[NUMBER.min(args.record_size)..]);
            let sent = producer
                .send(&topic, &Record::of(&value).with_key(&key))
                .await;
            drop(sent.map_err(Failure::new)?);
            if number % BURST == 0 {
                producer.ready().await;
            }
        }
    }
    let (key, value) = (args.keys.to_be_bytes(), vec![0; CLOSING_BYTES]);
    for _ in 0..CLOSING {
        let record = Record::of(&value).with_key(&key);
        let sent = producer.send(&topic, &record).await;
        drop(sent.map_err(Failure::new)?);
    }
    producer.close().await.map_err(Failure::new)
}

/// Times clients while the broker does its work: for a while, or until the log is compacted.
async fn watch(
    args: &Args,
    started: &Started,
    data: &Path,
    cleans: bool,
) -> Result<Watched, Failure> {
    let pid = started.pid();
    let broker = Broker::at(started.address()).await?;
    let (first, memory_first) = (folder_size(data)?, resident(pid)?);
    let times = Rc::new(Times::new());
    let end = (args.keys * args.versions) as i64;
    let reader = spawn(read_on(broker.client.clone(), end, times.clone()));
    let writer = spawn(write_on(broker.client.clone(), times.clone()));
    let began = now();
    let mut watched = Watched {
        memory: Curve::new("memory"),
        size: Curve::new("log"),
        memory_first,
        memory_most: memory_first,
        size_first: first,
        size_last: first,
        took: Duration::ZERO,
        reads: times.reads.borrow().clone(),
        writes: times.writes.borrow().clone(),
    };
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    loop {
        sleep(LOOK).await;
        let passed = now() - began;
        let (memory, size) = (resident(pid)?, folder_size(data)?);
        watched.memory.add(passed.as_secs_f64(), mebibytes(memory));
        watched.size.add(passed.as_secs_f64(), mebibytes(size));
        watched.memory_most = watched.memory_most.max(memory);
        // timed writes make the folder a little larger
        if size + (1 << 20) < watched.size_last || size > watched.size_last + (8 << 20) {
            (watched.size_last, watched.took) = (size, passed);
        }
        let is_over = match cleans {
            true => passed - watched.took > SETTLED && watched.size_last < watched.size_first,
            false => passed > QUIET,
        };
        if let Some(failure) = times.failure.borrow_mut().take() {
            return Err(failure);
        }
        if is_over {
            break;
        }
        if passed > PATIENCE {
            return Err(Failure::new("the log is not compacted in time"));
        }
    }
    times.over.set(true);
    reader.abort();
    writer.abort();
    watched.reads = times.reads.borrow().clone();
    watched.writes = times.writes.borrow().clone();
    Ok(watched)
}

/// What the clients have seen.
struct Times {
    reads: RefCell<Histogram<u64>>,
    writes: RefCell<Histogram<u64>>,
    failure: RefCell<Option<Failure>>,
    over: Cell<bool>,
}

impl Times {
    fn new() -> Self {
        let histogram = || {
            let bounded = Histogram::new_with_bounds(1, LONGEST_US, 3);
            RefCell::new(bounded.expect("the bounds are valid"))
        };
        Self {
            reads: histogram(),
            writes: histogram(),
            failure: RefCell::new(None),
            over: Cell::new(false),
        }
    }

    fn tell<E: std::fmt::Display>(&self, error: E) {
        *self.failure.borrow_mut() = Some(Failure::new(error));
    }
}

/// Reads some records at one place in the middle after another, from offsets that may be gone.
async fn read_on(client: Client, end: i64, times: Rc<Times>) {
    let config = ConsumerConfig {
        partition_fetch_bytes: 16 << 10,
        ..ConsumerConfig::default()
    };
    let consumer = match Consumer::new(&client, config) {
        Ok(consumer) => consumer,
        Err(error) => return times.tell(error),
    };
    let partition = TopicPartition::new(TOPIC, 0);
    let mut at = end / 3;
    while !times.over.get() {
        at = (at + 104_729) % (end * 9 / 10).max(1);
        consumer.assign([(partition.clone(), StartAt::Offset(at))]);
        let asked = now();
        loop {
            match consumer.poll(Duration::from_secs(10)).await {
                Ok(Event::Records(found)) => {
                    drop(found);
                    break;
                }
                Ok(Event::Idle) => return times.tell("a read in the middle takes ten seconds"),
                Ok(_) => {}
                Err(error) => return times.tell(error),
            }
        }
        let took = (now() - asked).as_micros() as u64;
        times.reads.borrow_mut().saturating_record(took);
        sleep(Duration::from_millis(5)).await;
    }
}

/// Writes one record after the other.
async fn write_on(client: Client, times: Rc<Times>) {
    let written = async {
        let config = ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, config).await.map_err(Failure::new)?;
        let topic = producer.topic(OTHER).await.map_err(Failure::new)?;
        while !times.over.get() {
            let asked = now();
            let sent = producer.send(&topic, &Record::of(b"timed")).await;
            sent.map_err(Failure::new)?.await.map_err(Failure::new)?;
            let took = (now() - asked).as_micros() as u64;
            times.writes.borrow_mut().saturating_record(took);
            sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, Failure>(())
    };
    if let Err(error) = written.await {
        times.tell(error);
    }
}

/// Reads the whole log.
async fn count_left(args: &Args, client: &Client) -> Result<Left, Failure> {
    let consumer = Consumer::new(client, ConsumerConfig::default()).map_err(Failure::new)?;
    let partition = TopicPartition::new(TOPIC, 0);
    consumer.assign([(partition, StartAt::Find(OffsetSpec::Earliest))]);
    let mut last = vec![None; args.keys as usize];
    let (mut records, mut closing) = (0, 0);
    let end = (args.keys * args.versions) as i64 + CLOSING as i64;
    loop {
        let found = match consumer.poll(QUIET).await.map_err(Failure::new)? {
            Event::Records(found) => found,
            Event::Idle => return Err(Failure::new("the log ends too early")),
            _ => continue,
        };
        let visited = found.for_each(|record| {
            let number = |bytes: Option<&[u8]>| {
                let bytes = bytes?.get(..NUMBER)?.try_into().ok()?;
                Some(u64::from_be_bytes(bytes))
            };
            match number(record.key).and_then(|key| last.get_mut(key as usize)) {
                Some(last) => {
                    *last = number(record.value);
                    records += 1;
                }
                None => closing += 1,
            }
        });
        visited.map_err(Failure::new)?;
        if found.next_offset() >= end {
            break;
        }
    }
    let newest = Some(args.versions - 1);
    Ok(Left {
        records,
        closing,
        keys: last.iter().flatten().count() as u64,
        old: last.iter().filter(|version| **version != newest).count() as u64,
    })
}
