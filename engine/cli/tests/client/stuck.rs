//! A coordinator that neither answers nor goes: nobody else can take its groups over, and its members
//! read on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ringmill_client::{Consumer, OffsetSpec, Producer, ProducerRecord, StartAt, TopicPartition};
use ringmill_tests::node::Node;
use ringmill_tests::plain::PlainClient;
use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, TopicName};

use crate::brokers::{fresh, wait};

const PATIENCE: Duration = Duration::from_secs(60);
/// The rounds of polls that a consumer with a stuck commit has to give records in; its first commit is
/// due long before the last of them.
const ROUNDS: i64 = 20;

/// Stops a process (SIGSTOP) until it is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(process: u32) -> Self {
        signal("-STOP", process);
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(which: &str, process: u32) {
    let process = process.to_string();
    let sent = Command::new("kill").args([which, &process]).status();
    assert!(sent.unwrap().success());
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Who leads partition 0 of a topic.
fn leader(client: &mut PlainClient, topic: &str) -> i32 {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let answer = client.call(12, &request).unwrap();
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.replica_nodes.len(), 1, "nobody else can lead it");
    *partition.leader_id
}

/// The node that coordinates a group, once there is one.
fn coordinator(client: &mut PlainClient, group: &str) -> i32 {
    let begun = Instant::now();
    loop {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        let answer = client.call(4, &request).unwrap();
        let found = &answer.coordinators[0];
        if found.error_code == 0 {
            return *found.node_id;
        }
        assert!(begun.elapsed() < PATIENCE, "no coordinator: {found:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn members_of_a_stuck_coordinator_read_on() {
    let folder = std::env::temp_dir().join(format!("ringmill-stuck-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut nodes: Vec<Node> = Vec::new();
    for id in 1..=3 {
        let seeds: Vec<String> = nodes.iter().map(|node| node.addr().to_string()).collect();
        let (id_arg, join) = (
            format!("--node-id={id}"),
            format!("--join={}", seeds.join(",")),
        );
        let alone = "--offsets-topic-replication-factor=1";
        let args = [id_arg.as_str(), &join, "--cores=1", alone];
        let binary = Path::new(env!("CARGO_BIN_EXE_ringmill"));
        nodes.push(Node::start(binary, &folder.join(format!("node{id}")), &args).unwrap());
    }
    let mut client = PlainClient::connect(nodes[0].addr()).unwrap();
    let topic = fresh("stuck");
    let begun = Instant::now();
    while client.create_topic(&topic, 1, &[]).unwrap() != 0 {
        assert!(begun.elapsed() < PATIENCE, "the topic is not made");
    }
    let leader = leader(&mut client, &topic);
    let mut groups = (0..50).map(|n| format!("{topic}-{n}"));
    let group = groups.find(|group| coordinator(&mut client, group) != leader);
    let group = group.expect("not all groups are coordinated by one node");
    let stuck = coordinator(&mut client, &group);
    let bootstrap = nodes[leader as usize - 1].addr().to_string();
    wait(async {
        let consumer = Consumer::builder()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", &group)
            .set("auto.commit.interval.ms", 1);
        let consumer = consumer.connect().await.unwrap();
        let producer = Producer::builder().set("bootstrap.servers", &bootstrap);
        let producer = producer.connect().await.unwrap();
        let start = StartAt::Find(OffsetSpec::Earliest);
        let partition = TopicPartition::new(topic.clone(), 0);
        consumer.assign([(partition, start)]).await.unwrap();
        let stopped = Stopped::new(nodes[stuck as usize - 1].id());
        for n in 0..ROUNDS {
            let record = ProducerRecord::to(topic.clone()).value(format!("{n}"));
            producer.send(record).await.unwrap().await.unwrap();
            assert_eq!(consumer.recv().await.unwrap().offset, n);
        }
        drop(stopped);
        consumer.close().await.unwrap();
        producer.close().await.unwrap();
    });
    drop(nodes);
    std::fs::remove_dir_all(&folder).unwrap();
}
