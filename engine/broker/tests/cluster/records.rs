//! Records of a cluster's partitions: a topic with its copies where the test wants them, a writer that
//! does not give up, and what a reader finds.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{BrokerId, CreateTopicsRequest, MetadataRequest};

use crate::wire_client::{Client, batch, topic_name};
use crate::world::{address, ask};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// What was acknowledged: offsets and values.
pub(crate) type Written = Rc<RefCell<Vec<(i64, String)>>>;

/// A partition as a node shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) leader: Option<usize>,
    pub(crate) replicas: Vec<i32>,
    /// In ascending order.
    pub(crate) isr: Vec<i32>,
}

/// Nodes by number.
pub(crate) fn ids(nodes: &[i32]) -> Vec<BrokerId> {
    nodes.iter().copied().map(BrokerId).collect()
}

/// Creates a topic with each partition's copies on the nodes given.
pub(crate) async fn create_on(
    node: usize,
    name: &str,
    partitions: &[&[i32]],
    configs: &[(&str, &str)],
) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let assignments = partitions.iter().zip(0..).map(|(nodes, index)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(ids(nodes))
    });
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(assignments.collect())
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    let answer = ask(node, 7, request).await.expect("an answer");
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
}

/// A partition as a node shows it.
pub(crate) async fn shown(node: usize, topic: &str, index: usize) -> Option<Shown> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let answer = ask(node, 12, request).await?;
    let part = answer.topics.first()?.partitions.get(index)?;
    let numbers = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<i32>>();
    let mut isr = numbers(&part.isr_nodes);
    isr.sort_unstable();
    Some(Shown {
        leader: usize::try_from(part.leader_id.0).ok(),
        replicas: numbers(&part.replica_nodes),
        isr,
    })
}

/// Waits until a node shows a partition so.
pub(crate) async fn until(
    node: usize,
    (topic, index): (&str, usize),
    is_so: impl Fn(&Shown) -> bool,
) -> Shown {
    loop {
        if let Some(shown) = shown(node, topic, index).await
            && is_so(&shown)
        {
            return shown;
        }
        sleep(PAUSE).await;
    }
}

/// Writes one value with acks=all, by whoever leads, again and again; gives its offset. What is
/// written again may be there twice. `nodes` are asked who leads.
pub(crate) async fn write(nodes: &[usize], topic: &str, index: usize, value: &str) -> i64 {
    for attempt in 0.. {
        let asked = nodes[attempt % nodes.len()];
        let leader = shown(asked, topic, index)
            .await
            .and_then(|shown| shown.leader);
        if let Some(leader) = leader
            && let Some(offset) = try_write(leader, topic, index, value).await
        {
            return offset;
        }
        sleep(PAUSE).await;
    }
    unreachable!("it tries for ever")
}

/// Writes one value to a node once; none if it is to be tried again later.
pub(crate) async fn try_write(
    leader: usize,
    topic: &str,
    index: usize,
    value: &str,
) -> Option<i64> {
    let written = ringmill_ring::timeout(Duration::from_secs(2), async {
        let mut client = Client::try_connect(address(leader).parse().unwrap()).await?;
        let parts = vec![(index as i32, batch(&[value]))];
        let id = client.try_ask_produce(-1, topic, parts).await?;
        client.try_produced(id).await
    });
    let (code, offset) = written.await.ok()??;
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Some(offset),
        Some(code) if code.is_retriable() => None,
        code => panic!("a writer is told {code:?}"),
    }
}

/// Writes for ever, and notes what was acknowledged.
pub(crate) async fn keep_writing(nodes: &'static [usize], topic: &'static str, written: Written) {
    for number in 0.. {
        let value = format!("v{number}");
        let offset = write(nodes, topic, 0, &value).await;
        written.borrow_mut().push((offset, value));
        sleep(Duration::from_millis(5)).await;
    }
}

/// All records of a partition, from its leader.
pub(crate) async fn read_all(node: usize, topic: &str, index: i32) -> Vec<(i64, String)> {
    loop {
        let led = until(node, (topic, index as usize), |shown| {
            shown.leader.is_some()
        })
        .await;
        if let Some(found) = try_read_all(led.leader.unwrap(), topic, index).await {
            return found;
        }
        sleep(PAUSE).await;
    }
}

/// None if the node does not lead.
async fn try_read_all(leader: usize, topic: &str, index: i32) -> Option<Vec<(i64, String)>> {
    let mut client = Client::try_connect(address(leader).parse().unwrap()).await?;
    let mut found: Vec<(i64, String)> = Vec::new();
    loop {
        let from = found.last().map_or(0, |(offset, _)| offset + 1);
        let fetched = client.fetch(100, 1, topic, &[(index, from)]).await;
        let mut parts = fetched.parts();
        let part = parts.pop().filter(|part| part.error == 0)?;
        if part.records.is_empty() {
            return Some(found);
        }
        found.extend(part.records);
    }
}

/// Everything that was acknowledged is where it was acknowledged.
pub(crate) fn nothing_is_lost(seed: u64, written: &Written, found: &[(i64, String)]) {
    for (offset, value) in written.borrow().iter() {
        let at = found.iter().find(|(at, _)| at == offset);
        assert_eq!(
            at.map(|(_, value)| value),
            Some(value),
            "seed {seed}: what was acknowledged at {offset}"
        );
    }
}
