//! Consuming: alone and in groups, places and pauses, commits, listeners and interceptors.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmill_client::{
    CommitError, Committed, Consumer, ConsumerBuilder, ConsumerInterceptor, ConsumerRecord,
    GroupProtocol, ListenerFuture, OffsetSpec, PollError, Producer, ProducerRecord,
    RebalanceListener, StartAt, TopicPartition, blocking,
};

use crate::brokers::{Setting, everywhere, fresh};

pub(crate) const SOON: Duration = Duration::from_secs(20);

fn builder(setting: &Setting) -> ConsumerBuilder {
    Consumer::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .set("auto.offset.reset", "earliest")
        .transport(setting.transport)
}

/// Writes records `0` to `count` − 1 to partition 0, at timestamps 1000, 1001 and so on.
pub(crate) async fn filled(setting: &Setting, count: i64) -> Arc<str> {
    let topic: Arc<str> = fresh("consuming").into();
    let producer = Producer::builder().set("bootstrap.servers", &setting.bootstrap);
    let producer = producer.connect().await.unwrap();
    for n in 0..count {
        let record = ProducerRecord::to(topic.clone())
            .partition(0)
            .key(n.to_string())
            .value(format!("value {n}"))
            .header("n", n.to_string())
            .timestamp(1000 + n);
        drop(producer.send(record).await.unwrap());
    }
    producer.close().await.unwrap();
    topic
}

pub(crate) fn zero(topic: &Arc<str>) -> TopicPartition {
    TopicPartition::new(topic.clone(), 0)
}

pub(crate) async fn offsets(consumer: &Consumer, count: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.push(consumer.recv().await.unwrap().offset);
    }
    seen
}

#[test]
fn an_assigned_consumer_reads_records_as_they_were_written() {
    everywhere("assigned", async |setting| {
        let topic = filled(&setting, 50).await;
        let consumer = builder(&setting).connect().await.unwrap();
        let start = (zero(&topic), StartAt::Find(OffsetSpec::Earliest));
        consumer.assign([start]).await.unwrap();
        for n in 0..50 {
            let record = consumer.recv().await.unwrap();
            let expected = ConsumerRecord {
                topic: topic.clone(),
                partition: 0,
                offset: n,
                timestamp: 1000 + n,
                key: Some(n.to_string().into()),
                value: Some(format!("value {n}").into()),
                headers: vec![("n".into(), Some(n.to_string().into()))],
            };
            assert_eq!(record, expected);
        }
        let none = consumer.poll(Duration::from_millis(100)).await.unwrap();
        assert_eq!(none, []);
        assert_eq!(consumer.position(&zero(&topic)).await, Ok(Some(50)));
        let times = [
            (zero(&topic), 1020),
            (TopicPartition::new(topic.clone(), 0), 1020),
        ];
        let found = consumer.offsets_for_times(times).await.unwrap();
        assert_eq!(found[&zero(&topic)].unwrap().offset, 20);
        let late = consumer.offsets_for_times([(zero(&topic), 9000)]).await;
        assert_eq!(late.unwrap()[&zero(&topic)], None);
        assert_eq!(consumer.topic(&topic).await.unwrap().partitions.len(), 1);
    });
}

#[test]
fn seek_and_pause_mean_the_next_record_handed_over() {
    everywhere("seek", async |setting| {
        let topic = filled(&setting, 30).await;
        let consumer = builder(&setting)
            .set("max.poll.records", 4)
            .connect()
            .await
            .unwrap();
        let start = (zero(&topic), StartAt::Offset(10));
        consumer.assign([start]).await.unwrap();
        assert_eq!(offsets(&consumer, 3).await, [10, 11, 12]);
        consumer
            .seek(&zero(&topic), StartAt::Offset(2))
            .await
            .unwrap();
        assert_eq!(offsets(&consumer, 2).await, [2, 3]);
        assert_eq!(consumer.position(&zero(&topic)).await, Ok(Some(4)));
        consumer.pause([zero(&topic)]).await.unwrap();
        let none = consumer.poll(Duration::from_millis(300)).await.unwrap();
        assert_eq!(none, []);
        consumer.resume([zero(&topic)]).await.unwrap();
        let polled = consumer.poll(SOON).await.unwrap();
        let seen: Vec<i64> = polled.iter().map(|record| record.offset).collect();
        assert_eq!(seen, [4, 5, 6, 7]);
        let end = StartAt::Find(OffsetSpec::Latest);
        consumer.seek(&zero(&topic), end).await.unwrap();
        assert_eq!(consumer.position(&zero(&topic)).await, Ok(Some(30)));
        consumer.assign([]).await.unwrap();
        assert_eq!(consumer.assignment().await, BTreeSet::new());
    });
}

