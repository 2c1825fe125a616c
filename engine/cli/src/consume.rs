//! `ringmill consume`: records to standard output, one a line.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use ringmill_client::local::{
    Admin, Client, Committed, CommittedOffsets, Consumer, ConsumerConfig, Event, Fetched,
    FetchedRecord, GroupProtocol, OffsetReset, OffsetSpec, StartAt, TopicPartition,
};
use ringmill_ring::{Instant, now};
use serde_json::{Map, Value, json};

use crate::remote::{Remote, run as on_ring};
use crate::{Failure, signals};

/// Between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the end of the topic, with --exit.
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The value as it is
    Text,
    /// An object a line, with everything there is
    Json,
    /// Partition, offset, timestamp, key and value, the last two in hexadecimal
    Hex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    Classic,
    Consumer,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The topic
    topic: String,
    /// Begin with the first record there is; with what comes from now on if not given
    #[arg(long)]
    from_beginning: bool,
    /// Begin at this offset of each partition; a negative one counts back from the end
    #[arg(long, allow_hyphen_values = true, conflicts_with_all = ["from_beginning", "group"])]
    offset: Option<i64>,
    /// Read one partition alone
    #[arg(long, conflicts_with = "group")]
    partition: Option<i32>,
    /// End after so many records
    #[arg(long)]
    count: Option<u64>,
    /// Read as a member of this group, and commit what was printed
    #[arg(long)]
    group: Option<String>,
    /// The protocol that the group speaks; with `consumer`, the broker assigns (KIP-848)
    #[arg(long, value_enum, default_value = "classic", requires = "group")]
    group_protocol: Protocol,
    /// End when all that is there was read
    #[arg(long, short = 'e')]
    exit: bool,
    /// How records are printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// With --format text: print the key, and this after it
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (stop, stopped) = oneshot::channel();
    let stop = std::sync::Mutex::new(Some(stop));
    signals::on_stop(move || {
        let stop = stop.lock().ok().and_then(|mut stop| stop.take());
        // nobody listens any more when the end has come by itself
        let _ = stop.map(|stop| stop.send(()));
    })
    .map_err(Failure::new)?;
    on_ring(async move {
        let client = args.remote.client().await?;
        let mut reading = Reading::start(&client, &args).await?;
        let read = match select(Box::pin(reading.all()), stopped).await {
            Either::Left((read, _)) => read,
            Either::Right(_) => Ok(()),
        };
        reading.end().await?;
        read
    })
}

/// A consumer, what it has printed, and how it prints.
struct Reading<'a> {
    args: &'a Args,
    client: &'a Client,
    consumer: Option<Consumer>,
    out: BufWriter<io::Stdout>,
    printed: u64,
    /// What was printed and not committed yet.
    uncommitted: CommittedOffsets,
    next_commit: Instant,
    reader_is_gone: bool,
}

impl<'a> Reading<'a> {
    async fn start(client: &'a Client, args: &'a Args) -> Result<Self, Failure> {
        let config = ConsumerConfig {
            group_id: args.group.clone(),
            group_protocol: match args.group_protocol {
                Protocol::Classic => GroupProtocol::Classic,
                Protocol::Consumer => GroupProtocol::Consumer,
            },
            auto_commit: None,
            offset_reset: match args.from_beginning {
                true => OffsetReset::Earliest,
                false => OffsetReset::Latest,
            },
            ..ConsumerConfig::default()
        };
        let partitions = partitions(client, args).await?;
        let consumer = Consumer::new(client, config).map_err(Failure::new)?;
        if args.group.is_some() {
            consumer
                .subscribe([args.topic.as_str()])
                .map_err(Failure::new)?;
        } else {
            consumer.assign(starts(client, args, partitions).await?);
        }
        Ok(Self {
            args,
            client,
            consumer: Some(consumer),
            out: BufWriter::new(io::stdout()),
            printed: 0,
            uncommitted: CommittedOffsets::new(),
            next_commit: now() + COMMIT_INTERVAL,
            reader_is_gone: false,
        })
    }

    fn is_done(&self) -> bool {
        self.reader_is_gone || self.args.count.is_some_and(|count| self.printed >= count)
    }

    async fn all(&mut self) -> Result<(), Failure> {
        while !self.is_done() {
            let Some(consumer) = &mut self.consumer else {
                return Ok(());
            };
            match consumer.poll(POLL).await.map_err(Failure::new)? {
                Event::Records(fetched) => self.show(&fetched)?,
                Event::Revoked(_) => self.commit().await?,
                Event::Lost(_) => self.uncommitted.clear(),
                Event::Assigned(_) => {}
                Event::Idle if self.args.exit && self.is_at_end().await? => return Ok(()),
                Event::Idle => {}
            }
            if now() >= self.next_commit {
                self.commit().await?;
            }
        }
        Ok(())
    }

    fn show(&mut self, fetched: &Fetched) -> Result<(), Failure> {
        let topic: Arc<str> = fetched.topic().into();
        let partition = TopicPartition::new(topic, fetched.partition());
        let mut next = None;
        let (args, out) = (self.args, &mut self.out);
        let (mut printed, mut failure) = (self.printed, None);
        let visited = fetched.for_each(|record| {
            if failure.is_some() || args.count.is_some_and(|count| printed >= count) {
                return;
            }
            match write(out, args, &partition, record) {
                Ok(()) => {
                    printed += 1;
                    next = Some(record.offset + 1);
                }
                Err(error) => failure = Some(error),
            }
        });
        self.printed = printed;
        if let Some(next) = next {
            self.uncommitted.insert(partition, Committed::at(next));
        }
        let failure = failure.or(self.out.flush().err());
        match failure {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => self.reader_is_gone = true,
            Some(error) => return Err(Failure::new(error)),
            None => {}
        }
        visited.map(drop).map_err(Failure::new)
    }

