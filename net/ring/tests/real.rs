//! The ring core on a real kernel: files, sockets, cores, and futures that are dropped.

#[path = "real/drops.rs"]
mod drops;
#[path = "real/fallbacks.rs"]
mod fallbacks;
#[path = "real/lifetimes.rs"]
mod lifetimes;
#[path = "real/limits.rs"]
mod limits;
#[path = "real/settings.rs"]
mod settings;
#[path = "real/sockets.rs"]
mod sockets;
#[path = "real/threads.rs"]
mod threads;
#[path = "real/unix_datagrams.rs"]
mod unix_datagrams;
#[path = "real/wakes.rs"]
mod wakes;
#[path = "real/zero_copy.rs"]
mod zero_copy;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, File, ListenOptions, Notify, OpenOptions, RingConfig, Shutdown, TcpListener, TcpStream,
    UdpSocket, UnixListener, UnixStream, fs, now, random_u64, run, sleep, spawn, timeout,
    yield_now,
};

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringmill-ring-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn ring<T>(future: impl Future<Output = T>) -> T {
    run(
        RingConfig {
            pin: false,
            ..RingConfig::default()
        },
        future,
    )
    .unwrap()
}

/// Runs a test's body in a process of its own: it counts or limits what belongs to the process.
/// The test calls this with its own full name, and its body runs in the child.
fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os("RINGMILL_ALONE").is_some_and(|alone| alone == name) {
        return body();
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("RINGMILL_ALONE", name)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr),
    );
    assert!(out.contains("1 passed"), "{out}\n{err}");
}

fn pattern(len: usize, salt: u64) -> Bytes {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let bytes = (0..len).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.collect()
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(any(), ListenOptions::default())
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let client = spawn(TcpStream::connect(addr));
    let (server, _) = listener.accept().await.unwrap();
    (client.await.unwrap().unwrap(), server)
}

#[test]
fn a_file_reads_back_what_was_written() {
    let dir = folder("file");
    ring(async {
        let path = dir.join("a");
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = File::open(&path, options).await.unwrap();
        let bufs: Vec<Bytes> = (0..2500).map(|i| pattern(i % 97, i as u64)).collect();
        let whole: Vec<u8> = bufs.concat();
        file.write_at(3, bufs.clone()).await.unwrap();
        file.write_at_sync(3 + whole.len() as u64, bufs)
            .await
            .unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(file.len().await.unwrap(), 3 + 2 * whole.len() as u64);
        let back = file.read_at(0, 1 << 20).await.unwrap();
        assert_eq!(&back[..3], &[0; 3]);
        assert_eq!(&back[3..][..whole.len()], &whole);
        assert_eq!(&back[3 + whole.len()..], &whole);
        let short = file.read_exact_at(back.len() as u64 - 1, 2).await;
        assert_eq!(short.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        let other = File::open(&path, options).await.unwrap();
        assert!(file.try_lock_exclusive().unwrap() && !other.try_lock_exclusive().unwrap());
        file.set_len(10).await.unwrap();
        file.allocate(0, 8192).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 8192);
    });
}

#[test]
fn names_are_made_listed_renamed_and_removed() {
    let dir = folder("names");
    ring(async {
        let deep = dir.join("x/y/z");
        fs::create_dir_all(&deep).await.unwrap();
        fs::create_dir_all(&deep).await.unwrap();
        fs::write_atomic(deep.join("f"), vec![Bytes::from_static(b"one")])
            .await
            .unwrap();
        fs::write_atomic(deep.join("f"), vec![Bytes::from_static(b"two")])
            .await
            .unwrap();
        assert_eq!(fs::read(deep.join("f")).await.unwrap(), "two");
        fs::rename(deep.join("f"), deep.join("g")).await.unwrap();
        let names: Vec<_> = fs::read_dir(&deep).await.unwrap();
        assert_eq!(names.len(), 1);
        assert_eq!(
            (names[0].name.as_str(), names[0].len, names[0].is_dir),
            ("g", 3, false)
        );
        assert!(fs::metadata(&deep).await.unwrap().is_dir);
        let space = fs::space(&deep).await.unwrap();
        assert!(space.total > 0 && space.available <= space.total);
        fs::remove_dir_all(dir.join("x")).await.unwrap();
        let gone = fs::space(dir.join("x")).await.unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
        let gone = fs::metadata(dir.join("x")).await.unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
        let missing = File::open(dir.join("none"), OpenOptions::new().read(true)).await;
        assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    });
}

