//! Sockets that are no streams between machines: datagrams, and Unix sockets within one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::Chance;
use ringmill_ring::{UdpSocket, UnixDatagram, UnixListener, UnixStream, fs, sleep, spawn, timeout};

use super::{MILLISECOND, SECOND, errno, on_a, two_nodes};

#[test]
fn datagrams_are_lost_doubled_and_overtaken() {
    let (mut world, a, b) = two_nodes(1);
    {
        let network = world.network();
        let mut faults = network.faults();
        faults.loss = Chance::one_in(10);
        faults.duplicate = Chance::one_in(10);
        faults.reorder = Chance::one_in(10);
    }
    let received = Rc::new(RefCell::new(Vec::new()));
    let kept = received.clone();
    world.start(a, async move {
        let socket = UdpSocket::bind(on_a(9)).await.unwrap();
        loop {
            let (result, buf) = socket.recv_from(BytesMut::with_capacity(100)).await;
            let (len, from) = result.unwrap();
            assert_eq!((len, from.ip().to_string()), (4, "10.0.0.2".to_owned()));
            kept.borrow_mut()
                .push(u32::from_le_bytes(buf[..].try_into().unwrap()));
        }
    });
    world.block_on(b, async {
        let socket = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
        for number in 0..1000u32 {
            let bufs = vec![Bytes::copy_from_slice(&number.to_le_bytes())];
            socket.send_to(bufs, on_a(9)).await.unwrap();
            sleep(MILLISECOND / 10).await;
        }
    });
    world.run_for(SECOND);
    let received = received.borrow();
    let different: BTreeSet<u32> = received.iter().copied().collect();
    assert!(
        (850..950).contains(&different.len()),
        "{} of 1000",
        different.len()
    );
    assert!(received.len() > different.len() + 50, "doubled");
    assert!(
        received.windows(2).filter(|pair| pair[0] > pair[1]).count() > 50,
        "overtaken"
    );
}

#[test]
fn trains_of_datagrams_come_apart_and_full_sockets_drop() {
    let (mut world, a, b) = two_nodes(1);
    world.network().faults().datagram_buffer = 5000;
    let outputs = world.start(a, async {
        let socket = UdpSocket::bind(on_a(9)).await.unwrap();
        sleep(SECOND).await;
        let mut lens = Vec::new();
        loop {
            let receive = socket.recv_from(BytesMut::with_capacity(800));
            let Ok((result, _)) = timeout(SECOND, receive).await else {
                return lens;
            };
            lens.push(result.unwrap().0);
        }
    });
    world.block_on(b, async {
        let socket = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
        socket
            .send_segments_to(vec![Bytes::from(vec![1; 2500])], 1000, on_a(9))
            .await
            .unwrap();
        sleep(SECOND / 10).await;
        for _ in 0..4 {
            socket
                .send_to(vec![Bytes::from(vec![2; 1000])], on_a(9))
                .await
                .unwrap();
        }
        let oversize = socket
            .send_to(vec![Bytes::from(vec![2; 70_000])], on_a(9))
            .await;
        assert_eq!(errno(oversize), Some(libc::EMSGSIZE));
    });
    world.run_for(10 * SECOND);
    let mut lens = outputs.take().remove(0);
    lens.sort_unstable();
    // What does not fit into the buffer is cut; of the last four, two found room.
    assert_eq!(lens, [500, 800, 800, 800, 800]);
}

#[test]
fn unix_sockets_connect_by_path_within_a_node() {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, async {
        let listener = UnixListener::bind("/sock").await.unwrap();
        let taken = UnixListener::bind("/sock").await;
        assert_eq!(errno(taken), Some(libc::EADDRINUSE));
        spawn(async move {
            let stream = listener.accept().await.unwrap();
            stream
                .send(vec![Bytes::from_static(b"hello")])
                .await
                .unwrap();
        });
        let stream = UnixStream::connect("/sock").await.unwrap();
        let mut buf = BytesMut::new();
        while buf.len() < 5 {
            assert!(stream.recv(&mut buf).await.unwrap() > 0);
        }
        assert_eq!(stream.recv(&mut buf).await.unwrap(), 0);
        let stale = UnixStream::connect("/sock").await;
        assert_eq!(
            errno(stale),
            Some(libc::ECONNREFUSED),
            "the path outlives its socket"
        );
        fs::remove_file("/sock").await.unwrap();
        let gone = UnixStream::connect("/sock").await;
        assert_eq!(errno(gone), Some(libc::ENOENT));
        UnixListener::bind("/sock").await.unwrap();
    });
    world.run_until_idle(10 * SECOND).unwrap();
    assert!(!world.is_running(a));
    let other = world.block_on(b, async { errno(UnixStream::connect("/sock").await) });
    assert_eq!(other, Some(libc::ENOENT));
}

