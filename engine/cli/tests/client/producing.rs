//! Producing: offsets, order, codecs, partitioners, bounds and failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmill_client::{
    Choice, Delivered, DeliveryError, Partitioner, Producer, ProducerBuilder, ProducerInterceptor,
    ProducerRecord, SendError, StartError,
};

use crate::brokers::{Setting, everywhere, fresh, ours};

fn builder(setting: &Setting) -> ProducerBuilder {
    Producer::builder()
        .set("bootstrap.servers", &setting.bootstrap)
        .transport(setting.transport)
}

#[test]
fn deliveries_come_with_consecutive_offsets_in_every_codec() {
    everywhere("codecs", async |setting| {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let topic: Arc<str> = fresh("codecs").into();
            let builder = builder(&setting).set("compression.type", codec);
            let producer = builder.connect().await.unwrap();
            let mut deliveries = Vec::new();
            for n in 0..1000 {
                let record = ProducerRecord::to(topic.clone())
                    .partition(0)
                    .key(format!("key {n}"))
                    .value(format!("value {n}"))
                    .header("n", n.to_string());
                deliveries.push(producer.send(record).await.unwrap());
            }
            for (n, delivery) in (0..).zip(deliveries) {
                let delivered = delivery.await.unwrap();
                assert_eq!(
                    (delivered.partition, delivered.offset),
                    (0, Some(n)),
                    "{codec}"
                );
            }
            producer.close().await.unwrap();
        }
    });
}

#[test]
fn a_flush_delivers_what_was_sent_before_it() {
    everywhere("flush", async |setting| {
        let topic = fresh("flush");
        let builder = builder(&setting)
            .set("linger.ms", 60_000)
            .set("request.timeout.ms", 30_000);
        let producer = builder
            .set("delivery.timeout.ms", 120_000)
            .connect()
            .await
            .unwrap();
        let mut delivery = producer
            .try_send(ProducerRecord::to(topic.clone()).value("x"))
            .unwrap();
        assert_eq!(delivery.now(), None);
        producer.flush().await.unwrap();
        assert!(matches!(delivery.now(), Some(Ok(_))));
        assert_eq!(producer.buffered_bytes(), 0);
        assert_eq!(producer.stats().await.delivered, 1);
        assert_eq!(producer.partitions(&topic).await.unwrap(), 1);
    });
}

#[test]
fn a_full_buffer_holds_the_sender_up_and_refuses_who_will_not_wait() {
    everywhere("full", async |setting| {
        let topic: Arc<str> = fresh("full").into();
        let builder = builder(&setting)
            .set("buffer.memory", 100_000)
            .set("max.request.size", 50_000)
            .set("batch.size", 16_000);
        let producer = builder.connect().await.unwrap();
        let record = |bytes: usize| ProducerRecord::to(topic.clone()).value(vec![7; bytes]);
        let mut refused = 0;
        for _ in 0..300 {
            match producer.try_send(record(10_000)) {
                Err(SendError::Full) => {
                    refused += 1;
                    drop(producer.send(record(10_000)).await.unwrap());
                }
                done => drop(done.unwrap()),
            }
            assert!(producer.buffered_bytes() <= 110_000);
        }
        assert!(refused > 0, "nothing was ever full");
        let large = producer.try_send(record(60_000)).unwrap_err();
        assert!(matches!(large, SendError::TooLarge { .. }));
        producer.flush().await.unwrap();
        assert_eq!(producer.stats().await.delivered, 300);
    });
}

#[test]
fn handles_are_shared_between_threads() {
    everywhere("threads", async |setting| {
        let topic: Arc<str> = fresh("threads").into();
        let producer = builder(&setting).connect().await.unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (producer, topic) = (producer.clone(), topic.clone());
                scope.spawn(move || {
                    for n in 0..500 {
                        let value = format!("{thread} {n}");
                        let record = ProducerRecord::to(topic.clone()).value(value);
                        drop(producer.try_send(record).unwrap());
                    }
                });
            }
        });
        producer.flush().await.unwrap();
        assert_eq!(producer.stats().await.delivered, 2000);
    });
}

struct Last;

impl Partitioner for Last {
    fn partition(&self, choice: &Choice<'_>) -> i32 {
        choice.partitions as i32 - 1
    }
}

#[test]
fn partitioners_choose_and_records_that_name_one_win() {
    ours("partitioners", async |setting| {
        let topic: Arc<str> = fresh("partitioners").into();
        let producer = builder(&setting).partitioner(Last).connect().await.unwrap();
        let count = producer.partitions(&topic).await.unwrap() as i32;
        let record = ProducerRecord::to(topic.clone()).value("x");
        let chosen = producer.send(record.clone()).await.unwrap().await.unwrap();
        assert_eq!(chosen.partition, count - 1);
        let named = producer.send(record.clone().partition(0)).await.unwrap();
        assert_eq!(named.await.unwrap().partition, 0);
        let none = producer.send(record.partition(count)).await.unwrap();
        assert!(matches!(none.await, Err(DeliveryError::Failed(_))));
        let failed = producer.flush().await.unwrap_err();
        assert_eq!(failed.records, 1);
        producer.flush().await.unwrap();
    });
}

#[derive(Clone, Default)]
struct Counter(Arc<[AtomicU64; 2]>);

impl ProducerInterceptor for Counter {
    fn on_send(&self, record: ProducerRecord) -> ProducerRecord {
        self.0[0].fetch_add(1, Ordering::Relaxed);
        record.header("seen", "yes")
    }

    fn on_acknowledgement(&self, _: &str, result: &Result<Delivered, DeliveryError>) {
        self.0[1].fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
    }
}

#[test]
fn interceptors_see_each_record_and_its_delivery() {
    ours("interceptors", async |setting| {
        let counter = Counter::default();
        let builder = builder(&setting).interceptor(counter.clone());
        let producer = builder.connect().await.unwrap();
        let topic: Arc<str> = fresh("interceptors").into();
        for _ in 0..10 {
            drop(
                producer
                    .try_send(ProducerRecord::to(topic.clone()).value("x"))
                    .unwrap(),
            );
        }
        producer.close().await.unwrap();
        let counts = counter
            .0
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [10, 10]);
    });
}

#[test]
fn a_topic_that_cannot_be_is_told_by_the_delivery() {
    everywhere("bad-topic", async |setting| {
        let producer = builder(&setting).connect().await.unwrap();
        let record = ProducerRecord::to("not a topic's name!").value("x");
        let delivery = producer.send(record).await.unwrap();
        assert!(matches!(delivery.await, Err(DeliveryError::Topic(_))));
        assert_eq!(producer.buffered_bytes(), 0);
        let closed = producer.clone();
        assert_eq!(producer.close().await.unwrap_err().records, 1);
        let record = ProducerRecord::to("x").value("x");
        assert_eq!(closed.try_send(record).unwrap_err(), SendError::Closed);
    });
}

#[test]
fn a_wrong_address_is_an_error_at_once() {
    ours("no-broker", async |setting| {
        let started = std::time::Instant::now();
        let none = builder(&setting)
            .set("bootstrap.servers", "127.0.0.1:1")
            .connect()
            .await;
        assert!(matches!(none.err(), Some(StartError::Connect(_))));
        assert!(started.elapsed().as_secs() < 5);
    });
}
