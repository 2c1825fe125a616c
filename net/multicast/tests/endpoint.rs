//! Nodes on the ring's sockets, in simulated worlds and on the loopback of this machine.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use ringmill_multicast::{
    Endpoint, Network, RateControl, ReceiverConfig, ReceiverEvent, SenderConfig, SlowReceiver,
};
use ringmill_ring::sim::{Chance, World};
use ringmill_ring::{RingConfig, run, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// The bytes that are sent: each by its place.
fn bytes(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|i| (i % 251) as u8).collect()
}

/// Sends a stream in messages and ends it.
async fn send(node: &Endpoint, messages: usize, len: usize) {
    let stream = node.with_sender(|s, now| s.open_stream(now, None)).unwrap();
    let mut at = 0;
    for _ in 0..messages {
        node.write(stream, bytes(at, len).into()).await.unwrap();
        at += len as u64;
    }
    node.close(stream).await.unwrap();
}

/// Receives a stream to its end; the number of bytes.
async fn receive(node: &Endpoint) -> u64 {
    let mut at = 0;
    loop {
        while let Some(chunk) = node.with_receiver(|r| r.read()) {
            assert_eq!((chunk.offset, chunk.lost), (at, 0));
            assert_eq!(chunk.bytes, bytes(at, chunk.bytes.len()));
            at += chunk.bytes.len() as u64;
        }
        let event = timeout(SECOND / 100, node.receiver_event()).await;
        if let Ok(ReceiverEvent::StreamEnd { .. }) = event {
            return at;
        }
    }
}

fn sender(id: u32) -> SenderConfig {
    SenderConfig {
        segment_size: 500,
        block_len: 16,
        parity: 4,
        rate: RateControl::Fixed(2.0e6),
        ..SenderConfig::new(id, 7)
    }
}

/// One sender, two receivers, and a network that loses; they speak by `network(node)`.
fn simulated(seed: u64, network: fn(u8) -> Network) -> [Option<u64>; 2] {
    let mut world = World::new(seed);
    let nodes: Vec<_> = (1..=3u8)
        .map(|n| world.add_node(&format!("n{n}"), [10, 0, 0, n].into()))
        .collect();
    world.network().faults().loss = Chance::one_in(10);
    world.network().faults().reorder = Chance::one_in(20);
    world.network().faults().duplicate = Chance::one_in(50);
    let outputs: Vec<_> = (2..=3u8)
        .map(|n| {
            world.start(nodes[usize::from(n) - 1], async move {
                let config = ReceiverConfig {
                    unicast_feedback: matches!(network(n), Network::Fanout { .. }),
                    ..ReceiverConfig::new(n.into(), seed + u64::from(n))
                };
                let node = Endpoint::open(network(n), None, Some(config))
                    .await
                    .unwrap();
                receive(&node).await
            })
        })
        .collect();
    world.start(nodes[0], async move {
        let config = SenderConfig {
            unicast_feedback: matches!(network(1), Network::Fanout { .. }),
            ..sender(1)
        };
        let node = Endpoint::open(network(1), Some(config), None)
            .await
            .unwrap();
        sleep(SECOND).await;
        send(&node, 100, 700).await;
        sleep(60 * SECOND).await;
    });
    world.run_for(100 * SECOND);
    [0, 1].map(|i| outputs[i].take().pop())
}

fn group() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 255, 77, 5), 6003)
}

#[test]
fn a_stream_arrives_by_multicast() {
    for seed in 0..10 {
        let received = simulated(seed, |_| Network::Multicast {
            group: group(),
            interface: Ipv4Addr::UNSPECIFIED,
            ttl: 1,
            loopback: false,
        });
        assert_eq!(received, [Some(70_000); 2], "seed {seed}");
    }
}

#[test]
fn a_stream_arrives_by_fan_out_where_there_is_no_multicast() {
    for seed in 0..10 {
        let received = simulated(seed, |n| Network::Fanout {
            local: SocketAddr::from(([10, 0, 0, n], 6003)),
            members: vec![([10, 0, 0, 2], 6003).into(), ([10, 0, 0, 3], 6003).into()],
        });
        assert_eq!(received, [Some(70_000); 2], "seed {seed}");
    }
}

#[test]
fn a_stream_arrives_on_the_loopback_of_this_machine() {
    let network = |port| Network::Multicast {
        group: SocketAddrV4::new(*group().ip(), port),
        interface: Ipv4Addr::LOCALHOST,
        ttl: 0,
        loopback: true,
    };
    let port = 20_000 + (std::process::id() % 40_000) as u16;
    let received = run(RingConfig::default(), async move {
        let to = Endpoint::open(network(port), None, Some(ReceiverConfig::new(2, 2)));
        let to = to.await.unwrap();
        let config = SenderConfig {
            slow_receiver: SlowReceiver::Stall,
            rate: RateControl::Fixed(20.0e6),
            ..SenderConfig::new(1, 7)
        };
        let from = Endpoint::open(network(port), Some(config), None)
            .await
            .unwrap();
        from.with_sender(|s, _| s.add_receiver(2));
        let task = ringmill_ring::spawn(async move {
            send(&from, 2_000, 1_000).await;
            sleep(60 * SECOND).await;
        });
        let received = timeout(60 * SECOND, receive(&to)).await;
        task.abort();
        received
    });
    assert_eq!(received.unwrap(), Ok(2_000_000));
}
