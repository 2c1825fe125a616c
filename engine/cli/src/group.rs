//! `ringmill group`: list, describe, reset and delete consumer groups.

use std::collections::BTreeMap;

use ringmill_client::local::{
    Admin, Client, Committed, CommittedOffsets, GroupDescription, OffsetSpec, TopicPartition,
};
use serde_json::{Value, json};

use crate::Failure;
use crate::remote::{Remote, print, print_json, run as on_ring, table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Name all groups and their states
    List,
    /// Show a group's members, and how far it is in each partition
    Describe { group: String },
    /// Move a group without members to other offsets of a topic
    Reset(Reset),
    /// Delete groups without members, with their offsets
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("where").required(true))]
struct Reset {
    group: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// One partition of it; all if not given
    #[arg(long)]
    partition: Option<i32>,
    /// To the first record there is
    #[arg(long, group = "where")]
    to_earliest: bool,
    /// Behind the last record there is
    #[arg(long, group = "where")]
    to_latest: bool,
    /// To an offset
    #[arg(long, group = "where", value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// To the first record of this time or later, in milliseconds since 1970
    #[arg(long, group = "where", value_name = "MS")]
    to_time: Option<i64>,
    /// By so many records, back if negative
    #[arg(long, group = "where", value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Only show what would be set
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    on_ring(async move {
        let client = args.remote.client().await?;
        let admin = Admin::new(&client);
        let json = args.remote.json;
        match args.task {
            Task::List => list(&admin, json).await,
            Task::Describe { group } => describe(&client, &admin, &group, json).await,
            Task::Reset(reset) => reset_offsets(&client, &admin, &reset, json).await,
            Task::Delete { groups } => {
                for group in &groups {
                    admin.delete_group(group).await.map_err(Failure::new)?;
                }
                match json {
                    true => print_json(&json!({"deleted": groups})),
                    false => print(&format!("deleted {}\n", groups.join(", "))),
                }
            }
        }
    })
}

async fn list(admin: &Admin, json: bool) -> Result<(), Failure> {
    let groups = admin.groups().await.map_err(Failure::new)?;
    if json {
        let rows = groups.iter().map(|group| {
            json!({"group": group.group, "state": group.state, "protocol_type": group.protocol_type})
        });
        return print_json(&rows.collect());
    }
    let mut rows = vec![["group", "state", "type"].map(str::to_owned).to_vec()];
    rows.extend(
        groups
            .into_iter()
            .map(|group| vec![group.group, group.state, group.protocol_type]),
    );
    print(&table(&rows))
}

/// A partition's row: where the group is, where the log ends, and who reads it.
struct Place {
    partition: TopicPartition,
    committed: Option<i64>,
    end: Option<i64>,
    member: Option<String>,
}

impl Place {
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?).max(0))
    }
}

async fn describe(client: &Client, admin: &Admin, group: &str, json: bool) -> Result<(), Failure> {
    let described = admin.describe_group(group).await.map_err(Failure::new)?;
    let committed = admin.group_offsets(group).await.map_err(Failure::new)?;
    let mut readers: BTreeMap<&TopicPartition, &str> = BTreeMap::new();
    for member in &described.members {
        readers.extend(
            member
                .assigned
                .iter()
                .map(|p| (p, member.client_id.as_str())),
        );
    }
    let mut partitions: Vec<TopicPartition> = committed.keys().cloned().collect();
    partitions.extend(readers.keys().map(|partition| (*partition).clone()));
    partitions.sort();
    partitions.dedup();
    let mut places = Vec::new();
    for partition in partitions {
        // a topic that is gone has no end
        let end = client
            .offsets([(partition.clone(), OffsetSpec::Latest)])
            .await;
        let end = end
            .ok()
            .and_then(|found| found.into_values().flatten().next());
        places.push(Place {
            committed: committed.get(&partition).map(|committed| committed.offset),
            end: end.map(|place| place.offset),
            member: readers.get(&partition).map(|member| (*member).to_owned()),
            partition,
        });
    }
    match json {
        true => print_json(&described_json(&described, &places)),
        false => print(&described_text(&described, &places)),
    }
}

