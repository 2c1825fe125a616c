//! Groups of the consumer protocol (KIP-848): sharing without stopping, patterns, static members,
//! refusals, and members of both protocols in one group.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use ringmill_client::{
    Admin, AdminError, Consumer, ConsumerBuilder, ErrorCode, GroupError, GroupProtocol, NewTopic,
    PollError, Producer, ProducerRecord, StartAt, SubscribeError, TopicPartition,
};
use ringmill_tests::node::Node;

use crate::brokers::{Setting, everywhere, fresh, wait};
use crate::consuming::{SOON, Story, filled, offsets, zero};

/// A group that forms takes a heartbeat's interval or two, which are five seconds by default.
const SETTLED: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_millis(50);

fn builder(setting: &Setting, group: &str) -> ConsumerBuilder {
    Consumer::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .set("auto.offset.reset", "earliest")
        .set("group.id", group)
        .group_protocol(GroupProtocol::Consumer)
        .transport(setting.transport)
}

async fn made(setting: &Setting, partitions: i32) -> String {
    let name = fresh("grouping");
    make(setting, &name, partitions).await;
    name
}

async fn make(setting: &Setting, name: &str, partitions: i32) {
    let admin = Admin::builder().set("bootstrap.servers", &setting.bootstrap);
    let admin = admin.connect().await.unwrap();
    admin
        .create_topic(NewTopic::of(name, partitions))
        .await
        .unwrap();
}

/// Writes one record with `value` to each partition.
async fn fill(setting: &Setting, topic: &str, partitions: i32, value: &str) {
    let producer = Producer::builder().set("bootstrap.servers", &setting.bootstrap);
    let producer = producer.connect().await.unwrap();
    for partition in 0..partitions {
        let record = ProducerRecord::to(topic)
            .partition(partition)
            .value(value.to_owned());
        drop(producer.send(record.clone()).await.unwrap());
    }
    producer.close().await.unwrap();
}

/// Polls them all until `done`; what came is told to `seen`, with the member's number.
async fn poll_until(
    members: &[&Consumer],
    mut seen: impl FnMut(usize, i32),
    mut done: impl AsyncFnMut() -> bool,
) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < SETTLED, "the group does not settle");
        for (number, member) in members.iter().enumerate() {
            for record in member.poll(SLICE).await.unwrap() {
                seen(number, record.partition);
            }
        }
    }
}

async fn counts(members: &[&Consumer]) -> Vec<usize> {
    let mut counts = Vec::new();
    for member in members {
        counts.push(member.assignment().await.len());
    }
    counts
}

#[test]
fn members_share_and_only_what_moves_is_revoked() {
    everywhere("sharing", async |setting| {
        let topic = made(&setting, 4).await;
        let group = fresh("sharing");
        let story = Story::default();
        let manual = || builder(&setting, &group).set("enable.auto.commit", false);
        let first = manual().listener(story.clone()).connect().await.unwrap();
        first.subscribe([&topic]).await.unwrap();
        let alone = [&first];
        poll_until(&alone, |_, _| {}, async || counts(&alone).await == [4]).await;
        let before = first.assignment().await;
        let second = manual().connect().await.unwrap();
        second.subscribe([&topic]).await.unwrap();
        let both = [&first, &second];
        poll_until(&both, |_, _| {}, async || counts(&both).await == [2, 2]).await;
        let kept = first.assignment().await;
        assert!(kept.is_subset(&before));
        assert!(kept.is_disjoint(&second.assignment().await));
        let heard = story.0.lock().unwrap().clone();
        assert_eq!(heard[0], "assigned 0 1 2 3");
        let revoked: usize = heard[1..]
            .iter()
            .map(|told| told.split(' ').count() - 1)
            .sum();
        assert!(heard[1..].iter().all(|told| told.starts_with("revoked")));
        assert_eq!(revoked, 2, "{heard:?}");
        fill(&setting, &topic, 4, "x").await;
        let mut seen = BTreeSet::new();
        let mut left = 4;
        while left > 0 {
            for (number, member) in both.iter().enumerate() {
                for record in member.poll(SLICE).await.unwrap() {
                    assert!(seen.insert((number, record.partition)));
                    left -= 1;
                }
            }
        }
        second.close().await.unwrap();
        poll_until(&alone, |_, _| {}, async || counts(&alone).await == [4]).await;
        first.close().await.unwrap();
    });
}