#[test]
fn a_connected_socket_hears_its_peer_alone_and_that_it_is_gone() {
    let (mut world, a, b) = two_nodes(1);
    let one = |text: &'static str| vec![Bytes::from_static(text.as_bytes())];
    let outputs = world.start(a, async move {
        let socket = UdpSocket::bind(on_a(9)).await.unwrap();
        let (result, buf) = socket.recv_from(BytesMut::with_capacity(100)).await;
        let (_, from) = result.unwrap();
        let stranger = UdpSocket::bind(on_a(10)).await.unwrap();
        stranger.send_to(one("stranger"), from).await.unwrap();
        sleep(SECOND).await;
        socket.send_to(one("answer"), from).await.unwrap();
        buf
    });
    world.block_on(b, async move {
        sleep(MILLISECOND).await;
        let socket = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
        let unconnected = socket.send(one("x")).await;
        assert_eq!(errno(unconnected), Some(libc::EDESTADDRREQ));
        assert_eq!(errno(socket.peer_addr()), Some(libc::ENOTCONN));
        socket.connect(on_a(9)).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), on_a(9));
        assert_eq!(socket.local_addr().unwrap().ip().to_string(), "10.0.0.2");
        socket.send(one("question")).await.unwrap();
        let (result, buf) = socket.recv(BytesMut::with_capacity(100)).await;
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"answer"[..]));
        // The peer's process has ended: its host answers that nobody is there.
        sleep(SECOND).await;
        socket.send(one("nobody")).await.unwrap();
        sleep(SECOND).await;
        assert_eq!(errno(socket.send(one("x")).await), Some(libc::ECONNREFUSED));
        socket.send(one("again")).await.unwrap();
        let (refused, _) = socket.recv(BytesMut::with_capacity(100)).await;
        assert_eq!(errno(refused), Some(libc::ECONNREFUSED));
    });
    assert_eq!(outputs.take(), ["question"]);
}

#[test]
fn unix_datagrams_keep_order_and_make_senders_wait() {
    for seed in 0..20 {
        let (mut world, a, _) = two_nodes(seed);
        world.block_on(a, async move {
            let receiver = UnixDatagram::bind("/r").await.unwrap();
            let sender = UnixDatagram::bind("/s").await.unwrap();
            let number = |n: u32| vec![Bytes::copy_from_slice(&n.to_le_bytes())];
            assert_eq!(errno(sender.send(number(0)).await), Some(libc::ENOTCONN));
            let nowhere = sender.send_to(number(0), "/none").await;
            assert_eq!(errno(nowhere), Some(libc::ENOENT));
            sender.connect("/r").await.unwrap();
            let mut sent = 0;
            while timeout(SECOND, sender.send(number(sent))).await.is_ok() {
                sent += 1;
            }
            assert_eq!(sent, 10, "as many wait for a receiver");
            let sending = spawn(async move {
                for n in sent + 1..100 {
                    sender.send(number(n)).await.unwrap();
                }
                sender
            });
            let mut got = Vec::new();
            while got.last() != Some(&99) {
                let (result, buf) = receiver.recv_from(BytesMut::with_capacity(8)).await;
                assert_eq!(result.unwrap(), (4, Some("/s".into())));
                got.push(u32::from_le_bytes(buf[..].try_into().unwrap()));
            }
            // The one that was given up may have been too late to be stopped.
            got.retain(|n| *n != sent);
            assert!(got.into_iter().eq((0..100).filter(|n| *n != sent)));
            let sender = sending.await.unwrap();
            drop(receiver);
            let gone = sender.send(number(0)).await;
            assert_eq!(errno(gone), Some(libc::ECONNREFUSED));
            assert_eq!(
                errno(UnixStream::connect("/r").await),
                Some(libc::ECONNREFUSED)
            );
        });
        world.run_for(SECOND);
        assert_eq!((world.descriptors(a), world.operations(a)), (0, 0));
    }
}
