//! Sockets over the simulated network: what tcp(7), udp(7) and unix(7) promise, and what goes
//! wrong all the same.

#[path = "sim_network/datagrams.rs"]
mod datagrams;
#[path = "sim_network/faults.rs"]
mod faults;
#[path = "sim_network/settings.rs"]
mod settings;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::{Chance, Latency, NodeId, World};
use ringmill_ring::{
    Cores, File, JoinHandle, ListenOptions, OpenOptions, RingConfig, Shutdown, TcpListener,
    TcpStream, now, random_u64, sleep, spawn, timeout,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn two_nodes(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed);
    let a = world.add_node("a", "10.0.0.1".parse().unwrap());
    let b = world.add_node("b", "10.0.0.2".parse().unwrap());
    (world, a, b)
}

fn on_a(port: u16) -> SocketAddr {
    SocketAddr::new("10.0.0.1".parse().unwrap(), port)
}

async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(on_a(port), ListenOptions::default())
        .await
        .unwrap()
}

/// Serves each connection with a task of its own.
async fn serve<F: Future<Output = ()> + 'static>(port: u16, each: impl Fn(TcpStream) -> F) {
    let listener = listen(port).await;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        spawn(each(stream));
    }
}

/// Reads to the end, or to an error.
async fn drain(stream: TcpStream) -> (BytesMut, io::Result<usize>) {
    let mut buf = BytesMut::new();
    loop {
        match stream.recv(&mut buf).await {
            Ok(1..) => {}
            end => return (buf, end),
        }
    }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

#[test]
fn connecting_fails_as_the_manual_says() {
    let (mut world, a, b) = two_nodes(1);
    let connect = |world: &mut World, addr: &str| {
        let addr: SocketAddr = addr.parse().unwrap();
        let begun = world.now();
        let failed = world.block_on(b, async move { errno(TcpStream::connect(addr).await) });
        (failed, (world.now() - begun).as_secs())
    };
    assert_eq!(
        connect(&mut world, "10.0.0.1:7"),
        (Some(libc::ECONNREFUSED), 0)
    );
    assert_eq!(
        connect(&mut world, "127.0.0.1:7"),
        (Some(libc::ECONNREFUSED), 0)
    );
    assert_eq!(
        connect(&mut world, "10.9.9.9:7"),
        (Some(libc::EHOSTUNREACH), 3)
    );
    world.network().block(a, b);
    // Seven attempts, the last wait is 64 s.
    assert_eq!(connect(&mut world, "10.0.0.1:7").0, Some(libc::ETIMEDOUT));
    world.network().heal();
    world.power_off(a);
    assert_eq!(connect(&mut world, "10.0.0.1:7").0, Some(libc::ETIMEDOUT));
    world.power_on(a);
    assert_eq!(
        connect(&mut world, "10.0.0.1:7"),
        (Some(libc::ECONNREFUSED), 0)
    );
}

#[test]
fn addresses_are_checked_and_told() {
    let (mut world, a, b) = two_nodes(1);
    world.block_on(a, async {
        let any = "0.0.0.0:0".parse().unwrap();
        let bind = TcpListener::bind;
        let listener = bind(any, ListenOptions::default()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_ne!(port, 0);
        let again = bind(on_a(port), ListenOptions::default()).await;
        assert_eq!(errno(again), Some(libc::EADDRINUSE));
        let elsewhere = "10.0.0.2:7".parse().unwrap();
        let foreign = bind(elsewhere, ListenOptions::default()).await;
        assert_eq!(errno(foreign), Some(libc::EADDRNOTAVAIL));
        drop(listener);
        bind(on_a(port), ListenOptions::default())
            .await
            .expect("it is free again");
    });
    world.start(a, async {
        let (stream, peer) = listen(7).await.accept().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), peer);
        assert_eq!(stream.local_addr().unwrap(), on_a(7));
        stream
            .send(vec![Bytes::from(peer.to_string())])
            .await
            .unwrap();
    });
    world.block_on(b, async {
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), on_a(7));
        let own = stream.local_addr().unwrap();
        assert_eq!(own.ip().to_string(), "10.0.0.2");
        assert_eq!(drain(stream).await.0, own.to_string());
    });
}