#[test]
fn a_pattern_finds_topics_that_are_made_later() {
    everywhere("pattern", async |setting| {
        let stem = fresh("pattern");
        make(&setting, &format!("{stem}-a"), 1).await;
        let consumer = builder(&setting, &stem).connect().await.unwrap();
        consumer
            .subscribe_pattern(&format!("{stem}-[a-z]"))
            .await
            .unwrap();
        let members = [&consumer];
        poll_until(&members, |_, _| {}, async || counts(&members).await == [1]).await;
        make(&setting, &format!("{stem}-b"), 2).await;
        make(&setting, &format!("{stem}-1"), 1).await;
        poll_until(&members, |_, _| {}, async || counts(&members).await == [3]).await;
        // names in place of the pattern
        consumer.subscribe([format!("{stem}-1")]).await.unwrap();
        let only = BTreeSet::from([TopicPartition::new(format!("{stem}-1"), 0)]);
        let is_only = async || consumer.assignment().await == only;
        poll_until(&members, |_, _| {}, is_only).await;
        consumer.subscribe_pattern("a(").await.unwrap();
        let error = refusal(&consumer).await;
        assert_eq!(error, ErrorCode::InvalidRegularExpression);
        let classic = builder(&setting, &fresh("pattern")).group_protocol(GroupProtocol::Classic);
        let classic = classic.connect().await.unwrap();
        let refused = classic.subscribe_pattern("a").await;
        assert_eq!(refused, Err(SubscribeError::Pattern));
    });
}

/// The code with which the coordinator refuses the member.
async fn refusal(consumer: &Consumer) -> ErrorCode {
    let started = Instant::now();
    while started.elapsed() < SOON {
        match consumer.poll(SLICE).await {
            Ok(_) => {}
            Err(PollError::Group(GroupError::Refused { code, message, .. })) => {
                assert!(message.is_some(), "the coordinator says why");
                return code;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is not refused")
}

#[test]
fn static_members_come_back_to_their_partitions_and_cannot_be_doubled() {
    everywhere("static", async |setting| {
        let topic = filled(&setting, 20).await;
        let group = fresh("static");
        let member = || builder(&setting, &group).set("group.instance.id", "one");
        let first = member().connect().await.unwrap();
        first.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&first, 3).await, [0, 1, 2]);
        let double = member().connect().await.unwrap();
        double.subscribe([&*topic]).await.unwrap();
        assert_eq!(refusal(&double).await, ErrorCode::UnreleasedInstanceId);
        // it is away for a while: another gets nothing
        first.close().await.unwrap();
        let other = builder(&setting, &group).connect().await.unwrap();
        other.subscribe([&*topic]).await.unwrap();
        for _ in 0..10 {
            assert_eq!(other.poll(SLICE).await.unwrap(), []);
        }
        let again = member().connect().await.unwrap();
        again.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&again, 1).await, [3]);
        other.close().await.unwrap();
        again.close().await.unwrap();
    });
}

#[test]
fn an_assignor_that_the_coordinator_does_not_have_is_refused() {
    everywhere("assignor", async |setting| {
        let topic = filled(&setting, 1).await;
        let builder = || builder(&setting, &fresh("assignor"));
        let wrong = builder().set("group.remote.assignor", "nearest");
        let wrong = wrong.connect().await.unwrap();
        wrong.subscribe([&*topic]).await.unwrap();
        assert_eq!(refusal(&wrong).await, ErrorCode::UnsupportedAssignor);
        let right = builder().set("group.remote.assignor", "range");
        let right = right.connect().await.unwrap();
        right.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&right, 1).await, [0]);
        right.close().await.unwrap();
    });
}

