//! Transactions: seen together or not at all, fenced, and with the offsets of a group.

use std::sync::Arc;
use std::time::Duration;

use ringmill_client::{
    Admin, Committed, CommittedOffsets, Consumer, ConsumerBuilder, GroupProtocol, NewTopic,
    Producer, ProducerRecord, StartAt, TopicPartition, TransactionError,
};

use crate::brokers::{Setting, everywhere, fresh};

async fn producer(setting: &Setting, id: &str) -> Producer {
    let producer = Producer::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .set("transactional.id", id)
        .transport(setting.transport);
    let producer = producer.connect().await.unwrap();
    producer.init_transactions().await.unwrap();
    producer
}

fn consumer(setting: &Setting, isolation: &str) -> ConsumerBuilder {
    Consumer::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", false)
        .transport(setting.transport)
}

async fn topic(setting: &Setting, partitions: i32) -> Arc<str> {
    let admin = Admin::builder().set("bootstrap.servers", &setting.bootstrap);
    let admin = admin.connect().await.unwrap();
    let name = fresh("transacting");
    admin
        .create_topic(NewTopic::of(&name, partitions))
        .await
        .unwrap();
    name.into()
}

/// The values of partition 0 up to its end as this isolation sees it.
async fn seen(setting: &Setting, topic: &Arc<str>, isolation: &str) -> Vec<String> {
    let consumer = consumer(setting, isolation).connect().await.unwrap();
    let zero = TopicPartition::new(topic.clone(), 0);
    consumer.assign([(zero, StartAt::Offset(0))]).await.unwrap();
    let mut values = Vec::new();
    let mut idle = 0;
    while idle < 3 {
        let records = consumer.poll(Duration::from_millis(300)).await.unwrap();
        idle = if records.is_empty() { idle + 1 } else { 0 };
        values.extend(
            records
                .into_iter()
                .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()),
        );
    }
    values
}

fn record(topic: &Arc<str>, value: &str) -> ProducerRecord {
    ProducerRecord::to(topic.clone())
        .partition(0)
        .value(value.to_owned())
}

#[test]
fn committed_records_are_seen_and_aborted_ones_are_not() {
    everywhere("transactions", async |setting| {
        let topic = topic(&setting, 2).await;
        let producer = producer(&setting, &fresh("id")).await;
        for (value, committed) in [("a", true), ("b", false), ("c", false), ("d", true)] {
            producer.begin_transaction().await.unwrap();
            for _ in 0..3 {
                drop(producer.send(record(&topic, value)).await.unwrap());
            }
            let other = record(&topic, value).partition(1);
            drop(producer.send(other).await.unwrap());
            if committed {
                producer.commit_transaction().await.unwrap();
            } else {
                // they leave before the abort, so that there is something to be left out
                producer.flush().await.unwrap();
                producer.abort_transaction().await.unwrap();
            }
        }
        let committed = seen(&setting, &topic, "read_committed").await;
        assert_eq!(committed, ["a", "a", "a", "d", "d", "d"]);
        let all = seen(&setting, &topic, "read_uncommitted").await;
        assert_eq!(all.len(), 12);
        // open ones hold readers of committed records up
        producer.begin_transaction().await.unwrap();
        let delivery = producer.send(record(&topic, "e")).await.unwrap();
        delivery.await.unwrap();
        assert_eq!(seen(&setting, &topic, "read_committed").await.len(), 6);
        producer.commit_transaction().await.unwrap();
        assert_eq!(seen(&setting, &topic, "read_committed").await.len(), 7);
    });
}

