//! Sockets in bad company: peers that never read, listeners that nobody asks, transfers that
//! break off, processes out of descriptors.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    File, ListenOptions, OpenOptions, Shutdown, TcpListener, TcpStream, lookup, now, sleep, spawn,
    timeout,
};

use super::{alone, any, folder, pair, pattern, ring};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// One connection was asked for; the others wait in the kernel's backlog, which is bounded, and
/// not as descriptors of ours.
#[test]
fn a_listener_that_nobody_asks_stops_accepting() {
    alone(
        "sockets::a_listener_that_nobody_asks_stops_accepting",
        || {
            ring(async {
                let listener = TcpListener::bind(any(), ListenOptions::default())
                    .await
                    .unwrap();
                let addr = listener.local_addr().unwrap();
                let mut clients = vec![std::net::TcpStream::connect(addr).unwrap()];
                let (_first, _) = listener.accept().await.unwrap();
                let before = descriptors();
                for _ in 0..400 {
                    clients.push(std::net::TcpStream::connect(addr).unwrap());
                    if clients.len() % 20 == 0 {
                        sleep(Duration::from_millis(2)).await;
                    }
                }
                sleep(Duration::from_millis(20)).await;
                let accepted = descriptors() - before - 400;
                assert!(accepted <= 200, "{accepted} connections nobody asked for");
                for _ in 0..400 {
                    listener.accept().await.unwrap();
                }
            });
        },
    );
}

/// The process has no descriptor left: accepting fails, but neither spins nor gives up.
#[test]
fn a_process_out_of_descriptors_accepts_again_when_one_is_free() {
    alone(
        "sockets::a_process_out_of_descriptors_accepts_again_when_one_is_free",
        || {
            ring(async {
                let listener = TcpListener::bind(any(), ListenOptions::default())
                    .await
                    .unwrap();
                let addr = listener.local_addr().unwrap();
                let client = std::net::TcpStream::connect(addr).unwrap();
                let client2 = std::net::TcpStream::connect(addr).unwrap();
                let (_stream, _) = listener.accept().await.unwrap();
                let (_stream, _) = listener.accept().await.unwrap();
                drop((client, client2));
                let late = std::net::TcpStream::connect(addr);
                let mut hoard = Vec::new();
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    hoard.push(file);
                }
                assert!(hoard.len() < 100_000, "the limit is too high for this test");
                let mut failures = 0;
                let begun = now();
                while now() - begun < Duration::from_millis(500) {
                    let accepted = timeout(Duration::from_millis(500), listener.accept()).await;
                    failures += i32::from(matches!(accepted, Ok(Err(_))));
                }
                hoard.clear();
                assert!(
                    (1..20).contains(&failures),
                    "{failures} failures in half a second"
                );
                let _late = late.unwrap();
                let _other = std::net::TcpStream::connect(addr).unwrap();
                timeout(Duration::from_secs(10), listener.accept())
                    .await
                    .unwrap()
                    .unwrap();
            });
        },
    );
}

#[test]
fn a_process_out_of_descriptors_still_sends_files() {
    let name = "sockets::a_process_out_of_descriptors_still_sends_files";
    alone(name, || {
        let dir = folder("no-pipes");
        ring(async {
            let content = pattern(3 << 20, 3);
            std::fs::write(dir.join("f"), &content).unwrap();
            let file = File::open(dir.join("f"), OpenOptions::new().read(true))
                .await
                .unwrap();
            let (client, server) = pair().await;
            let hoard: Vec<_> = std::iter::repeat_with(|| std::fs::File::open("/dev/null"))
                .map_while(Result::ok)
                .collect();
            let sending = spawn(async move { server.send_file(&file, 0, 3 << 20).await });
            let mut got = BytesMut::new();
            while client.recv(&mut got).await.unwrap() > 0 {}
            drop(hoard);
            sending.await.unwrap().unwrap();
            assert!(got == content);
        });
    });
}

/// A transfer that nobody waits for any more ends; it does not go on behind everybody's back.
#[test]
fn a_file_transfer_that_is_dropped_half_way_stops() {
    const LEN: u64 = 256 << 20;
    let dir = folder("half-way");
    ring(async {
        let path = dir.join("f");
        std::fs::File::create(&path).unwrap().set_len(LEN).unwrap();
        let file = File::open(&path, OpenOptions::new().read(true))
            .await
            .unwrap();
        for wait_us in [0, 100, 1_000, 5_000, 20_000] {
            let (client, server) = pair().await;
            let limit = Duration::from_micros(wait_us);
            assert!(
                timeout(limit, server.send_file(&file, 0, LEN))
                    .await
                    .is_err()
            );
            drop(server);
            let (mut buf, mut got) = (BytesMut::new(), 0);
            while let Ok(count) = client.recv(&mut buf).await
                && count > 0
            {
                got += count as u64;
                buf.clear();
            }
            assert!(
                got < LEN / 2,
                "{got} bytes came after the transfer was dropped"
            );
        }
    });
}