#[test]
fn who_does_not_poll_loses_its_partitions_and_comes_back() {
    everywhere("overdue", async |setting| {
        let topic = filled(&setting, 5).await;
        let group = fresh("overdue");
        let story = Story::default();
        let slow = builder(&setting, &group)
            .set("enable.auto.commit", false)
            .set("max.poll.interval.ms", 1500)
            .listener(story.clone());
        let slow = slow.connect().await.unwrap();
        slow.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&slow, 2).await, [0, 1]);
        let other = builder(&setting, &group).connect().await.unwrap();
        other.subscribe([&*topic]).await.unwrap();
        // the other gets them only if the first has left, which nobody polls
        assert_eq!(offsets(&other, 5).await, [0, 1, 2, 3, 4]);
        other.close().await.unwrap();
        let heard = |count| story.0.lock().unwrap().len() >= count;
        let started = Instant::now();
        while !heard(3) && started.elapsed() < SOON {
            slow.poll(SLICE).await.unwrap();
        }
        let expected = ["assigned 0", "lost 0", "assigned 0"];
        assert_eq!(story.0.lock().unwrap()[..], expected);
        assert_eq!(slow.position(&zero(&topic)).await, Ok(Some(5)));
        slow.close().await.unwrap();
    });
}

#[test]
fn seek_pause_and_commits_work_within_a_group() {
    everywhere("within", async |setting| {
        let topic = filled(&setting, 10).await;
        let group = fresh("within");
        let member = builder(&setting, &group).set("isolation.level", "read_committed");
        let member = member.connect().await.unwrap();
        member.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&member, 4).await, [0, 1, 2, 3]);
        member.pause([zero(&topic)]).await.unwrap();
        assert_eq!(member.poll(SLICE).await.unwrap(), []);
        let place = StartAt::Offset(7);
        member.seek(&zero(&topic), place).await.unwrap();
        member.resume([zero(&topic)]).await.unwrap();
        assert_eq!(offsets(&member, 2).await, [7, 8]);
        member.commit().await.unwrap();
        let committed = member.committed([zero(&topic)]).await.unwrap();
        assert_eq!(committed[&zero(&topic)].offset, 9);
        let known = member.group_metadata().await.unwrap();
        assert!(known.generation > 0 && !known.member_id.is_empty());
        member.close().await.unwrap();
    });
}