async fn echo(stream: TcpStream) {
    let mut buf = BytesMut::new();
    while stream.recv(&mut buf).await.unwrap() > 0 {
        stream.send(vec![buf.split().freeze()]).await.unwrap();
    }
    stream.shutdown(Shutdown::Write).await.unwrap();
}

#[test]
fn a_megabyte_comes_back_through_an_echo() {
    ring(async {
        let (client, server) = pair().await;
        spawn(echo(server));
        let sent = pattern(3 << 20, 7);
        let sender = {
            let (client, sent) = (client.clone(), sent.clone());
            spawn(async move {
                for chunk in sent.chunks(77_777) {
                    let (a, b) = chunk.split_at(chunk.len() / 3);
                    let bufs = vec![Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)];
                    client.send(bufs).await.unwrap();
                }
                client.shutdown(Shutdown::Write).await.unwrap();
            })
        };
        let mut back = BytesMut::new();
        while client.recv(&mut back).await.unwrap() > 0 {}
        sender.await.unwrap();
        assert!(back == sent);
    });
}

#[test]
fn a_peer_that_nobody_reads_is_slowed_down_and_loses_nothing() {
    ring(async {
        let (client, server) = pair().await;
        let sent = pattern(32 << 20, 8);
        let sender = {
            let sent = sent.clone();
            spawn(async move {
                client.send(vec![sent]).await.unwrap();
            })
        };
        let mut got = BytesMut::new();
        server.recv(&mut got).await.unwrap();
        // The receive goes on in the background until its limit, then stops.
        sleep(Duration::from_millis(200)).await;
        assert!(
            !sender.is_finished(),
            "32 MiB went into a stream that nobody reads"
        );
        while got.len() < sent.len() {
            server.recv(&mut got).await.unwrap();
        }
        assert!(got == sent);
        assert_eq!(server.recv(&mut got).await.unwrap(), 0);
    });
}

#[test]
fn a_file_goes_to_a_socket_whole() {
    let dir = folder("sendfile");
    ring(async {
        let content = pattern(5 << 20, 9);
        std::fs::write(dir.join("f"), &content).unwrap();
        let file = File::open(dir.join("f"), OpenOptions::new().read(true))
            .await
            .unwrap();
        let (client, server) = pair().await;
        let sender = spawn(async move {
            server
                .send(vec![Bytes::from_static(b"head")])
                .await
                .unwrap();
            server.send_file(&file, 1000, (4 << 20) + 17).await.unwrap();
            server.send_file(&file, 1, 5).await.unwrap();
            let beyond = server.send_file(&file, content_len() - 10, 20).await;
            assert_eq!(
                beyond.unwrap_err().kind(),
                std::io::ErrorKind::UnexpectedEof
            );
        });
        let mut got = BytesMut::new();
        while client.recv(&mut got).await.unwrap() > 0 {}
        sender.await.unwrap();
        let middle = (4 << 20) + 17;
        assert_eq!(&got[..4], b"head");
        assert!(got[4..4 + middle] == content[1000..1000 + middle]);
        assert!(got[4 + middle..][..5] == content[1..6]);
        assert!(got[9 + middle..] == content[content.len() - 10..]);
    });
    fn content_len() -> u64 {
        5 << 20
    }
}

#[test]
fn unix_and_udp_speak() {
    let dir = folder("unix");
    ring(async {
        let listener = UnixListener::bind(dir.join("s")).await.unwrap();
        let client = spawn(UnixStream::connect(dir.join("s")));
        let server = listener.accept().await.unwrap();
        let client = client.await.unwrap().unwrap();
        client
            .send(vec![Bytes::from_static(b"hello")])
            .await
            .unwrap();
        let mut buf = BytesMut::new();
        assert_eq!(server.recv(&mut buf).await.unwrap(), 5);

        let (a, b) = (
            UdpSocket::bind(any()).await.unwrap(),
            UdpSocket::bind(any()).await.unwrap(),
        );
        let to = b.local_addr().unwrap();
        a.send_to(vec![Bytes::from_static(b"one")], to)
            .await
            .unwrap();
        a.send_segments_to(vec![pattern(2500, 1)], 1000, to)
            .await
            .unwrap();
        let mut lens = Vec::new();
        for _ in 0..4 {
            let (result, _) = b.recv_from(BytesMut::with_capacity(2048)).await;
            let (len, from) = result.unwrap();
            assert_eq!(from, a.local_addr().unwrap());
            lens.push(len);
        }
        assert_eq!(lens, [3, 1000, 1000, 500]);
    });
}

