//! `ringmill demo`: a node, a real data set through it and back, and the proof that it came back as
//! it went in.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringmill_client::local::{
    Admin, Client, Consumer, ConsumerConfig, Event, Fetched, NewTopic, OffsetReset, Producer,
    ProducerConfig, Record, partition_of_key,
};
use ringmill_ring::{now, spawn, yield_now};

use crate::embedded::Embedded;
use crate::flights::Flights;
use crate::remote::{connect, print, run as on_ring};
use crate::{Failure, signals};

const TOPIC: &str = "flights";
const PARTITIONS: usize = 4;
const GROUP: &str = "demo";
const MEMBERS: usize = 2;
/// Records between two looks at the rest of the program.
const BURST: usize = 1000;
/// Without a record for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the node listens; a free port of 127.0.0.1 if 9092 is taken and nothing is given
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the node keeps its data, and leaves it; a temporary folder if not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// End after the check instead of waiting for Ctrl-C
    #[arg(long)]
    exit: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let flights = Rc::new(Flights::load()?);
    let node = start(args)?;
    let (stop, stopped) = oneshot::channel();
    let stop = std::sync::Mutex::new(Some(stop));
    signals::on_stop(move || {
        let stop = stop.lock().ok().and_then(|mut stop| stop.take());
        // nobody listens any more when the end has come by itself
        let _ = stop.map(|stop| stop.send(()));
    })
    .map_err(Failure::new)?;
    on_ring(async {
        let shown = async {
            show(&node, flights).await?;
            match args.exit {
                true => Ok(true),
                false => print("Ctrl-C stops it.\n").map(|()| false),
            }
        };
        let mut stopped = stopped;
        let shown = std::pin::pin!(shown);
        let exit = match futures_util::future::select(shown, &mut stopped).await {
            futures_util::future::Either::Left((shown, _)) => shown?,
            futures_util::future::Either::Right(_) => true,
        };
        if !exit {
            let _ = stopped.await;
        }
        Ok(())
    })
}

fn start(args: &Args) -> Result<Embedded, Failure> {
    let settings = [("group.initial.rebalance.delay.ms", "0")];
    let data = args.data.as_deref();
    if let Some(listen) = &args.listen {
        return Embedded::start(listen, data, &settings);
    }
    let usual = Embedded::start("127.0.0.1:9092", data, &settings);
    // another broker may have the usual port: that is no reason not to show this one
    usual.or_else(|_| Embedded::start("127.0.0.1:0", data, &settings))
}

async fn show(node: &Embedded, flights: Rc<Flights>) -> Result<(), Failure> {
    let (data, stays) = node.data();
    let address = node.address();
    let kept = if stays { "kept" } else { "removed at the end" };
    print(&format!(
        "node      {address}, data in {} ({kept})\n",
        data.display()
    ))?;
    let client = connect(&address.to_string()).await?;
    make_topic(&client).await?;
    let produced = produce(&client, &flights).await?;
    print(&format!(
        "produced  {produced}, acknowledged when flushed to disk\n"
    ))?;
    let consumed = consume(&client, flights).await?;
    print(&format!(
        "consumed  {consumed}, by group {GROUP:?} of {MEMBERS} members\n"
    ))?;
    print("checked   every record came back byte for byte, in order in its partition\n\n")?;
    print(&format!(
        "Go on with any Kafka client, such as\n  \
         kcat -b {address} -t {TOPIC} -C -c 3\n  \
         ringmill consume {TOPIC} --bootstrap {address} --from-beginning --count 3\n  \
         ringmill group describe {GROUP} --bootstrap {address}\n"
    ))
}

/// A fresh topic: a demo on kept data begins anew.
async fn make_topic(client: &Client) -> Result<(), Failure> {
    let admin = Admin::new(client);
    let topics = admin.topics().await.map_err(Failure::new)?;
    if topics.iter().any(|topic| &*topic.name == TOPIC) {
        admin.delete_topic(TOPIC).await.map_err(Failure::new)?;
        let groups = admin.groups().await.map_err(Failure::new)?;
        if groups.iter().any(|group| group.group == GROUP) {
            admin.delete_group(GROUP).await.map_err(Failure::new)?;
        }
    }
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(PARTITIONS as i32),
        ..NewTopic::default()
    };
    admin
        .create_topic(&topic)
        .await
        .map(drop)
        .map_err(Failure::new)
}

fn bar(total: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {pos}/{len} {per_sec}");
    let bar = ProgressBar::new(total as u64).with_message(what);
    bar.with_style(style.expect("the template is valid"))
}

