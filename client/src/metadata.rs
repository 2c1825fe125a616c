//! What a client knows of its cluster: brokers, topics, partitions and who leads them.
//!
//! Pure: Metadata answers go in, the picture comes out. A partition's leader never goes back to an
//! older epoch, whichever broker answered (KIP-320).

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmill_wire::Uuid;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::MetadataResponse;
use ringmill_wire::kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use ringmill_wire::leader::{CurrentLeader, NodeEndpoint};

/// A broker and where to reach it.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// for broker in admin.cluster().await?.brokers {
///     println!("{}: {} {:?}", broker.id, broker.address(), broker.rack);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its node id.
    pub id: i32,
    /// A name or an address.
    pub host: String,
    /// Of the listener for clients.
    pub port: i32,
    /// Where it stands (`broker.rack`).
    pub rack: Option<String>,
}

impl Broker {
    /// `HOST:PORT`.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Broker;
    ///
    /// let broker = Broker { id: 1, host: "::1".into(), port: 9092, rack: None };
    /// assert_eq!(broker.address(), "[::1]:9092");
    /// ```
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A partition of a topic.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// for partition in admin.describe_topic("flights").await?.partitions {
///     let behind = partition.replicas.len() - partition.in_sync.len();
///     println!("{}: leader {:?}, {behind} behind", partition.index, partition.leader);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// Who leads it; none while an election is under way.
    pub leader: Option<i32>,
    /// Epoch of that leader; −1 where the broker does not say.
    pub leader_epoch: i32,
    /// All brokers that have it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
    /// What ails it, if anything.
    pub error: ErrorCode,
}

/// A topic.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// let flights = admin.describe_topic("flights").await?;
/// println!("{} ({}) has {} partitions", flights.name, flights.id, flights.partitions.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; nil where the broker knows none (KIP-516).
    pub id: Uuid,
    /// Whether the broker keeps its own state in it.
    pub is_internal: bool,
    /// By number, without gaps.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// A partition by its number.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// let flights = admin.describe_topic("flights").await?;
    /// println!("{:?}", flights.partition(0).and_then(|partition| partition.leader));
    /// # Ok(())
    /// # }
    /// ```
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// The picture of a cluster. Topics are those that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// The cluster's name for itself.
    pub cluster_id: Option<String>,
    /// The broker that takes administrative requests.
    pub controller: Option<i32>,
    /// By node id.
    pub brokers: BTreeMap<i32, Broker>,
    topics: BTreeMap<Arc<str>, Result<Topic, ErrorCode>>,
}

impl Image {
    /// A topic, or what the cluster said instead; nothing if it was never asked.
    pub fn topic(&self, name: &str) -> Option<Result<&Topic, ErrorCode>> {
        let topic = self.topics.get(name)?;
        Some(topic.as_ref().map_err(|error| *error))
    }

