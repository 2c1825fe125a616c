//! rdkafka, unmodified, as foreign_client.py drives it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::BufRead;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

type Done<T = ()> = Result<T, Box<dyn Error>>;

/// Nothing for so long: the rest is taken to be all.
const QUIET: Duration = Duration::from_millis(300);
/// For requests that must succeed.
const LIMIT: Duration = Duration::from_secs(30);

struct Call {
    bootstrap: String,
    topic: String,
    rest: Vec<String>,
}

fn main() -> Done {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or("BOOTSTRAP COMMAND TOPIC …");
    let (bootstrap, command, topic) = (word()?, word()?, word()?);
    let call = Call {
        bootstrap,
        topic,
        rest: words.collect(),
    };
    match command.as_str() {
        "produce" => call.produce(),
        "transact" => call.transact(),
        "pipe" => call.pipe(),
        "consume" => call.consume("read_uncommitted"),
        "committed" => call.consume("read_committed"),
        "group" => call.group("classic", None),
        "consumer-group" => call.group("consumer", None),
        "static-group" => call.group("classic", Some("instance")),
        "offset" => call.offset(),
        other => call.administer(other),
    }
}

// ---- records as JSON ----

fn bytes(value: &Value) -> Done<Option<Vec<u8>>> {
    Ok(value.as_str().map(|text| BASE64.decode(text)).transpose()?)
}

fn text(value: Option<&[u8]>) -> Value {
    value.map_or(Value::Null, |value| BASE64.encode(value).into())
}

fn headers(record: &Value) -> Done<OwnedHeaders> {
    let mut headers = OwnedHeaders::new();
    for pair in record["headers"].as_array().into_iter().flatten() {
        let value = bytes(&pair[1])?;
        headers = headers.insert(Header {
            key: pair[0].as_str().ok_or("a header's name")?,
            value: value.as_deref(),
        });
    }
    Ok(headers)
}

fn show(message: &BorrowedMessage<'_>) {
    let headers: Vec<Value> = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| json!([header.key, text(header.value)]))
        .collect();
    let shown = json!({
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": text(message.key()),
        "value": text(message.payload()),
        "headers": headers,
    });
    println!("{shown}");
}

// ---- producing ----

/// Where each record went, by its place in the input; or why it did not.
#[derive(Default)]
struct Deliveries(Mutex<BTreeMap<usize, Result<(i32, i64), String>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<usize>) {
        let delivered = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().expect("no panic").insert(*place, delivered);
    }
}

type Sender = ThreadedProducer<Deliveries>;