/// Consumers that never read must not hold a thread of the kernel each.
#[test]
fn peers_that_never_read_hold_no_threads() {
    alone("sockets::peers_that_never_read_hold_no_threads", || {
        let dir = folder("threads");
        ring(async {
            let path = dir.join("f");
            std::fs::File::create(&path)
                .unwrap()
                .set_len(24 << 20)
                .unwrap();
            let file = File::open(&path, OpenOptions::new().read(true))
                .await
                .unwrap();
            let mut clients = Vec::new();
            for _ in 0..40 {
                let (client, server) = pair().await;
                clients.push(client);
                let file = file.clone();
                spawn(async move { server.send_file(&file, 0, 24 << 20).await });
            }
            sleep(Duration::from_millis(500)).await;
            let threads = threads();
            assert!(threads < 30, "{threads} threads");
            // And when they read at last, everything comes.
            for client in clients {
                let (mut buf, mut got) = (BytesMut::new(), 0);
                while got < 24 << 20 {
                    let count = client.recv(&mut buf).await.unwrap();
                    assert!(count > 0, "the stream ended after {got} bytes");
                    got += count;
                    buf.clear();
                }
            }
        });
    });
}

/// As a shell's Ctrl-Z, a debugger or a suspended machine does it: the threads of the kernel that
/// work for us are interrupted with the rest of the process (signal(7)).
#[test]
fn a_process_that_is_stopped_and_goes_on_finishes_its_transfers() {
    let name = "sockets::a_process_that_is_stopped_and_goes_on_finishes_its_transfers";
    alone(name, || {
        let dir = folder("stopped");
        let content = Bytes::from(pattern(1 << 20, 4).repeat(24));
        std::fs::write(dir.join("f"), &content).unwrap();
        let stop = "kill -STOP $0; sleep 0.002; kill -CONT $0; sleep 0.005";
        let mut stopping = std::process::Command::new("sh")
            .args(["-c", &format!("for i in $(seq 100); do {stop}; done")])
            .arg(std::process::id().to_string())
            .spawn()
            .unwrap();
        ring(async {
            let file = File::open(dir.join("f"), OpenOptions::new().read(true))
                .await
                .unwrap();
            while stopping.try_wait().unwrap().is_none() {
                let transfers: Vec<_> = (0..8)
                    .map(|_| spawn(transfer(file.clone(), content.clone())))
                    .collect();
                for transfer in transfers {
                    transfer.await.unwrap();
                }
            }
        });
    });
}

async fn transfer(file: File, content: Bytes) {
    let (client, server) = pair().await;
    let len = content.len() as u64;
    let sending = spawn(async move { server.send_file(&file, 0, len).await });
    let mut got = BytesMut::new();
    while client.recv(&mut got).await.unwrap() > 0 {}
    sending.await.unwrap().unwrap();
    assert!(got == content);
}