    /// All topics known, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values().filter_map(|topic| topic.as_ref().ok())
    }

    /// The leader of a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.topic(topic)?.ok()?.partition(partition)?.leader
    }

    /// Takes in an answer. Topics that it does not mention stay as they were.
    pub(crate) fn on_response(&mut self, response: MetadataResponse) {
        self.cluster_id = response.cluster_id.map(|id| id.to_string());
        self.controller = node(response.controller_id.0);
        self.brokers = response
            .brokers
            .into_iter()
            .map(|broker| {
                let id = broker.node_id.0;
                let broker = Broker {
                    id,
                    host: broker.host.to_string(),
                    port: broker.port,
                    rack: broker.rack.map(|rack| rack.to_string()),
                };
                (id, broker)
            })
            .collect();
        for topic in response.topics {
            self.on_topic(topic);
        }
    }

    /// Takes in what a broker says of leaders beside its answer (KIP-951), and tells whether that is
    /// news. Only later epochs are, and only of brokers that are known or named along.
    pub(crate) fn on_leaders(&mut self, told: &LeadersTold) -> bool {
        let mut is_news = false;
        for (topic, index, leader) in &told.leaders {
            let mut endpoints = told.endpoints.iter();
            let endpoint = endpoints.find(|at| at.node_id == leader.leader_id);
            let is_known = self.brokers.contains_key(&leader.leader_id);
            let topic = self.topics.get_mut(topic).and_then(|t| t.as_mut().ok());
            let place = usize::try_from(*index).ok();
            let partition = topic.and_then(|topic| topic.partitions.get_mut(place?));
            let later = partition.filter(|known| known.leader_epoch < leader.leader_epoch);
            let Some(partition) = later.filter(|_| is_known || endpoint.is_some()) else {
                continue;
            };
            partition.leader = node(leader.leader_id);
            partition.leader_epoch = leader.leader_epoch;
            is_news = true;
            if let Some(at) = endpoint {
                self.brokers.insert(at.node_id, broker(at));
            }
        }
        is_news
    }

    fn on_topic(&mut self, answer: MetadataResponseTopic) {
        let Some(name) = answer.name.as_ref().map(|name| Arc::from(&*name.0)) else {
            return;
        };
        let topic = match error_code(answer.error_code) {
            ErrorCode::None => Ok(self.merged(&name, answer)),
            // the partitions are known, some without a leader
            ErrorCode::LeaderNotAvailable if !answer.partitions.is_empty() => {
                Ok(self.merged(&name, answer))
            }
            error => Err(error),
        };
        self.topics.insert(name, topic);
    }

    fn merged(&self, name: &Arc<str>, answer: MetadataResponseTopic) -> Topic {
        let known = match self.topics.get(name) {
            Some(Ok(known)) if known.id == answer.topic_id => Some(known),
            _ => None,
        };
        let mut partitions: Vec<Partition> = answer
            .partitions
            .into_iter()
            .map(|answer| {
                let known = known.and_then(|topic| topic.partition(answer.partition_index));
                newest(known, partition(answer))
            })
            .collect();
        partitions.sort_by_key(|partition| partition.index);
        let dense = (0..)
            .zip(&partitions)
            .take_while(|(at, partition)| partition.index == *at)
            .count();
        partitions.truncate(dense);
        Topic {
            name: name.clone(),
            id: answer.topic_id,
            is_internal: answer.is_internal,
            partitions,
        }
    }
}

/// What a broker says of leaders beside its answer (KIP-951).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LeadersTold {
    /// By topic and partition.
    pub(crate) leaders: Vec<(Arc<str>, i32, CurrentLeader)>,
    /// Where they are.
    pub(crate) endpoints: Vec<NodeEndpoint>,
}

fn broker(at: &NodeEndpoint) -> Broker {
    Broker {
        id: at.node_id,
        host: at.host.to_string(),
        port: at.port,
        rack: at.rack.as_ref().map(ToString::to_string),
    }
}

fn partition(answer: MetadataResponsePartition) -> Partition {
    let ids = |nodes: Vec<_>| {
        nodes
            .into_iter()
            .map(|node: ringmill_wire::kafka_protocol::messages::BrokerId| node.0)
            .collect()
    };
    Partition {
        index: answer.partition_index,
        leader: node(answer.leader_id.0),
        leader_epoch: answer.leader_epoch,
        replicas: ids(answer.replica_nodes),
        in_sync: ids(answer.isr_nodes),
        error: error_code(answer.error_code),
    }
}

/// The answer, unless it is of an older epoch than what is known.
fn newest(known: Option<&Partition>, answer: Partition) -> Partition {
    match known {
        Some(known) if answer.leader_epoch >= 0 && known.leader_epoch > answer.leader_epoch => {
            known.clone()
        }
        _ => answer,
    }
}

fn node(id: i32) -> Option<i32> {
    (id >= 0).then_some(id)
}

/// A code on the wire; one that Kafka does not define is an unknown server error.
pub(crate) fn error_code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

#[cfg(test)]
mod tests {
    use ringmill_wire::kafka_protocol::messages::metadata_response::MetadataResponseBroker;

    use ringmill_wire::StrBytes;

    use super::*;