#[test]
fn a_sender_waits_for_its_reader() {
    let (mut world, a, b) = two_nodes(1);
    let sent = Rc::new(Cell::new(0));
    let counted = sent.clone();
    let read = Rc::new(Cell::new(false));
    let begin = read.clone();
    world.start(a, async move {
        serve(7, move |stream| {
            let begin = begin.clone();
            async move {
                while !begin.get() {
                    sleep(SECOND).await;
                }
                drop(drain(stream).await);
            }
        })
        .await;
    });
    world.start(b, async move {
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        let part = Bytes::from(vec![0; 10_000]);
        loop {
            stream.send(vec![part.clone()]).await.unwrap();
            counted.set(counted.get() + part.len());
        }
    });
    world.run_for(60 * SECOND);
    let limit = world.network().faults().socket_buffer;
    assert!(
        sent.get() <= limit && sent.get() > limit - 20_000,
        "{}",
        sent.get()
    );
    read.set(true);
    world
        .run_until(5 * SECOND, |_| sent.get() > 10 * limit)
        .unwrap();
}

#[test]
fn a_half_closed_connection_still_answers() {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, async {
        serve(7, async |stream: TcpStream| {
            let (received, end) = drain(stream.clone()).await;
            assert_eq!(end.unwrap(), 0);
            stream
                .send(vec![received.freeze(), Bytes::from_static(b" back")])
                .await
                .unwrap();
        })
        .await;
    });
    world.block_on(b, async {
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        stream
            .send(vec![Bytes::from_static(b"there")])
            .await
            .unwrap();
        stream.shutdown(Shutdown::Write).await.unwrap();
        let refused = stream.send(vec![Bytes::from_static(b"more")]).await;
        assert_eq!(errno(refused), Some(libc::EPIPE));
        let (received, end) = drain(stream).await;
        assert_eq!((&received[..], end.unwrap()), (&b"there back"[..], 0));
    });
}

#[test]
fn closing_with_unread_bytes_resets() {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, async {
        serve(7, async |stream: TcpStream| {
            stream
                .send(vec![Bytes::from_static(b"answer")])
                .await
                .unwrap();
            sleep(SECOND).await;
        })
        .await;
    });
    world.block_on(b, async {
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        stream
            .send(vec![Bytes::from_static(b"nobody reads this")])
            .await
            .unwrap();
        let (received, end) = drain(stream.clone()).await;
        assert_eq!(
            (&received[..], errno(end)),
            (&b"answer"[..], Some(libc::ECONNRESET))
        );
        assert_eq!(errno(stream.peer_addr()), Some(libc::ENOTCONN));
        let refused = stream.send(vec![Bytes::from_static(b"more")]).await;
        assert_eq!(errno(refused), Some(libc::EPIPE));
    });
}

#[test]
fn the_peers_of_a_killed_process_see_an_end_or_a_reset() {
    let mut ends = BTreeSet::new();
    for seed in 0..50 {
        let (mut world, a, b) = two_nodes(seed);
        world.start(a, serve(7, async |stream| drop(drain(stream).await)));
        let outputs = world.start(b, async {
            let stream = TcpStream::connect(on_a(7)).await.unwrap();
            drain(stream).await.1.map_err(|e| e.raw_os_error())
        });
        world.run_for(SECOND);
        world.kill(a);
        world.run_for(SECOND);
        ends.extend(outputs.take());
    }
    assert_eq!(ends, BTreeSet::from([Ok(0), Err(Some(libc::ECONNRESET))]));
}

