//! What simulated sockets are told changes what happens to them, as on the kernel's own: resets,
//! silent peers, buffers, sends without a copy.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::{Chance, NodeId, World};
use ringmill_ring::{
    ConnectOptions, Keepalive, TcpStream, UdpSocket, UnixStream, now, random_u64, sleep, spawn,
    timeout, with_timeout,
};

use super::{MILLISECOND, SECOND, drain, errno, listen, on_a, serve, two_nodes};

#[test]
fn settings_come_back_and_are_inherited() {
    let (mut world, a, b) = two_nodes(1);
    let keepalive = Some(Keepalive::default());
    let outputs = world.start(a, async move {
        let listener = listen(7).await;
        listener.set_keepalive(keepalive).unwrap();
        listener.set_receive_buffer(5_000).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (
            stream.keepalive().unwrap(),
            stream.receive_buffer().unwrap(),
        )
    });
    world.block_on(b, async {
        sleep(MILLISECOND).await;
        let options = ConnectOptions {
            local: Some("10.0.0.2:4000".parse().unwrap()),
            send_buffer: Some(3_000),
            ..ConnectOptions::default()
        };
        let stream = TcpStream::connect_with(on_a(7), options).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().port(), 4000);
        assert_eq!(stream.send_buffer().unwrap(), 6_000);
        assert!(stream.nodelay().unwrap());
        stream.set_nodelay(false).unwrap();
        assert!(!stream.nodelay().unwrap());
        let limit = Some(SECOND);
        stream.set_user_timeout(limit).unwrap();
        assert_eq!(stream.user_timeout().unwrap(), limit);
        stream.set_ttl(3).unwrap();
        assert_eq!(stream.ttl().unwrap(), 3);
        let udp = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
        udp.set_broadcast(true).unwrap();
        assert!(udp.broadcast().unwrap());
        sleep(SECOND).await;
    });
    assert_eq!(outputs.take(), [(keepalive, 10_000)]);
}

#[test]
fn a_connection_that_is_to_be_reset_is_reset() {
    let (mut world, a, b) = two_nodes(1);
    let outputs = world.start(a, async {
        let (stream, _) = listen(7).await.accept().await.unwrap();
        errno(drain(stream).await.1)
    });
    world.block_on(b, async {
        sleep(MILLISECOND).await;
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        stream.set_reset_on_close(true).unwrap();
    });
    world.run_for(SECOND);
    assert_eq!(outputs.take(), [Some(libc::ECONNRESET)]);
}

/// How long a stream that waits for its peer's bytes lives, and how it ends.
fn silence(after: impl FnOnce(&mut World, NodeId, NodeId)) -> (u64, Option<i32>) {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, serve(7, async |stream| drop(drain(stream).await)));
    let outputs = world.start(b, async {
        sleep(MILLISECOND).await;
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        stream.set_keepalive(Some(Keepalive::default())).unwrap();
        let begun = now();
        let limit = Duration::from_secs(3600);
        let ended = with_timeout(limit, stream.recv(&mut BytesMut::new())).await;
        ((now() - begun).as_secs(), errno(ended))
    });
    world.run_for(SECOND);
    after(&mut world, a, b);
    world.run_for(Duration::from_secs(3700));
    outputs.take().remove(0)
}

#[test]
fn probes_find_out_that_a_silent_peer_is_gone() {
    // Nothing is wrong: the deadline is the caller's.
    assert_eq!(silence(|_, _, _| {}), (3600, None));
    // 30 s of silence, three probes ten seconds apart, and the last one's wait.
    let cut = silence(|world, a, b| world.network().block(a, b));
    assert_eq!(cut, (60, Some(libc::ETIMEDOUT)));
    // A machine that started anew answers that it knows of no connection.
    let rebooted = silence(|world, a, _| {
        world.power_off(a);
        world.power_on(a);
    });
    assert_eq!(rebooted, (30, Some(libc::ECONNRESET)));
}

#[test]
fn what_stays_unacknowledged_gives_a_connection_up() {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, serve(7, async |stream| drop(drain(stream).await)));
    let outputs = world.start(b, async {
        sleep(MILLISECOND).await;
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        stream.set_user_timeout(Some(5 * SECOND)).unwrap();
        sleep(SECOND).await;
        stream.send(vec![Bytes::from_static(b"x")]).await.unwrap();
        let begun = now();
        let ended = stream.recv(&mut BytesMut::new()).await;
        ((now() - begun).as_secs(), errno(ended))
    });
    world.run_for(SECOND / 2);
    world.network().block(b, a);
    world.run_for(Duration::from_secs(100));
    let (took, ended) = outputs.take().remove(0);
    assert_eq!(ended, Some(libc::ETIMEDOUT));
    assert!((5..20).contains(&took), "{took} s");
}

