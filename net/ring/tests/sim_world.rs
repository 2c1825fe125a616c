//! The simulated world from outside: clocks, processes, kills, pauses, and one story per seed.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{File, ListenOptions, OpenOptions, TcpListener, TcpStream, random_u64, spawn};

fn two_nodes(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed);
    let a = world.add_node("a", "10.0.0.1".parse().unwrap());
    let b = world.add_node("b", "10.0.0.2".parse().unwrap());
    (world, a, b)
}

fn on_a(port: u16) -> SocketAddr {
    SocketAddr::new("10.0.0.1".parse().unwrap(), port)
}

/// Echoes what each connection sends, for ever.
async fn echo(port: u16) {
    let addr = SocketAddr::new("0.0.0.0".parse().unwrap(), port);
    let listener = TcpListener::bind(addr, ListenOptions::default())
        .await
        .unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        spawn(async move {
            let mut buf = BytesMut::new();
            while let Ok(1..) = stream.recv(&mut buf).await {
                if stream.send(vec![buf.split().freeze()]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Sends `count` messages and reads each back while it is still sending, as socket buffers
/// that are full in both directions demand; the number of those that came back whole.
async fn converse(count: u32) -> u32 {
    let Ok(stream) = TcpStream::connect(on_a(7)).await else {
        return 0;
    };
    for number in 0..count {
        let message = Bytes::from(vec![number as u8; (random_u64() % 3000 + 1) as usize]);
        let sending = spawn({
            let (stream, message) = (stream.clone(), message.clone());
            async move { stream.send(vec![message]).await }
        });
        let mut buf = BytesMut::new();
        while buf.len() < message.len() {
            match stream.recv(&mut buf).await {
                Ok(1..) => {}
                _ => return number,
            }
        }
        assert_eq!(buf, message);
        sending
            .await
            .expect("not aborted")
            .expect("all of it was echoed");
    }
    count
}

#[test]
fn a_conversation_goes_through_pieces_and_delays() {
    let mut sum = 0;
    for seed in 0..200 {
        let (mut world, a, b) = two_nodes(seed);
        if seed % 2 == 1 {
            world.swarm();
        }
        world.start(a, echo(7));
        sum += world.block_on(b, converse(20));
        if seed % 2 == 0 {
            assert_eq!(sum % 20, 0, "seed {seed}: nothing goes wrong here");
        }
        sum -= sum % 20;
        world.kill(a);
        assert_eq!(
            (world.descriptors(a), world.operations(a)),
            (0, 0),
            "seed {seed}"
        );
        assert_eq!(
            (world.descriptors(b), world.operations(b)),
            (0, 0),
            "seed {seed}"
        );
    }
    assert!(sum > 100 * 20);
}

fn story(seed: u64) -> (u64, u64) {
    let (mut world, a, b) = two_nodes(seed);
    world.swarm();
    world.start(a, echo(7));
    world.block_on(b, converse(10));
    (world.trace_hash(), world.events())
}

#[test]
fn one_seed_tells_one_story() {
    for seed in 0..50 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
        assert_ne!(story(seed).0, story(seed + 1).0, "seed {seed}");
    }
}

#[test]
fn content_is_part_of_the_story() {
    let tell = |byte: u8| {
        let (mut world, a, _) = two_nodes(1);
        world.block_on(a, async move {
            let options = OpenOptions::new().write(true).create(true);
            let file = File::open("/f", options).await.unwrap();
            file.write_at(0, vec![Bytes::from(vec![byte; 10])])
                .await
                .unwrap();
        });
        world.trace_hash()
    };
    assert_eq!(tell(1), tell(1));
    assert_ne!(tell(1), tell(2));
}
