//! Sockets for plain threads: they do what std's do, among themselves and with std's.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use ringmill_ring::socket::{
    TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream,
};
use ringmill_ring::{Keepalive, ListenOptions};

use super::{alone, folder, pattern, ring};

const LIMIT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert_eq!(server.peer_addr().unwrap(), from);
    (client, server)
}

fn echo(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buf = vec![0; 10_000];
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(()),
            count => stream.write_all(&buf[..count])?,
        }
    }
}

/// Sends through one handle while another receives, and compares.
fn trip(sender: impl Write + Send + 'static, mut receiver: impl Read, end: impl FnOnce() + Send) {
    let sent = pattern(3 << 20, 5);
    let mut back = Vec::new();
    thread::scope(|scope| {
        let (sent, mut sender) = (sent.clone(), sender);
        scope.spawn(move || {
            sender.write_all(&sent).unwrap();
            end();
        });
        receiver.read_to_end(&mut back).unwrap();
    });
    assert!(back == sent);
}

#[test]
fn bytes_come_back_from_ours_and_from_stds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let stream = stream.unwrap();
            thread::spawn(move || echo(stream));
        }
    });
    let ours = TcpStream::connect(addr).unwrap();
    let (receiver, half) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    trip(ours, receiver, move || {
        half.shutdown(Shutdown::Write).unwrap()
    });
    let stds = std::net::TcpStream::connect(addr).unwrap();
    let (receiver, half) = (stds.try_clone().unwrap(), stds.try_clone().unwrap());
    trip(stds, receiver, move || {
        half.shutdown(Shutdown::Write).unwrap()
    });
    serving.join().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || echo(listener.accept().unwrap().0));
    let ours = TcpStream::connect(addr).unwrap();
    let (receiver, half) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    trip(ours, receiver, move || {
        half.shutdown(Shutdown::Write).unwrap()
    });
}

#[test]
fn a_read_that_takes_too_long_is_an_error_and_writes_nothing_later() {
    let (client, mut server) = pair();
    assert_eq!(server.read_timeout().unwrap(), None);
    let zero = server.set_read_timeout(Some(Duration::ZERO)).unwrap_err();
    assert_eq!(zero.kind(), io::ErrorKind::InvalidInput);
    server.set_read_timeout(Some(LIMIT)).unwrap();
    for round in 0..20u8 {
        let mut buf = [0xA5; 64];
        let begun = Instant::now();
        let late = server.read(&mut buf).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= LIMIT);
        // What comes now is not for a buffer that was given back.
        (&client).write_all(&[round; 8]).unwrap();
        let other = [0; 64];
        let mut got = [0; 8];
        server.set_read_timeout(Some(LONG)).unwrap();
        server.read_exact(&mut got).unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!((buf, other, got), ([0xA5; 64], [0; 64], [round; 8]));
    }
}

#[test]
fn a_peer_that_does_not_read_holds_a_writer_for_its_time_out_alone() {
    let (mut client, _server) = pair();
    client.set_write_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.write_timeout().unwrap(), Some(LIMIT));
    let stuck = client.write_all(&vec![1; 64 << 20]).unwrap_err();
    assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn nobody_to_connect_to_is_an_error_in_time() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let refused = TcpStream::connect(addr).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let options = ListenOptions {
        backlog: 1,
        ..ListenOptions::default()
    };
    let listener = TcpListener::bind_with(addr, options).unwrap();
    let mut connected = Vec::new();
    let failure = loop {
        match TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            Ok(stream) => connected.push(stream),
            Err(error) => break error,
        }
        assert!(connected.len() < 20, "the backlog is not that long");
    };
    assert_eq!(failure.kind(), io::ErrorKind::TimedOut);
    listener.set_read_timeout(Some(LONG)).unwrap();
    let (_stream, from) = listener.accept().unwrap();
    assert_eq!(from, connected[0].local_addr().unwrap());
    let many = [addr, "127.0.0.1:1".parse().unwrap()];
    assert!(TcpStream::connect(&many[1..]).is_err());
    assert!(TcpStream::connect(&[][..] as &[std::net::SocketAddr]).is_err());
}

#[test]
fn an_accept_ends_with_its_time_and_loses_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(LIMIT)).unwrap();
    let late = listener.accept().unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
}

