//! Sockets that are no streams between machines: datagrams, and Unix sockets within one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::Chance;
use ringmill_ring::{UdpSocket, UnixListener, UnixStream, fs, sleep, spawn, timeout};

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
