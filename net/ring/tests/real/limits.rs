//! At the limits: tiny rings and buffers, empty and huge operations, tasks that never rest.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    DIRECT_ALIGNMENT, Features, File, OpenOptions, RingConfig, Shutdown, TcpStream, UdpSocket,
    direct_buffer, fs, run, spawn, timeout,
};

use super::{any, echo, folder, pair, pattern, ring};

/// Sends a pattern through an echo and checks what comes back.
async fn trip(client: TcpStream, len: usize, salt: u64) {
    let sent = pattern(len, salt);
    let sending = {
        let (client, sent) = (client.clone(), sent.clone());
        spawn(async move {
            let pieces = sent.chunks(1 + salt as usize * 997);
            let bufs = pieces.map(|piece| sent.slice_ref(piece)).collect();
            client.send(bufs).await.unwrap();
            client.shutdown(Shutdown::Write).await.unwrap();
        })
    };
    let mut back = BytesMut::new();
    while client.recv(&mut back).await.unwrap() > 0 {}
    sending.await.unwrap();
    assert!(back == sent, "stream {salt} came back changed");
}

async fn trips(streams: u64, len: usize) {
    let mut clients = Vec::new();
    for salt in 0..streams {
        let (client, server) = pair().await;
        spawn(echo(server));
        clients.push(spawn(trip(client, len, salt)));
    }
    for client in clients {
        client.await.unwrap();
    }
}

/// Bundles wrap around the ring of buffers, run it empty, and take turns between sockets.
#[test]
fn few_and_small_buffers_mix_no_streams() {
    for recv_bundle in [true, false] {
        for (recv_buffers, recv_buffer_bytes) in [(1, 4096), (2, 64), (4, 1000), (8, 100)] {
            let config = RingConfig {
                recv_buffers,
                recv_buffer_bytes,
                pin: false,
                features: Features {
                    recv_bundle,
                    ..Features::ALL
                },
                ..RingConfig::default()
            };
            run(config, trips(12, 20_000)).unwrap();
        }
    }
}

/// The submission queue is full at every turn, and the completion queue runs over.
#[test]
fn a_ring_of_four_entries_serves_many() {
    let dir = folder("four");
    let config = RingConfig {
        entries: 4,
        pin: false,
        ..RingConfig::default()
    };
    run(config, async {
        let content = pattern(100_000, 5);
        fs::write_atomic(dir.join("f"), vec![content.clone()])
            .await
            .unwrap();
        let file = File::open(dir.join("f"), OpenOptions::new().read(true).write(true));
        let file = file.await.unwrap();
        let reads: Vec<_> = (0..300u64)
            .map(|i| {
                let (file, content) = (file.clone(), content.clone());
                spawn(async move {
                    let bytes = file.read_exact_at(i * 300, 300).await.unwrap();
                    assert!(bytes == content[i as usize * 300..][..300]);
                    file.write_at_sync(i * 300, vec![bytes]).await.unwrap();
                })
            })
            .collect();
        trips(40, 10_000).await;
        for read in reads {
            read.await.unwrap();
        }
        assert!(file.read_at(0, 200_000).await.unwrap() == content);
    })
    .unwrap();
}

#[test]
fn nothing_at_all_is_a_valid_operation() {
    let dir = folder("nothing");
    ring(async {
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = File::open(dir.join("f"), options).await.unwrap();
        file.write_at(5, vec![]).await.unwrap();
        file.write_at_sync(5, vec![Bytes::new(), Bytes::new()])
            .await
            .unwrap();
        assert_eq!(file.len().await.unwrap(), 0);
        assert_eq!(file.read_at(0, 0).await.unwrap(), "");
        assert_eq!(file.read_at(0, 10).await.unwrap(), "");
        let (client, server) = pair().await;
        server.send(vec![]).await.unwrap();
        server.send(vec![Bytes::new()]).await.unwrap();
        server.send_file(&file, 0, 0).await.unwrap();
        server.send(vec![Bytes::from_static(b"x")]).await.unwrap();
        let mut buf = BytesMut::new();
        assert_eq!(client.recv(&mut buf).await.unwrap(), 1);
        let (a, b) = (
            UdpSocket::bind(any()).await.unwrap(),
            UdpSocket::bind(any()).await.unwrap(),
        );
        a.send_to(vec![], b.local_addr().unwrap()).await.unwrap();
        let (got, _) = b.recv_from(BytesMut::with_capacity(10)).await;
        assert_eq!(got.unwrap(), (0, a.local_addr().unwrap()));
    });
}