/// What was done, how fast.
fn rate(records: usize, bytes: usize, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(1e-9);
    format!(
        "{} flights, {:.1} MB: {} records/s, {:.1} MB/s",
        HumanCount(records as u64),
        bytes as f64 / 1e6,
        HumanCount((records as f64 / seconds) as u64),
        bytes as f64 / 1e6 / seconds,
    )
}

async fn produce(client: &Client, flights: &Flights) -> Result<String, Failure> {
    let producer = Producer::new(client, ProducerConfig::default()).await;
    let producer = producer.map_err(Failure::new)?;
    let topic = producer.topic(TOPIC).await.map_err(Failure::new)?;
    let bar = bar(flights.len(), "producing");
    let (begun, mut bytes, mut text) = (now(), 0, String::new());
    for row in 0..flights.len() {
        flights.write(row, &mut text);
        bytes += text.len();
        let record = Record::of(text.as_bytes()).with_key(flights.key(row).as_bytes());
        producer.send(&topic, &record).await.map_err(Failure::new)?;
        if row % BURST == 0 {
            bar.set_position(row as u64);
            yield_now().await;
        }
    }
    producer.close().await.map_err(Failure::new)?;
    bar.finish_and_clear();
    Ok(rate(flights.len(), bytes, now() - begun))
}

/// What the members of the group share: which flights are due next in each partition.
struct Check {
    flights: Rc<Flights>,
    /// By partition, the rows that were sent there, in order.
    due: Vec<Vec<u32>>,
    seen: Vec<Cell<usize>>,
    bytes: Cell<usize>,
    bar: ProgressBar,
}

impl Check {
    fn new(flights: Rc<Flights>) -> Self {
        let mut due = vec![Vec::new(); PARTITIONS];
        for row in 0..flights.len() {
            let partition = partition_of_key(flights.key(row).as_bytes(), PARTITIONS);
            due[partition].push(row as u32);
        }
        Self {
            bar: bar(flights.len(), "consuming"),
            flights,
            due,
            seen: (0..PARTITIONS).map(|_| Cell::new(0)).collect(),
            bytes: Cell::new(0),
        }
    }

    fn total(&self) -> usize {
        self.seen.iter().map(Cell::get).sum()
    }

    fn is_complete(&self) -> bool {
        self.total() == self.flights.len()
    }

    /// Holds each record against the row that must come next.
    fn check(&self, fetched: &Fetched) -> Result<(), Failure> {
        let partition = fetched.partition() as usize;
        let (due, seen) = (&self.due[partition], &self.seen[partition]);
        let (mut text, mut wrong) = (String::new(), None);
        let visited = fetched.for_each(|record| {
            let value = record.value.unwrap_or_default();
            let is_it = due.get(seen.get()).is_some_and(|row| {
                self.flights.write(*row as usize, &mut text);
                let key = self.flights.key(*row as usize);
                value == text.as_bytes() && record.key == Some(key.as_bytes())
            });
            if !is_it {
                wrong.get_or_insert(record.offset);
            }
            seen.set(seen.get() + 1);
            self.bytes.set(self.bytes.get() + value.len());
        });
        visited.map_err(Failure::new)?;
        self.bar.set_position(self.total() as u64);
        match wrong {
            None => Ok(()),
            Some(offset) => Err(Failure(format!(
                "{TOPIC}-{partition} at offset {offset}: not what was produced"
            ))),
        }
    }
}

async fn consume(client: &Client, flights: Rc<Flights>) -> Result<String, Failure> {
    let check = Rc::new(Check::new(flights));
    let begun = now();
    let members: Vec<_> = (0..MEMBERS)
        .map(|_| spawn(member(client.clone(), check.clone())))
        .collect();
    for member in members {
        member.await.map_err(Failure::new)??;
    }
    let time = now() - begun;
    check.bar.finish_and_clear();
    Ok(rate(check.total(), check.bytes.get(), time))
}

/// One member of the group: reads until all members together have seen everything.
async fn member(client: Client, check: Rc<Check>) -> Result<(), Failure> {
    let config = ConsumerConfig {
        group_id: Some(GROUP.to_owned()),
        offset_reset: OffsetReset::Earliest,
        heartbeat_interval: Duration::from_millis(500),
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(&client, config).map_err(Failure::new)?;
    consumer.subscribe([TOPIC]).map_err(Failure::new)?;
    let mut last = now();
    while !check.is_complete() {
        match consumer
            .poll(Duration::from_millis(100))
            .await
            .map_err(Failure::new)?
        {
            Event::Records(fetched) => {
                check.check(&fetched)?;
                last = now();
            }
            _ if now() - last > PATIENCE && !check.is_complete() => {
                let (seen, all) = (check.total(), check.flights.len());
                return Err(Failure(format!("{seen} of {all} flights came back")));
            }
            _ => {}
        }
    }
    consumer.close().await.map_err(Failure::new)
}