fn described_json(described: &GroupDescription, places: &[Place]) -> Value {
    let members = described.members.iter().map(|member| {
        json!({
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "assigned": member.assigned.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    let offsets = places.iter().map(|place| {
        json!({
            "topic": &*place.partition.topic,
            "partition": place.partition.partition,
            "committed": place.committed,
            "end": place.end,
            "lag": place.lag(),
            "reader": place.member,
        })
    });
    json!({
        "group": described.group,
        "state": described.state,
        "strategy": described.strategy,
        "members": members.collect::<Value>(),
        "offsets": offsets.collect::<Value>(),
    })
}

fn described_text(described: &GroupDescription, places: &[Place]) -> String {
    let shown = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut text = format!(
        "{} is {}, {} member(s)\n",
        described.group,
        described.state,
        described.members.len()
    );
    let heads = ["topic", "partition", "committed", "end", "lag", "reader"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(places.iter().map(|place| {
        vec![
            place.partition.topic.to_string(),
            place.partition.partition.to_string(),
            shown(place.committed),
            shown(place.end),
            shown(place.lag()),
            place.member.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    text.push_str(&table(&rows));
    text
}

async fn reset_offsets(
    client: &Client,
    admin: &Admin,
    reset: &Reset,
    json: bool,
) -> Result<(), Failure> {
    let mut partitions = admin.partitions(&reset.topic).await.map_err(Failure::new)?;
    if let Some(wanted) = reset.partition {
        partitions.retain(|partition| partition.partition == wanted);
        if partitions.is_empty() {
            let text = format!("topic {:?} has no partition {wanted}", reset.topic);
            return Err(Failure::new(text));
        }
    }
    let offsets = targets(client, admin, reset, &partitions).await?;
    if !reset.dry_run {
        let set = admin.set_group_offsets(&reset.group, &offsets).await;
        set.map_err(Failure::new)?;
    }
    if json {
        let rows = offsets.iter().map(|(partition, committed)| {
            json!({
                "topic": &*partition.topic,
                "partition": partition.partition,
                "offset": committed.offset,
            })
        });
        return print_json(&json!({
            "group": reset.group,
            "dry_run": reset.dry_run,
            "offsets": rows.collect::<Value>(),
        }));
    }
    let mut rows = vec![["topic", "partition", "offset"].map(str::to_owned).to_vec()];
    rows.extend(offsets.iter().map(|(partition, committed)| {
        vec![
            partition.topic.to_string(),
            partition.partition.to_string(),
            committed.offset.to_string(),
        ]
    }));
    print(&table(&rows))
}

/// Where each partition is to be, kept within what there is of it.
async fn targets(
    client: &Client,
    admin: &Admin,
    reset: &Reset,
    partitions: &[TopicPartition],
) -> Result<CommittedOffsets, Failure> {
    let find = async |spec| {
        let wanted = partitions.iter().map(|partition| (partition.clone(), spec));
        client.offsets(wanted).await.map_err(Failure::new)
    };
    let (first, end) = (
        find(OffsetSpec::Earliest).await?,
        find(OffsetSpec::Latest).await?,
    );
    let of_time = match reset.to_time {
        Some(ms) => find(OffsetSpec::Time(ms)).await?,
        None => BTreeMap::new(),
    };
    let committed = admin
        .group_offsets(&reset.group)
        .await
        .map_err(Failure::new)?;
    let offset = |found: &ringmill_client::local::FoundOffsets, partition: &TopicPartition| {
        found
            .get(partition)
            .copied()
            .flatten()
            .map(|place| place.offset)
    };
    let mut targets = CommittedOffsets::new();
    for partition in partitions {
        let first = offset(&first, partition).unwrap_or(0);
        let end = offset(&end, partition).unwrap_or(first);
        let now = committed
            .get(partition)
            .map_or(first, |committed| committed.offset);
        let wanted = match (reset.to_offset, reset.shift_by, reset.to_time) {
            (Some(offset), ..) => offset,
            (_, Some(by), _) => now.saturating_add(by),
            (.., Some(_)) => offset(&of_time, partition).unwrap_or(end),
            _ if reset.to_latest => end,
            _ => first,
        };
        targets.insert(partition.clone(), Committed::at(wanted.clamp(first, end)));
    }
    Ok(targets)
}