/// More buffers than one system call takes; a datagram cannot go on with the next.
#[test]
fn a_datagram_of_thousands_of_buffers_arrives_whole() {
    ring(async {
        let (a, b) = (
            UdpSocket::bind(any()).await.unwrap(),
            UdpSocket::bind(any()).await.unwrap(),
        );
        let (sent, to) = (pattern(3_000, 6), b.local_addr().unwrap());
        let bytes: Vec<_> = (0..sent.len()).map(|at| sent.slice(at..=at)).collect();
        let whole = a.send_to(bytes.clone(), to).await;
        let train = a.send_segments_to(bytes, 1_400, to).await;
        assert_eq!((whole.unwrap(), train.unwrap()), (3_000, 3_000));
        let mut got = BytesMut::new();
        for _ in 0..4 {
            let (_, part) = b.recv_from(BytesMut::with_capacity(4_000)).await;
            got.extend_from_slice(&part);
        }
        assert!(got == [&sent[..], &sent[..]].concat());
    });
}

/// More than the kernel's 31 bits can count in one call, and a buffer cut where they end.
#[test]
fn a_write_of_several_gigabytes_goes_on_where_it_was_cut() {
    ring(async {
        // Never touched, so never there.
        let large = Bytes::from(vec![0; 700 << 20]);
        let null = File::open("/dev/null", OpenOptions::new().write(true));
        let null = null.await.unwrap();
        null.write_at(0, vec![large; 5]).await.unwrap();
        let one = Bytes::from(vec![0; 5 << 30]);
        null.write_at(0, vec![one]).await.unwrap();
    });
}

/// A task that is always ready gets its share, and the ring gets the rest.
#[test]
fn a_task_that_never_rests_starves_nobody() {
    ring(async {
        let polls = Rc::new(Cell::new(0u64));
        let count = polls.clone();
        let busy = spawn(std::future::poll_fn(move |cx| {
            count.set(count.get() + 1);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let (client, server) = pair().await;
        spawn(echo(server));
        timeout(Duration::from_secs(20), trip(client, 1 << 20, 1))
            .await
            .expect("the ring starves");
        assert!(polls.get() > 1000);
        busy.abort();
    });
}

/// A child must not inherit the ring's memory, nor must its birth disturb it.
#[test]
fn a_child_process_does_not_disturb_the_ring() {
    ring(async {
        let (client, server) = pair().await;
        spawn(echo(server));
        for round in 0..5u8 {
            client
                .send(vec![Bytes::from(vec![round; 5000])])
                .await
                .unwrap();
            assert!(
                std::process::Command::new("true")
                    .status()
                    .unwrap()
                    .success()
            );
            let mut back = BytesMut::new();
            while back.len() < 5000 {
                client.recv(&mut back).await.unwrap();
            }
            assert!(back.iter().all(|byte| *byte == round));
        }
    });
}

/// Also where the file's end is no multiple of anything.
#[test]
fn files_are_read_around_the_page_cache() {
    let path = folder("direct").join("f");
    ring(async {
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = File::open(&path, options).await.unwrap();
        let content = pattern(3 * DIRECT_ALIGNMENT + 77, 1);
        file.write_at(0, vec![content.clone()]).await.unwrap();
        let options = OpenOptions::new().read(true).direct(true);
        let direct = match File::open(&path, options).await {
            // not all file systems can
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            opened => opened.unwrap(),
        };
        for (from, len) in [(0, 1 << 20), (DIRECT_ALIGNMENT, DIRECT_ALIGNMENT)] {
            let (read, bytes) = direct.read_into(from as u64, direct_buffer(len), len).await;
            let end = content.len().min(from + len);
            assert_eq!(read.unwrap(), end - from);
            assert!(bytes == content[from..end]);
        }
    });
}