#[test]
fn members_of_a_multicast_group_hear_each_other() {
    ring(async {
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 255, 77, 3), 0);
        let lo = Ipv4Addr::LOCALHOST;
        let first = UdpSocket::join(group, lo, Some(1 << 20)).await.unwrap();
        let SocketAddr::V4(bound) = first.local_addr().unwrap() else {
            panic!("an IPv4 socket has an IPv4 address");
        };
        let second = UdpSocket::join(bound, lo, None).await.unwrap();
        let sender = UdpSocket::bind_multicast(SocketAddrV4::new(lo, 0), lo, 0, true);
        let sender = sender.await.unwrap();
        let bufs = vec![Bytes::from_static(b"to "), Bytes::from_static(b"all")];
        sender.send_to(bufs, bound.into()).await.unwrap();
        for member in [first, second] {
            let (result, buf) = member.recv_from(BytesMut::with_capacity(64)).await;
            assert_eq!(result.unwrap(), (6, sender.local_addr().unwrap()));
            assert_eq!(&buf[..], b"to all");
        }
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    ring(async {
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        sleep(Duration::from_millis(20)).await;
        let refused = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn timers_time_outs_aborts_and_bells_work_together() {
    ring(async {
        let start = now();
        assert!(
            timeout(Duration::from_millis(5), std::future::pending::<()>())
                .await
                .is_err()
        );
        assert!(now() - start >= Duration::from_millis(5));
        assert_eq!(timeout(Duration::from_secs(5), async { 7 }).await, Ok(7));
        let bell = Rc::new(Notify::new());
        let rung = Rc::new(Cell::new(0));
        let (b, r) = (bell.clone(), rung.clone());
        let task = spawn(async move {
            loop {
                b.notified().await;
                r.set(r.get() + 1);
            }
        });
        for _ in 0..3 {
            yield_now().await;
            bell.notify_one();
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(rung.get(), 3);
        task.abort();
        assert!(task.await.is_err());
    });
}

#[test]
fn cores_pass_messages_without_loss_or_disorder() {
    const EACH: u64 = 20_000;
    let cores = Cores::new(3);
    let ports = cores.mesh::<(usize, u64)>(16);
    let ports: Vec<_> = ports
        .into_iter()
        .map(|p| std::sync::Mutex::new(Some(p)))
        .collect();
    let config = RingConfig {
        pin: false,
        ..RingConfig::default()
    };
    let running = cores
        .launch(config, move |id| {
            let port = Rc::new(ports[id].lock().unwrap().take().unwrap());
            async move {
                let mut senders = Vec::new();
                for to in 0..3 {
                    let port = port.clone();
                    senders.push(spawn(async move {
                        for i in 0..EACH {
                            port.send(to, (id, i)).await;
                            if random_u64().is_multiple_of(1000) {
                                sleep(Duration::from_micros(50)).await;
                            }
                        }
                    }));
                }
                let mut next = [0; 3];
                while next != [EACH; 3] {
                    let (from, (sender, i)) = port.recv().await;
                    assert_eq!((from, i), (sender, next[sender]));
                    next[sender] += 1;
                }
                for sender in senders {
                    sender.await.unwrap();
                }
            }
        })
        .unwrap();
    running.join().unwrap();
}

#[test]
fn a_core_that_spins_hears_messages_timers_and_sockets() {
    let config = RingConfig {
        spin: Duration::from_micros(200),
        pin: false,
        ..RingConfig::default()
    };
    run(config, async {
        let (client, server) = pair().await;
        spawn(echo(server));
        let mut buf = BytesMut::new();
        for i in 0..200u64 {
            client.send(vec![pattern(64, i)]).await.unwrap();
            buf.clear();
            while buf.len() < 64 {
                client.recv(&mut buf).await.unwrap();
            }
            assert!(buf == pattern(64, i));
            sleep(Duration::from_micros(i)).await;
        }
    })
    .unwrap();
}