    /// Whether every partition was read to the end that it has now.
    async fn is_at_end(&self) -> Result<bool, Failure> {
        let Some(consumer) = &self.consumer else {
            return Ok(true);
        };
        let assigned = consumer.assignment();
        let wanted = assigned.iter().map(|p| (p.clone(), OffsetSpec::Latest));
        let ends = self.client.offsets(wanted).await.map_err(Failure::new)?;
        let reached = |partition: &TopicPartition| {
            let end = ends
                .get(partition)
                .copied()
                .flatten()
                .map_or(0, |place| place.offset);
            consumer
                .position(partition)
                .is_some_and(|position| position >= end)
        };
        Ok(!assigned.is_empty() && assigned.iter().all(reached))
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.next_commit = now() + COMMIT_INTERVAL;
        let offsets = std::mem::take(&mut self.uncommitted);
        match &self.consumer {
            Some(consumer) if self.args.group.is_some() && !offsets.is_empty() => consumer
                .commit_offsets(&offsets)
                .await
                .map_err(Failure::new),
            _ => Ok(()),
        }
    }

    async fn end(&mut self) -> Result<(), Failure> {
        let committed = self.commit().await;
        if let Some(consumer) = self.consumer.take() {
            consumer.close().await.map_err(Failure::new)?;
        }
        committed
    }
}

async fn partitions(client: &Client, args: &Args) -> Result<Vec<TopicPartition>, Failure> {
    let partitions = Admin::new(client).partitions(&args.topic).await;
    let mut partitions = partitions.map_err(Failure::new)?;
    if let Some(wanted) = args.partition {
        let count = partitions.len();
        partitions.retain(|partition| partition.partition == wanted);
        if partitions.is_empty() {
            let text = format!(
                "topic {:?} has {count} partitions, none is {wanted}",
                args.topic
            );
            return Err(Failure::new(text));
        }
    }
    Ok(partitions)
}

/// Where to begin in each partition.
async fn starts(
    client: &Client,
    args: &Args,
    partitions: Vec<TopicPartition>,
) -> Result<Vec<(TopicPartition, StartAt)>, Failure> {
    let everywhere = |start: StartAt| partitions.iter().map(|p| (p.clone(), start)).collect();
    match args.offset {
        Some(offset) if offset >= 0 => Ok(everywhere(StartAt::Offset(offset))),
        Some(back) => {
            let find = async |spec| {
                let wanted = partitions.iter().map(|p| (p.clone(), spec));
                client.offsets(wanted).await.map_err(Failure::new)
            };
            let (first, end) = (
                find(OffsetSpec::Earliest).await?,
                find(OffsetSpec::Latest).await?,
            );
            let starts = partitions.iter().map(|partition| {
                let offset = |found: &ringmill_client::local::FoundOffsets| {
                    found
                        .get(partition)
                        .copied()
                        .flatten()
                        .map_or(0, |place| place.offset)
                };
                let start = (offset(&end) + back).max(offset(&first));
                (partition.clone(), StartAt::Offset(start))
            });
            Ok(starts.collect())
        }
        None if args.from_beginning => Ok(everywhere(StartAt::Find(OffsetSpec::Earliest))),
        None => Ok(everywhere(StartAt::Find(OffsetSpec::Latest))),
    }
}

fn write(
    out: &mut impl Write,
    args: &Args,
    partition: &TopicPartition,
    record: &FetchedRecord<'_>,
) -> io::Result<()> {
    match args.format {
        Format::Text => {
            if let Some(separator) = &args.key_separator {
                out.write_all(record.key.unwrap_or_default())?;
                out.write_all(separator.as_bytes())?;
            }
            out.write_all(record.value.unwrap_or_default())?;
            out.write_all(b"\n")
        }
        Format::Json => writeln!(out, "{}", as_json(partition, record)),
        Format::Hex => {
            let shown = |bytes: Option<&[u8]>| bytes.map_or_else(|| "null".to_owned(), hex);
            let (key, value) = (shown(record.key), shown(record.value));
            let (number, offset) = (partition.partition, record.offset);
            writeln!(out, "{number} {offset} {} {key} {value}", record.timestamp)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "empty".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn as_json(partition: &TopicPartition, record: &FetchedRecord<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), json!(&*partition.topic));
    object.insert("partition".into(), json!(partition.partition));
    object.insert("offset".into(), json!(record.offset));
    object.insert("timestamp".into(), json!(record.timestamp));
    put_bytes(&mut object, "key", record.key);
    put_bytes(&mut object, "value", record.value);
    let headers = record.headers.iter().map(|header| {
        let mut object = Map::new();
        put_bytes(&mut object, "key", Some(header.key));
        put_bytes(&mut object, "value", header.value);
        Value::Object(object)
    });
    object.insert("headers".into(), headers.collect());
    Value::Object(object)
}

/// Text as text; what is no UTF-8 in hexadecimal, under a name that says so.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => object.insert(name.to_owned(), json!(text)),
        Some(Err(_)) => {
            let text = bytes.map(hex).unwrap_or_default();
            object.insert(format!("{name}_hex"), json!(text))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_apart() {
        let mut object = Map::new();
        put_bytes(&mut object, "a", None);
        put_bytes(&mut object, "b", Some(b"x"));
        put_bytes(&mut object, "c", Some(b"\xff\x00"));
        assert_eq!(
            Value::Object(object),
            json!({"a": null, "b": "x", "c_hex": "ff00"})
        );
        assert_eq!(hex(b""), "empty");
    }
}