    fn answer(topic: MetadataResponseTopic) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(4.into())
            .with_host(StrBytes::from_static_str("::1"))
            .with_port(9092);
        MetadataResponse::default()
            .with_controller_id((-1).into())
            .with_brokers(vec![broker])
            .with_topics(vec![topic])
    }

    fn topic(id: u128, partitions: &[(i32, i32, i32)]) -> MetadataResponseTopic {
        let partitions = partitions.iter().map(|&(index, leader, epoch)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(leader.into())
                .with_leader_epoch(epoch)
        });
        MetadataResponseTopic::default()
            .with_name(Some(StrBytes::from_static_str("t").into()))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(partitions.collect())
    }

    fn image(answers: impl IntoIterator<Item = MetadataResponseTopic>) -> Image {
        let mut image = Image::default();
        for topic in answers {
            image.on_response(answer(topic));
        }
        image
    }

    #[test]
    fn partitions_come_sorted_and_a_missing_leader_is_none() {
        let image = image([topic(1, &[(1, -1, 3), (0, 4, 2)])]);
        assert_eq!(image.leader("t", 0), Some(4));
        assert_eq!(image.leader("t", 1), None);
        assert_eq!(image.leader("t", 2), None);
        assert_eq!(image.leader("other", 0), None);
        assert_eq!(image.controller, None);
        assert_eq!(image.brokers[&4].address(), "[::1]:9092");
    }

    #[test]
    fn a_leader_of_an_older_epoch_is_not_believed() {
        let late = image([topic(1, &[(0, 4, 7)]), topic(1, &[(0, 5, 6)])]);
        assert_eq!(late.leader("t", 0), Some(4));
        let newer = image([topic(1, &[(0, 4, 7)]), topic(1, &[(0, 5, 8)])]);
        assert_eq!(newer.leader("t", 0), Some(5));
    }

    fn told(leader_id: i32, leader_epoch: i32, endpoints: &[i32]) -> LeadersTold {
        let leader = CurrentLeader {
            leader_id,
            leader_epoch,
        };
        let endpoint = |node_id: &i32| NodeEndpoint {
            node_id: *node_id,
            host: StrBytes::from_static_str("h"),
            port: 9093,
            rack: None,
        };
        LeadersTold {
            leaders: vec![("t".into(), 0, leader)],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    #[test]
    fn a_leader_that_is_told_along_is_news_if_it_is_later_and_can_be_reached() {
        let mut image = image([topic(1, &[(0, 4, 7)])]);
        assert!(!image.on_leaders(&told(5, 7, &[5])), "no later epoch");
        assert!(!image.on_leaders(&told(5, 8, &[6])), "nobody knows where");
        assert!(image.on_leaders(&told(5, 8, &[5])));
        assert_eq!(image.leader("t", 0), Some(5));
        assert_eq!(image.brokers[&5].address(), "h:9093");
        assert!(image.on_leaders(&told(4, 9, &[])), "a broker that is known");
        assert_eq!(image.leader("t", 0), Some(4));
    }

    #[test]
    fn a_topic_made_anew_starts_its_epochs_anew() {
        let image = image([topic(1, &[(0, 4, 7)]), topic(2, &[(0, 5, 0)])]);
        assert_eq!(image.leader("t", 0), Some(5));
    }

    #[test]
    fn a_deleted_topic_is_an_error_until_it_comes_back() {
        let gone = topic(0, &[]).with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        let image = image([topic(1, &[(0, 4, 7)]), gone]);
        let error = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(image.topic("t"), Some(Err(error)));
        assert_eq!(image.leader("t", 0), None);
        assert_eq!(image.topics().count(), 0);
    }

    #[test]
    fn a_gap_in_the_partitions_is_not_indexed_over() {
        let known = |partitions| {
            image([topic(1, partitions)])
                .topic("t")
                .unwrap()
                .unwrap()
                .partitions
                .len()
        };
        assert_eq!(known(&[(0, 4, 0), (1, 4, 0)]), 2);
        assert_eq!(known(&[(0, 4, 0), (2, 4, 0)]), 1);
        assert_eq!(known(&[(0, 4, 0), (-3, 4, 0)]), 0);
    }
}
