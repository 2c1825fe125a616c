//! Compacted topics through the whole broker: keys are demanded, old values go, settings are
//! followed.

mod wire_client;

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{sleep, wall_clock_ms};
use ringmill_wire::StrBytes;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::kafka_protocol::messages::CreateTopicsRequest;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};

use wire_client::{Client, Scene, batch_with, topic_name};

const INVALID_RECORD: i16 = 87;

async fn create(client: &mut Client, name: &str, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*name).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(1000);
    let response = client.call(7, &request).await;
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

fn keyed(key: &str, value: &str, codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    let record = NewRecord {
        timestamp: wall_clock_ms(),
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: &[],
    };
    builder.append(&record).unwrap();
    builder.seal(codec, ProducerStamp::NONE)
}

/// All values of a topic, from its beginning on.
async fn all_values(client: &mut Client, topic: &str) -> Vec<(i64, String)> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let fetched = client.fetch(0, 0, topic, &[(0, offset)]).await.records();
        match fetched.last() {
            Some((last, _)) => offset = last + 1,
            None => return found,
        }
        found.extend(fetched);
    }
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    let mut scene = Scene::with_cores(1, 2);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        create(&mut client, "c", &[("cleanup.policy", "compact")]).await;
        create(&mut client, "d", &[("cleanup.policy", "delete")]).await;
        for codec in Compression::ALL {
            let keyless = || batch_with(&["v"], codec, ProducerStamp::NONE);
            let (code, _) = client.produce("c", 0, keyless()).await;
            assert_eq!(code, INVALID_RECORD, "{codec}");
            assert_eq!(client.produce("d", 0, keyless()).await.0, 0);
            assert_eq!(client.produce("c", 0, keyed("k", "v", codec)).await.0, 0);
        }
    });
    scene.stop(running);
}

#[test]
fn old_values_go_and_the_last_of_every_key_stays() {
    for cores in [1, 2] {
        let mut scene = Scene::with_cores(2, cores);
        scene.set("log.cleaner.backoff.ms", "1000");
        let running = scene.start();
        let expected = scene.client(async {
            let mut client = Client::connect().await;
            let configs = [("cleanup.policy", "compact"), ("segment.bytes", "65536")];
            create(&mut client, "c", &configs).await;
            let mut expected = std::collections::BTreeMap::new();
            for n in 0..600 {
                let (key, value) = (format!("k{}", n % 7), format!("{n:0>900}"));
                let codec = match n % 3 {
                    0 => Compression::Zstd,
                    _ => Compression::None,
                };
                let (code, offset) = client.produce("c", 0, keyed(&key, &value, codec)).await;
                assert_eq!(code, 0);
                expected.insert(key, (offset, value));
            }
            sleep(Duration::from_secs(30)).await;
            let found = all_values(&mut client, "c").await;
            assert!(found.len() < 250, "{} of 600 records", found.len());
            assert!(expected.values().all(|last| found.contains(last)));
            expected
        });
        scene.world.power_off(scene.broker);
        drop(running);
        let running = scene.start();
        scene.client(async move {
            let mut client = Client::connect().await;
            let found = all_values(&mut client, "c").await;
            assert!(found.len() < 250, "{} of 600 records", found.len());
            assert!(expected.values().all(|last| found.contains(last)));
        });
        scene.stop(running);
    }
}

#[test]
fn nothing_is_compacted_without_the_cleaner() {
    let mut scene = Scene::new(3);
    scene.set("log.cleaner.enable", "false");
    scene.set("log.cleaner.backoff.ms", "1000");
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "65536")];
        create(&mut client, "c", &configs).await;
        for n in 0..300 {
            let batch = keyed("k", &format!("{n:0>900}"), Compression::None);
            assert_eq!(client.produce("c", 0, batch).await.0, 0);
        }
        sleep(Duration::from_secs(30)).await;
        assert_eq!(all_values(&mut client, "c").await.len(), 300);
    });
    scene.stop(running);
}
