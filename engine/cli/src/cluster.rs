//! `ringmill cluster`: show the cluster's nodes, take one out, move copies between them, upgrade it.

use std::collections::BTreeMap;

use ringmill_client::local::{Admin, ClusterNode, QuorumDescription};
use serde_json::{Value, json};

use crate::remote::{Remote, print, print_json, run as on_ring, table};
use crate::{Failure, copies, features};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Show the nodes, who is up, who leads and who votes
    Status,
    /// Show the features: which levels all nodes support, and which the cluster is at
    Features,
    /// Go to the highest levels of all features that every node supports, once all are of a new version
    Upgrade {
        /// Go to this level of this feature alone; may be repeated
        #[arg(long = "feature", value_name = "NAME=LEVEL", value_parser = features::level)]
        features: Vec<(String, i16)>,
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a node that was stopped out of the cluster, for good
    Leave { node: i32 },
    /// Move the copies that a node has to another node, while all goes on
    Move {
        /// The node that has them
        #[arg(long)]
        from: i32,
        /// The node that gets them; where it has one already, nothing moves
        #[arg(long)]
        to: i32,
        /// Of this topic alone; may be repeated
        #[arg(long = "topic", value_name = "NAME")]
        topics: Vec<String>,
    },
    /// Show the partitions whose copies are on their way
    Moves,
    /// Have the preferred leaders lead
    Elect {
        /// Of this topic alone; may be repeated
        #[arg(long = "topic", value_name = "NAME")]
        topics: Vec<String>,
        /// Where nobody leads, have anybody lead who is there: acknowledged records may be lost
        #[arg(long)]
        unclean: bool,
    },
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    on_ring(async move {
        let client = args.remote.client().await?;
        let admin = Admin::new(&client);
        let json = args.remote.json;
        match args.task {
            Task::Status => status(&admin, json).await,
            Task::Features => features::show(&admin, json).await,
            Task::Upgrade { features, dry_run } => {
                features::upgrade(&admin, features, dry_run, json).await
            }
            Task::Leave { node } => {
                admin.unregister_broker(node).await.map_err(Failure::new)?;
                match json {
                    true => print_json(&json!({"left": node})),
                    false => print(&format!("node {node} has left\n")),
                }
            }
            Task::Move { from, to, topics } => {
                copies::move_all(&admin, (from, to), &topics, json).await
            }
            Task::Moves => copies::moves(&admin, json).await,
            Task::Elect { topics, unclean } => copies::elect(&admin, &topics, unclean, json).await,
        }
    })
}

/// A node as the table shows it.
struct Row {
    node: ClusterNode,
    role: &'static str,
    /// Entries of the quorum's log that it lacks; none if nobody knows.
    lag: Option<i64>,
}

impl Row {
    fn state(&self) -> &'static str {
        if self.node.is_fenced { "down" } else { "up" }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.node.broker.host, self.node.broker.port)
    }

    fn cells(&self) -> Vec<String> {
        let broker = &self.node.broker;
        let lag = self
            .lag
            .map_or_else(|| "?".to_owned(), |lag| lag.to_string());
        vec![
            broker.id.to_string(),
            self.address(),
            broker.rack.clone().unwrap_or_else(|| "-".to_owned()),
            self.state().to_owned(),
            self.role.to_owned(),
            lag,
        ]
    }

    fn json(&self) -> Value {
        json!({
            "node": self.node.broker.id,
            "address": self.address(),
            "rack": self.node.broker.rack,
            "up": !self.node.is_fenced,
            "role": self.role,
            "lag": self.lag,
        })
    }
}

async fn status(admin: &Admin, json: bool) -> Result<(), Failure> {
    let cluster = admin.cluster().await.map_err(Failure::new)?;
    let nodes = admin.nodes().await.map_err(Failure::new)?;
    let quorum = admin.quorum().await.map_err(Failure::new)?;
    let rows = rows(nodes, &quorum);
    if json {
        return print_json(&json!({
            "cluster": cluster.cluster_id,
            "leader": quorum.leader,
            "nodes": rows.iter().map(Row::json).collect::<Value>(),
        }));
    }
    let heads = ["node", "address", "rack", "state", "quorum", "lag"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(Row::cells));
    print(&format!(
        "cluster {}\n{}",
        cluster.cluster_id,
        table(&lines)
    ))
}

fn rows(mut nodes: Vec<ClusterNode>, quorum: &QuorumDescription) -> Vec<Row> {
    let voters = quorum.voters.iter().map(|member| (member, "voter"));
    let observers = quorum.observers.iter().map(|member| (member, "observer"));
    let members: BTreeMap<i32, _> = voters
        .chain(observers)
        .map(|(member, role)| (member.id, (member.log_end_offset, role)))
        .collect();
    let end = members.values().filter_map(|(end, _)| *end).max();
    nodes.sort_by_key(|node| node.broker.id);
    let row = |node: ClusterNode| {
        let (has, role) = members.get(&node.broker.id).copied().unwrap_or((None, "-"));
        let is_leader = quorum.leader == Some(node.broker.id);
        Row {
            role: if is_leader { "leader" } else { role },
            lag: end.zip(has).map(|(end, has)| end - has),
            node,
        }
    };
    nodes.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use ringmill_client::local::{Broker, QuorumMember};

    use super::*;

    #[test]
    fn each_node_has_its_place_and_what_it_lacks() {
        let member = |id, end| QuorumMember {
            id,
            log_end_offset: end,
        };
        let quorum = QuorumDescription {
            leader: Some(2),
            epoch: 7,
            high_watermark: 20,
            voters: vec![member(1, Some(18)), member(2, Some(20)), member(3, None)],
            observers: vec![member(4, Some(5))],
        };
        let node = |id| ClusterNode {
            broker: Broker {
                id,
                host: "h".to_owned(),
                port: 9,
                rack: None,
            },
            is_fenced: id == 3,
        };
        let rows = rows([4, 3, 2, 1, 5].map(node).to_vec(), &quorum);
        let shown: Vec<String> = rows.iter().map(|row| row.cells().join(" ")).collect();
        assert_eq!(
            shown,
            [
                "1 h:9 - up voter 2",
                "2 h:9 - up leader 0",
                "3 h:9 - down voter ?",
                "4 h:9 - up observer 15",
                "5 h:9 - up - ?",
            ]
        );
    }
}