impl Call {
    fn settings(&self, more: &[(&str, &str)]) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap);
        for (name, value) in more {
            settings.set(*name, *value);
        }
        settings
    }

    fn producer(&self, more: &[(&str, &str)]) -> Done<Sender> {
        let mut settings = self.settings(&[
            ("linger.ms", "5"),
            ("enable.idempotence", "true"),
            ("message.max.bytes", "8388608"),
        ]);
        for (name, value) in more {
            settings.set(*name, *value);
        }
        Ok(settings.create_with_context(Deliveries::default())?)
    }

    fn send_input(&self, producer: &Sender) -> Done {
        for (place, line) in std::io::stdin().lock().lines().enumerate() {
            let record: Value = serde_json::from_str(&line?)?;
            let (key, value) = (bytes(&record["key"])?, bytes(&record["value"])?);
            let mut sent: BaseRecord<'_, [u8], [u8], Box<usize>> =
                BaseRecord::with_opaque_to(&self.topic, Box::new(place)).headers(headers(&record)?);
            sent.key = key.as_deref();
            sent.payload = value.as_deref();
            sent.partition = record["partition"].as_i64().map(|partition| partition as i32);
            sent.timestamp = record["timestamp"].as_i64();
            producer.send(sent).map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    fn produce(&self) -> Done {
        let producer = self.producer(&[("compression.type", &self.rest[0])])?;
        self.send_input(&producer)?;
        producer.flush(LIMIT * 2)?;
        told(&producer)
    }

    /// One transaction with all records of the input.
    fn transact(&self) -> Done {
        let producer = self.producer(&[("transactional.id", &self.rest[0])])?;
        producer.init_transactions(LIMIT)?;
        producer.begin_transaction()?;
        self.send_input(&producer)?;
        producer.flush(LIMIT)?;
        match self.rest[1].as_str() {
            "commit" => producer.commit_transaction(LIMIT)?,
            _ => producer.abort_transaction(LIMIT)?,
        }
        told(&producer)
    }

    /// Carries so many records from one topic to another, exactly once, ten in a transaction.
    fn pipe(&self) -> Done {
        let [to, group, id, count] = &self.rest[..] else {
            return Err("pipe FROM TO GROUP ID COUNT".into());
        };
        let producer = self.producer(&[("transactional.id", id)])?;
        let consumer = self.consumer(&[("group.id", group), ("isolation.level", "read_committed")])?;
        producer.init_transactions(LIMIT)?;
        consumer.subscribe(&[&self.topic])?;
        let mut left: usize = count.parse()?;
        while left > 0 {
            let Some(first) = consumer.poll(Duration::from_millis(100)).transpose()? else {
                continue;
            };
            producer.begin_transaction()?;
            let mut done = TopicPartitionList::new();
            let mut next = Some(first);
            let mut carried = 0;
            while let Some(message) = next {
                let mut sent: BaseRecord<'_, [u8], [u8], Box<usize>> =
                    BaseRecord::with_opaque_to(to, Box::new(carried)).partition(message.partition());
                sent.key = message.key();
                sent.payload = message.payload();
                producer.send(sent).map_err(|(error, _)| error)?;
                let (partition, offset) = (message.partition(), message.offset() + 1);
                if done.find_partition(&self.topic, partition).is_none() {
                    done.add_partition(&self.topic, partition);
                }
                done.set_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
                carried += 1;
                let more = carried < left.min(10);
                next = if more { consumer.poll(QUIET).transpose()? } else { None };
            }
            let metadata = consumer.group_metadata().ok_or("a member of no group")?;
            producer.send_offsets_to_transaction(&done, &metadata, LIMIT)?;
            producer.commit_transaction(LIMIT)?;
            left -= carried;
        }
        Ok(())
    }

    // ---- consuming ----

    fn consumer(&self, more: &[(&str, &str)]) -> Done<BaseConsumer> {
        let mut settings = self.settings(&[
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            // required even of one that joins no group
            ("group.id", "none"),
        ]);
        for (name, value) in more {
            settings.set(*name, *value);
        }
        Ok(settings.create()?)
    }

    fn consume(&self, isolation: &str) -> Done {
        let consumer = self.consumer(&[("isolation.level", isolation)])?;
        let start = Offset::Offset(self.rest[1].parse()?);
        let mut partitions = TopicPartitionList::new();
        for partition in self.rest[2].split(',') {
            partitions.add_partition_offset(&self.topic, partition.parse()?, start)?;
        }
        consumer.assign(&partitions)?;
        follow(&consumer, self.rest[0].parse()?)
    }

    fn group(&self, protocol: &str, instance: Option<&str>) -> Done {
        let mut more = vec![("group.id", &*self.rest[0]), ("group.protocol", protocol)];
        more.extend(instance.map(|id| ("group.instance.id", id)));
        let consumer = self.consumer(&more)?;
        consumer.subscribe(&[&self.topic])?;
        follow(&consumer, self.rest[1].parse()?)?;
        Ok(consumer.commit_consumer_state(CommitMode::Sync)?)
    }

    fn offset(&self) -> Done {
        let consumer = self.consumer(&[])?;
        let time = Offset::Offset(self.rest[0].parse()?);
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&self.topic, 0, time)?;
        let found = consumer.offsets_for_times(asked, LIMIT)?;
        let found = found.find_partition(&self.topic, 0).ok_or("no partition")?;
        println!("{}", found.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(-1));
        Ok(())
    }

    // ---- administration ----

    fn administer(&self, command: &str) -> Done {
        let admin: AdminClient<DefaultClientContext> = self.settings(&[]).create()?;
        let options = AdminOptions::new().request_timeout(Some(LIMIT));
        match command {
            "create" => {
                let replication = TopicReplication::Fixed(1);
                let topic = NewTopic::new(&self.topic, self.rest[0].parse()?, replication);
                done(wait(admin.create_topics(&[topic], &options))?)
            }
            "delete" => done(wait(admin.delete_topics(&[&self.topic], &options))?),
            "list" => {
                let consumer = self.consumer(&[])?;
                let all = consumer.fetch_metadata(None, LIMIT)?;
                let found = all.topics().iter().find(|topic| topic.name() == self.topic);
                println!("{}", found.map_or(0, |topic| topic.partitions().len()));
                Ok(())
            }
            other => Err(format!("no such command: {other}").into()),
        }
    }
}

fn done(results: Vec<rdkafka::admin::TopicResult>) -> Done {
    for result in results {
        result.map_err(|(topic, code)| format!("{topic}: {code}"))?;
    }
    Ok(())
}

/// Shows records until there are enough of them and nothing more comes.
fn follow(consumer: &BaseConsumer, count: usize) -> Done {
    let (mut seen, mut last) = (0, Instant::now());
    while seen < count || last.elapsed() < QUIET {
        if let Some(message) = consumer.poll(Duration::from_millis(20)).transpose()? {
            show(&message);
            seen += 1;
            last = Instant::now();
        }
    }
    Ok(())
}

/// Tells where each record went; fails if one went nowhere.
fn told(producer: &Sender) -> Done {
    for delivery in producer.context().0.lock().expect("no panic").values() {
        let (partition, offset) = delivery.clone()?;
        println!("{}", json!({"partition": partition, "offset": offset}));
    }
    Ok(())
}

/// Runs a future whose work is done by librdkafka's threads.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