#[test]
fn a_group_goes_on_behind_what_was_handed_over() {
    everywhere("group", async |setting| {
        group_goes_on(&setting, "classic").await;
        group_goes_on(&setting, "consumer").await;
    });
}

async fn group_goes_on(setting: &Setting, protocol: &str) {
    let topic = filled(setting, 30).await;
    let group = fresh("group");
    let builder = || {
        builder(setting)
            .set("group.id", &group)
            .set("group.protocol", protocol)
    };
    let first = builder().connect().await.unwrap();
    first.subscribe([&*topic]).await.unwrap();
    assert_eq!(offsets(&first, 7).await, (0..7).collect::<Vec<_>>());
    // though all thirty came in one fetch
    first.close().await.unwrap();
    let manual = || builder().set("enable.auto.commit", false);
    let second = manual().connect().await.unwrap();
    second.subscribe([&*topic]).await.unwrap();
    assert_eq!(offsets(&second, 3).await, [7, 8, 9]);
    second.commit().await.unwrap();
    assert_eq!(offsets(&second, 1).await, [10]);
    let committed = second.committed([zero(&topic)]).await.unwrap();
    assert_eq!(committed[&zero(&topic)].offset, 10);
    second.close().await.unwrap();
    let third = manual().connect().await.unwrap();
    third.subscribe([&*topic]).await.unwrap();
    assert_eq!(offsets(&third, 1).await, [10]);
    let chosen = [(zero(&topic), Committed::at(25))].into();
    third.commit_offsets(&chosen).await.unwrap();
    third.unsubscribe().await.unwrap();
    assert_eq!(third.assignment().await, BTreeSet::new());
    third.subscribe([&*topic]).await.unwrap();
    assert_eq!(offsets(&third, 1).await, [25]);
    third.close().await.unwrap();
}

#[test]
fn automatic_commits_are_of_what_was_handed_over() {
    everywhere("auto-commit", async |setting| {
        let topic = filled(&setting, 10).await;
        let group = fresh("auto");
        let builder = builder(&setting)
            .set("group.id", &group)
            .set("auto.commit.interval.ms", 50);
        let consumer = builder.connect().await.unwrap();
        consumer.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&consumer, 10).await.len(), 10);
        let mut committed = 0;
        let started = std::time::Instant::now();
        while committed < 10 && started.elapsed() < SOON {
            consumer.poll(Duration::from_millis(100)).await.unwrap();
            let offsets = consumer.committed([zero(&topic)]).await.unwrap();
            committed = offsets.get(&zero(&topic)).map_or(0, |c| c.offset);
        }
        assert_eq!(committed, 10);
        consumer.close().await.unwrap();
    });
}

/// What a listener heard.
#[derive(Clone, Default)]
pub(crate) struct Story(pub(crate) Arc<Mutex<Vec<String>>>);

impl Story {
    fn add(&self, what: &str, partitions: &BTreeSet<TopicPartition>) {
        let numbers: Vec<String> = partitions.iter().map(|p| p.partition.to_string()).collect();
        self.0
            .lock()
            .unwrap()
            .push(format!("{what} {}", numbers.join(" ")));
    }
}

impl RebalanceListener for Story {
    fn on_assigned<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        Box::pin(async move {
            assert!(consumer.assignment().await.is_superset(partitions));
            self.add("assigned", partitions);
        })
    }

    fn on_revoked<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        Box::pin(async move {
            consumer.commit().await.unwrap();
            self.add("revoked", partitions);
        })
    }

    fn on_lost<'a>(
        &'a self,
        consumer: &'a Consumer,
        partitions: &'a BTreeSet<TopicPartition>,
    ) -> ListenerFuture<'a> {
        Box::pin(async move {
            let too_late = consumer.commit().await;
            assert!(matches!(too_late, Err(CommitError::NotMember(_))));
            self.add("lost", partitions);
        })
    }
}

