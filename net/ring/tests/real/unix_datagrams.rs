//! Unix datagrams and pairs on the kernel's own sockets.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{UnixDatagram, UnixListener, UnixStream, sleep, spawn, timeout};

use super::{folder, ring};

fn one(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[test]
fn messages_keep_their_bounds_their_order_and_their_sender() {
    let dir = folder("unix-datagrams");
    ring(async {
        let receiver = UnixDatagram::bind(dir.join("r")).await.unwrap();
        let named = UnixDatagram::bind(dir.join("n")).await.unwrap();
        let unnamed = UnixDatagram::unbound().await.unwrap();
        assert_eq!(receiver.local_path().unwrap(), Some(dir.join("r")));
        assert_eq!(unnamed.local_path().unwrap(), None);
        unnamed.send_to(one("first"), dir.join("r")).await.unwrap();
        named.connect(dir.join("r")).await.unwrap();
        let halves = vec![Bytes::from_static(b"sec"), Bytes::from_static(b"ond")];
        assert_eq!(named.send(halves).await.unwrap(), 6);
        let (result, buf) = receiver.recv_from(BytesMut::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), ((5, None), &b"first"[..]));
        let (result, buf) = receiver.recv_from(BytesMut::with_capacity(4)).await;
        assert_eq!(result.unwrap(), (4, Some(dir.join("n"))));
        assert_eq!(&buf[..], b"seco", "what does not fit is lost");
        let nowhere = unnamed.send_to(one("x"), dir.join("none")).await;
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(receiver);
        sleep(Duration::from_millis(5)).await;
        let gone = named.send(one("x")).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_sender_waits_for_a_receiver_that_has_too_many() {
    let dir = folder("unix-full");
    ring(async {
        let receiver = UnixDatagram::bind(dir.join("r")).await.unwrap();
        let sender = UnixDatagram::unbound().await.unwrap();
        sender.connect(dir.join("r")).await.unwrap();
        let mut sent = 0u32;
        let limit = Duration::from_millis(20);
        while let Ok(done) = timeout(limit, sender.send(one("x"))).await {
            done.unwrap();
            sent += 1;
            assert!(sent < 100_000, "nothing bounds it");
        }
        let waiting = spawn(async move { sender.send(one("last")).await });
        let mut got = 0;
        loop {
            let (result, buf) = receiver.recv(BytesMut::with_capacity(8)).await;
            result.unwrap();
            if &buf[..] == b"last" {
                break;
            }
            got += 1;
        }
        assert_eq!(got, sent, "the send that was given up was not sent");
        waiting.await.unwrap().unwrap();
    });
}

#[test]
fn a_pair_is_connected_and_a_listener_knows_its_path() {
    let dir = folder("unix-pair");
    ring(async {
        let (a, b) = UnixStream::pair().unwrap();
        a.send(one("hello")).await.unwrap();
        drop(a);
        let mut got = BytesMut::new();
        while b.recv(&mut got).await.unwrap() > 0 {}
        assert_eq!(got, "hello");
        let listener = UnixListener::bind(dir.join("s")).await.unwrap();
        assert_eq!(listener.local_path().unwrap(), Some(dir.join("s")));
        let client = spawn(UnixStream::connect(dir.join("s")));
        let server = listener.accept().await.unwrap();
        let client = client.await.unwrap().unwrap();
        assert_eq!(client.peer_path().unwrap(), Some(dir.join("s")));
        assert_eq!(server.peer_path().unwrap(), None);
    });
}
