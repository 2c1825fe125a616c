//! Continuous streams: one without storage, which ends with its connection, and one that is stored
//! and can be joined at any place.

use bytes::{Bytes, BytesMut};
use ringmill_client::local::{Consumer, ConsumerConfig, Event};
use ringmill_client::messaging::SyncPoint;
use ringmill_client::{StartAt, TopicPartition};
use ringmill_ring::{ListenOptions, TcpListener, TcpStream, sleep};

use crate::stage::{
    LIMIT, ORDERS, SECOND, Stage, Told, connect, persistent as sender, receiver_address,
};

const PARTS: u32 = 1000;

/// Bytes over a connection: in order, none lost, the sender as fast as its receiver; whoever comes
/// later has missed what came before.
pub(crate) fn transient(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    let teller = told.clone();
    stage.receive(async move {
        let listen = TcpListener::bind(receiver_address(), ListenOptions::default());
        let listener = listen.await.expect("the address is free");
        let (stream, _) = listener.accept().await.expect("a connection");
        let (mut bytes, mut next) = (BytesMut::new(), 0);
        while stream.recv(&mut bytes).await.expect("a peer") > 0 {
            while bytes.len() >= 4 {
                let part = bytes.split_to(4);
                assert_eq!(part[..], u32::to_be_bytes(next));
                next += 1;
            }
        }
        assert_eq!(next, PARTS);
        teller.tell(format!("{next} parts came in order, and then the end"));
    });
    stage.send(async {
        sleep(SECOND).await;
        let stream = TcpStream::connect(receiver_address()).await;
        let stream = stream.expect("a receiver");
        for part in 0..PARTS {
            let bytes = Bytes::copy_from_slice(&part.to_be_bytes());
            stream.send(vec![bytes]).await.expect("a receiver");
        }
    });
    stage.world.run_for(5 * SECOND);
    assert_eq!(told.lines().len(), 1);
    told.lines()
}

/// A topic read from its beginning, while it grows: whoever comes later misses nothing.
pub(crate) fn persistent(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let write = |parts: std::ops::Range<u32>| async move {
        let sender = sender(LIMIT).await;
        let last = parts.end - 1;
        for part in parts {
            let until = match part == last {
                true => SyncPoint::Sent,
                false => SyncPoint::Asynchronous,
            };
            let message = Bytes::copy_from_slice(&part.to_be_bytes());
            sender.send(message, until).await.expect("room");
        }
    };
    stage.send(write(0..PARTS / 2));
    let teller = told.clone();
    stage.receive(async move {
        let consumer = Consumer::new(&connect().await, ConsumerConfig::default());
        let consumer = consumer.expect("a good configuration");
        consumer.assign([(TopicPartition::new(ORDERS, 0), StartAt::Offset(0))]);
        let mut next = 0;
        while next < PARTS {
            let Event::Records(fetched) = consumer.poll(SECOND).await.expect("a broker") else {
                continue;
            };
            let read = fetched.for_each(|record| {
                assert_eq!(record.value, Some(&u32::to_be_bytes(next)[..]));
                next += 1;
            });
            read.expect("records");
        }
        teller.tell(format!(
            "{next} parts came in order, half of them from before"
        ));
    });
    stage.world.run_for(SECOND);
    stage.send(write(PARTS / 2..PARTS));
    stage.world.run_for(5 * SECOND);
    assert_eq!(told.lines().len(), 1);
    told.lines()
}