#[test]
fn listeners_hear_of_partitions_that_come_and_go() {
    everywhere("listener", async |setting| {
        let topic = filled(&setting, 5).await;
        let story = Story::default();
        let group = fresh("listener");
        let builder = || {
            builder(&setting)
                .set("group.id", &group)
                .set("heartbeat.interval.ms", 100)
                .set("enable.auto.commit", false)
        };
        let first = builder().listener(story.clone()).connect().await.unwrap();
        first.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&first, 5).await.len(), 5);
        let second = builder().connect().await.unwrap();
        second.subscribe([&*topic]).await.unwrap();
        // the group rebalances while both poll
        let started = std::time::Instant::now();
        while story.0.lock().unwrap().len() < 2 && started.elapsed() < SOON {
            first.poll(Duration::from_millis(50)).await.unwrap();
            second.poll(Duration::from_millis(50)).await.unwrap();
        }
        assert_eq!(story.0.lock().unwrap()[..2], ["assigned 0", "revoked 0"]);
        let committed = second.committed([zero(&topic)]).await.unwrap();
        assert_eq!(committed[&zero(&topic)].offset, 5);
        second.close().await.unwrap();
        first.close().await.unwrap();
    });
}

#[test]
fn listeners_hear_of_the_end_in_time_to_commit() {
    everywhere("end", async |setting| {
        let topic = filled(&setting, 5).await;
        for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
            let story = Story::default();
            let group = fresh("end");
            let builder = || {
                let builder = builder(&setting).set("group.id", &group);
                builder
                    .set("enable.auto.commit", false)
                    .group_protocol(protocol)
            };
            let consumer = builder().listener(story.clone()).connect().await.unwrap();
            consumer.subscribe([&*topic]).await.unwrap();
            assert_eq!(offsets(&consumer, 2).await, [0, 1]);
            consumer.unsubscribe().await.unwrap();
            consumer.poll(Duration::from_millis(50)).await.unwrap();
            let told = ["assigned 0", "revoked 0"];
            assert_eq!(story.0.lock().unwrap()[..], told, "once, and not as lost");
            consumer.subscribe([&*topic]).await.unwrap();
            assert_eq!(offsets(&consumer, 1).await, [2]);
            consumer.close().await.unwrap();
            assert_eq!(story.0.lock().unwrap()[2..], told);
            let next = builder().connect().await.unwrap();
            next.subscribe([&*topic]).await.unwrap();
            assert_eq!(offsets(&next, 1).await, [3]);
            next.close().await.unwrap();
        }
    });
}

#[derive(Clone, Default)]
struct Count(Arc<[AtomicU64; 2]>);

impl ConsumerInterceptor for Count {
    fn on_consume(&self, record: ConsumerRecord) -> ConsumerRecord {
        self.0[0].fetch_add(1, Ordering::Relaxed);
        record
    }

    fn on_commit(&self, offsets: &ringmill_client::CommittedOffsets) {
        self.0[1].fetch_add(offsets.len() as u64, Ordering::Relaxed);
    }
}

#[test]
fn interceptors_see_records_and_commits() {
    everywhere("consumer-interceptor", async |setting| {
        let topic = filled(&setting, 5).await;
        let count = Count::default();
        let builder = builder(&setting).set("group.id", fresh("intercepted"));
        let consumer = builder.interceptor(count.clone()).connect().await.unwrap();
        consumer.subscribe([&*topic]).await.unwrap();
        offsets(&consumer, 5).await;
        consumer.commit().await.unwrap();
        let counts = count
            .0
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [5, 1]);
        consumer.close().await.unwrap();
    });
}

