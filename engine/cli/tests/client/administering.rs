//! Administration: topics, settings, groups, and what brokers hold; and the blocking twins.

use std::time::Duration;

use ringmill_client::{
    Admin, AdminBuilder, AdminError, Committed, ConfigChange, ConfigSource, Consumer, ErrorCode,
    NewTopic, OffsetSpec, Producer, ProducerRecord, TopicPartition, Utf8, blocking,
};

use crate::brokers::{Setting, everywhere, fresh};

fn builder(setting: &Setting) -> AdminBuilder {
    Admin::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .transport(setting.transport)
}

fn code(error: AdminError) -> ErrorCode {
    match error {
        AdminError::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn topics_are_made_changed_and_deleted() {
    everywhere("topics", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        assert_eq!(admin.cluster().await.unwrap().brokers.len(), 1);
        let name = fresh("topics");
        let new = NewTopic::of(&name, 2).config("retention.ms", 3_600_000);
        let topic = admin.create_topic(new.clone()).await.unwrap();
        assert_eq!(topic.partitions.len(), 2);
        let again = admin.create_topic(new).await.unwrap_err();
        assert_eq!(code(again), ErrorCode::TopicAlreadyExists);
        assert!(
            admin
                .topics()
                .await
                .unwrap()
                .iter()
                .any(|t| *t.name == *name)
        );
        admin.create_partitions(&name, 3).await.unwrap();
        let described = admin.describe_topic(&name).await.unwrap();
        assert_eq!(described.partitions.len(), 3);
        let change = ConfigChange::Set("max.message.bytes".into(), "50000".into());
        admin.alter_topic(&name, vec![change]).await.unwrap();
        // what the controller has done, the broker that is asked may hear of a moment later
        let value = async |wanted: &str, value: &str| {
            for _ in 0..50 {
                let configs = admin.topic_configs(&name).await.unwrap();
                let entry = configs.into_iter().find(|entry| entry.name == wanted);
                let entry = entry.unwrap();
                if entry.value.as_deref() == Some(value) {
                    return entry.source;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            panic!("{wanted} is not {value}")
        };
        let source = value("max.message.bytes", "50000").await;
        assert_eq!(source, ConfigSource::Topic);
        let source = value("retention.ms", "3600000").await;
        assert_eq!(source, ConfigSource::Topic);
        let resources = admin.config_resources().await.unwrap();
        assert!(resources.iter().any(|resource| resource.name == name));
        admin.delete_topic(&name).await.unwrap();
        let gone = admin.delete_topic(&name).await.unwrap_err();
        assert_eq!(code(gone), ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn records_producers_and_folders_are_seen() {
    everywhere("inspect", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let name = fresh("inspect");
        admin.create_topic(NewTopic::of(&name, 1)).await.unwrap();
        let producer = Producer::builder().set("bootstrap.servers", &setting.bootstrap);
        let producer = producer.connect().await.unwrap();
        for _ in 0..10 {
            let record = ProducerRecord::to(name.clone()).value("x");
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await.unwrap();
        let zero = TopicPartition::new(name.clone(), 0);
        let producers = admin.producers(&zero).await.unwrap();
        assert_eq!(producers.len(), 1);
        assert_eq!(producers[0].last_sequence, 9);
        assert_eq!(producers[0].transaction_start, None);
        let broker = admin.cluster().await.unwrap().brokers[0].id;
        let dirs = admin.log_dirs(broker).await.unwrap();
        assert!(dirs.iter().any(|dir| dir.partitions.contains_key(&zero)));
        assert!(!admin.broker_configs(broker).await.unwrap().is_empty());
        let low = admin
            .delete_records([(zero.clone(), 4)].into())
            .await
            .unwrap();
        assert_eq!(low[&zero], 4);
        let ends = [(zero.clone(), OffsetSpec::Earliest)];
        let first = admin.offsets(ends).await.unwrap()[&zero].unwrap().offset;
        assert_eq!(first, 4);
    });
}

#[test]
fn groups_are_seen_moved_and_deleted() {
    everywhere("groups", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let (name, group) = (fresh("groups"), fresh("group"));
        admin.create_topic(NewTopic::of(&name, 1)).await.unwrap();
        let zero = TopicPartition::new(name.clone(), 0);
        let consumer = Consumer::builder()
            .set("bootstrap.servers", &setting.bootstrap)
            .set("group.id", &group)
            .set("group.instance.id", "one")
            .set("auto.offset.reset", "earliest");
        let consumer = consumer.connect().await.unwrap();
        consumer.subscribe([&name]).await.unwrap();
        while consumer.assignment().await.is_empty() {
            consumer.poll(Duration::from_millis(100)).await.unwrap();
        }
        let described = admin.describe_group(&group).await.unwrap();
        assert_eq!(described.state, "Stable");
        assert_eq!(described.members[0].assigned, [zero.clone()].into());
        assert!(
            admin
                .groups()
                .await
                .unwrap()
                .iter()
                .any(|g| g.group == group)
        );
        let busy = admin.delete_group(&group).await.unwrap_err();
        assert_eq!(code(busy), ErrorCode::NonEmptyGroup);
        admin
            .remove_members(&group, vec!["one".into()])
            .await
            .unwrap();
        let offsets = [(zero.clone(), Committed::at(7))].into();
        admin.set_group_offsets(&group, offsets).await.unwrap();
        assert_eq!(admin.group_offsets(&group).await.unwrap()[&zero].offset, 7);
        admin
            .delete_group_offsets(&group, [zero.clone()].into())
            .await
            .unwrap();
        assert!(admin.group_offsets(&group).await.unwrap().is_empty());
        admin.delete_group(&group).await.unwrap();
        drop(consumer);
    });
}

#[test]
fn plain_threads_and_typed_records_have_their_twins() {
    everywhere("blocking", async |setting| {
        let admin = blocking::Admin::connect(builder(&setting)).unwrap();
        let name = fresh("blocking");
        admin.create_topic(NewTopic::of(&name, 1)).unwrap();
        let producer = Producer::builder().set("bootstrap.servers", &setting.bootstrap);
        let producer = blocking::Producer::connect(producer).unwrap();
        let record = ProducerRecord::to(name.clone()).key("k").value("v");
        assert_eq!(
            producer.send(record).unwrap().wait().unwrap().offset,
            Some(0)
        );
        producer.close().unwrap();
        let builder = || {
            let builder = Consumer::builder().set("bootstrap.servers", &setting.bootstrap);
            builder
                .set("group.id", fresh("blocking"))
                .set("auto.offset.reset", "earliest")
        };
        let consumer = blocking::Consumer::connect(builder()).unwrap();
        consumer.subscribe(&[&name]).unwrap();
        assert_eq!(consumer.recv().unwrap().offset, 0);
        consumer.commit().unwrap();
        consumer.close().unwrap();
        let consumer = builder().connect().await.unwrap();
        consumer.subscribe([&name]).await.unwrap();
        let consumer = consumer.typed::<String, String>(Utf8, Utf8);
        let record = consumer.recv().await.unwrap();
        assert_eq!((&*record.key, &*record.value), ("k", "v"));
    });
}