#[test]
fn a_small_buffer_makes_its_sender_wait_sooner() {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, async {
        let (_stream, _) = listen(7).await.accept().await.unwrap();
        sleep(1000 * SECOND).await;
    });
    world.block_on(b, async {
        sleep(MILLISECOND).await;
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        stream.set_send_buffer(5_000).unwrap();
        let fits = stream.send(vec![Bytes::from(vec![1; 10_000])]);
        with_timeout(SECOND, fits).await.unwrap();
        let more = stream.send(vec![Bytes::from(vec![1; 10_000])]);
        assert!(with_timeout(SECOND, more).await.is_err());
    });
}

#[test]
fn sends_without_a_copy_arrive_whether_refused_or_not() {
    for seed in 0..40 {
        let (mut world, a, b) = two_nodes(seed);
        world.swarm();
        world.network().faults().reset = Chance::Never;
        world.network().faults().no_zero_copy = Chance::one_in(3);
        let outputs = world.start(a, async {
            let (stream, _) = listen(7).await.accept().await.unwrap();
            drain(stream).await.0
        });
        world.block_on(b, async {
            let stream = loop {
                match TcpStream::connect(on_a(7)).await {
                    Ok(stream) => break stream,
                    Err(_) => sleep(MILLISECOND).await,
                }
            };
            for number in 0..50u8 {
                let bufs = vec![
                    Bytes::from(vec![number; 100]),
                    Bytes::from(vec![number; 900]),
                ];
                stream.send_zero_copy(bufs).await.unwrap();
            }
        });
        world.run_for(1000 * SECOND);
        let expected: Vec<u8> = (0..50u8).flat_map(|number| [number; 1000]).collect();
        assert!(outputs.take() == [&expected[..]], "seed {seed}");
    }
}

#[test]
fn a_pair_of_streams_is_connected_within_its_node() {
    let (mut world, a, _) = two_nodes(1);
    world.block_on(a, async {
        let (one, other) = UnixStream::pair().unwrap();
        let receiving = spawn(async move {
            let mut got = BytesMut::new();
            while other.recv(&mut got).await.unwrap() > 0 {}
            got
        });
        one.send(vec![Bytes::from_static(b"hello")]).await.unwrap();
        assert_eq!(one.peer_path().unwrap(), None);
        drop(one);
        assert_eq!(receiving.await.unwrap(), "hello");
    });
    world.run_for(SECOND);
    assert_eq!((world.descriptors(a), world.operations(a)), (0, 0));
}

/// A stream of numbered bytes, received by turns of both kinds that are dropped at random.
#[test]
fn receives_into_own_buffers_lose_no_bytes_when_they_are_dropped() {
    for seed in 0..150 {
        let (mut world, a, b) = two_nodes(seed);
        world.swarm();
        world.network().faults().reset = Chance::Never;
        world.start(a, async {
            let (stream, _) = listen(7).await.accept().await.unwrap();
            for part in 0..40u32 {
                let bytes: Bytes = (part * 500..(part + 1) * 500).map(|i| i as u8).collect();
                stream.send(vec![bytes]).await.unwrap();
                sleep(MILLISECOND).await;
            }
        });
        let received = world.block_on(b, async {
            let stream = loop {
                match TcpStream::connect(on_a(7)).await {
                    Ok(stream) => break stream,
                    Err(_) => sleep(MILLISECOND).await,
                }
            };
            let mut all = BytesMut::new();
            loop {
                let dice = random_u64();
                let patience = Duration::from_micros(dice % 3000);
                // The first kind once in a while only: it stays, once it has begun.
                if dice.is_multiple_of(40) {
                    if let Ok(count) = timeout(patience, stream.recv(&mut all)).await
                        && count.unwrap() == 0
                    {
                        return all;
                    }
                    continue;
                }
                let mut own = BytesMut::with_capacity(1 + dice as usize % 1000);
                own.extend_from_slice(&[0xEE][..(dice as usize / 7) % 2]);
                let before = own.len();
                if before == own.capacity() {
                    continue;
                }
                let receive = stream.recv_owned(own);
                if let Ok((count, own)) = timeout(patience, receive).await {
                    let count = count.unwrap();
                    assert_eq!(own.len() - before, count);
                    if count == 0 {
                        return all;
                    }
                    all.extend_from_slice(&own[before..]);
                }
            }
        });
        assert_eq!(received.len(), 20_000, "seed {seed}");
        let right = |(i, byte): (usize, &u8)| i as u8 == *byte;
        assert!(received.iter().enumerate().all(right), "seed {seed}");
        world.run_for(SECOND);
        assert_eq!((world.descriptors(b), world.operations(b)), (0, 0));
    }
}
