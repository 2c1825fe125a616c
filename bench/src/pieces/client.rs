//! Our own producer in front of a simulated node: from the application's record to its
//! acknowledgement.

use ringmill_client::local::{Client, ClientConfig, Producer, ProducerConfig, Record, SendError};

use crate::Piece;
use crate::material::{TOPIC, VALUE_LEN};
use crate::node::{LISTENS, create_topic, scene};
use crate::stage::{Curtain, act};

/// Records before the first that is counted.
const WARM_UP: u64 = 2_000;

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "client-produce",
        unit: "record",
        units: 20_000,
        what: "a record of 100 B handed to our producer, batched with others, delivered by the node",
        work: produce,
    }]
}

async fn send(producer: &Producer, records: u64) {
    let topic = producer.topic(TOPIC).await.expect("it is there");
    let value = [b'v'; VALUE_LEN];
    for _ in 0..records {
        while let Err(error) = producer.try_send(&topic, &Record::of(&value)) {
            assert_eq!(error, SendError::Full);
            producer.ready().await;
        }
    }
    producer.flush().await.expect("all are delivered");
}

fn produce(units: u64) {
    let (mut world, clients) = scene(1);
    act(&mut world, clients, move |curtain: Curtain| async move {
        create_topic(1).await;
        let client = Client::connect(ClientConfig::new([LISTENS])).await;
        let client = client.expect("the node is there");
        let producer = Producer::new(&client, ProducerConfig::default()).await;
        let producer = producer.expect("an idempotent producer");
        send(&producer, WARM_UP).await;
        curtain.rises().await;
        send(&producer, units).await;
        curtain.falls().await;
        producer.close().await.expect("nothing is left");
    });
}