#[test]
fn a_poll_that_is_dropped_loses_nothing() {
    everywhere("dropped", async |setting| {
        let topic = filled(&setting, 200).await;
        let builder = builder(&setting).set("max.partition.fetch.bytes", 1);
        let consumer = builder.connect().await.unwrap();
        let start = (zero(&topic), StartAt::Offset(0));
        consumer.assign([start]).await.unwrap();
        let mut seen = Vec::new();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let started = std::time::Instant::now();
        while seen.len() < 200 && started.elapsed() < SOON {
            let mut recv = Box::pin(consumer.recv());
            for _ in 0..seen.len() % 3 {
                if let std::task::Poll::Ready(record) = recv.as_mut().poll(&mut context) {
                    seen.push(record.unwrap().offset);
                    break;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            drop(recv);
            if seen.len() % 3 == 0 {
                seen.push(consumer.recv().await.unwrap().offset);
            }
        }
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn a_position_outside_of_the_log_is_an_error_if_so_wanted() {
    everywhere("outside", async |setting| {
        let topic = filled(&setting, 5).await;
        let builder = builder(&setting).set("auto.offset.reset", "none");
        let consumer = builder.connect().await.unwrap();
        let start = (zero(&topic), StartAt::Offset(1000));
        consumer.assign([start]).await.unwrap();
        assert!(matches!(consumer.recv().await, Err(PollError::Fetch(_))));
        consumer
            .seek(&zero(&topic), StartAt::Offset(4))
            .await
            .unwrap();
        assert_eq!(offsets(&consumer, 1).await, [4]);
    });
}

#[test]
fn a_consumer_tells_where_it_stands() {
    everywhere("standing", async |setting| {
        let topic = filled(&setting, 20).await;
        let zero = zero(&topic);
        let builder = builder(&setting).set("group.id", fresh("standing"));
        let consumer = builder.connect().await.unwrap();
        consumer.subscribe([&*topic]).await.unwrap();
        assert_eq!(consumer.subscription().await, [topic.clone()].into());
        assert_eq!(consumer.current_lag(&zero).await, None);
        assert_eq!(offsets(&consumer, 5).await.len(), 5);
        // though all twenty came in one fetch
        assert_eq!(consumer.current_lag(&zero).await, Some(15));
        let ends = consumer.end_offsets([zero.clone()]).await.unwrap();
        assert_eq!(ends, [(zero.clone(), 20)].into());
        let first = consumer.beginning_offsets([zero.clone()]).await.unwrap();
        assert_eq!(first, [(zero.clone(), 0)].into());
        consumer.pause([zero.clone()]).await.unwrap();
        assert_eq!(consumer.paused().await, [zero.clone()].into());
        consumer.resume([zero.clone()]).await.unwrap();
        assert_eq!(consumer.paused().await, BTreeSet::new());
        assert_eq!(offsets(&consumer, 1).await, [5]);
        consumer.close().await.unwrap();
    });
}

#[test]
fn a_rebalance_can_be_asked_for() {
    everywhere("enforced", async |setting| {
        let topic = filled(&setting, 5).await;
        let story = Story::default();
        let builder = builder(&setting)
            .set("group.id", fresh("enforced"))
            .set("partition.assignment.strategy", "range");
        let consumer = builder.listener(story.clone()).connect().await.unwrap();
        consumer.subscribe([&*topic]).await.unwrap();
        assert_eq!(offsets(&consumer, 5).await.len(), 5);
        let before = consumer.group_metadata().await.unwrap().generation;
        consumer.enforce_rebalance().await;
        let started = std::time::Instant::now();
        while story.0.lock().unwrap().len() < 3 && started.elapsed() < SOON {
            consumer.poll(Duration::from_millis(50)).await.unwrap();
        }
        let expected = ["assigned 0", "revoked 0", "assigned 0"];
        assert_eq!(story.0.lock().unwrap()[..], expected);
        assert!(consumer.group_metadata().await.unwrap().generation > before);
        consumer.close().await.unwrap();
    });
}

#[test]
fn another_thread_wakes_the_one_that_waits() {
    everywhere("woken", async |setting| {
        let topic = filled(&setting, 1).await;
        let consumer = blocking::Consumer::connect(builder(&setting)).unwrap();
        let consumer = Arc::new(consumer);
        let start = (zero(&topic), StartAt::Offset(0));
        consumer.assign(vec![start]).unwrap();
        let reader = {
            let consumer = consumer.clone();
            std::thread::spawn(move || {
                let first = consumer.recv().map(|record| record.offset);
                (first, consumer.recv())
            })
        };
        while !reader.is_finished() {
            // early or late: each ends one wait
            if consumer.position(&zero(&topic)).unwrap() == Some(1) {
                consumer.wakeup();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (first, woken) = reader.join().unwrap();
        assert_eq!(first, Ok(0));
        assert_eq!(woken, Err(PollError::Woken));
    });
}