#[test]
fn a_shutdown_wakes_the_thread_that_waits() {
    let (client, server) = pair();
    let waiting = thread::spawn(move || (&server).read(&mut [0; 10]));
    let own = client.try_clone().unwrap();
    let own_waiting = thread::spawn(move || (&own).read(&mut [0; 10]));
    thread::sleep(LIMIT);
    client.shutdown(Shutdown::Both).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), 0);
    assert_eq!(own_waiting.join().unwrap().unwrap(), 0);
    let late = (&client).write(b"x").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn lists_of_buffers_peeks_and_settings() {
    let (mut client, mut server) = pair();
    let bufs = [
        IoSlice::new(b"one"),
        IoSlice::new(b""),
        IoSlice::new(b"two"),
    ];
    assert_eq!(client.write_vectored(&bufs).unwrap(), 6);
    client.flush().unwrap();
    let mut peeked = [0; 6];
    while server.peek(&mut peeked).unwrap() < 6 {}
    let (mut first, mut second) = ([0; 2], [0; 10]);
    let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(server.read_vectored(&mut bufs).unwrap(), 6);
    assert_eq!(
        (&peeked, &first, &second[..4]),
        (b"onetwo", b"on", &b"etwo"[..])
    );
    assert!(client.nodelay().unwrap());
    client.set_keepalive(Some(Keepalive::default())).unwrap();
    assert_eq!(client.keepalive().unwrap(), Some(Keepalive::default()));
    client.set_linger(Some(Duration::ZERO)).unwrap();
    assert_eq!(client.linger().unwrap(), Some(Duration::ZERO));
    assert!(client.take_error().unwrap().is_none());
    drop(client);
    let reset = server.read(&mut [0; 1]).unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn datagrams_go_to_whom_they_are_sent() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (a, b) = (bind(), bind());
    let std = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.send_to(b"hello", b.local_addr().unwrap()).unwrap();
    let mut buf = [0; 4];
    let from = a.local_addr().unwrap();
    assert_eq!(b.peek_from(&mut buf).unwrap(), (4, from));
    assert_eq!(b.recv_from(&mut buf).unwrap(), (4, from));
    a.connect(std.local_addr().unwrap()).unwrap();
    a.send(b"to std").unwrap();
    let mut buf = [0; 10];
    assert_eq!(std.recv_from(&mut buf).unwrap(), (6, from));
    std.send_to(b"back", from).unwrap();
    assert_eq!((a.recv(&mut buf).unwrap(), &buf[..4]), (4, &b"back"[..]));
    a.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(
        a.recv(&mut buf).unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
}

#[test]
fn unix_sockets_speak_with_stds() {
    let dir = folder("threads-unix");
    let listener = UnixListener::bind(dir.join("s")).unwrap();
    assert_eq!(listener.local_path().unwrap(), Some(dir.join("s")));
    let mut std = std::os::unix::net::UnixStream::connect(dir.join("s")).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, None);
    thread::spawn(move || echo(server));
    std.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    std.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    let ours = UnixStream::connect(dir.join("s")).unwrap();
    thread::spawn(move || echo(listener.incoming().next().unwrap().unwrap()));
    let (receiver, half) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    trip(ours, receiver, move || {
        half.shutdown(Shutdown::Write).unwrap()
    });
    let (mut one, mut other) = UnixStream::pair().unwrap();
    one.write_all(b"pair").unwrap();
    other.read_exact(&mut back[..4]).unwrap();
    assert_eq!(&back[..4], b"pair");
    let datagrams = UnixDatagram::bind(dir.join("d")).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"one", dir.join("d")).unwrap();
    sender.connect(dir.join("d")).unwrap();
    sender.send(b"three").unwrap();
    let mut buf = [0; 10];
    assert_eq!(datagrams.recv_from(&mut buf).unwrap(), (3, None));
    assert_eq!(datagrams.recv(&mut buf).unwrap(), 5);
}

#[test]
fn a_thread_that_ends_takes_its_ring_along() {
    alone("threads::a_thread_that_ends_takes_its_ring_along", || {
        let (client, server) = pair();
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        for round in 0..50u8 {
            let (client, server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                (&client).write_all(&[round]).unwrap();
                let mut got = [0];
                (&server).read_exact(&mut got).unwrap();
                assert_eq!(got, [round]);
            })
            .join()
            .unwrap();
        }
        assert_eq!(descriptors(), before);
    });
}

/// What a thread drops when it ends may still speak.
#[test]
fn sockets_serve_a_thread_that_is_ending() {
    struct Farewell(TcpStream);
    impl Drop for Farewell {
        fn drop(&mut self) {
            (&self.0).write_all(b"bye").unwrap();
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<Farewell>> = const { std::cell::RefCell::new(None) };
    }
    let (client, mut server) = pair();
    thread::spawn(move || {
        LAST.with(|last| last.replace(Some(Farewell(client.try_clone().unwrap()))));
        // Made after it, and so gone before it.
        (&client).write_all(b"hi ").unwrap();
    })
    .join()
    .unwrap();
    let mut got = [0; 6];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi bye");
}

/// On a core they block it, and disturb nothing.
#[test]
fn they_may_be_used_beside_a_ring() {
    let (mut client, server) = pair();
    thread::spawn(move || echo(server));
    ring(async {
        ringmill_ring::sleep(Duration::from_millis(1)).await;
        client.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        ringmill_ring::sleep(Duration::from_millis(1)).await;
        assert_eq!(&back, b"hello");
    });
}

#[test]
fn a_socket_made_elsewhere_is_taken_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    std.set_nonblocking(true).unwrap();
    let ours = TcpStream::try_from(std::os::fd::OwnedFd::from(std)).unwrap();
    let (server, _) = listener.accept().unwrap();
    let sending = thread::spawn(move || {
        thread::sleep(LIMIT);
        (&server).write_all(b"x").unwrap();
    });
    assert_eq!((&ours).read(&mut [0; 1]).unwrap(), 1);
    sending.join().unwrap();
}
