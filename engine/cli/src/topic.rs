//! `ringmill topic`: create, list, describe, alter and delete topics.

use ringmill_client::local::{
    Admin, ConfigChange, ConfigEntry, ConfigSource, NewTopic, OffsetSpec, Topic, TopicPartition,
};
use serde_json::{Value, json};

use crate::Failure;
use crate::copies;
use crate::remote::{Remote, pair, print, print_json, run as on_ring, table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Create a topic
    Create {
        name: String,
        /// How many partitions; the broker's num.partitions if not given
        #[arg(long)]
        partitions: Option<i32>,
        /// How many replicas; the broker's default.replication.factor if not given
        #[arg(long)]
        replication: Option<i16>,
        /// A setting, such as retention.ms=86400000; may be repeated
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = pair)]
        configs: Vec<(String, String)>,
    },
    /// Name all topics
    List {
        /// The broker's own among them
        #[arg(long)]
        internal: bool,
    },
    /// Show a topic's partitions with their offsets, and the settings that are not the default
    Describe { name: String },
    /// Change settings, or add partitions
    Alter {
        name: String,
        /// How many partitions it is to have; never fewer than now
        #[arg(long)]
        partitions: Option<i32>,
        /// A setting to change; may be repeated
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = pair)]
        configs: Vec<(String, String)>,
        /// A setting to put back to its default; may be repeated
        #[arg(long = "delete-config", value_name = "NAME")]
        deleted: Vec<String>,
    },
    /// Move a topic's copies to other nodes, while all goes on
    Reassign {
        name: String,
        /// The nodes that are to have a copy of each partition; who leads goes round among them
        #[arg(
            long,
            value_name = "NODE,...",
            value_delimiter = ',',
            required_unless_present = "cancel"
        )]
        nodes: Vec<i32>,
        /// This partition alone; may be repeated
        #[arg(long = "partition", value_name = "NUMBER")]
        partitions: Vec<i32>,
        /// Take back what is on its way
        #[arg(long, conflicts_with = "nodes")]
        cancel: bool,
    },
    /// Delete topics with all their records
    Delete {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    on_ring(async move {
        let client = args.remote.client().await?;
        let admin = Admin::new(&client);
        let json = args.remote.json;
        match args.task {
            Task::Create {
                name,
                partitions,
                replication,
                configs,
            } => {
                let new = NewTopic {
                    name,
                    partitions,
                    replication,
                    configs,
                };
                let topic = admin.create_topic(&new).await.map_err(Failure::new)?;
                created(&topic, json)
            }
            Task::List { internal } => list(&admin, internal, json).await,
            Task::Describe { name } => {
                let topic = admin.describe_topic(&name).await.map_err(Failure::new)?;
                describe(&client, &admin, &topic, json).await
            }
            Task::Alter {
                name,
                partitions,
                configs,
                deleted,
            } => {
                let set = configs
                    .into_iter()
                    .map(|(name, value)| ConfigChange::Set(name, value));
                let changes: Vec<_> = set
                    .chain(deleted.into_iter().map(ConfigChange::Delete))
                    .collect();
                alter(&admin, &name, partitions, &changes).await?;
                told(json, json!({"altered": name}), &format!("altered {name}\n"))
            }
            Task::Reassign {
                name,
                partitions,
                cancel: true,
                ..
            } => copies::cancel(&admin, &name, &partitions, json).await,
            Task::Reassign {
                name,
                nodes,
                partitions,
                ..
            } => copies::reassign(&admin, &name, &partitions, &nodes, json).await,
            Task::Delete { names } => {
                for name in &names {
                    admin.delete_topic(name).await.map_err(Failure::new)?;
                }
                told(
                    json,
                    json!({"deleted": names}),
                    &format!("deleted {}\n", names.join(", ")),
                )
            }
        }
    })
}

fn told(json: bool, value: Value, text: &str) -> Result<(), Failure> {
    if json {
        print_json(&value)
    } else {
        print(text)
    }
}

fn created(topic: &Topic, json: bool) -> Result<(), Failure> {
    let count = topic.partitions.len();
    let value = json!({"created": &*topic.name, "id": topic.id.to_string(), "partitions": count});
    told(
        json,
        value,
        &format!("created {} with {count} partition(s)\n", topic.name),
    )
}

