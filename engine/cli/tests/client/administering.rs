//! Administration: topics, settings, groups, and what brokers hold; and the blocking twins.

use std::time::Duration;

use ringmill_client::{
    Admin, AdminBuilder, AdminError, Committed, ConfigChange, ConfigKind, ConfigResource,
    ConfigSource, Consumer, ErrorCode, FeatureUpdate, GroupFilter, GroupKind, GroupProtocol,
    NewTopic, OffsetSpec, Producer, ProducerRecord, QuotaChange, QuotaEntity, QuotaFilter,
    TopicPartition, TransactionFilter, Utf8, blocking,
};

use crate::brokers::{Setting, everywhere, fresh, kafka};

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

/// Waits for partitions: the broker that is asked may hear of them a moment after the controller.
async fn grown(admin: &Admin, topic: &str, partitions: usize) {
    for _ in 0..50 {
        let described = admin.describe_topic(topic).await.unwrap();
        if described.partitions.len() == partitions {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("there are not {partitions} partitions")
}

#[test]
fn topics_are_made_changed_and_deleted() {
    everywhere("topics", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        assert_eq!(admin.cluster().await.unwrap().brokers.len(), 1);
        let name = fresh("topics");
        let new = NewTopic::of(&name, 2).config("retention.ms", 3_600_000);
        admin.validate_topic(new.clone()).await.unwrap();
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
        grown(&admin, &name, 3).await;
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
        let resources = admin
            .config_resources(vec![ConfigKind::Topic])
            .await
            .unwrap();
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
        assert_eq!(described.kind, GroupKind::Classic);
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
        for lost in [
            TopicPartition::new(name.clone(), 77),
            TopicPartition::new("no-such", 0),
        ] {
            let offsets = [(lost, Committed::at(7))].into();
            let refused = admin.set_group_offsets(&group, offsets).await.unwrap_err();
            assert_eq!(code(refused), ErrorCode::UnknownTopicOrPartition);
        }
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
fn consumer_groups_are_seen_and_have_settings() {
    everywhere("consumer-groups", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let (name, group) = (fresh("groups"), fresh("group"));
        admin.create_topic(NewTopic::of(&name, 2)).await.unwrap();
        let consumer = Consumer::builder()
            .set("bootstrap.servers", &setting.bootstrap)
            .set("group.id", &group)
            .group_protocol(GroupProtocol::Consumer);
        let consumer = consumer.connect().await.unwrap();
        consumer.subscribe([&name]).await.unwrap();
        let described = loop {
            consumer.poll(Duration::from_millis(100)).await.unwrap();
            if consumer.assignment().await.len() < 2 {
                continue;
            }
            let described = admin.describe_group(&group).await.unwrap();
            if described.state == "Stable" {
                break described;
            }
        };
        assert_eq!(described.kind, GroupKind::Consumer);
        let member = &described.members[0];
        assert_eq!(member.assigned, consumer.assignment().await);
        assert_eq!(member.target, member.assigned);
        let known = consumer.group_metadata().await.unwrap();
        assert_eq!(member.epoch, Some(known.generation));
        assert_eq!(described.epochs, Some((known.generation, known.generation)));
        let filter = GroupFilter {
            kinds: vec!["consumer".into()],
            states: vec!["Stable".into()],
        };
        let listed = admin.groups_where(filter.clone()).await.unwrap();
        let own = listed.iter().find(|listed| listed.group == group).unwrap();
        assert_eq!(own.kind, GroupKind::Consumer);
        let classic = GroupFilter {
            kinds: vec!["classic".into()],
            ..filter
        };
        let others = admin.groups_where(classic).await.unwrap();
        assert!(others.iter().all(|listed| listed.group != group));
        settings_of_a_group(&admin, &group).await;
        consumer.close().await.unwrap();
    });
}

async fn settings_of_a_group(admin: &Admin, group: &str) {
    let of = ConfigResource::new(ConfigKind::Group, group);
    let change = |value: &str| {
        let name = "consumer.session.timeout.ms".to_owned();
        vec![ConfigChange::Set(name, value.to_owned())]
    };
    let refused = admin.validate_configs(&of, change("soon")).await;
    assert_eq!(code(refused.unwrap_err()), ErrorCode::InvalidConfig);
    admin.validate_configs(&of, change("50000")).await.unwrap();
    admin.alter_configs(&of, change("55000")).await.unwrap();
    for _ in 0..50 {
        let settings = admin.configs(&of).await.unwrap();
        let mut settings = settings.into_iter();
        let found = settings.find(|setting| setting.name == "consumer.session.timeout.ms");
        if found.and_then(|setting| setting.value).as_deref() == Some("55000") {
            let groups = admin.config_resources(vec![ConfigKind::Group]).await;
            assert!(groups.unwrap().contains(&of));
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the setting does not come")
}

#[test]
fn quotas_are_set_seen_and_taken_away() {
    everywhere("quotas", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let entity = QuotaEntity::user(&fresh("user")).and_client("reports");
        let set = |name: &str, value| QuotaChange::Set(name.into(), value);
        let changes = vec![
            set("producer_byte_rate", 1e6),
            set("request_percentage", 50.0),
        ];
        admin.alter_quotas(&entity, changes).await.unwrap();
        let seen = async |count: usize| {
            for _ in 0..50 {
                let quotas = admin.quotas(QuotaFilter::exactly(&entity)).await.unwrap();
                let of_entity = quotas.get(&entity).cloned().unwrap_or_default();
                if of_entity.len() == count {
                    return of_entity;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            panic!("there are not {count} quotas")
        };
        let two = seen(2).await;
        assert_eq!(two["producer_byte_rate"], 1e6);
        let any = admin.quotas(QuotaFilter::any("user")).await.unwrap();
        assert!(any.contains_key(&entity));
        let gone = QuotaChange::Remove("producer_byte_rate".into());
        admin.alter_quotas(&entity, vec![gone]).await.unwrap();
        assert_eq!(seen(1).await["request_percentage"], 50.0);
        let wrong = admin.alter_quotas(&entity, vec![set("speed", 1.0)]).await;
        assert_eq!(code(wrong.unwrap_err()), ErrorCode::InvalidRequest);
        let last = QuotaChange::Remove("request_percentage".into());
        admin.alter_quotas(&entity, vec![last]).await.unwrap();
        seen(0).await;
    });
}

async fn in_transaction(setting: &Setting, id: &str, topic: &str) -> Producer {
    let producer = Producer::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .set("transactional.id", id);
    let producer = producer.connect().await.unwrap();
    producer.init_transactions().await.unwrap();
    producer.begin_transaction().await.unwrap();
    let record = ProducerRecord::to(topic.to_owned()).partition(0).value("x");
    drop(producer.send(record).await.unwrap());
    producer.flush().await.unwrap();
    producer
}

#[test]
fn transactions_are_seen_fenced_and_ended() {
    everywhere("transactions", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let (name, id) = (fresh("transactions"), fresh("id"));
        admin.create_topic(NewTopic::of(&name, 1)).await.unwrap();
        let zero = TopicPartition::new(name.clone(), 0);
        let producer = in_transaction(&setting, &id, &name).await;
        let listed = admin.transactions(Default::default()).await.unwrap();
        let own = listed.iter().find(|listed| listed.transactional_id == id);
        assert_eq!(own.unwrap().state, "Ongoing");
        let long = TransactionFilter {
            longer_than: Some(Duration::from_secs(3600)),
            ..TransactionFilter::default()
        };
        // as Kafka does, an id without a transaction counts as one of any age
        let long = admin.transactions(long).await.unwrap();
        assert!(long.iter().all(|listed| listed.transactional_id != id));
        let described = admin.describe_transaction(&id).await.unwrap();
        assert_eq!(described.producer_id, own.unwrap().producer_id);
        assert_eq!(described.partitions, [zero.clone()].into());
        assert!(described.started_ms.is_some());
        let (fenced, epoch) = admin.fence_producer(&id).await.unwrap();
        assert_eq!(fenced, described.producer_id);
        assert!(epoch > described.producer_epoch);
        producer.commit_transaction().await.unwrap_err();
        let none = admin
            .describe_transaction(&fresh("none"))
            .await
            .unwrap_err();
        assert_eq!(code(none), ErrorCode::TransactionalIdNotFound);
        // one that its partition's leader alone is asked to end
        let hanging = in_transaction(&setting, &fresh("hanging"), &name).await;
        let open = async || {
            let producers = admin.producers(&zero).await.unwrap();
            let mut open = producers
                .into_iter()
                .filter(|p| p.transaction_start.is_some());
            (open.next(), open.count())
        };
        let (Some(of_hanging), 0) = open().await else {
            panic!("one transaction is open");
        };
        admin.abort_transaction(&zero, &of_hanging).await.unwrap();
        assert_eq!(open().await, (None, 0));
        drop(hanging);
    });
}

#[test]
fn features_and_replicas_are_told() {
    everywhere("features", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let features = admin.features().await.unwrap();
        let transactions = features["transaction.version"];
        assert!(transactions.finalized >= Some(2) && transactions.max >= 2);
        // A trial changes nothing, also where the level is lost by it.
        let trial = vec![FeatureUpdate::safe_downgrade("transaction.version", 0)];
        admin.validate_features(trial).await.unwrap();
        let same = vec![FeatureUpdate::upgrade("transaction.version", 2)];
        admin.update_features(same).await.unwrap();
        let higher = vec![FeatureUpdate::upgrade("transaction.version", 99)];
        let refused = admin.update_features(higher).await.unwrap_err();
        assert_eq!(code(refused), ErrorCode::InvalidUpdateVersion);
        assert_eq!(
            admin.features().await.unwrap()["transaction.version"],
            transactions
        );
        let name = fresh("replicas");
        admin.create_topic(NewTopic::of(&name, 3)).await.unwrap();
        let partitions = admin.describe_partitions(&name).await.unwrap();
        assert_eq!(partitions.len(), 3);
        let broker = admin.cluster().await.unwrap().brokers[0].id;
        assert_eq!(partitions[2].partition.in_sync, [broker]);
        assert!(partitions[2].offline.is_empty());
        let none = admin.describe_partitions(&fresh("none")).await;
        assert_eq!(code(none.unwrap_err()), ErrorCode::UnknownTopicOrPartition);
    });
}

/// Of Kafka alone, until our node has it: subscriptions to clients' metrics (KIP-714).
#[test]
fn client_metrics_have_settings() {
    kafka("client-metrics", async |setting| {
        let admin = builder(&setting).connect().await.unwrap();
        let of = ConfigResource::new(ConfigKind::ClientMetrics, fresh("metrics"));
        let change = ConfigChange::Set("interval.ms".into(), "5000".into());
        admin.alter_configs(&of, vec![change]).await.unwrap();
        for _ in 0..50 {
            let known = admin
                .config_resources(vec![ConfigKind::ClientMetrics])
                .await;
            if known.unwrap().contains(&of) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the subscription does not come")
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