#[test]
fn members_of_both_protocols_share_a_group_that_migrates_there_and_back() {
    everywhere("migration", async |setting| {
        let topic = made(&setting, 4).await;
        let group = fresh("migration");
        let classic = || {
            builder(&setting, &group)
                .group_protocol(GroupProtocol::Classic)
                .set("heartbeat.interval.ms", 100)
                .set("partition.assignment.strategy", "cooperative-sticky")
        };
        let old = classic().connect().await.unwrap();
        old.subscribe([&topic]).await.unwrap();
        poll_until(&[&old], |_, _| {}, async || counts(&[&old]).await == [4]).await;
        let new = builder(&setting, &group).connect().await.unwrap();
        new.subscribe([&topic]).await.unwrap();
        let both = [&old, &new];
        poll_until(&both, |_, _| {}, async || counts(&both).await == [2, 2]).await;
        assert!(old.assignment().await.is_disjoint(&new.assignment().await));
        fill(&setting, &topic, 4, "x").await;
        let mut seen = Vec::new();
        let started = Instant::now();
        while seen.len() < 4 && started.elapsed() < SOON {
            for member in both {
                let records = member.poll(SLICE).await.unwrap();
                seen.extend(records.iter().map(|record| record.partition));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
        old.close().await.unwrap();
        poll_until(&[&new], |_, _| {}, async || counts(&[&new]).await == [4]).await;
        let back = classic().connect().await.unwrap();
        back.subscribe([&topic]).await.unwrap();
        let both = [&new, &back];
        poll_until(&both, |_, _| {}, async || counts(&both).await == [2, 2]).await;
        new.close().await.unwrap();
        poll_until(&[&back], |_, _| {}, async || counts(&[&back]).await == [4]).await;
        // all was committed on the way: nothing comes twice
        assert_eq!(back.poll(SLICE).await.unwrap(), []);
        back.close().await.unwrap();
    });
}

/// A session that is over before the test is.
const SHORT_SESSION: &[&str] = &[
    "--cores=1",
    "--group-consumer-min-session-timeout-ms=6000",
    "--group-consumer-session-timeout-ms=6000",
];

/// Which would be a zombie if its heartbeats ended with the connection.
#[test]
fn members_outlive_a_restart_of_their_coordinator() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let folder = std::env::temp_dir().join(fresh("ringmill-client-restart"));
        std::fs::create_dir_all(&folder).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_ringmill"));
        let data = folder.join("data");
        let node = Node::start(binary, &data, SHORT_SESSION).unwrap();
        let address = node.addr().to_string();
        let setting = Setting {
            bootstrap: address.clone(),
            transport: Default::default(),
        };
        let mut node = Some(node);
        wait(async {
            let topic = filled(&setting, 3).await;
            let group = fresh("restart");
            let story = Story::default();
            let mut member = builder(&setting, &group).group_protocol(protocol);
            // a commit would say that it is there
            member = member
                .set("enable.auto.commit", false)
                .listener(story.clone());
            if protocol == GroupProtocol::Classic {
                member = member.set("heartbeat.interval.ms", 100);
                member = member.set("session.timeout.ms", 6000);
            }
            let member = member.connect().await.unwrap();
            member.subscribe([&*topic]).await.unwrap();
            assert_eq!(offsets(&member, 3).await, [0, 1, 2]);
            node.take().unwrap().kill().unwrap();
            // long enough for a heartbeat that finds nobody
            std::thread::sleep(Duration::from_secs(1));
            let again = Node::start_at(binary, &data, &address, SHORT_SESSION).unwrap();
            node = Some(again);
            // long enough to be missed, if nobody said that it is there
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(8) {
                let _ = member.poll(SLICE).await;
            }
            fill(&setting, &topic, 1, "after").await;
            while offsets_or_none(&member).await != Some(3) {
                assert!(started.elapsed() < SETTLED, "it reads on");
            }
            assert_eq!(story.0.lock().unwrap()[..], ["assigned 0"], "never missed");
            member.commit().await.unwrap();
            let committed = member.committed([zero(&topic)]).await.unwrap();
            assert_eq!(committed[&zero(&topic)].offset, 4);
            member.close().await.unwrap();
        });
        drop(node);
        let _ = std::fs::remove_dir_all(&folder);
    }
}

async fn offsets_or_none(consumer: &Consumer) -> Option<i64> {
    let records = consumer.poll(SLICE).await.unwrap_or_default();
    records.first().map(|record| record.offset)
}

#[test]
fn who_subscribes_to_nothing_leaves_its_group() {
    everywhere("nothing", async |setting| {
        let topic = made(&setting, 2).await;
        let admin = Admin::builder().set("bootstrap.servers", &setting.bootstrap);
        let admin = admin.connect().await.unwrap();
        for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
            let group = fresh("nothing");
            let member = builder(&setting, &group).group_protocol(protocol);
            let member = member.connect().await.unwrap();
            for _ in 0..2 {
                member.subscribe([&*topic]).await.unwrap();
                poll_until(
                    &[&member],
                    |_, _| {},
                    async || member.assignment().await.len() == 2,
                )
                .await;
                member.subscribe::<&str>([]).await.unwrap();
                assert!(member.subscription().await.is_empty());
                assert!(member.assignment().await.is_empty());
                match admin.describe_group(&group).await {
                    Ok(described) => assert_eq!(described.members.len(), 0, "{protocol:?}"),
                    // a group of nobody need not be kept
                    Err(AdminError::Refused { code, .. }) => {
                        assert_eq!(code, ErrorCode::GroupIdNotFound);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let alone = Consumer::builder().set("bootstrap.servers", &setting.bootstrap);
        let refused = alone.connect().await.unwrap().subscribe::<&str>([]).await;
        assert_eq!(refused, Err(SubscribeError::NoGroup));
    });
}