#[test]
fn a_full_queue_of_connections_makes_clients_try_again() {
    let (mut world, a, b) = two_nodes(1);
    world.start(a, async {
        let options = ListenOptions {
            backlog: 2,
            ..ListenOptions::default()
        };
        let listener = TcpListener::bind(on_a(7), options).await.unwrap();
        sleep(10 * SECOND).await;
        let mut streams = Vec::new();
        loop {
            streams.push(listener.accept().await.unwrap());
        }
    });
    let times = world.block_on(b, async {
        sleep(SECOND).await;
        let begun = now();
        let tasks: Vec<JoinHandle<Duration>> = (0..3)
            .map(|_| {
                spawn(async move {
                    TcpStream::connect(on_a(7)).await.unwrap();
                    now() - begun
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.unwrap());
        }
        times.sort();
        times
    });
    assert!(times[1] < SECOND && times[2] > 10 * SECOND, "{times:?}");
}

#[test]
fn listeners_of_several_cores_share_a_port() {
    let (mut world, a, b) = two_nodes(1);
    let served = Rc::new(RefCell::new(BTreeSet::new()));
    let counted = served.clone();
    world.launch(a, Cores::new(3), RingConfig::default(), move |core| {
        let counted = counted.clone();
        async move {
            let options = ListenOptions {
                reuse_port: true,
                ..ListenOptions::default()
            };
            let listener = TcpListener::bind(on_a(7), options).await.unwrap();
            loop {
                listener.accept().await.unwrap();
                counted.borrow_mut().insert(core);
            }
        }
    });
    world.block_on(b, async {
        for _ in 0..30 {
            TcpStream::connect(on_a(7)).await.unwrap();
        }
    });
    world.run_for(SECOND);
    assert_eq!(*served.borrow(), BTreeSet::from([0, 1, 2]));
}

#[test]
fn files_go_to_sockets_whole() {
    let content: Bytes = (0..2_700_000u32).map(|i| (i / 7) as u8).collect();
    for seed in 0..20 {
        let (mut world, a, b) = two_nodes(seed);
        world.network().faults().socket_buffer = 10_000;
        world.disk(a).put("/data/file", content.clone());
        world.start(a, async {
            serve(7, async |stream: TcpStream| {
                let options = OpenOptions::new().read(true);
                let file = File::open("/data/file", options).await.unwrap();
                // Copied, spliced, and spliced beyond the end.
                stream.send_file(&file, 100, 20_000).await.unwrap();
                stream.send_file(&file, 100, 1_400_000).await.unwrap();
                let past = stream.send_file(&file, 1_400_000, 1_301_000).await;
                assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            })
            .await;
        });
        let receive = async { drain(TcpStream::connect(on_a(7)).await.unwrap()).await.0 };
        let received = world.block_on(b, receive);
        let parts = [
            &content[100..20_100],
            &content[100..1_400_100],
            &content[1_400_000..],
        ];
        assert!(
            received == parts.concat(),
            "seed {seed}: {} bytes",
            received.len()
        );
    }
}

#[test]
fn pages_on_their_way_are_sent_as_they_are_when_they_leave() {
    // Long enough to be spliced, and on its way as a whole.
    const LEN: usize = 1 << 20;
    let received = |cut_first: bool| {
        let (mut world, a, b) = two_nodes(1);
        world.network().faults().socket_buffer = LEN;
        world
            .network()
            .delay(a, b, Latency::between(SECOND, SECOND));
        world.disk(a).put("/f", vec![1; LEN]);
        world.start(
            a,
            serve(7, move |stream: TcpStream| async move {
                let options = OpenOptions::new().read(true).write(true);
                let file = File::open("/f", options).await.unwrap();
                stream.send_file(&file, 0, LEN as u64).await.unwrap();
                if cut_first {
                    file.set_len(0).await.unwrap();
                }
                file.write_at(50_000, vec![Bytes::from(vec![2; LEN - 50_000])])
                    .await
                    .unwrap();
            }),
        );
        let receive = async { drain(TcpStream::connect(on_a(7)).await.unwrap()).await.0 };
        world.block_on(b, receive)
    };
    let count = |bytes: &BytesMut| {
        let place = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count();
        (bytes.len(), place(1), place(2))
    };
    // sendfile(2): what is to be transferred must stay as it is until the peer has it.
    assert_eq!(count(&received(false)), (LEN, 50_000, LEN - 50_000));
    // Pages that were cut off are no longer the file's.
    assert_eq!(count(&received(true)), (LEN, LEN, 0));
}

/// A stream of numbered bytes, sent and received by futures that are dropped at random.
#[test]
fn futures_dropped_at_any_moment_lose_no_bytes_and_leak_nothing() {
    for seed in 0..150 {
        let (mut world, a, b) = two_nodes(seed);
        world.swarm();
        world.network().faults().reset = Chance::Never;
        world.start(a, async {
            let listener = listen(7).await;
            loop {
                // An accept that is given up must not lose the connection.
                let patience = Duration::from_micros(random_u64() % 10_000);
                let Ok(accepted) = timeout(patience, listener.accept()).await else {
                    continue;
                };
                let (stream, _) = accepted.unwrap();
                spawn(async move {
                    let all: Bytes = (0..20_000u32).map(|i| (i % 251) as u8).collect();
                    // A client that gave up connecting is not there any more.
                    let _ = stream.send(vec![all]).await;
                });
            }
        });
        let received = world.block_on(b, async {
            let stream = loop {
                let patience = Duration::from_micros(random_u64() % 3_000_000);
                match timeout(patience, TcpStream::connect(on_a(7))).await {
                    Ok(Ok(stream)) => break stream,
                    // Nobody listens yet, or it took too long.
                    Ok(Err(_)) | Err(_) => continue,
                }
            };
            let mut buf = BytesMut::new();
            loop {
                let patience = Duration::from_micros(random_u64() % 300);
                match timeout(patience, stream.recv(&mut buf)).await {
                    Ok(Ok(0)) => return buf,
                    Ok(result) => assert!(result.unwrap() > 0),
                    Err(_) => {}
                }
            }
        });
        assert_eq!(received.len(), 20_000, "seed {seed}");
        assert!(
            received
                .iter()
                .enumerate()
                .all(|(i, byte)| (i % 251) as u8 == *byte)
        );
        assert_eq!(
            (world.descriptors(b), world.operations(b)),
            (0, 0),
            "seed {seed}"
        );
        let only_listens = |world: &World| world.descriptors(a) == 1;
        world
            .run_until(10 * SECOND, only_listens)
            .unwrap_or_else(|_| {
                panic!(
                    "seed {seed}: {} descriptors are left open",
                    world.descriptors(a)
                )
            });
        world.kill(a);
        assert_eq!(
            (world.descriptors(a), world.operations(a)),
            (0, 0),
            "seed {seed}"
        );
    }
}

/// Nothing of a look stays behind but its waker: what comes later is there for the next.
#[test]
fn whoever_looked_for_bytes_is_woken_when_they_come() {
    for seed in 0..20 {
        let (mut world, a, b) = two_nodes(seed);
        world.start(a, async {
            let (stream, _) = listen(7).await.accept().await.unwrap();
            for part in [&b"one"[..], b"two"] {
                sleep(SECOND).await;
                stream.send(vec![Bytes::from(part)]).await.unwrap();
            }
        });
        let received = world.block_on(b, async {
            sleep(MILLISECOND).await;
            let stream = TcpStream::connect(on_a(7)).await.unwrap();
            let mut received = BytesMut::new();
            let look = |buf: &mut BytesMut| {
                let (stream, mut buf) = (stream.clone(), std::mem::take(buf));
                async move {
                    let end = std::future::poll_fn(|cx| stream.poll_recv(cx, &mut buf)).await;
                    (end, buf)
                }
            };
            loop {
                let (end, buf) = look(&mut received).await;
                received = buf;
                if end.unwrap() == 0 {
                    return received;
                }
            }
        });
        assert_eq!(received, "onetwo", "seed {seed}");
    }
}
