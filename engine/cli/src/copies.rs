//! Which nodes have copies: moved, shown on their way, and leaders elected. The commands are `ringmill
//! topic reassign` and those of `ringmill cluster`.

use std::collections::BTreeMap;

use ringmill_client::local::{Admin, Reassignment, Topic, TopicPartition};
use serde_json::{Value, json};

use crate::Failure;
use crate::remote::{print, print_json, table};

/// Partitions and where their copies are to be; none takes a move back.
type Targets = BTreeMap<TopicPartition, Option<Vec<i32>>>;

/// Has a topic's copies go to some nodes, or takes that back.
pub(crate) async fn reassign(
    admin: &Admin,
    name: &str,
    partitions: &[i32],
    nodes: &[i32],
    json: bool,
) -> Result<(), Failure> {
    let topic = admin.describe_topic(name).await.map_err(Failure::new)?;
    let targets = spread(&topic, partitions, nodes);
    ask(admin, &targets, json).await
}

/// Has what is on its way of a topic come back.
pub(crate) async fn cancel(
    admin: &Admin,
    name: &str,
    partitions: &[i32],
    json: bool,
) -> Result<(), Failure> {
    let moving = admin.reassignments().await.map_err(Failure::new)?;
    let moving = moving.into_iter().filter(|moving| {
        let index = moving.partition.partition;
        let is_named = partitions.is_empty() || partitions.contains(&index);
        &*moving.partition.topic == name && is_named
    });
    let targets = moving.map(|moving| (moving.partition, None)).collect();
    ask(admin, &targets, json).await
}

/// Has the copies on one node go to another.
pub(crate) async fn move_all(
    admin: &Admin,
    (from, to): (i32, i32),
    topics: &[String],
    json: bool,
) -> Result<(), Failure> {
    let mut all = admin.topics().await.map_err(Failure::new)?;
    all.retain(|topic| topics.is_empty() || topics.iter().any(|name| **name == *topic.name));
    ask(admin, &swapped(&all, from, to), json).await
}

async fn ask(admin: &Admin, targets: &Targets, json: bool) -> Result<(), Failure> {
    if targets.is_empty() {
        return Err(Failure::new("there is nothing to move"));
    }
    admin.reassign(targets).await.map_err(Failure::new)?;
    let count = targets.len();
    match json {
        true => print_json(&json!({"asked": count})),
        false => print(&format!(
            "asked for {count} partition(s); `ringmill cluster moves` shows those on their way\n"
        )),
    }
}

/// The copies of a topic's partitions, or of some, on these nodes; who leads goes round.
fn spread(topic: &Topic, partitions: &[i32], nodes: &[i32]) -> Targets {
    let wanted = topic.partitions.iter().map(|partition| partition.index);
    let wanted = wanted.filter(|index| partitions.is_empty() || partitions.contains(index));
    let target = |index: i32| {
        let mut nodes = nodes.to_vec();
        let by = usize::try_from(index).unwrap_or(0) % nodes.len().max(1);
        nodes.rotate_left(by);
        (TopicPartition::new(topic.name.clone(), index), Some(nodes))
    };
    wanted.map(target).collect()
}

/// The copies as they are, but that another node is in one's place.
fn swapped(topics: &[Topic], from: i32, to: i32) -> Targets {
    let mut targets = Targets::new();
    for topic in topics {
        for partition in &topic.partitions {
            let mut nodes = partition.replicas.clone();
            let is_free = !nodes.contains(&to);
            if let Some(place) = nodes.iter_mut().find(|node| **node == from)
                && is_free
            {
                *place = to;
                let key = TopicPartition::new(topic.name.clone(), partition.index);
                targets.insert(key, Some(nodes));
            }
        }
    }
    targets
}

/// Shows the partitions whose copies are on their way.
pub(crate) async fn moves(admin: &Admin, json: bool) -> Result<(), Failure> {
    let moving = admin.reassignments().await.map_err(Failure::new)?;
    if json {
        return print_json(&moving.iter().map(moving_json).collect());
    }
    if moving.is_empty() {
        return print("all copies are where they are to be\n");
    }
    let heads = ["topic", "partition", "replicas", "adding", "removing"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(moving.iter().map(|moving| {
        vec![
            moving.partition.topic.to_string(),
            moving.partition.partition.to_string(),
            format!("{:?}", moving.replicas),
            format!("{:?}", moving.adding),
            format!("{:?}", moving.removing),
        ]
    }));
    print(&table(&rows))
}

fn moving_json(moving: &Reassignment) -> Value {
    json!({
        "topic": &*moving.partition.topic,
        "partition": moving.partition.partition,
        "replicas": moving.replicas,
        "adding": moving.adding,
        "removing": moving.removing,
    })
}

/// Has preferred leaders lead, or whoever is there where nobody leads.
pub(crate) async fn elect(
    admin: &Admin,
    topics: &[String],
    unclean: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut partitions = Vec::new();
    for name in topics {
        let topic = admin.describe_topic(name).await.map_err(Failure::new)?;
        let of_topic = topic.partitions.iter().map(|partition| partition.index);
        partitions.extend(of_topic.map(|index| TopicPartition::new(topic.name.clone(), index)));
    }
    let asked = (!topics.is_empty()).then_some(&partitions[..]);
    let elected = admin.elect_leaders(asked, unclean).await;
    let elected = elected.map_err(Failure::new)?.len();
    match json {
        true => print_json(&json!({"elected": elected})),
        false => print(&format!("{elected} partition(s) have another leader\n")),
    }
}

#[cfg(test)]
mod tests {
    use ringmill_client::ErrorCode;
    use ringmill_client::local::Partition;
    use ringmill_wire::Uuid;

    use super::*;

    fn topic(copies: &[&[i32]]) -> Topic {
        let partitions = copies.iter().zip(0..).map(|(nodes, index)| Partition {
            index,
            leader: None,
            leader_epoch: -1,
            replicas: nodes.to_vec(),
            in_sync: Vec::new(),
            error: ErrorCode::None,
        });
        Topic {
            name: "t".into(),
            id: Uuid::nil(),
            is_internal: false,
            partitions: partitions.collect(),
        }
    }

    fn shown(targets: &Targets) -> Vec<(i32, Vec<i32>)> {
        let targets = targets.iter();
        targets
            .map(|(key, nodes)| (key.partition, nodes.clone().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn leaders_go_round_among_the_nodes() {
        let topic = topic(&[&[1], &[1], &[1], &[1]]);
        let all = spread(&topic, &[], &[4, 5, 6]);
        let expected = [
            (0, vec![4, 5, 6]),
            (1, vec![5, 6, 4]),
            (2, vec![6, 4, 5]),
            (3, vec![4, 5, 6]),
        ];
        assert_eq!(shown(&all), expected);
        assert_eq!(shown(&spread(&topic, &[3, 9], &[7])), [(3, vec![7])]);
    }

    #[test]
    fn a_node_takes_anothers_place_where_it_has_none() {
        let topic = topic(&[&[1, 2], &[2, 1], &[2, 3], &[3, 1]]);
        let targets = swapped(&[topic], 1, 3);
        assert_eq!(shown(&targets), [(0, vec![3, 2]), (1, vec![2, 3])]);
    }
}