#[test]
fn each_step_needs_the_one_before() {
    everywhere("steps", async |setting| {
        let topic = topic(&setting, 1).await;
        let plain = Producer::builder().set("bootstrap.servers", &setting.bootstrap);
        let plain = plain.connect().await.unwrap();
        let error = plain.begin_transaction().await.unwrap_err();
        assert_eq!(error, TransactionError::NotTransactional);
        let producer = producer(&setting, &fresh("steps")).await;
        let error = producer.commit_transaction().await.unwrap_err();
        assert_eq!(error, TransactionError::NotOpen);
        let outside = producer.send(record(&topic, "outside")).await.unwrap();
        assert!(outside.await.is_err());
        producer.begin_transaction().await.unwrap();
        producer.commit_transaction().await.unwrap();
        // dropped before they leave, at once and many times over
        for _ in 0..3 {
            producer.begin_transaction().await.unwrap();
            let dropped = producer.send(record(&topic, "dropped")).await.unwrap();
            producer.abort_transaction().await.unwrap();
            drop(dropped.await);
        }
        producer.begin_transaction().await.unwrap();
        drop(producer.send(record(&topic, "kept")).await.unwrap());
        producer.commit_transaction().await.unwrap();
        assert_eq!(seen(&setting, &topic, "read_committed").await, ["kept"]);
    });
}

#[test]
fn a_second_producer_of_the_same_name_fences_the_first() {
    everywhere("fencing", async |setting| {
        let topic = topic(&setting, 1).await;
        let id = fresh("fencing");
        let first = producer(&setting, &id).await;
        first.begin_transaction().await.unwrap();
        let delivery = first.send(record(&topic, "first")).await.unwrap();
        delivery.await.unwrap();
        let second = producer(&setting, &id).await;
        let fenced = first.commit_transaction().await.unwrap_err();
        assert!(
            matches!(fenced, TransactionError::Refused { .. }),
            "{fenced}"
        );
        let over = first.begin_transaction().await.unwrap_err();
        assert!(matches!(over, TransactionError::Fatal { .. }), "{over}");
        second.begin_transaction().await.unwrap();
        drop(second.send(record(&topic, "second")).await.unwrap());
        second.commit_transaction().await.unwrap();
        assert_eq!(seen(&setting, &topic, "read_committed").await, ["second"]);
    });
}

#[test]
fn offsets_of_a_group_are_committed_with_the_transaction_or_not() {
    everywhere("offsets", async |setting| {
        offsets_with_transactions(&setting, GroupProtocol::Classic).await;
        offsets_with_transactions(&setting, GroupProtocol::Consumer).await;
    });
}

async fn offsets_with_transactions(setting: &Setting, protocol: GroupProtocol) {
    let topic = topic(setting, 1).await;
    let group = fresh("offsets");
    let producer = producer(setting, &fresh("offsets")).await;
    producer.begin_transaction().await.unwrap();
    for n in 0..10 {
        drop(producer.send(record(&topic, &n.to_string())).await.unwrap());
    }
    producer.commit_transaction().await.unwrap();
    let consumer = consumer(setting, "read_committed")
        .set("group.id", &group)
        .group_protocol(protocol);
    let consumer = consumer.connect().await.unwrap();
    consumer.subscribe([&*topic]).await.unwrap();
    consumer.recv().await.unwrap();
    let metadata = consumer.group_metadata().await.unwrap();
    assert!(metadata.generation >= 0, "{metadata:?}");
    let zero = TopicPartition::new(topic.clone(), 0);
    let at = |offset| CommittedOffsets::from([(zero.clone(), Committed::at(offset))]);
    let committed = async || {
        let committed = consumer.committed([zero.clone()]).await.unwrap();
        committed.get(&zero).map(|committed| committed.offset)
    };
    producer.begin_transaction().await.unwrap();
    let sent = producer
        .send_offsets_to_transaction(&at(4), &metadata)
        .await;
    sent.unwrap();
    producer.abort_transaction().await.unwrap();
    assert_eq!(committed().await, None);
    producer.begin_transaction().await.unwrap();
    let sent = producer
        .send_offsets_to_transaction(&at(7), &metadata)
        .await;
    sent.unwrap();
    producer.commit_transaction().await.unwrap();
    assert_eq!(committed().await, Some(7));
    // of a member that is none any more
    let mut stale = metadata;
    stale.generation += 5;
    producer.begin_transaction().await.unwrap();
    let refused = producer.send_offsets_to_transaction(&at(9), &stale).await;
    assert!(refused.is_err());
    let required = producer.commit_transaction().await.unwrap_err();
    assert!(
        matches!(required, TransactionError::AbortRequired { .. }),
        "{required}"
    );
    producer.abort_transaction().await.unwrap();
    assert_eq!(committed().await, Some(7));
    consumer.close().await.unwrap();
}