/// A frame that was cut off half-way must not be followed by the next one.
#[test]
fn a_stream_whose_send_was_dropped_takes_no_more() {
    ring(async {
        let (client, server) = pair().await;
        let large = vec![Bytes::from(vec![1; 32 << 20])];
        assert!(
            timeout(Duration::from_millis(20), server.send(large))
                .await
                .is_err()
        );
        let next = server.send(vec![Bytes::from_static(b"next")]).await;
        assert_eq!(next.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        drop(server);
        let mut got = BytesMut::new();
        while client.recv(&mut got).await.unwrap_or(0) > 0 {}
        assert!(got.iter().all(|byte| *byte == 1));
    });
}

/// The listener's backlog is full, so that the kernel answers no further connection.
#[test]
fn a_connect_that_times_out_leaves_no_descriptor() {
    alone(
        "sockets::a_connect_that_times_out_leaves_no_descriptor",
        || {
            ring(async {
                let options = ListenOptions {
                    backlog: 1,
                    ..ListenOptions::default()
                };
                let listener = TcpListener::bind(any(), options).await.unwrap();
                let addr = listener.local_addr().unwrap();
                let mut connected = Vec::new();
                let before = loop {
                    let before = descriptors();
                    match timeout(Duration::from_millis(100), TcpStream::connect(addr)).await {
                        Ok(stream) => connected.push(stream.unwrap()),
                        Err(_) => break before,
                    }
                    assert!(connected.len() < 20, "the backlog is not that long");
                };
                sleep(Duration::from_millis(20)).await;
                assert_eq!(descriptors(), before, "the socket is still there");
            });
        },
    );
}

#[test]
fn a_half_closed_stream_still_brings_the_answer() {
    ring(async {
        let (client, server) = pair().await;
        let serving = spawn(async move {
            let mut request = BytesMut::new();
            while server.recv(&mut request).await.unwrap() > 0 {}
            assert_eq!(
                server.recv(&mut request).await.unwrap(),
                0,
                "the end stays the end"
            );
            assert_eq!(request, "question");
            server
                .send(vec![Bytes::from(vec![2; 1 << 20])])
                .await
                .unwrap();
        });
        client
            .send(vec![Bytes::from_static(b"question")])
            .await
            .unwrap();
        client.shutdown(Shutdown::Write).await.unwrap();
        let mut answer = BytesMut::new();
        while client.recv(&mut answer).await.unwrap() > 0 {}
        assert_eq!(answer.len(), 1 << 20);
        serving.await.unwrap();
        let late = client.send(vec![Bytes::from_static(b"more")]).await;
        assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

/// A plain peer that goes away with our bytes unread: the kernel answers with a reset.
fn resetting_peer(addr: SocketAddr) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(addr).unwrap();
        std::io::Read::read_exact(&mut client, &mut [0; 10]).unwrap();
    })
}

#[test]
fn a_peer_that_resets_breaks_its_own_stream_alone() {
    let dir = folder("reset");
    ring(async {
        let path = dir.join("f");
        std::fs::File::create(&path)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let file = File::open(&path, OpenOptions::new().read(true))
            .await
            .unwrap();
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        let (other, echoing) = pair().await;
        spawn(super::echo(echoing));
        for round in 0..6 {
            let peer = resetting_peer(listener.local_addr().unwrap());
            let (stream, _) = listener.accept().await.unwrap();
            let receiving = {
                let stream = stream.clone();
                spawn(async move { stream.recv(&mut BytesMut::new()).await })
            };
            let large = || vec![Bytes::from(vec![1; 64 << 20])];
            let sent = match round % 2 {
                0 => stream.send(large()).await,
                _ => stream.send_file(&file, 0, 64 << 20).await,
            };
            let kind = sent.unwrap_err().kind();
            let expected = [
                std::io::ErrorKind::ConnectionReset,
                std::io::ErrorKind::BrokenPipe,
            ];
            assert!(expected.contains(&kind), "{kind}");
            // The reset is told once, to whoever meets it first; after that the stream has ended.
            let received = receiving.await.unwrap();
            assert!(received.map_or(true, |count| count == 0));
            peer.join().unwrap();
            other
                .send(vec![Bytes::from_static(b"unharmed")])
                .await
                .unwrap();
            let mut back = BytesMut::new();
            while back.len() < 8 {
                other.recv(&mut back).await.unwrap();
            }
        }
    });
}

/// What was accepted and not asked for is closed with its listener, and so is its backlog.
#[test]
fn a_listener_that_is_dropped_closes_whom_it_had_not_handed_out() {
    ring(async {
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        listener.accept().await.unwrap();
        drop(listener);
        for client in clients {
            let end = timeout(Duration::from_secs(10), client.recv(&mut BytesMut::new())).await;
            assert!(end.expect("still open").map_or(true, |count| count == 0));
        }
    });
}

/// The system knows this machine; there is no machine of the other name (RFC 6761, 6.4).
#[test]
fn hosts_are_found_by_their_names() {
    ring(async {
        let local = lookup("localhost").await.unwrap();
        assert!(
            local.iter().all(|ip| ip.is_loopback()) && !local.is_empty(),
            "{local:?}"
        );
        let itself = "::1".parse::<std::net::IpAddr>().unwrap();
        assert_eq!(lookup("::1").await.unwrap(), [itself]);
        // many at once are refused, not kept, and none of them is in the way of the next
        let many: Vec<_> = (0..100)
            .map(|_| spawn(async { lookup("localhost").await }))
            .collect();
        for one in many {
            match one.await.unwrap() {
                Ok(found) => assert_eq!(found, local),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(lookup("localhost").await.unwrap(), local);
        assert!(lookup("nowhere.invalid").await.is_err());
        assert!(lookup("a name\0with a zero").await.is_err());
    });
}