async fn list(admin: &Admin, internal: bool, json: bool) -> Result<(), Failure> {
    let mut topics = admin.topics().await.map_err(Failure::new)?;
    topics.retain(|topic| internal || !topic.is_internal);
    if json {
        let rows = topics.iter().map(|topic| {
            json!({
                "name": &*topic.name,
                "id": topic.id.to_string(),
                "partitions": topic.partitions.len(),
                "internal": topic.is_internal,
            })
        });
        return print_json(&rows.collect());
    }
    let names: Vec<String> = topics
        .iter()
        .map(|topic| format!("{}\n", topic.name))
        .collect();
    print(&names.concat())
}

async fn alter(
    admin: &Admin,
    name: &str,
    partitions: Option<i32>,
    changes: &[ConfigChange],
) -> Result<(), Failure> {
    if partitions.is_none() && changes.is_empty() {
        return Err(Failure::new(
            "nothing to alter: give --partitions, --config NAME=VALUE or --delete-config NAME",
        ));
    }
    if let Some(count) = partitions {
        admin
            .create_partitions(name, count)
            .await
            .map_err(Failure::new)?;
    }
    if changes.is_empty() {
        return Ok(());
    }
    admin.alter_topic(name, changes).await.map_err(Failure::new)
}

async fn describe(
    client: &ringmill_client::local::Client,
    admin: &Admin,
    topic: &Topic,
    json: bool,
) -> Result<(), Failure> {
    let led = topic
        .partitions
        .iter()
        .filter(|partition| partition.leader.is_some());
    let led: Vec<_> = led
        .map(|partition| TopicPartition::new(topic.name.clone(), partition.index))
        .collect();
    let find = async |spec| {
        let wanted = led.iter().map(|partition| (partition.clone(), spec));
        client.offsets(wanted).await.map_err(Failure::new)
    };
    let (first, end) = (
        find(OffsetSpec::Earliest).await?,
        find(OffsetSpec::Latest).await?,
    );
    let mut configs = admin
        .topic_configs(&topic.name)
        .await
        .map_err(Failure::new)?;
    configs.retain(|entry| entry.source == ConfigSource::Topic);
    let offset = |found: &ringmill_client::local::FoundOffsets, index| {
        let key = TopicPartition::new(topic.name.clone(), index);
        found.get(&key).copied().flatten().map(|place| place.offset)
    };
    let ends = topic.partitions.iter();
    let ends: Vec<Ends> = ends
        .map(|p| (offset(&first, p.index), offset(&end, p.index)))
        .collect();
    match json {
        true => print_json(&described_json(topic, &ends, configs)),
        false => print(&described_text(topic, &ends, configs)),
    }
}

/// A partition's first offset and the end of its log.
type Ends = (Option<i64>, Option<i64>);

fn described_json(topic: &Topic, ends: &[Ends], configs: Vec<ConfigEntry>) -> Value {
    let partitions = topic.partitions.iter().zip(ends).map(|(p, (first, end))| {
        json!({
            "partition": p.index,
            "leader": p.leader,
            "replicas": p.replicas,
            "in_sync": p.in_sync,
            "first_offset": first,
            "end_offset": end,
        })
    });
    let configs = configs
        .into_iter()
        .map(|entry| (entry.name, json!(entry.value)));
    json!({
        "name": &*topic.name,
        "id": topic.id.to_string(),
        "partitions": partitions.collect::<Value>(),
        "configs": configs.collect::<serde_json::Map<_, _>>(),
    })
}

fn described_text(topic: &Topic, ends: &[Ends], configs: Vec<ConfigEntry>) -> String {
    let shown = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let heads = "partition|leader|replicas|in sync|first|end|records";
    let mut rows: Vec<Vec<String>> = vec![heads.split('|').map(str::to_owned).collect()];
    for (p, (first, end)) in topic.partitions.iter().zip(ends) {
        rows.push(vec![
            p.index.to_string(),
            shown(p.leader.map(i64::from)),
            format!("{:?}", p.replicas),
            format!("{:?}", p.in_sync),
            shown(*first),
            shown(*end),
            shown(first.zip(*end).map(|(first, end)| end - first)),
        ]);
    }
    let mut text = format!("{} (id {})\n{}", topic.name, topic.id, table(&rows));
    for entry in configs {
        let value = entry.value.unwrap_or_default();
        text.push_str(&format!("{}={value}\n", entry.name));
    }
    text
}
