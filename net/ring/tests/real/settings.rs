//! What sockets are told, on the kernel's own: each setting comes back as the system has it, and
//! does what the manual says.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    ConnectOptions, Keepalive, ListenOptions, TcpListener, TcpStream, UdpOptions, UdpSocket,
    UnixStream, sleep, spawn, timeout, with_timeout,
};

use super::{any, pair, pattern, ring};

#[test]
fn each_setting_comes_back_as_it_was_set() {
    ring(async {
        let (client, server) = pair().await;
        assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
        client.set_nodelay(false).unwrap();
        assert!(!client.nodelay().unwrap());
        assert_eq!(client.keepalive().unwrap(), None);
        let keepalive = Keepalive {
            idle: Duration::from_secs(7),
            interval: Duration::from_secs(3),
            probes: 5,
        };
        client.set_keepalive(Some(keepalive)).unwrap();
        assert_eq!(client.keepalive().unwrap(), Some(keepalive));
        client.set_keepalive(None).unwrap();
        assert_eq!(client.keepalive().unwrap(), None);
        let limit = Some(Duration::from_millis(1234));
        client.set_user_timeout(limit).unwrap();
        assert_eq!(client.user_timeout().unwrap(), limit);
        client.set_ttl(9).unwrap();
        assert_eq!(client.ttl().unwrap(), 9);
        client.set_send_buffer(20_000).unwrap();
        assert_eq!(client.send_buffer().unwrap(), 40_000);
        server.set_receive_buffer(30_000).unwrap();
        assert_eq!(server.receive_buffer().unwrap(), 60_000);
        let udp = UdpSocket::bind(any()).await.unwrap();
        assert!(!udp.broadcast().unwrap());
        udp.set_broadcast(true).unwrap();
        assert!(udp.broadcast().unwrap());
        let (unix, _other) = UnixStream::pair().unwrap();
        unix.set_send_buffer(50_000).unwrap();
        assert_eq!(unix.send_buffer().unwrap(), 100_000);
    });
}

#[test]
fn a_listener_hands_its_settings_on() {
    ring(async {
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        listener.set_receive_buffer(40_000).unwrap();
        let keepalive = Some(Keepalive::default());
        listener.set_keepalive(keepalive).unwrap();
        let connecting = spawn(TcpStream::connect(listener.local_addr().unwrap()));
        let (server, _) = listener.accept().await.unwrap();
        let _client = connecting.await.unwrap().unwrap();
        assert_eq!(server.receive_buffer().unwrap(), 80_000);
        assert_eq!(server.keepalive().unwrap(), keepalive);
    });
}

#[test]
fn a_connection_comes_from_the_address_that_was_asked_for() {
    ring(async {
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        let options = ConnectOptions {
            local: Some("127.0.0.9:0".parse().unwrap()),
            receive_buffer: Some(10_000),
            ..ConnectOptions::default()
        };
        let to = listener.local_addr().unwrap();
        let connecting = spawn(async move { TcpStream::connect_with(to, options).await });
        let (_server, from) = listener.accept().await.unwrap();
        let client = connecting.await.unwrap().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        assert_eq!(from.ip().to_string(), "127.0.0.9");
        assert_eq!(client.receive_buffer().unwrap(), 20_000);
        assert_eq!(client.peer_addr().unwrap(), to);
    });
}

#[test]
fn a_connection_that_is_to_be_reset_is_reset() {
    ring(async {
        let (client, server) = pair().await;
        client.set_reset_on_close(true).unwrap();
        client.send(vec![Bytes::from_static(b"x")]).await.unwrap();
        drop(client);
        let mut buf = BytesMut::new();
        let end = loop {
            match with_timeout(Duration::from_secs(10), server.recv(&mut buf)).await {
                Ok(1..) => {}
                end => break end,
            }
        };
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_deadline_is_an_error_like_others_and_loses_nothing() {
    ring(async {
        let (client, server) = pair().await;
        let mut buf = BytesMut::new();
        let limit = Duration::from_millis(5);
        let late = with_timeout(limit, server.recv(&mut buf)).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        client.send(vec![Bytes::from_static(b"x")]).await.unwrap();
        let limit = Duration::from_secs(10);
        assert_eq!(with_timeout(limit, server.recv(&mut buf)).await.unwrap(), 1);
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        let limit = Duration::from_millis(5);
        let late = with_timeout(limit, listener.accept()).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let (_server, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.local_addr().unwrap());
    });
}

/// The peer stands still for ever, with all buffers full: within the deadline it is an error, and
/// what waits of ours is as much as was handed over.
#[test]
fn a_peer_that_stops_reading_is_an_error_within_the_deadline() {
    ring(async {
        let (client, server) = pair().await;
        let limit = Duration::from_millis(50);
        let large = pattern(16 << 20, 1);
        let late = with_timeout(limit, client.send(vec![large])).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let more = client.send(vec![Bytes::from_static(b"x")]).await;
        assert_eq!(more.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(server);
    });
}

#[test]
fn a_connected_datagram_socket_hears_its_peer_alone() {
    ring(async {
        let bind = || async { UdpSocket::bind(any()).await.unwrap() };
        let (a, b, stranger) = (bind().await, bind().await, bind().await);
        let to_a = a.local_addr().unwrap();
        assert!(a.peer_addr().is_err());
        a.connect(b.local_addr().unwrap()).await.unwrap();
        assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
        let one = |text: &'static [u8]| vec![Bytes::from_static(text)];
        stranger.send_to(one(b"stranger"), to_a).await.unwrap();
        b.send_to(one(b"peer"), to_a).await.unwrap();
        let (result, buf) = a.recv(BytesMut::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"peer"[..]));
        assert_eq!(a.send(one(b"back")).await.unwrap(), 4);
        let (result, buf) = b.recv_from(BytesMut::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), ((4, to_a), &b"back"[..]));
        drop(b);
        // The socket closes with one of the next turns.
        let refused = loop {
            sleep(Duration::from_millis(1)).await;
            if let Err(error) = a.send(one(b"nobody")).await {
                break error;
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn datagram_sockets_share_an_address_if_told_to() {
    ring(async {
        let options = UdpOptions {
            reuse_port: true,
            receive_buffer: Some(30_000),
        };
        let one = UdpSocket::bind_with(any(), options).await.unwrap();
        assert_eq!(one.receive_buffer().unwrap(), 60_000);
        let addr = one.local_addr().unwrap();
        UdpSocket::bind_with(addr, options).await.unwrap();
        assert!(UdpSocket::bind(addr).await.is_err());
        let late = timeout(
            Duration::from_millis(2),
            one.recv(BytesMut::with_capacity(10)),
        );
        assert!(late.await.is_err());
    });
}
